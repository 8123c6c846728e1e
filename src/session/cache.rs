//! [`UserCache`]: what was loaded about a user, until the user is revoked (feature `user-cache`).

use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::revocation::Target;
use crate::revoker::Revoker;

/// Default of [`UserCacheBuilder::with_lifetime`].
pub(crate) const DEFAULT_USER_CACHE_LIFETIME: Duration = Duration::from_secs(60);
/// Default of [`UserCacheBuilder::with_capacity`].
pub(crate) const DEFAULT_USER_CACHE_CAPACITY: NonZeroU64 =
    NonZeroU64::new(10_000).expect("not zero");

/// Longer than this no entry stays in memory, however long its lifetime. It is a bound of `moka`
/// that is far from any use.
const LONGEST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Keeps what was loaded about users (roles, name, plan) in the memory of this process. Clones
/// share it.
///
/// A value is given out until it is as old as the [lifetime](UserCacheBuilder::with_lifetime), and
/// only if it was loaded *after* the latest revocation of the user, in whatever process that was
/// written: the store is asked each time, which costs a round trip, also with a mirror. While the
/// store cannot be asked, nothing is given out and nothing is kept.
///
/// When the cache is full, the least recently used entry makes room; nobody else loses theirs.
///
/// ```
/// # use tower_jwt_revocation::session::UserCache;
/// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let load_roles = async |_: &str| Ok::<_, std::io::Error>("admin".to_owned());
/// let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
/// let roles = UserCache::<String>::new(revoker.clone());
///
/// // At login: the entry first, then whatever the value is made of.
/// let entry = roles.entry("alice").await;
/// let value = load_roles("alice").await?;
/// entry.insert(value).await;
///
/// // Later.
/// assert_eq!(*roles.get_or_load("alice", load_roles).await?, "admin");
/// revoker.revoke(Target::user("alice")).await?;
/// assert_eq!(roles.get("alice").await, None);
/// # Ok(()) }
/// ```
pub struct UserCache<T> {
    entries: Cache<String, LoadedUser<T>>,
    shared: Arc<UserCacheShared>,
}

struct UserCacheShared {
    revoker: Revoker,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct LoadedUser<T> {
    value: Arc<T>,
    as_of: AsOf,
}

/// The state of a user before something was loaded about it.
#[derive(Clone, Copy)]
struct AsOf {
    /// When, by the clock of the cache.
    at: Timestamp,
    /// The state of the revocation record of the user; none if there is no record.
    record: Option<RecordState>,
}

/// When a record was last changed, and from which `iat` on tokens are accepted: the second of two
/// revocations in one millisecond moves the latter. Both are by the clock of the store, and grow.
type RecordState = (Timestamp, Option<Timestamp>);

/// How often a [`UserCache`] had what was wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserCacheStats {
    /// How many values came from memory since the cache was made; those that another request was
    /// loading at the time count as well.
    pub hits: u64,
    /// How many did not: there was none, it was too old, the user was revoked after it was loaded,
    /// or the store could not be asked.
    pub misses: u64,
}

/// Options of a [`UserCache`], see [`UserCache::builder`].
#[derive(Clone)]
#[must_use]
pub struct UserCacheBuilder {
    revoker: Revoker,
    lifetime: Duration,
    capacity: NonZeroU64,
    clock: Arc<dyn Clock>,
}

impl UserCacheBuilder {
    /// How old a value may be when it is given out, counted from before it was loaded. Default
    /// 60 s; at most a year. Zero keeps nothing.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime.min(LONGEST_TTL);
        self
    }

    /// How many users the cache holds. Default 10 000. For a short
    /// time there may be a few more.
    pub fn with_capacity(mut self, capacity: NonZeroU64) -> Self {
        self.capacity = capacity;
        self
    }

    /// The clock by which the lifetime is counted. Default [`SystemClock`].
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// An empty cache.
    pub fn build<T: Send + Sync + 'static>(self) -> UserCache<T> {
        let Self { revoker, lifetime, capacity, clock } = self;
        // A plain LRU: what was just inserted is never what has to go. Whether an entry is too old
        // is decided by our clock; that of moka only frees memory.
        let entries = Cache::builder()
            .max_capacity(capacity.get())
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(lifetime)
            .build();
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = UserCacheShared { revoker, lifetime, clock, hits, misses };
        UserCache { entries, shared: Arc::new(shared) }
    }
}

