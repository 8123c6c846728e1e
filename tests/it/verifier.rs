//! Verifiers of others, written with the public API alone: one with keys that change, one around
//! another, and those that break their contract.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, StatusCode};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::clock::{ManualClock, Timestamp};
use tower_jwt_revocation::revoker::RevokeError;
use tower_jwt_revocation::token::{
    IssuerSet, SignedClaims, TokenError, TokenErrorKind, TokenVerifier,
};
use tower_jwt_revocation::{
    CachedVerifier, JwtRevocationLayer, MemoryStore, Revoker, TokenProfile, VerifiedToken,
};

use crate::support::Handler;

const NOW: u64 = 1_700_000_000;

/// A verifier whose one key is a word at the end of the token, and can be changed.
struct Rotating {
    word: Mutex<String>,
    generation: AtomicU64,
    verified: AtomicU64,
    profile: TokenProfile,
}

impl Rotating {
    fn new(profile: TokenProfile) -> Arc<Self> {
        Arc::new(Self {
            word: Mutex::new("old".to_owned()),
            generation: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            profile,
        })
    }

    fn withdraw_the_old_key(&self) {
        "new".clone_into(&mut self.word.lock().unwrap());
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// How many tokens were verified since this was last called.
    fn verified(&self) -> u64 {
        self.verified.swap(0, Ordering::SeqCst)
    }

    fn open(&self, token: &str) -> Result<Vec<u8>, TokenError> {
        self.verified.fetch_add(1, Ordering::SeqCst);
        let word = self.word.lock().unwrap();
        let signed = token.strip_suffix(&**word).and_then(|signed| signed.strip_suffix('.'));
        let payload = signed
            .and_then(|signed| signed.split('.').nth(1))
            .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        payload.ok_or(TokenError::new(TokenErrorKind::BadSignature, "the word does not fit"))
    }
}

impl TokenVerifier for Rotating {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let payload = self.open(token)?;
        self.profile.assert_verified(SignedClaims::new(&payload)).map(Arc::new)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let payload = self.open(token)?;
        self.profile.assert_verified_for_revocation(SignedClaims::new(&payload)).map(Arc::new)
    }

    fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
}

/// A verifier around another one: what the compiler asks for, and no more.
struct Wrapper<V>(V);

impl<V: TokenVerifier> TokenVerifier for Wrapper<V> {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.0.verify(token)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.0.verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        self.0.profile()
    }

    fn generation(&self) -> u64 {
        self.0.generation()
    }
}

/// A verifier that makes its tokens by other rules than those of its profile.
struct Deviating {
    inner: Arc<Rotating>,
    profile: TokenProfile,
}

impl TokenVerifier for Deviating {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.inner.verify(token)
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.inner.verify_for_revocation(token)
    }

    fn profile(&self) -> &TokenProfile {
        &self.profile
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }
}

