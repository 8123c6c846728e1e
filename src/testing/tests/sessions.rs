//! The same for the rules of session stores.

use bytes::Bytes;

use super::*;
use crate::store::session::{Commit, Committed, SessionStore, Snapshot};

/// A memory store of which one method of sessions can be another.
struct Flawed {
    memory: MemoryStore,
    another: MemoryStore,
    load: Box<dyn Fn(&MemoryStore, Vec<Target>, Vec<Target>) -> Later<Snapshot> + Send + Sync>,
    commit: Box<dyn Fn(&MemoryStore, Commit) -> Later<Committed> + Send + Sync>,
    count: Box<dyn Fn(&MemoryStore) -> Later<u64> + Send + Sync>,
}

impl Flawed {
    fn none() -> Self {
        Self::over(MemoryStore::new())
    }

    fn over(memory: MemoryStore) -> Self {
        Self {
            another: memory.clone(),
            memory,
            load: Box::new(MemoryStore::load),
            commit: Box::new(MemoryStore::commit),
            count: Box::new(MemoryStore::count_members),
        }
    }

    fn commit(
        with: impl Fn(&MemoryStore, Commit) -> Later<Committed> + Send + Sync + 'static,
    ) -> Self {
        Self { commit: Box::new(with), ..Self::none() }
    }

    /// Each commit is another before it is done.
    fn change(with: impl Fn(Commit) -> Commit + Send + Sync + 'static) -> Self {
        Self::commit(move |memory, commit| memory.commit(with(commit)))
    }

    /// Each commit is taken to be decided on what is there.
    fn forced(memory: &MemoryStore, mut commit: Commit) -> Later<Committed> {
        let snapshot = now(memory.load(vec![commit.key.clone()], Vec::new())).unwrap();
        commit.before = snapshot.documents.into_iter().next().flatten();
        memory.commit(commit)
    }

    /// Each snapshot is another than it should be.
    fn snapshot(with: impl Fn(Snapshot) -> Snapshot + Send + Sync + 'static) -> Self {
        let load = move |memory: &MemoryStore, documents, records| {
            later(now(memory.load(documents, records)).map(&with))
        };
        Self { load: Box::new(load), ..Self::none() }
    }
}

impl RevocationStore for Flawed {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(&self, changes: Vec<Revocation>) -> Later<Vec<Receipt>> {
        self.memory.write(changes)
    }

    fn find(&self, target: &Target) -> Later<Option<Record>> {
        self.memory.find(target)
    }

    fn list(&self, query: ListQuery) -> Later<RecordPage> {
        self.memory.list(query)
    }

    fn count(&self) -> Later<u64> {
        self.memory.count()
    }
}

impl SessionStore for Flawed {
    fn load(&self, documents: Vec<Target>, records: Vec<Target>) -> Later<Snapshot> {
        (self.load)(&self.memory, documents, records)
    }

    fn commit(&self, commit: Commit) -> Later<Committed> {
        (self.commit)(&self.memory, commit)
    }

    fn count_members(&self) -> Later<u64> {
        (self.count)(&self.memory)
    }
}

struct Fixture<M>(M);

impl<M: Fn() -> Flawed + Send + Sync> StoreFixture for Fixture<M> {
    type Store = Flawed;

    async fn store(&self) -> Flawed {
        (self.0)()
    }

    async fn another(&self, store: &Flawed) -> Option<Flawed> {
        Some(Flawed::over(store.another.clone()))
    }
}

type MakesFlawed = Box<dyn Fn() -> Flawed + Send + Sync>;

