//! [`RedisStore`]: revocations that all processes share.
//!
//! | | |
//! | --- | --- |
//! | [`RedisStore`], [`RedisStoreBuilder`] | the store, and what can be set |
//! | [`RedisConfig`] | a store from environment variables or a file |
//! | [`Health`] | whether Redis can be used right now |
//! | [`Report`] | what is wrong with this Redis as a keeper of revocations: [`RedisStore::doctor`] |
//! | [`foreign`] | lists of revoked tokens that other programs keep |
//! | [`RedisAuditSink`] | audit events by user |

// | room | what it is |
// | --- | --- |
// | `schema` | names of keys, spelling of records: pure |
// | `script` | the one Lua script that writes: arguments and reply |
// | `connect` | which server to talk to |
// | `wire` | one connection to it, and what its errors mean |
// | `guard` | a connection whose every question is answered in time |
// | `health` | whether Redis can be used right now |
// | `compare` | what of the known is still there, asked on each new connection |
// | `life` | how a loss of data is noticed, and which tokens are doubted then |
// | `options` | what can be set, and how a store is opened |
// | `settings` | a store from environment variables or a file |
// | `feed` | the log of one shard, for a mirror |
// | `followers` | which mirrors there are, and how far they have come |
// | `session` | the documents of sessions and families (feature `sessions`) |
// | `audit` | the audit sink that keeps events in journals |
// | `journal` | entries by target in the order of time: audit events |
// | `batch` | how checks that are under way at once share round trips |
// | `ask` | what goes over the wire: the check, the write, the look-ups |
// | `foreign` | lists of revoked tokens that other programs keep |
// | `doctor` | what is wrong with this Redis as a keeper of revocations |

mod ask;
mod audit;
mod batch;
mod compare;
mod connect;
mod doctor;
mod feed;
mod followers;
pub mod foreign;
mod guard;
mod health;
mod journal;
mod life;
mod options;
mod random;
mod schema;
mod script;
#[cfg(feature = "sessions")]
mod session;
mod settings;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The Redis client, in the version of which [`RedisStoreBuilder::with_config`] takes a
/// configuration.
pub use fred;

use super::{
    Fence, Follower, ListQuery, Lookup, Needs, Page, Receipt, RevocationStore, StoreError,
};
use crate::revocation::{Record, Revocation, Target};
use crate::verified::VerifiedToken;
pub use audit::{
    AUDIT_QUEUE_LENGTH, DEFAULT_AUDIT_EVENTS_PER_USER, DEFAULT_AUDIT_RETENTION, RedisAuditSink,
};
use batch::Desk;
use connect::Dialer;
pub use doctor::{Finding, Report, Severity};
pub use feed::RedisFeed;
use foreign::Foreign;
pub use foreign::ForeignList;
use guard::Link;
pub use health::Health;
use life::Memory;
use options::Settings;
pub use options::{
    ConnectError, DEFAULT_CHECK_TIMEOUT, DEFAULT_LOG_LENGTH, DEFAULT_MAX_IN_FLIGHT,
    DEFAULT_MAX_TOKEN_LIFETIME, DEFAULT_PREFIX, DEFAULT_START_LIMIT, DEFAULT_WRITE_TIMEOUT,
    RedisStoreBuilder, Start, WaitReplicas,
};
use schema::Keys;
pub use settings::RedisConfig;

/// Keeps revocations in Redis, where all processes find them. Cheap to clone; clones share their
/// connections, which end with the last clone.
///
/// A check is one round trip (`MGET`), shared with those that are asked at the same time, and
/// answers within [`with_check_timeout`](RedisStoreBuilder::with_check_timeout) whatever happens. A
/// write is one script, all or nothing for up to 128 changes of a shard; repeating it is safe.
/// Needs Redis 6.2 or later, or Valkey, with `maxmemory-policy noeviction`.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_revocation::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// # Ok(()) }
/// ```
///
/// # When Redis has lost its data
/// If a running process finds that Redis knows less than before (`FLUSHALL`, a restart without
/// data, a fail-over that lost writes), tokens issued until that moment are of unknown standing
/// ([`StoreErrorKind::DataLoss`]): by default their holders have to sign in again. Tokens issued
/// later pass. A [`Mirror`](crate::Mirror) that knew everything writes it again and ends the doubt.
/// An empty Redis that no running process knew otherwise is a first start.
///
/// [`StoreErrorKind::DataLoss`]: super::StoreErrorKind::DataLoss
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    dialer: Arc<Dialer>,
    keys: Arc<Keys>,
    memory: Arc<Memory>,
    /// One for all shards, or in a cluster one for each: then a dead primary takes nothing else
    /// away.
    checks: Box<[Desk]>,
    writes: Box<[Link]>,
    /// None, if there are no foreign lists.
    foreign: Option<Foreign>,
    health: Arc<watch::Sender<Health>>,
    /// Begins lives and publishes horizons. It holds no `Inner`, which ends it.
    steward: std::sync::OnceLock<JoinHandle<()>>,
}

impl RedisStore {
    /// Connects with the default options; see [`builder`](Self::builder) for the forms of URLs.
    ///
    /// # Errors
    /// [`ConnectError`] if the URL cannot work, or Redis cannot be used within
    /// [`DEFAULT_START_LIMIT`].
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, ConnectError> {
        Self::builder().with_url(url.as_ref()).connect().await
    }

    /// A store with options.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::default()
    }

    /// The logs of all shards, for a mirror.
    pub(crate) fn feeds(&self) -> Vec<RedisFeed> {
        let feed = |shard| RedisFeed::new(Arc::clone(&self.inner), shard);
        (0..self.inner.keys.shards()).map(feed).collect()
    }

    /// Whether it asks lists of other programs, which do not write to our log.
    pub(crate) fn has_foreign_lists(&self) -> bool {
        self.inner.foreign.is_some()
    }

    /// Whether Redis can be used right now. Costs nothing: it is what the store knows anyway.
    pub fn health(&self) -> Health {
        self.inner.health.borrow().clone()
    }

    /// Whether Redis can be used right now, and every change of that: for readiness probes and
    /// metrics.
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.inner.health.subscribe()
    }
}

impl RevocationStore for RedisStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        match &self.inner.foreign {
            None => self.inner.check(token),
            Some(foreign) => self.inner.check_with_lists(foreign, token),
        }
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        // In a task of its own, so that a caller who goes away leaves nothing half done.
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            match &inner.foreign {
                None => inner.write(changes).await,
                Some(foreign) => inner.write_with_lists(foreign, changes).await,
            }
        });
        async move { task.await.unwrap_or_else(|error| Err(ask::broken(error))) }.boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let (inner, fingerprint) = (Arc::clone(&self.inner), target.fingerprint());
        async move { inner.find(&fingerprint).await }.boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<Page, StoreError>> {
        let inner = Arc::clone(&self.inner);
        async move { inner.list(&query).await }.boxed()
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        let inner = Arc::clone(&self.inner);
        async move { inner.count().await }.boxed()
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        let inner = Arc::clone(&self.inner);
        async move { Box::pin(inner.followers(fence)).await }.boxed()
    }

    fn needs(&self) -> Needs {
        self.inner.foreign.as_ref().map_or(Needs::Claims, |foreign| foreign.lists.needs())
    }

    fn expect_tokens_for(&self, longest: Duration) {
        self.inner.memory.expect_tokens_for(longest);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(steward) = self.steward.get() {
            steward.abort();
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("settings", &self.inner.settings)
            .field("health", &*self.inner.health.borrow())
            .finish_non_exhaustive()
    }
}
