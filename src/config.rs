//! The error of a configuration that cannot work: which setting, and what to do.

use std::env::VarError;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// A setting that cannot work, found when a verifier, a store or a layer is built.
///
/// `Display` names the setting and the remedy: `issuer: is empty; name the issuer …`. It never holds a secret.
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

    /// The name of the setting.
    pub fn setting(&self) -> &str {
        self.setting
    }
}

/// As `Display`: this is what a `main` that returns the error shows.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

/// The environment variables, or what a test takes for them.
pub(crate) struct Vars<'a>(&'a dyn Fn(&str) -> Result<Option<String>, VarError>);

impl Vars<'static> {
    pub(crate) fn of_process() -> Self {
        Self(&|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(VarError::NotPresent) => Ok(None),
            Err(error) => Err(error),
        })
    }
}

#[cfg(test)]
impl<'a> Vars<'a> {
    pub(crate) fn new(find: &'a dyn Fn(&str) -> Result<Option<String>, VarError>) -> Self {
        Self(find)
    }
}

impl Vars<'_> {
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        // The cause is dropped: it quotes the value.
        let value = (self.0)(name).map_err(|_| ConfigError::new(name, "is not Unicode"))?;
        if value.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::new(name, "is set and empty; give it a value or do not set it"));
        }
        Ok(value)
    }

    /// Words between commas and spaces.
    pub(crate) fn list(&self, name: &'static str) -> Result<Vec<String>, ConfigError> {
        let text = self.text(name)?.unwrap_or_default();
        let words = text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
        Ok(words.map(Into::into).collect())
    }

    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, ConfigError> {
        let parse = |text: String| {
            text.parse().map_err(|_| ConfigError::new(name, "is not a whole number, such as 60"))
        };
        self.text(name)?.map(parse).transpose()
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ConfigError::new(name, "is neither `true` nor `false`")),
        }
    }
}
