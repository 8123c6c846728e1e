//! What the measurements share.
#![allow(missing_docs, reason = "not a library that anyone would use")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the numbers are small"
)]

#[path = "../../support/mod.rs"]
pub mod support;

pub mod numbers;

#[cfg(any(feature = "peers", feature = "scale"))]
pub mod follower;
#[cfg(any(feature = "peers", feature = "scale"))]
pub mod machine;
#[cfg(any(feature = "peers", feature = "scale"))]
pub mod plot;
#[cfg(any(feature = "peers", feature = "scale"))]
pub mod resp;
#[cfg(any(feature = "peers", feature = "scale"))]
pub mod server;
#[cfg(any(feature = "peers", feature = "scale"))]
pub mod store;
#[cfg(any(feature = "peers", feature = "scale"))]
pub mod writes;
