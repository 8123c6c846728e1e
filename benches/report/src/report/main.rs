//! Measures everything that docs/performance.md says, and writes it.
//!
//! `make bench-report`; with `FULL=1` also what takes long: ten million revocations. Each section
//! runs in a process of its own, with a Redis of its own; `report section <name>` runs one and
//! shows what it found. What each found is kept in `target/report`; `report paper` writes the
//! document from that, without measuring anything.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

mod http;
mod memory;
mod paper;
mod peers;
mod process;
mod spread;
mod start;
mod targets;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use serde::de::DeserializeOwned;
use tower_jwt_revocation_report::machine::load_average;
use tower_jwt_revocation_report::server::Redis;
use tower_jwt_revocation_report::writes;

/// Everything that was measured.
pub struct Results {
    pub process: process::Results,
    pub http: Vec<http::Served>,
    pub spread: Vec<spread::Spread>,
    pub boot: Vec<start::Boot>,
    /// A bare write, one revocation, many in one call.
    pub writes: [writes::Write; 3],
    pub held: Vec<memory::Held>,
    pub cached: Vec<memory::Cached>,
    /// The row that `make scale` has written.
    pub scale: Option<String>,
    pub took: Duration,
    /// How busy the machine was before.
    pub load: String,
    pub full: bool,
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let full = env::var("FULL").is_ok_and(|full| full == "1");
    match *args {
        [] => report(full, false),
        ["paper"] => report(full, true),
        ["serve", name, redis] => http::serve(name, redis),
        ["write", redis, turn, rate, secs] => {
            let [turn, rate, secs] = [turn, rate, secs].map(|number| number.parse().unwrap());
            spread::write(redis, turn, rate, secs);
        }
        ["write-bare", redis, rate, secs] => {
            spread::write_bare(redis, rate.parse().unwrap(), secs.parse().unwrap());
        }
        ["section", name] => println!("{}", section(name, full)),
        _ => panic!("usage: report [paper | section process|http|spread|boot|writes|held|cached]"),
    }
}

fn section(name: &str, full: bool) -> String {
    let redis = || Redis::start();
    let written = match name {
        "process" => serde_json::to_string(&process::measure_all(redis().url(), full)),
        "http" => serde_json::to_string(&http::measure_all(redis().url())),
        "spread" => serde_json::to_string(&spread::measure_all(redis().url())),
        "boot" => {
            let sizes: &[u64] = if full { &[1_000_000, 10_000_000] } else { &[1_000_000] };
            let boots: Vec<_> = sizes.iter().map(|size| start::boot(&redis(), *size)).collect();
            serde_json::to_string(&boots)
        }
        "writes" => {
            let redis = redis();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            serde_json::to_string(&runtime.block_on(writes::measure(redis.url())))
        }
        "held" => {
            let sizes: &[u64] = if full { &[1_000_000, 10_000_000] } else { &[1_000_000] };
            serde_json::to_string(&sizes.iter().map(|size| memory::held(*size)).collect::<Vec<_>>())
        }
        "cached" => serde_json::to_string(&memory::cached()),
        _ => panic!("no section is called {name}"),
    };
    written.unwrap()
}

/// Runs a section in a process of its own, unless what it found before will do.
fn run<T: DeserializeOwned>(name: &str, is_known: bool) -> T {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/report");
    let file = kept.join(name).with_extension("json");
    if !is_known {
        let start = Instant::now();
        eprint!("{name} … ");
        let child = Command::new(env::current_exe().unwrap())
            .args(["section", name])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(child.status.success(), "the section {name} failed");
        eprintln!("{:.0} s", start.elapsed().as_secs_f64());
        fs::create_dir_all(&kept).unwrap();
        fs::write(&file, child.stdout).unwrap();
    }
    serde_json::from_slice(&fs::read(&file).unwrap()).unwrap()
}

fn report(full: bool, is_known: bool) {
    let start = Instant::now();
    let load = load_average();
    let scale = row_of_scale();
    let mut results = Results {
        process: run("process", is_known),
        http: run("http", is_known),
        spread: run("spread", is_known),
        boot: run("boot", is_known),
        writes: run("writes", is_known),
        held: run("held", is_known),
        cached: run("cached", is_known),
        scale,
        took: Duration::ZERO,
        load,
        full,
    };
    results.took = start.elapsed();
    paper::write(&results);
}

/// What the run of `make scale` found of its target; that comes first, as it has a Redis and a
/// machine for itself.
fn row_of_scale() -> Option<String> {
    let file = paper::root().join("docs/scale.md");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let row = text.lines().find(|line| line.starts_with("| T13 |")).map(str::to_owned);
    if row.is_none() {
        eprintln!(
            "{} has no row for T13: run `make scale` before `make bench-report`",
            file.display()
        );
    }
    row
}
