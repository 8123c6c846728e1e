//! What the mirror does for a store that has lost data: [`LossRecovery`].
//!
//! Two things are independent of each other. *What the mirror knows*:
//!
//! ```text
//! Complete ── data was lost, and the mirror had everything ──▶ CompleteAtLoss
//!    ▲ │                                                            │
//!    │ └── data was lost, or is in doubt ──▶ Incomplete ◀── a second loss, no answer, a refusal
//!    └──────── the store is without a doubt ─────┘
//! ```
//!
//! and *whether a replay is under way*. The replay runs in any case; only a mirror that had
//! everything may end the doubt about older tokens, when the replay is done and all other processes
//! have had time to report what they know.

use std::time::Duration;

use tokio::time::Instant;

use super::replay::Replay;

/// How long all processes have, after data was lost, to report how much they knew: they look at
/// least twice a second.
const REPORTING_TIME: Duration = Duration::from_secs(5);

/// What the mirror knows of what the store has lost, and what of that it has written again.
#[derive(Debug, Default)]
pub(super) struct LossRecovery {
    knowledge: Knowledge,
    replay: Option<Replay>,
}

/// How much of what was revoked the mirror knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Knowledge {
    /// Data was lost of which the mirror does not know everything, or it has yet to learn that none
    /// was.
    #[default]
    Incomplete,
    /// All that was revoked up to its position.
    Complete,
    /// Everything that this epoch held when its data was lost.
    CompleteAtLoss(LostEpoch),
}

/// An epoch whose data was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LostEpoch {
    pub(super) epoch: u64,
    /// The last change of it that the mirror has applied.
    pub(super) seq: u64,
    pub(super) noticed_at: Instant,
}

impl LossRecovery {
    /// The store has lost data. `lost` is given if the mirror was fresh and had applied every
    /// change that it knew of.
    pub(super) fn data_lost(&mut self, lost: Option<LostEpoch>, replay_at: Instant) {
        self.knowledge = match (self.knowledge, lost) {
            // Complete → CompleteAtLoss: nothing had escaped it.
            (Knowledge::Complete, Some(lost)) => Knowledge::CompleteAtLoss(lost),
            // any → Incomplete: something may have. After a second loss, before the first was made
            // good, it is not known what was written between the two.
            _ => Knowledge::Incomplete,
        };
        // A replay that is under way begins again.
        self.replay = Some(Replay::starting_at(replay_at));
    }

    /// The store is at another server, which may not have everything that the mirror knows. It is
    /// written there; that makes the mirror know neither more nor less.
    pub(super) fn put_back(&mut self, replay_at: Instant) {
        self.replay = Some(Replay::starting_at(replay_at));
    }

    /// Whether something was lost and is not all there again yet, as far as the mirror knows.
    pub(super) fn is_under_way(&self) -> bool {
        self.replay.is_some() || matches!(self.knowledge, Knowledge::CompleteAtLoss(_))
    }

    /// Since when the mirror, which knew everything that was lost, is writing it again.
    pub(super) fn restoring_since(&self) -> Option<Instant> {
        match self.knowledge {
            Knowledge::CompleteAtLoss(lost) => Some(lost.noticed_at),
            _ => None,
        }
    }

    /// The store says that no token is in doubt, or that some are.
    pub(super) fn doubt_reported(&mut self, is_over: bool) {
        self.knowledge = match self.knowledge {
            // any → Complete: whatever was lost does not matter any more.
            _ if is_over => Knowledge::Complete,
            // Complete → Incomplete: another process knows of a loss.
            Knowledge::Complete => Knowledge::Incomplete,
            other => other,
        };
    }

    pub(super) fn replay(&mut self) -> Option<&mut Replay> {
        self.replay.as_mut()
    }

    /// The replay has gone through the whole set; so many revocations could not be replayed.
    pub(super) fn replay_done(&mut self, unidentified: usize) {
        self.replay = None;
        // CompleteAtLoss → Incomplete: the store does not have everything again.
        if unidentified > 0 && matches!(self.knowledge, Knowledge::CompleteAtLoss(_)) {
            self.knowledge = Knowledge::Incomplete;
        }
    }

