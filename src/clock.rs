//! Points in time, and where the current time comes from.
//!
//! Time is a value ([`Timestamp`]) that comes through a trait ([`Clock`]), so that every rule about
//! time can be tested by stepping a clock by hand. This is the only module that reads the
//! system clock.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time: whole milliseconds since the Unix epoch, UTC, leap seconds ignored (RFC 7519
/// §2, `NumericDate`).
///
/// Arithmetic saturates: a claim such as `"exp": 1e300` becomes the latest possible time.
/// Serialized as the number of milliseconds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// The time by the clock of the operating system; [`ZERO`](Self::ZERO) if that clock is set
    /// before 1970.
    pub fn now() -> Self {
        SystemClock.now()
    }

    /// The point `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// The point `secs` seconds after the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down: what a `NumericDate` usually holds.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This point, `duration` later.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This point, `duration` earlier, not before the epoch.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The `iat` of a token that is issued now and counts from `floor` on: this whole second, as
    /// everyone stamps it, or this very millisecond if the whole second lies before `floor`.
    #[cfg(any(feature = "issuer", feature = "sessions", test))]
    pub(crate) fn stamp(self, floor: Self) -> Self {
        let second = Self::from_secs(self.as_secs());
        if second >= floor { second } else { self.max(floor) }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where the current time comes from.
///
/// The default everywhere is the clock of the operating system ([`Timestamp::now`]). With feature
/// `test-util` there is [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system. A time before 1970 reads as the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the module that the rule names")]
    fn now(&self) -> Timestamp {
        Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

/// The clock of the operating system, read at a tenth of the cost and up to 10 ms late: for
/// checking tokens, which is done with a leeway of seconds.
///
/// Never for dating a revocation. One that is dated a few milliseconds early misses the tokens that
/// were issued in them.
///
/// On Linux it is the time of the last timer tick (`CLOCK_REALTIME_COARSE`), elsewhere the same as
/// [`SystemClock`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoarseClock;

impl Clock for CoarseClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Timestamp {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        // A time before 1970 reads as the epoch, as with `SystemClock`.
        let millis = u64::try_from(now.tv_sec).map_or(0, |secs| {
            secs.saturating_mul(1000)
                .saturating_add(u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0))
        });
        Timestamp(millis)
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}

/// A point on a clock that is never set, and goes on while the machine is suspended: for deciding
/// how old an answer is.
///
/// On Linux it is `CLOCK_BOOTTIME`; elsewhere the clock of [`Instant`](std::time::Instant), which
/// on some systems stands still while the machine sleeps. No clock of a guest shows for how long
/// its virtual machine was paused, unless the hypervisor tells it.
#[cfg(feature = "redis")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(u64);

#[cfg(feature = "redis")]
impl BootTime {
    /// Later than any other.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    #[cfg(target_os = "linux")]
    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let nanos = |part: i64| u64::try_from(part).unwrap_or(0);
        Self(nanos(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(nanos(now.tv_nsec)))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn now() -> Self {
        static ORIGIN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        Self(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since an arbitrary point.
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the same point.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    #[must_use]
    pub(crate) fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not later.
    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A clock that is set by hand, for tests. Clones share one time.
#[cfg(any(test, feature = "test-util"))]
#[derive(Clone, Debug, Default)]
pub struct ManualClock(std::sync::Arc<std::sync::atomic::AtomicU64>);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that shows `now` until it is told otherwise.
    pub fn new(now: Timestamp) -> Self {
        Self(std::sync::Arc::new(std::sync::atomic::AtomicU64::new(now.0)))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(
            Timestamp::from_secs(u64::MAX).saturating_add(Duration::MAX),
            Timestamp(u64::MAX)
        );
        assert_eq!(Timestamp::from_secs(1).saturating_sub(Duration::from_secs(2)), Timestamp::ZERO);
        assert_eq!(
            Timestamp::ZERO.saturating_duration_since(Timestamp::from_secs(1)),
            Duration::ZERO
        );
    }

    #[test]
    fn the_coarse_clock_is_late_by_little_and_never_early() {
        let before = SystemClock.now();
        let coarse = CoarseClock.now();
        let after = SystemClock.now();
        assert!(
            before.saturating_duration_since(coarse) <= Duration::from_secs(1),
            "{coarse} is far behind {before}"
        );
        assert!(coarse <= after, "{coarse} is later than {after}");
    }

    #[test]
    fn a_stamp_is_a_whole_second_unless_that_is_too_early() {
        for (now, floor, stamp) in [
            (5_200, 0, 5_000),
            (5_200, 5_000, 5_000),
            (5_200, 5_101, 5_200),
            (5_200, 5_201, 5_201),
            (6_100, 5_201, 6_000),
        ] {
            assert_eq!(Timestamp(now).stamp(Timestamp(floor)), Timestamp(stamp), "{now} {floor}");
        }
    }
}
