//! [`CachedVerifier`]: a verifier that remembers the tokens which another one has verified.
//!
//! ```text
//! token -> hash of its length and last 32 bytes, keyed at random -> set -> up to 8 entries
//!       -> compared as a whole
//! ```
//!
//! - **Bounded.** The table is cut into sets of equal size, and each keeps to its own share of the
//!   memory. No look-up ever compares with more than 8 tokens, whatever tokens an attacker may
//!   make.
//! - **Readers take no lock and write little.** What every hit must write is the
//!   count of hits, of which there is one per processor, and the reference count of the token it
//!   gives out, and a token that is used a lot has one per lane (about: per processor), so that
//!   threads do not contend for either.
//! - **A flood of new tokens evicts none that is in use.**
//! - **No single flight.** Threads that see the same new token at the same moment each verify it.
//!   That is at most one check per thread and token; to wait for one another would block the
//!   threads on which all other requests run.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::available_parallelism;

use arc_swap::ArcSwapOption;

use super::{CrateOnly, TokenError, TokenErrorKind, TokenProfile, TokenVerifier, bearer};
use crate::samples::{Metric, Samples};
use crate::stripes::Stripes;
use crate::verified::VerifiedToken;

/// Default of [`CachedVerifier::with_capacity`]: room for ten to twenty thousand common tokens.
pub(crate) const DEFAULT_CAPACITY: usize = 32 * 1024 * 1024;

/// Entries per set. Fewer, and tokens that meet by chance push each other out; more, and a miss
/// takes longer.
const WAYS: usize = 8;

/// Memory per set: 8 tokens of common size with their claims, or one that is as long as a header
/// field may be.
const SET_BYTES: usize = 16 * 1024;

/// Most lanes. With more processors than this, some share a reference count.
const MAX_LANES: usize = 16;

/// What the allocator adds to an entry, which has seven allocations.
const ALLOCATOR_BYTES: usize = 7 * 16;

/// A verifier that verifies each token once, and remembers it while it is in use.
///
/// A signature check costs 1 to 100 µs; finding a token here costs about 0.1 µs. The cache
/// remembers the outcome of the signature check and of everything that depends on the token alone.
/// At every use, `exp`, `nbf` and `iat` are checked again by the clock of the
/// [profile](TokenVerifier::profile), and the revocation store is asked. Refused tokens are not
/// remembered. When keys or rules change ([`TokenVerifier::generation`]), everything is verified
/// anew.
///
/// It keeps whole tokens, because only the whole token tells whether it is the same. It never shows
/// them. It does not wipe them from memory, because the buffers of the HTTP server hold them as
/// well.
///
/// ```
/// use tower_jwt_revocation::token::TokenVerifier;
/// use tower_jwt_revocation::CachedVerifier;
///
/// # fn f(verifier: impl TokenVerifier) {
/// let verifier = CachedVerifier::new(verifier).with_capacity(8 * 1024 * 1024);
/// # }
/// ```
pub struct CachedVerifier<V> {
    inner: V,
    capacity: usize,
    table: CacheTable,
    hits: Stripes<AtomicU64>,
    /// A signature was checked for each.
    misses: AtomicU64,
}

impl<V: TokenVerifier> CachedVerifier<V> {
    /// Remembers what `inner` accepts, in at most 32 MiB.
    pub fn new(inner: V) -> Self {
        Self {
            inner,
            capacity: DEFAULT_CAPACITY,
            table: CacheTable::new(DEFAULT_CAPACITY),
            hits: Stripes::new(),
            misses: AtomicU64::new(0),
        }
    }

