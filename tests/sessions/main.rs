//! Sessions and refresh-token families, over every store: the same tests for memory, Redis, and
//! Redis in shards.
#![cfg(feature = "sessions")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

#[cfg(feature = "redis")]
mod abandoned;
#[cfg(feature = "test-util")]
mod contract;
#[cfg(feature = "redis")]
mod crowd;
#[cfg(feature = "redis")]
mod erasure;
#[cfg(feature = "test-util")]
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[cfg(feature = "redis")]
mod hold;
#[cfg(feature = "redis")]
mod interleavings;
#[cfg(feature = "test-util")]
mod observed;
mod on_behalf;
#[cfg(feature = "redis")]
mod on_redis;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::session::{
    Ended, EvictionPolicy, Families, Grant, Login, NewFamily, Refresh, RefreshPolicy, Refusal,
    SessionDetails, Sessions, TrustedDevice,
};
use tower_jwt_revocation::store::session::{Commit, Committed, SessionStore};
use tower_jwt_revocation::store::{Standing, StoreErrorKind};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{Extent, MemoryStore, Revoker, Target, TokenProfile, VerifiedToken};

// === Words for the tests ===

/// A store, and what it rests on.
trait Ground: Clone + Send + Sync + 'static {
    type Store: SessionStore + Clone;
    fn store(&self) -> Self::Store;
}

#[derive(Clone)]
struct Memory(MemoryStore);

impl Ground for Memory {
    type Store = MemoryStore;
    fn store(&self) -> MemoryStore {
        self.0.clone()
    }
}

fn sessions(ground: &impl Ground, policy: RefreshPolicy) -> Sessions {
    let revoker = Revoker::new(ground.store(), TokenProfile::new()).unwrap();
    Sessions::new(ground.store(), revoker, policy).unwrap()
}

fn policy() -> RefreshPolicy {
    RefreshPolicy::new().with_grace(Duration::from_secs(30))
}

fn strict() -> RefreshPolicy {
    RefreshPolicy::new().with_grace(Duration::ZERO)
}

async fn login(sessions: &Sessions, user: &str) -> Grant {
    granted_login(sessions.login(user, SessionDetails::new().on_device("phone")).await.unwrap())
}

