//! A layer from environment variables or a configuration file.

use std::time::Duration;

use serde::Deserialize;

use super::layer::JwtRevocationLayer;
use crate::config::{ApplySettings, ConfigError, ConfigOrigin, Configuration, EnvVars};
use crate::policy::FailMode;
use crate::token::bearer::TokenSource;

/// The settings of a [`JwtRevocationLayer`] beside its verifier and its store, for configuration
/// files and environment variables. All of them are optional.
///
/// The variable of a field is `JWT_` and the name of the field in capitals, such as
/// `JWT_FAIL_MODE`. An unknown field is an error. So is a misspelt variable: one with almost the
/// name of a variable that is not set.
///
/// Closures and types are set in code: exemptions, a fail mode per request, bodies of refusals, the
/// audit.
///
/// ```
/// use tower_jwt_revocation::token::TokenVerifier;
/// use tower_jwt_revocation::{JwtRevocationLayer, LayerConfig, MemoryStore};
///
/// # fn f(verifier: impl TokenVerifier) -> Result<(), tower_jwt_revocation::ConfigError> {
/// let layer = JwtRevocationLayer::new(verifier, MemoryStore::new());
/// let layer = layer.with_config(&LayerConfig::from_env()?)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "a file has no better word for yes and no")]
pub struct LayerConfig {
    /// What happens to a request whose token cannot be checked, because the store is out of reach:
    /// `closed` refuses it with 503; `open` lets it pass, marked as unchecked, so that revoked
    /// tokens work during an outage. Default: `closed`.
    pub fail_mode: Option<FailMode>,
    /// Where the token of a request may be, one or several: `bearer` (the header `Authorization`),
    /// `dpop` (the same header with the scheme `DPoP`), or `cookie:<name>`. A request with two
    /// different tokens in two places is refused. Default: `bearer`.
    pub token_sources: Vec<TokenSource>,
    /// Whether requests without credentials pass, without a `Clearance`. Bad credentials are still
    /// refused. Default: false.
    pub optional_credentials: bool,
    /// Whether tokens that are bound to a key of the client (`cnf`: DPoP, mTLS) are accepted
    /// without proof of the key. A stolen token then works, unless a layer further in checks the
    /// proof. Default: false.
    pub bound_tokens_as_bearer: bool,
    /// Whether CORS preflights pass unverified. Needed only if they are answered behind the layer;
    /// dangerous if what is behind it does not look at the method, such as tonic or a proxy.
    /// Default: false.
    pub cors_preflight: bool,
    /// Whether refusals are only counted, to try the layer on live traffic. Forged and revoked
    /// tokens pass then. Default: false.
    pub report_only: bool,
    /// The `realm` of the challenge: the name of the protected area, which clients and logs show.
    /// Printable ASCII characters. Default: `api`.
    pub realm: Option<String>,
    /// Absolute URL (https, or http on localhost) of the metadata of this resource (RFC 9728),
    /// which is added to the challenge. Default: none.
    pub resource_metadata: Option<String>,
    /// How long clients are to wait after a 503, in seconds. While the store settles after a change
    /// of server, up to two are added at random. Default: 1, about as long as a reconnect takes.
    pub retry_after_secs: Option<u64>,
    /// Whether clients are told that their token is expired, revoked or invalid. A thief then
    /// learns that the theft was noticed. Default: false.
    pub error_descriptions: bool,
    #[serde(skip)]
    origin: ConfigOrigin,
}

impl Configuration for LayerConfig {
    fn variable_prefix(_: &str) -> &'static str {
        "JWT_"
    }

    fn field_of(setting: &str) -> &str {
        setting
    }
}

impl LayerConfig {
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
}

impl<A> JwtRevocationLayer<A> {
    /// Applies the settings of `config`. Settings that it leaves open stay as they are.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field or the variable that cannot work.
    pub fn with_config(self, config: &LayerConfig) -> Result<Self, ConfigError> {
        self.configured(config).map_err(|error| config.origin.rename::<LayerConfig>(error))
    }

