//! [`PageSize`]: how much of a snapshot is asked for at once, so that many mirrors that start
//! together leave Redis time for checks. Pure.
//!
//! Redis answers one question after the other, and a page of [`MOST`] members takes it some three
//! milliseconds. If two hundred mirrors ask for such pages at once, a check waits for all of them.
//! So the first page is small, and the next ones are larger as long as an answer takes hardly
//! longer than the fastest one did. How far Redis is makes no page smaller, as it is in both; a
//! network that carries little does. Where a page cannot be smaller, the fastest one is forgotten
//! slowly, since the way to Redis may have become longer.

use std::time::Duration;

/// The first page, and the smallest.
const LEAST: u32 = 32;
/// A larger page would hold up checks, also if one mirror starts alone.
const MOST: u32 = 2048;
/// If an answer takes longer than the fastest one by less than this, Redis has time. For the
/// smallest page it is a quarter, so that the fastest one is known when pages become larger.
const QUICK: Duration = Duration::from_millis(2);
/// If it is by more than this, others wait.
const SLOW: Duration = Duration::from_millis(5);

/// About how many members the next page of a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSize {
    count: u32,
    /// How long the fastest answer of late has taken.
    fastest: Duration,
}

impl PageSize {
    pub(super) const FIRST: Self = Self { count: LEAST, fastest: Duration::MAX };

    /// The `COUNT` of a scan.
    pub(super) fn count(self) -> u32 {
        self.count
    }

    /// The next one, after an answer that took so long.
    pub(super) fn after(self, took: Duration) -> Self {
        let fastest = self.fastest.min(took);
        let longer = took.saturating_sub(fastest);
        let is_least = self.count == LEAST;
        let forgotten = if is_least { longer / 32 } else { Duration::ZERO };
        let quick = if is_least { QUICK / 4 } else { QUICK };
        let count = if longer > SLOW {
            self.count / 2
        } else if longer < quick {
            self.count * 2
        } else {
            self.count
        };
        Self { count: count.clamp(LEAST, MOST), fastest: fastest + forgotten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long an answer takes, in microseconds, if so many ask for pages of this size: one
    /// microsecond for each member.
    fn answer(network: u64, mirrors: u64, size: PageSize) -> Duration {
        Duration::from_micros(network + mirrors * u64::from(size.count()))
    }

    fn settled(network: u64, mirrors: u64) -> (PageSize, Duration) {
        let mut size = PageSize::FIRST;
        for _ in 0..500 {
            size = size.after(answer(network, mirrors, size));
        }
        (size, answer(0, mirrors, size))
    }

    #[test]
    fn a_mirror_that_starts_alone_reads_large_pages_however_far_redis_is() {
        for network in [0, 300, 20_000, 150_000] {
            assert_eq!(settled(network, 1).0.count(), MOST, "{network}");
        }
    }

    #[test]
    fn mirrors_that_start_together_leave_time_for_checks() {
        for mirrors in [10, 50, 200] {
            for network in [0, 20_000] {
                let (size, others_wait) = settled(network, mirrors);
                assert!(others_wait < Duration::from_millis(13), "{mirrors} {size:?}");
            }
        }
    }

    #[test]
    fn a_way_that_becomes_longer_makes_pages_smaller_for_a_while_only() {
        let (mut size, _) = settled(1_000, 1);
        for _ in 0..10 {
            size = size.after(answer(9_000, 1, size));
        }
        assert!(size.count() < MOST / 4, "{size:?}");
        for _ in 0..200 {
            size = size.after(answer(9_000, 1, size));
        }
        assert_eq!(size.count(), MOST);
    }

    #[test]
    fn pages_become_larger_again_when_the_others_are_through() {
        let (mut size, _) = settled(300, 200);
        assert_eq!(size.count(), LEAST);
        for _ in 0..10 {
            size = size.after(answer(300, 1, size));
        }
        assert_eq!(size.count(), MOST);
    }
}
