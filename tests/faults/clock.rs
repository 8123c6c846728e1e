//! One clock for all processes of a machine, so that what one of them has done before another can
//! be told.

use rustix::time::{ClockId, clock_gettime};

/// A moment, in nanoseconds of the monotonic clock of the machine.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}
