//! jwt-authorizer verifies, this layer checks revocation.
//!
//! It leaves `TokenData<YourClaims>` in the extensions of the request. Version 0.15 makes its
//! refusals for axum 0.7, so this application is one; the layer does not mind.

use std::sync::Arc;

use axum07::Router;
use axum07::extract::{Extension, State};
use axum07::http::StatusCode;
use axum07::routing::{get, post};
use jsonwebtoken9::TokenData;
use jwt_authorizer::{Authorizer, IntoLayer as _, JwtAuthorizer, Validation};
use tokio::net::TcpListener;
use tower_jwt_revocation::store::RevocationStore;
use tower_jwt_revocation::token::UpstreamClaims;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Revoker};

use crate::{Error, demo};

/// Everything by which a token can be revoked must be in it, and be handed on: what is not
/// serialized cannot be revoked.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Claims {
    iss: String,
    aud: serde_json::Value,
    sub: String,
    jti: String,
    iat: f64,
    exp: u64,
    /// The rest: `sid`, `client_id`, …
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

async fn me(
    Extension(data): Extension<TokenData<Claims>>,
    Extension(clearance): Extension<Clearance>,
) -> String {
    // Both are there: their claims and our clearance.
    assert_eq!(clearance.token().id(), Some(&*data.claims.jti));
    format!("hello {}", data.claims.sub)
}

async fn logout(
    State(revoker): State<Revoker>,
    Extension(clearance): Extension<Clearance>,
) -> StatusCode {
    match revoker.revoke_token(clearance.token()).reason("logout").await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub async fn serve(listener: TcpListener, store: Arc<dyn RevocationStore>) -> Result<(), Error> {
    let theirs: Authorizer<Claims> = JwtAuthorizer::from_jwks_text(&demo::jwk_set())
        .validation(Validation::new().iss(&[demo::ISSUER]).aud(&[demo::AUDIENCE]))
        .build()
        .await?;
    let claims =
        UpstreamClaims::in_extension_as(demo::profile(), |data: &TokenData<Claims>| &data.claims)?;
    let ours = JwtRevocationLayer::behind(claims, store);
    let app = Router::new()
        .route("/me", get(me))
        .route("/logout", post(logout))
        .with_state(ours.revoker())
        .layer(ours)
        .layer(theirs.into_layer()) // added last, so it comes first
        .route("/health", get(|| async { "well" }));
    Ok(axum07::serve(listener, app).await?)
}
