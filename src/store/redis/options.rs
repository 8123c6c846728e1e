//! What can be set of a store, the defaults, and which values cannot work.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Semaphore;

use super::schema::{MAX_SHARDS, is_prefix};
use crate::config::ConfigError;

/// Default of [`with_prefix`](super::RedisStoreBuilder::with_prefix).
pub(crate) const DEFAULT_PREFIX: &str = "jwt-revocation";
/// Default of
/// [`with_check_timeout`](super::RedisStoreBuilder::with_check_timeout).
pub(crate) const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_millis(50);
/// Default of
/// [`with_connect_timeout`](super::RedisStoreBuilder::with_connect_timeout).
pub(super) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Default of
/// [`with_write_timeout`](super::RedisStoreBuilder::with_write_timeout).
pub(crate) const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Default of
/// [`with_max_in_flight`](super::RedisStoreBuilder::with_max_in_flight).
pub(crate) const DEFAULT_MAX_IN_FLIGHT: usize = 1024;
/// Default of [`with_start`](super::RedisStoreBuilder::with_start): how long
/// [`Start::WaitUpTo`] waits.
pub(crate) const DEFAULT_START_LIMIT: Duration = Duration::from_secs(10);
/// Default of
/// [`with_max_token_lifetime`](super::RedisStoreBuilder::with_max_token_lifetime).
pub(crate) const DEFAULT_MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60 + 600);
/// Default of [`with_log_length`](super::RedisStoreBuilder::with_log_length).
pub(crate) const DEFAULT_LOG_LENGTH: u64 = 100_000;

/// What [`connect`](super::RedisStoreBuilder::connect) does if Redis cannot be
/// used.
///
/// In configurations: `wait`, `at-once` or `anyway`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "StartWord")]
#[non_exhaustive]
pub enum Start {
    /// Tries until this much time is over, then fails. The default, with 10 s:
    /// services and their Redis are often started together.
    WaitUpTo(Duration),
    /// Fails if the first attempt fails.
    AtOnce,
    /// Succeeds anyway. Until Redis can be used, every check is an error, and the fail mode
    /// decides.
    Anyway,
}

/// The words for [`Start`].
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StartWord {
    Wait,
    AtOnce,
    Anyway,
}

impl From<StartWord> for Start {
    fn from(word: StartWord) -> Self {
        match word {
            StartWord::Wait => Self::default(),
            StartWord::AtOnce => Self::AtOnce,
            StartWord::Anyway => Self::Anyway,
        }
    }
}

impl Default for Start {
    fn default() -> Self {
        Self::WaitUpTo(DEFAULT_START_LIMIT)
    }
}

/// How many replicas must confirm a write, see
/// [`with_wait_replicas`](super::RedisStoreBuilder::with_wait_replicas).
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitReplicas {
    pub(crate) replicas: NonZeroU32,
    /// For how long to wait for them; part of the time of the write.
    pub(crate) limit: Duration,
}

/// The options that are used after the start. Holds no credentials.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) prefix: Box<str>,
    pub(crate) shards: u16,
    pub(crate) check_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_token_lifetime: Duration,
    pub(crate) log_length: u64,
    pub(crate) wait_replicas: Option<WaitReplicas>,
    pub(crate) issuer_clock_lead: Duration,
    pub(crate) start: Start,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.into(),
            shards: 1,
            check_timeout: DEFAULT_CHECK_TIMEOUT,
            write_timeout: DEFAULT_WRITE_TIMEOUT,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            max_token_lifetime: DEFAULT_MAX_TOKEN_LIFETIME,
            log_length: DEFAULT_LOG_LENGTH,
            wait_replicas: None,
            issuer_clock_lead: Duration::ZERO,
            start: Start::default(),
        }
    }
}

impl StoreOptions {
    /// # Errors
    /// [`ConfigError`] naming a setting that cannot work.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        // More than a profile accepts, as leeways are to be added.
        const ELEVEN_YEARS: Duration = Duration::from_secs(11 * 366 * 24 * 60 * 60);
        if !is_prefix(&self.prefix) {
            return Err(ConfigError::new("prefix", "must be 1 to 64 letters, digits and -_.:/"));
        }
        if !(1..=MAX_SHARDS).contains(&self.shards) {
            return Err(ConfigError::new(
                "shards",
                format!("is {}; write 1 to {MAX_SHARDS}", self.shards),
            ));
        }
        for (setting, limit) in [
            ("check_timeout", self.check_timeout),
            ("write_timeout", self.write_timeout),
            ("connect_timeout", self.connect_timeout),
        ] {
            if limit < Duration::from_millis(1) {
                return Err(ConfigError::new(
                    setting,
                    "is less than a millisecond, in which nothing can be answered",
                ));
            }
            if limit > HOUR {
                return Err(ConfigError::new(setting, "is over an hour, which is no limit"));
            }
        }
        if self.max_in_flight == 0 {
            return Err(ConfigError::new(
                "max_in_flight",
                "is 0, so that no token could be checked",
            ));
        }
        if self.max_in_flight > Semaphore::MAX_PERMITS {
            return Err(ConfigError::new("max_in_flight", "is too large to count"));
        }
        if self.max_token_lifetime.is_zero() {
            return Err(ConfigError::new(
                "max_token_lifetime",
                "is 0; name the longest lifetime of an accepted token",
            ));
        }
        if self.max_token_lifetime > ELEVEN_YEARS {
            return Err(ConfigError::new(
                "max_token_lifetime",
                "is over eleven years; profiles accept ten at most",
            ));
        }
        if self.issuer_clock_lead > Duration::from_secs(300) {
            return Err(ConfigError::new(
                "issuer_clock_lead",
                "is over five minutes, for which everyone who logs in after a revocation would be \
                 refused; set the clock of the issuer instead",
            ));
        }
        if self.log_length == 0 {
            return Err(ConfigError::new("log_length", "is 0; write at least 1"));
        }
        if self
            .wait_replicas
            .is_some_and(|wait| wait.limit.is_zero() || wait.limit >= self.write_timeout)
        {
            return Err(ConfigError::new(
                "wait_replicas",
                "its limit must be more than zero and less than write_timeout, of which it is a \
                 part",
            ));
        }
        Ok(())
    }
}
