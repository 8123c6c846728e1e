//! [`TestAuth`]: all that a test of an application needs, in one.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use crate::clock::{Clock as _, ManualClock, Timestamp};
use crate::middleware::JwtRevocationLayer;
use crate::revoker::Revoker;
use crate::store::StoreErrorKind;
use crate::store::scripted::ScriptedStore;
use crate::token::jwt::{JwtVerifier, VerificationKey};
use crate::token::sample::sample_claims;
use crate::token::{Algorithm, TokenProfile};

/// Issuer, verifier, layer, store and clock of a test, which belong together.
///
/// Its tokens are JWTs that are verified as any other, and what is revoked is refused as ever; only
/// the key is made up, the store is in memory, and the clock stands still until it is moved. Clones
/// share everything.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use serde_json::json;
/// use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_jwt_revocation::testing::TestAuth;
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let auth = TestAuth::new();
/// // In the place of this service: your application, around which its layer is put.
/// let app = auth.layer().layer(service_fn(|_: Request<String>| async {
///     Ok::<_, std::convert::Infallible>(Response::new(String::new()))
/// }));
/// let call = |token: &str| {
///     let request = Request::get("/").header("authorization", format!("Bearer {token}"));
///     let answer = app.clone().oneshot(request.body(String::new()).unwrap());
///     async { answer.await.unwrap().status() }
/// };
///
/// let alice = auth.token(json!({"sub": "alice", "role": "admin"}));
/// assert_eq!(call(&alice).await, StatusCode::OK);
/// auth.revoke(&alice).await;
/// assert_eq!(call(&alice).await, StatusCode::UNAUTHORIZED);
///
/// let bob = auth.token(json!({"sub": "bob"}));
/// auth.down();
/// assert_eq!(call(&bob).await, StatusCode::SERVICE_UNAVAILABLE);
/// # }
/// # #[cfg(not(any(feature = "aws_lc_rs", feature = "rust_crypto")))] fn main() {}
/// ```
#[doc(alias = "mock")]
#[doc(alias = "fake")]
#[derive(Clone)]
pub struct TestAuth {
    secret: [u8; 64],
    clock: ManualClock,
    store: ScriptedStore,
    verifier: JwtVerifier,
    layer: JwtRevocationLayer,
    profile: TokenProfile,
    /// How many tokens it has issued.
    issued: Arc<AtomicU64>,
}

impl TestAuth {
    /// With the default rules for claims: any issuer and audience is accepted.
    ///
    /// # Panics
    /// If the crate was compiled without cryptography (features `aws_lc_rs`, `rust_crypto`).
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it panics, and each one is another")]
    pub fn new() -> Self {
        Self::with_profile(TokenProfile::new())
    }

    /// With the rules for claims that the application has. Its clock is another: that of the test.
    ///
    /// # Panics
    /// If the profile cannot work, or as [`new`](Self::new).
    #[track_caller]
    #[expect(clippy::expect_used, reason = "a test that cannot begin has failed")]
    pub fn with_profile(profile: TokenProfile) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(Timestamp::now().as_secs()));
        let profile = profile.with_clock(clock.clone());
        let mut secret = [0; 64];
        // Another key for each: a token of one is refused by all others.
        for part in secret.chunks_exact_mut(8) {
            part.copy_from_slice(&RandomState::new().hash_one("secret").to_ne_bytes());
        }
        let key = VerificationKey::from_secret(Algorithm::HS256, &secret)
            .expect("a provider of cryptography; enable the feature `aws_lc_rs` or `rust_crypto`");
        let verifier = JwtVerifier::new([key], profile.clone()).expect("a profile that can work");
        let store = ScriptedStore::new().with_clock(clock.clone());
        let layer = JwtRevocationLayer::new(verifier.clone(), store.clone());
        Self { secret, clock, store, verifier, layer, profile, issued: Arc::default() }
    }

    /// A token with these claims: anything that becomes a JSON object, such as
    /// `json!({"sub": "alice"})`.
    ///
    /// What every token needs is added if it is not given: an id (`jti`) of its own, `iat` and
    /// `exp` by the [clock](Self::clock), valid for ten minutes, and `iss` and `aud` if the profile
    /// wants them. A claim that is `null` is left out, so `json!({"jti": null})` is a token without
    /// an id, and `json!({"exp": 0})` one that has expired.
    ///
    /// # Panics
    /// If the claims are not a JSON object.
    #[track_caller]
    #[expect(clippy::panic, reason = "a test that asks for what cannot be has failed")]
    pub fn token(&self, claims: impl Serialize) -> String {
        let id = format!("test-{}", self.issued.fetch_add(1, Ordering::Relaxed));
        let claims = sample_claims(&self.profile, &claims, self.clock.now(), &id)
            .unwrap_or_else(|problem| panic!("{problem}"));
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let header = br#"{"alg":"HS256","typ":"at+jwt"}"#;
        let claims = serde_json::Value::Object(claims).to_string();
        let text = format!("{}.{}", encode(header), encode(claims.as_bytes()));
        let signature = Hmac::<Sha256>::new(&self.secret.into()).chain_update(&text).finalize();
        format!("{text}.{}", encode(&signature.into_bytes()))
    }

    /// Revokes this token. More by [`revoker`](Self::revoker): users, sessions, keys.
    ///
    /// # Panics
    /// If the store gives no answer, or the token is not one of these.
    #[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
    pub async fn revoke(&self, token: &str) {
        self.revoker().revoke_raw_token(&self.verifier, token).await.expect("a revocation");
    }

    /// A layer that accepts its tokens; closed, as by default. Give it the settings of the
    /// application, such as `with_fail_mode`. All of them have the same store and counters.
    pub fn layer(&self) -> JwtRevocationLayer {
        self.layer.clone()
    }

    /// The write side of the [layer](Self::layer).
    pub fn revoker(&self) -> Revoker {
        self.layer.revoker()
    }

    /// What verifies its tokens, for an application that puts its layer together by itself.
    pub fn verifier(&self) -> JwtVerifier {
        self.verifier.clone()
    }

    /// The store, which also keeps sessions (feature `sessions`), and can do more than
    /// [`down`](Self::down) and [`slow`](Self::slow).
    pub fn store(&self) -> ScriptedStore {
        self.store.clone()
    }

    /// The clock of issuer, verifier and store. It begins at this second, and stands still. The
    /// clock of a `TokenIssuer` and of other parts of the application is to be set to it by hand.
    pub fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// From now on: the store gives no answer, as when Redis cannot be reached, for checks and for
    /// writes.
    pub fn down(&self) {
        self.store.fail(StoreErrorKind::Unreachable);
    }

    /// From now on: every answer comes so much later. From 50 ms on checks fail, as with Redis:
    /// see [`ScriptedStore::answer_after`].
    pub fn slow(&self, delay: Duration) {
        self.store.answer_after(delay);
    }

    /// From now on: the store answers at once, as in the beginning. What it has lost stays lost.
    pub fn up(&self) {
        self.store.answer();
    }

    /// The store loses everything, as after `FLUSHALL`: tokens from before are in doubt, later ones
    /// are not. See [`ScriptedStore::lose_data`].
    pub fn lose_data(&self) {
        self.store.lose_data();
    }
}

impl fmt::Debug for TestAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestAuth")
            .field("store", &self.store)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
