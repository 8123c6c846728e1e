//! The task that follows the log of one shard: it asks the feed what the [state
//! machine](super::state) wants to know, applies the facts to the set, and publishes the status.
//!
//! What the feed answers is checked as far as the mirror can: an answer of the wrong length, or
//! entries out of order, are errors of the feed and never a verdict.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::replay::{ReplayStep, find_all};
use super::set::{FactSource, SHARDS};
use super::state::{EventContext, ShardMachine};
use super::{Shared, chance};
use crate::store::feed::{Feed, Heartbeat, LogEntry};
use crate::store::{StoreError, StoreErrorKind};

/// Pauses between attempts to connect: the first, and the longest.
const BACKOFF: [Duration; 2] = [Duration::from_millis(25), Duration::from_secs(1)];

/// How long [`Feed::leave`] may take.
const LEAVE_LIMIT: Duration = Duration::from_millis(250);

/// Follows one log until the last handle is gone.
pub(super) async fn follow(
    feed: impl Feed,
    number: u16,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<()>,
) {
    let mut follower = LogFollower {
        feed,
        shard: number,
        shared,
        machine: ShardMachine::new(number),
        failures: 0,
    };
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
    // No process has to wait for this mirror any more.
    let _ = timeout(LEAVE_LIMIT, AssertUnwindSafe(follower.feed.leave()).catch_unwind()).await;
}

struct LogFollower<F> {
    feed: F,
    /// The number of the shard.
    shard: u16,
    shared: Arc<Shared>,
    machine: ShardMachine,
    /// How often in a row it could not connect, or follow.
    failures: u32,
}

impl<F: Feed> LogFollower<F> {
    /// Never returns.
    async fn run(&mut self) -> Infallible {
        loop {
            let Err(error) = self.session().await;
            self.failures += 1;
            if self.failures == 1 {
                tracing::warn!(shard = self.shard, error = %error.chain(),
                    "the mirror cannot follow the log; trying until it can");
            }
            self.machine.disconnected(error);
            self.publish();
            let [first, longest] = BACKOFF;
            let pause = first.saturating_mul(1 << self.failures.min(10)).min(longest);
            // Jitter, so that a thousand processes do not all come back in one instant.
            sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
        }
    }

    /// Connects, and follows the log until something goes wrong.
    async fn session(&mut self) -> Result<Infallible, StoreError> {
        self.feed.connect().await?;
        self.machine.connected();
        self.beat().await?;
        loop {
            if self.machine.needs_snapshot() {
                self.load().await?;
            }
            if self.failures > 0 {
                tracing::info!(shard = self.shard, "the mirror follows the log again");
                self.failures = 0;
            }
            let every = self.shared.heartbeat_every();
            let Some((after, wait)) = self.machine.next_read(every, Instant::now()) else {
                continue;
            };
            let entries = self.feed.read(after, wait).await?;
            check_order(after, &entries)?;
            self.take(&entries);
            if self.machine.needs_snapshot() {
                continue;
            }
            self.beat().await?;
            self.replay().await?;
            self.end_doubt().await?;
        }
    }

    /// Applies entries of the log. Whatever else is wrong with them, they were written.
    fn take(&mut self, entries: &[LogEntry]) {
        let facts: Vec<_> = entries.iter().map(|entry| (entry.fingerprint, entry.fact)).collect();
        self.shared.apply(&facts, FactSource::Write);
        let context = self.context();
        self.machine.entries_read(entries, context);
        self.publish();
    }

    /// Asks for a heartbeat.
    async fn beat(&mut self) -> Result<Heartbeat, StoreError> {
        let progress = self.machine.progress(Arc::clone(&self.shared.name), self.shared.lease());
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
        if heartbeat.epoch == 0 {
            return Err(broken("a heartbeat has the epoch 0, which stands for none"));
        }
        let context = self.context();
        self.machine.heartbeat(&heartbeat, sent, context);
        self.publish();
        Ok(heartbeat)
    }

