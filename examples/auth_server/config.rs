//! The environment, read once. An error names the variable and what to do.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{env, fs};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tower_jwt_revocation::token::jwt::SigningKey;
use tower_jwt_revocation::{FailMode, JwtVerifier, TokenProfile, VerificationKey};

use crate::providers::Providers;

/// The algorithm that goes with each type of key.
const ALGORITHMS: [(&str, &str); 4] =
    [("oct", "HS256"), ("RSA", "RS256"), ("EC", "ES256"), ("OKP", "EdDSA")];

/// What makes a key private. Only the one that signs may keep it.
pub(crate) const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// Everything that can be set.
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) admin_token: Option<String>,
    pub(crate) verifier: JwtVerifier,
    pub(crate) keys: Vec<VerificationKey>,
    pub(crate) signing_key: SigningKey,
    /// The `iss` of the tokens that are issued here.
    pub(crate) issuer: Option<String>,
    pub(crate) providers: Providers,
    pub(crate) profile: TokenProfile,
    pub(crate) store: Store,
    pub(crate) redis_timeout: Duration,
    pub(crate) fail_mode: FailMode,
    pub(crate) access_lifetime: Duration,
    pub(crate) refresh_lifetime: Duration,
    pub(crate) refresh_grace: Duration,
    pub(crate) family_max_age: Option<Duration>,
    pub(crate) max_token_lifetime: Duration,
    pub(crate) realm: String,
    pub(crate) audit: Option<PathBuf>,
}

/// Where revocations and sessions are kept.
pub(crate) enum Store {
    Memory,
    Redis {
        url: String,
        prefix: String,
        /// A file with the authorities that are trusted, for TLS.
        ca: Option<String>,
        /// Files with the certificate of this server and its key, for a Redis that wants one.
        client: Option<(String, String)>,
        replicas: Option<(NonZeroU32, Duration)>,
        /// Checks are answered from memory that is at most this old; without it Redis is asked each
        /// time.
        mirror: Option<Duration>,
    },
}

impl Config {
    pub(crate) fn from_env() -> Result<Self, String> {
        let max_token_lifetime = seconds("AUTH_MAX_TOKEN_TTL_S", 86400, 1..=315_360_000)?;
        let access_lifetime = seconds("AUTH_ACCESS_TTL_S", 300, 1..=315_360_000)?;
        if access_lifetime > max_token_lifetime {
            return Err(
                "AUTH_ACCESS_TTL_S is more than AUTH_MAX_TOKEN_TTL_S, so no token would be \
                 accepted; lower the one or raise the other"
                    .into(),
            );
        }
        let mut profile = TokenProfile::new()
            .with_leeway(seconds("AUTH_LEEWAY_S", 60, 0..=300)?)
            .with_max_lifetime(max_token_lifetime)
            // A token of nobody could not be revoked by its user.
            .with_required_subject();
        // What others put into these claims is their business: nothing here is revoked by them.
        for claim in ["session_state", "session_id", "family_id", "origin_jti", "client_id", "azp"]
        {
            profile = profile.without_claim_target(claim);
        }
        let rules = profile.clone();
        let issuer = text("AUTH_ISS")?;
        if let Some(issuer) = &issuer {
            profile = profile.with_issuer(issuer);
        }
        if let Some(audience) = text("AUTH_AUD")? {
            profile = profile.with_audience(audience);
        }
        let (signing_key, keys) = keys()?;
        let max_token_bytes = number("AUTH_MAX_TOKEN_BYTES", 8192, 64..=1 << 20)?;
        let max_token_bytes = usize::try_from(max_token_bytes).unwrap_or(usize::MAX);
        let verifier = JwtVerifier::new(keys.clone(), profile.clone())
            .map_err(|error| format!("AUTH_JWKS: {error}"))?
            .with_max_token_bytes(max_token_bytes);
        Ok(Self {
            keys,
            issuer,
            providers: Providers::from_env(&rules, max_token_bytes)?,
            listen: parsed("AUTH_LISTEN")?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            grpc: parsed("AUTH_GRPC")?,
            admin_token: admin_token()?,
            verifier,
            signing_key,
            profile,
            store: store()?,
            redis_timeout: Duration::from_millis(number("AUTH_REDIS_TIMEOUT_MS", 250, 1..=60_000)?),
            fail_mode: match choice("AUTH_ON_OUTAGE", &["closed", "open"])? {
                "open" => FailMode::Open,
                _ => FailMode::Closed,
            },
            access_lifetime,
            refresh_lifetime: seconds("AUTH_REFRESH_TTL_S", 3600, 1..=315_360_000)?,
            refresh_grace: seconds("AUTH_REFRESH_GRACE_S", 0, 0..=300)?,
            family_max_age: match text("AUTH_FAMILY_MAX_S")? {
                Some(_) => Some(seconds("AUTH_FAMILY_MAX_S", 0, 1..=315_360_000)?),
                None => None,
            },
            max_token_lifetime,
            realm: text("AUTH_REALM")?.unwrap_or_else(|| "auth".into()),
            audit: text("AUTH_AUDIT")?.map(PathBuf::from),
        })
    }
}

