//! Access tokens, as an issuer makes them of what it was granted.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tower_jwt_revocation::clock::Timestamp;

use crate::process::{Granted, Kind};

pub const SECRET: &[u8] = b"a secret of the tests, 32 bytes or more";
/// How long the tokens live, in seconds: longer than any run.
const LIFETIME: u64 = 1800;

/// The token that goes with a grant.
pub fn of(granted: &Granted) -> String {
    let seconds = granted.issued_at_ms / 1000;
    // What was issued earlier in that second may be revoked.
    let issued_at = if granted.issued_at_ms.is_multiple_of(1000) {
        json!(seconds)
    } else {
        json!(Duration::from_millis(granted.issued_at_ms).as_secs_f64())
    };
    let claims = json!({
        "sub": granted.user, "jti": granted.id, "sid": granted.session, "fid": granted.family,
        "iat": issued_at, "exp": seconds + LIFETIME,
    });
    sign(&claims)
}

/// A token that belongs to no session we know of and was issued some seconds ago. What `kind` names
/// is its `id`.
pub fn older(kind: Kind, id: &str, age: u64) -> String {
    let issued_at = this_second() - age;
    let mut claims = json!({
        "sub": "someone", "jti": format!("t-{id}"), "sid": "some", "iat": issued_at,
        "exp": issued_at + LIFETIME,
    });
    let name = match kind {
        Kind::Token => "jti",
        Kind::Session => "sid",
        Kind::User => "sub",
    };
    claims[name] = json!(id);
    sign(&claims)
}

fn sign(claims: &serde_json::Value) -> String {
    let key = EncodingKey::from_secret(SECRET);
    jsonwebtoken::encode(&Header::default(), claims, &key.unwrap()).unwrap()
}

/// The time in whole seconds, as issuers stamp it.
pub fn this_second() -> u64 {
    Timestamp::now().as_secs()
}
