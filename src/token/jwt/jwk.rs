//! Keys from JSON Web Keys and sets of them (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use serde::Deserialize;
use serde_json::Value;

use super::{VerificationKey, base64, key};
use crate::config::ConfigError;
use crate::token::{Algorithm, KeyFamily};

/// Algorithm of RSA keys that do not name one, in sets of identity providers: the default of OpenID
/// Connect Core §2.
const USUAL_RSA: Algorithm = Algorithm::RS256;

/// Several keys, as read from a JSON Web Key Set (RFC 7517 §5).
///
/// ```
/// use tower_jwt_revocation::token::jwt::KeySet;
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let keys = KeySet::from_jwk_set(
///     r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "2026-01",
///                   "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
/// )?;
/// assert_eq!(keys.keys()[0].kid(), Some("2026-01"));
/// # }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<VerificationKey>,
    skipped: Vec<ConfigError>,
}

impl KeySet {
    /// A set that you have written: every key must be usable.
    ///
    /// # Errors
    /// [`ConfigError`] naming the `kid` of the first key that is not for signatures (`use`,
    /// `key_ops`), has an unknown type, is private or weak, or does not say its algorithm where its
    /// type leaves a choice (RSA, secrets).
    pub fn from_jwk_set(json: &str) -> Result<Self, ConfigError> {
        let read = |value: &Value| Jwk::read(value)?.verification_key(None);
        let keys = each(json, read)?.into_iter().collect::<Result<Vec<_>, _>>()?;
        Self { keys, skipped: Vec::new() }.not_empty()
    }

    /// A set that an identity provider has published: what cannot be used is skipped, see
    /// [`skipped`](Self::skipped), and RSA keys without `alg` are for RS256.
    ///
    /// Secrets (`"kty": "oct"`) are skipped too: one that is published is none.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not a key set, or if no key is left.
    pub fn from_jwk_set_lenient(json: &str) -> Result<Self, ConfigError> {
        let read = |value: &Value| {
            let jwk = Jwk::read(value)?;
            if jwk.kty == "oct" {
                return Err(ConfigError::new(
                    "kty",
                    "is a secret, which has no place in a published set",
                ));
            }
            jwk.verification_key(Some(USUAL_RSA))
        };
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for key in each(json, read)? {
            match key {
                Ok(key) => keys.push(key),
                Err(error) => skipped.push(error),
            }
        }
        Self { keys, skipped }.not_empty()
    }

    /// The keys.
    pub fn keys(&self) -> &[VerificationKey] {
        &self.keys
    }

    /// Why the other keys of the set are not used; worth a log entry.
    pub fn skipped(&self) -> &[ConfigError] {
        &self.skipped
    }

    fn not_empty(self) -> Result<Self, ConfigError> {
        match (self.keys.is_empty(), self.skipped.first()) {
            (false, _) => Ok(self),
            (true, None) => Err(ConfigError::new("key_set", "holds no key")),
            (true, Some(first)) => Err(ConfigError::new(
                "key_set",
                format!("holds no key that can be used; the first one: {first}"),
            )),
        }
    }
}

impl IntoIterator for KeySet {
    type Item = VerificationKey;
    type IntoIter = std::vec::IntoIter<VerificationKey>;

    fn into_iter(self) -> Self::IntoIter {
        self.keys.into_iter()
    }
}

/// Reads each key of a set; errors say which key they are about.
fn each<T>(
    json: &str,
    read: impl Fn(&Value) -> Result<T, ConfigError>,
) -> Result<Vec<Result<T, ConfigError>>, ConfigError> {
    #[derive(Deserialize)]
    struct JwkSet {
        keys: Vec<Value>,
    }
    // The cause is dropped: its text may quote a secret.
    let set: JwkSet = serde_json::from_str(json).map_err(|_| {
        ConfigError::new("key_set", "is not a JSON Web Key Set: an object with an array `keys`")
    })?;
    let read = |(at, value): (usize, &Value)| {
        read(value).map_err(|error| {
            let name = match value.get("kid").and_then(Value::as_str) {
                Some(kid) => format!("the key `{kid}`"),
                None => format!("key number {}", at + 1),
            };
            ConfigError::new("key_set", format!("{name} cannot be used: {error}"))
        })
    };
    Ok(set.keys.iter().enumerate().map(read).collect())
}

impl VerificationKey {
    /// A public key or a secret as a JSON Web Key. Its `kid` becomes the name of the key.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not a JWK, or as [`KeySet::from_jwk_set`].
    pub fn from_jwk(json: &str) -> Result<Self, ConfigError> {
        Jwk::parse(json)?.verification_key(None)
    }
}

