//! [`RedisStoreBuilder`]: sets options, and opens a store.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fred::types::config::{Config, ServerConfig};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::activity::StoreActivity;
use super::address_map::AddressMap;
use super::batch::BatchedChecks;
use super::connection::{ConnectSettings, ServerAddress, is_write_refused};
use super::core::StoreCore;
use super::credentials::{CredentialProvider, PasswordFile, RedisCredentials};
use super::epoch::EpochTracker;
use super::error::ConnectError;
use super::foreign::{
    ClusterConnections, CompiledLists, ForeignList, ForeignLists, UnsentQuestions,
};
use super::forget::forget;
use super::health::{Health, Purpose};
use super::maintenance::maintain;
use super::options::{Start, StoreOptions, WaitReplicas};
use super::schema::RedisKeys;
use super::store::RedisStore;
use super::supervised::{SupervisedConnection, SupervisionConfig};
use super::tls::CurrentTls;
use super::topology::Topology;
use super::url::{ServerSettings, require_tls};
use super::writers::WriterLogs;
use crate::config::ConfigError;
use crate::store::{StoreError, StoreErrorKind};

/// How many writes and look-ups may be under way at once.
const MAX_WRITES: usize = 1024;

/// Options of a [`RedisStore`], made by [`RedisStore::builder`].
#[derive(Clone, Default)]
#[must_use = "nothing is connected until `connect` is called"]
pub struct RedisStoreBuilder {
    servers: ServerSettings,
    #[cfg(feature = "fred-config")]
    config: Option<Box<Config>>,
    sentinel_tls: Option<bool>,
    #[cfg(all(feature = "fred-config", any(feature = "rustls", feature = "native-tls")))]
    sentinel_fred_tls: Option<fred::types::config::TlsConfig>,
    address_map: Vec<(Box<str>, Box<str>)>,
    credentials: Option<Arc<dyn CredentialProvider>>,
    password_file: Option<PathBuf>,
    options: StoreOptions,
    foreign: Vec<ForeignList>,
}

impl RedisStore {
    /// Connects with the default options; see [`builder`](Self::builder) for the forms of URLs.
    ///
    /// # Errors
    /// [`ConnectError`] if the URL cannot work, or Redis cannot be used within
    /// 10 s.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, ConnectError> {
        Self::builder().with_url(url.as_ref()).connect().await
    }

    /// A store with options.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::default()
    }
}

impl RedisStoreBuilder {
    /// Where Redis is. `valkey` may be written for `redis`; user and password are percent-decoded:
    ///
    /// - `redis://user:password@host:6379/database`
    /// - `rediss://…` for TLS (feature `rustls` or `native-tls`), with the authorities of the
    ///   system or [others](Self::with_root_certificates_file)
    /// - `redis-sentinel://host:26379,host2:26379/database?sentinelServiceName=name`, with the
    ///   addresses of sentinels. More than half of all sentinels must name a server before it is
    ///   used. `sentinelUsername` and `sentinelPassword` are for the sentinels
    /// - `redis-cluster://host:7000,host2:7000`
    /// - `redis+unix://user:password@/path/to/socket?db=database` (feature `unix-sockets`)
    ///
    /// Forms of other clients are understood if they are unambiguous: `redis+sentinel://`,
    /// `redis-socket://` and `unix://`; further servers as `node=host:port`; the service of
    /// sentinels as `sentinel=name` (also with `redis://`), `/name/database` or `#name`; `db`,
    /// `username` and `password` as parameters. A password may contain `/`, `#`, `:` and `@`; only
    /// `?` and `%` must be encoded, as `%3F` and `%25`.
    pub fn with_url(mut self, url: impl AsRef<str>) -> Self {
        self.servers.url = Some(url.as_ref().into());
        self
    }

    /// The host name or address of a single server, instead of a URL. Default: none; a URL is
    /// required then.
    pub fn with_host(mut self, host: impl AsRef<str>) -> Self {
        self.servers.host = Some(host.as_ref().into());
        self
    }

    /// The port of the [host](Self::with_host). Default: 6379. A URL has a port of its own.
    pub fn with_port(mut self, port: u16) -> Self {
        self.servers.port = Some(port);
        self
    }

    /// Uses TLS with the [host](Self::with_host) (feature `rustls` or `native-tls`), with the
    /// authorities of the system or [others](Self::with_root_certificates_file). Default: plain
    /// text. In a URL, use the scheme `rediss`.
    pub fn with_tls(mut self) -> Self {
        self.servers.tls = true;
        self
    }

