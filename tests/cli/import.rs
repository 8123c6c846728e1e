//! `import`: takes over what another program has revoked.

use serde_json::{Value, json};

use crate::program::{Program, token};
use crate::support::{RedisServer, redis_or_skip};

#[track_caller]
fn imported(ran: &Value) -> (u64, u64, u64) {
    let of = |name: &str| ran[name].as_u64().unwrap();
    (of("imported"), of("known"), of("unreadable"))
}

#[test]
fn what_another_program_has_revoked_is_taken_over_once() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    for n in 0..30 {
        let key = format!("token:blacklist:t-{n}");
        redis.cli(&["SET", &key, r#"{"reason":"logout","revoked_at":1}"#, "EX", "600"]);
    }
    redis.cli(&["SADD", "token:revoked_families", "f-1"]);
    redis.cli(&["SET", "session:s-1", "ended"]);
    redis.cli(&["SET", "session:s-2", "active"]);
    redis.cli(&[
        "SET",
        &format!("blacklist:{}", token(&json!({ "jti": "whole" }))),
        "1",
        "EX",
        "600",
    ]);

    let args = "import --list blacklisted-jti-json --json";
    assert_eq!(imported(&program.run(args).exits(0).json()), (30, 0, 0));
    assert_eq!(imported(&program.run(args).exits(0).json()), (0, 30, 0));
    assert_eq!(program.run("find --jti t-7 --json").exits(1).json()["reason"], "logout");
    program.run("import --list revoked-families").exits(0);
    program.run("find --family f-1").exits(1);
    let args = "import --keys session:{sid} --revoked-value ended --live-value active --json";
    assert_eq!(imported(&program.run(args).exits(0).json()), (1, 0, 0));
    program.run("find --session s-1").exits(1);
    program.run("find --session s-2").exits(0);
    assert_eq!(
        imported(&program.run("import --list blacklisted-token --json").exits(0).json()),
        (1, 0, 0)
    );
    program.run("find --jti whole").exits(1);
    program.run("import --list plain-jti --cursor nonsense").exits(2);
    // A key that is no set does not become one if it is repeated.
    redis.cli(&["SET", "words", "t-1"]);
    let error = program.run("import --set words --member {jti} --json").exits(2).json();
    assert_eq!(error["repeatable"], false, "{error}");
    assert!(error["error"].as_str().unwrap().contains("not a set"), "{error}");
}

#[test]
fn an_import_that_was_stopped_goes_on_where_it_was() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let script = "for n=1,2000 do redis.call('SET','bl:t-'..n,'1','EX','600') end";
    redis.cli(&["EVAL", script, "0"]);
    let program = Program::at(&redis.url());
    let args = ["import", "--keys", "bl:{jti}", "--pace", "500", "--json"];
    let child = program.spawn(&args);
    // When something is there it is in the middle.
    crate::support::wait_until("some are imported", std::time::Duration::from_secs(30), || {
        // The second page is under way, so that the end of the first is known.
        program.run("count").exits(0).out.trim().parse::<u32>().unwrap() > 250
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stopped: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cursor = stopped["cursor"].as_str().unwrap();
    assert_eq!(stopped["repeatable"], true);
    // It is a place in this list, and in no other one.
    for other in [["--keys", "other:{jti}"], ["--list", "revoked-families"]] {
        let args = [&["import"][..], &other, &["--cursor", cursor, "--json"]].concat();
        let refused = program.run_with(&args, "").exits(2).json();
        assert!(refused["error"].as_str().unwrap().contains("another list"), "{refused}");
    }
    let args = ["import", "--keys", "bl:{jti}", "--pace", "100000", "--cursor", cursor, "--json"];
    let rest = program.run_with(&args, "").exits(0).json();
    assert!(imported(&rest).0 < 2000, "{rest}");
    assert_eq!(program.run("count").exits(0).out, "2000\n");
}
