//! Tokens that no request has brought: messages, jobs, command lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::audit::{AuditEvent, AuditSink};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::token::{TokenErrorKind, UpstreamClaims};
use tower_jwt_revocation::{
    CachedVerifier, Clearance, FailMode, JwtRevocationLayer, MemoryStore, Rejection, Target,
    TokenProfile,
};

use crate::support::{
    DeadStore, Handler, WordVerifier, expired_token, late_store, layer, layer_without_store,
    rejection, seen, token, with_token,
};

#[derive(Default)]
struct EventCount(AtomicUsize);

impl AuditSink for EventCount {
    fn record(&self, _: &AuditEvent) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn outcome(result: &Result<Clearance, Rejection>) -> Result<bool, RejectionKind> {
    result.as_ref().map(Clearance::is_checked).map_err(Rejection::kind)
}

async fn in_a_request(layer: &JwtRevocationLayer, token: &str) -> Result<bool, RejectionKind> {
    let answer = layer.layer(Handler).oneshot(with_token(token)).await.unwrap();
    if answer.status().is_success() {
        return Ok(seen(&answer).clearance.as_ref().unwrap().is_checked());
    }
    Err(rejection(&answer).kind())
}

#[tokio::test]
async fn a_token_outside_of_a_request_gets_the_same_answer_as_in_one() {
    let cached = CachedVerifier::new(WordVerifier::default());
    for layer in [
        layer(),
        JwtRevocationLayer::new(WordVerifier::default(), late_store()),
        JwtRevocationLayer::new(cached, MemoryStore::new()),
        layer_without_store(),
        layer_without_store().with_fail_mode(FailMode::Open),
    ] {
        // Where the store is dead, nothing can be written either.
        let _ = layer.revoker().revoke(Target::user("mallory")).await;
        let (good, revoked) = (token("alice", "1"), token("mallory", "2"));
        for token in [&*good, &good, &revoked, &expired_token(), "junk", "a b", "é"] {
            let outside = layer.check(token).await;
            assert_eq!(outcome(&outside), in_a_request(&layer, token).await, "{token} {layer:?}");
        }
        // An empty token is none.
        assert_eq!(outcome(&layer.check("").await), Err(RejectionKind::BadRequest));
    }
    assert_eq!(outcome(&layer().check(&token("alice", "1")).await), Ok(true));
    let clearance = layer().check(&token("alice", "1")).await.unwrap();
    assert_eq!(clearance.token().subject(), Some("alice"));
}

#[tokio::test]
async fn it_is_counted_and_audited_like_a_request() {
    let events = Arc::new(EventCount::default());
    let layer = layer().with_audit(Arc::clone(&events));
    layer.revoker().revoke(Target::user("mallory")).await.unwrap();
    let written = events.0.load(Relaxed);
    layer.check(&token("alice", "1")).await.unwrap();
    layer.check(&token("mallory", "2")).await.unwrap_err();
    layer.check("junk").await.unwrap_err();
    let counts = layer.counters().snapshot();
    assert_eq!((counts.admitted, counts.refused.revoked, counts.refused.invalid_token), (1, 1, 1));
    assert_eq!(events.0.load(Relaxed) - written, 1, "the revoked token");

    let reporting = layer.with_report_only();
    let refused = reporting.check(&token("mallory", "2")).await;
    assert_eq!(outcome(&refused), Err(RejectionKind::Revoked(TargetKind::User)));
    assert_eq!(reporting.counters().snapshot().would_refuse.revoked, 1);
}

#[tokio::test]
async fn a_fail_mode_that_depends_on_the_request_is_closed_without_one() {
    let layer = JwtRevocationLayer::new(WordVerifier::default(), DeadStore)
        .with_fail_mode_for(|_, _| FailMode::Open);
    assert_eq!(in_a_request(&layer, &token("alice", "1")).await, Ok(false));
    assert_eq!(
        outcome(&layer.check(&token("alice", "1")).await),
        Err(RejectionKind::StandingUnknown(StoreErrorKind::Unreachable))
    );
}

#[tokio::test]
async fn what_belongs_to_requests_lets_nothing_pass_without_a_token() {
    let layer = layer().with_optional_credentials().with_exemption(|_| true);
    assert_eq!(outcome(&layer.check("").await), Err(RejectionKind::BadRequest));
    assert_eq!(
        outcome(&layer.check("junk").await),
        Err(RejectionKind::InvalidToken(TokenErrorKind::BadSignature))
    );
}

#[tokio::test]
async fn a_layer_behind_another_one_says_that_it_cannot_verify() {
    let claims = UpstreamClaims::in_extension::<u8>(TokenProfile::new()).unwrap();
    let layer = JwtRevocationLayer::behind(claims, MemoryStore::new());
    let refused = layer.check(&token("alice", "1")).await.unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::InvalidToken(TokenErrorKind::Other));
    assert!(refused.to_string().contains("another one has verified"), "{refused}");
}

#[tokio::test]
async fn it_can_be_awaited_in_a_task() {
    let layer = JwtRevocationLayer::new(WordVerifier::default(), late_store());
    let task = tokio::spawn(async move { layer.check(&token("alice", "1")).await });
    assert!(task.await.unwrap().is_ok());
}
