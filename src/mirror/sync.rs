//! What threads share in the set of this process: atomics, a lock, the directory; and the chance
//! that seeds it.
//!
//! They come through this module so that a model can put its own in their place and try every order
//! of steps (`tests/set_model`).

pub(super) use std::collections::hash_map::RandomState;
pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use arc_swap::{ArcSwap, Guard};
