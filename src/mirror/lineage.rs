//! Which epochs a log was followed through, and where it can be joined again at another server:
//! [`Lineage`]. Pure.
//!
//! When the data of a shard goes to another server, that one begins an epoch that carries on the
//! last. It has a prefix of the log, and goes on from there. So a mirror that has followed the log
//! goes on as well: it looks for the latest entry that both have, and reads on from there.
//!
//! # Why that entry is read again
//! The place of the mirror may be one that the new server never had: the mirror was ahead of it.
//! What the new server has written since may have *lower* ids, if its clock is behind, and the same
//! numbers. Who reads on from the old place skips that without noticing. But the entries of an
//! epoch are written by one server: one of this epoch with this id is the same wherever it is
//! found, and so is everything before it. So the mirror remembers a place each second, the
//! *checkpoints*, and reads from the latest of them that is found.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::store::feed::LogEntry;

/// How far apart checkpoints are, and how many there are: replicas are seldom behind by a second,
/// and one that is behind by a minute has lost its connection.
const EVERY: Duration = Duration::from_secs(1);
const CHECKPOINTS: usize = 64;
/// How many epochs are remembered, each of which has carried on the one before.
const EPOCHS: usize = 8;

/// A place in a log at which it can be joined again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    epoch: u64,
    /// The place of an entry of that epoch; zero for the beginning of the log, where there is none.
    id: u128,
    /// Its number. Of the entry at which a snapshot began only the most that it can be is known.
    most: u64,
}

/// An epoch, and the highest number of it that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FollowedEpoch {
    id: u64,
    applied: u64,
}

/// The epochs that were followed since the last snapshot, and places in their logs.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    /// Each carries on the one before. The store is in the last; never none after a snapshot.
    epochs: VecDeque<FollowedEpoch>,
    /// From the oldest to the latest.
    checkpoints: VecDeque<Checkpoint>,
    /// The latest entry that was read, and when the last checkpoint was noted.
    latest: Option<Checkpoint>,
    noted_at: Option<Instant>,
    /// Whether something was applied that the present server does not have.
    is_ahead: bool,
}

impl Checkpoint {
    /// After which place to read, so that its own entry comes first.
    pub(super) fn read_after(&self) -> u128 {
        self.id.saturating_sub(1)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What its entry and its number are, by what is read there; `None` if the log does not have
    /// it.
    pub(super) fn find(&self, entries: &[LogEntry]) -> Option<FoundCheckpoint> {
        if self.id == 0 {
            return Some(FoundCheckpoint { id: 0, seq: 0, entries: 0 });
        }
        let first = entries.first()?;
        let is_same = (first.id, first.epoch) == (self.id, self.epoch) && first.seq <= self.most;
        is_same.then_some(FoundCheckpoint { id: self.id, seq: first.seq, entries: 1 })
    }
}

/// Where a checkpoint was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundCheckpoint {
    pub(super) id: u128,
    pub(super) seq: u64,
    /// How many of the entries belong to it.
    pub(super) entries: usize,
}

impl Lineage {
    /// A snapshot was taken of this epoch, with all changes up to `seq`. `tail` was the end of the
    /// log before.
    pub(super) fn begin(&mut self, epoch: u64, seq: u64, tail: u128) {
        let most = if tail == 0 { 0 } else { seq };
        *self = Self {
            epochs: [FollowedEpoch { id: epoch, applied: seq }].into(),
            checkpoints: [Checkpoint { epoch, id: tail, most }].into(),
            ..Self::default()
        };
    }

    /// The epoch in which the store is, as far as is known; zero before the first snapshot.
    pub(super) fn present(&self) -> u64 {
        self.epochs.back().map_or(0, |epoch| epoch.id)
    }

    /// An entry was applied that has this place.
    pub(super) fn note(&mut self, entry: &LogEntry, now: Instant) {
        let here = Checkpoint { epoch: entry.epoch, id: entry.id, most: entry.seq };
        self.latest = Some(here);
        if let Some(followed) = self.epochs.iter_mut().find(|followed| followed.id == entry.epoch) {
            followed.applied = followed.applied.max(entry.seq);
        }
        if self.noted_at.is_none_or(|noted_at| now >= noted_at + EVERY) {
            self.noted_at = Some(now);
            if self.checkpoints.len() >= CHECKPOINTS {
                self.checkpoints.pop_front();
            }
            self.checkpoints.push_back(here);
        }
    }

    /// The store says that it is in another epoch, and which one that carries on. Says whether it
    /// carries on what was followed. What was followed beyond that is not there any more.
    pub(super) fn carry_on(&mut self, epoch: u64, parent: Option<u64>) -> bool {
        let known = |id| self.epochs.iter().position(|followed| followed.id == id);
        let (last, is_new) = match (known(epoch), parent.and_then(known)) {
            (Some(same), _) => (same, false),
            (None, Some(parent)) => (parent, true),
            (None, None) => return false,
        };
        if self.epochs.drain(last + 1..).any(|gone| gone.applied > 0) {
            self.is_ahead = true;
        }
        if is_new {
            self.epochs.push_back(FollowedEpoch { id: epoch, applied: 0 });
        }
        if self.epochs.len() > EPOCHS {
            self.epochs.pop_front();
        }
        let latest = self.latest.take().filter(|latest| self.checkpoint() != Some(*latest));
        self.checkpoints.extend(latest);
        let epochs = &self.epochs;
        self.checkpoints.retain(|place| epochs.iter().any(|followed| followed.id == place.epoch));
        self.noted_at = None;
        true
    }

