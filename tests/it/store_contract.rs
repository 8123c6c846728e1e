//! What every store does alike. One body of tests, run for each of them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tower_jwt_revocation::store::{Cursor, ListQuery, Lookup};
use tower_jwt_revocation::token::TokenProfile;
use tower_jwt_revocation::token::profile::SignedClaims;
use tower_jwt_revocation::{
    Action, Clock as _, Extent, Outcome, Receipt, Revocation, RevocationStore, Revoker, Standing,
    StoreError, StoreErrorKind, SystemClock, Target, TargetKind, Timestamp, VerifiedToken,
};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn now() -> Timestamp {
    SystemClock::default().now()
}

/// A token with these claims, besides an `exp` in 20 minutes.
pub(crate) fn token_of(
    profile: &TokenProfile,
    mut claims: serde_json::Value,
) -> Arc<VerifiedToken> {
    claims["exp"] = (now().as_secs() + 1200).into();
    let claims = claims.to_string();
    Arc::new(profile.assert_verified(SignedClaims::new(claims.as_bytes())).unwrap())
}

/// A token of `subject`, issued a minute ago.
pub(crate) fn token(subject: &str, id: &str) -> Arc<VerifiedToken> {
    issued_at(subject, id, now().saturating_sub(Duration::from_secs(60)).as_secs())
}

pub(crate) fn issued_at(
    subject: &str,
    id: &str,
    iat: impl Into<serde_json::Value>,
) -> Arc<VerifiedToken> {
    let iat: serde_json::Value = iat.into();
    token_of(&TokenProfile::new(), serde_json::json!({ "sub": subject, "jti": id, "iat": iat }))
}

pub(crate) async fn check(
    store: &impl RevocationStore,
    token: &Arc<VerifiedToken>,
) -> Result<Standing, StoreError> {
    store.check(token).answer().await
}

#[track_caller]
fn kind_of(standing: Standing) -> Option<TargetKind> {
    match standing {
        Standing::Live => None,
        Standing::Revoked(by) => Some(by.kind),
        other => panic!("{other:?}"),
    }
}

/// Through what the token is revoked.
async fn revoked_by(
    store: &impl RevocationStore,
    token: &Arc<VerifiedToken>,
) -> Option<TargetKind> {
    kind_of(check(store, token).await.unwrap())
}

async fn is_revoked(store: &impl RevocationStore, token: &Arc<VerifiedToken>) -> bool {
    revoked_by(store, token).await.is_some()
}

fn revocation(target: Target, action: Action) -> Revocation {
    let mut change = Revocation::new(target, HOUR);
    change.action = action;
    change
}

async fn write(store: &impl RevocationStore, change: Revocation) -> Receipt {
    let mut receipts = store.write(vec![change]).await.unwrap();
    assert_eq!(receipts.len(), 1);
    receipts.remove(0)
}

async fn revoke(store: &impl RevocationStore, target: Target) -> Receipt {
    write(store, Revocation::new(target, HOUR)).await
}

async fn reinstate(store: &impl RevocationStore, target: Target) -> Receipt {
    write(store, revocation(target, Action::Reinstate)).await
}

/// Every record, page by page, with pages of about this size.
async fn all_pages(store: &impl RevocationStore, query: ListQuery) -> Vec<String> {
    let mut found = Vec::new();
    let mut query = query;
    loop {
        let page = store.list(query.clone()).await.unwrap();
        found.extend(page.records.iter().map(|record| record.target().to_string()));
        // A cursor survives being printed.
        match page.next {
            Some(next) => query.cursor = Some(Cursor::from_text(next.to_string())),
            None => break,
        }
    }
    found.sort();
    found.dedup();
    found
}