    /// The certificates, in PEM, of the authorities that are trusted for servers and sentinels,
    /// instead of those of the system. Without TLS it must not be set. Default: those of the
    /// system, or of the file that `SSL_CERT_FILE` names.
    #[doc(alias = "ca")]
    #[doc(alias = "private authority")]
    pub fn with_root_certificates(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.servers.own_tls.set_roots(pem.as_ref());
        self
    }

    /// As [`with_root_certificates`](Self::with_root_certificates), from a file, which is read for
    /// each connection: an authority can be replaced without a restart. A file that cannot be used
    /// is an error at the start. Later, or if reading takes more than a second, the last good
    /// certificates are used, with a warning in the log at each connection.
    #[doc(alias = "REDIS_CA_FILE")]
    pub fn with_root_certificates_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.servers.own_tls.set_roots_file(path.into());
        self
    }

    /// The certificate of this client (`tls-auth-clients`), followed by the intermediate ones, and
    /// its private key; both in PEM. The key must not be encrypted, and be in PKCS#8, PKCS#1 or
    /// SEC1 with rustls, in PKCS#8 with native-tls. It is used with servers and sentinels. Without
    /// TLS it must not be set. Default: none.
    #[doc(alias = "mtls")]
    pub fn with_client_certificate(
        mut self,
        certificate: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Self {
        self.servers.own_tls.set_client(certificate.as_ref(), key.as_ref());
        self
    }

    /// As [`with_client_certificate`](Self::with_client_certificate), from two files, which are
    /// read for each connection: a certificate can be renewed without a restart. Files that cannot
    /// be used are an error at the start. Later, or if reading takes more than a second, the last
    /// good ones are used, with a warning in the log at each connection.
    pub fn with_client_certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.servers.own_tls.set_client_files(certificate.into(), key.into());
        self
    }

    /// The user to authenticate as (`AUTH`, ACL), if the URL has no credentials, or with a host.
    /// Default: the Redis user `default`.
    pub fn with_username(mut self, username: impl AsRef<str>) -> Self {
        self.servers.username = Some(username.as_ref().into());
        self
    }

    /// The password to authenticate with, if the URL has none, or with a host. It is used
    /// literally, without percent-decoding. Default: none.
    pub fn with_password(mut self, password: impl AsRef<str>) -> Self {
        self.servers.password = Some(password.as_ref().into());
        self
    }

    /// A file with the password, which is read for each connection: a password can be rotated
    /// without a restart. One line break at its end is left out. Default: none.
    pub fn with_password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password_file = Some(path.into());
        self
    }

    /// A provider of user and password for each connection to the servers, instead of those of the
    /// URL and of settings. It is for tokens that expire after minutes (Microsoft Entra ID, IAM)
    /// and passwords from a vault. Default: none. Sentinels have credentials of their own.
    ///
    /// It is called before each connection, in the background. A provider that fetches credentials
    /// should keep them until they are about to expire. It has the time of a connection
    /// ([`with_connect_timeout`](Self::with_connect_timeout)). After an error the connection is
    /// tried again, as after any failure.
    ///
    /// ```no_run
    /// use tower_jwt_revocation::RedisStore;
    /// use tower_jwt_revocation::store::redis::RedisCredentials;
    ///
    /// # async fn token() -> String { String::new() }
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = RedisStore::builder()
    ///     .with_url("rediss://name.example.com:6380")
    ///     .with_credential_provider(|| async { Ok(RedisCredentials::new("app", token().await)) })
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "iam")]
    #[doc(alias = "rotation")]
    pub fn with_credential_provider<F, Fut>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<RedisCredentials, StoreError>> + Send + 'static,
    {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// Which database to use (`SELECT`), if the URL names none, or with a host. Default: 0, the
    /// only one of a cluster.
    pub fn with_database(mut self, database: u8) -> Self {
        self.servers.database = Some(database);
        self
    }

    /// A ready configuration of the client [`fred`](super::fred) instead of a URL, for what a URL
    /// and settings cannot say, such as a TLS connector of your own (feature `fred-config`).
    /// Server, credentials, database and TLS are taken from it. The protocol version is not,
    /// because replies are read as RESP2.
    #[cfg(feature = "fred-config")]
    pub fn with_fred_config(mut self, config: Config) -> Self {
        self.config = Some(Box::new(config));
        self
    }

    /// The beginning of all keys: 1 to 64 letters, digits and `-_.:/`; default `jwt-revocation`.
    /// Applications that must not see each other's revocations need different ones.
    pub fn with_prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.options.prefix = prefix.into();
        self
    }

    /// The number of hash slots over which the records are spread: 1 to 1024, default 1, so that a
    /// check asks one server. More than one is useful only in a cluster that shares the load. All
    /// processes must use the same number, and it cannot be changed later.
    pub fn with_shards(mut self, shards: u16) -> Self {
        self.options.shards = shards;
        self
    }

    /// How long a check may take; default 50 ms. After it the answer is an error. A stall of this
    /// process does not count, up to five seconds, because it says nothing about Redis: a check
    /// that is late because of it is [`StoreErrorKind::Overloaded`]. With sentinels and in a
    /// cluster no answer counts that comes more than a second after the question was sent.
    pub fn with_check_timeout(mut self, limit: Duration) -> Self {
        self.options.check_timeout = limit;
        self
    }

    /// How long each round trip of a write or a look-up may take; default 1 s. Within it, a write
    /// is repeated if its connection is lost.
    pub fn with_write_timeout(mut self, limit: Duration) -> Self {
        self.options.write_timeout = limit;
        self
    }

    /// Uses TLS with sentinels, even if the servers use plain text, with the authorities of the
    /// system or [others](Self::with_root_certificates_file). Default: as with the servers, by
    /// `rediss-sentinel` in the URL or the TLS of a ready configuration. Without sentinels it must
    /// not be set.
    pub fn with_tls_to_sentinels(mut self) -> Self {
        self.sentinel_tls = Some(true);
        self
    }

    /// Uses plain text with sentinels, even if the servers use TLS. Default: as with the servers.
    /// Without sentinels it must not be set.
    pub fn with_plain_text_to_sentinels(mut self) -> Self {
        self.sentinel_tls = Some(false);
        self
    }

    /// The TLS of the sentinels as a configuration of [`fred`](super::fred), if they have other
    /// authorities or client certificates than the servers. It does not change the TLS of the
    /// servers. Default: the same as the servers.
    #[cfg(all(feature = "fred-config", any(feature = "rustls", feature = "native-tls")))]
    pub fn with_sentinel_fred_tls(mut self, tls: fred::types::config::TlsConfig) -> Self {
        self.sentinel_fred_tls = Some(tls);
        self
    }

    /// Which address to connect to instead of one that sentinels or a cluster announce, for NAT or
    /// a tunnel: pairs of the announced and the dialled address, as `host:port`, or as `host` for
    /// all its ports. Default: announced addresses are used as they are. Addresses in a URL or a
    /// setting are never changed.
    ///
    /// With TLS the certificate is checked by the dialled name; where that is an IP address, by the
    /// announced name.
    pub fn with_address_map<A, D>(mut self, map: impl IntoIterator<Item = (A, D)>) -> Self
    where
        A: Into<Box<str>>,
        D: Into<Box<str>>,
    {
        self.address_map.extend(map.into_iter().map(|(from, to)| (from.into(), to.into())));
        self
    }

    /// How long it may take to connect, from resolving the host name to authentication; default 1
    /// s. Connections are made in the background. If a name has several addresses, they are tried
    /// in parallel within this time (RFC 8305).
    pub fn with_connect_timeout(mut self, limit: Duration) -> Self {
        self.options.connect_timeout = limit;
        self
    }

    /// How many checks may be under way at once, in a cluster for each shard; default 1024. Further
    /// ones fail at once with [`StoreErrorKind::Overloaded`], instead of being late.
    pub fn with_max_in_flight(mut self, checks: usize) -> Self {
        self.options.max_in_flight = checks;
        self
    }

    /// The longest lifetime of a token that any layer accepts; default 24 h and 10 minutes, which
    /// fits the default of the profile. After a loss of data, tokens without `iat` are in doubt for
    /// this long, or for as long as the profiles of the layers and revokers on this store need,
    /// whichever is longer. Raise it in a process that has neither, if others accept longer
    /// lifetimes.
    pub fn with_max_token_lifetime(mut self, lifetime: Duration) -> Self {
        self.options.max_token_lifetime = lifetime;
        self
    }

    /// About how many writes the log of a shard keeps; default 100 000, some 10 MB. A mirror that
    /// was disconnected for more writes loads everything again.
    pub fn with_log_length(mut self, entries: u64) -> Self {
        self.options.log_length = entries;
        self
    }

    /// How far the clock of an issuer may run ahead; default zero, at most five minutes. Cutoffs
    /// ("log out everywhere", [`Extent::IssuedSoFar`]) are dated later by this much. Otherwise a
    /// token of such an issuer, with an `iat` in the future, would survive a revocation.
    ///
    /// For this time after a revocation, new tokens are refused as well, unless their `iat` is
    /// [`Receipt::reissue_at`] or later. So it is better to correct the clock of the issuer. All
    /// processes that write should use the same value. The clocks of this process and of Redis need
    /// no such setting: the later one counts, up to 5 s after that of Redis.
    ///
    /// [`Extent::IssuedSoFar`]: crate::Extent::IssuedSoFar
    /// [`Receipt::reissue_at`]: crate::store::Receipt::reissue_at
    #[doc(alias = "clock skew")]
    pub fn with_issuer_clock_lead(mut self, lead: Duration) -> Self {
        self.options.issuer_clock_lead = lead;
        self
    }

    /// Makes every write wait until this many replicas have it (`WAIT`), so that a failover does
    /// not lose it. If fewer confirm it within `limit`, the write is an error of kind
    /// [`StoreErrorKind::Replicas`]: it is in effect, but may get lost, and may be repeated.
    /// Default: does not wait. Opening the store and checking tokens need no replica.
    pub fn with_wait_replicas(mut self, replicas: NonZeroU32, limit: Duration) -> Self {
        self.options.wait_replicas = Some(WaitReplicas { replicas, limit });
        self
    }

    /// Also refuses the tokens on this list of another program; call it again for each further
    /// list. Default: none. See [`foreign`](super::foreign), also for how to end its use.
    pub fn with_foreign_list(mut self, list: ForeignList) -> Self {
        self.foreign.push(list);
        self
    }

    /// What to do if Redis cannot be used at the start. Default: wait for it for up to 10 s, then
    /// fail, because services and their Redis are often started together.
    pub fn with_start(mut self, start: Start) -> Self {
        self.options.start = start;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if a setting cannot work, or does not fit the data in Redis.
    /// [`ConnectError::Store`] if Redis cannot be used and [`with_start`](Self::with_start) does
    /// not say to start anyway.
    ///
    /// A Redis that can be read but refuses writes (`OOM`, `MISCONF`, `NOREPLICAS`, `NOPERM`) can
    /// be used: tokens are checked, revocations fail, and [`Health`] says so until Redis takes
    /// writes again. If it is also empty, no check can be answered before a write; this waits for
    /// that as [`Start::WaitUpTo`] says, and then succeeds, so that the fail mode decides.
    pub async fn connect(self) -> Result<RedisStore, ConnectError> {
        self.options.validate()?;
        let config = self.config()?;
        let credentials = self.provider(&config)?;
        let lists = CompiledLists::compile(&self.foreign)?;
        let connect =
            ConnectSettings { timeout: self.options.connect_timeout, ..ConnectSettings::default() };
        let sentinel_base = self.sentinel_base(&config)?;
        let current_tls = self.current_tls(&config, sentinel_base.as_ref())?;
        let address_map = AddressMap::parse(&self.address_map)?;
        let address = ServerAddress(&config.server).to_string();
        let topology = Topology::new(config, connect)?
            .with_sentinel_base(sentinel_base)
            .with_current_tls(current_tls)
            .with_credentials(credentials)
            .with_address_map(address_map);
        if let Some(list) = lists.lossy() {
            let problem = match self.options.start {
                _ if topology.is_cluster() => "each node of a cluster may lose keys of its own",
                Start::Anyway => "whether redis evicts keys must be known at the start",
                Start::WaitUpTo(_) | Start::AtOnce => "",
            };
            if !problem.is_empty() {
                let problem =
                    format!("`{}` takes what is not there for revoked, and {problem}", list.name);
                return Err(ConfigError::new("foreign_list", problem).into());
            }
        }
        let store = open(topology, self.options, lists);
        // In a box, as its future is large and would be part of every caller's.
        Box::pin(begin(&store)).await.map_err(|error| error.at(&address))?;
        Ok(store)
    }

    /// The configuration of connections to sentinels, if it differs from that of the servers.
    fn sentinel_base(&self, config: &Config) -> Result<Option<Config>, ConfigError> {
        let has_sentinels = matches!(config.server, ServerConfig::Sentinel { .. });
        let without_effect = |setting| {
            Err(ConfigError::new(setting, "has no effect without sentinels; leave it out"))
        };
        #[cfg(all(feature = "fred-config", any(feature = "rustls", feature = "native-tls")))]
        if let Some(tls) = &self.sentinel_fred_tls {
            if !has_sentinels {
                return without_effect("sentinel_fred_tls");
            }
            if self.sentinel_tls.is_some() {
                return Err(ConfigError::new(
                    "sentinel_tls",
                    "is set, and a configuration of fred for it too; leave one of them out",
                ));
            }
            return Ok(Some(Config { tls: Some(tls.clone()), ..Config::default() }));
        }
        match self.sentinel_tls {
            Some(_) if !has_sentinels => without_effect("sentinel_tls"),
            None => Ok(None),
            Some(false) => Ok(Some(Config::default())),
            Some(true) => {
                require_tls("sentinel_tls")?;
                self.servers.own_tls.secured().map(Some)
            }
        }
    }

    /// What reads the files of TLS again, if there are some.
    fn current_tls(
        &self,
        config: &Config,
        sentinel_base: Option<&Config>,
    ) -> Result<Option<Arc<CurrentTls>>, ConfigError> {
        let Some(setting) = self.servers.own_tls.any() else { return Ok(None) };
        #[cfg(all(feature = "fred-config", any(feature = "rustls", feature = "native-tls")))]
        if self.sentinel_fred_tls.is_some() {
            return Err(ConfigError::new(
                setting,
                "is set, and a configuration of fred for the sentinels too; write all of it into \
                 configurations of fred",
            ));
        }
        let secured = Some(config).filter(|config| config.uses_tls());
        let Some(secured) = secured.or(sentinel_base.filter(|base| base.uses_tls())) else {
            require_tls(setting)?;
            return Err(ConfigError::new(
                setting,
                "has no effect without TLS; write the URL with rediss:// instead of redis://, or \
                 leave it out",
            ));
        };
        Ok(CurrentTls::new(&self.servers.own_tls, secured))
    }

    fn config(&self) -> Result<Config, ConfigError> {
        #[cfg(feature = "fred-config")]
        if let Some(config) = &self.config {
            if self.servers.any() {
                return Err(ConfigError::new(
                    "fred_config",
                    "is set, and servers, credentials or certificates apart from it; leave one of \
                     them out",
                ));
            }
            return Ok(Config::clone(config));
        }
        self.servers.config(self.credentials.is_some() || self.password_file.is_some())
    }

    /// Who gives the credentials, if they are not in the configuration.
    fn provider(
        &self,
        config: &Config,
    ) -> Result<Option<Arc<dyn CredentialProvider>>, ConfigError> {
        let Some(path) = &self.password_file else {
            if self.credentials.is_some() && self.servers.username.is_some() {
                return Err(ConfigError::new(
                    "username",
                    "is set, and a provider of credentials too; leave one of them out",
                ));
            }
            return Ok(self.credentials.clone());
        };
        if self.credentials.is_some() {
            return Err(ConfigError::new(
                "password_file",
                "is set, and a provider of credentials too; leave one of them out",
            ));
        }
        // Later it may be away for a moment; at the start that is a slip.
        std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new("password_file", "cannot be read").with_source(error)
        })?;
        let username = config.username.as_deref().map(Into::into);
        Ok(Some(Arc::new(PasswordFile { username, path: path.clone() })))
    }
}