/// The members of a JWK that are read.
#[derive(Deserialize)]
pub(crate) struct Jwk {
    pub(crate) kty: String,
    pub(crate) kid: Option<Box<str>>,
    pub(crate) alg: Option<String>,
    #[serde(rename = "use")]
    pub(crate) usage: Option<String>,
    pub(crate) key_ops: Option<Vec<String>>,
    pub(crate) crv: Option<String>,
    pub(crate) n: Option<String>,
    pub(crate) e: Option<String>,
    pub(crate) x: Option<String>,
    pub(crate) y: Option<String>,
    /// The secret.
    pub(crate) k: Option<String>,
    /// The private part of every other type.
    pub(crate) d: Option<String>,
    #[cfg(feature = "issuer")]
    pub(crate) p: Option<String>,
    #[cfg(feature = "issuer")]
    pub(crate) q: Option<String>,
    #[cfg(feature = "issuer")]
    pub(crate) dp: Option<String>,
    #[cfg(feature = "issuer")]
    pub(crate) dq: Option<String>,
    #[cfg(feature = "issuer")]
    pub(crate) qi: Option<String>,
}

impl Jwk {
    pub(crate) fn parse(json: &str) -> Result<Self, ConfigError> {
        serde_json::from_str(json).map_err(|_| not_a_jwk())
    }

    fn read(value: &Value) -> Result<Self, ConfigError> {
        Self::deserialize(value).map_err(|_| not_a_jwk())
    }

    fn verification_key(
        &self,
        usual_rsa: Option<Algorithm>,
    ) -> Result<VerificationKey, ConfigError> {
        if self.d.is_some() {
            return Err(ConfigError::new(
                "key",
                "is private, which a verifier must not hold; leave out `d`",
            ));
        }
        self.expect_operation("verify")?;
        let algorithm = self.algorithm(usual_rsa)?;
        let key = match &*self.kty {
            "oct" => VerificationKey::from_secret(algorithm, &member("k", self.k.as_ref())?),
            "RSA" => VerificationKey::from_rsa_components(
                algorithm,
                &member("n", self.n.as_ref())?,
                &member("e", self.e.as_ref())?,
            ),
            "EC" => VerificationKey::from_ec_point(algorithm, &self.point(algorithm)?),
            _ => VerificationKey::from_ed_der(&member("x", self.x.as_ref())?),
        }?
        .named_by_jwk(self.alg.as_deref());
        match &self.kid {
            Some(kid) => key.with_kid(kid.clone()),
            None => Ok(key),
        }
    }

    /// Whether the key is for signatures (RFC 7517 §4.2, §4.3).
    pub(crate) fn expect_operation(&self, operation: &str) -> Result<(), ConfigError> {
        if self.usage.as_ref().is_some_and(|usage| usage != "sig") {
            return Err(ConfigError::new("use", "is not `sig`: the key is not for signatures"));
        }
        if self.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == operation)) {
            return Err(ConfigError::new("key_ops", format!("does not name `{operation}`")));
        }
        Ok(())
    }

    /// The one algorithm of the key. `usual_rsa` is for RSA keys that do not name theirs.
    pub(crate) fn algorithm(&self, usual_rsa: Option<Algorithm>) -> Result<Algorithm, ConfigError> {
        let of_type = match (&*self.kty, self.crv.as_deref()) {
            ("EC", Some("P-256")) => Some(Algorithm::ES256),
            ("EC", Some("P-384")) => Some(Algorithm::ES384),
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDSA),
            ("EC" | "OKP", _) => {
                return Err(ConfigError::new(
                    "crv",
                    "is not supported; P-256, P-384 and Ed25519 are",
                ));
            }
            ("RSA" | "oct", _) => None,
            _ => return Err(ConfigError::new("kty", "is not one of RSA, EC, OKP and oct")),
        };
        let Some(alg) = self.alg.as_deref() else {
            let usual = if self.kty == "RSA" { usual_rsa } else { None };
            return of_type.or(usual).ok_or_else(|| {
                ConfigError::new(
                    "alg",
                    "is missing; the type of the key leaves a choice, so name one, such as RS256",
                )
            });
        };
        let alg = if alg == "Ed25519" { "EdDSA" } else { alg };
        let named: Algorithm = alg
            .parse()
            .map_err(|_| ConfigError::new("alg", "is not a supported signature algorithm"))?;
        let fits = match of_type {
            Some(only) => named == only,
            None if self.kty == "RSA" => key::expect_family(named, KeyFamily::Rsa).is_ok(),
            None => key::expect_family(named, KeyFamily::Hmac).is_ok(),
        };
        if fits {
            Ok(named)
        } else {
            Err(ConfigError::new("alg", "is not for a key of this type and curve"))
        }
    }

    /// The point of an EC key, uncompressed. Coordinates have their full length (RFC 7518
    /// §6.2.1.2).
    pub(crate) fn point(&self, algorithm: Algorithm) -> Result<Vec<u8>, ConfigError> {
        let (x, y) = (member("x", self.x.as_ref())?, member("y", self.y.as_ref())?);
        let len = key::ec(algorithm)?.coordinate_bytes;
        if x.len() != len || y.len() != len {
            return Err(ConfigError::new("x", format!("and `y` must have {len} bytes each")));
        }
        Ok([&[4], &*x, &*y].concat())
    }
}

pub(crate) fn member(name: &'static str, value: Option<&String>) -> Result<Vec<u8>, ConfigError> {
    value
        .and_then(|text| base64(text))
        .ok_or_else(|| ConfigError::new(name, "is missing or not base64url"))
}

fn not_a_jwk() -> ConfigError {
    ConfigError::new(
        "key",
        "is not a JSON Web Key: an object with a `kty` whose members have the right types",
    )
}
