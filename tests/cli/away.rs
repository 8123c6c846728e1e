//! A Redis that is away, hangs or does not let anybody in.

use std::time::Duration;

use serde_json::json;

use crate::program::{Program, Ran, token};
use crate::support::{RedisServer, redis_or_skip};

const LIMIT: Duration = Duration::from_secs(5);

/// Every command that asks the store.
const COMMANDS: [&str; 11] = [
    "revoke --user alice",
    "reinstate --user alice",
    "find --user alice",
    "list",
    "count",
    "doctor",
    "watch",
    "doubt show",
    "doubt declare --since now",
    "doubt accept",
    "import --list blacklisted-jti-json",
];

#[track_caller]
fn is_out_of_reach(ran: Ran, limit: Duration) {
    let ran = ran.exits(3).within(limit);
    assert!(ran.out.is_empty() && ran.err.lines().count() == 1, "{ran:?}");
}

#[test]
fn a_store_that_is_away_is_said_in_one_line_and_in_time() {
    redis_or_skip!();
    let redis = RedisServer::start();
    redis.kill();
    let program = Program::at(&redis.url()).with("JWT_REDIS_START_LIMIT_SECS", "1");
    for command in COMMANDS {
        is_out_of_reach(program.run(command), Duration::from_secs(1));
    }
    for command in ["revoke --user alice --json", "list --json", "doctor --json"] {
        let document = program.run(command).exits(3).json();
        assert!(document["error"].is_string() && document["repeatable"] == true, "{document}");
    }
    assert_eq!(program.ask(&token(&json!({}))).exits(3).json()["repeatable"], true);
    // Without a limit of its own, and with settings that would start without a store.
    let program = program.without("JWT_REDIS_START_LIMIT_SECS");
    let ran = program.run("count").exits(3).within(LIMIT);
    assert!(ran.took >= Duration::from_secs(4), "{ran:?}");
    let program = program.with("JWT_REDIS_START", "anyway").with("JWT_REDIS_START_LIMIT_SECS", "1");
    is_out_of_reach(program.run("count"), Duration::from_secs(1));
}

#[test]
fn one_that_hangs_or_wants_another_password_is_out_of_reach() {
    redis_or_skip!();
    let redis = RedisServer::start();
    redis.stop_hung();
    let program = Program::at(&redis.url()).with("JWT_REDIS_START_LIMIT_SECS", "1");
    for command in ["revoke --user alice", "count", "doctor"] {
        is_out_of_reach(program.run(command), Duration::from_secs(1));
    }
    redis.resume();
    program.run("count").exits(0);

    let redis =
        RedisServer::builder().acl("default off").acl("alice on >right ~* &* +@all").start();
    let url = redis.url_as("alice", "wrong");
    let program = Program::at(&url).with("JWT_REDIS_START_LIMIT_SECS", "1");
    for command in ["revoke --user alice", "list", "doctor"] {
        let ran = program.run(command).exits(3).within(LIMIT);
        assert!(!ran.err.contains("wrong@") && ran.err.lines().count() == 1, "{ran:?}");
    }
    let program = Program::at(&redis.url_as("alice", "right"));
    program.run("revoke --user alice").exits(0);
    // The credentials of the environment are those of its URL.
    let args = ["count", "--redis-url", &redis.url_as("alice", "right")];
    Program::at("redis://127.0.0.1:1").with("REDIS_PASSWORD", "x").run_with(&args, "").exits(0);
}

#[test]
fn an_authority_of_ones_own_is_trusted_by_a_variable_and_else_refused_at_once() {
    redis_or_skip!();
    if !crate::support::server_has_tls() {
        return;
    }
    let redis = RedisServer::builder().tls(false).start();
    let program = Program::at(&redis.url()).with("JWT_REDIS_START_LIMIT_SECS", "120");
    let ran = program.run("count").exits(3);
    assert!(ran.err.contains("REDIS_CA_FILE") && ran.took < Duration::from_secs(60), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let ca = path(&redis.tls().ca);
    let program = program.with("REDIS_CA_FILE", &ca);
    program.run("count").exits(0);
    let program = program.without("REDIS_CA_FILE");
    program.with("SSL_CERT_FILE", &ca).run("count").exits(0);

    let redis = RedisServer::builder().tls(true).start();
    let files = redis.tls();
    let program = Program::at(&redis.url())
        .with("JWT_REDIS_START_LIMIT_SECS", "120")
        .with("REDIS_CA_FILE", &path(&files.ca));
    let ran = program.run("count").exits(3);
    assert!(ran.err.contains("REDIS_CLIENT_CERT_FILE"), "{ran:?}");
    let program = program.with("REDIS_CLIENT_CERT_FILE", &path(&files.client_cert));
    let ran = program.run("count").exits(2);
    assert!(ran.err.contains("REDIS_CLIENT_CERT_FILE: has no effect"), "{ran:?}");
    let program = program.with("REDIS_CLIENT_KEY_FILE", &path(&files.client_key));
    program.run("revoke --user alice").exits(0);
    // What is for TLS is not for another server without.
    let plain = RedisServer::start();
    program.run_with(&["count", "--redis-url", &plain.url()], "").exits(0);
    let ran = program.with("REDIS_CA_FILE", "/nowhere/ca.pem").run("count").exits(2);
    assert!(ran.err.contains("REDIS_CA_FILE: names /nowhere/ca.pem"), "{ran:?}");
}
