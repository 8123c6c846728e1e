//! The suites can fail: each rule is broken by a store, and the failure names the rule.
#![allow(
    clippy::type_complexity,
    clippy::too_many_lines,
    reason = "a table of functions that stand for the methods of a trait"
)]

#[cfg(feature = "sessions")]
mod sessions;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all, ready};

use super::*;
use crate::revocation::{Action, Extent, Outcome, Record, Revocation, Target, TargetKind};
use crate::store::memory::MemoryStore;
use crate::store::{Fence, Follower, ListQuery, Lookup, Receipt, RecordPage, RevokedBy, Standing};
use crate::verified::VerifiedToken;

type Later<T> = BoxFuture<'static, Result<T, StoreError>>;

/// A memory store of which one method can be another.
struct Flawed {
    memory: MemoryStore,
    another: Option<MemoryStore>,
    /// Whether it is at another server by now.
    has_moved: Arc<AtomicBool>,
    check: Box<dyn Fn(&MemoryStore, &Arc<VerifiedToken>) -> Lookup + Send + Sync>,
    write: Box<dyn Fn(&MemoryStore, Vec<Revocation>) -> Later<Vec<Receipt>> + Send + Sync>,
    find: Box<dyn Fn(&MemoryStore, &Target) -> Later<Option<Record>> + Send + Sync>,
    list: Box<dyn Fn(&MemoryStore, ListQuery) -> Later<RecordPage> + Send + Sync>,
    count: Box<dyn Fn(&MemoryStore) -> Later<u64> + Send + Sync>,
    watch: Box<dyn Fn(&MemoryStore, &Arc<VerifiedToken>) -> Watch + Send + Sync>,
    erase: Box<dyn Fn(&MemoryStore, Vec<Target>) -> Later<()> + Send + Sync>,
}

type Watch = Option<BoxFuture<'static, RevokedBy>>;

impl Flawed {
    fn none() -> Self {
        Self::over(MemoryStore::new())
    }

    fn over(memory: MemoryStore) -> Self {
        Self {
            another: Some(memory.clone()),
            memory,
            has_moved: Arc::default(),
            check: Box::new(MemoryStore::check),
            write: Box::new(MemoryStore::write),
            find: Box::new(MemoryStore::find),
            list: Box::new(MemoryStore::list),
            count: Box::new(MemoryStore::count),
            watch: Box::new(MemoryStore::watch),
            erase: Box::new(MemoryStore::erase_names),
        }
    }

    fn check(
        with: impl Fn(&MemoryStore, &Arc<VerifiedToken>) -> Lookup + Send + Sync + 'static,
    ) -> Self {
        Self { check: Box::new(with), ..Self::none() }
    }

    fn write(
        with: impl Fn(&MemoryStore, Vec<Revocation>) -> Later<Vec<Receipt>> + Send + Sync + 'static,
    ) -> Self {
        Self { write: Box::new(with), ..Self::none() }
    }

    /// Each change is another before it is written.
    fn change(with: impl Fn(Revocation) -> Revocation + Send + Sync + 'static) -> Self {
        Self::write(move |memory, changes| memory.write(changes.into_iter().map(&with).collect()))
    }

    /// Each receipt is another than it should be.
    fn receipt(with: impl Fn(Receipt) -> Receipt + Send + Sync + 'static) -> Self {
        Self::write(move |memory, changes| {
            let receipts = now(memory.write(changes));
            later(receipts.map(|receipts| receipts.into_iter().map(&with).collect()))
        })
    }

    /// What is found is another record.
    fn find(with: impl Fn(Record) -> Record + Send + Sync + 'static) -> Self {
        let find = move |memory: &MemoryStore, target: &Target| {
            later(now(memory.find(target)).map(|record| record.map(&with)))
        };
        Self { find: Box::new(find), ..Self::none() }
    }

    fn list(
        with: impl Fn(&MemoryStore, ListQuery) -> Later<RecordPage> + Send + Sync + 'static,
    ) -> Self {
        Self { list: Box::new(with), ..Self::none() }
    }
}

