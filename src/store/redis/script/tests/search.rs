//! Random inputs by several threads, of which each has a server of its own.

use super::*;
use proptest::test_runner::{RngSeed, TestError};
use std::fmt::Debug;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

/// One is in the test while the other waits for its server.
const THREADS: usize = 2;

/// What all threads take their inputs from.
struct Source {
    runner: TestRunner,
    taken: u32,
    /// The first input that was found to fail, and why. Nothing more is taken then.
    failed: Option<(u32, String)>,
}

/// Tests so many inputs, in the order in which [`TestRunner::run`] makes them of the same seed
/// (`PROPTEST_RNG_SEED`). How many threads there are changes nothing: the first input that fails is
/// made as small as can be, and told.
///
/// A thread keeps its own `lab` from one input to the next, also when a test has failed.
pub(super) fn search<L, S: Strategy<Value: Debug>>(
    inputs: u32,
    strategy: impl Fn() -> S + Sync,
    lab: impl Fn() -> L + Sync,
    test: impl Fn(&L, S::Value) + Sync,
) {
    let seed = match Config::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(()),
    };
    if let Some((n, error)) = first_failure(seed, inputs, strategy, lab, test) {
        panic!("input {n} of PROPTEST_RNG_SEED={seed}: {error}");
    }
}

fn first_failure<L, S: Strategy<Value: Debug>>(
    seed: u64,
    inputs: u32,
    strategy: impl Fn() -> S + Sync,
    lab: impl Fn() -> L + Sync,
    test: impl Fn(&L, S::Value) + Sync,
) -> Option<(u32, String)> {
    let config = config_of(seed);
    let runner = TestRunner::new(config.clone());
    let source = Mutex::new(Source { runner, taken: 0, failed: None });
    let source_of = || source.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        let (lab, strategy) = (lab(), strategy());
        loop {
            let mut source = source_of();
            if source.taken == inputs || source.failed.is_some() {
                return;
            }
            let n = source.taken;
            source.taken += 1;
            let rng = source.runner.new_rng();
            source.runner = TestRunner::new_with_rng(config.clone(), rng);
            let input = strategy.new_tree(&mut source.runner).unwrap();
            drop(source);
            let mut runner = TestRunner::new(config.clone());
            let result = runner.run_one(input, |input| {
                test(&lab, input);
                Ok(())
            });
            let Err(error) = result else { continue };
            let TestError::Fail(..) = error else { panic!("{error}") };
            let mut source = source_of();
            if source.failed.as_ref().is_none_or(|(first, _)| n < *first) {
                source.failed = Some((n, error.to_string()));
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let name = format!("search {thread}");
            std::thread::Builder::new().name(name).spawn_scoped(scope, work).unwrap();
        }
    });
    source_of().failed.take()
}

fn config_of(seed: u64) -> Config {
    Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}

#[test]
fn threads_test_what_one_runner_would_and_tell_the_first_failure() {
    const SEED: u64 = 7;
    let strategy = || prop::collection::vec(0..1000_u32, 1..5);
    let seen = RefCell::new(Vec::new());
    let mut runner = TestRunner::new(Config { cases: 200, ..config_of(SEED) });
    let keep = |input| {
        seen.borrow_mut().push(input);
        Ok(())
    };
    runner.run(&strategy(), keep).unwrap();
    let mut expected = seen.into_inner();
    let first = expected.iter().position(|input| input.iter().any(|n| *n >= 900)).unwrap();

    let seen = Mutex::new(Vec::new());
    let test = |(): &(), input| seen.lock().unwrap().push(input);
    assert_eq!(first_failure(SEED, 200, strategy, || (), test), None);
    let mut tested = seen.into_inner().unwrap();
    expected.sort();
    tested.sort();
    assert_eq!(tested, expected);

    let test = |(): &(), input: Vec<u32>| assert!(input.iter().all(|n| *n < 900), "too large");
    let (n, error) = first_failure(SEED, 200, strategy, || (), test).unwrap();
    assert_eq!(usize::try_from(n), Ok(first));
    assert!(error.contains("too large") && error.contains("[\n    900,\n]"), "{error}");
}
