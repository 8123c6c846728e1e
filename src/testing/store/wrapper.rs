//! What a store around a store has to pass on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use crate::revocation::{Record, Revocation, Target};
use crate::store::memory::MemoryStore;
use crate::store::{
    Fence, Follower, ListQuery, Lookup, Needs, Receipt, RecordPage, RevocationStore, StoreError,
};
use crate::testing::Violation;
use crate::verified::VerifiedToken;

/// The store that is wrapped: a [`MemoryStore`] that needs the text of tokens, is asked how far its
/// mirrors are, and remembers the lifetime that it is to expect.
#[derive(Clone, Debug)]
pub struct WrappedStore {
    memory: MemoryStore,
    longest_secs: Arc<AtomicU64>,
}

/// Tries whether a store around a store passes on what it does not answer itself:
/// [`needs`](RevocationStore::needs), [`expect_tokens_for`](RevocationStore::expect_tokens_for) and
/// [`followers`](RevocationStore::followers). These have defaults, so a wrapper that forgets one
/// compiles. `wrap` puts the wrapper around the store that it is given.
///
/// # Panics
/// If it does not. The message names what is not passed on.
#[expect(clippy::panic, reason = "the one who calls it is a test")]
pub async fn assert_passes_everything_on<S: RevocationStore>(wrap: impl FnOnce(WrappedStore) -> S) {
    if let Err(violation) = check_wrapper(wrap).await {
        panic!("{violation}");
    }
}

pub(in crate::testing) async fn check_wrapper<S: RevocationStore>(
    wrap: impl FnOnce(WrappedStore) -> S,
) -> Result<(), Violation> {
    let inner = WrappedStore { memory: MemoryStore::new(), longest_secs: Arc::default() };
    let outer = wrap(inner.clone());
    let broken = |rule, detail: &str| Err(Violation { rule, detail: detail.into() });
    if outer.needs() != inner.needs() {
        return broken(
            "NeedsArePassedOn",
            "what the inner store needs of a token is not asked for",
        );
    }
    outer.expect_tokens_for(Duration::from_secs(77));
    if inner.longest_secs.load(Ordering::SeqCst) != 77 {
        return broken(
            "LifetimesArePassedOn",
            "the inner store does not learn how long tokens live",
        );
    }
    match outer.followers(Fence::new(7, 7, 7)).await {
        Ok(followers) if followers.iter().any(|follower| &*follower.name == "7.7.7") => Ok(()),
        _ => broken("FollowersArePassedOn", "the mirrors of the inner store are not known"),
    }
}

impl RevocationStore for WrappedStore {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.memory.write(changes)
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.memory.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.memory.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.memory.count()
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        let name = format!("{}.{}.{}", fence.shard, fence.epoch, fence.seq);
        ready(Ok(vec![Follower::new(name, true)])).boxed()
    }

    fn needs(&self) -> Needs {
        Needs::Text
    }

    fn expect_tokens_for(&self, longest: Duration) {
        self.longest_secs.store(longest.as_secs(), Ordering::SeqCst);
    }
}
