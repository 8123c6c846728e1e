//! The set of a mirror under every order of steps of its threads, and every age of what they may
//! read: by loom.
//!
//! The sources are those of the crate, included by path; only `mirror::sync`, from which they take
//! what threads share, is another. What they name besides is stood in for here, as far as they need
//! it.
//!
//! It is its own harness: the unit tests at the ends of the included files belong to the crate.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::print_stdout, reason = "this binary is its own test harness")]
#![allow(
    dead_code,
    unfulfilled_lint_expectations,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "the included files serve the whole crate, and here a part of them is used"
)]

#[path = "../../src/revocation/fact.rs"]
mod fact;
mod mirror;

// What `fact` finds beside it in the crate.
use revocation::Fingerprint;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

mod clock {
    pub(crate) use tower_jwt_revocation::clock::Timestamp;
}

mod revocation {
    pub(crate) use crate::fact::{Fact, Spared, SparedTime};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Fingerprint(u128);

    impl Fingerprint {
        pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
            Self(u128::from_be_bytes(bytes))
        }

        #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
        pub(crate) const fn words(&self) -> (u64, u64) {
            ((self.0 >> 64) as u64, self.0 as u64)
        }
    }
}

mod verified {
    pub(crate) use tower_jwt_revocation::VerifiedToken;
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // What remains of the words that other harnesses know are parts of names.
    let filter: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let is_wanted =
        |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    let mut failed = 0;
    for (name, model) in mirror::models::MODELS.iter().filter(|(name, _)| is_wanted(name)) {
        if words.iter().any(|word| word == "--list") {
            println!("{name}: test");
            continue;
        }
        let start = Instant::now();
        let result = catch_unwind(model);
        failed += u32::from(result.is_err());
        let result =
            result.map_or_else(|_| "FAILED".to_owned(), |orders| format!("ok, {orders} orders"));
        println!("{name} ... {result}, {:.1} s", start.elapsed().as_secs_f64());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
