//! What a store that wraps another one has to pass on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use crate::revocation::{AcceptedTargets, Record, Revocation, Target};
use crate::samples::Samples;
use crate::store::memory::MemoryStore;
use crate::store::{
    Condition, Doubt, Fence, Follower, ListQuery, Lookup, Needs, Receipt, RecordPage,
    RevocationStore, RevokedBy, StoreError,
};
use crate::testing::{Failure, Rule, Suite, Trialed, ensure};
use crate::token::TokenProfile;
use crate::token::profile::SignedClaims;
use crate::verified::VerifiedToken;

/// The store that is wrapped: it needs the text of tokens, is asked how far its mirrors are, and
/// remembers the lifetime that it is to expect.
#[derive(Clone, Debug)]
struct WrappedStore {
    memory: MemoryStore,
    longest_secs: Arc<AtomicU64>,
}

impl<'a> Suite<'a> {
    /// What a store that wraps another one has to pass on to it. These methods have defaults, so a
    /// wrapper that forgets one compiles. `wrap` puts the wrapper around the store that it is
    /// given.
    ///
    /// ```
    /// # use tower_jwt_revocation::testing::Suite;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # use std::sync::Arc as Wrapper;
    /// Suite::of_wrapper(|inner| Wrapper::new(inner)).assert_conforms().await;
    /// # }
    /// ```
    ///
    /// # Rules
    /// - `NeedsArePassedOn`: [`needs`](RevocationStore::needs).
    /// - `LifetimesArePassedOn`: [`expect_tokens_for`](RevocationStore::expect_tokens_for).
    /// - `FollowersArePassedOn`: [`followers`](RevocationStore::followers).
    /// - `ErasuresArePassedOn`: [`erase_names`](RevocationStore::erase_names).
    /// - `WatchesArePassedOn`: [`watch`](RevocationStore::watch).
    /// - `ConditionsArePassedOn`: [`condition`](RevocationStore::condition).
    /// - `AcceptedTargetsArePassedOn`: [`expect_targets`](RevocationStore::expect_targets) and
    ///   [`accepted_targets`](RevocationStore::accepted_targets).
    /// - `MetricsArePassedOn`: [`add_metrics`](RevocationStore::add_metrics).
    pub fn of_wrapper<S: RevocationStore>(
        wrap: impl Fn(Arc<dyn RevocationStore>) -> S + Send + Sync + 'a,
    ) -> Self {
        let wrap = Arc::new(move || {
            let inner = WrappedStore { memory: MemoryStore::new(), longest_secs: Arc::default() };
            let outer = wrap(Arc::new(inner.clone()));
            (inner, outer)
        });
        let (for_needs, for_lifetimes, for_followers) =
            (Arc::clone(&wrap), Arc::clone(&wrap), Arc::clone(&wrap));
        let (for_erasures, for_watches, for_conditions, for_accepted, for_metrics) =
            (Arc::clone(&wrap), Arc::clone(&wrap), Arc::clone(&wrap), Arc::clone(&wrap), wrap);
        Self {
            rules: vec![
                Rule::new("NeedsArePassedOn", move || {
                    let (inner, outer) = for_needs();
                    ready(needs_are_passed_on(&inner, &outer)).boxed()
                }),
                Rule::new("LifetimesArePassedOn", move || {
                    let (inner, outer) = for_lifetimes();
                    ready(lifetimes_are_passed_on(&inner, &outer)).boxed()
                }),
                Rule::new("FollowersArePassedOn", move || {
                    let (_, outer) = for_followers();
                    async move { followers_are_passed_on(&outer).await }.boxed()
                }),
                Rule::new("ErasuresArePassedOn", move || {
                    let (inner, outer) = for_erasures();
                    async move { erasures_are_passed_on(&inner, &outer).await }.boxed()
                }),
                Rule::new("WatchesArePassedOn", move || {
                    let (_, outer) = for_watches();
                    ready(watches_are_passed_on(&outer)).boxed()
                }),
                Rule::new("ConditionsArePassedOn", move || {
                    let (_, outer) = for_conditions();
                    ready(conditions_are_passed_on(&outer)).boxed()
                }),
                Rule::new("AcceptedTargetsArePassedOn", move || {
                    let (_, outer) = for_accepted();
                    async move { accepted_targets_are_passed_on(&outer).await }.boxed()
                }),
                Rule::new("MetricsArePassedOn", move || {
                    let (_, outer) = for_metrics();
                    ready(metrics_are_passed_on(&outer)).boxed()
                }),
            ],
        }
    }
}

