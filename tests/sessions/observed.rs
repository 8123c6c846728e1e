//! Sessions in a memory that fails, doubts and forgets when told to, and counts how much is asked
//! of it at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tower_jwt_revocation::audit::{AuditEvent, AuditKind, AuditSink};
use tower_jwt_revocation::clock::{ManualClock, Timestamp};
use tower_jwt_revocation::revocation::{Record, Revocation, TargetKind};
use tower_jwt_revocation::store::session::{Commit, Committed, Snapshot};
use tower_jwt_revocation::store::{
    Doubt, ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError,
};

use super::*;

/// The next document of a family is written, and nobody hears of it; then the store is away.
const NOTHING_HEARD: usize = 1;
/// The store is away.
const NOTHING_DONE: usize = 2;

fn late<T: Send + 'static>() -> BoxFuture<'static, Result<T, StoreError>> {
    ready(Err(StoreError::new(StoreErrorKind::Timeout, "not now"))).boxed()
}

#[derive(Clone, Default)]
struct ObservedStore {
    memory: MemoryStore,
    /// It cannot write down what sessions a user has.
    fails: Arc<AtomicBool>,
    /// It cannot read what sessions a user has.
    unreadable: Arc<AtomicBool>,
    /// The next list of sessions is written, and a record has changed before it was.
    overtakes: Arc<AtomicBool>,
    /// A list of another program is not told of what is revoked by one write alone.
    unlisted: Arc<AtomicBool>,
    /// What becomes of the documents of families: it is all done, then nobody hears of it, then
    /// nothing is done or read.
    outage: Arc<AtomicUsize>,
    /// How many of them were written.
    written: Arc<AtomicUsize>,
    /// How many are reading, and the most that ever were at once.
    readers: Arc<(AtomicUsize, AtomicUsize)>,
    /// What it says is in doubt.
    doubt: Arc<Mutex<Doubt>>,
    /// The document that it reads in place of every other: an older state of one.
    rolled_back: Arc<Mutex<Option<Bytes>>>,
}

impl ObservedStore {
    fn doubt(&self, doubt: Doubt) {
        *self.doubt.lock().unwrap() = doubt;
    }

    async fn document(&self, target: Target) -> Bytes {
        let snapshot = self.memory.load(vec![target], Vec::new()).await.unwrap();
        snapshot.documents[0].clone().unwrap()
    }
}

fn of(store: &ObservedStore) -> Sessions {
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    Sessions::new(store.clone(), revoker, policy()).unwrap()
}

/// The kinds of the events.
#[derive(Clone, Default)]
struct Kinds(Arc<Mutex<Vec<AuditKind>>>);

impl AuditSink for Kinds {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().unwrap().push(event.kind());
    }
}

impl RevocationStore for ObservedStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        if self.outage.load(Ordering::SeqCst) == NOTHING_DONE {
            return late();
        }
        let (written, unlisted) = (self.memory.write(changes), Arc::clone(&self.unlisted));
        async move {
            let mut receipts = written.await?;
            if unlisted.load(Ordering::SeqCst) {
                for receipt in &mut receipts {
                    receipt.unlisted = vec!["f:{fid}".into()];
                }
            }
            Ok(receipts)
        }
        .boxed()
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

