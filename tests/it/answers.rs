//! Every row of the table of answers, byte for byte.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::middleware::ProblemJson;
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::{JwtRevocationLayer, Rejection, Target};

use crate::support::{
    Handler, expired_token, layer, layer_that_fails, layer_without_store, rejection, request,
    token, with_token,
};

const PLAIN: &str = r#"Bearer realm="api""#;
const INVALID_REQUEST: &str = r#"Bearer realm="api", error="invalid_request""#;
const INVALID_TOKEN: &str = r#"Bearer realm="api", error="invalid_token""#;

const IN_DOUBT: &str = concat!(
    r#"Bearer realm="api", error="invalid_token", error_description=""#,
    "Tokens issued before a loss of data cannot be checked any more. Sign in again\""
);

struct Case {
    name: &'static str,
    layer: JwtRevocationLayer,
    request: Request<String>,
    status: StatusCode,
    headers: &'static [(&'static str, &'static str)],
    grpc_status: &'static str,
    grpc_message: &'static str,
}

async fn cases() -> Vec<Case> {
    let revoking = layer();
    revoking.revoker().revoke(Target::user("mallory")).await.unwrap();
    let mut repeated = with_token(&token("alice", "1"));
    let again = repeated.headers()["authorization"].clone();
    repeated.headers_mut().append("authorization", again);
    let bad_request = |name, request| Case {
        name,
        layer: layer(),
        request,
        status: StatusCode::BAD_REQUEST,
        headers: &[("cache-control", "no-store"), ("www-authenticate", INVALID_REQUEST)],
        grpc_status: "16",
        grpc_message: "the credentials are malformed or ambiguous",
    };
    let invalid_token = |name, layer, token: &str| Case {
        name,
        layer,
        request: with_token(token),
        status: StatusCode::UNAUTHORIZED,
        headers: &[("cache-control", "no-store"), ("www-authenticate", INVALID_TOKEN)],
        grpc_status: "16",
        grpc_message: "the access token is not accepted",
    };
    vec![
        Case {
            name: "no credentials",
            layer: layer(),
            request: request(),
            status: StatusCode::UNAUTHORIZED,
            headers: &[("cache-control", "no-store"), ("www-authenticate", PLAIN)],
            grpc_status: "16",
            grpc_message: "an access token is required",
        },
        bad_request("malformed", with_token("a b")),
        bad_request("repeated", repeated),
        invalid_token("invalid", layer(), "junk"),
        invalid_token("expired", layer(), &expired_token()),
        invalid_token("revoked", revoking, &token("mallory", "1")),
        Case {
            name: "no verdict",
            layer: layer_without_store(),
            request: with_token(&token("alice", "1")),
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: &[("cache-control", "no-store"), ("retry-after", "1")],
            grpc_status: "14",
            grpc_message: "the access token cannot be checked at the moment",
        },
        Case {
            name: "no verdict ever",
            layer: layer_that_fails(StoreErrorKind::DataLoss),
            request: with_token(&token("alice", "1")),
            status: StatusCode::UNAUTHORIZED,
            headers: &[("cache-control", "no-store"), ("www-authenticate", IN_DOUBT)],
            grpc_status: "16",
            grpc_message: "Tokens issued before a loss of data cannot be checked any more. \
                           Sign in again",
        },
    ]
}

fn listed(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut all: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn in_http() {
    for case in cases().await {
        let answer = case.layer.layer(Handler).oneshot(case.request).await.unwrap();
        assert_eq!(answer.status(), case.status, "{}", case.name);
        assert_eq!(listed(answer.headers()), case.headers, "{}", case.name);
        assert_eq!(answer.body(), "", "{}", case.name);
        rejection(&answer);
    }
}

#[tokio::test]
async fn in_grpc() {
    for case in cases().await {
        let mut request = case.request;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        let answer = case.layer.layer(Handler).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", case.name);
        let mut expected = vec![
            ("cache-control", "no-store"),
            ("content-type", "application/grpc"),
            ("grpc-message", case.grpc_message),
            ("grpc-status", case.grpc_status),
        ];
        if case.grpc_status == "14" {
            expected.insert(3, ("grpc-retry-pushback-ms", "1000"));
        }
        assert_eq!(listed(answer.headers()), expected, "{}", case.name);
        assert_eq!(answer.body(), "", "{}", case.name);
        rejection(&answer);
    }
}

/// gRPC-Web keeps its content type; its clients read the status in the head.
#[tokio::test]
async fn in_grpc_web() {
    for case in cases().await {
        let mut request = case.request;
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
        let answer = case.layer.layer(Handler).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", case.name);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/grpc-web+proto", "{}", case.name);
        assert_eq!(answer.headers()["grpc-status"], case.grpc_status, "{}", case.name);
        assert_eq!(answer.headers()["grpc-message"], case.grpc_message, "{}", case.name);
    }
}

