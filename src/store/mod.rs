//! Where revocations are kept.
//!
//! The trait [`RevocationStore`] and its types. A check gives a [`Standing`] or a [`StoreError`],
//! never a default.
//!
//! | | |
//! | --- | --- |
//! | [`feed`] | how a [`Mirror`](crate::Mirror) reads a store, and how to write such a store |
//! | [`memory`] | one process: tests, demos, programs that run alone |
//! | [`redis`] | shared by all processes, one round trip per check (feature `redis`) |
//! | [`scripted`] | for tests: fails when the test says so (feature `test-util`) |
//! | [`session`] | what sessions and refresh tokens need besides (feature `sessions`) |
//!
//! # Writing a store
//!
//! Any database with transactions can keep revocations. `examples/custom/src/store.rs` is a store
//! in `SQLite`, to be copied. What to do:
//!
//! 1. **Keep one [`Record`] for each target**, under its
//!    [`Fingerprint`](crate::revocation::Fingerprint), which is 16 bytes. A record is its
//!    [`target`](Record::target), the five times of its [`fact`](Record::fact) and the text of what
//!    that [spares](crate::revocation::Spared), [`changed_at`](Record::changed_at), and reason and
//!    actor, which may be absent. [`Target::from_parts`] and [`Record::new`] make a record again,
//!    and refuse damaged data.
//! 2. **[`check`](RevocationStore::check)**: read the records of all
//!    [`targets`](VerifiedToken::targets) of the token; it is revoked if any record
//!    [covers](Record::covers) it. If one cannot be read, and no other covers the token, the answer
//!    is an error.
//! 3. **[`write`](RevocationStore::write)**: for each change, in order, read the record of its
//!    target and call [`Receipt::of`] with it and the time of the store. Then write the record that
//!    this returns, and answer with the receipt. Reading and writing are one step: take the write
//!    lock before you read. Do it in a task of its own, so that it goes on if its future is
//!    dropped. Confirm it only when it cannot get lost any more.
//! 4. **[`find`](RevocationStore::find)** returns the record, also a reinstated one.
//! 5. **[`list`](RevocationStore::list)**: read [`page_size`](ListQuery::page_size) records in a
//!    fixed order, such as by fingerprint. Leave out what is not [in effect](Record::is_in_effect)
//!    or not [admitted](ListQuery::admits). The [`cursor`](ListQuery::cursor) is the last key as a
//!    text: of a fingerprint, its hexadecimal digits (`Display`), which `u128::from_str_radix`
//!    reads. A client may have made it up.
//! 6. **[`count`](RevocationStore::count)**: how many records are in effect.
//! 7. **Forget** a record when its [`until`](Record::until) has passed by the clock of the store,
//!    not earlier. From then on it does not count, deleted or not. Clocks of several servers must
//!    agree to a second; best use one.
//! 8. **End every call within a bound**, and say in a [`StoreErrorKind`] why there is no answer.
//!    Never answer *live* because nothing was found where nothing could be read.
//! 9. **Test it**: `testing::Suite::of_store` (feature `test-util`) has a case for each rule, and
//!    names the broken ones. Test a store that wraps another one with `testing::Suite::of_wrapper`,
//!    too.
//!
//! By default [`erase_names`](RevocationStore::erase_names) is an error: implement it, or an
//! application cannot erase the ids of people who have left.
//!
//! Fences, [`followers`](RevocationStore::followers) and a [`Feed`](feed::Feed) are for stores that
//! can be mirrored. A store without them returns receipts without a fence and leaves
//! [`followers`](RevocationStore::followers) at its default, an error.
//! [`expect_targets`](RevocationStore::expect_targets) is for stores that several processes share:
//! without it, revokers of other processes know nothing of the layers.

mod condition;
mod doubt;
pub mod feed;
pub mod memory;
mod memory_feed;
#[cfg(feature = "sessions")]
mod memory_session;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(test, feature = "test-util"))]
pub mod scripted;
#[cfg(feature = "sessions")]
pub mod session;
pub(crate) mod waiters;
#[cfg(feature = "redis")]
mod writer;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde::Serialize;

