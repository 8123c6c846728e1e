//! The error of a configuration that cannot work: which setting, and what to do.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// A setting that cannot work, found when a verifier, a store or a layer is built.
///
/// `Display` names the setting and the remedy: `issuer: is empty; name the issuer …`. It never holds a secret.
#[derive(Clone, Debug)]
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

    /// The name of the setting.
    pub fn setting(&self) -> &str {
        self.setting
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
