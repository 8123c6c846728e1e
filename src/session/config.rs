//! The policy of refresh tokens from environment variables or a configuration file.

use std::time::Duration;

use serde::Deserialize;

use super::family::RefreshPolicy;
use crate::config::{ApplySettings, ConfigError, ConfigOrigin, Configuration, EnvVars};

/// The settings of a [`RefreshPolicy`], for configuration files and environment variables. All of
/// them are optional.
///
/// The variable of a field is `JWT_REFRESH_` and the name of the field in capitals, such as
/// `JWT_REFRESH_LIFETIME_SECS`. An error names the variable, or the field, and the remedy. An
/// unknown field is an error. So is a misspelt variable: one with almost the name of a variable
/// that is not set.
///
/// ```
/// use tower_jwt_revocation::session::RefreshConfig;
///
/// # fn f() -> Result<(), tower_jwt_revocation::ConfigError> {
/// let policy = RefreshConfig::from_env()?.policy()?; // Sessions::new(store, revoker, policy)?
/// # let _ = policy; Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "a file has no better word for yes and no")]
pub struct RefreshConfig {
    /// How long a refresh token is valid if it is not used, in seconds, 1 to ten years. Default:
    /// 1209600, which is 14 days.
    pub lifetime_secs: Option<u64>,
    /// Longest age of a family, however often it is refreshed, in seconds, 1 to ten years. Default:
    /// 7776000, which is 90 days.
    pub max_age_secs: Option<u64>,
    /// Whether a family that is refreshed in time never expires. Default: false.
    pub unlimited_age: bool,
    /// For how long after a rotation the replaced token still gets the same successor, in seconds,
    /// 0 to 300. Default: 10.
    pub grace_secs: Option<u64>,
    /// Whether a replaced token gets a new successor once, also after the grace, if its successor
    /// was never used. Default: false.
    pub recovery: bool,
    /// Whether a token stays the same for the lifetime of its family, so that a copied one is never
    /// noticed. Default: false.
    pub without_rotation: bool,
    /// Whether reuse is only reported and the family goes on, to see what would happen. Default:
    /// false.
    pub report_only: bool,
    #[serde(skip)]
    origin: ConfigOrigin,
}

impl Configuration for RefreshConfig {
    fn variable_prefix(_: &str) -> &'static str {
        "JWT_REFRESH_"
    }

    fn field_of(setting: &str) -> &str {
        match setting {
            "idle_lifetime" => "lifetime_secs",
            "max_age" => "max_age_secs",
            "grace" => "grace_secs",
            same => same,
        }
    }
}

impl RefreshConfig {
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

    /// The policy with these settings.
    ///
    /// # Errors
    /// [`ConfigError`] naming what cannot work.
    pub fn policy(&self) -> Result<RefreshPolicy, ConfigError> {
        self.build().map_err(|error| self.origin.rename::<Self>(error))
    }

    fn build(&self) -> Result<RefreshPolicy, ConfigError> {
        if self.unlimited_age && self.max_age_secs.is_some() {
            let other = self.origin.name::<Self>("unlimited_age");
            let problem = format!("is set together with {other}; leave one of them out");
            return Err(ConfigError::new("max_age", problem));
        }
        let secs = Duration::from_secs;
        let policy = RefreshPolicy::new()
            .apply_some(self.lifetime_secs.map(secs), RefreshPolicy::with_idle_lifetime)
            .apply_some(self.max_age_secs.map(secs), RefreshPolicy::with_max_age)
            .apply_if(self.unlimited_age, RefreshPolicy::without_max_age)
            .apply_some(self.grace_secs.map(secs), RefreshPolicy::with_grace)
            .apply_if(self.recovery, RefreshPolicy::with_recovery)
            .apply_if(self.without_rotation, RefreshPolicy::without_rotation)
            .apply_if(self.report_only, RefreshPolicy::with_report_only);
        policy.validate()?;
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::family::{DEFAULT_GRACE, DEFAULT_IDLE_LIFETIME, DEFAULT_MAX_AGE};
    use super::*;
    use crate::config::docs::{self, SetBy};

    fn policy(vars: &[(&str, &str)]) -> Result<RefreshPolicy, ConfigError> {
        RefreshConfig::from_vars(&vars.iter().copied().collect())?.policy()
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(format!("{:?}", policy(&[]).unwrap()), format!("{:?}", RefreshPolicy::new()));
    }

    #[test]
    fn what_cannot_work_is_named_with_a_remedy() {
        for (vars, setting, remedy) in [
            (&[("JWT_REFRESH_GRACE_SECS", "301")][..], "JWT_REFRESH_GRACE_SECS", "300 s"),
            (&[("JWT_REFRESH_MAX_AGE_SECS", "0")], "JWT_REFRESH_MAX_AGE_SECS", "one second"),
            (&[("JWT_REFRESH_GRACE", "5")], "JWT_REFRESH_GRACE_SECS", "is not set, but"),
            (
                &[("JWT_REFRESH_MAX_AGE_SECS", "9"), ("JWT_REFRESH_UNLIMITED_AGE", "true")],
                "JWT_REFRESH_MAX_AGE_SECS",
                "JWT_REFRESH_UNLIMITED_AGE; leave one",
            ),
        ] {
            let error = policy(vars).unwrap_err();
            assert_eq!(error.setting(), setting, "{error}");
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }

    #[test]
    fn each_setting_is_documented() {
        docs::assert_documented::<RefreshConfig>(
            "RefreshConfig",
            include_str!("config.rs"),
            &[
                ("lifetime_secs", &DEFAULT_IDLE_LIFETIME.as_secs()),
                ("max_age_secs", &DEFAULT_MAX_AGE.as_secs()),
                ("grace_secs", &DEFAULT_GRACE.as_secs()),
            ],
        );
    }

    #[test]
    fn each_setting_has_the_same_effect_from_a_variable_and_from_a_file() {
        docs::assert_effective::<RefreshConfig>(
            &[
                ("lifetime_secs", json!(60), json!({})),
                ("max_age_secs", json!(600), json!({})),
                ("unlimited_age", json!(true), json!({})),
                ("grace_secs", json!(0), json!({})),
                ("recovery", json!(true), json!({})),
                ("without_rotation", json!(true), json!({})),
                ("report_only", json!(true), json!({})),
            ],
            |config| Ok(format!("{:?}", config.policy()?)),
        );
    }

    #[test]
    fn no_setter_is_forgotten() {
        docs::assert_settable::<RefreshConfig>(
            include_str!("family.rs"),
            &[
                ("with_grace", SetBy::Field("grace_secs")),
                ("with_recovery", SetBy::Field("recovery")),
                ("without_rotation", SetBy::Field("without_rotation")),
                ("with_idle_lifetime", SetBy::Field("lifetime_secs")),
                ("with_max_age", SetBy::Field("max_age_secs")),
                ("without_max_age", SetBy::Field("unlimited_age")),
                ("with_report_only", SetBy::Field("report_only")),
            ],
        );
    }
}
