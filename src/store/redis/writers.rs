//! [`WriterLogs`]: what this process has confirmed, so that a server that does not have it gets it
//! again. Pure, but for the time.
//!
//! Each process is a *writer* of each shard, with an id, and each of its writes has a number, which
//! the script that writes counts in the same step. So a server says how far it has this writer, and
//! after a failover exactly the rest is replayed.
//!
//! | state | what may be written | left by |
//! | --- | --- | --- |
//! | new | anything: the server decides | the first write that is confirmed |
//! | through at a server | anything, at that server | another server, or another epoch at the same one |
//! | recovering at a server | replays only | the server has taken all replays |
//!
//! A reply of one server that is read after the log went to another one confirms nothing: the
//! replay may have been over before the write was in the log. Then the write is sent again.
//!
//! The log is bounded by [`KEPT`] and [`MAX_BYTES`]. Time counts as far as the server was seen in
//! it: a process that was suspended does not drop what its server may have lost meanwhile. If a
//! server turns out not to have what was dropped, this process says so, and a lasting doubt is
//! declared.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "sessions")]
use bytes::Bytes;
use tokio::time::Instant;

use super::random;
use super::script::{ConfirmedChange, WriterAction, WriterContext};
#[cfg(any(feature = "sessions", test))]
use crate::clock::Timestamp;
use crate::revocation::Fingerprint;
use crate::samples::{Metric, Samples};
use crate::store::{StoreError, StoreErrorKind};

/// How long a confirmed write is kept while its server is seen in use. A replica that is further
/// behind has lost its connection to the primary.
const KEPT: Duration = Duration::from_secs(60);
/// How long it is remembered that a writer has signed off: as long as a server remembers writers
/// that another one had (`WRITER_FORGOTTEN` in the script), and a minute more.
const FORMER_KEPT: Duration = Duration::from_secs(360);
/// How much is kept of each shard.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One log for each shard.
#[derive(Debug)]
pub(crate) struct WriterLogs(Box<[Mutex<WriterLog>]>);

/// What this process has written to one shard.
#[derive(Debug)]
struct WriterLog {
    id: u64,
    /// The highest number that was confirmed; zero if none was.
    number: u64,
    /// The highest number of what was dropped.
    dropped: u64,
    entries: VecDeque<ConfirmedWrite>,
    bytes: usize,
    /// How many entries were dropped because the log was full, since the process began.
    overflowed: u64,
    /// When the last write was sent. It may be there without being confirmed, and then this process
    /// is waited for.
    sent_at: Option<Instant>,
    /// When the server that has everything was last asked whether it still has.
    seen_at: Option<Instant>,
    state: LogState,
    /// The writers that this process was before, with their highest numbers, and when they signed
    /// off: the next server may not know of it.
    former: Vec<(u64, u64, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogState {
    New,
    /// All that was confirmed is at this server, in this epoch.
    Through {
        server: u64,
        epoch: u64,
    },
    /// It is being replayed to this server. It was last through in this epoch.
    Recovering {
        server: u64,
        epoch: u64,
        /// Whether the server knew of this writer before, and so has waited for it.
        is_known: bool,
    },
}

/// One confirmed write.
#[derive(Clone, Debug)]
struct ConfirmedWrite {
    number: u64,
    at: Instant,
    what: Confirmed,
}

/// What a write has confirmed.
#[derive(Clone, Debug)]
pub(crate) enum Confirmed {
    /// Changes of records.
    Changes(Vec<Arc<ConfirmedChange>>),
    /// A new version of a document.
    #[cfg(feature = "sessions")]
    Document(Arc<ConfirmedDocument>),
}

/// A version of a document.
#[cfg(feature = "sessions")]
#[derive(Debug)]
pub(crate) struct ConfirmedDocument {
    pub(crate) key: Bytes,
    pub(crate) version: u64,
    /// None, if it was deleted.
    pub(crate) text: Option<Bytes>,
    pub(crate) until: Timestamp,
    pub(crate) members: Vec<(Box<str>, Option<Timestamp>)>,
}

impl Confirmed {
    fn changes(&self) -> &[Arc<ConfirmedChange>] {
        match self {
            Self::Changes(changes) => changes,
            #[cfg(feature = "sessions")]
            Self::Document(_) => &[],
        }
    }

    fn changes_mut(&mut self) -> &mut [Arc<ConfirmedChange>] {
        match self {
            Self::Changes(changes) => changes,
            #[cfg(feature = "sessions")]
            Self::Document(_) => &mut [],
        }
    }

    fn size(&self) -> usize {
        let size: usize = match self {
            Self::Changes(changes) => changes.iter().map(|change| change.size()).sum(),
            #[cfg(feature = "sessions")]
            Self::Document(document) => {
                let members = document.members.iter().map(|(name, _)| name.len() + 32);
                document.key.len()
                    + document.text.as_ref().map_or(0, Bytes::len)
                    + members.sum::<usize>()
            }
        };
        size + size_of::<ConfirmedWrite>()
    }
}

/// A writer that is about to sign off.
#[derive(Debug)]
pub(crate) struct SigningOff {
    pub(crate) writer: WriterContext,
    /// The server that has all of it.
    pub(crate) server: u64,
    sent_at: Option<Instant>,
}

/// What a process finds at a server to which it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundServer {
    /// The tag of the server.
    pub(crate) server: u64,
    pub(crate) epoch: u64,
    /// The epoch that this one carries on; zero if it carries on none.
    pub(crate) parent: u64,
    /// How many writes of this writer it has; none if it has never heard of the writer.
    pub(crate) had: Option<u64>,
}

/// What has to be done so that a server has all that was confirmed.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) writer: WriterContext,
    found: FoundServer,
    /// The epoch in which everything was last there.
    epoch: u64,
    dropped: u64,
    entries: Vec<ConfirmedWrite>,
    /// Writers that this process was before. Nothing of them has to be put back.
    pub(crate) former: Vec<WriterContext>,
}

