//! What the measurements share.
#![allow(missing_docs, reason = "not a library that anyone would use")]

#[path = "../../support/mod.rs"]
pub mod support;

pub mod numbers;