pub use self::condition::Condition;
pub use self::doubt::Doubt;
#[cfg(feature = "redis")]
pub(crate) use self::writer::RevocationWriter;
use crate::clock::Timestamp;
use crate::revocation::{AcceptedTargets, Change, Outcome, Record, Revocation, Target, TargetKind};
use crate::samples::Samples;
pub use crate::store_error::{StoreError, StoreErrorKind};
pub use crate::verified::Needs;
use crate::verified::VerifiedToken;

/// A store of revocations: a denylist of tokens, sessions, users and more, for the check on every
/// request and for writes.
///
/// [Writing a store](self#writing-a-store) says step by step how to implement it.
///
/// # What an implementation guarantees
/// - After a write was answered with `Ok`, every check that starts later sees it, in any process
///   that shares the store, until the record may be forgotten ([`Record::until`]).
/// - Writes are merged as [`Receipt::of`] says: none ever shortens or moves back a revocation.
/// - What is not known is an error. There is no default standing.
///
/// Each rule is a case of the suite `testing::Suite::of_store` (feature `test-util`).
#[doc(alias("denylist", "blocklist", "blacklist"))]
pub trait RevocationStore: Send + Sync + 'static {
    /// The standing of a verified token: revoked if the record of *any* of its targets covers it.
    ///
    /// A store that knows at once answers [`Lookup::Now`], which costs no allocation. A
    /// [`Lookup::Later`] must end by itself within a bound that the store documents; the layer adds
    /// no time limit of its own.
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup;

    /// Writes changes and returns one receipt for each, in order. Each change is done as a whole or
    /// not at all; after an error some of several may be done.
    ///
    /// The write goes on if the returned future is dropped, so that no change is half done.
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed. It may have been done nevertheless; repeating
    /// it is safe.
    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>>;

    /// The record of a target, if there is one that has not been forgotten.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>>;

    /// A page of the records that are in effect, in no particular order. A record that is there
    /// from the first page to the last appears at least once; one that is written meanwhile may be
    /// missing.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked, or the cursor is not one of this store.
    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>>;

    /// How many records are in effect.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// Erases ids, reasons and actors in the records of these targets. Revoked tokens stay revoked,
    /// and the record is found by its target as before, but as that of a
    /// [nameless](Target::nameless) target. Targets without a record are skipped. Each target names
    /// its issuer: [`Revoker::erase_names`](crate::Revoker::erase_names) fills it in.
    ///
    /// Default: an error, so that nobody believes that names were erased. A store that wraps
    /// another one passes it on.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed; the call may be repeated. Of kind
    /// [`StoreErrorKind::InvalidInput`] if the store cannot do it.
    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        let _ = targets;
        let unable = StoreError::new(
            StoreErrorKind::InvalidInput,
            "this store cannot erase names in records, and has erased none",
        );
        ready(Err(unable)).boxed()
    }

    /// The mirrors that may answer from memory at this moment, and whether each has applied the
    /// write at `fence`. Any other mirror has applied it, or will apply it before it answers from
    /// memory again.
    ///
    /// A store that can be mirrored must implement it. Default: an error, for stores without
    /// fences. A store that wraps another one passes it on.
    ///
    /// # Errors
    /// [`StoreError`] if this is not known; of kind [`StoreErrorKind::DataLoss`] if the store has
    /// begun another epoch since, in which the write may be missing.
    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        let _ = fence;
        let unknown =
            StoreError::new(StoreErrorKind::Other, "this store does not know its mirrors");
        ready(Err(unknown)).boxed()
    }

    /// A future that completes when the store knows that this token is revoked, at once if it is
    /// already. Long responses wait for it. `None` if the store learns of a revocation only by a
    /// check; then [`check`](Self::check) is called again from time to time.
    ///
    /// It need not report outages, because checks do. Dropping the future ends the watch. Default:
    /// `None`. A store that wraps another one passes it on.
    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        let _ = token;
        None
    }

    /// Whether the store can tell the standing of tokens at this moment, by what it knows without
    /// asking a server. Must be quick: readiness probes call it, also during an outage.
    ///
    /// Default: that it can. A store that wraps another one passes it on, or knows better.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// What this store needs of a token besides its claims. A layer asks once, when it is made.
    /// From then on each token that it gives to [`check`](Self::check) carries it.
    ///
    /// Default: nothing. A store that wraps another one must pass it on, or the inner one answers
    /// with errors.
    fn needs(&self) -> Needs {
        Needs::Claims
    }

    /// Each layer and revoker calls it when it is made. `longest` is the longest time from the
    /// issue of a token to its last use: the longest accepted lifetime, and some time for clocks.
    ///
    /// Default: does nothing. A store that needs it takes the longest of all calls. A store that
    /// wraps another one passes it on.
    fn expect_tokens_for(&self, longest: Duration) {
        let _ = longest;
    }

    /// Each layer calls it when it is made, and so does what accepts refresh tokens. It says which
    /// targets the accepted tokens can have, so that revokers of other processes notice if a
    /// revocation has no effect. A shared store keeps it for them, and forgets it if it was not
    /// said again for a week or longer.
    ///
    /// Default: does nothing. A store that wraps another one passes it on.
    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        let _ = accepted;
    }

    /// What the layers on this store, in any process, have [said](Self::expect_targets) that they
    /// accept. Empty if no layer has, or if some of it may be missing: then no revocation is an
    /// error because of it.
    ///
    /// Default: empty. A store that wraps another one passes it on.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        ready(Ok(Vec::new())).boxed()
    }

    /// Adds its numbers to the [metrics](crate::metrics), which have its
    /// [`condition`](Self::condition) anyway. Default: nothing. A store that wraps another one
    /// passes the call on.
    fn add_metrics(&self, samples: &mut Samples) {
        let _ = samples;
    }
}

