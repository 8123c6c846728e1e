//! Loss of data: how this process notices that Redis has lost data, and which tokens it doubts then.
//!
//! The [`Epoch`] of a shard is read together with every record. It is compared with what this
//! process knew when it *sent* the question, so replies that overtake each other raise no maintenance_due:
//!
//! | the epoch is | what happened | what is doubted |
//! | --- | --- | --- |
//! | the known one, with at least the known seq | nothing | what its horizon says |
//! | missing | `FLUSHALL`, a restart without data, eviction, another database | everything, until a new epoch has begun |
//! | the known one, with a lower seq | an older dump, a fail-over that lost writes | everything, until a new epoch has begun |
//! | the known one, with the known seq, but another change | the same, and others have written since | the same |
//! | the known one, but on a new connection its latest known change is missing in a log that reaches further back (room `compare`) | the same | the same |
//! | another one, begun before the known one or its latest known change | two primaries were believed at once, or an older state has come back | everything, until a new epoch has begun |
//! | another one | any of these, and someone was faster | tokens issued up to its started_at |
//!
//! A token that is in doubt and not found to be revoked is [`StoreErrorKind::DataLoss`]: the policy
//! decides. Tokens issued later than the horizon cannot have been revoked before it, and pass.
//!
//! A horizon is lifted when all that was lost is in redis again. That is a change of the epoch with
//! a number of its own; by it whoever read the epoch before knows which came later. It holds for
//! those who know no more of the former epoch than the one who lifted it: all others say so, and the
//! horizon is drawn anew. How much one knows is told by a number, so nobody can claim to know all
//! of an epoch that went on from an older state: after a restart or a fail-over that lost data, the
//! horizon stays.
//!
//! A question may be under way for long, and may itself be the one that begins an epoch in ignorance
//! of the last one. So what is known only grows: once a process has last_entries of two epochs, it never
//! again takes either for the first, and says so to redis until redis says so to all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::schema::{EntryId, Epoch, FAR};
use super::script::CallerEpoch;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

/// Later than all tokens.
const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// What this process knows of the epochs of all shards.
#[derive(Debug)]
pub(crate) struct EpochTracker {
    shards: Box<[ArcSwapOption<KnownEpoch>]>,
    /// How long after a loss tokens from before it may be met, in milliseconds; only grows.
    doubt_duration: AtomicU64,
    /// Rung when an epoch has to begin or a horizon to be published.
    pub(crate) maintenance_due: Notify,
}

/// What is known of the epoch of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownEpoch {
    /// As redis holds it.
    pub(crate) epoch: Epoch,
    /// An epoch that this process knew before, until it has told redis: so that all others hear that
    /// this one is not the first, and how much there was in it that has to be there again before
    /// the horizon may be lifted.
    pub(crate) former: Option<FormerEpoch>,
    /// Changes of this epoch were lost: a new one has to begin.
    pub(crate) lost: bool,
    /// The entries of the latest changes that each connection has last_entries of.
    last_entries: [EntryId; 3],
}

/// Over which connection an epoch was read: they may lead to different servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochSource {
    /// That of the checks.
    Checks,
    /// That of the writes and look-ups.
    Writes,
    /// That of a mirror.
    Feed,
}

/// What is remembered of a former epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FormerEpoch {
    id: u64,
    seq: u64,
}

/// In place of one whose id does not matter, or of several: no epoch has it, so nobody can claim to
/// know it all.
const UNKNOWN_EPOCH: FormerEpoch = FormerEpoch { id: 0, seq: FAR };

impl KnownEpoch {
    fn first(via: EpochSource, epoch: Epoch) -> Self {
        let mut known =
            Self { epoch, former: None, lost: false, last_entries: [EntryId::default(); 3] };
        known.note_entry(via, epoch.last_entry);
        known
    }

    fn note_entry(&mut self, via: EpochSource, last_entry: EntryId) {
        if let Some(last_entries) = self.last_entries.get_mut(via as usize) {
            *last_entries = last_entry.max(*last_entries);
        }
    }

