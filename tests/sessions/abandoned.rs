//! The caller goes away while something is under way, as a client does that hangs up: what was
//! begun goes on, and the audit hears of it. Or the whole process goes: then nothing goes on, and
//! what counts is what it had written.

use std::sync::{Mutex, PoisonError};

use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::audit::{AuditEvent, AuditSink};

use super::hold::{HoldingProxy, Where};
use super::on_redis::{Redis, connect};
use super::support::{self, RedisServer};
use super::*;

#[derive(Default)]
struct Diary(Mutex<Vec<AuditEvent>>);

impl AuditSink for Diary {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

impl Diary {
    /// Kind, family and outcome of each event since the last time.
    fn read(&self) -> Vec<(&'static str, bool, bool)> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        let row = |event: &AuditEvent| {
            let names_family = event.field("family_id").is_some();
            (event.kind().as_str(), names_family, event.is_failed())
        };
        events.iter().map(row).collect()
    }
}

struct Scene {
    proxy: HoldingProxy,
    /// Behind the proxy.
    sessions: Sessions,
    diary: Arc<Diary>,
}

impl Scene {
    /// Lets `work` run until its `n`th script is held, drops it, and says what the audit has heard
    /// by then.
    async fn abandon<T>(
        &self,
        n: u32,
        work: impl Future<Output = T>,
    ) -> Vec<(&'static str, bool, bool)> {
        self.diary.read();
        self.proxy.hold(n, Where::Before);
        tokio::select! {
            biased;
            () = self.proxy.held() => {}
            _ = work => panic!("it has no script {n}"),
        }
        let heard = self.diary.read();
        assert!(self.proxy.release());
        // What is asked later over the same connection is answered after what was held.
        self.sessions.list("nobody").await.unwrap();
        heard
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_hears_of_what_nobody_waited_for() {
    support::redis_or_skip!();
    let ground = Redis::start(1).await;
    let proxy = HoldingProxy::start(ground.addr()).await;
    let store = connect(&proxy.url(), 1).await;
    let diary = Arc::new(Diary::default());
    let revoker =
        Revoker::new(store.clone(), TokenProfile::new()).unwrap().with_audit(Arc::clone(&diary));
    let sessions = Sessions::new(store, revoker, strict()).unwrap();
    let scene = Scene { proxy, sessions: sessions.clone(), diary };
    let first = login(&sessions, "alice").await;
    let second = granted(refresh(&sessions, &first).await);

    // A login: it is read who is revoked, and written.
    for n in 0..3 {
        assert_eq!(
            scene.abandon(n, login(&sessions, "bob")).await,
            [("login", false, true)],
            "{n}"
        );
    }
    // A thief who hangs up: the family is read, what it belongs to is read, and it is ended.
    assert_eq!(scene.abandon(0, refresh(&sessions, &first)).await, [("refresh", false, true)]);
    assert_eq!(scene.abandon(1, refresh(&sessions, &first)).await, [("refresh", true, true)]);
    assert_eq!(
        scene.abandon(2, refresh(&sessions, &first)).await,
        [("revoke_family", true, true), ("refresh_reuse", true, true)]
    );
    assert!(matches!(refused(refresh(&sessions, &second).await), Refusal::Revoked(_)));

    let carol = login(&sessions, "carol").await;
    let session = carol.session.as_deref().unwrap();
    assert_eq!(scene.abandon(0, sessions.end(session)).await, [("revoke_session", false, true)]);
    assert!(matches!(refused(refresh(&sessions, &carol).await), Refusal::Revoked(_)));
    let users = ["carol", "dave"].map(|id| sessions.revoker().revoke(Target::user(id)));
    let heard = scene.abandon(0, sessions.revoker().revoke_many(users)).await;
    assert_eq!(heard, [("revoke_user", false, true); 2]);
    // What was never begun did not happen.
    scene.diary.read();
    drop(sessions.revoker().revoke(Target::user("erin")).into_future());
    assert_eq!(scene.diary.read(), []);
}

/// A process, as Redis and its clients see it: a runtime with a store, of which all connections and
/// tasks end together. It presents `token`, and dies when Redis has written the refresh and the
/// reply is on its way.
async fn die_before_the_answer(server: &RedisServer, policy: RefreshPolicy, token: &Grant) {
    let proxy = HoldingProxy::start(server.addr()).await;
    let (url, token) = (proxy.url(), token.token.expose().to_owned());
    let process =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (is_connected, connected) = tokio::sync::oneshot::channel();
    let (go, may_go) = tokio::sync::oneshot::channel();
    let work = process.spawn(async move {
        let sessions = sessions_of(connect(&url, 1).await, policy);
        is_connected.send(()).unwrap();
        may_go.await.unwrap();
        sessions.refresh(&token, None).await.is_ok()
    });
    connected.await.unwrap();
    // The family is read, what it belongs to is read, and it is written.
    proxy.hold(2, Where::After);
    go.send(()).unwrap();
    proxy.held().await;
    process.shutdown_background();
    assert!(work.await.unwrap_err().is_cancelled(), "it had no answer");
    assert!(proxy.release());
}

fn sessions_of(store: RedisStore, policy: RefreshPolicy) -> Sessions {
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    Sessions::new(store, revoker, policy).unwrap()
}

/// A login whose first refresh was written by a process that has died, and what another process
/// says. The clock of the server is that much ahead by then.
async fn after_a_death(policy: RefreshPolicy, ahead_ms: i64) -> (RedisServer, Sessions, Grant) {
    let server = RedisServer::builder().own_clock().start();
    let sessions = sessions_of(connect(&server.url(), 1).await, policy.clone());
    let first = login(&sessions, "alice").await;
    die_before_the_answer(&server, policy, &first).await;
    server.set_clock(ahead_ms);
    (server, sessions, first)
}

/// More than the grace, which is 10 s by default.
const AFTER_THE_GRACE: i64 = 11_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_the_grace_a_retry_gets_what_a_process_that_died_has_written() {
    support::redis_or_skip!();
    let (_server, sessions, first) = after_a_death(RefreshPolicy::new(), 8_000).await;
    let second = granted(refresh(&sessions, &first).await);
    // It was written by the process that died.
    assert!(second.is_repeated());
    assert_eq!(granted(refresh(&sessions, &first).await).token.expose(), second.token.expose());
    let third = granted(refresh(&sessions, &second).await);
    assert!(!third.is_repeated());
    assert_eq!(sessions.list("alice").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_grace_a_retry_ends_the_session_and_a_thief_gets_nothing() {
    support::redis_or_skip!();
    let (server, sessions, first) = after_a_death(RefreshPolicy::new(), AFTER_THE_GRACE).await;
    // The owner and a thief have the same token: whoever comes first ends the session, and neither
    // goes on.
    let refusal = refused(refresh(&sessions, &first).await);
    assert_eq!(refusal, Refusal::ParentReused { ended: true });
    assert!(matches!(refused(refresh(&sessions, &first).await), Refusal::Revoked(_)));
    assert_eq!(sessions.list("alice").await.unwrap().len(), 0);
    let store = connect(&server.url(), 1).await;
    assert!(!is_live(&store, &first).await);
    let again = login(&sessions, "alice").await;
    granted(refresh(&sessions, &again).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_recovery_whoever_comes_first_goes_on_also_after_the_grace() {
    support::redis_or_skip!();
    let policy = RefreshPolicy::new().with_recovery();
    let (server, sessions, first) = after_a_death(policy, AFTER_THE_GRACE).await;
    let second = granted(refresh(&sessions, &first).await);
    assert!(!second.is_repeated());
    // A second holder gets the same within a grace of its own; one of the two is found out when
    // both have gone on.
    let copy = granted(refresh(&sessions, &first).await);
    assert_eq!((copy.is_repeated(), copy.token.expose()), (true, second.token.expose()));
    granted(refresh(&sessions, &second).await);
    let refusal = refused(refresh(&sessions, &first).await);
    assert_eq!(refusal, Refusal::OlderReused { ended: true });

    // It is given once: who comes after that grace ends the session.
    let other = login(&sessions, "bob").await;
    die_before_the_answer(&server, RefreshPolicy::new(), &other).await;
    server.set_clock(2 * AFTER_THE_GRACE);
    granted(refresh(&sessions, &other).await);
    server.set_clock(3 * AFTER_THE_GRACE);
    let refusal = refused(refresh(&sessions, &other).await);
    assert_eq!(refusal, Refusal::ParentReused { ended: true });
}
