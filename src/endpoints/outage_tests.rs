//! A store that fails at each step: nothing that is acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde_json::json;

use super::event_tests::{OP, SECEVENT, caep};
use super::revocation::FORM;
use super::tests::post;
use super::*;
use crate::middleware::JwtRevocationLayer;
use crate::revocation::{Record, Revocation, Target};
use crate::session::{Login, RefreshPolicy, SessionDetails, Sessions};
use crate::store::memory::MemoryStore;
use crate::store::session::{Commit, Committed, SessionStore, Snapshot};
use crate::store::{
    ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError, StoreErrorKind,
};
use crate::testing::TestProvider;
use crate::verified::VerifiedToken;

/// Fails at the step of that number: before it has done it, or after.
#[derive(Clone)]
struct FailsAt {
    memory: MemoryStore,
    steps: Arc<AtomicU64>,
    failing_step: u64,
    is_done: bool,
    kind: StoreErrorKind,
}

impl FailsAt {
    fn step<T: Send + 'static>(
        &self,
        done: impl FnOnce(&MemoryStore) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        if step != self.failing_step {
            return done(&self.memory);
        }
        let failure = StoreError::new(self.kind, "the test says so");
        if !self.is_done {
            return ready(Err(failure)).boxed();
        }
        let done = done(&self.memory);
        async move {
            done.await?;
            Err(failure)
        }
        .boxed()
    }
}

impl RevocationStore for FailsAt {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.step(|memory| memory.write(changes))
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.step(|memory| memory.find(target))
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.step(|memory| memory.list(query))
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.step(<MemoryStore as RevocationStore>::count)
    }
}

impl SessionStore for FailsAt {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        self.step(|memory| memory.load(documents, records))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        self.step(|memory| memory.commit(commit))
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.step(<MemoryStore as SessionStore>::count_members)
    }
}

/// Whatever step of the store fails, and in whichever way: what is acknowledged has its effect, and
/// what is not has it when it is sent again.
#[tokio::test]
async fn nothing_that_is_acknowledged_is_lost_at_whichever_step_the_store_fails() {
    let provider = TestProvider::new(OP, "us").unwrap();
    let iss_sub = json!({ "format": "iss_sub", "iss": OP, "sub": "alice" });
    let kinds = [
        StoreErrorKind::Timeout,
        StoreErrorKind::Unreachable,
        StoreErrorKind::Settling,
        StoreErrorKind::Overloaded,
        StoreErrorKind::NotPrimary,
        StoreErrorKind::Full,
    ];
    let mut failed = 0;
    for (kind, is_done) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        for failing_step in 0..100 {
            let mut reached_the_end = true;
            for way in ["logout", "event", "global", "client"] {
                let memory = MemoryStore::new();
                let whole = JwtRevocationLayer::new(provider.verifier().unwrap(), memory.clone());
                let sessions =
                    Sessions::new(memory.clone(), whole.revoker(), RefreshPolicy::new()).unwrap();
                let mut details = SessionDetails::new();
                details.client = Some("client".into());
                let Login::Granted(grant) = sessions.login("alice", details).await.unwrap() else {
                    panic!("refused")
                };
                let refresh = grant.token.expose().to_owned();
                let steps = Arc::new(AtomicU64::new(0));
                let store =
                    FailsAt { memory, steps: Arc::clone(&steps), failing_step, is_done, kind };
                let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
                let broken =
                    Sessions::new(store.clone(), layer.revoker(), RefreshPolicy::new()).unwrap();
                let guard = ReplayGuard::new(store);
                let subjects = SubjectRevoker::new(layer.revoker()).with_sessions(broken.clone());
                let access = provider.access_token("alice", Some("s"));
                let global = json!({ "sub_id": iss_sub }).to_string();
                let (endpoint, media_type, body) = match way {
                    "logout" => {
                        let ended = broken.clone();
                        let receiver = LogoutReceiver::new(layer.revoker(), guard)
                            .with(provider.verifier().unwrap())
                            .unwrap()
                            .with_effect(move |_, user, _| {
                                let (ended, user) = (ended.clone(), user.unwrap().to_owned());
                                async move { ended.end_all(&user, None).await.map(drop) }
                            });
                        let token = provider.logout_token(Some("alice"), None);
                        (receiver.into_endpoint(), FORM, format!("logout_token={token}"))
                    }
                    "event" => {
                        let receiver = EventReceiver::new(subjects, guard)
                            .with(provider.verifier().unwrap())
                            .unwrap();
                        let event = caep("session-revoked");
                        let event = provider.security_event(&event, &iss_sub, &json!({}));
                        (receiver.into_endpoint(), SECEVENT, event)
                    }
                    "global" => {
                        let endpoint = Endpoint::global_token_revocation_for(subjects, |_| true);
                        (endpoint, "application/json", global)
                    }
                    _ => {
                        let clients = ClientAuth::with_secret("client", "secret");
                        let endpoint =
                            Endpoint::token_revocation(&layer, Some(broken.clone()), clients);
                        let form = format!("client_id=client&client_secret=secret&token={refresh}");
                        (endpoint, FORM, form)
                    }
                };
                let (mut status, mut sent) = (0, 0);
                while !(200..300).contains(&status) {
                    status = post(&endpoint, media_type, &body).await.0;
                    sent += 1;
                    let context = format!("{way} at step {failing_step} ({kind:?}, {is_done})");
                    // A mark that was kept although that was not confirmed: it was carried out.
                    if way == "logout" && status == 400 && sent > 1 {
                        break;
                    }
                    assert!(matches!(status, 200..300 | 503), "{context}: {status}");
                    assert!(sent < 4, "{context}: it recovers");
                }
                failed += sent - 1;
                let refused = way == "client" || whole.check(&access).await.is_err();
                assert!(refused, "{way} at step {failing_step} ({kind:?}, {is_done}): access");
                let kept = sessions.families().look_at(&refresh).await.unwrap();
                assert!(
                    kept.is_none(),
                    "{way} at step {failing_step} ({kind:?}, {is_done}): refresh"
                );
                reached_the_end &= steps.load(Ordering::SeqCst) <= failing_step;
            }
            if reached_the_end {
                break;
            }
        }
    }
    assert!(failed > 50, "the store failed {failed} times only");
}
