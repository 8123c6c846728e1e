//! Documents that others read: keys and metadata.

use serde_json::{Value, json};

use super::endpoint::Endpoint;
use crate::token::jwt::VerificationKey;

impl Endpoint {
    /// An endpoint with the public keys of an issuer as a JSON Web Key Set (RFC 7517 §5), for
    /// `jwks_uri`. Secrets are left out.
    ///
    /// To change the signing key without refusing a token: first publish the next key; sign with it
    /// when all verifiers have fetched it; publish the old one until its last token has expired.
    #[doc(alias = "RFC 7517")]
    pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a VerificationKey>) -> Self {
        let keys = keys.into_iter().filter_map(VerificationKey::to_jwk);
        let keys: Vec<Value> = keys.filter_map(|jwk| serde_json::from_str(&jwk).ok()).collect();
        Self::document(&json!({ "keys": keys }))
    }

    /// An endpoint with a JSON document that is the same for everybody, such as the metadata of an
    /// authorization server (RFC 8414) or of a protected resource (RFC 9728).
    pub fn document(json: &Value) -> Self {
        Self::of_document(json.to_string().into())
    }
}
