//! The rules, one case for each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::json;

use crate::revocation::{Revocation, Target};
use crate::revoker::Revoker;
use crate::session::{Login, Refresh, RefreshPolicy, SessionDetails, Sessions};
use crate::store::session::{Commit, Committed, Seen, SessionStore, Snapshot};
use crate::store::{RevocationStore, Standing};
use crate::testing::trial::{HOUR, Trial};
use crate::testing::{Failure, StoreFixture, Trialed, ensure, ensure_eq};
use crate::token::TokenProfile;

const SHORT: Duration = Duration::from_millis(300);

#[expect(clippy::unnecessary_wraps, reason = "documents are optional wherever they are named")]
fn text(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

impl<F: StoreFixture<Store: SessionStore>> Trial<'_, F> {
    async fn load(&self, documents: &[Target], records: &[Target]) -> Result<Snapshot, Failure> {
        let snapshot = self.store.load(documents.to_vec(), records.to_vec()).await?;
        let seen = (snapshot.documents.len(), snapshot.records.len());
        ensure_eq!(seen, (documents.len(), records.len()), "how many documents and records");
        Ok(snapshot)
    }

    async fn document(&self, key: &Target) -> Result<Option<Bytes>, Failure> {
        let mut snapshot = self.load(std::slice::from_ref(key), &[]).await?;
        Ok(snapshot.documents.pop().flatten())
    }

    async fn guards(&self, targets: &[Target]) -> Result<Vec<Seen>, Failure> {
        Ok(self.load(&[], targets).await?.records)
    }

    /// A change that is kept for an hour.
    fn change(&self, key: &Target, before: Option<Bytes>, after: Option<Bytes>) -> Commit {
        Commit::new(key.clone(), before, after, self.now().saturating_add(HOUR))
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Failure> {
        Ok(self.store.commit(commit).await?)
    }

    async fn put(&self, key: &Target, after: &str) -> Trialed {
        let before = self.document(key).await?;
        let done = self.commit(self.change(key, before, text(after))).await?;
        ensure_eq!(done, Committed::Done, "a commit of what nobody else changes");
        Ok(())
    }
}

pub(super) async fn what_was_committed_is_loaded<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let keys: Vec<_> = (0..40).map(|n| Target::family(format!("f{n}"))).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
        trial.put(key, &format!("document {n}")).await?;
    }
    let mut asked = keys.clone();
    asked.reverse();
    // Twice the same is answered twice.
    asked.extend_from_within(..1);
    let mut expected: Vec<_> =
        (0..40).map(|n| if n % 3 == 0 { None } else { text(&format!("document {n}")) }).collect();
    expected.reverse();
    expected.extend_from_within(..1);
    let found = trial.load(&asked, &[]).await?.documents;
    ensure_eq!(found, expected, "the documents");
    if let Some(another) = trial.fixture.another(&trial.store).await {
        let found = another.load(asked, Vec::new()).await?.documents;
        ensure_eq!(found, expected, "the documents, through another handle");
    }
    Ok(())
}

pub(super) async fn nothing_asked_is_nothing_read<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    trial.load(&[], &[]).await?;
    ensure_eq!(trial.store.count_members().await?, 0, "how many members an empty store has");
    Ok(())
}

pub(super) async fn a_snapshot_has_the_records<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let targets: Vec<_> = (0..20).map(|n| Target::user(format!("u{n}"))).collect();
    for target in targets.iter().step_by(2) {
        trial.revoke(target.clone()).await?;
    }
    let first = trial.load(&[], &targets).await?.records;
    for (seen, target) in first.iter().zip(&targets) {
        ensure_eq!(&seen.target, target, "whose record it is");
        ensure_eq!(seen.record, trial.find(target).await?, "the record of {target}");
    }
    // A stamp stays while the record does, and changes with it.
    trial.fixture.advance(Duration::from_millis(2)).await;
    for target in targets.iter().step_by(4) {
        trial.write(Revocation::new(target.clone(), HOUR * 2)).await?;
    }
    let second = trial.load(&[], &targets).await?.records;
    for (n, (first, second)) in first.iter().zip(&second).enumerate() {
        let is_same = first.stamp == second.stamp;
        ensure_eq!(is_same, n % 4 != 0, "whether the stamp of record {n} is as it was");
    }
    Ok(())
}

