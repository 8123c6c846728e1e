//! The revocations of a shared store, in the memory of this process.
//!
//! A [`Mirror`] is a store that wraps another store. It loads a snapshot, follows the log of
//! writes, and answers checks from memory, without a round trip, *while it can prove that it is
//! fresh*. Otherwise it asks the store behind it.

// | module | what it is |
// | --- | --- |
// | `set` | the revocations: readers take no lock |
// | `fresh` | how old what the mirror says may be |
// | `follow` | the task that follows one log |
// | `state` | how far a log was followed and what that proves: a state machine without I/O |
// | `lineage` | where the log of another server can be joined |
// | `recovery` | what the mirror knows of what a store has lost |
// | `replay` | writes again what a store has lost |
// | `doubts` | which tokens are in doubt in any shard |
// | `status` | `MirrorStatus`: how it is |
// | `options` | `MirrorBuilder` |

mod doubts;
mod follow;
mod fresh;
mod lineage;
mod options;
mod recovery;
mod replay;
mod set;
mod state;
mod status;
mod sync;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::clock::{Clock, Timestamp};
use crate::config::ConfigError;
use crate::revocation::{
    AcceptedTargets, Action, Extent, Fact, Fingerprint, Outcome, Record, Revocation, Target,
    session_of,
};
use crate::samples::{Metric, Samples};
use crate::store::feed::{Feed, FeedSource};
use crate::store::waiters::Waiters;
use crate::store::{
    Condition, Fence, Follower, ListQuery, Lookup, Needs, Receipt, RecordPage, RevocationStore,
    RevokedBy, Standing, StoreError, StoreErrorKind,
};
use crate::verified::VerifiedToken;
use fresh::Freshness;
pub use options::MirrorBuilder;
use set::{FactSource, RevocationSet, SetVerdict};
pub use status::MirrorStatus;
use status::ShardStatus;

/// A store that answers from memory. Cheap to clone; the tasks behind it end with the last clone.
///
/// # What it promises
/// - It answers *revoked* whenever it knows of the revocation. It answers *live* only while it can
///   prove that every write older than [`with_max_staleness`](MirrorBuilder::with_max_staleness) is
///   in memory: it never misses a revocation that was confirmed longer ago. Otherwise it asks the
///   store, and the store's answer or error counts.
/// - It sees writes through itself at once.
/// - If the store loses data, the mirror keeps what it knew and replays it to the store. The doubt
///   about older tokens ends when the store has everything again, after five seconds at the
///   earliest. This needs that the mirror was fresh at the loss, that the store went on running,
///   and that no other process knew more. Otherwise the doubt stays until those tokens have
///   expired.
///
/// # When the machine sleeps
/// A proof ends by the monotonic clock or by the wall clock, whichever is first. So a mirror that
/// was suspended has to prove again that it is fresh. It cannot notice a suspension that neither
/// clock shows: both clocks of a virtual machine stood still, or the wall clock was set back by as
/// long as the machine slept.
///
/// # Memory
/// A revocation takes eight bytes in tables that are 68 to 85 % full, so about eleven. While there
/// are few enough ([`with_replayable`](MirrorBuilder::with_replayable)), it takes eleven more for
/// the whole fingerprint, without which it cannot be replayed. One with a cutoff, a reinstatement
/// or an end more than half a year away takes 95 to 200 bytes in all: 64 more in tables that are 60
/// to 75 % full, and another 48 where a session is spared. One look-up in 10¹³ refuses a token that
/// is not revoked, because 58 bits of two fingerprints are the same.
#[derive(Clone)]
pub struct Mirror {
    handle: Arc<Handle>,
}

/// What keeps the tasks running.
struct Handle {
    store: Arc<dyn RevocationStore>,
    shared: Arc<Shared>,
    /// Dropped, it ends the tasks.
    _stop: watch::Sender<()>,
}

/// What handles and tasks share.
struct Shared {
    name: Arc<str>,
    set: RevocationSet,
    freshness: Freshness,
    status: watch::Sender<MirrorStatus>,
    waiters: Arc<Waiters>,
    clock: Arc<dyn Clock>,
    shards: usize,
    /// [`Doubt`](crate::store::Doubt) in two words, for readers: tokens issued up to here are in
    /// doubt, zero if none are …
    doubt_issued_until: AtomicU64,
    /// … and until then those that do not say when they were issued.
    doubt_ends_at: AtomicU64,
    /// The clock of the store that is furthest behind, of those that were heard; zero until one
    /// was. It stands still while one of them is not heard any more, and nothing is swept then.
    time: AtomicU64,
}