    fn configured(mut self, config: &LayerConfig) -> Result<Self, ConfigError> {
        if let Some(realm) = &config.realm {
            self = self.with_realm(realm)?;
        }
        if let Some(url) = &config.resource_metadata {
            self = self.with_resource_metadata(url)?;
        }
        let sources = Some(&config.token_sources).filter(|sources| !sources.is_empty());
        Ok(self
            .apply_some(config.fail_mode, Self::with_fail_mode)
            .apply_some(sources.cloned(), Self::with_token_sources)
            .apply_if(config.optional_credentials, Self::with_optional_credentials)
            .apply_if(config.bound_tokens_as_bearer, Self::allow_bound_tokens_as_bearer)
            .apply_if(config.cors_preflight, Self::with_cors_preflight)
            .apply_if(config.report_only, Self::with_report_only)
            .apply_some(config.retry_after_secs.map(Duration::from_secs), Self::with_retry_after)
            .apply_if(config.error_descriptions, Self::with_error_descriptions))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::response::{DEFAULT_REALM, DEFAULT_RETRY_AFTER};
    use super::*;
    use crate::config::docs::{self, SetBy};
    use crate::store::memory::MemoryStore;
    use crate::token::{TokenProfile, UpstreamClaims};

    fn from(vars: &[(&str, &str)]) -> Result<LayerConfig, ConfigError> {
        LayerConfig::from_vars(&vars.iter().copied().collect())
    }

    fn layer() -> JwtRevocationLayer {
        let claims = UpstreamClaims::in_extension::<u8>(TokenProfile::new()).unwrap();
        JwtRevocationLayer::behind(claims, MemoryStore::new())
    }

    #[test]
    fn nothing_set_is_the_default() {
        let default = format!("{:?}", layer());
        assert_eq!(format!("{:?}", layer().with_config(&from(&[]).unwrap()).unwrap()), default);
        assert_eq!(
            format!("{:?}", layer().with_config(&serde_json::from_str("{}").unwrap()).unwrap()),
            default
        );
        assert!(from(&[]).unwrap().fail_mode.is_none());
    }

    #[test]
    fn each_setting_is_documented() {
        docs::assert_documented::<LayerConfig>(
            "LayerConfig",
            include_str!("config.rs"),
            &[("realm", &DEFAULT_REALM), ("retry_after_secs", &DEFAULT_RETRY_AFTER.as_secs())],
        );
    }

    #[test]
    fn each_setting_has_the_same_effect_from_a_variable_and_from_a_file() {
        let url = "https://shop.example/.well-known/oauth-protected-resource";
        docs::assert_effective::<LayerConfig>(
            &[
                ("fail_mode", json!("open"), json!({})),
                ("token_sources", json!(["bearer", "dpop", "cookie:__Host-token"]), json!({})),
                ("optional_credentials", json!(true), json!({})),
                ("bound_tokens_as_bearer", json!(true), json!({})),
                ("cors_preflight", json!(true), json!({})),
                ("report_only", json!(true), json!({})),
                ("realm", json!("shop"), json!({})),
                ("resource_metadata", json!(url), json!({})),
                ("retry_after_secs", json!(7), json!({})),
                ("error_descriptions", json!(true), json!({})),
            ],
            |config| Ok(format!("{:?}", layer().with_config(config)?)),
        );
    }

    #[test]
    fn a_setting_is_the_same_as_its_setter() {
        let by_variables = from(&[
            ("JWT_FAIL_MODE", "open"),
            ("JWT_TOKEN_SOURCES", "bearer, dpop, cookie:__Host-token"),
            ("JWT_OPTIONAL_CREDENTIALS", "true"),
            ("JWT_BOUND_TOKENS_AS_BEARER", "true"),
            ("JWT_CORS_PREFLIGHT", "true"),
            ("JWT_REPORT_ONLY", "true"),
            ("JWT_REALM", "shop"),
            ("JWT_RESOURCE_METADATA", "https://shop.example/.well-known/oauth-protected-resource"),
            ("JWT_RETRY_AFTER_SECS", "7"),
            ("JWT_ERROR_DESCRIPTIONS", "true"),
        ]);
        let by_code = layer()
            .with_fail_mode("open".parse().unwrap())
            .with_token_sources([
                TokenSource::bearer(),
                TokenSource::dpop(),
                TokenSource::cookie("__Host-token").unwrap(),
            ])
            .with_optional_credentials()
            .allow_bound_tokens_as_bearer()
            .with_cors_preflight()
            .with_report_only()
            .with_realm("shop")
            .unwrap()
            .with_resource_metadata("https://shop.example/.well-known/oauth-protected-resource")
            .unwrap()
            .with_retry_after(Duration::from_secs(7))
            .with_error_descriptions();
        let by_variables = layer().with_config(&by_variables.unwrap()).unwrap();
        assert_eq!(format!("{by_variables:?}"), format!("{by_code:?}"));
    }

    #[test]
    fn a_value_that_cannot_be_is_named_by_its_variable() {
        for (name, value) in [
            ("JWT_FAIL_MODE", "Open"),
            ("JWT_FAIL_MODE", ""),
            ("JWT_REPORT_ONLY", "1"),
            ("JWT_RETRY_AFTER_SECS", "-1"),
            ("JWT_RETRY_AFTER_SECS", "1s"),
            ("JWT_TOKEN_SOURCES", "header:x"),
            ("JWT_TOKEN_SOURCES", "cookie:"),
            ("JWT_TOKEN_SOURCES", "Bearer"),
        ] {
            assert_eq!(from(&[(name, value)]).unwrap_err().setting(), name, "{value}");
        }
        for (name, value) in [("JWT_REALM", "é"), ("JWT_RESOURCE_METADATA", "http://shop.example/")]
        {
            let config = from(&[(name, value)]).unwrap();
            assert_eq!(layer().with_config(&config).unwrap_err().setting(), name);
        }
        let error = from(&[("JWT_FAIL_MODE", "ajar")]).unwrap_err().to_string();
        assert!(error.contains("write `closed` or `open`"), "{error}");
        let error = from(&[("JWT_TOKEN_SOURCES", "header:x")]).unwrap_err().to_string();
        assert!(error.contains("write `bearer`, `dpop` or `cookie:<name>`"), "{error}");
        serde_json::from_str::<LayerConfig>(r#"{"fail_mod": "open"}"#).unwrap_err();
        serde_json::from_str::<LayerConfig>(r#"{"fail_mode": "ajar"}"#).unwrap_err();
    }

    #[test]
    fn a_misspelt_name_is_reported() {
        let error = from(&[("JWT_FAILMODE", "closed")]).unwrap_err();
        assert_eq!(error.setting(), "JWT_FAIL_MODE");
    }

    #[test]
    fn no_setter_is_forgotten() {
        let closure = "asks a closure about each request, which no text can say";
        docs::assert_settable::<LayerConfig>(
            include_str!("layer.rs"),
            &[
                ("with_fail_mode", SetBy::Field("fail_mode")),
                ("with_fail_mode_for", SetBy::Code(closure)),
                ("with_audit_facts", SetBy::Code(closure)),
                ("with_token_source", SetBy::Field("token_sources")),
                ("with_token_sources", SetBy::Field("token_sources")),
                ("with_optional_credentials", SetBy::Field("optional_credentials")),
                ("with_exemption", SetBy::Code(closure)),
                ("allow_bound_tokens_as_bearer", SetBy::Field("bound_tokens_as_bearer")),
                ("with_proof_of_possession", SetBy::Code(closure)),
                ("with_cors_preflight", SetBy::Field("cors_preflight")),
                ("with_report_only", SetBy::Field("report_only")),
                ("with_realm", SetBy::Field("realm")),
                ("with_resource_metadata", SetBy::Field("resource_metadata")),
                ("with_retry_after", SetBy::Field("retry_after_secs")),
                ("with_error_descriptions", SetBy::Field("error_descriptions")),
                (
                    "without_clearance",
                    SetBy::Code("is about the handlers behind the layer, which are code too"),
                ),
                ("with_response", SetBy::Code("changes the type of the layer")),
                (
                    "with_user_ids_in_spans",
                    SetBy::Code("is about the traces of the program, which it sets up in code"),
                ),
                ("with_audit", SetBy::Code("takes a sink, which is a value of the program")),
            ],
        );
    }
}
