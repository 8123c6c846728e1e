//! Epochs: how this process notices that Redis has lost data, and which tokens are then in doubt.
//!
//! An *epoch* is the time between two losses of data of one shard. Redis holds the present one
//! under one key: a random id, when it began, how many changes were written in it (`seq`), the log
//! entry of the latest change, and the [`Doubt`] that the last loss has left. That key is read
//! together with every record. What was read is compared with what this process knew when it *sent*
//! the question; replies that overtake each other therefore look like no loss.
//!
//! | the epoch that was read | what happened | tokens in doubt |
//! | --- | --- | --- |
//! | the known one, `seq` not lower | nothing | those that its doubt names |
//! | none | `FLUSHALL`, a restart without data, eviction, another database | all, until a new epoch begins |
//! | the known one, `seq` lower | an older dump, a fail-over that lost writes | all, until a new epoch begins |
//! | the known one, the same `seq`, another last entry | the same, and others have written since | all, until a new epoch begins |
//! | the known one, but on a new connection its last known entry is missing in a log that reaches further back (module `log_check`) | the same | all, until a new epoch begins |
//! | another one, which began before the known one or before its last known entry | two servers were primary at once, or an older state has come back | all, until a new epoch begins |
//! | another one | any of these, and another process has begun the new epoch | those issued until it began |
//!
//! A check of a token that is in doubt and not found to be revoked is an error:
//! [`StoreErrorKind::Settling`] where waiting helps, else [`StoreErrorKind::DataLoss`].
//! Tokens that were issued after the doubt's `issued_until` cannot have been revoked before the
//! loss.
//!
//! # What this process knows of a shard
//!
//! | state | in [`KnownEpoch`] | left by |
//! | --- | --- | --- |
//! | nothing | there is none | the first epoch that is read: it is believed |
//! | current | `former` is none, `lost` is false | a loss, as in the table above |
//! | a former epoch is known | `former` is set | a reply of the script, which was told of the former epoch: from then on all processes read the doubt from Redis |
//! | changes were lost | `lost` is true | another epoch: the script is asked to begin one |
//!
//! In the last two states the maintenance task is notified, and runs the script. A question may be
//! answered late, and may itself have begun an epoch without knowing of the former one. So
//! knowledge only grows: a process that has heard of two epochs reports the other one to Redis
//! until a reply shows that Redis took note of it.
//!
//! # How a doubt ends
//!
//! A doubt ends by itself when all tokens from before the loss have expired. It ends earlier if a
//! mirror has written everything again that was lost. Each process tells the script how many
//! changes of the former epoch it knew of; the script ends the doubt only for a mirror that knew as
//! many as every process that has reported, and declares the doubt again for a process that reports
//! later and knew more. The end, and a new declaration, take a `seq` of their own, so that whoever
//! has read the epoch before can tell which came later. Where an epoch went on from an older state,
//! its numbers were given out twice and no process can have known all of it: then the doubt lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::schema::{EntryId, Epoch, MAX_INTEGER, unreadable};
use super::script::CallerEpoch;
use crate::clock::Timestamp;
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// What this process knows of the epochs of all shards.
#[derive(Debug)]
pub(crate) struct EpochTracker {
    shards: Box<[ArcSwapOption<KnownEpoch>]>,
    /// How long after a loss tokens from before it may be presented, in milliseconds; only grows.
    doubt_millis: AtomicU64,
    /// Notified when the script has to be run: to begin an epoch, or to report a former one.
    pub(crate) maintenance_due: Notify,
}

/// What is known of the epoch of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownEpoch {
    /// As Redis holds it.
    pub(crate) epoch: Epoch,
    /// An epoch that this process knew before, until Redis has taken note of it: all others have to
    /// hear that this one is not the first, and how many changes of the former one have to be
    /// written again before the doubt may end.
    pub(crate) former: Option<FormerEpoch>,
    /// Whether changes of this epoch were lost: a new one has to begin.
    pub(crate) lost: bool,
    /// The entry of the latest change that was read over each connection.
    last_entries: [EntryId; 3],
}