impl<T: RevocationStore + ?Sized> RevocationStore for Arc<T> {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        (**self).check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        (**self).write(changes)
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        (**self).find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        (**self).list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        (**self).count()
    }

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        (**self).erase_names(targets)
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        (**self).followers(fence)
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        (**self).watch(token)
    }

    fn condition(&self) -> Condition {
        (**self).condition()
    }

    fn needs(&self) -> Needs {
        (**self).needs()
    }

    fn expect_tokens_for(&self, longest: Duration) {
        (**self).expect_tokens_for(longest);
    }

    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        (**self).expect_targets(accepted);
    }

    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        (**self).accepted_targets()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        (**self).add_metrics(samples);
    }
}

/// The answer to a check: known at once, or to be awaited.
#[must_use = "a look-up that is not read decides nothing"]
#[expect(
    clippy::exhaustive_enums,
    reason = "at once or later: stores around stores must be able to rely on it"
)]
pub enum Lookup {
    /// The answer.
    Now(Result<Standing, StoreError>),
    /// The answer, once a round trip is over.
    Later(BoxFuture<'static, Result<Standing, StoreError>>),
}

impl Lookup {
    /// Waits for the answer, if it is not known at once.
    ///
    /// # Errors
    /// [`StoreError`] if the standing is not known.
    pub async fn answer(self) -> Result<Standing, StoreError> {
        match self {
            Self::Now(answer) => answer,
            Self::Later(answer) => answer.await,
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Self::Later(_) => f.debug_tuple("Later").finish(),
        }
    }
}

/// What a store knows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Standing {
    /// No revocation covers it.
    Live,
    /// A revocation covers it.
    Revoked(RevokedBy),
}

/// The revocation that covers a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevokedBy {
    /// Through which of its targets the token is revoked.
    pub kind: TargetKind,
    /// When the revocation was written, by the clock of the store; `None` if the store does not
    /// know.
    pub at: Option<Timestamp>,
    /// The reason that was given; `None` if there was none or the store does not know.
    pub reason: Option<Arc<str>>,
}

impl RevokedBy {
    /// A revocation of which only the kind is known. `RevokedBy::from(&record)` says more.
    pub fn new(kind: TargetKind) -> Self {
        Self { kind, at: None, reason: None }
    }
}

impl From<&Record> for RevokedBy {
    fn from(record: &Record) -> Self {
        Self {
            kind: record.target().kind(),
            at: Some(record.changed_at()),
            reason: record.reason().cloned(),
        }
    }
}

