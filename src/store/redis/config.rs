//! A store from environment variables or a configuration file.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::builder::RedisStoreBuilder;
use super::error::ConnectError;
use super::options::{DEFAULT_START_LIMIT, DEFAULT_WRITE_TIMEOUT, Start};
use super::store::RedisStore;
use crate::config::{ConfigError, Name, SecretText, Vars, file_or_text, in_words};

/// What a [`RedisStore`] needs to know, as configuration files and environment variables say it.
///
/// | variable | field | |
/// | --- | --- | --- |
/// | `REDIS_URL`, `REDIS_URL_FILE` | `url`, `url_file` | one of them is required, see [`RedisStoreBuilder::with_url`] |
/// | `REDIS_USERNAME` | `username` | if the URL has none and there is a password |
/// | `REDIS_PASSWORD`, `REDIS_PASSWORD_FILE` | `password`, `password_file` | if the URL has none; as it is, nothing is to be percent-encoded |
/// | `JWT_REDIS_PREFIX` | `prefix` | see [`RedisStoreBuilder::with_prefix`] |
/// | `JWT_REDIS_SHARDS` | `shards` | see [`RedisStoreBuilder::with_shards`] |
/// | `JWT_REDIS_CHECK_TIMEOUT_MS` | `check_timeout_ms` | see [`RedisStoreBuilder::with_check_timeout`] |
/// | `JWT_REDIS_WRITE_TIMEOUT_MS` | `write_timeout_ms` | see [`RedisStoreBuilder::with_write_timeout`] |
/// | `JWT_REDIS_MAX_IN_FLIGHT` | `max_in_flight` | see [`RedisStoreBuilder::with_max_in_flight`] |
/// | `JWT_REDIS_MAX_TOKEN_LIFETIME_SECS` | `max_token_lifetime_secs` | see [`RedisStoreBuilder::with_max_token_lifetime`] |
/// | `JWT_REDIS_LOG_LENGTH` | `log_length` | see [`RedisStoreBuilder::with_log_length`] |
/// | `JWT_REDIS_WAIT_REPLICAS` | `wait_replicas` | see [`RedisStoreBuilder::with_wait_replicas`] |
/// | `JWT_REDIS_WAIT_REPLICAS_MS` | `wait_replicas_ms` | for how long, default half of the write timeout |
/// | `JWT_REDIS_START` | `start` | `wait`, `at-once` or `anyway`, see [`Start`]; default `wait` |
/// | `JWT_REDIS_START_LIMIT_SECS` | `start_limit_secs` | for how long, with `wait`; default 10 |
///
/// A `_FILE` is read by [`builder`](Self::builder); one line break at its end is left out. An error
/// names the variable, or the field, and what to do; a variable that looks like one of these and is
/// not is an error, and so is an unknown field.
///
/// ```no_run
/// use tower_jwt_revocation::store::redis::RedisConfig;
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisConfig::from_env()?.connect().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RedisConfig {
    /// See the table.
    pub url: Option<SecretText>,
    /// See the table.
    pub url_file: Option<String>,
    /// See the table.
    pub username: Option<String>,
    /// See the table.
    pub password: Option<SecretText>,
    /// See the table.
    pub password_file: Option<String>,
    /// See the table.
    pub prefix: Option<String>,
    /// See the table.
    pub shards: Option<u16>,
    /// See the table.
    pub check_timeout_ms: Option<u64>,
    /// See the table.
    pub write_timeout_ms: Option<u64>,
    /// See the table.
    pub max_in_flight: Option<usize>,
    /// See the table.
    pub max_token_lifetime_secs: Option<u64>,
    /// See the table.
    pub log_length: Option<u64>,
    /// See the table.
    pub wait_replicas: Option<NonZeroU32>,
    /// See the table.
    pub wait_replicas_ms: Option<u64>,
    /// See the table.
    pub start: Option<String>,
    /// See the table.
    pub start_limit_secs: Option<u64>,
    #[serde(skip)]
    is_from_env: bool,
}

