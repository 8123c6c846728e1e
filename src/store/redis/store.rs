//! [`RedisStore`]: the handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::command::task_failed;
use super::core::StoreCore;
use super::foreign::ForeignLists;
use super::health::Health;
use crate::revocation::{AcceptedTargets, Fingerprint, Record, Revocation, Target};
use crate::samples::Samples;
use crate::store::{
    Condition, Fence, Follower, ListQuery, Lookup, Needs, Receipt, RecordPage, RevocationStore,
    StoreError,
};
use crate::verified::VerifiedToken;

/// A store in Redis, which all processes share. Cheap to clone; clones share their connections,
/// which end with the last clone.
///
/// A check is one round trip (`MGET`), which simultaneous checks share. It always answers within
/// [`with_check_timeout`](super::RedisStoreBuilder::with_check_timeout). If the connection is lost,
/// the check waits for the next one and is sent again. A write is one script, all or nothing for up
/// to 128 changes of a shard; repeating it is safe. It needs Redis 6.2 or later, or Valkey, with
/// `maxmemory-policy noeviction`.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_jwt_revocation::RedisStore;
///
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// # Ok(()) }
/// ```
///
/// # The log
/// The store logs each change of state once, by `tracing`: connected, lost, replaced, unusable,
/// settling, data lost. Its client `fred` also warns of each closed connection, through the crate
/// `log`. If your subscriber collects that (`tracing_subscriber::fmt().init()` does), `fred=error`
/// in the filter hides these warnings; you miss nothing.
///
/// # When the server changes, or has lost data
/// After a failover, or a restart with older data, the running processes put back what they have
/// confirmed. Until then every token is in doubt ([`StoreErrorKind::Settling`]): for about a
/// second, or for up to 30 s if one of the processes does not come back. What cannot be put back is
/// a loss, as after a `FLUSHALL` or a restart without data. Tokens issued until that moment are
/// then in lasting doubt ([`StoreErrorKind::DataLoss`]): by default they are refused with 401, and
/// their holders have to sign in again. Tokens issued later pass. A [`Mirror`](crate::Mirror) that
/// knew everything writes it again and ends the doubt. An empty Redis counts as a first start,
/// unless a running process knew otherwise.
///
/// [`StoreErrorKind::Settling`]: crate::store::StoreErrorKind::Settling
/// [`StoreErrorKind::DataLoss`]: crate::store::StoreErrorKind::DataLoss
#[derive(Clone)]
#[doc(alias = "blacklist")]
#[doc(alias = "blocklist")]
#[doc(alias = "denylist")]
pub struct RedisStore {
    pub(crate) core: Arc<StoreCore>,
    /// None, if there are no foreign lists.
    pub(crate) foreign: Option<Arc<ForeignLists>>,
}

impl RedisStore {
    pub(crate) fn new(core: Arc<StoreCore>, foreign: Option<Arc<ForeignLists>>) -> Self {
        Self { core, foreign }
    }

    /// Whether Redis can be used right now, by what the store knows anyway: it needs no round trip.
    pub fn health(&self) -> Health {
        let mut health = self.core.health_tx.borrow().clone();
        self.core.tell_doubt(&mut health);
        health
    }

    /// Tells Redis that this process will not write any more. Call it after the last write, before
    /// the process ends. Otherwise, if the primary changes within half a minute, the other
    /// processes wait for this one. If it does not come back, the tokens issued until then are in
    /// doubt. With sentinels and in a cluster this waits, for ten seconds at most, while the
    /// primary is away or being replaced, because the next one would not learn of it. Dropping the
    /// last clone of the store does the same without waiting, and does not reach Redis if the
    /// runtime ends first.
    ///
    /// # Errors
    /// [`StoreError`] if Redis has not confirmed it.
    #[doc(alias = "shutdown")]
    pub async fn close(&self) -> Result<(), StoreError> {
        Box::pin(self.core.sign_off()).await
    }

    /// The record under this fingerprint, if there is one. It is for programs that follow the log,
    /// which names no targets; see [`FeedSource`](crate::store::feed::FeedSource). A record that a
    /// mirror has replayed is [nameless](Target::nameless).
    ///
    /// # Errors
    /// [`StoreError`] if Redis could not be asked.
    pub async fn find_by_fingerprint(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Record>, StoreError> {
        self.core.find(fingerprint).await
    }

    /// Whether Redis can be used right now, what is in doubt, and every change of that: for
    /// readiness probes and metrics.
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.core.health_tx.subscribe()
    }
}

impl RevocationStore for RedisStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        match &self.foreign {
            None => self.core.check(token),
            Some(foreign) => foreign.check(&self.core, token),
        }
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        // In a task of its own, so that a caller who goes away leaves nothing half done.
        let Self { core, foreign } = self.clone();
        let task = tokio::spawn(async move {
            match &foreign {
                None => core.write(changes).await,
                Some(foreign) => foreign.write(&core, changes).await,
            }
        });
        async move { task.await.unwrap_or_else(|error| Err(task_failed(error))) }.boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let (core, fingerprint) = (Arc::clone(&self.core), target.fingerprint());
        async move { core.find(&fingerprint).await }.boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        let core = Arc::clone(&self.core);
        async move { core.list(&query).await }.boxed()
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        let core = Arc::clone(&self.core);
        async move { core.count().await }.boxed()
    }

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        let core = Arc::clone(&self.core);
        async move { core.erase_names(&targets).await }.boxed()
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        let core = Arc::clone(&self.core);
        async move { Box::pin(core.followers(fence)).await }.boxed()
    }

    fn condition(&self) -> Condition {
        self.health().condition()
    }

    fn needs(&self) -> Needs {
        self.foreign.as_ref().map_or(Needs::Claims, |foreign| foreign.lists.needs())
    }

    fn expect_tokens_for(&self, longest: Duration) {
        self.core.tracker.expect_tokens_for(longest);
    }

    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        self.core.expect_targets(accepted);
    }

    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        let core = Arc::clone(&self.core);
        async move { core.accepted_targets().await }.boxed()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        self.core.add_metrics(samples);
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = self.foreign.iter().flat_map(|foreign| &foreign.lists.all);
        f.debug_struct("RedisStore")
            .field("options", &self.core.options)
            .field("foreign_lists", &lists.map(|list| &list.name).collect::<Vec<_>>())
            .field("health", &*self.core.health_tx.borrow())
            .finish_non_exhaustive()
    }
}
