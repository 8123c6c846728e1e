//! Configurations that cannot work: the error that names the setting and the remedy. And the reader
//! of settings from environment variables.

#[cfg(test)]
pub(crate) mod docs;
mod env;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};

use crate::error_chain::ErrorChain;

pub(crate) use env::{ConfigOrigin, Configuration, EnvVars};

/// A setting that cannot work, found when a verifier, a store or a layer is built.
///
/// `Display` names the setting and the remedy: `issuer: is empty; name the issuer …`. It never
/// holds a secret.
#[derive(Clone)]
pub struct ConfigError {
    setting: Cow<'static, str>,
    problem: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ConfigError {
    pub(crate) fn new(setting: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same problem of what is called otherwise elsewhere.
    pub(crate) fn renamed(mut self, setting: impl Into<Cow<'static, str>>) -> Self {
        self.setting = setting.into();
        self
    }

    /// What [`Error::source`] returns, for an error that tells this one's text.
    #[cfg(feature = "jwks")]
    pub(crate) fn shared_source(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        self.source.clone()
    }

    /// The name of the setting: the method without `with_`, the field, or the environment variable,
    /// depending on how it was set.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

/// As `Display`, with the causes: this is what a `main` that returns the error shows.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&ErrorChain(self), f)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A secret text, such as a password. `Debug` does not show it.
#[derive(Clone)]
pub struct SecretText(Box<str>);

impl SecretText {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

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

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The cause would quote a password that is a number in YAML.
        let text = String::deserialize(deserializer);
        text.map(Self::from).map_err(|_| de::Error::custom("a secret is not a text in quotes"))
    }
}

/// Calls setters of a builder, for settings that a configuration may leave open.
pub(crate) trait ApplySettings: Sized {
    /// Calls the setter `with` if `flag` is set.
    fn apply_if(self, flag: bool, with: impl FnOnce(Self) -> Self) -> Self {
        if flag { with(self) } else { self }
    }

    /// Calls the setter `with` if there is a value.
    fn apply_some<V>(self, value: Option<V>, with: impl FnOnce(Self, V) -> Self) -> Self {
        match value {
            Some(value) => with(self, value),
            None => self,
        }
    }
}

impl<B> ApplySettings for B {}

/// Reads what is written as a word, as its `FromStr` does.
pub(crate) fn from_word<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = ConfigError>,
{
    // The reader names the variable, or the line of the file.
    let word = String::deserialize(deserializer)?;
    word.parse().map_err(|error: ConfigError| de::Error::custom(error.problem))
}

/// What is wrong with a setting that should name a file, and does not name one that can be read.
pub(crate) fn names_unreadable(path: &str) -> String {
    // What is no path may be the secret itself, where its file was to be named.
    let may_be_shown = path.starts_with('/')
        && path.len() < 256
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    if may_be_shown {
        format!("names {path}, which cannot be read as text")
    } else {
        "names no file that can be read as text; give its path, not its content".into()
    }
}

/// The text itself, or the content of the file, without the line break at its end.
pub(crate) fn text_or_file(
    text: Option<&str>,
    file: Option<&str>,
    file_setting: &'static str,
) -> Result<Option<String>, ConfigError> {
    let (None, Some(path)) = (text, file) else { return Ok(text.map(Into::into)) };
    let mut text = std::fs::read_to_string(path).map_err(|error| {
        let problem = names_unreadable(path);
        ConfigError::new(file_setting, problem).with_source(error)
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_in_place_of_the_path_of_a_file_is_not_quoted() {
        let told = |path: &str| {
            let error = text_or_file(None, Some(path), "redis.password_file").unwrap_err();
            error.to_string()
        };
        assert!(told("/nowhere/secret.txt").contains("/nowhere/secret.txt"));
        for secret in ["hunter2", "-----BEGIN PRIVATE KEY-----\nabc", "{\"keys\":[]}", "/a+b="] {
            let told = told(secret);
            assert!(!told.contains(secret) && told.contains("its path"), "{told}");
        }
    }

    #[test]
    fn an_error_about_a_secret_does_not_quote_it() {
        for number in ["20261130", "-20261130", "20261130.5", "[20261130]"] {
            let error = serde_json::from_str::<SecretText>(number).unwrap_err().to_string();
            assert!(
                error.contains("a secret is not a text in quotes") && !error.contains("2026"),
                "{error}"
            );
        }
    }
}