fn needs_are_passed_on(inner: &WrappedStore, outer: &impl RevocationStore) -> Trialed {
    ensure!(
        outer.needs() == inner.needs(),
        "what the inner store needs of a token is not asked for"
    );
    Ok(())
}

fn lifetimes_are_passed_on(inner: &WrappedStore, outer: &impl RevocationStore) -> Trialed {
    outer.expect_tokens_for(Duration::from_secs(77));
    ensure!(
        inner.longest_secs.load(Ordering::SeqCst) == 77,
        "the inner store does not learn how long tokens live"
    );
    Ok(())
}

fn metrics_are_passed_on(outer: &impl RevocationStore) -> Trialed {
    let mut samples = Samples::default();
    outer.add_metrics(&mut samples);
    ensure!(!samples.into_sorted().is_empty(), "the inner store says nothing to the metrics");
    Ok(())
}

async fn followers_are_passed_on(outer: &impl RevocationStore) -> Trialed {
    let followers = outer.followers(Fence::new(7, 7, 7)).await;
    ensure!(
        followers.is_ok_and(|followers| followers.iter().any(|mirror| &*mirror.name == "7.7.7")),
        "the mirrors of the inner store are not known"
    );
    Ok(())
}

async fn erasures_are_passed_on(inner: &WrappedStore, outer: &impl RevocationStore) -> Trialed {
    let alice = Target::user("alice");
    let change = Revocation::new(alice.clone(), Duration::from_secs(60));
    inner.memory.write(vec![change]).await?;
    outer.erase_names(vec![alice.clone()]).await?;
    let record = inner.memory.find(&alice).await?;
    let is_nameless = record.is_some_and(|record| *record.target() != alice);
    ensure!(is_nameless, "the inner store does not erase the names");
    Ok(())
}

fn watches_are_passed_on(outer: &impl RevocationStore) -> Trialed {
    let claims = br#"{"jti":"t","iat":1,"exp":2}"#;
    let token = TokenProfile::new().assert_verified_for_revocation(SignedClaims::new(claims));
    let token = token.map_err(|error| Failure(format!("the token of the test: {error}")))?;
    ensure!(
        outer.watch(&Arc::new(token)).is_some(),
        "nobody learns of it when the inner store knows at once what is revoked"
    );
    Ok(())
}

async fn accepted_targets_are_passed_on(outer: &impl RevocationStore) -> Trialed {
    let accepted = TokenProfile::new().accepted_targets();
    outer.expect_targets(&accepted);
    ensure!(
        outer.accepted_targets().await.is_ok_and(|known| known == accepted),
        "the inner store does not learn what layers accept, or nobody learns it from it"
    );
    Ok(())
}

fn conditions_are_passed_on(outer: &impl RevocationStore) -> Trialed {
    let is_settling =
        |condition| matches!(condition, Condition::Answering(doubt) if doubt == Doubt::Settling);
    ensure!(is_settling(outer.condition()), "the condition of the inner store is not known");
    Ok(())
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

    fn erase_names(&self, targets: Vec<Target>) -> BoxFuture<'static, Result<(), StoreError>> {
        self.memory.erase_names(targets)
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        let name = format!("{}.{}.{}", fence.shard, fence.epoch, fence.seq);
        ready(Ok(vec![Follower::new(name, true)])).boxed()
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Option<BoxFuture<'static, RevokedBy>> {
        self.memory.watch(token)
    }

    fn condition(&self) -> Condition {
        Condition::Answering(Doubt::Settling)
    }

    fn needs(&self) -> Needs {
        Needs::Text
    }

    fn expect_tokens_for(&self, longest: Duration) {
        self.longest_secs.store(longest.as_secs(), Ordering::SeqCst);
    }

    fn expect_targets(&self, accepted: &[AcceptedTargets]) {
        self.memory.expect_targets(accepted);
    }

    fn accepted_targets(&self) -> BoxFuture<'static, Result<Vec<AcceptedTargets>, StoreError>> {
        self.memory.accepted_targets()
    }

    fn add_metrics(&self, samples: &mut Samples) {
        self.memory.add_metrics(samples);
    }
}
