//! How far the log of one shard was followed and what that proves, as a state machine without I/O
//! and without a clock. [`follow`](super::follow) asks the feed, reports here what it answered, and
//! does what the machine wants next.
//!
//! # States
//! ```text
//!     ┌─────────── connected, with a position ───────────┐
//!     │                                                  ▼
//! Connecting ── connected, without ──▶ Loading ─loaded─▶ CatchingUp ── log read ──▶ Following
//!     ▲                                   ▲  ▲               │  ▲                       │
//!     │                                   │  │               │  └──── found ─────┐      │
//!     │                                   │  └─ not found ───┼─────────────── Joining   │
//!     │                                   │                  ├─ another server's ─▲─────┤
//!     │                                   └─ gap, trimmed, new epoch, regression ───────┘
//!     └─ an error, a panic: from every state
//! ```
//!
//! - [`Connecting`](FollowState::Connecting): there is no connection. A position that was reached
//!   before is kept, because the log may go on there.
//! - [`Loading`](FollowState::Loading): there is no position. A snapshot has to be taken.
//! - [`CatchingUp`](FollowState::CatchingUp): there is a position, and the log has not been read
//!   from there since the connection was made or the snapshot taken. Nothing is proved yet.
//! - [`Following`](FollowState::Following): the log goes on at the position.
//! - [`Joining`](FollowState::Joining): the store is at another server, in an epoch that carries on
//!   the one that was followed. Its log is looked through for the latest entry that was followed.
//!   From there it goes on: through the rest of the former epoch, then into the new one.
//!
//! While a store settles, nobody may have begun the epoch of its new server yet. Then the former
//! epoch is read there, with fewer changes perhaps. That proves nothing and is no loss; the mirror
//! waits for the epoch.
//!
//! # What proves freshness
//! A heartbeat says how many changes the store had written when it was asked. As soon as so many
//! are applied, everything that was written before the heartbeat was *sent* is in memory. Numbers
//! alone say so only of a log that goes on where it was left, so nothing is proved before
//! [`Following`](FollowState::Following). A heartbeat that is ahead of the position waits as a
//! [`PendingProof`].
//!
//! # What a gap means
//! Changes are numbered within an epoch. So the next entry, or a heartbeat that knows of more than
//! the log holds, shows that something is missing. Then a snapshot is taken. The set is not emptied
//! for it: a store that has lost data must not un-revoke.
//!
//! # What a change of server costs
//! What was applied and is not at the new server is replayed; with it, the writes of a process that
//! has ended with the former server. That ends no doubt: nobody knows what else was confirmed.
//!
//! # What is independent of the state
//! [`LossRecovery`](super::recovery::LossRecovery), the lease, and a [`SmallerDoubt`] that holds
//! only after some changes were applied.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::doubts::{is_over, issued_until};
use super::fresh::Moment;
use super::lineage::{Checkpoint, Lineage};
use super::recovery::{LossRecovery, LostEpoch};
use super::status::{Phase, Resync, ShardStatus};
use crate::store::feed::{EndDoubt, Heartbeat, LogEntry, Progress};
use crate::store::{Doubt, StoreError};

/// Where the mirror is with one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FollowState {
    /// There is no connection.
    Connecting(Resume),
    /// A snapshot has to be taken.
    Loading {
        /// Why; `None` for the first.
        reason: Option<Resync>,
    },
    /// The log has not been read from this position yet.
    CatchingUp { at: LogPosition, pending: PendingProof },
    /// The log goes on at this position.
    Following { at: LogPosition, pending: PendingProof },
    /// The log of another server is looked for at this place.
    Joining(Checkpoint),
}

/// What to do on the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resume {
    /// Read on from here.
    At(LogPosition),
    /// Look for this place.
    Join(Checkpoint),
    /// Take a snapshot; for this reason if it is not the first.
    Load { reason: Option<Resync> },
}

/// How far the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LogPosition {
    epoch: u64,
    seq: u64,
    id: u128,
    /// The snapshot has all changes up to here, so entries up to here may come again.
    loaded_seq: u64,
}

