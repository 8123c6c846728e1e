//! A verifier from environment variables or a configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

#[cfg(feature = "jwks")]
use super::jwks::{Jwks, JwksError};
use super::jwt::{JwtVerifier, KeySet, VerificationKey};
use super::{MissingId, TokenProfile};
use crate::config::{ConfigError, Vars};
use crate::revocation::TargetKind;

/// Stands alone where a list is required, and means that anything is accepted.
const ANY: &str = "*";

/// What a verifier needs to know, as configuration files and environment variables say it.
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_ISSUERS` | `issuers` | required; accepted `iss`, exactly; in the variable separated by commas or spaces. `*`: any |
/// | `JWT_AUDIENCES` | `audiences` | required; accepted `aud`. `*`: any |
/// | `JWT_LEEWAY_SECS` | `leeway_secs` | see [`TokenProfile::with_leeway`] |
/// | `JWT_MAX_LIFETIME_SECS` | `max_lifetime_secs` | see [`TokenProfile::with_max_lifetime`] |
/// | `JWT_ID_CLAIM` | `id_claim` | see [`TokenProfile::with_id_claim`] |
/// | `JWT_MISSING_ID` | `missing_id` | `refuse`, `signing-input` or `other-targets-only`, see [`MissingId`] |
/// | `JWT_TYPES` | `types` | see [`JwtVerifier::with_types`] |
/// | | `claim_targets` | claim → kind (`user`, `session`, …, or `none`), see [`TokenProfile::with_claim_target`] |
///
/// And exactly one source of keys:
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_SECRET`, `JWT_SECRET_FILE` | `secret`, `secret_file` | for HS256, HS384, HS512; text, or `base64:` and base64 |
/// | `JWT_PUBLIC_KEY`, `JWT_PUBLIC_KEY_FILE` | `public_key`, `public_key_file` | PEM, for all others |
/// | `JWT_JWK_SET`, `JWT_JWK_SET_FILE` | `jwk_set`, `jwk_set_file` | see [`KeySet::from_jwk_set`] |
/// | `JWT_JWKS_URL` | `jwks_url` | see `token::jwks::Jwks::at` (feature `jwks`) |
/// | `JWT_DISCOVERY_ISSUER` | `discovery_issuer` | see `token::jwks::Jwks::of_issuer` (feature `jwks`) |
///
/// With a secret or a public key come `JWT_ALGORITHM` (`algorithm`, required) and `JWT_KEY_ID` (`key_id`). A `_FILE` is
/// read when the verifier is made; one line break at its end is left out. An error names the variable, or the field, and
/// what to do.
///
/// ```
/// use tower_jwt_revocation::token::VerifierConfig;
///
/// # fn f() -> Result<(), tower_jwt_revocation::ConfigError> {
/// let verifier = VerifierConfig::from_env()?.verifier()?;
/// # Ok(()) }
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let config: VerifierConfig = serde_json::from_str(r#"{
///     "issuers": ["https://id.example"],
///     "audiences": ["orders"],
///     "algorithm": "HS256",
///     "secret": "an example secret, 32 bytes or more"
/// }"#)?;
/// let verifier = config.verifier()?;
/// # }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct VerifierConfig {
    /// See the table.
    pub issuers: Vec<String>,
    /// See the table.
    pub audiences: Vec<String>,
    /// See the table.
    pub leeway_secs: Option<u64>,
    /// See the table.
    pub max_lifetime_secs: Option<u64>,
    /// See the table.
    pub id_claim: Option<String>,
    /// See the table.
    pub missing_id: Option<String>,
    /// See the table.
    #[serde(default)]
    pub types: Vec<String>,
    /// See the table.
    #[serde(default)]
    pub claim_targets: BTreeMap<String, String>,
    /// See the table.
    pub algorithm: Option<String>,
    /// See the table.
    pub key_id: Option<String>,
    /// See the table.
    pub secret: Option<SecretText>,
    /// See the table.
    pub secret_file: Option<String>,
    /// See the table.
    pub public_key: Option<String>,
    /// See the table.
    pub public_key_file: Option<String>,
    /// See the table.
    pub jwk_set: Option<SecretText>,
    /// See the table.
    pub jwk_set_file: Option<String>,
    /// See the table.
    pub jwks_url: Option<String>,
    /// See the table.
    pub discovery_issuer: Option<String>,
    #[serde(skip)]
    is_from_env: bool,
}

