//! When a value is kept, and when it is given out.

use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;

use futures::FutureExt as _;
use futures::future::join_all;

use super::*;
use crate::clock::ManualClock;
use crate::store::StoreErrorKind;
use crate::store::memory::MemoryStore;
use crate::store::scripted::ScriptedStore;
use crate::token::TokenProfile;

/// A cache, the revoker of the same store, and the number of loads so far.
struct Lab {
    cache: UserCache<usize>,
    revoker: Revoker,
    loads: AtomicUsize,
}

impl Lab {
    fn new(options: impl FnOnce(UserCache<usize>) -> UserCache<usize>) -> Self {
        let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new()).unwrap();
        let cache = options(UserCache::new(revoker.clone()));
        Self { cache, revoker, loads: AtomicUsize::new(0) }
    }

    /// The value is the number of the load that it came from.
    async fn get_or_load(&self, user: &str) -> usize {
        let load = async |_: &str| {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(self.loads.fetch_add(1, Ordering::Relaxed) + 1)
        };
        *self.cache.get_or_load(user, load).await.unwrap()
    }

    /// The value is this one, which is there at once.
    async fn insert(&self, user: &str, value: usize) -> usize {
        *self.cache.reload(user, async |_| Ok::<_, Infallible>(value)).await.unwrap()
    }

    async fn get(&self, user: &str) -> Option<usize> {
        self.cache.get(user).await.as_deref().copied()
    }
}

#[tokio::test]
async fn what_is_inserted_is_given_out_until_the_user_is_revoked() {
    let lab = Lab::new(|options| options);
    assert_eq!(lab.get("alice").await, None);
    assert_eq!(lab.insert("alice", 7).await, 7);
    assert_eq!((lab.get("alice").await, lab.get("bob").await), (Some(7), None));
    assert_eq!(lab.get_or_load("alice").await, 7);
    lab.revoker.revoke(Target::user("bob")).await.unwrap();
    assert_eq!(lab.get("alice").await, Some(7), "it is the revocation of another user");
    lab.revoker.revoke(Target::user("alice")).await.unwrap();
    assert_eq!(lab.get("alice").await, None);
    assert_eq!(lab.get_or_load("alice").await, 1);
    assert_eq!(lab.get("alice").await, Some(1));
}

#[tokio::test]
async fn what_was_loaded_before_a_revocation_is_not_given_out_after_it() {
    let lab = Lab::new(|options| options);
    // By a load that was under way.
    let load = async |_: &str| {
        lab.revoker.revoke(Target::user("alice")).await.unwrap();
        Ok::<_, Infallible>(100)
    };
    assert_eq!(*lab.cache.get_or_load("alice", load).await.unwrap(), 100);
    assert_eq!(lab.get("alice").await, None);
    assert_eq!(lab.get_or_load("alice").await, 1);
    // By one that does not look at what is known.
    assert_eq!(*lab.cache.reload("alice", load).await.unwrap(), 100);
    assert_eq!(lab.get("alice").await, None);
    assert_eq!(lab.get_or_load("alice").await, 2);
    // However many there are in one millisecond.
    for _ in 0..100 {
        lab.cache.reload("alice", load).await.unwrap();
        assert_eq!(lab.get("alice").await, None);
    }
}

#[tokio::test]
async fn many_at_once_share_one_load() {
    let lab = Lab::new(|options| options);
    let values = join_all((0..50).map(|_| lab.get_or_load("alice"))).await;
    assert!(values.into_iter().all(|value| value == 1));
    assert_eq!((lab.cache.hits(), lab.cache.misses()), (49, 1));
}

#[tokio::test]
async fn a_load_that_fails_or_is_dropped_leaves_nothing() {
    let lab = Lab::new(|options| options);
    let failing = async |_: &str| Err::<usize, _>("no");
    assert_eq!(lab.cache.get_or_load("alice", failing).await, Err("no"));
    assert_eq!(lab.cache.reload("alice", failing).await, Err("no"));
    assert!(lab.cache.is_empty().await);
    let hanging = lab
        .cache
        .get_or_load("alice", |_| std::future::pending::<Result<usize, Infallible>>())
        .now_or_never();
    assert!(hanging.is_none());
    assert_eq!(lab.get_or_load("alice").await, 1, "nobody waits for a load that was dropped");
    // What was there and is too old goes with the attempt to replace it.
    lab.revoker.revoke(Target::user("alice")).await.unwrap();
    assert_eq!(lab.cache.get_or_load("alice", failing).await, Err("no"));
    assert!(lab.cache.is_empty().await);
}

