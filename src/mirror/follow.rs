//! The task that follows the log of one shard.
//!
//! ```text
//! connect ──▶ load (tail, heartbeat, snapshot) ──▶ read ──▶ heartbeat ─┐
//!    ▲            ▲                                 ▲                  │
//!    │ any error  │ gap, trim, new life, regression └──────────────────┘
//! ```
//!
//! **What is fresh**: a heartbeat tells how many changes the store had written when it was asked. As soon as that many
//! are applied, everything that was written before the heartbeat was *sent* is in memory.
//!
//! **What is lost** never goes unnoticed: entries are numbered within a life of the store, so the next entry, or a
//! heartbeat that knows of more than the log holds, shows the gap. The set is not emptied for a new snapshot: a store
//! that lost data must not un-revoke.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::fresh::Moment;
use super::heal::{Healing, Step};
use super::set::{Origin, SHARDS};
use super::status::{Phase, Resync, ShardStatus};
use super::{Shared, chance};
use crate::store::feed::{Feed, Heartbeat, LogEntry, LogId, Progress};
use crate::store::{StoreError, StoreErrorKind};

/// Pauses between attempts to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(25), Duration::from_secs(1)];

/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// Follows one log until the last handle is gone.
pub(super) async fn follow(feed: impl Feed, number: u16, shared: Arc<Shared>, mut stop: watch::Receiver<()>) {
    let mut follower = Follower::new(feed, number, shared);
    loop {
        let outcome = tokio::select! {
            outcome = AssertUnwindSafe(follower.run()).catch_unwind() => outcome,
            // Nothing is ever sent: the channel closes when the last handle is dropped.
            _ = stop.changed() => break,
        };
        let Err(panic) = outcome;
        follower.note_panic(&*panic);
        tokio::select! {
            () = sleep(BACKOFF[1]) => {}
            _ = stop.changed() => break,
        }
    }
    // Nobody is to wait for this mirror any more.
    let _ = timeout(FAREWELL, AssertUnwindSafe(follower.feed.leave()).catch_unwind()).await;
}

struct Follower<F> {
    feed: F,
    /// Of the shard.
    number: u16,
    shared: Arc<Shared>,
    place: Option<Place>,
    /// How many changes the last heartbeat knew of.
    known: u64,
    /// A heartbeat that is waiting to be caught up with.
    pending: Option<(u64, Moment)>,
    resync: Option<Resync>,
    /// The snapshot has just been taken.
    is_new: bool,
    /// The store did not take the lease.
    is_uncounted: bool,
    /// The store has lost data and is being told what it was.
    healing: Option<Healing>,
    failures: u32,
}

/// How far the log has been read.
#[derive(Clone, Copy, Debug)]
struct Place {
    epoch: u64,
    seq: u64,
    id: LogId,
    /// Up to here the snapshot has it all, and entries may come again.
    loaded: u64,
}

impl<F: Feed> Follower<F> {
    fn new(feed: F, number: u16, shared: Arc<Shared>) -> Self {
        Self {
            feed,
            number,
            shared,
            place: None,
            known: 0,
            pending: None,
            resync: None,
            is_new: false,
            is_uncounted: false,
            healing: None,
            failures: 0,
        }
    }

    /// Never returns.
    async fn run(&mut self) -> std::convert::Infallible {
        loop {
            let Err(error) = self.session().await;
            self.failures += 1;
            if self.failures == 1 {
                tracing::warn!(shard = self.number, %error, "the mirror cannot follow the log; trying until it can");
            }
            self.update(|status| {
                status.phase = Phase::Connecting;
                status.error = Some(error);
            });
            let [first, longest] = BACKOFF;
            let pause = first.saturating_mul(1 << self.failures.min(10)).min(longest);
            // Jitter, so that a thousand processes do not all come back in one instant.
            sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
        }
    }

