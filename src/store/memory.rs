//! [`MemoryStore`]: the revocations of one process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use super::{
    Fence, Follower, ListQuery, Lookup, Receipt, RecordPage, RevocationStore, RevokedBy, Standing,
    StoreError, StoreErrorKind,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::revocation::{AcceptedTargets, Fact, Fingerprint, Record, Revocation, Target};
use crate::samples::{Metric, Samples};
use crate::target::FingerprintMap;
use crate::verified::VerifiedToken;

use super::memory_feed::MemoryLog;
use super::waiters::Waiters;

/// Default of [`MemoryStore::with_capacity`]: a few hundred megabytes when full of short ids.
pub(crate) const DEFAULT_CAPACITY: usize = 1_000_000;

/// A store in the memory of this process. Clones share the revocations.
///
/// For tests, demos, and programs that run alone: another process does not see them, and a restart
/// forgets them, so a revoked token works again after a restart until it expires.
///
/// It can be mirrored, `Mirror::new(MemoryStore::new())`, so that a program has the same parts in
/// development as with Redis.
///
/// At its capacity it refuses writes; it never drops a revocation that still counts.
#[derive(Clone)]
pub struct MemoryStore {
    records: Arc<RwLock<FingerprintMap<Record>>>,
    #[cfg(feature = "sessions")]
    pub(super) documents: Arc<Mutex<super::memory_session::Documents>>,
    pub(super) log: Arc<MemoryLog>,
    waiters: Arc<Waiters>,
    accepted: Arc<Mutex<Vec<AcceptedTargets>>>,
    pub(super) capacity: usize,
    pub(super) clock: Arc<dyn Clock>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store for up to 1 000 000 records.
    pub fn new() -> Self {
        Self {
            records: Arc::default(),
            #[cfg(feature = "sessions")]
            documents: Arc::default(),
            log: Arc::default(),
            waiters: Arc::default(),
            accepted: Arc::default(),
            capacity: DEFAULT_CAPACITY,
            clock: Arc::new(SystemClock),
        }
    }

    /// The number of records from which on it refuses further targets; default 1 000 000, so that
    /// memory is bounded. Documents of sessions are counted separately, with the same bound.
    #[must_use]
    pub fn with_capacity(mut self, capacity: NonZeroUsize) -> Self {
        self.capacity = capacity.get();
        self
    }

    /// The clock that dates the writes; default: that of the operating system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    // A panic while the lock is held cannot leave half a record, so a poisoned lock is as good as
    // any.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, FingerprintMap<Record>> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> RwLockWriteGuard<'_, FingerprintMap<Record>> {
        self.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_accepted(&self) -> MutexGuard<'_, Vec<AcceptedTargets>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn forget(&self, target: &Target) {
        self.lock().remove(&target.fingerprint());
    }

    /// Forgets everything, and says when.
    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn lose_data(&self) -> Timestamp {
        #[cfg(feature = "sessions")]
        self.lose_documents();
        self.lock_accepted().clear();
        let mut records = self.lock();
        records.clear();
        self.clock.now()
    }

    fn write_all(&self, changes: &[Revocation]) -> Result<Vec<Receipt>, StoreError> {
        let now = self.clock.now();
        let mut records = self.lock();
        // All or none: the new state is worked out aside, and moved in when it is known to fit.
        let mut pending: HashMap<Fingerprint, Record> = HashMap::new();
        let mut receipts = Vec::with_capacity(changes.len());
        for change in changes {
            let fingerprint = change.target.fingerprint();
            // What is over by the clock of the store must be over for the checks too, or it could
            // not be reinstated.
            if records.get(&fingerprint).is_some_and(|record| record.until() <= now) {
                records.remove(&fingerprint);
            }
            let before = pending.get(&fingerprint).or_else(|| records.get(&fingerprint));
            let (receipt, record) = Receipt::of(change, before, now);
            receipts.push(receipt);
            pending.extend(record.map(|record| (fingerprint, record)));
        }
        self.make_room(&mut records, &pending, now)?;
        let fence = self.log.append(&pending);
        for receipt in &mut receipts {
            receipt.fence = Some(fence);
        }
        self.put(records, pending);
        Ok(receipts)
    }

    /// Joins facts with the records, as a mirror knows them.
    pub(super) fn replay(&self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut records = self.lock();
        let mut pending: HashMap<Fingerprint, Record> = HashMap::new();
        for (fingerprint, fact) in facts.iter().filter(|(_, fact)| fact.until > now) {
            let before = pending.get(fingerprint).or_else(|| records.get(fingerprint));
            let before = before.filter(|record| record.until() > now);
            let mut record = match before {
                Some(record) => record.clone(),
                // Only its fingerprint is known.
                None => Record::new(Target::nameless(fingerprint), *fact, now)?,
            };
            if record.join(*fact) || before.is_none() {
                pending.insert(*fingerprint, record);
            }
        }
        self.make_room(&mut records, &pending, now)?;
        self.log.append(&pending);
        self.put(records, pending);
        Ok(())
    }

    fn put(
        &self,
        mut records: RwLockWriteGuard<'_, FingerprintMap<Record>>,
        pending: HashMap<Fingerprint, Record>,
    ) {
        let changed: Vec<_> = pending.keys().copied().collect();
        records.extend(pending);
        drop(records);
        self.waiters.wake(changed.iter());
    }

    /// Forgets what may be forgotten once the map would have to grow, so that the cost is spread
    /// over the writes.
    fn make_room(
        &self,
        records: &mut FingerprintMap<Record>,
        pending: &HashMap<Fingerprint, Record>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let added = pending.keys().filter(|fingerprint| !records.contains_key(fingerprint)).count();
        if added > 0 && records.len() + added > records.capacity().min(self.capacity) {
            records.retain(|_, record| record.until() > now);
        }
        if added > 0 && records.len() + added > self.capacity {
            return Err(StoreError::new(
                StoreErrorKind::Full,
                format!(
                    "the memory store holds {} live records, its capacity; nothing was written",
                    records.len()
                ),
            ));
        }
        Ok(())
    }

    fn page(&self, query: &ListQuery) -> Result<RecordPage, StoreError> {
        let after = query.cursor.as_deref().map(parse_cursor).transpose()?;
        let now = self.clock.now();
        let size = query.page_size();
        // The map has no order, so the page is found by keeping the smallest fingerprints after the
        // cursor.
        let mut page: BTreeMap<Fingerprint, Record> = BTreeMap::new();
        for (fingerprint, record) in self.read().iter() {
            let is_next = after.is_none_or(|after| *fingerprint > after);
            if !is_next || record.until() <= now || !record.is_in_effect() {
                continue;
            }
            if page.len() <= size {
                page.insert(*fingerprint, record.clone());
            } else if page.last_key_value().is_some_and(|(last, _)| fingerprint < last) {
                page.pop_last();
                page.insert(*fingerprint, record.clone());
            }
        }
        // One more than asked for was collected: it tells whether there is a next page.
        let next = (page.len() > size)
            .then(|| page.pop_last())
            .and_then(|_| page.last_key_value().map(|(last, _)| last.to_string().into_boxed_str()));
        Ok(RecordPage {
            records: page.into_values().filter(|record| query.admits(record)).collect(),
            next,
        })
    }
}

