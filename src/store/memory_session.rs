//! The documents of a [`MemoryStore`].

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use super::memory::MemoryStore;
use super::session::{Commit, Committed, Seen, SessionStore, Snapshot};
use super::{StoreError, StoreErrorKind};
use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint, Record, Target};

/// Documents, and the members that are counted, each with its end.
#[derive(Debug, Default)]
pub(super) struct Documents {
    documents: HashMap<Fingerprint, (Bytes, Timestamp)>,
    members: HashMap<Box<str>, Timestamp>,
}

impl Documents {
    fn document(&self, key: &Target, now: Timestamp) -> Option<&Bytes> {
        self.documents
            .get(&key.fingerprint())
            .filter(|(_, until)| *until > now)
            .map(|(document, _)| document)
    }

    /// Makes sure that what a commit adds has its place, and forgets what is over once a map would
    /// have to grow, so that the cost is spread over the writes. What only changes what is there
    /// needs no place.
    fn make_room(
        &mut self,
        commit: &Commit,
        capacity: usize,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let is_known = self.documents.contains_key(&commit.key.fingerprint());
        let documents = usize::from(commit.after.is_some() && !is_known);
        let counted = commit.members.iter().filter(|(_, until)| until.is_some());
        let members = counted.filter(|(id, _)| !self.members.contains_key(id)).count();
        if documents > 0 && self.documents.len() >= self.documents.capacity().min(capacity) {
            self.documents.retain(|_, (_, until)| *until > now);
        }
        if members > 0 && self.members.len() + members > self.members.capacity().min(capacity) {
            self.members.retain(|_, until| *until > now);
        }
        let is_full = documents > 0 && self.documents.len() >= capacity;
        if is_full || (members > 0 && self.members.len() + members > capacity) {
            return Err(StoreError::new(
                StoreErrorKind::Full,
                format!(
                    "the memory store holds {capacity} documents of sessions, its capacity; \
                     nothing was written"
                ),
            )
            .unwritten(true));
        }
        Ok(())
    }
}

impl MemoryStore {
    // As with the records: a panic cannot leave half a document.
    fn documents(&self) -> MutexGuard<'_, Documents> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(any(test, feature = "test-util"))]
    pub(super) fn lose_documents(&self) {
        *self.documents() = Documents::default();
    }

    fn seen(&self, target: Target, now: Timestamp) -> Seen {
        let record =
            self.read().get(&target.fingerprint()).filter(|record| record.until() > now).cloned();
        let stamp = record.as_ref().map(stamp);
        Seen::new(target, record, stamp)
    }

    fn try_commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        // Both locks are held until the end, so that a revocation comes either before the commit or
        // after it.
        let mut documents = self.documents();
        let records = self.read();
        let now = self.clock.now();
        let current = documents.document(&commit.key, now);
        if current != commit.before.as_ref() {
            return Ok(if current == commit.after.as_ref() {
                Committed::Done
            } else {
                Committed::Conflict
            });
        }
        let changed = |guard: &Seen| {
            let record =
                records.get(&guard.target.fingerprint()).filter(|record| record.until() > now);
            record.map(stamp) != guard.stamp
        };
        if commit.guards.iter().any(changed) {
            return Ok(Committed::Conflict);
        }
        documents.make_room(&commit, self.capacity, now)?;
        let key = commit.key.fingerprint();
        match commit.after {
            Some(after) => drop(documents.documents.insert(key, (after, commit.until))),
            None => drop(documents.documents.remove(&key)),
        }
        for (member, until) in commit.members {
            match until {
                Some(until) => documents.members.insert(member, until),
                None => documents.members.remove(&member),
            };
        }
        Ok(Committed::Done)
    }
}

/// Changes whenever anything about a record does.
fn stamp(record: &Record) -> Bytes {
    let Fact { all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until, spared } =
        record.fact();
    [all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until]
        .iter()
        .flat_map(|time| time.as_millis().to_be_bytes())
        .chain(spared.to_string().into_bytes())
        .collect()
}

impl SessionStore for MemoryStore {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        let now = self.clock.now();
        // The records are read last: what they say is at least as new as the documents.
        let documents = {
            let known = self.documents();
            documents.iter().map(|key| known.document(key, now).cloned()).collect()
        };
        let records = records.into_iter().map(|target| self.seen(target, now)).collect();
        ready(Ok(Snapshot::new(now, documents, records))).boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        ready(self.try_commit(commit)).boxed()
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        let now = self.clock.now();
        let mut known = self.documents();
        known.members.retain(|_, until| *until > now);
        ready(Ok(known.members.len() as u64)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[tokio::test]
    async fn what_is_there_can_be_changed_also_when_nothing_more_fits() {
        let store = MemoryStore::new().with_capacity(NonZeroUsize::new(2).unwrap());
        let until = Timestamp::from_millis(u64::MAX);
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let commit = |name: &str, before, after| {
            let member = vec![(name.into(), Some(until))];
            store.commit(
                Commit::new(Target::session(name), before, after, until).with_members(member),
            )
        };
        for name in ["a", "b"] {
            assert_eq!(commit(name, None, text("1")).await.unwrap(), Committed::Done);
        }
        assert_eq!(commit("c", None, text("1")).await.unwrap_err().kind(), StoreErrorKind::Full);
        assert_eq!(commit("a", text("1"), text("2")).await.unwrap(), Committed::Done);
        assert_eq!(commit("b", text("1"), None).await.unwrap(), Committed::Done);
        assert_eq!(commit("b", None, text("2")).await.unwrap(), Committed::Done);
        assert_eq!(store.count_members().await.unwrap(), 2);
    }
}
