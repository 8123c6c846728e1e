//! Log in, call, log out, be refused: the whole of the crate in one axum app.
//!
//! ```sh
//! cargo run --example quickstart                                    # keeps revocations in memory
//! REDIS_URL=redis://127.0.0.1 cargo run --example quickstart        # keeps them in Redis
//! cargo run --example quickstart -- serve          # and stays, to be tried with curl
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::routing::{get, post};
use axum::{Extension, Router};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tower::ServiceExt as _;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::RevocationStore;
use tower_jwt_revocation::{
    Algorithm, Clearance, JwtRevocationLayer, JwtVerifier, MemoryStore, Revoker, Target,
    TokenProfile, VerificationKey,
};

/// Known to the issuer and to whoever verifies; yours comes from a secret store.
const SECRET: &[u8] = b"an example secret, 32 bytes or more";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = store().await?;

    // The three lines: a verifier, a layer, and the revoker that belongs to it.
    let key = VerificationKey::from_secret(Algorithm::HS256, SECRET)?;
    let layer = JwtRevocationLayer::new(JwtVerifier::new([key], TokenProfile::new())?, store);
    let revoker = layer.revoker();

    let app = Router::new()
        .route("/me", get(me))
        .route("/logout", post(logout))
        .route("/logout-everywhere", post(logout_everywhere))
        .layer(layer)
        .route("/login", post(login)) // added after the layer, so outside of it
        .with_state(revoker);

    if std::env::args().any(|arg| arg == "serve") { serve(app).await } else { show(app).await }
}

async fn store() -> Result<Arc<dyn RevocationStore>, Box<dyn Error>> {
    #[cfg(feature = "redis")]
    if let Ok(url) = std::env::var("REDIS_URL") {
        let builder = tower_jwt_revocation::RedisStore::builder().with_url(url);
        let store = builder.with_prefix("quickstart").connect().await?;
        println!(
            "Revocations are kept in Redis: every process that shares it refuses a revoked token.\n"
        );
        return Ok(Arc::new(store));
    }
    println!("Revocations are kept in memory. Set REDIS_URL to share them.\n");
    Ok(Arc::new(MemoryStore::new()))
}

/// Whoever asks is logged in as alice. All that matters here are the claims: `jti` names the token.
async fn login() -> Result<String, StatusCode> {
    let now = Timestamp::now().as_secs();
    let claims =
        json!({"sub": "alice", "jti": format!("{:x}", rand_id()), "iat": now, "exp": now + 600});
    EncodingKey::from_secret(SECRET)
        .and_then(|key| jsonwebtoken::encode(&Header::default(), &claims, &key))
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// A handler behind the layer finds the verified token in the request.
async fn me(Extension(clearance): Extension<Clearance>) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or_default())
}

/// Revokes the token of this request. An error means that the revocation is not confirmed: say so,
/// and it is repeated.
async fn logout(
    State(revoker): State<Revoker>,
    Extension(clearance): Extension<Clearance>,
) -> StatusCode {
    match revoker.revoke_token(clearance.token()).reason("logout").await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(error) if error.is_permanent() => StatusCode::BAD_REQUEST,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Revokes every token that this user was given so far.
async fn logout_everywhere(
    State(revoker): State<Revoker>,
    Extension(clearance): Extension<Clearance>,
) -> StatusCode {
    let user = Target::user(clearance.token().subject().unwrap_or_default());
    match revoker.revoke(user).reason("logout everywhere").await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(error) if error.is_permanent() => StatusCode::BAD_REQUEST,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn rand_id() -> u128 {
    use std::hash::{BuildHasher as _, RandomState};
    // Good enough for a demo. The feature `issuer` mints tokens with ids that cannot be guessed.
    (0..2).fold(0, |id, half| (id << 64) | u128::from(RandomState::new().hash_one(half)))
}

// === What the example shows ===

async fn show(app: Router) -> Result<(), Box<dyn Error>> {
    let (phone, laptop) = (token(&app).await?, token(&app).await?);
    call(&app, "GET", "/me", "her phone", &phone).await?;
    call(&app, "GET", "/me", "her laptop", &laptop).await?;
    println!("\nThe phone logs out:");
    call(&app, "POST", "/logout", "her phone", &phone).await?;
    call(&app, "GET", "/me", "her phone", &phone).await?;
    call(&app, "GET", "/me", "her laptop", &laptop).await?;
    println!("\nThe laptop logs out everywhere:");
    call(&app, "POST", "/logout-everywhere", "her laptop", &laptop).await?;
    call(&app, "GET", "/me", "her laptop", &laptop).await?;
    println!(
        "\nNext: cargo run --example quickstart -- serve      the same over HTTP, to be tried with \
         curl"
    );
    println!(
        "      cargo run --example revoke                   another process revokes, this one \
        refuses"
    );
    Ok(())
}

async fn token(app: &Router) -> Result<String, Box<dyn Error>> {
    let response = app.clone().oneshot(Request::post("/login").body(Body::empty())?).await?;
    let body = axum::body::to_bytes(response.into_body(), 8192).await?;
    Ok(String::from_utf8(body.to_vec())?)
}

async fn call(
    app: &Router,
    method: &str,
    path: &str,
    who: &str,
    token: &str,
) -> Result<(), Box<dyn Error>> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    println!("  {method:4} {path:18} with {who:10} -> {}", response.status());
    Ok(())
}

async fn serve(app: Router) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("Listening. In another terminal:");
    println!("  token=$(curl -s -X POST localhost:3000/login)");
    println!("  curl -i -H \"Authorization: Bearer $token\" localhost:3000/me");
    println!("  curl -i -H \"Authorization: Bearer $token\" -X POST localhost:3000/logout");
    println!("  curl -i -H \"Authorization: Bearer $token\" localhost:3000/me");
    Ok(axum::serve(listener, app).await?)
}