pub(crate) async fn each_kind_of_target_revokes_its_tokens_and_no_others(
    store: impl RevocationStore,
) {
    let profile = TokenProfile::new().with_claim_target("tenant", TargetKind::Claim);
    let claims = serde_json::json!({
        "jti": "t", "sub": "u", "sid": "s", "device_id": "d", "fid": "f", "client_id": "c", "tenant": "acme",
        "iat": now().as_secs() - 60,
    });
    let token = token_of(&profile, claims);
    let other = token_of(
        &profile,
        serde_json::json!({
            "jti": "s", "sub": "t", "sid": "u", "device_id": "f", "fid": "d", "client_id": "acme", "tenant": "c",
            "iat": now().as_secs() - 60,
        }),
    );
    let targets = [
        (Target::token("t"), TargetKind::Token),
        (Target::session("s"), TargetKind::Session),
        (Target::device("d"), TargetKind::Device),
        (Target::family("f"), TargetKind::Family),
        (Target::user("u"), TargetKind::User),
        (Target::client("c"), TargetKind::Client),
        (Target::claim("tenant", "acme"), TargetKind::Claim),
    ];
    for (target, kind) in targets {
        assert_eq!(revoked_by(&store, &token).await, None, "before {target}");
        revoke(&store, target.clone()).await;
        assert_eq!(revoked_by(&store, &token).await, Some(kind));
        assert_eq!(revoked_by(&store, &other).await, None, "{target} is none of the other's");
        reinstate(&store, target).await;
    }
    revoke(&store, Target::issuer("")).await;
    assert_eq!(revoked_by(&store, &token).await, Some(TargetKind::Issuer));
    assert_eq!(revoked_by(&store, &other).await, Some(TargetKind::Issuer));
}

pub(crate) async fn a_key_revokes_what_it_signed(store: impl RevocationStore) {
    let claims =
        serde_json::json!({ "jti": "t", "iat": now().as_secs() - 60, "exp": now().as_secs() + 60 })
            .to_string();
    let signed_with = |kid| {
        let signed = SignedClaims::new(claims.as_bytes()).with_key_id(Some(kid));
        Arc::new(TokenProfile::new().assert_verified(signed).unwrap())
    };
    revoke(&store, Target::key("stolen")).await;
    assert_eq!(revoked_by(&store, &signed_with("stolen")).await, Some(TargetKind::Key));
    assert_eq!(revoked_by(&store, &signed_with("safe")).await, None);
}

pub(crate) async fn a_cutoff_covers_the_whole_second_and_nothing_after(
    store: impl RevocationStore,
) {
    let receipt = revoke(&store, Target::user("alice")).await;
    let second = receipt.at.as_secs();
    let reissue = receipt.reissue_at.unwrap();
    assert_eq!(reissue, receipt.at.saturating_add(Duration::from_millis(1)));
    for (iat, covered) in [(second - 1, true), (second, true), (second + 1, false)] {
        assert_eq!(is_revoked(&store, &issued_at("alice", "t", iat)).await, covered, "iat {iat}");
    }
    assert!(!is_revoked(&store, &issued_at("bob", "t", second - 1)).await);

    let cutoff = Timestamp::from_millis((second - 10) * 1000 + 500);
    write(&store, revocation(Target::user("carol"), Action::Revoke(Extent::IssuedUntil(cutoff))))
        .await;
    #[expect(clippy::cast_precision_loss, reason = "seconds of our time are exact in a double")]
    let base = (second - 10) as f64;
    for (fraction, covered) in [(0.25, true), (0.5, true), (0.75, false)] {
        let token = issued_at("carol", "t", base + fraction);
        assert_eq!(is_revoked(&store, &token).await, covered, "fraction {fraction}");
    }

    let profile = TokenProfile::new().allow_missing_iat();
    let ageless = token_of(&profile, serde_json::json!({ "sub": "alice", "jti": "t" }));
    assert!(is_revoked(&store, &ageless).await);
}

pub(crate) async fn nothing_shortens_a_revocation(store: impl RevocationStore) {
    let target = Target::user("alice");
    let first = revoke(&store, target.clone()).await;
    let until = store.find(&target).await.unwrap().unwrap().until();
    let mut earlier =
        revocation(target.clone(), Action::Revoke(Extent::IssuedUntil(Timestamp::from_secs(1))));
    earlier.lifetime = Duration::from_secs(1);
    let second = write(&store, earlier).await;
    assert_eq!(second.outcome, Outcome::Already);
    let record = store.find(&target).await.unwrap().unwrap();
    assert_eq!(record.until(), until);
    assert_eq!(record.cutoff(), first.reissue_at.map(|_| first.at));
    assert!(is_revoked(&store, &token("alice", "t")).await);

    let mut longer = Revocation::new(target.clone(), HOUR * 2);
    longer.action = Action::Revoke(Extent::All);
    assert_eq!(write(&store, longer).await.outcome, Outcome::Extended);
    let record = store.find(&target).await.unwrap().unwrap();
    assert!(record.until() > until && record.revokes_all());
    assert!(is_revoked(&store, &issued_at("alice", "t", now().as_secs() + 30)).await);
}

