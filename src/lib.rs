//! Tower middleware that verifies bearer JWTs and refuses the revoked ones, with the write side
//! that revokes them.
//!
//! [`JwtRevocationLayer`] wraps any Tower service. A request passes when
//!
//! 1. it has one token, in `Authorization: Bearer …` unless you say otherwise;
//! 2. the [`TokenVerifier`](token::TokenVerifier) accepts it: signature, times, issuer, audience
//!    and all other claims;
//! 3. the [`RevocationStore`](store::RevocationStore) knows that none of the targets of the token
//!    is revoked: the token itself, its session, device, family, user, client, signing key, issuer,
//!    or a claim of your choice.
//!
//! It then carries a [`Clearance`]. What happens otherwise:
//!
//! | | [`FailMode::Closed`] (default) | [`FailMode::Open`] |
//! | --- | --- | --- |
//! | no token | 401 | 401 |
//! | credentials that cannot be read, or two that differ | 400 | 400 |
//! | invalid, expired or revoked token | 401 | 401 |
//! | the keys of the issuer are out of reach | 503 | 503 |
//! | more checks at once than allowed, or a process that stalls | 503 | 503 |
//! | the store gives no answer | 503 | passes, [`Clearance::is_checked`] is false |
//! | the store has lost revocations, and the token was issued before the loss | 401: sign in again | passes, [`Clearance::is_checked`] is false |
//!
//! gRPC requests are told `UNAUTHENTICATED` for 401 and 400, and `UNAVAILABLE` for 503.
//!
//! # Example
//!
//! ```
//! # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
//! # mod example {
//! use http::{Request, Response, StatusCode};
//! use jsonwebtoken::{EncodingKey, Header, encode};
//! use tower::{Layer as _, ServiceExt as _, service_fn};
//! use tower_jwt_revocation::clock::Timestamp;
//! use tower_jwt_revocation::{
//!     Algorithm, JwtRevocationLayer, JwtVerifier, MemoryStore, Target, TokenProfile,
//!     VerificationKey,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = b"an example secret, 32 bytes or more";
//! let key = VerificationKey::from_secret(Algorithm::HS256, secret)?;
//! let verifier = JwtVerifier::new([key], TokenProfile::new())?;
//! let layer = JwtRevocationLayer::new(verifier, MemoryStore::new());
//! let revoker = layer.revoker();
//! let service = layer.layer(service_fn(|_: Request<String>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(String::from("hello")))
//! }));
//!
//! // A token, from whoever mints yours.
//! let now = Timestamp::now().as_secs();
//! let claims =
//!     serde_json::json!({"sub": "alice", "jti": "token-1", "iat": now, "exp": now + 600});
//! let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)?)?;
//! let bearer = format!("Bearer {token}");
//! let request = || Request::get("/").header("authorization", &bearer).body(String::new());
//!
//! assert_eq!(service.clone().oneshot(request()?).await?.status(), StatusCode::OK);
//! revoker.revoke(Target::token("token-1")).reason("logout").await?;
//! assert_eq!(service.clone().oneshot(request()?).await?.status(), StatusCode::UNAUTHORIZED);
//! # Ok(()) }
//! # }
//! # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
//! # example::main().unwrap();
//! ```
//!
//! With Redis, shared by all processes:
//!
//! ```no_run
//! # #[cfg(feature = "redis")]
//! # async fn f(
//! #     verifier: tower_jwt_revocation::JwtVerifier,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use tower_jwt_revocation::{JwtRevocationLayer, RedisStore};
//!
//! let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
//! let layer = JwtRevocationLayer::new(verifier, store);
//! # Ok(()) }
//! ```
//!
//! # Where things are
//!
//! | | |
//! | --- | --- |
//! | [`JwtRevocationLayer`], [`middleware`] | the layer, and how refusals are answered |
//! | [`Revoker`], [`Target`], [`Extent`] | the write side: what to revoke, and how much of it |
//! | [`JwtVerifier`], [`token`] | keys, and the [rules for claims](token::TokenProfile) |
//! | [`RedisStore`], [`MemoryStore`], [`store`] | where revocations are kept, and how to bring a store of your own |
//! | [`Mirror`], [`CachedVerifier`] | decisions from memory: of revocations with a proved staleness, of signatures |
//! | [`session`], [`token::issue`] | logins, refresh tokens and devices; access tokens (features `sessions`, `issuer`) |
//! | [`endpoints`] | what identity providers and OAuth clients send: revocation, introspection, logout tokens, security events (feature `endpoints`) |
//! | [`audit`] | who revoked what, and who was refused |
//! | [`store::redis::foreign`] | lists of revoked tokens that other programs keep in the same Redis (feature `redis`) |
//! | [`Clearance`], [`Rejection`], [`counters`] | what became of a request |
//! | [`metrics`] | all numbers for monitoring |
//!
//! # Scope of this crate
//!
//! It decides whether a token may pass. It does not decide what its bearer may do (scopes, roles),
//! keeps no users or passwords, and serves no routes but the [`endpoints`] of standards. It does
//! not ask other servers about opaque tokens (RFC 7662).
// docs.rs has all features, and only there every link leads somewhere.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(
        feature = "redis",
        feature = "axum",
        feature = "endpoints",
        feature = "issuer",
        feature = "jwks",
        feature = "metrics",
        feature = "sessions",
        feature = "test-util",
        feature = "user-cache"
    )),
    allow(rustdoc::broken_intra_doc_links, reason = "what is not compiled in cannot be linked")
)]

pub mod audit;
pub mod clock;
mod config;
pub mod counters;
#[cfg(feature = "endpoints")]
pub mod endpoints;
mod error_chain;
mod gate;
pub mod metrics;
pub mod middleware;
pub mod mirror;
pub mod policy;
mod recently_revoked;
pub mod revocation;
pub mod revoker;
mod samples;
#[cfg(feature = "sessions")]
pub mod session;
pub mod store;
mod store_error;
mod stripes;
#[cfg(all(test, feature = "redis"))]
#[path = "../tests/support/mod.rs"]
mod support;
mod target;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod token;
mod verified;

// What a first day needs. Everything else has one path, through its module.
pub use config::ConfigError;
pub use middleware::{JwtRevocationLayer, LayerConfig};
pub use mirror::Mirror;
pub use policy::{Clearance, FailMode, Rejection};
pub use revocation::{Extent, Target};
pub use revoker::Revoker;
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use store::redis::{RedisConfig, RedisStore};
pub use token::cache::CachedVerifier;
#[cfg(feature = "issuer")]
pub use token::issue::TokenIssuer;
pub use token::jwt::{JwtVerifier, VerificationKey};
pub use token::{Algorithm, TokenProfile, VerifierConfig};
pub use verified::VerifiedToken;

// The documents, so that what they show compiles.
#[cfg(all(
    doctest,
    feature = "aws_lc_rs",
    feature = "axum",
    feature = "endpoints",
    feature = "fred-config",
    feature = "issuer",
    feature = "jwks",
    feature = "redis",
    feature = "rustls",
    feature = "sessions",
    feature = "test-util"
))]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/configuration.md")]
    struct Configuration;
    #[doc = include_str!("../docs/production.md")]
    struct Production;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/recipes.md")]
    struct Recipes;
    #[doc = include_str!("../docs/endpoints.md")]
    struct Endpoints;
    #[doc = include_str!("../docs/coming_from.md")]
    struct ComingFrom;
}
