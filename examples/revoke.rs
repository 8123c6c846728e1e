//! Two processes, one Redis: the second revokes, the first refuses.
//!
//! ```sh
//! export REDIS_URL=redis://127.0.0.1
//! cargo run --example revoke                  # starts a second process by itself
//! cargo run --example revoke -- user alice    # revokes, as an operator would
//! ```
//!
//! Without `REDIS_URL` it starts a `redis-server` of its own for as long as it runs.
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;
use std::process::{Child, Command, Stdio};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::routing::get;
use axum::{Extension, Router};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tower::ServiceExt as _;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::{
    Algorithm, Clearance, JwtRevocationLayer, JwtVerifier, RedisStore, Revoker, Target,
    TokenProfile, VerificationKey,
};

const SECRET: &[u8] = b"an example secret, 32 bytes or more";

/// Shared by those who check and those who revoke: both must know the same rules, as here and in
/// `quickstart`. A revocation that no layer on the store could match is an error.
fn profile() -> TokenProfile {
    TokenProfile::new()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => check().await,
        ["user", sub] => revoke(Target::user(*sub)).await,
        ["token", jti] => revoke(Target::token(*jti)).await,
        _ => Err("usage: revoke [user <sub> | token <jti>]".into()),
    }
}

/// The operator's process: it has no key, verifies nothing, and only revokes.
async fn revoke(target: Target) -> Result<(), Box<dyn Error>> {
    let url = std::env::var("REDIS_URL")?;
    let store = RedisStore::connect(&url).await?;
    let revoker = Revoker::new(store.clone(), profile())?;
    let receipt = revoker.revoke(target.clone()).reason("an example").actor("operator").await?;
    println!("  process {}: revoked {target} ({:?})", std::process::id(), receipt.outcome);
    // It has written, and ends: nobody has to wait for it if Redis changes its primary just now.
    store.close().await?;
    Ok(())
}

/// The server's process.
async fn check() -> Result<(), Box<dyn Error>> {
    let (url, _redis) = redis()?;
    let key = VerificationKey::from_secret(Algorithm::HS256, SECRET)?;
    let layer = JwtRevocationLayer::new(
        JwtVerifier::new([key], profile())?,
        RedisStore::connect(&url).await?,
    );
    let app = Router::new().route("/me", get(me)).layer(layer);

    let now = Timestamp::now().as_secs();
    let token = |sub: &str| {
        let claims = json!({
            "sub": sub, "jti": format!("{sub}-{now}"), "iat": now, "exp": now + 600,
        });
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET)?)
    };
    let (alice, bob) = (token("alice")?, token("bob")?);

    println!(
        "  process {}: alice {}, bob {}",
        std::process::id(),
        call(&app, &alice).await?,
        call(&app, &bob).await?
    );
    let operator = Command::new(std::env::current_exe()?)
        .args(["user", "alice"])
        .env("REDIS_URL", &url)
        .status()?;
    if !operator.success() {
        return Err("the second process failed".into());
    }
    println!(
        "  process {}: alice {}, bob {}",
        std::process::id(),
        call(&app, &alice).await?,
        call(&app, &bob).await?
    );
    println!(
        "\nNext: cargo run --example quickstart -- serve      and revoke with this example from \
         another terminal, both with the same REDIS_URL"
    );
    Ok(())
}

async fn me(Extension(clearance): Extension<Clearance>) -> String {
    clearance.token().subject().unwrap_or_default().to_owned()
}

async fn call(app: &Router, token: &str) -> Result<StatusCode, Box<dyn Error>> {
    let request = Request::get("/me")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())?;
    Ok(app.clone().oneshot(request).await?.status())
}

/// The Redis that was named, or one of our own that ends with this process.
fn redis() -> Result<(String, Option<OwnRedis>), Box<dyn Error>> {
    if let Ok(url) = std::env::var("REDIS_URL") {
        return Ok((url, None));
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("set REDIS_URL, or install redis-server ({error})"))?;
    let server = OwnRedis(server);
    println!("Started redis-server on port {port}, as REDIS_URL is not set.\n");
    Ok((format!("redis://127.0.0.1:{port}"), Some(server)))
}

struct OwnRedis(Child);

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
