//! HTTP endpoints for what identity providers and OAuth clients send (feature `endpoints`).
//!
//! Each [`Endpoint`] is a [`tower::Service`] over `http`, for any body: mount it under a path of
//! your choice, in axum with `route_service`.
//!
//! | | |
//! | --- | --- |
//! | [`Endpoint::token_revocation`] | OAuth 2.0 Token Revocation (RFC 7009) |
//! | [`Endpoint::introspection`] | OAuth 2.0 Token Introspection (RFC 7662) |
//! | [`Endpoint::refresh`] | the refresh grant of a token endpoint (RFC 6749 §6) |
//! | [`LogoutReceiver`] | `OpenID` Connect Back-Channel Logout 1.0 |
//! | [`EventReceiver`] | security events that are pushed (RFC 8935): CAEP 1.0, RISC 1.0 |
//! | `EventPoller` | the same events, polled for (RFC 8936); with feature `jwks` |
//! | [`SecurityEventIssuer`] | security events of your own, made and signed (RFC 8417) |
//! | [`Endpoint::global_token_revocation`] | Global Token Revocation (Okta Universal Logout) |
//! | [`Endpoint::jwks`], [`Endpoint::document`] | the keys of an issuer (RFC 7517), metadata (RFC 8414, RFC 9728) |
//! | [`ReplayGuard`] | remembers the `jti` of what was carried out |
//!
//! An endpoint acknowledges only what the store has confirmed. Otherwise it answers 503 with
//! `Retry-After`, and the request may be sent again: carrying it out twice changes nothing. No
//! answer may be cached, and a body of more than 64 KiB is refused unread.
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # fn f(
//! #     layer: tower_jwt_revocation::JwtRevocationLayer,
//! #     store: tower_jwt_revocation::MemoryStore,
//! #     provider: tower_jwt_revocation::JwtVerifier,
//! # ) -> Result<axum::Router, tower_jwt_revocation::ConfigError> {
//! use tower_jwt_revocation::endpoints::{LogoutReceiver, ReplayGuard};
//!
//! // `provider` verifies the tokens of the identity provider, with its issuer and our client id.
//! let logout = LogoutReceiver::new(layer.revoker(), ReplayGuard::new(store)).with(provider)?;
//! let router = axum::Router::new().route_service("/backchannel-logout", logout.into_endpoint());
//! # Ok(router) }
//! ```

mod answer;
mod bearer_secret;
mod client;
mod endpoint;
mod events;
mod global;
mod introspection;
mod logout;
mod metadata;
#[cfg(feature = "jwks")]
mod poll;
mod refresh;
mod replay;
mod request;
mod revocation;
mod signed;
mod subject;
mod transmit;

pub use client::ClientAuth;
pub use endpoint::{Endpoint, EndpointBody};
pub use events::{EventReceiver, SecurityEvent};
#[cfg(any(test, feature = "test-util"))]
pub(crate) use logout::LOGOUT_EVENT;
pub use logout::LogoutReceiver;
#[cfg(feature = "jwks")]
pub use poll::EventPoller;
pub use replay::ReplayGuard;
pub use subject::SubjectRevoker;
pub use transmit::SecurityEventIssuer;

// Without a crypto provider nothing is signed.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod event_tests;
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod outage_tests;
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod transmit_tests;