#[cfg(test)]
impl RedisStoreBuilder {
    pub(crate) fn options(self) -> StoreOptions {
        self.options
    }
}

/// Starts the connections and the maintenance task.
fn open(topology: Topology, options: StoreOptions, lists: CompiledLists) -> RedisStore {
    let is_cluster = topology.is_cluster();
    let topology = Arc::new(topology);
    let keys = Arc::new(RedisKeys::new(&options.prefix, options.shards));
    let tracker = Arc::new(EpochTracker::new(options.shards, options.max_token_lifetime));
    // In a cluster each shard has connections of its own, so that a primary that is down affects
    // its own shards only.
    let shards_per_connection = if is_cluster { 1 } else { options.shards };
    let shards: Vec<_> = (0..options.shards)
        .step_by(shards_per_connection.into())
        .map(|shard| shard..shard + shards_per_connection)
        .collect();
    let health_tx = Arc::new(watch::Sender::new(Health::starting(&shards)));
    let activity = Arc::new(StoreActivity::default());
    let config = {
        let (topology, keys, tracker, health_tx, activity) = (
            Arc::clone(&topology),
            Arc::clone(&keys),
            Arc::clone(&tracker),
            Arc::clone(&health_tx),
            Arc::clone(&activity),
        );
        move |purpose, limit, in_flight, slot, shards: Range<u16>| SupervisionConfig {
            purpose,
            topology: Arc::clone(&topology),
            keys: Arc::clone(&keys),
            tracker: Arc::clone(&tracker),
            slot,
            shards,
            limit,
            in_flight,
            health_tx: Arc::clone(&health_tx),
            activity: Arc::clone(&activity),
        }
    };
    let slot_of = |shards: &Range<u16>| fred::util::redis_keyslot(&keys.shard(shards.start).epoch);
    // Outside of a cluster, a check also asks the lists over this connection.
    let per_check = if is_cluster { 1 } else { 1 + lists.all.len() };
    let in_flight = options.max_in_flight.saturating_mul(per_check).min(Semaphore::MAX_PERMITS);
    let check = |shards: &Range<u16>| {
        let (limit, slot) = (options.check_timeout, slot_of(shards));
        BatchedChecks::start(config(Purpose::Checks, limit, in_flight, slot, shards.clone()))
    };
    let write = |shards: &Range<u16>| {
        let (limit, slot) = (options.write_timeout, slot_of(shards));
        SupervisedConnection::start(config(
            Purpose::Writes,
            limit,
            MAX_WRITES,
            slot,
            shards.clone(),
        ))
    };
    let (checks, writes) = (shards.iter().map(check).collect(), shards.iter().map(write).collect());
    let foreign = (!lists.all.is_empty()).then(|| {
        let limit = options.check_timeout;
        let in_flight =
            options.max_in_flight.saturating_mul(lists.all.len()).min(Semaphore::MAX_PERMITS);
        let connect = move |slot| {
            let shards = slot..slot;
            SupervisedConnection::start(config(Purpose::Checks, limit, in_flight, slot, shards))
        };
        let nodes = is_cluster.then(|| {
            ClusterConnections::start(Arc::clone(&topology), Arc::clone(&health_tx), connect)
        });
        Arc::new(ForeignLists { lists, unsent: UnsentQuestions::default(), nodes })
    });
    let logs = WriterLogs::new(options.shards);
    let core = Arc::new(StoreCore {
        options,
        topology,
        keys,
        tracker,
        checks,
        writes,
        writers: logs,
        health_tx,
        activity,
        clocks_are_apart: AtomicBool::new(false),
        accepted: Mutex::default(),
        maintenance: OnceLock::new(),
    });
    let duties = (maintain(Arc::downgrade(&core)), forget(Arc::downgrade(&core)));
    let maintenance = tokio::spawn(async move {
        tokio::join!(duties.0, duties.1);
    });
    let _ = core.maintenance.set(maintenance);
    RedisStore::new(core, foreign)
}

