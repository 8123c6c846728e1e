//! The server that is attacked, a process of its own, so that its memory and its open files are
//! its alone.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tower_jwt_revocation::counters::Counters;
use tower_jwt_revocation::metrics::Metrics;
use tower_jwt_revocation::session::{Login, RefreshPolicy, SessionDetails, Sessions};
use tower_jwt_revocation::store::{RevocationStore, StoreErrorKind};

use tower_jwt_revocation::token::jwks::Jwks;
use tower_jwt_revocation::{
    CachedVerifier, Clearance, FailMode, JwtRevocationLayer, JwtVerifier, Mirror, RedisStore,
    Target, TokenProfile,
};

use crate::attack::{SERVER_NICE, comes_after};

/// More than the buffers of a connection hold.
const LARGE: usize = 8 << 20;

/// What a server is to be like, as it is told by its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub url: String,
    pub keys: String,
    pub mirror: bool,
}

/// What it says of itself.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Numbers {
    pub tasks: usize,
    pub unchecked: u64,
    pub overloaded: u64,
    pub timeouts: u64,
    /// What it has written within the last minute, and keeps to put it back.
    pub replay_log_kib: u64,
}

#[derive(Clone)]
struct App {
    sessions: Sessions,
    counters: Counters,
    metrics: Metrics,
    large: Bytes,
}

/// Serves until the parent has ended.
pub fn live(setup: &str) {
    let setup: Setup = serde_json::from_str(setup).unwrap();
    // All threads that are started from here on as well.
    comes_after(SERVER_NICE);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(setup));
}

async fn serve(setup: Setup) {
    let store = RedisStore::builder().with_url(&setup.url).connect().await.unwrap();
    let keys = Jwks::at(&setup.keys).unwrap().with_plain_http_on_loopback().fetch().await.unwrap();
    let verifier = JwtVerifier::with_remote_keys(keys, TokenProfile::new()).unwrap();
    let verifier = CachedVerifier::new(verifier);
    let revocations: Arc<dyn RevocationStore> = if setup.mirror {
        let mirror = Mirror::builder(store.clone()).start().unwrap();
        mirror.ready().await;
        Arc::new(mirror)
    } else {
        Arc::new(store.clone())
    };
    let layer = JwtRevocationLayer::new(verifier, revocations);
    let open = layer.clone().with_fail_mode(FailMode::Open);
    let app = App {
        sessions: Sessions::new(store, layer.revoker(), RefreshPolicy::new()).unwrap(),
        counters: layer.counters(),
        metrics: layer.metrics(),
        large: vec![b'x'; LARGE].into(),
    };
    let router = Router::new()
        .route("/closed", get(clearance))
        .route("/large", get(large))
        .layer(layer)
        .merge(Router::new().route("/open", get(clearance)).layer(open))
        .route("/login", post(login))
        .route("/revoke", post(revoke))
        .route("/numbers", get(numbers))
        .with_state(app);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    axum::serve(listener, router).await.unwrap();
}

/// Says whether the store was asked.
async fn clearance(request: Request) -> (HeaderMap, &'static str) {
    let clearance = request.extensions().get::<Clearance>().expect("a layer");
    let mut headers = HeaderMap::new();
    let checked = if clearance.is_checked() { "yes" } else { "no" };
    headers.insert("x-checked", checked.parse().unwrap());
    (headers, "hello")
}

async fn large(State(app): State<App>) -> Bytes {
    app.large
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

async fn login(State(app): State<App>, Query(Id { id }): Query<Id>) -> Response {
    match app.sessions.login(&id, SessionDetails::new()).await {
        Ok(Login::Granted(_)) => StatusCode::OK.into_response(),
        Ok(_) => StatusCode::FORBIDDEN.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn revoke(State(app): State<App>, Query(Id { id }): Query<Id>) -> StatusCode {
    match app.sessions.revoker().revoke(Target::token(id)).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn numbers(State(app): State<App>) -> Json<Numbers> {
    let counted = app.counters.snapshot();
    let text = app.metrics.prometheus();
    let log =
        text.lines().find_map(|line| line.strip_prefix("jwt_revocation_store_replay_log_bytes "));
    let bytes: f64 = log.expect("the metric").parse().unwrap();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some megabytes")]
    let replay_log_kib = (bytes / 1024.0).ceil() as u64;
    Json(Numbers {
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        unchecked: counted.admitted_unchecked,
        overloaded: counted.store_errors(StoreErrorKind::Overloaded),
        timeouts: counted.store_errors(StoreErrorKind::Timeout),
        replay_log_kib,
    })
}
