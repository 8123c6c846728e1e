//! An application of several routers: which of them are behind the layer, in which fail mode, and
//! what becomes of paths that nobody knows.
//!
//! ```sh
//! cargo run --example routers --all-features
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use serde_json::json;
use tower::ServiceExt as _;
use tower_jwt_revocation::testing::TestAuth;
use tower_jwt_revocation::{Clearance, FailMode, JwtRevocationLayer};

fn app(layer: JwtRevocationLayer) -> Router {
    // All routers have clones of one layer: one store, one revoker, one set of counters.
    let open = layer.clone().with_fail_mode(FailMode::Open);
    let optional = layer.clone().with_optional_credentials();

    // Money: nobody while Redis is away. `layer` also puts the layer around the fallback of the
    // router, if it has one of its own: its unknown paths are 401 without a token, and 404 with
    // one.
    let payments = Router::new().route("/", post(pay)).fallback(nothing).layer(layer.clone());

    // News: everybody whose token is good, while Redis is away. `route_layer` leaves the fallback
    // out: unknown paths are 404 for all.
    let news = Router::new().route("/", get(news)).route_layer(open);

    // A shop that knows who you are, if you say so. A token that is not good is refused all the
    // same.
    let shop = Router::new().route("/shop", get(greet)).route_layer(optional);

    // One route of a router: the layer is put around that route.
    let mixed = Router::new()
        .route("/about", get(|| async { "about us" }))
        .route("/account", get(greet).layer(layer));

    Router::new()
        .nest("/payments", payments)
        .nest("/news", news)
        .merge(shop)
        .merge(mixed)
        // Added to the outermost router, which has no layer: open to all.
        .route("/health", get(|| async { "well" }))
}

async fn pay(clearance: Clearance) -> String {
    format!("paid by {}", clearance.token().subject().unwrap_or("stranger"))
}

async fn news(clearance: Clearance) -> &'static str {
    if clearance.is_checked() { "all the news" } else { "the public news" }
}

async fn greet(clearance: Option<Clearance>) -> String {
    let user = clearance.as_ref().and_then(|clearance| clearance.token().subject());
    format!("hello {}", user.unwrap_or("stranger"))
}

async fn nothing() -> StatusCode {
    StatusCode::NOT_FOUND
}

// === What the example shows ===

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // In the place of your verifier and your Redis, so that Redis can be away: feature `test-util`.
    let auth = TestAuth::new();
    let app = app(auth.layer());
    let token = auth.token(json!({"sub": "alice"}));
    let revoked = auth.token(json!({"sub": "alice"}));
    auth.revoke(&revoked).await;

    println!("                       no token   alice      revoked    Redis is away");
    for (method, path) in [
        ("POST", "/payments"),
        ("GET", "/payments/x"),
        ("GET", "/news"),
        ("GET", "/news/x"),
        ("GET", "/shop"),
        ("GET", "/about"),
        ("GET", "/account"),
        ("GET", "/health"),
        ("GET", "/unknown"),
    ] {
        let mut statuses = Vec::new();
        for token in ["", &token, &revoked] {
            statuses.push(call(&app, method, path, token).await?);
        }
        auth.down();
        statuses.push(call(&app, method, path, &token).await?);
        auth.up();
        let columns = statuses.iter().map(|status| format!("{:<11}", status.as_u16()));
        println!("  {method:4} {path:15} {}", columns.collect::<String>());
    }
    println!("\nNext: cargo run --example sessions --all-features      sign in, refresh, sign out");
    Ok(())
}

async fn call(
    app: &Router,
    method: &str,
    path: &str,
    token: &str,
) -> Result<StatusCode, Box<dyn Error>> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    Ok(app.clone().oneshot(request.body(Body::empty())?).await?.status())
}
