//! The routes behind the layer: layer, then a limit of requests at once, then the router.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;
use tower::util::MapRequestLayer;
use tower_jwt_revocation::{Clearance, TargetKind};

use crate::answer::Problem;
use crate::app::App;

const MAX_ECHO: usize = 1024 * 1024;
const MAX_SLOW: u64 = 10_000;

/// The paths of the router below, for the outer one.
const PATHS: [&str; 6] =
    ["/protected", "/protected/{*rest}", "/logout", "/logout_all", "/sessions", "/sessions/{*rest}"];

pub(crate) fn routes(app: &App) -> Router {
    let router = Router::new()
        .route("/protected", get(protected))
        .route("/protected/echo", post(echo))
        .route("/protected/slow", get(slow))
        .route("/logout", post(logout))
        .route("/logout_all", post(logout_all))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", delete(end_session))
        .route_layer(from_fn_with_state(app.clone(), count_call))
        .layer(DefaultBodyLimit::max(MAX_ECHO))
        .with_state(app.clone());
    let budget = app.budget;
    let service = ServiceBuilder::new()
        .layer(MapRequestLayer::new(move |mut request: Request| {
            request.extensions_mut().insert(Deadline(Instant::now() + budget));
            request
        }))
        .layer(app.layer.clone())
        .layer(ConcurrencyLimitLayer::new(64))
        .service(router);
    PATHS.iter().fold(Router::new(), |outer, path| outer.route_service(path, service.clone()))
}

/// When the budget for all that a request asks of the store is used up, the check of its token included.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    async fn hold<T>(self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        tokio::time::timeout_at(self.0, work).await.unwrap_or(Err(Problem::Unavailable))
    }
}

async fn count_call(State(app): State<App>, request: Request, next: Next) -> Response {
    app.count_call();
    next.run(request).await
}

async fn protected(clearance: Clearance) -> Json<Value> {
    let token = clearance.token();
    Json(json!({ "sub": token.subject(), "jti": token.id(), "checked": clearance.is_checked() }))
}

async fn echo(body: Bytes) -> Bytes {
    body
}

async fn slow(Query(query): Query<HashMap<String, String>>) -> Result<&'static str, Problem> {
    let ms = query.get("ms").map_or(Ok(0), |ms| ms.parse()).ok().filter(|ms| *ms <= MAX_SLOW);
    let ms = ms.ok_or(Problem::BadRequest("`ms` is not a whole number up to 10000"))?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok("done")
}

/// Ends the session of the token, or the token if it has none. Whoever else signs tokens may name a session that is
/// not one of ours, or not the caller's: that ends the token only.
async fn logout(
    State(app): State<App>,
    Extension(deadline): Extension<Deadline>,
    clearance: Clearance,
) -> Result<StatusCode, Problem> {
    let token = clearance.token();
    let work = async {
        if let Some(session) = token.target(TargetKind::Session)
            && let Some(session) = app.sessions.find(session.id()).await?
            && Some(&*session.user) == token.subject()
        {
            app.sessions.end(&session.id).await?;
        } else {
            app.revoker.revoke_token(token).reason("signed out").await?;
        }
        Ok(())
    };
    deadline.hold(work).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout_all(
    State(app): State<App>,
    Extension(deadline): Extension<Deadline>,
    clearance: Clearance,
) -> Result<StatusCode, Problem> {
    let user = subject(&clearance)?;
    deadline.hold(async { Ok(app.sessions.end_all(user, None).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sessions(
    State(app): State<App>,
    Extension(deadline): Extension<Deadline>,
    clearance: Clearance,
) -> Result<Json<Value>, Problem> {
    let user = subject(&clearance)?;
    let sessions = deadline.hold(async { Ok(app.sessions.list(user).await?) }).await?;
    let sessions = sessions.iter().map(|session| {
        json!({
            "session_id": session.id,
            "device": session.details.device,
            "created_at": session.created_at.as_secs(),
        })
    });
    Ok(Json(sessions.collect()))
}

/// By name, as the outer router adds a parameter of its own.
#[derive(Deserialize)]
struct SessionPath {
    id: String,
}

async fn end_session(
    State(app): State<App>,
    Path(SessionPath { id }): Path<SessionPath>,
    Extension(deadline): Extension<Deadline>,
    clearance: Clearance,
) -> Result<StatusCode, Problem> {
    let user = subject(&clearance)?;
    let work = async {
        let sessions = app.sessions.list(user).await?;
        // Those of others are not there, for all that the caller can tell.
        if !sessions.iter().any(|session| *session.id == *id) {
            return Err(Problem::NotFound);
        }
        Ok(app.sessions.end(&id).await?)
    };
    deadline.hold(work).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn subject(clearance: &Clearance) -> Result<&str, Problem> {
    clearance.token().subject().ok_or(Problem::BadRequest("the token has no subject"))
}