/// Over which connection an epoch was read: they may lead to different servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochSource {
    /// The connection for checks.
    Checks,
    /// The connection for writes and look-ups.
    Writes,
    /// The connection of a mirror.
    Feed,
}

/// What is remembered of a former epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FormerEpoch {
    id: u64,
    seq: u64,
}

/// Stands for several former epochs, or for one whose numbers were given out twice. No epoch has
/// this id, so nobody can claim to have known all of it.
const UNKNOWABLE_EPOCH: FormerEpoch = FormerEpoch { id: 0, seq: MAX_INTEGER };

impl KnownEpoch {
    fn first(source: EpochSource, epoch: Epoch) -> Self {
        let mut known =
            Self { epoch, former: None, lost: false, last_entries: [EntryId::default(); 3] };
        known.note_entry(source, epoch.last_entry);
        known
    }

    fn note_entry(&mut self, source: EpochSource, entry: EntryId) {
        if let Some(last) = self.last_entries.get_mut(source as usize) {
            *last = entry.max(*last);
        }
    }

    fn has_noted(&self, source: EpochSource, entry: EntryId) -> bool {
        self.last_entries.get(source as usize) == Some(&entry)
    }

    /// The entries that have to be in the log, unless it was trimmed.
    pub(super) fn expected_entries(&self) -> Vec<EntryId> {
        let mut entries = self.last_entries.to_vec();
        entries.sort_unstable();
        entries.dedup();
        entries.retain(|entry| *entry != EntryId::default());
        entries
    }

    /// What the script is told, so that it begins an epoch or declares a doubt where one is
    /// missing.
    pub(crate) fn for_script(&self) -> CallerEpoch {
        let Epoch { id, seq, .. } = self.epoch;
        match self.former {
            _ if self.lost => CallerEpoch { id, min_seq: MAX_INTEGER, known_seq: MAX_INTEGER },
            Some(former) => CallerEpoch { id: former.id, min_seq: 0, known_seq: former.seq },
            None => CallerEpoch { id, min_seq: seq, known_seq: seq },
        }
    }

    /// Takes in what was read of the same epoch. Replies may be read in another order than they
    /// were given, so nothing that is known is replaced by what is older.
    fn merge(&mut self, epoch: Epoch) {
        let [older, newer] =
            if epoch.seq >= self.epoch.seq { [self.epoch, epoch] } else { [epoch, self.epoch] };
        let doubted = if newer.has_lost_doubt_of(&older) { older } else { newer };
        self.epoch =
            Epoch { doubt: doubted.doubt, doubt_ended_at: doubted.doubt_ended_at, ..newer };
    }

    /// The epoch that was found where this one was expected.
    fn replaced_by(&self, source: EpochSource, epoch: Epoch) -> Self {
        let latest = self.last_entries.iter().map(|entry| entry.0).max().unwrap_or_default();
        let covered = epoch.doubt.issued_until().unwrap_or_default().max(epoch.started_at);
        Self {
            former: Some(match self.former {
                None if !self.lost => FormerEpoch { id: self.epoch.id, seq: self.epoch.seq },
                // This epoch went on from a state without what this process knew: its numbers were
                // given out a second time.
                _ => UNKNOWABLE_EPOCH,
            }),
            // The former epoch went on after this one had begun, or began later: two servers were
            // primary at once, or an old state has come back. What was written meanwhile is lost as
            // well.
            lost: latest.max(self.epoch.started_at.as_millis()) > covered.as_millis(),
            ..Self::first(source, epoch)
        }
    }
}

impl EpochTracker {
    pub(crate) fn new(shards: u16, doubt_duration: Duration) -> Self {
        Self {
            shards: (0..shards).map(|_| ArcSwapOption::empty()).collect(),
            doubt_millis: AtomicU64::new(millis(doubt_duration)),
            maintenance_due: Notify::new(),
        }
    }

