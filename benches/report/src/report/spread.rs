//! How long a revocation takes to be refused at another process, against the least that news can
//! take through Redis: a bare `XADD` until a bare `XREAD BLOCK` in another process, over plain
//! sockets. Both take turns.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _, Standing};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{Mirror, Revoker, Target, VerifiedToken};
use tower_jwt_revocation_report::machine::{now, pin};
use tower_jwt_revocation_report::resp::{Connection, encode, ids_of_entries};
use tower_jwt_revocation_report::server::address_of;
use tower_jwt_revocation_report::store::store;
use tower_jwt_revocation_report::support::profile;

/// Revocations per second, and for how long in one turn.
const RATES: [(u64, u64); 3] = [(50, 4), (1000, 3), (10_000, 3)];
const TURNS: u64 = 2;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub rate: u64,
    /// What was reached of it.
    pub written: f64,
    /// Sorted, in microseconds.
    pub micros: Vec<f64>,
    /// The same of bare commands.
    pub bare: Vec<f64>,
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

fn id(turn: u64, rate: u64, n: u64) -> String {
    format!("spread-{turn}-{rate}-{n}")
}

/// So many writes of all are looked at: a fifth of a thousand per second.
fn every(rate: u64) -> u64 {
    (rate / 200).max(1)
}

/// What the child does: writes at a steady rate and says when it began each write that is looked
/// for.
pub fn write(redis: &str, turn: u64, rate: u64, secs: u64) {
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
                    let is_written = revoker.revoke(Target::token(id(turn, rate, n))).await.is_ok();
                    written.fetch_add(u64::from(is_written), Ordering::Relaxed);
                    if is_written && n.is_multiple_of(every(rate)) {
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

/// What the other child does: it writes bare entries at the same rate. The id of an entry says when
/// it was begun, and which one it is.
pub fn write_bare(redis: &str, rate: u64, secs: u64) {
    pin(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = Connection::open(address_of(redis)).await.unwrap().into_stream();
        let (mut replies, mut commands) = stream.into_split();
        // What Redis answers is read by the way, lest it has nowhere to put it.
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while replies.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
        let (start, mut sent) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(secs) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let due = ((start.elapsed().as_secs_f64() * rate as f64) as u64).min(rate * secs);
            while sent < due {
                let id = format!("{}-{sent}", now());
                let command = encode(&["XADD", BARE_LOG, &id, "value", "1"]);
                commands.write_all(&command).await.unwrap();
                sent += 1;
            }
        }
        // As the last one: it tells the reader that it has seen all.
        let id = format!("{}-{END}", now());
        commands.write_all(&encode(&["XADD", BARE_LOG, &id, "value", "1"])).await.unwrap();
        drop(commands);
        reader.await.unwrap();
    });
}

const BARE_LOG: &str = "bare-log";
/// The number of the entry that ends a bare turn.
const END: u64 = u64::MAX;

pub fn measure_all(redis: &str) -> Vec<Spread> {
    pin(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let of_rate = |(rate, secs)| {
        let (mut written, mut micros, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..TURNS {
            bare.extend(runtime.block_on(bare_turn(redis, rate, secs)));
            let (reached, some) = runtime.block_on(turn_of_ours(redis, turn, rate, secs));
            written.push(reached);
            micros.extend(some);
        }
        micros.sort_by(f64::total_cmp);
        bare.sort_by(f64::total_cmp);
        Spread { rate, written: written.iter().sum::<f64>() / TURNS as f64, micros, bare }
    };
    RATES.map(of_rate).into()
}

fn child(arguments: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn bare_turn(redis: &str, rate: u64, secs: u64) -> Vec<f64> {
    let mut log = Connection::open(address_of(redis)).await.unwrap();
    log.ask(&[&["DEL", BARE_LOG]]).await.unwrap();
    let mut writer = child(&["write-bare", redis, &rate.to_string(), &secs.to_string()]);
    let (mut micros, mut last) = (Vec::new(), "0-0".to_owned());
    loop {
        let read = ["XREAD", "COUNT", "1000", "BLOCK", "250", "STREAMS", BARE_LOG, &last];
        log.send(&[&read]).await.unwrap();
        let used = log.reply().await.unwrap();
        let seen = now();
        let mut is_over = false;
        let ids = ids_of_entries(log.unread()).unwrap_or_default();
        for id in &ids {
            let (began, n) = id.split_once('-').unwrap();
            let n: u64 = n.parse().unwrap();
            is_over |= n == END;
            if n != END && n.is_multiple_of(every(rate)) {
                let began: u64 = began.parse().unwrap();
                micros.push(seen.saturating_sub(began) as f64 / 1000.0);
            }
        }
        if let Some(id) = ids.last() {
            last = (*id).to_owned();
        }
        log.skip(used);
        if is_over {
            break;
        }
    }
    assert!(writer.wait().unwrap().success());
    micros
}

/// What was reached of the rate, and how long each of those took that were looked at.
async fn turn_of_ours(redis: &str, turn: u64, rate: u64, secs: u64) -> (f64, Vec<f64>) {
    let mirror = Mirror::new(store(redis).await).unwrap();
    mirror.ready().await;
    let mut waiters = tokio::task::JoinSet::new();
    for n in (0..rate * secs).step_by(usize::try_from(every(rate)).unwrap()) {
        let (mirror, token) = (mirror.clone(), token(&id(turn, rate, n)));
        waiters.spawn(async move {
            mirror.watch(&token).expect("a mirror can tell").await;
            let seen = now();
            assert!(matches!(mirror.check(&token), Lookup::Now(Ok(Standing::Revoked(_)))));
            (n, seen)
        });
    }
    let mut writer =
        child(&["write", redis, &turn.to_string(), &rate.to_string(), &secs.to_string()]);
    let output = tokio::task::spawn_blocking(move || {
        let output = BufReader::new(writer.stdout.take().unwrap());
        let lines: Vec<String> = output.lines().map(Result::unwrap).collect();
        assert!(writer.wait().unwrap().success());
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
    let took = |(n, began): &(u64, u64)| seen[n].saturating_sub(*began) as f64 / 1000.0;
    (written, began.iter().map(took).collect())
}
