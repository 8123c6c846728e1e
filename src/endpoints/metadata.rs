//! Documents that others read: keys and metadata.

use serde_json::{Value, json};

use super::endpoint::Endpoint;
use crate::token::jwt::VerificationKey;

impl Endpoint {
    /// The public keys of an issuer as a JSON Web Key Set (RFC 7517 §5), for `jwks_uri`. Secrets
    /// are left out.
    ///
    /// To change the key that signs without refusing a token: publish the next key first, sign with
    /// it once those who verify have fetched it, and leave the old one in until its last token is
    /// over.
    #[doc(alias = "RFC 7517")]
    pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a VerificationKey>) -> Self {
        let keys = keys.into_iter().filter_map(VerificationKey::to_jwk);
        let keys: Vec<Value> = keys.filter_map(|jwk| serde_json::from_str(&jwk).ok()).collect();
        Self::document(&json!({ "keys": keys }))
    }

    /// A JSON document, such as the metadata of an authorization server (RFC 8414) or of a
    /// protected resource (RFC 9728): the same for everybody.
    pub fn document(json: &Value) -> Self {
        Self::of_document(json.to_string().into())
    }
}