impl Mirror {
    /// A mirror of a store, with the default options. Call it inside of a Tokio runtime; its tasks
    /// run there.
    ///
    /// It returns at once. Until the first snapshot is loaded, checks go to the store.
    ///
    /// # Errors
    /// [`ConfigError`] if the store is set up in a way that cannot be mirrored, such as one with
    /// foreign lists, or outside a runtime.
    pub fn new(store: impl FeedSource) -> Result<Self, ConfigError> {
        Self::builder(store).start()
    }

    /// A mirror of a store, with options.
    pub fn builder<S: FeedSource>(store: S) -> MirrorBuilder<S::Feed> {
        let feeds = store.feeds();
        MirrorBuilder::new(Arc::new(store), feeds)
    }

    /// A mirror of a store by these feeds, one for each shard, in the order of [`Fence::shard`].
    /// Use it if you make the feeds yourself; if the store makes them, it is a [`FeedSource`], and
    /// [`builder`](Self::builder) takes it.
    pub fn of<F: Feed>(store: impl RevocationStore, feeds: Vec<F>) -> MirrorBuilder<F> {
        MirrorBuilder::new(Arc::new(store), Ok(feeds))
    }

    /// The state of the mirror.
    pub fn status(&self) -> MirrorStatus {
        self.handle.shared.status.borrow().clone()
    }

    /// The state of the mirror, and each change of it. Every write and every heartbeat is a change.
    pub fn watch_status(&self) -> watch::Receiver<MirrorStatus> {
        self.handle.shared.status.subscribe()
    }

    /// How far the mirror may be behind at this moment: every write that was confirmed longer ago
    /// is in memory. `None` before the first proof.
    pub fn staleness(&self) -> Option<Duration> {
        let proof = self.handle.shared.status.borrow().proof()?;
        Some(self.handle.shared.freshness.age(proof))
    }

    /// Whether checks are answered from memory at this moment.
    pub fn is_fresh(&self) -> bool {
        self.handle.shared.freshness.is_fresh()
    }

    /// Waits until checks are answered from memory. Call it at the start, before the first request,
    /// to have no checks that ask the store.
    pub async fn ready(&self) {
        let mut status = self.watch_status();
        while !self.is_fresh() {
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until a write that was confirmed with this [`Receipt::fence`] has been read from the
    /// log.
    ///
    /// # Errors
    /// [`StoreError`] of kind [`StoreErrorKind::DataLoss`] if the store has begun another epoch
    /// since, in which the write may be missing.
    pub async fn wait_for(&self, fence: Fence) -> Result<(), StoreError> {
        let asked = self.handle.shared.freshness.now();
        // The mirror may not have heard of the epoch yet. A proof from now on settles that.
        let is_settled = |status: &MirrorStatus| match status.has_applied(&fence) {
            Some(is_applied) => is_applied,
            None => status.proof().is_some_and(|proof| proof.mono >= asked.mono),
        };
        let mut status = self.watch_status();
        let reached = status.wait_for(is_settled).await;
        match reached.ok().and_then(|status| status.has_applied(&fence)) {
            Some(true) => Ok(()),
            _ => Err(StoreError::new(
                StoreErrorKind::DataLoss,
                "the write belongs to another epoch of the store than the one that is mirrored",
            )),
        }
    }
}

impl Mirror {
    /// What the store says of a token that may have been revoked before a loss.
    fn check_in_doubt(&self, token: &Arc<VerifiedToken>) -> Lookup {
        match self.handle.store.check(token) {
            Lookup::Now(answer) => Lookup::Now(self.handle.shared.assess_loss(answer)),
            Lookup::Later(answer) => {
                let shared = Arc::clone(&self.handle.shared);
                Lookup::Later(async move { shared.assess_loss(answer.await) }.boxed())
            }
        }
    }
}

impl RevocationStore for Mirror {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        let shared = &*self.handle.shared;
        // Asked before the look-up: what the proof speaks of, and that by which a doubt has ended,
        // is then seen by it.
        let is_fresh = shared.freshness.is_fresh();
        let is_in_doubt = shared.is_in_doubt(token);
        match shared.find_revoked(token) {
            Some(by) => Lookup::Now(Ok(Standing::Revoked(by))),
            None if is_in_doubt => self.check_in_doubt(token),
            None if is_fresh => Lookup::Now(Ok(Standing::Live)),
            None => self.handle.store.check(token),
        }
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        let shared = Arc::clone(&self.handle.shared);
        let written = self.handle.store.write(changes.clone());
        async move {
            let receipts = written.await?;
            let facts: Vec<_> = changes
                .iter()
                .zip(&receipts)
                .filter_map(|(change, receipt)| written_fact(change, receipt))
                .collect();
            shared.apply(&facts, FactSource::Write);
            Ok(receipts)
        }
        .boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.handle.store.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.handle.store.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.handle.store.count()
    }

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.handle.store.erase_names(targets)
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        self.handle.store.followers(fence)
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        let (shared, token) = (Arc::clone(&self.handle.shared), Arc::clone(token));
        let waiters = Arc::clone(&shared.waiters);
        Some(waiters.first(token, move |token| shared.find_revoked(token)).boxed())
    }

