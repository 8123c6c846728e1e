//! How a mirror is: [`MirrorStatus`].

use std::fmt;

use super::fresh::Moment;
use crate::clock::Timestamp;
use crate::store::{Doubt, Fence, StoreError};

/// The state of a mirror, as of its last change.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// The shards of the store, each with a log of its own.
    pub shards: Vec<ShardStatus>,
    /// Revocations in memory, including those that are over and have not been swept out yet.
    pub entries: usize,
    /// How many of them take a cache line: those with a cutoff, a reinstatement or an end more than
    /// half a year away.
    pub details: usize,
    /// Memory of the set, in bytes.
    pub bytes: usize,
}

/// The state of the log of one shard.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardStatus {
    /// What the mirror is doing about it.
    pub phase: Phase,
    /// The epoch of the shard that is followed; zero before the first snapshot.
    pub epoch: u64,
    /// The last change that was applied.
    pub applied: u64,
    /// The last change that is known to exist.
    pub known: u64,
    /// How many snapshots were taken after the first.
    pub resyncs: u64,
    /// Why the last of them was taken.
    pub last_resync: Option<Resync>,
    /// How many facts were replayed to a store that had lost them.
    pub replayed: u64,
    /// How often this mirror has ended the doubt about older tokens, after everything that was
    /// lost had been replayed.
    pub doubts_ended: u64,
    /// How often the task was started again after a panic.
    pub restarts: u64,
    /// Why the log cannot be read at present.
    pub error: Option<StoreError>,
    /// Which tokens may have been revoked without the store knowing it, because it has lost data.
    /// Checks of these go to the store; while it is [settling](Doubt::Settling), all of them that
    /// are not known to be revoked.
    pub doubt: Doubt,
    pub(super) proof: Option<Moment>,
    /// The clock of the store at the last heartbeat.
    pub(super) time: Timestamp,
}

/// What a mirror is doing about one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// It has no connection.
    #[default]
    Connecting,
    /// It takes a snapshot.
    Loading,
    /// It follows the log.
    Following,
}

/// Why a mirror had to take a snapshot anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resync {
    /// Entries of the log are missing.
    Gap,
    /// The log was trimmed beyond what had been read: `XTRIM`, or too long a disconnection.
    Trimmed,
    /// The store has begun a new epoch: `FLUSHALL`, a restart without data.
    NewEpoch,
    /// The store knows of fewer changes than before: a fail-over that lost writes, an older dump.
    Regression,
    /// The task panicked.
    Panic,
}

impl fmt::Display for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gap => "entries of the log are missing",
            Self::Trimmed => "the log was trimmed beyond what had been read",
            Self::NewEpoch => "the store has begun a new epoch",
            Self::Regression => "the store knows of fewer changes than before",
            Self::Panic => "the task panicked",
        })
    }
}

impl MirrorStatus {
    /// How many changes are known to exist and have not been applied.
    pub fn lag(&self) -> u64 {
        self.shards.iter().map(|shard| shard.known.saturating_sub(shard.applied)).sum()
    }

    /// Whether every shard has been loaded and is followed.
    pub fn is_following(&self) -> bool {
        self.shards.iter().all(|shard| shard.phase == Phase::Following)
    }

    /// How many snapshots were taken after the first ones.
    pub fn resyncs(&self) -> u64 {
        self.shards.iter().map(|shard| shard.resyncs).sum()
    }

    /// The oldest of the proofs; `None` unless there is one of every shard.
    pub(super) fn proof(&self) -> Option<Moment> {
        let mut oldest: Option<Moment> = None;
        for shard in &self.shards {
            let proof = shard.proof?;
            oldest = Some(oldest.map_or(proof, |known| Moment {
                mono: known.mono.min(proof.mono),
                wall: known.wall.min(proof.wall),
            }));
        }
        oldest
    }

    /// Whether the write at this fence has been applied; `None` if it belongs to another epoch.
    pub(super) fn has_applied(&self, fence: &Fence) -> Option<bool> {
        let shard = self.shards.get(usize::from(fence.shard))?;
        match shard.epoch {
            0 => Some(false),
            epoch => (epoch == fence.epoch).then_some(shard.applied >= fence.seq),
        }
    }
}
