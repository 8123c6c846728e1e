//! Keys from JSON Web Keys and sets of them (RFC 7517, RFC 7518 §6, RFC 8037 §2).

use std::collections::HashSet;
use std::fmt;

#[cfg(feature = "endpoints")]
use base64::Engine as _;
#[cfg(feature = "endpoints")]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
#[cfg(feature = "endpoints")]
use serde_json::json;

#[cfg(feature = "endpoints")]
use super::key::PublicParts;
use super::keys::quoted;
use super::{VerificationKey, base64, key};
use crate::config::ConfigError;
use crate::token::{Algorithm, KeyFamily};

/// Algorithms of RSA keys that do not name one, in sets of identity providers: the default of
/// OpenID Connect Core §2.
pub(crate) const USUAL_RSA: [Algorithm; 1] = [Algorithm::RS256];

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
    /// Reads a set that you have written: every key must be usable. A byte order mark is skipped.
    ///
    /// # Errors
    /// [`ConfigError`] naming the `kid` of the first key that is not for signatures (`use`,
    /// `key_ops`), has an unknown type, or is private or weak. The same for an RSA key or a secret
    /// that does not say its algorithm. Also if this is not a key set, if it has no key, or if an
    /// object in it has a member twice, because parsers could read two different keys then (RFC
    /// 7517 §4).
    pub fn from_jwk_set(json: &str) -> Result<Self, ConfigError> {
        Self::from_jwk_set_with(json, &[])
    }

    /// As [`from_jwk_set`](Self::from_jwk_set), but RSA keys without `alg` may verify each of these
    /// algorithms. Such a key is in [`keys`](Self::keys) once for each.
    ///
    /// # Errors
    /// As [`from_jwk_set`](Self::from_jwk_set), and if one of the algorithms is not for RSA: the
    /// type of all other public keys leaves no choice, and a secret must name its algorithm.
    pub fn from_jwk_set_with(
        json: &str,
        default_algorithms: &[Algorithm],
    ) -> Result<Self, ConfigError> {
        let default_algorithms = rsa_algorithms(default_algorithms)?;
        let members = members_of_set(json).map_err(not_a_set)?;
        let read = |value: &Value| Jwk::read(value)?.verification_keys(&default_algorithms);
        let keys =
            each(&members, read).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        Self { keys, skipped: Vec::new() }.not_empty()
    }

    /// Reads a set that an identity provider has published. Keys that cannot be used are
    /// [`skipped`](Self::skipped), and RSA keys without `alg` are for RS256, the default of OpenID
    /// Connect. A byte order mark is skipped.
    ///
    /// Secrets (`"kty": "oct"`) are skipped too, because a published one is no secret.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not a key set, if no key is left, or if an object in it has a
    /// member twice, because parsers could read two different keys then (RFC 7517 §4).
    pub fn from_jwk_set_lenient(json: &str) -> Result<Self, ConfigError> {
        Self::from_jwk_set_lenient_with(json, &USUAL_RSA)
    }

    /// As [`from_jwk_set_lenient`](Self::from_jwk_set_lenient), but RSA keys without `alg` may
    /// verify each of these algorithms. It is for providers that sign with another algorithm than
    /// RS256 and do not say so in their keys (`PingFederate`). Such a key is in
    /// [`keys`](Self::keys) once for each. With an empty list such keys are skipped.
    ///
    /// # Errors
    /// As [`from_jwk_set_lenient`](Self::from_jwk_set_lenient), and if one of the algorithms is not
    /// for RSA: the type of all other public keys leaves no choice.
    pub fn from_jwk_set_lenient_with(
        json: &str,
        default_algorithms: &[Algorithm],
    ) -> Result<Self, ConfigError> {
        let default_algorithms = rsa_algorithms(default_algorithms)?;
        let members = members_of_set(json).map_err(not_a_set)?;
        Self::published(&members, &default_algorithms).not_empty()
    }

    /// The keys of a published set that can be used, which may be none.
    pub(crate) fn published(members: &[Value], default_algorithms: &[Algorithm]) -> Self {
        let read = |value: &Value| {
            let jwk = Jwk::read(value)?;
            if jwk.kty == "oct" {
                return Err(ConfigError::new(
                    "kty",
                    "is a secret, which has no place in a published set",
                ));
            }
            jwk.verification_keys(default_algorithms)
        };
        let mut set = Self { keys: Vec::new(), skipped: Vec::new() };
        for keys in each(members, read) {
            match keys {
                Ok(keys) => set.keys.extend(keys),
                Err(error) => set.skipped.push(error),
            }
        }
        set
    }

    /// The keys.
    pub fn keys(&self) -> &[VerificationKey] {
        &self.keys
    }

    /// Why the other keys of the set are not used; worth a log entry.
    pub fn skipped(&self) -> &[ConfigError] {
        &self.skipped
    }

    pub(crate) fn not_empty(self) -> Result<Self, ConfigError> {
        match (self.keys.is_empty(), &*self.skipped) {
            (false, _) => Ok(self),
            (true, []) => Err(ConfigError::new("key_set", "holds no key")),
            (true, [first, ..]) => Err(ConfigError::new(
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

/// The members of the array `keys` of a set, whatever they are, or why it is none.
pub(crate) fn members_of_set(json: &str) -> Result<Vec<Value>, String> {
    let no_set = |problem: &str| format!("is not a JSON Web Key Set: {problem}");
    match unambiguous(json).map_err(|problem| no_set(&problem))? {
        Value::Object(mut set) => match set.remove("keys") {
            Some(Value::Array(members)) => Ok(members),
            _ if set.contains_key("jwks_uri") => Err(no_set(
                "a discovery document, which says in `jwks_uri` where the set is; see \
                 Jwks::of_issuer",
            )),
            _ => Err(no_set("an object without an array `keys`")),
        },
        _ => Err(no_set("no object with an array `keys`")),
    }
}

fn not_a_set(problem: String) -> ConfigError {
    ConfigError::new("key_set", problem)
}

/// Reads each key of a set; errors say which key they are about.
fn each<T>(
    members: &[Value],
    read: impl Fn(&Value) -> Result<T, ConfigError>,
) -> impl Iterator<Item = Result<T, ConfigError>> {
    members.iter().enumerate().map(move |(at, value)| {
        read(value).map_err(|error| {
            let name = match value.get("kid").and_then(Value::as_str) {
                Some(kid) => format!("the key {}", quoted(kid)),
                None => format!("key number {}", at + 1),
            };
            ConfigError::new("key_set", format!("{name} cannot be used: {error}"))
        })
    })
}

/// The algorithms that RSA keys without `alg` may verify, each once.
pub(crate) fn rsa_algorithms(algorithms: &[Algorithm]) -> Result<Vec<Algorithm>, ConfigError> {
    let mut checked = Vec::new();
    for algorithm in algorithms {
        if algorithm.family() != KeyFamily::Rsa {
            let problem = format!(
                "names {algorithm}, but only RSA keys without `alg` leave a choice; name \
                 algorithms such as RS256 and PS256"
            );
            return Err(ConfigError::new("default_algorithms", problem));
        }
        if !checked.contains(algorithm) {
            checked.push(*algorithm);
        }
    }
    Ok(checked)
}

/// JSON in which no object has a member twice, or why it is not. That does not quote it: there may
/// be a secret in it.
pub(crate) fn unambiguous(json: &str) -> Result<Value, String> {
    // RFC 8259 §8.1 allows to ignore a byte order mark.
    let json = json.strip_prefix('\u{feff}').unwrap_or(json);
    let no_json = |error: serde_json::Error| match error.line() {
        _ if json.trim_start().starts_with('<') => "a web page".to_owned(),
        line if error.is_data() => format!(
            "an object with a member twice (line {line}), which means different keys to different \
             readers"
        ),
        line => format!("no JSON (line {line})"),
    };
    serde_json::from_str::<Unambiguous>(json).map_err(no_json)?;
    serde_json::from_str(json).map_err(no_json)
}

/// Any JSON, of which nothing is kept, without objects that have a member twice.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnambiguousVisitor)
    }
}

struct UnambiguousVisitor;

impl<'de> Visitor<'de> for UnambiguousVisitor {
    type Value = Unambiguous;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
        Ok(Unambiguous)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unambiguous, A::Error> {
        while let Some(Unambiguous) = seq.next_element()? {}
        Ok(Unambiguous)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("twice"));
            }
            let Unambiguous = map.next_value()?;
        }
        Ok(Unambiguous)
    }
}

