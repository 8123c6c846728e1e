//! What is in memory: what it weighs, what a look-up costs when nothing is in the caches of the
//! processor, and how long anyone waits while the set grows.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _, Standing};
use tower_jwt_revocation::token::{SignedClaims, TokenVerifier as _};
use tower_jwt_revocation::{CachedVerifier, Mirror, VerifiedToken};
use tower_jwt_revocation_report::support::{AUDIENCE, ISSUER, hs256, profile, rs256, verifier};

use crate::process;
use tower_jwt_revocation_report::machine::{cpu, median};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    pub entries: u64,
    pub bytes_each: f64,
    pub resident_each: f64,
    /// Nanoseconds per token of four targets, hot and cold, and of one dependent cache miss in as
    /// much memory.
    pub hot: f64,
    pub cold: f64,
    pub miss: f64,
    /// The slowest look-ups while the set grows to twice its size, and while nobody writes, in
    /// microseconds.
    pub slowest_growing: f64,
    pub slowest_alone: f64,
    pub grown_secs: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cached {
    pub algorithm: String,
    pub token_bytes: usize,
    pub bytes_each: f64,
}

pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).unwrap_or(0) * 1024
}

fn tokens(count: u64) -> Vec<Arc<VerifiedToken>> {
    let now = Timestamp::now();
    let profile = profile();
    let token = |n: u64| {
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": n.to_string(),
            "jti": n.to_string(), "sid": n.to_string(),
            "iat": now.as_secs(), "exp": now.as_secs() + 3600
        });
        Arc::new(profile.assert_verified(SignedClaims::new(claims.to_string().as_bytes())).unwrap())
    };
    (0..count).map(token).collect()
}

fn is_live(mirror: &Mirror, token: &Arc<VerifiedToken>) -> bool {
    matches!(mirror.check(token), Lookup::Now(Ok(Standing::Live)))
}

/// The median of some turns, in nanoseconds per round.
fn timed(rounds: u32, mut work: impl FnMut()) -> f64 {
    let turn = |_| {
        let start = cpu();
        (0..rounds).for_each(|_| work());
        (cpu() - start).as_nanos() as f64 / f64::from(rounds)
    };
    median((0..9).map(turn).collect())
}

pub fn held(entries: u64) -> Held {
    let many = tokens(200_000);
    let before = resident();
    let (mirror, written, runtime) = process::mirror(entries);
    let status = mirror.status();
    let each = |bytes: usize| bytes as f64 / status.entries as f64;
    let (bytes_each, resident_each) = (each(status.bytes), each(resident().saturating_sub(before)));

    let hot = timed(100_000, || assert!(is_live(&mirror, black_box(&many[0]))));
    let mut next = many.iter().cycle();
    let cold = timed(200_000, || assert!(is_live(&mirror, next.next().unwrap())));
    // A walk through as many bytes, each step depending on the one before.
    let words = (status.bytes / 8).next_power_of_two();
    let walk: Vec<u64> = (0..words as u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let mut at = 0_u64;
    let miss = timed(200_000, || {
        at ^= walk[(at >> 20) as usize & (words - 1)];
        at = (at ^ (at >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(1);
        black_box(at);
    });
    drop(walk);

    let slowest_alone = slowest(&mirror, &many, |is_over| {
        std::thread::sleep(Duration::from_secs(2));
        is_over.store(true, Ordering::Relaxed);
    });
    let start = Instant::now();
    let slowest_growing = slowest(&mirror, &many, |is_over| {
        written.store(entries, Ordering::SeqCst);
        let mut status = mirror.watch_status();
        let is_done = status.wait_for(|status| status.applied() == entries);
        runtime.block_on(is_done).unwrap();
        is_over.store(true, Ordering::Relaxed);
    });
    let grown_secs = start.elapsed().as_secs_f64();
    Held {
        entries,
        bytes_each,
        resident_each,
        hot,
        cold,
        miss,
        slowest_growing,
        slowest_alone,
        grown_secs,
    }
}

/// The third slowest look-up in microseconds, by the clock. Those during which the scheduler gave
/// the processor to someone else are left out: that is its doing. A reader that had to wait for a
/// lock would give the processor up by itself, and counts.
fn slowest(mirror: &Mirror, tokens: &[Arc<VerifiedToken>], work: impl FnOnce(&AtomicBool)) -> f64 {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut slowest = [Duration::ZERO; 3];
            while !is_over.load(Ordering::Relaxed) {
                let mut before = times_interrupted();
                for token in tokens.iter().take(1000) {
                    let start = Instant::now();
                    black_box(is_live(mirror, token));
                    let took = start.elapsed();
                    if let Some(least) = slowest.iter_mut().min().filter(|least| took > **least) {
                        let now = times_interrupted();
                        if std::mem::replace(&mut before, now) == now {
                            *least = took;
                        }
                    }
                }
            }
            slowest.into_iter().min().unwrap_or_default()
        });
        work(&is_over);
        reader.join().unwrap().as_nanos() as f64 / 1000.0
    })
}

/// How often the scheduler has taken the processor away from this thread.
fn times_interrupted() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// What a remembered token weighs.
pub fn cached() -> Vec<Cached> {
    const COUNT: usize = 10_000;
    let of = |(name, keys): (&str, tower_jwt_revocation_report::support::Keys)| {
        // RSA signs slowly, and a token is as long whatever it says.
        let count = if name == "HS256" { COUNT } else { COUNT / 5 };
        let tokens: Vec<_> = (0..count).map(|n| keys.token(n)).collect();
        let cache = CachedVerifier::new(verifier(&keys)).with_capacity(256 * 1024 * 1024);
        let counted = allocation_counter::measure(|| {
            for token in &tokens {
                drop(black_box(cache.verify(token).unwrap()));
            }
        });
        Cached {
            algorithm: name.into(),
            token_bytes: tokens[0].len(),
            bytes_each: counted.bytes_current as f64 / count as f64,
        }
    };
    [("HS256", hs256()), ("RS256", rs256())].map(of).into()
}
