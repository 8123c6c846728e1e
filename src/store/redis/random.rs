//! Random numbers for jitter, and for the ids of epochs and mirrors. Not for secrets.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

/// 64 bits, different in every process and at every call: a hash with random keys.
pub(crate) fn bits() -> u64 {
    RandomState::new().hash_one(())
}

/// A number from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(crate) fn fraction() -> f64 {
    (bits() >> 11) as f64 / (1_u64 << 53) as f64
}
