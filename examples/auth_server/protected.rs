//! The routes behind the layer: layer, then a limit of requests at once, then the router.
//!
//! The layer is ready when what is behind it is. If that were the limit, a request without a good
//! token would have to wait, behind 64 slow ones, to be refused; so there is a router between the
//! two. It is always ready, and it is in there that requests which have passed wait for their turn.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{self, HeaderValue, StatusCode};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;
use tower::util::MapRequestLayer;
use tower_jwt_revocation::Clearance;
use tower_jwt_revocation::session::Ended;
use tower_jwt_revocation::store::StoreErrorKind;

use crate::answer::{Problem, within};
use crate::app::App;

const GRPC: &str = "application/grpc";
const MAX_ECHO: usize = 1024 * 1024;
const MAX_SLOW: u64 = 10_000;

/// The paths of the router below, for the outer one.
const PATHS: [&str; 6] = [
    "/protected",
    "/protected/{*rest}",
    "/logout",
    "/logout_all",
    "/sessions",
    "/sessions/{*rest}",
];

pub(crate) fn routes(app: &App) -> Router {
    let router = Router::new()
        .route("/protected", get(protected))
        .route("/protected/echo", post(echo))
        .route("/protected/slow", get(slow))
        .route("/logout", post(logout))
        .route("/logout_all", post(logout_all))
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", delete(end_session))
        .layer(DefaultBodyLimit::max(MAX_ECHO))
        .with_state(app.clone());
    let limited = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(64)).service(router);
    let budget = app.budget;
    let service = ServiceBuilder::new()
        .layer(MapRequestLayer::new(move |mut request: Request| {
            if is_grpc(&request) {
                set_plain_grpc(&mut request);
            }
            request.extensions_mut().insert(Deadline(Instant::now() + budget));
            request
        }))
        .layer(app.layer.clone())
        .layer(MapRequestLayer::new(|mut request: Request| {
            let left =
                request.extensions().get::<Deadline>().map_or(Duration::ZERO, Deadline::left);
            request.extensions_mut().insert(Budget(left));
            request
        }))
        .service(Router::new().fallback_service(limited));
    PATHS.iter().fold(Router::new(), |outer, path| outer.route_service(path, service.clone()))
}

fn is_grpc<B>(request: &http::Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC.as_bytes()))
}

/// The layer answers gRPC-Web in its own way. Nobody speaks it here: whatever comes as gRPC is
/// refused in plain gRPC.
pub(crate) fn set_plain_grpc<B>(request: &mut http::Request<B>) {
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
}

/// When the check of the token has used up what the request may take of the store.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// What the check has left of it for the handler. To wait for its turn takes nothing away.
#[derive(Clone, Copy)]
struct Budget(Duration);

impl Budget {
    async fn hold<T>(self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        within(self.0, work).await
    }
}

impl<S: Sync> FromRequestParts<S> for Budget {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(Duration::ZERO)))
    }
}

async fn protected(State(app): State<App>, clearance: Clearance) -> Json<Value> {
    app.count_call();
    let token = clearance.token();
    Json(json!({ "sub": token.subject(), "jti": token.id(), "checked": clearance.is_checked() }))
}

async fn echo(State(app): State<App>, body: Bytes) -> Bytes {
    app.count_call();
    body
}

async fn slow(
    State(app): State<App>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<&'static str, Problem> {
    app.count_call();
    let ms = query.get("ms").map_or(Ok(0), |ms| ms.parse()).ok().filter(|ms| *ms <= MAX_SLOW);
    let ms = ms.ok_or(Problem::BadRequest("`ms` is not a whole number up to 10000"))?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok("done")
}

/// Ends the session of the token and its refresh tokens, or the token if it has none.
async fn logout(
    State(app): State<App>,
    budget: Budget,
    clearance: Clearance,
) -> Result<StatusCode, Problem> {
    app.count_call();
    budget.hold(async { Ok(app.sessions.logout(clearance.token()).await?) }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn logout_all(
    State(app): State<App>,
    budget: Budget,
    clearance: Clearance,
) -> Result<StatusCode, Problem> {
    app.count_call();
    let user = subject(&clearance)?;
    budget.hold(app.end_user(user, clearance.token().issuer())).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn sessions(
    State(app): State<App>,
    budget: Budget,
    clearance: Clearance,
) -> Result<Json<Value>, Problem> {
    app.count_call();
    let user = subject(&clearance)?;
    if app.is_foreign(clearance.token()) {
        return Ok(Json(json!([])));
    }
    let sessions = budget.hold(async { Ok(app.sessions.list(user).await?) }).await?;
    let sessions = sessions.iter().map(|session| {
        json!({
            "session_id": session.id,
            "device": session.details.data.as_ref().and_then(|data| data.get("device")),
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
    path: Result<Path<SessionPath>, PathRejection>,
    budget: Budget,
    clearance: Clearance,
) -> Result<StatusCode, Problem> {
    app.count_call();
    // No session has an id that is no text.
    let Ok(Path(SessionPath { id })) = path else { return Err(Problem::NotFound) };
    let user = subject(&clearance)?;
    if app.is_foreign(clearance.token()) {
        return Err(Problem::NotFound);
    }
    let work = async {
        match app.sessions.end_of(user, &id).await {
            Ok(Ended::Done) => Ok(StatusCode::NO_CONTENT),
            // Those of others are not there, for all that the caller can tell.
            Ok(_) => Err(Problem::NotFound),
            Err(error) if error.kind() == StoreErrorKind::InvalidInput => Err(Problem::NotFound),
            Err(error) => Err(error.into()),
        }
    };
    budget.hold(work).await
}

fn subject(clearance: &Clearance) -> Result<&str, Problem> {
    clearance.token().subject().ok_or(Problem::BadRequest("the token has no subject"))
}
