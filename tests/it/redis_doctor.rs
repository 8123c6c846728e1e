//! The self-check against real servers, and the rights that the store needs.

use std::num::NonZeroU32;
use std::time::Duration;

use tower_jwt_revocation::audit::{AuditEvent, AuditKind, AuditSink as _};
use tower_jwt_revocation::store::redis::{Finding, Health, RedisAuditSink, Report, Start};
use tower_jwt_revocation::store::{ListQuery, RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::{RedisStore, Target};

use crate::redis_supervision::{known_down, recovered, revoke};
use crate::servers::{RedisServer, redis_is_installed};
use crate::store_contract::{check, token};

/// The line of the documentation.
const LEAST_RIGHTS: &str = include_str!("../../src/store/redis/least_rights.acl");

/// What follows the name of the user.
fn rights() -> Vec<&'static str> {
    LEAST_RIGHTS.split_whitespace().skip(3).collect()
}

fn subjects(report: &Report, is_bad: fn(&Finding) -> bool) -> Vec<&'static str> {
    report
        .findings
        .iter()
        .filter(|finding| is_bad(finding))
        .map(|finding| finding.subject)
        .collect()
}

/// A store whose limit no check comes near to, also on a busy machine: that would be a warning.
async fn patient(url: &str) -> RedisStore {
    let builder = RedisStore::builder().with_url(url).with_check_timeout(Duration::from_secs(5));
    builder.connect().await.unwrap()
}

