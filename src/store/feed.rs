//! How a store is mirrored: [`Feed`], and [`FeedSource`] for the store that has feeds.
//!
//! A feed is one shard of a store as a [`Mirror`](crate::Mirror) reads it: a log of numbered
//! changes, a snapshot, and a heartbeat that says how many changes there are. A feed only reports
//! what the store says. The mirror decides what is fresh, what is missing, and what to do about it.
//!
//! # To mirror a store of your own
//! 1. Number the changes of each shard: 1, 2, 3 … within an *epoch*, a number that changes when the
//!    shard has lost data.
//! 2. Keep a log of the latest changes, and a list of the mirrors, each with the end of its lease.
//! 3. Implement [`Feed`] for one shard and [`FeedSource`] for the store, and answer
//!    [`followers`](super::RevocationStore::followers) from the list of mirrors.
//! 4. Run the conformance suite `testing::Suite::of_feed` (feature `test-util`): it has a case for
//!    each rule on this page.
//!
//! The feed of [`MemoryStore`](crate::MemoryStore) is the smallest implementation.
//! `examples/custom/src/feed.rs` is a feed over a table in `SQLite`, to be copied.
//!
//! # What a mirror relies on
//! A mirror answers *live* from memory when a heartbeat proves that nothing is missing. So a feed
//! that hides a change, repeats a number, or answers a heartbeat from an old state makes the mirror
//! accept a revoked token. Some mistakes the mirror notices (a gap, a number that goes back, an
//! answer of the wrong length): it takes a new snapshot or reconnects. The conformance suite finds
//! the others.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::{Fact, Fingerprint};
use crate::store::{Doubt, RevocationStore, StoreError};

/// The state of a shard at one moment; the answer to [`Feed::heartbeat`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Heartbeat {
    /// The epoch of the shard, which changes when data is lost. Never zero.
    pub epoch: u64,
    /// How many changes were written in this epoch, which is also the number of the latest.
    pub seq: u64,
    /// The clock of the store.
    pub time: Timestamp,
    /// Which tokens may have been revoked without the store knowing it.
    pub doubt: Doubt,
    /// `Ok` if the store has noted the progress of the mirror and granted its lease, else the
    /// reason. Without a lease no process waits for this mirror, so the heartbeat proves nothing
    /// and checks go to the store. Also `Ok` if the mirror is in no epoch yet and asks for no
    /// lease.
    pub lease: Result<(), StoreError>,
    /// The epoch that this one continues, if the data has only moved to another server; `None` if
    /// it is the first, or has begun after a loss. A mirror that has followed that epoch goes on
    /// where the logs of both part, without a snapshot; see [`carrying_on`](Self::carrying_on).
    pub carries_on: Option<u64>,
}

impl Heartbeat {
    /// A state, with a lease that was granted.
    pub fn new(epoch: u64, seq: u64, time: Timestamp, doubt: Doubt) -> Self {
        Self { epoch, seq, time, doubt, lease: Ok(()), carries_on: None }
    }

    /// The same state, in an epoch that continues `parent` at another server. That server has the
    /// beginning of the log of the former one, and all changes in it. Its own changes continue the
    /// numbers; the first of them belongs to no target. Nothing more is written in the former
    /// epoch: its entries with the same place are the same at each server.
    #[must_use]
    pub fn carrying_on(mut self, parent: u64) -> Self {
        self.carries_on = Some(parent);
        self
    }

    /// The same state; the store did not note the progress of the mirror, for this reason.
    #[must_use]
    pub fn without_lease(mut self, reason: StoreError) -> Self {
        self.lease = Err(reason);
        self
    }
}

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "feeds make it, and none of it can be left out")]
pub struct LogEntry {
    /// Its place in the log: greater than that of the entry before. Each log chooses its own
    /// places, such as a counter, or the two numbers of an id of a Redis stream.
    pub id: u128,
    /// The epoch in which the change was written.
    pub epoch: u64,
    /// The number of the change in that epoch: one more than that of the entry before.
    pub seq: u64,
    /// The target that was changed.
    pub fingerprint: Fingerprint,
    /// All that is known of the target after the change. A change that belongs to no target, such
    /// as the end of a doubt, has the default.
    pub fact: Fact,
}

/// A part of a snapshot; the answer to [`Feed::snapshot`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "feeds make it, and none of it can be left out")]
pub struct SnapshotPage {
    /// Facts, in any order. A target may occur twice. If all tokens of a target are revoked and it
    /// was never reinstated or cut off, [`Fact::revoked_until`] is enough.
    pub facts: Vec<(Fingerprint, Fact)>,
    /// Where the next page begins; `None` after the last page.
    pub next: Option<u64>,
}

/// A request to end the doubt that a loss of data has left behind. Only the mirror makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndDoubt {
    /// The epoch whose data was lost.
    pub former_epoch: u64,
    /// The last change of the former epoch that the mirror has applied. Everything up to it that
    /// has not expired is in the store again, and the mirror knows of no later change.
    pub seq: u64,
    /// The present epoch.
    pub epoch: u64,
    /// Which doubt to end: the one about tokens issued until then.
    pub issued_until: Timestamp,
}

/// How far a mirror is, for those who wait for it. Only the mirror makes it, except that [of a
/// reader](Progress::of_reader).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The name of the mirror, for people. Need not be unique.
    pub name: Arc<str>,
    /// The epoch in which the mirror is; zero if in none.
    pub epoch: u64,
    /// The last change of that epoch that it has applied.
    pub seq: u64,
    /// For how long others have to wait for the mirror, if no other heartbeat comes.
    pub lease: Duration,
}

