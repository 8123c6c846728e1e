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
    let mut server =
        Server::on_in(&dir, &redis, &[("AUTH_KEY_PREFIX", "mine"), ("RUST_LOG", "trace")]);
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
            server
                .admin("revoke_token", json!({ "token": format!("{}x", token.access) }))
                .await
                .is(204);
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

/// The events that `what` writes down.
async fn told(server: &Server, what: impl AsyncFnOnce()) -> Vec<Value> {
    let lines = || {
        let audit = std::fs::read_to_string(server.dir.path("audit.log")).unwrap();
        audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    // They are written by another thread, in order: a login marks the beginning and the end.
    let mark = async |user: &str| {
        server.login(user).await;
        let is_mark = |event: &Value| event["sub"] == user;
        support::wait_until("the mark is written", Duration::from_secs(5), || {
            lines().iter().any(is_mark)
        });
        lines().iter().position(is_mark).unwrap()
    };
    let first = mark(&format!("first {}", lines().len())).await;
    what().await;
    let last = mark(&format!("last {}", lines().len())).await;
    lines()[first + 1..last].to_vec()
}

#[track_caller]
fn assert_told(events: &[Value], expected: &[Value]) {
    let relevant = ["event", "outcome", "sub", "jti", "session_id", "family_id"];
    let events = events.iter().map(|event| {
        assert!(event["ts"].is_string(), "{event}");
        Value::Object(
            event
                .as_object()
                .unwrap()
                .clone()
                .into_iter()
                .filter(|(name, _)| relevant.contains(&&**name))
                .collect(),
        )
    });
    assert_eq!(events.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn each_event_says_what_is_known() {
    let server = Server::start(&[]);
    let jti = async |token: &str| server.protected(token).await.is(200).json()["jti"].clone();

    let mut tokens = None;
    let events = told(&server, async || tokens = Some(server.login("alice").await)).await;
    let first = tokens.take().unwrap();
    let (s, f, j) = (json!(first.session), json!(first.family), jti(&first.access).await);
    let whole = |event: &str, outcome: &str, jti: &Value| {
        json!({
            "event": event, "outcome": outcome, "sub": "alice", "jti": jti,
            "session_id": s, "family_id": f,
        })
    };
    let without_jti = |event: &str, outcome: &str| {
        json!({
            "event": event, "outcome": outcome, "sub": "alice", "session_id": s, "family_id": f,
        })
    };
    assert_told(&events, &[whole("login", "ok", &j)]);

    let events =
        told(&server, async || tokens = Some(server.refreshed(&first.refresh).await)).await;
    let second = tokens.take().unwrap();
    assert_told(&events, &[whole("refresh", "ok", &jti(&second.access).await)]);

    let events = told(&server, async || {
        server.admin("revoke_token", json!({ "token": first.access })).await.is(204);
    });
    assert_told(&events.await, &[whole("revoke_token", "ok", &j)]);

    let events =
        told(&server, async || assert_invalid_grant(server.refresh(&first.refresh).await)).await;
    assert_told(
        &events,
        &[without_jti("revoke_family", "ok"), without_jti("refresh_reuse", "error")],
    );
    assert_eq!(events[1]["reason"], "parent");

    let events =
        told(&server, async || assert_invalid_grant(server.refresh(&second.refresh).await)).await;
    assert_told(&events, &[without_jti("refresh", "error")]);
    assert_eq!(events[0]["reason"], "revoked");
    let events =
        told(&server, async || assert_invalid_grant(server.refresh("garbage").await)).await;
    assert_told(&events, &[json!({ "event": "refresh", "outcome": "error" })]);
    assert_eq!(events[0]["reason"], "unknown");
}

#[tokio::test]
async fn what_the_administrator_does_is_told_once() {
    let server = Server::start(&[]);
    let one = server.login("alice").await;
    let events = told(&server, async || {
        server.admin("revoke_token", json!({ "token": one.refresh })).await.is(204);
    });
    let family = json!({
        "event": "revoke_family", "outcome": "ok", "sub": "alice",
        "session_id": one.session, "family_id": one.family,
    });
    assert_told(&events.await, &[family]);
    let events = told(&server, async || {
        server.admin("revoke_token", json!({ "token": "nonsense" })).await.is(204);
        server.admin("revoke", json!({ "jti": "a" })).await.is(204);
        server.admin("revoke_user", json!({ "sub": "bob" })).await.is(204);
        server.admin("revoke_session", json!({ "session_id": "s" })).await.is(204);
        server.admin("revoke_family", json!({ "family_id": "f" })).await.is(204);
    });
    assert_told(
        &events.await,
        &[
            json!({ "event": "revoke_token", "outcome": "error" }),
            json!({ "event": "revoke_token", "outcome": "ok", "jti": "a" }),
            json!({ "event": "revoke_user", "outcome": "ok", "sub": "bob" }),
            json!({ "event": "revoke_session", "outcome": "ok", "session_id": "s" }),
            json!({ "event": "revoke_family", "outcome": "ok", "family_id": "f" }),
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_is_told_as_an_error() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let mut server = Server::on(&redis, &[]);
    let tokens = server.login("alice").await;
    redis.kill();
    server.post("/login", None, json!({ "sub": "bob" })).await.is_unavailable();
    server.refresh(&tokens.refresh).await.is_unavailable();
    server.admin("revoke_user", json!({ "sub": "bob" })).await.is_unavailable();
    server.admin("revoke_token", json!({ "token": tokens.access })).await.is_unavailable();
    kill_process(server.pid(), Signal::TERM).unwrap();
    assert!(server.wait(Duration::from_secs(5)).success());
    let audit = std::fs::read_to_string(server.dir.path("audit.log")).unwrap();
    let events: Vec<Value> =
        audit.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["login", "refresh", "revoke_user", "revoke_token"]);
    assert!(
        events.iter().all(|event| event["outcome"] == "error" && event["error"].is_string()),
        "{audit}"
    );
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

/// The issuer of another program has a clock that is ahead of ours, by as much as is allowed.
#[tokio::test]
async fn a_revoked_token_is_remembered_until_nobody_would_accept_it() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[("AUTH_LEEWAY_S", "300"), ("AUTH_MAX_TOKEN_TTL_S", "1000")]);
    let early =
        with(claims("alice", "early"), "iat", claims("", "")["iat"].as_u64().unwrap() + 290);
    let exp = early["iat"].as_u64().unwrap() + 1000;
    let early = with(early, "exp", exp);
    let token = foreign(&early);
    server.protected(&token).await.is(200);
    server.admin("revoke", json!({ "jti": "early", "exp": exp })).await.is(204);
    server.protected(&token).await.is_invalid_token();
    let record = redis.cli(&["--scan", "--pattern", "auth:{0}:r:*"]);
    let until: u64 = redis.cli(&["PEXPIRETIME", record.trim()]).parse().unwrap();
    assert!(until > (exp + 300) * 1000, "{until} {exp}");
}

/// What is known of a session may be forgotten before its refresh token is: if the store did not
/// answer when it was last seen.
#[tokio::test]
async fn to_sign_out_ends_the_refresh_token_of_a_forgotten_session_too() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[]);
    let (alice, bob) = (server.login("alice").await, server.login("bob").await);
    let places: Vec<_> = redis.cli(&["KEYS", "auth:{0}:d:*"]).lines().map(str::to_owned).collect();
    let places = places.iter().filter(|key| redis.cli(&["GET", key]).contains(r#" 1 {"u":"#));
    let places: Vec<_> =
        places.filter(|key| !redis.cli(&["GET", key]).contains(r#""k":"#)).collect();
    assert_eq!(places.len(), 2, "one for each session");
    for key in places {
        redis.cli(&["DEL", key]);
    }
    server.post("/logout", Some(&alice.access), json!({})).await.is(204);
    server.protected(&alice.access).await.is_invalid_token();
    assert_invalid_grant(server.refresh(&alice.refresh).await);
    // Another issuer with our keys may name whatever it likes: it ends nothing that is not its
    // caller's.
    let mallory =
        with(with(claims("mallory", "m"), "sid", bob.session.clone()), "fid", bob.family.clone());
    server.post("/logout", Some(&foreign(&mallory)), json!({})).await.is(204);
    server.protected(&foreign(&mallory)).await.is_invalid_token();
    server.protected(&bob.access).await.is(200);
    server.refreshed(&bob.refresh).await;
}

/// Whoever may choose the ids of tokens may choose odd ones.
#[tokio::test]
async fn every_id_that_is_accepted_in_a_token_can_be_revoked() {
    let server = Server::start(&[]);
    let login = server.login("alice").await;
    let long = format!("build.{}", "7".repeat(70));
    let looks_signed = format!("{}x", login.access);
    let unsigned = "eyJhbGciOiJub25lIn0.e30.";
    for jti in ["a.b", "eye.of.newt", "ey.x.y.z", "1.2.3", unsigned, &long, &looks_signed] {
        let token = foreign(&claims("bob", jti));
        server.protected(&token).await.is(200);
        server.admin("revoke", json!({ "jti": jti })).await.is(204);
        server.protected(&token).await.is_invalid_token();
    }
    for token in [&login.access, &login.refresh, &foreign(&claims("bob", "b"))] {
        server.admin("revoke", json!({ "jti": token })).await.is(400);
    }
}
