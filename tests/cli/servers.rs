//! `doctor`, and a Redis behind sentinels.

use std::time::Duration;

use serde_json::Value;

use crate::program::Program;
use crate::support::{RedisServer, Sentinel, redis_or_skip};

#[track_caller]
fn has(report: &Value, severity: &str, subject: &str) {
    let findings = report["findings"].as_array().unwrap();
    let is_it = |it: &&Value| it["severity"] == severity && it["subject"] == subject;
    let finding = findings.iter().find(is_it);
    assert!(finding.is_some_and(|it| it["sentence"].is_string()), "{subject}: {report}");
}

#[test]
fn the_doctor_says_whether_the_store_is_fit() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url()).without("JWT_ISSUERS").without("JWT_SECRET");
    // Nothing is written to disk, which is a warning.
    let report = program.run("doctor --json").exits(0).json();
    assert_eq!(report["fit"], true);
    has(&report, "warning", "persistence");
    // What pages of health show.
    program.clone().with("JWT_ISSUERS", "*").run("revoke --user alice").exits(0);
    let report = program.run("doctor --json").exits(0).json();
    let server = &report["servers"][0];
    assert_eq!(server["address"], redis.addr().to_string());
    assert!(server["version"].as_str().unwrap().contains('.'), "{report}");
    for figure in ["uptime_secs", "used_memory_bytes", "clients", "operations_per_second"] {
        assert!(server[figure].is_u64(), "{figure}: {report}");
    }
    assert_eq!((&report["revocations"], &report["sessions"]), (&1.into(), &0.into()), "{report}");
    assert!(report["latency_micros"].is_u64(), "{report}");
    let text = program.run("doctor").exits(0).out;
    assert!(text.contains("warning: persistence: "), "{text}");
    let server = text.lines().find(|line| line.starts_with("server: ")).unwrap();
    for figure in [&*redis.addr().to_string(), ", up ", " of memory, ", " clients, "] {
        assert!(server.contains(figure), "{figure}: {server}");
    }
    assert!(text.contains("kept: 1 revocation, 0 sessions"), "{text}");

    redis.cli(&["CONFIG", "SET", "maxmemory", "100mb"]);
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let report = program.run("doctor --json").exits(1).json();
    assert_eq!(report["fit"], false);
    has(&report, "error", "eviction");
    assert!(program.run("doctor").exits(1).out.contains("not fit"));
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    program.run("doctor").exits(0);

    // It takes no writes.
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let ran = program.run("doctor --json").exits(1);
    assert_eq!(ran.json()["fit"], false);
    let ran = Program::at(&redis.url()).run("revoke --user alice --json").exits(3);
    assert!(ran.json()["error"].as_str().unwrap().contains("may be repeated"), "{ran:?}");
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    program.run("doctor").exits(0);

    // A replica is none to write to. That is said at once, and nothing is waited for or counted.
    let port = redis.port().to_string();
    let replica = RedisServer::builder().arg("replicaof", &format!("127.0.0.1 {port}")).start();
    let at_replica = Program::at(&replica.url());
    let patient = at_replica.clone().with("JWT_REDIS_START_LIMIT_SECS", "50");
    let lists = "JWT_REDIS_FOREIGN_LISTS";
    let listed = patient.clone().with(lists, "live:{sid}|absent-means-revoked-even-if-lost");
    for program in [patient, listed] {
        let ran = program.run("doctor --json").exits(1);
        assert!(ran.took < Duration::from_secs(40), "{ran:?}");
        let report = ran.json();
        assert_eq!(report["fit"], false);
        has(&report, "error", "role");
        for finding in report["findings"].as_array().unwrap() {
            assert!(!ran.out.contains("is known that the server is a primary"), "{report}");
            let is_of_role = finding["subject"] == "role";
            assert_eq!(finding["severity"] == "error", is_of_role, "{report}");
            assert_eq!(finding["remedy"].is_string(), is_of_role, "{report}");
        }
        assert!(report.get("revocations").is_none(), "{report}");
    }
    at_replica.with("JWT_REDIS_START_LIMIT_SECS", "1").run("revoke --user alice").exits(3);
}

#[test]
fn behind_sentinels_a_revocation_outlives_the_primary() {
    redis_or_skip!();
    let sentinels = Sentinel::start(2, 3);
    let program = Program::at(&sentinels.url()).with("JWT_REDIS_START_LIMIT_SECS", "30");
    // A command that has ended cannot write again what a change of primary loses.
    let program = program.with("JWT_REDIS_WAIT_REPLICAS", "2");
    // Replicas may still be loading what the primary has: repeated, as the program says.
    let start = std::time::Instant::now();
    loop {
        let ran = program.run("revoke --user alice --reason stolen");
        if ran.status == 0 {
            break;
        }
        assert!(ran.status == 3 && start.elapsed() < Duration::from_secs(30), "{ran:?}");
    }
    program.run("doctor").exits(0);
    let former = sentinels.kill_primary();
    sentinels.wait_for_failover_from(former);
    let start = std::time::Instant::now();
    // Settling passes within half a minute.
    loop {
        let ran = program.run("find --user alice --json");
        if ran.status == 1 {
            assert_eq!(ran.json()["reason"], "stolen");
            break;
        }
        assert!(ran.status == 3 && start.elapsed() < Duration::from_secs(60), "{ran:?}");
    }
    // What is not confirmed may be repeated, until it is.
    let program = program.with("JWT_REDIS_WAIT_REPLICAS", "1");
    let revoked = loop {
        let ran = program.run("revoke --user bob --json");
        if ran.status == 0 {
            break ran;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{ran:?}");
    };
    assert_eq!(revoked.json()["id"], "bob", "{revoked:?}");
    let listed = program.run("list --json").exits(0);
    assert_eq!(program.run("count").exits(0).out, "2\n", "{listed:?}");
}
