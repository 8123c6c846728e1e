//! Runs the examples, as a reader would, and reads what they print.
#![cfg(all(feature = "redis", feature = "aws_lc_rs"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/mod.rs"]
mod support;

use std::process::Command;

fn command(example: &str, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    // All features, as `make test` has them: nothing is compiled twice.
    command
        .args(["run", "--quiet", "--all-features", "--example", example])
        .env_remove("REDIS_URL")
        .envs(env.iter().copied())
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Runs an example to its end and returns what it printed.
#[track_caller]
fn run(example: &str, env: &[(&str, &str)]) -> String {
    let output = command(example, env).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("Next: "), "it does not say what to try next:\n{printed}");
    printed
}

/// The answers in the order in which they were printed, one word each.
fn words<'a>(printed: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    printed.split(|c: char| !c.is_alphanumeric()).filter(|word| wanted.contains(word)).collect()
}

#[test]
fn quickstart_in_memory_and_on_redis() {
    let wanted = ["200", "204", "401"];
    let story = ["200", "200", "204", "401", "200", "204", "401"];
    let printed = run("quickstart", &[]);
    assert_eq!(words(&printed, &wanted), story, "{printed}");

    support::redis_or_skip!();
    let redis = support::RedisServer::start();
    let printed = run("quickstart", &[("REDIS_URL", &redis.url())]);
    assert!(printed.contains("kept in Redis"), "{printed}");
    assert_eq!(words(&printed, &wanted), story, "{printed}");
}

#[test]
fn hyper() {
    let printed = run("hyper", &[]);
    assert_eq!(words(&printed, &["200", "401"]), ["401", "200", "401"], "{printed}");
}

#[test]
fn tonic() {
    let printed = run("tonic", &[]);
    let codes = words(&printed, &["Ok", "Unauthenticated", "Unavailable"]);
    assert_eq!(codes, ["Unauthenticated", "Ok", "Unauthenticated", "Unavailable"], "{printed}");
}

#[test]
fn sessions() {
    let printed = run("sessions", &[]);
    let seen = words(&printed, &["200", "204", "400", "401"]);
    let logins = ["200", "200"];
    let refreshes = ["200", "200", "200"];
    let theft = ["400", "401", "200"];
    let ending = ["200", "200", "204", "401", "204", "401"];
    assert_eq!(seen, [&logins[..], &refreshes, &theft, &ending].concat(), "{printed}");
}

#[test]
fn jwks() {
    let printed = run("jwks", &[]);
    let seen = words(&printed, &["200", "401", "503"]);
    assert_eq!(seen, ["200", "503", "200", "200", "401", "401", "200"], "{printed}");
}

/// Who is answered how on which path: without a token, with a good one, with a revoked one, and
/// with a good one while the store is away.
#[test]
fn routers() {
    let printed = run("routers", &[]);
    for (path, answers) in [
        ("/payments", ["401", "200", "401", "503"]),
        ("/payments/x", ["401", "404", "401", "503"]),
        ("/news", ["401", "200", "401", "200"]),
        ("/news/x", ["404", "404", "404", "404"]),
        ("/shop", ["200", "200", "401", "503"]),
        ("/about", ["200", "200", "200", "200"]),
        ("/account", ["401", "200", "401", "503"]),
        ("/health", ["200", "200", "200", "200"]),
        ("/unknown", ["404", "404", "404", "404"]),
    ] {
        let line = printed.lines().find(|line| line.split_whitespace().nth(1) == Some(path));
        let seen: Vec<_> = line.unwrap_or_default().split_whitespace().skip(2).collect();
        assert_eq!(seen, answers, "{path}:\n{printed}");
    }
}

/// Its tests are run by `cargo test`, as those of any target.
#[test]
fn testing() {
    let printed = run("testing", &[]);
    assert_eq!(words(&printed, &["200", "204", "401"]), ["200", "204", "401"], "{printed}");
}

#[test]
fn a_second_process_revokes() {
    support::redis_or_skip!();
    let printed = run("revoke", &[]);
    assert_eq!(words(&printed, &["200", "401"]), ["200", "200", "401", "200"], "{printed}");
    let processes: std::collections::HashSet<_> = printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("process ")?.split(':').next())
        .collect();
    assert_eq!(processes.len(), 2, "{printed}");
}

#[test]
fn everything_comes_from_the_environment() {
    support::redis_or_skip!();
    let redis = support::RedisServer::start();
    let secret = std::env::temp_dir().join(format!("jwt-from-env-{}", std::process::id()));
    std::fs::write(&secret, "a secret of 32 bytes, or of more\n").unwrap();
    let url = redis.url();
    let env = [
        ("JWT_ISSUERS", "https://id.example"),
        ("JWT_ALGORITHM", "HS256"),
        ("JWT_SECRET_FILE", secret.to_str().unwrap()),
        ("REDIS_URL", &url),
        ("JWT_REDIS_PREFIX", "orders"),
        ("JWT_FAIL_MODE", "closed"),
    ];
    let check = |more: &[(&str, &str)]| {
        let output = command("from_env", &[&env[..], more].concat())
            .args(["--", "--check"])
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    };
    let good = check(&[("JWT_AUDIENCES", "orders")]);
    let slip = check(&[("JWT_AUDIENCE", "orders")]);
    let wrong = check(&[("JWT_AUDIENCES", "orders"), ("JWT_FAIL_MODE", "ajar")]);
    std::fs::remove_file(&secret).unwrap();
    assert!(good.0 && good.1.contains("all settings are good"), "{}", good.1);
    assert!(
        !slip.0 && slip.1.contains("JWT_AUDIENCES: is not set, but `JWT_AUDIENCE` is"),
        "{}",
        slip.1
    );
    assert!(
        !wrong.0
            && wrong
                .1
                .contains("JWT_FAIL_MODE: is not a word that is known here; write `closed` or"),
        "{}",
        wrong.1
    );
}
