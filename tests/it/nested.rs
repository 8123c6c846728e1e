//! What is decided by the path, in routers of axum that are nested.

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::{Request, StatusCode};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::FailMode;
use tower_jwt_revocation::token::bearer::RequestHead;

use crate::support::{layer, layer_without_store, token};

async fn status(app: &Router, method: &str, path: &str, with_token: bool) -> StatusCode {
    let mut request = Request::builder().method(method).uri(path);
    if with_token {
        request = request.header("authorization", format!("Bearer {}", token("alice", "1")));
    }
    let request = request.body(Body::empty()).unwrap();
    app.clone().oneshot(request).await.unwrap().status()
}

fn open_for_news(head: &RequestHead<'_>) -> FailMode {
    if head.path().starts_with("/payments") || head.path().starts_with("/api/payments") {
        FailMode::Closed
    } else {
        FailMode::Open
    }
}

/// With Redis out of reach: closed for payments, wherever the router of payments is nested.
#[tokio::test]
async fn the_fail_mode_is_that_of_the_path_that_was_asked_for() {
    let inner = Router::new()
        .route("/payments", post(async || ()))
        .route("/news", get(async || ()))
        .layer(layer_without_store().with_fail_mode_for(|head, _| open_for_news(head)));
    let payments = Router::new()
        .route("/", post(async || ()))
        .layer(layer_without_store().with_fail_mode_for(|head, _| open_for_news(head)));
    let closed = StatusCode::SERVICE_UNAVAILABLE;
    for (app, path) in [
        (inner.clone(), "/payments"),
        (Router::new().nest("/api", inner.clone()), "/api/payments"),
        (Router::new().nest("/api", Router::new().nest("/payments", payments)), "/api/payments"),
        (Router::new().nest_service("/api", inner.clone()), "/api/payments"),
    ] {
        assert_eq!(status(&app, "POST", path, true).await, closed, "{path}");
    }
    let nested = Router::new().nest("/api", inner);
    assert_eq!(status(&nested, "GET", "/api/news", true).await, StatusCode::OK);
}

#[tokio::test]
async fn what_is_exempt_is_exempt_where_it_was_said_and_nowhere_else() {
    let admin = || {
        Router::new()
            .route("/health", get(async || ()))
            .layer(layer().with_exemption(|head| head.path() == "/health"))
    };
    let app = Router::new().merge(admin()).nest("/admin", admin());
    assert_eq!(status(&app, "GET", "/health", false).await, StatusCode::OK);
    assert_eq!(status(&app, "GET", "/admin/health", false).await, StatusCode::UNAUTHORIZED);

    let by_route = || {
        Router::new()
            .route("/{page}", get(async || ()))
            .layer(layer().with_exemption(|head| head.matched_path() == Some("/open/{page}")))
    };
    let app = Router::new().nest("/open", by_route()).nest("/closed", by_route());
    assert_eq!(status(&app, "GET", "/open/open", false).await, StatusCode::OK);
    assert_eq!(status(&app, "GET", "/closed/open", false).await, StatusCode::UNAUTHORIZED);
}

/// Where no router of axum has seen the request, or has not yet chosen.
#[tokio::test]
async fn without_a_router_the_path_is_that_of_the_uri() {
    let app = Router::new().route("/health", get(async || ()));
    let layer = layer().with_exemption(|head| {
        assert_eq!(head.matched_path(), None);
        head.path() == "/health" && head.uri().path() == "/health"
    });
    let request = Request::get("/health").body(Body::empty()).unwrap();
    assert_eq!(layer.layer(app).oneshot(request).await.unwrap().status(), StatusCode::OK);
}
