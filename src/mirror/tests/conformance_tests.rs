//! The conformance suite of feeds: the scripted feed and that of memory keep every rule, and for
//! each rule there is a feed that breaks it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{pending, ready};

use super::world::ScriptedFeed;
use super::*;
use crate::store::feed::{EndDoubt, Heartbeat, LogEntry, Progress, SnapshotPage};
use crate::store::memory::MemoryStore;
use crate::testing::{StoreFixture, Suite};

/// What is wrong with a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    EpochZero,
    HeartbeatFromACache,
    HeartbeatOfOwnWrites,
    NumberGoesBack,
    ProgressNotedAfterTheState,
    ProgressAhead,
    FollowersOfOneHandle,
    NotedWithoutAnEpoch,
    LeaseTooShort,
    LeaseInWholeSeconds,
    LeaseForEver,
    LeaveIgnored,
    NumbersRepeated,
    GapHidden,
    PlacesRepeated,
    FactCut,
    OldEntriesAgain,
    NoWaiting,
    ReadForEver,
    SnapshotMissesAFact,
    SnapshotRevokesAll,
    SnapshotForEver,
    CountIsZero,
    FindInAnotherOrder,
    ReplayIgnored,
    ReplayOfOneFact,
    ReplayRevokesAll,
    ReplayWritesOver,
    ConnectionBeginsAnEpoch,
    OwnsNothing,
    LossUnnoticed,
    EndsEveryDoubt,
    SaysThatTheDoubtHasEnded,
}

const FLAWS: &[(&str, Flaw)] = &[
    ("AHeartbeatHasAnEpochAndATime", Flaw::EpochZero),
    ("AHeartbeatHoldsEveryConfirmedWrite", Flaw::HeartbeatFromACache),
    ("AHeartbeatHoldsEveryConfirmedWrite", Flaw::HeartbeatOfOwnWrites),
    ("TheNumberOfAHeartbeatNeverGoesBack", Flaw::NumberGoesBack),
    ("ProgressIsNotedBeforeTheStateIsRead", Flaw::ProgressNotedAfterTheState),
    ("ProgressIsNotedBeforeTheStateIsRead", Flaw::FollowersOfOneHandle),
    ("AMirrorIsFoundWithItsProgress", Flaw::FollowersOfOneHandle),
    ("AMirrorIsFoundWithItsProgress", Flaw::ProgressAhead),
    ("AMirrorWithoutAnEpochIsNotFound", Flaw::NotedWithoutAnEpoch),
    ("ALeaseLasts", Flaw::LeaseTooShort),
    ("ALeaseLasts", Flaw::LeaseInWholeSeconds),
    ("ALeaseEnds", Flaw::LeaseForEver),
    ("LeavingEndsTheLease", Flaw::LeaveIgnored),
    ("TheNumbersOfTheLogFollowEachOther", Flaw::NumbersRepeated),
    ("EveryChangeHasAnEntry", Flaw::GapHidden),
    ("ThePlacesOfTheLogIncrease", Flaw::PlacesRepeated),
    ("AnEntryHasTheWholeFact", Flaw::FactCut),
    ("OnlyLaterEntriesAreRead", Flaw::OldEntriesAgain),
    ("AReadWaitsForAnEntry", Flaw::NoWaiting),
    ("AReadWithoutEntriesEnds", Flaw::NoWaiting),
    ("AReadWithoutEntriesEnds", Flaw::ReadForEver),
    ("ASnapshotHasWhatIsThereThroughout", Flaw::SnapshotMissesAFact),
    ("ASnapshotRevokesNothingElse", Flaw::SnapshotRevokesAll),
    ("ASnapshotEnds", Flaw::SnapshotForEver),
    ("TheCountIsAboutRight", Flaw::CountIsZero),
    ("FactsAreFoundInOrder", Flaw::FindInAnotherOrder),
    ("AReplayIsAWrite", Flaw::ReplayIgnored),
    ("AReplayIsAWrite", Flaw::ReplayOfOneFact),
    ("AReplayIsAWrite", Flaw::ReplayRevokesAll),
    ("AReplayOfWhatIsKnownChangesNothing", Flaw::ReplayWritesOver),
    ("ANewConnectionGoesOn", Flaw::ConnectionBeginsAnEpoch),
    ("EachTargetBelongsToOneFeed", Flaw::OwnsNothing),
    ("ALossIsANewEpochWithADoubt", Flaw::LossUnnoticed),
    ("ADoubtIsNotEndedByOneThatMissedAChange", Flaw::EndsEveryDoubt),
    ("TheAnswerToTheEndOfADoubtIsTrue", Flaw::SaysThatTheDoubtHasEnded),
    ("TheAnswerToTheEndOfADoubtIsTrue", Flaw::ReplayOfOneFact),
];

