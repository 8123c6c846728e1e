//! Redis is away, hangs, comes back.

use std::time::{Duration, Instant};

use crate::support::{self, RedisServer};
use serde_json::json;

use crate::server::*;

async fn until_ok(server: &Server, token: &str, limit: Duration) {
    let start = Instant::now();
    loop {
        let answer = server.protected(token).await;
        if answer.status == 200 && answer.json()["checked"] == true {
            return;
        }
        assert!(start.elapsed() < limit, "not back after {limit:?}: {}", answer.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Until revocations can be written as well.
async fn until_ready(server: &Server, limit: Duration) {
    let start = Instant::now();
    loop {
        let ready = server.get("/readyz", None).await;
        if ready.json()["degraded"] == false {
            return;
        }
        assert!(start.elapsed() < limit, "not ready after {limit:?}: {:?}", ready.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What all routes answer while Redis is of no use, in time.
async fn closed_without_redis(server: &Server, tokens: &Tokens) {
    for _ in 0..5 {
        server.protected(&tokens.access).await.is_unavailable().in_time(BUDGET);
    }
    server.protected("nonsense").await.is_invalid_token();
    server.get("/protected", None).await.is(401);
    let limit = BUDGET * 3;
    server.post("/login", None, json!({ "sub": "bob" })).await.is_unavailable().in_time(limit);
    server.refresh(&tokens.refresh).await.is_unavailable().in_time(limit);
    // What was never one is none, whatever the store would say; to wait would not help.
    for junk in ["", "nonsense", "a.b"] {
        assert_invalid_grant(server.refresh(junk).await.in_time(limit));
    }
    for (what, body) in [
        ("revoke", json!({ "jti": "a" })),
        ("revoke_user", json!({ "sub": "alice" })),
        ("revoke_token", json!({ "token": tokens.access })),
        ("revoke_session", json!({ "session_id": "a" })),
        ("revoke_family", json!({ "family_id": "a" })),
    ] {
        server.admin(what, body).await.is_unavailable().in_time(limit);
    }
    server.get("/healthz", None).await.is(200).in_time(limit);
    let ready = server.get("/readyz", None).await.in_time(limit).json();
    assert_eq!(ready["degraded"], true);
}

/// What passes soon is no reason to restart a server; what lasts is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_makes_the_server_unready_when_it_has_lasted_ten_seconds() {
    support::redis_or_skip!();
    let mut redis = RedisServer::start();
    let (closed, open) =
        (Server::on(&redis, &[]), Server::on(&redis, &[("AUTH_ON_OUTAGE", "open")]));
    until_ready(&closed, Duration::from_secs(10)).await;
    let start = Instant::now();
    redis.kill();
    loop {
        let ready = closed.get("/readyz", None).await;
        let is_ready = ready.json()["ready"] == true;
        assert_eq!(ready.status, if is_ready { 200 } else { 503 });
        if !is_ready {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it never says so");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(open.get("/readyz", None).await.is(200).json()["degraded"], true);
    redis.restart();
    let start = Instant::now();
    while closed.get("/readyz", None).await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(10), "it is not ready again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// With all of its data: who wrote it is asked all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_restarted_redis_settles_the_server_is_ready_and_says_so() {
    support::redis_or_skip!();
    let mut redis =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let server = Server::on(&redis, &[]);
    let tokens = server.login("alice").await;
    redis.restart();
    let start = Instant::now();
    loop {
        let ready = server.get("/readyz", None).await.is(200).json();
        let warning = ready["warnings"][0].as_str().unwrap_or_default();
        if warning.starts_with("settling") && warning.contains("awaited") {
            assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(true)));
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it never says so: {ready}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until_ok(&server, &tokens.access, Duration::from_secs(10)).await;
    until_ready(&server, Duration::from_secs(10)).await;
    server.refresh(&tokens.refresh).await.is(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubt_that_lasts_refuses_older_tokens_with_401_and_is_a_warning() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[]);
    let old = server.login("alice").await;
    redis.cli(&["FLUSHALL"]);
    let start = Instant::now();
    while server.protected(&old.access).await.status != 401 {
        assert!(start.elapsed() < Duration::from_secs(10), "it is never in doubt");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = server.protected(&old.access).await.is(401);
    let challenge = refused.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"auth\", error=\"invalid_token\""), "{challenge}");
    server.refresh(&old.refresh).await.is(400);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(true)));
    assert!(ready["warnings"][0].as_str().unwrap().starts_with("doubt"), "{ready}");
    let new = server.login("alice").await;
    server.protected(&new.access).await.is(200);
    let open = Server::on(&redis, &[("AUTH_ON_OUTAGE", "open")]);
    open.protected(&old.access).await.is(200);
    for (server, token, is_refused) in
        [(&server, &old, true), (&server, &new, false), (&open, &old, false)]
    {
        // One that has begun a moment ago may not know yet what is in doubt.
        let body = json!({ "token": token.access });
        let start = Instant::now();
        while server.admin("explain", body.clone()).await.status == 503 {
            assert!(start.elapsed() < Duration::from_secs(30), "it never says why");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let why = server.admin("explain", body).await.is(200).json();
        assert_eq!((&why["valid"], &why["revoked"]), (&json!(!is_refused), &json!(false)), "{why}");
        let error = why["error"].as_str().unwrap_or_default();
        assert_eq!(error.starts_with("in doubt: "), is_refused, "{why}");
    }
    assert!(server.get("/debug/stats", None).await.json()["refused_in_doubt"].as_u64() > Some(0));
}

async fn open_without_redis(server: &Server, tokens: &Tokens) {
    for _ in 0..5 {
        let answer = server.protected(&tokens.access).await.is(200).in_time(BUDGET);
        assert_eq!(answer.json()["checked"], false);
    }
    server.protected("nonsense").await.is_invalid_token();
    server.post("/logout", Some(&tokens.access), json!({})).await.is(503).in_time(BUDGET * 4);
    server.refresh(&tokens.refresh).await.is_unavailable().in_time(BUDGET * 3);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(true)));
    let stats = server.get("/debug/stats", None).await.json();
    assert!(
        stats["admitted_unchecked"].as_u64().unwrap() >= 5
            && stats["store_errors"].as_u64().unwrap() >= 5
    );
    let audit = std::fs::read_to_string(server.dir.path("audit.log")).unwrap();
    assert!(
        audit.contains(r#""event":"unchecked_admit","outcome":"ok","sub":"alice","jti":""#),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back() {
    support::redis_or_skip!();
    let mut redis =
        RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
    let grace = ("AUTH_REFRESH_GRACE_S", "60");
    let closed = Server::on(&redis, &[grace]);
    let open = Server::on(&redis, &[grace, ("AUTH_ON_OUTAGE", "open")]);
    let tokens = closed.login("alice").await;
    let revoked = closed.login("alice").await;
    closed.admin("revoke_session", json!({ "session_id": revoked.session })).await.is(204);
    redis.kill();
    closed_without_redis(&closed, &tokens).await;
    open_without_redis(&open, &tokens).await;
    redis.restart();
    for server in [&closed, &open] {
        until_ok(server, &tokens.access, Duration::from_secs(10)).await;
        server.protected(&revoked.access).await.is_invalid_token();
        until_ready(server, Duration::from_secs(10)).await;
    }
    closed.refreshed(&tokens.refresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs_and_goes_on() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let grace = ("AUTH_REFRESH_GRACE_S", "60");
    let closed = Server::on(&redis, &[grace]);
    let open = Server::on(&redis, &[grace, ("AUTH_ON_OUTAGE", "open")]);
    let tokens = open.login("alice").await;
    redis.stop_hung();
    closed_without_redis(&closed, &tokens).await;
    open_without_redis(&open, &tokens).await;
    redis.resume();
    for server in [&closed, &open] {
        // What was in the air when Redis was stopped may be done now: the session may have been
        // ended.
        let fresh = {
            let start = Instant::now();
            loop {
                let answer = server.post("/login", None, json!({ "sub": "bob" })).await;
                if answer.status == 200 {
                    break Tokens::of(&answer);
                }
                assert!(start.elapsed() < Duration::from_secs(10), "no login: {}", answer.status);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        until_ok(server, &fresh.access, Duration::from_secs(10)).await;
    }
}

/// What is not confirmed by as many replicas as were asked for is not answered as if it were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_wait_for_replicas_where_that_is_asked_for() {
    support::redis_or_skip!();
    let redis = RedisServer::builder().arg("--repl-diskless-sync-delay", "0").start();
    let server = Server::on(&redis, &[("AUTH_WAIT_REPLICAS", "1"), ("AUTH_WAIT_MS", "100")]);
    let token = foreign(&claims("alice", "a"));
    server.protected(&token).await.is(200);
    server
        .post("/login", None, json!({ "sub": "alice" }))
        .await
        .is_unavailable()
        .in_time(BUDGET * 3);
    server.admin("revoke", json!({ "jti": "a" })).await.is_unavailable().in_time(BUDGET * 3);
    // Unknown means unknown: here, it was done all the same.
    server.protected(&token).await.is_invalid_token();

    let replica = format!("127.0.0.1 {}", redis.port());
    let _replica = RedisServer::builder().arg("--replicaof", &replica).start();
    let start = Instant::now();
    while server.post("/login", None, json!({ "sub": "alice" })).await.status != 200 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "a replica is there, and nothing is confirmed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let tokens = server.login("alice").await;
    server.admin("revoke_user", json!({ "sub": "alice" })).await.is(204);
    server.protected(&tokens.access).await.is_invalid_token();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_redis_and_finds_it_later() {
    support::redis_or_skip!();
    let mut redis = RedisServer::start();
    redis.kill();
    let server = Server::on(&redis, &[]);
    server.get("/healthz", None).await.is(200);
    server.get("/readyz", None).await.is(503);
    server.protected(&foreign(&claims("alice", "a"))).await.is_unavailable().in_time(BUDGET);
    redis.restart();
    until_ok(&server, &foreign(&claims("alice", "a")), Duration::from_secs(10)).await;
    until_ready(&server, Duration::from_secs(10)).await;
    let tokens = server.login("alice").await;
    server.protected(&tokens.access).await.is(200);
}
