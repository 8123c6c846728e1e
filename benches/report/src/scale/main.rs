//! How one Redis carries many mirrors: writes docs/scale.md.
//!
//! `make scale`, before `make bench-report`, which takes over its target; with `FULL=1` ten million
//! revocations are live, else a million. `scale quick` runs a few seconds of all of it, `scale
//! section <writes|follow|storms>` a part; both show what they found and write nothing.
//!
//! The mirrors are followers in one process: they speak the protocol of mirrors and keep nothing,
//! so that two hundred of them fit on a machine. What is written is written by the library.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

mod checks;
mod paper;

use std::env;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tower_jwt_revocation::{Revoker, Target};
use tower_jwt_revocation_report::follower::{Follower, Pace, Seen};
use tower_jwt_revocation_report::machine::{cpu_of_process, percentile, pin};
use tower_jwt_revocation_report::resp::Connection;
use tower_jwt_revocation_report::server::{Redis, stats};
use tower_jwt_revocation_report::store::{fill, store};
use tower_jwt_revocation_report::support::profile;
use tower_jwt_revocation_report::writes::{self, Write};

use checks::{Checked, Checks};

/// One load, for some seconds.
pub struct Run {
    pub mirrors: usize,
    pub pace: Pace,
    pub wanted: u64,
    /// What was written of it, per second.
    pub written: f64,
    /// Of one processor, by the account of Redis.
    pub redis_share: f64,
    pub commands: f64,
    pub megabytes: f64,
    /// The largest output buffer of a client that was seen, in kilobytes.
    pub buffer: f64,
    pub p50: f64,
    pub p99: f64,
    /// Of one processor, of the followers themselves: near one, they are what is slow.
    pub own_share: f64,
}

/// All mirrors at once.
pub struct Storm {
    pub what: &'static str,
    pub mirrors: usize,
    pub live: u64,
    pub secs: f64,
    /// How many were done by then.
    pub done: usize,
    pub redis_secs: f64,
    /// What became of the checks of another process, before and meanwhile.
    pub before: Checked,
    pub meanwhile: Checked,
}

/// All that was measured.
#[derive(Default)]
pub struct Results {
    pub live: u64,
    pub writes: Vec<Write>,
    pub runs: Vec<Run>,
    pub storms: Vec<Storm>,
}

/// How long a storm is watched at most.
const STORM_LIMIT: Duration = Duration::from_secs(240);
/// As many mirrors as the target speaks of.
const MIRRORS: usize = 200;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args {
        ["write", redis, rate, secs] => write(redis, rate.parse().unwrap(), secs.parse().unwrap()),
        ["check", redis] => checks::check(redis),
        [] => paper::write(&measure(true, &["writes", "follow", "storms"])),
        ["quick"] => paper::show(&measure(false, &["writes", "follow", "storms"])),
        ["section", name @ ("writes" | "follow" | "storms")] => {
            paper::show(&measure(true, &[name]));
        }
        _ => panic!("usage: scale [quick | section writes|follow|storms]"),
    }
}

fn measure(is_whole: bool, sections: &[&str]) -> Results {
    let full = env::var("FULL").is_ok_and(|full| full == "1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut results = Results::default();
        if sections.contains(&"writes") {
            results.writes = writes::measure(server().url()).await.into();
        }
        results.live = match (is_whole, full) {
            (false, _) => 20_000,
            (true, false) => 1_000_000,
            (true, true) => 10_000_000,
        };
        if sections == ["writes"] {
            return results;
        }
        let redis = server();
        eprintln!("{} revocations …", results.live);
        fill(redis.url(), results.live).await;
        // Storms come first: what is written afterwards would be in their snapshots.
        if sections.contains(&"storms") {
            results.storms = storms(&redis, is_whole, results.live).await;
        }
        if sections.contains(&"follow") {
            results.runs = follow(&redis, is_whole).await;
        }
        results
    })
}

/// A server that has a processor for itself, where there are two.
fn server() -> Redis {
    // It inherits the processor.
    pin(0);
    let redis = Redis::start();
    pin(1);
    redis
}

async fn follow(redis: &Redis, is_whole: bool) -> Vec<Run> {
    let secs = if is_whole { 6 } else { 2 };
    let mut runs = Vec::new();
    let (sizes, rates): (&[usize], &[u64]) =
        if is_whole { (&[1, 20, 50, 100, MIRRORS], &[0, 1000, 10_000]) } else { (&[20], &[1000]) };
    for &mirrors in sizes {
        for &rate in rates {
            runs.push(run(redis, mirrors, rate, secs, Pace::default()).await);
        }
    }
    let ms = Duration::from_millis;
    let rare = Pace { pause: Duration::ZERO, beat_every: ms(20) };
    let paused = Pace { pause: ms(5), beat_every: ms(20) };
    for pace in [rare, paused] {
        for &rate in rates.iter().filter(|rate| **rate >= 1000) {
            runs.push(run(redis, *sizes.last().unwrap(), rate, secs, pace).await);
        }
    }
    runs
}