#[track_caller]
fn granted_login(login: Login) -> Grant {
    match login {
        Login::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

#[track_caller]
fn granted<T: std::fmt::Debug>(refresh: Refresh<T>) -> Grant<T> {
    match refresh {
        Refresh::Granted(grant) => grant,
        refused => panic!("not granted: {refused:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(refresh: Refresh<T>) -> Refusal {
    match refresh {
        Refresh::Refused(refusal) => refusal,
        granted => panic!("not refused: {granted:?}"),
    }
}

async fn refresh(sessions: &Sessions, grant: &Grant) -> Refresh {
    sessions.refresh(grant.token.expose(), None).await.unwrap()
}

/// The access token of a grant.
fn access_token(grant: &Grant) -> Arc<VerifiedToken> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of our time are exact in a double"
    )]
    let iat = grant.issued_at.as_millis() as f64 / 1000.0;
    let claims = json!({
        "sub": grant.user, "sid": grant.session, "fid": grant.family, "device_id": grant.device,
        "jti": "j", "iat": iat, "exp": grant.issued_at.as_secs() + 300,
    });
    token_of(&claims)
}

fn token_of(claims: &serde_json::Value) -> Arc<VerifiedToken> {
    let payload = claims.to_string().into_bytes();
    Arc::new(
        TokenProfile::new().assert_verified_for_revocation(SignedClaims::new(&payload)).unwrap(),
    )
}

/// Whether it is live, as a layer would find.
async fn is_live(store: &impl SessionStore, grant: &Grant) -> bool {
    is_live_token(store, &access_token(grant)).await
}

async fn is_live_token(store: &impl SessionStore, token: &Arc<VerifiedToken>) -> bool {
    store.check(token).answer().await.unwrap() == Standing::Live
}

// === The tests, for any store ===

async fn a_login_goes_on_for_as_long_as_it_is_refreshed(ground: impl Ground) {
    let sessions = sessions(&ground, strict());
    let mut grant = login(&sessions, "alice").await;
    let mut seen = BTreeSet::from([grant.token.expose().to_owned()]);
    for _ in 0..5 {
        let next = granted(refresh(&sessions, &grant).await);
        assert!(!next.is_repeated());
        assert_eq!(
            (&next.family, &next.session, &next.user),
            (&grant.family, &grant.session, &grant.user)
        );
        assert!(seen.insert(next.token.expose().to_owned()));
        grant = next;
        assert!(is_live(&ground.store(), &grant).await);
    }
}

async fn reuse_ends_the_family_with_its_access_tokens_and_nothing_else(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let (first, other) = (login(&sessions, "alice").await, login(&sessions, "alice").await);
    let second = granted(refresh(&sessions, &first).await);
    let third = granted(refresh(&sessions, &second).await);
    let refusal = refused(refresh(&sessions, &first).await);
    assert_eq!(refusal, Refusal::OlderReused { ended: true });
    for dead in [&first, &second, &third] {
        assert!(matches!(refused(refresh(&sessions, dead).await), Refusal::Revoked(_)));
        assert!(!is_live(&ground.store(), dead).await);
    }
    assert!(is_live(&ground.store(), &other).await);
    granted(refresh(&sessions, &other).await);
    assert_eq!(sessions.list("alice").await.unwrap().len(), 1);
}

async fn a_retry_gets_the_same_token_until_it_is_used(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let first = login(&sessions, "alice").await;
    let second = granted(refresh(&sessions, &first).await);
    for _ in 0..3 {
        let again = granted(refresh(&sessions, &first).await);
        assert!(again.is_repeated());
        assert_eq!(again.token.expose(), second.token.expose());
    }
    granted(refresh(&sessions, &second).await);
    assert!(refused(refresh(&sessions, &first).await).is_reuse());
}

async fn of_many_at_once_one_moves_on_and_all_get_the_same(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let first = login(&sessions, "alice").await;
    let all = join_all((0..20).map(|_| refresh(&sessions, &first))).await;
    let all: Vec<_> = all.into_iter().map(granted).collect();
    assert_eq!(all.iter().filter(|grant| !grant.is_repeated()).count(), 1);
    let tokens: BTreeSet<_> = all.iter().map(|grant| grant.token.expose()).collect();
    assert_eq!(tokens.len(), 1);
    assert!(!granted(refresh(&sessions, &all[0]).await).is_repeated());
}

async fn strict_grants_once_however_many_ask(ground: impl Ground) {
    let sessions = sessions(&ground, strict());
    let first = login(&sessions, "alice").await;
    let all = join_all((0..20).map(|_| refresh(&sessions, &first))).await;
    let granted: Vec<_> = all
        .into_iter()
        .filter_map(|answer| match answer {
            Refresh::Granted(grant) => Some(grant),
            _ => None,
        })
        .collect();
    assert!(granted.len() <= 1, "{}", granted.len());
    assert!(!is_live(&ground.store(), &first).await, "someone presented a used token");
    for grant in granted {
        assert!(matches!(refused(refresh(&sessions, &grant).await), Refusal::Revoked(_)));
        assert!(!is_live(&ground.store(), &grant).await);
    }
}

async fn a_token_that_was_never_issued_ends_nothing(ground: impl Ground) {
    let sessions = sessions(&ground, strict());
    let grant = login(&sessions, "alice").await;
    let (family, secret) = grant.token.expose().split_once('.').unwrap();
    let flipped = if secret.ends_with('A') { 'E' } else { 'A' };
    let forged = [
        String::new(),
        family.to_owned(),
        format!("{family}."),
        format!("{family}.{}", "A".repeat(secret.len())),
        format!("{family}.{}{flipped}", &secret[..secret.len() - 1]),
        format!("nobody.{secret}"),
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln".into(),
        "x".repeat(100_000),
    ];
    for forged in &forged {
        assert_eq!(
            refused(sessions.refresh(forged, None).await.unwrap()),
            Refusal::Unknown,
            "{forged}"
        );
    }
    // A real secret under the name of another family.
    let other = login(&sessions, "bob").await;
    let crossed = format!("{}.{secret}", other.family);
    assert_eq!(refused(sessions.refresh(&crossed, None).await.unwrap()), Refusal::Unknown);
    granted(refresh(&sessions, &grant).await);
    granted(refresh(&sessions, &other).await);
}

async fn a_token_that_is_handed_in_ends_its_family(ground: impl Ground) {
    let sessions = sessions(&ground, strict());
    let families = sessions.families();
    let first = login(&sessions, "alice").await;
    let second = granted(refresh(&sessions, &first).await);
    let forged = format!("{}.{}", first.family, "A".repeat(71));
    assert!(!families.end_by_token(&forged, None).await.unwrap());
    assert!(!families.end_by_token("nonsense", None).await.unwrap());
    assert!(is_live(&ground.store(), &second).await);
    assert!(families.end_by_token(first.token.expose(), None).await.unwrap());
    assert!(!is_live(&ground.store(), &second).await);
}

async fn a_bound_family_answers_its_client_only(ground: impl Ground) {
    let sessions = sessions(&ground, strict());
    let grant = granted_login(
        sessions.login("alice", SessionDetails::new().through_client("app")).await.unwrap(),
    );
    for client in [None, Some("other")] {
        let answer = sessions.refresh(grant.token.expose(), client).await.unwrap();
        assert_eq!(refused(answer), Refusal::WrongClient);
    }
    let next = granted(sessions.refresh(grant.token.expose(), Some("app")).await.unwrap());
    let reused = sessions.refresh(grant.token.expose(), Some("other")).await.unwrap();
    assert_eq!(refused(reused), Refusal::WrongClient, "nobody else can end the family either");
    granted(sessions.refresh(next.token.expose(), Some("app")).await.unwrap());
    sessions.revoker().revoke(Target::client("app")).await.unwrap();
    assert!(!is_live_family(&sessions, &next, Some("app")).await);
}

async fn is_live_family(sessions: &Sessions, grant: &Grant, client: Option<&str>) -> bool {
    matches!(sessions.refresh(grant.token.expose(), client).await.unwrap(), Refresh::Granted(_))
}

async fn whatever_ends_ends_everything_that_came_out_of_it(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let store = ground.store();
    let (one, two, other) = (
        login(&sessions, "alice").await,
        login(&sessions, "alice").await,
        login(&sessions, "bob").await,
    );
    assert_eq!(sessions.count_of("alice").await.unwrap(), 2);
    assert_eq!(sessions.count().await.unwrap(), 3);
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 3);
    let found = sessions.find(one.session.as_ref().unwrap()).await.unwrap().unwrap();
    assert_eq!((&*found.user, &found.family), ("alice", &one.family));

    sessions.end(one.session.as_ref().unwrap()).await.unwrap();
    assert!(!is_live(&store, &one).await && is_live(&store, &two).await);
    assert!(matches!(refused(refresh(&sessions, &one).await), Refusal::Revoked(_)));
    assert_eq!(sessions.list("alice").await.unwrap().len(), 1);
    assert!(sessions.find(one.session.as_ref().unwrap()).await.unwrap().is_none());
    assert_eq!(sessions.count().await.unwrap(), 2);

    let three = login(&sessions, "alice").await;
    sessions.end_all("alice", three.session.as_deref()).await.unwrap();
    assert!(!is_live(&store, &two).await && is_live(&store, &three).await);
    let kept: Vec<_> =
        sessions.list("alice").await.unwrap().into_iter().map(|session| session.id).collect();
    assert_eq!(kept, [three.session.clone().unwrap()]);

    sessions.end_all("alice", None).await.unwrap();
    assert!(!is_live(&store, &three).await && is_live(&store, &other).await);
    assert!(matches!(refused(refresh(&sessions, &three).await), Refusal::Revoked(_)));

    let four = login(&sessions, "alice").await;
    assert!(is_live(&store, &four).await, "a login after the revocation works");
    sessions.end_device("phone").await.unwrap();
    for dead in [&four, &other] {
        assert!(!is_live(&store, dead).await);
        assert!(matches!(refused(refresh(&sessions, dead).await), Refusal::Revoked(_)));
    }
    assert!(sessions.list_device("phone").await.unwrap().is_empty());
    assert_eq!(sessions.count().await.unwrap(), 0);
    let five = login(&sessions, "alice").await;
    assert!(is_live(&store, &five).await, "a login on the device works again");
    sessions.families().end(&five.family, None).await.unwrap();
    assert!(!is_live(&store, &five).await);
    sessions.end("unknown").await.unwrap();
}

