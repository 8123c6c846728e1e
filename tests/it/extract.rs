//! The extractors for axum.

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::header::WWW_AUTHENTICATE;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::json;
use tower::ServiceExt as _;
use tower_jwt_revocation::middleware::{Claims, ProblemJson};
use tower_jwt_revocation::store::{StoreError, StoreErrorKind};
use tower_jwt_revocation::token::MissingId;
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, MemoryStore, TokenProfile};

use crate::support::{WordVerifier, claims, layer, signed, token};

#[derive(Deserialize)]
struct Mine {
    role: String,
}

#[derive(Deserialize)]
struct Impossible {
    #[expect(dead_code, reason = "it is never there")]
    role: u8,
}

fn routes() -> Router {
    Router::new()
        .route(
            "/who",
            get(async |clearance: Clearance| clearance.token().subject().unwrap().to_owned()),
        )
        .route(
            "/maybe",
            get(async |clearance: Option<Clearance>| match clearance {
                Some(clearance) => clearance.token().subject().unwrap().to_owned(),
                None => "nobody".into(),
            }),
        )
        .route("/role", get(async |Claims(mine): Claims<Mine>| mine.role))
        .route(
            "/maybe-role",
            get(async |claims: Option<Claims<Mine>>| {
                claims.map_or("none".into(), |Claims(mine)| mine.role)
            }),
        )
        .route("/odd", get(async |Claims(_): Claims<Impossible>| "never"))
}

async fn ask(
    router: Router,
    path: &str,
    token: Option<&str>,
) -> (StatusCode, String, Option<String>) {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let challenge =
        answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap(), challenge)
}

fn guarded(layer: JwtRevocationLayer) -> Router {
    routes().layer(layer)
}

#[tokio::test]
async fn handlers_get_the_clearance_and_the_claims() {
    let alice = token("alice", "1");
    for (path, body) in
        [("/who", "alice"), ("/maybe", "alice"), ("/role", "clerk"), ("/maybe-role", "clerk")]
    {
        let answer = ask(guarded(layer()), path, Some(&alice)).await;
        assert_eq!((answer.0, answer.1.as_str()), (StatusCode::OK, body), "{path}");
    }
}

