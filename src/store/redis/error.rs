//! [`ConnectError`]: why a store could not be opened.

use std::error::Error;
use std::fmt;

use crate::config::ConfigError;
use crate::error_chain::ErrorChain;
use crate::store::StoreError;

/// Why a store could not be opened.
///
/// `Display` and `Debug` may name host and port, so that an operator knows which server is meant.
/// They never name user or password.
#[derive(Clone)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting cannot work. Trying again does not help.
    Config(ConfigError),
    /// Redis cannot be used.
    Store(StoreError),
}

impl ConnectError {
    /// Adds the servers that were tried: this error is read by the operator.
    pub(crate) fn at(self, servers: &str) -> Self {
        match self {
            Self::Store(error) => {
                let detail = error.to_string();
                let detail = detail.strip_prefix("redis: ").unwrap_or(&detail);
                Self::Store(error.with_detail(format!("{servers}: {detail}")))
            }
            config @ Self::Config(_) => config,
        }
    }
}

impl From<ConfigError> for ConnectError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// As `Display`, with the causes: this is what a `main` that returns the error shows.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&ErrorChain(self), f)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => fmt::Display::fmt(error, f),
            Self::Store(error) => write!(f, "redis cannot be used: {error}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            Self::Store(error) => error.source(),
        }
    }
}