async fn signing_out_everywhere_else_ends_everything_but_one_session(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let store = ground.store();
    let here = login(&sessions, "alice").await;
    let other = SessionDetails::new().on_device("tablet");
    let there = granted_login(sessions.login("alice", other).await.unwrap());
    let family = NewFamily::of_user("alice");
    let without = granted(sessions.families().start(family).await.unwrap());
    let bob = login(&sessions, "bob").await;
    let hour = Duration::from_secs(3600);
    for device in ["phone", "tablet"] {
        sessions.trust_device("alice", device, hour).await.unwrap();
    }
    let issued = |session: Option<&str>| {
        let now = Timestamp::now().as_secs();
        let mut claims = json!({ "sub": "alice", "jti": "t", "iat": now - 5, "exp": now + 300 });
        if let Some(session) = session {
            claims["sid"] = session.into();
        }
        token_of(&claims)
    };
    let is_refused = async |token: Arc<VerifiedToken>| !is_live_token(&store, &token).await;
    assert!(!is_refused(issued(None)).await && !is_refused(issued(Some("unlisted"))).await);

    let kept = here.session.clone().unwrap();
    sessions.end_all("alice", Some(&kept)).await.unwrap();
    for dead in [&there, &without] {
        assert!(!is_live(&store, dead).await && !is_live_family(&sessions, dead, None).await);
    }
    assert!(is_refused(issued(None)).await && is_refused(issued(Some("unlisted"))).await);
    assert!(is_live(&store, &here).await && is_live(&store, &bob).await);
    assert!(!is_refused(issued(Some(&kept))).await);
    let here = granted(refresh(&sessions, &here).await);
    assert!(is_live(&store, &here).await && is_live_family(&sessions, &bob, None).await);
    let listed = sessions.list("alice").await.unwrap();
    assert_eq!(listed.iter().map(|it| &*it.id).collect::<Vec<_>>(), [&*kept]);
    let trusted = async |device: &str| sessions.is_trusted_device("alice", device).await.unwrap();
    assert!(trusted("phone").await && !trusted("tablet").await);
    assert_eq!(sessions.trusted_devices("alice").await.unwrap().len(), 1);

    // What comes later ends it.
    let later = login(&sessions, "alice").await;
    sessions.end_all("alice", later.session.as_deref()).await.unwrap();
    assert!(!is_live(&store, &here).await && !is_live_family(&sessions, &here, None).await);
    assert!(is_refused(issued(Some(&kept))).await);
    assert!(is_live(&store, &later).await && is_live_family(&sessions, &later, None).await);
    let session = later.session.as_deref().unwrap();
    sessions.end(session).await.unwrap();
    assert!(trusted("phone").await, "the trust does not end with the session");
    sessions.end_all("alice", None).await.unwrap();
    assert!(!trusted("phone").await && is_refused(issued(Some("unlisted"))).await);
}

