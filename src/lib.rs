//! Tower middleware that refuses revoked JWTs.
mod clock;
mod config;
pub use clock::{Clock, SystemClock, Timestamp};
pub use config::ConfigError;
