//! A verifier from environment variables or a configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

#[cfg(feature = "jwks")]
use super::jwks::{Jwks, JwksError};
use super::jwt::{JwtVerifier, KeySet, VerificationKey};
use super::{Algorithm, MissingId, TokenProfile};
use crate::config::{
    ApplySettings, ConfigError, ConfigOrigin, Configuration, EnvVars, SecretText, text_or_file,
};
use crate::revocation::TargetKind;

/// Stands alone where a list is required, and means that anything is accepted.
const ANY: &str = "*";

/// The settings of a [`JwtVerifier`], its keys and its [`TokenProfile`], for configuration files
/// and environment variables.
///
/// The variable of a field is `JWT_` and the name of the field in capitals, such as
/// `JWT_LEEWAY_SECS`. Issuers (or patterns with tenants), audiences and exactly one source of keys
/// are required.
///
/// In a variable, a list is separated by commas or spaces, and the map `claim_targets` is a list
/// such as `tenant=claim, sid=none`. A file that is named in a field `…_file` is read when the
/// verifier is made; one line break at its end is left out. An error names the variable, or the
/// field, and the remedy. An empty list counts as not set; a variable that is set and empty is an
/// error. An unknown field is an error. So is a misspelt variable: one with almost the name of a
/// variable that is not set.
///
/// ```
/// use tower_jwt_revocation::VerifierConfig;
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
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct VerifierConfig {
    // # Which tokens are accepted
    /// Accepted issuers: exactly the `iss` of their tokens, or `*` alone for any. Required, unless
    /// there are patterns.
    pub issuers: Vec<String>,
    /// Accepted issuers with one part that differs: `https://id.example/{tenant}/v2.0`. `tenants`
    /// says which values the part may have. Default: none.
    pub issuer_patterns: Vec<String>,
    /// Accepted values of `{tenant}` in the patterns, or `*` alone for any; at a public provider
    /// that is every customer. Required with patterns.
    pub tenants: Vec<String>,
    /// Accepted audiences, of which a token must have one in its `aud`, or `*` alone for any.
    /// Required.
    pub audiences: Vec<String>,
    /// How far the clocks of issuer and verifier may be apart, in seconds, 0 to 300. Default: 60.
    pub leeway_secs: Option<u64>,
    /// Longest lifetime of an accepted token (`exp` − `iat`), in seconds. Revocations are kept for
    /// as long. Default: 86400, which is 24 h.
    pub max_lifetime_secs: Option<u64>,
    /// The claim with the id of a token; `uti` at Microsoft Entra. Default: `jti`.
    pub id_claim: Option<String>,
    /// What happens to a token without an id: `refuse` refuses it; `signing-input` identifies it by
    /// a hash of its header and payload; `other-targets-only` accepts it, and it can be revoked
    /// only by its session, its user and so on. Default: `refuse`.
    pub missing_id: Option<MissingId>,
    /// Whether tokens without `iat` are accepted. Every revocation of "all tokens so far" covers
    /// them, also one from before they were issued. Default: false.
    pub allow_missing_iat: bool,
    /// Whether tokens without `sub` are refused, because a revocation by user would miss them.
    /// Default: false.
    pub required_subject: bool,
    /// By which claims tokens can be revoked: a map from the name of a claim to `user`, `session`,
    /// `device`, `family`, `client`, `claim` (a target of its own) or `none` (no longer). It adds
    /// to the defaults, which [`TokenProfile::with_claim_target`] lists.
    #[serde(deserialize_with = "claim_targets")]
    pub claim_targets: BTreeMap<String, Option<TargetKind>>,
    /// Whether the issuer gives the id of an ended session to a new one, as Keycloak does. Revoking
    /// a session then covers the tokens issued so far, and not later ones. Default: false.
    pub recurring_session_ids: bool,
    /// Claims that a token must have: a map from the claim to its value, to several values with `|`
    /// between them (one suffices), or to `*` for any. A path such as `realm.name` leads into a
    /// claim. Default: none.
    pub required_claims: BTreeMap<String, String>,
    /// Claims that a token must not have: a map from the claim to a forbidden value, to several
    /// with `|` between them, or to `*` for any value. Default: none.
    pub forbidden_claims: BTreeMap<String, String>,
    /// Claims by which a token may say that it is no access token, see
    /// [`TokenProfile::allow_other_kinds_by`]. Default: none.
    pub other_kinds_allowed_by: Vec<String>,
    /// Accepted types of tokens: the `typ` of the header, which is required then. Default: `JWT`,
    /// `at+jwt` or none.
    pub types: Vec<String>,
    /// Longest accepted token, in bytes; its header may take up half of it. Microsoft Entra: 16384,
    /// as a token may name 200 groups. Default: 8192.
    pub max_token_bytes: Option<usize>,
    // # The source of the keys, exactly one
    /// Shared secret for HS256, HS384 or HS512, as text or as `base64:` and base64. At least as
    /// long as the hash: 32, 48 or 64 bytes.
    pub secret: Option<SecretText>,
    /// Path of a file with the shared secret, in the same form.
    pub secret_file: Option<String>,
    /// Public key in PEM, for the algorithms with public keys (RS, PS, ES and `EdDSA`).
    pub public_key: Option<String>,
    /// Path of a file with the public key in PEM.
    pub public_key_file: Option<String>,
    /// JSON Web Key Set (RFC 7517) with the keys; each names its algorithm, as
    /// [`KeySet::from_jwk_set`] says, unless there are `default_algorithms`.
    pub jwk_set: Option<SecretText>,
    /// Path of a file with the JSON Web Key Set.
    pub jwk_set_file: Option<String>,
    /// The `https` URL of the JSON Web Key Set of a provider, which is fetched and kept up to date
    /// (feature `jwks`).
    pub jwks_url: Option<String>,
    /// Issuer whose keys are found by OpenID Connect Discovery, fetched and kept up to date
    /// (feature `jwks`).
    pub discovery_issuer: Option<String>,
    // # With a secret or a public key
    /// The one algorithm of the key, such as `HS256`, `RS256`, `ES256` or `EdDSA`. Required with a
    /// secret or a public key; a key set names the algorithms itself.
    pub algorithm: Option<Algorithm>,
    /// Name of the key: exactly the `kid` of its tokens. Tokens without a `kid` are accepted, too.
    /// Default: none, so that tokens with a `kid` are refused.
    pub key_id: Option<String>,
    // # With a key set, by text, file, URL or discovery
    /// Algorithms that an RSA key of a set may verify if it does not name its `alg`, such as
    /// `RS256` and `PS256`. Default: RS256 for keys that are fetched; none for a set of your own,
    /// whose keys name theirs.
    pub default_algorithms: Vec<Algorithm>,
    // # With a URL or discovery
    /// How old the keys may get before they are fetched anew, in seconds. A key that the provider
    /// has withdrawn is accepted for up to this long. Default: 900, which is 15 min.
    pub jwks_max_age_secs: Option<u64>,
    /// The shortest pause between two fetches, in seconds, however many unknown keys tokens name.
    /// Default: 10.
    pub jwks_cooldown_secs: Option<u64>,
    /// How long the keys stay in use while the provider is out of reach, in seconds after the last
    /// good fetch. Default: 86400, which is 24 h.
    pub jwks_outage_grace_secs: Option<u64>,
    /// Longest time of a fetch, discovery included, in milliseconds. Default: 5000.
    pub jwks_timeout_ms: Option<u64>,
    /// Path of a file with certificates in PEM, which are trusted instead of those of the system.
    /// Default: those of the system.
    pub jwks_root_certificates_file: Option<String>,
    /// URL of the HTTP proxy through which keys are fetched, such as `http://proxy.example:3128`,
    /// with user and password if it needs them. `HTTPS_PROXY` is not read. Default: none.
    pub jwks_proxy: Option<SecretText>,
    #[serde(skip)]
    origin: ConfigOrigin,
}