    /// Connects, and follows the log until something goes wrong.
    async fn session(&mut self) -> Result<std::convert::Infallible, StoreError> {
        self.feed.connect().await?;
        // Whatever the last connection had promised, this one may lead to another server.
        self.pending = None;
        self.beat().await?;
        loop {
            let place = match self.place {
                Some(place) => place,
                None => self.load().await?,
            };
            if self.failures > 0 {
                tracing::info!(shard = self.number, "the mirror follows the log again");
                self.failures = 0;
            }
            // What is known to be there needs no waiting; if it is not there, it never will be.
            let is_behind = place.seq < self.known;
            let is_urgent = is_behind || std::mem::take(&mut self.is_new);
            let wait = if is_urgent { Duration::ZERO } else { self.shared.heartbeat_every() };
            let until_healing = self.healing.as_ref().map_or(Duration::MAX, Healing::wait);
            let entries = self.feed.read(place.id, wait.min(until_healing)).await?;
            if entries.is_empty() && is_behind {
                self.lose(Resync::Trimmed);
                continue;
            }
            self.take(&entries);
            self.beat().await?;
            self.heal().await?;
        }
    }

    /// Applies entries of the log.
    fn take(&mut self, entries: &[LogEntry]) {
        let Some(mut place) = self.place else { return };
        let mut facts = Vec::with_capacity(entries.len());
        let mut resync = None;
        for entry in entries {
            // Whatever else is wrong, it was said.
            facts.push((entry.fingerprint, entry.fact));
            if resync.is_some() {
                continue;
            }
            place.id = entry.id;
            resync = match entry.seq {
                _ if entry.epoch != place.epoch => Some(Resync::NewEpoch),
                seq if seq == place.seq + 1 => {
                    place.seq = seq;
                    None
                }
                seq if seq <= place.seq && place.seq == place.loaded => None,
                seq if seq <= place.seq => Some(Resync::Regression),
                _ => Some(Resync::Gap),
            };
        }
        self.shared.apply(&facts, Origin::Told);
        self.place = Some(place);
        if let Some(reason) = resync {
            self.lose(reason);
            return;
        }
        let proof = self.pending.take_if(|(seq, _)| place.seq >= *seq).map(|(_, sent)| sent);
        if proof.is_some() || !entries.is_empty() {
            self.publish(place, proof);
        }
    }

    /// Asks for a heartbeat, and draws the conclusions.
    async fn beat(&mut self) -> Result<Heartbeat, StoreError> {
        let (epoch, seq) = self.place.map_or((0, 0), |place| (place.epoch, place.seq));
        let name = Arc::clone(&self.shared.name);
        let progress = Progress { name, epoch, seq, lease: self.shared.lease() };
        let sent = self.shared.freshness.now();
        let heartbeat = self.feed.heartbeat(progress).await?;
        let took = self.shared.freshness.age(sent);
        if took > self.shared.freshness.limit() / 2 {
            // It hung so long that another may have taken its place: find out who is the primary.
            return Err(StoreError::new(StoreErrorKind::Timeout, format!("a heartbeat took {took:?}")));
        }
        self.known = heartbeat.seq;
        self.update(|status| {
            status.time = heartbeat.time;
            (status.horizon, status.lifted) = (heartbeat.horizon, heartbeat.lifted);
            status.known = heartbeat.seq;
        });
        let Some(place) = self.place else { return Ok(heartbeat) };
        self.heed_lease(heartbeat.uncounted.as_ref());
        if heartbeat.epoch != place.epoch {
            self.lose(Resync::NewEpoch);
        } else if heartbeat.seq < place.seq {
            self.lose(Resync::Regression);
        } else if heartbeat.seq == place.seq {
            self.pending = None;
            self.publish(place, (!self.is_uncounted).then_some(sent));
        } else if self.pending.is_none() && !self.is_uncounted {
            // Kept until it is caught up with: under load there is always a newer one that is not.
            self.pending = Some((heartbeat.seq, sent));
        }
        Ok(heartbeat)
    }

    /// Without a lease nobody waits for this mirror, so it must not answer from memory.
    fn heed_lease(&mut self, uncounted: Option<&StoreError>) {
        if let Some(error) = uncounted {
            if !self.is_uncounted {
                tracing::warn!(shard = self.number, %error, "the mirror has no lease; checks go to the store until it has");
            }
            self.pending = None;
            self.update(|status| status.error = Some(error.clone()));
        }
        self.is_uncounted = uncounted.is_some();
    }