/// A text that `Debug` does not show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretText(Box<str>);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// For each setting how configuration files and the environment call it.
const NAMES: [(&str, &str, &str); 18] = [
    ("issuer", "issuers", "JWT_ISSUERS"),
    ("audience", "audiences", "JWT_AUDIENCES"),
    ("leeway", "leeway_secs", "JWT_LEEWAY_SECS"),
    ("max_lifetime", "max_lifetime_secs", "JWT_MAX_LIFETIME_SECS"),
    ("claim", "id_claim", "JWT_ID_CLAIM"),
    ("missing_id", "missing_id", "JWT_MISSING_ID"),
    ("types", "types", "JWT_TYPES"),
    ("claim_target", "claim_targets", "JWT_ID_CLAIM"),
    ("algorithm", "algorithm", "JWT_ALGORITHM"),
    ("kid", "key_id", "JWT_KEY_ID"),
    ("secret", "secret", "JWT_SECRET"),
    ("secret_file", "secret_file", "JWT_SECRET_FILE"),
    ("public_key", "public_key", "JWT_PUBLIC_KEY"),
    ("public_key_file", "public_key_file", "JWT_PUBLIC_KEY_FILE"),
    ("jwk_set", "jwk_set", "JWT_JWK_SET"),
    ("jwk_set_file", "jwk_set_file", "JWT_JWK_SET_FILE"),
    ("jwks_url", "jwks_url", "JWT_JWKS_URL"),
    ("discovery_issuer", "discovery_issuer", "JWT_DISCOVERY_ISSUER"),
];

/// Where the keys come from, once it is clear that there is one source.
enum KeyMaterial {
    Key(VerificationKey),
    Set(KeySet),
    #[cfg(feature = "jwks")]
    Remote(Jwks),
}

