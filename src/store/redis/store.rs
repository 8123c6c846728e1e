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

/// Keeps revocations in Redis, where all processes find them. Cheap to clone; clones share their
/// connections, which end with the last clone.
///
/// A check is one round trip (`MGET`), shared with those that are asked at the same time, and
/// answers within [`with_check_timeout`](super::RedisStoreBuilder::with_check_timeout) whatever
/// happens. If the connection is lost, it waits for the next one, and is asked again. A write is
/// one script, all or nothing for up to 128 changes of a shard; repeating it is safe. Needs Redis
/// 6.2 or later, or Valkey, with `maxmemory-policy noeviction`.
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
/// Each change of state is said once, by `tracing`: connected, lost, replaced, unusable, settling,
/// data lost. The client underneath, `fred`, warns of closed connections as well, through the crate
/// `log`, once for each connection and without saying what it means. Where that is collected
/// (`tracing_subscriber::fmt().init()` does), `fred=error` in the filter leaves it out, and nothing
/// is missed.
///
/// # When the server changes, or has lost data
/// After a failover, or a restart with older data, the processes that still run put back what they
/// have confirmed. Until they have, every token is in doubt ([`StoreErrorKind::Settling`]): for
/// about a second, and for 30 s at most if one of them does not come. What cannot be put back is a
/// loss, as after a `FLUSHALL` or a restart without data: tokens issued until that moment are in
/// lasting doubt ([`StoreErrorKind::DataLoss`]): by default they are refused with 401, and their
/// holders have to sign in again. Tokens issued later pass. A [`Mirror`](crate::Mirror) that knew
/// everything writes it again and ends the doubt. An empty Redis is a first start, unless a running
/// process knew otherwise.
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

    /// Whether Redis can be used right now. Costs nothing: it is what the store knows anyway.
    pub fn health(&self) -> Health {
        let mut health = self.core.health_tx.borrow().clone();
        self.core.tell_doubt(&mut health);
        health
    }

    /// Says to Redis that this process will not write any more. Call it before the process ends,
    /// after its last write: else the process is waited for if the primary changes within half a
    /// minute, and if it does not come back, what it wrote last is in doubt (the tokens issued
    /// until then). Behind sentinels and in a cluster it waits, for ten seconds at most, while the
    /// primary is away or being replaced: the next one would not hear of it. Dropping the last
    /// clone of the store says it too, but does not wait, and does not reach Redis if the runtime
    /// ends first.
    ///
    /// # Errors
    /// [`StoreError`] if Redis has not confirmed it.
    #[doc(alias = "shutdown")]
    pub async fn close(&self) -> Result<(), StoreError> {
        Box::pin(self.core.sign_off()).await
    }

    /// The record that is kept under this fingerprint, if there is one: for those who follow the
    /// log, which names no targets; see [`FeedSource`](crate::store::feed::FeedSource). One that a
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