    /// Tokens may be presented for so long after they were issued.
    pub(crate) fn expect_tokens_for(&self, longest: Duration) {
        self.doubt_millis.fetch_max(millis(longest), Ordering::Relaxed);
    }

    /// How long a doubt lasts.
    pub(crate) fn doubt_duration(&self) -> Duration {
        Duration::from_millis(self.doubt_millis.load(Ordering::Relaxed))
    }

    /// Which tokens are in doubt, as long as nothing else is known.
    pub(crate) fn doubt(&self, known: &KnownEpoch) -> Doubt {
        let Epoch { started_at, doubt, .. } = known.epoch;
        match known.former {
            _ if doubt == Doubt::Settling => doubt,
            // Redis has not said yet whether it knows of the former epoch.
            Some(_) if doubt.issued_until() < Some(started_at) => self.doubt_until(started_at),
            _ => match doubt {
                Doubt::None | Doubt::Settling => doubt,
                // Another process may have declared it that expects tokens to last less long.
                Doubt::Lasting { issued_until, .. } => doubt.joined(self.doubt_until(issued_until)),
            },
        }
    }

    /// The doubt of tokens that were issued until then, for as long as this process accepts them.
    fn doubt_until(&self, issued_until: Timestamp) -> Doubt {
        let ends_at = issued_until.saturating_add(self.doubt_duration());
        Doubt::Lasting { issued_until, ends_at }
    }

    /// What is known now: to be called before the question is sent.
    pub(crate) fn known(&self, shard: u16) -> Option<Arc<KnownEpoch>> {
        self.shards.get(usize::from(shard)).and_then(ArcSwapOption::load_full)
    }

    /// Compares the value of the key of an epoch with what was known when the question was sent,
    /// and with what is known now.
    ///
    /// # Errors
    /// [`StoreErrorKind::Settling`] if it is not known which tokens are in doubt.
    pub(crate) fn observe_value(
        &self,
        source: EpochSource,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        value: Option<&[u8]>,
    ) -> Result<Doubt, StoreError> {
        self.observe(source, shard, before, value.map(parse).transpose()?)
    }

    /// The same, if the value was parsed before.
    pub(crate) fn observe(
        &self,
        source: EpochSource,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Option<Epoch>,
    ) -> Result<Doubt, StoreError> {
        let Some(epoch) = epoch else {
            self.maintenance_due.notify_one();
            return Err(unsettled(match before {
                Some(_) => "redis holds no epoch of this shard: its data was lost",
                None => {
                    "redis holds no epoch of this shard: either none has begun yet, or its data \
                     was lost"
                }
            }));
        };
        if before.is_some_and(|known| {
            known.epoch.id == epoch.id && (known.lost || known.epoch.seq > epoch.seq)
        }) {
            self.maintenance_due.notify_one();
            return Err(unsettled(
                "redis knows of fewer revocations than before: an older state was restored",
            ));
        }
        self.record(source, shard, before, epoch, None)
    }

    /// Takes in the epoch that the script has replied with, after it was told what was known.
    pub(crate) fn observe_script_reply(
        &self,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Epoch,
    ) -> Result<Doubt, StoreError> {
        let reported = before.and_then(|before| before.former);
        self.record(EpochSource::Writes, shard, before, epoch, reported)
    }

