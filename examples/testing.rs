//! An application, and how it is tested: without Redis, without an issuer, without waiting.
//!
//! ```sh
//! cargo test --example testing --all-features     # the tests at the end of this file
//! cargo run  --example testing --all-features    # the same application, in development
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use axum::{Router, body::Body, extract::State};
use tower::ServiceExt as _;
use tower_jwt_revocation::store::StoreError;
use tower_jwt_revocation::token::issue::NewToken;
use tower_jwt_revocation::token::jwt::SigningKey;
use tower_jwt_revocation::{
    Algorithm, Clearance, FailMode, JwtRevocationLayer, JwtVerifier, MemoryStore, Mirror, Revoker,
    TokenIssuer, TokenProfile,
};

/// All that the application wants from outside is the layer. So a test can bring another one.
fn app(layer: JwtRevocationLayer) -> Router {
    let news =
        Router::new().route("/news", get(news)).layer(layer.clone().with_fail_mode(FailMode::Open));
    Router::new()
        .route("/me", get(me))
        .route("/logout", post(logout))
        .with_state(layer.revoker())
        .layer(layer)
        .merge(news)
}

async fn me(clearance: Clearance) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or("stranger"))
}

/// Everybody may read on while Redis is away, but for what is written for some only.
async fn news(clearance: Clearance) -> &'static str {
    if clearance.is_checked() { "all the news" } else { "the public news" }
}

async fn logout(
    State(revoker): State<Revoker>,
    clearance: Clearance,
) -> Result<StatusCode, StoreError> {
    revoker.revoke_token(clearance.token()).reason("logout").await?;
    Ok(StatusCode::NO_CONTENT)
}

/// In development: the parts of production, but for the store that the mirror has behind it.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = SigningKey::from_secret(Algorithm::HS256, &[42; 32])?; // of development only
    let verifier = JwtVerifier::new([key.verification_key()], TokenProfile::new())?;
    // In production `RedisStore::connect(url).await?` in the place of `MemoryStore::new()`.
    let mirror = Mirror::new(MemoryStore::new())?;
    mirror.ready().await;
    let app = app(JwtRevocationLayer::new(verifier, mirror));
    let token = TokenIssuer::new(key, TokenProfile::new())?.issue(&NewToken::new("alice"))?;

    for (method, path) in [("GET", "/me"), ("POST", "/logout"), ("GET", "/me")] {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", token.token()))
            .body(Body::empty())?;
        println!("  {method:4} {path:8} -> {}", app.clone().oneshot(request).await?.status());
    }
    println!("\nNext: cargo test --example testing --all-features      tests of this application");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tower_jwt_revocation::Target;
    use tower_jwt_revocation::testing::TestAuth;

    use super::*;

    async fn call(auth: &TestAuth, method: &str, path: &str, token: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::empty());
        let response = app(auth.layer()).oneshot(request.unwrap()).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 8192).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn status(auth: &TestAuth, method: &str, path: &str, token: &str) -> StatusCode {
        call(auth, method, path, token).await.0
    }

    #[tokio::test]
    async fn a_handler_by_itself() {
        assert_eq!(me(Clearance::for_test(json!({"sub": "alice"}))).await, "hello alice");
    }

    #[tokio::test]
    async fn who_has_logged_out_is_refused() {
        let auth = TestAuth::new();
        let token = auth.token(json!({"sub": "alice"}));
        assert_eq!(call(&auth, "GET", "/me", &token).await, (StatusCode::OK, "hello alice".into()));
        assert_eq!(status(&auth, "POST", "/logout", &token).await, StatusCode::NO_CONTENT);
        assert_eq!(status(&auth, "GET", "/me", &token).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn while_redis_is_down_only_the_public_news_can_be_read() {
        let auth = TestAuth::new();
        let token = auth.token(json!({"sub": "alice"}));
        auth.down();
        assert_eq!(status(&auth, "GET", "/me", &token).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(call(&auth, "GET", "/news", &token).await.1, "the public news");
        auth.up();
        assert_eq!(call(&auth, "GET", "/news", &token).await.1, "all the news");
    }

    #[tokio::test(start_paused = true)]
    async fn a_redis_that_is_slow_holds_nobody_up_for_long() {
        let auth = TestAuth::new();
        auth.slow(Duration::from_secs(10));
        let begun = tokio::time::Instant::now();
        let news = call(&auth, "GET", "/news", &auth.token(json!({"sub": "alice"}))).await;
        assert_eq!(news.1, "the public news");
        assert!(begun.elapsed() < Duration::from_millis(100), "by the paused clock of Tokio");
    }

    #[tokio::test]
    async fn a_logout_that_is_not_confirmed_is_no_success() {
        let auth = TestAuth::new();
        let clearance = auth.layer().check(&auth.token(json!({"sub": "alice"}))).await.unwrap();
        auth.down();
        assert!(logout(State(auth.revoker()), clearance).await.is_err());
    }

    #[tokio::test]
    async fn whoever_is_banned_is_out_until_a_new_login() {
        let auth = TestAuth::new();
        let token = auth.token(json!({"sub": "alice"}));
        auth.revoker().revoke(Target::user("alice")).await.unwrap();
        assert_eq!(status(&auth, "GET", "/me", &token).await, StatusCode::UNAUTHORIZED);
        auth.clock().advance(Duration::from_secs(1));
        let later = auth.token(json!({"sub": "alice"}));
        assert_eq!(status(&auth, "GET", "/me", &later).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_token_ends_by_the_clock() {
        let auth = TestAuth::new();
        let token = auth.token(json!({"sub": "alice"}));
        auth.clock().advance(Duration::from_secs(3600));
        assert_eq!(status(&auth, "GET", "/me", &token).await, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn after_a_loss_of_data_everybody_signs_in_again() {
        let auth = TestAuth::new();
        let token = auth.token(json!({"sub": "alice"}));
        auth.lose_data();
        assert_eq!(status(&auth, "GET", "/me", &token).await, StatusCode::UNAUTHORIZED);
        auth.clock().advance(Duration::from_secs(1));
        let later = auth.token(json!({"sub": "alice"}));
        assert_eq!(status(&auth, "GET", "/me", &later).await, StatusCode::OK);
    }
}
