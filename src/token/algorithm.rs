//! The signature algorithms of tokens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// A signature algorithm of JSON Web Tokens (RFC 7518 §3.1, RFC 8037 §3.1).
///
/// Each key has exactly one. A token is checked by the algorithm of its key, never by the one that
/// the token names (RFC 8725 §3.1). Text and serde use the names of the IANA registry, which are
/// case-sensitive.
///
/// ```
/// use tower_jwt_revocation::Algorithm;
///
/// assert_eq!("ES256".parse::<Algorithm>()?, Algorithm::ES256);
/// assert_eq!(Algorithm::EdDSA.as_str(), "EdDSA");
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256: a shared secret of 32 bytes or more.
    HS256,
    /// HMAC with SHA-384: a shared secret of 48 bytes or more.
    HS384,
    /// HMAC with SHA-512: a shared secret of 64 bytes or more.
    HS512,
    /// RSA (PKCS#1 v1.5) with SHA-256.
    RS256,
    /// RSA (PKCS#1 v1.5) with SHA-384.
    RS384,
    /// RSA (PKCS#1 v1.5) with SHA-512.
    RS512,
    /// RSA (PSS) with SHA-256.
    PS256,
    /// RSA (PSS) with SHA-384.
    PS384,
    /// RSA (PSS) with SHA-512.
    PS512,
    /// ECDSA with SHA-256, on the curve P-256.
    ES256,
    /// ECDSA with SHA-384, on the curve P-384.
    ES384,
    /// EdDSA, on the curve Ed25519 alone (RFC 8032).
    EdDSA,
}

/// The kinds of keys that algorithms need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFamily {
    /// A secret (`oct`).
    Hmac,
    Rsa,
    /// A point on P-256 or P-384.
    Ec,
    /// A point on Ed25519 (`OKP`).
    Ed,
}

impl Algorithm {
    const ALL: [Self; 12] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Its name: the `alg` of tokens and keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(crate) const fn family(self) -> KeyFamily {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => KeyFamily::Hmac,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                KeyFamily::Rsa
            }
            Self::ES256 | Self::ES384 => KeyFamily::Ec,
            Self::EdDSA => KeyFamily::Ed,
        }
    }
}

/// From the name, to the letter.
///
/// # Errors
/// [`ConfigError`] if no supported algorithm has this name; `none` has no algorithm.
impl FromStr for Algorithm {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name).ok_or_else(|| {
            ConfigError::new(
                "algorithm",
                "is not a supported signature algorithm, such as HS256, RS256, ES256 or EdDSA",
            )
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_text_and_in_json() {
        for algorithm in Algorithm::ALL {
            let name = algorithm.as_str();
            assert_eq!(name.parse::<Algorithm>().unwrap(), algorithm);
            assert_eq!(algorithm.to_string(), name);
            let json = serde_json::to_value(algorithm).unwrap();
            assert_eq!(json, name);
            assert_eq!(serde_json::from_value::<Algorithm>(json).unwrap(), algorithm);
        }
        for name in ["", "none", "hs256", "ES512", "ES256K", "Ed25519", "RSA-OAEP"] {
            name.parse::<Algorithm>().unwrap_err();
            serde_json::from_value::<Algorithm>(name.into()).unwrap_err();
        }
    }
}