const NAMES: [Name; 16] = [
    Name::new("url", "url", "REDIS_URL"),
    Name::new("url_file", "url_file", "REDIS_URL_FILE"),
    Name::new("username", "username", "REDIS_USERNAME"),
    Name::new("password", "password", "REDIS_PASSWORD"),
    Name::new("password_file", "password_file", "REDIS_PASSWORD_FILE"),
    Name::new("prefix", "prefix", "JWT_REDIS_PREFIX"),
    Name::new("shards", "shards", "JWT_REDIS_SHARDS"),
    Name::new("check_timeout", "check_timeout_ms", "JWT_REDIS_CHECK_TIMEOUT_MS"),
    Name::new("write_timeout", "write_timeout_ms", "JWT_REDIS_WRITE_TIMEOUT_MS"),
    Name::new("max_in_flight", "max_in_flight", "JWT_REDIS_MAX_IN_FLIGHT"),
    Name::new("max_token_lifetime", "max_token_lifetime_secs", "JWT_REDIS_MAX_TOKEN_LIFETIME_SECS"),
    Name::new("log_length", "log_length", "JWT_REDIS_LOG_LENGTH"),
    Name::new("wait_replicas_count", "wait_replicas", "JWT_REDIS_WAIT_REPLICAS"),
    Name::new("wait_replicas", "wait_replicas_ms", "JWT_REDIS_WAIT_REPLICAS_MS"),
    Name::new("start", "start", "JWT_REDIS_START"),
    Name::new("start_limit", "start_limit_secs", "JWT_REDIS_START_LIMIT_SECS"),
];