pub(super) async fn a_snapshot_tells_the_time<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let slack = Duration::from_secs(1);
    let key = Target::family("f");
    for _ in 0..2 {
        let before = trial.now().saturating_sub(slack);
        let now = trial.load(std::slice::from_ref(&key), &[Target::user("u")]).await?.now;
        let after = trial.now().saturating_add(slack);
        ensure!(
            before <= now && now <= after,
            "it says {now}, and was read between {before} and {after}, with a second to spare"
        );
        trial.fixture.advance(Duration::from_millis(1500)).await;
    }
    Ok(())
}

pub(super) async fn a_document_is_compared_and_set<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let key = Target::family("f");
    let wrong = trial.change(&key, text("something"), text("more"));
    ensure_eq!(trial.commit(wrong).await?, Committed::Conflict, "where there was no document");
    ensure_eq!(trial.document(&key).await?, None, "the document after a conflict");
    trial.put(&key, "first").await?;
    for before in [None, text("second"), text("firs"), text("first ")] {
        let wrong = trial.change(&key, before.clone(), text("other"));
        let done = trial.commit(wrong).await?;
        ensure_eq!(done, Committed::Conflict, "a commit on {before:?} over \"first\"");
        ensure_eq!(trial.document(&key).await?, text("first"), "the document after a conflict");
    }
    let right = trial.change(&key, text("first"), text("second"));
    ensure_eq!(trial.commit(right).await?, Committed::Done, "a commit on what is there");
    ensure_eq!(trial.document(&key).await?, text("second"), "the document after it");
    Ok(())
}

pub(super) async fn a_repeated_commit_is_done<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let key = Target::family("f");
    let member: Vec<(Box<str>, _)> = vec![("m".into(), Some(trial.now().saturating_add(HOUR)))];
    let guards = trial.guards(&[Target::user("u")]).await?;
    for (before, after) in [(None, text("a")), (text("a"), text("b")), (text("b"), None)] {
        let commit = trial.change(&key, before, after.clone());
        let commit = commit.with_members(member.clone()).with_guards(guards.clone());
        for time in ["first", "second", "third"] {
            let done = trial.commit(commit.clone()).await?;
            ensure_eq!(done, Committed::Done, "the {time} time");
            ensure_eq!(trial.document(&key).await?, after, "the document after the {time} time");
        }
    }
    ensure_eq!(trial.store.count_members().await?, 1, "how many members were counted");
    Ok(())
}

pub(super) async fn a_document_is_removed<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let key = Target::family("f");
    trial.put(&key, "first").await?;
    let removal = trial.change(&key, text("first"), None);
    ensure_eq!(trial.commit(removal).await?, Committed::Done, "a removal");
    ensure_eq!(trial.document(&key).await?, None, "the document after it");
    trial.put(&key, "second").await?;
    ensure_eq!(trial.document(&key).await?, text("second"), "a document that came after");
    Ok(())
}

pub(super) async fn a_document_may_be_any_bytes<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let key = Target::family("f");
    let mut before = None;
    let all_bytes: Vec<u8> = (0..=255).collect();
    for after in [&b""[..], b"\0", b"=", b"\xff\xfe", &all_bytes, &all_bytes.repeat(64)] {
        let after = Some(Bytes::copy_from_slice(after));
        let commit = trial.change(&key, before, after.clone());
        ensure_eq!(trial.commit(commit).await?, Committed::Done, "a commit of {after:?}");
        ensure_eq!(trial.document(&key).await?, after, "the document");
        before = after;
    }
    let empty = Target::family("empty");
    trial.put(&empty, "").await?;
    let on_nothing = trial.change(&empty, None, text("x"));
    let done = trial.commit(on_nothing).await?;
    ensure_eq!(done, Committed::Conflict, "a commit on none over one that is empty");
    Ok(())
}