impl VerificationKey {
    /// A public key or a secret as a JSON Web Key. Its `kid` becomes the name of the key.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not a JWK, or as [`KeySet::from_jwk_set`].
    pub fn from_jwk(json: &str) -> Result<Self, ConfigError> {
        Jwk::parse(json)?.verification_key()
    }
}

#[cfg(feature = "endpoints")]
impl VerificationKey {
    /// The key as a JSON Web Key to be published (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2): its
    /// public members, with `kid`, `alg` and `use`. `None` if it is a secret.
    pub fn to_jwk(&self) -> Option<String> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match self.public_parts()? {
            PublicParts::Rsa { modulus, exponent } => {
                json!({ "kty": "RSA", "n": encode(modulus), "e": encode(exponent) })
            }
            PublicParts::Ec { curve, x, y } => {
                json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) })
            }
            PublicParts::Ed(x) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(x) }),
        };
        let Value::Object(mut jwk) = jwk else { return None };
        if let Some(kid) = self.kid() {
            jwk.insert("kid".into(), kid.into());
        }
        jwk.insert("alg".into(), self.algorithm().as_str().into());
        jwk.insert("use".into(), "sig".into());
        Some(Value::from(jwk).to_string())
    }
}

/// The members of a JWK that are read.
#[derive(serde::Deserialize)]
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
        let value = unambiguous(json).map_err(|problem| {
            ConfigError::new("key", format!("is not a JSON Web Key: {problem}"))
        })?;
        Self::read(&value)
    }

    fn read(value: &Value) -> Result<Self, ConfigError> {
        Self::deserialize(value).map_err(|_| not_a_jwk())
    }

    fn verification_key(&self) -> Result<VerificationKey, ConfigError> {
        self.expect_public()?;
        self.verification_key_for(self.algorithm()?)
    }

    /// The key, once for each algorithm that it may verify.
    fn verification_keys(
        &self,
        default_algorithms: &[Algorithm],
    ) -> Result<Vec<VerificationKey>, ConfigError> {
        if self.kty != "RSA" || self.alg.is_some() || default_algorithms.is_empty() {
            return Ok(vec![self.verification_key()?]);
        }
        self.expect_public()?;
        default_algorithms.iter().map(|algorithm| self.verification_key_for(*algorithm)).collect()
    }

    fn expect_public(&self) -> Result<(), ConfigError> {
        if self.d.is_some() {
            return Err(ConfigError::new(
                "key",
                "is private, which a verifier must not hold; leave out `d`",
            ));
        }
        self.expect_operation("verify")
    }

    fn verification_key_for(&self, algorithm: Algorithm) -> Result<VerificationKey, ConfigError> {
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

    /// The one algorithm of the key.
    pub(crate) fn algorithm(&self) -> Result<Algorithm, ConfigError> {
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
            return of_type.ok_or_else(|| {
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
