//! Sessions in a memory that fails when told to, and counts how much is asked of it at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tower_jwt_revocation::clock::{Clock as _, ManualClock, SystemClock};
use tower_jwt_revocation::revocation::{Record, Revocation, TargetKind};
use tower_jwt_revocation::store::session::{Commit, Committed, Snapshot};
use tower_jwt_revocation::store::{
    ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError,
};

use super::*;

#[derive(Clone, Default)]
struct Watched {
    memory: MemoryStore,
    /// It cannot write down what sessions a user has.
    fails: Arc<AtomicBool>,
    /// How many are reading, and the most that ever were at once.
    readers: Arc<(AtomicUsize, AtomicUsize)>,
}

impl RevocationStore for Watched {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.memory.write(changes)
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.memory.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.memory.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.memory.count()
    }
}

impl SessionStore for Watched {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        let (read, readers) = (self.memory.load(documents, records), Arc::clone(&self.readers));
        async move {
            readers.1.fetch_max(readers.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            readers.0.fetch_sub(1, Ordering::SeqCst);
            read.await
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        if commit.key.kind() == TargetKind::User && self.fails.load(Ordering::SeqCst) {
            return ready(Err(StoreError::new(StoreErrorKind::Timeout, "not now"))).boxed();
        }
        self.memory.commit(commit)
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.memory.count_members()
    }
}

#[tokio::test]
async fn what_could_not_be_written_down_is_at_the_next_refresh() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let clock = ManualClock::new(SystemClock::default().now());
    let store =
        Watched { memory: MemoryStore::new().with_clock(clock.clone()), ..Watched::default() };
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let policy = strict().with_idle_lifetime(minutes(60)).without_max_age();
    let sessions = Sessions::new(store.clone(), revoker, policy).unwrap();
    let first = login(&sessions, "alice").await;

    clock.advance(minutes(40));
    store.fails.store(true, Ordering::SeqCst);
    let second = granted(refresh(&sessions, &first).await);
    store.fails.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    let third = granted(refresh(&sessions, &second).await);
    clock.advance(minutes(40));
    granted(refresh(&sessions, &third).await);

    assert_eq!(sessions.list("alice").await.unwrap().len(), 1);
    clock.advance(minutes(50));
    assert!(sessions.end_of("alice", first.session.as_deref().unwrap()).await.unwrap());
}

#[tokio::test]
async fn a_device_of_many_users_does_not_take_all_the_places_that_a_store_has() {
    let store = Watched::default();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let sessions = Sessions::new(store.clone(), revoker, policy()).unwrap();
    for n in 0..100 {
        login(&sessions, &format!("user {n}")).await;
    }
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 100);
    sessions.end_device("phone").await.unwrap();
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 0);
    let most = store.readers.1.load(Ordering::SeqCst);
    assert!((20..=80).contains(&most), "{most}");
}