impl VerifierConfig {
    /// From the environment.
    ///
    /// # Errors
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, or is not a number where one is needed.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&Vars::of_process())
    }

    fn from_vars(vars: &Vars<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            issuers: vars.list("JWT_ISSUERS")?,
            audiences: vars.list("JWT_AUDIENCES")?,
            leeway_secs: vars.number("JWT_LEEWAY_SECS")?,
            max_lifetime_secs: vars.number("JWT_MAX_LIFETIME_SECS")?,
            id_claim: vars.text("JWT_ID_CLAIM")?,
            missing_id: vars.text("JWT_MISSING_ID")?,
            types: vars.list("JWT_TYPES")?,
            claim_targets: BTreeMap::new(),
            algorithm: vars.text("JWT_ALGORITHM")?,
            key_id: vars.text("JWT_KEY_ID")?,
            secret: vars.text("JWT_SECRET")?.map(Into::into),
            secret_file: vars.text("JWT_SECRET_FILE")?,
            public_key: vars.text("JWT_PUBLIC_KEY")?,
            public_key_file: vars.text("JWT_PUBLIC_KEY_FILE")?,
            jwk_set: vars.text("JWT_JWK_SET")?.map(Into::into),
            jwk_set_file: vars.text("JWT_JWK_SET_FILE")?,
            jwks_url: vars.text("JWT_JWKS_URL")?,
            discovery_issuer: vars.text("JWT_DISCOVERY_ISSUER")?,
            is_from_env: true,
        })
    }

    /// The rules for claims: all that a process needs that revokes and does not check.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing or cannot work.
    pub fn profile(&self) -> Result<TokenProfile, ConfigError> {
        self.build_profile().map_err(|error| self.in_its_words(error))
    }

    /// A verifier with keys that do not change.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing or cannot work, also if the keys are to be fetched; see `connect`.
    pub fn verifier(&self) -> Result<JwtVerifier, ConfigError> {
        let build = || match self.keys()? {
            KeyMaterial::Key(key) => self.finish(JwtVerifier::new([key], self.build_profile()?)?),
            KeyMaterial::Set(set) => self.finish(JwtVerifier::new(set, self.build_profile()?)?),
            #[cfg(feature = "jwks")]
            KeyMaterial::Remote(_) => Err(ConfigError::new(
                "jwks_url",
                "or an issuer for discovery is set, so keys must be fetched; call VerifierConfig::connect",
            )),
        };
        build().map_err(|error| self.in_its_words(error))
    }

    /// A verifier with whatever keys are configured; if they are published, they are fetched before it is given out.
    ///
    /// # Errors
    /// [`JwksError`] naming what is missing or cannot work, or why the keys could not be fetched.
    #[cfg(feature = "jwks")]
    pub async fn connect(&self) -> Result<JwtVerifier, JwksError> {
        let keys = self.keys().map_err(|error| self.in_its_words(error))?;
        let KeyMaterial::Remote(jwks) = keys else { return Ok(self.verifier()?) };
        let profile = self.profile()?;
        let keys = jwks.start().map_err(|error| {
            let is_discovered = error.setting() == "jwks_url" && self.discovery_issuer.is_some();
            self.in_its_words(if is_discovered { error.renamed("discovery_issuer") } else { error })
        })?;
        keys.fetched().await?;
        let finished =
            JwtVerifier::with_remote_keys(keys, profile).and_then(|verifier| self.finish(verifier));
        finished.map_err(|error| self.in_its_words(error).into())
    }

    fn finish(&self, verifier: JwtVerifier) -> Result<JwtVerifier, ConfigError> {
        if self.types.is_empty() { Ok(verifier) } else { verifier.with_types(&self.types) }
    }

    fn build_profile(&self) -> Result<TokenProfile, ConfigError> {
        let mut profile = TokenProfile::new();
        for issuer in required("issuer", &self.issuers)? {
            profile = profile.with_issuer(issuer);
        }
        for audience in required("audience", &self.audiences)? {
            profile = profile.with_audience(audience.as_str());
        }
        if let Some(secs) = self.leeway_secs {
            profile = profile.with_leeway(Duration::from_secs(secs));
        }
        if let Some(secs) = self.max_lifetime_secs {
            profile = profile.with_max_lifetime(Duration::from_secs(secs));
        }
        if let Some(claim) = &self.id_claim {
            profile = profile.with_id_claim(claim.as_str());
        }
        match self.missing_id.as_deref() {
            None | Some("refuse") => {}
            Some("signing-input") => profile = profile.with_missing_id(MissingId::SigningInput),
            Some("other-targets-only") => profile = profile.with_missing_id(MissingId::OtherTargetsOnly),
            Some(_) => {
                return Err(ConfigError::new(
                    "missing_id",
                    "is not one of `refuse`, `signing-input` and `other-targets-only`",
                ));
            }
        }
        for (claim, kind) in &self.claim_targets {
            profile = match target_kind(kind)? {
                Some(kind) => profile.with_claim_target(claim.as_str(), kind),
                None => profile.without_claim_target(claim),
            };
        }
        profile.validate()?;
        Ok(profile)
    }

    fn keys(&self) -> Result<KeyMaterial, ConfigError> {
        let sources = [
            ("secret", self.secret.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("public_key", self.public_key.is_some()),
            ("public_key_file", self.public_key_file.is_some()),
            ("jwk_set", self.jwk_set.is_some()),
            ("jwk_set_file", self.jwk_set_file.is_some()),
            ("jwks_url", self.jwks_url.is_some()),
            ("discovery_issuer", self.discovery_issuer.is_some()),
        ];
        let given: Vec<_> = sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        let source = match given.as_slice() {
            [] => {
                let names = sources.map(|(name, _)| self.word(name)).join(", ");
                return Err(ConfigError::new("keys", format!("there is none; set one of {names}")));
            }
            [one] => *one,
            [one, another, ..] => {
                return Err(ConfigError::new(
                    one,
                    format!("is set together with {}; leave one of them out", self.word(another)),
                ));
            }
        };
        match source {
            "secret" | "secret_file" => {
                let secret = text(
                    "secret_file",
                    self.secret.as_ref().map(|text| &*text.0),
                    self.secret_file.as_ref(),
                )?;
                let secret = match secret.strip_prefix("base64:") {
                    Some(encoded) => STANDARD
                        .decode(encoded)
                        .map_err(|_| ConfigError::new(source, "says `base64:` and is not base64"))?,
                    None => secret.into_bytes(),
                };
                let key = VerificationKey::from_secret(self.algorithm("HS256")?, &secret);
                self.named(key.map_err(|error| renamed_key(error, source))?)
            }
            "public_key" | "public_key_file" => {
                let pem = text("public_key_file", self.public_key.as_deref(), self.public_key_file.as_ref())?;
                let key = VerificationKey::from_pem(self.algorithm("RS256")?, pem.as_bytes());
                self.named(key.map_err(|error| renamed_key(error, source))?)
            }
            "jwk_set" | "jwk_set_file" => {
                self.refuse_algorithm(source)?;
                let set = text(
                    "jwk_set_file",
                    self.jwk_set.as_ref().map(|text| &*text.0),
                    self.jwk_set_file.as_ref(),
                )?;
                KeySet::from_jwk_set(&set).map(KeyMaterial::Set).map_err(|error| error.renamed(source))
            }
            _ => self.remote(source),
        }
    }

    #[cfg(feature = "jwks")]
    fn remote(&self, source: &'static str) -> Result<KeyMaterial, ConfigError> {
        self.refuse_algorithm(source)?;
        let jwks = match (&self.jwks_url, &self.discovery_issuer) {
            (Some(url), _) => Jwks::at(url),
            (None, issuer) => Jwks::of_issuer(issuer.as_deref().unwrap_or_default()),
        };
        jwks.map(KeyMaterial::Remote).map_err(|error| error.renamed(source))
    }

    #[cfg(not(feature = "jwks"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn remote(&self, source: &'static str) -> Result<KeyMaterial, ConfigError> {
        Err(ConfigError::new(
            source,
            "needs keys to be fetched; enable the feature `jwks` of tower-jwt-revocation",
        ))
    }

    fn algorithm(&self, example: &str) -> Result<super::jwt::Algorithm, ConfigError> {
        let Some(name) = &self.algorithm else {
            return Err(ConfigError::new(
                "algorithm",
                format!("is missing; name the one algorithm of the key, such as {example}"),
            ));
        };
        name.parse().map_err(|_| {
            ConfigError::new(
                "algorithm",
                "is not a supported signature algorithm, such as HS256, RS256, ES256 or EdDSA",
            )
        })
    }

    /// A set names the algorithms itself, and one that is silently ignored would be misleading.
    fn refuse_algorithm(&self, source: &'static str) -> Result<(), ConfigError> {
        for (setting, is_given) in [("algorithm", self.algorithm.is_some()), ("kid", self.key_id.is_some())] {
            if is_given {
                return Err(ConfigError::new(
                    setting,
                    format!("has no effect on {}, whose keys name theirs; leave it out", self.word(source)),
                ));
            }
        }
        Ok(())
    }

    fn named(&self, key: VerificationKey) -> Result<KeyMaterial, ConfigError> {
        let key = match &self.key_id {
            Some(kid) => key.with_kid(kid.as_str())?,
            None => key,
        };
        Ok(KeyMaterial::Key(key))
    }

    /// The error with the name of the setting that the operator wrote.
    fn in_its_words(&self, error: ConfigError) -> ConfigError {
        let name = NAMES.iter().find(|(setting, ..)| *setting == error.setting());
        match name {
            Some((_, _, variable)) if self.is_from_env => error.renamed(variable),
            Some((_, field, _)) => error.renamed(field),
            None => error,
        }
    }

    fn word(&self, setting: &str) -> &'static str {
        let name = NAMES.iter().find(|(known, ..)| *known == setting);
        name.map_or("", |(_, field, variable)| if self.is_from_env { variable } else { field })
    }
}