/// A world whose feeds have this flaw.
struct FlawedWorld {
    world: World,
    flaw: Flaw,
    /// Whether it is the handle of another process.
    is_another: bool,
    /// The last number that was written through this handle.
    own_seq: Arc<AtomicU64>,
}

impl FlawedWorld {
    fn new(world: World, flaw: Flaw) -> Self {
        Self { world, flaw, is_another: false, own_seq: Arc::default() }
    }
}

impl RevocationStore for FlawedWorld {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.world.check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        let (world, own_seq) = (self.world.clone(), Arc::clone(&self.own_seq));
        async move {
            let receipts = RevocationStore::write(&world, changes).await;
            own_seq.store(world.seq(), Ordering::SeqCst);
            receipts
        }
        .boxed()
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.world.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.world.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.world.count()
    }

    fn followers(&self, fence: Fence) -> BoxFuture<'static, Result<Vec<Follower>, StoreError>> {
        if self.flaw == Flaw::FollowersOfOneHandle && self.is_another {
            return ready(Ok(Vec::new())).boxed();
        }
        self.world.followers(fence)
    }
}

impl FeedSource for FlawedWorld {
    type Feed = FlawedFeed;

    fn feeds(&self) -> Result<Vec<FlawedFeed>, ConfigError> {
        Ok(vec![FlawedFeed {
            inner: self.world.feed(),
            world: self.world.clone(),
            flaw: self.flaw,
            own_seq: Arc::clone(&self.own_seq),
            heartbeats: 0,
            connections: 0,
            cached: None,
        }])
    }
}

struct FlawedFeed {
    inner: ScriptedFeed,
    world: World,
    flaw: Flaw,
    own_seq: Arc<AtomicU64>,
    heartbeats: u64,
    connections: u64,
    cached: Option<Heartbeat>,
}

