//! `token`: is it refused, and why.

use serde_json::json;
use tower_jwt_revocation::clock::Timestamp;

use crate::program::{Program, token};
use crate::support::{RedisServer, redis_or_skip};

#[test]
fn a_token_is_live_or_it_is_said_by_what_it_is_revoked() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url()).without("JWT_AUDIENCES");
    let token = token(&json!({ "sid": "s-1" }));
    let live = program.ask(&token).exits(0).json();
    assert_eq!((&live["valid"], &live["revoked"]), (&json!(true), &json!(false)));
    assert_eq!((&live["by"], &live["sub"]), (&json!([]), &json!("alice")));
    // As it is copied out of a request.
    program.ask(&format!("  Bearer {token}\n")).exits(0);

    program.run("revoke --session s-1 --reason left --actor carol").exits(0);
    program.run("revoke --user alice").exits(0);
    let revoked = program.ask(&token).exits(1).json();
    assert_eq!((&revoked["valid"], &revoked["revoked"]), (&json!(true), &json!(true)));
    let by = revoked["by"].as_array().unwrap();
    assert_eq!(by.len(), 2, "{revoked}");
    let session = by.iter().find(|by| by["kind"] == "session").unwrap();
    assert_eq!((&session["reason"], &session["actor"]), (&json!("left"), &json!("carol")));
    assert!(session["at"].is_u64() && session["until"].is_u64());
    let text = program.run_with(&["token"], &token).exits(1).out;
    assert!(text.contains("left") && !text.contains(&token), "{text}");

    program.run("reinstate --session s-1").exits(0);
    program.run("reinstate --user alice").exits(0);
    program.ask(&token).exits(0);
}

#[test]
fn what_is_no_acceptable_token_is_said_without_a_store() {
    let program = Program::at("redis://127.0.0.1:1");
    let now = Timestamp::now().as_secs();
    let expired = token(&json!({ "iat": now - 7200, "exp": now - 3600 }));
    let forged = format!("{}x", token(&json!({})));
    let another_kind = token(&json!({ "events": { "https://a.example": {} } }));
    let too_long = "a".repeat(100_000);
    for bad in [&*expired, &forged, &another_kind, &too_long, "", "garbage", "\u{0}\u{1b}[2J"] {
        let ran = program.ask(bad).exits(2);
        let answer = ran.json();
        assert_eq!((&answer["valid"], &answer["revoked"]), (&json!(false), &json!(false)));
        assert!(!answer["error"].as_str().unwrap().is_empty());
        assert!(ran.took.as_secs() < 5, "{ran:?}");
        let text = program.run_with(&["token"], bad).exits(2).out;
        assert!(text.starts_with("not acceptable") && !text.contains('\u{1b}'), "{text}");
    }
    // Nor is a token taken for an id, or for an argument.
    let token = token(&json!({}));
    for args in [
        &["revoke", "--jti", &token][..],
        &["find", "--user", &token, "--json"],
        &["token", &token],
        &["revoke", &format!("--nonsense={token}"), "--json"],
        &["revoke", "--jti=a", "--until", &token],
    ] {
        let ran = program.run_with(args, "").exits(2);
        assert!(!ran.out.contains(&token) && !ran.err.contains(&token), "{ran:?}");
    }
}