impl SessionStore for ObservedStore {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        let of_user = documents.iter().any(|document| document.kind() == TargetKind::User);
        let (read, readers) = (self.memory.load(documents, records), Arc::clone(&self.readers));
        if self.outage.load(Ordering::SeqCst) == NOTHING_DONE
            || (of_user && self.unreadable.load(Ordering::SeqCst))
        {
            return late();
        }
        let (doubt, rolled_back) =
            (*self.doubt.lock().unwrap(), self.rolled_back.lock().unwrap().clone());
        async move {
            readers.1.fetch_max(readers.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            readers.0.fetch_sub(1, Ordering::SeqCst);
            let mut snapshot: Snapshot = read.await?;
            snapshot.doubt = doubt;
            if let Some(rolled_back) = rolled_back {
                snapshot.documents.fill(Some(rolled_back));
            }
            Ok(snapshot)
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        if commit.key.kind() == TargetKind::User && self.fails.load(Ordering::SeqCst) {
            return late();
        }
        if commit.key.kind() == TargetKind::User && self.overtakes.swap(false, Ordering::SeqCst) {
            let commit = self.memory.commit(commit);
            return commit.map(|done| done.map(|_| Committed::Overtaken)).boxed();
        }
        if commit.key.kind() != TargetKind::Family {
            return self.memory.commit(commit);
        }
        let outage = self.outage.load(Ordering::SeqCst);
        if outage == NOTHING_DONE {
            return late();
        }
        let (commit, outages) = (self.memory.commit(commit), Arc::clone(&self.outage));
        let written = Arc::clone(&self.written);
        async move {
            let committed = commit.await?;
            written.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            if outage == NOTHING_HEARD {
                outages.store(NOTHING_DONE, Ordering::SeqCst);
                return late().await;
            }
            Ok(committed)
        }
        .boxed()
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.memory.count_members()
    }
}

/// Where an outage lasts longer than the grace, the retry of a client looks like a reuse.
#[tokio::test]
async fn a_refresh_of_which_nobody_heard_may_be_repeated_however_late() {
    let clock = ManualClock::new(Timestamp::now());
    let store = ObservedStore {
        memory: MemoryStore::new().with_clock(clock.clone()),
        ..ObservedStore::default()
    };
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    for policy in [RefreshPolicy::new(), RefreshPolicy::new().with_recovery(), strict()] {
        let sessions = Sessions::new(store.clone(), revoker.clone(), policy).unwrap();
        let mut grant = login(&sessions, "alice").await;
        for _ in 0..3 {
            let written = store.written.load(Ordering::SeqCst);
            store.outage.store(NOTHING_HEARD, Ordering::SeqCst);
            let unknown = sessions.refresh(grant.token.expose(), None).await.unwrap_err();
            assert_eq!(unknown.kind(), StoreErrorKind::Timeout);
            store.outage.store(NOTHING_DONE, Ordering::SeqCst);
            sessions.refresh(grant.token.expose(), None).await.unwrap_err();
            store.outage.store(0, Ordering::SeqCst);
            // The refresh that failed tells the document.
            let start = std::time::Instant::now();
            while store.written.load(Ordering::SeqCst) < written + 2 {
                if start.elapsed() > Duration::from_secs(20) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            clock.advance(Duration::from_secs(3600));
            let next = granted(refresh(&sessions, &grant).await);
            assert!(next.is_repeated());
            assert!(Duration::ZERO < next.issued_at.saturating_duration_since(grant.issued_at));
            grant = next;
        }
        // It has been handed out now: from here on a second use is one.
        let last = granted(refresh(&sessions, &grant).await);
        clock.advance(Duration::from_secs(3600));
        match sessions.refresh(grant.token.expose(), None).await.unwrap() {
            Refresh::Refused(Refusal::ParentReused { ended: true }) => {
                assert!(matches!(refused(refresh(&sessions, &last).await), Refusal::Revoked(_)));
            }
            // The policy with recovery.
            Refresh::Granted(_) => {}
            refused => panic!("{refused:?}"),
        }
    }
}

/// The same for a caller that hangs up while it is written.
#[tokio::test]
async fn a_refresh_that_nobody_waited_for_may_be_repeated() {
    let store = ObservedStore::default();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let sessions = Sessions::new(store.clone(), revoker, strict()).unwrap();
    let first = login(&sessions, "alice").await;
    let before = store.written.load(Ordering::SeqCst);
    {
        let mut refreshing = std::pin::pin!(refresh(&sessions, &first));
        while store.written.load(Ordering::SeqCst) == before {
            assert!(futures::poll!(refreshing.as_mut()).is_pending(), "it waits for nobody");
            tokio::task::yield_now().await;
        }
    }
    let start = std::time::Instant::now();
    while store.written.load(Ordering::SeqCst) < before + 2 {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = granted(refresh(&sessions, &first).await);
    granted(refresh(&sessions, &second).await);
}

#[tokio::test]
async fn what_could_not_be_written_down_is_at_the_next_refresh() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let clock = ManualClock::new(Timestamp::now());
    let store = ObservedStore {
        memory: MemoryStore::new().with_clock(clock.clone()),
        ..ObservedStore::default()
    };
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
    let ended = sessions.end_of("alice", first.session.as_deref().unwrap()).await.unwrap();
    assert_eq!(ended, Ended::Done);
}

/// Whatever interval was chosen, a session without a valid token is none.
#[tokio::test]
async fn a_session_whose_tokens_are_over_is_not_listed() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let clock = ManualClock::new(Timestamp::now());
    let store = ObservedStore {
        memory: MemoryStore::new().with_clock(clock.clone()),
        ..ObservedStore::default()
    };
    let policy = strict().with_idle_lifetime(minutes(60)).without_max_age();
    for interval in [minutes(0), minutes(1), minutes(600)] {
        let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
        let sessions = Sessions::new(store.clone(), revoker, policy.clone()).unwrap();
        let sessions = sessions.with_touch_interval(interval);
        let mut grant = login(&sessions, "alice").await;
        for _ in 0..3 {
            clock.advance(minutes(59));
            grant = granted(refresh(&sessions, &grant).await);
            assert_eq!(sessions.list("alice").await.unwrap().len(), 1, "{interval:?}");
        }
        clock.advance(minutes(59));
        assert_eq!(sessions.count_of("alice").await.unwrap(), 1, "{interval:?}");
        clock.advance(minutes(1));
        assert!(sessions.list("alice").await.unwrap().is_empty(), "{interval:?}");
        assert!(sessions.find(grant.session.as_deref().unwrap()).await.unwrap().is_none());
        assert!(matches!(refresh(&sessions, &grant).await, Refresh::Refused(_)));
        clock.advance(minutes(120));
        assert_eq!(sessions.count().await.unwrap(), 0, "the longest interval is the lifetime");
    }
}

#[tokio::test]
async fn a_device_of_many_users_does_not_take_all_the_places_that_a_store_has() {
    let store = ObservedStore::default();
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

/// Nothing that was read of such a store decides anything: what is missing may be put back.
#[tokio::test]
async fn while_the_store_settles_nothing_is_refused_and_nothing_is_ended() {
    let (store, kinds) = (ObservedStore::default(), Kinds::default());
    let revoker =
        Revoker::new(store.clone(), TokenProfile::new()).unwrap().with_audit(kinds.clone());
    let sessions = Sessions::new(store.clone(), revoker, strict()).unwrap();
    let first = login(&sessions, "alice").await;
    let family = Target::family(&*first.family);
    let old = store.document(family.clone()).await;
    let second = granted(refresh(&sessions, &first).await);
    store.doubt(Doubt::Settling);

    let must_wait = |error: StoreError| {
        assert_eq!(error.kind(), StoreErrorKind::Settling, "{error}");
        assert!(error.may_be_repeated());
    };
    // As it is now; where it was rolled back, so that the token is ahead of it; and gone.
    for rolled_back in [None, Some(old), Some(Bytes::new())] {
        *store.rolled_back.lock().unwrap() = rolled_back;
        // The current token, a used one, and one of a family that is not there.
        for token in [second.token.expose(), first.token.expose()] {
            must_wait(sessions.refresh(token, None).await.unwrap_err());
        }
    }
    *store.rolled_back.lock().unwrap() = None;
    must_wait(sessions.login("bob", SessionDetails::new()).await.unwrap_err());
    must_wait(sessions.list("alice").await.unwrap_err());
    must_wait(sessions.is_trusted_device("alice", "phone").await.unwrap_err());
    must_wait(sessions.end_of("alice", first.session.as_deref().unwrap()).await.unwrap_err());
    must_wait(sessions.logout(&access_token(&first)).await.unwrap_err());

    store.doubt(Doubt::None);
    assert_eq!(store.find(&family).await.unwrap(), None);
    assert!(!kinds.0.lock().unwrap().contains(&AuditKind::RefreshReuse));
    granted(refresh(&sessions, &second).await);
}

/// The outbox keeps what ends a session as a whole: also what takes it off the lists.
#[tokio::test]
async fn a_session_that_is_ended_later_is_listed_no_longer_either() {
    let store = ObservedStore::default();
    let outbox = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let outbox = outbox.with_outbox(NonZeroUsize::new(4).unwrap());
    let sessions = Sessions::new(store.clone(), outbox, policy()).unwrap();
    let (one, two) = (login(&sessions, "alice").await, login(&sessions, "alice").await);
    let id = |grant: &Grant| grant.session.clone().unwrap();
    store.outage.store(NOTHING_DONE, Ordering::SeqCst);
    let error = sessions.end(&id(&one)).await.unwrap_err();
    assert!(error.is_pending(), "{error}");
    let error = sessions.end_of("alice", &id(&two)).await.unwrap_err();
    assert!(error.is_pending(), "{error}");
    assert_eq!(sessions.revoker().pending(), 2);

    store.outage.store(0, Ordering::SeqCst);
    let start = std::time::Instant::now();
    while sessions.revoker().pending() > 0 {
        assert!(start.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_live(&store, &one).await && !is_live(&store, &two).await);
    // Of those that are listed and revoked it would count both.
    assert_eq!(sessions.count().await.unwrap(), 0);
}

#[tokio::test]
async fn a_session_whose_family_lists_are_not_told_of_is_not_answered_as_ended() {
    let store = ObservedStore::default();
    let sessions = of(&store);
    for of_user in [false, true] {
        let grant = login(&sessions, "alice").await;
        let id = grant.session.as_deref().unwrap();
        let end = async || {
            if of_user {
                sessions.end_of("alice", id).await.map(drop)
            } else {
                sessions.end(id).await
            }
        };
        store.unreadable.store(true, Ordering::SeqCst);
        store.unlisted.store(true, Ordering::SeqCst);
        assert_eq!(end().await.unwrap_err().kind(), StoreErrorKind::Timeout);
        // Where there is nothing to tell, it has ended, and stays listed.
        store.unlisted.store(false, Ordering::SeqCst);
        end().await.unwrap();
        store.unreadable.store(false, Ordering::SeqCst);
    }
}

/// A list that was written is not left with a session of which nobody has the tokens.
#[tokio::test]
async fn a_login_that_was_overtaken_leaves_no_session() {
    let store = ObservedStore::default();
    let sessions = of(&store);
    store.overtakes.store(true, Ordering::SeqCst);
    let grant = login(&sessions, "alice").await;
    assert!(!store.overtakes.load(Ordering::SeqCst));
    let listed = sessions.list("alice").await.unwrap();
    assert_eq!(listed.iter().map(|it| &it.id).collect::<Vec<_>>(), [&grant.session.unwrap()]);
    assert_eq!(sessions.count().await.unwrap(), 1);
}

#[tokio::test]
async fn under_a_lasting_doubt_a_refresh_is_refused_and_nothing_is_ended() {
    let (store, kinds) = (ObservedStore::default(), Kinds::default());
    let revoker =
        Revoker::new(store.clone(), TokenProfile::new()).unwrap().with_audit(kinds.clone());
    let sessions = Sessions::new(store.clone(), revoker, strict()).unwrap();
    let first = login(&sessions, "alice").await;
    let family = Target::family(&*first.family);
    let second = granted(refresh(&sessions, &first).await);
    let now = Timestamp::now();
    let issued_until = now.saturating_add(Duration::from_millis(1));
    let ends_at = now.saturating_add(Duration::from_secs(3600));
    store.doubt(Doubt::Lasting { issued_until, ends_at });

    // The current one, and one that is used: an intact document and one that was rolled back look
    // the same.
    for grant in [&second, &first] {
        assert_eq!(refused(refresh(&sessions, grant).await), Refusal::Lost);
    }
    assert_eq!(store.find(&family).await.unwrap(), None, "nothing is ended");
    assert!(!kinds.0.lock().unwrap().contains(&AuditKind::RefreshReuse));
    // Whoever signs in again is not in doubt.
    let anew = login(&sessions, "alice").await;
    assert!(anew.issued_at > issued_until && is_live(&store, &anew).await);
    granted(refresh(&sessions, &anew).await);

    // The doubt has ended after all: everything is as it was.
    store.doubt(Doubt::None);
    granted(refresh(&sessions, &second).await);
}