    /// The most memory that it may take, in bytes; default 32 MiB, some 10 000 to 20 000 common
    /// tokens. It is allocated as tokens come.
    ///
    /// A common token takes 1.5 to 3 KiB, claims included. A token that takes over 16 KiB is not
    /// remembered. With a capacity below that, nothing may fit.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self.table = CacheTable::new(bytes);
        self
    }

    /// A remembered token, and whether it can stand after `Bearer`.
    fn find(&self, token: &[u8]) -> Option<(Arc<VerifiedToken>, bool)> {
        let found = self.table.find(self.table.hash(token), token, self.inner.generation());
        if found.is_some() {
            self.hits.add_one();
        }
        found
    }

    /// What has been remembered, checked again; `None` if it was verified by rules that are no
    /// longer those of its issuer, so that it has to be verified anew.
    fn checked_again(
        &self,
        known: Arc<VerifiedToken>,
    ) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        match self.profile().check_times(&known) {
            Ok(()) => Some(Ok(known)),
            Err(error) if error.kind() == TokenErrorKind::WrongIssuer => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// The verifier that does the work.
    pub fn inner(&self) -> &V {
        &self.inner
    }
}

impl<V: TokenVerifier> TokenVerifier for CachedVerifier<V> {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let known = self.find(token.as_bytes()).and_then(|(known, _)| self.checked_again(known));
        known.unwrap_or_else(|| self.verify_uncached(token, CrateOnly))
    }

    /// Not cached: it is not on the path of requests.
    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.inner.verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        self.inner.profile()
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        samples.add_count(Metric::CacheHits, &[], self.hits.sum());
        samples.add_count(Metric::CacheMisses, &[], self.misses.load(Ordering::Relaxed));
        self.inner.add_metrics(samples);
    }

    /// Only tokens that can stand after `Bearer`: others may have come from elsewhere, or from a
    /// verifier that takes anything.
    fn cached(
        &self,
        credentials: &[u8],
        _: CrateOnly,
    ) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        let (known, is_bearer) = self.find(credentials)?;
        if is_bearer { self.checked_again(known) } else { None }
    }

    fn verify_uncached(
        &self,
        token: &str,
        seal: CrateOnly,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        // Read before the token is verified: if the keys change meanwhile, the entry counts as one
        // of the old keys.
        self.misses.fetch_add(1, Ordering::Relaxed);
        let generation = self.inner.generation();
        let verified = self.inner.verify_uncached(token, seal)?;
        let hash = self.table.hash(token.as_bytes());
        let new_entry = NewEntry { hash, token, generation, verified: &verified };
        self.table.add(&new_entry, |token| self.profile().check_times(token).is_ok());
        Ok(verified)
    }

    fn refused_at_sight(&self, credentials: &[u8], seal: CrateOnly) -> Option<TokenError> {
        self.inner.refused_at_sight(credentials, seal)
    }

    fn verify_to_revoke(
        &self,
        token: &str,
        seal: CrateOnly,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        self.inner.verify_to_revoke(token, seal)
    }
}

impl<V: fmt::Debug> fmt::Debug for CachedVerifier<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedVerifier")
            .field("inner", &self.inner)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

// === The table ===

struct CacheTable {
    hasher: RandomState,
    seeds: [u64; 4],
    sets: Box<[CacheSet]>,
    /// What the entries of one set may weigh.
    set_bytes: usize,
    lanes: Arc<Lanes>,
}

impl CacheTable {
    fn new(capacity: usize) -> Self {
        let lanes = Lanes::new(available_parallelism().map_or(1, NonZeroUsize::get), capacity / 8);
        let capacity = capacity - lanes.budget();
        let sets = (capacity / SET_BYTES).max(1);
        let hasher = RandomState::new();
        Self {
            seeds: [0, 1, 2, 3].map(|n: u64| hasher.hash_one(n)),
            hasher,
            set_bytes: (capacity / sets).saturating_sub(size_of::<CacheSet>()),
            sets: (0..sets).map(|_| CacheSet::default()).collect(),
            lanes: Arc::new(lanes),
        }
    }