/// A heartbeat that is a proof as soon as its changes are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingProof {
    /// None is waited for.
    None,
    /// Everything that was written before `sent` is in memory when `seq` is applied.
    AtSeq { seq: u64, sent: Moment },
}

impl PendingProof {
    // None → AtSeq: a heartbeat is ahead of the position. The first stays until it is reached:
    // under load there is always a newer one that is not.
    fn or(self, seq: u64, sent: Moment) -> Self {
        match self {
            Self::None => Self::AtSeq { seq, sent },
            Self::AtSeq { .. } => self,
        }
    }

    // AtSeq → None: the change is applied. Returns what is proved.
    fn reached(self, applied: u64) -> (Self, Option<Moment>) {
        match self {
            Self::AtSeq { seq, sent } if seq <= applied => (Self::None, Some(sent)),
            other => (other, None),
        }
    }
}

/// Whether other processes wait for this mirror. Without that it must not answer from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    Granted,
    Refused,
}

/// A doubt that covers fewer tokens than before. The store ended the wider one because of changes
/// up to `seq`, which replayed what was lost; so it holds here when they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SmallerDoubt {
    epoch: u64,
    seq: u64,
    doubt: Doubt,
}

/// What the machine has to know of the moment at which something happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventContext {
    pub(super) now: Instant,
    /// Whether the latest [proof](ShardMachine::proof) still holds.
    pub(super) is_fresh: bool,
    /// When a replay begins, if data turns out to be lost.
    pub(super) replay_at: Instant,
}

/// The state machine of one shard.
#[derive(Debug)]
pub(super) struct ShardMachine {
    /// The number of the shard, for the log of the program.
    shard: u16,
    state: FollowState,
    lease: LeaseState,
    recovery: LossRecovery,
    /// Which tokens are in doubt, as the store says. For readers, that of the status counts.
    doubt: Doubt,
    smaller_doubt: Option<SmallerDoubt>,
    /// How many changes the last heartbeat knew of.
    known_seq: u64,
    /// The epochs that were followed, and where their log can be joined.
    lineage: Lineage,
    /// Whether the log has an entry of an epoch that no heartbeat has named yet.
    has_unnamed_entry: bool,
    /// The latest moment up to which everything was in memory.
    proof: Option<Moment>,
    /// The epoch of the last snapshot; zero before the first, and after a loss that was noticed.
    loaded_epoch: u64,
    status: ShardStatus,
    is_status_new: bool,
}

impl ShardMachine {
    pub(super) fn new(shard: u16) -> Self {
        Self {
            shard,
            state: FollowState::Connecting(Resume::Load { reason: None }),
            lease: LeaseState::Granted,
            recovery: LossRecovery::default(),
            doubt: Doubt::None,
            smaller_doubt: None,
            known_seq: 0,
            lineage: Lineage::default(),
            has_unnamed_entry: false,
            proof: None,
            loaded_epoch: 0,
            status: ShardStatus::default(),
            is_status_new: false,
        }
    }

    // === What to do next ===

    /// Whether a snapshot has to be taken before anything else.
    pub(super) fn needs_snapshot(&self) -> bool {
        matches!(self.state, FollowState::Loading { .. })
    }

    /// From where to read the log, and how long to wait for an entry; `None` without a position.
    pub(super) fn next_read(
        &self,
        heartbeat_every: Duration,
        now: Instant,
    ) -> Option<(u128, Duration)> {
        if let FollowState::Joining(place) = self.state {
            return Some((place.read_after(), Duration::ZERO));
        }
        let at = self.position()?;
        let is_catching_up = matches!(self.state, FollowState::CatchingUp { .. });
        // What is known to be there needs no waiting; if it is not there, it never will be.
        let wait =
            if is_catching_up || self.is_behind(&at) { Duration::ZERO } else { heartbeat_every };
        Some((at.id, wait.min(self.recovery.wait(now))))
    }

