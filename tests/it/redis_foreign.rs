//! Lists of revoked tokens that another program keeps in the same Redis. Here `redis-cli` is the other program; real
//! client libraries are in `tests/foreign.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::store::redis::{RedisStoreBuilder, Start};
use tower_jwt_revocation::store::{Cursor, ListQuery, Lookup, Page};
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::token::{TokenProfile, UpstreamClaims};
use tower_jwt_revocation::{
    CachedVerifier, Clearance, FailMode, ForeignList, JwtRevocationLayer, Mirror, Outcome, Receipt, Record,
    RedisStore, Rejection, RejectionKind, Revocation, RevocationStore, Standing, StoreError, StoreErrorKind,
    Target, TargetKind, VerifiedToken,
};

use crate::servers::{Cluster, Fault, FaultProxy, RedisServer, Sentinel, redis_is_installed};
use crate::store_contract::check;
use crate::support::{Handler, WordVerifier, claims, rejection, seen, signed, with_token};

/// A limit that no healthy answer comes near to, also on a busy machine.
const PATIENT: Duration = Duration::from_secs(10);

/// A service in front of Redis, and the other program's way to it.
struct Lab {
    server: RedisServer,
    store: RedisStore,
    layer: JwtRevocationLayer,
}

impl Lab {
    async fn start(lists: impl IntoIterator<Item = ForeignList>) -> Option<Self> {
        if !redis_is_installed() {
            return None;
        }
        let server = RedisServer::start();
        let store = open(&server.url(), lists).await;
        Some(Self { server, layer: layer(&store), store })
    }

    fn cli(&self, command: &[&str]) -> String {
        self.server.cli(command)
    }

    async fn call(&self, token: &str) -> Response<String> {
        call(&self.layer, token).await
    }

    #[track_caller]
    fn assert_refused(response: &Response<String>, kind: TargetKind, reason: &str) {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let Rejection::Revoked(by) = rejection(response) else { panic!("{response:?}") };
        assert_eq!((by.kind, by.reason.as_deref()), (kind, Some(reason)));
    }

    /// The token of a request that passed.
    async fn cleared(&self, token: &str) -> Arc<VerifiedToken> {
        let response = self.call(token).await;
        let clearance: &Clearance = seen(&response).clearance.as_ref().unwrap();
        Arc::clone(clearance.token())
    }

    fn calls_of(&self, command: &str) -> u64 {
        calls_of(&self.server, command)
    }
}

fn calls_of(server: &RedisServer, command: &str) -> u64 {
    let stats = server.cli(&["INFO", "commandstats"]);
    let stat = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&*stat)).unwrap_or("0,");
    line.split(',').next().unwrap().parse().unwrap()
}

async fn open(url: &str, lists: impl IntoIterator<Item = ForeignList>) -> RedisStore {
    let builder = RedisStore::builder().with_url(url).with_check_timeout(PATIENT);
    let builder = builder.with_write_timeout(PATIENT);
    lists.into_iter().fold(builder, RedisStoreBuilder::with_foreign_list).connect().await.unwrap()
}

fn layer(store: &RedisStore) -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::default(), store.clone())
}

async fn call(layer: &JwtRevocationLayer, token: &str) -> Response<String> {
    layer.layer(Handler).oneshot(with_token(token)).await.unwrap()
}

fn token_with(id: &str, more: &Value) -> String {
    let mut claims = claims("alice", id);
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signed(&claims)
}

fn token(id: &str) -> String {
    token_with(id, &json!({}))
}