impl RedisConfig {
    /// From the environment.
    ///
    /// # Errors
    /// [`ConfigError`] naming a variable that is not Unicode, is empty, or is not a number where
    /// one is needed; or one that is not set while another is that looks like it.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(&Vars::of_process())
    }

    fn from_vars(vars: &Vars<'_>) -> Result<Self, ConfigError> {
        vars.refuse_slips(&NAMES)?;
        let replicas = vars.number("JWT_REDIS_WAIT_REPLICAS")?.map(NonZeroU32::new);
        if replicas == Some(None) {
            return Err(ConfigError::new(
                "JWT_REDIS_WAIT_REPLICAS",
                "is 0; leave it out, to wait for none",
            ));
        }
        Ok(Self {
            url: vars.text("REDIS_URL")?.map(Into::into),
            url_file: vars.text("REDIS_URL_FILE")?,
            username: vars.text("REDIS_USERNAME")?,
            password: vars.text("REDIS_PASSWORD")?.map(Into::into),
            password_file: vars.text("REDIS_PASSWORD_FILE")?,
            prefix: vars.text("JWT_REDIS_PREFIX")?,
            shards: vars.number("JWT_REDIS_SHARDS")?,
            check_timeout_ms: vars.number("JWT_REDIS_CHECK_TIMEOUT_MS")?,
            write_timeout_ms: vars.number("JWT_REDIS_WRITE_TIMEOUT_MS")?,
            max_in_flight: vars.number("JWT_REDIS_MAX_IN_FLIGHT")?,
            max_token_lifetime_secs: vars.number("JWT_REDIS_MAX_TOKEN_LIFETIME_SECS")?,
            log_length: vars.number("JWT_REDIS_LOG_LENGTH")?,
            wait_replicas: replicas.flatten(),
            wait_replicas_ms: vars.number("JWT_REDIS_WAIT_REPLICAS_MS")?,
            start: vars.text("JWT_REDIS_START")?,
            start_limit_secs: vars.number("JWT_REDIS_START_LIMIT_SECS")?,
            is_from_env: true,
        })
    }

    /// Connects as it says.
    ///
    /// # Errors
    /// As [`RedisStoreBuilder::connect`], in the words of the variables or the fields.
    pub async fn connect(&self) -> Result<RedisStore, ConnectError> {
        self.builder()?.connect().await.map_err(|error| match error {
            ConnectError::Config(error) => self.in_its_words(error).into(),
            other => other,
        })
    }

    /// A builder with these settings, for what can only be said in code.
    ///
    /// # Errors
    /// [`ConfigError`] naming what is missing, contradicts itself, or cannot be read.
    pub fn builder(&self) -> Result<RedisStoreBuilder, ConfigError> {
        self.build().map_err(|error| self.in_its_words(error))
    }

    fn build(&self) -> Result<RedisStoreBuilder, ConfigError> {
        let mut builder =
            RedisStore::builder().with_url(self.whole_url()?).with_start(self.start()?);
        if let Some(prefix) = &self.prefix {
            builder = builder.with_prefix(prefix.as_str());
        }
        if let Some(shards) = self.shards {
            builder = builder.with_shards(shards);
        }
        if let Some(ms) = self.check_timeout_ms {
            builder = builder.with_check_timeout(Duration::from_millis(ms));
        }
        if let Some(ms) = self.write_timeout_ms {
            builder = builder.with_write_timeout(Duration::from_millis(ms));
        }
        if let Some(checks) = self.max_in_flight {
            builder = builder.with_max_in_flight(checks);
        }
        if let Some(secs) = self.max_token_lifetime_secs {
            builder = builder.with_max_token_lifetime(Duration::from_secs(secs));
        }
        if let Some(entries) = self.log_length {
            builder = builder.with_log_length(entries);
        }
        match (self.wait_replicas, self.wait_replicas_ms) {
            (Some(replicas), ms) => {
                let write_timeout =
                    self.write_timeout_ms.map_or(DEFAULT_WRITE_TIMEOUT, Duration::from_millis);
                let limit = ms.map_or(write_timeout / 2, Duration::from_millis);
                builder = builder.with_wait_replicas(replicas, limit);
            }
            (None, Some(_)) => {
                return Err(ConfigError::new(
                    "wait_replicas",
                    "has no effect without a number of replicas; set it too",
                ));
            }
            (None, None) => {}
        }
        Ok(builder)
    }

    fn start(&self) -> Result<Start, ConfigError> {
        let start = match self.start.as_deref() {
            None | Some("wait") => {
                let limit = self.start_limit_secs.map_or(DEFAULT_START_LIMIT, Duration::from_secs);
                return Ok(Start::WaitUpTo(limit));
            }
            Some("at-once") => Start::AtOnce,
            Some("anyway") => Start::Anyway,
            Some(_) => {
                return Err(ConfigError::new(
                    "start",
                    "is not one of `wait`, `at-once` and `anyway`",
                ));
            }
        };
        if self.start_limit_secs.is_some() {
            return Err(ConfigError::new(
                "start_limit",
                "has no effect unless the start is to wait; leave it out",
            ));
        }
        Ok(start)
    }

    /// The URL, with the credentials if they stand apart from it.
    fn whole_url(&self) -> Result<String, ConfigError> {
        let secret = |name, text: &Option<SecretText>, file_name, file: &Option<String>| {
            if text.is_some() && file.is_some() {
                return Err(ConfigError::new(
                    name,
                    "is given as it is and as a file; leave one of them out",
                ));
            }
            file_or_text(file_name, text.as_ref().map(SecretText::expose), file.as_deref())
        };
        let url = secret("url", &self.url, "url_file", &self.url_file)?;
        let Some(url) = url else {
            return Err(ConfigError::new(
                "url",
                "is missing; set it, such as redis://127.0.0.1:6379",
            ));
        };
        let password = secret("password", &self.password, "password_file", &self.password_file)?;
        let Some(password) = password else {
            if self.username.is_some() {
                return Err(ConfigError::new(
                    "username",
                    "has no effect without a password; set that too",
                ));
            }
            return Ok(url);
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(ConfigError::new("url", "has no scheme; write redis://host:6379"));
        };
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        if authority.contains('@') {
            return Err(ConfigError::new(
                "password",
                "is set, and the URL has credentials too; leave one of them out",
            ));
        }
        let user = percent_encoded(self.username.as_deref().unwrap_or_default());
        Ok(format!("{scheme}://{user}:{}@{rest}", percent_encoded(&password)))
    }

    fn in_its_words(&self, error: ConfigError) -> ConfigError {
        in_words(&NAMES, self.is_from_env, error)
    }
}

/// As it can stand in a URL, where it is decoded again: everything but what is never special (RFC
/// 3986 §2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded.extend(format!("%{byte:02X}").chars()),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