fn token(claims: &serde_json::Value) -> String {
    format!("header.{}.old", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn usual_token() -> String {
    token(&json!({ "sub": "alice", "jti": "1", "iat": NOW, "exp": NOW + 600 }))
}

fn at_now() -> ManualClock {
    ManualClock::new(Timestamp::from_secs(NOW))
}

fn kind(verifier: &impl TokenVerifier, token: &str) -> Result<(), TokenErrorKind> {
    verifier.verify(token).map(drop).map_err(|error| error.kind())
}

async fn status(layer: &JwtRevocationLayer, token: &str) -> StatusCode {
    let request = Request::builder().header("authorization", format!("Bearer {token}"));
    layer.layer(Handler).oneshot(request.body(()).unwrap()).await.unwrap().status()
}

#[tokio::test]
async fn a_wrapper_in_a_cache_refuses_a_token_after_its_key_was_withdrawn() {
    let inner = Rotating::new(TokenProfile::new().with_clock(at_now()));
    let verifier = Arc::new(CachedVerifier::new(Wrapper(Arc::clone(&inner))));
    let layer = JwtRevocationLayer::new(Arc::clone(&verifier), MemoryStore::new());
    for _ in 0..3 {
        assert_eq!(kind(&verifier, &usual_token()), Ok(()));
        assert_eq!(status(&layer, &usual_token()).await, StatusCode::OK);
    }
    assert_eq!(inner.verified(), 1, "the cache works");
    inner.withdraw_the_old_key();
    assert_eq!(kind(&verifier, &usual_token()), Err(TokenErrorKind::BadSignature));
    assert_eq!(status(&layer, &usual_token()).await, StatusCode::UNAUTHORIZED);
}

#[test]
fn a_wrapper_around_a_cache_refuses_a_token_after_its_key_was_withdrawn() {
    let inner = Rotating::new(TokenProfile::new().with_clock(at_now()));
    let verifier = CachedVerifier::new(Wrapper(CachedVerifier::new(Arc::clone(&inner))));
    assert_eq!(kind(&verifier, &usual_token()), Ok(()));
    inner.withdraw_the_old_key();
    assert_eq!(kind(&verifier, &usual_token()), Err(TokenErrorKind::BadSignature));
}

#[test]
fn a_wrapper_in_a_cache_checks_times_by_the_clock_of_the_inner_verifier() {
    let clock = at_now();
    let inner = Rotating::new(TokenProfile::new().with_clock(clock.clone()));
    let verifier = CachedVerifier::new(Wrapper(Arc::clone(&inner)));
    assert_eq!(kind(&verifier, &usual_token()), Ok(()));
    clock.advance(Duration::from_secs(659));
    assert_eq!(kind(&verifier, &usual_token()), Ok(()), "within the leeway");
    clock.advance(Duration::from_secs(1));
    assert_eq!(kind(&verifier, &usual_token()), Err(TokenErrorKind::Expired));
    clock.set(Timestamp::from_secs(NOW - 600));
    assert_eq!(kind(&verifier, &usual_token()), Err(TokenErrorKind::IssuedInFuture));
    clock.set(Timestamp::from_secs(NOW));
    assert_eq!(kind(&verifier, &usual_token()), Ok(()));
    assert_eq!(inner.verified(), 1, "the word was looked at once");
}

#[test]
fn wrappers_in_a_set_of_issuers_are_checked_by_their_own_clocks_and_keys() {
    let (early, late) = (at_now(), ManualClock::new(Timestamp::from_secs(NOW + 3600)));
    let of = |issuer: &str, clock: &ManualClock| {
        Rotating::new(TokenProfile::new().with_issuer(issuer).with_clock(clock.clone()))
    };
    let (one, other) = (of("https://one.example", &early), of("https://other.example", &late));
    let set = IssuerSet::new(Wrapper(Arc::clone(&one))).unwrap().with(Wrapper(other)).unwrap();
    let verifier = CachedVerifier::new(Wrapper(set));
    let from = |issuer: &str, iat: u64| {
        token(&json!({ "iss": issuer, "jti": "1", "iat": iat, "exp": iat + 600 }))
    };
    let of_one = from("https://one.example", NOW);
    let of_other = from("https://other.example", NOW + 3600);
    for _ in 0..2 {
        assert_eq!(kind(&verifier, &of_one), Ok(()));
        assert_eq!(kind(&verifier, &of_other), Ok(()));
    }
    late.advance(Duration::from_secs(660));
    assert_eq!(kind(&verifier, &of_one), Ok(()));
    assert_eq!(kind(&verifier, &of_other), Err(TokenErrorKind::Expired));
    one.withdraw_the_old_key();
    assert_eq!(kind(&verifier, &of_one), Err(TokenErrorKind::BadSignature));
}

/// The write side goes by the profile: a token that was made by another one could be without an
/// id, live for longer than revocations are kept, or have the ids of another issuer.
#[tokio::test]
async fn a_token_that_was_made_by_other_rules_than_those_of_the_profile_is_an_error() {
    let lax = || TokenProfile::new().with_clock(at_now());
    let strict = || lax().with_issuer("https://id.example").with_required_subject();
    for (made_by, profile) in [
        (lax(), strict()),
        (strict(), lax()),
        (lax().with_max_lifetime(Duration::from_secs(99 * 86_400)), lax()),
        (lax().with_id_claim("sub"), lax()),
        (lax().allow_missing_iat(), lax()),
    ] {
        let inner = Rotating::new(made_by);
        let deviating = || Deviating { inner: Arc::clone(&inner), profile: profile.clone() };
        let claims = json!({
            "iss": "https://id.example", "sub": "alice", "jti": "1", "iat": NOW, "exp": NOW + 600,
        });
        let token = token(&claims);
        inner.verify(&token).unwrap();

        let cached = CachedVerifier::new(deviating());
        for _ in 0..2 {
            assert_eq!(kind(&cached, &token), Err(TokenErrorKind::WrongProfile));
        }
        for layer in [
            JwtRevocationLayer::new(deviating(), MemoryStore::new()),
            JwtRevocationLayer::new(cached, MemoryStore::new()),
            JwtRevocationLayer::new(Wrapper(deviating()), MemoryStore::new()),
        ] {
            assert_eq!(status(&layer, &token).await, StatusCode::UNAUTHORIZED);
        }
        let revoker = Revoker::new(MemoryStore::new(), profile.clone()).unwrap();
        let error = revoker.revoke_raw_token(&deviating(), &token).await.unwrap_err();
        assert!(
            matches!(&error, RevokeError::Token(token)
                if token.kind() == TokenErrorKind::WrongProfile),
            "{error:?}"
        );
        assert_eq!(revoker.count().await.unwrap(), 0);
    }
}

#[test]
fn a_verifier_of_a_set_that_deviates_from_its_profile_is_an_error() {
    let issuer = "https://id.example";
    let profile = TokenProfile::new().with_issuer(issuer).with_clock(at_now());
    let inner = Rotating::new(profile.clone().with_id_claim("sub"));
    let token = token(&json!({
        "iss": issuer, "sub": "alice", "jti": "1", "iat": NOW, "exp": NOW + 600,
    }));
    inner.verify(&token).unwrap();
    let deviating = || Deviating { inner: Arc::clone(&inner), profile: profile.clone() };
    let of_tenant: Arc<dyn TokenVerifier> = Arc::new(deviating());
    let tenants = TokenProfile::new().with_issuer_pattern("https://{tenant}.example", |_| true);
    for set in [
        IssuerSet::new(deviating()).unwrap(),
        IssuerSet::of_tenants(tenants, move |_| Some(Arc::clone(&of_tenant))).unwrap(),
    ] {
        assert_eq!(kind(&set, &token), Err(TokenErrorKind::WrongProfile));
        let revoked = set.verify_for_revocation(&token);
        assert_eq!(revoked.unwrap_err().kind(), TokenErrorKind::WrongProfile);
    }
}
