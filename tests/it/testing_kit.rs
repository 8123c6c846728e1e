//! What an application is tested with: the layer, its tokens, its clock and its store in one.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::testing::TestAuth;
use tower_jwt_revocation::token::TokenErrorKind;
use tower_jwt_revocation::{Clearance, FailMode, JwtRevocationLayer, Target, TokenProfile};

use crate::support::{Handler, rejection, with_token};

async fn status(layer: &JwtRevocationLayer, token: &str) -> StatusCode {
    layer.layer(Handler).oneshot(with_token(token)).await.unwrap().status()
}

async fn refused(layer: &JwtRevocationLayer, token: &str) -> RejectionKind {
    rejection(&layer.layer(Handler).oneshot(with_token(token)).await.unwrap()).kind()
}

#[tokio::test]
async fn a_token_passes_until_it_is_revoked_alone_or_with_its_user() {
    let auth = TestAuth::new();
    let (phone, laptop) = (auth.token(json!({"sub": "a"})), auth.token(json!({"sub": "a"})));
    assert_eq!(status(&auth.layer(), &phone).await, StatusCode::OK);
    auth.revoke(&phone).await;
    let by_token = RejectionKind::Revoked(TargetKind::Token);
    assert_eq!(refused(&auth.layer(), &phone).await, by_token);
    assert_eq!(status(&auth.layer(), &laptop).await, StatusCode::OK);
    auth.revoker().revoke(Target::user("a")).await.unwrap();
    assert_eq!(status(&auth.layer(), &laptop).await, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.layer().counters().snapshot().refused.revoked, 2, "all layers count together");
}

#[tokio::test]
async fn what_a_token_needs_is_added_unless_it_is_given() {
    let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
    let auth = TestAuth::with_profile(profile);
    let clearance = auth.layer().check(&auth.token(json!({"role": "admin"}))).await.unwrap();
    let token = clearance.token();
    assert_eq!((token.issuer(), token.id()), (Some("https://id.example"), Some("test-0")));
    let foreign = auth.token(json!({"iss": "https://other.example"}));
    let expected = RejectionKind::InvalidToken(TokenErrorKind::WrongIssuer);
    assert_eq!(refused(&auth.layer(), &foreign).await, expected);
    let old = auth.token(json!({"iat": 0, "exp": 1}));
    let expected = RejectionKind::InvalidToken(TokenErrorKind::Expired);
    assert_eq!(refused(&auth.layer(), &old).await, expected);
    let nameless = auth.token(json!({ "jti": null }));
    let expected = RejectionKind::InvalidToken(TokenErrorKind::MissingId);
    assert_eq!(refused(&auth.layer(), &nameless).await, expected);
}

#[tokio::test]
async fn a_token_of_another_kit_is_refused() {
    let token = TestAuth::new().token(json!({"sub": "alice"}));
    let expected = RejectionKind::InvalidToken(TokenErrorKind::BadSignature);
    assert_eq!(refused(&TestAuth::new().layer(), &token).await, expected);
}

#[tokio::test]
async fn one_clock_is_that_of_tokens_and_revocations() {
    let auth = TestAuth::new();
    let token = auth.token(json!({"sub": "alice"}));
    auth.revoker().revoke(Target::user("alice")).await.unwrap();
    auth.clock().advance(Duration::from_secs(1));
    let later = auth.token(json!({"sub": "alice"}));
    assert_eq!(status(&auth.layer(), &token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&auth.layer(), &later).await, StatusCode::OK);
    auth.clock().advance(Duration::from_secs(1000));
    let expected = RejectionKind::InvalidToken(TokenErrorKind::Expired);
    assert_eq!(refused(&auth.layer(), &later).await, expected);
}