    /// Keyed at random, so that nobody can aim at a set. The last bytes of a token are those of its
    /// signature, which differ where anything differs; if they do not, as with a verifier that
    /// checks no signature, the tokens meet in one set and no harm is done to the others.
    fn hash(&self, token: &[u8]) -> u64 {
        let Some(end) = token.last_chunk::<32>() else { return self.hasher.hash_one(token) };
        let [a, b, c, d] = words(end);
        let [seed_a, seed_b, seed_c, seed_d] = self.seeds;
        let (one, other) = (folded(a ^ seed_a, b ^ seed_b), folded(c ^ seed_c, d ^ seed_d));
        folded(one ^ token.len() as u64, other ^ GOLDEN)
    }

    /// The set that a hash falls into, by its upper bits.
    fn set(&self, hash: u64) -> Option<&CacheSet> {
        let index = (u128::from(hash) * self.sets.len() as u128) >> 64;
        self.sets.get(usize::try_from(index).ok()?)
    }

    /// The token, and whether it can stand after `Bearer`.
    fn find(&self, hash: u64, token: &[u8], generation: u64) -> Option<(Arc<VerifiedToken>, bool)> {
        self.set(hash)?
            .slots
            .iter()
            .filter(|slot| slot.hash.load(Ordering::Relaxed) == hash)
            .find_map(|slot| {
                // The hash is a hint, which another thread may be about to change. The token is
                // what counts.
                let entry = slot.entry.load();
                let entry = entry.as_ref().filter(|entry| entry.is(token, generation))?;
                Some((entry.share(slot.count_use(), &self.lanes), entry.is_bearer))
            })
    }

    /// Adds a token if it deserves a place.
    fn add(&self, new: &NewEntry<'_>, is_good: impl Fn(&VerifiedToken) -> bool) {
        let Some(set) = self.set(new.hash) else { return };
        // Without waiting: if another thread writes to the set, the token is added when it is next
        // seen.
        let Ok(mut occupancy) = set.occupancy.try_lock() else { return };
        set.add(&mut occupancy, new, self.set_bytes, is_good);
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Both halves of the product, which of the bits of each factor leaves none as it was.
#[expect(clippy::cast_possible_truncation, reason = "the two halves are folded")]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product >> 64) as u64 ^ product as u64
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// A few entries whose hashes fall together.
#[derive(Default)]
struct CacheSet {
    slots: [CacheSlot; WAYS],
    occupancy: Mutex<Occupancy>,
}

/// The place of an entry. Readers look here first, so that they touch no entry but the one they
/// want.
#[derive(Default)]
struct CacheSlot {
    hash: AtomicU64,
    uses: AtomicU8,
    entry: ArcSwapOption<CacheEntry>,
}

/// What writers need to choose a place, so that they touch none of the entries that stay.
#[derive(Default)]
struct Occupancy {
    rows: [Option<Occupant>; WAYS],
    /// 32 bits of the hash of each of the last four tokens that were refused a place: with fewer, a
    /// flood of thousands would meet some by chance.
    refused: [u32; 4],
}

#[derive(Clone, Copy)]
struct Occupant {
    weight: usize,
    generation: u64,
}

/// A verified token that is to be remembered.
struct NewEntry<'a> {
    hash: u64,
    token: &'a str,
    generation: u64,
    verified: &'a Arc<VerifiedToken>,
}

impl CacheSet {
    /// Finds a place for a token, or refuses it and remembers that.
    fn add(
        &self,
        occupancy: &mut Occupancy,
        new: &NewEntry<'_>,
        set_bytes: usize,
        is_good: impl Fn(&VerifiedToken) -> bool,
    ) {
        let weight = new.weight();
        if weight > set_bytes || self.holds(new) {
            return;
        }
        let was_refused = occupancy.was_refused(new.hash);
        let mut rows = occupancy.rows;
        while rows.iter().all(Option::is_some)
            || rows.iter().flatten().map(|row| row.weight).sum::<usize>() + weight > set_bytes
        {
            match self.evicted(&rows, new, was_refused, &is_good).and_then(|at| rows.get_mut(at)) {
                Some(row) => *row = None,
                None => return occupancy.remember_refused(new.hash),
            }
        }
        let mut new_entry = Some(new);
        for ((slot, row), after) in self.slots.iter().zip(&mut occupancy.rows).zip(rows) {
            match new_entry.take_if(|_| after.is_none()) {
                Some(new) => {
                    slot.put(new);
                    *row = Some(Occupant { weight, generation: new.generation });
                }
                None if after.is_none() && row.is_some() => {
                    slot.clear();
                    *row = None;
                }
                None => {}
            }
        }
    }

