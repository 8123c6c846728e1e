//! Wrong use, completions and the manual.

use crate::program::Program;
use crate::support::{RedisServer, redis_or_skip};

#[test]
fn wrong_use_is_told_with_the_usage_and_without_a_store() {
    // Nothing listens there: what is found without the store is found at once.
    let program = Program::at("redis://127.0.0.1:1");
    for args in [
        "",
        "nonsense",
        "revoke",
        "revoke alice",
        "revoke --user",
        "revoke --jti --reason=lost",
        "find --session -h",
        "revoke --user a --jti b",
        "revoke --user a --until yesterday",
        "revoke --jti a --until +1y",
        "revoke --user a --iss b --issuer c",
        "revoke --claim tenant",
        "list --kind nonsense",
        "list --limit 0",
        "list --limit many",
        "count --nonsense",
        "doubt",
        "doubt declare",
        "doubt declare --since tomorrow",
        "import",
        "import --list plain-jti --keys {jti}",
    ] {
        let ran = program.run(args).exits(2);
        assert!(ran.out.is_empty() && ran.err.contains("Usage"), "{args}: {ran:?}");
    }
    for args in [
        "revoke --user=",
        "revoke --claim unknown=x",
        "doubt declare --since +1h",
        "import --keys nonsense",
        "count --prefix=with{brace",
        "count --redis-url nonsense",
    ] {
        let ran = program.run(args).exits(2);
        assert!(ran.out.is_empty() && ran.err.lines().count() == 1, "{args}: {ran:?}");
        assert!(ran.took.as_secs() < 5, "{args}: {ran:?}");
    }
    for args in [
        "revoke --json",
        "revoke --user --json",
        "list --kind nonsense --json",
        "revoke --user= --json",
    ] {
        let document = program.run(args).exits(2).json();
        assert!(document["error"].is_string() && document["repeatable"] == false, "{document}");
    }
    // The whole of it, and not the first line of several.
    for (args, words) in [
        ("revoke --json", "--user <SUB>"),
        ("import --json", "--keys"),
        ("list --kind nonsense --json", "possible values: "),
        ("revoke --usr a --json", "'--user'"),
    ] {
        let document = program.run(args).exits(2).json();
        let error = document["error"].as_str().unwrap();
        assert!(error.contains(words) && !error.contains("Usage"), "{args}: {error}");
    }
    let long = "x".repeat(1025);
    program.run_with(&["revoke", "--user", "a", "--reason", &long], "").exits(2);
    let misspelt = program.clone().with("JWT_ISUERS", "a").without("JWT_ISSUERS");
    assert!(misspelt.run("find --user a").exits(2).err.contains("JWT_ISUERS"));
    program.clone().without("REDIS_URL").run("count").exits(2);
    program.with("JWT_REFRESH_LIFETIME_SECS", "long").run("revoke --user a").exits(2);
}

#[test]
fn there_are_completions_and_a_manual() {
    let program = Program::at("redis://127.0.0.1:1");
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        assert!(program.run(&format!("completions {shell}")).exits(0).out.contains(word));
    }
    assert!(program.run("man").exits(0).out.contains(".TH jwt-revocation"));
    let pages = crate::support::TempDir::new();
    program.run_with(&["man", "--dir", pages.path().to_str().unwrap()], "").exits(0);
    assert!(pages.path().join("jwt-revocation-revoke.1").is_file());
    assert!(program.run("help revoke").exits(0).out.contains("--confirm"));
    program.run("--version").exits(0);
}

/// `jwt-revocation find … | true` in a script with `pipefail`.
#[test]
fn a_reader_that_goes_away_changes_no_exit_status() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    program.run("revoke --user alice").exits(0);
    program.run("revoke --user bob").exits(0);
    let status = |args: &str| {
        let mut child = program.spawn(&args.split_whitespace().collect::<Vec<_>>());
        drop(child.stdout.take());
        drop(child.stderr.take());
        child.wait().unwrap().code()
    };
    for json in ["", " --json"] {
        for (args, expected) in [
            ("find --user alice", 1),
            ("find --user carol", 0),
            ("list", 0),
            ("count", 0),
            ("doctor", 0),
            ("revoke --user dave", 0),
            ("nonsense", 2),
            ("--help", 0),
        ] {
            assert_eq!(status(&format!("{args}{json}")), Some(expected), "{args}{json}");
        }
    }
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    assert_eq!(status("doctor"), Some(1));
    redis.kill();
    assert_eq!(status("count"), Some(3));
}

/// What was done is done, and is not said to have failed; what was asked for and could not be told
/// is not said to be known.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_the_output_changes_no_exit_status_that_tells_the_result() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    redis.cli(&["SADD", "token:revoked_families", "f-1"]);
    for json in ["", " --json"] {
        for (args, status) in [
            ("find --user alice", 0),
            ("revoke --user alice", 0),
            ("find --user alice", 1),
            ("reinstate --user alice", 0),
            ("import --list revoked-families", 0),
            ("doctor", 0),
            ("revoke --family f-2", 0),
            // Only the output tells it.
            ("list", 3),
            ("count", 3),
            ("doubt show", 3),
            // What failed has failed.
            ("revoke --user=", 2),
        ] {
            let ran = program.run_full(&format!("{args}{json}")).exits(status);
            let is_told = match (status, args) {
                (2, _) => ran.err.contains("error: ") && ran.err.contains("empty"),
                (3, _) => ran.err.contains("error: standard output cannot be written"),
                _ => ran.err.contains("warning: standard output cannot be written"),
            };
            assert!(is_told, "{args}{json}: {ran:?}");
        }
    }
    let ran = Program::at("redis://127.0.0.1:1").with("JWT_REDIS_START_LIMIT_SECS", "1");
    let ran = ran.run_full("revoke --user alice --json").exits(3);
    assert!(ran.err.starts_with("error: "), "{ran:?}");
}