async fn a_session_is_spared_of_nothing_but_what_spares_it(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let store = ground.store();
    // What was revoked before stays so …
    let (one, two) = (login(&sessions, "alice").await, login(&sessions, "alice").await);
    sessions.revoker().revoke(Target::user("alice")).await.unwrap();
    let three = login(&sessions, "alice").await;
    sessions.end_all("alice", one.session.as_deref()).await.unwrap();
    for dead in [&one, &two, &three] {
        assert!(!is_live(&store, dead).await && !is_live_family(&sessions, dead, None).await);
    }
    // … unless it was undone.
    let one = login(&sessions, "bob").await;
    sessions.revoker().revoke(Target::user("bob")).await.unwrap();
    sessions.revoker().reinstate(Target::user("bob")).await.unwrap();
    let two = login(&sessions, "bob").await;
    sessions.end_all("bob", one.session.as_deref()).await.unwrap();
    assert!(is_live(&store, &one).await && !is_live(&store, &two).await);
    let one = granted(refresh(&sessions, &one).await);
    assert!(!is_live_family(&sessions, &two, None).await);
    // What undoes it brings back the rest, but for the sessions, which were ended by themselves.
    let free = granted(sessions.families().start(NewFamily::of_user("bob")).await.unwrap());
    sessions.end_all("bob", one.session.as_deref()).await.unwrap();
    assert!(!is_live_family(&sessions, &free, None).await);
    sessions.revoker().reinstate(Target::user("bob")).await.unwrap();
    assert!(is_live_family(&sessions, &free, None).await && is_live(&store, &one).await);
    sessions.end_all("bob", one.session.as_deref()).await.unwrap();
    assert!(!is_live_family(&sessions, &free, None).await && is_live(&store, &one).await);
    // A user who is blocked stays so.
    sessions.revoker().revoke(Target::user("bob")).extent(Extent::All).await.unwrap();
    sessions.end_all("bob", one.session.as_deref()).await.unwrap();
    assert!(!is_live(&store, &one).await && !is_live_family(&sessions, &one, None).await);

    let blocking = sessions.revoker().revoke(Target::user("bob")).sparing("s").extent(Extent::All);
    assert_eq!(blocking.await.unwrap_err().kind(), StoreErrorKind::InvalidInput);
    let nobody = sessions.end_all("bob", Some("")).await.unwrap_err();
    assert_eq!(nobody.kind(), StoreErrorKind::InvalidInput);
}