fn store() -> Result<Store, String> {
    let is_mirrored = choice("AUTH_CHECK", &["direct", "mirror"])? == "mirror";
    let staleness = Duration::from_millis(number("AUTH_MAX_STALENESS_MS", 1000, 1..=3_600_000)?);
    let wait = Duration::from_millis(number("AUTH_WAIT_MS", 100, 1..=60_000)?);
    let replicas =
        u32::try_from(number("AUTH_WAIT_REPLICAS", 0, 0..=1000)?).ok().and_then(NonZeroU32::new);
    if choice("AUTH_STORE", &["redis", "memory"])? == "memory" {
        return Ok(Store::Memory);
    }
    let url = text("AUTH_REDIS_URL")?.ok_or(
        "AUTH_REDIS_URL is missing; set it, for example redis://127.0.0.1:6379, or set \
         AUTH_STORE=memory",
    )?;
    let prefix = text("AUTH_KEY_PREFIX")?.unwrap_or_else(|| "auth".into());
    Ok(Store::Redis {
        url,
        prefix,
        ca: text("AUTH_REDIS_CA_FILE")?,
        client: match (text("AUTH_REDIS_CLIENT_CERT_FILE")?, text("AUTH_REDIS_CLIENT_KEY_FILE")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err("AUTH_REDIS_CLIENT_CERT_FILE and AUTH_REDIS_CLIENT_KEY_FILE belong \
                            together; set both or neither"
                    .into());
            }
        },
        replicas: replicas.map(|replicas| (replicas, wait)),
        // Within less no mirror can be shown to be fresh. To ask Redis each time is fresher still.
        mirror: Some(staleness)
            .filter(|staleness| is_mirrored && *staleness >= Duration::from_millis(50)),
    })
}

fn admin_token() -> Result<Option<String>, String> {
    let token = text("AUTH_ADMIN_TOKEN")?;
    token.as_deref().map_or(Ok(()), |token| expect_sendable("AUTH_ADMIN_TOKEN", token))?;
    Ok(token)
}

/// Refuses a secret that no client can send in a header.
pub(crate) fn expect_sendable(variable: &str, secret: &str) -> Result<(), String> {
    if secret.trim() == secret && secret.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    Err(format!(
        "{variable} begins or ends with white space, or has other than printable ASCII characters, \
         which no header can bring; write it anew, perhaps without the line break at its end"
    ))
}

/// The content of a file. Who gave the content in place of its name finds it in no message.
pub(crate) fn read(variable: &str, path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| {
        let is_path = path.len() < 256 && path.contains('/') && !path.contains(['{', '\n', '+']);
        let path = if is_path { path } else { "what it names" };
        format!("{variable}: {path}: {error}; write the path of a file, not its content")
    })
}

// === Keys ===

