//! The routes that need no access token.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tower_jwt_revocation::session::{Grant, Login, Refresh, SessionDetails};

use crate::answer::{NO_STORE, Problem, id, object, optional, within};
use crate::app::App;

/// Longest body of a request to sign in or to refresh.
const MAX_BODY: usize = 1024 * 1024;

pub(crate) fn routes(app: &App) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("index.html")) }))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/count", get(count))
        .route("/debug/stats", get(stats))
        .route("/metrics", get(metrics))
        .route("/login", post(login))
        .route("/refresh", post(refresh))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app.clone())
}

async fn login(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let members = object(&body)?;
    let user = id(&members, "sub")?;
    let mut details = SessionDetails::new();
    if let Some(device) = optional(&members, "device")? {
        // What a user calls a device is not an id of it: two users may have a `phone`.
        details = details.with_data(json!({ "device": device }));
    }
    within(app.limit, async {
        match app.sessions.login(user, details).await? {
            Login::Granted(grant) => answer(&app, &grant),
            _ => Err(Problem::Forbidden("access_denied")),
        }
    })
    .await
}

async fn refresh(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let members = object(&body)?;
    // Something else than a string is a token that nobody has issued.
    let token = members.get("refresh_token").and_then(Value::as_str).unwrap_or_default();
    within(app.limit, async {
        match app.sessions.refresh(token, None).await? {
            Refresh::Granted(grant) => answer(&app, &grant),
            _ => Err(Problem::InvalidGrant),
        }
    })
    .await
}

fn answer(app: &App, grant: &Grant) -> Result<Response, Problem> {
    let access = app.issue(grant)?;
    let body = json!({
        "access_token": access.token(),
        "refresh_token": grant.token.expose(),
        "token_type": "Bearer",
        "expires_in": app.access_lifetime.as_secs(),
        "session_id": grant.session,
        "family_id": grant.family,
    });
    Ok((NO_STORE, Json(body)).into_response())
}

/// Whether requests are served as they should be. What passes sooner is no reason to take anybody
/// out; nor is a store that refuses writes, or a doubt: no other server can do more.
async fn ready(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let readiness = app.layer.readiness();
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let trouble = app.trouble();
    let warnings = match &trouble {
        Some(trouble) => vec![trouble.clone()],
        None => app.warnings().await,
    };
    // What has begun since is found by the look at Redis.
    let is_passing =
        |warning: &String| ["settling:", "doubt:"].iter().any(|it| warning.starts_with(it));
    let has_trouble = trouble.is_some() || app.trouble().is_some();
    let is_degraded = readiness.is_degraded() || has_trouble || warnings.iter().any(is_passing);
    (status, Json(json!({ "ready": ready, "degraded": is_degraded, "warnings": warnings })))
}

async fn count(State(app): State<App>) -> Json<Value> {
    Json(json!({ "handler_calls": app.handler_calls() }))
}

/// For Prometheus. Asks nobody, so the answer is there while the store is away.
async fn metrics(State(app): State<App>) -> Response {
    let text = app.layer.metrics().prometheus();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn stats(State(app): State<App>) -> Json<Value> {
    let counters = app.counters.snapshot();
    Json(json!({
        "checks": counters.checks(),
        "admitted": counters.admitted,
        "admitted_unchecked": counters.admitted_unchecked,
        "refused_no_credentials": counters.refused.no_credentials,
        "refused_bad_request": counters.refused.bad_request,
        "refused_invalid": counters.refused.invalid_token,
        "refused_revoked": counters.refused.revoked,
        "refused_standing_unknown": counters.refused.standing_unknown,
        "refused_in_doubt": counters.refused.in_doubt,
        "store_errors": counters.store_errors_by_kind().map(|(_, count)| count).sum::<u64>(),
        "mirror_staleness_ms": app.staleness().map(|age| age.as_millis()),
        "audit_events_lost": app.lost_audit_events(),
        "handler_calls": app.handler_calls(),
    }))
}