    /// Which of the entries in `rows` is evicted for `new`.
    ///
    /// First those of another generation, then those that were not used since they came. One that
    /// was used is evicted only for a token that was refused before: at once if it is no longer
    /// good, else not yet. Each such attempt takes a use from the least used one; with its last use
    /// it
    /// goes. So tokens that are seen once, however many, push out none that was ever used; tokens
    /// that come back must come more often than those that they push out; and what is used no more
    /// fades.
    fn evicted(
        &self,
        rows: &[Option<Occupant>; WAYS],
        new: &NewEntry<'_>,
        was_refused: bool,
        is_good: impl Fn(&VerifiedToken) -> bool,
    ) -> Option<usize> {
        let all = || {
            let slots = self.slots.iter().zip(rows).enumerate();
            slots.filter_map(|(at, (slot, row))| Some((at, slot, row.as_ref()?)))
        };
        let unused = || all().filter(|(_, slot, _)| slot.uses() == 0);
        all()
            .find(|(_, _, row)| row.generation != new.generation)
            // One at random. If it were the oldest, tokens that come in turns, one more than there
            // is room for, would all be pushed out just before they come again.
            .or_else(|| unused().nth(low_bits(new.hash) as usize % unused().count().max(1)))
            .or_else(|| all().find(|(_, slot, _)| was_refused && !slot.is_good(&is_good)))
            .or_else(|| {
                let least = all().min_by_key(|(_, slot, _)| slot.uses());
                least.filter(|(_, slot, _)| was_refused && slot.fade() == 0)
            })
            .map(|(at, _, _)| at)
    }

    /// Whether another thread was faster.
    fn holds(&self, new: &NewEntry<'_>) -> bool {
        let mut entries =
            self.slots.iter().filter(|slot| slot.hash.load(Ordering::Relaxed) == new.hash);
        entries.any(|slot| {
            slot.entry
                .load()
                .as_ref()
                .is_some_and(|entry| entry.is(new.token.as_bytes(), new.generation))
        })
    }
}

impl CacheSlot {
    /// From here on uses are no longer counted, so that hits write nothing that other threads read.
    const MANY_USES: u8 = 15;

    fn uses(&self) -> u8 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Counts one use more and says whether there have been many. Two threads at once may count as
    /// one.
    fn count_use(&self) -> bool {
        let uses = self.uses();
        if uses < Self::MANY_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
        uses >= Self::MANY_USES
    }

    /// Takes one use away and says how many are left.
    fn fade(&self) -> u8 {
        let left = self.uses().saturating_sub(1);
        self.uses.store(left, Ordering::Relaxed);
        left
    }

    fn is_good(&self, is_good: impl Fn(&VerifiedToken) -> bool) -> bool {
        self.entry.load().as_ref().is_some_and(|entry| is_good(&entry.verified))
    }

    fn put(&self, new: &NewEntry<'_>) {
        self.entry.store(Some(Arc::new(new.to_entry())));
        self.uses.store(0, Ordering::Relaxed);
        self.hash.store(new.hash, Ordering::Relaxed);
    }

    fn clear(&self) {
        self.hash.store(0, Ordering::Relaxed);
        self.entry.store(None);
    }
}

impl Occupancy {
    fn was_refused(&self, hash: u64) -> bool {
        self.refused.contains(&low_bits(hash))
    }

