//! Keys, each with its one algorithm, none of them weak.

use std::fmt;

use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use spki::ObjectIdentifier;

#[cfg(feature = "aws_lc_rs")]
use super::prepared::PreparedKey;
use super::{curve, der, disguised, provider, roca};
use crate::config::ConfigError;
use crate::revocation::MAX_ID_BYTES;
use crate::target::KeyFingerprint;
use crate::token::{Algorithm, KeyFamily};

/// Smallest RSA modulus (RFC 7518 §3.3).
pub(crate) const MIN_RSA_BITS: usize = 2048;
/// Largest RSA modulus that the provider checks; larger ones would refuse every token.
pub(crate) const MAX_RSA_BITS: usize = if cfg!(feature = "aws_lc_rs") { 8192 } else { 4096 };

/// A key that checks signatures of exactly one algorithm.
///
/// A token never chooses how it is checked: its `alg` must be the one of the key (RFC 8725 §3.1).
/// Weak keys are refused: secrets that are shorter than the hash (RFC 7518 §3.2) or are really
/// public keys, RSA keys below 2048 bits or with the ROCA fingerprint (CVE-2017-15361), points that
/// are not on their curve (RFC 8725 §3.4), and Ed25519 points of small order.
///
/// ```
/// use tower_jwt_revocation::{Algorithm, VerificationKey};
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let secret = [42; 32]; // from where you keep secrets
/// let key = VerificationKey::from_secret(Algorithm::HS256, &secret)?.with_kid("2026-01")?;
/// # let _ = key; }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct VerificationKey {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    /// Whether the key says `EdDSA` itself, and so does not go by the second name of that.
    is_eddsa_only: bool,
    /// Whether the algorithm is a setting, because the JWK names none and its type leaves a choice.
    is_algorithm_assumed: bool,
    key: DecodingKey,
    /// The same, if it can be used as it is.
    #[cfg(feature = "aws_lc_rs")]
    prepared: Option<PreparedKey>,
    /// By what its tokens can be revoked.
    fingerprint: KeyFingerprint,
}

impl VerificationKey {
    /// A secret that is shared with the issuer: HS256, HS384 or HS512.
    ///
    /// # Security
    /// Every verifier that has the secret can also issue tokens. A password is no key: use random
    /// bytes.
    ///
    /// # Errors
    /// [`ConfigError`] if the algorithm is not one of these, or if there is no crypto provider.
    /// Also if the secret is shorter than the hash (32, 48 or 64 bytes), or is a key of another
    /// kind (PEM, DER, SSH, JWK, also in base64).
    pub fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, ConfigError> {
        expect_family(algorithm, KeyFamily::Hmac)?;
        check_secret(algorithm, secret)?;
        let key = DecodingKey::from_secret(secret).map_err(|_| unusable(algorithm))?;
        Self::checked(algorithm, key)
    }

    /// A public key in PEM, of the kind that the algorithm needs: `PUBLIC KEY`, or `RSA PUBLIC KEY`
    /// as well for RSA. Line breaks do not matter.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not exactly one such block, or as [`from_der`](Self::from_der).
    pub fn from_pem(algorithm: Algorithm, pem: &[u8]) -> Result<Self, ConfigError> {
        let labels: &[&str] = match algorithm.family() {
            KeyFamily::Hmac => return Err(wrong_family(algorithm)),
            KeyFamily::Rsa => &["PUBLIC KEY", "RSA PUBLIC KEY"],
            KeyFamily::Ec | KeyFamily::Ed => &["PUBLIC KEY"],
        };
        Self::from_der(algorithm, &public_pem(pem, labels)?)
    }

