//! Lists of revoked tokens that another program keeps in the same Redis. Here `redis-cli` is the
//! other program; real client libraries are in `tests/foreign.rs`.

mod changes;
mod everywhere;
mod layouts;

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::{Outcome, Revocation, TargetKind};
use tower_jwt_revocation::store::redis::foreign::ForeignList;
use tower_jwt_revocation::store::redis::{ConnectError, Import, RedisStoreBuilder, Start};
use tower_jwt_revocation::store::{RevocationStore, Standing, StoreErrorKind};
use tower_jwt_revocation::token::UpstreamClaims;
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::{
    CachedVerifier, Clearance, FailMode, JwtRevocationLayer, Mirror, RedisStore, Rejection, Target,
    TokenProfile, VerifiedToken,
};

use crate::servers::{Cluster, Fault, FaultProxy, RedisServer, Sentinel, redis_is_installed};
use crate::store_contract::check;
use crate::support::{Around, Handler, WordVerifier, claims, rejection, seen, signed, with_token};

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
        let digits = |byte: &u8| {
            [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap())
        };
        Sha256::digest(token).iter().flat_map(digits).collect::<String>()
    };
    let (listed, other) =
        (token_with("t1", &json!({"fid": "f1"})), token_with("t2", &json!({"fid": "f2"})));
    let document = r#"{"blacklisted_at":"2026-01-01","reason":"stolen\nphone","user_id":"42"}"#;
    let family = r#"{"revoked_at":"2026-01-01","reason":"reuse"}"#;
    let under = |template: &str| format!("listed by another program under {template}");
    let (by_token, by_hash) = (format!("blacklist:{listed}"), format!("revoked:{}", sha(&listed)));
    let live_hash = format!("access_token:{}", sha(&other));
    for (list, command, kind, reason) in [
        (
            ForeignList::plain_jti(),
            &["SET", "t1", "", "EX", "3600"][..],
            TargetKind::Token,
            under("{jti}"),
        ),
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
            ForeignList::keys("session:{sub}:{jti}")
                .with_revoked_values(["ended"])
                .with_live_values(["on"]),
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
async fn when_the_entry_expires_the_token_is_accepted_again() {
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
async fn a_token_outside_of_a_request_is_looked_up_as_it_is() {
    let Some(lab) = Lab::start([
        ForeignList::blacklisted_token(),
        ForeignList::revoked_token_sha256(),
        ForeignList::plain_jti(),
    ])
    .await
    else {
        return;
    };
    let (listed, other) = (token("t1"), token("t2"));
    lab.layer.check(&listed).await.unwrap();
    lab.cli(&["SET", &format!("blacklist:{listed}"), "1"]);
    let refused = lab.layer.check(&listed).await.unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::Revoked(TargetKind::Token));
    assert!(lab.layer.check(&other).await.unwrap().is_checked());
}

#[tokio::test]
async fn all_is_asked_in_one_round_trip() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let lists =
        [ForeignList::plain_jti(), ForeignList::keys("b:{jti}"), ForeignList::revoked_families()];
    let layer = layer(&open(&proxy.url(), lists).await);
    let token = token_with("t1", &json!({"fid": "f1"}));
    assert_eq!(call(&layer, &token).await.status(), StatusCode::OK);
    // Nothing that Redis answers arrives, and still it is asked everything.
    let calls = || {
        (
            ["exists", "sismember"].map(|command| calls_of(&server, command)),
            calls_of(&server, "mget"),
        )
    };
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
async fn an_unreadable_entry_is_left_to_the_fail_mode() {
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
        assert_eq!(
            rejection.kind(),
            RejectionKind::StandingUnknown(StoreErrorKind::Protocol),
            "{odd:?}"
        );
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
async fn a_token_that_cannot_be_looked_up_is_refused_in_every_fail_mode() {
    let Some(lab) = Lab::start([ForeignList::keys("t:{claim:tid}")]).await else { return };
    for claims in
        [json!({}), json!({"tid": ""}), json!({"tid": [1]}), json!({"tid": "x".repeat(1025)})]
    {
        let open = lab.layer.clone().with_fail_mode(FailMode::Open);
        for layer in [&lab.layer, &open] {
            let response = call(layer, &token_with("t1", &claims)).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{claims}");
            let Rejection::InvalidToken(error) = rejection(&response) else {
                panic!("{:?}", rejection(&response))
            };
            assert!(error.source().unwrap().to_string().contains("tid"), "{error:?}");
        }
    }
    // It is no error of the store, and no outage.
    assert_eq!(
        lab.layer.counters().snapshot().store_errors_by_kind().map(|(_, n)| n).sum::<u64>(),
        0
    );
    assert_eq!(lab.call(&token_with("t1", &json!({"tid": 7}))).await.status(), StatusCode::OK);
    lab.cli(&["SET", "t:7", ""]);
    assert_eq!(
        lab.call(&token_with("t1", &json!({"tid": 7}))).await.status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        lab.call(&token_with("t1", &json!({"tid": "7"}))).await.status(),
        StatusCode::UNAUTHORIZED
    );
}

/// The attack: more connections than questions may be open, all with one listed token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_listed_token_opens_nothing_and_refuses_no_other() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    // However busy this machine is, nothing here is late.
    let store = RedisStore::builder().with_url(server.url()).with_check_timeout(2 * PATIENT);
    let lists = [ForeignList::blacklisted_token(), ForeignList::plain_jti()];
    let store = lists.into_iter().fold(store, RedisStoreBuilder::with_foreign_list);
    let layer = layer(&store.connect().await.unwrap()).with_fail_mode(FailMode::Open);
    let bad = token("bad");
    server.cli(&["SET", &format!("blacklist:{bad}"), "1"]);
    let ask = |token: String| {
        let layer = layer.clone();
        tokio::spawn(async move { call(&layer, &token).await })
    };
    for round in 0..5 {
        let mut flood: Vec<_> = (0..1500).map(|_| ask(bad.clone())).collect();
        let innocents: Vec<_> = (0..150).map(|n| ask(token(&format!("good{n}")))).collect();
        flood.extend((0..1500).map(|_| ask(bad.clone())));
        for innocent in innocents {
            let answer = innocent.await.unwrap();
            assert!(seen(&answer).clearance.as_ref().unwrap().is_checked(), "round {round}");
        }
        for attacker in flood {
            assert_eq!(attacker.await.unwrap().status(), StatusCode::UNAUTHORIZED);
        }
    }
    let counted = layer.counters().snapshot();
    assert_eq!((counted.admitted, counted.admitted_unchecked), (750, 0));
    assert_eq!(counted.store_errors(StoreErrorKind::Overloaded), 0);
}

#[tokio::test]
async fn an_id_is_one_argument_to_redis_whatever_it_contains() {
    let Some(lab) = Lab::start([ForeignList::keys("b:{jti}")]).await else { return };
    lab.cli(&["SET", "b:plain", ""]);
    for id in [
        "*",
        "p*",
        "b:plain",
        "pla?n",
        "{plain}",
        "plain\r\nSET b:x 1",
        "plain\u{0}",
        " plain",
        "x b:plain",
    ] {
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
    assert_eq!(
        lab.call(&token("t2").replace(".good", ".forged")).await.status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(lab.calls_of("exists"), before + 1);
}

#[tokio::test]
async fn a_list_of_one_issuer_says_nothing_of_another() {
    let Some(lab) =
        Lab::start([ForeignList::keys("u:{sub}").with_issuer("https://a.example")]).await
    else {
        return;
    };
    lab.cli(&["SET", "u:alice", ""]);
    let of = |issuer: &str| token_with("t1", &json!({"iss": issuer}));
    assert_eq!(lab.call(&of("https://a.example")).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(lab.call(&of("https://b.example")).await.status(), StatusCode::OK);
    assert_eq!(lab.call(&token("t1")).await.status(), StatusCode::OK);
}

// === Where the token itself is not at hand ===

#[tokio::test]
async fn without_the_token_a_list_of_tokens_is_an_error_and_never_empty() {
    let Some(lab) = Lab::start([ForeignList::revoked_token_sha256()]).await else { return };
    // As someone may have written it before there was `needs`.
    let forgetful = Around(lab.store.clone(), RedisStore::check);
    let forgetful = JwtRevocationLayer::new(WordVerifier::default(), forgetful);
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