    fn condition(&self) -> Condition {
        let freshness = &self.handle.shared.freshness;
        if freshness.is_fresh() {
            return Condition::Answering(self.handle.shared.status.borrow().doubt());
        }
        // Checks go to the store, so both have to fail.
        match (self.handle.store.condition(), freshness.ended()) {
            (Condition::Failing { error, lasts }, Some(ended)) => Condition::Failing {
                error,
                lasts: Some(lasts.map_or(ended, |lasts| lasts.min(ended))),
            },
            (condition, _) => condition,
        }
    }

    fn needs(&self) -> Needs {
        self.handle.store.needs()
    }

    fn expect_tokens_for(&self, longest: Duration) {
        self.handle.store.expect_tokens_for(longest);
    }

    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        self.handle.store.expect_targets(accepted);
    }

    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        self.handle.store.accepted_targets()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        let status = self.status();
        let staleness = self.staleness().map_or(f64::INFINITY, |age| age.as_secs_f64());
        samples.add_flag(Metric::MirrorFresh, &[], self.is_fresh());
        samples.add(Metric::MirrorStaleness, &[], staleness);
        let limit = self.handle.shared.freshness.limit();
        samples.add(Metric::MirrorMaxStaleness, &[], limit.as_secs_f64());
        samples.add_count(Metric::MirrorRevocations, &[], status.entries as u64);
        samples.add_count(Metric::MirrorBytes, &[], status.bytes as u64);
        samples.add_count(Metric::MirrorLag, &[], status.lag());
        samples.add_count(Metric::MirrorResyncs, &[], status.resyncs());
        samples.add_count(Metric::MirrorReplayed, &[], status.replayed());
        samples.add_count(Metric::MirrorRestarts, &[], status.restarts());
        self.handle.store.add_metrics(samples);
        self.handle.store.condition().add_metrics(samples);
    }
}

/// The fact that a receipt confirms: enough until the log has the whole record, and never more than
/// what was written.
fn written_fact(change: &Revocation, receipt: &Receipt) -> Option<(Fingerprint, Fact)> {
    if receipt.outcome == Outcome::AlreadyExpired {
        return None;
    }
    let at = receipt.at;
    let mut fact =
        Fact { until: change.until.max(at.saturating_add(change.lifetime)), ..Fact::default() };
    match change.action {
        Action::Revoke(Extent::All) => fact.all_revoked_at = at,
        Action::Revoke(Extent::IssuedSoFar) => {
            fact.cutoff = receipt.reissue_at?.saturating_sub(Duration::from_millis(1));
            fact.cutoff_set_at = at;
        }
        Action::Revoke(Extent::IssuedUntil(cutoff)) => {
            (fact.cutoff, fact.cutoff_set_at) = (cutoff, at);
        }
        // Nothing was in effect, so nothing was written; what is revoked next may be dated earlier,
        // if the clock is set back.
        Action::Reinstate if receipt.outcome == Outcome::Already => return None,
        Action::Reinstate => fact.reinstated_at = at,
    }
    let fact = fact.sparing(change.sparing.as_ref().map(Target::fingerprint));
    Some((change.target.fingerprint(), fact))
}

impl Shared {
    fn new(
        name: Arc<str>,
        freshness: Freshness,
        clock: Arc<dyn Clock>,
        shards: usize,
        (recent, replayable): (usize, usize),
    ) -> Self {
        let status = MirrorStatus {
            shards: vec![ShardStatus::default(); shards],
            ..MirrorStatus::default()
        };
        Self {
            name,
            set: RevocationSet::new(recent, replayable),
            freshness,
            status: watch::Sender::new(status),
            waiters: Arc::default(),
            clock,
            shards,
            doubt_issued_until: AtomicU64::new(0),
            doubt_ends_at: AtomicU64::new(0),
            time: AtomicU64::new(0),
        }
    }