async fn at_no_moment_is_the_spared_session_refused(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let here = login(&sessions, "alice").await;
    let kept = here.session.clone().unwrap();
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watching = tokio::spawn({
        let (sessions, store, is_over) = (sessions.clone(), ground.store(), Arc::clone(&is_over));
        async move {
            let mut grant = here;
            loop {
                let is_last = is_over.load(std::sync::atomic::Ordering::SeqCst);
                for _ in 0..5 {
                    assert!(is_live(&store, &grant).await);
                }
                grant = granted(refresh(&sessions, &grant).await);
                if is_last {
                    return grant;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let store = ground.store();
    for _ in 0..10 {
        let other = login(&sessions, "alice").await;
        let overlapping = sessions.login("alice", SessionDetails::new());
        let (overlapping, ended) =
            tokio::join!(overlapping, sessions.end_all("alice", Some(&kept)));
        ended.unwrap();
        assert!(!is_live(&store, &other).await && !is_live_family(&sessions, &other, None).await);
        let overlapping = granted_login(overlapping.unwrap());
        let record = sessions.revoker().find(Target::user("alice")).await.unwrap().unwrap();
        if is_live(&store, &overlapping).await {
            // It came later.
            assert!(Some(overlapping.issued_at) > record.cutoff(), "{overlapping:?} {record:?}");
        } else {
            assert!(!is_live_family(&sessions, &overlapping, None).await);
        }
        tokio::task::yield_now().await;
    }
    is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    let here = watching.await.unwrap();
    assert!(is_live(&store, &here).await);
}

async fn a_user_ends_only_sessions_of_its_own(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let store = ground.store();
    let (alice, bob) = (login(&sessions, "alice").await, login(&sessions, "bob").await);
    let id = alice.session.as_deref().unwrap();
    for (user, id) in [("bob", id), ("alice", "unknown"), ("", id)] {
        assert_eq!(sessions.end_of(user, id).await.unwrap(), Ended::NotFound);
    }
    assert!(is_live(&store, &alice).await);
    assert_eq!(sessions.end_of("alice", id).await.unwrap(), Ended::Done);
    assert!(!is_live(&store, &alice).await && is_live(&store, &bob).await);
    assert!(!is_live_family(&sessions, &alice, None).await);
    assert_eq!(sessions.count().await.unwrap(), 1);
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 1);
    assert_eq!(sessions.end_of("alice", id).await.unwrap(), Ended::NotFound, "it is forgotten");
    let families = sessions.families();
    for (user, id) in [("alice", &*bob.family), ("bob", "unknown"), ("", &bob.family)] {
        assert_eq!(families.end_of(user, id).await.unwrap(), Ended::NotFound);
    }
    assert!(is_live(&store, &bob).await);
    assert_eq!(families.end_of("bob", &bob.family).await.unwrap(), Ended::Done);
    assert!(!is_live(&store, &bob).await && !is_live_family(&sessions, &bob, None).await);
}

async fn a_logout_ends_what_the_token_says(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let store = ground.store();
    let is_live = async |token: &Arc<VerifiedToken>| is_live_token(&store, token).await;
    let forget = async |target: Target| {
        let written = store.load(vec![target.clone()], Vec::new()).await.unwrap().documents;
        let written = written.into_iter().next().flatten();
        assert!(written.is_some());
        let commit = Commit::new(target, written, None, Timestamp::now());
        assert_eq!(store.commit(commit).await.unwrap(), Committed::Done);
    };
    // As it is known.
    let (alice, other) = (login(&sessions, "alice").await, login(&sessions, "alice").await);
    sessions.logout(&access_token(&alice)).await.unwrap();
    assert!(!is_live(&access_token(&alice)).await && is_live(&access_token(&other)).await);
    assert!(!is_live_family(&sessions, &alice, None).await);
    assert_eq!(sessions.count().await.unwrap(), 1);
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 1);

    // Where the store has forgotten what is known of it.
    forget(Target::session(other.session.clone().unwrap())).await;
    sessions.logout(&access_token(&other)).await.unwrap();
    assert!(!is_live(&access_token(&other)).await);
    assert!(!is_live_family(&sessions, &other, None).await);
    assert!(sessions.list("alice").await.unwrap().is_empty());

    // Sessions and families of another program, and a token of neither.
    let now = Timestamp::now().as_secs();
    let token = |id: &str, more: serde_json::Value| {
        let mut claims = json!({ "sub": "carol", "jti": id, "iat": now, "exp": now + 300 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        token_of(&claims)
    };
    for (name, value) in [("sid", "s"), ("fid", "f")] {
        let (one, same) = (token("1", json!({ name: value })), token("2", json!({ name: value })));
        let another = token("3", json!({ name: "another" }));
        sessions.logout(&one).await.unwrap();
        assert!(!is_live(&one).await && !is_live(&same).await, "{name}");
        assert!(is_live(&another).await, "{name}");
    }
    let (one, another) = (token("4", json!({})), token("5", json!({})));
    sessions.logout(&one).await.unwrap();
    assert!(!is_live(&one).await && is_live(&another).await);

    // What is another user's stays, and the token ends all the same.
    let bob = login(&sessions, "bob").await;
    for more in [
        json!({ "sid": bob.session }),
        json!({ "fid": bob.family }),
        json!({ "sid": bob.session, "fid": bob.family }),
    ] {
        let odd = token(&more.to_string(), more);
        sessions.logout(&odd).await.unwrap();
        assert!(!is_live(&odd).await && is_live(&access_token(&bob)).await);
    }
    assert!(is_live_family(&sessions, &bob, None).await);
}

async fn what_the_revoker_revokes_is_not_listed(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    for target in ["session", "family", "user", "issuer"] {
        let grant = login(&sessions, "alice").await;
        let target = match target {
            "session" => Target::session(grant.session.clone().unwrap()),
            "family" => Target::family(grant.family.clone()),
            "user" => Target::user("alice"),
            _ => Target::issuer(""),
        };
        // It is dated past the cutoff of the user, which that of the issuer knows nothing of.
        while Timestamp::now() <= grant.issued_at.saturating_add(Duration::from_millis(1)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sessions.revoker().revoke(target.clone()).await.unwrap();
        assert!(sessions.list("alice").await.unwrap().is_empty(), "{target}");
        assert!(
            matches!(refused(refresh(&sessions, &grant).await), Refusal::Revoked(_)),
            "{target}"
        );
    }
    sessions.revoker().revoke(Target::user("alice")).extent(Extent::All).await.unwrap();
    let banned = sessions.login("alice", SessionDetails::new()).await.unwrap();
    assert!(matches!(banned, Login::Revoked(_)), "{banned:?}");
}

/// Logins and revocations that follow each other faster than whole seconds can tell.
async fn nothing_escapes_within_one_second(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    for round in 0..10 {
        let grant = login(&sessions, "alice").await;
        assert!(is_live(&ground.store(), &grant).await, "round {round}: a fresh login works");
        let next = granted(refresh(&sessions, &grant).await);
        sessions.end_all("alice", None).await.unwrap();
        for dead in [&grant, &next] {
            assert!(!is_live(&ground.store(), dead).await, "round {round}");
            assert!(!is_live_family(&sessions, dead, None).await, "round {round}");
        }
    }
}

/// Whatever overlaps: after the revocation is confirmed, what had been handed out before it began
/// is dead.
async fn a_refresh_does_not_outrun_a_revocation(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    for _ in 0..20 {
        let grant = login(&sessions, "alice").await;
        let (answer, ended) =
            tokio::join!(refresh(&sessions, &grant), sessions.end_all("alice", None));
        ended.unwrap();
        assert!(!is_live_family(&sessions, &grant, None).await);
        if let Refresh::Granted(next) = answer {
            assert!(!is_live_family(&sessions, &next, None).await);
            assert!(!is_live(&ground.store(), &next).await);
        }
        assert!(sessions.list("alice").await.unwrap().is_empty());
    }
}

async fn no_member_is_lost_when_many_sign_in_at_once(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let grants = join_all((0..30).map(|_| login(&sessions, "alice"))).await;
    let listed: BTreeSet<_> =
        sessions.list("alice").await.unwrap().into_iter().map(|session| session.id).collect();
    assert_eq!(listed, grants.iter().filter_map(|grant| grant.session.clone()).collect());
    assert_eq!(sessions.list_device("phone").await.unwrap().len(), 30);
    assert_eq!(sessions.count().await.unwrap(), 30);
    let ids: Vec<_> = listed.into_iter().collect();
    join_all(ids[..20].iter().map(|id| sessions.end(id)))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    assert_eq!(sessions.list("alice").await.unwrap().len(), 10);
    assert_eq!(sessions.count().await.unwrap(), 10);
}

async fn there_are_never_more_sessions_than_allowed(ground: impl Ground) {
    let three = NonZeroUsize::new(3).unwrap();
    let sessions = sessions(&ground, policy()).with_max_per_user(three, EvictionPolicy::Oldest);
    let mut grants = Vec::new();
    for _ in 0..4 {
        grants.push(login(&sessions, "alice").await);
    }
    assert!(!is_live(&ground.store(), &grants[0]).await, "the oldest had to go");
    assert!(!is_live_family(&sessions, &grants[0], None).await);
    assert!(is_live(&ground.store(), &grants[1]).await);
    let more = join_all((0..10).map(|_| login(&sessions, "alice"))).await;
    assert_eq!(sessions.list("alice").await.unwrap().len(), 3);
    assert_eq!(sessions.count().await.unwrap(), 3);
    let store = ground.store();
    let live = join_all(more.iter().map(|grant| is_live(&store, grant))).await;
    assert!(live.into_iter().filter(|live| *live).count() <= 3);

    let full = sessions.clone().with_max_per_user(three, EvictionPolicy::RefuseLogin);
    let refused = full.login("alice", SessionDetails::new()).await.unwrap();
    assert!(matches!(refused, Login::TooMany), "{refused:?}");
    // One that was revoked in another way makes room all the same.
    let victim = sessions.list("alice").await.unwrap().remove(0);
    sessions.revoker().revoke(Target::session(victim.id)).await.unwrap();
    granted_login(full.login("alice", SessionDetails::new()).await.unwrap());
}

async fn a_session_shows_what_was_said_at_login(ground: impl Ground) {
    let sessions = sessions(&ground, policy()).with_touch_interval(Duration::ZERO);
    let details = SessionDetails::new()
        .on_device("phone")
        .with_fingerprint("fp")
        .from_ip([192, 0, 2, 1].into())
        .with_user_agent("u".repeat(9999))
        .with_data(json!({ "theme": "dark" }));
    let id = granted_login(sessions.login("alice", details).await.unwrap()).session.unwrap();
    let before = sessions.find(&id).await.unwrap().unwrap();
    assert_eq!(before.details.user_agent.as_ref().unwrap().len(), 512);
    assert_eq!(before.details.data, Some(json!({ "theme": "dark" })));
    assert!(!before.details.mfa);
    assert!(sessions.update("alice", &id, |details| details.mfa = true).await.unwrap());
    assert!(sessions.touch("alice", &id).await.unwrap());
    let after = sessions.find(&id).await.unwrap().unwrap();
    assert!(after.details.mfa && after.seen_at >= before.seen_at);
    assert!(!sessions.touch("alice", "unknown").await.unwrap());
    assert!(!sessions.touch("bob", &id).await.unwrap());
    let huge = SessionDetails::new().with_data(json!("x".repeat(5000)));
    sessions.login("alice", huge).await.unwrap_err();
    let update =
        sessions.update("alice", &id, |details| details.data = Some(json!("x".repeat(5000)))).await;
    update.unwrap_err();
    let change = |details: &mut SessionDetails| details.user_agent = Some("v".repeat(9999).into());
    assert!(sessions.update("alice", &id, change).await.unwrap());
    let details = sessions.find(&id).await.unwrap().unwrap().details;
    assert_eq!(
        (details.data, details.user_agent.unwrap().len()),
        (Some(json!({ "theme": "dark" })), 512)
    );
}

async fn trust_in_a_device_ends(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let hour = Duration::from_secs(3600);
    let trusted = async |device: &str| sessions.is_trusted_device("alice", device).await.unwrap();
    assert!(!trusted("phone").await);
    sessions.trust_device("alice", "phone", hour).await.unwrap();
    sessions.trust_device("alice", "tablet", hour).await.unwrap();
    assert!(trusted("phone").await && !sessions.is_trusted_device("bob", "phone").await.unwrap());
    sessions.distrust_device("alice", "phone").await.unwrap();
    assert!(!trusted("phone").await && trusted("tablet").await);
    sessions.revoker().revoke(Target::device("tablet")).await.unwrap();
    assert!(!trusted("tablet").await);
    sessions.trust_device("alice", "desk", Duration::from_millis(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!trusted("desk").await);
    let watch = TrustedDevice::new("watch").with_name("Alice's watch").with_kind("watch");
    sessions.trust_device("alice", watch, hour).await.unwrap();
    sessions.trust_device("alice", "bare", hour).await.unwrap();
    let listed = sessions.trusted_devices("alice").await.unwrap();
    let shown = listed.iter().map(|it| (&*it.id, it.name.as_deref(), it.kind.as_deref()));
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, [("bare", None, None), ("watch", Some("Alice's watch"), Some("watch"))]);
    assert!(listed.iter().all(|it| it.until == it.since.saturating_add(hour)), "{listed:?}");
    assert!(sessions.trusted_devices("bob").await.unwrap().is_empty());
    sessions.revoker().revoke(Target::device("bare")).await.unwrap();
    assert_eq!(sessions.trusted_devices("alice").await.unwrap().len(), 1);
    sessions.trust_device("alice", "lap", hour).await.unwrap();
    sessions.end_all("alice", None).await.unwrap();
    assert!(!trusted("lap").await);
    assert!(sessions.trusted_devices("alice").await.unwrap().is_empty());
    // Whoever signs in again may trust it again, also in the moment in which all was ended.
    for _ in 0..20 {
        sessions.end_all("alice", None).await.unwrap();
        sessions.trust_device("alice", "lap", hour).await.unwrap();
        assert!(trusted("lap").await);
    }
}

async fn trust_that_has_ended_does_not_come_back(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    let trusted = async || sessions.is_trusted_device("alice", "phone").await.unwrap();
    sessions.trust_device("alice", "phone", hour).await.unwrap();
    sessions.revoker().revoke(Target::device("phone")).await.unwrap();
    assert!(!trusted().await);
    // Whoever signs in on it anew is spared, the trust is not.
    let anew = login(&sessions, "alice").await;
    sessions.end_all("alice", anew.session.as_deref()).await.unwrap();
    assert!(is_live(&ground.store(), &anew).await && !trusted().await);
    sessions.trust_device("alice", "phone", hour).await.unwrap();
    sessions.end_all("alice", anew.session.as_deref()).await.unwrap();
    assert!(trusted().await);

    // Nor would it when the record that has ended it is forgotten.
    let error = sessions.trust_device("alice", "phone", day * 30).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidInput);
    assert!(error.to_string().contains("extend_shared_retention"), "{error}");
    sessions.revoker().extend_shared_retention(day * 30);
    sessions.trust_device("alice", "phone", day * 30).await.unwrap();
}

async fn ids_of_the_application_live_by_the_same_rules(ground: impl Ground) {
    let sessions = sessions(&ground, policy());
    let families: &Families = sessions.families();
    let first = granted(families.start_with_id(NewFamily::of_user("alice"), "r1").await.unwrap());
    let next = async |old: &str, new: &str| {
        families.refresh_id(&first.family, old, new, None).await.unwrap()
    };
    // One that is given twice could not be told from itself.
    let same = families.refresh_id(&first.family, "r1", "r1", None).await.unwrap_err();
    assert_eq!(same.kind(), StoreErrorKind::InvalidInput);
    assert_eq!(&*granted(next("r1", "r2").await).token, "r2");
    let again = granted(next("r1", "another").await);
    assert_eq!((again.is_repeated(), &*again.token), (true, "r2"));
    assert_eq!(&*granted(next("r2", "r3").await).token, "r3");
    assert_eq!(refused(next("r1", "r4").await), Refusal::OlderReused { ended: true });
    assert!(matches!(refused(next("r3", "r4").await), Refusal::Revoked(_)));
    // Ids are no key to families of secrets.
    let opaque = login(&sessions, "alice").await;
    let answer = families.refresh_id(&opaque.family, "r1", "r2", None).await.unwrap();
    assert_eq!(refused(answer), Refusal::Unknown);
    granted(refresh(&sessions, &opaque).await);
}

async fn reuse_that_is_only_reported_ends_nothing(ground: impl Ground) {
    let sessions = sessions(&ground, strict().with_report_only());
    let first = login(&sessions, "alice").await;
    let second = granted(refresh(&sessions, &first).await);
    let refusal = refused(refresh(&sessions, &first).await);
    assert_eq!(refusal, Refusal::ParentReused { ended: false });
    granted(refresh(&sessions, &second).await);
}

async fn a_token_that_is_not_rotated_stays(ground: impl Ground) {
    let sessions = sessions(&ground, strict().without_rotation());
    let first = login(&sessions, "alice").await;
    for _ in 0..3 {
        let same = granted(refresh(&sessions, &first).await);
        assert_eq!((same.is_repeated(), same.token.expose()), (false, first.token.expose()));
    }
}

#[cfg(feature = "user-cache")]
async fn the_cache_gives_out_nothing_from_before_a_revocation(ground: impl Ground) {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tower_jwt_revocation::session::UserCache;

    let revoker = Revoker::new(ground.store(), TokenProfile::new()).unwrap();
    let cache = UserCache::<usize>::new(revoker.clone());
    let loads = Arc::new(AtomicUsize::new(0));
    let load = || {
        let loads = Arc::clone(&loads);
        async move |_: &str| {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(loads.fetch_add(1, Ordering::SeqCst))
        }
    };
    let all = join_all((0..10).map(|_| cache.get_or_load("alice", load()))).await;
    assert!(all.into_iter().all(|value| *value.unwrap() == 0), "one load for all");
    // A cache in another process would find the same.
    revoker.revoke(Target::user("alice")).await.unwrap();
    assert_eq!(*cache.get_or_load("alice", load()).await.unwrap(), 1);
    assert_eq!(*cache.get_or_load("alice", load()).await.unwrap(), 1);
    assert_eq!(*cache.get_or_load("bob", load()).await.unwrap(), 2);
    let failing = async |_: &str| Err(std::io::Error::other("no"));
    cache.forget("alice").await;
    cache.get_or_load("alice", failing).await.unwrap_err();
    assert_eq!(*cache.get_or_load("alice", load()).await.unwrap(), 3);
    let short = UserCache::<usize>::new(revoker).with_lifetime(Duration::ZERO);
    for n in 4..6 {
        assert_eq!(*short.get_or_load("alice", load()).await.unwrap(), n);
    }
}

macro_rules! for_every_store {
    ($($(#[$condition:meta])? $test:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $($(#[$condition])?
            #[tokio::test]
            async fn $test() {
                super::$test(Memory(MemoryStore::new())).await;
            })*
        }

        #[cfg(feature = "redis")]
        mod redis {
            use super::*;
            $($(#[$condition])?
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                support::redis_or_skip!();
                super::$test(on_redis::Redis::start(1).await).await;
            })*
        }

        #[cfg(feature = "redis")]
        mod redis_in_shards {
            use super::*;
            $($(#[$condition])?
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                support::redis_or_skip!();
                super::$test(on_redis::Redis::start(5).await).await;
            })*
        }
    };
}

for_every_store!(
    a_login_goes_on_for_as_long_as_it_is_refreshed,
    reuse_ends_the_family_with_its_access_tokens_and_nothing_else,
    a_retry_gets_the_same_token_until_it_is_used,
    of_many_at_once_one_moves_on_and_all_get_the_same,
    strict_grants_once_however_many_ask,
    a_token_that_was_never_issued_ends_nothing,
    a_token_that_is_handed_in_ends_its_family,
    a_bound_family_answers_its_client_only,
    whatever_ends_ends_everything_that_came_out_of_it,
    signing_out_everywhere_else_ends_everything_but_one_session,
    a_session_is_spared_of_nothing_but_what_spares_it,
    at_no_moment_is_the_spared_session_refused,
    a_user_ends_only_sessions_of_its_own,
    a_logout_ends_what_the_token_says,
    what_the_revoker_revokes_is_not_listed,
    nothing_escapes_within_one_second,
    a_refresh_does_not_outrun_a_revocation,
    no_member_is_lost_when_many_sign_in_at_once,
    there_are_never_more_sessions_than_allowed,
    a_session_shows_what_was_said_at_login,
    trust_in_a_device_ends,
    trust_that_has_ended_does_not_come_back,
    ids_of_the_application_live_by_the_same_rules,
    reuse_that_is_only_reported_ends_nothing,
    a_token_that_is_not_rotated_stays,
    #[cfg(feature = "user-cache")]
    the_cache_gives_out_nothing_from_before_a_revocation,
);
