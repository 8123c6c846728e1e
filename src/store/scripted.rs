//! [`ScriptedStore`]: a store that fails on cue, for tests (feature `test-util`).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use tokio::sync::watch;
use tokio::time::Instant;

use super::memory::MemoryStore;
use super::{
    Condition, Doubt, Fence, Follower, ListQuery, Lookup, Receipt, RecordPage, RevocationStore,
    RevokedBy, StoreError, StoreErrorKind,
};
use crate::revocation::{Record, Revocation, Target};
use crate::verified::VerifiedToken;

/// A [`MemoryStore`] that behaves like one far away: it answers late, fails or hangs as its script
/// says. Clones share everything.
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
enum Script {
    Answer,
    AnswerLater,
    Fail(StoreErrorKind),
    FailLater(StoreErrorKind),
    Hang,
}

impl ScriptedStore {
    /// An empty store that answers at once.
    pub fn new() -> Self {
        Self {
            memory: MemoryStore::new(),
            script: Arc::new(watch::Sender::new(Script::Answer)),
            since: Arc::new(Mutex::new(Instant::now())),
            checks: Arc::default(),
        }
    }

    /// From now on: checks are answered at once.
    pub fn answer(&self) {
        self.set(Script::Answer);
    }

    /// From now on: checks are answered, but have to be awaited ([`Lookup::Later`]).
    pub fn answer_later(&self) {
        self.set(Script::AnswerLater);
    }

    /// From now on: everything fails at once, as it does while a store is known to be down.
    pub fn fail(&self, kind: StoreErrorKind) {
        self.set(Script::Fail(kind));
    }

    /// From now on: everything fails, but has to be awaited.
    pub fn fail_later(&self, kind: StoreErrorKind) {
        self.set(Script::FailLater(kind));
    }

    /// From now on: nothing is answered. What waits is answered as the next script says.
    pub fn hang(&self) {
        self.set(Script::Hang);
    }

    fn set(&self, script: Script) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.script.send_replace(script);
    }

    /// How many checks were asked for.
    pub fn checks(&self) -> u64 {
        self.checks.load(Relaxed)
    }

    /// Waits while the store hangs, then fails or not.
    async fn follow(mut script: watch::Receiver<Script>) -> Result<(), StoreError> {
        let known = script.wait_for(|script| *script != Script::Hang).await.map(|script| *script);
        match known {
            Ok(Script::Fail(kind) | Script::FailLater(kind)) => Err(failure(kind)),
            Ok(_) => Ok(()),
            // The last handle is gone, so the script cannot change any more.
            Err(_) => std::future::pending().await,
        }
    }

    fn scripted<T, F>(&self, then: F) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(MemoryStore) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    {
        let (script, memory) = (self.script.subscribe(), self.memory.clone());
        async move {
            Self::follow(script).await?;
            then(memory).await
        }
        .boxed()
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
        let script = *self.script.borrow();
        match script {
            Script::Answer => self.memory.check(token),
            Script::Fail(kind) => Lookup::Now(Err(failure(kind))),
            Script::FailLater(kind) => Lookup::Later(ready(Err(failure(kind))).boxed()),
            Script::AnswerLater | Script::Hang => {
                let token = Arc::clone(token);
                Lookup::Later(self.scripted(move |memory| memory.check(&token).answer().boxed()))
            }
        }
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        self.memory.watch(token)
    }

    fn condition(&self) -> Condition {
        let kind = match *self.script.borrow() {
            Script::Answer | Script::AnswerLater => return Condition::default(),
            Script::Fail(kind) | Script::FailLater(kind) => kind,
            Script::Hang => StoreErrorKind::Timeout,
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
        self.scripted(move |memory| memory.write(changes))
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        let target = target.clone();
        self.scripted(move |memory| memory.find(&target))
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.scripted(move |memory| memory.list(query))
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        self.scripted(move |memory| memory.followers(fence))
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.scripted(|memory| memory.count())
    }
}

impl fmt::Debug for ScriptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedStore")
            .field("script", &*self.script.borrow())
            .finish_non_exhaustive()
    }
}