#[tokio::test]
async fn while_the_store_is_down_the_fail_mode_decides_and_nothing_is_written() {
    let auth = TestAuth::new();
    let open = auth.layer().with_fail_mode(FailMode::Open);
    let token = auth.token(json!({"sub": "alice"}));
    auth.down();
    assert_eq!(status(&auth.layer(), &token).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!open.check(&token).await.unwrap().is_checked());
    assert!(auth.revoker().revoke(Target::user("alice")).await.is_err());
    auth.up();
    assert!(open.check(&token).await.unwrap().is_checked());
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_answers_late_and_past_the_limit_of_redis_not_at_all() {
    let auth = TestAuth::new();
    let token = auth.token(json!({"sub": "alice"}));
    let begun = tokio::time::Instant::now();
    auth.slow(Duration::from_millis(20));
    assert_eq!(status(&auth.layer(), &token).await, StatusCode::OK);
    assert_eq!(begun.elapsed(), Duration::from_millis(20));
    auth.slow(Duration::from_secs(5));
    let expected = RejectionKind::StandingUnknown(StoreErrorKind::Timeout);
    assert_eq!(refused(&auth.layer(), &token).await, expected);
    assert_eq!(begun.elapsed(), Duration::from_millis(70));
    auth.slow(Duration::from_millis(900));
    auth.revoker().revoke(Target::user("alice")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(970), "a write has a second");
}

#[tokio::test]
async fn after_a_loss_of_data_older_tokens_are_in_doubt_and_revoked_ones_too() {
    let auth = TestAuth::new();
    let token = auth.token(json!({"sub": "alice"}));
    let undated = TestAuth::with_profile(TokenProfile::new().allow_missing_iat());
    auth.revoke(&token).await;
    auth.lose_data();
    assert_eq!(refused(&auth.layer(), &token).await, RejectionKind::InDoubt);
    assert_eq!(auth.revoker().count().await.unwrap(), 0);
    auth.revoke(&token).await;
    let by_token = RejectionKind::Revoked(TargetKind::Token);
    assert_eq!(refused(&auth.layer(), &token).await, by_token, "it is known again");
    auth.clock().advance(Duration::from_secs(1));
    let later = auth.token(json!({"sub": "alice"}));
    assert_eq!(status(&auth.layer(), &later).await, StatusCode::OK);

    let token = undated.token(json!({ "iat": null }));
    undated.lose_data();
    assert_eq!(refused(&undated.layer(), &token).await, RejectionKind::InDoubt);
}

/// Without anything that is carried from the logout to the login.
#[cfg(feature = "issuer")]
#[tokio::test]
async fn a_token_that_is_stamped_is_past_every_revocation_of_what_it_names() {
    use tower_jwt_revocation::token::issue::NewToken;
    use tower_jwt_revocation::token::jwt::SigningKey;
    use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenIssuer};

    let auth = TestAuth::new();
    let key = SigningKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap();
    let profile = TokenProfile::new().with_clock(auth.clock());
    let verifier = JwtVerifier::new([key.verification_key()], profile.clone()).unwrap();
    let layer = JwtRevocationLayer::new(verifier, auth.store());
    let issuer = TokenIssuer::new(key, profile).unwrap().with_clock(auth.clock());
    let new = || NewToken::new("alice").with_client("app");
    for target in [Target::user("alice"), Target::client("app"), Target::issuer("")] {
        auth.clock().advance(Duration::from_secs(10));
        layer.revoker().revoke(target).await.unwrap();
        let plain = issuer.issue(&new()).unwrap();
        assert_eq!(status(&layer, plain.token()).await, StatusCode::UNAUTHORIZED);
        let stamped = issuer.issue(&layer.revoker().stamp(new()).await.unwrap()).unwrap();
        assert_eq!(status(&layer, stamped.token()).await, StatusCode::OK);
    }
    auth.down();
    assert!(layer.revoker().stamp(new()).await.is_err());
}

#[test]
fn a_handler_is_given_the_claims_that_a_test_says() {
    #[derive(serde::Deserialize)]
    struct Mine {
        role: String,
    }
    let clearance = Clearance::for_test(json!({"sub": "alice", "sid": "s-1", "role": "admin"}));
    assert!(clearance.is_checked());
    let token: &Arc<_> = clearance.token();
    assert_eq!(token.subject(), Some("alice"));
    assert_eq!(token.target(TargetKind::Session), Some(Target::session("s-1")));
    assert_eq!(token.claims::<Mine>().unwrap().role, "admin");
}

#[test]
#[should_panic(expected = "no token can have these claims")]
fn a_handler_is_given_no_claims_that_no_token_can_have() {
    let _ = Clearance::for_test(json!({ "exp": "tomorrow" }));
}

#[cfg(feature = "sessions")]
#[tokio::test]
async fn sessions_live_in_the_same_store_and_by_the_same_clock() {
    use tower_jwt_revocation::session::{Login, Refresh, RefreshPolicy, SessionDetails, Sessions};

    let auth = TestAuth::new();
    let sessions = Sessions::new(auth.store(), auth.revoker(), RefreshPolicy::new()).unwrap();
    let login = sessions.login("alice", SessionDetails::new()).await.unwrap();
    let Login::Granted(grant) = login else { panic!("{login:?}") };
    let refresh = async |token: &str| sessions.refresh(token, None).await;
    let next = refresh(grant.token.expose()).await.unwrap();
    let Refresh::Granted(next) = next else { panic!("{next:?}") };
    auth.down();
    assert!(refresh(next.token.expose()).await.is_err(), "an outage is no `invalid_grant`");
    auth.up();
    auth.clock().advance(Duration::from_secs(15 * 24 * 3600));
    let late = refresh(next.token.expose()).await.unwrap();
    assert!(!matches!(late, Refresh::Granted(_)), "idle for 15 days: {late:?}");

    let login = sessions.login("alice", SessionDetails::new()).await.unwrap();
    let Login::Granted(grant) = login else { panic!("{login:?}") };
    auth.lose_data();
    let lost = refresh(grant.token.expose()).await.unwrap();
    assert!(!matches!(lost, Refresh::Granted(_)), "{lost:?}");
    assert_eq!(sessions.list("alice").await.unwrap().len(), 0);
}