    /// Takes a snapshot.
    async fn load(&mut self) -> Result<(), StoreError> {
        self.machine.snapshot_begun();
        self.publish();
        // The end of the log is read first: what is written from here on is read from the log, and
        // some of it twice.
        let tail = self.feed.tail().await?;
        let start = self.beat().await?;
        let expected = usize::try_from(self.feed.count().await?).unwrap_or(usize::MAX);
        self.reserve(expected.saturating_mul(self.shared.shards)).await;
        let mut cursor = None;
        loop {
            let page = self.feed.snapshot(cursor).await?;
            for facts in page.facts.chunks(1024) {
                let unclear = self.shared.apply(facts, FactSource::Snapshot);
                if !unclear.is_empty() {
                    let found = find_all(&mut self.feed, &unclear).await?;
                    let found: Vec<_> = unclear
                        .into_iter()
                        .zip(found)
                        .filter_map(|(fingerprint, fact)| Some((fingerprint, fact?)))
                        .collect();
                    self.shared.apply(&found, FactSource::Write);
                }
                tokio::task::yield_now().await;
            }
            match page.next {
                None => break,
                next if next == cursor => {
                    return Err(broken("a page of the snapshot leads to itself"));
                }
                next => cursor = next,
            }
        }
        let context = self.context();
        self.machine.snapshot_loaded(tail, &start, context);
        self.publish();
        Ok(())
    }

    /// Makes room for a snapshot.
    async fn reserve(&mut self, entries: usize) {
        if entries <= self.shared.set.size().entries {
            return;
        }
        for shard in 0..SHARDS {
            self.shared.set.reserve(shard, entries, self.shared.now());
            if shard % 8 == 7 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Writes again some of what the store has lost.
    async fn replay(&mut self) -> Result<(), StoreError> {
        let Some(replay) = self.machine.replay() else { return Ok(()) };
        let before = replay.replayed();
        let step = replay.step(&self.shared.set, &mut self.feed, self.shared.now()).await;
        let count = replay.replayed() - before;
        self.machine.facts_replayed(count);
        self.publish();
        if let ReplayStep::Done { replayed, unidentified } = step? {
            tracing::info!(
                shard = self.shard,
                replayed,
                unidentified,
                "what the store had lost was replayed"
            );
            self.machine.replay_done(unidentified);
        }
        Ok(())
    }

    /// Ends the doubt about older tokens, if the store has again all that there was.
    async fn end_doubt(&mut self) -> Result<(), StoreError> {
        let Some(request) = self.machine.doubt_to_end(Instant::now()) else { return Ok(()) };
        let is_ended = self.feed.end_doubt(request).await?;
        if is_ended {
            tracing::info!(
                shard = self.shard,
                "the store has everything again that it had lost: no token is in doubt any more"
            );
        } else {
            tracing::warn!(
                shard = self.shard,
                "other processes know of revocations that the mirror had not read when the store \
                 lost them; older tokens stay in doubt"
            );
        }
        self.machine.doubt_end_answered(is_ended);
        self.publish();
        Ok(())
    }

    fn context(&self) -> EventContext {
        let now = Instant::now();
        let freshness = &self.shared.freshness;
        EventContext {
            now,
            is_fresh: self.machine.proof().is_some_and(|proof| freshness.holds(proof)),
            // Another mirror may be faster.
            replay_at: now + freshness.limit().mul_f64(chance()),
        }
    }

    fn publish(&mut self) {
        if let Some(status) = self.machine.take_status() {
            self.shared.update(self.shard, |shard| shard.clone_from(status));
        }
    }

    fn note_panic(&mut self, panic: &(dyn Any + Send)) {
        let words = panic.downcast_ref::<&str>().copied();
        let words =
            words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?");
        tracing::error!(
            shard = self.shard,
            panic = words,
            "the task of the mirror panicked; it starts again"
        );
        self.machine
            .panicked(StoreError::new(StoreErrorKind::Other, "the task of the mirror panicked"));
        self.publish();
    }
}

/// The feed has broken its contract.
fn broken(rule: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Protocol, rule)
}

/// Whether each entry comes after the one before, and the first after `after`.
fn check_order(after: u128, entries: &[LogEntry]) -> Result<(), StoreError> {
    let mut last = after;
    for entry in entries {
        if entry.id <= last {
            return Err(broken("an entry of the log does not come after the one before"));
        }
        last = entry.id;
    }
    Ok(())
}
