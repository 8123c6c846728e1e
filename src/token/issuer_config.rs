//! An issuer from environment variables or a configuration file.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::issue::TokenIssuer;
use super::jwt::SigningKey;
use super::{Algorithm, TokenProfile};
use crate::config::{ConfigError, ConfigOrigin, Configuration, EnvVars, SecretText, text_or_file};

/// The settings of a [`TokenIssuer`] with its key, for configuration files and environment
/// variables. Issuer and audience of its tokens come from the [`TokenProfile`], which
/// [`VerifierConfig::profile`](super::VerifierConfig::profile) reads.
///
/// The variable of a field is `JWT_SIGNING_` and the name of the field in capitals, such as
/// `JWT_SIGNING_PRIVATE_KEY_FILE`; the one of the lifetime is `JWT_ACCESS_LIFETIME_SECS`. Exactly
/// one source of the key is required. An error names the variable, or the field, and the remedy. An
/// unknown field is an error. So is a misspelt variable: one with almost the name of a variable
/// that is not set.
///
/// ```no_run
/// use tower_jwt_revocation::VerifierConfig;
/// use tower_jwt_revocation::token::IssuerConfig;
///
/// # fn f() -> Result<(), tower_jwt_revocation::ConfigError> {
/// let profile = VerifierConfig::from_env()?.profile()?;
/// let issuer = IssuerConfig::from_env()?.issuer(profile)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct IssuerConfig {
    /// Shared secret for HS256, HS384 or HS512, as text or as `base64:` and base64. At least as
    /// long as the hash: 32, 48 or 64 bytes. The verifiers have the same.
    pub secret: Option<SecretText>,
    /// Path of a file with the shared secret, in the same form.
    pub secret_file: Option<String>,
    /// Private key in PEM, for the algorithms with public keys (RS, PS, ES and `EdDSA`).
    pub private_key: Option<SecretText>,
    /// Path of a file with the private key in PEM.
    pub private_key_file: Option<String>,
    /// Private key or secret as a JSON Web Key (RFC 7517), which names its algorithm and its `kid`.
    pub jwk: Option<SecretText>,
    /// Path of a file with the JSON Web Key.
    pub jwk_file: Option<String>,
    /// The algorithm of the secret or of the key in PEM, such as `HS256`, `RS256`, `ES256` or
    /// `EdDSA`. Required with them.
    pub algorithm: Option<Algorithm>,
    /// Name of the secret or of the key in PEM: the `kid` of the tokens. Default: none.
    pub key_id: Option<String>,
    /// How long access tokens are valid, in seconds. Default: 900, which is 15 min, or less if the
    /// profile accepts less.
    pub access_lifetime_secs: Option<u64>,
    #[serde(skip)]
    origin: ConfigOrigin,
}

impl Configuration for IssuerConfig {
    fn variable_prefix(field: &str) -> &'static str {
        if field == "access_lifetime_secs" { "JWT_" } else { "JWT_SIGNING_" }
    }

    fn field_of(setting: &str) -> &str {
        match setting {
            "lifetime" => "access_lifetime_secs",
            "kid" => "key_id",
            same => same,
        }
    }
}

impl IssuerConfig {
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

    /// An issuer of tokens that `profile` accepts. A verifier in the same program uses the
    /// [`verification_key`](SigningKey::verification_key) of the
    /// [`signing_key`](Self::signing_key).
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing or cannot work, or as [`TokenIssuer::new`].
    pub fn issuer(&self, profile: TokenProfile) -> Result<TokenIssuer, ConfigError> {
        let key = self.signing_key()?;
        let issuer = TokenIssuer::new(key, profile)?;
        let Some(lifetime) = self.access_lifetime_secs else { return Ok(issuer) };
        let issuer = issuer.with_lifetime(Duration::from_secs(lifetime));
        issuer.map_err(|error| self.origin.rename::<Self>(error))
    }

