use std::num::NonZeroU32;

use super::super::builder::RedisStoreBuilder;
use super::super::schema::RedisKeys;
use super::assess::in_bytes;
use super::*;

fn options(wait: Option<u32>) -> StoreOptions {
    let builder = RedisStoreBuilder::default();
    match wait.and_then(NonZeroU32::new) {
        Some(replicas) => builder.with_wait_replicas(replicas, Duration::from_millis(10)).options(),
        None => builder.options(),
    }
}

/// The findings that are not mere information, in short.
fn findings(assess: impl Fn(&mut Report)) -> Vec<(Severity, &'static str)> {
    let mut report = Report::default();
    assess(&mut report);
    report
        .findings
        .iter()
        .filter(|finding| finding.severity != Severity::Info)
        .map(|finding| (finding.severity, finding.subject))
        .collect()
}

fn info(fields: &[(&str, &str)]) -> ServerInfo {
    let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
    ServerInfo::parse(&format!("# Section\r\n{}", lines.concat()))
}

#[test]
fn eviction_is_assessed_by_policy_bound_and_what_has_happened() {
    use Severity::{Error, Warning};
    let table: [(&str, &str, &str, &str, &[_]); 7] = [
        ("noeviction", "0", "0", "100", &[]),
        ("noeviction", "1000", "0", "100", &[]),
        ("noeviction", "1000", "0", "900", &[(Warning, "memory")]),
        ("noeviction", "1000", "5", "100", &[(Warning, "evicted_keys")]),
        ("volatile-lru", "0", "0", "100", &[(Warning, "eviction")]),
        ("allkeys-lru", "1000", "0", "100", &[(Error, "eviction")]),
        ("allkeys-lru", "1000", "5", "100", &[(Error, "eviction"), (Error, "evicted_keys")]),
    ];
    for (policy, bound, evicted, used, expected) in table {
        let info = info(&[
            ("maxmemory_policy", policy),
            ("maxmemory", bound),
            ("evicted_keys", evicted),
            ("used_memory", used),
        ]);
        assert_eq!(
            findings(|report| info.assess_memory(report)),
            expected,
            "{policy} {bound} {evicted} {used}"
        );
    }
}

#[test]
fn why_a_server_is_not_used_decides_on_what_is_told_to_be_done() {
    for (kind, subject, remedy) in [
        (StoreErrorKind::NotPrimary, "role", "connect to the primary"),
        (StoreErrorKind::Denied, "reachable", "password"),
        (StoreErrorKind::Unreachable, "reachable", "see to it that redis runs"),
        (StoreErrorKind::Timeout, "reachable", "see to it that redis runs"),
    ] {
        let mut report = Report::default();
        assess_failure(&StoreError::new(kind, "why"), "nothing works", &mut report);
        let finding = &report.findings[0];
        assert_eq!((finding.severity, finding.subject), (Severity::Error, subject), "{kind:?}");
        assert_eq!(finding.sentence, "nothing works: why");
        assert!(finding.remedy.contains(remedy), "{finding}");
    }
}

#[test]
fn versions_before_6_2_are_refused() {
    for (version, is_fit) in
        [("7.0.15", true), ("6.2.0", true), ("6.0.16", false), ("5.0.7", false), ("10.0.1", true)]
    {
        let mut report = Report::default();
        info(&[("redis_version", version)]).assess_version(&mut report);
        assert_eq!(report.is_fit(), is_fit, "{version}");
    }
}

#[test]
fn what_is_on_disk_is_assessed() {
    use Severity::{Error, Warning};
    let assess = |fields: &[(&str, &str)], save| {
        findings(|report| info(fields).assess_persistence(save, report))
    };
    assert_eq!(assess(&[("aof_enabled", "1")], None), []);
    assert_eq!(assess(&[("aof_enabled", "0")], Some("")), [(Warning, "persistence")]);
    assert_eq!(assess(&[("aof_enabled", "0")], Some("3600 1")), [(Warning, "persistence")]);
    assert_eq!(assess(&[("aof_enabled", "0")], None), [(Warning, "persistence")]);
    assert_eq!(
        assess(&[("aof_enabled", "1"), ("aof_last_write_status", "err")], None),
        [(Error, "persistence")]
    );
}

#[test]
fn replicas_that_nobody_waits_for_are_a_warning() {
    use Severity::{Error, Warning};
    let assess = |fields: &[(&str, &str)], wait| {
        findings(|report| info(fields).assess_replication(&options(wait), report))
    };
    let primary = ("role", "master");
    assert_eq!(assess(&[primary, ("connected_slaves", "0")], None), []);
    assert_eq!(assess(&[primary, ("connected_slaves", "2")], None), [(Warning, "replication")]);
    assert_eq!(
        assess(&[primary, ("connected_slaves", "2"), ("min_slaves_good_slaves", "2")], None),
        []
    );
    assert_eq!(assess(&[primary, ("connected_slaves", "2")], Some(1)), []);
    assert_eq!(assess(&[primary, ("connected_slaves", "0")], Some(1)), [(Error, "replication")]);
    assert_eq!(assess(&[("role", "slave"), ("connected_slaves", "0")], None), [(Error, "role")]);
}

