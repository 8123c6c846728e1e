//! The task that follows the log of one shard.
//!
//! ```text
//! connect ──▶ load (tail, heartbeat, snapshot) ──▶ read ──▶ heartbeat ─┐
//!    ▲            ▲                                 ▲                  │
//!    │ any error  │ gap, trim, new life, regression └──────────────────┘
//! ```
//!
//! **What is fresh**: a heartbeat tells how many changes the store had written when it was asked.
//! As soon as that many are applied, everything that was written before the heartbeat was *sent* is
//! in memory. A number says so only of a log that goes on where it was left, so on a new connection
//! nothing is proved before the log was read.
//!
//! **What is lost** never goes unnoticed: entries are numbered within a life of the store, so the
//! next entry, or a heartbeat that knows of more than the log holds, shows the gap. The set is not
//! emptied for a new snapshot: a store that lost data must not un-revoke.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::doubts::{is_over, issued_until};
use super::fresh::Moment;
use super::replay::{Replay, ReplayStep};
use super::set::{FactSource, SHARDS};
use super::status::{Phase, Resync, ShardStatus};
use super::{Shared, chance};
use crate::store::feed::{EndDoubt, Feed, Heartbeat, LogEntry, LogId, Progress};
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// Pauses between attempts to connect.
const BACKOFF: [Duration; 2] = [Duration::from_millis(25), Duration::from_secs(1)];

/// How long all processes have, after data was lost, to say how much they knew: they look at least
/// twice a second.
const SETTLED: Duration = Duration::from_secs(5);

