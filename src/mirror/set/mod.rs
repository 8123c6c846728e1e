//! The set of what is revoked, in the memory of this process.
//!
//! **Readers** take no lock and allocate nothing: one guard on the directory for all targets of a
//! token, then about one cache miss for each. **Writers** take turns under a lock that no reader
//! knows. They fill empty slots in place; a shard that is full, or holds much that is over, is
//! built anew aside and swapped in with a new directory. There are so many shards that this takes
//! microseconds.
//!
//! A look-up mistakes one fingerprint for another with a probability of about 3 in 2⁴⁸, and then
//! refuses. Of two revocations that cannot be told apart, which share 58 bits, a reinstatement of
//! one undoes both, because their slot becomes a mark. By chance that takes as rare a pair. Nobody
//! can aim at it but who chooses both ids: without the seed he needs two that share the first 64
//! bits, about 2³² hashes.

// | module | what it is |
// | --- | --- |
// | `plain` | what is revoked for good: eight bytes each, under 58 bits of the fingerprint |
// | `detail` | cutoffs, reinstatements, distant ends: a cache line each, under the whole fingerprint |
// | `recent` | the latest facts with all their numbers |

mod detail;
mod plain;
mod recent;

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;

use detail::DetailTable;
pub(super) use detail::SetVerdict;
pub(super) use plain::is_kept_until;
use plain::{Expiry, FingerprintTail, Inserted, PlainHit, PlainTable, SLOTS, SetTime};
use recent::RecentFacts;

use super::sync::{
    ArcSwap, AtomicUsize, Guard, Mutex, MutexGuard, Ordering, PoisonError, RandomState,
};
use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};

/// As a power of two. A shard of a set of ten millions holds ten thousand.
const SHARD_BITS: u32 = 10;
pub(super) const SHARDS: usize = 1 << SHARD_BITS;

/// Per cent of the slots that are filled before a shard grows, and right after.
const FULL: usize = 85;
const ROOMY: usize = 68;
/// The same for details.
const DETAILS_FULL: usize = 75;
const DETAILS_ROOMY: usize = 60;

/// After which what is over is forgotten, however little it is.
const OVERDUE: Duration = Duration::from_secs(60 * 60);

/// Facts that are written in one turn of the lock, so that nobody waits for it long.
const TURN: usize = 256;

