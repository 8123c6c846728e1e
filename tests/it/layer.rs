//! From end to end over a memory store: accepted, revoked, refused.

use std::sync::Arc;

use http::StatusCode;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::RevocationStore;
use tower_jwt_revocation::token::TokenVerifier;
use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore, Target};

use crate::support::{
    Handler, WordVerifier, late_store, layer, rejection, seen, token, with_token,
};

#[tokio::test]
async fn a_token_works_until_it_is_revoked() {
    let layer = layer();
    let (alice, bob) = (token("alice", "1"), token("bob", "2"));
    let service = layer.layer(Handler);

    let answer = service.clone().oneshot(with_token(&alice)).await.unwrap();
    let clearance = seen(&answer).clearance.as_ref().unwrap();
    assert_eq!((clearance.token().subject(), clearance.is_checked()), (Some("alice"), true));

    layer.revoker().revoke(Target::token("1")).await.unwrap();
    let answer = service.clone().oneshot(with_token(&alice)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(rejection(&answer).kind(), RejectionKind::Revoked(TargetKind::Token));

    let answer = service.clone().oneshot(with_token(&bob)).await.unwrap();
    assert_eq!(answer.body(), "handled");
    layer.revoker().revoke(Target::user("bob")).await.unwrap();
    let answer = service.oneshot(with_token(&bob)).await.unwrap();
    assert_eq!(rejection(&answer).kind(), RejectionKind::Revoked(TargetKind::User));
}

#[tokio::test]
async fn a_store_that_has_to_ask_decides_alike() {
    let layer = JwtRevocationLayer::new(WordVerifier::default(), late_store());
    let service = layer.layer(Handler);
    let alice = token("alice", "1");
    let answer = service.clone().oneshot(with_token(&alice)).await.unwrap();
    assert!(seen(&answer).clearance.as_ref().unwrap().is_checked());
    layer.revoker().revoke(Target::token("1")).await.unwrap();
    let answer = service.oneshot(with_token(&alice)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn verifier_and_store_may_be_shared() {
    let verifier: Arc<dyn TokenVerifier> = Arc::new(WordVerifier::default());
    let store: Arc<dyn RevocationStore> = Arc::new(MemoryStore::new());
    let one = JwtRevocationLayer::new(Arc::clone(&verifier), Arc::clone(&store));
    let other = JwtRevocationLayer::new(verifier, store);
    one.revoker().revoke(Target::user("alice")).await.unwrap();
    let answer = other.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert_eq!(rejection(&answer).kind(), RejectionKind::Revoked(TargetKind::User));
}

#[tokio::test]
async fn clones_and_services_of_a_layer_count_together() {
    let layer = layer();
    let counters = layer.counters();
    layer.clone().layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    layer.layer(Handler).oneshot(with_token("junk")).await.unwrap();
    let seen = counters.snapshot();
    assert_eq!((seen.admitted, seen.refused.invalid_token, seen.checks()), (1, 1, 1));
}

#[test]
fn debug_shows_the_settings() {
    let layer = layer().with_exemption(|_| false).with_report_only();
    let text = format!("{layer:?} {:?}", layer.layer(Handler));
    for word in ["fail_mode: Closed", "exemption: true", "ReportOnly", "realm: \"api\""] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
#[tokio::test]
async fn with_a_real_verifier() {
    use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};

    let secret = b"a secret of at least thirty-two bytes";
    let key = VerificationKey::from_secret(Algorithm::HS256, secret).unwrap();
    let verifier = JwtVerifier::new([key], TokenProfile::new()).unwrap();
    let token = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &crate::support::claims("alice", "1"),
        &jsonwebtoken::EncodingKey::from_secret(secret).unwrap(),
    )
    .unwrap();
    let layer = JwtRevocationLayer::new(verifier, MemoryStore::new());
    let service = layer.layer(Handler);
    let answer = service.clone().oneshot(with_token(&token)).await.unwrap();
    assert_eq!(answer.body(), "handled");
    layer.revoker().revoke(Target::token("1")).await.unwrap();
    let answer = service.clone().oneshot(with_token(&token)).await.unwrap();
    assert_eq!(rejection(&answer).kind(), RejectionKind::Revoked(TargetKind::Token));
    let forged = format!("{}AAAA", token.get(..token.len() - 4).unwrap());
    let answer = service.oneshot(with_token(&forged)).await.unwrap();
    assert!(matches!(rejection(&answer).kind(), RejectionKind::InvalidToken(_)));
}
