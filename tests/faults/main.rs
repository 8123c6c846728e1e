//! What happens when Redis, its network or its data break, under load: every answer of real layers over real servers is
//! judged. `docs/faults.md` shows the numbers; `make faults` writes them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![allow(unreachable_pub, reason = "`pub` marks what other rooms may call; a test binary exports nothing")]
#![allow(clippy::print_stdout, reason = "this binary is its own test harness")]

mod canary;
mod clock;
mod doors;
mod faults;
mod history;
mod lab;
mod matrix;
#[path = "../support/mod.rs"]
mod support;
mod traffic;
mod worker;

use std::process::ExitCode;

/// The loads, in requests a second.
const LOADS: [u32; 2] = [50, 2000];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, words @ ..] = words.as_slice()
        && first == "worker"
    {
        worker::live(words);
        return ExitCode::SUCCESS;
    }
    if words.first().is_some_and(|w| w == "history") {
        for (name, run) in history::all() {
            match run(name) {
                Ok(o) => println!(
                    "ok {name}: checks {} confirmed {} judged {} lost {} wrong {} exposure {:?} gap {:?} write {:?}",
                    o.checks, o.confirmed, o.judged, o.lost, o.wrong, o.exposure, o.gap, o.write
                ),
                Err(e) => println!("FAILED {e}"),
            }
        }
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = words.into_iter().filter(|word| !word.starts_with('-')).collect();
    if !support::redis_is_installed() {
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for fault in faults::all() {
        if !words.is_empty() && !words.iter().any(|word| fault.name.contains(word)) {
            continue;
        }
        for load in LOADS {
            match matrix::drive(&fault, load) {
                Ok(seen) => {
                    println!(
                        "ok {} @{load}: {} answers, {} excused, stall {:?}",
                        fault.name, seen.answers, seen.excused, seen.stall
                    );
                    for (mode, m) in &seen.modes {
                        println!(
                            "    {mode} live {:?} revoked {:?} worst {:?} recovery {:?}",
                            m.live, m.revoked, m.worst, m.recovery
                        );
                    }
                    println!(
                        "    writes {:?} worst {:?} recovery {:?}",
                        seen.writes, seen.worst_write, seen.write_recovery
                    );
                }
                Err(e) => {
                    failed += 1;
                    println!("FAILED {e}");
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
