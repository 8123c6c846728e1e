//! [`StallMeter`]: for how long this process stood still lately. Pure, but for its task.
//!
//! A process that stands still asks nobody for the primary, and reads no answer; the lease ends,
//! and it says nothing of the servers. Nobody waits with a time limit then that could show it, so
//! there is a timer for it, which fires ten times a second.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::store::redis::lease::LEASE;

const INTERVAL: Duration = Duration::from_millis(100);
/// So late is a timer on a busy machine, too, and nobody who is asked waits for it.
const IN_TIME: Duration = Duration::from_millis(25);
/// What is longer ago has ended no lease that would still last.
const REMEMBERED: Duration = LEASE.saturating_mul(2);
/// So much of it ends a lease by itself: a voter is asked every 300 ms, and answers at once.
const ENDS_LEASE: Duration = Duration::from_millis(500);

pub(super) struct StallMeter(Mutex<Stalls>);

struct Stalls {
    /// When the timer fires next.
    due: Instant,
    /// When it was late, and by how much.
    late: VecDeque<(Instant, Duration)>,
}

impl StallMeter {
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Stalls { due: now + INTERVAL, late: VecDeque::new() }))
    }

    /// Never returns.
    pub(super) async fn run(&self) {
        loop {
            let due = self.lock().due;
            sleep_until(due).await;
            self.lock().timer_fired(Instant::now());
        }
    }

    /// Whether this process stood still for so long that it could not keep a lease.
    pub(super) fn has_ended_leases(&self, now: Instant) -> bool {
        self.lock().total(now) >= ENDS_LEASE
    }

    // A panic while the lock is held cannot leave half a change that matters.
    fn lock(&self) -> MutexGuard<'_, Stalls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stalls {
    fn timer_fired(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.due);
        if late > IN_TIME {
            self.late.push_back((now, late));
        }
        self.due = now + INTERVAL;
        while self.late.front().is_some_and(|(at, _)| now.duration_since(*at) > REMEMBERED) {
            self.late.pop_front();
        }
    }

    /// With what is going on now.
    fn total(&self, now: Instant) -> Duration {
        let late = self.late.iter().filter(|(at, _)| now.duration_since(*at) <= REMEMBERED);
        late.map(|(_, late)| *late).sum::<Duration>() + now.saturating_duration_since(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_still_for_half_a_second_keeps_no_lease_and_is_forgotten_after_two() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let meter = StallMeter::new(start);
        let fires = |millis| meter.lock().timer_fired(at(millis));
        fires(100);
        assert!(!meter.has_ended_leases(at(200)));
        // Also while it stands still.
        assert!(!meter.has_ended_leases(at(699)) && meter.has_ended_leases(at(700)));
        // Several times a little.
        fires(500);
        assert!(!meter.has_ended_leases(at(500)));
        fires(800);
        assert!(meter.has_ended_leases(at(800)));
        assert!(meter.has_ended_leases(at(850)));
        for n in 9..=29 {
            fires(n * 100);
        }
        assert!(!meter.has_ended_leases(at(2900)));
        assert!(meter.lock().late.is_empty());
    }
}