pub(crate) async fn a_repeated_write_changes_nothing(store: impl RevocationStore) {
    let mut change = Revocation::new(Target::token("t"), Duration::ZERO);
    change.until = now().saturating_add(HOUR);
    let first = write(&store, change.clone()).await;
    let again = write(&store, change).await;
    assert_eq!((first.outcome, again.outcome), (Outcome::New, Outcome::Already));
    assert_eq!(again.at, first.at);
    assert_eq!(store.count().await.unwrap(), 1);
}

pub(crate) async fn reinstating_undoes_the_past_but_not_the_future(store: impl RevocationStore) {
    let target = Target::session("s");
    let profile = TokenProfile::new();
    let iat = now().as_secs() - 60;
    let token = token_of(
        &profile,
        serde_json::json!({ "jti": "t", "sid": "s", "sub": "alice", "iat": iat }),
    );
    assert_eq!(
        reinstate(&store, target.clone()).await.outcome,
        Outcome::Already,
        "nothing to undo"
    );
    revoke(&store, target.clone()).await;
    let back = reinstate(&store, target.clone()).await;
    assert_eq!(back.outcome, Outcome::New);
    assert!(!is_revoked(&store, &token).await);
    assert_eq!(store.count().await.unwrap(), 0);
    assert_eq!(all_pages(&store, ListQuery::default()).await, Vec::<String>::new());
    assert!(
        !store.find(&target).await.unwrap().unwrap().is_in_effect(),
        "that it was reinstated is known"
    );

    // It may be the same millisecond: a tie is revoked.
    assert_eq!(revoke(&store, target.clone()).await.outcome, Outcome::New);
    assert!(is_revoked(&store, &token).await);

    // What was revoked through another target stays so.
    revoke(&store, Target::user("alice")).await;
    reinstate(&store, target).await;
    assert_eq!(revoked_by(&store, &token).await, Some(TargetKind::User));
}

pub(crate) async fn many_are_written_at_once_with_their_receipts_in_order(
    store: impl RevocationStore,
) {
    let mut changes: Vec<_> =
        (0..700).map(|n| Revocation::new(Target::token(format!("t{n}")), HOUR)).collect();
    let mut over = Revocation::new(Target::token("over"), Duration::ZERO);
    over.until = Timestamp::from_secs(1);
    changes.insert(300, over);
    changes.push(Revocation::new(Target::user("alice"), HOUR));
    changes.push(changes[0].clone());
    let receipts = store.write(changes).await.unwrap();
    assert_eq!(receipts.len(), 703);
    for (n, receipt) in receipts.iter().enumerate() {
        match n {
            300 => assert_eq!(receipt.outcome, Outcome::AlreadyExpired),
            701 => assert!(receipt.reissue_at.is_some()),
            // The second time in one batch, or a moment later.
            702 => assert_ne!(receipt.outcome, Outcome::New),
            _ => assert_eq!((receipt.outcome, receipt.reissue_at), (Outcome::New, None), "{n}"),
        }
    }
    for n in [0, 299, 300, 350, 699] {
        assert!(is_revoked(&store, &token("x", &format!("t{n}"))).await, "{n}");
    }
    assert_eq!(store.count().await.unwrap(), 701);
    assert!(store.write(Vec::new()).await.unwrap().is_empty());
}

pub(crate) async fn a_list_is_complete_filtered_and_paged(store: impl RevocationStore) {
    let mut expected = Vec::new();
    let mut changes = Vec::new();
    for n in 0..250 {
        let mut change =
            Revocation::new(Target::token(format!("t{n}")).issued_by("https://id.example"), HOUR);
        change.actor = Some(if n % 2 == 0 { "even".into() } else { "odd".into() });
        expected.push(change.target.to_string());
        changes.push(change);
    }
    changes.push(Revocation::new(Target::user("alice").issued_by("https://other.example"), HOUR));
    store.write(changes).await.unwrap();
    expected.sort();

    let mut query = ListQuery::default();
    query.kind = Some(TargetKind::Token);
    for limit in [1, 7, 100, 1000] {
        query.limit = NonZeroUsize::new(limit);
        assert_eq!(all_pages(&store, query.clone()).await, expected, "pages of {limit}");
    }
    query.actor = Some("odd".into());
    assert_eq!(all_pages(&store, query).await.len(), 125);

    let mut query = ListQuery::default();
    query.issuer = Some("https://other.example".into());
    assert_eq!(all_pages(&store, query).await, ["user alice"]);

    for text in ["", "x", "-1", "99999:0", "\0", "0:0:0"] {
        let mut query = ListQuery::default();
        query.cursor = Some(Cursor::from_text(text));
        let error = store.list(query).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidInput, "{text:?}");
    }
}

