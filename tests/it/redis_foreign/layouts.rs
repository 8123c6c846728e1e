//! The five layouts that people come from, with keys as the other program writes them: each is
//! read, written and taken over, or says why not.

use sha2::{Digest as _, Sha256};

use super::*;

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn ttl(lab: &Lab, key: &str) -> i64 {
    lab.cli(&["TTL", key]).parse().unwrap()
}

async fn status(lab: &Lab, token: &str) -> StatusCode {
    lab.call(token).await.status()
}

/// Whether another process, which knows nothing of the lists, refuses the token.
async fn is_taken_over(lab: &Lab, token: &str) -> bool {
    let without = layer(&open(&lab.server.url(), []).await);
    call(&without, token).await.status() == StatusCode::UNAUTHORIZED
}

/// (a) `SET <jti> "" EX 3600`.
#[tokio::test]
async fn layout_a_ids_of_tokens_with_nothing_in_them() {
    let list: ForeignList = "plain-jti|writes".parse().unwrap();
    let Some(lab) = Lab::start([list]).await else { return };
    let (theirs, ours) = (token("2f1c-theirs"), token("2f1c-ours"));
    assert_eq!(status(&lab, &theirs).await, StatusCode::OK);
    lab.cli(&["SET", "2f1c-theirs", "", "EX", "3600"]);
    assert_eq!(status(&lab, &theirs).await, StatusCode::UNAUTHORIZED);

    lab.layer.revoker().revoke_token(&*lab.cleared(&ours).await).await.unwrap();
    assert_eq!(lab.cli(&["GET", "2f1c-ours"]), "");
    assert!(ttl(&lab, "2f1c-ours") > 300, "as long as the token at least");

    // Every key of the database could be an id, so the value has to be named.
    let named: ForeignList = "{jti}|revoked=".parse().unwrap();
    let mut import = Import::new(lab.layer.revoker(), &lab.store, &named).unwrap();
    let report = import.run().await.unwrap();
    assert_eq!((report.imported, report.known), (1, 1), "{report:?}");
    lab.cli(&["DEL", "2f1c-theirs", "2f1c-ours"]);
    assert!(is_taken_over(&lab, &theirs).await && is_taken_over(&lab, &ours).await);
}

/// (b) `SET blacklist:<token> 1`, or `blacklisted`, for 300 s at least.
#[tokio::test]
async fn layout_b_tokens_as_they_are() {
    let list: ForeignList = "blacklisted-token|writes".parse().unwrap();
    let Some(lab) = Lab::start([list.clone()]).await else { return };
    let (one, other, ours) = (token("t1"), token("t2"), token("t3"));
    lab.cli(&["SET", &format!("blacklist:{one}"), "1", "EX", "300"]);
    lab.cli(&["SET", &format!("blacklist:{other}"), "blacklisted", "EX", "300"]);
    assert_eq!(status(&lab, &one).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&lab, &other).await, StatusCode::UNAUTHORIZED);

    lab.layer.revoker().revoke_token(&*lab.cleared(&ours).await).await.unwrap();
    let key = format!("blacklist:{ours}");
    assert_eq!(lab.cli(&["GET", &key]), "1");
    assert!(ttl(&lab, &key) >= 300);

    let mut import = Import::new(lab.layer.revoker(), &lab.store, &list)
        .unwrap()
        .with_verifier(WordVerifier::default());
    let report = import.run().await.unwrap();
    assert_eq!((report.imported, report.known), (2, 1), "{report:?}");
    lab.cli(&["DEL", &format!("blacklist:{one}"), &format!("blacklist:{other}"), &key]);
    assert!(is_taken_over(&lab, &one).await && is_taken_over(&lab, &other).await);
}