#[test]
fn clocks_that_are_apart_are_noticed_in_either_direction() {
    use Severity::{Error, Warning};
    let at = Timestamp::from_secs(1_000_000);
    for (offset, expected) in
        [(0, None), (500, None), (2_000, Some(Warning)), (61_000, Some(Error))]
    {
        let other = at.saturating_add(Duration::from_millis(offset));
        for (server, local) in [(at, other), (other, at)] {
            let found = findings(|report| assess_clock(server, local, report));
            assert_eq!(found.first().map(|(severity, _)| *severity), expected, "{offset} ms");
        }
    }
}

#[test]
fn a_server_that_does_not_tell_its_id_is_a_warning() {
    use super::super::server_id::ServerId;
    let assess = |id: &ServerId| findings(|report| assess_server_id(id, report));
    assert_eq!(assess(&ServerId::told("abc")), []);
    assert_eq!(
        assess(&ServerId::of_address("redis.test:6379")),
        [(Severity::Warning, "server_id")]
    );
}

#[test]
fn everything_that_the_script_calls_is_tried_and_documented() {
    let keys = RedisKeys::new("app", 1);
    let tried: Vec<_> =
        trials(keys.shard(0), &options(None), false).into_iter().map(|(right, ..)| right).collect();
    let scripts = [
        script::SOURCE,
        include_str!("../accept.lua"),
        include_str!("../journal.lua"),
        include_str!("../load.lua"),
        include_str!("../commit.lua"),
        include_str!("../forget.lua"),
        include_str!("../erase.lua"),
    ]
    .concat();
    for call in scripts.split("redis.call('").skip(1) {
        let command = call.split('\'').next().unwrap().to_lowercase();
        assert!(tried.contains(&&*command), "{command} is not tried");
    }
    let documented: Vec<_> = include_str!("../least_rights.acl").split_whitespace().collect();
    for right in &tried {
        assert!(documented.contains(&&*format!("+{right}")), "{right} is not documented");
    }
    // What the role and the settings of the server are known by is asked apart.
    let asked: Vec<_> = tried.into_iter().chain(["role", "info"]).collect();
    for right in documented.iter().filter_map(|word| word.strip_prefix('+')) {
        assert!(asked.contains(&right), "{right} is documented, and not tried");
    }
}

#[test]
fn numbers_are_for_people() {
    for (micros, words) in [
        (0, "0.00 ms"),
        (102, "0.10 ms"),
        (50_000, "50 ms"),
        (61_000_000, "61.0 s"),
        (600_000_000, "10 min"),
        (26 * 3_600_000_000, "26 h"),
        (72 * 3_600_000_000, "3 days"),
    ] {
        assert_eq!(in_words(Duration::from_micros(micros)), words);
    }
    let bytes = [(1, "1 byte"), (1_412_552, "1 MiB"), (4096, "4 KiB"), (1_610_612_736, "1.5 GiB")];
    for (bytes, words) in bytes {
        assert_eq!(in_bytes(bytes), words);
    }
    assert_eq!(
        (counted(1, "shard").as_str(), counted(0, "shard").as_str()),
        ("1 shard", "0 shards")
    );
}

#[test]
fn clocks_that_agree_are_said_to() {
    let mut report = Report::default();
    let now = Timestamp::from_secs(1_000_000);
    assess_clock(now, now, &mut report);
    assess_clock(now, now.saturating_add(Duration::from_millis(1_500)), &mut report);
    assert_eq!(
        report.to_string(),
        "info: clock: the clocks of redis and of this process agree to the millisecond\n\
         warning: clock: the clocks of redis and of this process are 1.5 s apart -> synchronise \
         both with NTP\n"
    );
}

#[test]
fn what_a_server_says_of_itself_is_a_value_and_what_it_does_not_say_is_left_out() {
    let info = info(&[
        ("redis_version", "7.2.4"),
        ("valkey_version", "8.1.0"),
        ("uptime_in_seconds", "77"),
        ("connected_clients", "5"),
        ("used_memory", "1000"),
        ("maxmemory", "0"),
        ("instantaneous_ops_per_sec", "12"),
        ("connected_slaves", "2"),
        ("master_repl_offset", "900"),
        ("slave0", "ip=10.0.0.1,port=6379,state=online,offset=890,lag=1"),
        ("slave1", "ip=10.0.0.2,port=6379,state=online,offset=700,lag=1"),
    ]);
    let report = Report {
        servers: vec![info.figures("a:1".into()), ServerInfo::parse("").figures("b:2".into())],
        revocations: Some(3),
        ..Report::default()
    };
    let expected = serde_json::json!({
        "findings": [],
        "servers": [
            {
                "address": "a:1",
                "version": "valkey 8.1.0",
                "uptime_secs": 77,
                "used_memory_bytes": 1000,
                "clients": 5,
                "operations_per_second": 12,
                "replicas": 2,
                "replication_lag_bytes": 200,
            },
            { "address": "b:2" },
        ],
        "revocations": 3,
    });
    assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    let told = "a:1: valkey 8.1.0, up 1 min, 0.0 MiB of memory, 5 clients, 12 commands a second, \
                2 replicas, 200 bytes behind in replication";
    assert_eq!(report.servers[0].to_string(), told);
    assert_eq!(report.servers[1].to_string(), "b:2");
    let mut busy = info.figures("c:3".into());
    (busy.uptime_secs, busy.clients) = (Some(3 * 86_400 + 4 * 3600), Some(1));
    (busy.used_memory_bytes, busy.max_memory_bytes) = (Some(3 << 19), Some(100 << 20));
    let told = busy.to_string();
    assert!(told.contains("up 3 d 4 h, 1.5 MiB of 100.0 MiB of memory, 1 client, "), "{told}");
}