    /// Takes in an epoch. `reported` is the former epoch of which the script was told.
    ///
    /// What was known when the question was sent may be out of date when it is answered, or have
    /// been nothing. So the epoch is always compared with the one that is known by now: it replaces
    /// that one only if that one was known when the question was sent, and what this process knows
    /// of either is kept.
    fn record(
        &self,
        source: EpochSource,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Epoch,
        reported: Option<FormerEpoch>,
    ) -> Result<Doubt, StoreError> {
        let slot = self.shards.get(usize::from(shard)).ok_or_else(unknown_shard)?;
        // Most of the time there is nothing new.
        if let (Some(before), Some(now)) = (before, &*slot.load())
            && Arc::ptr_eq(before, now)
            && before.epoch == epoch
            && before.has_noted(source, epoch.last_entry)
            && !before.lost
            && reported.is_none()
        {
            return Ok(self.doubt(before));
        }
        let asked_of = before.map(|before| before.epoch);
        let next = |now: Option<&KnownEpoch>| next(now, source, asked_of, epoch, reported);
        let was = slot.rcu(|now| match (now, next(now.as_deref())) {
            // Replies to questions that were sent meanwhile find it unchanged.
            (Some(now), next) if **now == next => Some(Arc::clone(now)),
            (_, next) => Some(Arc::new(next)),
        });
        let known = next(was.as_deref());
        if known.former.is_some() || known.lost {
            self.maintenance_due.notify_one();
        }
        if was.is_some_and(|was| was.epoch.id != known.epoch.id) {
            let issued_until = self.doubt(&known).issued_until().unwrap_or_default();
            tracing::warn!(
                shard,
                %issued_until,
                "redis has lost revocations; tokens issued until then are in doubt"
            );
        }
        if known.lost {
            return Err(unsettled(
                "redis has lost revocations that this process knew of: a new epoch has to begin",
            ));
        }
        if known.epoch.id != epoch.id {
            return Err(unsettled(
                "the epoch of the shard changed while the question was under way; ask again",
            ));
        }
        if known.epoch.doubt_ended_at.is_some() && epoch.doubt_ended_at.is_none() {
            // The records beside it may have been read before everything was written again.
            let issued_until = epoch.doubt.issued_until().unwrap_or_default();
            return Ok(self.doubt_until(issued_until.max(epoch.started_at)));
        }
        Ok(self.doubt(&known))
    }

    /// An entry that was known before was not found over a new connection: changes were lost,
    /// whatever the epoch says.
    pub(crate) fn report_missing_entry(&self, shard: u16, known: &KnownEpoch) {
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

/// What is known after a reply, by what is known now and what was known when the question was sent.
fn next(
    now: Option<&KnownEpoch>,
    source: EpochSource,
    before: Option<Epoch>,
    epoch: Epoch,
    reported: Option<FormerEpoch>,
) -> KnownEpoch {
    let Some(now) = now else { return KnownEpoch::first(source, epoch) };
    if now.epoch.id == epoch.id {
        let mut next = *now;
        // One number for two changes: two servers have gone on from one state.
        next.lost |= epoch.seq == now.epoch.seq && epoch.last_entry != now.epoch.last_entry;
        next.merge(epoch);
        next.note_entry(source, epoch.last_entry);
        if reported.is_some() && reported == now.former {
            next.former = None;
        }
        if before.is_some_and(|before| before.id == epoch.id && epoch.has_lost_doubt_of(&before)) {
            // The doubt was declared and is gone again: it has to be declared anew.
            next.former = Some(UNKNOWABLE_EPOCH);
        }
        return next;
    }
    // The question may have been sent before the known epoch was heard of. Then the later of the
    // two is believed.
    if before.is_some_and(|before| before.id == now.epoch.id)
        || epoch.started_at > now.epoch.started_at
    {
        return now.replaced_by(source, epoch);
    }
    // The known one stays, but it is not the only one any more.
    let other = KnownEpoch::first(source, epoch).replaced_by(source, now.epoch);
    let former = match (now.former, other.former) {
        (Some(known), Some(heard)) if known.id == heard.id => {
            Some(FormerEpoch { seq: known.seq.max(heard.seq), ..known })
        }
        (Some(_), Some(_)) => Some(UNKNOWABLE_EPOCH),
        (former, None) | (None, former) => former,
    };
    KnownEpoch { former, lost: now.lost || other.lost, ..*now }
}

/// Reads the value of the key of an epoch.
pub(crate) fn parse(value: &[u8]) -> Result<Epoch, StoreError> {
    Epoch::parse(value).map_err(|_| unreadable("the epoch of the shard", value))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(MAX_INTEGER).min(MAX_INTEGER)
}

/// It is not known yet which tokens of this shard are in doubt.
fn unsettled(problem: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Settling, problem)
}

fn unknown_shard() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "there is no shard of this number")
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
