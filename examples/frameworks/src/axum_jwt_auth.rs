//! axum-jwt-auth verifies, this layer checks revocation.
//!
//! It is an extractor and leaves nothing in the request, so a middleware of three lines hands the
//! claims on.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum_jwt_auth::{Claims, Decoder, LocalDecoder};
use jsonwebtoken10::jwk::JwkSet;
use jsonwebtoken10::{Algorithm, DecodingKey, Validation};
use tokio::net::TcpListener;
use tower_jwt_revocation::store::RevocationStore;
use tower_jwt_revocation::token::UpstreamClaims;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Revoker};

use crate::{Error, demo};

/// All claims, whatever they are: nothing by which a token can be revoked is lost.
type All = serde_json::Map<String, serde_json::Value>;

#[derive(Clone, FromRef)]
struct App {
    decoder: Decoder<All>,
    revoker: Revoker,
}

/// Their extractor refuses what it cannot verify; what it can is left where our layer looks.
async fn hand_on(user: Claims<All>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(user.claims);
    next.run(request).await
}

async fn me(clearance: Clearance) -> String {
    format!("hello {}", clearance.token().subject().unwrap_or_default())
}

async fn logout(State(revoker): State<Revoker>, clearance: Clearance) -> StatusCode {
    match revoker.revoke_token(clearance.token()).reason("logout").await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub async fn serve(listener: TcpListener, store: Arc<dyn RevocationStore>) -> Result<(), Error> {
    let keys: JwkSet = serde_json::from_str(&demo::jwk_set())?;
    let keys = keys.keys.iter().map(DecodingKey::from_jwk).collect::<Result<_, _>>()?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[demo::AUDIENCE]);
    validation.set_issuer(&[demo::ISSUER]);
    let decoder = Arc::new(LocalDecoder::builder().keys(keys).validation(validation).build()?);

    let ours =
        JwtRevocationLayer::behind(UpstreamClaims::in_extension::<All>(demo::profile())?, store);
    let state = App { decoder, revoker: ours.revoker() };
    let app = Router::new()
        .route("/me", get(me))
        .route("/logout", post(logout))
        .layer(ours)
        .layer(from_fn_with_state(state.clone(), hand_on)) // added last, so it comes first
        .route("/health", get(async || "well"))
        .with_state(state);
    Ok(axum::serve(listener, app).await?)
}