pub(super) async fn documents_are_apart<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let keys = [
        Target::user("a"),
        Target::device("a"),
        Target::family("a"),
        Target::family("a").issued_by("https://a.example"),
        Target::family("a").issued_by("https://b.example"),
        Target::family("A"),
        Target::family("a:b"),
        Target::family("a\0"),
        Target::family("{a}"),
        Target::family("'"),
        Target::family("%"),
        Target::claim("a", "a"),
        Target::claim("b", "a"),
    ];
    for (n, key) in keys.iter().enumerate() {
        ensure_eq!(trial.document(key).await?, None, "the document of {key} before");
        ensure_eq!(trial.find(key).await?, None, "the record of {key} before");
        trial.put(key, &format!("{n}")).await?;
        ensure_eq!(trial.find(key).await?, None, "the record of {key} with a document");
    }
    trial.revoke(Target::family("a")).await?;
    trial.reinstate(Target::family("a")).await?;
    for (n, key) in keys.iter().enumerate() {
        ensure_eq!(trial.document(key).await?, text(&format!("{n}")), "the document of {key}");
    }
    ensure_eq!(trial.store.count().await?, 0, "how many revocations there are");
    Ok(())
}

pub(super) async fn a_document_is_forgotten_at_its_end<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (short, long) = (Target::family("short"), Target::family("long"));
    let end = trial.now().saturating_add(SHORT);
    for key in [&short, &long] {
        let commit = Commit::new(key.clone(), None, text("first"), end);
        ensure_eq!(trial.commit(commit).await?, Committed::Done, "a commit");
    }
    // The end is that of the latest commit.
    let commit = trial.change(&long, text("first"), text("second"));
    ensure_eq!(trial.commit(commit).await?, Committed::Done, "a commit with a later end");
    trial.fixture.advance(SHORT * 2).await;
    ensure_eq!(trial.document(&short).await?, None, "a document that is over");
    ensure_eq!(trial.document(&long).await?, text("second"), "a document that is not over");
    let stale = trial.change(&short, text("first"), text("second"));
    let done = trial.commit(stale).await?;
    ensure_eq!(done, Committed::Conflict, "a commit on a document that is over");
    let fresh = trial.change(&short, None, text("third"));
    ensure_eq!(trial.commit(fresh).await?, Committed::Done, "a commit after the end of another");
    Ok(())
}

pub(super) async fn a_changed_guard_is_never_done<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    // Some guards are on the shard of the document and some on others, where there are shards.
    for n in 0..12 {
        let user = Target::user(format!("u{n}"));
        for step in ["first revoked", "revoked again", "reinstated"] {
            let key = Target::family(format!("f{n} {step}"));
            let guards = trial.guards(&[Target::session("never"), user.clone()]).await?;
            trial.fixture.advance(Duration::from_millis(2)).await;
            if step == "reinstated" {
                trial.reinstate(user.clone()).await?;
            } else {
                trial.revoke(user.clone()).await?;
            }
            let commit = trial.change(&key, None, text("x")).with_guards(guards);
            let done = trial.commit(commit).await?;
            ensure!(done != Committed::Done, "it is done, although {user} was {step}");
            if done == Committed::Conflict {
                let document = trial.document(&key).await?;
                ensure_eq!(document, None, "the document after a conflict");
            }
        }
    }
    Ok(())
}

pub(super) async fn an_unchanged_guard_is_done<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let users: Vec<_> = (0..12).map(|n| Target::user(format!("u{n}"))).collect();
    for user in users.iter().step_by(2) {
        trial.revoke(user.clone()).await?;
    }
    let guards = trial.guards(&users).await?;
    // What is not guarded may change.
    trial.revoke(Target::user("other")).await?;
    trial.revoke(Target::family("f")).await?;
    let commit = trial.change(&Target::family("f"), None, text("x")).with_guards(guards);
    ensure_eq!(trial.commit(commit).await?, Committed::Done, "a commit with unchanged guards");
    Ok(())
}