/// One run of a script that replays.
#[derive(Debug)]
pub(crate) struct ReplayRun {
    /// Its number is the highest of the writes that are in it, whole, like all before it: if the
    /// next run fails, the server says that it has these and no more.
    pub(crate) writer: WriterContext,
    pub(crate) what: Confirmed,
}

impl Recovery {
    /// What is said of a writer that this process was before, and of which the server still has so
    /// many writes.
    pub(crate) fn former_action(&self, had: u64, former: &WriterContext) -> WriterAction {
        if self.is_same_epoch() || had >= former.number {
            WriterAction::Through
        } else {
            WriterAction::ThroughWithGap
        }
    }

    /// In the same epoch nothing was lost: the server has only forgotten who wrote it.
    fn is_same_epoch(&self) -> bool {
        self.found.epoch == self.epoch
    }

    fn had(&self) -> u64 {
        if self.is_same_epoch() { u64::MAX } else { self.found.had.unwrap_or(0) }
    }

    fn missing(&self) -> impl Iterator<Item = &ConfirmedWrite> {
        let had = self.had();
        self.entries.iter().filter(move |write| write.number > had)
    }

    /// What this server does not have, in runs of `most` changes at most, by the number of writes
    /// that it says to have had; and whether some of that is not known any more.
    pub(crate) fn replays(&self, most: usize) -> (Vec<ReplayRun>, bool) {
        let mut replays: Vec<ReplayRun> = Vec::new();
        for write in self.missing() {
            let writer = WriterContext { number: write.number, ..self.writer };
            if let Confirmed::Changes(more) = &write.what
                && let Some(ReplayRun { writer: last, what: Confirmed::Changes(changes) }) =
                    replays.last_mut()
                && changes.len() + more.len() <= most
            {
                changes.extend(more.iter().cloned());
                *last = writer;
            } else {
                replays.push(ReplayRun { writer, what: write.what.clone() });
            }
        }
        (replays, self.dropped > self.had())
    }

    /// How many reinstatements are not put back, since nobody can tell whether a revocation was
    /// confirmed after them at another server.
    pub(crate) fn withheld(&self) -> usize {
        let changes = self.missing().flat_map(|write| write.what.changes());
        changes.filter(|change| change.is_withheld()).count()
    }
}