    fn has_noted(&self, via: EpochSource, last_entry: EntryId) -> bool {
        self.last_entries.get(via as usize) == Some(&last_entry)
    }

    /// The entries that have to be in the log, unless it was trimmed.
    pub(super) fn expected_entries(&self) -> Vec<EntryId> {
        let mut marks = self.last_entries.to_vec();
        marks.sort_unstable();
        marks.dedup();
        marks.retain(|last_entry| *last_entry != EntryId::default());
        marks
    }

    /// What the script is told, so that it begins a new epoch or draws a horizon where one is
    /// missing.
    pub(crate) fn for_script(&self) -> CallerEpoch {
        let Epoch { id, seq, .. } = self.epoch;
        match self.former {
            _ if self.lost => CallerEpoch { id, seq: FAR, reach: FAR },
            Some(former) => CallerEpoch { id: former.id, seq: 0, reach: former.seq },
            None => CallerEpoch { id, seq, reach: seq },
        }
    }

    fn doubt(&self) -> Doubt {
        let Epoch { started_at, horizon, lifted, .. } = self.epoch;
        match self.former {
            // Until the script has said how long it lasts, or that it was lifted for those who know
            // this much.
            Some(_) if horizon < started_at => Doubt { horizon: started_at, lifted: FOREVER },
            _ => Doubt { horizon, lifted },
        }
    }

    /// Takes in what was read of the same epoch. Replies may be read in another order than they were
    /// given, so nothing that is known is given up for what is not.
    fn merge(&mut self, epoch: Epoch) {
        let [older, newer] =
            if epoch.seq >= self.epoch.seq { [self.epoch, epoch] } else { [epoch, self.epoch] };
        let stays = older.horizon > newer.horizon && !newer.is_lifted_since(&older);
        let drawn = if stays { older } else { newer };
        self.epoch = Epoch { horizon: drawn.horizon, lifted: drawn.lifted, ..newer };
    }

    /// The epoch that was found where this one was expected.
    fn replaced_by(&self, via: EpochSource, epoch: Epoch) -> Self {
        let latest =
            self.last_entries.iter().map(|last_entry| last_entry.0).max().unwrap_or_default();
        Self {
            former: Some(match self.former {
                None if !self.lost => FormerEpoch { id: self.epoch.id, seq: self.epoch.seq },
                // Where it went on without what this process knew, its numbers were given out a
                // second time.
                _ => UNKNOWN_EPOCH,
            }),
            // The former epoch went on after this one had begun, or began later: two primaries were
            // believed at once, or an old state has come back. What was written meanwhile is lost
            // as well.
            lost: latest.max(self.epoch.started_at.as_millis())
                > epoch.horizon.max(epoch.started_at).as_millis(),
            ..Self::first(via, epoch)
        }
    }
}

/// Up to where tokens are in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(super) horizon: Timestamp,
    pub(super) lifted: Timestamp,
}

impl Doubt {
    /// Tokens issued until then are in doubt; zero if none are.
    #[cfg(feature = "sessions")]
    pub(crate) fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Whether a token that was not found to be revoked may have been.
    pub(crate) fn covers(&self, token: &VerifiedToken) -> bool {
        if self.horizon == Timestamp::ZERO {
            return false;
        }
        match token.issued_at() {
            Some(issued_at) => issued_at <= self.horizon,
            // How old it is nobody knows, but not older than the longest lifetime of a token.
            None => SystemClock.now() < self.lifted,
        }
    }
}

impl EpochTracker {
    pub(crate) fn new(shards: u16, doubt_duration: Duration) -> Self {
        Self {
            shards: (0..shards).map(|_| ArcSwapOption::empty()).collect(),
            doubt_duration: AtomicU64::new(millis(doubt_duration)),
            maintenance_due: Notify::new(),
        }
    }