/// The confirmation of a write. Serialized, it is an object of its fields; times are milliseconds
/// since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Receipt {
    /// What the write changed.
    pub outcome: Outcome,
    /// When it was written, by the clock of the store.
    pub at: Timestamp,
    /// For a revocation of "all issued so far": the first `iat` that is not covered, by the clock
    /// of the store. A cutoff covers every token whose `iat` is that whole second. So give a new
    /// token in that second this `iat`, or the present millisecond (`NumericDate` has fractions,
    /// RFC 7519 §2). An issuer that can only write whole seconds writes the next one.
    pub reissue_at: Option<Timestamp>,
    /// The position of the write in the log of the store; `None` if the store has no log.
    pub fence: Option<Fence>,
    /// How many replicas had confirmed the write; `None` if the store does not wait for them.
    pub replicas: Option<u32>,
    /// How many mirrors have reported that they have the write; `None` if nobody
    /// [waited](crate::revoker::RevokeRequest::confirm) for them.
    pub mirrors: Option<usize>,
    /// The templates of the foreign lists that should have been written and cannot express this:
    /// their programs still accept what was revoked. Empty if there are no such lists, or one of
    /// them expresses it. See
    /// [`ForeignList::with_writes`](redis::foreign::ForeignList::with_writes).
    pub unlisted: Vec<Box<str>>,
}

impl Receipt {
    /// A receipt without what not every store knows.
    pub fn new(outcome: Outcome, at: Timestamp) -> Self {
        Self {
            outcome,
            at,
            reissue_at: None,
            fence: None,
            replicas: None,
            mirrors: None,
            unlisted: Vec::new(),
        }
    }

    /// Applies `revocation` to the record `before`. Returns the receipt, and the record to write in
    /// place of `before`, if any, with all that `before` said.
    ///
    /// A store reads the record of the [`target`](Revocation::target), calls this, and writes, all
    /// in one step: of two simultaneous changes of one target, the second must see the record of
    /// the first. `before` is `None` if there is no record; one whose [`until`](Record::until) has
    /// passed counts as none. A store that cannot call this where it writes, such as a Redis
    /// script, must do exactly the same and be tested against it.
    ///
    /// `now` is the clock of the store. It may have gone back since the last change, for example
    /// after a failover. So the change is dated late enough to count: a revocation not before the
    /// last reinstatement, a reinstatement after the last revocation.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_jwt_revocation::Target;
    /// use tower_jwt_revocation::clock::Timestamp;
    /// use tower_jwt_revocation::revocation::{Outcome, Revocation};
    /// use tower_jwt_revocation::store::Receipt;
    ///
    /// let revocation = Revocation::new(Target::token("t"), Duration::from_secs(3600));
    /// let (receipt, record) = Receipt::of(&revocation, None, Timestamp::from_secs(1000));
    /// assert_eq!(receipt.outcome, Outcome::New);
    /// let record = record.expect("nothing was known of the token");
    /// assert!(record.revokes_all());
    /// assert_eq!(record.until(), Timestamp::from_secs(4600));
    /// ```
    #[must_use = "the record has to be written"]
    pub fn of(
        revocation: &Revocation,
        before: Option<&Record>,
        now: Timestamp,
    ) -> (Self, Option<Record>) {
        let (outcome, written) = match revocation.apply(before, now) {
            Change::Write(outcome, record) => (outcome, Some(record)),
            Change::Nothing(outcome) => (outcome, None),
        };
        let kept = written.as_ref().or(before.filter(|record| record.until() > now));
        // The receipt says of the record that is kept when it was changed, and what it does not
        // cover.
        let receipt = Self::new(outcome, kept.map_or(now, Record::changed_at))
            .with_reissue_at(kept.and_then(Record::reissue_at));
        (receipt, written)
    }

    /// The same receipt with [`reissue_at`](Self::reissue_at): that of the
    /// [record](Record::reissue_at) after the write.
    #[must_use]
    pub fn with_reissue_at(mut self, reissue_at: Option<Timestamp>) -> Self {
        self.reissue_at = reissue_at;
        self
    }

    /// The same receipt with [`fence`](Self::fence), for a store that can be mirrored, see
    /// [`RevocationStore::followers`].
    #[must_use]
    pub fn with_fence(mut self, fence: Option<Fence>) -> Self {
        self.fence = fence;
        self
    }