/// The words of [`VerifierConfig::claim_targets`].
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ClaimTargetWord {
    User,
    Session,
    Device,
    Family,
    Client,
    Claim,
    None,
}

impl ClaimTargetWord {
    fn target_kind(&self) -> Option<TargetKind> {
        Some(match self {
            Self::User => TargetKind::User,
            Self::Session => TargetKind::Session,
            Self::Device => TargetKind::Device,
            Self::Family => TargetKind::Family,
            Self::Client => TargetKind::Client,
            Self::Claim => TargetKind::Claim,
            Self::None => return None,
        })
    }
}

fn claim_targets<'de, D: Deserializer<'de>>(
    source: D,
) -> Result<BTreeMap<String, Option<TargetKind>>, D::Error> {
    let words = BTreeMap::<String, ClaimTargetWord>::deserialize(source)?;
    Ok(words.into_iter().map(|(claim, word)| (claim, word.target_kind())).collect())
}

impl Configuration for VerifierConfig {
    fn variable_prefix(_: &str) -> &'static str {
        "JWT_"
    }

    /// The settings of profile, verifier, keys and `Jwks` all have different names.
    fn field_of(setting: &str) -> &str {
        match setting {
            "issuer" => "issuers",
            "issuer_pattern" => "issuer_patterns",
            "audience" => "audiences",
            "leeway" => "leeway_secs",
            "max_lifetime" => "max_lifetime_secs",
            "claim" => "id_claim",
            "claim_target" => "claim_targets",
            "allow_other_kinds_by" => "other_kinds_allowed_by",
            "kid" => "key_id",
            "max_age" => "jwks_max_age_secs",
            "cooldown" => "jwks_cooldown_secs",
            "outage_grace" => "jwks_outage_grace_secs",
            "timeout" => "jwks_timeout_ms",
            "root_certificates" => "jwks_root_certificates_file",
            "proxy" => "jwks_proxy",
            same => same,
        }
    }
}

