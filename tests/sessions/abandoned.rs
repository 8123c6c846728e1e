//! The caller goes away while something is under way, as a client does that hangs up: what was
//! begun goes on, and the audit hears of it.

use std::sync::{Mutex, PoisonError};

use tower_jwt_revocation::audit::{AuditEvent, AuditSink};

use super::hold::{HoldingProxy, Where};
use super::on_redis::{Redis, connect};
use super::support;
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
