//! A secret that callers send as a bearer token (RFC 6750 §2.1).

use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::answer::Answer;

/// The digest of a secret: they are compared, so that the time it takes says nothing of the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SecretDigest([u8; 32]);

impl SecretDigest {
    pub(super) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Refuses a request that does not bring the secret.
    pub(super) fn expect_bearer(self, head: &Parts) -> Result<(), Answer> {
        let mut given = head.headers.get_all(header::AUTHORIZATION).iter();
        let is_given = match (given.next(), given.next()) {
            (Some(given), None) => given
                .to_str()
                .ok()
                .and_then(|given| given.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .is_some_and(|(_, secret)| Self::of(secret.trim()) == self),
            _ => false,
        };
        if is_given {
            return Ok(());
        }
        Err(unauthorized())
    }
}

/// The answer to a caller who is not known, in the words of both formats of errors.
pub(super) fn unauthorized() -> Answer {
    let body = json!({
        "err": "authentication_failed", "error": "invalid_token",
        "description": "the caller is not known",
    });
    Answer::json(StatusCode::UNAUTHORIZED, &body)
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