    /// A public key in DER, of the kind that the algorithm needs: a `SubjectPublicKeyInfo` (RFC
    /// 5280 §4.1.2.7, RFC 8410), for RSA also an `RSAPublicKey` (RFC 8017 §A.1.1), for Ed25519
    /// also the 32 bytes alone.
    ///
    /// # Errors
    /// [`ConfigError`] if the algorithm takes a secret, or if there is no crypto provider. Also if
    /// this is not a key of the right kind and curve (Ed448 is not supported), or if its point is
    /// not on the curve or of small order. Also if an RSA modulus has less than 2048 or more than
    /// 8192 bits (4096 with the feature `rust_crypto` alone) or the ROCA fingerprint; one good key
    /// in about 100 million has that by chance.
    pub fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        match algorithm.family() {
            KeyFamily::Hmac => Err(wrong_family(algorithm)),
            KeyFamily::Rsa => Self::from_rsa_der(algorithm, der),
            KeyFamily::Ec => Self::from_ec_der(algorithm, der),
            KeyFamily::Ed => Self::from_ed_der(der),
        }
    }

    fn from_rsa_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        let inner = match der::public_key_info(der) {
            Some(info) if info.algorithm == der::RSA_ENCRYPTION => info.key,
            Some(_) => return Err(ConfigError::new("key", "is not an RSA key")),
            None => der,
        };
        let (modulus, exponent) = der::rsa_public_key(inner).ok_or_else(|| {
            ConfigError::new("key", "is not an RSA public key in DER (SPKI or PKCS#1)")
        })?;
        Self::from_rsa_components(algorithm, modulus, exponent)
    }

    pub(crate) fn from_rsa_components(
        algorithm: Algorithm,
        modulus: &[u8],
        exponent: &[u8],
    ) -> Result<Self, ConfigError> {
        expect_family(algorithm, KeyFamily::Rsa)?;
        let (modulus, exponent) =
            (der::without_leading_zeros(modulus), der::without_leading_zeros(exponent));
        check_rsa(modulus, exponent)?;
        Self::checked(algorithm, DecodingKey::from_rsa_raw_components(modulus, exponent))
    }

    fn from_ec_der(algorithm: Algorithm, der: &[u8]) -> Result<Self, ConfigError> {
        let info = der::public_key_info(der)
            .filter(|info| info.algorithm == der::EC_PUBLIC_KEY)
            .ok_or_else(|| {
                ConfigError::new("key", "is not an EC public key in DER (SubjectPublicKeyInfo)")
            })?;
        if info.curve != Some(ec(algorithm)?.oid) {
            return Err(ConfigError::new("key", format!("is not on the curve of {algorithm}")));
        }
        Self::from_ec_point(algorithm, info.key)
    }

    /// `point` is uncompressed: 4, x, y.
    pub(crate) fn from_ec_point(algorithm: Algorithm, point: &[u8]) -> Result<Self, ConfigError> {
        let curve = ec(algorithm)?;
        if point.len() != 1 + 2 * curve.coordinate_bytes || point.first() != Some(&4) {
            return Err(ConfigError::new("key", "is not an uncompressed point on its curve"));
        }
        if !curve::is_ec_key(algorithm, point) {
            return Err(ConfigError::new(
                "key",
                "is not a point on its curve; was it copied in full?",
            ));
        }
        Self::checked(algorithm, DecodingKey::from_ec_der(point))
    }

    /// A `SubjectPublicKeyInfo`, or the 32 bytes alone.
    pub(crate) fn from_ed_der(der: &[u8]) -> Result<Self, ConfigError> {
        let key = match der::public_key_info(der) {
            Some(info) if info.algorithm == der::ED25519 => info.key,
            Some(_) => return Err(ConfigError::new("key", "is not an Ed25519 key")),
            None => der,
        };
        if key.len() != 32 {
            return Err(ConfigError::new(
                "key",
                "is not an Ed25519 public key, which has 32 bytes",
            ));
        }
        if !curve::is_ed25519_key(key) {
            return Err(ConfigError::new(
                "key",
                "is not an Ed25519 public key: not a point on the curve, or one of small order, \
                 for which anybody can sign",
            ));
        }
        Self::checked(Algorithm::EdDSA, DecodingKey::from_ed_der(key))
    }

    /// The name under which the issuer uses this key: exactly the `kid` of its tokens. Only a
    /// verifier with a single key accepts a token that names no key.
    ///
    /// # Errors
    /// [`ConfigError`] if the name is empty or longer than 1024 bytes.
    pub fn with_kid(mut self, kid: impl Into<Box<str>>) -> Result<Self, ConfigError> {
        let kid = kid.into();
        if kid.is_empty() || kid.len() > MAX_ID_BYTES {
            return Err(ConfigError::new("kid", "is empty or longer than 1024 bytes"));
        }
        self.kid = Some(kid);
        self.fingerprint = KeyFingerprint::default();
        Ok(self)
    }

    /// The name of the key.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Of the target that its [name](Self::kid) makes of it.
    pub(super) fn fingerprint(&self) -> &KeyFingerprint {
        &self.fingerprint
    }

    /// The algorithm of the key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `alg` is the name of the algorithm of this key, to the letter.
    pub(crate) fn is_for(&self, alg: &str) -> bool {
        // RFC 9864 §2.2 gives EdDSA with Ed25519 a second name, and it is all that such a key can
        // do.
        let has_second_name = self.algorithm == Algorithm::EdDSA && !self.is_eddsa_only;
        alg == self.algorithm.as_str() || (has_second_name && alg == "Ed25519")
    }

    /// The same key, for the algorithm of just the name that its JWK gives (RFC 7517 §4.4).
    pub(crate) fn named_by_jwk(mut self, alg: Option<&str>) -> Self {
        self.is_eddsa_only = alg == Some("EdDSA");
        self.is_algorithm_assumed = alg.is_none() && self.algorithm.family() == KeyFamily::Rsa;
        self
    }

    /// Whether the algorithm is a setting, because the JWK names none and its type leaves a choice.
    pub(crate) fn is_algorithm_assumed(&self) -> bool {
        self.is_algorithm_assumed
    }

    /// Whether both are the same public key for the same tokens, under the same name.
    #[cfg(feature = "jwks")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is_same_public_key(other)
            && self.kid == other.kid
            && self.algorithm == other.algorithm
            && self.is_eddsa_only == other.is_eddsa_only
    }

    /// Whether both are the same public key, whatever their names and algorithms. Secrets never
    /// are.
    pub(crate) fn is_same_public_key(&self, other: &Self) -> bool {
        use DecodingKeyKind::{RsaModulusExponent, SecretOrDer};

        match (self.key.kind(), other.key.kind()) {
            (SecretOrDer(own), SecretOrDer(others)) => {
                self.algorithm.family() != KeyFamily::Hmac
                    && self.algorithm.family() == other.algorithm.family()
                    && own == others
            }
            (RsaModulusExponent { n, e }, RsaModulusExponent { n: other_n, e: other_e }) => {
                (n, e) == (other_n, other_e)
            }
            _ => false,
        }
    }

    /// The forms in which this secret is the same as another one, none if it is a public key: as it
    /// was given, and as HMAC uses it (RFC 2104 §2), both without the zeros that HMAC adds.
    pub(crate) fn secret_forms(&self) -> Vec<Vec<u8>> {
        let (KeyFamily::Hmac, DecodingKeyKind::SecretOrDer(secret)) =
            (self.algorithm.family(), self.key.kind())
        else {
            return Vec::new();
        };
        let used = match self.algorithm {
            Algorithm::HS256 if secret.len() > 64 => Sha256::digest(secret).to_vec(),
            Algorithm::HS384 if secret.len() > 128 => Sha384::digest(secret).to_vec(),
            Algorithm::HS512 if secret.len() > 128 => Sha512::digest(secret).to_vec(),
            _ => secret.clone(),
        };
        let mut forms = vec![secret.clone(), used];
        for form in &mut forms {
            form.truncate(form.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        }
        forms.dedup();
        forms
    }

    /// The public numbers of the key; `None` if it is a secret.
    #[cfg(feature = "endpoints")]
    pub(super) fn public_parts(&self) -> Option<PublicParts<'_>> {
        match (self.algorithm.family(), self.key.kind()) {
            (KeyFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                Some(PublicParts::Rsa { modulus: n, exponent: e })
            }
            (KeyFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
                let curve = if self.algorithm == Algorithm::ES384 { "P-384" } else { "P-256" };
                let (_, numbers) = point.split_first()?;
                let (x, y) = numbers.split_at_checked(numbers.len() / 2)?;
                Some(PublicParts::Ec { curve, x, y })
            }
            (KeyFamily::Ed, DecodingKeyKind::SecretOrDer(x)) => Some(PublicParts::Ed(x)),
            _ => None,
        }
    }

    /// Whether `signature`, base64url, fits `message`.
    pub(crate) fn fits(&self, message: &str, signature: &str) -> bool {
        #[cfg(feature = "aws_lc_rs")]
        if let Some(prepared) = &self.prepared {
            return prepared.fits(message.as_bytes(), signature);
        }
        self.fits_by_provider(message, signature)
    }

    /// Whether the key need not be read anew for each token.
    #[cfg(all(test, feature = "aws_lc_rs", feature = "issuer"))]
    pub(super) fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// The same, with the key read anew.
    pub(super) fn fits_by_provider(&self, message: &str, signature: &str) -> bool {
        // An error is a signature that is not base64url or has the wrong size: the key was tried
        // when it was made.
        matches!(
            provider::verify(signature, message.as_bytes(), &self.key, self.algorithm),
            Ok(true)
        )
    }

    /// Whether this is the Ed25519 key with these bytes.
    #[cfg(feature = "issuer")]
    pub(crate) fn has_ed_bytes(&self, bytes: &[u8]) -> bool {
        self.algorithm == Algorithm::EdDSA
            && self.key.try_get_as_bytes().is_ok_and(|own| own == bytes)
    }

    /// Has the provider look at the key, as far as it does that before there is a signature.
    fn checked(algorithm: Algorithm, key: DecodingKey) -> Result<Self, ConfigError> {
        provider::ready()?;
        match provider::verify("AAAA", b"", &key, algorithm) {
            Ok(false) => Ok(Self {
                kid: None,
                algorithm,
                is_eddsa_only: false,
                is_algorithm_assumed: false,
                #[cfg(feature = "aws_lc_rs")]
                prepared: PreparedKey::new(algorithm, &key),
                key,
                fingerprint: KeyFingerprint::default(),
            }),
            // The cause is dropped: what it quotes is not for us to know.
            _ => Err(unusable(algorithm)),
        }
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerificationKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The public numbers of a key, each without a sign.
#[cfg(feature = "endpoints")]
pub(super) enum PublicParts<'a> {
    Rsa { modulus: &'a [u8], exponent: &'a [u8] },
    Ec { curve: &'static str, x: &'a [u8], y: &'a [u8] },
    Ed(&'a [u8]),
}

/// What a curve means for the keys on it.
pub(crate) struct CurveParams {
    pub(crate) oid: ObjectIdentifier,
    pub(crate) coordinate_bytes: usize,
}

pub(crate) fn ec(algorithm: Algorithm) -> Result<CurveParams, ConfigError> {
    match algorithm {
        Algorithm::ES256 => Ok(CurveParams { oid: der::P256, coordinate_bytes: 32 }),
        Algorithm::ES384 => Ok(CurveParams { oid: der::P384, coordinate_bytes: 48 }),
        _ => Err(wrong_family(algorithm)),
    }
}

pub(crate) fn check_secret(algorithm: Algorithm, secret: &[u8]) -> Result<(), ConfigError> {
    let least = match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        _ => 64,
    };
    if let Some(problem) = disguised::problem_of(secret) {
        return Err(ConfigError::new("key", problem));
    }
    if secret.len() < least {
        return Err(ConfigError::new(
            "key",
            format!(
                "is too short for {algorithm}, which needs a secret of {least} random bytes \
                or more"
            ),
        ));
    }
    Ok(())
}

/// `modulus` and `exponent` without leading zeros.
pub(crate) fn check_rsa(modulus: &[u8], exponent: &[u8]) -> Result<(), ConfigError> {
    let bits =
        modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    if bits < MIN_RSA_BITS {
        return Err(ConfigError::new(
            "key",
            format!("has {bits} bits; RSA needs {MIN_RSA_BITS} or more"),
        ));
    }
    if bits > MAX_RSA_BITS {
        return Err(ConfigError::new(
            "key",
            format!("has {bits} bits; the crypto provider checks up to {MAX_RSA_BITS}"),
        ));
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    let is_exponent = is_odd(exponent) && exponent != [1] && exponent.len() <= 4;
    if !is_odd(modulus) || !is_exponent {
        return Err(ConfigError::new(
            "key",
            "is not an RSA key: its modulus or exponent cannot be one",
        ));
    }
    if roca::has_fingerprint(modulus) {
        return Err(ConfigError::new(
            "key",
            "has the fingerprint of a faulty generator (ROCA, CVE-2017-15361): its private part \
             can be computed; make a new one with another tool",
        ));
    }
    Ok(())
}

pub(crate) fn expect_family(algorithm: Algorithm, family: KeyFamily) -> Result<(), ConfigError> {
    if algorithm.family() == family { Ok(()) } else { Err(wrong_family(algorithm)) }
}

fn unusable(algorithm: Algorithm) -> ConfigError {
    ConfigError::new("key", format!("cannot be used for {algorithm}"))
}

pub(crate) fn wrong_family(algorithm: Algorithm) -> ConfigError {
    ConfigError::new("algorithm", format!("{algorithm} is not for this kind of key"))
}

/// Whether `alg` is the name of a signature algorithm, to the letter; `none` is not one.
pub(crate) fn is_signature_algorithm(alg: &str) -> bool {
    alg == "Ed25519" || alg.parse::<Algorithm>().is_ok()
}

fn public_pem(pem: &[u8], labels: &[&str]) -> Result<Vec<u8>, ConfigError> {
    let (label, der) = der::pem(pem)
        .ok_or_else(|| ConfigError::new("key", "is not PEM with exactly one block"))?;
    if labels.contains(&label) {
        return Ok(der);
    }
    let problem = match label {
        "CERTIFICATE" => "is a certificate; extract its key: openssl x509 -pubkey -noout",
        label if label.contains("PRIVATE") => {
            "is a private key, which a verifier must not hold; extract the public one: openssl \
             pkey -pubout"
        }
        _ => "is PEM, but not a public key of this kind",
    };
    Err(ConfigError::new("key", problem))
}