fn healthy() -> RedisServer {
    RedisServer::builder().arg("appendonly", "yes").start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_of_a_healthy_server_has_no_errors() {
    if !redis_is_installed() {
        return;
    }
    let server = healthy();
    let store = patient(&server.url()).await;
    revoke(&store, Target::token("t")).await.unwrap();
    let before = server.cli(&["KEYS", "*"]);
    let report = store.doctor().await;
    assert!(report.is_fit() && subjects(&report, Finding::is_warning).is_empty(), "{report}");
    assert_eq!((report.revocations, report.servers.len()), (Some(1), 1));
    assert_eq!(report.sessions, cfg!(feature = "sessions").then_some(0));
    assert!(report.latency_micros.is_some_and(|micros| micros > 0));
    let figures = &report.servers[0];
    assert!(figures.version.as_ref().unwrap().contains(' '), "{figures:?}");
    assert!(figures.used_memory_bytes.unwrap() > 100_000 && figures.clients.unwrap() > 1);
    assert!(figures.uptime_secs.is_some() && figures.operations_per_second.is_some());
    assert_eq!((figures.max_memory_bytes, figures.replication_lag_bytes), (None, None));
    let text = report.to_string();
    for words in [
        "the server is ",
        "1 is in effect",
        "version 3 under the prefix jwt-revocation, in 1 shard\n",
        "a check takes",
        "the clocks of",
        "has kept its data for",
    ] {
        assert!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    assert_eq!(server.cli(&["KEYS", "*"]).len(), before.len(), "it left something behind");
    assert!(store.health().is_up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_weakness_is_found() {
    if !redis_is_installed() {
        return;
    }
    let server = healthy();
    let store = patient(&server.url()).await;
    let errors = async || subjects(&store.doctor().await, Finding::is_error);
    let warnings = async || subjects(&store.doctor().await, Finding::is_warning);

    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(warnings().await, ["eviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1gb"]);
    assert_eq!(errors().await, ["eviction"]);
    assert!(!store.doctor().await.is_fit());
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    assert_eq!(errors().await, Vec::<&str>::new());

    server.cli(&["CONFIG", "SET", "appendonly", "no"]);
    assert_eq!(warnings().await, ["persistence"]);
    assert!(store.doctor().await.to_string().contains("nothing is written to disk"));
    server.cli(&["CONFIG", "SET", "appendonly", "yes"]);

    let waiting = RedisStore::builder()
        .with_url(server.url())
        .with_start(Start::Anyway)
        .with_wait_replicas(NonZeroU32::MIN, Duration::from_millis(10))
        .connect()
        .await
        .unwrap();
    // Checks and writes have connections of their own.
    waiting.watch_health().wait_for(Health::is_up).await.unwrap();
    assert_eq!(subjects(&waiting.doctor().await, Finding::is_error), ["replication"]);

    server.cli(&["FLUSHALL"]);
    while check(&store, &token("u", "t")).await.is_ok()
        || server.cli(&["EXISTS", "jwt-revocation:{0}:e"]) == "0"
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while !subjects(&store.doctor().await, Finding::is_error).contains(&"doubt") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    server.kill();
    known_down(&store, &token("u", "t")).await;
    let report = store.doctor().await;
    assert!(subjects(&report, Finding::is_error).contains(&"reachable"), "{report}");
    // While the connections are being replaced they are not said to be down, for a second at most.
    let mut health = store.watch_health();
    let is_down = health.wait_for(|health| !health.is_up());
    tokio::time::timeout(Duration::from_secs(30), is_down).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_suffice() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().arg("appendonly", "yes").acl("default off").start();
    let line: Vec<_> = LEAST_RIGHTS.split_whitespace().collect();
    server.cli(&line);
    let store = RedisStore::connect(server.url_as("jwt-revocation", "password")).await.unwrap();
    revoke(&store, Target::token("t")).await.unwrap();
    assert!(matches!(check(&store, &token("u", "t")).await.unwrap(), Standing::Revoked(_)));
    assert!(store.find(&Target::token("t")).await.unwrap().is_some());
    assert_eq!(store.list(ListQuery::default()).await.unwrap().records.len(), 1);
    assert_eq!(store.count().await.unwrap(), 1);
    let report = store.doctor().await;
    assert!(report.is_fit(), "{report}");
    // Nothing was tried that the user may not do, except to look at the configuration.
    let log = server.cli(&["ACL", "LOG"]);
    for (name, value) in log.lines().zip(log.lines().skip(1)) {
        // Redis 6.2 does not name the subcommand.
        assert!(name != "object" || ["config|get", "config"].contains(&value), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_trail_is_kept_within_its_bounds_with_the_documented_rights() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().arg("appendonly", "yes").acl("default off").start();
    server.cli(&LEAST_RIGHTS.split_whitespace().collect::<Vec<_>>());
    let store = RedisStore::connect(server.url_as("jwt-revocation", "password")).await.unwrap();
    let (hour, many) = (Duration::from_secs(3600), NonZeroU32::new(100).unwrap());
    let sink = RedisAuditSink::with_limits(store, hour, many);
    let record = async |user: &str| {
        sink.record(&AuditEvent::new(AuditKind::Login).with_subject(Some(user)));
        sink.flush().await;
        sink.lost()
    };
    assert_eq!(record("alice").await, 0);
    let journals = || server.cli(&["KEYS", "jwt-revocation:{*}:a:*"]);
    let journal = journals();
    let left = || server.cli(&["PTTL", &journal]).parse::<i64>().unwrap();
    assert!((1..=3_600_000).contains(&left()), "{}", left());
    // What is older than the retention goes, and what lost its expiry gets one.
    server.cli(&["DEL", &journal]);
    server.cli(&["XADD", &journal, "1-1", "j", "old"]);
    assert_eq!((record("alice").await, left() > 0), (0, true));
    assert_eq!(server.cli(&["XLEN", &journal]), "1");
    // To read it takes one right more.
    let error = sink.events_of("alice", many).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
    server.cli(&["ACL", "SETUSER", "jwt-revocation", "+xrevrange"]);
    assert_eq!(sink.events_of("alice", many).await.unwrap().len(), 1);
    // What nobody would forget is not begun.
    server.cli(&["ACL", "SETUSER", "jwt-revocation", "-pexpireat"]);
    assert_eq!(record("bob").await, 1);
    assert_eq!(journals(), journal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_right_that_is_missing_is_named() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder().arg("appendonly", "yes").start();
    let rights = rights();
    let set = |without: Option<&str>| {
        let mut command = vec!["ACL", "SETUSER", "app", "reset"];
        command.extend(rights.iter().filter(|right| Some(**right) != without));
        server.cli(&command);
    };
    set(None);
    let store = RedisStore::connect(server.url_as("app", "password")).await.unwrap();
    for right in rights.iter().filter(|right| right.starts_with('+')) {
        set(Some(right));
        // Without it there is no connection to examine anything on.
        if *right == "+mget" {
            let error = known_down(&store, &token("u", "t")).await;
            assert_eq!(error.kind(), StoreErrorKind::Denied, "{right}: {error}");
            assert!(error.to_string().contains(&right[1..]), "{right}: {error}");
        } else if ["+ping", "+role", "+info", "+client|id"].contains(right) {
            // Not on the data path: what is not known without it is said, if anything.
            let report = store.doctor().await;
            assert!(report.is_fit(), "{right}:\n{report}");
            if ["+ping", "+client|id"].contains(right) {
                assert!(report.to_string().contains(right), "{right}:\n{report}");
            }
        } else {
            let report = store.doctor().await;
            let named = report.findings.iter().any(|finding| {
                finding.is_error() && finding.subject == "rights" && finding.remedy.ends_with(right)
            });
            assert!(named, "{right}:\n{report}");
        }
        set(None);
        assert_eq!(recovered(&store, &token("u", "t")).await, Standing::Live);
        while !store.health().is_up() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~other:*"]);
    let report = store.doctor().await;
    assert!(report.to_string().contains("~jwt-revocation:*"), "{report}");
    assert!(!report.is_fit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_may_only_read_can_check() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::builder()
        .acl("reader on >password ~jwt-revocation:* +@read +@connection +role +info")
        .start();
    let writer = RedisStore::connect(server.url()).await.unwrap();
    let reader = RedisStore::connect(server.url_as("reader", "password")).await.unwrap();
    revoke(&writer, Target::token("t")).await.unwrap();
    assert!(matches!(check(&reader, &token("u", "t")).await.unwrap(), Standing::Revoked(_)));
    assert_eq!(check(&reader, &token("u", "live")).await.unwrap(), Standing::Live);
    let error = revoke(&reader, Target::token("x")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied, "{error}");
}
