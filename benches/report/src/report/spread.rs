//! How long a revocation takes to be refused at another process, and how long a mirror takes to
//! start.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _, Standing};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{Mirror, RedisStore, Revoker, Target, VerifiedToken};
use tower_jwt_revocation_report::support::profile;

use crate::pin;

/// Revocations per second, and for how long.
const RATES: [(u64, u64); 3] = [(50, 6), (1000, 5), (10_000, 5)];

/// Sorted, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub rate: u64,
    /// What was reached of it.
    pub written: f64,
    pub micros: Vec<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Boot {
    pub entries: u64,
    pub fill_secs: f64,
    pub boot_secs: f64,
    pub bytes_each: f64,
}

/// The same clock in all processes of the machine.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

async fn store(redis: &str) -> RedisStore {
    let limit = Duration::from_secs(5);
    let store =
        RedisStore::builder().with_url(redis).with_check_timeout(limit).with_write_timeout(limit);
    store.with_max_in_flight(50_000).connect().await.unwrap()
}

fn token(id: &str) -> Arc<VerifiedToken> {
    let now = Timestamp::now();
    let claims = serde_json::json!({
        "iss": tower_jwt_revocation_report::support::ISSUER,
        "aud": tower_jwt_revocation_report::support::AUDIENCE,
        "sub": id, "jti": id, "iat": now.as_secs(), "exp": now.as_secs() + 3600
    });
    Arc::new(profile().assert_verified(SignedClaims::new(claims.to_string().as_bytes())).unwrap())
}

fn id(rate: u64, n: u64) -> String {
    format!("spread-{rate}-{n}")
}

/// What the child does: writes at a steady rate and says when it began each write that is looked
/// for.
pub fn write(redis: &str, rate: u64, secs: u64, every: u64) {
    pin(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let revoker = Arc::new(Revoker::new(store(redis).await, profile()).unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        let start = Instant::now();
        let mut sent = 0;
        let written = Arc::new(AtomicU64::new(0));
        while start.elapsed() < Duration::from_secs(secs) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let due = ((start.elapsed().as_secs_f64() * rate as f64) as u64).min(rate * secs);
            while sent < due {
                let (revoker, lines, n) = (Arc::clone(&revoker), Arc::clone(&lines), sent);
                let written = Arc::clone(&written);
                tasks.spawn(async move {
                    let began = now();
                    // A write that finds the queue full is refused at once; none was begun.
                    let is_written = revoker.revoke(Target::token(id(rate, n))).await.is_ok();
                    written.fetch_add(u64::from(is_written), Ordering::Relaxed);
                    if is_written && n % every == 0 {
                        lines.lock().unwrap().push(format!("{n} {began}"));
                    }
                });
                sent += 1;
            }
            while tasks.try_join_next().is_some() {}
        }
        let took = start.elapsed().as_secs_f64();
        tasks.join_all().await;
        println!("rate {}", written.load(Ordering::Relaxed) as f64 / took);
        for line in lines.lock().unwrap().iter() {
            println!("{line}");
        }
    });
}

pub fn measure_all(redis: &str) -> Vec<Spread> {
    RATES.map(|(rate, secs)| spread(redis, rate, secs)).into()
}

fn spread(redis: &str, rate: u64, secs: u64) -> Spread {
    pin(1);
    let every = (rate / 200).max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mirror = Mirror::new(store(redis).await).unwrap();
        mirror.ready().await;
        let mut waiters = tokio::task::JoinSet::new();
        for n in (0..rate * secs).step_by(usize::try_from(every).unwrap()) {
            let (mirror, token) = (mirror.clone(), token(&id(rate, n)));
            waiters.spawn(async move {
                mirror.watch(&token).expect("a mirror can tell").await;
                let seen = now();
                assert!(matches!(mirror.check(&token), Lookup::Now(Ok(Standing::Revoked(_)))));
                (n, seen)
            });
        }
        let args = [
            "write".into(),
            redis.to_owned(),
            rate.to_string(),
            secs.to_string(),
            every.to_string(),
        ];
        let child = Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdout(Stdio::piped())
            .spawn();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = child.unwrap();
            let lines: Vec<String> =
                BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
            assert!(child.wait().unwrap().success());
            lines
        });
        let lines = output.await.unwrap();
        let written = lines[0].strip_prefix("rate ").unwrap().parse().unwrap();
        let mut seen = std::collections::HashMap::new();
        let began: Vec<(u64, u64)> = lines[1..]
            .iter()
            .map(|line| {
                let (n, began) = line.split_once(' ').unwrap();
                (n.parse().unwrap(), began.parse().unwrap())
            })
            .collect();
        while seen.len() < began.len() {
            let next = tokio::time::timeout(Duration::from_secs(60), waiters.join_next()).await;
            let (n, at) = next.expect("the mirror misses a write").unwrap().unwrap();
            seen.insert(n, at);
        }
        let mut micros: Vec<f64> =
            began.iter().map(|(n, began)| seen[n].saturating_sub(*began) as f64 / 1000.0).collect();
        micros.sort_by(f64::total_cmp);
        Spread { rate, written, micros }
    })
}

/// Fills an empty Redis with revocations of sessions, as the write side does it, then starts a
/// mirror.
pub fn boot(redis: &str, entries: u64) -> Boot {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let start = Instant::now();
        let revoker = Arc::new(Revoker::new(store(redis).await, profile()).unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for from in (0..entries).step_by(500) {
            let revoker = Arc::clone(&revoker);
            if tasks.len() >= 8 {
                tasks.join_next().await.unwrap().unwrap();
            }
            tasks.spawn(async move {
                let to = (from + 500).min(entries);
                let revoke = |n| revoker.revoke(Target::session(format!("boot-{n}")));
                revoker.revoke_many((from..to).map(revoke)).await.unwrap();
            });
        }
        tasks.join_all().await;
        let fill_secs = start.elapsed().as_secs_f64();

        let store = store(redis).await;
        let start = Instant::now();
        let mirror = Mirror::new(store).unwrap();
        mirror.ready().await;
        let boot_secs = start.elapsed().as_secs_f64();
        let status = mirror.status();
        assert!(status.entries as u64 >= entries, "{status:?}");
        Boot {
            entries,
            fill_secs,
            boot_secs,
            bytes_each: status.bytes as f64 / status.entries as f64,
        }
    })
}
