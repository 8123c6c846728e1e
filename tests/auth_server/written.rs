//! What is written down: logs, audit events, values in Redis.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{self, RedisServer};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::server::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_written_down_and_every_key_is_ours_and_ends() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let dir = Dir::new();
    let mut server = Server::on_in(&dir, &redis, &[("AUTH_KEY_PREFIX", "mine"), ("RUST_LOG", "trace")]);
    let mut secrets = vec![ADMIN.to_owned()];
    for user in ["alice", "bob"] {
        let first = server.login(user).await;
        let second = server.refreshed(&first.refresh).await;
        server.protected(&second.access).await.is(200);
        if user == "alice" {
            assert_invalid_grant(server.refresh(&first.refresh).await);
            server.protected(&second.access).await.is_invalid_token();
        }
        for token in [&first, &second] {
            // Tokens given where ids are wanted.
            server.admin("revoke", json!({ "jti": token.access })).await.is(400);
            server.admin("revoke", json!({ "jti": token.refresh })).await.is(400);
            server.admin("revoke_family", json!({ "family_id": token.refresh })).await.is(400);
            server.post("/login", None, json!({ "sub": token.access })).await.is(400);
            server.admin("revoke_token", json!({ "token": format!("{}x", token.access) })).await.is(204);
            secrets.push(token.access.rsplit_once('.').unwrap().1.to_owned());
            secrets.push(token.refresh.split_once('.').unwrap().1.to_owned());
        }
        server.post("/logout", Some(&second.access), json!({})).await;
        server.admin("revoke_user", json!({ "sub": user })).await.is(204);
    }
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 5);
    for key in keys.lines() {
        assert!(key.starts_with("mine"), "{key}");
        let left: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} never ends");
    }
    kill_process(server.pid(), Signal::TERM).unwrap();
    assert!(server.wait(Duration::from_secs(5)).success());
    let audit = std::fs::read_to_string(dir.path("audit.log")).unwrap();
    let mut events = BTreeSet::new();
    for line in audit.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(
            event["ts"].is_string() && matches!(event["outcome"].as_str(), Some("ok" | "error")),
            "{line}"
        );
        events.insert(event["event"].as_str().unwrap().to_owned());
    }
    for event in [
        "login",
        "refresh",
        "refresh_reuse",
        "revoke_token",
        "revoke_session",
        "revoke_family",
        "revoke_user",
    ] {
        assert!(events.contains(event), "{event} is not in {events:?}");
    }
    let reuse = audit.lines().find(|line| line.contains("refresh_reuse")).unwrap();
    assert!(
        ["sub", "session_id", "family_id", "reason"].iter().all(|field| reuse.contains(field)),
        "{reuse}"
    );
    let (logs, dump) = (server.logs(), values(&redis));
    for secret in &secrets {
        assert!(!logs.contains(secret), "in the log");
        assert!(!audit.contains(secret), "in the audit log");
        assert!(!dump.contains(secret), "in redis");
    }
}

/// All values in Redis, as text.
fn values(redis: &RedisServer) -> String {
    let keys = redis.cli(&["KEYS", "*"]);
    let read = |key: &str| match redis.cli(&["TYPE", key]).as_str() {
        "string" => redis.cli(&["GET", key]),
        "hash" => redis.cli(&["HGETALL", key]),
        "zset" => redis.cli(&["ZRANGE", key, "0", "-1"]),
        "stream" => redis.cli(&["XRANGE", key, "-", "+"]),
        other => panic!("{key} is a {other}"),
    };
    keys.lines().map(read).collect()
}