    /// The latest place that the present server may have.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoints.back().copied()
    }

    /// The present server does not have the latest.
    pub(super) fn drop_checkpoint(&mut self) {
        self.checkpoints.pop_back();
    }

    /// Whether an entry of `next` may follow the change `seq` of `epoch`: it is the epoch that
    /// carries that one on.
    pub(super) fn goes_on(&mut self, (epoch, seq): (u64, u64), next: u64) -> bool {
        let mut epochs = self.epochs.iter().skip_while(|followed| followed.id != epoch);
        let (Some(left), Some(entered)) = (epochs.next(), epochs.next()) else { return false };
        if entered.id != next {
            return false;
        }
        self.is_ahead |= left.applied > seq;
        true
    }

    /// Whether something was applied that the present server does not have. Says so once.
    pub(super) fn take_ahead(&mut self) -> bool {
        std::mem::take(&mut self.is_ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{Fact, Fingerprint};

    fn entry(id: u128, epoch: u64, seq: u64) -> LogEntry {
        let fingerprint = Fingerprint::from_bytes([7; 16]);
        LogEntry { id, epoch, seq, fingerprint, fact: Fact::default() }
    }

    /// Followed from the snapshot at change 5 of epoch 1 to change 9, one each second.
    fn followed() -> (Lineage, Instant) {
        let (mut lineage, start) = (Lineage::default(), Instant::now());
        lineage.begin(1, 5, 50);
        for n in 6..=9 {
            lineage.note(&entry(10 * u128::from(n), 1, n), start + Duration::from_secs(n));
        }
        (lineage, start + Duration::from_secs(9))
    }

    fn ids(lineage: &Lineage) -> Vec<u128> {
        lineage.checkpoints.iter().map(|checkpoint| checkpoint.id).collect()
    }

    #[test]
    fn a_checkpoint_is_noted_each_second_and_the_latest_entry_when_the_log_goes_elsewhere() {
        let (mut lineage, now) = followed();
        lineage.note(&entry(91, 1, 10), now + Duration::from_millis(999));
        assert_eq!(ids(&lineage), [50, 60, 70, 80, 90]);
        assert!(lineage.carry_on(2, Some(1)));
        assert_eq!(ids(&lineage), [50, 60, 70, 80, 90, 91]);
        assert_eq!(
            (lineage.present(), lineage.checkpoint().map(|c| c.read_after())),
            (2, Some(90))
        );
        for n in 0..1000 {
            lineage.note(&entry(1000 + u128::from(n), 2, 11), now + Duration::from_secs(n));
        }
        assert_eq!((lineage.checkpoints.len(), lineage.checkpoint().unwrap().id), (64, 1999));
    }

    #[test]
    fn a_checkpoint_is_found_by_its_place_and_its_epoch() {
        let place = Checkpoint { epoch: 1, id: 60, most: 6 };
        let found = Some(FoundCheckpoint { id: 60, seq: 6, entries: 1 });
        assert_eq!(place.find(&[entry(60, 1, 6), entry(61, 1, 7)]), found);
        for wrong in [entry(60, 2, 6), entry(61, 1, 6), entry(60, 1, 7)] {
            assert_eq!(place.find(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!(place.find(&[]), None);
        // The entry at which the snapshot began may be an older one.
        assert_eq!(place.find(&[entry(60, 1, 4)]).unwrap().seq, 4);
        let start = Checkpoint { epoch: 1, id: 0, most: 0 };
        assert_eq!(start.find(&[entry(60, 2, 1)]), start.find(&[]));
        assert_eq!(start.find(&[]), Some(FoundCheckpoint { id: 0, seq: 0, entries: 0 }));
    }

    #[test]
    fn an_epoch_is_joined_by_whom_it_carries_on() {
        let (mut lineage, _) = followed();
        assert!(!lineage.carry_on(3, Some(2)) && !lineage.carry_on(3, None));
        assert!(lineage.carry_on(2, Some(1)) && lineage.carry_on(3, Some(2)));
        assert!(lineage.goes_on((1, 9), 2) && lineage.goes_on((2, 10), 3));
        assert!(!lineage.goes_on((1, 9), 3) && !lineage.goes_on((3, 11), 4));
        assert!(!lineage.take_ahead(), "the server has all of it");
        for epoch in 4..20 {
            assert!(lineage.carry_on(epoch, Some(epoch - 1)));
        }
        assert_eq!((lineage.epochs.len(), lineage.checkpoint()), (EPOCHS, None));
    }

    #[test]
    fn what_the_server_does_not_have_is_noticed_where_the_log_goes_on_without_it() {
        let (mut lineage, _) = followed();
        assert!(lineage.carry_on(2, Some(1)) && lineage.goes_on((1, 8), 2));
        assert!(lineage.take_ahead() && !lineage.take_ahead());
        // A third server carries on what the second one had carried on, and has nothing of that.
        let (mut lineage, now) = followed();
        assert!(lineage.carry_on(2, Some(1)));
        lineage.note(&entry(95, 2, 10), now);
        assert!(lineage.carry_on(3, Some(1)));
        assert_eq!((lineage.present(), ids(&lineage)), (3, vec![50, 60, 70, 80, 90]));
        assert!(lineage.take_ahead());
        // The former server is there again.
        assert!(lineage.carry_on(1, None));
        assert_eq!(lineage.present(), 1);
    }
}
