//! How one Redis carries many mirrors: writes docs/scale.md.
//!
//! `make scale`; with `scale quick` a few seconds of it, which are shown and not written. The
//! mirrors are followers in one process: they speak the protocol of mirrors and keep nothing, so
//! that two hundred of them fit on a machine. What is written is written by the library.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

mod follower;
mod paper;
#[path = "../report/plot.rs"]
#[allow(dead_code, reason = "shared with the report")]
mod plot;
mod resp;
#[path = "../report/server.rs"]
mod server;
mod writes;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs};

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_jwt_revocation::{RedisStore, Revoker, Target};
use tower_jwt_revocation_report::support::profile;

use follower::{Follower, Pace, Seen};
use server::Redis;

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
    pub redis_secs: f64,
    /// The slowest `GET` meanwhile, as a check would be.
    pub slowest_ms: f64,
    pub usual_ms: f64,
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match *args {
        ["write", redis, rate, secs] => write(redis, rate.parse().unwrap(), secs.parse().unwrap()),
        [] | ["quick"] => measure(args.is_empty()),
        _ => panic!("usage: scale [quick]"),
    }
}

fn measure(is_whole: bool) {
    // The server inherits the processor, and gives it back to itself alone.
    pin(0);
    let redis = Redis::start();
    pin(1);
    let address = redis.url().strip_prefix("redis://").unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let writes = writes::measure(redis.url(), &address).await;
        let live = if is_whole { 1_000_000 } else { 20_000 };
        fill(redis.url(), live).await;
        let secs = if is_whole { 6 } else { 2 };
        let mut runs = Vec::new();
        let (sizes, rates): (&[usize], &[u64]) = if is_whole {
            (&[1, 20, 50, 100, 200], &[0, 100, 1000, 10_000])
        } else {
            (&[20], &[1000])
        };
        for &mirrors in sizes {
            for &rate in rates {
                runs.push(run(redis.url(), &address, mirrors, rate, secs, Pace::default()).await);
            }
        }
        let ms = Duration::from_millis;
        let rare = Pace { pause: Duration::ZERO, beat_every: ms(20) };
        let paused = Pace { pause: ms(5), beat_every: ms(20) };
        for pace in [rare, paused] {
            for &rate in rates.iter().filter(|rate| **rate >= 1000) {
                let mirrors = *sizes.last().unwrap();
                runs.push(run(redis.url(), &address, mirrors, rate, secs, pace).await);
            }
        }
        let mut storms = Vec::new();
        for mirrors in if is_whole { vec![1, 10, 50] } else { vec![5] } {
            storms.push(storm("start", &address, mirrors, live, true).await);
        }
        for mirrors in if is_whole { vec![50, 200] } else { vec![20] } {
            storms.push(storm("reconnect", &address, mirrors, live, false).await);
        }
        paper::show(&writes, &runs, &storms);
        if is_whole {
            paper::write(&writes, &runs, &storms, live);
        }
    });
}

async fn store(redis: &str) -> RedisStore {
    let limit = Duration::from_secs(10);
    let store =
        RedisStore::builder().with_url(redis).with_check_timeout(limit).with_write_timeout(limit);
    store.with_max_in_flight(50_000).connect().await.unwrap()
}