impl<T: Send + Sync + 'static> UserCache<T> {
    /// An empty cache with the default options. It heeds the revocations of users that this revoker
    /// [finds](Revoker::find).
    pub fn new(revoker: Revoker) -> Self {
        UserCache::builder(revoker).build()
    }

    /// Asks the store for the revocations of `user`, and gives its entry as of now. What is loaded
    /// after this can be [inserted](UserCacheEntry::insert).
    ///
    /// If the store cannot be asked, the entry has no value and keeps none.
    pub async fn entry<'a>(&'a self, user: &'a str) -> UserCacheEntry<'a, T> {
        let shared = &*self.shared;
        let at = shared.clock.now();
        let record = shared.revoker.find(Target::user(user)).await;
        let as_of = record.ok().map(|record| {
            let record = record.map(|record| (record.changed_at(), record.reissue_at()));
            AsOf { at, record }
        });
        UserCacheEntry { cache: self, user, as_of }
    }

    /// What is known of `user`; `None` also if the store cannot be asked.
    pub async fn get(&self, user: &str) -> Option<Arc<T>> {
        let value = self.entry(user).await.value().await;
        self.shared.count(value.is_some());
        value
    }

    /// What is known of `user`, or what `load` gives, which is kept. Requests for the same user
    /// share one load, unless the store cannot be asked: then each loads for itself. Nothing is
    /// kept of a load that fails.
    ///
    /// # Errors
    /// Those of `load`.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "`and_compute_with` awaits what it is given exactly once"
    )]
    pub async fn get_or_load<'a, F, E>(
        &self,
        user: &'a str,
        load: impl FnOnce(&'a str) -> F,
    ) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let shared = &*self.shared;
        // The state of the user is read before the load: a revocation that comes in during it is
        // noticed next time.
        let entry = self.entry(user).await;
        let Some(as_of) = entry.as_of else {
            shared.count(false);
            return load(user).await.map(Arc::new);
        };
        if let Some(value) = entry.value().await {
            shared.count(true);
            return Ok(value);
        }
        // One at a time for each user.
        let mut result = None;
        let result_in = &mut result;
        self.entries
            .entry_by_ref(user)
            .and_compute_with(|known| async move {
                // Another request may have loaded meanwhile, even after a newer revocation.
                let now = shared.clock.now();
                let known = known.map(moka::Entry::into_value);
                if let Some(known) = known.filter(|known| known.is_valid(now, as_of, shared)) {
                    shared.count(true);
                    *result_in = Some(Ok(known.value));
                    return Op::Nop;
                }
                shared.count(false);
                // Waiting for others does not make the value older.
                let as_of = AsOf { at: now, ..as_of };
                match load(user).await {
                    Ok(value) => {
                        let value = Arc::new(value);
                        *result_in = Some(Ok(Arc::clone(&value)));
                        Op::Put(LoadedUser { value, as_of })
                    }
                    Err(error) => {
                        *result_in = Some(Err(error));
                        Op::Remove
                    }
                }
            })
            .await;
        result.expect("the entry was computed")
    }

    /// Removes the entry of a user from this process. Waits for a load of
    /// [`get_or_load`](Self::get_or_load) that is under way, so that what it gives does not stay
    /// either; to be called outside of such a load.
    pub async fn forget(&self, user: &str) {
        self.entries.entry_by_ref(user).and_compute_with(async |_| Op::Remove).await;
    }

    /// Removes all entries from this process. What is being loaded meanwhile is still kept.
    pub async fn clear(&self) {
        self.entries.invalidate_all();
        self.entries.run_pending_tasks().await;
    }

    /// How many users the cache holds, those that were revoked meanwhile included: they are noticed
    /// when they are asked for.
    pub async fn len(&self) -> u64 {
        self.entries.run_pending_tasks().await;
        self.entries.entry_count()
    }

    /// Whether the cache holds nothing.
    pub async fn is_empty(&self) -> bool {
        self.len().await == 0
    }

    /// How often the cache had what was wanted, since it was made: of [`get`](Self::get) and
    /// [`get_or_load`](Self::get_or_load).
    pub fn stats(&self) -> UserCacheStats {
        UserCacheStats {
            hits: self.shared.hits.load(Ordering::Relaxed),
            misses: self.shared.misses.load(Ordering::Relaxed),
        }
    }
}

