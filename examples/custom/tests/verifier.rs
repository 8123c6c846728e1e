//! Verifiers from outside, in a cache of the crate.

use std::sync::Arc;
use std::time::Duration;

use custom::verifier::{CountingRefusals, ReferenceTokens};
use tower_jwt_revocation::clock::{ManualClock, Timestamp};
use tower_jwt_revocation::token::{TokenErrorKind, TokenVerifier as _};
use tower_jwt_revocation::{CachedVerifier, TokenProfile};

const CLAIMS: &str = r#"{"sub": "alice", "jti": "1", "iat": 1000, "exp": 1600}"#;

#[test]
fn what_is_withdrawn_or_expired_is_refused_by_a_cache_around_a_wrapper() {
    let clock = ManualClock::new(Timestamp::from_secs(1000));
    let tokens = Arc::new(ReferenceTokens::new(TokenProfile::new().with_clock(clock.clone())));
    tokens.add("one", CLAIMS);
    tokens.add("other", CLAIMS);
    let verifier = CachedVerifier::new(CountingRefusals::new(Arc::clone(&tokens)));
    let kind = |token| verifier.verify(token).map(drop).map_err(|error| error.kind());
    for _ in 0..2 {
        assert_eq!((kind("one"), kind("other")), (Ok(()), Ok(())));
    }

    tokens.withdraw("one");
    assert_eq!((kind("one"), kind("other")), (Err(TokenErrorKind::Other), Ok(())));
    assert_eq!(verifier.inner().refused(), 1);

    clock.advance(Duration::from_secs(660));
    assert_eq!(kind("other"), Err(TokenErrorKind::Expired));
    clock.set(Timestamp::from_secs(1000));
    assert_eq!(kind("other"), Ok(()));
}
