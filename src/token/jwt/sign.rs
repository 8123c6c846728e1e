//! Keys that sign.
//!
//! Whatever form a key comes in, it is brought into the one that every provider reads: PKCS#1 for
//! RSA, PKCS#8 for the others.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jsonwebtoken::EncodingKey;
use jsonwebtoken::jwk::AlgorithmParameters;

use super::jwk::{Jwk, member};
use super::{VerificationKey, base64, der, key, provider};
use crate::config::ConfigError;
use crate::token::{Algorithm, KeyFamily};

/// A key that signs with exactly one algorithm.
///
/// When it is made, it signs a text and its public part checks the signature. So a key whose parts
/// do not belong together is an error at the start, not on a request. `Debug` shows no part of it.
///
/// ```
/// use tower_jwt_revocation::token::jwt::SigningKey;
/// use tower_jwt_revocation::Algorithm;
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let secret = [42; 32]; // from where you keep secrets
/// let key = SigningKey::from_secret(Algorithm::HS256, &secret)?.with_kid("2026-01")?;
/// let for_verifiers = key.verification_key();
/// # let _ = for_verifiers; }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct SigningKey {
    key: EncodingKey,
    public: VerificationKey,
}

impl SigningKey {
    /// A secret that is shared with every verifier: HS256, HS384 or HS512.
    ///
    /// # Errors
    /// As [`VerificationKey::from_secret`].
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, ConfigError> {
        let public = VerificationKey::from_secret(algorithm, secret)?;
        // Not empty, as the public side has made sure.
        let key = EncodingKey::from_secret(secret)
            .map_err(|_| ConfigError::new("key", "cannot be used as a secret"))?;
        Self::checked(key, public)
    }

    /// A private key in PEM, of the kind that the algorithm needs: `PRIVATE KEY`, `RSA PRIVATE KEY`
    /// or `EC PRIVATE KEY`. Line breaks do not matter.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not exactly one such block, or as [`from_der`](Self::from_der).
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, ConfigError> {
        let labels: &[&str] = match algorithm.family() {
            KeyFamily::Hmac => return Err(key::wrong_family(algorithm)),
            KeyFamily::Rsa => &["PRIVATE KEY", "RSA PRIVATE KEY"],
            KeyFamily::Ec => &["PRIVATE KEY", "EC PRIVATE KEY"],
            KeyFamily::Ed => &["PRIVATE KEY"],
        };
        Self::from_der(algorithm, &private_pem(pem, labels)?)
    }