impl UserCache<()> {
    /// A cache with other options, of values of any type. It heeds the revocations of users that
    /// this revoker [finds](Revoker::find).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_revocation::{Revoker, session::UserCache};
    /// # fn f(revoker: Revoker) {
    /// let roles: UserCache<String> =
    ///     UserCache::builder(revoker).with_lifetime(Duration::from_secs(10)).build();
    /// # }
    /// ```
    pub fn builder(revoker: Revoker) -> UserCacheBuilder {
        UserCacheBuilder {
            revoker,
            lifetime: DEFAULT_USER_CACHE_LIFETIME,
            capacity: DEFAULT_USER_CACHE_CAPACITY,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The entry of a user as of a point in time, see [`UserCache::entry`].
#[must_use = "an entry changes nothing until a value is inserted"]
pub struct UserCacheEntry<'a, T> {
    cache: &'a UserCache<T>,
    user: &'a str,
    /// None, if the store could not be asked.
    as_of: Option<AsOf>,
}

impl<T: Send + Sync + 'static> UserCacheEntry<'_, T> {
    /// What is known of the user. It is not counted in [`UserCacheStats`].
    pub async fn value(&self) -> Option<Arc<T>> {
        let as_of = self.as_of?;
        let shared = &*self.cache.shared;
        let known = self.cache.entries.get(self.user).await?;
        known.is_valid(shared.clock.now(), as_of, shared).then_some(known.value)
    }

    /// Keeps a value that was loaded **after** this entry was made. If the user was revoked since
    /// then, the value is not given out; the same holds for the lifetime, which counts from there.
    ///
    /// The value is given back; nothing is kept if the store could not be asked.
    pub async fn insert(self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        if let Some(as_of) = self.as_of {
            let loaded = LoadedUser { value: Arc::clone(&value), as_of };
            self.cache.entries.insert(self.user.to_owned(), loaded).await;
        }
        value
    }
}

impl UserCacheShared {
    fn count(&self, is_hit: bool) {
        let counter = if is_hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T> LoadedUser<T> {
    /// Whether the value may be given to someone who found the user in the state `as_of`.
    fn is_valid(&self, now: Timestamp, as_of: AsOf, shared: &UserCacheShared) -> bool {
        // A clock that has gone back says nothing about age.
        let loaded_at = self.as_of.at;
        now >= loaded_at
            && now.saturating_duration_since(loaded_at) < shared.lifetime
            && self.as_of.record >= as_of.record
    }
}

impl<T> Clone for UserCache<T> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<T> Clone for LoadedUser<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), as_of: self.as_of }
    }
}

impl<T> fmt::Debug for UserCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCache")
            .field("lifetime", &self.shared.lifetime)
            .field("hits", &self.shared.hits)
            .field("misses", &self.shared.misses)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UserCacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCacheBuilder")
            .field("lifetime", &self.lifetime)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for UserCacheEntry<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be personal data.
        f.debug_struct("UserCacheEntry").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
