//! Configurations that cannot work: the error that says which setting, and what to do; and where
//! settings are read from.

mod vars;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::error_chain::ErrorChain;

#[cfg(test)]
pub(crate) use vars::docs;
pub(crate) use vars::{Name, Vars, file_or_text, in_words};

/// A setting that cannot work, found when a verifier, a store or a layer is built.
///
/// `Display` names the setting and the remedy: `issuer: is empty; name the issuer …`. It never
/// holds a secret.
#[derive(Clone)]
pub struct ConfigError {
    setting: &'static str,
    problem: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, problem: impl Into<String>) -> Self {
        Self { setting, problem: problem.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same problem of what is called otherwise elsewhere.
    pub(crate) fn renamed(mut self, setting: &'static str) -> Self {
        self.setting = setting;
        self
    }

    /// What [`Error::source`] returns, for an error that tells this one's text.
    #[cfg(feature = "jwks")]
    pub(crate) fn shared_source(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        self.source.clone()
    }

    /// The name of the setting.
    pub fn setting(&self) -> &str {
        self.setting
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

/// A text that `Debug` does not show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
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