    /// A private key in DER, of the kind that the algorithm needs: PKCS#8 (RFC 5958, RFC 8410), for
    /// RSA also PKCS#1 (RFC 8017 §A.1.2), for EC also SEC 1 (RFC 5915).
    ///
    /// # Errors
    /// [`ConfigError`] if the algorithm takes a secret, or if there is no crypto provider. Also if
    /// this is not a key of the right kind and curve (Ed448 is not supported), or if it is weak.
    pub fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        match algorithm.family() {
            KeyFamily::Hmac => Err(key::wrong_family(algorithm)),
            KeyFamily::Rsa => Self::from_rsa_der(algorithm, der),
            KeyFamily::Ec => Self::from_ec_der(algorithm, der),
            KeyFamily::Ed => Self::from_ed_der(der),
        }
    }

    fn from_rsa_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        let pkcs1 = match der::private_key_info(der) {
            Some(info) if info.algorithm == der::RSA_ENCRYPTION => info.key,
            Some(_) => return Err(ConfigError::new("key", "is not an RSA key")),
            None => der,
        };
        let (modulus, exponent) = der::rsa_private_key(pkcs1).ok_or_else(|| {
            ConfigError::new("key", "is not an RSA private key in DER (PKCS#8 or PKCS#1)")
        })?;
        let public = VerificationKey::from_rsa_components(algorithm, modulus, exponent)?;
        Self::checked(EncodingKey::from_rsa_der(pkcs1), public)
    }

    fn from_ec_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        let not_ec =
            || ConfigError::new("key", "is not an EC private key in DER (PKCS#8 or SEC 1)");
        let curve = key::ec(algorithm)?;
        match der::private_key_info(der) {
            Some(info) if info.algorithm != der::EC_PUBLIC_KEY => Err(not_ec()),
            Some(info) if info.curve != Some(curve.oid) => {
                Err(ConfigError::new("key", format!("is not on the curve of {algorithm}")))
            }
            Some(_) => Self::from_ec_pkcs8(algorithm, der),
            None => {
                let pkcs8 = der::ec_pkcs8(curve.oid, Ok(der)).ok_or_else(not_ec)?;
                Self::from_ec_pkcs8(algorithm, &pkcs8)
            }
        }
    }

    fn from_ec_pkcs8(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        let key = EncodingKey::from_ec_der(der);
        let public = public_part(&key, algorithm)?;
        Self::checked(key, public)
    }

    fn from_ed_der(der: &[u8]) -> Result<Self, ConfigError> {
        let seed = der::private_key_info(der)
            .filter(|info| info.algorithm == der::ED25519)
            .and_then(|info| der::ed_seed(info.key))
            .ok_or_else(|| {
                ConfigError::new("key", "is not an Ed25519 private key in DER (PKCS#8)")
            })?;
        Self::from_ed_seed(seed)
    }

    fn from_ed_seed(seed: &[u8]) -> Result<Self, ConfigError> {
        let not_ed =
            || ConfigError::new("key", "is not an Ed25519 private key, which has 32 bytes");
        if seed.len() != 32 {
            return Err(not_ed());
        }
        let key = EncodingKey::from_ed_der(&der::ed_pkcs8(seed).ok_or_else(not_ed)?);
        let public = public_part(&key, Algorithm::EdDSA)?;
        Self::checked(key, public)
    }

    /// A private key or a secret as a JSON Web Key (RFC 7517). Its `kid` becomes the name of the
    /// key.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not such a JWK, if it is weak, or if it is not for signing
    /// (`use`, `key_ops`). Also if an RSA key or a secret does not say its algorithm, or if an RSA
    /// key lacks its primes.
    pub fn from_jwk(json: &str) -> Result<Self, ConfigError> {
        let jwk = Jwk::parse(json)?;
        jwk.expect_operation("sign")?;
        let algorithm = jwk.algorithm()?;
        let mut key = match &*jwk.kty {
            "oct" => Self::from_secret(algorithm, &member("k", jwk.k.as_ref())?),
            "RSA" => Self::from_rsa_der(algorithm, &pkcs1_of_jwk(&jwk)?),
            "EC" => {
                let (secret, point) = (member("d", jwk.d.as_ref())?, jwk.point(algorithm)?);
                let pkcs8 = der::ec_pkcs8(key::ec(algorithm)?.oid, Err((&secret, &point)))
                    .ok_or_else(|| ConfigError::new("d", "is too long"))?;
                Self::from_ec_pkcs8(algorithm, &pkcs8)
            }
            _ => Self::from_ed_seed(&member("d", jwk.d.as_ref())?),
        }?;
        if algorithm == Algorithm::EdDSA && !key.public.has_ed_bytes(&member("x", jwk.x.as_ref())?)
        {
            return Err(ConfigError::new("x", "does not belong to `d`"));
        }
        key.public = key.public.named_by_jwk(jwk.alg.as_deref());
        match jwk.kid {
            Some(kid) => key.with_kid(kid),
            None => Ok(key),
        }
    }

    /// The name under which verifiers know this key: the `kid` of its tokens.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is empty or longer than 1024 bytes.
    pub fn with_kid(mut self, kid: impl Into<Box<str>>) -> Result<Self, ConfigError> {
        self.public = self.public.with_kid(kid)?;
        Ok(self)
    }

    /// The name of the key.
    pub fn kid(&self) -> Option<&str> {
        self.public.kid()
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }

    /// The key that checks what this one signs: its public part, or the same secret. It has the
    /// same name.
    pub fn verification_key(&self) -> VerificationKey {
        self.public.clone()
    }

    /// The `alg` of its tokens.
    pub(crate) fn alg(&self) -> &'static str {
        self.algorithm().as_str()
    }

    /// The signature of `message`, base64url. The cause of an error is dropped: what it quotes is
    /// not for us to know.
    pub(crate) fn sign(&self, message: &str) -> Option<String> {
        let algorithm = provider::algorithm(self.algorithm());
        jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, algorithm).ok()
    }

    fn checked(key: EncodingKey, public: VerificationKey) -> Result<Self, ConfigError> {
        let key = Self { key, public };
        let signature = key.sign("self-check");
        if signature.is_some_and(|signature| key.public.fits("self-check", &signature)) {
            return Ok(key);
        }
        Err(ConfigError::new("key", "does not sign, or its public part does not belong to it"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// An `RSAPrivateKey` (RFC 8017 §A.1.2).
fn pkcs1_of_jwk(jwk: &Jwk) -> Result<Vec<u8>, ConfigError> {
    let numbers = [
        member("n", jwk.n.as_ref())?,
        member("e", jwk.e.as_ref())?,
        member("d", jwk.d.as_ref())?,
        member("p", jwk.p.as_ref())?,
        member("q", jwk.q.as_ref())?,
        member("dp", jwk.dp.as_ref())?,
        member("dq", jwk.dq.as_ref())?,
        member("qi", jwk.qi.as_ref())?,
    ];
    der::rsa_pkcs1(&numbers).ok_or_else(|| ConfigError::new("n", "is too long for an RSA key"))
}

/// The public part of an EC or Ed25519 key, which only the provider can compute.
fn public_part(key: &EncodingKey, algorithm: Algorithm) -> Result<VerificationKey, ConfigError> {
    provider::ready()?;
    // A provider of the application may have left this part out, which is a panic in jsonwebtoken.
    let jwk = catch_unwind(AssertUnwindSafe(|| {
        jsonwebtoken::jwk::Jwk::from_encoding_key(key, provider::algorithm(algorithm))
    }));
    let bytes = |text: &str| base64(text).unwrap_or_default();
    match jwk.ok().and_then(Result::ok).map(|jwk| jwk.algorithm) {
        Some(AlgorithmParameters::EllipticCurve(ec)) => VerificationKey::from_ec_point(
            algorithm,
            &[&[4], &*bytes(&ec.x), &*bytes(&ec.y)].concat(),
        ),
        Some(AlgorithmParameters::OctetKeyPair(pair)) => {
            VerificationKey::from_ed_der(&bytes(&pair.x))
        }
        _ => Err(ConfigError::new("key", format!("is not a private key for {algorithm}"))),
    }
}

fn private_pem(pem: &[u8], labels: &[&str]) -> Result<Vec<u8>, ConfigError> {
    let (label, der) = der::pem(pem)
        .ok_or_else(|| ConfigError::new("key", "is not PEM with exactly one block"))?;
    if labels.contains(&label) {
        return Ok(der);
    }
    let problem = if label.contains("PUBLIC") {
        "is a public key, which cannot sign"
    } else if label.starts_with("ENCRYPTED") {
        "is encrypted; decrypt it first: openssl pkey"
    } else {
        "is PEM, but not a private key of this kind"
    };
    Err(ConfigError::new("key", problem))
}