impl RevocationStore for Flawed {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        (self.check)(&self.memory, token)
    }

    fn write(&self, changes: Vec<Revocation>) -> Later<Vec<Receipt>> {
        (self.write)(&self.memory, changes)
    }

    fn find(&self, target: &Target) -> Later<Option<Record>> {
        (self.find)(&self.memory, target)
    }

    fn list(&self, query: ListQuery) -> Later<RecordPage> {
        (self.list)(&self.memory, query)
    }

    fn count(&self) -> Later<u64> {
        (self.count)(&self.memory)
    }

    fn erase_names(&self, targets: Vec<Target>) -> Later<()> {
        (self.erase)(&self.memory, targets)
    }

    fn followers(&self, fence: Fence) -> Later<Vec<Follower>> {
        self.memory.followers(fence)
    }

    fn watch(&self, token: &Arc<VerifiedToken>) -> Watch {
        (self.watch)(&self.memory, token)
    }
}

/// What a memory store answers, which it knows at once.
fn now<T>(answer: Later<T>) -> Result<T, StoreError> {
    answer.now_or_never().unwrap()
}

fn later<T: Send + 'static>(answer: Result<T, StoreError>) -> Later<T> {
    ready(answer).boxed()
}

fn known(standing: Standing) -> Lookup {
    Lookup::Now(Ok(standing))
}

/// Revoked if any record of a target of the token says so.
fn decided(
    memory: &MemoryStore,
    token: &VerifiedToken,
    covers: impl Fn(&Record) -> bool,
) -> Lookup {
    let records = memory.read();
    let mut found = token.targets().iter().filter_map(|target| records.get(target.fingerprint()));
    let hit = found.find(|record| covers(record)).map(RevokedBy::from);
    known(hit.map_or(Standing::Live, Standing::Revoked))
}

struct Fixture<M>(M);

impl<M: Fn() -> Flawed + Send + Sync> StoreFixture for Fixture<M> {
    type Store = Flawed;

    async fn store(&self) -> Flawed {
        (self.0)()
    }

    async fn another(&self, store: &Flawed) -> Option<Flawed> {
        store.another.clone().map(Flawed::over)
    }

    async fn change_server(&self, store: &Flawed) -> bool {
        store.has_moved.store(true, Ordering::SeqCst);
        true
    }
}

type MakesFlawed = Box<dyn Fn() -> Flawed + Send + Sync>;