fn flaws() -> Vec<(&'static str, MakesFlawed)> {
    fn flaw(
        rule: &'static str,
        make: impl Fn() -> Flawed + Send + Sync + 'static,
    ) -> (&'static str, MakesFlawed) {
        (rule, Box::new(make))
    }
    vec![
        flaw("WhatWasCommittedIsLoaded", || Flawed {
            another: MemoryStore::new(),
            ..Flawed::none()
        }),
        flaw("NothingAskedIsNothingRead", || {
            Flawed::snapshot(|mut snapshot| {
                if snapshot.documents.is_empty() {
                    snapshot.documents.push(None);
                }
                snapshot
            })
        }),
        flaw("ASnapshotHasTheRecords", || {
            // The stamp says that there is a record, not which.
            Flawed::snapshot(|mut snapshot| {
                for seen in &mut snapshot.records {
                    seen.stamp = seen.record.as_ref().map(|_| Bytes::from_static(b"there"));
                }
                snapshot
            })
        }),
        flaw("ASnapshotTellsTheTime", || {
            Flawed::snapshot(|snapshot| {
                Snapshot::new(Timestamp::from_secs(1), snapshot.documents, snapshot.records)
            })
        }),
        flaw("ADocumentIsComparedAndSet", || Flawed::commit(Flawed::forced)),
        flaw("ARepeatedCommitIsDone", || {
            Flawed::commit(|memory, commit| {
                let key = vec![commit.key.clone()];
                let current = now(memory.load(key, Vec::new())).unwrap().documents;
                if current.into_iter().next().flatten() == commit.after {
                    return later(Ok(Committed::Conflict));
                }
                memory.commit(commit)
            })
        }),
        flaw("ADocumentIsRemoved", || {
            Flawed::change(|mut commit| {
                commit.after = commit.after.or(Some(Bytes::new()));
                commit
            })
        }),
        flaw("ADocumentMayBeAnyBytes", || {
            Flawed::change(|mut commit| {
                commit.after = commit.after.filter(|after| !after.is_empty());
                commit
            })
        }),
        flaw("DocumentsAreApart", || {
            // By id alone.
            let plain = |target: &Target| Target::user(target.id());
            let load = move |memory: &MemoryStore, documents: Vec<Target>, records| {
                memory.load(documents.iter().map(plain).collect(), records)
            };
            let commit = move |memory: &MemoryStore, mut commit: Commit| {
                commit.key = plain(&commit.key);
                memory.commit(commit)
            };
            Flawed { load: Box::new(load), commit: Box::new(commit), ..Flawed::none() }
        }),
        flaw("ADocumentIsForgottenAtItsEnd", || {
            Flawed::change(|mut commit| {
                commit.until = commit.until.saturating_add(SECOND * 60);
                commit
            })
        }),
        flaw("AChangedGuardIsNeverDone", || {
            Flawed::change(|mut commit| {
                commit.guards.clear();
                commit
            })
        }),
        flaw("AnUnchangedGuardIsDone", || {
            // A guard that is revoked is taken for one that has changed.
            Flawed::commit(|memory, commit| {
                if commit.guards.iter().any(|guard| guard.record.is_some()) {
                    return later(Ok(Committed::Conflict));
                }
                memory.commit(commit)
            })
        }),
        flaw("AGuardHoldsWhenCallsOverlap", || {
            // What is written is answered as if it were not.
            Flawed::commit(|memory, mut commit| {
                let has_guards = !commit.guards.is_empty();
                commit.guards.clear();
                let done = now(memory.commit(commit));
                later(if has_guards { Ok(Committed::Conflict) } else { done })
            })
        }),
        flaw("MembersAreCounted", || Flawed {
            count: Box::new(|memory| later(now(memory.count_members()).map(|count| count.min(2)))),
            ..Flawed::none()
        }),
        flaw("AConflictCountsNoMembers", || {
            Flawed::commit(|memory, commit| {
                let counting = Commit::new(Target::user("x"), None, None, commit.until)
                    .with_members(commit.members.clone());
                let _ = now(memory.commit(counting)).unwrap();
                memory.commit(commit)
            })
        }),
        flaw("OfOverlappingCommitsOneIsDone", || Flawed::commit(Flawed::forced)),
        flaw("NoUpdateIsLost", || {
            // Some of what is done is not written.
            Flawed::commit(|memory, commit| match &commit.before {
                Some(before) if before.len() > 100 => later(Ok(Committed::Done)),
                _ => memory.commit(commit),
            })
        }),
        flaw("ADroppedCommitGoesOn", || {
            Flawed::commit(|memory, commit| {
                let memory = memory.clone();
                async move {
                    tokio::task::yield_now().await;
                    memory.commit(commit).await
                }
                .boxed()
            })
        }),
        flaw("SessionsWorkOnIt", || {
            Flawed::change(|mut commit| {
                commit.members.clear();
                commit
            })
        }),
    ]
}

/// On several threads, so that calls overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_is_broken_by_a_store_and_the_failure_names_it() {
    let flaws = flaws();
    let broken: HashSet<_> = flaws.iter().map(|(rule, _)| *rule).collect();
    let rules: HashSet<_> = Suite::of_session_store(&Fixture(Flawed::none)).rules().collect();
    assert_eq!(broken, rules, "each rule is broken by a store");
    join_all(flaws.iter().map(async |(rule, make)| {
        let fixture = Fixture(make);
        let violation = Suite::of_session_store(&fixture).check(rule).await.expect_err(rule);
        assert_eq!(violation.to_string().split(": ").next(), Some(*rule));
    }))
    .await;
}

#[tokio::test]
async fn a_store_without_a_flaw_conforms() {
    Suite::of_session_store(&Fixture(Flawed::none)).assert_conforms().await;
}
