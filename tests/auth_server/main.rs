//! Drives the example `auth_server` over HTTP, as an outside program would.
#![cfg(all(feature = "redis", feature = "aws_lc_rs", feature = "axum", feature = "endpoints"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::wrong_self_convention, reason = "`answer.is(401)` reads as it is meant")]

// Its tests; the example itself is driven from outside.
#[path = "../../examples/auth_server/audit.rs"]
mod audit;
mod browser;
mod config;
mod contract;
mod ext_authz;
mod forward_auth;
#[cfg(target_os = "linux")]
mod histories;
#[path = "../../examples/forward_auth/messages.rs"]
mod messages;
mod metrics;
mod mirror;
mod operator;
mod operator_page;
mod outage;
mod page;
#[path = "../interop/peers.rs"]
mod peers;
mod processes;
mod proxies;
mod server;
mod standards;
#[path = "../support/mod.rs"]
mod support;
mod written;