impl WriterLogs {
    pub(crate) fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| Mutex::new(WriterLog::new())).collect())
    }

    /// A panic elsewhere leaves no half of an entry.
    fn log(&self, shard: u16) -> Option<MutexGuard<'_, WriterLog>> {
        let log = self.0.get(usize::from(shard))?;
        Some(log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the script is told of a write to this server.
    ///
    /// # Errors
    /// [`StoreErrorKind::Settling`] if it has to get other writes first.
    pub(crate) fn writing(&self, shard: u16, server: u64) -> Result<WriterContext, StoreError> {
        let mut log = self.log(shard).ok_or_else(elsewhere)?;
        match log.state {
            LogState::New => {}
            LogState::Through { server: at, .. } if at == server => {}
            LogState::Through { .. } | LogState::Recovering { .. } => return Err(elsewhere()),
        }
        log.sent_at = Some(Instant::now());
        Ok(log.context(WriterAction::Write))
    }

    /// What the script is told if nothing is written.
    pub(crate) fn renewing(&self, shard: u16) -> WriterContext {
        self.log(shard).map_or(
            WriterContext { id: 0, action: WriterAction::Renew, number: 0, through: 0 },
            |log| log.context(WriterAction::Renew),
        )
    }

    /// Takes note of what a server has confirmed.
    ///
    /// # Errors
    /// [`StoreErrorKind::Settling`] if the log went to another server meanwhile: then this confirms
    /// nothing, and the write has to be sent again.
    pub(crate) fn confirm(
        &self,
        shard: u16,
        writer: &WriterContext,
        place: (u64, u64),
        number: u64,
        what: Confirmed,
    ) -> Result<(), StoreError> {
        let (server, epoch) = place;
        let mut log = self.log(shard).ok_or_else(elsewhere)?;
        if log.id != writer.id {
            return Err(elsewhere());
        }
        match log.state {
            LogState::New => log.state = LogState::Through { server, epoch },
            LogState::Through { server: at, .. } if at == server => {}
            LogState::Through { .. } | LogState::Recovering { .. } => return Err(elsewhere()),
        }
        log.number = log.number.max(number);
        log.bytes += what.size();
        let write = ConfirmedWrite { number, at: Instant::now(), what };
        log.entries.push_back(write);
        log.prune();
        Ok(())
    }

    /// Erases the words of what would be written again of these targets.
    pub(crate) fn erase_names(&self, shard: u16, fingerprints: &BTreeSet<Fingerprint>) {
        let Some(mut log) = self.log(shard) else { return };
        let before: usize = log.entries.iter().map(|write| write.what.size()).sum();
        for write in &mut log.entries {
            for change in write.what.changes_mut() {
                if fingerprints.contains(&change.fingerprint) {
                    *change = Arc::new(change.nameless());
                }
            }
        }
        let after: usize = log.entries.iter().map(|write| write.what.size()).sum();
        log.bytes = log.bytes.saturating_sub(before).saturating_add(after);
    }

    /// Whether this process is a writer that has to be waited for.
    pub(crate) fn is_active(&self, shard: u16) -> bool {
        self.log(shard).is_some_and(|log| log.sent_at.is_some())
    }

    /// Whether everything that was confirmed is at this server, in this epoch, as it has answered
    /// to what was asked at this time.
    pub(crate) fn is_through(
        &self,
        shard: u16,
        server: u64,
        epoch: u64,
        asked_at: Instant,
    ) -> bool {
        let Some(mut log) = self.log(shard) else { return true };
        let is_through = log.state == LogState::Through { server, epoch };
        if is_through {
            log.seen_at = log.seen_at.max(Some(asked_at));
        }
        is_through
    }

    /// From now on only this server confirms anything, once it has all that was confirmed.
    pub(crate) fn recover(&self, shard: u16, found: FoundServer) -> Option<Recovery> {
        let mut log = self.log(shard)?;
        let epoch = match log.state {
            LogState::New => 0,
            LogState::Through { epoch, .. } | LogState::Recovering { epoch, .. } => epoch,
        };
        let is_known = match log.state {
            // The same server has only forgotten it.
            _ if found.epoch == epoch => true,
            // This server, or the one before it, has heard of this writer by a replay that broke
            // off: it has not waited for it.
            LogState::Recovering { server, is_known, .. }
                if server == found.server || !is_known =>
            {
                is_known
            }
            _ => found.had.is_some(),
        };
        log.state = LogState::Recovering { server: found.server, epoch, is_known };
        // The server between did not wait for this writer either, and may have confirmed
        // revocations that are later than what was reinstated, but have earlier dates.
        if !is_known && found.parent != 0 && found.parent != epoch {
            log.withhold_reinstatements();
        }
        let mut entries: Vec<_> = log.entries.iter().cloned().collect();
        // Replies may have been read in another order.
        entries.sort_by_key(|write| write.number);
        let writer = log.context(WriterAction::Replay);
        log.former.retain(|(.., at)| at.elapsed() < FORMER_KEPT);
        let former = log.former.iter().map(|(id, number, _)| WriterContext {
            id: *id,
            action: WriterAction::Renew,
            number: *number,
            through: 0,
        });
        let former = former.collect();
        Some(Recovery { writer, found, epoch, dropped: log.dropped, entries, former })
    }

    /// The server has everything.
    pub(crate) fn recovered(&self, shard: u16, server: u64, epoch: u64) {
        if let Some(mut log) = self.log(shard)
            && let LogState::Recovering { server: at, is_known, .. } = log.state
            && at == server
        {
            log.state = LogState::Through { server, epoch };
            // That server has not waited for what it got here, and so may have refused to take it
            // as the latest.
            if !is_known {
                log.withhold_reinstatements();
            }
            // Its replicas need time, too.
            for write in &mut log.entries {
                write.at = Instant::now();
            }
        }
    }

    /// Drops what is old enough. If nothing is left, the writer need not be waited for any more,
    /// and may sign off.
    pub(crate) fn prune(&self, shard: u16) -> Option<SigningOff> {
        let mut log = self.log(shard)?;
        log.prune();
        let is_idle = log.sent_at.is_some_and(|at| log.is_old(at));
        if is_idle && log.entries.is_empty() { log.signing_off() } else { None }
    }

    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        let (mut writes, mut bytes, mut overflowed) = (0, 0, 0);
        for log in &self.0 {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            writes += log.entries.len() as u64;
            bytes += log.bytes as u64;
            overflowed += log.overflowed;
        }
        samples.add_count(Metric::ReplayLogWrites, &[], writes);
        samples.add_count(Metric::ReplayLogBytes, &[], bytes);
        samples.add_count(Metric::ReplayLogDropped, &[], overflowed);
    }

    /// The writer, if it has sent anything, and its server has all of it.
    pub(crate) fn signing_off(&self, shard: u16) -> Option<SigningOff> {
        self.log(shard)?.signing_off()
    }

    /// It has signed off, unless it has written meanwhile; says whether it has. Then the next write
    /// is that of another writer.
    pub(crate) fn signed_off(&self, shard: u16, signing_off: &SigningOff) -> bool {
        let Some(mut log) = self.log(shard) else { return true };
        let SigningOff { writer, server, sent_at } = signing_off;
        let is_there = matches!(log.state, LogState::Through { server: at, .. } if at == *server);
        if log.id != writer.id || log.sent_at != *sent_at || !is_there {
            return false;
        }
        let mut former = std::mem::take(&mut log.former);
        former.push((log.id, log.number, Instant::now()));
        *log =
            WriterLog { state: log.state, overflowed: log.overflowed, former, ..WriterLog::new() };
        true
    }
}

