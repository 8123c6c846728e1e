//! What happens when Redis, its network or its data break, under load: every answer of real layers
//! over real servers is assessed. `docs/faults.md` shows the numbers.
//!
//! | module | what it is |
//! | --- | --- |
//! | `faults` | everything that goes wrong, and what is promised meanwhile |
//! | `matrix` | each fault under traffic, every answer assessed |
//! | `flapping` | connections that are killed again and again. Only by `FAULTS_REPORT=1` |
//! | `history`, `worker` | several processes, and the order of what they did |
//! | `soak` | minutes of failure: nothing may grow. Only by `FAULTS_SOAK=<seconds>` |
//! | `attack`, `attackers`, `attacked` | floods and tricks of clients, against a server in a process of its own. Only by `FAULTS_ATTACKS=<seconds of each>` |
//! | `lab`, `traffic`, `doors` | servers, requests, layers |
//! | `canary`, `clock` | how late the machine was; one clock for all processes |
//! | `report` | writes the tables. Only by `FAULTS_REPORT=1` |
//!
//! It is its own harness: it measures, so it runs one case after another, and it starts itself as
//! other processes.
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

mod attack;
mod attacked;
mod attackers;
mod canary;
mod clock;
mod doors;
mod faults;
mod flapping;
mod history;
mod lab;
mod matrix;
mod report;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod worker;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use matrix::Seen;

/// The loads, in requests a second. At the low one several faults are tried side by side.
const LOW: u32 = 50;
const HIGH: u32 = 2000;
const SIDE_BY_SIDE: usize = 6;
/// So many histories run side by side: their processes do not measure how long anything takes.
const HISTORIES: usize = 3;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, words @ ..] = words.as_slice()
        && first == "worker"
    {
        worker::live(words);
        return ExitCode::SUCCESS;
    }
    if let [first, setup] = words.as_slice()
        && first == "attacked"
    {
        attacked::live(setup);
        return ExitCode::SUCCESS;
    }
    // What remains of the words that other harnesses know are parts of names.
    let filter: Vec<String> = words.iter().filter(|word| !word.starts_with('-')).cloned().collect();
    let is_wanted =
        |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    let faults: Vec<_> = faults::all().into_iter().filter(|fault| is_wanted(fault.name)).collect();
    let histories: Vec<_> =
        history::all().into_iter().filter(|(name, _)| is_wanted(name)).collect();
    if words.iter().any(|word| word == "--list") {
        let names =
            faults.iter().map(|fault| fault.name).chain(histories.iter().map(|(name, _)| *name));
        names.for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !support::redis_is_installed() {
        return ExitCode::SUCCESS;
    }
    let reports = std::env::var("FAULTS_REPORT").is_ok_and(|value| value == "1");
    let mut suite = Suite::default();
    if let Ok(seconds) = std::env::var("FAULTS_SOAK") {
        let length = Duration::from_secs(seconds.parse().expect("FAULTS_SOAK in seconds"));
        for (name, mirror) in [("soak", false), ("soak of a mirror", true)] {
            let Some(soaked) = suite.take(name, || soak::run(length, mirror)) else { continue };
            println!("{}", soaked.sentence());
            if reports {
                report::put(name, &report::soak(&soaked));
            }
        }
        return suite.end();
    }

    if let Ok(seconds) = std::env::var("FAULTS_ATTACKS") {
        let length = Duration::from_secs(seconds.parse().expect("FAULTS_ATTACKS in seconds"));
        let mut attacked = Vec::new();
        for attack in attack::ALL.iter().filter(|attack| is_wanted(attack.name)) {
            for mirror in [false, true] {
                let name =
                    format!("{} ({})", attack.name, if mirror { "mirror" } else { "direct" });
                let Some(seen) = suite.take(&name, || attack::run(attack, length, mirror)) else {
                    continue;
                };
                println!("  {}", seen.sentence());
                attacked.push(seen);
            }
        }
        if reports && suite.failed == 0 && filter.is_empty() {
            report::put("attacks", &report::attacks(length, &attacked));
        }
        return suite.end();
    }

    let low = suite.side_by_side(SIDE_BY_SIDE, &faults, |fault| {
        (format!("{}, {LOW} requests a second", fault.name), matrix::drive(fault, LOW))
    });
    let high = suite.side_by_side(1, &faults, |fault| {
        (format!("{}, {HIGH} requests a second", fault.name), matrix::drive(fault, HIGH))
    });
    // A measurement, which a machine that does other things as well would spoil.
    let flaps = reports && is_wanted(flapping::NAME);
    let flapped = flaps.then(|| suite.take(flapping::NAME, flapping::run)).flatten();
    if let Some(flapped) = &flapped {
        println!("  {}", flapped.sentence());
    }
    let outcomes =
        suite.side_by_side(HISTORIES, &histories, |(name, run)| ((*name).to_owned(), run(name)));
    if reports && suite.failed == 0 && filter.is_empty() {
        let seen: Vec<(Seen, Seen)> = low.into_iter().zip(high).collect();
        let rows: Vec<_> = faults
            .iter()
            .zip(seen)
            .map(|(fault, (low, high))| (fault.name, vec![low, high]))
            .collect();
        report::put("matrix", &report::matrix(&rows));
        if let Some(flapped) = &flapped {
            report::put("flapping", &report::flapping(flapped));
        }
        report::put("history", &report::histories(&outcomes));
    }
    suite.end()
}

/// How the cases went.
#[derive(Default)]
struct Suite {
    passed: usize,
    failed: usize,
}

impl Suite {
    fn take<T>(&mut self, name: &str, case: impl FnOnce() -> Result<T, String>) -> Option<T> {
        let start = Instant::now();
        let result = case();
        self.tell(name, start.elapsed(), result)
    }

    fn tell<T>(&mut self, name: &str, time: Duration, result: Result<T, String>) -> Option<T> {
        match result {
            Ok(value) => {
                println!("{name} ... ok, {:.1} s", time.as_secs_f64());
                self.passed += 1;
                Some(value)
            }
            Err(problem) => {
                println!("{name} ... FAILED\n  {problem}");
                self.failed += 1;
                None
            }
        }
    }

    /// Runs all cases, so many at once. The results are in the order of the cases; those that
    /// failed are left out.
    fn side_by_side<C, T: Send>(
        &mut self,
        at_once: usize,
        cases: &[C],
        run: impl Fn(&C) -> (String, Result<T, String>) + Sync,
    ) -> Vec<T>
    where
        C: Sync,
    {
        let next = Mutex::new(0);
        let results: Mutex<Vec<Option<T>>> = Mutex::new(cases.iter().map(|_| None).collect());
        let suite = Mutex::new(self);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    loop {
                        let index = {
                            let mut next = next.lock().unwrap();
                            *next += 1;
                            *next - 1
                        };
                        let Some(case) = cases.get(index) else { return };
                        let start = Instant::now();
                        let ran = catch_unwind(std::panic::AssertUnwindSafe(|| run(case)));
                        let (name, result) =
                            ran.unwrap_or_else(|_| ("a case".into(), Err("panicked".into())));
                        let value = suite.lock().unwrap().tell(&name, start.elapsed(), result);
                        results.lock().unwrap()[index] = value;
                    }
                });
            }
        });
        results.into_inner().unwrap().into_iter().flatten().collect()
    }

    fn end(&self) -> ExitCode {
        println!("\n{} passed; {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