/// (c) `access_token:<hash>` while it is live, `revoked:<hash>`, `user_session:<id>`.
#[tokio::test]
async fn layout_c_hashes_of_live_tokens() {
    let lists = [
        "revoked-token-sha256|writes",
        "access_token:{token_sha256}|absent-means-revoked-even-if-lost|writes",
        "user_session:{sub}|absent-means-revoked-even-if-lost|writes",
    ];
    let lists = lists.map(|list| list.parse::<ForeignList>().unwrap());
    let Some(lab) = Box::pin(Lab::start(lists.clone())).await else { return };
    let texts = ["t1", "t2", "t3", "t4"].map(token);
    let [one, two, three, four] = texts.each_ref();
    let live = |text: &str| format!("access_token:{}", sha256(text));
    // As it does at a login; of the fourth nobody has heard.
    lab.cli(&["SET", "user_session:alice", r#"{"ip":"::1"}"#, "EX", "86400"]);
    for text in [one, two, three] {
        lab.cli(&["SET", &live(text), r#"{"user_id":7}"#, "EX", "900"]);
        lab.cli(&["SADD", "user_tokens:7", &sha256(text)]);
        assert_eq!(status(&lab, text).await, StatusCode::OK);
    }
    let name = "access_token:{token_sha256}";
    let absent = format!("not live by the list {name} of another program");
    Lab::assert_refused(&lab.call(four).await, TargetKind::Token, &absent);
    // As it does at a logout.
    lab.cli(&["DEL", &live(one)]);
    lab.cli(&["SET", &format!("revoked:{}", sha256(two)), "1", "EX", "900"]);
    assert_eq!(status(&lab, one).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&lab, two).await, StatusCode::UNAUTHORIZED);

    let revoker = lab.layer.revoker();
    revoker.revoke_token(&*lab.cleared(three).await).await.unwrap();
    assert_eq!(lab.cli(&["EXISTS", &live(three)]), "0");
    assert_eq!(lab.cli(&["GET", &format!("revoked:{}", sha256(three))]), "1");
    // All of a user so far: what is live is deleted, and the next login makes it anew.
    revoker.revoke(Target::user("alice")).await.unwrap();
    assert_eq!(lab.cli(&["EXISTS", "user_session:alice"]), "0");

    for list in &lists {
        let error = Import::new(revoker.clone(), &lab.store, list).unwrap_err().to_string();
        assert!(error.contains("hashes") || error.contains("live"), "{error}");
    }
    assert!(is_taken_over(&lab, three).await, "what was revoked by us is ours already");
}

/// (d) `token:blacklist:<jti>` and `token:family:<id>` with JSON, set `token:revoked_families`.
#[tokio::test]
async fn layout_d_documents_of_tokens_and_families() {
    let lists = ["blacklisted-jti-json|writes", "token-family-json", "revoked-families|writes"];
    let lists = lists.map(|list| list.parse::<ForeignList>().unwrap());
    let Some(lab) = Box::pin(Lab::start(lists.clone())).await else { return };
    let of = |id: &str, family: &str| token_with(id, &json!({"fid": family}));
    let document = r#"{"jti":"t1","user_id":"alice","reason":"logout","revoked_at":"2026-11-30"}"#;
    lab.cli(&["SET", "token:blacklist:t1", document, "EX", "900"]);
    lab.cli(&["SET", "token:family:f1", r#"{"user_id":"alice","created_at":"2026-11-29"}"#]);
    lab.cli(&["SET", "token:family:f2", r#"{"user_id":"alice","revoked_at":"2026-11-30"}"#]);
    lab.cli(&["SADD", "token:revoked_families", "f3"]);
    assert_eq!(status(&lab, &of("t2", "f1")).await, StatusCode::OK);
    for (id, family) in [("t1", "f1"), ("t2", "f2"), ("t2", "f3")] {
        assert_eq!(status(&lab, &of(id, family)).await, StatusCode::UNAUTHORIZED, "{id} {family}");
    }

    let revoker = lab.layer.revoker();
    revoker.revoke_token(&*lab.cleared(&of("t4", "f1")).await).reason("stolen").await.unwrap();
    let written: Value = serde_json::from_str(&lab.cli(&["GET", "token:blacklist:t4"])).unwrap();
    assert_eq!((&written["reason"], &written["user_id"]), (&json!("stolen"), &json!("alice")));
    revoker.revoke(Target::family("f5")).await.unwrap();
    assert_eq!(lab.cli(&["SISMEMBER", "token:revoked_families", "f5"]), "1");

    let mut imported = 0;
    for list in &lists {
        let mut import = Import::new(revoker.clone(), &lab.store, list).unwrap();
        imported += import.run().await.unwrap().imported;
    }
    assert_eq!(imported, 3, "t1, f2 and f3");
    lab.cli(&["DEL", "token:blacklist:t1", "token:family:f2", "token:revoked_families"]);
    for (id, family) in [("t1", "f1"), ("t2", "f2"), ("t2", "f3")] {
        assert!(is_taken_over(&lab, &of(id, family)).await, "{id} {family}");
    }
    assert!(!is_taken_over(&lab, &of("t9", "f1")).await);
}

/// (e) `session:<id>` with `is_active`, `user:sessions:<id>`, `trusted:device:<id>`, and refresh
/// tokens of families that are live.
#[cfg(feature = "sessions")]
#[tokio::test]
async fn layout_e_sessions_devices_and_live_families() {
    use tower_jwt_revocation::clock::Timestamp;
    use tower_jwt_revocation::session::{NewFamily, Refresh, RefreshPolicy, Sessions};

    let list: ForeignList =
        "session:{sid}|json-live-flag=is_active|absent-means-revoked-even-if-lost|writes"
            .parse()
            .unwrap();
    let Some(lab) = Box::pin(Lab::start([list.clone()])).await else { return };
    let of = |session: &str| token_with("t1", &json!({"sid": session}));
    for (session, document) in [
        ("s1", r#"{"user_id":"alice","is_active":true}"#),
        ("s2", r#"{"user_id":"alice","is_active":false}"#),
        ("s3", r#"{"user_id":"alice","is_active":true}"#),
    ] {
        lab.cli(&["SET", &format!("session:{session}"), document, "EX", "900"]);
        lab.cli(&["SADD", "user:sessions:alice", session]);
    }
    for (session, expected) in [("s1", 200), ("s2", 401), ("s3", 200), ("deleted", 401)] {
        assert_eq!(status(&lab, &of(session)).await.as_u16(), expected, "{session}");
    }
    // A token of another service, which has no session here, says so by its lack of a claim.
    assert_eq!(status(&lab, &token("t2")).await, StatusCode::UNAUTHORIZED);

    let (revoker, policy) = (lab.layer.revoker(), RefreshPolicy::new());
    let sessions = Sessions::new(lab.store.clone(), revoker, policy).unwrap();
    sessions.end("s3").await.unwrap();
    assert_eq!(lab.cli(&["EXISTS", "session:s3"]), "0");
    assert_eq!(status(&lab, &of("s3")).await, StatusCode::UNAUTHORIZED);

    // What it trusts is trusted on, and its refresh tokens go on working, each once.
    lab.cli(&["SET", "trusted:device:phone", "alice"]);
    let owner = lab.cli(&["GET", "trusted:device:phone"]);
    sessions.trust_device(&owner, "phone", Duration::from_secs(3600)).await.unwrap();
    assert!(sessions.is_trusted_device("alice", "phone").await.unwrap());
    lab.cli(&["SET", "refresh_token:r1", r#"{"user_id":"alice","family":"f-1"}"#]);
    let families = sessions.families();
    let began = Timestamp::now().saturating_sub(Duration::from_secs(3600));
    let alice = || NewFamily::of_user("alice").in_session("s1");
    assert!(families.import(alice(), "f-1", "r1", began).await.unwrap());
    assert!(!families.import(alice(), "f-1", "r1", began).await.unwrap(), "it is there");
    let granted = families.refresh_id("f-1", "r1", "r2", None).await.unwrap();
    let Refresh::Granted(granted) = granted else { panic!("{granted:?}") };
    assert_eq!((&*granted.token, granted.created_at), ("r2", began));
    // Later imports find it where it is now.
    assert!(!families.import(alice(), "f-1", "r1", began).await.unwrap());
    sessions.end("s1").await.unwrap();
    let refused = families.refresh_id("f-1", "r2", "r3", None).await.unwrap();
    assert!(matches!(refused, Refresh::Refused(_)), "{refused:?}");

    let error = Import::new(sessions.revoker().clone(), &lab.store, &list).unwrap_err();
    assert!(error.to_string().contains("names what is live"), "{error}");
}

#[tokio::test]
async fn a_list_of_the_live_is_not_read_where_keys_may_be_lost_by_eviction() {
    if !redis_is_installed() {
        return;
    }
    let list = || ForeignList::keys("session:{sid}").absent_means_revoked_even_if_lost();
    let server = RedisServer::start();
    let connect =
        || RedisStore::builder().with_url(server.url()).with_foreign_list(list()).connect();
    connect().await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    connect().await.unwrap(); // without a bound nothing is evicted
    server.cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    let error = connect().await.unwrap_err().to_string();
    assert!(error.contains("foreign_list") && error.contains("volatile-lru"), "{error}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    connect().await.unwrap();
    server.cli(&["ACL", "SETUSER", "default", "-info"]);
    let error = connect().await.unwrap_err().to_string();
    assert!(error.contains("+info"), "{error}");
    let renamed = RedisServer::builder().arg("rename-command", "INFO nothing").start();
    let elsewhere = RedisStore::builder().with_url(renamed.url()).with_foreign_list(list());
    let error = elsewhere.connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Config(_)), "{error}");
    assert!(error.to_string().contains("rename-command"), "{error}");

    let anyway = RedisStore::builder().with_url(server.url()).with_start(Start::Anyway);
    let error = anyway.with_foreign_list(list()).connect().await.unwrap_err().to_string();
    assert!(error.contains("at the start"), "{error}");
}

/// Each of these connected once, and refused nothing or told nothing.
#[test]
fn a_list_that_could_do_nothing_is_refused() {
    let server = || RedisStore::builder().with_url("redis://127.0.0.1:1");
    let told = |list: ForeignList| server().with_foreign_list(list).connect();
    let told = |list| futures::executor::block_on(told(list)).unwrap_err().to_string();
    let words = ForeignList::keys("session:{sid}|revoked=ended|live=active");
    assert!(told(words).contains("`parse`"));
    let error = r"session:{sid}\|revoked=ended\|live=active".parse::<ForeignList>().unwrap_err();
    assert!(error.to_string().contains("backslash"), "{error}");
}

#[tokio::test]
async fn a_list_in_words_is_the_same_as_in_code() {
    for (words, code) in [
        ("plain-jti", ForeignList::plain_jti()),
        ("blacklist:{token}|writes", ForeignList::blacklisted_token().with_writes()),
        ("revoked-families", ForeignList::revoked_families()),
        (
            "s:{sid}|revoked=ended|revoked=gone|live=on|kind=user|issuer=https://a.example",
            ForeignList::keys("s:{sid}")
                .with_revoked_values(["ended", "gone"])
                .with_live_values(["on"])
                .with_kind(TargetKind::User)
                .with_issuer("https://a.example"),
        ),
        (
            "gone|member={claim:fid}|allow-missing-claims",
            ForeignList::set("gone", "{claim:fid}").allow_missing_claims(),
        ),
        ("d:{jti}|json-words", ForeignList::keys("d:{jti}").with_json_words()),
        ("d:{jti}|json-flag=end", ForeignList::keys("d:{jti}").with_json_flag("end")),
    ] {
        let read: ForeignList = words.parse().unwrap();
        assert_eq!(format!("{read:?}"), format!("{code:?}"), "{words}");
    }
}
