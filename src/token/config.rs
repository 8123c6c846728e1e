//! A verifier from environment variables or a configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

#[cfg(feature = "jwks")]
use super::jwks::{Jwks, JwksError};
use super::jwt::{JwtVerifier, KeySet, VerificationKey};
use super::{MissingId, TokenProfile};
use crate::config::{ConfigError, Name, SecretText, Vars, file_or_text, in_words};
use crate::revocation::TargetKind;

/// Stands alone where a list is required, and means that anything is accepted.
const ANY: &str = "*";

/// What a verifier needs to know, as configuration files and environment variables say it.
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_ISSUERS` | `issuers` | required, or patterns; accepted `iss`, exactly. `*`: any |
/// | `JWT_ISSUER_PATTERNS` | `issuer_patterns` | see [`TokenProfile::with_issuer_pattern`]; `{tenant}` stands for one of the tenants |
/// | `JWT_TENANTS` | `tenants` | required with patterns. `*`: any; at a public provider these are all its customers |
/// | `JWT_AUDIENCES` | `audiences` | required; accepted `aud`. `*`: any |
/// | `JWT_LEEWAY_SECS` | `leeway_secs` | see [`TokenProfile::with_leeway`] |
/// | `JWT_MAX_LIFETIME_SECS` | `max_lifetime_secs` | see [`TokenProfile::with_max_lifetime`] |
/// | `JWT_ID_CLAIM` | `id_claim` | see [`TokenProfile::with_id_claim`] |
/// | `JWT_MISSING_ID` | `missing_id` | `refuse`, `signing-input` or `other-targets-only`, see [`MissingId`] |
/// | `JWT_ALLOW_MISSING_IAT` | `allow_missing_iat` | `true` or `false`, see [`TokenProfile::allow_missing_iat`] |
/// | `JWT_REQUIRED_SUBJECT` | `required_subject` | `true` or `false`, see [`TokenProfile::with_required_subject`] |
/// | `JWT_CLAIM_TARGETS` | `claim_targets` | claim → kind (`user`, `session`, `device`, `family`, `client`, `claim`, or `none`), see [`TokenProfile::with_claim_target`]; in the variable `tenant=claim, sid=none` |
/// | `JWT_TYPES` | `types` | see [`JwtVerifier::with_types`] |
/// | `JWT_MAX_TOKEN_BYTES` | `max_token_bytes` | see [`JwtVerifier::with_max_token_bytes`] |
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
/// With a secret or a public key:
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_ALGORITHM` | `algorithm` | required; the one algorithm of the key, such as HS256 or ES256 |
/// | `JWT_KEY_ID` | `key_id` | the `kid`, see [`VerificationKey::with_kid`] |
///
/// With a URL or discovery, see `token::jwks::Jwks`:
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_JWKS_MAX_AGE_SECS` | `jwks_max_age_secs` | how old keys may get |
/// | `JWT_JWKS_COOLDOWN_SECS` | `jwks_cooldown_secs` | the pause between two fetches |
/// | `JWT_JWKS_OUTAGE_GRACE_SECS` | `jwks_outage_grace_secs` | how long keys stay in use while the provider is out of reach |
/// | `JWT_JWKS_TIMEOUT_MS` | `jwks_timeout_ms` | how long a fetch may take |
/// | `JWT_JWKS_ROOT_CERTIFICATES_FILE` | `jwks_root_certificates_file` | PEM; trusted instead of those of the system |
/// | `JWT_JWKS_PROXY` | `jwks_proxy` | see `Jwks::with_proxy`; `HTTPS_PROXY` is not read |
///
/// Lists are separated by commas or spaces in variables. A `_FILE` is read when the verifier is
/// made; one line break at its end is left out. An error names the variable, or the field, and what
/// to do; a variable that looks like one of these and is not is an error as well, and so is an
/// unknown field. An empty field counts as not there, an empty variable is an error.
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
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct VerifierConfig {
    /// See the table.
    pub issuers: Vec<String>,
    /// See the table.
    pub issuer_patterns: Vec<String>,
    /// See the table.
    pub tenants: Vec<String>,
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
    pub allow_missing_iat: bool,
    /// See the table.
    pub required_subject: bool,
    /// See the table.
    pub claim_targets: BTreeMap<String, String>,
    /// See the table.
    pub types: Vec<String>,
    /// See the table.
    pub max_token_bytes: Option<usize>,
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
    /// See the table.
    pub jwks_max_age_secs: Option<u64>,
    /// See the table.
    pub jwks_cooldown_secs: Option<u64>,
    /// See the table.
    pub jwks_outage_grace_secs: Option<u64>,
    /// See the table.
    pub jwks_timeout_ms: Option<u64>,
    /// See the table.
    pub jwks_root_certificates_file: Option<String>,
    /// The URL of the HTTP proxy through which keys are fetched; default none.
    pub jwks_proxy: Option<SecretText>,
    #[serde(skip)]
    is_from_env: bool,
}

/// The settings of profile, verifier, keys and `Jwks`, whose words are all different.
const NAMES: [Name; 29] = [
    Name::new("issuer", "issuers", "JWT_ISSUERS"),
    Name::new("issuer_pattern", "issuer_patterns", "JWT_ISSUER_PATTERNS"),
    Name::new("tenants", "tenants", "JWT_TENANTS"),
    Name::new("audience", "audiences", "JWT_AUDIENCES"),
    Name::new("leeway", "leeway_secs", "JWT_LEEWAY_SECS"),
    Name::new("max_lifetime", "max_lifetime_secs", "JWT_MAX_LIFETIME_SECS"),
    Name::new("claim", "id_claim", "JWT_ID_CLAIM"),
    Name::new("missing_id", "missing_id", "JWT_MISSING_ID"),
    Name::new("allow_missing_iat", "allow_missing_iat", "JWT_ALLOW_MISSING_IAT"),
    Name::new("required_subject", "required_subject", "JWT_REQUIRED_SUBJECT"),
    Name::new("claim_target", "claim_targets", "JWT_CLAIM_TARGETS"),
    Name::new("types", "types", "JWT_TYPES"),
    Name::new("max_token_bytes", "max_token_bytes", "JWT_MAX_TOKEN_BYTES"),
    Name::new("secret", "secret", "JWT_SECRET"),
    Name::new("secret_file", "secret_file", "JWT_SECRET_FILE"),
    Name::new("public_key", "public_key", "JWT_PUBLIC_KEY"),
    Name::new("public_key_file", "public_key_file", "JWT_PUBLIC_KEY_FILE"),
    Name::new("jwk_set", "jwk_set", "JWT_JWK_SET"),
    Name::new("jwk_set_file", "jwk_set_file", "JWT_JWK_SET_FILE"),
    Name::new("jwks_url", "jwks_url", "JWT_JWKS_URL"),
    Name::new("discovery_issuer", "discovery_issuer", "JWT_DISCOVERY_ISSUER"),
    Name::new("algorithm", "algorithm", "JWT_ALGORITHM"),
    Name::new("kid", "key_id", "JWT_KEY_ID"),
    Name::new("max_age", "jwks_max_age_secs", "JWT_JWKS_MAX_AGE_SECS"),
    Name::new("cooldown", "jwks_cooldown_secs", "JWT_JWKS_COOLDOWN_SECS"),
    Name::new("outage_grace", "jwks_outage_grace_secs", "JWT_JWKS_OUTAGE_GRACE_SECS"),
    Name::new("timeout", "jwks_timeout_ms", "JWT_JWKS_TIMEOUT_MS"),
    Name::new(
        "root_certificates",
        "jwks_root_certificates_file",
        "JWT_JWKS_ROOT_CERTIFICATES_FILE",
    ),
    Name::new("proxy", "jwks_proxy", "JWT_JWKS_PROXY"),
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
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, or is not a number where
    /// one is needed; or one that is not set while another is that looks like it.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&Vars::of_process())
    }

    fn from_vars(vars: &Vars<'_>) -> Result<Self, ConfigError> {
        vars.refuse_slips(&NAMES)?;
        Ok(Self {
            issuers: vars.list("JWT_ISSUERS")?,
            issuer_patterns: vars.list("JWT_ISSUER_PATTERNS")?,
            tenants: vars.list("JWT_TENANTS")?,
            audiences: vars.list("JWT_AUDIENCES")?,
            leeway_secs: vars.number("JWT_LEEWAY_SECS")?,
            max_lifetime_secs: vars.number("JWT_MAX_LIFETIME_SECS")?,
            id_claim: vars.text("JWT_ID_CLAIM")?,
            missing_id: vars.text("JWT_MISSING_ID")?,
            allow_missing_iat: vars.flag("JWT_ALLOW_MISSING_IAT")?,
            required_subject: vars.flag("JWT_REQUIRED_SUBJECT")?,
            claim_targets: vars.pairs("JWT_CLAIM_TARGETS")?,
            types: vars.list("JWT_TYPES")?,
            max_token_bytes: vars.number("JWT_MAX_TOKEN_BYTES")?,
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
            jwks_max_age_secs: vars.number("JWT_JWKS_MAX_AGE_SECS")?,
            jwks_cooldown_secs: vars.number("JWT_JWKS_COOLDOWN_SECS")?,
            jwks_outage_grace_secs: vars.number("JWT_JWKS_OUTAGE_GRACE_SECS")?,
            jwks_timeout_ms: vars.number("JWT_JWKS_TIMEOUT_MS")?,
            jwks_root_certificates_file: vars.text("JWT_JWKS_ROOT_CERTIFICATES_FILE")?,
            jwks_proxy: vars.text("JWT_JWKS_PROXY")?.map(Into::into),
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
    /// [`ConfigError`] naming what is missing or cannot work, also if the keys are to be fetched;
    /// see `connect`.
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
        build().map_err(|error| self.in_its_words(error))
    }

    /// A verifier with whatever keys are configured; if they are published, they are fetched before
    /// it is given out.
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

    fn finish(&self, mut verifier: JwtVerifier) -> Result<JwtVerifier, ConfigError> {
        if let Some(bytes) = self.max_token_bytes {
            verifier = verifier.with_max_token_bytes(bytes);
        }
        if self.types.is_empty() { Ok(verifier) } else { verifier.with_types(&self.types) }
    }

    fn build_profile(&self) -> Result<TokenProfile, ConfigError> {
        let mut profile = self.with_issuers(TokenProfile::new())?;
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
            Some("other-targets-only") => {
                profile = profile.with_missing_id(MissingId::OtherTargetsOnly);
            }
            Some(_) => {
                return Err(ConfigError::new(
                    "missing_id",
                    "is not one of `refuse`, `signing-input` and `other-targets-only`",
                ));
            }
        }
        if self.allow_missing_iat {
            profile = profile.allow_missing_iat();
        }
        if self.required_subject {
            profile = profile.with_required_subject();
        }
        for (claim, kind) in &self.claim_targets {
            profile = match target_kind(kind)? {
                Some(kind) => profile.with_claim_target(claim.as_str(), kind),
                None => profile.without_claim_target(claim),
            };
        }
        profile.validate().map_err(|error| {
            // Without targets of the operator's own it is the id claim that is in the way of a
            // default.
            let is_default = error.setting() == "claim_target" && self.claim_targets.is_empty();
            if is_default { error.renamed("claim") } else { error }
        })?;
        Ok(profile)
    }

    fn with_issuers(&self, mut profile: TokenProfile) -> Result<TokenProfile, ConfigError> {
        if self.issuer_patterns.is_empty() {
            if !self.tenants.is_empty() {
                let patterns = self.word("issuer_pattern");
                return Err(ConfigError::new(
                    "tenants",
                    format!("has no effect without {patterns}; set both or none"),
                ));
            }
            for issuer in required("issuer", &self.issuers)? {
                profile = profile.with_issuer(issuer);
            }
            return Ok(profile);
        }
        if self.issuers.iter().any(|issuer| issuer == ANY) {
            let patterns = self.word("issuer_pattern");
            return Err(ConfigError::new(
                "issuer",
                format!("has `*` next to {patterns}; leave one out"),
            ));
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
        let given: Vec<_> =
            sources.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
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
                self.refuse_remote(source)?;
                let secret = self.secret.as_ref().map(SecretText::expose);
                let secret = text("secret_file", secret, self.secret_file.as_deref())?;
                let secret = match secret.strip_prefix("base64:") {
                    Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
                        ConfigError::new(source, "says `base64:` and is not base64")
                    })?,
                    None => secret.into_bytes(),
                };
                let key = VerificationKey::from_secret(self.algorithm("HS256")?, &secret);
                self.named(key.map_err(|error| renamed_key(error, source))?)
            }
            "public_key" | "public_key_file" => {
                self.refuse_remote(source)?;
                let pem = text(
                    "public_key_file",
                    self.public_key.as_deref(),
                    self.public_key_file.as_deref(),
                )?;
                let key = VerificationKey::from_pem(self.algorithm("RS256")?, pem.as_bytes());
                self.named(key.map_err(|error| renamed_key(error, source))?)
            }
            "jwk_set" | "jwk_set_file" => {
                self.refuse_algorithm(source)?;
                self.refuse_remote(source)?;
                let set = self.jwk_set.as_ref().map(SecretText::expose);
                let set = text("jwk_set_file", set, self.jwk_set_file.as_deref())?;
                KeySet::from_jwk_set(&set)
                    .map(KeyMaterial::Set)
                    .map_err(|error| error.renamed(source))
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
        let mut jwks = jwks.map_err(|error| error.renamed(source))?;
        if let Some(secs) = self.jwks_max_age_secs {
            jwks = jwks.with_max_age(Duration::from_secs(secs));
        }
        if let Some(secs) = self.jwks_cooldown_secs {
            jwks = jwks.with_cooldown(Duration::from_secs(secs));
        }
        if let Some(secs) = self.jwks_outage_grace_secs {
            jwks = jwks.with_outage_grace(Duration::from_secs(secs));
        }
        if let Some(ms) = self.jwks_timeout_ms {
            jwks = jwks.with_timeout(Duration::from_millis(ms));
        }
        if let Some(path) = &self.jwks_root_certificates_file {
            jwks = jwks
                .with_root_certificates(text("root_certificates", None, Some(path))?.as_bytes())?;
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

    fn algorithm(&self, example: &str) -> Result<super::Algorithm, ConfigError> {
        let Some(name) = &self.algorithm else {
            return Err(ConfigError::new(
                "algorithm",
                format!("is missing; name the one algorithm of the key, such as {example}"),
            ));
        };
        name.parse()
    }

    /// A set names the algorithms itself, and one that is silently ignored would be misleading.
    fn refuse_algorithm(&self, source: &'static str) -> Result<(), ConfigError> {
        for (setting, is_given) in
            [("algorithm", self.algorithm.is_some()), ("kid", self.key_id.is_some())]
        {
            if is_given {
                return Err(ConfigError::new(
                    setting,
                    format!(
                        "has no effect on {}, whose keys name theirs; leave it out",
                        self.word(source)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Nor are fixed keys ever fetched.
    fn refuse_remote(&self, source: &'static str) -> Result<(), ConfigError> {
        for (setting, is_given) in [
            ("max_age", self.jwks_max_age_secs.is_some()),
            ("cooldown", self.jwks_cooldown_secs.is_some()),
            ("outage_grace", self.jwks_outage_grace_secs.is_some()),
            ("timeout", self.jwks_timeout_ms.is_some()),
            ("root_certificates", self.jwks_root_certificates_file.is_some()),
            ("proxy", self.jwks_proxy.is_some()),
        ] {
            if is_given {
                return Err(ConfigError::new(
                    setting,
                    format!(
                        "has no effect on {}, which is not fetched; leave it out",
                        self.word(source)
                    ),
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

    fn in_its_words(&self, error: ConfigError) -> ConfigError {
        in_words(&NAMES, self.is_from_env, error)
    }

    fn word(&self, setting: &str) -> &'static str {
        let name = NAMES.iter().find(|name| name.setting == setting);
        name.map_or("", |name| if self.is_from_env { name.variable } else { name.field })
    }
}

/// A list that must be there: an empty one would accept everything, and may be a slip of the pen.
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
                "has a kind that is not one of user, session, device, family, client, claim and \
                 none",
            ));
        }
    }))
}

/// What is said about a key is said about the setting that it came from.
fn renamed_key(error: ConfigError, source: &'static str) -> ConfigError {
    if error.setting() == "key" { error.renamed(source) } else { error }
}

fn text(
    file_setting: &'static str,
    text: Option<&str>,
    file: Option<&str>,
) -> Result<String, ConfigError> {
    Ok(file_or_text(file_setting, text, file)?.unwrap_or_default())
}

// Without a crypto provider there are no keys, and so no verifiers.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;