    /// Tokens may be met for so long after they were issued.
    pub(crate) fn expect_tokens_for(&self, longest: Duration) {
        self.doubt_duration.fetch_max(millis(longest), Ordering::Relaxed);
    }

    /// How long a doubt lasts.
    pub(crate) fn doubt_duration(&self) -> Duration {
        Duration::from_millis(self.doubt_duration.load(Ordering::Relaxed))
    }

    /// Which tokens are in doubt, as long as this epoch goes on. Others may have drawn the horizon
    /// who expect no tokens as long-lasting as this process does.
    pub(crate) fn doubt(&self, known: &KnownEpoch) -> Doubt {
        let doubt = known.doubt();
        if doubt.horizon == Timestamp::ZERO {
            return doubt;
        }
        Doubt {
            lifted: doubt.lifted.max(doubt.horizon.saturating_add(self.doubt_duration())),
            ..doubt
        }
    }

    /// What is known now: to be called before the question is sent.
    pub(crate) fn known(&self, shard: u16) -> Option<Arc<KnownEpoch>> {
        self.shards.get(usize::from(shard)).and_then(ArcSwapOption::load_full)
    }

    /// Compares what was read with what was known when the question was sent, and with what is
    /// known now.
    pub(crate) fn observe_value(
        &self,
        via: EpochSource,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        value: Option<&[u8]>,
    ) -> Result<Doubt, StoreError> {
        self.observe(via, shard, before, value.map(read).transpose()?)
    }

    /// The same, if the epoch was read before.
    pub(crate) fn observe(
        &self,
        via: EpochSource,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Option<Epoch>,
    ) -> Result<Doubt, StoreError> {
        let Some(epoch) = epoch else {
            self.maintenance_due.notify_one();
            return Err(data_loss("redis holds no epoch of this shard: its data was lost"));
        };
        if before.is_some_and(|known| {
            known.epoch.id == epoch.id && (known.lost || known.epoch.seq > epoch.seq)
        }) {
            self.maintenance_due.notify_one();
            return Err(data_loss(
                "redis knows of fewer revocations than before: an older state was restored",
            ));
        }
        self.record(via, shard, before, epoch, None)
    }

    /// Takes in the epoch that the script has answered with, after it was told what was known.
    pub(crate) fn observe_script_reply(
        &self,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Epoch,
    ) -> Result<Doubt, StoreError> {
        self.record(
            EpochSource::Writes,
            shard,
            before,
            epoch,
            before.and_then(|before| before.former),
        )
    }

    /// Takes in an epoch that was read, or that the script has answered with.
    ///
    /// What was known when the question was sent may be long out of date when it is answered, or
    /// have been nothing at all. So the epoch is always laid beside the one that is known by now:
    /// another one may take its place only if that one was known when the question was sent, and
    /// whatever this process knows of either is kept.
    fn record(
        &self,
        via: EpochSource,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Epoch,
        told: Option<FormerEpoch>,
    ) -> Result<Doubt, StoreError> {
        let slot = self.shards.get(usize::from(shard)).ok_or_else(in_doubt)?;
        // Most of the time there is nothing new.
        if let (Some(before), Some(now)) = (before, &*slot.load())
            && Arc::ptr_eq(before, now)
            && before.epoch == epoch
            && before.has_noted(via, epoch.last_entry)
            && !before.lost
            && told.is_none()
        {
            return Ok(self.doubt(before));
        }
        let asked_of = before.map(|before| before.epoch);
        let next = |now: Option<&KnownEpoch>| next(now, via, asked_of, epoch, told);
        let was = slot.rcu(|now| match (now, next(now.as_deref())) {
            // Those who have asked since then find it unchanged.
            (Some(now), next) if **now == next => Some(Arc::clone(now)),
            (_, next) => Some(Arc::new(next)),
        });
        let learned = next(was.as_deref());
        if learned.former.is_some() || learned.lost {
            self.maintenance_due.notify_one();
        }
        if was.is_some_and(|was| was.epoch.id != learned.epoch.id) {
            tracing::warn!(
                shard,
                horizon = %learned.doubt().horizon,
                "redis has lost revocations; the standing of tokens issued up to the horizon is \
                 unknown"
            );
        }
        if learned.lost {
            return Err(data_loss(
                "redis has lost revocations that this process knew of: a new epoch has to begin",
            ));
        }
        if learned.epoch.id != epoch.id {
            return Err(data_loss(
                "the epoch of the shard changed while the question was under way; ask again",
            ));
        }
        if learned.epoch.is_lifted() && !epoch.is_lifted() {
            // What stands beside it was read before everything was there again.
            return Ok(Doubt { horizon: epoch.started_at.max(epoch.horizon), lifted: FOREVER });
        }
        Ok(self.doubt(&learned))
    }