impl WriterLog {
    fn new() -> Self {
        Self {
            id: random::bits().max(1),
            number: 0,
            dropped: 0,
            entries: VecDeque::new(),
            bytes: 0,
            overflowed: 0,
            sent_at: None,
            seen_at: None,
            state: LogState::New,
            former: Vec::new(),
        }
    }

    fn signing_off(&self) -> Option<SigningOff> {
        let (LogState::Through { server, .. }, sent_at @ Some(_)) = (self.state, self.sent_at)
        else {
            return None;
        };
        Some(SigningOff { writer: self.context(WriterAction::SignOff), server, sent_at })
    }

    fn context(&self, action: WriterAction) -> WriterContext {
        let through = match self.state {
            LogState::Through { epoch, .. } => epoch,
            LogState::New | LogState::Recovering { .. } => 0,
        };
        WriterContext { id: self.id, action, number: self.number, through }
    }

    /// From now on what was reinstated is written again as what was revoked before: whether there
    /// was a later revocation elsewhere cannot be told by their dates, if the clocks of two servers
    /// are apart.
    fn withhold_reinstatements(&mut self) {
        for write in &mut self.entries {
            for change in write.what.changes_mut() {
                if let Some(revocation) = change.without_reinstatement() {
                    *change = Arc::new(revocation);
                }
            }
        }
    }

    /// Whether the server was in use for long enough since then.
    fn is_old(&self, at: Instant) -> bool {
        self.seen_at.is_some_and(|seen| seen.saturating_duration_since(at) > KEPT)
    }