pub(crate) async fn a_record_tells_who_what_why_and_when(store: impl RevocationStore) {
    let target = Target::claim("tenant", "acme \"{}\"\0\n").issued_by("https://id.example");
    assert!(store.find(&target).await.unwrap().is_none());
    let before = now();
    let mut change = Revocation::new(target.clone(), HOUR);
    (change.reason, change.actor) = (Some("contract ended\n".into()), Some("support:7 ü".into()));
    let receipt = write(&store, change).await;
    let record = store.find(&target).await.unwrap().unwrap();
    assert_eq!(record.target(), &target);
    assert_eq!(record.reason().map(|reason| &**reason), Some("contract ended\n"));
    assert_eq!(record.actor().map(|actor| &**actor), Some("support:7 ü"));
    assert_eq!(record.changed_at(), receipt.at);
    let second = Duration::from_secs(1);
    assert!(
        record.changed_at() >= before.saturating_sub(second)
            && record.changed_at() <= now().saturating_add(second)
    );
    assert_eq!(record.until(), receipt.at.saturating_add(HOUR));
    assert_eq!(record.reissue_at(), receipt.reissue_at);
}

pub(crate) async fn what_is_over_needs_no_record(store: impl RevocationStore) {
    let mut change = Revocation::new(Target::token("t"), Duration::ZERO);
    change.until = now().saturating_sub(HOUR);
    assert_eq!(write(&store, change).await.outcome, Outcome::AlreadyExpired);
    assert!(store.find(&Target::token("t")).await.unwrap().is_none());
    assert_eq!(store.count().await.unwrap(), 0);
}

pub(crate) async fn odd_ids_are_only_themselves(store: impl RevocationStore) {
    let ids = [
        "a",
        "a ",
        "A",
        "a:b",
        "{a}",
        "}a{",
        "a\n",
        "a\r\n",
        "a\0",
        "ä",
        "a\u{308}",
        "*",
        "a*",
        "[a]",
        "\\",
        "\"",
        "{",
        "}",
        ":r:",
        "\u{202e}",
        "a\u{ffff}",
    ];
    let long = "x".repeat(1024);
    for (n, revoked) in ids.iter().copied().chain([&*long]).enumerate() {
        revoke(&store, Target::token(revoked)).await;
        for (m, id) in ids.iter().copied().chain([&*long]).enumerate() {
            assert_eq!(
                is_revoked(&store, &token("u", id)).await,
                m <= n,
                "{id:?} after {revoked:?}"
            );
        }
        assert!(store.find(&Target::token(revoked)).await.unwrap().is_some(), "{revoked:?}");
    }
}

pub(crate) async fn issuers_keep_their_ids_apart(store: impl RevocationStore) {
    let profile =
        TokenProfile::new().with_issuer("https://a.example").with_issuer("https://b.example");
    let of = |issuer: &str| {
        token_of(
            &profile,
            serde_json::json!({ "iss": issuer, "sub": "alice", "jti": "t", "iat": now().as_secs() - 9 }),
        )
    };
    let (a, b) = (of("https://a.example"), of("https://b.example"));
    revoke(&store, Target::user("alice").issued_by("https://a.example")).await;
    revoke(&store, Target::token("t").issued_by("https://a.example")).await;
    assert!(is_revoked(&store, &a).await && !is_revoked(&store, &b).await);
    revoke(&store, Target::issuer("https://b.example")).await;
    assert_eq!(revoked_by(&store, &b).await, Some(TargetKind::Issuer));
}

pub(crate) async fn a_write_goes_on_when_nobody_waits(store: impl RevocationStore) {
    let pending = store.write(vec![Revocation::new(Target::token("t"), HOUR)]);
    drop(pending);
    let token = token("u", "t");
    let done = async {
        while !is_revoked(&store, &token).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), done).await.unwrap();
}