/// Where the keys come from, once it is clear that there is one source.
#[cfg_attr(test, derive(Debug))]
enum KeyMaterial {
    Key(VerificationKey),
    Set(KeySet),
    #[cfg(feature = "jwks")]
    Remote(Jwks),
}

impl VerifierConfig {
    /// Reads the settings from environment variables.
    ///
    /// # Errors
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, has a value that it cannot
    /// have, or is misspelt.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&EnvVars::of_process())
    }

    fn from_vars(vars: &EnvVars) -> Result<Self, ConfigError> {
        Ok(Self { origin: ConfigOrigin::Environment, ..vars.read()? })
    }

    /// The rules for claims. A process that revokes and does not check needs nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing or cannot work.
    pub fn profile(&self) -> Result<TokenProfile, ConfigError> {
        self.build_profile().map_err(|error| self.rename(error))
    }

    /// A verifier with keys that do not change.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing or cannot work. Keys that have to be fetched are an
    /// error, too: for those there is `connect`.
    pub fn verifier(&self) -> Result<JwtVerifier, ConfigError> {
        let build = || match self.keys()? {
            KeyMaterial::Key(key) => self.finish(JwtVerifier::new([key], self.build_profile()?)?),
            KeyMaterial::Set(set) => self.finish(JwtVerifier::new(set, self.build_profile()?)?),
            #[cfg(feature = "jwks")]
            KeyMaterial::Remote(_) => Err(ConfigError::new(
                "jwks_url",
                "or an issuer for discovery is set, so keys must be fetched; call \
                 VerifierConfig::connect",
            )),
        };
        build().map_err(|error| self.rename(error))
    }

    /// A verifier with the configured keys. Keys that a provider publishes are fetched first.
    ///
    /// # Errors
    /// [`JwksError`] naming what is missing or cannot work, or why the keys could not be fetched.
    #[cfg(feature = "jwks")]
    pub async fn connect(&self) -> Result<JwtVerifier, JwksError> {
        let keys = self.keys().map_err(|error| self.rename(error))?;
        let KeyMaterial::Remote(jwks) = keys else { return Ok(self.verifier()?) };
        let profile = self.profile()?;
        let keys = jwks.start().map_err(|error| {
            let is_discovered = error.setting() == "jwks_url" && self.discovery_issuer.is_some();
            self.rename(if is_discovered { error.renamed("discovery_issuer") } else { error })
        })?;
        keys.fetched().await?;
        let finished =
            JwtVerifier::with_remote_keys(keys, profile).and_then(|verifier| self.finish(verifier));
        finished.map_err(|error| self.rename(error).into())
    }

    fn finish(&self, verifier: JwtVerifier) -> Result<JwtVerifier, ConfigError> {
        if self.types.is_empty() { Ok(verifier) } else { verifier.with_types(&self.types) }
    }

    fn build_profile(&self) -> Result<TokenProfile, ConfigError> {
        let secs = Duration::from_secs;
        let mut profile = self
            .with_issuers(TokenProfile::new())?
            .apply_some(self.leeway_secs.map(secs), TokenProfile::with_leeway)
            .apply_some(self.max_lifetime_secs.map(secs), TokenProfile::with_max_lifetime)
            .apply_some(self.max_token_bytes, TokenProfile::with_max_token_bytes)
            .apply_some(self.id_claim.as_deref(), TokenProfile::with_id_claim)
            .apply_some(self.missing_id, TokenProfile::with_missing_id)
            .apply_if(self.allow_missing_iat, TokenProfile::allow_missing_iat)
            .apply_if(self.required_subject, TokenProfile::with_required_subject)
            .apply_if(self.recurring_session_ids, TokenProfile::with_recurring_session_ids);
        for audience in required("audience", &self.audiences)? {
            profile = profile.with_audience(audience.as_str());
        }
        for (claim, kind) in &self.claim_targets {
            profile = match kind {
                Some(kind) => profile.with_claim_target(claim.as_str(), *kind),
                None => profile.without_claim_target(claim),
            };
        }
        for (claim, values) in &self.required_claims {
            profile = match values.as_str() {
                "*" => profile.require_claim_presence(claim.as_str()),
                values => profile.require_claim(claim.as_str(), values.split('|')),
            };
        }
        for (claim, values) in &self.forbidden_claims {
            profile = match values.as_str() {
                "*" => profile.forbid_claim(claim.as_str()),
                values => profile.forbid_claim_values(claim.as_str(), values.split('|')),
            };
        }
        for claim in &self.other_kinds_allowed_by {
            profile = profile.allow_other_kinds_by(claim.as_str());
        }
        profile.validate().map_err(|error| {
            // With the default targets only, it is the id claim that contradicts one of them.
            let is_default = error.setting() == "claim_target" && self.claim_targets.is_empty();
            if is_default { error.renamed("claim") } else { error }
        })?;
        Ok(profile)
    }

    fn with_issuers(&self, mut profile: TokenProfile) -> Result<TokenProfile, ConfigError> {
        let patterns = || self.name("issuer_patterns");
        if self.issuer_patterns.is_empty() {
            if !self.tenants.is_empty() {
                let problem = format!("has no effect without {}; set both or none", patterns());
                return Err(ConfigError::new("tenants", problem));
            }
            for issuer in required("issuer", &self.issuers)? {
                profile = profile.with_issuer(issuer);
            }
            return Ok(profile);
        }
        if self.issuers.iter().any(|issuer| issuer == ANY) {
            let problem = format!("has `*` next to {}; leave one out", patterns());
            return Err(ConfigError::new("issuer", problem));
        }
        for issuer in &self.issuers {
            profile = profile.with_issuer(issuer);
        }
        let tenants: BTreeSet<_> = required("tenants", &self.tenants)?.iter().cloned().collect();
        let tenants = Arc::new(tenants);
        for pattern in &self.issuer_patterns {
            let tenants = Arc::clone(&tenants);
            profile = profile.with_issuer_pattern(pattern.as_str(), move |tenant| {
                tenants.is_empty() || tenants.contains(tenant)
            });
        }
        Ok(profile)
    }

    /// The field that says where the keys come from: the only one that is set.
    fn key_source(&self) -> Result<&'static str, ConfigError> {
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
        let mut given = sources.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name);
        match (given.next(), given.next()) {
            (Some(source), None) => Ok(source),
            (Some(source), Some(other)) => {
                let other = self.name(other);
                let problem = format!("is set together with {other}; leave one of them out");
                Err(ConfigError::new(source, problem))
            }
            (None, _) => {
                let names = sources.map(|(name, _)| self.name(name)).join(", ");
                Err(ConfigError::new("keys", format!("there is none; set one of {names}")))
            }
        }
    }

    fn keys(&self) -> Result<KeyMaterial, ConfigError> {
        let source = self.key_source()?;
        // What is said about a key is said about the setting that it comes from.
        let of_source = |error: ConfigError| match error.setting() {
            "key" => error.renamed(source),
            _ => error,
        };
        match source {
            "secret" | "secret_file" => {
                self.refuse_remote(source)?;
                self.refuse_default_algorithms(source)?;
                let secret = self.secret.as_ref().map(SecretText::expose);
                let secret = text(secret, self.secret_file.as_deref(), source)?;
                let secret = match secret.strip_prefix("base64:") {
                    Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
                        ConfigError::new(source, "says `base64:` and is not base64")
                    })?,
                    None => secret.into_bytes(),
                };
                let key = VerificationKey::from_secret(self.algorithm("HS256")?, &secret);
                self.named(key.map_err(of_source)?)
            }
            "public_key" | "public_key_file" => {
                self.refuse_remote(source)?;
                self.refuse_default_algorithms(source)?;
                let pem =
                    text(self.public_key.as_deref(), self.public_key_file.as_deref(), source)?;
                let key = VerificationKey::from_pem(self.algorithm("RS256")?, pem.as_bytes());
                self.named(key.map_err(of_source)?)
            }
            "jwk_set" | "jwk_set_file" => {
                self.refuse_algorithm(source)?;
                self.refuse_remote(source)?;
                let set = self.jwk_set.as_ref().map(SecretText::expose);
                let set = text(set, self.jwk_set_file.as_deref(), source)?;
                let set = KeySet::from_jwk_set_with(&set, &self.default_algorithms);
                let set = set.map_err(|error| match error.setting() {
                    "key_set" => error.renamed(source),
                    _ => error,
                })?;
                Ok(KeyMaterial::Set(set))
            }
            _ => {
                self.refuse_algorithm(source)?;
                self.remote(source)
            }
        }
    }

    #[cfg(feature = "jwks")]
    fn remote(&self, source: &'static str) -> Result<KeyMaterial, ConfigError> {
        let jwks = match (&self.jwks_url, &self.discovery_issuer) {
            (Some(url), _) => Jwks::at(url),
            (None, issuer) => Jwks::of_issuer(issuer.as_deref().unwrap_or_default()),
        };
        let (secs, millis) = (Duration::from_secs, Duration::from_millis);
        let mut jwks = jwks
            .map_err(|error| error.renamed(source))?
            .apply_some(self.jwks_max_age_secs.map(secs), Jwks::with_max_age)
            .apply_some(self.jwks_cooldown_secs.map(secs), Jwks::with_cooldown)
            .apply_some(self.jwks_outage_grace_secs.map(secs), Jwks::with_outage_grace)
            .apply_some(self.jwks_timeout_ms.map(millis), Jwks::with_timeout);
        if !self.default_algorithms.is_empty() {
            jwks = jwks.with_default_algorithms(self.default_algorithms.iter().copied())?;
        }
        if let Some(path) = &self.jwks_root_certificates_file {
            let pem = text(None, Some(path), "root_certificates")?;
            jwks = jwks.with_root_certificates(pem.as_bytes())?;
        }
        if let Some(url) = &self.jwks_proxy {
            jwks = jwks.with_proxy(url.expose())?;
        }
        Ok(KeyMaterial::Remote(jwks))
    }

    #[cfg(not(feature = "jwks"))]
    #[expect(clippy::unused_self, reason = "the other one needs it")]
    fn remote(&self, source: &'static str) -> Result<KeyMaterial, ConfigError> {
        Err(ConfigError::new(
            source,
            "needs keys to be fetched; enable the feature `jwks` of tower-jwt-revocation",
        ))
    }

    fn algorithm(&self, example: &str) -> Result<Algorithm, ConfigError> {
        self.algorithm.ok_or_else(|| {
            let problem =
                format!("is missing; name the one algorithm of the key, such as {example}");
            ConfigError::new("algorithm", problem)
        })
    }

    /// A set names the algorithms itself, and a setting that is ignored would be misleading.
    fn refuse_algorithm(&self, source: &'static str) -> Result<(), ConfigError> {
        refuse(
            &[("algorithm", self.algorithm.is_some()), ("key_id", self.key_id.is_some())],
            &format!(
                "has no effect on {}, whose keys name theirs; leave it out",
                self.name(source)
            ),
        )
    }

    /// A key alone has its `algorithm`.
    fn refuse_default_algorithms(&self, source: &'static str) -> Result<(), ConfigError> {
        refuse(
            &[("default_algorithms", !self.default_algorithms.is_empty())],
            &format!(
                "has no effect on {}, which has one {}; leave it out",
                self.name(source),
                self.name("algorithm")
            ),
        )
    }

    /// Fixed keys are never fetched.
    fn refuse_remote(&self, source: &'static str) -> Result<(), ConfigError> {
        refuse(
            &[
                ("jwks_max_age_secs", self.jwks_max_age_secs.is_some()),
                ("jwks_cooldown_secs", self.jwks_cooldown_secs.is_some()),
                ("jwks_outage_grace_secs", self.jwks_outage_grace_secs.is_some()),
                ("jwks_timeout_ms", self.jwks_timeout_ms.is_some()),
                ("jwks_root_certificates_file", self.jwks_root_certificates_file.is_some()),
                ("jwks_proxy", self.jwks_proxy.is_some()),
            ],
            &format!("has no effect on {}, which is not fetched; leave it out", self.name(source)),
        )
    }

    fn named(&self, key: VerificationKey) -> Result<KeyMaterial, ConfigError> {
        let key = match &self.key_id {
            Some(kid) => key.with_kid(kid.as_str())?,
            None => key,
        };
        Ok(KeyMaterial::Key(key))
    }

    fn rename(&self, error: ConfigError) -> ConfigError {
        self.origin.rename::<Self>(error)
    }

    fn name(&self, field: &str) -> String {
        self.origin.name::<Self>(field)
    }
}