    fn prune(&mut self) {
        while let Some(first) = self.entries.front()
            && (self.bytes > MAX_BYTES
                || matches!(self.state, LogState::Through { .. }) && self.is_old(first.at))
        {
            self.dropped = self.dropped.max(first.number);
            self.overflowed += u64::from(self.bytes > MAX_BYTES);
            self.bytes = self.bytes.saturating_sub(first.what.size());
            self.entries.pop_front();
        }
    }
}

fn elsewhere() -> StoreError {
    StoreError::new(
        StoreErrorKind::Settling,
        "another server than before has to get first what was written to the former one",
    )
}

#[cfg(test)]
mod tests {
    use super::super::script::ChangeReply;
    use super::*;
    use crate::revocation::{Action, Extent, Fact, Outcome, Revocation, Target};

    /// A write of one change.
    fn written(user: u64) -> Confirmed {
        let revoked = Fact { all_revoked_at: Timestamp::from_secs(1), ..Fact::default() };
        confirmed(user, Action::Revoke(Extent::All), revoked)
    }

    /// A write that has reinstated a target.
    fn reinstatement() -> Confirmed {
        let (all_revoked_at, reinstated_at) = (Timestamp::from_secs(1), Timestamp::from_secs(2));
        let fact = Fact { all_revoked_at, reinstated_at, ..Fact::default() };
        confirmed(1, Action::Reinstate, fact)
    }

    fn confirmed(user: u64, action: Action, fact: Fact) -> Confirmed {
        let user = Target::user(user.to_string());
        let change = Revocation { action, ..Revocation::new(user, Duration::from_secs(60)) };
        let reply = ChangeReply {
            outcome: Outcome::New,
            at: Timestamp::from_secs(1),
            cutoff: None,
            seq: 1,
            until: Timestamp::from_secs(60),
            fact,
            is_written: true,
        };
        Confirmed::Changes(
            ConfirmedChange::new(&change, &reply).map(Arc::new).into_iter().collect(),
        )
    }

    /// What is to be done at this server, in this epoch, which has so many writes.
    fn recover(logs: &WriterLogs, server: u64, epoch: u64, had: Option<u64>) -> Recovery {
        logs.recover(0, FoundServer { server, epoch, parent: epoch - 1, had }).unwrap()
    }

    /// The number of each run, how many changes it has, and whether there is a gap.
    fn runs(recovery: &Recovery, most: usize) -> (Vec<(u64, usize)>, bool) {
        let (replays, has_gap) = recovery.replays(most);
        let run = |replay: &ReplayRun| (replay.writer.number, replay.what.changes().len());
        (replays.iter().map(run).collect(), has_gap)
    }

    fn is_through(logs: &WriterLogs, server: u64, epoch: u64) -> bool {
        logs.is_through(0, server, epoch, Instant::now())
    }

    fn numbers(recovery: &Recovery) -> (Vec<u64>, bool) {
        let (runs, has_gap) = runs(recovery, 1);
        (runs.into_iter().map(|(number, _)| number).collect(), has_gap)
    }