/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// Follows one log until the last handle is gone.
pub(super) async fn follow(
    feed: impl Feed,
    number: u16,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<()>,
) {
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
    /// The log has not been read since the connection was made, or the snapshot taken.
    is_unread: bool,
    /// The store did not take the lease.
    is_uncounted: bool,
    /// The latest moment up to which everything was in memory.
    proof: Option<Moment>,
    /// The last life that was loaded; zero before the first.
    life: u64,
    /// All that was revoked up to the place is in memory: no data was lost before of which the
    /// mirror does not know.
    is_whole: bool,
    /// The store has lost data and is being told what it was.
    replay: Option<Replay>,
    /// What the mirror knows of the life that was lost, if it was whole.
    witness: Option<Witness>,
    /// Which tokens are in doubt, as the store says.
    doubt: Doubt,
    /// The store says so of fewer tokens than before, which holds for the mirror when it has got so
    /// far.
    smaller_doubt: Option<SmallerDoubt>,
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

/// A doubt that has ended, or does not reach as far any more: by changes up to this one, which told
/// again what was lost.
#[derive(Clone, Copy, Debug)]
struct SmallerDoubt {
    seq: u64,
    doubt: Doubt,
}

/// That the mirror had everything that a life held when its data was lost.
#[derive(Clone, Copy, Debug)]
struct Witness {
    life: u64,
    seq: u64,
    /// When the loss was heard of.
    since: Instant,
    /// The store has it all again.
    is_healed: bool,
}

impl Witness {
    /// How long there is nothing to do about it.
    fn wait(&self) -> Duration {
        if self.is_healed {
            (self.since + SETTLED).saturating_duration_since(Instant::now())
        } else {
            Duration::MAX
        }
    }
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
            is_unread: false,
            is_uncounted: false,
            proof: None,
            life: 0,
            is_whole: false,
            replay: None,
            witness: None,
            doubt: Doubt::None,
            smaller_doubt: None,
            failures: 0,
        }
    }

    /// Never returns.
    async fn run(&mut self) -> std::convert::Infallible {
        loop {
            let Err(error) = self.session().await;
            self.failures += 1;
            if self.failures == 1 {
                tracing::warn!(shard = self.number, error = %error.chain(),
                    "the mirror cannot follow the log; trying until it can");
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
        self.is_unread = true;
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
            let is_urgent = is_behind || self.is_unread;
            let wait = if is_urgent { Duration::ZERO } else { self.shared.heartbeat_every() };
            let until_replay = self.replay.as_ref().map_or(Duration::MAX, Replay::wait);
            let until_lift = self.witness.as_ref().map_or(Duration::MAX, Witness::wait);
            let entries = self.feed.read(place.id, wait.min(until_replay).min(until_lift)).await?;
            if entries.is_empty() && is_behind {
                self.lose(Resync::Trimmed, self.known);
                continue;
            }
            self.take(&entries);
            self.is_unread = false;
            self.beat().await?;
            self.heal().await?;
            self.lift().await?;
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
        self.shared.apply(&facts, FactSource::Write);
        self.place = Some(place);
        if let Some(reason) = resync {
            self.lose(reason, self.known);
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
            return Err(StoreError::new(
                StoreErrorKind::Timeout,
                format!("a heartbeat took {took:?}"),
            ));
        }
        let known = std::mem::replace(&mut self.known, heartbeat.seq);
        self.doubt = heartbeat.doubt;
        let mut is_less = false;
        self.update(|status| {
            status.time = heartbeat.time;
            status.known = heartbeat.seq;
            // A doubt counts at once. When it ends, what was told again may still be on its way
            // here.
            is_less = issued_until(heartbeat.doubt) < issued_until(status.doubt);
            if !is_less {
                status.doubt = heartbeat.doubt;
            }
        });
        let Heartbeat { seq, doubt, .. } = heartbeat;
        // The first of several that say the same: under load there is always a later one that is
        // not caught up with.
        let earlier =
            self.smaller_doubt.filter(|smaller| issued_until(smaller.doubt) == issued_until(doubt));
        self.smaller_doubt = is_less.then(|| earlier.unwrap_or(SmallerDoubt { seq, doubt }));
        let Some(place) = self.place else { return Ok(heartbeat) };
        self.heed_lease(heartbeat.lease.as_ref().err());
        if heartbeat.epoch != place.epoch {
            self.lose(Resync::NewEpoch, known);
            return Ok(heartbeat);
        }
        if heartbeat.seq < place.seq {
            self.lose(Resync::Regression, known);
            return Ok(heartbeat);
        }
        if is_over(heartbeat.doubt, heartbeat.time) {
            (self.is_whole, self.witness) = (true, None);
        } else {
            self.is_whole = false;
        }
        if heartbeat.seq == place.seq {
            self.pending = None;
            self.publish(place, (!self.is_uncounted && !self.is_unread).then_some(sent));
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
                tracing::warn!(shard = self.number, error = %error.chain(),
                    "the mirror has no lease; checks go to the store until it has");
            }
            self.pending = None;
            self.update(|status| status.error = Some(error.clone()));
        }
        self.is_uncounted = uncounted.is_some();
    }

    /// The place is not to be relied on: a snapshot is needed.
    fn lose(&mut self, reason: Resync, known: u64) {
        tracing::warn!(shard = self.number, %reason, "the mirror takes a new snapshot");
        if matches!(reason, Resync::NewEpoch | Resync::Regression) {
            // Up to the loss nothing may have escaped it: it was fresh, and still is. A second loss
            // is one too many.
            let is_fresh = self.proof.is_some_and(|proof| self.shared.freshness.holds(proof));
            let knew_all = |place: &Place| {
                is_fresh && self.is_whole && self.witness.is_none() && known <= place.seq
            };
            let witness = |place: Place| Witness {
                life: place.epoch,
                seq: place.seq,
                since: Instant::now(),
                is_healed: false,
            };
            let witness = self.place.filter(knew_all).map(witness);
            self.begin_to_heal(witness);
            // The next one that is loaded may be this one again, with less in it.
            self.life = 0;
        }
        self.forget_place(reason);
    }

    /// How far it has come is not known.
    fn forget_place(&mut self, reason: Resync) {
        self.place = None;
        self.pending = None;
        self.smaller_doubt = None;
        self.resync = Some(reason);
    }

    /// Data was lost.
    fn begin_to_heal(&mut self, witness: Option<Witness>) {
        (self.is_whole, self.witness) = (false, witness);
        // Another mirror may be faster.
        self.replay = Some(Replay::after(self.shared.freshness.limit().mul_f64(chance())));
    }

    /// Takes a snapshot.
    async fn load(&mut self) -> Result<Place, StoreError> {
        self.update(|status| status.phase = Phase::Loading);
        // The end of the log is read first: what is written from here on is read from the log, and
        // some of it twice.
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
                let unclear = self.shared.apply(facts, FactSource::Snapshot);
                if !unclear.is_empty() {
                    let found = self.feed.find(&unclear).await?;
                    let found: Vec<_> = unclear
                        .into_iter()
                        .zip(found)
                        .filter_map(|(name, fact)| Some((name, fact?)))
                        .collect();
                    self.shared.apply(&found, FactSource::Write);
                }
                tokio::task::yield_now().await;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if self.life != 0 && self.life != start.epoch {
            // It was lost while the mirror was looking for another reason.
            self.begin_to_heal(None);
        }
        self.life = start.epoch;
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
        self.is_unread = true;
        self.publish(place, None);
        Ok(place)
    }

    /// Tells the store some of what it has lost.
    async fn heal(&mut self) -> Result<(), StoreError> {
        // First the snapshot: what the store still has, it need not be told.
        let (Some(replay), true) = (&mut self.replay, self.place.is_some()) else {
            return Ok(());
        };
        let before = replay.replayed();
        let step = replay.step(&self.shared.set, &mut self.feed, self.shared.now()).await;
        let told = replay.replayed() - before;
        if told > 0 {
            self.update(|status| status.replayed += told);
        }
        if let ReplayStep::Done { replayed, unidentified } = step? {
            tracing::info!(
                shard = self.number,
                replayed,
                unidentified,
                "the store was told what it had lost"
            );
            self.replay = None;
            match &mut self.witness {
                Some(witness) if unidentified == 0 => witness.is_healed = true,
                _ => self.witness = None,
            }
        }
        Ok(())
    }

    /// Ends the doubt about older tokens, if the store has again all that there was.
    async fn lift(&mut self) -> Result<(), StoreError> {
        let (Some(witness), Some(place)) = (self.witness, self.place) else { return Ok(()) };
        if !witness.wait().is_zero() {
            return Ok(());
        }
        let lift = EndDoubt {
            former_epoch: witness.life,
            seq: witness.seq,
            epoch: place.epoch,
            issued_until: issued_until(self.doubt),
        };
        let is_lifted = self.feed.end_doubt(lift).await?;
        self.witness = None;
        if is_lifted {
            tracing::info!(
                shard = self.number,
                "the store has all again that it had lost: no token is in doubt any more"
            );
            self.update(|status| status.doubts_ended += 1);
        } else {
            tracing::warn!(
                shard = self.number,
                "others know of revocations that the mirror had not heard of when the store lost \
                 them; older tokens stay in doubt"
            );
        }
        Ok(())
    }

    fn publish(&mut self, place: Place, proof: Option<Moment>) {
        self.proof = proof.or(self.proof);
        let smaller = self.smaller_doubt.take_if(|smaller| place.seq >= smaller.seq);
        self.update(|status| {
            if let Some(smaller) = smaller {
                status.doubt = smaller.doubt;
            }
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
        let words =
            words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?");
        tracing::error!(
            shard = self.number,
            panic = words,
            "the task of the mirror panicked; it starts again"
        );
        self.forget_place(Resync::Panic);
        self.update(|status| {
            status.phase = Phase::Connecting;
            status.restarts += 1;
            status.error =
                Some(StoreError::new(StoreErrorKind::Other, "the task of the mirror panicked"));
        });
    }
}
