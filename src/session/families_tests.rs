//! A commit that was refused, and one of unknown fate.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

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
    /// Whether another server has carried on just now.
    moves: Arc<AtomicBool>,
    /// What is revoked before the next commit, of which it says then that a record has changed.
    overtaken_by: Arc<Mutex<Option<Revocation>>>,
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
        let (read, moves) = (self.memory.load(documents, records), self.moves.load(SeqCst));
        async move {
            let mut snapshot = read.await?;
            snapshot.moved_at = moves.then_some(snapshot.now);
            Ok(snapshot)
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> Later<Committed> {
        if let Some(error) = self.error.lock().unwrap().clone() {
            return ready(Err(error)).boxed();
        }
        if let Some(revocation) = self.overtaken_by.lock().unwrap().take() {
            let memory = self.memory.clone();
            return async move {
                // As if the record had changed while the document was written.
                assert_eq!(memory.commit(commit).await?, Committed::Done);
                memory.write(vec![revocation]).await?;
                Ok(Committed::Overtaken)
            }
            .boxed();
        }
        self.memory.commit(commit)
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
    let families = families(&store);
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

fn families(store: &Refusing) -> Families {
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    Families::new(store.clone(), revoker, RefreshPolicy::new()).unwrap()
}

/// A document that is behind after a change of server says nothing of a token that is ahead of it.
#[cfg(feature = "endpoints")]
#[tokio::test]
async fn who_asks_for_a_token_that_is_ahead_of_its_document_has_to_ask_again() {
    let store = Refusing::default();
    let families = families(&store);
    let grant = started(&families).await;
    let behind = store.memory.load(vec![Target::family(&*grant.family)], Vec::new()).await.unwrap();
    let behind = behind.documents[0].clone().unwrap();
    let Refresh::Granted(next) = families.refresh(grant.token.expose(), None).await.unwrap() else {
        panic!()
    };
    let key = Target::family(&*grant.family);
    let now = store.memory.load(vec![key.clone()], Vec::new()).await.unwrap();
    let until = now.now.saturating_add(Duration::from_secs(3600));
    let rolled_back = Commit::new(key, now.documents[0].clone(), Some(behind), until);
    assert_eq!(store.memory.commit(rolled_back).await.unwrap(), Committed::Done);

    store.moves.store(true, SeqCst);
    let error = families.look_at(next.token.expose()).await.err().unwrap();
    assert!(error.may_be_repeated(), "{error}");
    store.moves.store(false, SeqCst);
    assert!(families.look_at(next.token.expose()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_import_that_was_overtaken_says_whether_the_family_is_good() {
    let store = Refusing::default();
    let families = families(&store);
    let began = Timestamp::now().saturating_sub(Duration::from_secs(60));
    for (user, family, is_good) in [("alice", "f-1", false), ("bob", "f-2", true)] {
        // Of the one it ends all, of the other only what was before.
        let mut other = Revocation::new(Target::user(user), Duration::from_secs(3600));
        if is_good {
            let before = Timestamp::from_secs(1);
            other.action = crate::revocation::Action::Revoke(crate::Extent::IssuedUntil(before));
        }
        *store.overtaken_by.lock().unwrap() = Some(other);
        let new = NewFamily::of_user(user);
        assert_eq!(families.import(new, family, "r-1", began).await.unwrap(), is_good, "{user}");
        assert!(store.overtaken_by.lock().unwrap().is_none());
    }
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
