//! The state of a mirror: [`MirrorStatus`].

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::doubts;
use super::fresh::Moment;
use crate::clock::Timestamp;
use crate::store::{Doubt, Fence, StoreError};

/// The state of a mirror, as of its last change.
///
/// A store has one or several shards, each with a log and an epoch of its own. The numbers are
/// those of all shards together. Serialized, it is an object with the names of its fields and
/// methods.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MirrorStatus {
    /// Revocations in memory, including those that are over and have not been removed yet.
    pub entries: usize,
    /// How many of them take a cache line: those with a cutoff, a reinstatement or an end more than
    /// half a year away.
    pub details: usize,
    /// Memory of the set, in bytes.
    pub bytes: usize,
    pub(super) shards: Vec<ShardStatus>,
    /// Of whichever shard had the last of them.
    pub(super) last_resync: Option<Resync>,
}

impl Serialize for MirrorStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("MirrorStatus", 13)?;
        object.serialize_field("is_following", &self.is_following())?;
        object.serialize_field("entries", &self.entries)?;
        object.serialize_field("details", &self.details)?;
        object.serialize_field("bytes", &self.bytes)?;
        object.serialize_field("applied", &self.applied())?;
        object.serialize_field("lag", &self.lag())?;
        object.serialize_field("resyncs", &self.resyncs())?;
        object.serialize_field("last_resync", &self.last_resync())?;
        object.serialize_field("replayed", &self.replayed())?;
        object.serialize_field("doubt", &self.doubt())?;
        object.serialize_field("doubts_ended", &self.doubts_ended())?;
        object.serialize_field("restarts", &self.restarts())?;
        object.serialize_field("error", &self.error().map(ToString::to_string))?;
        object.end()
    }
}

/// The state of the log of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardStatus {
    /// What the mirror is doing about it.
    pub(super) phase: Phase,
    /// The epoch of the shard that is followed; zero before the first snapshot.
    pub(super) epoch: u64,
    /// The last change that was applied.
    pub(super) applied: u64,
    /// The last change that is known to exist.
    pub(super) known: u64,
    /// How many snapshots were taken after the first.
    pub(super) resyncs: u64,
    /// Why the last of them was taken.
    pub(super) last_resync: Option<Resync>,
    /// How many facts were replayed to a store that had lost them.
    pub(super) replayed: u64,
    /// How often this mirror has ended the doubt about older tokens, after everything that was
    /// lost had been replayed.
    pub(super) doubts_ended: u64,
    /// How often the task was started again after a panic.
    pub(super) restarts: u64,
    /// Why the log cannot be read at present.
    pub(super) error: Option<StoreError>,
    /// Which tokens may have been revoked without the store knowing it, because it has lost data.
    /// Checks of these go to the store; while it is [settling](Doubt::Settling), all of them that
    /// are not known to be revoked.
    pub(super) doubt: Doubt,
    /// Since when the mirror writes everything again that the store has lost; none, if it does not
    /// know everything.
    pub(super) restoring_since: Option<Instant>,
    pub(super) proof: Option<Moment>,
    /// The clock of the store at the last heartbeat.
    pub(super) time: Timestamp,
}

/// What a mirror is doing about one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has no connection.
    #[default]
    Connecting,
    /// It takes a snapshot.
    Loading,
    /// It follows the log.
    Following,
}

/// Why a mirror had to take a snapshot anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resync {
    /// Entries of the log are missing.
    Gap,
    /// The log was trimmed beyond what had been read: `XTRIM`, or too long a disconnection.
    Trimmed,
    /// The store has begun a new epoch: `FLUSHALL`, a restart without data.
    NewEpoch,
    /// The store knows of fewer changes than before: a failover that lost writes, an older dump.
    Regression,
    /// The task panicked.
    Panic,
}

impl Resync {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "entries of the log are missing",
            Self::Trimmed => "the log was trimmed beyond what had been read",
            Self::NewEpoch => "the store has begun a new epoch",
            Self::Regression => "the store knows of fewer changes than before",
            Self::Panic => "the task panicked",
        }
    }
}

impl fmt::Display for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How long the holders of tokens in doubt are told to wait for it.
const RESTORED_WITHIN: Duration = Duration::from_secs(30);

impl MirrorStatus {
    /// Whether every doubt is about to end, because the mirror knew everything that was lost.
    pub(super) fn is_restoring(&self) -> bool {
        let doubted =
            self.shards.iter().filter(|shard| matches!(shard.doubt, Doubt::Lasting { .. }));
        let mut doubted = doubted.peekable();
        doubted.peek().is_some()
            && doubted.all(|shard| {
                shard.restoring_since.is_some_and(|since| since.elapsed() < RESTORED_WITHIN)
            })
    }

    /// How many changes of the present epochs have been applied.
    pub fn applied(&self) -> u64 {
        self.sum(|shard| shard.applied)
    }

    /// How many changes are known to exist and have not been applied.
    pub fn lag(&self) -> u64 {
        self.sum(|shard| shard.known.saturating_sub(shard.applied))
    }

    /// Whether every shard has been loaded and is followed.
    pub fn is_following(&self) -> bool {
        self.shards.iter().all(|shard| shard.phase == Phase::Following)
    }

    /// How many snapshots were taken after the first ones.
    pub fn resyncs(&self) -> u64 {
        self.sum(|shard| shard.resyncs)
    }

    /// Why the last of [these snapshots](Self::resyncs) was taken, for people; `None` if there was
    /// none.
    pub fn last_resync(&self) -> Option<&'static str> {
        self.last_resync.map(Resync::as_str)
    }

    /// How many facts were replayed to a store that had lost them.
    pub fn replayed(&self) -> u64 {
        self.sum(|shard| shard.replayed)
    }

    /// Which tokens may have been revoked without the store knowing it, because it has lost data.
    /// Checks of these go to the store; while it is [settling](Doubt::Settling), all of them that
    /// are not known to be revoked.
    pub fn doubt(&self) -> Doubt {
        doubts::widest(self.shards.iter().map(|shard| shard.doubt))
    }

    /// How often this mirror has ended the doubt about older tokens, after everything that was lost
    /// had been replayed.
    pub fn doubts_ended(&self) -> u64 {
        self.sum(|shard| shard.doubts_ended)
    }

    /// How often a task was started again after a panic.
    pub fn restarts(&self) -> u64 {
        self.sum(|shard| shard.restarts)
    }

    /// Why a log cannot be read at present, or why the lease is refused; `None` if neither is so.
    pub fn error(&self) -> Option<&StoreError> {
        self.shards.iter().find_map(|shard| shard.error.as_ref())
    }

    fn sum(&self, number: impl Fn(&ShardStatus) -> u64) -> u64 {
        self.shards.iter().map(number).sum()
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
