//! Everything from the environment, as a container gets it. docs/configuration.md lists all
//! variables.
//!
//! ```sh
//! head -c 32 /dev/urandom | base64 | sed 's/^/base64:/' > /tmp/secret
//! export JWT_ISSUERS=https://id.example JWT_AUDIENCES=orders
//! export JWT_ALGORITHM=HS256 JWT_SECRET_FILE=/tmp/secret
//! export REDIS_URL=redis://127.0.0.1 JWT_REDIS_PREFIX=orders JWT_REALM=orders
//! cargo run --example from_env                # listens on 127.0.0.1:3000
//! # Says whether all of it is right, and does not listen.
//! cargo run --example from_env -- --check
//! # With JWT_AUDIENCES unset: names the right one.
//! JWT_AUDIENCE=orders cargo run --example from_env -- --check
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tower_jwt_revocation::{
    Clearance, JwtRevocationLayer, LayerConfig, RedisConfig, VerifierConfig,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // With the feature `jwks`: `connect().await`, which fetches keys if they are to be fetched.
    let verifier = VerifierConfig::from_env()?.verifier()?;
    let store = RedisConfig::from_env()?.connect().await?;
    let layer = JwtRevocationLayer::new(verifier, store).with_config(&LayerConfig::from_env()?)?;

    let app = Router::new().route("/me", get(me)).layer(layer);
    if std::env::args().any(|arg| arg == "--check") {
        println!("all settings are good, and Redis is there");
        println!("\nNext: cargo run --example from_env      listens");
        return Ok(());
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn me(Extension(clearance): Extension<Clearance>) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or_default())
}
