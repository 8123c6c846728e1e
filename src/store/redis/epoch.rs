//! Epochs: how this process notices that Redis has lost data, and which tokens are then in doubt.
//!
//! An *epoch* is the time between two losses of data of one shard, or two changes of its server.
//! Redis holds the present one under one key: a random id, the server that has begun it, the epoch
//! that it carries on (`parent`), when it began, whether the server still settles, how many changes
//! were written in it (`seq`), the log entry of the latest change, and the [`Doubt`] that the last
//! loss has left. That key is read
//! together with every record. What was read is compared with what this process knew when it *sent*
//! the question; replies that overtake each other therefore look like no loss.
//!
//! | the epoch that was read | what happened | tokens in doubt |
//! | --- | --- | --- |
//! | the known one, `seq` not lower | nothing | those that its doubt names |
//! | one that another server has begun than the one that is read | a failover, a restart with older data: what writers have confirmed may not be there yet | all, until this server has settled |
//! | one that carries on the known one | another process has asked that server first | all, until it has settled |
//! | none | `FLUSHALL`, a restart without data, eviction, another database | all, until a new epoch begins |
//! | the known one, `seq` lower | an older dump, a failover that lost writes | all, until a new epoch begins |
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::schema::{EntryId, Epoch, MAX_INTEGER, SettlingState, unreadable};
use super::script::{CallerEpoch, LongKnown};
use crate::clock::Timestamp;
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// What this process knows of the epochs of all shards.
#[derive(Debug)]
pub(crate) struct EpochTracker {
    shards: Box<[ArcSwapOption<KnownEpoch>]>,
    /// How long after a loss tokens from before it may be presented, in milliseconds; only grows.
    doubt_millis: AtomicU64,
    /// Whether this process may not run the script.
    pub(crate) cannot_report: AtomicBool,
    /// Notified when the script has to be run: to begin an epoch, to report a former one, or while
    /// a server settles.
    pub(crate) maintenance_due: Notify,
    /// Notified when a doubt that lasts was read, or its end.
    pub(crate) doubt_changed: Notify,
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
    /// The epochs that this one carries on, as far as this process has known them; the latest
    /// first. What a server still says of them is out of date.
    ancestors: [u64; 4],
    /// How many changes were known, and since when.
    ages: SeqAges,
    /// What was known for long of the epoch that this one carries on.
    parent_known: u64,
}

/// How many changes were known a while ago, by the times at which the server still had them.
/// Between two probes no time counts: a process that was suspended, or whose server was away, has
/// not seen that what it knew last was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeqAges {
    /// The server had these for [`LONG`] at least.
    old: u64,
    /// Known since then.
    young: (u64, Instant),
    /// The latest, known since then.
    newest: (u64, Instant),
}

/// What a server had for so long is not lost by a failover to a replica that follows its primary.
const LONG: Duration = Duration::from_secs(5);

impl SeqAges {
    fn new(seq: u64) -> Self {
        let now = (seq, Instant::now());
        Self { old: 0, young: now, newest: now }
    }

    /// Takes in what is known now.
    fn update(&mut self, seq: u64) {
        if seq > self.newest.0 {
            self.newest = (seq, Instant::now());
        }
    }

    /// At this time the server had all of it.
    fn kept_at(&mut self, time: Instant) {
        let is_old = |since: Instant| time.saturating_duration_since(since) >= LONG;
        if is_old(self.newest.1) {
            (self.old, self.young) = (self.newest.0, self.newest);
        } else if is_old(self.young.1) {
            (self.old, self.young) = (self.young.0, self.newest);
        }
    }
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

/// Where an epoch was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadFrom {
    /// Over which connection.
    pub(crate) source: EpochSource,
    /// The [tag](super::server_id::ServerId::tag) of the server at its other end; zero if it does
    /// not tell.
    pub(crate) server: u64,
}

/// What is remembered of a former epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FormerEpoch {
    id: u64,
    seq: u64,
    /// Whether it went on after the present one had begun, or began later: two servers were primary
    /// at once, or an old state has come back. Unless the present one carries it on, what was
    /// written meanwhile is lost as well.
    went_on: bool,
}

/// The former epoch of which the script was told, if there was one.
#[derive(Clone, Copy, Debug)]
struct ReportedEpoch(Option<FormerEpoch>);