    fn remember_refused(&mut self, hash: u64) {
        if !self.was_refused(hash) {
            let [a, b, c, _] = self.refused;
            self.refused = [low_bits(hash), a, b, c];
        }
    }
}

impl NewEntry<'_> {
    /// All memory that the entry will take, its copies aside, which have a budget of their own.
    fn weight(&self) -> usize {
        size_of::<CacheEntry>() + self.token.len() + self.verified.weight() + ALLOCATOR_BYTES
    }

    fn to_entry(&self) -> CacheEntry {
        CacheEntry {
            generation: self.generation,
            token: self.token.as_bytes().into(),
            is_bearer: bearer::token68(self.token.as_bytes()).is_ok(),
            verified: Arc::clone(self.verified),
            copies: OnceLock::new(),
        }
    }
}

/// The lower bits of a hash: the upper ones are the same for all that meet in a set.
#[expect(clippy::cast_possible_truncation, reason = "the rest is not wanted")]
fn low_bits(hash: u64) -> u32 {
    hash as u32
}

// === An entry ===

struct CacheEntry {
    generation: u64,
    token: Box<[u8]>,
    /// Whether it can stand after `Bearer`.
    is_bearer: bool,
    verified: Arc<VerifiedToken>,
    copies: OnceLock<Copies>,
}

impl CacheEntry {
    fn is(&self, token: &[u8], generation: u64) -> bool {
        self.generation == generation && *self.token == *token
    }

    /// The token for one more use. If it is used a lot, from a copy that only threads of the same
    /// lane give out.
    fn share(&self, is_used_a_lot: bool, lanes: &Arc<Lanes>) -> Arc<VerifiedToken> {
        if is_used_a_lot
            && self.copies.get().is_none()
            && let Some(copies) = Copies::new(lanes)
        {
            // Another thread may have been first; then these are dropped.
            _ = self.copies.set(copies);
        }
        Arc::clone(self.copies.get().map_or(&self.verified, |copies| copies.mine(&self.verified)))
    }
}

// === Lanes ===

/// How many reference counts a much used token has, and how much memory may still be given to them.
struct Lanes {
    count: usize,
    free_bytes: AtomicUsize,
}

/// The copies of one token, one per lane, made when they are first wanted.
struct Copies {
    of_lanes: Box<[OnceLock<Arc<VerifiedToken>>]>,
    lanes: Arc<Lanes>,
}

impl Lanes {
    fn new(processors: usize, budget: usize) -> Self {
        // One thread has nobody to contend with.
        let (count, budget) =
            if processors < 2 { (1, 0) } else { (processors.min(MAX_LANES), budget) };
        Self { count, free_bytes: AtomicUsize::new(budget) }
    }

    fn budget(&self) -> usize {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// What the copies of one token take.
    fn bytes_per_token(&self) -> usize {
        let copy = size_of::<OnceLock<Arc<VerifiedToken>>>()
            + size_of::<VerifiedToken>()
            + 2 * size_of::<usize>()
            + 16;
        size_of::<Copies>() + self.count * copy
    }

    /// The lane of this thread. Threads get theirs in turn.
    fn mine(&self) -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        MINE.with(|mine| mine % self.count)
    }
}

impl Copies {
    /// Room for the copies of one token, if there is any left.
    fn new(lanes: &Arc<Lanes>) -> Option<Self> {
        let bytes = lanes.bytes_per_token();
        lanes
            .free_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes))
            .ok()?;
        Some(Self {
            of_lanes: (0..lanes.count).map(|_| OnceLock::new()).collect(),
            lanes: Arc::clone(lanes),
        })
    }

    /// The copy of the lane of this thread.
    fn mine<'a>(&'a self, verified: &'a Arc<VerifiedToken>) -> &'a Arc<VerifiedToken> {
        match self.of_lanes.get(self.lanes.mine()) {
            Some(copy) => copy.get_or_init(|| Arc::new(VerifiedToken::clone(verified))),
            None => verified,
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.lanes.free_bytes.fetch_add(self.lanes.bytes_per_token(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