fn keys() -> Result<(SigningKey, Vec<VerificationKey>), String> {
    let path =
        text("AUTH_JWKS")?.ok_or("AUTH_JWKS is missing; name a file with a JWK Set (RFC 7517)")?;
    let wrong = |problem: &dyn Display| format!("AUTH_JWKS: {path}: {problem}");
    let json = read("AUTH_JWKS", &path)?;
    let set = unambiguous(&json).map_err(|problem| wrong(&problem))?;
    let jwks = set
        .get("keys")
        .and_then(Value::as_array)
        .filter(|keys| !keys.is_empty())
        .ok_or_else(|| wrong(&"has no member `keys` with at least one key; write a JWK Set"))?;
    let wanted = text("AUTH_SIGN_KID")?;
    let (mut signing, mut keys) = (None, Vec::new());
    for (n, jwk) in jwks.iter().enumerate() {
        let kid = member(jwk, "kid").filter(|kid| !kid.is_empty()).ok_or_else(|| {
            wrong(&format!("key {n} has no `kid`; give each key a name of its own"))
        })?;
        let wrong = |problem: &dyn Display| wrong(&format!("key `{kid}`: {problem}"));
        if keys.iter().any(|key: &VerificationKey| key.kid() == Some(kid)) {
            return Err(wrong(&"another key has this `kid`; give each a name of its own"));
        }
        let kty = member(jwk, "kty").unwrap_or_default();
        let algorithm =
            ALGORITHMS.iter().find(|(known, _)| *known == kty).map(|(_, algorithm)| *algorithm);
        let algorithm = algorithm.ok_or_else(|| wrong(&"the `kty` must be oct, RSA, EC or OKP"))?;
        if member(jwk, "alg") != Some(algorithm) {
            return Err(wrong(&format!("the `alg` of a key of type {kty} must be {algorithm}")));
        }
        let signs = wanted.as_deref().map_or(n == 0, |wanted| wanted == kid);
        if signs && signing.is_none() {
            let key = SigningKey::from_jwk(&jwk.to_string()).map_err(|error| {
                wrong(&format!(
                    "{error}; this is the key that signs, see AUTH_SIGN_KID, and needs its private \
                     part"
                ))
            })?;
            keys.push(key.verification_key());
            signing = Some(key);
        } else {
            let mut jwk = jwk.clone();
            if let Some(members) = jwk.as_object_mut() {
                members.retain(|name, _| !PRIVATE.contains(&name.as_str()));
            }
            keys.push(VerificationKey::from_jwk(&jwk.to_string()).map_err(|error| wrong(&error))?);
        }
    }
    let signing = signing.ok_or_else(|| {
        format!(
            "AUTH_SIGN_KID: no key of AUTH_JWKS has the kid `{}`; name one that is there",
            wanted.unwrap_or_default()
        )
    })?;
    Ok((signing, keys))
}

/// A JWK Set as JSON in which no object has a member twice, or what is wrong with it.
pub(crate) fn unambiguous(json: &str) -> Result<Value, &'static str> {
    // RFC 8259 §8.1 allows to ignore a byte order mark.
    let json = json.strip_prefix('\u{feff}').unwrap_or(json);
    match serde_json::from_str(json) {
        Ok(Unambiguous(set)) => Ok(set),
        Err(error) if error.is_data() => {
            Err("has a member twice in one object; leave one of them out")
        }
        Err(_) => Err("is not JSON; write a JWK Set"),
    }
}

/// JSON in which no object has a member twice: that would be one key to one reader and another key
/// to /// the next (RFC 7517 §4).
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UnambiguousVisitor).map(Self)
    }
}

struct UnambiguousVisitor;

impl<'de> Visitor<'de> for UnambiguousVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unambiguous(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = serde_json::Map::new();
        while let Some((name, Unambiguous(value))) = map.next_entry::<String, _>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(members.into())
    }
}

pub(crate) fn member<'a>(jwk: &'a Value, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

// === Variables ===

/// A variable that is empty counts as not set.
pub(crate) fn text(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8; write it anew")),
    }
}

fn parsed<T: FromStr>(name: &str) -> Result<Option<T>, String>
where
    T::Err: Display,
{
    let Some(text) = text(name)? else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|error| format!("{name} is `{text}`: {error}; write it as ip:port"))
}

fn number(name: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let Some(text) = text(name)? else { return Ok(default) };
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!(
            "{name} is `{text}`; write a whole number from {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn seconds(
    name: &str,
    default: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Duration, String> {
    number(name, default, range).map(Duration::from_secs)
}

/// One of several words; the first is the default.
fn choice(name: &str, words: &[&'static str]) -> Result<&'static str, String> {
    let Some(text) = text(name)? else { return Ok(words.first().copied().unwrap_or_default()) };
    words
        .iter()
        .find(|word| **word == text)
        .copied()
        .ok_or_else(|| format!("{name} is `{text}`; write {}", words.join(" or ")))
}
