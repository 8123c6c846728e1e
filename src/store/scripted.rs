//! [`ScriptedStore`]: a store that fails on cue, for tests (feature `test-util`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::watch;
use tokio::time::Instant;

use super::memory::MemoryStore;
#[cfg(feature = "sessions")]
use super::session::{Commit, Committed, SessionStore, Snapshot};
use super::{
    Condition, Doubt, Fence, Follower, ListQuery, Lookup, Receipt, RecordPage, RevocationStore,
    RevokedBy, Standing, StoreError, StoreErrorKind,
};
use crate::clock::Clock;
use crate::revocation::{AcceptedTargets, Record, Revocation, Target};
use crate::verified::VerifiedToken;

/// How long a check waits while the store is slow: as long as it waits for Redis by default.
const CHECK_LIMIT: Duration = Duration::from_millis(50);
/// How long everything else waits while the store is slow, as by default with Redis.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// For how long after a loss of data tokens without an `iat` are in doubt: as long as tokens live
/// at most by default.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A [`MemoryStore`] that behaves like a remote store: it answers late, fails, hangs or loses its
/// data, as the test says. Clones share everything.
///
/// [`TestAuth`](crate::testing::TestAuth) has one, and everything else that a test of an
/// application needs. It also keeps sessions (feature `sessions`).
///
/// ```
/// # use tower_jwt_revocation::store::StoreErrorKind;
/// # use tower_jwt_revocation::store::scripted::ScriptedStore;
/// # use tower_jwt_revocation::{Revoker, Target, TokenProfile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = ScriptedStore::new();
/// let revoker = Revoker::new(store.clone(), TokenProfile::new())?;
/// store.fail(StoreErrorKind::Timeout);
/// assert!(revoker.revoke(Target::user("alice")).await.is_err());
/// store.answer();
/// assert!(revoker.revoke(Target::user("alice")).await.is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ScriptedStore {
    memory: MemoryStore,
    script: Arc<watch::Sender<Script>>,
    /// When the script was set that is in force.
    since: Arc<Mutex<Instant>>,
    checks: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Script {
    act: Act,
    /// What a loss of data has left behind.
    doubt: Doubt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    AnswerLater,
    AnswerAfter(Duration),
    Fail(StoreErrorKind),
    FailLater(StoreErrorKind),
    Hang,
}

impl ScriptedStore {
    /// An empty store that answers at once.
    pub fn new() -> Self {
        Self {
            memory: MemoryStore::new(),
            script: Arc::new(watch::Sender::new(Script { act: Act::Answer, doubt: Doubt::None })),
            since: Arc::new(Mutex::new(Instant::now())),
            checks: Arc::default(),
        }
    }

    /// The clock that dates the writes; default: that of the operating system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.memory = self.memory.with_clock(clock);
        self
    }

    fn act(&self, act: Act) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.script.send_modify(|script| script.act = act);
    }

    /// From now on: checks are answered at once.
    pub fn answer(&self) {
        self.act(Act::Answer);
    }

    /// From now on: checks are answered, but have to be awaited ([`Lookup::Later`]).
    pub fn answer_later(&self) {
        self.act(Act::AnswerLater);
    }

    /// From now on: every answer is late by `delay`. If that exceeds the default limits of a
    /// `RedisStore` (50 ms for a check, 1 s for everything else), the call fails after the limit
    /// instead ([`StoreErrorKind::Timeout`]). It uses the clock of Tokio, which a test can pause.
    pub fn answer_after(&self, delay: Duration) {
        self.act(Act::AnswerAfter(delay));
    }

    /// Loses all data, as after `FLUSHALL`. As with Redis, the store knows that revocations were
    /// lost: checks of tokens issued up to now fail with [`StoreErrorKind::DataLoss`], unless they
    /// are revoked again. Checks of later tokens are answered.
    pub fn lose_data(&self) {
        let issued_until = self.memory.lose_data();
        let ends_at = issued_until.saturating_add(LONGEST_LIFETIME);
        self.script.send_modify(|script| script.doubt = Doubt::Lasting { issued_until, ends_at });
    }

    /// From now on: everything fails at once, as while a store is known to be down.
    pub fn fail(&self, kind: StoreErrorKind) {
        self.act(Act::Fail(kind));
    }

    /// From now on: everything fails, but has to be awaited.
    pub fn fail_later(&self, kind: StoreErrorKind) {
        self.act(Act::FailLater(kind));
    }

    /// From now on: nothing is answered. Waiting calls are answered as the next of these methods
    /// says.
    pub fn hang(&self) {
        self.act(Act::Hang);
    }

    /// How many checks there were so far.
    pub fn checks(&self) -> u64 {
        self.checks.load(Relaxed)
    }

    /// Waits while the store hangs or is slow, then fails or not.
    async fn follow(
        mut script: watch::Receiver<Script>,
        limit: Duration,
    ) -> Result<Doubt, StoreError> {
        let known = script.wait_for(|script| script.act != Act::Hang).await.map(|script| *script);
        let Ok(Script { act, doubt }) = known else {
            // The last handle is gone, so the script cannot change any more.
            return std::future::pending().await;
        };
        match act {
            Act::Fail(kind) | Act::FailLater(kind) => Err(failure(kind)),
            Act::AnswerAfter(delay) => {
                tokio::time::sleep(delay.min(limit)).await;
                if delay > limit { Err(failure(StoreErrorKind::Timeout)) } else { Ok(doubt) }
            }
            Act::Answer | Act::AnswerLater | Act::Hang => Ok(doubt),
        }
    }

    fn scripted<T, F>(&self, limit: Duration, then: F) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(MemoryStore, Doubt) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    {
        let (script, memory) = (self.script.subscribe(), self.memory.clone());
        async move {
            let doubt = Self::follow(script, limit).await?;
            then(memory, doubt).await
        }
        .boxed()
    }
}

