//! What is written beside our own records, and what is taken over into them.

use super::*;

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
async fn a_write_says_what_the_other_program_does_not_learn() {
    let lists = [
        ForeignList::plain_jti().with_writes(),
        ForeignList::revoked_families().with_writes(),
        ForeignList::keys("read:{jti}"),
    ];
    let Some(lab) = Box::pin(Lab::start(lists)).await else { return };
    let revoker = lab.layer.revoker();
    let told = async |target| revoker.revoke(target).await.unwrap().unlisted.join(", ");
    assert_eq!(told(Target::user("alice")).await, "{jti}, token:revoked_families {claim:fid}");
    assert_eq!(told(Target::family("f1")).await, "");
    assert_eq!(told(Target::token("t1")).await, "");
}

/// The document of a live family is the other program's, and is not written over.
#[tokio::test]
async fn a_write_says_that_the_other_program_goes_by_a_document_of_its_own() {
    let documents = || ForeignList::token_family_json().with_writes();
    let Some(lab) = Box::pin(Lab::start([documents()])).await else { return };
    let told = async |layer: &JwtRevocationLayer, family: &str| {
        let receipt = layer.revoker().revoke(Target::family(family)).await.unwrap();
        receipt.unlisted.join(", ")
    };
    lab.cli(&["SET", "token:family:f-1", r#"{"user_id":"alice"}"#, "EX", "900"]);
    lab.cli(&["SET", "token:family:f-2", r#"{"revoked_at":1}"#, "EX", "900"]);
    assert_eq!(told(&lab.layer, "f-1").await, "token:family:{claim:fid}");
    assert_eq!(lab.cli(&["GET", "token:family:f-1"]), r#"{"user_id":"alice"}"#);
    assert_eq!(told(&lab.layer, "f-2").await, "");
    assert_eq!(told(&lab.layer, "f-3").await, "");
    // Where another list says it, the other program learns of it.
    let both = [documents(), ForeignList::revoked_families().with_writes()];
    let both = layer(&open(&lab.server.url(), both).await);
    assert_eq!(told(&both, "f-1").await, "");
    assert_eq!(lab.cli(&["SISMEMBER", "token:revoked_families", "f-1"]), "1");
}

#[cfg(feature = "sessions")]
#[tokio::test]
async fn a_logout_tells_a_list_of_tokens_of_the_token_at_hand() {
    use tower_jwt_revocation::session::{RefreshPolicy, Sessions};

    let lists = [ForeignList::plain_jti().with_writes()];
    let Some(lab) = Box::pin(Lab::start(lists)).await else { return };
    let policy = RefreshPolicy::new();
    let sessions = Sessions::new(lab.store.clone(), lab.layer.revoker(), policy).unwrap();
    let text = token_with("t1", &json!({"sid": "s1"}));
    sessions.logout(&*lab.cleared(&text).await).await.unwrap();
    // The entry goes with the token, and not with the record of the session.
    assert!((600..=661).contains(&ttl(&lab, "t1")), "{}", ttl(&lab, "t1"));
    lab.cli(&["DEL", "t1"]);
    assert_eq!(lab.call(&text).await.status(), StatusCode::UNAUTHORIZED);
}

#[cfg(feature = "sessions")]
#[tokio::test]
async fn the_end_of_a_session_is_said_to_a_list_of_families() {
    use std::num::NonZeroUsize;
    use tower_jwt_revocation::session::{
        EvictionPolicy, Grant, Login, RefreshPolicy, SessionDetails, Sessions,
    };

    let lists =
        [ForeignList::plain_jti().with_writes(), ForeignList::revoked_families().with_writes()];
    let Some(lab) = Box::pin(Lab::start(lists)).await else { return };
    let sessions =
        Sessions::new(lab.store.clone(), lab.layer.revoker(), RefreshPolicy::new()).unwrap();
    let sessions =
        sessions.with_max_per_user(NonZeroUsize::new(5).unwrap(), EvictionPolicy::Oldest);
    let login = async |device: &str| -> Grant {
        let details = SessionDetails::new().on_device(device);
        match sessions.login("alice", details).await.unwrap() {
            Login::Granted(grant) => grant,
            other => panic!("{other:?}"),
        }
    };
    let mut grants = Vec::new();
    for device in ["room", "end", "of", "phone", "device", "all"] {
        grants.push(login(device).await);
    }
    let is_told =
        |n: usize| lab.cli(&["SISMEMBER", "token:revoked_families", &grants[n].family]) == "1";
    let told = || (0..grants.len()).filter(|n| is_told(*n)).collect::<Vec<_>>();
    let id = |n: usize| grants[n].session.as_deref().unwrap();
    assert_eq!(told(), [0], "it has made room");
    sessions.end(id(1)).await.unwrap();
    assert_eq!(told(), [0, 1]);
    let _ = sessions.end_of("alice", id(2)).await.unwrap();
    assert_eq!(told(), [0, 1, 2]);
    let _ = sessions.end_device_of("alice", "phone").await.unwrap();
    sessions.end_device("device").await.unwrap();
    assert_eq!(told(), [0, 1, 2, 3, 4]);
    sessions.end_all("alice", None).await.unwrap();
    assert_eq!(told(), [0, 1, 2, 3, 4, 5]);
    // One of which nothing is known is revoked all the same.
    sessions.end("elsewhere").await.unwrap();
    assert!(lab.layer.revoker().find(Target::session("elsewhere")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_reinstatement_takes_off_what_was_written_here_and_nothing_else() {
    let lists = [
        ForeignList::plain_jti(),
        ForeignList::blacklisted_jti_json(),
        ForeignList::keys("s:{jti}").with_revoked_values(["ended"]).with_live_values(["on"]),
    ];
    let set = ForeignList::revoked_families().with_writes();
    let lists = lists.map(ForeignList::with_writes).into_iter().chain([set]);
    let Some(lab) = Box::pin(Lab::start(lists)).await else { return };
    let revoker = lab.layer.revoker();
    let theirs = r#"{"reason":"theirs","revoked_at":1}"#;
    let listed = |id: &str| {
        let keys = [id.to_owned(), format!("token:blacklist:{id}"), format!("s:{id}")];
        keys.map(|key| lab.cli(&["EXISTS", &key]) == "1")
    };
    let and_back = async |target: Target| {
        revoker.revoke(target.clone()).await.unwrap();
        revoker.reinstate(target).await.unwrap();
    };

    // As we would have written it, as far as there is only one way.
    lab.cli(&["MSET", "t1", "", "token:blacklist:t1", theirs, "s:t1", "ended"]);
    lab.cli(&["SADD", "token:revoked_families", "f1"]);
    for _ in 0..2 {
        and_back(Target::token("t1")).await;
        and_back(Target::family("f1")).await;
    }
    assert_eq!(listed("t1"), [true; 3]);
    assert_eq!(lab.cli(&["GET", "token:blacklist:t1"]), theirs);
    assert_eq!(lab.cli(&["SMEMBERS", "token:revoked_families"]), "f1");
    assert_eq!(lab.call(&token("t1")).await.status(), StatusCode::UNAUTHORIZED);

    // What was written here goes, also if it was written twice, and each time.
    lab.cli(&["SET", "s:t2", "on"]);
    for _ in 0..2 {
        revoker.revoke(Target::token("t2")).await.unwrap();
        revoker.revoke(Target::family("f2")).await.unwrap();
        let longer = Duration::from_secs(90 * 24 * 3600);
        revoker.revoke(Target::token("t2")).lifetime(longer).await.unwrap();
        assert_eq!(listed("t2"), [true; 3]);
        revoker.reinstate(Target::token("t2")).await.unwrap();
        revoker.reinstate(Target::family("f2")).await.unwrap();
        assert_eq!(listed("t2"), [false; 3]);
    }
    assert_eq!(lab.cli(&["SMEMBERS", "token:revoked_families"]), "f1");
    assert_eq!(lab.call(&token("t2")).await.status(), StatusCode::OK);

    // Unless the other program has written it over.
    revoker.revoke(Target::token("t3")).await.unwrap();
    lab.cli(&["SET", "token:blacklist:t3", theirs]);
    revoker.reinstate(Target::token("t3")).await.unwrap();
    assert_eq!(listed("t3"), [false, true, false]);
    // Nothing is left of it with our prefix but records: no mark.
    assert_eq!(lab.cli(&["KEYS", "jwt-revocation:{0}:f:*"]), "");
}

#[tokio::test]
async fn what_was_not_written_here_is_not_asked_for_by_a_reinstatement() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().acl("app on >right ~* +@all").start();
    let lists = [ForeignList::plain_jti(), ForeignList::keys("b:{jti}")];
    let store = open(&server.url_as("app", "right"), lists.map(ForeignList::with_writes)).await;
    let revoker = layer(&store).revoker();
    server.cli(&["SET", "t1", ""]);
    server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~jwt-revocation:*"]);
    revoker.reinstate(Target::token("t1")).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", "t1"]), "1");
}

#[tokio::test]
async fn an_existing_entry_is_neither_overwritten_nor_shortened() {
    let Some(lab) = Lab::start([ForeignList::plain_jti().with_writes()]).await else { return };
    let revoker = lab.layer.revoker();
    lab.cli(&["SET", "longer", "theirs", "EX", "1000000"]);
    lab.cli(&["SET", "shorter", "theirs", "EX", "10"]);
    lab.cli(&["SET", "for_ever", "theirs"]);
    for id in ["longer", "shorter", "for_ever"] {
        revoker.revoke(Target::token(id)).await.unwrap();
        assert_eq!(lab.cli(&["GET", id]), "theirs", "{id}");
    }
    // Nor taken off.
    revoker.reinstate(Target::token("for_ever")).await.unwrap();
    assert!(
        ttl(&lab, "longer") > 900_000 && ttl(&lab, "shorter") > 3600 && ttl(&lab, "for_ever") == -1
    );
    // A key of another type, or one of our own, is not touched, and the caller gets an error. Our
    // record is in force.
    lab.cli(&["HSET", "hash", "a", "b"]);
    let epoch = lab.cli(&["GET", "jwt-revocation:{0}:e"]);
    for id in ["hash", "jwt-revocation:{0}:e"] {
        let error = revoker.revoke(Target::token(id)).await.unwrap_err();
        assert!(error.to_string().contains("in force"), "{error}");
        assert!(revoker.find(Target::token(id)).await.unwrap().is_some());
    }
    // Nothing was written there that a reinstatement would have to take off.
    revoker.reinstate(Target::token("hash")).await.unwrap();
    revoker.reinstate(Target::token("jwt-revocation:{0}:e")).await.unwrap_err();
    assert_eq!(lab.cli(&["TYPE", "hash"]), "hash");
    // The number of changes is in it; the rest is as it was.
    let words = |epoch: &str| epoch.split(' ').take(5).map(ToOwned::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&lab.cli(&["GET", "jwt-revocation:{0}:e"])), words(&epoch));
}

// === Imported ===

#[tokio::test]
async fn a_list_is_taken_over_once_with_its_expiries() {
    // It is written to as well, which must not make entries last longer each time.
    let Some(lab) = Lab::start([ForeignList::blacklisted_jti_json().with_writes()]).await else {
        return;
    };
    let start = Instant::now();
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
    let mut import = Import::new(revoker.clone(), &lab.store, &list).unwrap().with_pace(1_000_000);
    // Page by page, each by another process.
    let (mut pages, mut list_id) = (0, String::new());
    while import.step().await.unwrap() {
        pages += 1;
        let (cursor, report) = (import.cursor().unwrap(), import.report());
        list_id = cursor.split('/').next().unwrap().to_owned();
        import = Import::new(revoker.clone(), &lab.store, &list)
            .unwrap()
            .with_cursor(&cursor)
            .unwrap()
            .with_pace(1_000_000);
        assert_eq!(import.cursor(), Some(cursor));
        assert!(report.imported < 651);
    }
    assert!(pages >= 2, "{pages}");
    // Again, in one go: all is known.
    let report = Import::new(revoker.clone(), &lab.store, &list)
        .unwrap()
        .with_pace(1_000_000)
        .run()
        .await
        .unwrap();
    assert_eq!((report.imported, report.live), (0, 0), "{report:?}");
    // A cursor of another process says nothing here, so all is read.
    let elsewhere = format!("{list_id}/-/0/another-process/77");
    let mut anew =
        Import::new(revoker.clone(), &lab.store, &list).unwrap().with_cursor(&elsewhere).unwrap();
    // One of another list is refused: what it has passed there may be missing here.
    let other = ForeignList::keys("token:blacklist:{claim:id}");
    let other = Import::new(revoker.clone(), &lab.store, &other.with_kind(TargetKind::Token));
    let error = other.unwrap().with_cursor(&elsewhere).err().unwrap();
    assert!(error.to_string().contains("another list"), "{error}");
    assert!(anew.run().await.unwrap().known >= 651);
    assert!(ttl(&lab, "token:blacklist:t7") <= 1000);
    assert!(report.known >= 651 && report.unreadable >= 2, "{report:?}");
    assert_eq!(revoker.count().await.unwrap(), 651);
    let record = revoker.find(Target::token("t7")).await.unwrap().unwrap();
    assert_eq!(record.reason().map(|reason| &**reason), Some("r7"));
    let left = record.until().saturating_duration_since(crate::store_contract::now()).as_secs();
    // As long as the entry had left, and six minutes.
    let least = 1359_u64.saturating_sub(start.elapsed().as_secs());
    assert!((least..=1361).contains(&left), "{left}");
    let for_ever = revoker.find(Target::token("for_ever")).await.unwrap().unwrap();
    assert!(
        for_ever.until().saturating_duration_since(crate::store_contract::now())
            > Duration::from_secs(24 * 3600)
    );

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
    let report = Import::new(revoker.clone(), &lab.store, &set)
        .unwrap()
        .with_pace(1_000_000)
        .run()
        .await
        .unwrap();
    assert_eq!(report.imported, 900, "{report:?}");
    let of_family = token_with("t1", &json!({"fid": "f899"}));
    assert_eq!(lab.call(&of_family).await.status(), StatusCode::UNAUTHORIZED);

    let (listed, live) = (token("t7"), token("t8"));
    lab.cli(&["SET", &format!("blacklist:{listed}"), "1"]);
    lab.cli(&["SET", &format!("blacklist:{live}"), "0"]);
    lab.cli(&["SET", "blacklist:junk", "1"]);
    lab.cli(&["SET", &format!("blacklist:{}", listed.replace(".good", ".forged")), "1"]);
    let tokens =
        ForeignList::blacklisted_token().with_revoked_values(["1"]).with_live_values(["0"]);
    let mut unable = Import::new(revoker.clone(), &lab.store, &tokens).unwrap();
    let error = unable.run().await.unwrap_err();
    assert!(error.to_string().contains("with_verifier"), "{error}");
    let mut import = Import::new(revoker.clone(), &lab.store, &tokens)
        .unwrap()
        .with_verifier(WordVerifier::default());
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
        let error = Import::new(revoker.clone(), &lab.store, &list).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let named = ForeignList::plain_jti().with_revoked_values([""]);
    lab.cli(&["MSET", "t1", "", "another", "program's"]);
    let report = Import::new(revoker.clone(), &lab.store, &named).unwrap().run().await.unwrap();
    assert_eq!((report.imported, report.unreadable), (1, 1), "{report:?}");
}
