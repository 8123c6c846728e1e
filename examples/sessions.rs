//! Sessions with refresh tokens: sign in on two devices, refresh, see them listed, end one of them,
//! and what becomes of a refresh token that was stolen.
//!
//! ```sh
//! cargo run --example sessions --all-features
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_jwt_revocation::session::{
    Ended, Grant, Login, Refresh, RefreshPolicy, SessionDetails, Sessions,
};
use tower_jwt_revocation::store::StoreError;
use tower_jwt_revocation::token::jwt::SigningKey;
use tower_jwt_revocation::{
    Algorithm, Clearance, JwtRevocationLayer, JwtVerifier, MemoryStore, TokenIssuer, TokenProfile,
};

#[derive(Clone)]
struct App {
    sessions: Sessions,
    issuer: TokenIssuer,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let key = SigningKey::from_secret(Algorithm::HS256, &[42; 32])?; // yours is a secret
    let verifier = JwtVerifier::new([key.verification_key()], TokenProfile::new())?;
    let store = MemoryStore::new(); // or RedisStore::connect(url).await?
    let layer = JwtRevocationLayer::new(verifier, store.clone());
    // Sessions revoke by the revoker of the layer, and so know how long to keep a revocation.
    let sessions = Sessions::new(store, layer.revoker(), RefreshPolicy::new())?;
    let issuer = TokenIssuer::new(key, TokenProfile::new())?;

    let app = Router::new()
        .route("/me", get(me))
        .route("/sessions", get(list).delete(end_all))
        .route("/sessions/{id}", delete(end))
        .route("/logout", post(logout))
        .layer(layer)
        // Outside of the layer: who comes here has no access token, or one that has expired.
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .with_state(App { sessions, issuer });
    show(app).await
}

/// Your application has checked the password.
async fn login(State(app): State<App>, Json(body): Json<Value>) -> Result<Response, StoreError> {
    let details = SessionDetails::new().on_device(text(&body, "device"));
    Ok(match app.sessions.login(text(&body, "user"), details).await? {
        Login::Granted(grant) => tokens(&app, &grant),
        _ => StatusCode::FORBIDDEN.into_response(), // banned, or too many sessions
    })
}

/// An outage is an error, and so 503: a client that is told `invalid_grant` throws its token away.
async fn refresh(State(app): State<App>, Json(body): Json<Value>) -> Result<Response, StoreError> {
    Ok(match app.sessions.refresh(text(&body, "refresh_token"), None).await? {
        Refresh::Granted(grant) => tokens(&app, &grant),
        _ => (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response(),
    })
}

fn tokens(app: &App, grant: &Grant) -> Response {
    match app.issuer.issue(&grant.access_token()) {
        Ok(access) => Json(json!({
            "access_token": access.token(),
            "refresh_token": grant.token.expose(),
        }))
        .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn me(clearance: Clearance) -> String {
    format!("hello {}", user(&clearance))
}

async fn list(State(app): State<App>, clearance: Clearance) -> Result<Json<Value>, StoreError> {
    let sessions = app.sessions.list(user(&clearance)).await?;
    let shown = sessions.iter().map(|it| json!({"id": it.id, "device": it.details.device}));
    Ok(Json(shown.collect()))
}

/// `end_of` and not `end`: the id comes from the client, and may be that of somebody else.
async fn end(
    State(app): State<App>,
    Path(id): Path<String>,
    clearance: Clearance,
) -> Result<StatusCode, StoreError> {
    Ok(match app.sessions.end_of(user(&clearance), &id).await? {
        Ended::Done => StatusCode::NO_CONTENT,
        _ => StatusCode::NOT_FOUND,
    })
}

async fn end_all(State(app): State<App>, clearance: Clearance) -> Result<StatusCode, StoreError> {
    app.sessions.end_all(user(&clearance), None).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout(State(app): State<App>, clearance: Clearance) -> Result<StatusCode, StoreError> {
    app.sessions.logout(clearance.token()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn user(clearance: &Clearance) -> &str {
    clearance.token().subject().unwrap_or_default()
}

fn text<'a>(body: &'a Value, name: &str) -> &'a str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

// === What the example shows ===

async fn show(app: Router) -> Result<(), Box<dyn Error>> {
    println!("Alice signs in on two devices:");
    let on = |device: &str| json!({"user": "alice", "device": device});
    let phone = call(&app, "POST", "/login", "", &on("phone")).await?;
    let laptop = call(&app, "POST", "/login", "", &on("laptop")).await?;
    let (phone, at_laptop) = (text(&phone, "refresh_token"), text(&laptop, "access_token"));

    println!("\nThe phone refreshes:");
    let old = json!({ "refresh_token": phone });
    let next = call(&app, "POST", "/refresh", "", &old).await?;
    let again = json!({"refresh_token": text(&next, "refresh_token")});
    let last = call(&app, "POST", "/refresh", "", &again).await?;
    let at_phone = text(&last, "access_token");
    call(&app, "GET", "/me", at_phone, &Value::Null).await?;

    println!("\nA thief presents the first refresh token of the phone, which ends its session:");
    call(&app, "POST", "/refresh", "", &old).await?;
    call(&app, "GET", "/me", at_phone, &Value::Null).await?;
    call(&app, "GET", "/me", at_laptop, &Value::Null).await?;

    println!("\nShe signs in on a tablet, and ends that session from the laptop:");
    let tablet = call(&app, "POST", "/login", "", &on("tablet")).await?;
    let sessions = call(&app, "GET", "/sessions", at_laptop, &Value::Null).await?;
    let of_tablet = sessions.as_array().into_iter().flatten();
    let of_tablet = of_tablet.filter(|it| text(it, "device") == "tablet").map(|it| text(it, "id"));
    for id in of_tablet {
        call(&app, "DELETE", &format!("/sessions/{id}"), at_laptop, &Value::Null).await?;
    }
    call(&app, "GET", "/me", text(&tablet, "access_token"), &Value::Null).await?;
    call(&app, "POST", "/logout", at_laptop, &Value::Null).await?;
    call(&app, "GET", "/me", at_laptop, &Value::Null).await?;
    println!("\nNext: cargo run --example auth_server --all-features      all of it, over HTTP");
    Ok(())
}

async fn call(
    app: &Router,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> Result<Value, Box<dyn Error>> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.header("content-type", "application/json");
    let response = app.clone().oneshot(request.body(Body::from(body.to_string()))?).await?;
    println!("  {method:6} {:12} -> {}", path.get(..12).unwrap_or(path), response.status());
    let body = axum::body::to_bytes(response.into_body(), 65536).await?;
    Ok(serde_json::from_slice(&body).unwrap_or_default())
}