/// Waits until the store can be used, as [`Start`] says.
async fn begin(store: &RedisStore) -> Result<(), ConnectError> {
    // The last failure says more than "not in time".
    let mut last = StoreError::new(StoreErrorKind::Timeout, "redis was not there in time");
    match store.core.options.start {
        Start::WaitUpTo(limit) => match timeout(limit, store.core.open(false, &mut last)).await {
            Ok(opened) => opened?,
            // There is no epoch, and none can be begun. Redis can be reached all the same, so the
            // fail mode decides on each check, and not on whether the program runs.
            Err(_) if is_write_refused(&last) && store.health().is_connected() => {
                store.core.warn_of_refusal(&last);
            }
            Err(_) => return Err(ConnectError::Store(last)),
        },
        Start::AtOnce => store.core.open(true, &mut last).await?,
        Start::Anyway => return Ok(()),
    }
    let Some(foreign) = &store.foreign else { return Ok(()) };
    foreign.refuse_eviction(&store.core).await?;
    foreign.try_all(&store.core).await.map_err(ConnectError::Store)
}

/// Without credentials.
impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("options", &self.options)
            .field("sentinel_tls", &self.sentinel_tls)
            .field("address_map", &self.address_map)
            .field("own_tls", &self.servers.own_tls)
            .field("foreign", &self.foreign)
            .finish_non_exhaustive()
    }
}
