//! The program `jwt-revocation`, as an operator and a script run it: against a real Redis,
//! sentinels, and a Redis that is away.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod away;
mod doubt;
mod import;
mod mirrors;
mod program;
mod servers;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod token;
mod usage;
mod watch;
