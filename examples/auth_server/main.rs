//! A login server: sign in, refresh, sign out, sessions and revocation by an administrator, behind
//! [`JwtRevocationLayer`](tower_jwt_revocation::JwtRevocationLayer). What it answers is fixed in
//! `README.md` next to this file.
//!
//! ```sh
//! make demo        # with everything in memory; says what to try
//! make tour        # two of them on one Redis
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | `config` | reads the environment; everything that can be wrong is found here |
//! | `app` | puts verifier, store, layer, sessions and issuer together |
//! | `audit` | writes audit events to a file |
//! | `answer` | from errors to answers |
//! | `public` | the routes that need no access token: sign in, refresh, health |
//! | `admin` | the routes that need the token of the administrator |
//! | `operator` | the routes by which an operator looks at revocations and takes them back |
//! | `protected` | the routes behind the layer |
//! | `providers` | the settings of what clients and identity providers send |
//! | `standards` | its routes: revocation, introspection, logout tokens, security events, metadata |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it says where it listens, and why it does not"
)]

mod admin;
mod answer;
mod app;
mod audit;
mod config;
mod operator;
mod process;
mod protected;
mod providers;
mod public;
mod standards;

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use axum::http::Request;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::server::TcpIncoming;
use tower::ServiceBuilder;
use tower::util::MapRequestLayer;

use crate::app::App;
use crate::config::Config;

/// How long the end may take: what asks us to stop waits for 5 s. Requests that are under way leave
/// the rest of it to Redis, which is told that this process ends.
const END: Duration = Duration::from_millis(4700);
const LAST_REQUESTS: Duration = Duration::from_millis(4200);

fn main() -> ExitCode {
    process::exit_code("auth_server", run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = Config::from_env()?;
    let file = config.audit.as_deref();
    // Dropped last: then the last events are written.
    let (audit, _written_at_the_end) = audit::open(file).map_err(|error| {
        format!("AUTH_AUDIT: cannot write to {}: {error}", file.unwrap_or("".as_ref()).display())
    })?;
    let app = App::build(&config, audit).await?;
    let (stop, stopped) = watch::channel(false);
    let mut servers = JoinSet::new();

    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| format!("AUTH_LISTEN: cannot listen on {}: {error}", config.listen))?;
    let address = listener.local_addr()?;
    let router = public::routes(&app)
        .merge(admin::routes(&app))
        .merge(protected::routes(&app))
        .merge(standards::routes(&app, &config)?);
    let server = axum::serve(listener, router).with_graceful_shutdown(until(stopped.clone()));
    servers.spawn(async move { server.await.map_err(Box::<dyn Error + Send + Sync>::from) });

    let mut grpc = None;
    if let Some(wanted) = config.grpc {
        let incoming = TcpIncoming::bind(wanted)
            .map_err(|error| format!("AUTH_GRPC: cannot listen on {wanted}: {error}"))?;
        grpc = Some(incoming.local_addr()?);
        // All services are healthy from the start: what this demonstrates is the layer in front of
        // them.
        let (_, health) = tonic_health::server::health_reporter();
        let layers =
            ServiceBuilder::new().layer(MapRequestLayer::new(as_grpc)).layer(app.layer.clone());
        let server = tonic::transport::Server::builder().layer(layers).add_service(health);
        let server = server.serve_with_incoming_shutdown(incoming, until(stopped));
        servers.spawn(async move { server.await.map_err(Box::<dyn Error + Send + Sync>::from) });
    }

    println!("LISTENING {address}");
    if let Some(address) = grpc {
        println!("GRPC {address}");
    }
    std::io::stdout().flush()?;

    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = servers.join_next() => ended?.map_err(|error| error.to_string())?,
    }
    tracing::info!("stopping; requests that are under way are finished");
    stop.send_replace(true);
    let end = Instant::now();
    let finished = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout_at(end + LAST_REQUESTS, finished).await.is_err() {
        tracing::warn!("some requests took too long and are dropped");
    }
    if tokio::time::timeout_at(end + END, app.close()).await.is_err() {
        tracing::warn!("redis was not told in time that this process ends");
    }
    Ok(())
}

/// On a port that speaks gRPC only, also what does not say so is refused in gRPC.
fn as_grpc<B>(mut request: Request<B>) -> Request<B> {
    protected::set_plain_grpc(&mut request);
    request
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // If the sender is gone, so is the program.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
