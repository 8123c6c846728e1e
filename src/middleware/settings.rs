//! A layer from environment variables or a configuration file.

use std::time::Duration;

use serde::Deserialize;

use super::layer::JwtRevocationLayer;
use crate::config::{ConfigError, Vars};
use crate::policy::FailMode;

/// What a layer needs to know beside its verifier and its store, as configuration files and environment variables say
/// it. All of it is optional.
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `JWT_FAIL_MODE` | `fail_mode` | `closed` or `open`, see [`JwtRevocationLayer::with_fail_mode`] |
/// | `JWT_OPTIONAL_CREDENTIALS` | `optional_credentials` | `true` or `false`, see [`JwtRevocationLayer::with_optional_credentials`] |
/// | `JWT_REPORT_ONLY` | `report_only` | `true` or `false`, see [`JwtRevocationLayer::with_report_only`] |
/// | `JWT_REALM` | `realm` | see [`JwtRevocationLayer::with_realm`] |
/// | `JWT_RESOURCE_METADATA` | `resource_metadata` | see [`JwtRevocationLayer::with_resource_metadata`] |
/// | `JWT_RETRY_AFTER_SECS` | `retry_after_secs` | see [`JwtRevocationLayer::with_retry_after`] |
/// | `JWT_ERROR_DESCRIPTIONS` | `error_descriptions` | `true` or `false`, see [`JwtRevocationLayer::with_error_descriptions`] |
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
    pub optional_credentials: bool,
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

impl LayerConfig {
    /// From the environment.
    ///
    /// # Errors
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, or has a value that it cannot have.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&Vars::of_process())
    }

    fn from_vars(vars: &Vars<'_>) -> Result<Self, ConfigError> {
        let fail_mode = vars
            .text("JWT_FAIL_MODE")?
            .map(|mode| mode.parse::<FailMode>().map_err(|error| error.renamed("JWT_FAIL_MODE")));
        Ok(Self {
            fail_mode: fail_mode.transpose()?,
            optional_credentials: vars.flag("JWT_OPTIONAL_CREDENTIALS")?,
            report_only: vars.flag("JWT_REPORT_ONLY")?,
            realm: vars.text("JWT_REALM")?,
            resource_metadata: vars.text("JWT_RESOURCE_METADATA")?,
            retry_after_secs: vars.number("JWT_RETRY_AFTER_SECS")?,
            error_descriptions: vars.flag("JWT_ERROR_DESCRIPTIONS")?,
            is_from_env: true,
        })
    }
}

impl<A> JwtRevocationLayer<A> {
    /// Sets what `config` says; what it leaves open stays as it is.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field or the variable that cannot work.
    pub fn with_config(mut self, config: &LayerConfig) -> Result<Self, ConfigError> {
        let name =
            |error: ConfigError, variable| if config.is_from_env { error.renamed(variable) } else { error };
        if let Some(mode) = config.fail_mode {
            self = self.with_fail_mode(mode);
        }
        if config.optional_credentials {
            self = self.with_optional_credentials();
        }
        if config.report_only {
            self = self.with_report_only();
        }
        if let Some(realm) = &config.realm {
            self = self.with_realm(realm).map_err(|error| name(error, "JWT_REALM"))?;
        }
        if let Some(url) = &config.resource_metadata {
            self = self.with_resource_metadata(url).map_err(|error| name(error, "JWT_RESOURCE_METADATA"))?;
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
    use crate::store::memory::MemoryStore;
    use crate::token::{TokenProfile, UpstreamClaims};

    fn from(vars: &[(&str, &str)]) -> Result<LayerConfig, ConfigError> {
        let find =
            |name: &str| Ok(vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()));
        LayerConfig::from_vars(&Vars::new(&find))
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
            ("JWT_OPTIONAL_CREDENTIALS", "true"),
            ("JWT_REPORT_ONLY", "true"),
            ("JWT_REALM", "shop"),
            ("JWT_RESOURCE_METADATA", "https://shop.example/.well-known/oauth-protected-resource"),
            ("JWT_RETRY_AFTER_SECS", "7"),
            ("JWT_ERROR_DESCRIPTIONS", "true"),
        ]);
        let fields: LayerConfig = serde_json::from_str(
            r#"{"fail_mode": "open", "optional_credentials": true, "report_only": true, "realm": "shop",
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
        for part in ["Open", "Optional", "ReportOnly", "shop"] {
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
        for (name, value) in [("JWT_REALM", "é"), ("JWT_RESOURCE_METADATA", "http://shop.example/")] {
            let config = from(&[(name, value)]).unwrap();
            assert_eq!(layer().with_config(&config).unwrap_err().setting(), name);
        }
        serde_json::from_str::<LayerConfig>(r#"{"fail_mod": "open"}"#).unwrap_err();
        serde_json::from_str::<LayerConfig>(r#"{"fail_mode": "ajar"}"#).unwrap_err();
    }
}