/// A rule, and a store that breaks it.
fn flaws() -> Vec<(&'static str, MakesFlawed)> {
    fn flaw(
        rule: &'static str,
        make: impl Fn() -> Flawed + Send + Sync + 'static,
    ) -> (&'static str, MakesFlawed) {
        (rule, Box::new(make))
    }
    vec![
        flaw("EachKindRevokesItsTokensAndNoOthers", || {
            // One kind is forgotten.
            Flawed::check(|memory, token| {
                decided(memory, token, |record| {
                    record.covers(token) && record.target().kind() != TargetKind::Client
                })
            })
        }),
        flaw("AKeyRevokesWhatItSigned", || {
            Flawed::check(|memory, token| {
                decided(memory, token, |record| {
                    record.covers(token) && record.target().kind() != TargetKind::Key
                })
            })
        }),
        flaw("AConfirmedWriteIsSeenEverywhere", || Flawed {
            another: Some(MemoryStore::new()),
            ..Flawed::none()
        }),
        flaw("ARevocationOfAllCoversLaterTokens", || {
            Flawed::change(|mut change| {
                if change.action == Action::Revoke(Extent::All) {
                    change.action = Action::Revoke(Extent::IssuedSoFar);
                }
                change
            })
        }),
        flaw("ACutoffCoversItsSecondAndNothingLater", || {
            // `<` instead of `<=`.
            Flawed::check(|memory, token| {
                let issued_at = token.issued_at().map(|at| at.saturating_add(MILLISECOND));
                decided(memory, token, |record| record.covers_issued_at(issued_at, None))
            })
        }),
        flaw("ATokenWithoutIatIsCovered", || {
            Flawed::check(|memory, token| {
                let issued_at = token.issued_at().unwrap_or(Timestamp::from_secs(1 << 40));
                decided(memory, token, |record| record.covers_issued_at(Some(issued_at), None))
            })
        }),
        flaw("ACutoffSparesASession", || {
            // Whom a cutoff spares is not looked at.
            Flawed::check(|memory, token| {
                let issued_at = token.issued_at();
                decided(memory, token, |record| record.covers_issued_at(issued_at, None))
            })
        }),
        flaw("ACutoffAlwaysAdvances", || {
            // The second cutoff in the same second is that of the first.
            Flawed::write(|memory, changes| {
                let at = SystemClock.now();
                let is_known = changes.iter().any(|change| {
                    let record = now(memory.find(&change.target)).unwrap();
                    record
                        .and_then(|record| record.cutoff())
                        .is_some_and(|cutoff| cutoff.as_secs() == at.as_secs())
                });
                if is_known {
                    let receipt = Receipt::new(Outcome::Extended, at);
                    return later(Ok(vec![receipt.with_reissue_at(Some(at))]));
                }
                memory.write(changes)
            })
        }),
        flaw("WritesJoinInAnyOrder", || {
            Flawed::write(|memory, changes| {
                // The last write counts.
                for change in &changes {
                    memory.forget(&change.target);
                }
                memory.write(changes)
            })
        }),
        flaw("NothingShortensARevocation", || {
            Flawed::write(|memory, changes| {
                for change in &changes {
                    memory.forget(&change.target);
                }
                memory.write(changes)
            })
        }),
        flaw("ARepeatedWriteChangesNothing", || {
            Flawed::receipt(|mut receipt| {
                receipt.outcome = Outcome::New;
                receipt
            })
        }),
        flaw("AReinstatementUndoesThePast", || {
            Flawed::write(|memory, changes| {
                let is_undo = |change: &Revocation| change.action == Action::Reinstate;
                if changes.iter().any(is_undo) {
                    return later(Ok(vec![Receipt::new(Outcome::Already, SystemClock.now())]));
                }
                memory.write(changes)
            })
        }),
        flaw("ATieIsRevoked", || {
            // Who was reinstated stays so for the rest of the second.
            Flawed::write(|memory, changes| {
                let at = SystemClock.now();
                let is_known = changes.iter().any(|change| {
                    let record = now(memory.find(&change.target)).unwrap();
                    let back = record.map(|record| record.fact().reinstated_at);
                    back.is_some_and(|back| back.as_secs() == at.as_secs())
                });
                if is_known {
                    return later(Ok(vec![Receipt::new(Outcome::New, at)]));
                }
                memory.write(changes)
            })
        }),
        flaw("AReinstatementLeavesOtherTargets", || {
            Flawed::write(|memory, mut changes| {
                let others: Vec<_> = changes
                    .iter()
                    .filter(|change| change.action == Action::Reinstate)
                    .map(|change| {
                        let mut other = change.clone();
                        other.target = Target::user(change.target.id());
                        other
                    })
                    .collect();
                let count = changes.len();
                changes.extend(others);
                let receipts = now(memory.write(changes));
                later(receipts.map(|receipts| receipts.into_iter().take(count).collect()))
            })
        }),
        flaw("ReceiptsComeInOrder", || {
            Flawed::write(|memory, changes| {
                let receipts = now(memory.write(changes));
                later(receipts.map(|receipts| receipts.into_iter().rev().collect()))
            })
        }),
        flaw("ChangesOfOneWriteAreDoneInOrder", || {
            Flawed::write(|memory, mut changes| {
                changes.reverse();
                memory.write(changes)
            })
        }),
        flaw("NothingAskedIsNothingDone", || {
            Flawed::write(|memory, changes| {
                if changes.is_empty() {
                    return later(Ok(vec![Receipt::new(Outcome::Already, SystemClock.now())]));
                }
                memory.write(changes)
            })
        }),
        flaw("ARecordSaysWhoWhatWhyAndWhen", || Flawed::find(|record| record.with_actor(None))),
        flaw("WhatIsOverNeedsNoRecord", || {
            Flawed::change(|mut change| {
                change.until = change.until.max(SystemClock.now().saturating_add(SECOND));
                change
            })
        }),
        flaw("ARecordIsKeptUntilItsEnd", || {
            Flawed::change(|mut change| {
                change.lifetime = change.lifetime.min(SECOND / 2);
                change
            })
        }),
        flaw("ExpiryOnlyForgets", || {
            Flawed::change(|mut change| {
                change.lifetime = change.lifetime.max(SECOND * 60);
                change
            })
        }),
        flaw("UnusualIdsAreOnlyThemselves", || {
            Flawed::check(|memory, token| {
                let id = token.id().unwrap_or_default().trim();
                let target = Target::token(id).fingerprint();
                let covers = |record: &&Record| record.covers(token);
                let hit = memory.read().get(&target).filter(covers).map(RevokedBy::from);
                known(hit.map_or(Standing::Live, Standing::Revoked))
            })
        }),
        flaw("TheLongestTextsAreKept", || {
            Flawed::find(|record| {
                let reason = record.reason().map(|reason| reason.chars().take(255).collect());
                record.with_reason(reason.map(|reason: String| reason.into()))
            })
        }),
        flaw("IdsOfOthersAreApart", || {
            Flawed::check(|memory, token| {
                let records = memory.read();
                let mut targets = token.targets().iter().map(|target| token.describe(target));
                let is_same = |one: &Target, other: &Target| {
                    (one.kind(), one.id()) == (other.kind(), other.id())
                };
                let hit = targets.find_map(|target| {
                    records
                        .values()
                        .find(|record| is_same(record.target(), &target) && record.covers(token))
                });
                known(hit.map_or(Standing::Live, |hit| Standing::Revoked(hit.into())))
            })
        }),
        flaw("AListingIsComplete", || {
            Flawed::list(|memory, query| {
                let page = now(memory.list(query));
                later(page.map(|page| RecordPage::new(page.records, None)))
            })
        }),
        flaw("AListingIsFiltered", || {
            Flawed::list(|memory, mut query| {
                query.actor = None;
                memory.list(query)
            })
        }),
        flaw("AForeignCursorIsAnError", || {
            Flawed::list(|memory, mut query| {
                query.cursor = query.cursor.filter(|cursor| cursor.len() == 32);
                memory.list(query)
            })
        }),
        flaw("CountIsWhatIsInEffect", || Flawed {
            count: Box::new(|memory| later(Ok(memory.read().len() as u64))),
            ..Flawed::none()
        }),
        flaw("ADroppedWriteGoesOn", || {
            Flawed::write(|memory, changes| {
                let memory = memory.clone();
                async move {
                    tokio::task::yield_now().await;
                    memory.write(changes).await
                }
                .boxed()
            })
        }),
        flaw("OverlappingWritesAreAllKept", || {
            // It is right to say no, not to lose a write.
            let busy = Arc::new(AtomicBool::new(false));
            Flawed::write(move |memory, changes| {
                let (memory, busy) = (memory.clone(), Arc::clone(&busy));
                async move {
                    let receipts =
                        changes.iter().map(|_| Receipt::new(Outcome::New, SystemClock.now()));
                    let receipts = receipts.collect();
                    if busy.swap(true, Ordering::SeqCst) {
                        return Ok(receipts);
                    }
                    tokio::task::yield_now().await;
                    let receipts = memory.write(changes).await;
                    busy.store(false, Ordering::SeqCst);
                    receipts
                }
                .boxed()
            })
        }),
        flaw("AFenceCanBeAskedAbout", || {
            Flawed::receipt(|receipt| receipt.with_fence(Some(Fence::new(0, 1, 1))))
        }),
        flaw("AChangeOfServerLosesNothing", || {
            let has_moved = Arc::new(AtomicBool::new(false));
            let has_lost = Arc::clone(&has_moved);
            let flawed = Flawed::check(move |memory, token| {
                if has_lost.load(Ordering::SeqCst) {
                    return known(Standing::Live);
                }
                memory.check(token)
            });
            Flawed { has_moved, ..flawed }
        }),
        flaw("AWatchEndsWithTheRevocation", || Flawed {
            watch: Box::new(|_, _| Some(ready(RevokedBy::new(TargetKind::User)).boxed())),
            ..Flawed::none()
        }),
        flaw("ErasedNamesLeaveWhatIsRevoked", || Flawed {
            erase: Box::new(|memory, targets| {
                for target in targets {
                    memory.forget(&target);
                }
                later(Ok(()))
            }),
            ..Flawed::none()
        }),
        flaw("TheRevokerWritesWhatTheCheckFinds", || {
            Flawed::check(|memory, token| {
                decided(memory, token, |record| {
                    record.covers(token) && record.target().kind() != TargetKind::Token
                })
            })
        }),
    ]
}

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