/// Odd, so that the key and the first word of the fingerprint are in one-to-one correspondence.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
/// By which it is undone: each of Newton's steps doubles the bits that are right, which are three
/// at first.
const INVERSE: u64 = {
    let mut inverse = FACTOR;
    let mut step = 0;
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(FACTOR.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
};

/// The 58 bits by which a plain entry is known: ten choose the shard, 48 are its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u64);

impl Key {
    /// The seed differs from process to process, so that nobody can aim at a shard or a line.
    #[inline]
    fn new(fingerprint: &Fingerprint, seed: u64) -> Self {
        let (high, _) = fingerprint.words();
        Self((high ^ seed).wrapping_mul(FACTOR))
    }

    /// The fingerprint that has this tag in this shard, and this tail.
    fn fingerprint(shard: usize, tag: u64, tail: FingerprintTail, seed: u64) -> Fingerprint {
        let key = (shard as u64) << (64 - SHARD_BITS)
            | tag << (64 - SHARD_BITS - 48)
            | u64::from(tail.six);
        let high = key.wrapping_mul(INVERSE) ^ seed;
        Fingerprint::from_bytes(((u128::from(high) << 64) | u128::from(tail.low)).to_be_bytes())
    }

    /// A key of the shard that the tag came from.
    fn from_tag(tag: u64) -> Self {
        Self(tag << (64 - SHARD_BITS - 48))
    }

    /// What the shard and the tag do not say of the fingerprint.
    fn tail(self, fingerprint: &Fingerprint) -> FingerprintTail {
        let [.., six] = self.0.to_be_bytes();
        FingerprintTail { six: six & 0x3F, low: fingerprint.words().1 }
    }

    #[inline]
    fn shard(self) -> usize {
        (self.0 >> (64 - SHARD_BITS)) as usize
    }

    #[inline]
    fn tag(self) -> u64 {
        self.0 << SHARD_BITS >> 16
    }

    /// A place below `len`, by the tag.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the upper half of the tag is 32 bits")]
    fn spread(self, len: usize) -> usize {
        spread((self.tag() >> 16) as u32, len)
    }
}

/// A place below `len`, which is below 2³².
#[inline]
fn spread(hash: u32, len: usize) -> usize {
    ((u64::from(hash) * len as u64) >> 32) as usize
}

/// The set.
#[derive(Debug)]
pub(super) struct RevocationSet {
    /// Up to so many entries, the tails of their fingerprints are kept.
    full_fingerprints: usize,
    directory: ArcSwap<Directory>,
    writer: Mutex<WriterState>,
    seed: u64,
    entries: AtomicUsize,
    details: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Directory {
    shards: Box<[Shard]>,
}

#[derive(Clone, Debug)]
struct Shard {
    plain: Arc<PlainTable>,
    details: Arc<DetailTable>,
}

impl Shard {
    /// Slots that are needed: of what is not over, and of the marks that lead to details.
    fn live(&self, time: SetTime) -> usize {
        self.plain.live(time) + self.details.entries().count()
    }
}

/// What only writers need to know.
#[derive(Debug)]
struct WriterState {
    /// Slots and entries in use, shard by shard.
    plain: Box<[usize]>,
    details: Box<[usize]>,
    recent: RecentFacts,
    /// The latest time at which anything was written or swept.
    latest: Timestamp,
}

/// How large the set is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SetSize {
    pub(super) entries: usize,
    pub(super) details: usize,
    pub(super) bytes: usize,
}

/// The facts of one shard of the set.
#[derive(Debug, Default)]
pub(super) struct KnownFacts {
    pub(super) facts: Vec<(Fingerprint, Fact)>,
    /// How many further revocations there are whose whole fingerprints are not known.
    pub(super) unidentified: usize,
}

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FactSource {
    /// The log of writes, or the receipt of a write: all its numbers are known.
    Write,
    /// A snapshot, which does not say when.
    Snapshot,
}

impl RevocationSet {
    pub(super) fn new(recent: usize, full_fingerprints: usize) -> Self {
        let empty = Shard {
            plain: Arc::new(PlainTable::with_lines(0, false)),
            details: Arc::new(DetailTable::with_room(0, false)),
        };
        let directory = Directory { shards: vec![empty; SHARDS].into() };
        let set = Self {
            full_fingerprints,
            directory: ArcSwap::from_pointee(directory),
            writer: Mutex::new(WriterState {
                plain: vec![0; SHARDS].into(),
                details: vec![0; SHARDS].into(),
                recent: RecentFacts::new(recent),
                latest: Timestamp::ZERO,
            }),
            seed: RandomState::new().hash_one(0),
            entries: AtomicUsize::new(0),
            details: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        let fixed = SHARDS * (size_of::<Shard>() + 2 * size_of::<usize>()) + size_of::<Self>();
        set.bytes.store(fixed, Ordering::Relaxed);
        set
    }

    /// A view for the look-ups of one token.
    #[inline]
    pub(super) fn read(&self) -> SetReader<'_> {
        SetReader { set: self, directory: self.directory.load() }
    }

    pub(super) fn size(&self) -> SetSize {
        SetSize {
            entries: self.entries.load(Ordering::Relaxed),
            details: self.details.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Takes in facts, whatever their order and however often they come. `now` must not be ahead of
    /// the clock of the store: what is over by then is left out.
    ///
    /// Returns those for which the set knows better than a snapshot can say: the caller has to find
    /// their facts and apply them.
    pub(super) fn apply(
        &self,
        facts: &[(Fingerprint, Fact)],
        source: FactSource,
        now: Timestamp,
    ) -> Vec<Fingerprint> {
        let mut unclear = Vec::new();
        for turn in facts.chunks(TURN) {
            let mut writer = self.writer(now);
            for (fingerprint, fact) in turn {
                if fact.until > now && !writer.enter(fingerprint, *fact, source) {
                    unclear.push(*fingerprint);
                }
            }
        }
        unclear
    }

    /// Makes room in one shard, for a set of this many entries: it saves growing step by step.
    pub(super) fn reserve(&self, shard: usize, entries: usize, now: Timestamp) {
        // Three standard deviations above the mean, so that few shards have to grow all the same.
        let mean = entries / SHARDS;
        let lines = (mean + 3 * mean.isqrt()) * 100 / FULL / SLOTS + 1;
        let mut writer = self.writer(now);
        if writer.plain(shard).is_some_and(|plain| plain.lines() < lines) {
            writer.rebuild_plain(shard, Some(lines), entries);
        }
    }

    /// Forgets what is over in one shard, if it is worth the trouble or an hour ago: until then it
    /// goes on refusing.
    pub(super) fn sweep(&self, shard: usize, now: Timestamp) {
        let mut writer = self.writer(now);
        // The details come first: the marks of those that are forgotten are needed no more.
        let Some(known) = writer.shard(shard) else { return };
        let (_, used) = writer.used(shard);
        let ends = || known.details.entries().map(|(_, fact)| fact.until);
        let live = ends().filter(|until| *until > now).count();
        if is_worth_it(used, live) || ends().any(|until| until.saturating_add(OVERDUE) <= now) {
            writer.rebuild_details(shard, None);
        }
        let Some(known) = writer.shard(shard) else { return };
        let (used, _) = writer.used(shard);
        let time = writer.time;
        if is_worth_it(used, known.live(time)) || known.plain.is_overdue(time) {
            writer.rebuild_plain(shard, None, 0);
        }
    }

    /// The latest facts that were written.
    pub(super) fn recent(&self) -> Vec<(Fingerprint, Fact)> {
        self.lock().recent.facts()
    }

    /// All that is known in one shard and is not over.
    pub(super) fn known(&self, shard: usize, now: Timestamp) -> KnownFacts {
        let writer = self.writer(now);
        let time = writer.time;
        let mut known = KnownFacts::default();
        let Some(tables) = writer.shard(shard) else { return known };
        for (key, expiry, tail) in tables.plain.entries_with_tails() {
            let Some(expiry) = expiry.filter(|expiry| !expiry.is_over(time)) else { continue };
            let Some(tail) = tail.filter(|tail| tail.is_unambiguous()) else {
                known.unidentified += 1;
                continue;
            };
            let fingerprint = Key::fingerprint(shard, key.tag(), tail, self.seed);
            let fact = Fact::revoked_until(expiry.end(time));
            // Of the latest it is known more exactly.
            let remembered = writer.state.recent.fact(&fingerprint).filter(Fact::is_plain);
            let exact = remembered.filter(|remembered| is_kept_until(remembered.until, fact.until));
            known.facts.push((fingerprint, exact.unwrap_or(fact)));
        }
        known.facts.extend(tables.details.entries().filter(|(_, fact)| fact.until > now));
        known
    }

    fn writer(&self, now: Timestamp) -> SetWriter<'_> {
        let mut state = self.lock();
        state.latest = state.latest.max(now);
        let time = SetTime { now, latest: state.latest };
        SetWriter { set: self, state, time, directory: self.directory.load_full() }
    }

    // Every step of a writer leaves a set that is right, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, WriterState> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_worth_it(used: usize, live: usize) -> bool {
    let over = used.saturating_sub(live);
    over > used / 8 || (over > 0 && live == 0)
}

// === impl SetReader ===

/// The set as it is now, for a few look-ups. Not to be kept: it holds on to tables that may have
/// been replaced.
pub(super) struct SetReader<'a> {
    set: &'a RevocationSet,
    directory: Guard<Arc<Directory>>,
}

impl SetReader<'_> {
    /// Which tokens of this target are revoked.
    #[inline]
    pub(super) fn verdict(&self, fingerprint: &Fingerprint) -> SetVerdict {
        let key = Key::new(fingerprint, self.set.seed);
        let Some(shard) = self.directory.shards.get(key.shard()) else { return SetVerdict::NONE };
        match shard.plain.find(key) {
            PlainHit::Absent => SetVerdict::NONE,
            PlainHit::All => SetVerdict::ALL,
            PlainHit::Detail => {
                let in_details = |details: &DetailTable| details.verdict(fingerprint);
                self.detail(shard, key, in_details, SetVerdict::NONE, SetVerdict::ALL)
            }
        }
    }

    /// Whether a token that this verdict covers is of the session that is spared.
    #[cold]
    pub(super) fn spares<'t>(
        &self,
        fingerprint: &Fingerprint,
        verdict: SetVerdict,
        session: impl FnOnce() -> Option<&'t Fingerprint>,
        issued_at: Option<Timestamp>,
    ) -> bool {
        if verdict == SetVerdict::ALL {
            return false;
        }
        let Some(session) = session() else { return false };
        let key = Key::new(fingerprint, self.set.seed);
        let Some(shard) = self.directory.shards.get(key.shard()) else { return false };
        let in_details = |details: &DetailTable| details.fact(fingerprint);
        // As it was when the verdict was read, or later.
        let fact = self.detail(shard, key, in_details, Fact::default(), Fact::default());
        !fact.spared.is_none() && !fact.covers_issued_at(issued_at, Some(session))
    }

    /// What `find` finds in the details; else that nothing is known, or that all tokens are
    /// revoked.
    #[cold]
    fn detail<T>(
        &self,
        shard: &Shard,
        key: Key,
        find: impl Fn(&DetailTable) -> Option<T>,
        nothing: T,
        all: T,
    ) -> T {
        if let Some(found) = find(&shard.details) {
            return found;
        }
        // The details may have been moved to a larger table since the directory was loaded, and the
        // mark made after.
        let mut seen = Arc::clone(&self.directory);
        loop {
            let newer = self.set.directory.load_full();
            if Arc::ptr_eq(&seen, &newer) {
                return nothing;
            }
            let Some(shard) = newer.shards.get(key.shard()) else { return nothing };
            match shard.plain.find(key) {
                PlainHit::Absent => return nothing,
                PlainHit::All => return all,
                PlainHit::Detail => {
                    if let Some(found) = find(&shard.details) {
                        return found;
                    }
                }
            }
            seen = newer;
        }
    }
}