impl Feed for FlawedFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.connections += 1;
        self.inner.connect().await
    }

    async fn heartbeat(&mut self, mut progress: Progress) -> Result<Heartbeat, StoreError> {
        self.heartbeats += 1;
        match self.flaw {
            Flaw::HeartbeatFromACache => {
                let newer = self.inner.heartbeat(progress).await?;
                return Ok(self.cached.replace(newer.clone()).unwrap_or(newer));
            }
            Flaw::ProgressNotedAfterTheState => {
                let state = self.inner.heartbeat(Progress { epoch: 0, ..progress.clone() }).await?;
                sleep_a_little().await;
                self.inner.heartbeat(progress).await?;
                return Ok(state);
            }
            Flaw::ProgressAhead => progress.seq += 1,
            Flaw::NotedWithoutAnEpoch => progress.epoch = progress.epoch.max(1),
            Flaw::LeaseTooShort => progress.lease = Duration::from_millis(1),
            Flaw::LeaseInWholeSeconds => {
                progress.lease = Duration::from_secs(progress.lease.as_secs());
            }
            Flaw::LeaseForEver => progress.lease *= 1_000_000,
            _ => {}
        }
        let mut heartbeat = self.inner.heartbeat(progress).await?;
        match self.flaw {
            Flaw::EpochZero => heartbeat.epoch = 0,
            Flaw::HeartbeatOfOwnWrites => heartbeat.seq = self.own_seq.load(Ordering::SeqCst),
            Flaw::NumberGoesBack => {
                heartbeat.seq = heartbeat.seq.saturating_sub(self.heartbeats % 2);
            }
            Flaw::ConnectionBeginsAnEpoch => heartbeat.epoch += self.connections,
            Flaw::LossUnnoticed => heartbeat.doubt = Doubt::None,
            _ => {}
        }
        Ok(heartbeat)
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
        self.inner.tail().await
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        let count = self.inner.count().await?;
        Ok(if self.flaw == Flaw::CountIsZero { 0 } else { count })
    }

    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        let mut page = self.inner.snapshot(cursor).await?;
        match self.flaw {
            Flaw::SnapshotMissesAFact => drop(page.facts.pop()),
            Flaw::SnapshotRevokesAll => {
                page.facts.iter_mut().for_each(|(_, fact)| *fact = Fact::revoked_until(fact.until));
            }
            Flaw::SnapshotForEver => page.next = Some(0),
            _ => {}
        }
        Ok(page)
    }

    async fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> Result<Vec<Option<Fact>>, StoreError> {
        let mut found = self.inner.find(fingerprints).await?;
        if self.flaw == Flaw::FindInAnotherOrder {
            found.reverse();
        }
        Ok(found)
    }

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let (after, wait) = match self.flaw {
            Flaw::OldEntriesAgain => (after.saturating_sub(2), wait),
            Flaw::NoWaiting => (after, Duration::ZERO),
            Flaw::ReadForEver if !wait.is_zero() => return pending().await,
            _ => (after, wait),
        };
        let mut entries = self.inner.read(after, wait).await?;
        match self.flaw {
            Flaw::NumbersRepeated => entries.iter_mut().for_each(|entry| entry.seq &= !1),
            // One of each batch is left out, and the others have its number.
            Flaw::GapHidden if entries.len() > 1 => {
                entries.remove(0);
                for entry in &mut entries {
                    entry.seq -= 1;
                }
            }
            Flaw::PlacesRepeated => {
                let last = entries.last().map(|entry| entry.id);
                for entry in &mut entries {
                    entry.id = last.unwrap();
                }
            }
            Flaw::FactCut => entries.iter_mut().for_each(|entry| {
                entry.fact = Fact::revoked_until(entry.fact.until);
            }),
            _ => {}
        }
        Ok(entries)
    }

    async fn replay(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        match self.flaw {
            Flaw::ReplayIgnored => Ok(()),
            Flaw::ReplayOfOneFact => self.inner.replay(facts.get(..1).unwrap_or_default()).await,
            Flaw::ReplayRevokesAll => {
                let all = facts.iter().map(|(name, fact)| (*name, Fact::revoked_until(fact.until)));
                self.inner.replay(&all.collect::<Vec<_>>()).await
            }
            Flaw::ReplayWritesOver => {
                for (fingerprint, fact) in facts {
                    self.world.put(*fingerprint, *fact);
                }
                Ok(())
            }
            _ => self.inner.replay(facts).await,
        }
    }

    async fn end_doubt(&mut self, request: EndDoubt) -> Result<bool, StoreError> {
        match self.flaw {
            Flaw::EndsEveryDoubt => {
                self.world.clear_doubt();
                Ok(true)
            }
            Flaw::SaysThatTheDoubtHasEnded => Ok(true),
            _ => self.inner.end_doubt(request).await,
        }
    }

    fn owns(&self, fingerprint: &Fingerprint) -> bool {
        self.flaw != Flaw::OwnsNothing && self.inner.owns(fingerprint)
    }

    async fn leave(&mut self) {
        if self.flaw != Flaw::LeaveIgnored {
            self.inner.leave().await;
        }
    }
}