impl Progress {
    /// The progress of a reader that is no mirror and answers no checks from memory. It is in no
    /// epoch, so the store does not note it and no process waits for it.
    pub fn of_reader() -> Self {
        Self { name: "".into(), epoch: 0, seq: 0, lease: Duration::ZERO }
    }
}

/// A store that can be mirrored. `Mirror::new` and `Mirror::builder` take one.
pub trait FeedSource: RevocationStore {
    /// The feed of one shard.
    type Feed: Feed;

    /// One feed for each shard, in the order of [`Fence::shard`](super::Fence::shard): from 1 to
    /// 65 535. Each call makes feeds for another mirror, with leases of their own.
    ///
    /// # Errors
    /// [`ConfigError`] if the store is set up in a way that cannot be mirrored.
    fn feeds(&self) -> Result<Vec<Self::Feed>, ConfigError>;
}

impl<T: FeedSource + ?Sized> FeedSource for Arc<T> {
    type Feed = T::Feed;

    fn feeds(&self) -> Result<Vec<Self::Feed>, ConfigError> {
        (**self).feeds()
    }
}

/// One shard of a store, as a mirror reads it.
///
/// Each call ends by itself within a bound of a few seconds ([`read`](Self::read): beyond its
/// `wait`). After any error the mirror calls [`connect`](Self::connect) before it asks anything
/// else. Any call may be dropped half-way when the mirror ends; then only [`leave`](Self::leave)
/// follows.
pub trait Feed: Send + 'static {
    /// Makes a new connection, and forgets everything about an earlier one. The mirror calls it
    /// first, and after every error.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached.
    fn connect(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Notes the progress of the mirror, then reads the state of the shard.
    ///
    /// The first heartbeat of a feed is that of a mirror in no epoch.
    ///
    /// - The order is required. If [`Progress::epoch`] is not zero, the store first notes the
    ///   progress, in one place for all callers of
    ///   [`followers`](super::RevocationStore::followers). It reads the state after that. So a
    ///   write that is not in the state finds the mirror among the followers.
    /// - The store forgets the mirror when [`Progress::lease`] is over, not earlier.
    /// - If [`Progress::epoch`] is zero, nothing is noted.
    /// - The state holds every change that was confirmed before the call. So it comes from the
    ///   primary, never from a replica or a cache.
    /// - Within an epoch, [`Heartbeat::seq`] never decreases.
    /// - After a loss of data the epoch is another, and [`Heartbeat::doubt`] covers every token
    ///   whose revocation may be lost.
    /// - If the answer comes from another server than before, and that one has not begun its epoch
    ///   yet, the doubt is [`Doubt::Settling`]; then the number may be lower than before.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer, or none from the primary. A store that answers but
    /// does not take the lease says so in [`Heartbeat::lease`].
    fn heartbeat(
        &mut self,
        progress: Progress,
    ) -> impl Future<Output = Result<Heartbeat, StoreError>> + Send;

    /// The place of the last entry of the log; zero if there was never one. Every
    /// change that is written later has a greater place, also if older entries are trimmed away.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn tail(&mut self) -> impl Future<Output = Result<u128, StoreError>> + Send;

    /// About how many facts a snapshot has. The mirror allocates memory for so many; a wrong number
    /// costs time or memory, nothing else.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn count(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// A page of the snapshot. `cursor` is `None` for the first page and then
    /// [`SnapshotPage::next`] of the page before.
    ///
    /// A fact that is in the store from the first page to the last appears in some page. What is
    /// written meanwhile may appear or not. The pages come to an end.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn snapshot(
        &mut self,
        cursor: Option<u64>,
    ) -> impl Future<Output = Result<SnapshotPage, StoreError>> + Send;

    /// The facts of these targets with all their numbers: one answer for each, in the same order;
    /// `None` where the store has nothing.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> impl Future<Output = Result<Vec<Option<Fact>>, StoreError>> + Send;

    /// The first entries of the log after `after`, in order and without a gap, some at a time. If
    /// there are none, waits for one, up to `wait`, and then answers with none.
    ///
    /// Entries that were trimmed away are left out; the numbers show that they are missing.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn read(
        &mut self,
        after: u128,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<LogEntry>, StoreError>> + Send;

    /// Writes facts again that the store has lost, each merged with what the store knows
    /// ([`Fact::merge`]). A fact that changes something is a change like any other: it has a number
    /// and an entry in the log. A fact that the store knows, or knows better, changes nothing.
    ///
    /// The mirror knows only the fingerprint of a target. If the store does not know the target, it
    /// keeps the record of [`Target::nameless`](crate::Target::nameless) under this fingerprint.
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed. Repeating it is safe.
    fn replay(
        &mut self,
        facts: &[(Fingerprint, Fact)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the named doubt, if nothing is missing any more. Returns whether the shard is without a
    /// doubt now.
    ///
    /// The store refuses if any process has known of a later change of the former epoch than
    /// [`EndDoubt::seq`], if another epoch or doubt is meant, or if it cannot tell. If a process
    /// that knew of a later change comes afterwards, the store takes up the doubt again.
    ///
    /// Default: refuses. That is safe, but after a loss the doubt lasts until the last earlier
    /// token has expired, although all revocations were replayed.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn end_doubt(
        &mut self,
        request: EndDoubt,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let _ = request;
        ready(Ok(false))
    }

    /// Whether this target belongs to the shard of this feed. Exactly one feed of a store owns each
    /// target: the one of the shard which the [`Fence`](super::Fence) of its writes names.
    fn owns(&self, fingerprint: &Fingerprint) -> bool;

    /// Ends the lease, so that no process waits for this mirror any more. The feed is not used
    /// again. The mirror allows a quarter of a second for it; if it fails, the lease ends by
    /// itself.
    fn leave(&mut self) -> impl Future<Output = ()> + Send;
}
