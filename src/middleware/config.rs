//! A layer from environment variables or a configuration file.

use std::time::Duration;

use serde::Deserialize;

use super::layer::JwtRevocationLayer;
use crate::config::{ConfigError, Name, Vars, in_words};
use crate::policy::FailMode;
use crate::token::bearer::TokenSource;

/// What a layer needs to know beside its verifier and its store, as configuration files and
/// environment variables say it. All of it is optional.
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_FAIL_MODE` | `fail_mode` | `closed` or `open`, see [`JwtRevocationLayer::with_fail_mode`] |
/// | `JWT_TOKEN_SOURCES` | `token_sources` | `bearer`, `cookie:<name>`, or several, see [`JwtRevocationLayer::with_token_sources`] |
/// | `JWT_OPTIONAL_CREDENTIALS` | `optional_credentials` | `true` or `false`, see [`JwtRevocationLayer::with_optional_credentials`] |
/// | `JWT_CORS_PREFLIGHT` | `cors_preflight` | `true` or `false`, see [`JwtRevocationLayer::with_cors_preflight`] |
/// | `JWT_REPORT_ONLY` | `report_only` | `true` or `false`, see [`JwtRevocationLayer::with_report_only`] |
/// | `JWT_REALM` | `realm` | see [`JwtRevocationLayer::with_realm`] |
/// | `JWT_RESOURCE_METADATA` | `resource_metadata` | see [`JwtRevocationLayer::with_resource_metadata`] |
/// | `JWT_RETRY_AFTER_SECS` | `retry_after_secs` | see [`JwtRevocationLayer::with_retry_after`] |
/// | `JWT_ERROR_DESCRIPTIONS` | `error_descriptions` | `true` or `false`, see [`JwtRevocationLayer::with_error_descriptions`] |
///
/// What is a closure or a type stays in the code: exemptions, a fail mode per request, bodies of
/// refusals, the audit. A variable that looks like one of these and is not is an error, and so is
/// an unknown field.
///
/// ```
/// use tower_jwt_revocation::middleware::LayerConfig;
/// use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore, TokenVerifier};
///
/// # fn f(verifier: impl TokenVerifier) -> Result<(), tower_jwt_revocation::ConfigError> {
/// let layer = JwtRevocationLayer::new(verifier, MemoryStore::new()).with_config(&LayerConfig::from_env()?)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "a file has no better word for yes and no")]
pub struct LayerConfig {
    /// See the table.
    pub fail_mode: Option<FailMode>,
    /// See the table.
    pub token_sources: Vec<String>,
    /// See the table.
    pub optional_credentials: bool,
    /// See the table.
    pub cors_preflight: bool,
    /// See the table.
    pub report_only: bool,
    /// See the table.
    pub realm: Option<String>,
    /// See the table.
    pub resource_metadata: Option<String>,
    /// See the table.
    pub retry_after_secs: Option<u64>,
    /// See the table.
    pub error_descriptions: bool,
    #[serde(skip)]
    is_from_env: bool,
}

const NAMES: [Name; 9] = [
    Name::new("fail_mode", "fail_mode", "JWT_FAIL_MODE"),
    Name::new("cookie", "token_sources", "JWT_TOKEN_SOURCES"),
    Name::new("optional_credentials", "optional_credentials", "JWT_OPTIONAL_CREDENTIALS"),
    Name::new("cors_preflight", "cors_preflight", "JWT_CORS_PREFLIGHT"),
    Name::new("report_only", "report_only", "JWT_REPORT_ONLY"),
    Name::new("realm", "realm", "JWT_REALM"),
    Name::new("resource_metadata", "resource_metadata", "JWT_RESOURCE_METADATA"),
    Name::new("retry_after", "retry_after_secs", "JWT_RETRY_AFTER_SECS"),
    Name::new("error_descriptions", "error_descriptions", "JWT_ERROR_DESCRIPTIONS"),
];