    /// The epoch of which everything is in the store again, if all processes have had time to
    /// report what they know.
    pub(super) fn replayed_epoch(&self, now: Instant) -> Option<LostEpoch> {
        match self.knowledge {
            Knowledge::CompleteAtLoss(lost)
                if self.replay.is_none() && lost.noticed_at + REPORTING_TIME <= now =>
            {
                Some(lost)
            }
            _ => None,
        }
    }

    /// The doubt was ended, or other processes know of more.
    pub(super) fn doubt_end_answered(&mut self) {
        // CompleteAtLoss → Incomplete: it is asked for once. If the doubt has ended, the next
        // heartbeat says so.
        if matches!(self.knowledge, Knowledge::CompleteAtLoss(_)) {
            self.knowledge = Knowledge::Incomplete;
        }
    }

    /// How long there is nothing to do.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        match (&self.replay, self.knowledge) {
            (Some(replay), _) => replay.wait(now),
            (None, Knowledge::CompleteAtLoss(lost)) => {
                (lost.noticed_at + REPORTING_TIME).saturating_duration_since(now)
            }
            (None, _) => Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(now: Instant) -> LostEpoch {
        LostEpoch { epoch: 1, seq: 7, noticed_at: now }
    }

    fn complete() -> LossRecovery {
        let mut recovery = LossRecovery::default();
        recovery.doubt_reported(true);
        assert_eq!(recovery.knowledge, Knowledge::Complete);
        recovery
    }

    #[test]
    fn without_a_loss_there_is_nothing_to_do() {
        let (mut recovery, now) = (complete(), Instant::now());
        assert!(recovery.replay().is_none() && recovery.replayed_epoch(now).is_none());
        assert_eq!(recovery.wait(now), Duration::MAX);
    }

    #[test]
    fn one_that_had_everything_may_end_the_doubt_after_the_replay_and_the_reporting_time() {
        let (mut recovery, now) = (complete(), Instant::now());
        recovery.data_lost(Some(lost(now)), now + Duration::from_secs(1));
        assert_eq!(recovery.wait(now), Duration::from_secs(1));
        recovery.doubt_reported(false);
        let later = now + REPORTING_TIME;
        assert_eq!(recovery.replayed_epoch(later), None, "the replay is not done");
        recovery.replay_done(0);
        assert_eq!(recovery.wait(now), REPORTING_TIME);
        assert_eq!(recovery.replayed_epoch(later - Duration::from_millis(1)), None);
        assert_eq!(recovery.replayed_epoch(later), Some(lost(now)));
        assert_eq!(recovery.restoring_since(), Some(now));
        recovery.doubt_end_answered();
        assert_eq!(recovery.restoring_since(), None);
        assert_eq!(recovery.replayed_epoch(later), None, "it is asked for once");
    }

    #[test]
    fn one_that_may_have_missed_something_replays_and_does_not_end_the_doubt() {
        let now = Instant::now();
        let mut missed_the_end = complete();
        missed_the_end.data_lost(None, now);
        let mut in_doubt_before = complete();
        in_doubt_before.doubt_reported(false);
        in_doubt_before.data_lost(Some(lost(now)), now);
        let mut second_loss = complete();
        second_loss.data_lost(Some(lost(now)), now);
        second_loss.data_lost(Some(lost(now)), now);
        let mut never_heard = LossRecovery::default();
        never_heard.data_lost(Some(lost(now)), now);
        for mut recovery in [missed_the_end, in_doubt_before, second_loss, never_heard] {
            assert!(recovery.replay().is_some());
            recovery.replay_done(0);
            assert_eq!(recovery.replayed_epoch(now + REPORTING_TIME), None);
        }
    }

    #[test]
    fn what_cannot_be_replayed_keeps_the_doubt() {
        let (mut recovery, now) = (complete(), Instant::now());
        recovery.data_lost(Some(lost(now)), now);
        recovery.replay_done(1);
        assert_eq!(recovery.replayed_epoch(now + REPORTING_TIME), None);
    }

    #[test]
    fn a_doubt_that_ends_by_itself_makes_the_mirror_complete_while_the_replay_goes_on() {
        let (mut recovery, now) = (complete(), Instant::now());
        recovery.data_lost(None, now);
        recovery.doubt_reported(true);
        assert!(recovery.replay().is_some());
        assert_eq!(recovery.knowledge, Knowledge::Complete);
        recovery.replay_done(3);
        assert_eq!(recovery.knowledge, Knowledge::Complete);
    }
}
