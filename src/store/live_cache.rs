//! [`LiveCache`]: a store that remembers for a moment which tokens another one has called live.
//!
//! The one place of this crate where a revoked token may pass although its revocation was
//! confirmed: for as long as its owner has said, and never unsaid ([`Standing::WasLive`]). Nothing
//! else is made weaker: neither refusals nor errors are kept, and a write through it ends all that
//! it remembers.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    Fence, Follower, ListQuery, Lookup, Needs, Page, Receipt, RevocationStore, Standing, StoreError,
};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::ConfigError;
use crate::revocation::{Record, Revocation, Target};
use crate::verified::VerifiedToken;

/// Default of [`LiveCache::with_capacity`]: 5 to 6 MiB.
pub const DEFAULT_LIVE_TOKENS: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// The longest that may be given to [`LiveCache::new`]. Whoever accepts that revoked tokens pass
/// for longer needs no store.
pub const MAX_REMEMBERED: Duration = Duration::from_secs(60);

/// Asks another store, and for a moment does not ask it again about a token that it has called
/// live.
///
/// **Off unless you put it there**, because it gives up what everything else in this crate proves:
/// a token that another process revokes passes here for up to `remembered` longer, although the
/// revocation was confirmed. Within this process a write through this store, its clones or a
/// [`Revoker`](crate::Revoker) over it counts at once. How old an answer is stands in
/// [`Clearance::age`](crate::Clearance::age), for a handler that wants a fresh one.
///
/// A [`Mirror`](crate::Mirror) costs less, hears of revocations within milliseconds, and refuses to
/// answer when it has not heard for a second. This is for those who cannot have one: no right to
/// read the log, or too many revocations for memory.
///
/// What it remembers does not depend on `exp`, which is judged at every use, nor on the health of
/// the store: while Redis hangs, tokens that were live a moment ago still are.
///
/// ```
/// use std::time::Duration;
/// use tower_jwt_revocation::store::LiveCache;
/// # fn f(store: impl tower_jwt_revocation::RevocationStore) -> Result<(), tower_jwt_revocation::ConfigError> {
/// let store = LiveCache::new(store, Duration::from_secs(2))?;
/// # Ok(())
/// # }
/// ```
pub struct LiveCache<S> {
    inner: Arc<S>,
    remembered: Duration,
    memory: Arc<LiveTokens>,
}

impl<S: RevocationStore> LiveCache<S> {
    /// Remembers each token that `inner` calls live for so long, from when it was asked.
    ///
    /// # Errors
    /// [`ConfigError`] if `remembered` is zero or over [`MAX_REMEMBERED`].
    pub fn new(inner: S, remembered: Duration) -> Result<Self, ConfigError> {
        if remembered.is_zero() || remembered > MAX_REMEMBERED {
            return Err(ConfigError::new(
                "remembered",
                format!("is {remembered:?}; choose more than zero and at most {MAX_REMEMBERED:?}"),
            ));
        }
        let memory = Arc::new(LiveTokens::new(DEFAULT_LIVE_TOKENS));
        Ok(Self { inner: Arc::new(inner), remembered, memory })
    }

    /// How many tokens are remembered at most; default [`DEFAULT_LIVE_TOKENS`]. Each takes up to 96
    /// bytes, taken at once. Where two tokens meet, the later one stays.
    #[must_use]
    pub fn with_capacity(mut self, tokens: NonZeroUsize) -> Self {
        self.memory = Arc::new(LiveTokens::new(tokens));
        self
    }

    /// The store that is asked.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S> Clone for LiveCache<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            remembered: self.remembered,
            memory: Arc::clone(&self.memory),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for LiveCache<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveCache")
            .field("inner", &self.inner)
            .field("remembered", &self.remembered)
            .finish_non_exhaustive()
    }
}

