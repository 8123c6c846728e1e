mod epochs;
mod histories;
mod search;
mod settling;
mod wire;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use fred::types::Value;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use self::wire::Wire;
use super::super::schema::{EntryId, IndexClass, IndexMember, parse_record};
use super::*;
use crate::revocation::{Change, Record, RecordNote, Spared, SparedTime, Target, so_far};
use crate::store::Doubt;
use crate::store::feed::EndDoubt;
use crate::support::{RedisServer, redis_or_skip};

/// FIPS 180-4 §6.1.
#[expect(clippy::many_single_char_names, reason = "the names of the standard")]
fn sha1(data: &[u8]) -> String {
    let mut message = data.to_vec();
    message.push(0x80);
    message.resize(message.len().next_multiple_of(64), 0);
    if data.len() % 64 >= 56 {
        message.resize(message.len() + 64, 0);
    }
    let end = message.len();
    message[end - 8..].copy_from_slice(&(data.len() as u64 * 8).to_be_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in message.chunks(64) {
        let mut w: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for t in 16..80 {
            w.push((w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in w.iter().enumerate() {
            let (f, k) = match t {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(f)
                .wrapping_add(e)
                .wrapping_add(k)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    state.iter().fold(String::new(), |text, word| text + &format!("{word:08x}"))
}

/// Before they write anything: what they have written would be there for good.
#[test]
fn scripts_that_may_not_set_an_expiry_leave_no_key() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let scripts = [
        (super::super::journal::APPEND.source, ["entry", "100", "60000"]),
        (super::super::accepted::ACCEPT.source, ["60000", "{}", "[]"]),
    ];
    let run = |(script, arguments): (&str, [&str; 3])| {
        redis.try_cli(&[&["EVAL", script, "1", "key"][..], &arguments].concat())
    };
    redis.cli(&["ACL", "SETUSER", "harness", "-pexpireat"]);
    for script in scripts {
        let error = run(script).unwrap_err();
        assert_eq!(redis.cli(&["EXISTS", "key"]), "0", "{error}");
    }
    redis.cli(&["ACL", "SETUSER", "harness", "+pexpireat"]);
    for script in scripts {
        // The second time the key is there, and what it holds may be too old.
        for _ in 0..2 {
            run(script).unwrap();
            let left: i64 = redis.cli(&["PTTL", "key"]).parse().unwrap();
            assert!((1..=60_000).contains(&left), "{left}");
        }
        redis.cli(&["DEL", "key"]);
    }
    redis.cli(&["ZADD", "key", "1", "old"]);
    run(scripts[1]).unwrap();
    assert!(redis.cli(&["PTTL", "key"]).parse::<i64>().unwrap() > 0);
    assert_eq!(redis.cli(&["ZCARD", "key"]), "2");
}

#[test]
fn the_sha_is_that_of_the_script() {
    assert_eq!(sha1(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_eq!(SHA, sha1(SOURCE.as_bytes()));
    let append = &super::super::journal::APPEND;
    assert_eq!(append.sha, sha1(append.source.as_bytes()));
    let forget = &super::super::forget::FORGET;
    assert_eq!(forget.sha, sha1(forget.source.as_bytes()));
    let accept = &super::super::accepted::ACCEPT;
    assert_eq!(accept.sha, sha1(accept.source.as_bytes()));
    let erase = &super::super::erase::ERASE;
    assert_eq!(erase.sha, sha1(erase.source.as_bytes()));
    for script in [&super::super::foreign::LIST, &super::super::foreign::UNLIST] {
        assert_eq!(script.sha, sha1(script.source.as_bytes()));
    }
    #[cfg(feature = "sessions")]
    for script in [&super::super::session::LOAD, &super::super::session::COMMIT] {
        assert_eq!(script.sha, sha1(script.source.as_bytes()));
    }
}

/// The script, but for its clock, which is set by hand: the last argument. So it is one script for
/// all times, and the server compiles it once.
fn timed() -> String {
    let clock = "local now = time[1] * 1000 + math.floor(time[2] / 1000)";
    assert_eq!(SOURCE.matches(clock).count(), 1);
    assert!(!SOURCE.contains("#ARGV"), "one argument more is not noticed");
    SOURCE.replace(clock, "local now = tonumber(ARGV[#ARGV])")
}

/// Expiry runs on the clock of the server, so the histories play in its future.
const START: u64 = 4_000_000_000_000;
const CONTEXT: ScriptContext = ScriptContext {
    new_epoch: 7,
    known: None,
    doubt_change: None,
    doubt_duration: Duration::from_secs(1000),
    log_length: 1000,
    caller_time: Timestamp::ZERO,
    issuer_clock_lead: Duration::ZERO,
    server: 77,
    writer: WriterContext { id: 5, action: WriterAction::Renew, number: 0, through: 0 },
    long_known: None,
};

struct Lab {
    wire: RefCell<Wire>,
    server: RedisServer,
    keys: RedisKeys,
    /// The hash of [`timed`], by which the server knows it.
    script: Bytes,
    /// The database that was selected last.
    database: Cell<u64>,
}

impl Lab {
    fn new() -> Self {
        let server = RedisServer::start();
        let wire = RefCell::new(Wire::open(&server.socket()));
        let (keys, script) = (RedisKeys::new("lab", 1), sha1(timed().as_bytes()).into());
        let database = Cell::new(0);
        let lab = Self { wire, server, keys, script, database };
        let loaded = lab.ask("SCRIPT", vec!["LOAD".into(), timed().into()]).unwrap();
        assert_eq!(loaded.into_bytes(), Some(lab.script.clone()));
        lab
    }

    fn ask(
        &self,
        command: &'static str,
        arguments: Vec<Bytes>,
    ) -> Result<Value, crate::store::StoreError> {
        self.wire.borrow_mut().ask(command, arguments)
    }

    fn run(
        &self,
        now: u64,
        context: &ScriptContext,
        changes: &[&Revocation],
    ) -> Result<ScriptReply, crate::store::StoreError> {
        let mut context = *context;
        if !changes.is_empty() {
            context.writer.action = WriterAction::Write;
        }
        self.send(now, arguments(&self.keys, 0, &context, changes), changes.len())
    }

    fn send(
        &self,
        now: u64,
        arguments: Vec<Bytes>,
        changes: usize,
    ) -> Result<ScriptReply, crate::store::StoreError> {
        let script = std::iter::once(self.script.clone());
        let arguments = script.chain(arguments).chain([now.to_string().into()]).collect();
        let Value::Array(parts) = self.ask("EVALSHA", arguments)? else {
            panic!("not an array");
        };
        let parts: Vec<_> = parts.into_iter().map(|part| part.into_bytes().unwrap()).collect();
        Ok(ScriptReply::parse(&parts, changes).unwrap())
    }

    /// Changes one document; the context says as whom, and `version` of what.
    #[cfg(feature = "sessions")]
    fn commit(
        &self,
        context: &ScriptContext,
        key: &str,
        [before, after]: [Option<&str>; 2],
        version: Option<u64>,
        members: &[(&str, Option<u64>)],
    ) -> Vec<String> {
        let names = self.keys.shard(0);
        let keys = [&names.members, &names.epoch, &names.writers].map(Bytes::clone);
        let text = |text: Option<&str>| text.map_or(Bytes::new(), |text| format!("={text}").into());
        let number = |number: Option<u64>| number.map_or(Bytes::new(), |n| n.to_string().into());
        let mut arguments = vec![super::super::session::COMMIT.source.into(), "4".into()];
        arguments.push(Bytes::copy_from_slice(key.as_bytes()));
        arguments.extend(keys);
        arguments.extend([text(before), text(after), number(Some(MAX_INTEGER))]);
        let WriterContext { id, number: written, through, .. } = context.writer;
        arguments.extend([epoch_id(context.server), epoch_id(id), number(Some(written))]);
        arguments.extend([number(version), epoch_id(through)]);
        for (member, until) in members {
            arguments.extend([Bytes::copy_from_slice(member.as_bytes()), number(*until)]);
        }
        let Value::Array(parts) = self.ask("EVAL", arguments).unwrap() else {
            panic!("not an array")
        };
        parts.into_iter().map(|part| part.into_string().unwrap()).collect()
    }

    fn select(&self, database: u64) {
        if self.database.replace(database) != database {
            self.ask("SELECT", vec![database.to_string().into()]).unwrap();
        }
    }

    fn get(&self, key: Bytes) -> Option<Bytes> {
        self.ask("GET", vec![key]).unwrap().into_bytes()
    }

    fn record(&self, target: &Target) -> Option<Record> {
        let value = self.get(self.keys.shard(0).record(&target.fingerprint()))?;
        Some(parse_record(&value).unwrap())
    }

    fn zset(&self, key: &Bytes) -> Vec<(Bytes, u64)> {
        let arguments = vec![key.clone(), "0".into(), "-1".into(), "WITHSCORES".into()];
        let Value::Array(parts) = self.ask("ZRANGE", arguments).unwrap() else {
            panic!("not an array")
        };
        let parts: Vec<_> = parts.into_iter().map(|part| part.into_bytes().unwrap()).collect();
        parts
            .chunks(2)
            .map(|pair| (pair[0].clone(), std::str::from_utf8(&pair[1]).unwrap().parse().unwrap()))
            .collect()
    }

    fn clear(&self) {
        self.ask("FLUSHALL", Vec::new()).unwrap();
    }
}

/// Each is a part of what a write takes of the one thread of a server.
#[test]
fn a_write_takes_few_commands() {
    redis_or_skip!();
    let lab = Lab::new();
    let calls = || -> u64 {
        let stats = lab.ask("INFO", vec!["commandstats".into()]).unwrap().into_string().unwrap();
        let calls = stats.lines().filter(|line| !line.starts_with("cmdstat_info"));
        let number = |line: &str| {
            let (_, rest) = line.split_once("calls=")?;
            rest.split_once(',')?.0.parse::<u64>().ok()
        };
        calls.filter_map(number).sum()
    };
    let taken = |make: &dyn Fn()| {
        let before = calls();
        make();
        // The script itself is one of them.
        calls() - before - 1
    };
    let revocation = |n: u64| {
        let target = Target::token(format!("token {n}"));
        Revocation::new(target, Duration::from_secs(600))
    };
    lab.run(START, &CONTEXT, &[&revocation(0)]).unwrap();
    let one = taken(&|| drop(lab.run(START, &CONTEXT, &[&revocation(1)]).unwrap()));
    let again = taken(&|| drop(lab.run(START, &CONTEXT, &[&revocation(1)]).unwrap()));
    let many: Vec<_> = (100..228).map(revocation).collect();
    let many: Vec<_> = many.iter().collect();
    let all = taken(&|| drop(lab.run(START, &CONTEXT, &many).unwrap()));
    let nothing = taken(&|| drop(lab.run(START, &CONTEXT, &[]).unwrap()));
    assert!(one <= 21, "{one} for one");
    assert!(again <= 17, "{again} for one that is there");
    assert!(all <= 16 + 5 * 128, "{all} for 128");
    assert!(nothing <= 16, "{nothing} for none");
    #[cfg(feature = "sessions")]
    {
        let member = [("m", Some(START))];
        let key = "{0}document";
        let first = lab.commit(&CONTEXT, key, [None, Some("a")], None, &member);
        assert_eq!(first.first().map(String::as_str), Some("done"));
        let commit = taken(&|| {
            lab.commit(&CONTEXT, key, [Some("a"), Some("b")], None, &member);
        });
        assert!(commit <= 11, "{commit} for a document");
    }
}

fn time() -> impl Strategy<Value = u64> {
    START..START + 40
}

fn words() -> impl Strategy<Value = Option<Arc<str>>> {
    prop_oneof![Just(None), "[ab]{0,2}".prop_map(Some), Just(Some("\0ü\"\n".into()))]
        .prop_map(|words| words.map(Arc::from))
}

prop_compose! {
    fn revocation()(
        action in prop_oneof![
            Just(Action::Revoke(Extent::All)),
            Just(Action::Revoke(Extent::IssuedSoFar)),
            time().prop_map(|at| Action::Revoke(Extent::IssuedUntil(Timestamp::from_millis(at)))),
            Just(Action::Reinstate),
        ],
        until in prop_oneof![Just(0), time(), Just(u64::MAX)],
        lifetime in prop_oneof![Just(0), 1..60u64, Just(u64::MAX)],
        reason in words(),
        actor in words(),
        target in 0..3,
        sparing in prop::option::of(0..2_u8),
    ) -> Revocation {
        let mut change = Revocation::new(Target::user(format!("user \
            {target}")), Duration::from_millis(lifetime));
        (change.action, change.reason, change.actor) = (action, reason, actor);
        change.until = Timestamp::from_millis(until);
        change.sparing = sparing.map(|n| Target::session(n.to_string()));
        change
    }
}

/// What a mirror tells again: a record as it was, or less exactly.
fn lost_fact() -> impl Strategy<Value = (i32, Fact)> {
    let past =
        || prop_oneof![1 => Just(0), 2 => START - 40..START + 40].prop_map(Timestamp::from_millis);
    let until = prop_oneof![time(), Just(MAX_INTEGER)].prop_map(Timestamp::from_millis);
    let spared = || {
        let one = (0..2_u8, past()).prop_map(|(n, time)| {
            let session = Target::session(n.to_string()).fingerprint();
            SparedTime { session, time }
        });
        prop::option::of(one)
    };
    (0..3, past(), past(), past(), past(), until, [spared(), spared()])
        .prop_filter("a record says something", |(_, all, _, set, reinstated, ..)| {
            all.max(set).max(reinstated) > &Timestamp::ZERO
        })
        .prop_map(
            |(target, all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until, spared)| {
                let [of_cutoff, of_set] = spared;
                let spared = Spared::of_times([
                    of_cutoff.filter(|spared| spared.time < cutoff),
                    of_set.filter(|spared| spared.time < cutoff_set_at),
                ]);
                let fact =
                    Fact { all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until, spared };
                (target, fact)
            },
        )
}

/// What the script makes of a fact that a mirror replays, in an epoch that began at `started_at`.
fn replayed(
    target: &Target,
    mut fact: Fact,
    before: Option<&Record>,
    now: u64,
    started_at: Timestamp,
) -> Change {
    let before = before.filter(|before| before.until() > Timestamp::from_millis(now));
    if let Some(before) = before.map(Record::fact) {
        let Fact { all_revoked_at, cutoff_set_at, reinstated_at, .. } = fact;
        let is_known =
            before.all_revoked_at <= all_revoked_at && before.cutoff_set_at <= cutoff_set_at;
        if !is_known || before.all_revoked_at.max(before.cutoff_set_at) >= started_at {
            // It may have been revoked since: what the mirror knows as undone is left out.
            fact.reinstated_at = Timestamp::ZERO;
            if all_revoked_at < reinstated_at {
                fact.all_revoked_at = Timestamp::ZERO;
            }
            if cutoff_set_at < reinstated_at {
                (fact.cutoff, fact.cutoff_set_at) = (Timestamp::ZERO, Timestamp::ZERO);
                fact.spared = Spared::default();
            } else if let [of_cutoff, Some(of_set)] = fact.spared.times()
                && of_set.time < reinstated_at
            {
                let nothing = |of: SparedTime| SparedTime { time: Timestamp::ZERO, ..of };
                let is_same = |of: &SparedTime| of.session == of_set.session;
                let of_cutoff = of_cutoff.map(|of| if is_same(&of) { nothing(of) } else { of });
                fact.spared = Spared::of_times([of_cutoff, Some(nothing(of_set))]);
            }
        }
    }
    if fact.until <= Timestamp::from_millis(now) {
        return Change::Nothing(Outcome::AlreadyExpired);
    }
    if fact.latest() == Timestamp::ZERO {
        return Change::Nothing(Outcome::Already);
    }
    let target = Target::nameless(&target.fingerprint());
    let note = RecordNote { target, at: fact.latest(), reason: None, actor: None };
    let lost = Record { fact, note };
    let Some(before) = before else { return Change::Write(Outcome::New, lost) };
    let mut after = before.clone();
    after.merge(&lost);
    let standing = |record: &Record| record.fact().effect();
    match before.is_in_effect() {
        _ if standing(&after) == standing(before) => Change::Nothing(Outcome::Already),
        true => Change::Write(Outcome::Extended, after),
        false => Change::Write(Outcome::New, after),
    }
}

/// A history: at each of some times, which need not rise, some changes by a caller with a clock of
/// its own, for issuers that are ahead.
fn history() -> impl Strategy<Value = Vec<(u64, u64, u64, Vec<Revocation>)>> {
    let caller = prop_oneof![time(), START - 10_000..START + 10_000, Just(0)];
    let lead = prop_oneof![Just(0), 1..50u64];
    prop::collection::vec((time(), caller, lead, prop::collection::vec(revocation(), 0..4)), 1..10)
}

/// `apply`, for a store that cannot count beyond [`MAX_INTEGER`].
fn apply(change: &Revocation, before: Option<&Record>, now: u64, so_far: Timestamp) -> Change {
    let mut change = change.clone();
    let far = Timestamp::from_millis(MAX_INTEGER);
    change.until = change.until.min(far);
    change.lifetime = change.lifetime.min(Duration::from_millis(MAX_INTEGER - now));
    change.apply_dated(before, Timestamp::from_millis(now), so_far)
}

#[test]
fn the_script_does_what_apply_does() {
    redis_or_skip!();
    let lab = Lab::new();
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let result = runner.run(&history(), |history| {
        lab.clear();
        let mut model: std::collections::HashMap<Target, Record> = std::collections::HashMap::new();
        let mut seq = 0;
        for (now, caller, lead, changes) in &history {
            let sent: Vec<_> = changes.iter().collect();
            let caller_time = Timestamp::from_millis(*caller);
            let issuer_clock_lead = Duration::from_millis(*lead);
            let context = ScriptContext { caller_time, issuer_clock_lead, ..CONTEXT };
            let cutoff = so_far(Timestamp::from_millis(*now), caller_time, issuer_clock_lead);
            let reply = lab
                .run(*now, &context, &sent)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            for (change, changed) in changes.iter().zip(reply.changes.as_ref().unwrap()) {
                let before = model.get(&change.target);
                let (outcome, record) = match apply(change, before, *now, cutoff) {
                    Change::Nothing(outcome) => (outcome, before.cloned()),
                    Change::Write(outcome, record) => {
                        seq += 1;
                        model.insert(change.target.clone(), record.clone());
                        (outcome, Some(record))
                    }
                };
                prop_assert_eq!(changed.outcome, outcome);
                prop_assert_eq!(changed.seq, seq);
                let at = record.as_ref().map_or(Timestamp::from_millis(*now), Record::changed_at);
                prop_assert_eq!(changed.at, at);
                prop_assert_eq!(changed.cutoff, record.as_ref().and_then(Record::cutoff));
            }
            prop_assert_eq!(reply.epoch.seq, seq);
            prop_assert_eq!(reply.epoch.doubt, Doubt::None);
            for (target, record) in &model {
                prop_assert_eq!(lab.record(target), Some(record.clone()));
            }
        }
        // The index is cleaned by the latest time of a run, even if the clock goes back.
        check_index(&lab, &model, history.iter().map(|(now, ..)| *now).max().unwrap_or(0))
    });
    result.unwrap();
}

#[test]
fn a_replayed_fact_is_joined_with_the_record() {
    redis_or_skip!();
    let lab = Lab::new();
    let step = || {
        let change =
            prop::collection::vec(revocation(), 1..3).prop_map(|changes| (changes, Vec::new()));
        let replay = prop::collection::vec(lost_fact(), 1..4).prop_map(|facts| (Vec::new(), facts));
        (time(), prop_oneof![change, replay])
    };
    let mut runner =
        TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let result = runner.run(&prop::collection::vec(step(), 1..10), |history| {
        lab.clear();
        let mut model: std::collections::HashMap<Target, Record> = std::collections::HashMap::new();
        for (now, (changes, facts)) in &history {
            let facts: Vec<_> =
                facts.iter().map(|(n, fact)| (Target::user(format!("user {n}")), *fact)).collect();
            let named: Vec<_> =
                facts.iter().map(|(target, fact)| (target.fingerprint(), *fact)).collect();
            let changed: Vec<_> = changes.iter().collect();
            let arguments = if changes.is_empty() {
                replay_arguments(&lab.keys, 0, &CONTEXT, &named)
            } else {
                arguments(&lab.keys, 0, &CONTEXT, &changed)
            };
            let reply = lab
                .send(*now, arguments, changes.len() + facts.len())
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let started_at = reply.epoch.started_at;
            let mut outcomes = reply.changes.iter().flatten().map(|changed| changed.outcome);
            for change in changes {
                let cutoff = Timestamp::from_millis(*now);
                let expected = apply(change, model.get(&change.target), *now, cutoff);
                prop_assert_eq!(
                    outcomes.next(),
                    Some(settle(&mut model, &change.target, expected))
                );
            }
            for (target, fact) in facts {
                let expected = replayed(&target, fact, model.get(&target), *now, started_at);
                prop_assert_eq!(
                    outcomes.next(),
                    Some(settle(&mut model, &target, expected)),
                    "{:?}",
                    fact
                );
            }
            for (target, record) in &model {
                prop_assert_eq!(lab.record(target), Some(record.clone()));
            }
        }
        check_index(&lab, &model, history.iter().map(|(now, _)| *now).max().unwrap_or(0))
    });
    result.unwrap();
}

fn settle(
    model: &mut std::collections::HashMap<Target, Record>,
    target: &Target,
    change: Change,
) -> Outcome {
    match change {
        Change::Nothing(outcome) => outcome,
        Change::Write(outcome, record) => {
            model.insert(target.clone(), record);
            outcome
        }
    }
}

/// Every record that is in effect stands in the index under its class, every other one among the
/// tombstones, but for those that may be forgotten.
fn check_index(
    lab: &Lab,
    model: &std::collections::HashMap<Target, Record>,
    now: u64,
) -> Result<(), TestCaseError> {
    let (mut index, mut tombstones) = (Vec::new(), Vec::new());
    for (target, record) in model.iter().filter(|(_, record)| record.until().as_millis() > now) {
        let fingerprint = target.fingerprint();
        let until = record.until().as_millis();
        if record.is_in_effect() {
            let plain = record.revokes_all() && record.fact().reinstated_at == Timestamp::ZERO;
            let class = if plain { IndexClass::All } else { IndexClass::Read };
            index.push((Bytes::from(IndexMember { class, fingerprint }.print()), until));
        } else {
            tombstones.push((Bytes::copy_from_slice(fingerprint.as_bytes()), until));
        }
    }
    for (key, mut expected) in
        [(&lab.keys.shard(0).index, index), (&lab.keys.shard(0).tombstones, tombstones)]
    {
        expected.sort();
        let mut found = lab.zset(key);
        found.retain(|(_, until)| *until > now);
        found.sort();
        prop_assert_eq!(found, expected);
    }
    Ok(())
}

#[test]
fn every_key_expires_and_not_before_its_content() {
    redis_or_skip!();
    let lab = Lab::new();
    let now = 4_000_000_000_000;
    let long = Duration::from_secs(400 * 24 * 60 * 60);
    let mut back = Revocation::new(Target::user("bob"), Duration::from_secs(60));
    lab.run(now, &CONTEXT, &[&back]).unwrap();
    back.action = Action::Reinstate;
    lab.run(now, &CONTEXT, &[&back, &Revocation::new(Target::user("alice"), long)]).unwrap();
    let names: Vec<_> = lab.server.cli(&["KEYS", "*"]).lines().map(ToOwned::to_owned).collect();
    assert_eq!(names.len(), 8, "{names:?}");
    for name in names {
        assert!(name.starts_with("lab:{0}:"), "{name}");
        let expires: u64 = lab.server.cli(&["PEXPIRETIME", &name]).parse().unwrap();
        let least =
            if name.contains(":r:") { now + 60_000 } else { now + 400 * 24 * 60 * 60 * 1000 };
        assert!(expires >= least, "{name} expires at {expires}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_nothing_is_written() {
    redis_or_skip!();
    let lab = Lab::new();
    let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
    let names = lab.keys.shard(0);
    let record = names.record(&change.target.fingerprint());
    let tag = "lab:{0}";
    for key in [&names.epoch, &names.meta, &names.index, &names.tombstones, &names.log, &record] {
        let key = std::str::from_utf8(key).unwrap();
        lab.clear();
        lab.server.cli(&["RPUSH", key, "x"]);
        lab.run(START, &CONTEXT, &[&change]).unwrap_err();
        assert_eq!(lab.server.cli(&["KEYS", &format!("{tag}*")]), key, "nothing else was written");
    }
    for key in [&names.epoch, &record] {
        let key = std::str::from_utf8(key).unwrap();
        lab.clear();
        lab.server.cli(&["SET", key, "2 something new"]);
        lab.run(START, &CONTEXT, &[&change]).unwrap_err();
        assert_eq!(lab.server.cli(&["GET", key]), "2 something new");
    }
}

#[test]
fn the_log_tells_every_write_and_is_bounded() {
    redis_or_skip!();
    let lab = Lab::new();
    let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
    let reply = lab.run(START, &CONTEXT, &[&change]).unwrap();
    assert_eq!((reply.epoch.id, reply.epoch.seq, reply.now.as_millis()), (7, 1, START));
    let arguments = ["lab:{0}:l", "-", "+"].map(Bytes::from).to_vec();
    let Value::Array(entries) = lab.ask("XRANGE", arguments).unwrap() else {
        panic!("not an array")
    };
    let Value::Array(entry) = &entries[0] else { panic!("not an array") };
    assert_eq!(entry[0].as_str().unwrap(), reply.epoch.last_entry.to_string());
    let Value::Array(fields) = &entry[1] else { panic!("not an array") };
    let fields: Vec<_> = fields.iter().map(|field| field.as_bytes().unwrap().to_vec()).collect();
    let until = START + 60_000;
    let expected: [(&str, Vec<u8>); 4] = [
        ("s", b"1".to_vec()),
        ("e", b"0000000000000007".to_vec()),
        ("f", change.target.fingerprint().as_bytes().to_vec()),
        ("n", format!("0 {START} {START} 0 {until} -").into_bytes()),
    ];
    let expected: Vec<_> =
        expected.into_iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value]).collect();
    assert_eq!(fields, expected);

    let short = ScriptContext { log_length: 10, ..CONTEXT };
    for n in 0..2000 {
        let change = Revocation::new(Target::user(format!("user {n}")), Duration::from_secs(60));
        lab.run(START, &short, &[&change]).unwrap();
    }
    let length: u64 = lab.server.cli(&["XLEN", "lab:{0}:l"]).parse().unwrap();
    assert!(length < 300, "{length}");
}

#[test]
fn the_index_forgets_what_is_over() {
    redis_or_skip!();
    let lab = Lab::new();
    for n in 0..500 {
        let change =
            Revocation::new(Target::user(format!("user {n}")), Duration::from_millis(1 + n));
        lab.run(START, &CONTEXT, &[&change]).unwrap();
    }
    for _ in 0..8 {
        lab.run(START + 1000, &CONTEXT, &[]).unwrap();
    }
    assert_eq!(lab.zset(&lab.keys.shard(0).index), []);
}

#[cfg(feature = "sessions")]
#[test]
fn of_many_sessions_that_have_ended_each_commit_forgets_some() {
    redis_or_skip!();
    let lab = Lab::new();
    let members = lab.keys.shard(0).members.clone();
    let ended = (0..1000).flat_map(|n| [Bytes::from_static(b"1"), format!("m{n}").into()]);
    lab.ask("ZADD", std::iter::once(members.clone()).chain(ended).collect()).unwrap();
    lab.run(START, &CONTEXT, &[]).unwrap();
    let mut left = 1000;
    for n in 0..1000_u64 {
        let name = format!("new {n}");
        let member = (name.as_str(), Some(MAX_INTEGER));
        let reply = lab.commit(&CONTEXT, &format!("d{n}"), [None, Some("x")], None, &[member]);
        assert_eq!(reply, ["done", &(n + 1).to_string(), "1"]);
        let ended = lab.zset(&members).iter().filter(|(_, until)| *until == 1).count();
        assert!(ended < left && left - ended < 100, "{left} {ended}");
        left = ended;
        if left == 0 {
            return;
        }
    }
    panic!("{left} are left");
}
