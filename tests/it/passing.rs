//! The ways past the check, each of which has to be asked for: optional credentials, exemptions,
//! preflights, reporting. And what must not be one: a clearance that comes from elsewhere.

use http::{Method, Request, StatusCode};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::token::CredentialsError;
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::{Clearance, FailMode, Rejection, Target};

use crate::support::{
    Handler, layer, layer_without_store, rejection, request, seen, token, with_token,
};

fn preflight() -> Request<String> {
    let mut preflight = request();
    *preflight.method_mut() = Method::OPTIONS;
    preflight.headers_mut().insert("origin", "https://app.example".parse().unwrap());
    preflight.headers_mut().insert("access-control-request-method", "PUT".parse().unwrap());
    preflight
}

/// A clearance as an outer layer would leave it.
async fn clearance_of(subject: &str) -> Clearance {
    let answer = layer().layer(Handler).oneshot(with_token(&token(subject, "x"))).await.unwrap();
    seen(&answer).clearance.clone().unwrap()
}

#[tokio::test]
async fn by_default_nothing_passes_without_a_token() {
    for request in [request(), preflight()] {
        let answer = layer().layer(Handler).oneshot(request).await.unwrap();
        assert_eq!(rejection(&answer).kind(), RejectionKind::NoCredentials);
    }
}

#[tokio::test]
async fn optional_credentials_may_be_missing_but_not_bad() {
    let layer = layer().with_optional_credentials();
    let service = layer.layer(Handler);
    let answer = service.clone().oneshot(request()).await.unwrap();
    assert!(seen(&answer).clearance.is_none());
    let answer = service.clone().oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert!(seen(&answer).clearance.is_some());
    let answer = service.clone().oneshot(with_token("junk")).await.unwrap();
    assert!(matches!(rejection(&answer), Rejection::InvalidToken(_)));
    let answer = service.clone().oneshot(with_token("not a token")).await.unwrap();
    assert!(matches!(rejection(&answer), Rejection::BadRequest(CredentialsError::Malformed)));
    layer.revoker().revoke(Target::user("alice")).await.unwrap();
    let answer = service.oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert!(matches!(rejection(&answer), Rejection::Revoked(_)));

    let counted = layer.counters().snapshot();
    assert_eq!((counted.anonymous, counted.admitted, counted.refused.total()), (1, 1, 3));
}

#[tokio::test]
async fn exempt_requests_are_not_looked_at() {
    let layer = layer().with_exemption(|head| head.uri().path() == "/health");
    let service = layer.layer(Handler);
    let mut exempt = with_token(&token("alice", "1"));
    *exempt.uri_mut() = "/health".parse().unwrap();
    let answer = service.clone().oneshot(exempt).await.unwrap();
    assert!(
        seen(&answer).clearance.is_none(),
        "an exempt request was not checked, so it is not cleared"
    );
    for path in ["/healthy", "/health/", "//health", "/Health"] {
        let mut other = request();
        *other.uri_mut() = path.parse().unwrap();
        let answer = service.clone().oneshot(other).await.unwrap();
        assert_eq!(rejection(&answer).kind(), RejectionKind::NoCredentials, "{path}");
    }
    assert_eq!(layer.counters().snapshot().exempted, 1);
}