/// A list that must be there: an empty one would accept everything, and may be a slip of the pen.
fn required<'a>(setting: &'static str, list: &'a [String]) -> Result<&'a [String], ConfigError> {
    match list {
        [] => Err(ConfigError::new(setting, "is missing; name at least one, or write `*` to accept any")),
        [any] if any == ANY => Ok(&[]),
        names if names.iter().any(|name| name == ANY) => {
            Err(ConfigError::new(setting, "has `*` next to others; leave one out"))
        }
        names => Ok(names),
    }
}

fn target_kind(kind: &str) -> Result<Option<TargetKind>, ConfigError> {
    Ok(Some(match kind {
        "none" => return Ok(None),
        "user" => TargetKind::User,
        "session" => TargetKind::Session,
        "device" => TargetKind::Device,
        "family" => TargetKind::Family,
        "client" => TargetKind::Client,
        "claim" => TargetKind::Claim,
        _ => {
            return Err(ConfigError::new(
                "claim_target",
                "has a kind that is not one of user, session, device, family, client, claim and none",
            ));
        }
    }))
}

/// What is said about a key is said about the setting that it came from.
fn renamed_key(error: ConfigError, source: &'static str) -> ConfigError {
    if error.setting() == "key" { error.renamed(source) } else { error }
}

/// The text itself, or the content of the file.
fn text(
    file_setting: &'static str,
    text: Option<&str>,
    file: Option<&String>,
) -> Result<String, ConfigError> {
    match (text, file) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, file) => {
            let path = file.map(String::as_str).unwrap_or_default();
            let mut text = std::fs::read_to_string(path).map_err(|error| {
                let problem = format!("names {path}, which cannot be read as text: {}", error.kind());
                ConfigError::new(file_setting, problem).with_source(error)
            })?;
            if text.ends_with('\n') {
                text.pop();
                if text.ends_with('\r') {
                    text.pop();
                }
            }
            Ok(text)
        }
    }
}

// Without a crypto provider there are no keys, and so no verifiers.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;
