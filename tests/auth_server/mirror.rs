//! `AUTH_CHECK=mirror`: decided from memory, within the bound, and what becomes of it when Redis is
//! away.

use std::time::{Duration, Instant};

use crate::support::{self, RedisServer};
use serde_json::json;

use crate::server::*;

/// The bound of these tests: longer than a busy machine delays a heartbeat.
const BOUND: Duration = Duration::from_millis(1500);
const MIRROR: [(&str, &str); 2] = [("AUTH_CHECK", "mirror"), ("AUTH_MAX_STALENESS_MS", "1500")];

async fn staleness(server: &Server) -> Option<Duration> {
    let stats = server.get("/debug/stats", None).await.is(200).json();
    stats["mirror_staleness_ms"].as_u64().map(Duration::from_millis)
}

async fn until_fresh(server: &Server, limit: Duration) {
    let start = Instant::now();
    while staleness(server).await.is_none_or(|age| age > BOUND) {
        assert!(start.elapsed() < limit, "not fresh after {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server whose mirror is fresh.
async fn mirrored(redis: &RedisServer, more: &[(&str, &str)]) -> Server {
    let server = Server::on(redis, &[&MIRROR, more].concat());
    until_fresh(&server, Duration::from_secs(10)).await;
    server
}

/// Refused at `here`, which has answered the revocation, at once; at `there` within the bound.
async fn refused_at_both(here: &Server, there: &Server, token: &str, answered: Instant) {
    here.protected(token).await.is_invalid_token();
    loop {
        let asked = answered.elapsed();
        if there.protected(token).await.status == 401 {
            return;
        }
        assert!(asked < BOUND, "accepted {asked:?} after the revocation was confirmed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_revokes_and_the_other_refuses_within_the_bound() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (here, there) = (mirrored(&redis, &[]).await, mirrored(&redis, &[]).await);
    for what in [
        "revoke",
        "revoke_token",
        "revoke_user",
        "revoke_family",
        "revoke_session",
        "logout",
        "reuse",
    ] {
        let tokens = here.login("alice").await;
        let spared = here.login("bob").await;
        for server in [&here, &there] {
            assert_eq!(server.protected(&tokens.access).await.is(200).json()["checked"], true);
        }
        match what {
            "revoke" => {
                let jti = here.protected(&tokens.access).await.is(200).json()["jti"].clone();
                here.admin(what, json!({ "jti": jti })).await.is(204);
            }
            "revoke_token" => {
                drop(here.admin(what, json!({ "token": tokens.access })).await.is(204));
            }
            "revoke_user" => drop(here.admin(what, json!({ "sub": "alice" })).await.is(204)),
            "revoke_family" => {
                drop(here.admin(what, json!({ "family_id": tokens.family })).await.is(204));
            }
            "revoke_session" => {
                drop(here.admin(what, json!({ "session_id": tokens.session })).await.is(204));
            }
            "logout" => drop(here.post("/logout", Some(&tokens.access), json!({})).await.is(204)),
            _ => {
                here.refreshed(&tokens.refresh).await;
                assert_invalid_grant(here.refresh(&tokens.refresh).await);
            }
        }
        refused_at_both(&here, &there, &tokens.access, Instant::now()).await;
        there.protected(&spared.access).await.is(200);
    }
    // A login after the cutoff is good at both, also within its second.
    let again = here.login("alice").await;
    for server in [&here, &there] {
        server.protected(&again.access).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_asks_redis_while_the_mirror_is_fresh() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (mirrored, direct) = (mirrored(&redis, &[]).await, Server::on(&redis, &[]));
    let tokens = direct.login("alice").await;
    let asked = async |server: &Server| {
        redis.cli(&["CONFIG", "RESETSTAT"]);
        for _ in 0..20 {
            assert_eq!(server.protected(&tokens.access).await.is(200).json()["checked"], true);
        }
        let stats = redis.cli(&["INFO", "commandstats"]);
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
        calls.map_or(0, |line| line.split(',').next().unwrap().parse::<u32>().unwrap())
    };
    assert!(asked(&direct).await >= 20);
    // Now and then a store looks by itself whether all is well. If requests asked, no round would
    // be without.
    let mut rounds = 0;
    while asked(&mirrored).await != 0 {
        rounds += 1;
        assert!(rounds < 10);
    }
    // A bound that no mirror can hold: each request asks.
    let strict = Server::on(&redis, &[("AUTH_CHECK", "mirror"), ("AUTH_MAX_STALENESS_MS", "1")]);
    assert!(asked(&strict).await >= 20);
    assert_eq!(staleness(&strict).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_bound_a_mirror_of_a_hung_redis_decides_nothing() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let closed = mirrored(&redis, &[]).await;
    let open = mirrored(&redis, &[("AUTH_ON_OUTAGE", "open")]).await;
    let (tokens, revoked) = (closed.login("alice").await, closed.login("bob").await);
    closed.admin("revoke_session", json!({ "session_id": revoked.session })).await.is(204);
    refused_at_both(&closed, &open, &revoked.access, Instant::now()).await;

    redis.stop_hung();
    let hung = Instant::now();
    for server in [&closed, &open] {
        // From memory, and after the bound no more; how soon that is depends on the last proof.
        loop {
            let asked = hung.elapsed();
            let answer = server.protected(&tokens.access).await.in_time(BUDGET);
            if answer.status == 503 || answer.json()["checked"] == false {
                break;
            }
            assert_eq!(answer.is(200).json()["checked"], true);
            assert!(asked < BOUND, "relied on {asked:?} after redis hung");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.protected(&revoked.access).await.is_invalid_token().in_time(BUDGET);
        server.protected("nonsense").await.is_invalid_token();
    }
    for _ in 0..5 {
        closed.protected(&tokens.access).await.is_unavailable().in_time(BUDGET);
        assert_eq!(
            open.protected(&tokens.access).await.is(200).in_time(BUDGET).json()["checked"],
            false
        );
    }
    closed
        .post("/login", None, json!({ "sub": "carol" }))
        .await
        .is_unavailable()
        .in_time(BUDGET * 3);
    assert_eq!(closed.get("/readyz", None).await.json()["degraded"], true);

    redis.resume();
    for server in [&closed, &open] {
        until_fresh(server, Duration::from_secs(10)).await;
        assert_eq!(server.protected(&tokens.access).await.is(200).json()["checked"], true);
        server.protected(&revoked.access).await.is_invalid_token();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_starts_without_redis_and_fills_later() {
    support::redis_or_skip!();
    let mut redis =
        RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
    let before = Server::on(&redis, &[]);
    let (tokens, revoked) = (before.login("alice").await, before.login("bob").await);
    before.admin("revoke_user", json!({ "sub": "bob" })).await.is(204);
    redis.kill();
    let server = Server::on(&redis, &MIRROR);
    server.protected(&tokens.access).await.is_unavailable().in_time(BUDGET);
    redis.restart();
    until_fresh(&server, Duration::from_secs(10)).await;
    // What is revoked is known at once, what is not when the new server has settled.
    server.protected(&revoked.access).await.is_invalid_token();
    let start = Instant::now();
    while server.protected(&tokens.access).await.status == 503 {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not settle");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.protected(&tokens.access).await.is(200);
}