async fn fill(redis: &str, live: u64) {
    let revoker = Arc::new(Revoker::new(store(redis).await, profile()).unwrap());
    let mut tasks = JoinSet::new();
    for from in (0..live).step_by(500) {
        if tasks.len() >= 8 {
            tasks.join_next().await.unwrap().unwrap();
        }
        let revoker = Arc::clone(&revoker);
        tasks.spawn(async move {
            let revoke = |n| revoker.revoke(Target::session(format!("live-{n}")));
            revoker.revoke_many((from..(from + 500).min(live)).map(revoke)).await.unwrap();
        });
    }
    tasks.join_all().await;
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

async fn run(
    redis: &str,
    address: &str,
    mirrors: usize,
    wanted: u64,
    secs: u64,
    pace: Pace,
) -> Run {
    let mut followers = Vec::new();
    for number in 0..mirrors {
        followers.push(Follower::connect(address, number).await.unwrap());
    }
    let mut watch = Follower::connect(address, 0).await.unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["write", redis, &wanted.to_string(), &secs.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Until the writer has connected.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = stats(&mut watch).await;
    let (start, own) = (Instant::now(), own_cpu());
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
    let own_share = (own_cpu() - own) / took;
    let seen: Vec<Seen> = tasks.join_all().await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let written = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let mut lags: Vec<f64> = seen.iter().flat_map(|seen| seen.lags_ms.iter().copied()).collect();
    lags.sort_by(f64::total_cmp);
    let at = |share: f64| {
        lags.get(((lags.len() as f64 * share) as usize).min(lags.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    let run = Run {
        mirrors,
        pace,
        wanted,
        written: written.trim().parse().unwrap_or(0.0),
        redis_share: (after.cpu - before.cpu) / took,
        commands: (after.commands - before.commands) / took,
        megabytes: (after.output - before.output) / took / 1e6,
        buffer: buffer / 1000.0,
        p50: at(0.5),
        p99: at(0.99),
        own_share,
    };
    eprintln!("{mirrors} mirrors, {wanted}/s: {:.2} of a core", run.redis_share);
    run
}

async fn storm(what: &'static str, address: &str, mirrors: usize, live: u64, loads: bool) -> Storm {
    let mut watch = Follower::connect(address, 0).await.unwrap();
    let mut usual = Vec::new();
    for _ in 0..50 {
        let asked = Instant::now();
        watch.ask(&[&["TIME"]]).await.unwrap();
        usual.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    usual.sort_by(f64::total_cmp);
    let before = stats(&mut watch).await;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..mirrors {
        let address = address.to_owned();
        tasks.spawn(async move {
            let mut follower = Follower::connect(&address, number).await.unwrap();
            follower.beat().await.unwrap();
            if loads {
                assert!(follower.boot().await.unwrap() >= live);
            }
            follower.beat().await.unwrap();
        });
    }
    let mut slowest = 0.0_f64;
    while !tasks.is_empty() {
        let asked = Instant::now();
        watch.ask(&[&["TIME"]]).await.unwrap();
        slowest = slowest.max(asked.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
    }
    let secs = start.elapsed().as_secs_f64();
    let after = stats(&mut watch).await;
    eprintln!("{what} of {mirrors}: {secs:.1} s");
    Storm {
        what,
        mirrors,
        live,
        secs,
        redis_secs: after.cpu - before.cpu,
        slowest_ms: slowest,
        usual_ms: usual[usual.len() / 2],
    }
}

struct Stats {
    cpu: f64,
    commands: f64,
    output: f64,
}

async fn text(watch: &mut Follower, command: &[&str]) -> String {
    match watch.ask(&[command]).await.unwrap().into_iter().next() {
        Some(resp::Reply::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

async fn stats(watch: &mut Follower) -> Stats {
    let info = text(watch, &["INFO"]).await;
    let number = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().parse().unwrap()
    };
    Stats {
        cpu: number("used_cpu_user") + number("used_cpu_sys"),
        commands: number("total_commands_processed"),
        output: number("total_net_output_bytes"),
    }
}

/// The memory of the data of Redis, in bytes.
async fn held(watch: &mut Follower) -> f64 {
    let info = text(watch, &["INFO", "memory"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
    line.unwrap().parse().unwrap()
}

async fn largest_buffer(watch: &mut Follower) -> f64 {
    let clients = text(watch, &["CLIENT", "LIST"]).await;
    let words = clients.split_whitespace();
    words.filter_map(|word| word.strip_prefix("omem=")?.parse::<f64>().ok()).fold(0.0, f64::max)
}

/// The time that this process took of its processors, in seconds.
fn own_cpu() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Keeps this thread, and what it starts, on one processor, where there are two.
fn pin(processor: usize) {
    if std::thread::available_parallelism().map_or(1, usize::from) > 1 || processor == 0 {
        let mut set = CpuSet::new();
        set.set(processor);
        let _ = sched_setaffinity(None, &set);
    }
}

/// How busy the machine is.
pub fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("unknown").to_owned()
}
