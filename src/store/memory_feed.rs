//! The log of a [`MemoryStore`], and [`MemoryFeed`]: a mirror of it, for development and tests.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::memory::MemoryStore;
use super::{Doubt, Fence, Follower, StoreError, StoreErrorKind};
use crate::config::ConfigError;
use crate::revocation::{Fact, Fingerprint, Record};
use crate::store::feed::{EndDoubt, Feed, FeedSource, Heartbeat, LogEntry, Progress, SnapshotPage};

/// Entries that are kept. A mirror that is further behind takes a new snapshot.
const LOG_LENGTH: usize = 16_384;
/// Facts on one page of a snapshot.
const PAGE: usize = 2000;
/// Entries that are read at once.
const ENTRIES: usize = 1000;

/// The changes of a memory store, numbered, and the mirrors that follow them.
///
/// It is changed under the lock of the records only, so what has a number is in the records before
/// anybody else can read them.
pub(super) struct MemoryLog {
    /// Differs from store to store, so that a fence of another one is noticed.
    epoch: u64,
    state: Mutex<LogState>,
    /// The number of the latest change.
    written: watch::Sender<u64>,
}

#[derive(Default)]
struct LogState {
    /// The number of the latest change.
    seq: u64,
    /// Whether there was ever a feed. Without one no entries are kept.
    is_followed: bool,
    entries: VecDeque<LogEntry>,
    leases: HashMap<u64, MirrorLease>,
    /// How many feeds were made.
    feeds: u64,
}

/// A mirror that is waited for.
struct MirrorLease {
    name: Arc<str>,
    epoch: u64,
    seq: u64,
    ends_at: Instant,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self {
            epoch: RandomState::new().hash_one(0) | 1,
            state: Mutex::default(),
            written: watch::Sender::new(0),
        }
    }
}

impl MemoryLog {
    // No step leaves half a change, so a poisoned lock is as good as any.
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers these changes. The caller holds the records locked and puts them in before it lets
    /// go. The fence is that of the last change, whether one of these or an earlier one.
    pub(super) fn append(&self, changes: &HashMap<Fingerprint, Record>) -> Fence {
        let mut state = self.state();
        for (fingerprint, record) in changes {
            state.seq += 1;
            if state.is_followed {
                let (id, seq) = (u128::from(state.seq), state.seq);
                let (fingerprint, fact) = (*fingerprint, record.fact());
                if state.entries.len() >= LOG_LENGTH {
                    state.entries.pop_front();
                }
                state.entries.push_back(LogEntry { id, epoch: self.epoch, seq, fingerprint, fact });
            }
        }
        let seq = state.seq;
        drop(state);
        self.written.send_replace(seq);
        Fence { shard: 0, epoch: self.epoch, seq }
    }

    pub(super) fn followers(&self, fence: Fence) -> Result<Vec<Follower>, StoreError> {
        let mut state = self.state();
        if fence.shard != 0 || fence.epoch != self.epoch || fence.seq > state.seq {
            return Err(StoreError::new(
                StoreErrorKind::DataLoss,
                "the fence was not given out by this memory store, which may have been made anew",
            ));
        }
        let now = Instant::now();
        state.leases.retain(|_, lease| lease.ends_at > now);
        let follower = |lease: &MirrorLease| {
            let has_applied = lease.epoch == self.epoch && lease.seq >= fence.seq;
            Follower::new(Arc::clone(&lease.name), has_applied)
        };
        Ok(state.leases.values().map(follower).collect())
    }

    fn entries_after(&self, after: u128) -> Vec<LogEntry> {
        let state = self.state();
        let first = state.entries.partition_point(|entry| entry.id <= after);
        state.entries.range(first..).take(ENTRIES).copied().collect()
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryLog")
            .field("epoch", &self.epoch)
            .field("seq", &state.seq)
            .field("mirrors", &state.leases.len())
            .finish_non_exhaustive()
    }
}

/// The only shard of a [`MemoryStore`], for a [`Mirror`](crate::Mirror): for development and tests
/// of programs that have a mirror in production.
///
/// A mirror in front of memory makes nothing faster. From the first feed on, the store keeps the
/// latest 16 384 changes. Data is never lost, so no token is ever in doubt.
#[expect(
    unnameable_types,
    reason = "whoever needs its name has `<MemoryStore as FeedSource>::Feed`"
)]
pub struct MemoryFeed {
    store: MemoryStore,
    mirror: u64,
    /// The snapshot that is being read.
    snapshot: Vec<(Fingerprint, Fact)>,
}

impl FeedSource for MemoryStore {
    type Feed = MemoryFeed;

    /// Never fails.
    fn feeds(&self) -> Result<Vec<MemoryFeed>, ConfigError> {
        let mut state = self.log.state();
        state.is_followed = true;
        state.feeds += 1;
        let mirror = state.feeds;
        drop(state);
        Ok(vec![MemoryFeed { store: self.clone(), mirror, snapshot: Vec::new() }])
    }
}

impl Feed for MemoryFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.snapshot = Vec::new();
        Ok(())
    }

    async fn heartbeat(&mut self, progress: Progress) -> Result<Heartbeat, StoreError> {
        let log = &self.store.log;
        let mut state = log.state();
        if progress.epoch != 0 {
            let Progress { name, epoch, seq, lease } = progress;
            let ends_at = Instant::now() + lease;
            state.leases.insert(self.mirror, MirrorLease { name, epoch, seq, ends_at });
        }
        let seq = state.seq;
        drop(state);
        Ok(Heartbeat::new(log.epoch, seq, self.store.clock.now(), Doubt::None))
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
        Ok(u128::from(self.store.log.state().seq))
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        Ok(self.store.read().len() as u64)
    }

    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        if cursor.is_none() {
            let records = self.store.read();
            self.snapshot =
                records.iter().map(|(fingerprint, record)| (*fingerprint, record.fact())).collect();
        }
        let first = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX);
        let facts: Vec<_> = self.snapshot.iter().skip(first).take(PAGE).copied().collect();
        let end = first.saturating_add(facts.len());
        let next = (!facts.is_empty() && end < self.snapshot.len()).then_some(end as u64);
        if next.is_none() {
            self.snapshot = Vec::new();
        }
        Ok(SnapshotPage { facts, next })
    }

    async fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> Result<Vec<Option<Fact>>, StoreError> {
        let records = self.store.read();
        let fact = |fingerprint| records.get(fingerprint).map(Record::fact);
        Ok(fingerprints.iter().map(fact).collect())
    }

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let mut written = self.store.log.written.subscribe();
        let deadline = Instant::now() + wait;
        loop {
            // Marked as seen before the entries are, so that no change falls between the two.
            written.borrow_and_update();
            let entries = self.store.log.entries_after(after);
            if !entries.is_empty() || timeout_at(deadline, written.changed()).await.is_err() {
                return Ok(entries);
            }
        }
    }

    async fn replay(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        self.store.replay(facts)
    }

    async fn end_doubt(&mut self, _: EndDoubt) -> Result<bool, StoreError> {
        // There is none.
        Ok(true)
    }

    fn owns(&self, _: &Fingerprint) -> bool {
        true
    }

    async fn leave(&mut self) {
        self.store.log.state().leases.remove(&self.mirror);
    }
}

impl fmt::Debug for MemoryFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFeed").field("mirror", &self.mirror).finish_non_exhaustive()
    }
}
