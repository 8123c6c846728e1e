//! Any text as a key or a set of keys:
//! `cargo +nightly fuzz run key_set fuzz/corpus/key_set tests/interop/providers`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_jwt_revocation::token::TokenVerifier;
use tower_jwt_revocation::token::jwt::KeySet;
use tower_jwt_revocation::{Algorithm, ConfigError, JwtVerifier, TokenProfile, VerificationKey};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::PS512];

fuzz_target!(|data: &[u8]| {
    let Ok(json) = std::str::from_utf8(data) else { return };
    if let Ok(key) = VerificationKey::from_jwk(json) {
        check(&key);
    }
    let own = [KeySet::from_jwk_set(json), KeySet::from_jwk_set_with(json, &ALGORITHMS)];
    let published =
        [KeySet::from_jwk_set_lenient(json), KeySet::from_jwk_set_lenient_with(json, &ALGORITHMS)];
    for set in published.iter().flatten() {
        for key in set.keys() {
            let algorithm = key.algorithm().as_str();
            assert!(!algorithm.starts_with("HS"), "a published secret is none");
        }
    }
    if let ([Ok(strict), _], [lenient, _]) = (&own, &published) {
        let secrets = |key: &&VerificationKey| key.algorithm().as_str().starts_with("HS");
        let skipped = strict.keys().iter().filter(secrets).count();
        let left = lenient.as_ref().map_or(0, |set| set.keys().len());
        assert_eq!(strict.keys().len() - skipped, left, "what is strict is lenient, too");
    }
    own.into_iter().chain(published).for_each(verify);
});

fn check(key: &VerificationKey) {
    assert!(key.kid().is_none_or(|kid| !kid.is_empty()));
}

fn verify(set: Result<KeySet, ConfigError>) {
    let Ok(set) = set else { return };
    assert!(!set.keys().is_empty());
    set.keys().iter().for_each(check);
    let Ok(verifier) = JwtVerifier::new(set, TokenProfile::new()) else { return };
    // {"alg":"RS256","kid":"a"}
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.e30.AAAA";
    assert!(verifier.verify(token).is_err(), "nobody can guess a signature");
}