/// Stands for several former epochs, or for one whose numbers were given out twice. No epoch has
/// this id, so nobody can claim to have known all of it.
const UNKNOWABLE_EPOCH: FormerEpoch = FormerEpoch { id: 0, seq: MAX_INTEGER, went_on: false };

impl KnownEpoch {
    fn first(source: EpochSource, epoch: Epoch) -> Self {
        let mut known = Self {
            epoch,
            former: None,
            lost: false,
            last_entries: [EntryId::default(); 3],
            ancestors: [epoch.parent, 0, 0, 0],
            ages: SeqAges::new(epoch.seq),
            parent_known: 0,
        };
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
        let known = match self.epoch.settling {
            None => CallerEpoch { id, min_seq: seq, known_seq: seq, went_on: false },
            // Nothing but replays was written in it: if a third server does not know it, that is no
            // loss.
            Some(_) => {
                CallerEpoch { id: self.epoch.parent, min_seq: 0, known_seq: 0, went_on: false }
            }
        };
        match self.former {
            _ if self.lost => CallerEpoch { min_seq: MAX_INTEGER, known_seq: MAX_INTEGER, ..known },
            Some(FormerEpoch { id, seq, went_on }) => {
                CallerEpoch { id, min_seq: 0, known_seq: seq, went_on }
            }
            None => known,
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

    /// What the script is told, so that it notices if a server has less than was known for long: of
    /// the epoch that the present one carries on, or will be carried on.
    pub(crate) fn long_known(&self) -> Option<LongKnown> {
        let Epoch { id, parent, settling, .. } = self.epoch;
        let (epoch, seq) = match self.parent_known {
            0 if settling.is_none() => (id, self.ages.old),
            seq => (parent, seq),
        };
        (seq > 0 && self.former.is_none()).then_some(LongKnown { epoch, seq })
    }

    /// When another server has carried the data on, by its clock.
    #[cfg(feature = "sessions")]
    pub(crate) fn moved_at(&self) -> Option<Timestamp> {
        (self.epoch.parent != 0).then_some(self.epoch.started_at)
    }

    /// Whether what a server says of this epoch is out of date.
    fn is_ancestor(&self, epoch: &Epoch) -> bool {
        self.ancestors.contains(&epoch.id)
    }

    /// The epoch that was found where this one was expected.
    fn replaced_by(&self, source: EpochSource, epoch: Epoch) -> Self {
        let next = Self::first(source, epoch);
        let (former, lost, [first, second, third, _]) = (self.former, self.lost, self.ancestors);
        if epoch.parent == self.epoch.id {
            // Another server carries it on. What that one does not have is put back by those who
            // wrote it, or is in doubt: the script sees to it.
            let ancestors = [self.epoch.id, first, second, third];
            return Self { former, lost, ancestors, parent_known: self.ages.old, ..next };
        }
        if self.epoch.settling.is_some() && epoch.parent == self.epoch.parent {
            // A third server carries on what the second one had only begun to.
            let ancestors = [epoch.parent, self.epoch.id, first, second];
            return Self { former, lost, ancestors, parent_known: self.parent_known, ..next };
        }
        if self.epoch.settling.is_some() && epoch.parent != 0 && !lost {
            // It carries on one that this process has missed. Nothing but replays was written in
            // the epoch that was known here, so the one before it has to be among the ancestors,
            // or what was known before that, if Redis has not taken note of it. If it is not,
            // nobody can say that he knew all of it.
            let id = self.epoch.parent;
            let former = former.unwrap_or(FormerEpoch { id, seq: MAX_INTEGER, went_on: false });
            return Self { former: Some(former), ..next };
        }
        let latest = self.last_entries.iter().map(|entry| entry.0).max().unwrap_or_default();
        let covered = epoch.doubt.issued_until().unwrap_or_default().max(epoch.started_at);
        let went_on = latest.max(self.epoch.started_at.as_millis()) > covered.as_millis();
        let former = match self.former {
            None if !self.lost => FormerEpoch { id: self.epoch.id, seq: self.epoch.seq, went_on },
            // This epoch went on from a state without what this process knew: its numbers were
            // given out a second time.
            _ => FormerEpoch { went_on, ..UNKNOWABLE_EPOCH },
        };
        Self { former: Some(former), ..next }
    }
}

impl EpochTracker {
    pub(crate) fn new(shards: u16, doubt_duration: Duration) -> Self {
        Self {
            shards: (0..shards).map(|_| ArcSwapOption::empty()).collect(),
            doubt_millis: AtomicU64::new(millis(doubt_duration)),
            cannot_report: AtomicBool::new(false),
            maintenance_due: Notify::new(),
            doubt_changed: Notify::new(),
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
        let Epoch { started_at, settling, doubt, .. } = known.epoch;
        // While another epoch is not reported, Redis has not said yet whether it carries that one
        // on, or knows of the loss.
        if settling.is_some() || known.lost {
            return Doubt::Settling;
        }
        if let Some(former) = known.former
            && (former.went_on || doubt.issued_until() < Some(started_at))
        {
            // A process that may not write cannot ask, and the other epoch may have been lost.
            let cannot_report = self.cannot_report.load(Ordering::Relaxed);
            return if cannot_report && !former.went_on {
                self.doubt_until(started_at)
            } else {
                Doubt::Settling
            };
        }
        match doubt {
            Doubt::None | Doubt::Settling => doubt,
            // Another process may have declared it that expects tokens to last less long.
            Doubt::Lasting { issued_until, .. } => doubt.joined(self.doubt_until(issued_until)),
        }
    }

    /// What is in doubt in any shard and not over, as far as this process has read.
    pub(crate) fn widest_doubt(&self, now: Timestamp) -> Doubt {
        let known = self.shards.iter().filter_map(ArcSwapOption::load_full);
        let doubts = known.map(|known| self.doubt(&known));
        let lasts = |doubt: &Doubt| match doubt {
            Doubt::Lasting { ends_at, .. } => *ends_at > now,
            _ => true,
        };
        doubts.filter(lasts).fold(Doubt::None, Doubt::joined)
    }

    /// How far the shards are that settle: since when the first does, and how many writers all of
    /// them wait for.
    pub(crate) fn settling(&self) -> Option<SettlingState> {
        let known = self.shards.iter().filter_map(ArcSwapOption::load_full);
        known.filter_map(|known| known.epoch.settling).reduce(|one, other| SettlingState {
            since: one.since.min(other.since),
            awaited: one.awaited.saturating_add(other.awaited),
        })
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
    /// and with what is known now. `from` is where it was read.
    ///
    /// # Errors
    /// [`StoreErrorKind::Settling`] if it is not known which tokens are in doubt.
    pub(crate) fn observe_value(
        &self,
        from: ReadFrom,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        value: Option<&[u8]>,
    ) -> Result<Doubt, StoreError> {
        self.observe(from, shard, before, value.map(parse).transpose()?)
    }

    /// The same, if the value was parsed before.
    pub(crate) fn observe(
        &self,
        from: ReadFrom,
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
        // What this server has is as old as when it was another one's replica.
        let is_behind = before.is_some_and(|known| known.is_ancestor(&epoch));
        // Where the server does not tell who it is, what it says of itself has to do.
        let is_elsewhere = epoch.server != from.server && from.server != 0;
        if is_elsewhere || is_behind {
            self.maintenance_due.notify_one();
            return Ok(Doubt::Settling);
        }
        if before.is_some_and(|known| {
            known.epoch.id == epoch.id && (known.lost || known.epoch.seq > epoch.seq)
        }) {
            self.maintenance_due.notify_one();
            return Err(unsettled(
                "redis knows of fewer revocations than before: an older state was restored",
            ));
        }
        self.record(from.source, shard, before, epoch, None)
    }

    /// Takes in the epoch that the script has replied with, after it was told what was known.
    pub(crate) fn observe_script_reply(
        &self,
        shard: u16,
        before: Option<&Arc<KnownEpoch>>,
        epoch: Epoch,
    ) -> Result<Doubt, StoreError> {
        let reported = ReportedEpoch(before.and_then(|before| before.former));
        self.record(EpochSource::Writes, shard, before, epoch, Some(reported))
    }

    /// Takes in an epoch. `reported` is set if it is the reply of the script.
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
        reported: Option<ReportedEpoch>,
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
        if known.former.is_some() || known.lost || known.epoch.settling.is_some() {
            self.maintenance_due.notify_one();
        }
        let doubt_before = was.as_ref().map_or(Doubt::None, |was| was.epoch.doubt);
        if known.epoch.doubt != doubt_before {
            self.doubt_changed.notify_one();
        }
        if let Some(was) = was {
            report_change(shard, &was.epoch, &known.epoch);
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
        if known.epoch.doubt_ended_at.is_some() && epoch.doubt_ended_at.is_none()
            || known.epoch.settling.is_none() && epoch.settling.is_some()
        {
            // The records beside it may have been read before everything was written again.
            return Ok(Doubt::Settling);
        }
        Ok(self.doubt(&known))
    }

    /// The server that was probed at this time had all that was known of this shard.
    pub(crate) fn note_kept(&self, shard: u16, probed_at: Instant) {
        let Some(slot) = self.shards.get(usize::from(shard)) else { return };
        slot.rcu(|now| {
            let now = now.as_ref()?;
            let mut next = **now;
            next.ages.kept_at(probed_at);
            Some(if next == **now { Arc::clone(now) } else { Arc::new(next) })
        });
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
    reported: Option<ReportedEpoch>,
) -> KnownEpoch {
    let Some(now) = now else { return KnownEpoch::first(source, epoch) };
    if now.epoch.id == epoch.id {
        let mut next = *now;
        // One number for two changes: two servers have gone on from one state.
        next.lost |= epoch.seq == now.epoch.seq && epoch.last_entry != now.epoch.last_entry;
        next.merge(epoch);
        next.ages.update(next.epoch.seq);
        let knew_this = before.is_some_and(|before| before.id == epoch.id);
        if reported.is_some() && knew_this && next.epoch.settling.is_none() {
            // The script was told of it.
            next.parent_known = 0;
        }
        next.note_entry(source, epoch.last_entry);
        if reported
            .is_some_and(|ReportedEpoch(reported)| reported.is_some() && reported == now.former)
        {
            next.former = None;
        }
        if before.is_some_and(|before| before.id == epoch.id && epoch.has_lost_doubt_of(&before)) {
            // The doubt was declared and is gone again: it has to be declared anew.
            next.former = Some(UNKNOWABLE_EPOCH);
        }
        return next;
    }
    let knew_this = before.is_some_and(|before| before.id == now.epoch.id);
    // A server that was told of the known epoch, and knows only what that one has carried on, has
    // come back after all. Without that it is behind. While the known one settles, the script is
    // told of what it carries on (`for_script`).
    let was_told = knew_this && reported.is_some() && now.epoch.settling.is_none();
    if now.is_ancestor(&epoch) && !was_told {
        return *now;
    }
    // The question may have been sent before the known epoch was heard of. Then the later of the
    // two is believed.
    if knew_this || epoch.started_at > now.epoch.started_at {
        return now.replaced_by(source, epoch);
    }
    // The known one stays, but it is not the only one any more.
    let other = KnownEpoch::first(source, epoch).replaced_by(source, now.epoch);
    let former = match (now.former, other.former) {
        (Some(known), Some(heard)) if known.id == heard.id => {
            let went_on = known.went_on || heard.went_on;
            Some(FormerEpoch { seq: known.seq.max(heard.seq), went_on, ..known })
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

/// Says in the log that the server behind a shard has changed, and what became of it.
fn report_change(shard: u16, was: &Epoch, now: &Epoch) {
    if was.id != now.id && now.parent != 0 {
        tracing::warn!(
            shard,
            awaited = now.settling.map(|settling| settling.awaited),
            "the data is at another server than before; what it does not have is put back"
        );
    } else if was.settling.is_some() && now.settling.is_none() {
        tracing::info!(shard, "everything is put back that those who wrote it still had");
    }
    let issued_until = now.doubt.issued_until();
    if issued_until > was.doubt.issued_until() {
        let issued_until = issued_until.unwrap_or_default();
        tracing::warn!(
            shard,
            %issued_until,
            "redis has lost revocations; tokens issued until then are in doubt, until they are \
             over or an operator accepts the loss: see `jwt-revocation doubt`"
        );
    } else if was.doubt != Doubt::None && now.doubt == Doubt::None {
        tracing::info!(shard, "the doubt has ended: no token is in doubt any more");
    }
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
