//! `revoke`, `find`, `reinstate`, `list` and `count`.

use std::time::Duration;

use serde_json::{Value, json};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::{
    Algorithm, JwtRevocationLayer, JwtVerifier, RedisStore, TokenProfile, VerificationKey,
};

use crate::program::Program;
use crate::support::{RedisServer, redis_or_skip, wait_until};

const DAY: u64 = 24 * 60 * 60 * 1000;

fn in_millis(time: &Value, at_least: u64) -> bool {
    let now = Timestamp::now().as_millis();
    let time = time.as_u64().unwrap();
    time + 60_000 > now + at_least && time < now + at_least + DAY
}

#[test]
fn each_kind_is_revoked_found_and_reinstated() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url()).with("JWT_CLAIM_TARGETS", "tenant=claim");
    for (option, kind, id, extent) in [
        ("--jti=t-1", "token", "t-1", "all"),
        ("--user=alice", "user", "alice", "issued_so_far"),
        ("--session=s-1", "session", "s-1", "all"),
        ("--device=d-1", "device", "d-1", "issued_so_far"),
        ("--family=f-1", "family", "f-1", "all"),
        ("--client=c-1", "client", "c-1", "issued_so_far"),
        ("--key=k-1", "key", "k-1", "issued_so_far"),
        ("--issuer=", "issuer", "", "issued_so_far"),
        ("--claim=tenant=acme", "claim", "acme", "issued_so_far"),
    ] {
        let found = program.run(&format!("find {option} --json")).exits(0).json();
        assert_eq!((&found["kind"], &found["revoked"]), (&json!(kind), &json!(false)), "{option}");

        let args = format!("revoke {option} --reason stolen --actor carol --json");
        let revoked = program.run(&args).exits(0).json();
        assert_eq!(revoked["effect"], "new", "{option}");
        for document in [revoked, program.run(&format!("find {option} --json")).exits(1).json()] {
            assert_eq!(document["kind"], kind);
            assert_eq!(document["id"], id);
            assert_eq!(document["reason"], "stolen");
            assert_eq!(document["actor"], "carol");
            assert_eq!(document["extent"], extent, "{option}");
            assert!(in_millis(&document["at"], 0), "{document}");
            // Tokens live for a day, and refresh tokens for 90 unless something else is said.
            let kept = if kind == "token" { DAY } else { 90 * DAY };
            assert!(in_millis(&document["until"], kept), "{document}");
        }
        let text = program.run(&format!("find {option}")).exits(1).out;
        assert!(text.contains("stolen") && text.contains("carol"), "{text}");

        let args = format!("reinstate {option} --actor dave --json");
        let reinstated = program.run(&args).exits(0).json();
        assert_eq!((&reinstated["effect"], &reinstated["extent"]), (&json!("new"), &json!("none")));
        let found = program.run(&format!("find {option} --json")).exits(0).json();
        assert_eq!(found["revoked"], false);
        assert_eq!(program.run(&args).exits(0).json()["effect"], "already");
    }
    assert_eq!(program.run("count --json").exits(0).json(), json!({ "count": 0 }));
    assert_eq!(program.run("list --json").exits(0).out, "");
    let nothing = program.run("list").exits(0);
    assert!(nothing.out.is_empty() && nothing.err.contains("nothing"), "{nothing:?}");
}

#[test]
fn what_was_asked_for_is_what_is_kept() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    let effect = |args: &str| program.run(&format!("{args} --json")).exits(0).json();
    let at = Timestamp::now().as_secs() + 3600;
    assert_eq!(effect(&format!("revoke --jti t-1 --until {at}"))["effect"], "new");
    assert_eq!(effect(&format!("revoke --jti t-1 --until {at}"))["effect"], "already");
    assert_eq!(effect("revoke --jti t-1 --until +12h")["effect"], "extended");
    assert_eq!(
        effect("revoke --jti t-2 --until 2001-01-01T00:00:00Z")["effect"],
        "already_expired"
    );
    // No shorter than refresh tokens live, and no longer than was said.
    let program = program.with("JWT_REFRESH_LIFETIME_SECS", "604800");
    let effect = |args: &str| program.run(&format!("{args} --json")).exits(0).json();
    assert!(in_millis(&effect("revoke --user a --until +1h")["until"], 7 * DAY));
    assert!(in_millis(&effect("revoke --user b --until +30d")["until"], 30 * DAY));
    assert!(in_millis(&effect("revoke --user c --lifetime 14d")["until"], 14 * DAY));
    // All tokens, for all times to come.
    let banned = effect("revoke --user mallory --all");
    assert_eq!(banned["extent"], "all");
    assert!(banned["until"].as_u64().unwrap() > Timestamp::now().as_millis() + 36500 * DAY);
    program.run("revoke --user mallory --all --until +30d").exits(2);
    program.run("revoke --user mallory --until 2001-01-01T00:00:00Z").exits(2);
    assert!(program.run("find --user mallory").exits(1).out.contains("never"));
}

