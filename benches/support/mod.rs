//! What the benchmarks share: keys, tokens of common size, and what others do.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start has nothing to say")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, encode};
use serde::{Deserialize, Serialize};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};

pub const ISSUER: &str = "https://id.example.com/realms/shop";
pub const AUDIENCE: &str = "https://api.example.com";
pub const KEY_ID: &str = "2026-01";
const SECRET: &[u8; 32] = b"a secret of 32 bytes for benches";

/// The claims of a common access token (RFC 9068).
#[derive(Clone, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    pub exp: u64,
    pub iat: u64,
    pub jti: String,
    pub sid: String,
    pub client_id: String,
    pub scope: String,
    pub roles: Vec<String>,
}

pub struct Keys {
    pub algorithm: jsonwebtoken::Algorithm,
    encoding: EncodingKey,
    pub decoding: DecodingKey,
    pub verification: VerificationKey,
}

pub fn hs256() -> Keys {
    Keys {
        algorithm: jsonwebtoken::Algorithm::HS256,
        encoding: EncodingKey::from_secret(SECRET).unwrap(),
        decoding: DecodingKey::from_secret(SECRET).unwrap(),
        verification: VerificationKey::from_secret(Algorithm::HS256, SECRET)
            .unwrap()
            .with_kid(KEY_ID)
            .unwrap(),
    }
}

pub fn rs256() -> Keys {
    let public = include_bytes!("../../tests/keys/rsa2048.pub.pem");
    Keys {
        algorithm: jsonwebtoken::Algorithm::RS256,
        encoding: EncodingKey::from_rsa_der(&der(include_str!(
            "../../tests/keys/rsa2048.pkcs1.pem"
        ))),
        decoding: DecodingKey::from_rsa_der(&der(include_str!(
            "../../tests/keys/rsa2048.pkcs1.pub.pem"
        ))),
        verification: VerificationKey::from_pem(Algorithm::RS256, public)
            .unwrap()
            .with_kid(KEY_ID)
            .unwrap(),
    }
}

/// Modulus and exponent of the public key of [`rs256`].
pub fn rs256_components() -> (Vec<u8>, Vec<u8>) {
    let der = der(include_str!("../../tests/keys/rsa2048.pkcs1.pub.pem"));
    // A sequence of two integers, the first with a zero before its 256 bytes, the second of three
    // bytes (RFC 8017 §A.1.1).
    (der.get(9..265).unwrap().to_vec(), der.get(der.len() - 3..).unwrap().to_vec())
}

/// jsonwebtoken reads PEM only with a feature that this crate does without.
fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(base64).unwrap()
}

impl Keys {
    /// The `n`th of many different tokens.
    pub fn token(&self, n: usize) -> String {
        let now = Timestamp::now().as_secs();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: format!("f3b1c9d2-7a60-4c55-9e0d-{n:012}"),
            aud: AUDIENCE.into(),
            exp: now + 3600,
            iat: now,
            jti: format!("0f8fad5b-d9cb-469f-a165-{n:012}"),
            sid: format!("7c9e6679-7425-40de-944b-{n:012}"),
            client_id: "web-shop".into(),
            scope: "openid profile orders:read".into(),
            roles: vec!["customer".into(), "beta".into()],
        };
        let mut header = Header::new(self.algorithm);
        header.kid = Some(KEY_ID.into());
        encode(&header, &claims, &self.encoding).unwrap()
    }

    /// As the documentation of jsonwebtoken has it, with what the profile below asks for.
    pub fn decode(&self, token: &str, validation: &Validation) -> Claims {
        jsonwebtoken::decode::<Claims>(token, &self.decoding, validation).unwrap().claims
    }

    pub fn validation(&self) -> Validation {
        let mut validation = Validation::new(self.algorithm);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation
    }

    pub fn check_signature(&self, token: &str) -> bool {
        let (message, signature) = token.rsplit_once('.').unwrap();
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.decoding, self.algorithm)
            .unwrap()
    }
}

pub fn profile() -> TokenProfile {
    TokenProfile::new().with_issuer(ISSUER).with_audience(AUDIENCE)
}

/// The claims of a token, decoded.
pub fn payload(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()
}

/// The verifier for these keys.
pub fn verifier(keys: &Keys) -> JwtVerifier {
    JwtVerifier::new([keys.verification.clone()], profile()).unwrap()
}