// === impl SetWriter ===

/// Exclusive access for one turn of writing.
struct SetWriter<'a> {
    set: &'a RevocationSet,
    state: MutexGuard<'a, WriterState>,
    time: SetTime,
    directory: Arc<Directory>,
}

impl SetWriter<'_> {
    fn shard(&self, shard: usize) -> Option<Shard> {
        self.directory.shards.get(shard).cloned()
    }

    fn used(&self, shard: usize) -> (usize, usize) {
        let used = |of: &[usize]| of.get(shard).copied().unwrap_or_default();
        (used(&self.state.plain), used(&self.state.details))
    }

    /// Whether it could be entered; not if the set knows better than a snapshot can say.
    fn enter(&mut self, fingerprint: &Fingerprint, fact: Fact, source: FactSource) -> bool {
        let time = self.time;
        let key = Key::new(fingerprint, self.set.seed);
        match source {
            FactSource::Write => self.state.recent.note(fingerprint, fact),
            FactSource::Snapshot => self.state.recent.fill(fingerprint, fact),
        }
        let at = key.shard();
        // The store has forgotten what was over when this was written, and so must we: what it says
        // now is not to be joined with that.
        let then = time.now.max(fact.latest());
        let Some(shard) = self.directory.shards.get(at) else { return true };
        if let Some(entered) = shard.details.fact(fingerprint) {
            let is_over = entered.until <= then;
            let known = if is_over { Fact::default() } else { entered };
            if !is_over && source == FactSource::Snapshot && fact.is_plain() && !known.revokes_all()
            {
                return false;
            }
            let merged = known.merge(fact);
            if merged != known {
                let plain = Arc::clone(&shard.plain);
                if shard.details.can_take(&merged, Some(&entered)) {
                    shard.details.put(fingerprint, &merged);
                } else {
                    self.rebuild_details(at, Some((fingerprint, &merged)));
                }
                if is_over || merged.is_reinstated() {
                    plain.demote(key);
                }
            }
            return true;
        }
        if fact.is_plain()
            && let Some(expiry) = Expiry::new(fact.until, time)
        {
            self.make_room(at);
            let tail = Some(key.tail(fingerprint));
            let inserted = self.plain(at).map(|plain| plain.insert(key, expiry, tail, time));
            self.count_plain(at, inserted);
            return true;
        }
        let mut fact = fact;
        // It may have been said in eight bytes, which hold no time. If that time is not remembered,
        // it was before any reinstatement, because there had been none.
        let was_all = shard.plain.is_revoked_at(key, then, time);
        if was_all {
            let known = self
                .state
                .recent
                .fact(fingerprint)
                .map_or(Timestamp::ZERO, |known| known.all_revoked_at);
            fact.all_revoked_at = fact.all_revoked_at.max(known).max(Timestamp::from_millis(1));
        }
        self.make_room(at);
        self.make_room_for_details(at, (fingerprint, &fact));
        let Some(shard) = self.directory.shards.get(at) else { return true };
        if shard.details.put(fingerprint, &fact) {
            if let Some(used) = self.state.details.get_mut(at) {
                *used += 1;
            }
            self.set.details.fetch_add(1, Ordering::Relaxed);
        }
        // The mark comes last: whoever sees it finds the details.
        let inserted = shard.plain.mark_detail(key);
        if !was_all || fact.is_reinstated() {
            shard.plain.demote(key);
        }
        self.count_plain(at, Some(inserted));
        true
    }

    fn plain(&self, at: usize) -> Option<&PlainTable> {
        self.directory.shards.get(at).map(|shard| &*shard.plain)
    }

    fn count_plain(&mut self, shard: usize, inserted: Option<Inserted>) {
        if inserted == Some(Inserted::New) {
            if let Some(used) = self.state.plain.get_mut(shard) {
                *used += 1;
            }
            self.set.entries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes room for one slot more.
    fn make_room(&mut self, at: usize) {
        let (used, _) = self.used(at);
        let slots = self.plain(at).map_or(0, |plain| plain.lines() * SLOTS);
        if (used + 1) * 100 > slots * FULL {
            self.rebuild_plain(at, None, 0);
        }
    }

    /// Makes room for this record among the details, which is a new one there.
    fn make_room_for_details(&mut self, at: usize, next: (&Fingerprint, &Fact)) {
        let (_, used) = self.used(at);
        let room = self.directory.shards.get(at).map_or(0, |shard| shard.details.room());
        let is_full = (used + 1) * 100 > room * DETAILS_FULL;
        let takes_it = |shard: &Shard| shard.details.can_take(next.1, None);
        if is_full || !self.directory.shards.get(at).is_some_and(takes_it) {
            self.rebuild_details(at, Some(next));
        }
    }

    /// Builds the table of a shard anew, without what is over, in a set that will have so many
    /// entries or those it has.
    fn rebuild_plain(&mut self, at: usize, lines: Option<usize>, entries: usize) {
        let time = self.time;
        let Some(old) = self.shard(at) else { return };
        let needed = old.live(time) + 1;
        let lines = lines.unwrap_or(0).max(needed * 100 / ROOMY / SLOTS + 1);
        let entries = entries.max(self.set.entries.load(Ordering::Relaxed));
        let plain = PlainTable::with_lines(lines, entries <= self.set.full_fingerprints);
        let mut used = 0;
        for (key, expiry, tail) in old.plain.entries_with_tails() {
            if let Some(expiry) = expiry
                && !expiry.is_over(time)
                && plain.insert(key, expiry, tail, time) == Inserted::New
            {
                used += 1;
            }
        }
        for (fingerprint, _) in old.details.entries() {
            if plain.mark_detail(Key::new(&fingerprint, self.set.seed)) == Inserted::New {
                used += 1;
            }
        }
        account(&self.set.bytes, old.plain.bytes(), plain.bytes());
        if let Some(known) = self.state.plain.get_mut(at) {
            account(&self.set.entries, *known, used);
            *known = used;
        }
        self.publish(at, Shard { plain: Arc::new(plain), details: old.details });
    }

    /// Builds the details of a shard anew, without what is over, and with this record in the place
    /// of the one that they have of its target; or with room for it, if they have none.
    fn rebuild_details(&mut self, at: usize, next: Option<(&Fingerprint, &Fact)>) {
        let now = self.time.now;
        let Some(old) = self.shard(at) else { return };
        let known = old.details.entries().map(|(name, fact)| match next {
            Some((changed, fact)) if *changed == name => (name, *fact),
            _ => (name, fact),
        });
        let live: Vec<_> = known.filter(|(_, fact)| fact.until > now).collect();
        let mut facts = live.iter().map(|(_, fact)| fact).chain(next.map(|(_, fact)| fact));
        let spares = facts.any(|fact| !fact.spared.is_none());
        let details = DetailTable::with_room((live.len() + 1) * 100 / DETAILS_ROOMY + 1, spares);
        for (fingerprint, fact) in &live {
            details.put(fingerprint, fact);
        }
        account(&self.set.bytes, old.details.bytes(), details.bytes());
        if let Some(known) = self.state.details.get_mut(at) {
            account(&self.set.details, *known, live.len());
            *known = live.len();
        }
        self.publish(at, Shard { plain: old.plain, details: Arc::new(details) });
    }

    fn publish(&mut self, at: usize, shard: Shard) {
        let mut directory = Directory::clone(&self.directory);
        if let Some(slot) = directory.shards.get_mut(at) {
            *slot = shard;
        }
        self.directory = Arc::new(directory);
        self.set.directory.store(Arc::clone(&self.directory));
    }
}

fn account(total: &AtomicUsize, old: usize, new: usize) {
    total.fetch_add(new, Ordering::Relaxed);
    total.fetch_sub(old, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