pub(crate) async fn the_revoker_writes_what_the_check_finds(store: impl RevocationStore + Clone) {
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let token = token("alice", "t");
    let receipt = revoker.revoke_token(&token).reason("logout").await.unwrap();
    assert_eq!(receipt.outcome, Outcome::New);
    let Standing::Revoked(by) = check(&store, &token).await.unwrap() else { panic!("not revoked") };
    assert_eq!(by.kind, TargetKind::Token);
    // A mirror knows neither why nor when, and does not ask.
    if !matches!(store.check(&token), Lookup::Now(_)) || by.reason.is_some() {
        assert_eq!((by.reason.as_deref(), by.at), (Some("logout"), Some(receipt.at)));
    }
    let record = revoker.find(Target::token("t")).await.unwrap().unwrap();
    assert!(record.until() > token.expires_at());
}

/// The tests for a store that `make` makes: an expression for an empty store, which may await, and
/// which leaves the test early where it cannot be made.
macro_rules! contract {
    ($make:expr => $($test:ident)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                let (store, _keep) = $make;
                super::$test(store).await;
            }
        )*
    };
    ($make:expr) => {
        contract! { $make =>
            each_kind_of_target_revokes_its_tokens_and_no_others
            a_key_revokes_what_it_signed
            a_cutoff_covers_the_whole_second_and_nothing_after
            nothing_shortens_a_revocation
            a_repeated_write_changes_nothing
            reinstating_undoes_the_past_but_not_the_future
            many_are_written_at_once_with_their_receipts_in_order
            a_list_is_complete_filtered_and_paged
            a_record_tells_who_what_why_and_when
            what_is_over_needs_no_record
            odd_ids_are_only_themselves
            issuers_keep_their_ids_apart
            a_write_goes_on_when_nobody_waits
            the_revoker_writes_what_the_check_finds
        }
    };
}

mod memory {
    use tower_jwt_revocation::MemoryStore;

    contract!((MemoryStore::new(), ()));

    #[tokio::test]
    async fn knows_at_once_and_why() {
        use tower_jwt_revocation::{Revoker, Target, token::TokenProfile};
        let store = MemoryStore::new();
        let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
        revoker.revoke(Target::token("t")).reason("logout").await.unwrap();
        let standing = super::check(&store, &super::token("u", "t")).await.unwrap();
        let super::Standing::Revoked(by) = standing else { panic!("not revoked") };
        assert_eq!(by.reason.as_deref(), Some("logout"));
    }

    #[tokio::test]
    async fn answers_at_once() {
        use tower_jwt_revocation::RevocationStore as _;
        assert!(matches!(
            MemoryStore::new().check(&super::token("u", "t")),
            super::Lookup::Now(Ok(_))
        ));
    }
}

#[cfg(feature = "redis")]
macro_rules! redis {
    ($with:expr) => {{
        if !crate::servers::redis_is_installed() {
            return;
        }
        let server = crate::servers::RedisServer::start();
        let builder = tower_jwt_revocation::RedisStore::builder().with_url(server.url());
        let with: fn(_) -> _ = $with;
        let builder: tower_jwt_revocation::store::redis::RedisStoreBuilder = with(builder);
        (builder.connect().await.unwrap(), server)
    }};
}

#[cfg(feature = "redis")]
mod redis {
    contract!(redis!(|builder| builder));
}

#[cfg(feature = "redis")]
mod redis_sharded {
    contract!(redis!(
        |builder: tower_jwt_revocation::store::redis::RedisStoreBuilder| builder.with_shards(7)
    ));
}

/// A store with a mirror in front of it, which answers from memory from the first question on.
#[cfg(feature = "redis")]
macro_rules! mirror {
    ($with:expr) => {{
        let (store, server) = redis!($with);
        let mirror = tower_jwt_revocation::Mirror::new(store).unwrap();
        tokio::time::timeout(super::HOUR, mirror.ready()).await.unwrap();
        (mirror, server)
    }};
}

#[cfg(feature = "redis")]
mod mirrored {
    contract!(mirror!(|builder| builder));
}

#[cfg(feature = "redis")]
mod mirrored_shards {
    contract!(mirror!(
        |builder: tower_jwt_revocation::store::redis::RedisStoreBuilder| builder.with_shards(7)
    ));
}
