//! What can be set, and how a store is opened.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use fred::types::config::Config;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::batch::BatchedChecks;
use super::connection::ServerAddress;
use super::epoch::EpochTracker;
use super::foreign::{ClusterConnections, CompiledLists, ForeignList, ForeignLists};
use super::schema::{MAX_SHARDS, RedisKeys, is_prefix};
use super::supervised::{Purpose, SupervisedConnection, SupervisionConfig};
use super::topology::{self, Topology};
use super::{Health, RedisStore, StoreInner, ask};
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};

/// Default of [`RedisStoreBuilder::with_prefix`].
pub const DEFAULT_PREFIX: &str = "jwt-revocation";
/// Default of [`RedisStoreBuilder::with_check_timeout`].
pub const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_millis(50);
/// Default of [`RedisStoreBuilder::with_write_timeout`].
pub const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Default of [`RedisStoreBuilder::with_max_in_flight`].
pub const DEFAULT_MAX_IN_FLIGHT: usize = 1024;
/// Default of [`RedisStoreBuilder::with_start`]: how long [`Start::WaitUpTo`] waits.
pub const DEFAULT_START_LIMIT: Duration = Duration::from_secs(10);
/// Default of [`RedisStoreBuilder::with_max_token_lifetime`].
pub const DEFAULT_MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60 + 600);
/// Default of [`RedisStoreBuilder::with_log_length`].
pub const DEFAULT_LOG_LENGTH: u64 = 100_000;

/// What [`RedisStoreBuilder::connect`] does if Redis cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// Tries until this much time is over, then fails. The default, with [`DEFAULT_START_LIMIT`]:
    /// services and their Redis are often started together.
    WaitUpTo(Duration),
    /// Fails at the first attempt that does.
    AtOnce,
    /// Succeeds anyway. Until Redis is there, every check is an error, and the policy decides.
    Anyway,
}

/// How many replicas must confirm a write, see [`RedisStoreBuilder::with_wait_replicas`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitReplicas {
    /// How many.
    pub replicas: NonZeroU32,
    /// For how long to wait for them; part of the time of the write.
    pub limit: Duration,
}

/// Options of a [`RedisStore`], made by [`RedisStore::builder`].
#[derive(Clone)]
#[must_use = "nothing is connected until `connect` is called"]
pub struct RedisStoreBuilder {
    source: Source,
    settings: StoreOptions,
}

#[derive(Clone)]
enum Source {
    Missing,
    Url(Box<str>),
    Config(Box<Config>),
}

/// The options that are used after the start. Holds no credentials.
#[derive(Clone, Debug)]
pub(crate) struct StoreOptions {
    pub(crate) prefix: Box<str>,
    pub(crate) shards: u16,
    pub(crate) check_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_token_lifetime: Duration,
    pub(crate) log_length: u64,
    pub(crate) wait_replicas: Option<WaitReplicas>,
    pub(crate) start: Start,
    pub(crate) foreign: Vec<ForeignList>,
}

impl Default for RedisStoreBuilder {
    fn default() -> Self {
        Self {
            source: Source::Missing,
            settings: StoreOptions {
                prefix: DEFAULT_PREFIX.into(),
                shards: 1,
                check_timeout: DEFAULT_CHECK_TIMEOUT,
                write_timeout: DEFAULT_WRITE_TIMEOUT,
                max_in_flight: DEFAULT_MAX_IN_FLIGHT,
                max_token_lifetime: DEFAULT_MAX_TOKEN_LIFETIME,
                log_length: DEFAULT_LOG_LENGTH,
                wait_replicas: None,
                start: Start::WaitUpTo(DEFAULT_START_LIMIT),
                foreign: Vec::new(),
            },
        }
    }
}

impl RedisStoreBuilder {
    /// Where Redis is. `valkey` may be written for `redis`, user and password are percent-decoded:
    ///
    /// - `redis://user:password@host:6379/database`
    /// - `rediss://…` for TLS with the certificates of the system (feature `rustls` or
    ///   `native-tls`)
    /// - `redis-sentinel://host:26379?sentinelServiceName=name&node=host2:26379`, where the
    ///   addresses are those of sentinels; `sentinelUsername` and `sentinelPassword` are theirs,
    ///   too
    /// - `redis-cluster://host:7000?node=host2:7000`
    /// - `redis+unix:///path/to/socket` (feature `unix-sockets`)
    pub fn with_url(mut self, url: impl AsRef<str>) -> Self {
        self.source = Source::Url(url.as_ref().into());
        self
    }