#[tokio::test]
async fn only_a_real_preflight_passes_as_one() {
    let layer = layer().with_cors_preflight();
    let service = layer.layer(Handler);
    let answer = service.clone().oneshot(preflight()).await.unwrap();
    assert!(seen(&answer).clearance.is_none());

    let mut without_origin = preflight();
    without_origin.headers_mut().remove("origin");
    let mut without_method = preflight();
    without_method.headers_mut().remove("access-control-request-method");
    let mut another_method = preflight();
    *another_method.method_mut() = Method::PUT;
    for request in [without_origin, without_method, another_method] {
        let answer = service.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(layer.counters().snapshot().preflights, 1);
}

#[tokio::test]
async fn report_only_refuses_nothing_and_says_what_it_would_refuse() {
    let layer = layer().with_report_only();
    layer.revoker().revoke(Target::user("mallory")).await.unwrap();
    let service = layer.layer(Handler);
    let mallory = token("mallory", "1");
    for (request, kind) in [
        (request(), RejectionKind::NoCredentials),
        (with_token("a b"), RejectionKind::BadRequest),
        (with_token(&mallory), RejectionKind::Revoked(TargetKind::User)),
    ] {
        let answer = service.clone().oneshot(request).await.unwrap();
        let seen = seen(&answer);
        assert_eq!(seen.rejection.as_ref().unwrap().kind(), kind);
        assert!(seen.clearance.is_none(), "what would be refused is not cleared");
    }
    let answer = service.oneshot(with_token(&token("alice", "2"))).await.unwrap();
    assert!(seen(&answer).rejection.is_none());
    assert!(seen(&answer).clearance.is_some());

    let counted = layer.counters().snapshot();
    assert_eq!(counted.refused.total(), 0);
    let would = counted.would_refuse;
    assert_eq!(
        (would.no_credentials, would.bad_request, would.revoked, would.total()),
        (1, 1, 1, 3)
    );
    assert_eq!((counted.admitted, counted.checks()), (1, 2));
}

#[tokio::test]
async fn a_clearance_or_rejection_from_elsewhere_does_not_reach_the_handler() {
    let stale = clearance_of("admin").await;
    let open = [
        layer().with_optional_credentials(),
        layer().with_exemption(|_| true),
        layer().with_report_only(),
    ];
    for layer in open {
        let mut request = request();
        request.extensions_mut().insert(stale.clone());
        request.extensions_mut().insert(Rejection::BadRequest(CredentialsError::Conflicting));
        let answer = layer.layer(Handler).oneshot(request).await.unwrap();
        let seen = seen(&answer);
        assert!(seen.clearance.is_none(), "{layer:?}");
        let left = seen.rejection.as_ref().map(Rejection::kind);
        assert!(left.is_none_or(|kind| kind == RejectionKind::NoCredentials), "{left:?}");
    }

    let mut request = with_token(&token("alice", "1"));
    request.extensions_mut().insert(stale.clone());
    request.extensions_mut().insert(Rejection::NoCredentials);
    let answer = layer().layer(Handler).oneshot(request).await.unwrap();
    assert_eq!(seen(&answer).clearance.as_ref().unwrap().token().subject(), Some("alice"));
    assert!(seen(&answer).rejection.is_none());
}

#[tokio::test]
async fn tokens_are_found_where_the_layer_was_told() {
    let cookie = TokenSource::cookie("session").unwrap();
    let service = layer().with_token_source(cookie.clone()).layer(Handler);
    let alice = token("alice", "1");
    let with_cookie = || {
        Request::builder().header("cookie", format!("session={alice}")).body(String::new()).unwrap()
    };
    let answer = service.clone().oneshot(with_cookie()).await.unwrap();
    assert!(seen(&answer).clearance.is_some());
    let answer = service.oneshot(with_token(&alice)).await.unwrap();
    assert_eq!(rejection(&answer).kind(), RejectionKind::NoCredentials);

    let both = layer().with_token_sources([TokenSource::bearer(), cookie]).layer(Handler);
    let mut two = with_cookie();
    two.headers_mut()
        .insert("authorization", format!("Bearer {}", token("bob", "2")).parse().unwrap());
    let answer = both.oneshot(two).await.unwrap();
    assert!(matches!(rejection(&answer), Rejection::BadRequest(CredentialsError::Conflicting)));

    let nowhere = layer().with_token_sources([]).layer(Handler);
    let answer = nowhere.oneshot(with_token(&alice)).await.unwrap();
    assert_eq!(rejection(&answer).kind(), RejectionKind::NoCredentials);
}

#[tokio::test]
async fn without_clearance_a_checked_request_has_none_and_an_unchecked_one_does() {
    let service = layer().without_clearance().with_response(()).layer(Handler);
    let answer = service.clone().oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert!(seen(&answer).clearance.is_none());
    let answer = service.oneshot(with_token("junk")).await.unwrap();
    assert!(matches!(rejection(&answer), Rejection::InvalidToken(_)), "it checks all the same");

    // One that was left from elsewhere is still taken away.
    let mut planted = with_token(&token("alice", "1"));
    planted.extensions_mut().insert(clearance_of("mallory").await);
    let answer = layer().without_clearance().layer(Handler).oneshot(planted).await.unwrap();
    assert!(seen(&answer).clearance.is_none());

    let layer = layer_without_store().without_clearance().with_fail_mode(FailMode::Open);
    let answer = layer.layer(Handler).oneshot(with_token(&token("alice", "1"))).await.unwrap();
    assert!(!seen(&answer).clearance.as_ref().unwrap().is_checked());
}