pub(super) async fn a_guard_holds_when_calls_overlap<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    for n in 0..30 {
        let (key, user) = (Target::family(format!("f{n}")), Target::user(format!("u{n}")));
        let guards = trial.guards(std::slice::from_ref(&user)).await?;
        let commit = trial.change(&key, None, text("x")).with_guards(guards.clone());
        let (store, change) = (Arc::clone(&trial.store), Revocation::new(user.clone(), HOUR));
        let writing = tokio::spawn(async move { store.write(vec![change]).await });
        let store = Arc::clone(&trial.store);
        let committing = tokio::spawn(async move { store.commit(commit).await });
        let panicked = |error| Failure(format!("a call panicked: {error}"));
        let (written, done) = futures::join!(writing, committing);
        written.map_err(panicked)??;
        let done = done.map_err(panicked)??;
        let document = trial.document(&key).await?;
        let is_written = document.is_some();
        ensure_eq!(is_written, done != Committed::Conflict, "whether {done:?} has written");
        // Now the guard has changed for certain.
        let again = trial.change(&key, document, text("y")).with_guards(guards);
        let done = trial.commit(again).await?;
        ensure!(done != Committed::Done, "it is done, although {user} was revoked");
    }
    Ok(())
}

pub(super) async fn members_are_counted<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let later = Some(trial.now().saturating_add(HOUR));
    let soon = Some(trial.now().saturating_add(SHORT));
    let count = async |members: Vec<(&str, _)>| {
        let key = Target::family("f");
        let before = trial.document(&key).await?;
        let mut after = before.clone().unwrap_or_default().to_vec();
        after.push(b'.');
        let members = members.into_iter().map(|(id, end)| (id.into(), end)).collect();
        let commit = trial.change(&key, before, Some(after.into())).with_members(members);
        ensure_eq!(trial.commit(commit).await?, Committed::Done, "a commit with members");
        Ok(trial.store.count_members().await?)
    };
    ensure_eq!(count(vec![("a", later), ("b", later)]).await?, 2, "two members");
    ensure_eq!(count(vec![("b", later), ("c", soon)]).await?, 3, "one more, and one again");
    ensure_eq!(count(vec![("a", None), ("unknown", None)]).await?, 2, "one less");
    trial.fixture.advance(SHORT * 2).await;
    ensure_eq!(trial.store.count_members().await?, 1, "when one has ended");
    ensure_eq!(count(vec![("c", later)]).await?, 2, "when it is counted again");
    Ok(())
}

pub(super) async fn a_conflict_counts_no_members<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let member = vec![("m".into(), Some(trial.now().saturating_add(HOUR)))];
    let key = Target::family("f");
    let commit = trial.change(&key, text("no"), text("x")).with_members(member.clone());
    ensure_eq!(trial.commit(commit).await?, Committed::Conflict, "on what is not there");
    ensure_eq!(trial.store.count_members().await?, 0, "how many members were counted");
    let guards = trial.guards(std::slice::from_ref(&key)).await?;
    trial.revoke(key.clone()).await?;
    let commit = trial.change(&key, None, text("x")).with_members(member).with_guards(guards);
    // The guard is of the very target of the document, so they share a shard.
    ensure_eq!(trial.commit(commit).await?, Committed::Conflict, "with a guard that has changed");
    ensure_eq!(trial.store.count_members().await?, 0, "how many members were counted");
    Ok(())
}

pub(super) async fn of_overlapping_commits_one_is_done<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    for round in 0..5 {
        let key = Target::family(format!("f{round}"));
        let commits = (0..16).map(|n| {
            let commit = trial.change(&key, None, text(&format!("{n}")));
            let store = Arc::clone(&trial.store);
            tokio::spawn(async move { store.commit(commit).await })
        });
        let mut done = Vec::new();
        for (n, answer) in join_all(commits).await.into_iter().enumerate() {
            let answer = answer.map_err(|error| Failure(format!("a commit panicked: {error}")))?;
            if answer? == Committed::Done {
                done.push(format!("{n}"));
            }
        }
        ensure_eq!(done.len(), 1, "how many of 16 commits on the same document are done");
        let document = trial.document(&key).await?;
        ensure_eq!(document, done.first().and_then(|done| text(done)), "the document");
    }
    Ok(())
}

