//! The lists in every kind of Redis: with few rights, behind sentinels, in a cluster; and beside
//! our own records.

use super::*;

#[tokio::test]
async fn a_password_a_user_with_few_rights_and_a_database_of_its_own() {
    if !redis_is_installed() {
        return;
    }
    let rights = "app on >s3cret resetkeys ~jwt-revocation:* ~token:* -@all +ping +role +time \
        +info +client|id +del +get +mget +set +hset +hmget +hgetall +hdel +pexpireat +zadd +zrem \
        +zcard +zcount +zscan +zrangebyscore +zremrangebyscore +zrevrange +xadd +xlen +xrange \
        +eval +evalsha +select +exists +sismember";
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
    let denied = RedisStore::builder()
        .with_url(&url)
        .with_foreign_list(ForeignList::keys("elsewhere:{jti}"));
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
    let other = tower_jwt_revocation::Revoker::new(
        tower_jwt_revocation::MemoryStore::new(),
        TokenProfile::new(),
    );
    let other = other.unwrap();
    let report = Import::new(other.clone(), &store, &list())
        .unwrap()
        .with_pace(1_000_000)
        .run()
        .await
        .unwrap();
    assert_eq!(report.imported, (ids.len() + 12) as u64, "{report:?}");
    let report = Import::new(other.clone(), &store, &set).unwrap().run().await.unwrap();
    assert_eq!(report.imported, 1, "{report:?}");

    // A slot changes hands.
    let key = format!("b:{}", ids[0]);
    let (slot, to) = (cluster.slot(&key), (cluster.owner(&key) + 1) % 3);
    cluster.begin_migration(slot, to);
    // Each time after a failure, because the new node has yet to be connected to.
    until(&layer, &token(&ids[0]), StatusCode::UNAUTHORIZED).await;
    assert_eq!(cluster.migrate_keys(slot, to, 100), 1);
    until(&layer, &token(&ids[0]), StatusCode::UNAUTHORIZED).await;
    for _ in 0..20 {
        assert_eq!(call(&layer, &token(&ids[0])).await.status(), StatusCode::UNAUTHORIZED);
    }
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.end_migration(slot, to);
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
async fn a_dead_node_makes_only_its_own_entries_unreadable() {
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
    let receipts =
        lab.store.write(vec![Revocation::new(Target::user("u"), PATIENT)]).await.unwrap();
    assert_eq!(receipts[0].outcome, Outcome::New);
    assert!(matches!(
        check(&lab.store, &token).await.unwrap(),
        Standing::Revoked(by) if by.kind == TargetKind::User
    ));
}