    /// What the next heartbeat tells the store.
    pub(super) fn progress(&self, name: Arc<str>, lease: Duration) -> Progress {
        let (epoch, seq) = self.position().map_or((0, 0), |at| (at.epoch, at.seq));
        Progress { name, epoch, seq, lease }
    }

    /// The replay that is under way. It pauses while a snapshot is taken: what the store still has
    /// is not replayed.
    pub(super) fn replay(&mut self) -> Option<&mut super::replay::Replay> {
        self.position()?;
        self.recovery.replay()
    }

    /// The doubt that may be ended now.
    pub(super) fn doubt_to_end(&self, now: Instant) -> Option<EndDoubt> {
        if self.doubt == Doubt::Settling {
            // The store ends that by itself.
            return None;
        }
        let (at, lost) = (self.position()?, self.recovery.replayed_epoch(now)?);
        if at.epoch != self.lineage.present() {
            return None;
        }
        Some(EndDoubt {
            former_epoch: lost.epoch,
            seq: lost.seq,
            epoch: at.epoch,
            issued_until: issued_until(self.doubt),
        })
    }

    /// The latest moment up to which everything was in memory.
    pub(super) fn proof(&self) -> Option<Moment> {
        self.proof
    }

    /// The status, if it has changed since it was last taken.
    pub(super) fn take_status(&mut self) -> Option<&ShardStatus> {
        let restoring_since = self.recovery.restoring_since();
        if self.status.restoring_since != restoring_since {
            self.change(|status| status.restoring_since = restoring_since);
        }
        std::mem::take(&mut self.is_status_new).then_some(&self.status)
    }

    // === What has happened ===

    /// There is a connection; it may lead to another server than the last one.
    pub(super) fn connected(&mut self) {
        let FollowState::Connecting(resume) = self.state else { return };
        self.state = match resume {
            // Connecting → CatchingUp: the log may go on at the position. What the last connection
            // was about to prove does not count.
            Resume::At(at) => FollowState::CatchingUp { at, pending: PendingProof::None },
            // Connecting → Joining: it was not found yet.
            Resume::Join(place) => FollowState::Joining(place),
            // Connecting → Loading: there is no position.
            Resume::Load { reason } => FollowState::Loading { reason },
        };
    }

    /// The connection, or a question over it, has failed.
    pub(super) fn disconnected(&mut self, error: StoreError) {
        self.has_unnamed_entry = false;
        self.state = FollowState::Connecting(match self.state {
            FollowState::Connecting(resume) => resume,
            FollowState::Joining(place) => Resume::Join(place),
            // Loading → Connecting: the snapshot is begun again.
            FollowState::Loading { reason } => Resume::Load { reason },
            // CatchingUp, Following → Connecting: the position is kept.
            FollowState::CatchingUp { at, .. } | FollowState::Following { at, .. } => {
                Resume::At(at)
            }
        });
        self.change(|status| {
            status.phase = Phase::Connecting;
            status.error = Some(error);
        });
    }

    /// The task has panicked: how far it had come is not certain.
    pub(super) fn panicked(&mut self, error: StoreError) {
        // any → Connecting: without the position.
        self.smaller_doubt = None;
        self.has_unnamed_entry = false;
        self.state = FollowState::Connecting(Resume::Load { reason: Some(Resync::Panic) });
        self.change(|status| {
            status.phase = Phase::Connecting;
            status.restarts += 1;
            status.error = Some(error);
        });
    }

    /// The snapshot is being taken.
    pub(super) fn snapshot_begun(&mut self) {
        self.change(|status| status.phase = Phase::Loading);
    }