/// A list that must be there: an empty one would accept everything, and may be a mistake.
fn required<'a>(setting: &'static str, list: &'a [String]) -> Result<&'a [String], ConfigError> {
    match list {
        [] => Err(ConfigError::new(
            setting,
            "is missing; name at least one, or write `*` to accept any",
        )),
        [any] if any == ANY => Ok(&[]),
        names if names.iter().any(|name| name == ANY) => {
            Err(ConfigError::new(setting, "has `*` next to others; leave one out"))
        }
        names => Ok(names),
    }
}

/// Refuses the first of these settings that is given.
fn refuse(settings: &[(&'static str, bool)], problem: &str) -> Result<(), ConfigError> {
    match settings.iter().find(|(_, is_given)| *is_given) {
        Some((setting, _)) => Err(ConfigError::new(*setting, problem)),
        None => Ok(()),
    }
}

/// Without a byte order mark, which editors put in front of what is in a file.
fn text(
    text: Option<&str>,
    file: Option<&str>,
    file_setting: &'static str,
) -> Result<String, ConfigError> {
    let text = text_or_file(text, file, file_setting)?.unwrap_or_default();
    Ok(text.strip_prefix('\u{feff}').map(Into::into).unwrap_or(text))
}

// Without a crypto provider there are no keys, and so no verifiers.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;
