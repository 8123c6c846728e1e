//! Servers without some of the commands: hosted services remove them, and access rules forbid them.
//! What is not on the data path (`GET` and `MGET`, the scripts, `XREAD` and `XRANGE`, `TIME`) is
//! optional.

use std::num::NonZeroU32;
use std::time::Duration;

use tower_jwt_revocation::store::redis::{Finding, Health, Report};
use tower_jwt_revocation::store::{ListQuery, RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{Mirror, RedisStore, Target};

use crate::mirror::PATIENCE;
use crate::redis_supervision::{known_down, recovered, revoke};
use crate::servers::{Builder, Fault, FaultProxy, RedisServer, Sentinel, redis_is_installed};
use crate::store_contract::{check, token};

/// Each of them is missing somewhere.
const OPTIONAL: [&str; 10] =
    ["ROLE", "HELLO", "INFO", "CONFIG", "CLIENT", "WAIT", "ACL", "SCRIPT", "SELECT", "COMMAND"];

fn without(builder: Builder, commands: &[&str]) -> Builder {
    let removed = |builder: Builder, command: &&str| {
        builder.arg("rename-command", &format!("{command} \"\""))
    };
    commands.iter().fold(builder, removed)
}

fn finding<'a>(report: &'a Report, subject: &str) -> Option<&'a Finding> {
    report.findings.iter().find(|finding| finding.subject == subject)
}