#[tokio::test]
async fn each_rule_is_broken_by_a_store_and_the_failure_names_it() {
    let flaws = flaws();
    let broken: HashSet<_> = flaws.iter().map(|(rule, _)| *rule).collect();
    let rules: HashSet<_> = Suite::of_store(&Fixture(Flawed::none)).rules().collect();
    assert_eq!(broken, rules, "each rule is broken by a store");
    // All at once, since some have to wait.
    join_all(flaws.iter().map(async |(rule, make)| {
        let violation = Suite::of_store(&Fixture(make)).check(rule).await.expect_err(rule);
        assert_eq!(violation.to_string().split(": ").next(), Some(*rule));
        assert!(violation.to_string().starts_with(rule), "{violation}");
    }))
    .await;
}

#[tokio::test]
async fn a_store_without_a_flaw_conforms() {
    Suite::of_store(&Fixture(Flawed::none)).assert_conforms().await;
}

#[tokio::test]
#[should_panic(expected = "AListingIsFiltered")]
async fn the_panic_names_the_rule() {
    let make = || Flawed::list(|memory, _| memory.list(ListQuery::default()));
    Suite::of_store(&Fixture(make)).assert_conforms().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_breaks_the_rule() {
    let make = || Flawed::check(|_, _| Lookup::Later(std::future::pending().boxed()));
    let fixture = Fixture(make);
    let suite = Suite::of_store(&fixture);
    let violation = suite.check("AKeyRevokesWhatItSigned").await.unwrap_err();
    assert!(violation.to_string().contains("not answered"), "{violation}");
    // A name that is misspelt is not a rule that is kept.
    assert!(suite.check("AKeyRevokesWhatItSign").await.is_err());
}

#[tokio::test]
async fn a_wrapper_that_forgets_what_has_a_default_is_found() {
    /// The trait methods that have no default, and no more.
    struct Forgetful<S>(S);

    impl<S: RevocationStore> RevocationStore for Forgetful<S> {
        fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
            self.0.check(token)
        }

        fn write(&self, changes: Vec<Revocation>) -> Later<Vec<Receipt>> {
            self.0.write(changes)
        }

        fn find(&self, target: &Target) -> Later<Option<Record>> {
            self.0.find(target)
        }

        fn list(&self, query: ListQuery) -> Later<RecordPage> {
            self.0.list(query)
        }

        fn count(&self) -> Later<u64> {
            self.0.count()
        }
    }

    Suite::of_wrapper(Arc::new).assert_conforms().await;
    let suite = Suite::of_wrapper(Forgetful);
    for rule in suite.rules() {
        let violation = suite.check(rule).await.expect_err(rule);
        assert_eq!(violation.to_string().split(": ").next(), Some(rule));
    }
}