async fn sleep_a_little() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

struct WorldFixture(Flaw);

impl StoreFixture for WorldFixture {
    type Store = FlawedWorld;

    async fn store(&self) -> FlawedWorld {
        FlawedWorld::new(World::new(), self.0)
    }

    async fn another(&self, store: &FlawedWorld) -> Option<FlawedWorld> {
        let another = FlawedWorld::new(store.world.clone(), store.flaw);
        Some(FlawedWorld { is_another: true, ..another })
    }

    async fn lose_data(&self, store: &FlawedWorld) -> bool {
        let known = store.world.seq();
        store.world.flush();
        // The processes that wrote say how far they knew it.
        store.world.report_known(known);
        true
    }
}

struct MemoryFixture;

impl StoreFixture for MemoryFixture {
    type Store = MemoryStore;

    async fn store(&self) -> MemoryStore {
        MemoryStore::new()
    }

    async fn another(&self, store: &MemoryStore) -> Option<MemoryStore> {
        Some(store.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn the_scripted_feed_keeps_every_rule() {
    Suite::of_feed(&WorldFixture(Flaw::None)).assert_conforms().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_of_memory_keeps_every_rule() {
    Suite::of_feed(&MemoryFixture).assert_conforms().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_breaks_a_rule_fails_by_its_name() {
    for (rule, flaw) in FLAWS {
        let Err(violation) = Suite::of_feed(&WorldFixture(*flaw)).check(rule).await else {
            panic!("{rule} does not notice {flaw:?}")
        };
        let violation = violation.to_string();
        let (broken, detail) = violation.split_once(": ").unwrap();
        assert_eq!(broken, *rule);
        assert!(!detail.is_empty());
    }
    let broken: HashSet<_> = FLAWS.iter().map(|(rule, _)| *rule).collect();
    let rules: HashSet<_> = Suite::of_feed(&MemoryFixture).rules().collect();
    assert_eq!(broken, rules, "each rule is broken by a feed");
}

#[tokio::test(start_paused = true)]
async fn a_mirror_of_a_memory_store_is_ready_and_follows() {
    let store = MemoryStore::new();
    let mirror = Mirror::new(store.clone()).unwrap();
    settle("ready", mirror.ready()).await;
    assert_eq!(local(&mirror, "a"), Some(Standing::Live));
    let change = Revocation::new(Target::token("a"), Duration::from_secs(3600));
    let receipt = RevocationStore::write(&store, vec![change]).await.unwrap().remove(0);
    let fence = receipt.fence.unwrap();
    settle("followed", mirror.wait_for(fence)).await.unwrap();
    assert!(is_revoked(&mirror, "a"));
    until(&mirror, "everything is known", |status| status.lag() == 0).await;
    advance_by(LIMIT).await;
    let followers = mirror.followers(fence).await.unwrap();
    assert!(matches!(followers.as_slice(), [follower] if follower.has_applied), "{followers:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_feed_gets_wrong_is_an_error_and_never_an_answer() {
    for flaw in [Flaw::EpochZero, Flaw::PlacesRepeated, Flaw::SnapshotForEver] {
        let world = World::new();
        for n in 0..20 {
            world.revoke(&format!("t{n}")).await;
        }
        let mirror = Mirror::new(FlawedWorld::new(world.clone(), flaw)).unwrap();
        if flaw == Flaw::PlacesRepeated {
            settle("ready", mirror.ready()).await;
            world.revoke("a").await;
            world.revoke("b").await;
        }
        let status = until(&mirror, "an error", |status| status.shards[0].error.is_some()).await;
        let error = status.shards[0].error.as_ref().unwrap();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{flaw:?}");
        advance_by(LIMIT * 2).await;
        assert_eq!(local(&mirror, "nobody"), None, "{flaw:?}: the store is asked");
    }
}
