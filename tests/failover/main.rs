//! What a failover costs: nobody is signed out, and nothing that was acknowledged is lost.
//!
//! Real servers are failed over while real processes write and check; everything that they
//! acknowledge is noted with its time and assessed. `docs/faults.md` shows the numbers.
//!
//! | module | what it is |
//! | --- | --- |
//! | `scenarios` | what happens to the primary |
//! | `stage` | servers, processes and traffic together |
//! | `traffic`, `tokens` | what clients do, and what they ask when all is over |
//! | `process`, `fleet` | processes, as they are and as their parent sees them |
//! | `ledger` | all that was written and asked, and the verdict |
//! | `report` | writes the table. Only by `FAULTS_REPORT=1` |
//!
//! It is its own harness, and starts itself as other processes. `FAILOVER=all` runs every scenario
//! in every mode; without it, the named pairs of [`QUICK`] run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![allow(
    unreachable_pub,
    reason = "`pub` marks what other modules may call; a test binary exports nothing"
)]
#![allow(clippy::print_stdout, reason = "this binary is its own test harness")]

#[path = "../faults/clock.rs"]
mod clock;
mod fleet;
mod ledger;
mod process;
mod report;
mod scenarios;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod traffic;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ledger::{Outcome, WrongKind};
use scenarios::Scenario;
use stage::{ASSESSED, MACHINE, Mode, REVOKED_AFTER, REVOKED_BEFORE, Stage};

const DIRECT: Mode = Mode { mirror: false, replicas: 0 };
const MIRROR: Mode = Mode { mirror: true, replicas: 0 };
const DIRECT_WAIT: Mode = Mode { mirror: false, replicas: 1 };
const MIRROR_WAIT: Mode = Mode { mirror: true, replicas: 1 };

/// What runs with all the other tests.
const QUICK: &[(&str, Mode)] = &[
    ("planned failover", DIRECT),
    ("planned failover", MIRROR_WAIT),
    ("killed primary, replicas behind", DIRECT),
    ("killed primary, replicas behind", MIRROR),
    ("frozen primary that wakes up", MIRROR),
    ("primary cut off from its sentinels", DIRECT),
    ("cluster, one of three killed", DIRECT),
    ("rolling restart during a failover", DIRECT),
    ("writer killed together with the primary", DIRECT),
    ("writer suspended for 6 s", DIRECT),
    ("clock 10 s ahead", MIRROR_WAIT),
    ("new primary refuses writes at first", DIRECT),
    ("lone server, older dump", DIRECT),
    ("lone server, emptied", DIRECT),
];