    /// A ready configuration of the client instead of a URL: for client certificates, private
    /// authorities and whatever else a URL cannot say. Server, credentials, database and TLS are
    /// taken from it.
    pub fn with_config(mut self, config: Config) -> Self {
        self.source = Source::Config(Box::new(config));
        self
    }

    /// With what all keys begin, after the brace: 1 to 64 letters, digits and `-_.:/`; default
    /// [`DEFAULT_PREFIX`]. Applications that must not see each other's revocations take different
    /// ones.
    pub fn with_prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// Over how many hash slots the records are spread: 1 to 1024, default 1. More are of use only
    /// in a cluster that is to share the load. All processes must agree, and it cannot be changed
    /// later.
    pub fn with_shards(mut self, shards: u16) -> Self {
        self.settings.shards = shards;
        self
    }

    /// How long a check may take, default 50 ms. It is a bound: after it the answer is an error.
    pub fn with_check_timeout(mut self, limit: Duration) -> Self {
        self.settings.check_timeout = limit;
        self
    }

    /// How long a write or a look-up may take, for each round trip that it needs, default 1 s.
    /// Within it, a write is repeated if its connection is lost.
    pub fn with_write_timeout(mut self, limit: Duration) -> Self {
        self.settings.write_timeout = limit;
        self
    }

    /// How many checks may be under way at once, default 1024, counted for each shard in a cluster.
    /// Further ones are [`StoreErrorKind::Overloaded`] at once, rather than late.
    pub fn with_max_in_flight(mut self, checks: usize) -> Self {
        self.settings.max_in_flight = checks;
        self
    }

    /// The longest lifetime of a token that any layer accepts, default 24 h and 10 minutes. After a
    /// loss of data, tokens that do not say when they were issued are in doubt for this long, or
    /// for as long as the profiles of the layers and revokers on this store ask for, whichever is
    /// longer: it cannot be set too short for them. To be raised in a process that has neither,
    /// where others accept longer lifetimes.
    pub fn with_max_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.max_token_lifetime = lifetime;
        self
    }

    /// How many writes the log of a shard keeps, about; default 100 000, some 10 MB. Those who
    /// follow it and have been away for longer read everything anew.
    pub fn with_log_length(mut self, entries: u64) -> Self {
        self.settings.log_length = entries;
        self
    }

    /// Makes every write wait until so many replicas have it, so that a fail-over does not lose it.
    /// If fewer confirm it in `limit`, the write is an error of kind [`StoreErrorKind::Replicas`]:
    /// it is in force, but may get lost, and may be repeated. Default: does not wait. A store can
    /// be opened, and tokens be checked, without any replica.
    pub fn with_wait_replicas(mut self, replicas: NonZeroU32, limit: Duration) -> Self {
        self.settings.wait_replicas = Some(WaitReplicas { replicas, limit });
        self
    }

    /// Also refuses what this list of another program permits; call it again for each further one.
    /// Default: none. See [`foreign`](super::foreign), also for how to get rid of it.
    pub fn with_foreign_list(mut self, list: ForeignList) -> Self {
        self.settings.foreign.push(list);
        self
    }

    /// What to do if Redis cannot be used at the start, default: wait for it for up to 10 s, then
    /// fail.
    pub fn with_start(mut self, start: Start) -> Self {
        self.settings.start = start;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if a setting cannot work, or does not fit what Redis permits;
    /// [`ConnectError::Store`] if Redis cannot be used and [`with_start`](Self::with_start) does
    /// not say to go on without.
    pub async fn connect(self) -> Result<RedisStore, ConnectError> {
        self.settings.validate()?;
        let config = match self.source {
            Source::Missing => {
                return Err(
                    ConfigError::new("url", "is missing; see RedisStoreBuilder::with_url").into()
                );
            }
            Source::Url(url) => topology::parse_url(&url)?,
            Source::Config(config) => *config,
        };
        let lists = CompiledLists::compile(&self.settings.foreign)?;
        let address = ServerAddress(&config.server).to_string();
        let store = open(Topology::new(config)?, self.settings, lists);
        store.begin().await.map_err(|error| error.at(&address))?;
        Ok(store)
    }
}

impl RedisStore {
    async fn begin(&self) -> Result<(), ConnectError> {
        match self.inner.settings.start {
            Start::WaitUpTo(limit) => {
                // The last failure says more than "not in time".
                let mut last =
                    StoreError::new(StoreErrorKind::Timeout, "redis was not there in time");
                if let Ok(begun) = timeout(limit, self.inner.begin(false, &mut last)).await {
                    begun?;
                } else {
                    return Err(ConnectError::Store(last));
                }
            }
            Start::AtOnce => {
                let mut last =
                    StoreError::new(StoreErrorKind::Timeout, "redis was not there in time");
                self.inner.begin(true, &mut last).await?;
            }
            Start::Anyway => return Ok(()),
        }
        self.inner.try_lists().await.map_err(ConnectError::Store)
    }
}

