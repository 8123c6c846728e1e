//! What was confirmed holds for as long as it was said to: until the tokens that it covers are
//! refused anyway.

use std::sync::Arc;
use std::time::Duration;

use tower_jwt_revocation::clock::{Clock as _, ManualClock, Timestamp};
use tower_jwt_revocation::revocation::{Outcome, TargetKind};
use tower_jwt_revocation::store::{RevocationStore as _, Standing, StoreErrorKind};
use tower_jwt_revocation::token::{SignedClaims, TokenError, TokenVerifier};
use tower_jwt_revocation::{
    Extent, JwtRevocationLayer, MemoryStore, Revoker, Target, TokenProfile, VerifiedToken,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store and a revoker by the same clock, which starts long after 1970.
fn begin(profile: TokenProfile) -> (ManualClock, MemoryStore, Revoker) {
    let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
    let store = MemoryStore::new().with_clock(clock.clone());
    let revoker = Revoker::new(store.clone(), profile).unwrap();
    (clock, store, revoker)
}

/// A token that was issued just now and is accepted now, signed with the key `k`.
fn fresh(profile: &TokenProfile, now: Timestamp) -> Arc<VerifiedToken> {
    let claims = serde_json::json!({
        "iss": "https://id.example", "sub": "alice", "jti": format!("t{now}"), "iat": now.as_secs(),
        "exp": now.as_secs() + 600, "device_id": "d", "tenant": "acme",
        "client_id": "c", "sid": "s",
    });
    let claims = claims.to_string();
    let signed = SignedClaims::new(claims.as_bytes()).with_key_id(Some("k"));
    let profile = profile.clone().with_clock(ManualClock::new(now));
    Arc::new(profile.assert_verified(signed).unwrap())
}

async fn is_live(store: &MemoryStore, token: &Arc<VerifiedToken>) -> bool {
    matches!(store.check(token).answer().await, Ok(Standing::Live))
}

/// Has the store forget what it may forget, by making it grow.
async fn sweep(revoker: &Revoker) {
    for n in 0..64 {
        revoker.revoke(Target::token(format!("filler {n}"))).await.unwrap();
    }
}

#[tokio::test]
async fn all_of_what_goes_on_stays_revoked_until_it_is_reinstated() {
    let profile = TokenProfile::new().with_claim_target("tenant", TargetKind::Claim);
    for target in [
        Target::key("k"),
        Target::user("alice"),
        Target::client("c"),
        Target::device("d"),
        Target::claim("tenant", "acme"),
        Target::issuer(""),
    ] {
        let (clock, store, revoker) = begin(profile.clone());
        revoker.revoke(target.clone()).extent(Extent::All).await.unwrap();
        clock.advance(DAY * 400);
        sweep(&revoker).await;
        let token = fresh(&profile, clock.now());
        assert!(!is_live(&store, &token).await, "{target}: a token of the thief, a year later");

        assert_eq!(revoker.reinstate(target.clone()).await.unwrap().outcome, Outcome::New);
        assert!(is_live(&store, &token).await, "{target} was reinstated");
    }
}

#[tokio::test]
async fn a_cutoff_in_the_future_outlives_the_tokens_that_it_covers() {
    let profile = TokenProfile::new();
    let (clock, store, revoker) = begin(profile.clone());
    let now = || clock.now();
    revoker
        .revoke(Target::user("alice"))
        .extent(Extent::IssuedUntil(now().saturating_add(DAY * 7)))
        .await
        .unwrap();
    clock.advance(DAY * 6);
    sweep(&revoker).await;
    assert!(!is_live(&store, &fresh(&profile, now())).await);
    clock.advance(DAY * 2);
    assert!(is_live(&store, &fresh(&profile, now())).await);
}

#[tokio::test]
async fn what_no_token_can_match_is_an_error_and_no_confirmation() {
    let (_, _, anonymous) = begin(TokenProfile::new());
    let (_, _, named) = begin(TokenProfile::new().with_issuer("https://id.example"));
    for (revoker, target) in [
        (&anonymous, Target::issuer("https://id.example")),
        (&named, Target::issuer("https://id.example/")),
        (&named, Target::issuer("")),
        (&anonymous, Target::claim("tenant", "acme")),
        (&named, Target::claim("sub", "alice")),
    ] {
        let error = revoker.revoke(target.clone()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidInput, "{target}");
        assert!(revoker.revoke_many([revoker.revoke(target)]).await.is_err());
    }
    anonymous.revoke(Target::issuer("")).await.unwrap();
    named.revoke(Target::issuer("https://id.example")).await.unwrap();
}

#[tokio::test]
async fn what_may_be_forgotten_can_still_be_reinstated() {
    let profile = TokenProfile::new();
    let (clock, store, revoker) = begin(profile.clone());
    revoker.revoke(Target::session("s")).await.unwrap();
    // Longer than the store promised to remember, and it has not been swept yet.
    clock.advance(DAY * 2);
    let token = fresh(&profile, clock.now());
    revoker.reinstate(Target::session("s")).await.unwrap();
    assert!(revoker.find(Target::session("s")).await.unwrap().is_none());
    assert!(
        is_live(&store, &token).await,
        "neither found nor to be reinstated, and refused all the same"
    );
}

#[tokio::test]
async fn saying_when_a_token_ends_never_shortens_what_is_known() {
    let profile = TokenProfile::new();
    let (clock, store, revoker) = begin(profile.clone());
    let now = clock.now();
    let token = fresh(&profile, now);
    // The times of tokens are in seconds, and one who takes them for milliseconds is in 1970.
    revoker
        .revoke_token(&token)
        .until(Timestamp::from_millis(token.expires_at().as_secs()))
        .await
        .unwrap();
    assert!(!is_live(&store, &token).await);
}

/// A verifier whose author forgot to validate the profile.
struct Careless(TokenProfile);

impl TokenVerifier for Careless {
    fn verify(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        unreachable!("not asked")
    }

    fn verify_for_revocation(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        unreachable!("not asked")
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn a_profile_that_nobody_validated_lets_no_token_outlive_its_revocation() {
    let profile = TokenProfile::new().with_leeway(DAY).with_max_lifetime(Duration::MAX);
    let (clock, store, _) = begin(TokenProfile::new());
    let now = clock.now();
    let revoker = JwtRevocationLayer::new(Careless(profile.clone()), store.clone()).revoker();
    revoker.revoke(Target::user("alice")).await.unwrap();

    let token = fresh(&profile, now);
    revoker.revoke_token(&token).await.unwrap();
    let record = revoker.find(Target::token(token.id().unwrap())).await.unwrap().unwrap();
    assert!(
        profile.with_clock(ManualClock::new(record.until())).check_times(&token).is_err(),
        "accepted after it was forgotten"
    );
}

/// Refresh tokens outlive access tokens, and so must what ends them, whichever part of the program
/// says so.
#[cfg(feature = "sessions")]
#[tokio::test]
async fn who_is_logged_out_through_the_layer_stays_so_for_as_long_as_refresh_tokens_live() {
    use crate::support::WordVerifier;
    use tower_jwt_revocation::session::{RefreshPolicy, Sessions};

    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(WordVerifier::default(), store.clone());
    let (early, clone) = (layer.revoker(), layer.clone());
    let policy = RefreshPolicy::new().with_idle_lifetime(30 * DAY);
    let _sessions = Sessions::new(store, layer.revoker(), policy).unwrap();
    let begun = early.revoke(Target::user("before")).await.unwrap().at;
    for (n, revoker) in [early, layer.revoker(), clone.revoker()].into_iter().enumerate() {
        let alice = Target::user(format!("alice {n}"));
        revoker.revoke(alice.clone()).await.unwrap();
        let record = revoker.find(alice).await.unwrap().unwrap();
        assert!(
            record.until() >= begun.saturating_add(30 * DAY),
            "{n}: {} {begun}",
            record.until()
        );
        // A single token ends no refresh token, so it is remembered for as long as it may live
        // itself.
        let token = Target::token(format!("token {n}"));
        revoker.revoke(token.clone()).await.unwrap();
        let record = revoker.find(token).await.unwrap().unwrap();
        assert!(record.until() < begun.saturating_add(2 * DAY), "{n}: {} {begun}", record.until());
    }
}