    /// The same receipt with the number of [`replicas`](Self::replicas) that had confirmed.
    #[must_use]
    pub fn with_replicas(mut self, replicas: Option<u32>) -> Self {
        self.replicas = replicas;
        self
    }
}

/// A position in the log of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Fence {
    /// The shard of the log.
    pub shard: u16,
    /// The epoch of the store that the position belongs to. It changes when data is lost.
    pub epoch: u64,
    /// The sequence number in the shard.
    pub seq: u64,
}

impl Fence {
    /// The position of change number `seq` of this shard in this epoch.
    pub fn new(shard: u16, epoch: u64, seq: u64) -> Self {
        Self { shard, epoch, seq }
    }
}

/// A mirror, as the store that it follows knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Follower {
    /// Its name, see [`MirrorBuilder::with_name`](crate::mirror::MirrorBuilder::with_name).
    pub name: Arc<str>,
    /// Whether it has said that it applied the write that was asked about.
    pub has_applied: bool,
}

impl Follower {
    /// A mirror of this name.
    pub fn new(name: impl Into<Arc<str>>, has_applied: bool) -> Self {
        Self { name: name.into(), has_applied }
    }
}

/// Which records to list.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ListQuery {
    /// Where to go on, from [`RecordPage::next`]; `None` for the first page.
    pub cursor: Option<Box<str>>,
    /// About how many records to read for one page; default 100, at most 1000, so that one page
    /// does not block the store. A page has those that pass the filters, so it can be empty without
    /// being the last.
    pub limit: Option<NonZeroUsize>,
    /// Only records of this kind.
    pub kind: Option<TargetKind>,
    /// Only records of this issuer.
    pub issuer: Option<Box<str>>,
    /// Only records whose latest change was made by this actor.
    pub actor: Option<Box<str>>,
}

impl ListQuery {
    /// How many records to look at for one page: [`limit`](Self::limit) with its default and its
    /// bound.
    pub fn page_size(&self) -> usize {
        self.limit.map_or(100, NonZeroUsize::get).min(1000)
    }

    /// Whether a record passes the filters for kind, issuer and actor. The store itself checks that
    /// the record is in effect and not over.
    pub fn admits(&self, record: &Record) -> bool {
        self.kind.is_none_or(|kind| record.target().kind() == kind)
            && self
                .issuer
                .as_deref()
                .is_none_or(|issuer| record.target().issuer_name() == Some(issuer))
            && self
                .actor
                .as_deref()
                .is_none_or(|actor| record.actor().map(|known| &**known) == Some(actor))
    }
}

/// Some of the records of a store.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RecordPage {
    /// The records.
    pub records: Vec<Record>,
    /// Where to go on, for [`ListQuery::cursor`]; `None` after the last page.
    pub next: Option<Box<str>>,
}

impl RecordPage {
    /// A page, and where the next one begins, if there is one.
    pub fn new(records: Vec<Record>, next: Option<Box<str>>) -> Self {
        Self { records, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{Action, Extent};

    #[test]
    fn a_receipt_is_of_the_record_that_is_kept() {
        let at = Timestamp::from_secs;
        let mut cutoff = Revocation::new(Target::user("alice"), Duration::from_secs(100));
        let (first, record) = Receipt::of(&cutoff, None, at(10));
        let reissue_at = Some(Timestamp::from_millis(10_001));
        assert_eq!(first, Receipt::new(Outcome::New, at(10)).with_reissue_at(reissue_at));
        assert!(record.is_some(), "it is new");

        let json = serde_json::to_value(&first).unwrap();
        assert_eq!((&json["outcome"], &json["reissue_at"]), (&"new".into(), &10_001.into()));

        // Nothing is written: the receipt is of what was there …
        cutoff.action = Action::Revoke(Extent::IssuedUntil(at(1)));
        cutoff.lifetime = Duration::from_secs(1);
        let second = Receipt::of(&cutoff, record.as_ref(), at(20));
        assert_eq!(second, (Receipt { outcome: Outcome::Already, ..first }, None));
        // … unless that is over.
        cutoff.lifetime = Duration::ZERO;
        let third = Receipt::of(&cutoff, record.as_ref(), at(200));
        assert_eq!(third, (Receipt::new(Outcome::AlreadyExpired, at(200)), None));
    }
}