#[cfg(test)]
impl RedisStoreBuilder {
    pub(crate) fn settings(self) -> StoreOptions {
        self.settings
    }
}

fn open(topology: Topology, settings: StoreOptions, lists: CompiledLists) -> RedisStore {
    let is_cluster = topology.is_cluster();
    let topology = Arc::new(topology);
    let keys = Arc::new(RedisKeys::new(&settings.prefix, settings.shards));
    let tracker = Arc::new(EpochTracker::new(settings.shards, settings.max_token_lifetime));
    // In a cluster each shard has links of its own: a dead primary takes only its own shards away.
    let per_link = if is_cluster { 1 } else { settings.shards };
    let shards: Vec<_> = (0..settings.shards)
        .step_by(per_link.into())
        .map(|shard| shard..shard + per_link)
        .collect();
    let health = Arc::new(watch::Sender::new(Health::starting(&shards)));
    let config = {
        let (topology, keys, tracker, health) =
            (Arc::clone(&topology), Arc::clone(&keys), Arc::clone(&tracker), Arc::clone(&health));
        move |purpose, limit, in_flight, slot, shards: Range<u16>| SupervisionConfig {
            purpose,
            topology: Arc::clone(&topology),
            keys: Arc::clone(&keys),
            tracker: Arc::clone(&tracker),
            slot,
            shards,
            limit,
            in_flight,
            health_tx: Arc::clone(&health),
        }
    };
    let slot_of = |shards: &Range<u16>| fred::util::redis_keyslot(&keys.shard(shards.start).epoch);
    // A check that also asks lists has as many questions open.
    let per_check = if is_cluster { 1 } else { 1 + lists.all.len() };
    let in_flight = settings.max_in_flight.saturating_mul(per_check).min(Semaphore::MAX_PERMITS);
    let check = |shards: &Range<u16>| {
        BatchedChecks::start(config(
            Purpose::Checks,
            settings.check_timeout,
            in_flight,
            slot_of(shards),
            shards.clone(),
        ))
    };
    let write = |shards: &Range<u16>| {
        SupervisedConnection::start(config(
            Purpose::Writes,
            settings.write_timeout,
            ask::MAX_WRITES,
            slot_of(shards),
            shards.clone(),
        ))
    };
    let (checks, writes) = (shards.iter().map(check).collect(), shards.iter().map(write).collect());
    let foreign = (!lists.all.is_empty()).then(|| {
        let (limit, in_flight) =
            (settings.check_timeout, settings.max_in_flight.saturating_mul(lists.all.len()));
        let at_slot = move |slot| {
            let in_flight = in_flight.min(Semaphore::MAX_PERMITS);
            SupervisedConnection::start(config(Purpose::Checks, limit, in_flight, slot, slot..slot))
        };
        let nodes = is_cluster.then(|| {
            ClusterConnections::start(Arc::clone(&topology), Arc::clone(&health), at_slot)
        });
        ForeignLists { lists, nodes }
    });
    let inner = Arc::new(StoreInner {
        checks,
        writes,
        foreign,
        settings,
        topology,
        keys: Arc::clone(&keys),
        tracker,
        health,
        maintenance: std::sync::OnceLock::new(),
    });
    let maintenance = tokio::spawn(ask::maintenance(Arc::downgrade(&inner)));
    let _ = inner.maintenance.set(maintenance);
    RedisStore { inner }
}

impl StoreOptions {
    fn validate(&self) -> Result<(), ConfigError> {
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
        for (setting, limit) in
            [("check_timeout", self.check_timeout), ("write_timeout", self.write_timeout)]
        {
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

/// Credentials are never shown.
impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Why a store could not be opened.
///
/// `Display` and `Debug` may name host and port, so that an operator knows which server is meant;
/// never user or password.
#[derive(Clone)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting cannot work. Trying again does not help.
    Config(ConfigError),
    /// Redis cannot be used.
    Store(StoreError),
}

impl ConnectError {
    /// Names the servers that were tried: here somebody reads it who wants to know which.
    fn at(self, servers: &str) -> Self {
        match self {
            Self::Store(error) => {
                let detail = error.to_string();
                let detail = detail.strip_prefix("redis: ").unwrap_or(&detail);
                Self::Store(
                    StoreError::new(error.kind(), format!("{servers}: {detail}"))
                        .with_source(error),
                )
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

/// As `Display`: this is what a `main` that returns the error shows.
impl fmt::Debug for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
            Self::Store(error) => Some(error),
        }
    }
}
