//! The layer from outside, one module per subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod answers;
mod bound;
#[cfg(feature = "redis")]
mod confirm;
#[cfg(feature = "redis")]
mod endings;
mod errors;
#[cfg(feature = "axum")]
mod extract;
mod fail_mode;
#[cfg(all(feature = "redis", feature = "test-util"))]
mod feed_contract;
#[cfg(feature = "test-util")]
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod flood;
mod grpc;
mod layer;
mod metrics;
#[cfg(feature = "redis")]
mod mirror;
mod monitoring;
#[cfg(feature = "axum")]
mod nested;
#[cfg(feature = "test-util")]
mod open_responses;
#[cfg(feature = "test-util")]
mod outbox;
mod outside;
mod passing;
#[cfg(feature = "test-util")]
mod promises;
#[cfg(feature = "test-util")]
mod readiness;
#[cfg(feature = "redis")]
mod redis_batches;
#[cfg(feature = "redis")]
mod redis_commands;
#[cfg(feature = "redis")]
mod redis_cutoffs;
#[cfg(feature = "redis")]
mod redis_data_loss;
#[cfg(feature = "redis")]
mod redis_doctor;
#[cfg(feature = "redis")]
mod redis_foreign;
#[cfg(feature = "redis")]
mod redis_forgetting;
#[cfg(feature = "redis")]
mod redis_moving;
#[cfg(feature = "redis")]
mod redis_proof;
#[cfg(feature = "redis")]
mod redis_refused_writes;
#[cfg(feature = "redis")]
mod redis_stalls;
#[cfg(feature = "redis")]
mod redis_store;
#[cfg(feature = "redis")]
mod redis_supervision;
#[cfg(all(feature = "redis", any(feature = "rustls", feature = "native-tls")))]
mod redis_tls;
#[cfg(feature = "redis")]
mod redis_topology;
#[cfg(feature = "redis")]
mod replay;
#[cfg(feature = "redis")]
#[path = "../support/mod.rs"]
mod servers;
#[cfg(all(feature = "test-util", any(feature = "aws_lc_rs", feature = "rust_crypto")))]
mod several_issuers;
mod stacks;
mod store_contract;
mod support;
#[cfg(all(feature = "test-util", any(feature = "aws_lc_rs", feature = "rust_crypto")))]
mod testing_kit;
mod unmatched;
mod upstream;
#[cfg(feature = "test-util")]
mod verifier;
