//! [`UserCache`]: what was loaded about a user, until the user is revoked.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::revocation::Target;
use crate::revoker::Revoker;

const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
const DEFAULT_CAPACITY: usize = 10_000;

/// Keeps what was loaded about users (roles, name, plan) in the memory of this process. Clones
/// share it.
///
/// What it gives was loaded at most the lifetime ago, and *after* the latest revocation of the
/// user, in whatever process that was written: the store is asked each time, which costs a round
/// trip, also with a mirror. If the store cannot be asked, the loader is.
///
/// Requests for the same user share one load, unless the store cannot be asked.
///
/// ```
/// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, session::UserCache, token::TokenProfile};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
/// let roles = UserCache::<String>::new(revoker);
/// let load = async |_: &str| Ok::<_, std::io::Error>("admin".to_owned());
/// assert_eq!(*roles.get_or_load("alice", load).await?, "admin");
/// # Ok(()) }
/// ```
pub struct UserCache<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    revoker: Revoker,
    lifetime: Duration,
    capacity: usize,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<Box<str>, Slot<T>>>,
}

/// Locked for as long as someone loads.
type Slot<T> = Arc<tokio::sync::Mutex<Option<Loaded<T>>>>;

struct Loaded<T> {
    value: Arc<T>,
    at: Timestamp,
    /// When the record of the user was last changed, as it was before the load.
    record: Option<Timestamp>,
}

impl<T> Clone for UserCache<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Send + Sync + 'static> UserCache<T> {
    /// An empty cache that heeds the revocations which this revoker finds.
    pub fn new(revoker: Revoker) -> Self {
        Self::build(revoker, DEFAULT_LIFETIME, DEFAULT_CAPACITY, Arc::new(SystemClock))
    }

    fn build(revoker: Revoker, lifetime: Duration, capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::new(Inner { revoker, lifetime, capacity, clock, slots: Mutex::default() }),
        }
    }

    /// How old what it gives may be. Default 60 s. Empties the cache.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        let Inner { revoker, capacity, clock, .. } = &*self.inner;
        Self::build(revoker.clone(), lifetime, *capacity, Arc::clone(clock))
    }

    /// How many users it holds; one more, and those whose time is over go, or else all. Default
    /// 10 000. Empties the cache.
    #[must_use]
    pub fn with_capacity(self, capacity: NonZeroUsize) -> Self {
        let Inner { revoker, lifetime, clock, .. } = &*self.inner;
        Self::build(revoker.clone(), *lifetime, capacity.get(), Arc::clone(clock))
    }

    /// The clock by which it counts the lifetime, default [`SystemClock`]. Empties the cache.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock) -> Self {
        let Inner { revoker, lifetime, capacity, .. } = &*self.inner;
        Self::build(revoker.clone(), *lifetime, *capacity, Arc::new(clock))
    }

    /// What is known of `user`, or what `load` says, which is then known. Nothing is kept of a load
    /// that fails.
    ///
    /// # Errors
    /// Those of `load`.
    pub async fn get_or_load<'a, F, E>(
        &self,
        user: &'a str,
        load: impl FnOnce(&'a str) -> F,
    ) -> Result<Arc<T>, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let inner = &*self.inner;
        // The state of the user is read before the load: a revocation that comes in during it is
        // noticed next time.
        let Ok(record) = inner.revoker.find(Target::user(user)).await else {
            return load(user).await.map(Arc::new);
        };
        let record = record.map(|record| record.changed_at());
        let slot = inner.slot(user);
        let mut loaded = slot.lock().await;
        let now = inner.clock.now();
        if let Some(known) = &*loaded {
            // Someone else may have looked later and loaded after a newer revocation.
            if known.is_fresh(now, inner.lifetime) && known.record >= record {
                return Ok(Arc::clone(&known.value));
            }
        }
        let value = Arc::new(load(user).await?);
        *loaded = Some(Loaded { value: Arc::clone(&value), at: now, record });
        Ok(value)
    }

    /// Forgets what is known of a user, in this process.
    pub fn forget(&self, user: &str) {
        self.inner.slots().remove(user);
    }
}

impl<T> Inner<T> {
    // A panic while the lock is held cannot leave half an entry.
    fn slots(&self) -> MutexGuard<'_, HashMap<Box<str>, Slot<T>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, user: &str) -> Slot<T> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(user) {
            return Arc::clone(slot);
        }
        if slots.len() >= self.capacity {
            let now = self.clock.now();
            // One that is locked is being loaded.
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(loaded) => {
                    loaded.as_ref().is_some_and(|loaded| loaded.is_fresh(now, self.lifetime))
                }
                Err(_) => true,
            });
            if slots.len() >= self.capacity {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(user.into()).or_default())
    }
}

impl<T> Loaded<T> {
    fn is_fresh(&self, now: Timestamp, lifetime: Duration) -> bool {
        // A clock that has gone back says nothing about age.
        now >= self.at && now.saturating_duration_since(self.at) < lifetime
    }
}

impl<T> fmt::Debug for UserCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCache")
            .field("users", &self.inner.slots().len())
            .field("capacity", &self.inner.capacity)
            .field("lifetime", &self.inner.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::FutureExt as _;

    use super::*;
    use crate::store::StoreErrorKind;
    use crate::store::scripted::ScriptedStore;
    use crate::token::TokenProfile;

    #[tokio::test]
    async fn while_the_store_is_down_nobody_waits_for_the_load_of_another() {
        let store = ScriptedStore::new();
        let cache = UserCache::new(Revoker::new(store.clone(), TokenProfile::new()).unwrap());
        store.fail(StoreErrorKind::Unreachable);
        let mut slow = Box::pin(cache.get_or_load("alice", async |_| {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(1)
        }));
        assert!(slow.as_mut().now_or_never().is_none());
        let quick = cache.get_or_load("alice", async |_| Ok::<_, Infallible>(2)).now_or_never();
        assert_eq!(quick.map(|loaded| *loaded.unwrap()), Some(2));
        assert_eq!(*slow.await.unwrap(), 1);
    }
}
