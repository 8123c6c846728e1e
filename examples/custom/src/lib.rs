//! What is plugged into `tower-jwt-revocation` from outside, by its public API alone.

pub mod feed;
pub mod store;
pub mod verifier;
