//! Tower middleware that refuses revoked JWTs.

mod clock;
mod config;
pub mod gate;
pub mod middleware;
mod policy;
mod revocation;
mod revoker;
pub mod store;
pub mod token;
mod verified;

#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use clock::{Clock, SystemClock, Timestamp};
pub use config::ConfigError;
pub use gate::Counters;
#[cfg(feature = "axum")]
pub use middleware::Claims;
pub use middleware::{JwtRevocation, JwtRevocationLayer};
pub use policy::{Clearance, FailMode, Rejection, RejectionKind};
pub use revocation::{
    Action, Extent, Fingerprint, MAX_ID_BYTES, Outcome, Record, Revocation, Target, TargetKind,
};
pub use revoker::{RevokeError, RevokeRequest, Revoker};
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
pub use store::redis::RedisStore;
pub use store::{Receipt, RevocationStore, Standing, StoreError, StoreErrorKind};
pub use token::jwt::JwtVerifier;
pub use token::{CredentialsError, TokenError, TokenErrorKind, TokenVerifier};
pub use verified::{TokenTarget, VerifiedToken};