impl<S: RevocationStore> RevocationStore for LiveCache<S> {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        let name = name(token);
        if let Some(ago) = self.memory.age(&name).filter(|ago| *ago < self.remembered) {
            return Lookup::Now(Ok(Standing::WasLive { ago }));
        }
        let asked = self.memory.now();
        match self.inner.check(token) {
            // What is known at once need not be remembered.
            known @ Lookup::Now(_) => known,
            Lookup::Later(answer) => {
                let memory = Arc::clone(&self.memory);
                let answer = async move {
                    let answer = answer.await;
                    if matches!(answer, Ok(Standing::Live)) {
                        memory.put(name, asked);
                    }
                    answer
                };
                Lookup::Later(answer.boxed())
            }
        }
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        let (write, memory) = (self.inner.write(changes), Arc::clone(&self.memory));
        // Whatever becomes of the write, it may have been done.
        let forget = ForgetAtTheEnd(memory);
        async move {
            let answer = write.await;
            drop(forget);
            answer
        }
        .boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.inner.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<Page, StoreError>> {
        self.inner.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.inner.count()
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        self.inner.followers(fence)
    }

    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn expect_tokens_for(&self, longest: Duration) {
        self.inner.expect_tokens_for(longest);
    }
}

#[cfg(feature = "sessions")]
impl<S: super::session::SessionStore> super::session::SessionStore for LiveCache<S> {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<super::session::Snapshot, StoreError>> {
        self.inner.load(documents, records)
    }

    fn commit(
        &self,
        commit: super::session::Commit,
    ) -> BoxFuture<'static, Result<super::session::Committed, StoreError>> {
        self.inner.commit(commit)
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.inner.count_members()
    }
}

/// Everything on which the standing of a token may depend, in 32 bytes.
type Name = [u8; 32];

fn name(token: &VerifiedToken) -> Name {
    let mut hash = Sha256::new();
    hash.update(token.payload().len().to_le_bytes());
    hash.update(token.payload());
    // The key by which it was verified is one of these, and not among its claims.
    for target in token.targets() {
        hash.update(target.fingerprint().as_bytes());
    }
    // At the end, so that it cannot be taken for something else; what comes before says where it
    // ends.
    if let Some(text) = token.text_sha256() {
        hash.update(text);
    }
    hash.finalize().into()
}

/// When a question was sent, by both clocks: one stands still while the machine sleeps, the other
/// can be set back.
#[derive(Clone, Copy)]
struct Asked {
    mono: Instant,
    wall: Timestamp,
    /// How many writes had ended.
    writes: u64,
}

type Place = Mutex<Option<(Name, Asked)>>;

/// The tokens that were live when it was asked: a table in which each has one place.
struct LiveTokens {
    places: Box<[Place]>,
    /// How many writes have ended. What was asked before the last one of them counts no more.
    writes: AtomicU64,
}

impl LiveTokens {
    fn new(tokens: NonZeroUsize) -> Self {
        Self {
            places: (0..tokens.get()).map(|_| Mutex::default()).collect(),
            writes: AtomicU64::new(0),
        }
    }

    fn now(&self) -> Asked {
        Asked {
            // Read first: an answer is never younger than this.
            writes: self.writes.load(Ordering::Acquire),
            mono: Instant::now(),
            wall: SystemClock.now(),
        }
    }

    /// How long ago the store was asked about the token that is live, if that is known.
    fn age(&self, name: &Name) -> Option<Duration> {
        let place = self.place(name)?.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, asked) = place.as_ref().filter(|(known, _)| known == name)?;
        if asked.writes != self.writes.load(Ordering::Acquire) {
            return None;
        }
        Some(asked.mono.elapsed().max(SystemClock.now().saturating_duration_since(asked.wall)))
    }

    fn put(&self, name: Name, asked: Asked) {
        if let Some(place) = self.place(&name) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, asked));
        }
    }

    fn place(&self, name: &Name) -> Option<&Place> {
        let spread = name.first_chunk().map_or(0, |bytes| usize::from_le_bytes(*bytes));
        self.places.get(spread % self.places.len())
    }
}

/// Also if the one who waits for the write goes away.
struct ForgetAtTheEnd(Arc<LiveTokens>);

impl Drop for ForgetAtTheEnd {
    fn drop(&mut self) {
        self.0.writes.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