    #[inline]
    fn find_revoked(&self, token: &VerifiedToken) -> Option<RevokedBy> {
        let reader = self.set.read();
        let issued_at = token.issued_at();
        let hit = token.targets().iter().find(|target| {
            let verdict = reader.verdict(target.fingerprint());
            verdict != SetVerdict::NONE
                && verdict.covers(issued_at)
                && !reader.spares(target.fingerprint(), verdict, || session_of(token), issued_at)
        });
        hit.map(|target| RevokedBy::new(target.kind()))
    }

    /// Whether a revocation of this token may be among what the store has lost.
    #[inline]
    fn is_in_doubt(&self, token: &VerifiedToken) -> bool {
        let issued_until = self.doubt_issued_until.load(Ordering::Acquire);
        issued_until != 0
            && match token.issued_at() {
                Some(issued_at) => issued_at.as_millis() <= issued_until,
                // How old it is nobody knows, but not older than the longest lifetime of a token.
                None => self.clock.now().as_millis() < self.doubt_ends_at.load(Ordering::Relaxed),
            }
    }

    /// A loss that the mirror is about to make good passes: whoever threw the token away would do
    /// so in vain.
    fn assess_loss(&self, answer: Result<Standing, StoreError>) -> Result<Standing, StoreError> {
        answer.map_err(|error| {
            if error.kind() != StoreErrorKind::DataLoss || !self.status.borrow().is_restoring() {
                return error;
            }
            let passing = "the store has lost its data, and the mirror, which knew all of it, \
                           writes it again; ask again in a moment";
            StoreError::new(StoreErrorKind::Settling, passing).with_source(error)
        })
    }

    fn apply(&self, facts: &[(Fingerprint, Fact)], source: FactSource) -> Vec<Fingerprint> {
        let unclear = self.set.apply(facts, source, self.now());
        self.waiters.wake(facts.iter().map(|(fingerprint, _)| fingerprint));
        unclear
    }

    /// The time by which it is decided what is over: neither ahead of our own clock, by which
    /// tokens are checked, nor of that of the store, by which records are kept.
    fn now(&self) -> Timestamp {
        self.clock.now().min(Timestamp::from_millis(self.time.load(Ordering::Relaxed)))
    }

    /// How often to ask for a heartbeat: a proof should be renewed well before it ends, also if one
    /// answer is late.
    fn heartbeat_every(&self) -> Duration {
        self.freshness.limit() / 4
    }

    /// How long the mirror is waited for after a heartbeat: at least for as long as the heartbeat
    /// proves anything, so that one that is not waited for any more does not answer from memory
    /// either.
    fn lease(&self) -> Duration {
        self.freshness.limit() * 2
    }

    fn update(&self, shard: u16, change: impl FnOnce(&mut ShardStatus)) {
        self.status.send_modify(|status| {
            if let Some(shard) = status.shards.get_mut(usize::from(shard)) {
                let resyncs = shard.resyncs;
                change(shard);
                if shard.resyncs > resyncs {
                    status.last_resync = shard.last_resync;
                }
            }
            let size = self.set.size();
            (status.entries, status.details, status.bytes) =
                (size.entries, size.details, size.bytes);
            // A doubt is published before the proof of the epoch in which it was reported, and it
            // ends after everything was applied that ended it.
            let doubt = status.doubt();
            self.doubt_ends_at.store(doubts::ends_at(doubt).as_millis(), Ordering::Relaxed);
            let issued_until = doubts::issued_until(doubt).as_millis();
            self.doubt_issued_until.store(issued_until, Ordering::Release);
            // One that was never heard has told us nothing that it could keep for longer. Without a
            // time everything that the others tell would have to be kept as details.
            let heard = status.shards.iter().map(|shard| shard.time);
            let time = heard.filter(|time| *time != Timestamp::ZERO).min().unwrap_or_default();
            self.time.store(time.as_millis(), Ordering::Relaxed);
            if let Some(proof) = status.proof() {
                self.freshness.prove(proof);
            }
        });
    }
}

/// A number from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(crate) fn chance() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Forgets what is over, a shard at a time, so that one round takes about as long as an expiry is
/// coarse.
async fn sweep(shared: Arc<Shared>, mut stop: watch::Receiver<()>) {
    let mut shards = (0..set::SHARDS).cycle();
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
            _ = stop.changed() => return,
        }
        if let Some(shard) = shards.next() {
            shared.set.sweep(shard, shared.now());
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("status", &*self.handle.shared.status.borrow())
            .field("staleness", &self.staleness())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
