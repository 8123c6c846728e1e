//! What a mirror hears, and from whom: [`Feed`].
//!
//! A feed is the log of one shard of a store, with a snapshot for those who come late. It says what
//! it was told and draws no conclusions: what is fresh, what is missing and what to do about it is
//! the business of the mirror.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};
use crate::store::StoreError;

/// The place of an entry in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "it is the id of an entry of a Redis stream")]
pub struct LogId {
    /// The first part.
    pub ms: u64,
    /// The second part.
    pub n: u64,
}

/// What a shard says of itself.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "feeds make it")]
pub struct Heartbeat {
    /// The life of the shard: another one after data was lost.
    pub epoch: u64,
    /// How many changes were written in this life.
    pub seq: u64,
    /// The clock of the store.
    pub time: Timestamp,
    /// Revocations of tokens that were issued until then may have been lost; zero if none were.
    pub horizon: Timestamp,
    /// When the last token from before the horizon is over.
    pub lifted: Timestamp,
    /// Why the store did not take the lease of the mirror, if so: then nobody would wait for it,
    /// and it proves nothing.
    pub uncounted: Option<StoreError>,
}

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "feeds make it")]
pub struct LogEntry {
    /// Where it stands.
    pub id: LogId,
    /// The life in which it was written.
    pub epoch: u64,
    /// Its number in that life: one more than that of the entry before.
    pub seq: u64,
    /// The target.
    pub fingerprint: Fingerprint,
    /// What is known of it since.
    pub fact: Fact,
}

/// A part of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "feeds make it")]
pub struct SnapshotPage {
    /// Facts; an entry may come twice.
    pub facts: Vec<(Fingerprint, Fact)>,
    /// Where to go on; `None` after the last page.
    pub next: Option<u64>,
}

/// Why the doubt about older tokens is over, which data that was lost had left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the mirror makes it")]
pub struct Lift {
    /// The life whose data was lost …
    pub former: u64,
    /// … up to this change of which all that is not over is in the store again. The mirror knows of
    /// no later one.
    pub seq: u64,
    /// The present life.
    pub epoch: u64,
    /// The horizon that is to be lifted.
    pub horizon: Timestamp,
}

/// What a mirror tells the feed, so that those who wait for it know how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the mirror makes it")]
pub struct Progress {
    /// By which name people know the mirror.
    pub name: Arc<str>,
    /// The life in which the mirror is; zero if in none.
    pub epoch: u64,
    /// The last change that it has applied.
    pub seq: u64,
    /// How long it is to be waited for after this, if nothing more is heard of it.
    pub lease: Duration,
}

/// The log of one shard, and the snapshot behind it.
///
/// All calls end by themselves within a bound. After any error the mirror calls
/// [`connect`](Self::connect) before it asks again. Calls may be dropped half-way when the mirror
/// ends.
pub trait Feed: Send + 'static {
    /// Connects, from scratch: what was known of the connection before must not matter.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached.
    fn connect(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Asks for the present state. The answer must come from the primary.
    ///
    /// Unless the mirror is in no life yet, the store first takes note of its progress, in one
    /// place for all who ask for [`followers`](super::RevocationStore::followers), and forgets it
    /// when the lease is over. The state must have been read after that: a write that is not in it
    /// then finds the mirror among the followers.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn heartbeat(
        &mut self,
        progress: Progress,
    ) -> impl Future<Output = Result<Heartbeat, StoreError>> + Send;

    /// The id of the last entry of the log.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn tail(&mut self) -> impl Future<Output = Result<LogId, StoreError>> + Send;

    /// About how many facts a snapshot holds.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn count(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// A page of the snapshot; `cursor` is `None` for the first. A fact that is there from the
    /// first page to the last appears.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn snapshot(
        &mut self,
        cursor: Option<u64>,
    ) -> impl Future<Output = Result<SnapshotPage, StoreError>> + Send;

    /// The facts of these targets, in order.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> impl Future<Output = Result<Vec<Option<Fact>>, StoreError>> + Send;

    /// The entries after `after`, some at a time; if there are none, waits for one, up to `wait`.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn read(
        &mut self,
        after: LogId,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<LogEntry>, StoreError>> + Send;

    /// Writes facts that the store has lost. Those that it knows, or knows better, change nothing.
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed.
    fn restore(
        &mut self,
        facts: &[(Fingerprint, Fact)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends the doubt about tokens issued before the horizon, and says whether it has ended. The
    /// store refuses if anyone has known of a later change of the former life, and takes the doubt
    /// up again if such a one comes later.
    ///
    /// The default is that it never ends before the tokens do.
    ///
    /// # Errors
    /// [`StoreError`] if there was no answer.
    fn lift(&mut self, lift: Lift) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let _ = lift;
        ready(Ok(false))
    }

    /// Whether this target belongs to the shard of this feed.
    fn owns(&self, fingerprint: &Fingerprint) -> bool {
        let _ = fingerprint;
        true
    }

    /// Says good-bye: nobody is to wait for this mirror any more.
    fn leave(&mut self) -> impl Future<Output = ()> + Send;
}