impl LayerConfig {
    /// From the environment.
    ///
    /// # Errors
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, or has a value that it
    /// cannot have; or one that is not set while another is that looks like it.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&Vars::of_process())
    }

    fn from_vars(vars: &Vars<'_>) -> Result<Self, ConfigError> {
        vars.refuse_slips(&NAMES)?;
        let fail_mode = vars
            .text("JWT_FAIL_MODE")?
            .map(|mode| mode.parse::<FailMode>().map_err(|error| error.renamed("JWT_FAIL_MODE")));
        Ok(Self {
            fail_mode: fail_mode.transpose()?,
            token_sources: vars.list("JWT_TOKEN_SOURCES")?,
            optional_credentials: vars.flag("JWT_OPTIONAL_CREDENTIALS")?,
            cors_preflight: vars.flag("JWT_CORS_PREFLIGHT")?,
            report_only: vars.flag("JWT_REPORT_ONLY")?,
            realm: vars.text("JWT_REALM")?,
            resource_metadata: vars.text("JWT_RESOURCE_METADATA")?,
            retry_after_secs: vars.number("JWT_RETRY_AFTER_SECS")?,
            error_descriptions: vars.flag("JWT_ERROR_DESCRIPTIONS")?,
            is_from_env: true,
        })
    }

    fn sources(&self) -> Result<Vec<TokenSource>, ConfigError> {
        let source = |word: &String| match word.split_once(':') {
            None if word == "bearer" => Ok(TokenSource::bearer()),
            Some(("cookie", name)) => TokenSource::cookie(name),
            _ => Err(ConfigError::new("cookie", "is not one of `bearer` and `cookie:<name>`")),
        };
        self.token_sources.iter().map(source).collect()
    }
}