#[tokio::test]
async fn on_optional_routes_the_handler_chooses() {
    let open = || guarded(layer().with_optional_credentials().with_realm("orders").unwrap());
    for (path, body) in [("/maybe", "nobody"), ("/maybe-role", "none")] {
        let answer = ask(open(), path, None).await;
        assert_eq!((answer.0, answer.1.as_str()), (StatusCode::OK, body), "{path}");
    }
    // A handler that insists gets the answer that the layer would have given.
    for path in ["/who", "/role"] {
        let (status, _, challenge) = ask(open(), path, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(challenge.as_deref(), Some(r#"Bearer realm="orders""#));
    }
}

#[tokio::test]
async fn a_handler_that_insists_is_not_called_by_a_layer_that_only_reports() {
    let (status, _, challenge) =
        ask(guarded(layer().with_report_only()), "/who", Some("junk")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(challenge.as_deref(), Some(r#"Bearer realm="api", error="invalid_token""#));
    let (status, body, _) = ask(guarded(layer().with_report_only()), "/maybe", Some("junk")).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "nobody"));
}

#[tokio::test]
async fn a_missing_layer_is_the_mistake_of_the_developer_and_never_nobody() {
    for path in ["/who", "/maybe", "/role", "/maybe-role"] {
        let (status, body, _) = ask(routes(), path, Some(&token("alice", "1"))).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        assert_eq!(body, "", "it tells the log, and not the client");
    }
    let exempt = guarded(layer().with_exemption(|_| true));
    let (status, body, _) = ask(exempt, "/who", None).await;
    assert_eq!((status, body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
}

#[tokio::test]
async fn claims_that_do_not_fit_refuse_the_token_without_quoting_it() {
    let (status, body, challenge) = ask(guarded(layer()), "/odd", Some(&token("alice", "1"))).await;
    assert_eq!((status, body.as_str()), (StatusCode::UNAUTHORIZED, ""));
    assert_eq!(challenge.as_deref(), Some(r#"Bearer realm="api", error="invalid_token""#));
    // As the layer refuses, wherever clients find their authorization server.
    let custom = layer()
        .with_realm("orders")
        .unwrap()
        .with_resource_metadata("https://shop.example/meta")
        .unwrap();
    let (_, _, challenge) = ask(guarded(custom), "/odd", Some(&token("alice", "1"))).await;
    assert_eq!(
        challenge.as_deref(),
        Some(concat!(
            r#"Bearer realm="orders", resource_metadata="https://shop.example/meta", "#,
            r#"error="invalid_token""#
        ))
    );
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused_in_the_form_of_the_layer_and_counted() {
    let problems = layer().with_response(ProblemJson).with_realm("orders").unwrap();
    let (counters, metrics) = (problems.counters(), problems.metrics());
    let app = routes().layer(problems);
    let ask = async |path: &str, token: &str| {
        let request = Request::builder().uri(path);
        let request = request.header("authorization", format!("Bearer {token}"));
        let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let head = answer.headers().clone();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (head, String::from_utf8(body.to_vec()).unwrap())
    };
    let (odd_head, odd) = ask("/odd", &token("alice", "1")).await;
    let (head, body) = ask("/odd", "junk").await;
    // As the layer itself refuses a token that is invalid.
    assert_eq!((&odd, &odd_head["content-type"]), (&body, &head["content-type"]));
    assert!(odd.contains("\"status\":401"), "{odd}");
    assert_eq!(odd_head["www-authenticate"], head["www-authenticate"]);
    assert_eq!(odd_head.get("content-length"), head.get("content-length"));
    let (_, fits) = ask("/role", &token("alice", "1")).await;
    assert_eq!(fits, "clerk");
    let counted = counters.snapshot();
    assert_eq!((counted.misfits, counted.admitted, counted.refused.invalid_token), (1, 2, 1));
    let text = metrics.prometheus();
    assert!(text.contains("\njwt_revocation_misfits_total 1\n"), "{text}");
    // Each layer counts its own.
    let other = layer();
    let (counters, other) = (other.counters(), routes().layer(other));
    let (status, body, _) = self::ask(other, "/odd", Some(&token("alice", "1"))).await;
    assert_eq!((status, body.as_str()), (StatusCode::UNAUTHORIZED, ""));
    assert_eq!(counters.snapshot().misfits, 1);
}

#[tokio::test]
async fn what_never_heals_is_not_answered_as_what_passes() {
    let answer = |kind: StoreErrorKind| {
        let response = StoreError::new(kind, "why").into_response();
        let headers = response.headers();
        assert_eq!(headers["cache-control"], "no-store");
        (response.status(), headers.contains_key("retry-after"))
    };
    for kind in StoreErrorKind::ALL {
        let expected = match kind {
            StoreErrorKind::InvalidInput | StoreErrorKind::Unmatched => {
                (StatusCode::BAD_REQUEST, false)
            }
            StoreErrorKind::Denied => (StatusCode::SERVICE_UNAVAILABLE, false),
            _ => (StatusCode::SERVICE_UNAVAILABLE, true),
        };
        assert_eq!(answer(kind), expected, "{kind:?}");
    }
    // A token without an id, at a route that revokes it.
    let nameless = TokenProfile::new().with_missing_id(MissingId::OtherTargetsOnly);
    let layer = JwtRevocationLayer::new(WordVerifier::of(nameless), MemoryStore::new());
    let revoker = layer.revoker();
    let logout = async move |clearance: Clearance| {
        revoker.revoke_token(clearance.token()).await.map(|_| StatusCode::NO_CONTENT)
    };
    let app = Router::new().route("/logout", get(logout)).layer(layer);
    let mut claims = claims("alice", "1");
    claims.as_object_mut().unwrap().remove("jti");
    let (status, ..) = ask(app.clone(), "/logout", Some(&signed(&claims))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, ..) = ask(app, "/logout", Some(&token("alice", "1"))).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

/// What is wrong stands in the challenge of the scheme that was used (RFC 9449 §7.2), also if it is
/// a handler that refuses.
#[tokio::test]
async fn a_handler_that_refuses_a_request_by_dpop_says_so_in_the_challenge_of_dpop() {
    let layer = layer()
        .with_token_sources([TokenSource::bearer(), TokenSource::dpop()])
        .with_proof_of_possession(|_, _| true);
    let router = routes().layer(layer);
    let mut bound = claims("alice", "1");
    bound["cnf"] = json!({"jkt": "key"});
    bound["role"] = json!("x");
    let (error, plain) = (r#" realm="api", error="invalid_token""#, r#" realm="api""#);
    for (credentials, expected) in [
        (format!("DPoP {}", signed(&bound)), [format!("Bearer{plain}"), format!("DPoP{error}")]),
        (
            format!("Bearer {}", token("alice", "2")),
            [format!("Bearer{error}"), format!("DPoP{plain}")],
        ),
    ] {
        let request = Request::builder().uri("/odd").header("authorization", &credentials);
        let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<_> = challenges.map(|value| value.to_str().unwrap()).collect();
        assert_eq!(challenges, expected, "{credentials:.6}");
    }
}
