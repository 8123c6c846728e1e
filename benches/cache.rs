//! What a token costs when it is seen for the first time, and what it costs when it is remembered.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark that cannot start has nothing to say"
)]

mod support;

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jsonwebtoken::Algorithm;
use support::{KEY_ID, hs256, payload, profile, rs256, verifier};
use tower_jwt_revocation::token::{SignedClaims, TokenVerifier as _};
use tower_jwt_revocation::{CachedVerifier, JwtVerifier};

fn first_sight(c: &mut Criterion) {
    for (name, keys) in [("hs256", hs256()), ("rs256", rs256())] {
        let mut group = c.benchmark_group(format!("first sight, {name}"));
        let token = keys.token(1);
        let validation = keys.validation();
        group.bench_function("signature alone", |b| {
            b.iter(|| keys.check_signature(black_box(&token)));
        });
        group.bench_function("jsonwebtoken::decode", |b| {
            b.iter(|| keys.decode(black_box(&token), &validation));
        });
        let verifier = verifier(&keys);
        group.bench_function("verify", |b| b.iter(|| verifier.verify(black_box(&token)).unwrap()));
        group.finish();
    }
    let payload = payload(&hs256().token(1));
    let profile = profile();
    c.bench_function("first sight, claims alone", |b| {
        b.iter(|| {
            let claims = SignedClaims::new(black_box(&payload)).with_key_id(Some(KEY_ID));
            profile.assert_verified(claims).unwrap()
        });
    });
}

fn hit(c: &mut Criterion) {
    for (name, keys) in [("hs256", hs256()), ("rs256", rs256())] {
        let mut group = c.benchmark_group(format!("hit, {name}"));
        // To sign 10 000 tokens by RSA takes longer than all measurements.
        let counts: &[usize] =
            if keys.algorithm == Algorithm::HS256 { &[1000, 10_000] } else { &[1000] };
        let tokens: Vec<_> = (0..counts[counts.len() - 1]).map(|n| keys.token(n)).collect();
        let verifier = CachedVerifier::new(verifier(&keys));
        let one = &tokens[0];
        for _ in 0..20 {
            verifier.verify(one).unwrap();
        }
        group.bench_function("one token", |b| b.iter(|| verifier.verify(black_box(one)).unwrap()));
        for &count in counts {
            let tokens = &tokens[..count];
            tokens
                .iter()
                .cycle()
                .take(20 * tokens.len())
                .for_each(|token| drop(verifier.verify(token).unwrap()));
            let mut next = 0;
            let verifier = &verifier;
            // What any cache pays: to read the token.
            group.bench_function(BenchmarkId::new("copies of tokens", count), |b| {
                b.iter(|| {
                    next = (next + 7919) % count;
                    black_box(&tokens[next]).clone()
                });
            });
            // A step that is prime to the count, so that neighbours in memory are not neighbours in
            // time.
            group.bench_function(BenchmarkId::new("tokens", count), |b| {
                b.iter(|| {
                    next = (next + 7919) % count;
                    verifier.verify(black_box(&tokens[next])).unwrap()
                });
            });
        }
        for (what, threads, tokens) in [
            ("one token, one thread", 1, [one, one]),
            ("one token, two threads", 2, [one, one]),
            ("two tokens, two threads", 2, [one, &tokens[1]]),
        ] {
            group.bench_function(what, |b| {
                b.iter_custom(|rounds| together(threads, rounds, &verifier, tokens));
            });
        }
        group.finish();
    }
}

/// The time that each of some threads takes for so many rounds, all at once.
fn together(
    threads: usize,
    rounds: u64,
    verifier: &CachedVerifier<JwtVerifier>,
    tokens: [&String; 2],
) -> Duration {
    let start = Barrier::new(threads);
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let (start, token) = (&start, tokens[thread]);
                scope.spawn(move || {
                    start.wait();
                    let begin = Instant::now();
                    for _ in 0..rounds {
                        drop(black_box(verifier.verify(black_box(token)).unwrap()));
                    }
                    begin.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    times.into_iter().sum::<Duration>() / u32::try_from(threads).unwrap()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50);
    targets = hit, first_sight
}
criterion_main!(benches);