/// What the memory knows of a token, if it can have lost nothing of it.
fn check(memory: &MemoryStore, token: &Arc<VerifiedToken>, doubt: Doubt) -> Lookup {
    match memory.check(token) {
        Lookup::Now(Ok(Standing::Live)) if doubt.covers(token, memory.clock.now()) => {
            Lookup::Now(Err(doubt.error()))
        }
        lookup => lookup,
    }
}

fn failure(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "the script says so")
}

impl Default for ScriptedStore {
    fn default() -> Self {
        Self::new()
    }
}

impl RevocationStore for ScriptedStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.checks.fetch_add(1, Relaxed);
        let Script { act, doubt } = *self.script.borrow();
        match act {
            Act::Answer => check(&self.memory, token, doubt),
            Act::Fail(kind) => Lookup::Now(Err(failure(kind))),
            Act::FailLater(kind) => Lookup::Later(ready(Err(failure(kind))).boxed()),
            Act::AnswerLater | Act::AnswerAfter(_) | Act::Hang => {
                let token = Arc::clone(token);
                Lookup::Later(self.scripted(CHECK_LIMIT, move |memory, doubt| {
                    check(&memory, &token, doubt).answer().boxed()
                }))
            }
        }
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        self.memory.watch(token)
    }

    fn condition(&self) -> Condition {
        let Script { act, doubt } = *self.script.borrow();
        let kind = match act {
            Act::Fail(kind) | Act::FailLater(kind) => kind,
            Act::Hang => StoreErrorKind::Timeout,
            Act::AnswerAfter(delay) if delay > CHECK_LIMIT => StoreErrorKind::Timeout,
            Act::Answer | Act::AnswerLater | Act::AnswerAfter(_) => {
                return Condition::Answering(doubt);
            }
        };
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            StoreErrorKind::Settling => Condition::Answering(Doubt::Settling),
            kind => Condition::Failing { error: failure(kind), lasts: Some(since.elapsed()) },
        }
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.scripted(WRITE_LIMIT, move |memory, _| memory.write(changes))
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let target = target.clone();
        self.scripted(WRITE_LIMIT, move |memory, _| memory.find(&target))
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.scripted(WRITE_LIMIT, move |memory, _| memory.list(query))
    }

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.scripted(WRITE_LIMIT, move |memory, _| memory.erase_names(targets))
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        self.scripted(WRITE_LIMIT, move |memory, _| memory.followers(fence))
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.scripted(WRITE_LIMIT, |memory, _| memory.count())
    }

    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        self.memory.expect_targets(accepted);
    }

    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        self.scripted(WRITE_LIMIT, |memory, _| memory.accepted_targets())
    }
}

#[cfg(feature = "sessions")]
impl SessionStore for ScriptedStore {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        self.scripted(WRITE_LIMIT, move |memory, doubt| {
            let load = memory.load(documents, records);
            async move { Ok(Snapshot { doubt, ..load.await? }) }.boxed()
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        self.scripted(WRITE_LIMIT, move |memory, _| memory.commit(commit))
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.scripted(WRITE_LIMIT, |memory, _| memory.count_members())
    }
}

impl fmt::Debug for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedStore")
            .field("script", &self.script.borrow().act)
            .finish_non_exhaustive()
    }
}
