//! How old what the mirror says may be, proved and not guessed.
//!
//! A proof is the moment at which a question was *sent* whose answer shows that nothing is missing:
//! everything that was written before that moment is in memory. Only clocks of this machine are
//! read, so it does not matter how the clocks of others go. Two of them: the monotonic clock stands
//! still while the machine sleeps, and the wall clock can be set back; the mirror is fresh only if
//! neither says otherwise. Both at once are not noticed: a wall clock that is set back by as long
//! as the machine slept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};

/// Coarseness of the wall clock, and what it may be slewed by meanwhile.
const WALL_SLACK: Duration = Duration::from_millis(20);

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) mono: Instant,
    pub(super) wall: Timestamp,
}

/// Until when the mirror is fresh, as readers see it.
pub(super) struct Freshness {
    clock: Arc<dyn Clock>,
    limit: Duration,
    /// Moments of the monotonic clock are kept as nanoseconds since this one.
    origin: Instant,
    /// First moments at which it is no longer fresh; zero while nothing has been proved.
    mono_end: AtomicU64,
    wall_end: AtomicU64,
}

impl Freshness {
    pub(super) fn new(limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            limit,
            origin: Instant::now(),
            mono_end: AtomicU64::new(0),
            wall_end: AtomicU64::new(0),
        }
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn now(&self) -> Moment {
        Moment { mono: Instant::now(), wall: self.clock.now() }
    }

    /// Whether everything that was written up to `limit` ago is in memory. To be asked before the
    /// look-up.
    #[inline]
    pub(super) fn is_fresh(&self) -> bool {
        // One that sees the proof sees what was applied before it.
        let mono_end = self.mono_end.load(Ordering::Acquire);
        mono_end != 0
            && self.nanos(Instant::now()) < mono_end
            && self.clock.now().as_millis() < self.wall_end.load(Ordering::Relaxed)
    }

    /// How long ago the last proof has ended; `None` before the first.
    pub(super) fn ended(&self) -> Option<Duration> {
        let mono_end = self.mono_end.load(Ordering::Acquire);
        let now = self.nanos(Instant::now());
        (mono_end != 0).then(|| Duration::from_nanos(now.saturating_sub(mono_end)))
    }

    /// Publishes the oldest of the proofs of all shards.
    pub(super) fn prove(&self, oldest: Moment) {
        let wall_end =
            oldest.wall.saturating_add(self.limit).saturating_add(WALL_SLACK).as_millis();
        self.wall_end.store(wall_end, Ordering::Relaxed);
        self.mono_end.store(self.nanos(oldest.mono + self.limit), Ordering::Release);
    }

    /// Whether this proof has not ended yet.
    pub(super) fn holds(&self, proof: Moment) -> bool {
        self.age(proof) < self.limit
    }

    /// How old the proof is: what the mirror says was so at most this long ago.
    pub(super) fn age(&self, proof: Moment) -> Duration {
        let now = self.now();
        now.mono.saturating_duration_since(proof.mono).max(
            now.wall
                .saturating_duration_since(proof.wall)
                .checked_sub(WALL_SLACK)
                .unwrap_or_default(),
        )
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const LIMIT: Duration = Duration::from_secs(1);
    const STEP: Duration = Duration::from_millis(1);

    fn freshness() -> (Freshness, ManualClock) {
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        (Freshness::new(LIMIT, Arc::new(clock.clone())), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_proof_nothing_is_fresh() {
        assert!(!freshness().0.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_holds_for_the_limit_from_when_the_question_was_sent() {
        let (freshness, _clock) = freshness();
        let sent = freshness.now();
        tokio::time::advance(Duration::from_millis(400)).await;
        freshness.prove(sent);
        tokio::time::advance(Duration::from_millis(599)).await;
        assert!(freshness.is_fresh());
        tokio::time::advance(STEP).await;
        assert!(!freshness.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_sleep_of_the_machine_it_is_not_fresh_although_the_monotonic_clock_stood_still()
    {
        let (freshness, clock) = freshness();
        freshness.prove(freshness.now());
        clock.advance(Duration::from_secs(3600));
        assert!(!freshness.is_fresh());
        freshness.prove(freshness.now());
        assert!(freshness.is_fresh());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_back_makes_nothing_fresh() {
        let (freshness, clock) = freshness();
        let proof = freshness.now();
        freshness.prove(proof);
        clock.set(Timestamp::from_secs(1_600_000_000));
        tokio::time::advance(LIMIT).await;
        assert!(!freshness.is_fresh());
        assert_eq!(freshness.age(proof), LIMIT);
    }
}