    /// On a new connection, a change that was known before was not found: whatever the epoch says,
    /// changes were lost.
    pub(crate) fn report_missing(&self, shard: u16, known: &KnownEpoch) {
        let Some(slot) = self.shards.get(usize::from(shard)) else { return };
        slot.rcu(|now| match now {
            Some(now) if now.epoch.id == known.epoch.id => {
                Some(Arc::new(KnownEpoch { lost: true, ..**now }))
            }
            other => other.clone(),
        });
        self.maintenance_due.notify_one();
    }
}

/// What is to be known after an answer, by what is known now and what was known when the question
/// was sent.
fn next(
    now: Option<&KnownEpoch>,
    via: EpochSource,
    before: Option<Epoch>,
    epoch: Epoch,
    told: Option<FormerEpoch>,
) -> KnownEpoch {
    let Some(now) = now else { return KnownEpoch::first(via, epoch) };
    if now.epoch.id == epoch.id {
        let mut next = *now;
        // One number for two changes: two servers have gone on from one state.
        next.lost |= epoch.seq == now.epoch.seq && epoch.last_entry != now.epoch.last_entry;
        next.merge(epoch);
        next.note_entry(via, epoch.last_entry);
        if told.is_some() && told == now.former {
            next.former = None;
        }
        let is_gone =
            |before: Epoch| before.horizon > epoch.horizon && !epoch.is_lifted_since(&before);
        if before.is_some_and(|before| before.id == epoch.id && is_gone(before)) {
            // The horizon had been drawn and is gone again: it has to be drawn anew.
            next.former = Some(UNKNOWN_EPOCH);
        }
        return next;
    }
    // The question may have been sent before the known epoch was last_entries of. Then the later one is
    // believed.
    if before.is_some_and(|before| before.id == now.epoch.id)
        || epoch.started_at > now.epoch.started_at
    {
        return now.replaced_by(via, epoch);
    }
    // The known one stays, but it is not the only one any more.
    let other = KnownEpoch::first(via, epoch).replaced_by(via, now.epoch);
    let former = match (now.former, other.former) {
        (Some(known), Some(last_entries)) if known.id == last_entries.id => {
            Some(FormerEpoch { seq: known.seq.max(last_entries.seq), ..known })
        }
        (Some(_), Some(_)) => Some(UNKNOWN_EPOCH),
        (former, None) | (None, former) => former,
    };
    KnownEpoch { former, lost: now.lost || other.lost, ..*now }
}

/// Reads the value of the key of an epoch.
pub(crate) fn read(value: &[u8]) -> Result<Epoch, StoreError> {
    Epoch::parse(value).map_err(|_| {
        StoreError::new(
            StoreErrorKind::Protocol,
            "the epoch of the shard is unreadable: another program, or another version of this one, \
             uses the prefix",
        )
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(FAR).min(FAR)
}

fn data_loss(problem: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::DataLoss, problem)
}

/// Tokens of this shard are in doubt.
pub(crate) fn in_doubt() -> StoreError {
    data_loss("redis has lost revocations, and the token is old enough to have been revoked before")
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