#[tokio::test]
async fn clients_of_a_store_that_settles_may_come_back_in_one_to_three_seconds() {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let service = layer_that_fails(StoreErrorKind::Settling).layer(Handler);
        let answer = service.oneshot(with_token(&token("alice", "1"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let kind = RejectionKind::StandingUnknown(StoreErrorKind::Settling);
        assert_eq!(rejection(&answer).kind(), kind);
        seen.insert(answer.headers()["retry-after"].to_str().unwrap().to_owned());
    }
    assert_eq!(Vec::from_iter(seen), ["1", "2", "3"]);
}

#[tokio::test]
async fn realm_metadata_and_retry_are_as_configured() {
    let dressed = |layer: JwtRevocationLayer| {
        let layer = layer.with_realm("orders").unwrap().with_retry_after(Duration::from_secs(7));
        layer.with_resource_metadata("https://api.example/meta").unwrap()
    };
    let answer = dressed(layer()).layer(Handler).oneshot(request()).await.unwrap();
    assert_eq!(
        answer.headers()["www-authenticate"],
        r#"Bearer realm="orders", resource_metadata="https://api.example/meta""#
    );
    let with_good_token = with_token(&token("alice", "1"));
    let answer =
        dressed(layer_without_store()).layer(Handler).oneshot(with_good_token).await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "7");
    assert!(layer().with_realm("a\nb").is_err());
}

#[tokio::test]
async fn reasons_are_told_only_if_configured() {
    let layer = layer();
    layer.revoker().revoke(Target::user("mallory")).await.unwrap();
    let telling = layer.clone().with_error_descriptions();
    let ask = |layer: JwtRevocationLayer| {
        layer.layer(Handler).oneshot(with_token(&token("mallory", "1")))
    };
    let answer = ask(layer).await.unwrap();
    assert_eq!(answer.headers()["www-authenticate"], INVALID_TOKEN);
    let answer = ask(telling).await.unwrap();
    assert_eq!(
        answer.headers()["www-authenticate"],
        concat!(
            r#"Bearer realm="api", error="invalid_token", "#,
            r#"error_description="The access token was revoked""#
        )
    );
}

#[tokio::test]
async fn a_problem_document_keeps_the_head() {
    let inner = service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(Bytes::new())) });
    let service = layer().with_response(ProblemJson).layer(inner);
    let answer = service.clone().oneshot(with_token("junk")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        listed(answer.headers()),
        [
            ("cache-control", "no-store"),
            ("content-type", "application/problem+json"),
            ("www-authenticate", INVALID_TOKEN)
        ]
    );
    assert_eq!(
        answer.body(),
        r#"{"title":"Unauthorized","status":401,"detail":"the access token is not accepted"}"#
    );
    rejection(&answer);

    let mut grpc = request();
    grpc.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let answer = service.oneshot(grpc).await.unwrap();
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/grpc");
    assert!(answer.body().is_empty(), "a gRPC refusal is trailers-only");
}

#[tokio::test]
async fn a_closure_fills_the_body_and_may_change_the_head_but_cannot_lose_the_reason() {
    let page = |rejection: &Rejection, _: &mut Parts| format!("<p>{:?}", rejection.kind());
    let answer = layer().with_response(page).layer(Handler).oneshot(request()).await.unwrap();
    assert_eq!(
        (answer.status(), answer.body().as_str()),
        (StatusCode::UNAUTHORIZED, "<p>NoCredentials")
    );
    assert_eq!(answer.headers()["www-authenticate"], PLAIN);

    let redirect = |_: &Rejection, head: &mut Parts| {
        head.status = StatusCode::SEE_OTHER;
        head.headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("/login"))]);
        head.extensions.clear();
        String::new()
    };
    let answer =
        layer().with_response(redirect).layer(Handler).oneshot(with_token("junk")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(listed(answer.headers()), [("location", "/login")]);
    assert!(matches!(rejection(&answer).kind(), RejectionKind::InvalidToken(_)));
}

#[tokio::test]
async fn the_operator_is_told_by_which_target_the_client_is_not() {
    let layer = layer();
    layer.revoker().revoke(Target::user("mallory")).reason("stolen laptop").await.unwrap();
    let answer = layer.layer(Handler).oneshot(with_token(&token("mallory", "1"))).await.unwrap();
    let Rejection::Revoked(by) = rejection(&answer) else { panic!("not revoked") };
    assert_eq!((by.kind, by.reason.as_deref()), (TargetKind::User, Some("stolen laptop")));
    assert!(!format!("{:?}", answer.headers()).contains("laptop"));
}

/// A body that nobody may touch.
struct Untouchable;

impl Body for Untouchable {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        panic!("the body of a refused request was read");
    }
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_read() {
    let refused =
        Request::builder().header("authorization", "Bearer junk").body(Untouchable).unwrap();
    let answer = layer().layer(Handler).oneshot(refused).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}
