//! Any text as a token, and any claims as if they were signed: `cargo +nightly fuzz run token`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tower_jwt_revocation::clock::{Clock, Timestamp};
use tower_jwt_revocation::token::{SignedClaims, TokenVerifier};
use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenProfile, VerificationKey};

static VERIFIER: LazyLock<JwtVerifier> = LazyLock::new(|| {
    let key = VerificationKey::from_secret(Algorithm::HS256, &[7; 32]).expect("a good key");
    JwtVerifier::new([key], TokenProfile::new().with_clock(Stopped)).expect("a good profile")
});

/// The same time in each run, so that a finding can be repeated.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_700_000_000)
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(token) = std::str::from_utf8(data) {
        assert!(VERIFIER.verify(token).is_err(), "nobody can guess a signature");
        assert!(VERIFIER.verify_for_revocation(token).is_err(), "nobody can guess a signature");
    }
    if let Ok(token) = VERIFIER.profile().assert_verified(SignedClaims::new(data)) {
        assert!(token.id().is_some_and(|id| !id.is_empty()));
        assert!(token.issued_at().is_some());
    }
});
