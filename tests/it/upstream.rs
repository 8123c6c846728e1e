//! Layers whose tokens someone else has verified, or cannot verify at the moment.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::token::{TokenError, TokenErrorKind, TokenVerifier, UpstreamClaims};
use tower_jwt_revocation::{
    FailMode, JwtRevocationLayer, MemoryStore, Rejection, Target, TokenProfile, VerifiedToken,
};

use crate::support::{Handler, claims, rejection, request, seen, token, with_token};

/// Claims as another layer might leave them.
#[derive(Clone, Serialize, Deserialize)]
struct TheirClaims {
    sub: String,
    jti: Option<String>,
    iat: u64,
    exp: u64,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone)]
struct TokenData<C> {
    claims: C,
}

fn theirs(id: &str) -> TheirClaims {
    serde_json::from_value(claims("alice", id)).unwrap()
}

fn with_extension(value: impl Clone + Send + Sync + 'static) -> Request<String> {
    let mut request = request();
    request.extensions_mut().insert(value);
    request
}

fn behind(claims: UpstreamClaims) -> JwtRevocationLayer {
    JwtRevocationLayer::behind(claims, MemoryStore::new())
}

#[tokio::test]
async fn claims_of_an_outer_layer_are_checked_for_revocation() {
    let layer = behind(UpstreamClaims::in_extension::<TheirClaims>(TokenProfile::new()).unwrap());
    let service = layer.layer(Handler);
    let answer = service.clone().oneshot(with_extension(theirs("1"))).await.unwrap();
    let clearance = seen(&answer).clearance.as_ref().unwrap();
    assert_eq!(clearance.token().subject(), Some("alice"));
    assert_eq!(clearance.token().claims::<serde_json::Value>().unwrap()["role"], "clerk");

    layer.revoker().revoke(Target::user("alice")).await.unwrap();
    let answer = service.oneshot(with_extension(theirs("1"))).await.unwrap();
    assert!(matches!(rejection(&answer), Rejection::Revoked(_)));
}

#[tokio::test]
async fn claims_can_be_part_of_what_is_left() {
    let claims =
        UpstreamClaims::in_extension_as(TokenProfile::new(), |data: &TokenData<TheirClaims>| {
            &data.claims
        });
    let service = behind(claims.unwrap()).layer(Handler);
    let answer = service.oneshot(with_extension(TokenData { claims: theirs("1") })).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_claims_there_are_no_credentials_whatever_token_is_in_the_request() {
    let layer = behind(UpstreamClaims::in_extension::<TheirClaims>(TokenProfile::new()).unwrap());
    for request in
        [request(), with_token(&token("alice", "1")), with_extension(String::from("alice"))]
    {
        let answer = layer.layer(Handler).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(matches!(rejection(&answer), Rejection::NoCredentials));
    }
    let optional = layer.with_optional_credentials().layer(Handler);
    assert!(seen(&optional.oneshot(request()).await.unwrap()).clearance.is_none());
}

#[tokio::test]
async fn claims_of_an_outer_layer_are_checked_by_the_profile() {
    let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
    let service =
        behind(UpstreamClaims::in_extension::<serde_json::Value>(profile).unwrap()).layer(Handler);
    let mut claims = claims("alice", "1");
    let mut check = async |name: &str, value: serde_json::Value| {
        claims[name] = value;
        let answer = service.clone().oneshot(with_extension(claims.clone())).await.unwrap();
        answer.extensions().get::<Rejection>().map(Rejection::kind)
    };
    let invalid = |kind| Some(RejectionKind::InvalidToken(kind));
    assert_eq!(check("aud", "orders".into()).await, invalid(TokenErrorKind::MissingClaim));
    assert_eq!(
        check("iss", "https://else.example".into()).await,
        invalid(TokenErrorKind::WrongIssuer)
    );
    assert_eq!(check("iss", "https://id.example".into()).await, None);
    assert_eq!(check("aud", "else".into()).await, invalid(TokenErrorKind::WrongAudience));
    assert_eq!(check("aud", "orders".into()).await, None);
    assert_eq!(check("jti", serde_json::Value::Null).await, invalid(TokenErrorKind::MissingId));
    assert_eq!(check("jti", "1".into()).await, None);
    assert_eq!(check("exp", 1.into()).await, invalid(TokenErrorKind::Expired));
}

#[tokio::test]
async fn a_gateway_can_hand_over_claims_in_a_header_field() {
    const FIELD: &str = "x-jwt-payload";
    let claims_in_header =
        || UpstreamClaims::in_header_of_trusted_gateway(TokenProfile::new(), FIELD);
    let service = behind(claims_in_header().unwrap()).layer(Handler);
    let with_fields = |values: &[&str]| {
        let mut request = request();
        for value in values {
            request.headers_mut().append(FIELD, value.parse().unwrap());
        }
        request
    };
    let json = claims("alice", "1").to_string();
    let (bare, padded) = (URL_SAFE_NO_PAD.encode(&json), URL_SAFE.encode(&json));
    for good in [&bare, &padded] {
        let answer = service.clone().oneshot(with_fields(&[good])).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    for bad in [&[&*json][..], &["é"], &[""], &["%"], &[&bare, &bare], &[&"a".repeat(8193)]] {
        let answer = service.clone().oneshot(with_fields(bad)).await.unwrap();
        assert!(matches!(rejection(&answer), Rejection::InvalidToken(_)), "{bad:?}");
    }
    assert!(matches!(
        rejection(&service.oneshot(request()).await.unwrap()),
        Rejection::NoCredentials
    ));
    let error =
        UpstreamClaims::in_header_of_trusted_gateway(TokenProfile::new(), "x y").unwrap_err();
    assert_eq!(error.setting(), "claims_header");
}

/// A verifier that waits for its keys.
struct NoKeys(TokenProfile);

impl TokenVerifier for NoKeys {
    fn verify(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        Err(TokenError::new(TokenErrorKind::NoKeys, "the keys have not come yet"))
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify(token)
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn without_keys_nobody_is_told_to_throw_a_token_away_and_nobody_gets_in() {
    for mode in [FailMode::Closed, FailMode::Open] {
        let layer = JwtRevocationLayer::new(NoKeys(TokenProfile::new()), MemoryStore::new())
            .with_fail_mode(mode);
        let answer = layer.layer(Handler).oneshot(with_token("any")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key("retry-after"));
        assert!(!answer.headers().contains_key("www-authenticate"));
        assert_eq!(rejection(&answer).kind(), RejectionKind::NoKeys);
        let counted = layer.counters().snapshot();
        assert_eq!((counted.refused.no_keys, counted.refused.total(), counted.checks()), (1, 1, 0));
    }
}

#[tokio::test]
async fn the_fail_mode_can_depend_on_the_issuer() {
    let layer = crate::support::layer_without_store().with_fail_mode_for(|_, token| {
        if token.issuer() == Some("https://shop.example") {
            FailMode::Open
        } else {
            FailMode::Closed
        }
    });
    for (issuer, status) in [
        ("https://shop.example", StatusCode::OK),
        ("https://staff.example", StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let mut claims = claims("alice", "1");
        claims["iss"] = issuer.into();
        let answer = layer
            .layer(Handler)
            .oneshot(with_token(&crate::support::signed(&claims)))
            .await
            .unwrap();
        assert_eq!(answer.status(), status);
    }
}