#[test]
fn the_list_is_a_line_for_each_and_the_count_agrees() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    for n in 0..5 {
        program.run(&format!("revoke --jti t-{n}")).exits(0);
    }
    program.run("revoke --user alice --reason left").exits(0);
    program.run("revoke --user bob").exits(0);
    program.run("reinstate --user bob").exits(0);
    redis.cli(&["SET", "not-ours", "1"]);

    // These need no settings of tokens.
    let bare = Program::at(&redis.url()).without("JWT_ISSUERS").without("JWT_SECRET");
    assert_eq!(bare.run("count").exits(0).out, "6\n");
    assert_eq!(bare.run("list --json").exits(0).jsons().len(), 6);
    let users = bare.run("list --kind user --json").exits(0).jsons();
    assert_eq!(
        (users.len(), &users[0]["id"], &users[0]["reason"]),
        (1, &json!("alice"), &json!("left"))
    );
    assert_eq!(bare.run("list --kind token --limit 3 --json").exits(0).jsons().len(), 3);
    let table = bare.run("list").exits(0).out;
    assert_eq!(table.lines().count(), 7, "{table}");
    assert!(table.starts_with("SINCE") && table.contains("alice (left)"), "{table}");
    // Another prefix is another world.
    let other = ["list", "--prefix", "other", "--json"];
    assert_eq!(bare.run_with(&other, "").exits(0).out, "");
    let other = ["count", "--redis-url", &redis.url(), "--prefix=other"];
    assert_eq!(bare.without("REDIS_URL").run_with(&other, "").exits(0).out, "0\n");
}

#[test]
fn what_a_terminal_would_obey_is_shown_escaped() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    let id = "al\u{1b}[31mice\u{202e}\u{9b}\n";
    let reason = "x\u{7}y";
    let revoked = program.run_with(&["revoke", "--user", id, "--reason", reason], "").exits(0);
    let found = program.run_with(&["find", "--user", id], "").exits(1);
    let json = program.run_with(&["find", "--user", id, "--json"], "").exits(1);
    assert_eq!((&json.json()["id"], &json.json()["reason"]), (&json!(id), &json!(reason)));
    for ran in
        [revoked, found, json, program.run("list").exits(0), program.run("list --json").exits(0)]
    {
        let is_shown = |char: char| char == '\n' || !char.is_control() && char != '\u{202e}';
        assert!(ran.out.chars().all(is_shown) && ran.out.lines().count() <= 2, "{ran:?}");
    }
    // In an error, too.
    let program = program.with("JWT_ISSUERS", "https://id.example");
    let ran = program.run_with(&["find", "--user", "a", "--iss", id], "").exits(2);
    assert!(!ran.err.contains('\u{1b}') && ran.err.lines().count() == 1, "{ran:?}");
}

#[test]
fn a_target_belongs_to_an_issuer_that_is_configured() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    // Without names there is none to name.
    program.run("revoke --user alice --iss https://a.example").exits(2);
    let one = program.clone().with("JWT_ISSUERS", "https://a.example");
    let document = one.run("revoke --user alice --json").exits(0).json();
    assert_eq!(document["iss"], "https://a.example");
    let two = program.with("JWT_ISSUERS", "https://a.example https://b.example");
    two.run("find --user alice").exits(2);
    two.run("find --user alice --iss https://a.example").exits(1);
    two.run("find --user alice --iss https://b.example").exits(0);
    for args in [
        "revoke --user alice --iss https://c.example",
        "revoke --issuer https://c.example",
        "reinstate --user alice --iss https://c.example",
        "find --user alice --iss https://c.example",
    ] {
        let ran = two.run(&format!("{args} --json")).exits(2);
        assert!(ran.json()["error"].as_str().unwrap().contains("https://c.example"), "{ran:?}");
    }
    two.run("revoke --user alice --iss https://c.example --allow-unknown-issuer").exits(0);
    two.run("find --user alice --iss https://c.example --allow-unknown-issuer").exits(1);
    two.run("revoke --issuer https://b.example").exits(0);
    two.without("JWT_ISSUERS").run("revoke --user alice").exits(2);
}