/// Checks, writes, look-ups, a mirror, sessions and the doctor.
async fn everything_works(url: &str, what: &str) -> Report {
    // With more patience than the default: test machines are busy.
    let connect = async || {
        let builder =
            RedisStore::builder().with_url(url).with_check_timeout(Duration::from_secs(5));
        builder.connect().await.unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    let store = connect().await;
    assert_eq!(check(&store, &token("u", "live")).await.unwrap(), Standing::Live, "{what}");
    revoke(&store, Target::token("one")).await.unwrap();
    let standing = check(&store, &token("u", "one")).await.unwrap();
    assert!(matches!(standing, Standing::Revoked(_)), "{what}");
    assert!(store.find(&Target::token("one")).await.unwrap().is_some(), "{what}");
    assert_eq!(store.list(ListQuery::default()).await.unwrap().records.len(), 1, "{what}");
    assert_eq!(store.count().await.unwrap(), 1, "{what}");

    let mirror = Mirror::new(connect().await).unwrap();
    let is_ready = tokio::time::timeout(PATIENCE, mirror.ready()).await;
    is_ready.unwrap_or_else(|_| panic!("{what}: the mirror is never ready: {:?}", mirror.status()));
    let standing = check(&mirror, &token("u", "one")).await.unwrap();
    assert!(matches!(standing, Standing::Revoked(_)), "{what}");
    revoke(&store, Target::token("two")).await.unwrap();
    // The mirror hears of it by `XREAD`.
    let started = std::time::Instant::now();
    while !matches!(check(&mirror, &token("u", "two")).await.unwrap(), Standing::Revoked(_)) {
        assert!(started.elapsed() < PATIENCE, "{what}: {:?}", mirror.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    #[cfg(feature = "sessions")]
    a_session_works(&store, what).await;

    let report = store.doctor().await;
    assert!(report.is_fit(), "{what}:\n{report}");
    assert!(store.health().is_up(), "{what}: {}", store.health());
    report
}

#[cfg(feature = "sessions")]
async fn a_session_works(store: &RedisStore, what: &str) {
    use tower_jwt_revocation::session::{Login, Refresh, RefreshPolicy, SessionDetails, Sessions};
    use tower_jwt_revocation::{Revoker, TokenProfile};

    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let sessions = Sessions::new(store.clone(), revoker, RefreshPolicy::new()).unwrap();
    let login = sessions.login("alice", SessionDetails::new()).await.unwrap();
    let Login::Granted(grant) = login else { panic!("{what}: {login:?}") };
    let refresh = sessions.refresh(grant.token.expose(), None).await.unwrap();
    assert!(matches!(refresh, Refresh::Granted(_)), "{what}");
    sessions.end_all("alice", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_off_the_data_path_may_be_missing_alone_and_together() {
    if !redis_is_installed() {
        return;
    }
    let each = OPTIONAL.iter().map(std::slice::from_ref);
    for removed in each.chain([&OPTIONAL[..], &["ROLE", "HELLO"], &["ROLE", "INFO"]]) {
        let what = removed.join(" ");
        let builder = RedisServer::builder().arg("appendonly", "yes");
        let server = without(builder, removed).start();
        let report = everything_works(&server.url(), &what).await;
        let role = finding(&report, "role").unwrap();
        let by = match (removed.contains(&"ROLE"), removed.contains(&"HELLO")) {
            (false, _) => "by ROLE",
            (true, false) => "by HELLO",
            (true, true) if !removed.contains(&"INFO") => "by INFO",
            (true, true) => "by a write that changes nothing",
        };
        assert!(!role.is_error() && !role.is_warning(), "{what}: {role}");
        assert!(role.sentence.contains(by), "{what}: {role}");
        let info = finding(&report, "info");
        assert_eq!(info.is_some(), removed.contains(&"INFO"), "{what}: {info:?}");
        if let Some(info) = info {
            assert!(info.is_warning(), "{info}");
            assert!(info.sentence.contains("whether it evicts keys"), "{info}");
        }
        // So is what tells the server from another one.
        let server_id = finding(&report, "server_id");
        assert_eq!(server_id.is_some(), removed.contains(&"INFO"), "{what}: {server_id:?}");
        assert!(server_id.is_none_or(Finding::is_warning), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_command_off_the_data_path_may_be_forbidden() {
    if !redis_is_installed() {
        return;
    }
    let without = |commands: &[&str]| {
        let rules: Vec<_> =
            commands.iter().map(|command| format!("-{}", command.to_lowercase())).collect();
        format!("+@all {}", rules.join(" "))
    };
    let mut rules: Vec<_> = OPTIONAL.iter().map(|command| without(&[*command])).collect();
    rules.push(without(&OPTIONAL));
    // What the users of hosted services may do.
    rules.push("+@all -@admin -@dangerous".to_owned());
    for rights in rules {
        let server = RedisServer::builder()
            .arg("appendonly", "yes")
            .acl(&format!("app on >password ~* &* {rights}"))
            .start();
        everything_works(&server.url_as("app", "password"), &rights).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_the_servers_need_no_role_command() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = Sentinel::start_with(1, 3, |builder| without(builder, &["ROLE"]));
    let store = RedisStore::builder()
        .with_url(sentinel.url())
        .with_check_timeout(Duration::from_secs(5))
        .connect()
        .await
        .unwrap();
    revoke(&store, Target::token("t")).await.unwrap();
    sentinel.failover();
    let started = std::time::Instant::now();
    while !matches!(check(&store, &token("u", "t")).await, Ok(Standing::Revoked(_))) {
        assert!(started.elapsed() < PATIENCE, "{}", store.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.watch_health().wait_for(Health::is_up).await.unwrap();
    everything_works_after_a_failover(&store).await;
}

async fn everything_works_after_a_failover(store: &RedisStore) {
    let started = std::time::Instant::now();
    while let Err(error) = revoke(store, Target::token("after")).await {
        assert!(started.elapsed() < PATIENCE, "{error}");
    }
    // The connection of the checks may still lead to the former primary.
    let standing = loop {
        match check(store, &token("u", "after")).await {
            Ok(standing) => break standing,
            Err(error) => {
                assert_ne!(error.kind(), StoreErrorKind::DataLoss, "{error}");
                assert!(started.elapsed() < PATIENCE, "{error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(matches!(standing, Standing::Revoked(_)));
}

/// Leads all connections to another server.
async fn turn(proxy: &FaultProxy, server: &RedisServer) {
    proxy.turn_to(server.addr()).await;
    proxy.set(Fault::Reset).await;
    proxy.set(Fault::Pass).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_noticed_whatever_tells_its_role() {
    if !redis_is_installed() {
        return;
    }
    for removed in [&["ROLE"][..], &["ROLE", "HELLO"], &["ROLE", "HELLO", "INFO"]] {
        let primary = RedisServer::start();
        let replica = without(RedisServer::builder(), removed)
            .arg("replicaof", &format!("127.0.0.1 {}", primary.port()))
            .start();
        let proxy = FaultProxy::start(primary.addr()).await;
        let store = RedisStore::connect(proxy.url()).await.unwrap();
        revoke(&store, Target::token("t")).await.unwrap();
        turn(&proxy, &replica).await;
        let error = known_down(&store, &token("u", "t")).await;
        let started = std::time::Instant::now();
        let mut kind = error.kind();
        while kind != StoreErrorKind::NotPrimary {
            assert!(started.elapsed() < PATIENCE, "{removed:?}: {error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            kind = known_down(&store, &token("u", "t")).await.kind();
        }
        turn(&proxy, &primary).await;
        assert!(matches!(recovered(&store, &token("u", "t")).await, Standing::Revoked(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_nothing_tells_is_reported_and_tokens_are_checked() {
    if !redis_is_installed() {
        return;
    }
    // `HELLO` cannot be forbidden, only removed.
    let server = without(RedisServer::builder(), &["HELLO"])
        .acl("reader on >password ~jwt-revocation:* +@read +@connection")
        .start();
    let writer = RedisStore::connect(server.url()).await.unwrap();
    let reader = RedisStore::connect(server.url_as("reader", "password")).await.unwrap();
    revoke(&writer, Target::token("t")).await.unwrap();
    assert!(matches!(check(&reader, &token("u", "t")).await.unwrap(), Standing::Revoked(_)));
    assert_eq!(check(&reader, &token("u", "live")).await.unwrap(), Standing::Live);
    let report = reader.doctor().await;
    let role = finding(&report, "role").unwrap();
    assert!(role.is_warning(), "{role}");
    assert!(role.sentence.contains("cannot be known whether the server is a primary"), "{role}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_cannot_be_waited_for_are_an_error_of_the_write_and_of_the_doctor() {
    if !redis_is_installed() {
        return;
    }
    let server = without(RedisServer::builder(), &["WAIT"]).start();
    let store = RedisStore::builder()
        .with_url(server.url())
        .with_wait_replicas(NonZeroU32::MIN, Duration::from_millis(10))
        .connect()
        .await
        .unwrap();
    let error = revoke(&store, Target::token("t")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Replicas, "{error}");
    assert!(error.to_string().contains("in force"), "{error}");
    assert!(matches!(check(&store, &token("u", "t")).await.unwrap(), Standing::Revoked(_)));
    let report = store.doctor().await;
    let commands = finding(&report, "commands").unwrap();
    assert!(commands.is_error() && commands.sentence.contains("WAIT"), "{commands}");
}