    /// The place is not to be relied on: a snapshot is needed.
    fn lose(&mut self, reason: Resync) {
        tracing::warn!(shard = self.number, %reason, "the mirror takes a new snapshot");
        if matches!(reason, Resync::NewEpoch | Resync::Regression) {
            self.healing = Some(Healing::after(self.shared.freshness.limit().mul_f64(chance())));
        }
        self.place = None;
        self.pending = None;
        self.resync = Some(reason);
    }

    /// Takes a snapshot.
    async fn load(&mut self) -> Result<Place, StoreError> {
        self.update(|status| status.phase = Phase::Loading);
        // The end of the log is read first: what is written from here on is read from the log, and some of it twice.
        let id = self.feed.tail().await?;
        let start = self.beat().await?;
        let expected = usize::try_from(self.feed.count().await?).unwrap_or(usize::MAX);
        let expected = expected.saturating_mul(self.shared.shards);
        if expected > self.shared.set.size().entries {
            for shard in 0..SHARDS {
                self.shared.set.reserve(shard, expected, self.shared.now());
                if shard % 8 == 7 {
                    tokio::task::yield_now().await;
                }
            }
        }
        let mut cursor = None;
        loop {
            let page = self.feed.snapshot(cursor).await?;
            for facts in page.facts.chunks(1024) {
                let unclear = self.shared.apply(facts, Origin::Snapshot);
                if !unclear.is_empty() {
                    let found = self.feed.find(&unclear).await?;
                    let found: Vec<_> = unclear
                        .into_iter()
                        .zip(found)
                        .filter_map(|(name, fact)| Some((name, fact?)))
                        .collect();
                    self.shared.apply(&found, Origin::Told);
                }
                tokio::task::yield_now().await;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let place = Place { epoch: start.epoch, seq: start.seq, id, loaded: start.seq };
        self.place = Some(place);
        let resync = self.resync.take();
        self.update(|status| {
            if status.epoch != 0 {
                status.resyncs += 1;
                status.last_resync = resync;
            }
            status.phase = Phase::Following;
            status.error = None;
        });
        self.is_new = true;
        self.publish(place, None);
        Ok(place)
    }

    /// Tells the store some of what it has lost.
    async fn heal(&mut self) -> Result<(), StoreError> {
        // First the snapshot: what the store still has, it need not be told.
        let (Some(healing), true) = (&mut self.healing, self.place.is_some()) else { return Ok(()) };
        let before = healing.restored();
        let step = healing.step(&self.shared.set, &mut self.feed, self.shared.now()).await;
        let told = healing.restored() - before;
        if told > 0 {
            self.update(|status| status.restored += told);
        }
        if let Step::Done { restored, nameless } = step? {
            tracing::info!(shard = self.number, restored, nameless, "the store was told what it had lost");
            self.healing = None;
        }
        Ok(())
    }

    fn publish(&self, place: Place, proof: Option<Moment>) {
        self.update(|status| {
            (status.epoch, status.applied) = (place.epoch, place.seq);
            status.known = status.known.max(place.seq);
            status.phase = Phase::Following;
            if !self.is_uncounted {
                status.error = None;
            }
            if proof.is_some() {
                status.proof = proof;
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut ShardStatus)) {
        self.shared.update(self.number, change);
    }

    fn note_panic(&mut self, panic: &(dyn std::any::Any + Send)) {
        let words = panic.downcast_ref::<&str>().copied();
        let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?");
        tracing::error!(
            shard = self.number,
            panic = words,
            "the task of the mirror panicked; it starts again"
        );
        // How far it came is not known.
        self.place = None;
        self.pending = None;
        self.resync = Some(Resync::Panic);
        self.update(|status| {
            status.phase = Phase::Connecting;
            status.restarts += 1;
            status.error = Some(StoreError::new(StoreErrorKind::Other, "the task of the mirror panicked"));
        });
    }
}
