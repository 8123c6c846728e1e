//! `doubt`, and what the other commands say meanwhile.

use std::num::NonZeroU32;

use serde_json::json;
use tower_jwt_revocation::RedisStore;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::redis::RedisAuditSink;

use crate::program::{Program, token};
use crate::support::{RedisServer, redis_or_skip};

#[tokio::test]
async fn a_doubt_is_declared_shown_and_accepted() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    let old = token(&json!({ "jti": "old" }));
    let revoked = token(&json!({ "jti": "gone" }));
    program.run("revoke --jti gone").exits(0);
    assert_eq!(program.run("doubt show --json").exits(0).json(), json!({ "doubt": "none" }));
    program.run("doctor").exits(0);

    let args = ["doubt", "declare", "--since", "-15m", "--actor", "carol", "--reason", "backup"];
    assert!(program.run_with(&args, "").exits(0).out.contains("in doubt"));
    let shown = program.run("doubt show --json").exits(0).json();
    assert_eq!(shown["doubt"], "lasting");
    // What was revoked in the last 15 minutes is missing, of whatever was issued until now.
    let now = Timestamp::now().as_millis();
    let until = shown["issued_until"].as_u64().unwrap();
    assert!(until <= now && until + 60_000 > now, "{shown}");
    assert!(shown["ends_at"].as_u64().unwrap() > now, "{shown}");

    // Waiting does not help whoever has such a token; what is known of others is still known.
    let answer = program.ask(&old).exits(2).json();
    assert_eq!((&answer["valid"], &answer["revoked"]), (&json!(false), &json!(false)));
    assert!(answer["error"].as_str().unwrap().contains("doubt"), "{answer}");
    program.ask(&revoked).exits(1);
    program.ask(&token(&json!({ "iat": now / 1000 + 2, "jti": "new" }))).exits(0);
    let report = program.run("doctor --json").exits(1).json();
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|it| it["subject"] == "doubt" && it["severity"] == "error"));

    program.run("doubt accept --actor carol").exits(0);
    assert_eq!(program.run("doubt show --json").exits(0).json()["doubt"], "none");
    program.ask(&old).exits(0);
    assert_eq!(program.run("doubt accept --json").exits(0).json()["doubt"], "none");

    // It stands in the audit trail who has decided so.
    let store = RedisStore::connect(redis.url()).await.unwrap();
    let audit = RedisAuditSink::new(store);
    let events = audit.events_of("", NonZeroU32::new(10).unwrap()).await.unwrap();
    let has = |event: &str| {
        events.iter().any(|line| line.contains(event) && line.contains(r#""actor":"carol""#))
    };
    assert!(has("declare_doubt") && has("accept_doubt"), "{events:?}");
    let events = audit.events_of("alice", NonZeroU32::new(10).unwrap()).await.unwrap();
    assert!(events.is_empty(), "{events:?}");
    program.run("revoke --user alice --actor carol").exits(0);
    let events = audit.events_of("alice", NonZeroU32::new(10).unwrap()).await.unwrap();
    assert!(events.len() == 1 && events[0].contains("revoke_user"), "{events:?}");
}

#[test]
fn a_loss_that_is_over_reaches_no_further_than_was_said() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    program.run_with(&["doubt", "declare", "--since", "-2h", "--until", "-1h"], "").exits(0);
    let now = Timestamp::now().as_secs();
    let before = token(&json!({ "iat": now - 5400, "jti": "before" }));
    let after = token(&json!({ "iat": now - 1800, "jti": "after" }));
    program.ask(&before).exits(2);
    program.ask(&after).exits(0);
    program.run_with(&["doubt", "declare", "--since", "-1h", "--until", "-2h"], "").exits(2);
    program.run_with(&["doubt", "declare", "--since", "-900d", "--until", "-800d"], "").exits(2);
}
