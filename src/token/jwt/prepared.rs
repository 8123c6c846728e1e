//! Keys that are made ready for their signatures once.
//!
//! jsonwebtoken reads a key anew for each token. Where it works with aws-lc-rs itself, the key can
//! be kept as that has read it: that is 15 % of an RS256 token, and a third of an HS256 one.

use std::ptr;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use aws_lc_rs::{hmac, signature::VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, aws_lc};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use crate::token::Algorithm;

/// The bytes of the longest signature, which is that of the longest RSA modulus, and what a decoder
/// may ask for besides.
const MAX_SIGNATURE_BYTES: usize = super::key::MAX_RSA_BITS / 8 + 8;

/// A key as aws-lc-rs has read it.
#[derive(Clone)]
pub(super) enum PreparedKey {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl PreparedKey {
    /// `None` if the application has installed a provider of its own: then that one decides.
    pub(super) fn new(algorithm: Algorithm, key: &DecodingKey) -> Option<Self> {
        let installed = CryptoProvider::try_get_default()?;
        if !ptr::eq(installed, &raw const aws_lc::DEFAULT_PROVIDER) {
            return None;
        }
        match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let components = RsaPublicKeyComponents { n, e };
                components.to_parsed_public_key(rsa(algorithm)?).ok().map(Self::Public)
            }
            DecodingKeyKind::SecretOrDer(bytes) => match hash(algorithm) {
                Some(hash) => Some(Self::Secret(Box::new(hmac::Key::new(hash, bytes)))),
                None => ParsedPublicKey::new(curve(algorithm)?, bytes).ok().map(Self::Public),
            },
        }
    }

    /// Whether `signature`, base64url, fits `message`.
    pub(super) fn fits(&self, message: &[u8], signature: &str) -> bool {
        let mut bytes = [0; MAX_SIGNATURE_BYTES];
        let Ok(len) = URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes) else { return false };
        let signature = bytes.get(..len).unwrap_or_default();
        match self {
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&signature::ED25519),
        _ => None,
    }
}
