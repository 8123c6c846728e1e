//! Tokens of an identity provider: its keys are found by discovery, follow its rotation, and end
//! when one is stolen. The provider is served by the example itself.
//!
//! ```sh
//! cargo run --example jwks --all-features
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_jwt_revocation::token::issue::NewToken;
use tower_jwt_revocation::token::jwks::Jwks;
use tower_jwt_revocation::token::jwt::SigningKey;
use tower_jwt_revocation::{
    Algorithm, Clearance, Extent, JwtRevocationLayer, JwtVerifier, MemoryStore, Target,
    TokenIssuer, TokenProfile,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = Provider::start().await?;
    let january = provider.publish("2026-01")?;

    // The same for your provider, without the two settings of a demonstration.
    let keys = Jwks::of_issuer(&provider.url)?
        .with_plain_http_on_loopback() // yours has https
        .with_cooldown(Duration::from_secs(1)) // 10 s are better
        .fetch()
        .await?;
    let profile = TokenProfile::new().with_issuer(&provider.url).with_audience("orders");
    let verifier = JwtVerifier::with_remote_keys(keys.clone(), profile.clone())?;
    let layer = JwtRevocationLayer::new(verifier, MemoryStore::new());
    let revoker = layer.revoker();
    let app = Router::new().route("/me", get(me)).layer(layer);

    println!("A token by the key `2026-01` that the provider publishes:");
    let by_january = Provider::token(&january, &profile)?;
    call(&app, &by_january).await?;

    println!(
        "\nThe provider signs by another key, `2026-02`. Requests do not wait for it: the first"
    );
    println!("is told to come back, and the key is fetched meanwhile:");
    let february = provider.publish("2026-02")?;
    let by_february = Provider::token(&february, &profile)?;
    let fetched = keys.next_fetch();
    call(&app, &by_february).await?;
    fetched.await?;
    call(&app, &by_february).await?;
    call(&app, &by_january).await?;

    println!(
        "\nThe key `2026-01` is stolen: all that it has signed, and will ever sign, is revoked:"
    );
    revoker.revoke(Target::key("2026-01")).extent(Extent::All).reason("stolen").await?;
    call(&app, &by_january).await?;
    call(&app, &Provider::token(&january, &profile)?).await?;
    call(&app, &by_february).await?;
    println!("\nNext: tokens of Keycloak, Entra, Auth0 and others: token::provider::Provider");
    Ok(())
}

async fn me(clearance: Clearance) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or("stranger"))
}

// === The provider ===

struct Provider {
    url: String,
    /// As they are published (RFC 7517).
    keys: Arc<Mutex<Vec<Value>>>,
}

impl Provider {
    async fn start() -> Result<Self, Box<dyn Error>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let keys = Arc::new(Mutex::new(Vec::new()));
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let published = Arc::clone(&keys);
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(|| async { Json(discovery) }))
            .route("/keys", get(|| async move { Json(json!({"keys": *lock(&published)})) }));
        tokio::spawn(async { axum::serve(listener, app).await });
        Ok(Self { url, keys })
    }

    /// Publishes a new key beside the others.
    fn publish(&self, name: &str) -> Result<SigningKey, Box<dyn Error>> {
        let pair = KeyPair::generate_for(&PKCS_ED25519)?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": name, "x": x});
        lock(&self.keys).push(key);
        Ok(SigningKey::from_der(Algorithm::EdDSA, &pair.serialize_der())?.with_kid(name)?)
    }

    fn token(key: &SigningKey, profile: &TokenProfile) -> Result<String, Box<dyn Error>> {
        let issuer = TokenIssuer::new(key.clone(), profile.clone())?;
        Ok(issuer.issue(&NewToken::new("alice"))?.into_token())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn call(app: &Router, token: &str) -> Result<StatusCode, Box<dyn Error>> {
    let request = Request::get("/me").header("authorization", format!("Bearer {token}"));
    let status = app.clone().oneshot(request.body(Body::empty())?).await?.status();
    println!("  GET /me -> {status}");
    Ok(status)
}
