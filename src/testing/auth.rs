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

/// Issuer, verifier, layer, store and clock for the tests of an application.
///
/// Its tokens are JWTs that are verified like any others, and revoked ones are refused. Only the
/// key is made up, the store is in memory, and the clock stands still until you move it. Clones
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
    /// A `TestAuth` with the default rules for claims: any issuer and audience is accepted.
    ///
    /// # Panics
    /// If the crate was compiled without cryptography (features `aws_lc_rs`, `rust_crypto`).
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it panics, and each one is another")]
    pub fn new() -> Self {
        Self::with_profile(TokenProfile::new())
    }

    /// A `TestAuth` with the rules for claims of the application. The clock of the profile is
    /// replaced by that of the test.
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

    /// A token with these claims: anything that serializes to a JSON object, such as
    /// `json!({"sub": "alice"})`.
    ///
    /// Missing claims that every token needs are added: an id (`jti`) of its own, `iat` and `exp`
    /// by the [clock](Self::clock), valid for ten minutes, and `iss` and `aud` if the profile
    /// requires them. A claim that is `null` is left out: `json!({"jti": null})` is a token without
    /// an id. `json!({"exp": 0})` is an expired one.
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

    /// Revokes this token. For users, sessions, keys and so on use [`revoker`](Self::revoker).
    ///
    /// # Panics
    /// If the store gives no answer, or the token is not one of these.
    #[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
    pub async fn revoke(&self, token: &str) {
        self.revoker().revoke_raw_token(&self.verifier, token).await.expect("a revocation");
    }

    /// A layer that accepts its tokens, with the default settings. Give it the settings of the
    /// application, such as `with_fail_mode`. All layers of one `TestAuth` have the same store and
    /// counters.
    pub fn layer(&self) -> JwtRevocationLayer {
        self.layer.clone()
    }

    /// The write side of the [layer](Self::layer).
    pub fn revoker(&self) -> Revoker {
        self.layer.revoker()
    }

    /// The verifier of its tokens, for an application that makes its layer itself.
    pub fn verifier(&self) -> JwtVerifier {
        self.verifier.clone()
    }

    /// The store. It also keeps sessions (feature `sessions`), and can fail in more ways than
    /// [`down`](Self::down) and [`slow`](Self::slow).
    pub fn store(&self) -> ScriptedStore {
        self.store.clone()
    }

    /// The clock of issuer, verifier and store. It begins at this second, and stands still. Give it
    /// to a `TokenIssuer` and other parts of the application that have a clock.
    pub fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    /// From now on: the store gives no answer, for checks and for writes, as when Redis cannot be
    /// reached.
    pub fn down(&self) {
        self.store.fail(StoreErrorKind::Unreachable);
    }

    /// From now on: every answer is late by `delay`. From 50 ms on checks fail, as with Redis: see
    /// [`ScriptedStore::answer_after`].
    pub fn slow(&self, delay: Duration) {
        self.store.answer_after(delay);
    }

    /// From now on: the store answers at once, as at the start. What it has lost stays lost.
    pub fn up(&self) {
        self.store.answer();
    }

    /// The store loses all data, as after `FLUSHALL`: earlier tokens are in doubt, later ones are
    /// not. See [`ScriptedStore::lose_data`].
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
