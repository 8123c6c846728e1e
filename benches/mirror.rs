//! The set in memory: what a look-up costs, what a revocation weighs, how long nobody waits, how
//! fast it is loaded.
//!
//! The store behind the mirror is a list of numbers, so nothing but the mirror is measured.
//! `MIRROR_ENTRIES` says how many revocations there are, default 1 000 000.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement"
)]

// Shared with the package that measures against others; compiled here too, so that it keeps up with
// the trait.
#[path = "report/src/numbers.rs"]
mod numbers;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use numbers::Numbers;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::mirror::MirrorStatus;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _, Standing};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{MemoryStore, Mirror, TokenProfile, VerifiedToken};

fn tokens(count: u64) -> Vec<Arc<VerifiedToken>> {
    let now = Timestamp::now();
    let profile = TokenProfile::new();
    let token = |n: u64| {
        let claims = serde_json::json!({
            "sub": n.to_string(), "jti": n.to_string(), "sid": n.to_string(), "client_id": "app",
            "iat": now.as_secs(), "exp": now.as_secs() + 3600
        });
        Arc::new(profile.assert_verified(SignedClaims::new(claims.to_string().as_bytes())).unwrap())
    };
    (0..count).map(token).collect()
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).unwrap_or(0) * 1024
}

fn is_live(mirror: &Mirror, token: &Arc<VerifiedToken>) -> bool {
    matches!(mirror.check(token), Lookup::Now(Ok(Standing::Live)))
}

/// The five slowest look-ups, and how many there were, until `work` says that it is over.
fn slowest_looks(
    mirror: &Mirror,
    tokens: &[Arc<VerifiedToken>],
    work: impl FnOnce(&AtomicBool),
) -> ([Duration; 5], u64) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut slowest, mut looks) = ([Duration::ZERO; 5], 0u64);
            while !is_over.load(Ordering::Relaxed) {
                for token in tokens.iter().take(1000) {
                    let start = Instant::now();
                    black_box(is_live(mirror, token));
                    let took = start.elapsed();
                    if let Some(least) = slowest.iter_mut().min().filter(|least| took > **least) {
                        *least = took;
                    }
                    looks += 1;
                }
            }
            slowest.sort_unstable();
            (slowest, looks)
        });
        work(&is_over);
        reader.join().unwrap()
    })
}

fn main() {
    let entries =
        std::env::var("MIRROR_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _guard = runtime.enter();
    let many = tokens(100_000);
    let written = Arc::new(AtomicU64::new(0));

    let before = resident();
    let start = Instant::now();
    let feed = Numbers { entries, written: Arc::clone(&written), ..Numbers::default() };
    let mirror = Mirror::of(MemoryStore::new(), vec![feed]).start().unwrap();
    runtime.block_on(mirror.ready());
    let loaded = start.elapsed();
    let status = mirror.status();
    let per = |bytes: usize| bytes as f64 / status.entries as f64;
    println!("loaded {} in {loaded:?} (without the network)", status.entries);
    println!(
        "bytes each: {:.2} by its own account, {:.2} resident",
        per(status.bytes),
        per(resident().saturating_sub(before))
    );

    let mut criterion = Criterion::default().configure_from_args();
    let hot = many.first().unwrap();
    let targets = hot.targets().len();
    criterion.bench_function(&format!("check, {targets} targets, hot"), |b| {
        b.iter(|| black_box(is_live(&mirror, black_box(hot))));
    });
    let mut next = many.iter().cycle();
    criterion.bench_function(&format!("check, {targets} targets, cold"), |b| {
        b.iter(|| black_box(is_live(&mirror, next.next().unwrap())));
    });
    // What a miss costs here: a walk through as many bytes, each step depending on the last.
    let words = (status.bytes / 8).next_power_of_two();
    let walk: Vec<u64> = (0..words as u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let mut at = 0u64;
    criterion.bench_function("one cache miss in as much memory", |b| {
        b.iter(|| {
            at ^= walk.get((at >> 20) as usize & (words - 1)).copied().unwrap_or(0);
            at = (at ^ (at >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(1);
            black_box(at)
        });
    });
    drop(walk);

    // Twice as many are written while one reader looks all the time. What the scheduler takes away
    // is measured the same way beforehand, with nobody writing.
    let (alone, _) = slowest_looks(&mirror, &many, |is_over| {
        std::thread::sleep(Duration::from_secs(3));
        is_over.store(true, Ordering::Relaxed);
    });
    let (slowest, looks) = slowest_looks(&mirror, &many, |is_over| {
        let start = Instant::now();
        written.store(entries, Ordering::SeqCst);
        let mut status = mirror.watch_status();
        let is_done = |status: &MirrorStatus| status.applied() == entries;
        runtime.block_on(status.wait_for(is_done)).unwrap();
        println!("grew from {entries} to twice as many in {:?}", start.elapsed());
        is_over.store(true, Ordering::Relaxed);
    });
    println!(
        "of {looks} look-ups meanwhile the slowest took {slowest:?}; with nobody writing {alone:?}"
    );
    let status = mirror.status();
    println!("bytes each then: {:.2}", status.bytes as f64 / status.entries as f64);
    criterion.final_summary();
}
