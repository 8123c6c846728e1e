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

/// Default of [`UserCache::with_lifetime`].
pub(crate) const DEFAULT_USER_CACHE_LIFETIME: Duration = Duration::from_secs(60);
/// Default of [`UserCache::with_capacity`].
pub(crate) const DEFAULT_USER_CACHE_CAPACITY: NonZeroU64 =
    NonZeroU64::new(10_000).expect("not zero");

/// Longer than this no entry stays in memory, however long its lifetime. It is a bound of `moka`
/// that is far from any use.
const LONGEST_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A cache, in the memory of this process, of what was loaded about users (roles, name, plan).
/// Clones share it.
///
/// It returns a value until its [lifetime](UserCache::with_lifetime) is over, and only if it was
/// loaded *after* the latest revocation of the user in any process. It asks the store each time,
/// which costs a round trip, also with a mirror. While the store gives no answer, it returns and
/// keeps nothing.
///
/// When the cache is full, a new entry replaces the least recently used one.
///
/// ```
/// # use tower_jwt_revocation::session::UserCache;
/// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let load_roles = async |_: &str| Ok::<_, std::io::Error>("admin".to_owned());
/// let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
/// let roles = UserCache::<String>::new(revoker.clone());
///
/// // At login.
/// roles.reload("alice", load_roles).await?;
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
    options: UserCacheOptions,
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

#[derive(Clone)]
struct UserCacheOptions {
    revoker: Revoker,
    lifetime: Duration,
    capacity: NonZeroU64,
    clock: Arc<dyn Clock>,
}

impl<T: Send + Sync + 'static> UserCache<T> {
    /// An empty cache. It obeys the revocations of users that this revoker [finds](Revoker::find).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_revocation::{Revoker, session::UserCache};
    /// # fn f(revoker: Revoker) {
    /// let roles = UserCache::<String>::new(revoker).with_lifetime(Duration::from_secs(10));
    /// # }
    /// ```
    pub fn new(revoker: Revoker) -> Self {
        Self::of(UserCacheOptions {
            revoker,
            lifetime: DEFAULT_USER_CACHE_LIFETIME,
            capacity: DEFAULT_USER_CACHE_CAPACITY,
            clock: Arc::new(SystemClock),
        })
    }

    fn of(options: UserCacheOptions) -> Self {
        // A plain LRU: what was just inserted is never what has to go. Whether an entry is too old
        // is decided by our clock; that of moka only frees memory.
        let entries = Cache::builder()
            .max_capacity(options.capacity.get())
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(options.lifetime)
            .build();
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { entries, shared: Arc::new(UserCacheShared { options, hits, misses }) }
    }

    fn with(self, change: impl FnOnce(&mut UserCacheOptions)) -> Self {
        let mut options = self.shared.options.clone();
        change(&mut options);
        Self::of(options)
    }

    /// An empty cache that returns values up to this age, counted from the start of their load.
    /// Default: 60 s, because changes other than revocations are seen only then. At most a year;
    /// zero keeps nothing.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        self.with(|options| options.lifetime = lifetime.min(LONGEST_TTL))
    }

    /// An empty cache for this many users. Default: 10 000. For a short time there may be a few
    /// more.
    #[must_use]
    pub fn with_capacity(self, capacity: NonZeroU64) -> Self {
        self.with(|options| options.capacity = capacity)
    }

    /// An empty cache whose lifetime is counted by this clock. Default: that of the system.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        self.with(|options| options.clock = Arc::new(clock))
    }

    /// The state of `user` as of now; `None` if the store cannot be asked.
    async fn state(&self, user: &str) -> Option<AsOf> {
        let UserCacheOptions { revoker, clock, .. } = &self.shared.options;
        let at = clock.now();
        let record = revoker.find(Target::user(user)).await.ok()?;
        Some(AsOf { at, record: record.map(|record| (record.changed_at(), record.reissue_at())) })
    }

    /// What is known of the user, for someone who found it in this state.
    async fn value(&self, user: &str, as_of: AsOf) -> Option<Arc<T>> {
        let known = self.entries.get(user).await?;
        let options = &self.shared.options;
        known.is_valid(options.clock.now(), as_of, options).then_some(known.value)
    }

    /// The value of `user`; `None` also if the store gives no answer.
    pub async fn get(&self, user: &str) -> Option<Arc<T>> {
        let value = match self.state(user).await {
            Some(as_of) => self.value(user, as_of).await,
            None => None,
        };
        self.shared.count(value.is_some());
        value
    }

    /// Loads the value of `user` and keeps it in place of an earlier one: for logins. If the user
    /// is revoked during the load, the value is not returned again; its age counts from the start
    /// of the load. Nothing is kept if the store gives no answer or the load fails.
    ///
    /// # Errors
    /// The errors of `load`.
    pub async fn reload<'a, F, E>(
        &self,
        user: &'a str,
        load: impl FnOnce(&'a str) -> F,
    ) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let as_of = self.state(user).await;
        let value = Arc::new(load(user).await?);
        if let Some(as_of) = as_of {
            let loaded = LoadedUser { value: Arc::clone(&value), as_of };
            self.entries.insert(user.to_owned(), loaded).await;
        }
        Ok(value)
    }

    /// The value of `user`; if there is none, loads it and keeps it. Requests for the same user
    /// share one load, unless the store gives no answer: then each loads for itself. Nothing is
    /// kept if the load fails.
    ///
    /// # Errors
    /// The errors of `load`.
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
        let Some(as_of) = self.state(user).await else {
            shared.count(false);
            return load(user).await.map(Arc::new);
        };
        if let Some(value) = self.value(user, as_of).await {
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
                let now = shared.options.clock.now();
                let known = known.map(moka::Entry::into_value);
                if let Some(known) =
                    known.filter(|known| known.is_valid(now, as_of, &shared.options))
                {
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

    /// Removes the entry of a user from this process. It waits for a load of
    /// [`get_or_load`](Self::get_or_load) that is under way, so that its value does not stay
    /// either. Do not call it inside of such a load.
    pub async fn forget(&self, user: &str) {
        self.entries.entry_by_ref(user).and_compute_with(async |_| Op::Remove).await;
    }

    /// Removes all entries from this process. A value that is being loaded meanwhile is kept.
    pub async fn clear(&self) {
        self.entries.invalidate_all();
        self.entries.run_pending_tasks().await;
    }

    /// How many users are in the cache, including those that were revoked meanwhile: the cache
    /// notices that when they are asked for.
    pub async fn len(&self) -> u64 {
        self.entries.run_pending_tasks().await;
        self.entries.entry_count()
    }

    /// Whether the cache is empty.
    pub async fn is_empty(&self) -> bool {
        self.len().await == 0
    }

    /// How many values [`get`](Self::get) and [`get_or_load`](Self::get_or_load) took from memory
    /// since the cache was made. A value that another request was just loading counts, too.
    pub fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::Relaxed)
    }

    /// How many values did not come from memory: there was none, it was too old, the user was
    /// revoked after it was loaded, or the store gave no answer.
    pub fn misses(&self) -> u64 {
        self.shared.misses.load(Ordering::Relaxed)
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
    fn is_valid(&self, now: Timestamp, as_of: AsOf, options: &UserCacheOptions) -> bool {
        // A clock that has gone back says nothing about age.
        let loaded_at = self.as_of.at;
        now >= loaded_at
            && now.saturating_duration_since(loaded_at) < options.lifetime
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
            .field("lifetime", &self.shared.options.lifetime)
            .field("hits", &self.shared.hits)
            .field("misses", &self.shared.misses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