fn find_revoked(records: &FingerprintMap<Record>, token: &VerifiedToken) -> Option<RevokedBy> {
    token.targets().iter().find_map(|target| {
        records.get(target.fingerprint()).filter(|record| record.covers(token)).map(RevokedBy::from)
    })
}

fn parse_cursor(cursor: &str) -> Result<Fingerprint, StoreError> {
    let bytes = u128::from_str_radix(cursor, 16).ok().filter(|_| cursor.len() == 32);
    bytes.map(|bytes| Fingerprint::from_bytes(bytes.to_be_bytes())).ok_or_else(|| {
        StoreError::new(
            StoreErrorKind::InvalidInput,
            "the cursor was not given out by a memory store",
        )
    })
}

impl RevocationStore for MemoryStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        let hit = find_revoked(&self.read(), token);
        Lookup::Now(Ok(hit.map_or(Standing::Live, Standing::Revoked)))
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        let records = Arc::clone(&self.records);
        let find = move |token: &VerifiedToken| {
            find_revoked(&records.read().unwrap_or_else(PoisonError::into_inner), token)
        };
        Some(Arc::clone(&self.waiters).first(Arc::clone(token), find).boxed())
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        ready(self.write_all(&changes)).boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let now = self.clock.now();
        let record =
            self.read().get(&target.fingerprint()).filter(|record| record.until() > now).cloned();
        ready(Ok(record)).boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        ready(self.page(&query)).boxed()
    }

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        let mut records = self.lock();
        for target in targets {
            let fingerprint = target.fingerprint();
            if let Some(record) = records.get_mut(&fingerprint) {
                record.erase_names(&fingerprint);
            }
        }
        ready(Ok(())).boxed()
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        ready(self.log.followers(fence)).boxed()
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        let now = self.clock.now();
        let live = self
            .read()
            .values()
            .filter(|record| record.until() > now && record.is_in_effect())
            .count();
        ready(Ok(live as u64)).boxed()
    }

    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        let mut known = self.lock_accepted();
        for accepted in accepted {
            if !known.contains(accepted) {
                known.push(accepted.clone());
            }
        }
    }

    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        ready(Ok(self.lock_accepted().clone())).boxed()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        for purpose in ["checks", "writes"] {
            samples.add_flag(Metric::StoreUp, &[purpose], true);
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("records", &self.read().len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