/// So many at once: they wait more than they work.
const AT_ONCE: usize = 5;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, setup] = words.as_slice()
        && first == "process"
    {
        process::live(setup);
        return ExitCode::SUCCESS;
    }
    // What remains of the words that other harnesses know are parts of names.
    let filter: Vec<String> = words.iter().filter(|word| !word.starts_with('-')).cloned().collect();
    let is_long = std::env::var("FAILOVER").is_ok_and(|value| value == "all");
    let scenarios = scenarios::all();
    let mut cases: Vec<(&Scenario, Mode)> = Vec::new();
    for scenario in &scenarios {
        for mode in [DIRECT, MIRROR, DIRECT_WAIT, MIRROR_WAIT] {
            let is_listed = QUICK.contains(&(scenario.name, mode));
            let can_be = mode.replicas == 0 || scenarios::can_wait(scenario);
            if can_be && (is_long || is_listed) {
                cases.push((scenario, mode));
            }
        }
    }
    cases.retain(|(scenario, mode)| {
        let name = name(scenario, *mode);
        filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()))
    });
    if words.iter().any(|word| word == "--list") {
        for (scenario, mode) in &cases {
            println!("{}: test", name(scenario, *mode));
        }
        return ExitCode::SUCCESS;
    }
    if !support::redis_is_installed() {
        return ExitCode::SUCCESS;
    }
    // The verifier of the crate does that by itself; here only tokens are signed.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    // Those that take longest begin first.
    cases.sort_by_key(|(scenario, _)| !scenario.name.starts_with("writer"));
    let failed = AtomicUsize::new(0);
    let at_once = std::env::var("AT_ONCE").ok().and_then(|n| n.parse().ok()).unwrap_or(AT_ONCE);
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((scenario, mode)) = cases.get(index) else { return };
                    let start = Instant::now();
                    let ran = catch_unwind(AssertUnwindSafe(|| run(scenario, *mode)));
                    let result = ran.unwrap_or_else(|_| Err("panicked".into()));
                    let (name, time) = (name(scenario, *mode), start.elapsed().as_secs_f64());
                    match result {
                        Ok(outcome) => {
                            println!("{name} ... ok, {time:.1} s\n  {}", sentence(&outcome));
                            outcomes.lock().unwrap()[index] = Some(outcome);
                        }
                        Err(problem) => {
                            println!("{name} ... FAILED, {time:.1} s\n  {problem}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    // A part is written only by those who say so.
    let reports = if filter.is_empty() { "1" } else { "part" };
    let reports = std::env::var("FAULTS_REPORT").is_ok_and(|value| value == reports);
    if reports && is_long && (failed == 0 || !filter.is_empty()) {
        let outcomes = outcomes.into_inner().unwrap();
        let rows: Vec<_> = cases
            .iter()
            .zip(outcomes)
            .map(|((scenario, mode), outcome)| (scenario.name, mode.to_string(), outcome))
            .collect();
        support::put("failover", &report::table(&rows));
    }
    println!("\n{} passed; {failed} failed", cases.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn name(scenario: &Scenario, mode: Mode) -> String {
    format!("{} ({mode})", scenario.name)
}

/// # Errors
/// What must not have happened.
fn run(scenario: &Scenario, mode: Mode) -> Result<Outcome, String> {
    let mut stage = Stage::new((scenario.world)(), mode);
    stage.open();
    let switch = (scenario.act)(&mut stage);
    let outcome = stage.close(&switch);
    let mut problems: Vec<String> = Vec::new();
    if !switch.allowed.anything {
        for kind in WrongKind::ALL {
            let count = outcome.count(kind);
            if count > 0 {
                problems.push(format!("{kind:?} {count}:{}", examples(&outcome, kind)));
            }
        }
        let limit = switch.within + MACHINE + outcome.stall * 4 + outcome.held_up;
        for (what, time) in [("checks", outcome.checks_well), ("writes", outcome.writes_well)] {
            if time > limit {
                problems.push(format!("{what} were well only after {time:?}"));
            }
        }
        let [before, _, after] = outcome.revocations;
        if outcome.assessed < ASSESSED || before < REVOKED_BEFORE || after < REVOKED_AFTER {
            problems
                .push(format!("{} assessed, {:?}: no test", outcome.assessed, outcome.revocations));
        }
        if switch.allowed.emptied && !mode.mirror && outcome.doubted < 20 {
            problems.push(format!("{} were refused for good: no test", outcome.doubted));
        }
        // What waits for a replica is not confirmed while there is none.
        if switch.behind.is_some() && mode.replicas == 0 && outcome.at_risk.len() < scenarios::KINDS
        {
            problems.push(format!("{:?} were lost by Redis: no test", outcome.at_risk));
        }
    }
    if problems.is_empty() {
        Ok(outcome)
    } else {
        let problems = problems.join("\n    ");
        Err(format!("{}\n    {problems}\n{}", sentence(&outcome), outcome.servers))
    }
}

/// The first of each sort of wrongs of this kind, and how many there are of that sort.
fn examples(outcome: &Outcome, kind: WrongKind) -> String {
    let mut sorts: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for wrong in outcome.wrongs.iter().filter(|wrong| wrong.kind == kind) {
        let sort = wrong.what.split(" at process").next().unwrap_or_default();
        let sort: String = sort.chars().filter(|char| !char.is_ascii_digit()).collect();
        sorts.entry(sort).or_insert((0, &wrong.what)).0 += 1;
    }
    let lines = sorts.values().map(|(count, first)| format!("\n      {count} times: {first}"));
    lines.collect::<Vec<_>>().concat()
}

fn sentence(outcome: &Outcome) -> String {
    format!(
        "revocations {:?}, logins {:?}, refreshes {:?}, {} checks, {} assessed; gap {:?}, checks \
         well after {:?}, writes after {:?}; passed {} for {:?}, lost {}, refused {}, doubted {}, \
         odd {}, reinstated refused meanwhile {}; {:?}; stall {:?}, held up {:?}",
        outcome.revocations,
        outcome.logins,
        outcome.refreshes,
        outcome.checks,
        outcome.assessed,
        outcome.gap,
        outcome.checks_well,
        outcome.writes_well,
        outcome.count(WrongKind::Passed),
        outcome.passed_for,
        outcome.count(WrongKind::Lost),
        outcome.count(WrongKind::Refused),
        outcome.count(WrongKind::Doubted),
        outcome.count(WrongKind::Odd),
        outcome.reinstated_refused,
        outcome.reasons,
        outcome.stall,
        outcome.held_up,
    )
}
