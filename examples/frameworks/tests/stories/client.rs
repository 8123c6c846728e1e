//! What a client does with the answers of the layer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use frameworks::client::{Client, ClientError, Tokens};
use frameworks::demo;
use reqwest::{Method, StatusCode};
use tokio::sync::Notify;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::{Clearance, Revoker, Target};

use crate::Server;

/// A service that is called, with the refresh next to it.
#[derive(Clone, Default)]
struct Service {
    calls: Arc<AtomicU32>,
    refreshes: Arc<AtomicU32>,
    /// How the refresh ends.
    refresh_ends: Arc<std::sync::Mutex<StatusCode>>,
}

async fn refresh(
    State(service): State<Service>,
    Json(old): Json<Tokens>,
) -> Result<Json<Tokens>, StatusCode> {
    service.refreshes.fetch_add(1, SeqCst);
    match *service.refresh_ends.lock().unwrap() {
        StatusCode::OK => Ok(Json(Tokens { access_token: demo::token("alice").unwrap(), ..old })),
        status => Err(status),
    }
}

async fn called(State(service): State<Service>, _: Clearance) {
    service.calls.fetch_add(1, SeqCst);
}

/// Service, store, revoker, a client with a token of alice, and the token.
async fn world() -> (Server, Service, ScriptedStore, Revoker, Client, String) {
    let (service, store) = (Service::default(), ScriptedStore::new());
    let layer = demo::layer(store.clone()).unwrap().with_retry_after(Duration::ZERO);
    let revoker = layer.revoker();
    let app = Router::new()
        .route("/call", get(called).post(called))
        .layer(layer)
        .route("/refresh", post(refresh))
        .with_state(service.clone());
    let server = Server::start(async |listener| Ok(axum::serve(listener, app).await?)).await;
    let token = demo::token("alice").unwrap();
    let tokens = Tokens { access_token: token.clone(), refresh_token: "refresh".into() };
    let client = Client::new(&server.url, tokens);
    (server, service, store, revoker, client, token)
}

fn jti(token: &str) -> String {
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["jti"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_revoked_token_is_renewed_once_however_many_ask() {
    let (_server, service, _, revoker, client, token) = world().await;
    client.send(Method::GET, "/call").await.unwrap();
    assert_eq!(service.refreshes.load(SeqCst), 0);
    revoker.revoke(Target::token(jti(&token))).await.unwrap();
    let (one, other) =
        tokio::join!(client.send(Method::GET, "/call"), client.send(Method::GET, "/call"));
    assert_eq!((one.unwrap().status(), other.unwrap().status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!((service.refreshes.load(SeqCst), service.calls.load(SeqCst)), (1, 3));
}

#[tokio::test]
async fn an_outage_costs_no_token() {
    let (_server, service, store, _, client, _) = world().await;
    store.fail(StoreErrorKind::Unreachable);
    assert!(matches!(client.send(Method::GET, "/call").await, Err(ClientError::TryLater)));
    assert_eq!(store.checks(), 4, "once and three times more");
    assert!(matches!(client.send(Method::POST, "/call").await, Err(ClientError::TryLater)));
    assert_eq!(store.checks(), 5, "what is not idempotent is not repeated");
    assert_eq!(service.refreshes.load(SeqCst), 0);
    store.answer();
    client.send(Method::GET, "/call").await.unwrap();
    assert_eq!(
        (service.refreshes.load(SeqCst), service.calls.load(SeqCst)),
        (0, 1),
        "with the same token"
    );
}

#[tokio::test]
async fn a_session_that_is_over_needs_a_login_and_an_outage_of_the_refresh_does_not() {
    let (_server, service, _, revoker, client, token) = world().await;
    revoker.revoke(Target::token(jti(&token))).await.unwrap();
    for not_now in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
        *service.refresh_ends.lock().unwrap() = not_now;
        assert!(matches!(client.send(Method::GET, "/call").await, Err(ClientError::TryLater)));
    }
    *service.refresh_ends.lock().unwrap() = StatusCode::BAD_REQUEST;
    assert!(matches!(client.send(Method::GET, "/call").await, Err(ClientError::SignIn)));
    assert!(matches!(client.send(Method::GET, "/call").await, Err(ClientError::SignIn)));
    assert_eq!(service.refreshes.load(SeqCst), 3, "without tokens nobody is asked");
}

/// One request is refused late, with a token in whose place another has got a new one by then.
#[tokio::test]
async fn a_late_refusal_of_an_old_token_costs_no_new_one() {
    #[derive(Clone, Default)]
    struct Scene {
        refreshes: Arc<AtomicU32>,
        is_late: Arc<Notify>,
        goes_on: Arc<Notify>,
    }
    async fn call(State(scene): State<Scene>, uri: Uri, head: HeaderMap) -> StatusCode {
        match (uri.path(), head["authorization"].to_str().unwrap()) {
            (_, "Bearer 2") => return StatusCode::OK,
            ("/late", "Bearer 1") => {
                scene.is_late.notify_one();
                scene.goes_on.notified().await;
            }
            _ => {}
        }
        StatusCode::UNAUTHORIZED
    }
    async fn refresh(State(scene): State<Scene>, Json(old): Json<Tokens>) -> Json<Tokens> {
        let number = scene.refreshes.fetch_add(1, SeqCst) + 1;
        Json(Tokens { access_token: number.to_string(), ..old })
    }
    let scene = Scene::default();
    let app =
        Router::new().route("/refresh", post(refresh)).fallback(call).with_state(scene.clone());
    let server = Server::start(async |listener| Ok(axum::serve(listener, app).await?)).await;
    let tokens = Tokens { access_token: "0".into(), refresh_token: "refresh".into() };
    let client = Client::new(&server.url, tokens);
    let quick = async {
        scene.is_late.notified().await;
        let answer = client.send(Method::GET, "/quick").await.unwrap();
        scene.goes_on.notify_one();
        answer.status()
    };
    let (late, quick) = tokio::join!(client.send(Method::GET, "/late"), quick);
    assert_eq!((late.unwrap().status(), quick), (StatusCode::OK, StatusCode::OK));
    assert_eq!(scene.refreshes.load(SeqCst), 2);
}

#[tokio::test]
async fn new_tokens_that_are_refused_too_do_not_make_a_loop() {
    let (_server, service, _, revoker, client, _) = world().await;
    let user = revoker.revoke(Target::user("alice")).extent(tower_jwt_revocation::Extent::All);
    user.await.unwrap();
    assert!(matches!(client.send(Method::GET, "/call").await, Err(ClientError::SignIn)));
    assert_eq!((service.refreshes.load(SeqCst), service.calls.load(SeqCst)), (1, 0));
}
