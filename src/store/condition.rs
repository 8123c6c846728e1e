//! [`Condition`]: whether a store can tell anything at this moment.

use std::time::Duration;

use super::{Doubt, StoreError};
use crate::clock::{Clock as _, SystemClock};
use crate::samples::{Metric, Samples};

/// Whether a store can tell the standing of tokens at this moment, by what it knows without asking
/// a server. It is for readiness probes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Condition {
    /// It can, except for tokens that are in doubt.
    Answering(Doubt),
    /// It cannot.
    Failing {
        /// Why.
        error: StoreError,
        /// For how long; `None` if it never could.
        lasts: Option<Duration>,
    },
}

impl Condition {
    /// What of it the store has not said to the metrics itself.
    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        let (is_up, doubt) = match self {
            Self::Answering(doubt) => (true, *doubt),
            Self::Failing { .. } => (false, Doubt::None),
        };
        samples.add_flag(Metric::StoreUp, &["checks"], is_up);
        samples.add_flag(Metric::StoreSettling, &[], doubt == Doubt::Settling);
        samples.add(Metric::StoreDoubt, &[], doubt.left(SystemClock.now()).as_secs_f64());
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self::Answering(Doubt::None)
    }
}
