//! Answers proxies: whether the bearer token of a request is good, for services that are not in
//! Rust. Every path and method is the same question, and the answer is that of
//! [`JwtRevocationLayer`](tower_jwt_revocation::JwtRevocationLayer): 200 with who it is, or the
//! refusal. `README.md` next to this file has the settings of nginx, Caddy, `HAProxy`, Envoy and
//! Traefik.
//!
//! ```sh
//! AUTH_JWKS=keys.json AUTH_REDIS_URL=redis://127.0.0.1 FORWARD_AUTH_LISTEN=127.0.0.1:4181 \
//!     cargo run --example forward_auth --all-features
//! ```
//!
//! With `AUTH_GRPC` it answers Envoy over gRPC there, too.
//!
//! Its variables are those of `auth_server`, and so are the files that read them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it says where it listens, and why it does not"
)]

#[allow(dead_code, reason = "it is the same file, and more is done with it there")]
#[path = "../auth_server/answer.rs"]
mod answer;
#[allow(dead_code, reason = "it is the same file, and more is done with it there")]
#[path = "../auth_server/app.rs"]
mod app;
#[path = "../auth_server/audit.rs"]
mod audit;
#[allow(dead_code, reason = "it is the same file, and more is done with it there")]
#[path = "../auth_server/config.rs"]
mod config;
mod ext_authz;
mod messages;
#[path = "../auth_server/process.rs"]
mod process;
#[allow(dead_code, reason = "it is the same file, and more is done with it there")]
#[path = "../auth_server/providers.rs"]
mod providers;

use std::convert::Infallible;
use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tower::util::MapRequestLayer;
use tower::{ServiceBuilder, service_fn};
use tower_jwt_revocation::Clearance;

use crate::app::App;
use crate::config::Config;

/// How long the end may take: what asks us to stop waits for 5 s. Requests that are under way leave
/// the rest of it to Redis, which is told that this process ends.
const END: Duration = Duration::from_millis(4700);
const LAST_REQUESTS: Duration = Duration::from_millis(4200);

const SUBJECT: HeaderName = HeaderName::from_static("x-auth-subject");
const TOKEN_ID: HeaderName = HeaderName::from_static("x-auth-token-id");
const CHECKED: HeaderName = HeaderName::from_static("x-auth-checked");

fn main() -> ExitCode {
    process::exit_code("forward_auth", run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let address = std::env::var("FORWARD_AUTH_LISTEN").unwrap_or_else(|_| "127.0.0.1:0".into());
    let address: SocketAddr = address
        .parse()
        .map_err(|_| "FORWARD_AUTH_LISTEN: is no address, such as 127.0.0.1:4181")?;
    let config = Config::from_env()?;
    let file = config.audit.as_deref();
    // Dropped last: then the last events are written.
    let (audit, _written_at_the_end) = audit::open(file).map_err(|error| {
        format!("AUTH_AUDIT: cannot write to {}: {error}", file.unwrap_or("".as_ref()).display())
    })?;
    let app = App::build(&config, audit).await?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("FORWARD_AUTH_LISTEN: cannot listen on {address}: {error}"))?;
    let grpc = match config.grpc {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|error| format!("AUTH_GRPC: cannot listen on {address}: {error}"))?,
        ),
        None => None,
    };
    println!("LISTENING {}", listener.local_addr()?);
    if let Some(grpc) = &grpc {
        println!("GRPC {}", grpc.local_addr()?);
    }
    std::io::stdout().flush()?;

    let (stop, stopped) = watch::channel(());
    let serve = |listener: TcpListener, router: Router| {
        let mut stopped = stopped.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move {
            // It never changes: the sender goes when the program is to end.
            let _ = stopped.changed().await;
        });
        server.into_future()
    };
    let http = serve(listener, router(&app));
    let grpc = grpc.map(|listener| serve(listener, ext_authz::router(router(&app))));
    let mut server = tokio::spawn(async move {
        match grpc {
            Some(grpc) => tokio::try_join!(http, grpc).map(drop),
            None => http.await,
        }
    });
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut server => ended??,
    }
    drop(stop);
    let end = Instant::now();
    if tokio::time::timeout_at(end + LAST_REQUESTS, &mut server).await.is_err() {
        tracing::warn!("some requests took too long and are dropped");
    }
    if tokio::time::timeout_at(end + END, app.close()).await.is_err() {
        tracing::warn!("redis was not told in time that this process ends");
    }
    Ok(())
}

fn router(app: &App) -> Router {
    let service = ServiceBuilder::new()
        // What asks is a proxy, whatever its client speaks: to that a refusal in gRPC is a 200.
        .layer(MapRequestLayer::new(|mut request: Request<Body>| {
            request.headers_mut().remove(header::CONTENT_TYPE);
            request
        }))
        .layer(app.layer.clone())
        .service(service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(passes(&request))
        }));
    Router::new().fallback_service(service)
}

/// Says whose token it was. Each header is there, if need be empty: proxies copy what is there, and
/// a header that is missing would leave the one that the client has sent.
fn passes<B>(request: &Request<B>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    // Without a clearance there is no request here; if there is one, it says nothing of anybody.
    let clearance = request.extensions().get::<Clearance>();
    let token = clearance.map(Clearance::token);
    let headers = response.headers_mut();
    insert(headers, SUBJECT, token.and_then(|token| token.subject()).unwrap_or_default());
    insert(headers, TOKEN_ID, token.and_then(|token| token.id()).unwrap_or_default());
    let checked = clearance.is_some_and(Clearance::is_checked);
    headers.insert(CHECKED, HeaderValue::from_static(if checked { "true" } else { "false" }));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, id: &str) {
    // What is percent-encoded is ASCII, so it is a value.
    let value = HeaderValue::try_from(encoded(id)).unwrap_or(HeaderValue::from_static(""));
    headers.insert(name, value);
}

/// Percent-encoded (RFC 3986 §2.1): an id may hold line breaks, commas and whatever.
fn encoded(id: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            let digit = |half: u8| HEX.get(usize::from(half)).copied().map_or('0', char::from);
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}