pub(super) async fn no_update_is_lost<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let (key, end) = (Target::user("u"), trial.now().saturating_add(HOUR));
    let tasks = (0..6).map(|task| {
        let (store, key) = (Arc::clone(&trial.store), key.clone());
        tokio::spawn(async move {
            for n in 0..8 {
                // Among six there is always one that gets through.
                for attempt in 0.. {
                    let snapshot = store.load(vec![key.clone()], Vec::new()).await?;
                    let before = snapshot.documents.into_iter().next().flatten();
                    // Others come in between, where the store lets them.
                    tokio::task::yield_now().await;
                    let mut after = before.clone().unwrap_or_default().to_vec();
                    after.extend_from_slice(format!("{task}.{n} ").as_bytes());
                    let commit = Commit::new(key.clone(), before, Some(after.into()), end);
                    if store.commit(commit).await? == Committed::Done {
                        break;
                    }
                    ensure!(attempt < 10_000, "nothing but conflicts");
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, Failure>(())
        })
    });
    for task in join_all(tasks).await {
        task.map_err(|error| Failure(format!("a task panicked: {error}")))??;
    }
    let document = trial.document(&key).await?.unwrap_or_default();
    let mut found: Vec<_> = document.split(|byte| *byte == b' ').collect();
    found.sort_unstable();
    found.dedup();
    // The last one is what comes after the last space: nothing.
    ensure_eq!(found.len(), 6 * 8 + 1, "how many of 48 updates are there");
    Ok(())
}

pub(super) async fn a_dropped_commit_goes_on<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let key = Target::family("f");
    let mut pending = trial.store.commit(trial.change(&key, None, text("x")));
    let _ = (&mut pending).now_or_never();
    drop(pending);
    let mut waited = Duration::ZERO;
    while trial.document(&key).await?.is_none() {
        ensure!(waited < Duration::from_secs(5), "a commit that was dropped is not done");
        tokio::time::sleep(Duration::from_millis(10)).await;
        waited += Duration::from_millis(10);
    }
    Ok(())
}

pub(super) async fn sessions_work_on_it<F: StoreFixture<Store: SessionStore>>(
    trial: &Trial<'_, F>,
) -> Trialed {
    let not_made = |error| Failure(format!("the sessions of the test: {error}"));
    let revoker = Revoker::new(Arc::clone(&trial.store), TokenProfile::new()).map_err(not_made)?;
    let sessions =
        Sessions::new(Arc::clone(&trial.store), revoker, RefreshPolicy::new()).map_err(not_made)?;
    for round in 0..3 {
        let login = sessions.login("alice", SessionDetails::new().on_device("phone")).await?;
        let Login::Granted(first) = login else {
            return Err(Failure(format!("a login after {round} others: {login:?}")));
        };
        let Refresh::Granted(second) = sessions.refresh(first.token.expose(), None).await? else {
            return Err(Failure("a refresh with the token of a login is refused".into()));
        };
        ensure_eq!(sessions.list("alice").await?.len(), 1, "how many sessions there are");
        ensure_eq!(sessions.count().await?, 1, "how many sessions are counted");
        let claims = json!({
            "sub": "alice", "sid": second.session, "fid": second.family, "jti": "t",
            "iat": trial.now().as_secs() - 60,
        });
        let token = trial.token_of(&TokenProfile::new(), claims)?;
        if round == 0 {
            ensure_eq!(trial.standing(&token).await?, Standing::Live, "the access token");
        }
        sessions.end_all("alice", None).await?;
        ensure!(trial.is_revoked(&token).await?, "the access token is live after the logout");
        let again = sessions.refresh(second.token.expose(), None).await?;
        ensure!(!matches!(again, Refresh::Granted(_)), "a refresh after the logout is granted");
        ensure_eq!(sessions.count().await?, 0, "how many sessions are counted at the end");
    }
    Ok(())
}