    /// The key with which tokens are signed.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing or cannot work.
    pub fn signing_key(&self) -> Result<SigningKey, ConfigError> {
        self.key().map_err(|error| self.origin.rename::<Self>(error))
    }

    fn key(&self) -> Result<SigningKey, ConfigError> {
        let texts = [
            ("secret", &self.secret, "secret_file", &self.secret_file),
            ("private_key", &self.private_key, "private_key_file", &self.private_key_file),
            ("jwk", &self.jwk, "jwk_file", &self.jwk_file),
        ];
        let sources = texts.iter().flat_map(|(name, text, file_name, file)| {
            [text.is_some().then_some(*name), file.is_some().then_some(*file_name)]
        });
        let mut sources = sources.flatten();
        let source = sources.next().ok_or_else(|| {
            let names = texts.map(|(name, _, file_name, _)| {
                [name, file_name].map(|name| self.origin.name::<Self>(name)).join(", ")
            });
            ConfigError::new("key", format!("there is none; set one of {}", names.join(", ")))
        })?;
        if let Some(other) = sources.next() {
            let other = self.origin.name::<Self>(other);
            let problem = format!("is set together with {other}; leave one of them out");
            return Err(ConfigError::new(source, problem));
        }
        let read = |text: &Option<SecretText>, file: &Option<String>| {
            let text = text.as_ref().map(SecretText::expose);
            text_or_file(text, file.as_deref(), source).map(Option::unwrap_or_default)
        };
        let key = match source {
            "secret" | "secret_file" => {
                let secret = read(&self.secret, &self.secret_file)?;
                let secret = match secret.strip_prefix("base64:") {
                    Some(encoded) => STANDARD.decode(encoded).map_err(|_| {
                        ConfigError::new(source, "says `base64:` and is not base64")
                    })?,
                    None => secret.into_bytes(),
                };
                SigningKey::from_secret(self.algorithm("HS256")?, &secret)
            }
            "private_key" | "private_key_file" => {
                let pem = read(&self.private_key, &self.private_key_file)?;
                SigningKey::from_pem(self.algorithm("RS256")?, pem.as_bytes())
            }
            _ => {
                let is_set =
                    [("algorithm", self.algorithm.is_some()), ("key_id", self.key_id.is_some())];
                if let Some((setting, _)) = is_set.iter().find(|(_, is_set)| *is_set) {
                    let problem = "has no effect on a JSON Web Key, which names its own";
                    return Err(ConfigError::new(*setting, problem));
                }
                SigningKey::from_jwk(&read(&self.jwk, &self.jwk_file)?)
            }
        };
        let key = key.map_err(|error| match error.setting() {
            "key" => error.renamed(source),
            _ => error,
        })?;
        match &self.key_id {
            Some(kid) => key.with_kid(kid.as_str()),
            None => Ok(key),
        }
    }

    fn algorithm(&self, example: &str) -> Result<Algorithm, ConfigError> {
        self.algorithm.ok_or_else(|| {
            let problem =
                format!("is missing; name the one algorithm of the key, such as {example}");
            ConfigError::new("algorithm", problem)
        })
    }
}

