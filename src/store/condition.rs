//! [`Condition`]: whether a store can tell anything at this moment.

use std::time::Duration;

use super::{Doubt, StoreError};

/// Whether a store can tell the standing of tokens at this moment, as far as it knows without
/// asking anybody: for readiness.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Condition {
    /// It can, but for the tokens that are in doubt.
    Answering(Doubt),
    /// It cannot.
    Failing {
        /// Why.
        error: StoreError,
        /// For how long; `None` if it never could.
        lasts: Option<Duration>,
    },
}

impl Default for Condition {
    fn default() -> Self {
        Self::Answering(Doubt::None)
    }
}