#[tokio::test]
async fn a_value_is_given_out_until_it_is_as_old_as_the_lifetime() {
    let clock = ManualClock::new(Timestamp::from_secs(1_000_000));
    let lifetime = Duration::from_secs(10);
    let lab = Lab::new(|options| options.with_lifetime(lifetime).with_clock(clock.clone()));
    assert_eq!(lab.get_or_load("alice").await, 1);
    // The age of a value counts from before it was loaded.
    let slow = async |_: &str| {
        clock.advance(Duration::from_millis(9_999));
        Ok::<_, Infallible>(7)
    };
    lab.cache.reload("bob", slow).await.unwrap();
    assert_eq!(lab.get_or_load("alice").await, 1);
    assert_eq!(lab.get("bob").await, Some(7));
    clock.advance(Duration::from_millis(1));
    assert_eq!((lab.get("alice").await, lab.get("bob").await), (None, None));
    assert_eq!(lab.get_or_load("alice").await, 2);
    clock.set(Timestamp::from_secs(999_999));
    assert_eq!(lab.get_or_load("alice").await, 3, "a clock that went back tells no age");

    let none = Lab::new(|options| options.with_lifetime(Duration::ZERO));
    assert_eq!((none.get_or_load("alice").await, none.get_or_load("alice").await), (1, 2));
    let long = Lab::new(|options| options.with_lifetime(Duration::MAX));
    assert_eq!((long.get_or_load("alice").await, long.get_or_load("alice").await), (1, 1));
}

#[tokio::test]
async fn a_full_cache_loses_the_least_recently_used_entry_and_no_other() {
    let lab = Lab::new(|options| options.with_capacity(NonZeroU64::new(3).unwrap()));
    for (user, value) in [("alice", 1), ("bob", 2), ("carol", 3)] {
        assert_eq!(lab.get_or_load(user).await, value);
    }
    assert_eq!(lab.cache.len().await, 3);
    assert_eq!(lab.get("alice").await, Some(1));
    // The order of uses is written down with the maintenance.
    assert_eq!(lab.cache.len().await, 3);
    assert_eq!(lab.get_or_load("dave").await, 4);
    assert_eq!(lab.cache.len().await, 3);
    assert_eq!(lab.get("bob").await, None);
    assert_eq!(lab.get("alice").await, Some(1));
    assert_eq!(lab.get("carol").await, Some(3));
    assert_eq!(lab.get("dave").await, Some(4));
    for n in 0..1000 {
        lab.insert(&format!("user {n}"), n).await;
    }
    assert_eq!(lab.cache.len().await, 3);
    assert_eq!(lab.get("user 999").await, Some(999));
}

#[tokio::test]
async fn what_is_forgotten_or_cleared_is_gone() {
    let lab = Lab::new(|options| options);
    for user in ["alice", "bob", "carol"] {
        lab.get_or_load(user).await;
    }
    lab.cache.forget("alice").await;
    assert_eq!((lab.get("alice").await, lab.get("bob").await), (None, Some(2)));
    // Also what a load gives that was under way.
    let load = async |_: &str| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(100)
    };
    let loaded = futures::join!(lab.cache.get_or_load("alice", load), lab.cache.forget("alice")).0;
    assert_eq!((*loaded.unwrap(), lab.get("alice").await), (100, None));
    lab.cache.clone().clear().await;
    assert!(lab.cache.is_empty().await);
    assert_eq!((lab.get("bob").await, lab.get("carol").await), (None, None));
}

#[tokio::test]
async fn hits_and_misses_are_counted() {
    let lab = Lab::new(|options| options);
    lab.get("alice").await;
    lab.get_or_load("alice").await;
    for _ in 0..3 {
        lab.get("alice").await;
        lab.get_or_load("alice").await;
    }
    lab.revoker.revoke(Target::user("alice")).await.unwrap();
    lab.get("alice").await;
    assert_eq!((lab.cache.hits(), lab.cache.misses()), (6, 3));
    assert!(!format!("{:?}", lab.cache).contains("alice"));
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_given_out_and_nothing_is_kept() {
    let store = ScriptedStore::new();
    let cache = UserCache::new(Revoker::new(store.clone(), TokenProfile::new()).unwrap());
    cache.reload("alice", async |_| Ok::<_, Infallible>(1)).await.unwrap();
    store.fail(StoreErrorKind::Unreachable);
    assert_eq!(cache.get("alice").await, None);
    cache.reload("bob", async |_| Ok::<_, Infallible>(2)).await.unwrap();
    assert_eq!(*cache.get_or_load("bob", async |_| Ok::<_, Infallible>(3)).await.unwrap(), 3);
    assert_eq!(cache.len().await, 1);
    assert_eq!((cache.hits(), cache.misses()), (0, 2));
}

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
