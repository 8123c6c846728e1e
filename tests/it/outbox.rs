//! Revocations that could not be confirmed, and go on being tried.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_jwt_revocation::audit::{AuditEvent, AuditSink};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::{FailMode, JwtRevocationLayer, Revoker, Target};

use crate::support::{WordVerifier, claims, signed, token};

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

#[derive(Default)]
struct Kept(Mutex<Vec<AuditEvent>>);

impl AuditSink for Kept {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

fn lab() -> (ScriptedStore, JwtRevocationLayer, Revoker) {
    let store = ScriptedStore::new();
    let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone());
    let revoker = layer.revoker().with_outbox(TWO);
    (store, layer, revoker)
}

async fn until_done(revoker: &Revoker) {
    while revoker.pending() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_is_an_error_and_is_done_when_the_store_is_back() {
    let (store, layer, revoker) = lab();
    let audit = Arc::new(Kept::default());
    let revoker = revoker.with_audit(Arc::clone(&audit));
    store.fail(StoreErrorKind::Unreachable);
    let error = revoker.revoke(Target::user("alice")).reason("logout").await.unwrap_err();
    assert!(error.is_pending(), "{error}");
    assert_eq!((error.kind(), revoker.pending()), (StoreErrorKind::Unreachable, 1));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(revoker.pending(), 1, "it goes on being tried");
    store.answer();
    until_done(&revoker).await;
    let record = revoker.find(Target::user("alice")).await.unwrap().unwrap();
    assert_eq!(record.reason().map(|reason| &**reason), Some("logout"));
    assert!(layer.check(&token("alice", "old")).await.is_err());
    let outcomes: Vec<_> = audit.0.lock().unwrap().iter().map(AuditEvent::is_failed).collect();
    assert_eq!(outcomes, [true, false], "it failed, and then it was done");
}

#[tokio::test]
async fn what_was_issued_after_it_was_asked_for_is_not_covered() {
    let (store, layer, revoker) = lab();
    store.fail(StoreErrorKind::Timeout);
    assert!(revoker.revoke(Target::user("alice")).await.unwrap_err().is_pending());
    // The whole second is covered, as by every cutoff.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut again = claims("alice", "later");
    again["iat"] = tower_jwt_revocation::clock::Timestamp::now().as_secs().into();
    store.answer();
    until_done(&revoker).await;
    assert!(layer.check(&token("alice", "old")).await.is_err());
    layer.check(&signed(&again)).await.expect("she has signed in again");
}

#[tokio::test(start_paused = true)]
async fn the_outbox_has_a_bound_and_takes_only_what_can_be_done_later() {
    let (store, _, revoker) = lab();
    store.fail(StoreErrorKind::Unreachable);
    let back = revoker.reinstate(Target::user("alice")).await.unwrap_err();
    assert!(!back.is_pending(), "it could undo what is revoked meanwhile");
    assert!(!revoker.revoke(Target::user("")).await.unwrap_err().is_pending(), "a mistake");
    let both = ["1", "2"].map(|id| revoker.revoke(Target::token(id)));
    let many = revoker.revoke_many(both).await;
    assert!(many.unwrap_err().is_pending());
    assert!(revoker.clone().revoke(Target::token("3")).await.unwrap_err().is_pending());
    assert!(!revoker.revoke(Target::token("4")).await.unwrap_err().is_pending(), "no room");
    assert_eq!(revoker.pending(), 2);
    // What can never be done is not kept for ever.
    store.fail(StoreErrorKind::Denied);
    until_done(&revoker).await;
    store.answer();
    assert_eq!(revoker.count().await.unwrap(), 0);
    // Without one, nothing is pending.
    let (store, layer, _) = lab();
    store.fail(StoreErrorKind::Unreachable);
    assert!(!layer.revoker().revoke(Target::token("1")).await.unwrap_err().is_pending());
}

#[tokio::test(start_paused = true)]
async fn this_process_does_not_admit_a_token_whose_revocation_is_pending() {
    let store = ScriptedStore::new();
    let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone())
        .with_fail_mode(FailMode::Open);
    // One that is issued a second later is another token.
    let text = token("alice", "1");
    let clearance = layer.check(&text).await.unwrap();
    store.fail(StoreErrorKind::Unreachable);
    let revoker = layer.revoker().with_outbox(TWO);
    assert!(revoker.revoke_token(clearance.token()).await.unwrap_err().is_pending());
    let refused = layer.check(&text).await.unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::Revoked(TargetKind::Token));
    assert!(!layer.check(&token("alice", "2")).await.unwrap().is_checked(), "another passes");
}

#[cfg(feature = "sessions")]
#[tokio::test(start_paused = true)]
async fn a_logout_is_kept_as_a_whole() {
    use tower_jwt_revocation::MemoryStore;
    use tower_jwt_revocation::session::{RefreshPolicy, Sessions};

    let (store, layer, revoker) = lab();
    let policy = RefreshPolicy::new();
    let sessions = Sessions::new(MemoryStore::new(), revoker.clone(), policy).unwrap();
    let mut claims = claims("alice", "1");
    claims["sid"] = "s1".into();
    claims["fid"] = "f1".into();
    let clearance = layer.check(&signed(&claims)).await.unwrap();
    store.fail(StoreErrorKind::Unreachable);
    let error = sessions.logout(clearance.token()).await.unwrap_err();
    assert!(error.is_pending());
    assert_eq!(revoker.pending(), 1);
    store.answer();
    until_done(&revoker).await;
    for target in [Target::session("s1"), Target::family("f1")] {
        assert!(revoker.find(target.clone()).await.unwrap().is_some(), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_name_counts_as_erased_while_a_revocation_is_pending() {
    let (store, _, revoker) = lab();
    let alice = || Target::user("alice");
    revoker.revoke(alice()).reason("of alice").await.unwrap();
    store.fail(StoreErrorKind::Unreachable);
    assert!(revoker.revoke(alice()).reason("of alice").await.unwrap_err().is_pending());
    store.answer();
    // The outbox has not come to it yet.
    let error = revoker.erase_names([alice()]).await.unwrap_err();
    assert!(error.may_be_repeated() && !error.is_pending(), "{error}");
    let words = async || format!("{:?}", revoker.find(alice()).await.unwrap());
    assert!(words().await.contains("alice"));
    until_done(&revoker).await;
    revoker.erase_names([alice()]).await.unwrap();
    assert!(!words().await.contains("alice"));
    // Nor if the store does not answer.
    store.fail(StoreErrorKind::Unreachable);
    revoker.erase_names([alice()]).await.unwrap_err();
}