// Without a crypto provider there are no keys.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::docs;
    use crate::token::TokenVerifier as _;
    use crate::token::issue::{DEFAULT_LIFETIME, NewToken};
    use crate::token::jwt::JwtVerifier;

    const SECRET: &str = "hunter2 hunter2 hunter2 hunter2!";

    fn from(vars: &[(&str, &str)]) -> Result<IssuerConfig, ConfigError> {
        IssuerConfig::from_vars(&vars.iter().copied().collect())
    }

    #[track_caller]
    fn assert_names(vars: &[(&str, &str)], setting: &str, remedy: &str) {
        let made = from(vars).and_then(|config| config.issuer(TokenProfile::new()));
        let error = made.map(drop).unwrap_err();
        assert_eq!(error.setting(), setting, "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn what_is_issued_by_settings_is_accepted_by_their_key() {
        let config = from(&[
            ("JWT_SIGNING_SECRET", SECRET),
            ("JWT_SIGNING_ALGORITHM", "HS256"),
            ("JWT_SIGNING_KEY_ID", "2026-01"),
            ("JWT_ACCESS_LIFETIME_SECS", "60"),
        ])
        .unwrap();
        let profile = TokenProfile::new().with_issuer("https://id.example");
        let issuer = config.issuer(profile.clone()).unwrap();
        let key = config.signing_key().unwrap().verification_key();
        assert_eq!(key.kid(), Some("2026-01"));
        let verifier = JwtVerifier::new([key], profile).unwrap();
        let new = issuer.issue(&NewToken::new("alice")).unwrap();
        let token = verifier.verify(new.token()).unwrap();
        let lifetime = token.expires_at().as_secs() - token.issued_at().unwrap().as_secs();
        assert_eq!((token.subject(), lifetime), (Some("alice"), 60));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_a_remedy() {
        let secret = ("JWT_SIGNING_SECRET", SECRET);
        let hs256 = ("JWT_SIGNING_ALGORITHM", "HS256");
        assert_names(&[], "key", "JWT_SIGNING_PRIVATE_KEY_FILE");
        assert_names(&[secret], "JWT_SIGNING_ALGORITHM", "such as HS256");
        assert_names(
            &[secret, hs256, ("JWT_SIGNING_JWK", "{}")],
            "JWT_SIGNING_SECRET",
            "together with JWT_SIGNING_JWK",
        );
        assert_names(&[("JWT_SIGNING_SECRET", "hunter2"), hs256], "JWT_SIGNING_SECRET", "32");
        assert_names(
            &[("JWT_SIGNING_PRIVATE_KEY_FILE", "/nowhere/key"), ("JWT_SIGNING_ALGORITHM", "RS256")],
            "JWT_SIGNING_PRIVATE_KEY_FILE",
            "/nowhere/key, which cannot be read",
        );
        assert_names(&[("JWT_SIGNING_JWK", "{}"), hs256], "JWT_SIGNING_ALGORITHM", "no effect");
        assert_names(
            &[secret, hs256, ("JWT_ACCESS_LIFETIME_SECS", "90000")],
            "JWT_ACCESS_LIFETIME_SECS",
            "",
        );
        assert_names(
            &[secret, hs256, ("JWT_ACCESS_LIFETIME", "60")],
            "JWT_ACCESS_LIFETIME_SECS",
            "is not set, but",
        );
    }

    #[test]
    fn each_setting_is_documented() {
        docs::assert_documented::<IssuerConfig>(
            "IssuerConfig",
            include_str!("issuer_config.rs"),
            &[("access_lifetime_secs", &DEFAULT_LIFETIME.as_secs())],
        );
    }

    #[test]
    fn each_setting_has_the_same_effect_from_a_variable_and_from_a_file() {
        let secret = json!({"secret": SECRET, "algorithm": "HS256"});
        let jwk =
            r#"{"kty":"oct","alg":"HS256","k":"aHVudGVyMiBodW50ZXIyIGh1bnRlcjIgaHVudGVyMiE"}"#;
        docs::assert_effective::<IssuerConfig>(
            &[
                ("secret", json!(SECRET), json!({"algorithm": "HS256"})),
                ("secret_file", json!("/nowhere/secret"), json!({})),
                ("private_key", json!("no PEM"), json!({"algorithm": "RS256"})),
                ("private_key_file", json!("/nowhere/key"), json!({})),
                ("jwk", json!(jwk), json!({})),
                ("jwk_file", json!("/nowhere/jwk"), json!({})),
                ("algorithm", json!("HS256"), json!({"secret": SECRET})),
                ("key_id", json!("2026-01"), secret.clone()),
                ("access_lifetime_secs", json!(60), secret),
            ],
            |config| Ok(format!("{:?}", config.issuer(TokenProfile::new())?)),
        );
    }
}
