//! What people write today, and what others have published: the services that are compared.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fred::prelude::{Client, ClientLike as _, Config, KeysInterface as _};
use http::{StatusCode, header};
use jsonwebtoken::{DecodingKey, Validation};
use redis::AsyncCommands as _;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tower_jwt_revocation_report::support::{AUDIENCE, Claims, ISSUER, KEY_ID, Keys};

/// The limit of our own store in the same lines.
const LIMIT: Duration = Duration::from_secs(5);

/// Says whether a token id is revoked, as it is written by hand: one `EXISTS`.
#[derive(Clone)]
pub enum Exists {
    Fred(Client),
    Redis(ConnectionManager),
    /// Nobody is asked.
    Nobody,
}

impl Exists {
    pub async fn by_fred(url: &str) -> Self {
        let client =
            fred::prelude::Builder::from_config(Config::from_url(url).unwrap()).build().unwrap();
        client.init().await.unwrap();
        Self::Fred(client)
    }

    pub async fn by_redis(url: &str) -> Self {
        // What is slow shall be measured, not refused.
        let config = ConnectionManagerConfig::new().set_response_timeout(Some(LIMIT));
        let client = redis::Client::open(url).unwrap();
        Self::Redis(ConnectionManager::new_with_config(client, config).await.unwrap())
    }

    async fn ask(&mut self, id: &str) -> bool {
        match self {
            Self::Fred(client) => client.exists(format!("revoked:{id}")).await.unwrap(),
            Self::Redis(manager) => manager.exists(format!("revoked:{id}")).await.unwrap(),
            Self::Nobody => false,
        }
    }
}

/// What a middleware written by hand needs.
#[derive(Clone)]
pub struct ByHand {
    keys: Arc<(DecodingKey, Validation)>,
    exists: Exists,
}

impl ByHand {
    pub fn new(keys: &Keys, exists: Exists) -> Self {
        Self { keys: Arc::new((keys.decoding.clone(), keys.validation())), exists }
    }

    /// `from_fn`, `decode`, one `EXISTS`.
    pub async fn pass(mut self, mut request: Request, next: Next) -> Response<Body> {
        let header =
            request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let (key, validation) = &*self.keys;
        let Ok(data) = jsonwebtoken::decode::<Claims>(token, key, validation) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        if self.exists.ask(&data.claims.jti).await {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        request.extensions_mut().insert(Arc::new(data.claims));
        next.run(request).await
    }
}

/// The public key of the RS256 tokens, as a JWK Set.
pub fn jwk_set() -> String {
    let (modulus, exponent) = tower_jwt_revocation_report::support::rs256_components();
    let (modulus, exponent) = (URL_SAFE_NO_PAD.encode(modulus), URL_SAFE_NO_PAD.encode(exponent));
    serde_json::json!({ "keys": [
        { "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": modulus, "e": exponent }
    ] })
    .to_string()
}

/// jwt-authorizer: verifies, asks nobody.
pub async fn jwt_authorizer() -> jwt_authorizer::layer::AuthorizationLayer<Claims> {
    use jwt_authorizer::{IntoLayer as _, JwtAuthorizer, Validation};
    let builder = JwtAuthorizer::from_jwks_text(&jwk_set());
    let validation = Validation::new().iss(&[ISSUER]).aud(&[AUDIENCE]);
    let authorizer: jwt_authorizer::Authorizer<Claims> =
        builder.validation(validation).build().await.unwrap();
    authorizer.into_layer()
}

/// tower-oauth2-resource-server: verifies, asks nobody.
pub async fn resource_server() -> tower_oauth2_resource_server::server::OAuth2ResourceServer<Claims>
{
    use tower_oauth2_resource_server::server::OAuth2ResourceServer;
    use tower_oauth2_resource_server::tenant::TenantConfiguration;
    let tenant =
        TenantConfiguration::static_builder(jwk_set()).audiences(&[AUDIENCE]).build().unwrap();
    OAuth2ResourceServer::<Claims>::builder().add_tenant(tenant).build().await.unwrap()
}
