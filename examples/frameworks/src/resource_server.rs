//! tower-oauth2-resource-server verifies, this layer checks revocation.
//!
//! It leaves the claims in the extensions of the request, as your type.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tower_jwt_revocation::store::RevocationStore;
use tower_jwt_revocation::token::UpstreamClaims;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer, Revoker};
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;

use crate::{Error, demo};

/// All claims, whatever they are: nothing by which a token can be revoked is lost.
type Claims = serde_json::Map<String, serde_json::Value>;

async fn me(Extension(claims): Extension<Claims>, clearance: Clearance) -> String {
    // Both are there: their claims and our clearance.
    assert_eq!(clearance.token().id(), claims.get("jti").and_then(|jti| jti.as_str()));
    format!("hello {}", clearance.token().subject().unwrap_or_default())
}

async fn logout(State(revoker): State<Revoker>, clearance: Clearance) -> StatusCode {
    match revoker.revoke_token(clearance.token()).reason("logout").await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub async fn serve(listener: TcpListener, store: Arc<dyn RevocationStore>) -> Result<(), Error> {
    // With a provider that can be reached: `TenantConfiguration::builder("https://id.example")`.
    let tenant = TenantConfiguration::static_builder(demo::jwk_set())
        .audiences(&[demo::AUDIENCE])
        .build()?;
    let theirs = OAuth2ResourceServer::<Claims>::builder().add_tenant(tenant).build().await?;
    // The issuer is not checked there, with static keys; it is here, by the profile.
    let claims = UpstreamClaims::in_extension::<Claims>(demo::profile())?;
    let ours = JwtRevocationLayer::behind(claims, store);
    let app = Router::new()
        .route("/me", get(me))
        .route("/logout", post(logout))
        .with_state(ours.revoker())
        .layer(ours)
        .layer(theirs.into_layer()) // added last, so it comes first
        .route("/health", get(async || "well"));
    Ok(axum::serve(listener, app).await?)
}
