//! A commit that was refused, and one of unknown fate.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::time::advance;

use super::*;
use crate::revocation::Revocation;
use crate::store::memory::MemoryStore;
use crate::store::{ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreErrorKind};
use crate::token::TokenProfile;
use crate::verified::VerifiedToken;

/// Fails each commit in this way, and counts what is read.
#[derive(Clone, Default)]
struct Refusing {
    memory: MemoryStore,
    error: Arc<Mutex<Option<StoreError>>>,
    loads: Arc<AtomicUsize>,
}

type Later<T> = BoxFuture<'static, Result<T, StoreError>>;

impl RevocationStore for Refusing {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(&self, changes: Vec<Revocation>) -> Later<Vec<Receipt>> {
        self.memory.write(changes)
    }

    fn find(&self, target: &Target) -> Later<Option<Record>> {
        self.memory.find(target)
    }

    fn list(&self, query: ListQuery) -> Later<RecordPage> {
        self.memory.list(query)
    }

    fn count(&self) -> Later<u64> {
        self.memory.count()
    }
}

impl SessionStore for Refusing {
    fn load(&self, documents: Vec<Target>, records: Vec<Target>) -> Later<Snapshot> {
        self.loads.fetch_add(1, SeqCst);
        self.memory.load(documents, records)
    }

    fn commit(&self, commit: Commit) -> Later<Committed> {
        match self.error.lock().unwrap().clone() {
            Some(error) => ready(Err(error)).boxed(),
            None => self.memory.commit(commit),
        }
    }

    fn count_members(&self) -> Later<u64> {
        self.memory.count_members()
    }
}

async fn started(families: &Families) -> Grant {
    match families.start(NewFamily::of_user("alice")).await.unwrap() {
        Refresh::Granted(grant) => grant,
        Refresh::Refused(refusal) => panic!("{refusal:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn only_of_a_commit_of_unknown_fate_the_document_is_looked_at_later() {
    let store = Refusing::default();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let families = Families::new(store.clone(), revoker, RefreshPolicy::new()).unwrap();
    let grant = started(&families).await;
    let full = || StoreError::new(StoreErrorKind::Full, "no room");
    for (error, is_looked_at) in [(full().unwritten(true), false), (full(), true)] {
        *store.error.lock().unwrap() = Some(error);
        families.refresh(grant.token.expose(), None).await.unwrap_err();
        let before = store.loads.load(SeqCst);
        // The clock stands still but for this, and all tasks run.
        for _ in 0..200 {
            advance(Duration::from_millis(100)).await;
        }
        assert_eq!(store.loads.load(SeqCst) > before, is_looked_at);
    }
    // It can be repeated.
    *store.error.lock().unwrap() = None;
    let again = families.refresh(grant.token.expose(), None).await.unwrap();
    assert!(matches!(again, Refresh::Granted(_)));
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn what_redis_has_refused_is_known_not_to_be_written() {
    use crate::store::redis::RedisStore;
    use crate::support::{RedisServer, redis_or_skip};

    redis_or_skip!();
    let server = RedisServer::start();
    let builder = RedisStore::builder().with_url(server.url());
    let store = builder.with_write_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let families = Families::new(store.clone(), revoker, RefreshPolicy::new()).unwrap();
    let grant = started(&families).await;
    for (setting, refuses, takes) in [("maxmemory", "1", "0"), ("min-replicas-to-write", "3", "0")]
    {
        server.cli(&["CONFIG", "SET", setting, refuses]);
        let error = families.refresh(grant.token.expose(), None).await.unwrap_err();
        assert!(error.is_unwritten(), "{setting}: {error}");
        server.cli(&["CONFIG", "SET", setting, takes]);
    }
    let again = families.refresh(grant.token.expose(), None).await.unwrap();
    assert!(matches!(again, Refresh::Granted(_)));
}
