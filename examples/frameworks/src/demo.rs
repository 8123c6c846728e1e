//! What all examples share: the key, the tokens, the layer.

use serde_json::{Value, json};
use tower_jwt_revocation::store::RevocationStore;
use tower_jwt_revocation::token::issue::NewToken;
use tower_jwt_revocation::token::jwt::SigningKey;
use tower_jwt_revocation::{JwtRevocationLayer, JwtVerifier, TokenIssuer, TokenProfile};

use crate::Error;

pub const ISSUER: &str = "https://id.example";
pub const AUDIENCE: &str = "orders";

/// The key of RFC 8037, appendix A, known to everyone: an Ed25519 key as a JWK. Yours comes from a
/// secret store.
fn private_key() -> Value {
    let mut key = public_key();
    key["d"] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
    key
}

fn public_key() -> Value {
    json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "demo",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    })
}

/// What an identity provider would publish.
pub fn jwk_set() -> String {
    json!({"keys": [public_key()]}).to_string()
}

/// What verifier, revoker and issuer agree on.
pub fn profile() -> TokenProfile {
    TokenProfile::new().with_issuer(ISSUER).with_audience(AUDIENCE)
}

/// A token for this user.
pub fn token(subject: &str) -> Result<String, Error> {
    let issuer = TokenIssuer::new(SigningKey::from_jwk(&private_key().to_string())?, profile())?;
    Ok(issuer.issue(&NewToken::new(subject))?.into_token())
}

/// A layer that verifies them.
pub fn layer(store: impl RevocationStore) -> Result<JwtRevocationLayer, Error> {
    let key = SigningKey::from_jwk(&private_key().to_string())?.verification_key();
    Ok(JwtRevocationLayer::new(JwtVerifier::new([key], profile())?, store))
}