async fn storms(redis: &Redis, is_whole: bool, live: u64) -> Vec<Storm> {
    let mut storms = Vec::new();
    let mut checks = Checks::start(redis.url());
    for mirrors in if is_whole { vec![1, 20, MIRRORS] } else { vec![5] } {
        storms.push(storm("start", redis.address(), &mut checks, mirrors, live).await);
    }
    let mirrors = if is_whole { MIRRORS } else { 20 };
    storms.push(storm("reconnect", redis.address(), &mut checks, mirrors, live).await);
    storms
}

/// What the child does: it writes at a steady rate, and says what it reached.
fn write(redis: &str, rate: u64, secs: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let revoker = Arc::new(Revoker::new(store(redis).await, profile()).unwrap());
        let mut tasks = JoinSet::new();
        let (start, mut sent, mut written) = (Instant::now(), 0, 0);
        while start.elapsed() < Duration::from_secs(secs) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            while sent < due.min(rate * secs) {
                let revoker = Arc::clone(&revoker);
                let id = format!("{}-{sent}", std::process::id());
                tasks.spawn(async move { revoker.revoke(Target::token(id)).await.is_ok() });
                sent += 1;
            }
            while let Some(done) = tasks.try_join_next() {
                written += u64::from(done.unwrap());
            }
        }
        println!("{}", written as f64 / start.elapsed().as_secs_f64());
        tasks.abort_all();
    });
}

async fn run(redis: &Redis, mirrors: usize, wanted: u64, secs: u64, pace: Pace) -> Run {
    let mut followers = Vec::new();
    for number in 0..mirrors {
        followers.push(Follower::connect(redis.address(), number).await.unwrap());
    }
    let mut watch = Connection::open(redis.address()).await.unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["write", redis.url(), &wanted.to_string(), &secs.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Until the writer has connected.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = stats(&mut watch).await;
    let (start, own) = (Instant::now(), cpu_of_process());
    let until = start + Duration::from_millis(secs * 1000 - 700);
    let mut tasks = JoinSet::new();
    for mut follower in followers {
        tasks.spawn(async move { follower.follow(until, pace).await.unwrap() });
    }
    let mut buffer = 0.0_f64;
    while Instant::now() < until - Duration::from_millis(300) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        buffer = buffer.max(largest_buffer(&mut watch).await);
    }
    let after = stats(&mut watch).await;
    let took = start.elapsed().as_secs_f64();
    let own_share = (cpu_of_process() - own).as_secs_f64() / took;
    let seen: Vec<Seen> = tasks.join_all().await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let written = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let mut lags: Vec<f64> = seen.into_iter().flat_map(|seen| seen.lags_ms).collect();
    lags.sort_by(f64::total_cmp);
    let run = Run {
        mirrors,
        pace,
        wanted,
        written: written.trim().parse().unwrap_or(0.0),
        redis_share: (after.cpu - before.cpu) / took,
        commands: (after.commands - before.commands) / took,
        megabytes: (after.output - before.output) / took / 1e6,
        buffer: buffer / 1000.0,
        p50: percentile(&lags, 0.5),
        p99: percentile(&lags, 0.99),
        own_share,
    };
    eprintln!(
        "{mirrors} mirrors, {wanted}/s: {:.2} of a core, p99 {:.1} ms",
        run.redis_share, run.p99
    );
    run
}

async fn storm(
    what: &'static str,
    address: &str,
    checks: &mut Checks,
    mirrors: usize,
    live: u64,
) -> Storm {
    let mut watch = Connection::open(address).await.unwrap();
    checks.lap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let usual = checks.lap();
    let before = stats(&mut watch).await;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..mirrors {
        let address = address.to_owned();
        tasks.spawn(async move {
            let mut follower = Follower::connect(&address, number).await.unwrap();
            follower.beat().await.unwrap();
            if what == "start" {
                assert!(follower.boot().await.unwrap() >= live);
            }
            follower.beat().await.unwrap();
        });
    }
    let mut done = 0;
    while let Ok(Some(next)) = timeout_at(start + STORM_LIMIT, tasks.join_next()).await {
        next.unwrap();
        done += 1;
    }
    let secs = start.elapsed().as_secs_f64();
    let meanwhile = checks.lap();
    tasks.shutdown().await;
    let after = stats(&mut watch).await;
    eprintln!("{what} of {mirrors}: {done} in {secs:.1} s");
    let redis_secs = after.cpu - before.cpu;
    Storm { what, mirrors, live, secs, done, redis_secs, before: usual, meanwhile }
}

async fn largest_buffer(watch: &mut Connection) -> f64 {
    let clients = watch.text(&["CLIENT", "LIST"]).await.unwrap();
    let words = clients.split_whitespace();
    words.filter_map(|word| word.strip_prefix("omem=")?.parse::<f64>().ok()).fold(0.0, f64::max)
}