    /// A snapshot was taken. `tail` and then `start` were asked for before its first page.
    pub(super) fn snapshot_loaded(&mut self, tail: u128, start: &Heartbeat, context: EventContext) {
        let FollowState::Loading { reason } = self.state else { return };
        if self.loaded_epoch != 0 && self.loaded_epoch != start.epoch {
            // While the mirror was looking for another reason, the server has changed, or …
            if is_carried_on(start) {
                self.recovery.put_back(context.replay_at);
            } else {
                // … data was lost.
                self.recovery.data_lost(None, context.replay_at);
            }
        }
        self.loaded_epoch = start.epoch;
        self.lineage.begin(start.epoch, start.seq, tail);
        let at =
            LogPosition { epoch: start.epoch, seq: start.seq, id: tail, loaded_seq: start.seq };
        // Loading → CatchingUp: the log goes on where the snapshot began.
        self.state = FollowState::CatchingUp { at, pending: PendingProof::None };
        self.change(|status| {
            if status.epoch != 0 {
                status.resyncs += 1;
                status.last_resync = reason;
            }
            status.error = None;
        });
        self.publish(&at, None);
    }

    /// The store has answered a heartbeat that was sent at this moment.
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat, sent: Moment, context: EventContext) {
        let known_before = std::mem::replace(&mut self.known_seq, heartbeat.seq);
        self.report_doubt(heartbeat);
        self.change(|status| {
            status.time = heartbeat.time;
            status.known = heartbeat.seq;
        });
        let (at, mut pending, is_following) = match self.state {
            // Before the snapshot there is nothing to compare with.
            FollowState::Connecting(_) | FollowState::Loading { .. } => return,
            FollowState::Joining(_) if heartbeat.epoch == self.lineage.present() => return,
            FollowState::Joining(_) => return self.epoch_changed(heartbeat, known_before, context),
            FollowState::CatchingUp { at, pending } => (at, pending, false),
            FollowState::Following { at, pending } => (at, pending, true),
        };
        self.note_lease(&heartbeat.lease);
        let is_granted = self.lease == LeaseState::Granted;
        if !is_granted {
            pending = PendingProof::None;
        }
        let has_unnamed_entry = std::mem::take(&mut self.has_unnamed_entry);
        if heartbeat.epoch != self.lineage.present() {
            return self.epoch_changed(heartbeat, known_before, context);
        }
        if has_unnamed_entry {
            return self.data_lost(Resync::NewEpoch, known_before, context);
        }
        if heartbeat.epoch != at.epoch {
            // What is left of the former epoch comes first.
            return;
        }
        if heartbeat.seq < at.seq {
            if heartbeat.doubt == Doubt::Settling {
                // At another server, whose epoch nobody has begun yet.
                return;
            }
            return self.data_lost(Resync::Regression, known_before, context);
        }
        if heartbeat.doubt != Doubt::Settling {
            // Whether anything was lost is not known before the store has settled.
            self.recovery.doubt_reported(is_over(heartbeat.doubt, heartbeat.time));
        }
        let is_reached = heartbeat.seq == at.seq;
        pending = match is_reached {
            true => PendingProof::None,
            false if is_granted => pending.or(heartbeat.seq, sent),
            false => pending,
        };
        self.state = if is_following {
            FollowState::Following { at, pending }
        } else {
            FollowState::CatchingUp { at, pending }
        };
        if is_reached {
            self.publish(&at, (is_granted && is_following).then_some(sent));
        }
    }

    /// The store is in another epoch than before.
    fn epoch_changed(&mut self, heartbeat: &Heartbeat, known: u64, context: EventContext) {
        if self.lineage.carry_on(heartbeat.epoch, heartbeat.carries_on) {
            tracing::info!(shard = self.shard, "the data is at another server; its log is joined");
            self.join(context);
        } else if is_carried_on(heartbeat) {
            self.resync(Resync::NewEpoch, context);
        } else {
            self.data_lost(Resync::NewEpoch, known, context);
        }
    }

    /// Looks for the latest place that this server may have.
    fn join(&mut self, context: EventContext) {
        match self.lineage.checkpoint() {
            // CatchingUp, Following, Joining → Joining.
            Some(place) => self.state = FollowState::Joining(place),
            None => self.resync(Resync::NewEpoch, context),
        }
    }

    /// The log was read from the position; these entries, which are applied, came after it.
    pub(super) fn entries_read(&mut self, entries: &[LogEntry], context: EventContext) {
        let (mut at, pending, entries) = match self.state {
            FollowState::CatchingUp { at, .. } | FollowState::Following { at, .. }
                if entries.is_empty() && self.is_behind(&at) =>
            {
                return self.resync(Resync::Trimmed, context);
            }
            FollowState::CatchingUp { at, pending } | FollowState::Following { at, pending } => {
                (at, pending, entries)
            }
            FollowState::Joining(place) => {
                let Some(found) = place.find(entries) else {
                    self.lineage.drop_checkpoint();
                    return self.join(context);
                };
                let (id, seq) = (found.id, found.seq);
                let at = LogPosition { epoch: place.epoch(), seq, id, loaded_seq: 0 };
                // Joining → CatchingUp, Following: everything up to there is the same.
                self.state = FollowState::CatchingUp { at, pending: PendingProof::None };
                (at, PendingProof::None, entries.get(found.entries..).unwrap_or_default())
            }
            FollowState::Connecting(_) | FollowState::Loading { .. } => return,
        };
        let mut has_joined = false;
        for entry in entries {
            let here = (at.epoch, at.seq);
            let resync = match entry.seq {
                seq if entry.epoch != at.epoch => {
                    if seq == at.seq + 1 && self.lineage.goes_on(here, entry.epoch) {
                        at = LogPosition { epoch: entry.epoch, seq, id: entry.id, loaded_seq: 0 };
                        has_joined = true;
                        self.lineage.note(entry, context.now);
                        continue;
                    }
                    if at.epoch == self.lineage.present() {
                        // It has begun since the last heartbeat. The next one says whether it
                        // carries this one on.
                        self.has_unnamed_entry = true;
                        break;
                    }
                    Resync::NewEpoch
                }
                seq if seq == at.seq + 1 => {
                    (at.seq, at.id) = (seq, entry.id);
                    self.lineage.note(entry, context.now);
                    continue;
                }
                // The snapshot had it.
                seq if seq <= at.seq && at.seq == at.loaded_seq => {
                    at.id = entry.id;
                    continue;
                }
                seq if seq <= at.seq => Resync::Regression,
                _ => Resync::Gap,
            };
            self.state = FollowState::Following { at, pending };
            return if resync == Resync::Regression && at.epoch == self.lineage.present() {
                self.data_lost(resync, self.known_seq, context);
            } else {
                self.resync(resync, context);
            };
        }
        if at.epoch == self.lineage.present() {
            self.loaded_epoch = at.epoch;
            let is_ahead = self.lineage.take_ahead();
            if is_ahead || has_joined && self.recovery.is_under_way() {
                self.recovery.put_back(context.replay_at);
            }
        }
        let (pending, proof) = pending.reached(at.seq);
        // CatchingUp → Following: the log goes on at the position.
        self.state = FollowState::Following { at, pending };
        if proof.is_some() || !entries.is_empty() {
            self.publish(&at, proof);
        }
    }

    /// So many facts were replayed.
    pub(super) fn facts_replayed(&mut self, count: u64) {
        if count > 0 {
            self.change(|status| status.replayed += count);
        }
    }

    /// The replay is done; so many revocations could not be replayed.
    pub(super) fn replay_done(&mut self, unidentified: usize) {
        self.recovery.replay_done(unidentified);
    }

    /// The store has answered the request to end the doubt.
    pub(super) fn doubt_end_answered(&mut self, is_ended: bool) {
        self.recovery.doubt_end_answered();
        if is_ended {
            self.change(|status| status.doubts_ended += 1);
        }
    }

    // === Transitions ===

    fn position(&self) -> Option<LogPosition> {
        match self.state {
            FollowState::Connecting(_) | FollowState::Loading { .. } | FollowState::Joining(_) => {
                None
            }
            FollowState::CatchingUp { at, .. } | FollowState::Following { at, .. } => Some(at),
        }
    }

    fn is_behind(&self, at: &LogPosition) -> bool {
        at.epoch != self.lineage.present() || at.seq < self.known_seq
    }

    /// The store has lost data. `known` is how many changes were known of before.
    fn data_lost(&mut self, reason: Resync, known: u64, context: EventContext) {
        // Up to the loss nothing may have escaped the mirror: it was fresh, and still is.
        let lost = self
            .position()
            .filter(|at| context.is_fresh && known <= at.seq && at.epoch == self.lineage.present());
        let lost =
            lost.map(|at| LostEpoch { epoch: at.epoch, seq: at.seq, noticed_at: context.now });
        self.recovery.data_lost(lost, context.replay_at);
        self.load(reason);
    }

    /// Something is missing between the position and the store.
    fn resync(&mut self, reason: Resync, context: EventContext) {
        if !matches!(reason, Resync::Gap | Resync::Trimmed) || self.lineage.take_ahead() {
            // The new server may not have everything that was applied.
            self.recovery.put_back(context.replay_at);
        }
        self.load(reason);
    }

    fn load(&mut self, reason: Resync) {
        tracing::warn!(shard = self.shard, %reason, "the mirror takes a new snapshot");
        if matches!(reason, Resync::NewEpoch | Resync::Regression) {
            // The next one that is loaded may be this one again, with less in it.
            self.loaded_epoch = 0;
        }
        self.smaller_doubt = None;
        // CatchingUp, Following, Joining → Loading.
        self.state = FollowState::Loading { reason: Some(reason) };
    }

    /// A wider doubt counts at once. A smaller one holds when the changes are applied by which the
    /// store ended the wider one.
    fn report_doubt(&mut self, &Heartbeat { epoch, seq, doubt, .. }: &Heartbeat) {
        self.doubt = doubt;
        let is_smaller = issued_until(doubt) < issued_until(self.status.doubt);
        // The first of several heartbeats that say the same: under load there is always a later one
        // that is not caught up with.
        let earlier = self.smaller_doubt.filter(|smaller| {
            smaller.epoch == epoch && issued_until(smaller.doubt) == issued_until(doubt)
        });
        self.smaller_doubt =
            is_smaller.then(|| earlier.unwrap_or(SmallerDoubt { epoch, seq, doubt }));
        if !is_smaller {
            self.change(|status| status.doubt = doubt);
        }
    }

    fn note_lease(&mut self, lease: &Result<(), StoreError>) {
        match lease {
            // Refused → Granted, or still granted.
            Ok(()) => self.lease = LeaseState::Granted,
            Err(error) => {
                // Granted → Refused: said once.
                if self.lease == LeaseState::Granted {
                    tracing::warn!(shard = self.shard, error = %error.chain(),
                        "the mirror has no lease; checks go to the store until it has");
                }
                self.lease = LeaseState::Refused;
                self.change(|status| status.error = Some(error.clone()));
            }
        }
    }

    /// Everything up to the position is applied, and this may be proved by it.
    fn publish(&mut self, at: &LogPosition, proof: Option<Moment>) {
        self.proof = proof.or(self.proof);
        let smaller = self
            .smaller_doubt
            .take_if(|smaller| smaller.epoch == at.epoch && smaller.seq <= at.seq);
        let is_granted = self.lease == LeaseState::Granted;
        self.change(|status| {
            if let Some(smaller) = smaller {
                status.doubt = smaller.doubt;
            }
            (status.epoch, status.applied) = (at.epoch, at.seq);
            status.known = status.known.max(at.seq);
            status.phase = Phase::Following;
            if is_granted {
                status.error = None;
            }
            if proof.is_some() {
                status.proof = proof;
            }
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut ShardStatus)) {
        change(&mut self.status);
        self.is_status_new = true;
    }
}

/// Whether the store says that it has the data of another server, and that none of it is lost.
fn is_carried_on(heartbeat: &Heartbeat) -> bool {
    heartbeat.carries_on.is_some() && !matches!(heartbeat.doubt, Doubt::Lasting { .. })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