#[test]
fn what_no_service_accepts_is_refused_unless_it_is_insisted_on() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    let ran = program.run("revoke --user alice").exits(0);
    assert!(ran.err.contains("no service has said"), "{ran:?}");

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = runtime.block_on(RedisStore::connect(redis.url())).unwrap();
    let key = VerificationKey::from_secret(
        Algorithm::HS256,
        b"a secret of the tests, 32 bytes long or more",
    )
    .unwrap();
    let profile = TokenProfile::new().with_issuer("https://a.example");
    let _layer = JwtRevocationLayer::new(JwtVerifier::new([key], profile).unwrap(), store);
    wait_until("the layer says what it accepts", Duration::from_secs(60), || {
        program.run("revoke --user alice").status == 2
    });
    let ran = program.run("revoke --user bob --json").exits(2);
    let document = ran.json();
    let error = document["error"].as_str().unwrap();
    assert!(error.contains("https://a.example") && error.contains("--allow-unknown"), "{error}");
    assert_eq!(document["repeatable"], false);
    program.run("find --user bob").exits(0);
    program.run("reinstate --user alice").exits(0);
    program.run("revoke --user bob --allow-unknown-issuer").exits(0);
    program.run("find --user bob").exits(1);
    let ours = program.with("JWT_ISSUERS", "https://a.example");
    let ran = ours.run("revoke --user bob").exits(0);
    assert!(ran.err.is_empty(), "{ran:?}");
}

#[test]
fn a_token_in_the_place_of_an_id_is_printed_and_written_nowhere() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url()).with("JWT_CLAIM_TARGETS", "tenant=claim");
    let secret = "c2lnbmF0dXJlLXRoYXQtaXMtYS1zZWNyZXQ";
    let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.{secret}");
    let refresh = format!("{}.{secret}{}", "f".repeat(22), "A".repeat(71 - secret.len()));
    let issuers = ["*", "https://a.example", "https://a.example https://b.example"];
    for token in [jwt.clone(), refresh, format!("Bearer {jwt}"), format!("token={jwt}")] {
        let named: Vec<_> = [
            "--jti",
            "--user",
            "--session",
            "--device",
            "--family",
            "--client",
            "--key",
            "--issuer",
        ]
        .iter()
        .map(|option| format!("{option}={token}"))
        .chain([format!("--claim=tenant={token}"), format!("--claim={token}=x")])
        .map(|option| vec![option])
        .chain([vec![format!("--iss={token}"), "--user=alice".into()]])
        .collect();
        for (number, options) in named.iter().enumerate() {
            let program = program.clone().with("JWT_ISSUERS", issuers[number % issuers.len()]);
            let command: [&[&str]; 3] = [&["revoke", "--json"], &["find"], &["reinstate"]];
            let mut args = command[number % command.len()].to_vec();
            args.extend(options.iter().map(String::as_str));
            for more in [None, Some("--allow-unknown-issuer")] {
                args.extend(more);
                let ran = program.run_with(&args, "").exits(2);
                assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{ran:?}");
            }
        }
        let iss = format!("--iss={token}");
        for args in [
            &["import", "--keys", "blacklist:{jti}", &iss][..],
            &["revoke", &token],
            &["revoke", "--jti", "a", &format!("--{token}")],
            &["revoke", "--jti", "a", "--until", &token, "--json"],
            &["revoke", "--jti", "a", "--prefix", &token],
            &[&token],
        ] {
            let ran = program.run_with(args, "").exits(2);
            assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{ran:?}");
        }
    }
    assert_eq!(program.run("count").exits(0).out, "0\n");
    let everything = redis.cli(&["KEYS", "*"]);
    assert!(!everything.contains(secret), "{everything}");
    // Words with points are none.
    let program = program.with("JWT_ISSUERS", "https://eyewitness-reports.example/");
    program.run("revoke --user v1.2.alice").exits(0);
}

#[test]
fn ids_are_taken_as_they_are_also_odd_ones() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    let long = "é".repeat(100);
    // In base64url one in 64 begins with a hyphen.
    for id in ["-Zk3", "--x", "-", "ünï 𝄞", "a=b", "{jti}", " a ", "*", &long] {
        program.run_with(&["find", "--jti", id], "").exits(0);
        let revoked = program.run_with(&["revoke", "--jti", id, "--json"], "").exits(0).json();
        assert_eq!((&revoked["id"], &revoked["effect"]), (&id.into(), &"new".into()));
        let found = program.run_with(&["find", "--json", "--jti", id], "").exits(1).json();
        assert_eq!((&found["id"], &found["kind"]), (&id.into(), &"token".into()));
        program.run_with(&["reinstate", "--jti", id], "").exits(0);
        program.run_with(&["find", &format!("--jti={id}")], "").exits(0);
    }
    program.run("count").exits(0);
    let words = "see eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.";
    for note in ["--reason", "--actor"] {
        let ran = program.run_with(&["revoke", "--user", "noted", note, words], "").exits(2);
        assert!(!ran.out.contains("eyJzdWIi") && !ran.err.contains("eyJzdWIi"), "{ran:?}");
        program.run("find --user noted").exits(0);
    }
}
