//! What sessions and families of refresh tokens need of a store besides revocations: documents.
//!
//! A document is a few hundred bytes that belong to one [`Target`]: the state of a family, the
//! sessions of a user. The store does not know what it says. It only promises to change it *from
//! what was read to what was decided*, in one step, and not if a revocation came in between.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Doubt, RevocationStore, StoreError};
use crate::clock::Timestamp;
use crate::revocation::{Record, Target};

/// A [`RevocationStore`] that also keeps the documents of sessions and families.
///
/// Implemented by [`MemoryStore`](crate::MemoryStore) and, with feature `redis`, by `RedisStore`.
///
/// # Writing one
///
/// Besides the [records](super#writing-a-store), keep one document for each target, under its
/// fingerprint, with the time when it may be forgotten. Also keep a set of members, each with its
/// end.
///
/// 1. [`load`](Self::load) reads documents and records, in the order of the arguments, and says
///    when, by the clock of the store. Each record gets a stamp: bytes that change with it, such as
///    its [`fact`](Record::fact). What is over counts as absent.
/// 2. [`commit`](Self::commit) is one transaction: if the document is not
///    [`before`](Commit::before), it is a [conflict](Committed::Conflict), or
///    [done](Committed::Done) if it is [`after`](Commit::after) already, because then the commit is
///    a repetition. If the record of a [guard](Commit::guards) has another stamp than it had, it is
///    a conflict. Else write the document and the [members](Commit::members). Finish it even if its
///    future is dropped.
/// 3. [`count_members`](Self::count_members) counts the members that have not ended.
///
/// Each rule is a case of the suite `testing::Suite::of_session_store` (feature `test-util`);
/// `examples/custom/src/store.rs` is an implementation in `SQLite`.
#[diagnostic::on_unimplemented(
    note = "sessions are kept in the store that others wrap: give the `RedisStore` that a `Mirror` \
        was made of"
)]
pub trait SessionStore: RevocationStore {
    /// Reads documents, and the revocation records of targets, in one round trip.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>>;

    /// Changes one document, if it is still what was read and no guard has changed. This is one
    /// step if they share a shard. Guards of other shards are read again after the write; if one
    /// has changed, the answer is [`Committed::Overtaken`].
    ///
    /// Repeating a commit that was done is answered with [`Committed::Done`].
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed. It may have been done nevertheless; repeating
    /// it is safe.
    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>>;

    /// How many members commits have added that have not ended, see [`Commit::members`].
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>>;
}

impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        (**self).load(documents, records)
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        (**self).commit(commit)
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        (**self).count_members()
    }
}

/// What [`SessionStore::load`] read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The time by the clock of the store; if several servers were asked, the earliest.
    pub now: Timestamp,
    /// Which revocations and documents may have been lost: those that existed at its
    /// `issued_until`. While the store is [settling](Doubt::Settling), what was read decides
    /// nothing: [`Sessions`](crate::session::Sessions) and [`Families`](crate::session::Families)
    /// answer with an error that may be repeated.
    pub doubt: Doubt,
    /// The documents, in the order of the arguments.
    pub documents: Vec<Option<Bytes>>,
    /// The records, in the order of the arguments.
    pub records: Vec<Seen>,
    /// When another server has carried on what was read, by its clock.
    pub(crate) moved_at: Option<Timestamp>,
}

impl Snapshot {
    /// A snapshot of a store that has lost nothing.
    pub fn new(now: Timestamp, documents: Vec<Option<Bytes>>, records: Vec<Seen>) -> Self {
        Self { now, doubt: Doubt::None, documents, records, moved_at: None }
    }

    /// The snapshot, if anything can be decided by it: what a store that settles does not have may
    /// still be put back.
    pub(crate) fn settled(self) -> Result<Self, StoreError> {
        if self.doubt == Doubt::Settling { Err(self.doubt.error()) } else { Ok(self) }
    }
}

/// A revocation record as it was seen, so that a change can be noticed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// Whose record it is.
    pub target: Target,
    /// The record, if there is one.
    pub record: Option<Record>,
    /// Changes with the record; opaque to all but the store.
    pub stamp: Option<Bytes>,
}

impl Seen {
    /// A record with a stamp of the store's choice.
    pub fn new(target: Target, record: Option<Record>, stamp: Option<Bytes>) -> Self {
        Self { target, record, stamp }
    }
}

/// A change of one document.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// Whose document it is.
    pub key: Target,
    /// What the document was when it was read; `None` if there was none.
    pub before: Option<Bytes>,
    /// What it becomes; `None` removes it.
    pub after: Option<Bytes>,
    /// When the document may be forgotten.
    pub until: Timestamp,
    /// Records that must still be as they were seen.
    pub guards: Vec<Seen>,
    /// What [`SessionStore::count_members`] counts: an id and when it ends, or `None` to remove it.
    pub members: Vec<(Box<str>, Option<Timestamp>)>,
}

impl Commit {
    /// A change without guards or members.
    pub fn new(key: Target, before: Option<Bytes>, after: Option<Bytes>, until: Timestamp) -> Self {
        Self { key, before, after, until, guards: Vec::new(), members: Vec::new() }
    }

    /// The same change, only if these records have not changed.
    #[must_use]
    pub fn with_guards(mut self, guards: Vec<Seen>) -> Self {
        self.guards = guards;
        self
    }

    /// The same change, which also adds or removes these members.
    #[must_use]
    pub fn with_members(mut self, members: Vec<(Box<str>, Option<Timestamp>)>) -> Self {
        self.members = members;
        self
    }
}

/// What became of a [`Commit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Committed {
    /// It was done.
    Done,
    /// The document or a guard had changed; nothing was written. Read again, decide again.
    Conflict,
    /// It was done, but a guard on another shard had changed meanwhile. What was granted must not
    /// be handed out.
    Overtaken,
}