    #[tokio::test]
    async fn a_replay_that_breaks_off_has_said_no_more_than_it_has_written() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        for number in 1..=5 {
            logs.confirm(0, &writer, (1, 7), number, written(number)).unwrap();
        }
        assert_eq!(runs(&recover(&logs, 2, 8, None), 2).0, [(2, 2), (4, 2), (5, 1)]);
        assert_eq!(runs(&recover(&logs, 2, 8, Some(2)), 128).0, [(5, 3)]);
        // A write is replayed whole, however large it is.
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        let Confirmed::Changes(change) = written(1) else { panic!("a change") };
        let large = Confirmed::Changes(vec![Arc::clone(&change[0]); 3]);
        logs.confirm(0, &writer, (1, 7), 1, large).unwrap();
        logs.confirm(0, &writer, (1, 7), 2, Confirmed::Changes(change)).unwrap();
        assert_eq!(runs(&recover(&logs, 2, 8, None), 2).0, [(1, 3), (2, 1)]);
    }

    #[cfg(feature = "sessions")]
    #[tokio::test]
    async fn documents_and_changes_are_replayed_in_the_order_in_which_they_were_confirmed() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        let document = ConfirmedDocument {
            key: "d".into(),
            version: 1,
            text: None,
            until: Timestamp::ZERO,
            members: Vec::new(),
        };
        let document = Confirmed::Document(Arc::new(document));
        for (number, what) in [(1, written(1)), (2, document), (3, written(3)), (4, written(4))] {
            logs.confirm(0, &writer, (1, 7), number, what).unwrap();
        }
        assert_eq!(runs(&recover(&logs, 2, 8, None), 128).0, [(1, 1), (2, 0), (4, 2)]);
    }

    #[tokio::test]
    async fn another_server_gets_what_it_does_not_have() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        for number in [2, 1, 3] {
            logs.confirm(0, &writer, (1, 7), number, written(number)).unwrap();
        }
        assert!(is_through(&logs, 1, 7) && !is_through(&logs, 2, 7));
        assert_eq!(numbers(&recover(&logs, 2, 8, Some(1))), (vec![2, 3], false));
        assert_eq!(numbers(&recover(&logs, 2, 8, None)), (vec![1, 2, 3], false));
        let recovery = recover(&logs, 2, 7, None);
        assert_eq!(numbers(&recovery), (vec![], false), "the same epoch");
        assert_eq!(recovery.writer.number, 3);
    }

    /// Whether a server gets the reinstatement that the first one has confirmed, in its epoch 7.
    fn puts_back(logs: &WriterLogs, found: FoundServer) -> bool {
        let recovery = logs.recover(0, found).unwrap();
        let (replays, _) = recovery.replays(128);
        let changes = replays.iter().flat_map(|replay| replay.what.changes());
        let withheld = changes.filter(|change| change.is_withheld()).count();
        assert_eq!(withheld, recovery.withheld());
        withheld == 0
    }

    #[tokio::test]
    async fn who_was_not_waited_for_puts_back_a_reinstatement_once_and_at_the_next_server_only() {
        let reinstated = || {
            let logs = WriterLogs::new(1);
            let writer = logs.writing(0, 1).unwrap();
            logs.confirm(0, &writer, (1, 7), 1, reinstatement()).unwrap();
            logs
        };
        let at = |server, epoch, parent, had| FoundServer { server, epoch, parent, had };
        // At the next server.
        let logs = reinstated();
        assert!(puts_back(&logs, at(2, 8, 7, None)));
        assert!(puts_back(&logs, at(2, 8, 7, Some(1))), "nothing is missing");
        assert!(puts_back(&logs, at(2, 8, 7, Some(0))), "it broke off");
        logs.recovered(0, 2, 8);
        assert!(!puts_back(&logs, at(3, 9, 8, None)), "a second time");
        // A server that waits for this writer gets it whenever it comes.
        let logs = reinstated();
        assert!(puts_back(&logs, at(2, 8, 7, Some(0))));
        logs.recovered(0, 2, 8);
        assert!(puts_back(&logs, at(4, 10, 9, Some(0))));
        // The server between has not waited for it.
        assert!(!puts_back(&reinstated(), at(3, 9, 8, None)));
        // It broke off at the server between, which has told the next one of this writer.
        let logs = reinstated();
        assert!(puts_back(&logs, at(2, 8, 7, None)));
        assert!(!puts_back(&logs, at(3, 9, 8, Some(0))));
        // The same server has forgotten who wrote it.
        let logs = reinstated();
        assert!(puts_back(&logs, at(2, 7, 6, None)));
        logs.recovered(0, 2, 7);
        assert!(puts_back(&logs, at(3, 8, 7, None)));
        // Nothing was carried on: every writer is unknown to a server that was emptied.
        assert!(puts_back(&reinstated(), at(3, 9, 0, None)));
    }

    #[tokio::test]
    async fn nothing_is_confirmed_by_a_server_that_the_log_has_left() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        logs.confirm(0, &writer, (1, 7), 1, written(1)).unwrap();
        assert!(logs.writing(0, 2).is_err(), "it has not got the first write yet");
        recover(&logs, 2, 8, Some(1));
        let late = logs.confirm(0, &writer, (1, 7), 2, written(2)).unwrap_err();
        assert_eq!(late.kind(), StoreErrorKind::Settling);
        assert!(logs.writing(0, 2).is_err() && logs.writing(0, 1).is_err());
        logs.recovered(0, 2, 8);
        assert!(logs.writing(0, 2).is_ok() && is_through(&logs, 2, 8));
        // A recovery that was overtaken by the next one changes nothing.
        recover(&logs, 3, 9, Some(1));
        logs.recovered(0, 2, 8);
        assert!(logs.writing(0, 2).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_dropped_and_missed_only_by_a_server_without_it() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        logs.confirm(0, &writer, (1, 7), 1, written(1)).unwrap();
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        assert!(is_through(&logs, 1, 7));
        logs.confirm(0, &writer, (1, 7), 2, written(2)).unwrap();
        assert!(logs.prune(0).is_none(), "one is left");
        assert_eq!(numbers(&recover(&logs, 2, 8, Some(1))), (vec![2], false));
        assert_eq!(numbers(&recover(&logs, 2, 8, Some(0))), (vec![2], true));
        // While it is replayed, nothing gets too old; and then it is as new as its replay.
        tokio::time::advance(KEPT * 2).await;
        assert!(logs.prune(0).is_none());
        logs.recovered(0, 2, 8);
        assert!(is_through(&logs, 2, 8));
        assert!(logs.prune(0).is_none());
        assert_eq!(numbers(&recover(&logs, 3, 9, Some(1))), (vec![2], false));
        logs.recovered(0, 3, 9);
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        assert!(is_through(&logs, 3, 9));
        let leaving = logs.prune(0).unwrap();
        assert_eq!((leaving.writer.id, leaving.writer.action), (writer.id, WriterAction::SignOff));
        assert_eq!(leaving.server, 3);
        assert_eq!(logs.writing(0, 3).unwrap().id, writer.id, "nobody has heard of it yet");
        assert!(!logs.signed_off(0, &leaving), "it has written meanwhile");
        tokio::time::advance(KEPT + Duration::from_secs(1)).await;
        assert!(is_through(&logs, 3, 9));
        assert!(logs.signed_off(0, &logs.prune(0).unwrap()));
        assert_ne!(logs.writing(0, 3).unwrap().id, writer.id);
        assert!(logs.confirm(0, &writer, (3, 9), 3, written(3)).is_err(), "an id that is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_not_heard_of_a_sign_off_hears_of_it_as_long_as_it_may_wait() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        logs.confirm(0, &writer, (1, 7), 3, written(1)).unwrap();
        let leaving = logs.signing_off(0).unwrap();
        assert_eq!((leaving.server, leaving.writer.action), (1, WriterAction::SignOff));
        assert!(logs.signed_off(0, &leaving) && logs.signing_off(0).is_none());
        let recovery = recover(&logs, 2, 8, None);
        assert!(!logs.signed_off(0, &leaving), "another writer, elsewhere");
        let [former] = recovery.former.as_slice() else { panic!("{recovery:?}") };
        assert_eq!((former.id, former.action), (writer.id, WriterAction::Renew));
        assert_eq!(recovery.former_action(3, former), WriterAction::Through);
        assert_eq!(recovery.former_action(2, former), WriterAction::ThroughWithGap);
        let same = recover(&logs, 2, 7, None);
        assert_eq!(same.former_action(2, former), WriterAction::Through, "the same epoch");
        tokio::time::advance(FORMER_KEPT).await;
        assert!(recover(&logs, 3, 9, None).former.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_suspended_has_dropped_nothing() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        logs.confirm(0, &writer, (1, 7), 1, written(1)).unwrap();
        let asked_at = Instant::now();
        tokio::time::advance(KEPT * 10).await;
        // An answer to what was asked before says nothing of the time since.
        assert!(logs.is_through(0, 1, 7, asked_at));
        logs.confirm(0, &writer, (1, 7), 2, written(2)).unwrap();
        assert!(logs.prune(0).is_none(), "it does not sign off either");
        assert_eq!(numbers(&recover(&logs, 2, 8, None)), (vec![1, 2], false));
    }

    #[tokio::test]
    async fn the_log_is_bounded() {
        let logs = WriterLogs::new(1);
        let writer = logs.writing(0, 1).unwrap();
        let each = written(1000).size();
        let most = MAX_BYTES / each;
        for number in 1..=most as u64 + 5 {
            logs.confirm(0, &writer, (1, 7), number, written(number)).unwrap();
        }
        assert!(logs.log(0).unwrap().bytes <= MAX_BYTES);
        assert!(logs.log(0).unwrap().entries.len() <= most);
        let has_gap = |had| numbers(&recover(&logs, 2, 8, Some(had))).1;
        assert!(has_gap(3), "what was dropped is missing there");
        assert!(!has_gap(most as u64));
    }
}