impl<A> JwtRevocationLayer<A> {
    /// Sets what `config` says; what it leaves open stays as it is.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field or the variable that cannot work.
    pub fn with_config(mut self, config: &LayerConfig) -> Result<Self, ConfigError> {
        let in_its_words = |error| in_words(&NAMES, config.is_from_env, error);
        if let Some(mode) = config.fail_mode {
            self = self.with_fail_mode(mode);
        }
        if !config.token_sources.is_empty() {
            self = self.with_token_sources(config.sources().map_err(in_its_words)?);
        }
        if config.optional_credentials {
            self = self.with_optional_credentials();
        }
        if config.cors_preflight {
            self = self.with_cors_preflight();
        }
        if config.report_only {
            self = self.with_report_only();
        }
        if let Some(realm) = &config.realm {
            self = self.with_realm(realm).map_err(in_its_words)?;
        }
        if let Some(url) = &config.resource_metadata {
            self = self.with_resource_metadata(url).map_err(in_its_words)?;
        }
        if let Some(secs) = config.retry_after_secs {
            self = self.with_retry_after(Duration::from_secs(secs));
        }
        if config.error_descriptions {
            self = self.with_error_descriptions();
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::docs::{self, Setter};
    use crate::store::memory::MemoryStore;
    use crate::token::{TokenProfile, UpstreamClaims};

    fn from(vars: &[(&str, &str)]) -> Result<LayerConfig, ConfigError> {
        Vars::with(vars, LayerConfig::from_vars)
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
    fn variables_and_fields_say_the_same() {
        let vars = from(&[
            ("JWT_FAIL_MODE", "open"),
            ("JWT_TOKEN_SOURCES", "bearer, cookie:__Host-token"),
            ("JWT_OPTIONAL_CREDENTIALS", "true"),
            ("JWT_CORS_PREFLIGHT", "true"),
            ("JWT_REPORT_ONLY", "true"),
            ("JWT_REALM", "shop"),
            ("JWT_RESOURCE_METADATA", "https://shop.example/.well-known/oauth-protected-resource"),
            ("JWT_RETRY_AFTER_SECS", "7"),
            ("JWT_ERROR_DESCRIPTIONS", "true"),
        ]);
        let fields: LayerConfig = serde_json::from_str(
            r#"{"fail_mode": "open", "token_sources": ["bearer", "cookie:__Host-token"], "cors_preflight": true, "optional_credentials": true, "report_only": true, "realm": "shop",
                "resource_metadata": "https://shop.example/.well-known/oauth-protected-resource",
                "retry_after_secs": 7, "error_descriptions": true}"#,
        )
        .unwrap();
        let by_vars = format!("{:?}", layer().with_config(&vars.unwrap()).unwrap());
        assert_eq!(by_vars, format!("{:?}", layer().with_config(&fields).unwrap()));
        for setter in [
            layer().with_fail_mode("open".parse().unwrap()),
            layer().with_optional_credentials(),
            layer().with_report_only(),
        ] {
            assert_ne!(format!("{setter:?}"), by_vars, "one of many is not all");
        }
        for part in
            ["Open", "Bearer", "Cookie", "__Host-token", "Optional", "Passed", "ReportOnly", "shop"]
        {
            assert!(by_vars.contains(part), "{part}: {by_vars}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_is_named_by_its_variable() {
        for (name, value) in [
            ("JWT_FAIL_MODE", "Open"),
            ("JWT_FAIL_MODE", ""),
            ("JWT_REPORT_ONLY", "1"),
            ("JWT_RETRY_AFTER_SECS", "-1"),
            ("JWT_RETRY_AFTER_SECS", "1s"),
        ] {
            assert_eq!(from(&[(name, value)]).unwrap_err().setting(), name, "{value}");
        }
        for (name, value) in [
            ("JWT_REALM", "é"),
            ("JWT_TOKEN_SOURCES", "header:x"),
            ("JWT_TOKEN_SOURCES", "cookie:"),
            ("JWT_TOKEN_SOURCES", "Bearer"),
            ("JWT_RESOURCE_METADATA", "http://shop.example/"),
        ] {
            let config = from(&[(name, value)]).unwrap();
            assert_eq!(layer().with_config(&config).unwrap_err().setting(), name);
        }
        serde_json::from_str::<LayerConfig>(r#"{"fail_mod": "open"}"#).unwrap_err();
        serde_json::from_str::<LayerConfig>(r#"{"fail_mode": "ajar"}"#).unwrap_err();
    }
    #[test]
    fn a_slip_of_the_pen_is_reported() {
        let error = from(&[("JWT_FAILMODE", "closed")]).unwrap_err();
        assert_eq!(error.setting(), "JWT_FAIL_MODE");
    }

    #[test]
    fn names_fields_and_documents_agree_and_no_setter_is_forgotten() {
        docs::assert_complete::<LayerConfig>(&NAMES, include_str!("config.rs"), "The layer");
        let closure = "asks a closure about each request, which no text can say";
        docs::assert_settable(
            &NAMES,
            include_str!("layer.rs"),
            &[
                ("with_fail_mode", Setter::Field("fail_mode")),
                ("with_fail_mode_for", Setter::InCode(closure)),
                ("with_token_source", Setter::Field("token_sources")),
                ("with_token_sources", Setter::Field("token_sources")),
                ("with_optional_credentials", Setter::Field("optional_credentials")),
                ("with_exemption", Setter::InCode(closure)),
                ("with_cors_preflight", Setter::Field("cors_preflight")),
                ("with_report_only", Setter::Field("report_only")),
                ("with_realm", Setter::Field("realm")),
                ("with_resource_metadata", Setter::Field("resource_metadata")),
                ("with_retry_after", Setter::Field("retry_after_secs")),
                ("with_error_descriptions", Setter::Field("error_descriptions")),
                (
                    "without_clearance",
                    Setter::InCode("is about the handlers behind the layer, which are code too"),
                ),
                ("with_response", Setter::InCode("changes the type of the layer")),
                ("with_audit", Setter::InCode("takes a sink, which is a value of the program")),
            ],
        );
    }
}