/// Calls until the answer is this one.
async fn until(layer: &JwtRevocationLayer, token: &str, status: StatusCode) {
    let start = Instant::now();
    while call(layer, token).await.status() != status {
        assert!(start.elapsed() < PATIENT * 3, "never {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// === Read ===

#[tokio::test]
async fn what_another_program_lists_is_refused_and_nothing_else() {
    let sha = |token: &str| {
        use sha2::{Digest as _, Sha256};
        let digits =
            |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap());
        Sha256::digest(token).iter().flat_map(digits).collect::<String>()
    };
    let (listed, other) = (token_with("t1", &json!({"fid": "f1"})), token_with("t2", &json!({"fid": "f2"})));
    let document = r#"{"blacklisted_at":"2026-01-01","reason":"stolen\nphone","user_id":"42"}"#;
    let family = r#"{"revoked_at":"2026-01-01","reason":"reuse"}"#;
    let under = |template: &str| format!("listed by another program under {template}");
    let (by_token, by_hash) = (format!("blacklist:{listed}"), format!("revoked:{}", sha(&listed)));
    let live_hash = format!("access_token:{}", sha(&other));
    for (list, command, kind, reason) in [
        (ForeignList::plain_jti(), &["SET", "t1", "", "EX", "3600"][..], TargetKind::Token, under("{jti}")),
        (
            ForeignList::blacklisted_token(),
            &["SET", &by_token, "blacklisted"],
            TargetKind::Token,
            under("blacklist:{token}"),
        ),
        (
            ForeignList::revoked_token_sha256(),
            &["MSET", &by_hash, "1", &live_hash, "1"],
            TargetKind::Token,
            under("revoked:{token_sha256}"),
        ),
        (
            ForeignList::blacklisted_jti_json(),
            &["SET", "token:blacklist:t1", document],
            TargetKind::Token,
            "stolen phone (user_id 42)".into(),
        ),
        (
            ForeignList::token_family_json(),
            &["MSET", "token:family:f1", family, "token:family:f2", r#"{"created_at":1}"#],
            TargetKind::Family,
            "reuse".into(),
        ),
        (
            ForeignList::revoked_families(),
            &["SADD", "token:revoked_families", "f1", "f3"],
            TargetKind::Family,
            under("token:revoked_families {claim:fid}"),
        ),
        (
            ForeignList::keys("session:{sub}:{jti}").with_revoked_values(["ended"]).with_live_values(["on"]),
            &["MSET", "session:alice:t1", "ended", "session:alice:t2", "on"],
            TargetKind::User,
            under("session:{sub}:{jti}"),
        ),
    ] {
        let list = if kind == TargetKind::User { list.with_kind(kind) } else { list };
        let Some(lab) = Lab::start([list]).await else { return };
        assert_eq!(lab.call(&listed).await.status(), StatusCode::OK, "{command:?}");
        lab.cli(command);
        Lab::assert_refused(&lab.call(&listed).await, kind, &reason);
        assert_eq!(lab.call(&other).await.status(), StatusCode::OK, "{command:?}");
        // A token without a family is in no list of families.
        let alone = lab.call(&token("t9")).await.status();
        assert_eq!(alone, StatusCode::OK, "{command:?}");
    }
}

#[tokio::test]
async fn when_the_entry_expires_the_token_lives_again() {
    let Some(lab) = Lab::start([ForeignList::plain_jti()]).await else { return };
    let token = token("t1");
    lab.cli(&["SET", "t1", "", "PX", "1500"]);
    assert_eq!(lab.call(&token).await.status(), StatusCode::UNAUTHORIZED);
    until(&lab.layer, &token, StatusCode::OK).await;
}

#[tokio::test]
async fn a_token_is_looked_up_as_it_was_presented_wherever_it_comes_from() {
    let Some(lab) = Lab::start([ForeignList::blacklisted_token()]).await else { return };
    let remembering =
        || JwtRevocationLayer::new(CachedVerifier::new(WordVerifier::default()), lab.store.clone());
    let in_cookie = || lab.layer.clone().with_token_sources([TokenSource::cookie("t").unwrap()]);
    for (id, layer) in [("t1", remembering()), ("t2", in_cookie())] {
        let text = token(id);
        let call = || async {
            let mut request = with_token(&text);
            request.headers_mut().insert("cookie", format!("t={text}").parse().unwrap());
            layer.layer(Handler).oneshot(request).await.unwrap().status()
        };
        for _ in 0..3 {
            assert_eq!(call().await, StatusCode::OK, "{id}");
        }
        lab.cli(&["SET", &format!("blacklist:{text}"), "1"]);
        assert_eq!(call().await, StatusCode::UNAUTHORIZED, "{id}");
    }
}

#[tokio::test]
async fn all_is_asked_in_one_round_trip() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let lists = [ForeignList::plain_jti(), ForeignList::keys("b:{jti}"), ForeignList::revoked_families()];
    let layer = layer(&open(&proxy.url(), lists).await);
    let token = token_with("t1", &json!({"fid": "f1"}));
    assert_eq!(call(&layer, &token).await.status(), StatusCode::OK);
    // Nothing that Redis answers arrives, and still it is asked everything.
    let calls =
        || (["exists", "sismember"].map(|command| calls_of(&server, command)), calls_of(&server, "mget"));
    let (lists, own) = calls();
    proxy.set(Fault::BlackHoleReplies).await;
    let asked = tokio::spawn({
        let (layer, token) = (layer.clone(), token.clone());
        async move { call(&layer, &token).await.status() }
    });
    let start = Instant::now();
    // Probes ask for lives, too.
    while !matches!(calls(), (now, owns) if now == [lists[0] + 2, lists[1] + 1] && owns > own) {
        assert!(start.elapsed() < PATIENT, "not all was asked before the first answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.set(Fault::Pass).await;
    assert_eq!(asked.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_read_is_left_to_the_fail_mode() {
    let token = token_with("t1", &json!({"fid": "f1"}));
    for odd in [
        &["HSET", "token:blacklist:t1", "reason", "x"][..],
        &["SET", "token:revoked_families", "f1"],
        &["SET", "s:t1", "yes"],
        &["LPUSH", "s:t1", "1"],
        &["SET", "token:family:f1", "revoked"],
    ] {
        let lists = [
            ForeignList::blacklisted_jti_json(),
            ForeignList::revoked_families(),
            ForeignList::keys("s:{jti}").with_revoked_values(["1"]).with_live_values(["0"]),
            ForeignList::token_family_json(),
        ];
        let Some(lab) = Box::pin(Lab::start(lists)).await else { return };
        let open = lab.layer.clone().with_fail_mode(FailMode::Open);
        lab.cli(odd);
        let response = lab.call(&token).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{odd:?}");
        let rejection = rejection(&response);
        assert_eq!(rejection.kind(), RejectionKind::NoVerdict(StoreErrorKind::Protocol), "{odd:?}");
        assert!(rejection.to_string().contains("the foreign list"), "{rejection}");
        let passed = call(&open, &token).await;
        assert!(!seen(&passed).clearance.as_ref().unwrap().is_checked(), "{odd:?}");
        // The connection is none the worse for it.
        assert!(lab.store.health().is_up());
        // A record of ours is enough, whatever a list says, and so is another list.
        lab.layer.revoker().revoke(Target::family("f1")).await.unwrap();
        assert_eq!(call(&open, &token).await.status(), StatusCode::UNAUTHORIZED, "{odd:?}");
        let elsewhere = token_with("t1", &json!({"fid": "f2"}));
        lab.cli(&["SET", "token:family:f2", r#"{"revoked_at":1}"#]);
        assert_eq!(call(&open, &elsewhere).await.status(), StatusCode::UNAUTHORIZED, "{odd:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_there_means_revoked_whatever_its_type() {
    let Some(lab) = Lab::start([ForeignList::keys("b:{jti}")]).await else { return };
    lab.cli(&["HSET", "b:hash", "reason", "x"]);
    lab.cli(&["SADD", "b:set", "x"]);
    lab.cli(&["SET", "b:empty", ""]);
    for id in ["hash", "set", "empty"] {
        assert_eq!(lab.call(&token(id)).await.status(), StatusCode::UNAUTHORIZED, "{id}");
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_looked_up_is_left_to_the_fail_mode() {
    let Some(lab) = Lab::start([ForeignList::keys("t:{claim:tid}")]).await else { return };
    for claims in [json!({}), json!({"tid": ""}), json!({"tid": [1]}), json!({"tid": "x".repeat(1025)})] {
        let response = lab.call(&token_with("t1", &claims)).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{claims}");
        assert!(rejection(&response).to_string().contains("tid"), "{:?}", rejection(&response));
    }
    assert_eq!(lab.call(&token_with("t1", &json!({"tid": 7}))).await.status(), StatusCode::OK);
    lab.cli(&["SET", "t:7", ""]);
    assert_eq!(lab.call(&token_with("t1", &json!({"tid": 7}))).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lab.call(&token_with("t1", &json!({"tid": "7"}))).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn no_id_says_anything_to_redis_but_itself() {
    let Some(lab) = Lab::start([ForeignList::keys("b:{jti}")]).await else { return };
    lab.cli(&["SET", "b:plain", ""]);
    for id in
        ["*", "p*", "b:plain", "pla?n", "{plain}", "plain\r\nSET b:x 1", "plain\u{0}", " plain", "x b:plain"]
    {
        assert_eq!(lab.call(&token(id)).await.status(), StatusCode::OK, "{id}");
        lab.cli(&["SET", &format!("b:{}", id.replace('\u{0}', "0")), ""]);
        if !id.contains('\u{0}') {
            assert_eq!(lab.call(&token(id)).await.status(), StatusCode::UNAUTHORIZED, "{id}");
        }
    }
}

#[tokio::test]
async fn nothing_is_asked_about_a_token_that_was_not_verified() {
    let Some(lab) = Lab::start([ForeignList::blacklisted_token()]).await else { return };
    let before = lab.calls_of("exists");
    assert_eq!(lab.call(&token("t1")).await.status(), StatusCode::OK);
    assert_eq!(lab.calls_of("exists"), before + 1);
    assert_eq!(lab.call(&token("t2").replace(".good", ".forged")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lab.calls_of("exists"), before + 1);
}

#[tokio::test]
async fn a_list_of_one_issuer_says_nothing_of_another() {
    let Some(lab) = Lab::start([ForeignList::keys("u:{sub}").with_issuer("https://a.example")]).await else {
        return;
    };
    lab.cli(&["SET", "u:alice", ""]);
    let of = |issuer: &str| token_with("t1", &json!({"iss": issuer}));
    assert_eq!(lab.call(&of("https://a.example")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lab.call(&of("https://b.example")).await.status(), StatusCode::OK);
    assert_eq!(lab.call(&token("t1")).await.status(), StatusCode::OK);
}

// === Where the token itself is not at hand ===

/// A store around a store, as someone may have written it before there was `needs`.
struct Forgetful(RedisStore);

impl RevocationStore for Forgetful {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.0.check(token)
    }

    fn write(&self, changes: Vec<Revocation>) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.0.write(changes)
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.0.find(target)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<Page, StoreError>> {
        self.0.list(query)
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.0.count()
    }
}

#[tokio::test]
async fn without_the_token_a_list_of_tokens_is_an_error_and_never_empty() {
    let Some(lab) = Lab::start([ForeignList::revoked_token_sha256()]).await else { return };
    let forgetful = JwtRevocationLayer::new(WordVerifier::default(), Forgetful(lab.store.clone()));
    let response = call(&forgetful, &token("t1")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(rejection(&response).to_string().contains("RevocationStore::needs"));

    let claims = UpstreamClaims::in_extension::<Value>(TokenProfile::new()).unwrap();
    let behind = JwtRevocationLayer::behind(claims, lab.store.clone());
    let mut request = Request::new(String::new());
    request.extensions_mut().insert(crate::support::claims("alice", "t1"));
    let response = behind.layer(Handler).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    // An `Arc` around it passes everything on.
    let shared: Arc<dyn RevocationStore> = Arc::new(lab.store.clone());
    let through = JwtRevocationLayer::new(WordVerifier::default(), shared);
    assert_eq!(call(&through, &token("t1")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_mirror_refuses_a_store_with_lists() {
    let Some(lab) = Lab::start([ForeignList::plain_jti()]).await else { return };
    let error = Mirror::new(lab.store.clone()).unwrap_err();
    assert_eq!(error.setting(), "foreign_list");
    assert!(error.to_string().contains("direct mode"), "{error}");
}

#[tokio::test]
async fn a_list_that_cannot_work_is_refused_before_redis_is_asked() {
    let store = RedisStore::builder()
        .with_url("redis://127.0.0.1:1")
        .with_start(Start::Anyway)
        .with_foreign_list(ForeignList::keys("blacklist:{tokn}"));
    let error = store.connect().await.unwrap_err().to_string();
    assert!(
        error.contains("foreign_list") && error.contains("{tokn}") && error.contains("{token}"),
        "{error}"
    );
}

// === Written ===

fn ttl(lab: &Lab, key: &str) -> i64 {
    lab.cli(&["TTL", key]).parse().unwrap()
}

#[tokio::test]
async fn what_is_revoked_is_written_beside_our_own_record() {
    let lists = [
        ForeignList::blacklisted_token(),
        ForeignList::revoked_token_sha256(),
        ForeignList::plain_jti(),
        ForeignList::blacklisted_jti_json(),
        ForeignList::keys("s:{jti}").with_revoked_values(["ended"]).with_live_values(["on"]),
        ForeignList::revoked_families(),
        ForeignList::token_family_json(),
        ForeignList::keys("not:{jti}"),
    ];
    let not_last = lists.len() - 1;
    let written = lists.into_iter().enumerate();
    let written = written.map(|(n, list)| if n < not_last { list.with_writes() } else { list });
    let Some(lab) = Box::pin(Lab::start(written)).await else { return };
    let text = token_with("t1", &json!({"fid": "f1"}));
    let revoker = lab.layer.revoker();
    lab.cli(&["SET", "s:t1", "on"]);
    let cleared = lab.cleared(&text).await;
    revoker.revoke_token(&cleared).reason("logout").await.unwrap();
    let by_token = format!("blacklist:{text}");
    assert_eq!(lab.cli(&["GET", &by_token]), "1");
    assert_eq!(lab.cli(&["GET", "t1"]), "");
    assert_eq!(lab.cli(&["EXISTS", "t1"]), "1");
    assert_eq!(lab.cli(&["GET", "s:t1"]), "ended");
    assert_eq!(lab.cli(&["KEYS", "revoked:*"]).len(), "revoked:".len() + 64);
    assert_eq!(lab.cli(&["KEYS", "not:*"]), "");
    let document: Value = serde_json::from_str(&lab.cli(&["GET", "token:blacklist:t1"])).unwrap();
    assert_eq!((&document["reason"], &document["user_id"]), (&json!("logout"), &json!("alice")));
    // As long as our own record: the 300 s of the token, and six minutes for clocks and leeways.
    for key in [&*by_token, "t1", "s:t1", "token:blacklist:t1"] {
        assert!((600..=661).contains(&ttl(&lab, key)), "{key}: {}", ttl(&lab, key));
    }
    assert_eq!(lab.call(&text).await.status(), StatusCode::UNAUTHORIZED);
    // A second spelling is another key, and the same token.
    lab.cli(&["DEL", &by_token, "t1", "s:t1", "token:blacklist:t1"]);
    let spelt_otherwise = token_with("t1", &json!({"fid": "f1", "extra": 1}));
    assert_eq!(lab.call(&spelt_otherwise).await.status(), StatusCode::UNAUTHORIZED);

    revoker.revoke(Target::family("f1")).await.unwrap();
    assert_eq!(lab.cli(&["SMEMBERS", "token:revoked_families"]), "f1");
    let document: Value = serde_json::from_str(&lab.cli(&["GET", "token:family:f1"])).unwrap();
    assert!(document["revoked_at"].is_u64(), "{document}");
    revoker.reinstate(Target::family("f1")).await.unwrap();
    assert_eq!(lab.cli(&["EXISTS", "token:revoked_families", "token:family:f1"]), "0");
    assert_eq!(lab.call(&token_with("t2", &json!({"fid": "f1"}))).await.status(), StatusCode::OK);

    // A token that is handed in as a string.
    let handed_in = token("t3");
    revoker.revoke_raw_token(&WordVerifier::default(), &handed_in).await.unwrap();
    assert_eq!(lab.cli(&["GET", &format!("blacklist:{handed_in}")]), "1");
    // One that is only known by its id is in the lists by id.
    revoker.revoke(Target::token("t4")).await.unwrap();
    assert_eq!(lab.cli(&["EXISTS", "t4", "token:blacklist:t4"]), "2");
}

#[tokio::test]
async fn what_stands_there_is_neither_written_over_nor_shortened() {
    let Some(lab) = Lab::start([ForeignList::plain_jti().with_writes()]).await else { return };
    let revoker = lab.layer.revoker();
    lab.cli(&["SET", "longer", "theirs", "EX", "1000000"]);
    lab.cli(&["SET", "shorter", "theirs", "EX", "10"]);
    lab.cli(&["SET", "for_ever", "theirs"]);
    for id in ["longer", "shorter", "for_ever"] {
        revoker.revoke(Target::token(id)).await.unwrap();
        assert_eq!(lab.cli(&["GET", id]), "theirs", "{id}");
    }
    // Nor taken off, if it is not like ours.
    revoker.reinstate(Target::token("for_ever")).await.unwrap();
    assert!(ttl(&lab, "longer") > 900_000 && ttl(&lab, "shorter") > 3600 && ttl(&lab, "for_ever") == -1);
    // A key of another type, or one of our own, is not touched, and the caller is told. Our record is in force.
    lab.cli(&["HSET", "hash", "a", "b"]);
    let life = lab.cli(&["GET", "jwt-revocation:{0}:e"]);
    for id in ["hash", "jwt-revocation:{0}:e"] {
        let error = revoker.revoke(Target::token(id)).await.unwrap_err();
        assert!(error.to_string().contains("in force"), "{error}");
        assert!(revoker.find(Target::token(id)).await.unwrap().is_some());
        revoker.reinstate(Target::token(id)).await.unwrap_err();
    }
    assert_eq!(lab.cli(&["TYPE", "hash"]), "hash");
    // The number of changes is in it; the rest is as it was.
    let words = |life: &str| life.split(' ').take(5).map(ToOwned::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&lab.cli(&["GET", "jwt-revocation:{0}:e"])), words(&life));
}

// === Imported ===

#[tokio::test]
async fn a_list_is_taken_over_once_with_its_expiries() {
    // It is written to as well, which must not make entries last longer each time.
    let Some(lab) = Lab::start([ForeignList::blacklisted_jti_json().with_writes()]).await else { return };
    for n in 0..650 {
        let document = json!({"reason": format!("r{n}")}).to_string();
        lab.cli(&["SET", &format!("token:blacklist:t{n}"), &document, "EX", "1000"]);
    }
    lab.cli(&["SET", "token:blacklist:for_ever", "{}"]);
    lab.cli(&["HSET", "token:blacklist:hash", "a", "b"]);
    lab.cli(&["SET", &format!("token:blacklist:{}", "x".repeat(1025)), "{}"]);
    lab.cli(&["SET", "else", "{}"]);
    let list = ForeignList::blacklisted_jti_json();
    let revoker = lab.layer.revoker();
    let mut import = revoker.import(&lab.store, &list).unwrap().with_pace(1_000_000);
    // Page by page, each by another process.
    let mut pages = 0;
    while import.step().await.unwrap() {
        pages += 1;
        let (cursor, report) = (import.cursor().unwrap(), import.report());
        import =
            revoker.import(&lab.store, &list).unwrap().with_cursor(&cursor).unwrap().with_pace(1_000_000);
        assert_eq!(import.cursor(), Some(cursor));
        assert!(report.imported < 651);
    }
    assert!(pages >= 2, "{pages}");
    // Again, in one go: all is known.
    let report = revoker.import(&lab.store, &list).unwrap().with_pace(1_000_000).run().await.unwrap();
    assert_eq!((report.imported, report.live), (0, 0), "{report:?}");
    // A cursor of another process says nothing here, so all is read.
    let elsewhere = Cursor::from_text("-/0/another-process/77");
    let mut anew = revoker.import(&lab.store, &list).unwrap().with_cursor(&elsewhere).unwrap();
    assert!(anew.run().await.unwrap().known >= 651);
    assert!(ttl(&lab, "token:blacklist:t7") <= 1000);
    assert!(report.known >= 651 && report.unreadable >= 2, "{report:?}");
    assert_eq!(revoker.count().await.unwrap(), 651);
    let record = revoker.find(Target::token("t7")).await.unwrap().unwrap();
    assert_eq!(record.reason().map(|reason| &**reason), Some("r7"));
    let left = record.until().since(crate::store_contract::now()).as_secs();
    assert!((1300..=1361).contains(&left), "{left}");
    let for_ever = revoker.find(Target::token("for_ever")).await.unwrap().unwrap();
    assert!(for_ever.until().since(crate::store_contract::now()) > Duration::from_secs(24 * 3600));

    // Without the list, the records are enough.
    let without = layer(&RedisStore::connect(lab.server.url()).await.unwrap());
    assert_eq!(call(&without, &token("t7")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(call(&without, &token("else")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_set_and_a_list_of_tokens_are_taken_over() {
    let Some(lab) = Lab::start([]).await else { return };
    let revoker = lab.layer.revoker();
    for n in 0..900 {
        lab.cli(&["SADD", "token:revoked_families", &format!("f{n}")]);
    }
    let set = ForeignList::revoked_families();
    let report = revoker.import(&lab.store, &set).unwrap().with_pace(1_000_000).run().await.unwrap();
    assert_eq!(report.imported, 900, "{report:?}");
    let of_family = token_with("t1", &json!({"fid": "f899"}));
    assert_eq!(lab.call(&of_family).await.status(), StatusCode::UNAUTHORIZED);

    let (listed, live) = (token("t7"), token("t8"));
    lab.cli(&["SET", &format!("blacklist:{listed}"), "1"]);
    lab.cli(&["SET", &format!("blacklist:{live}"), "0"]);
    lab.cli(&["SET", "blacklist:junk", "1"]);
    lab.cli(&["SET", &format!("blacklist:{}", listed.replace(".good", ".forged")), "1"]);
    let tokens = ForeignList::blacklisted_token().with_revoked_values(["1"]).with_live_values(["0"]);
    let mut unable = revoker.import(&lab.store, &tokens).unwrap();
    let error = unable.run().await.unwrap_err();
    assert!(error.to_string().contains("with_verifier"), "{error}");
    let mut import = revoker.import(&lab.store, &tokens).unwrap().with_verifier(WordVerifier::default());
    let report = import.run().await.unwrap();
    assert_eq!((report.imported, report.live, report.unreadable), (1, 1, 2), "{report:?}");
    assert_eq!(lab.call(&listed).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lab.call(&live).await.status(), StatusCode::OK);
    assert!(!format!("{import:?}").contains(&listed));
}

#[tokio::test]
async fn a_list_that_does_not_tell_what_is_revoked_is_not_taken_over() {
    let Some(lab) = Lab::start([]).await else { return };
    let revoker = lab.layer.revoker();
    for (list, word) in [
        (ForeignList::revoked_token_sha256(), "hashes"),
        (ForeignList::plain_jti(), "every key"),
        (ForeignList::keys("{sub}:{jti}"), "several placeholders"),
        (ForeignList::set("s:{sub}", "{jti}"), "many sets"),
        (ForeignList::keys("u:{sub}"), "user"),
        (ForeignList::keys("b:{tokn}"), "{tokn}"),
    ] {
        let error = revoker.import(&lab.store, &list).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let named = ForeignList::plain_jti().with_revoked_values([""]);
    lab.cli(&["MSET", "t1", "", "another", "program's"]);
    let report = revoker.import(&lab.store, &named).unwrap().run().await.unwrap();
    assert_eq!((report.imported, report.unreadable), (1, 1), "{report:?}");
}

// === Everywhere ===

#[tokio::test]
async fn a_password_a_user_with_few_rights_and_a_database_of_its_own() {
    if !redis_is_installed() {
        return;
    }
    let rights = "app on >s3cret resetkeys ~jwt-revocation:* ~token:* -@all +ping +role +time +info +client|id +del +get +mget +set +hset +hmget +pexpireat +zadd +zrem +zcard +zcount +zscan +zrangebyscore +zremrangebyscore +zrevrange +xadd +xlen +xrange +eval +evalsha +select +exists +sismember";
    let server = RedisServer::builder().acl(rights).acl("default on >other ~* &* +@all").start();
    let url = format!("{}/3", server.url_as("app", "s3cret"));
    let lists = [ForeignList::blacklisted_jti_json(), ForeignList::revoked_families()];
    let layer = layer(&open(&url, lists).await);
    let (t1, t2) = (token_with("t1", &json!({})), token_with("t2", &json!({"fid": "f1"})));
    for token in [&t1, &t2] {
        assert_eq!(call(&layer, token).await.status(), StatusCode::OK);
    }
    server.cli(&["-n", "0", "SET", "token:blacklist:t1", "{}"]);
    assert_eq!(call(&layer, &t1).await.status(), StatusCode::OK);
    server.cli(&["-n", "3", "SET", "token:blacklist:t1", "{}"]);
    server.cli(&["-n", "3", "SADD", "token:revoked_families", "f1"]);
    for token in [&t1, &t2] {
        assert_eq!(call(&layer, token).await.status(), StatusCode::UNAUTHORIZED);
    }
    // A right that is missing shows at the start.
    let denied = RedisStore::builder().with_url(&url).with_foreign_list(ForeignList::keys("elsewhere:{jti}"));
    let error = Box::pin(denied.clone().connect()).await.unwrap_err().to_string();
    assert!(error.contains("elsewhere:{jti}") && error.contains("NOPERM"), "{error}");
    // If it is taken away later, that is an error of each check, and the connection goes on.
    let store = Box::pin(denied.with_start(Start::Anyway).connect()).await.unwrap();
    store.watch_health().wait_for(tower_jwt_revocation::store::redis::Health::is_up).await.unwrap();
    let error = check(&store, &crate::store_contract::token("u", "t1")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    assert!(store.health().is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_the_lists_move_with_the_primary() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = tokio::task::spawn_blocking(|| Sentinel::start(1, 1)).await.unwrap();
    let layer = layer(&open(&sentinel.url(), [ForeignList::plain_jti().with_writes()]).await);
    sentinel.primary().cli(&["SET", "t1", ""]);
    assert_eq!(sentinel.primary().cli(&["WAIT", "1", "10000"]), "1");
    assert_eq!(call(&layer, &token("t1")).await.status(), StatusCode::UNAUTHORIZED);
    let killed = sentinel.kill_primary();
    let sentinel = tokio::task::spawn_blocking(move || {
        sentinel.wait_for_failover_from(killed);
        sentinel
    })
    .await
    .unwrap();
    until(&layer, &token("t1"), StatusCode::UNAUTHORIZED).await;
    let start = Instant::now();
    while let Err(error) = layer.revoker().revoke(Target::token("t2")).await {
        assert!(start.elapsed() < PATIENT * 3, "{error}");
    }
    assert_eq!(sentinel.primary().cli(&["EXISTS", "t2"]), "1");
    until(&layer, &token("t2"), StatusCode::UNAUTHORIZED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_each_key_is_asked_at_its_own_node() {
    if !redis_is_installed() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let set = ForeignList::set("families", "{claim:fid}").allow_missing_claims().with_writes();
    let list = || ForeignList::keys("b:{jti}").with_writes();
    let store = open(&cluster.url(), [list(), set.clone()]).await;
    let layer = layer(&store);
    let revoker = layer.revoker();
    let put = |key: &str| cluster.nodes()[cluster.owner(key)].cli(&["SET", key, ""]);
    let id_on = |node: usize| cluster.key_on(node, "b:")["b:".len()..].to_owned();
    let mut ids: Vec<_> = (0..3).map(id_on).collect();
    // A hash tag in an id moves the key; a brace without its half does not.
    ids.extend(["{tag}1", "{}x", "a{b", "}{"].map(ToOwned::to_owned));
    for id in &ids {
        assert_eq!(call(&layer, &token(id)).await.status(), StatusCode::OK, "{id}");
        put(&format!("b:{id}"));
        assert_eq!(call(&layer, &token(id)).await.status(), StatusCode::UNAUTHORIZED, "{id}");
    }
    cluster.nodes()[cluster.owner("families")].cli(&["SADD", "families", "f1"]);
    let of_family = token_with("live", &json!({"fid": "f1"}));
    assert_eq!(call(&layer, &of_family).await.status(), StatusCode::UNAUTHORIZED);

    // Written at the right node, too.
    for n in 0..12 {
        revoker.revoke(Target::token(format!("w{n}"))).await.unwrap();
        let key = format!("b:w{n}");
        assert_eq!(cluster.nodes()[cluster.owner(&key)].cli(&["EXISTS", &key]), "1");
    }

    // All nodes are read, by a process that has none of this yet.
    let other =
        tower_jwt_revocation::Revoker::new(tower_jwt_revocation::MemoryStore::new(), TokenProfile::new());
    let other = other.unwrap();
    let report = other.import(&store, &list()).unwrap().with_pace(1_000_000).run().await.unwrap();
    assert_eq!(report.imported, (ids.len() + 12) as u64, "{report:?}");
    let report = other.import(&store, &set).unwrap().run().await.unwrap();
    assert_eq!(report.imported, 1, "{report:?}");

    // A slot changes hands.
    let key = format!("b:{}", ids[0]);
    let (slot, to) = (cluster.slot(&key), (cluster.owner(&key) + 1) % 3);
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.migrate_slot(slot, to);
        cluster
    })
    .await
    .unwrap();
    until(&layer, &token(&ids[0]), StatusCode::UNAUTHORIZED).await;
    cluster.nodes()[to].cli(&["DEL", &key]);
    until(&layer, &token(&ids[0]), StatusCode::OK).await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_takes_only_its_own_entries_away() {
    if !redis_is_installed() {
        return;
    }
    let mut cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store = open(&cluster.url(), [ForeignList::keys("b:{jti}")]).await;
    let layer = layer(&store);
    let victim = (cluster.owner("jwt-revocation:{0}:e") + 1) % 3;
    let id_on = |node: usize| cluster.key_on(node, "b:")["b:".len()..].to_owned();
    let (hit, spared) = (token(&id_on(victim)), token(&id_on((victim + 1) % 3)));
    for token in [&hit, &spared] {
        assert_eq!(call(&layer, token).await.status(), StatusCode::OK);
    }
    cluster.kill(victim);
    for _ in 0..100 {
        assert_eq!(call(&layer, &spared).await.status(), StatusCode::OK);
        assert_eq!(call(&layer, &hit).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!store.health().is_up());
    cluster.node_mut(victim).restart();
    until(&layer, &hit, StatusCode::OK).await;
}

#[tokio::test]
async fn lists_do_not_change_what_our_own_records_say() {
    let Some(lab) = Lab::start([ForeignList::plain_jti()]).await else { return };
    let token = crate::store_contract::token("u", "t1");
    assert_eq!(check(&lab.store, &token).await.unwrap(), Standing::Live);
    let receipts = lab.store.write(vec![Revocation::new(Target::user("u"), PATIENT)]).await.unwrap();
    assert_eq!(receipts[0].outcome, Outcome::New);
    assert!(
        matches!(check(&lab.store, &token).await.unwrap(), Standing::Revoked(by) if by.kind == TargetKind::User)
    );
}
