//! [`TimeLimit`]: how long an answer is waited for, while this process runs. Pure, but for the
//! timer.
//!
//! A timer that fires late says that the runtime stood still: a handler blocks its threads, the
//! process was given no time on a processor, or was suspended. The task that reads the answers
//! stood still as well, so nothing is known of Redis. The time by which a timer was late does not
//! count, and after it there is one more part of the limit, of 25 ms at most, in which the answer
//! is read if it is there. So the limit is waited for in parts: only at the end of a part a stall
//! shows.
//!
//! What is not answered because of a stall is [`StoreErrorKind::Overloaded`], and no timeout:
//! clients can bring stalls about.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::store::{StoreError, StoreErrorKind};

/// The limit is waited for in so many parts.
const PARTS: u32 = 8;

/// Timers count milliseconds: a timer that fires this much later is in time.
const IN_TIME: Duration = Duration::from_millis(3);

/// What is left for the reader after a stall: at least, also where little is left of a limit, and
/// at most, so that a busy machine prolongs no limit by more.
const LEAST_PART: Duration = Duration::from_millis(5);
const MOST_PART: Duration = Duration::from_millis(25);

/// How much makes a stall of what is a busy machine.
const LEAST_STALLED: Duration = Duration::from_millis(25);

/// For how long stalls may prolong a limit. Where the primary has to be proved, an answer that
/// takes longer than the lease is not believed all the same.
pub(crate) const MOST_STALLED: Duration = Duration::from_secs(5);

/// Until when one answer is waited for.
#[derive(Clone, Debug)]
pub(crate) struct TimeLimit {
    limit: Duration,
    deadline: Instant,
    /// Stalls do not prolong the limit beyond this.
    end: Instant,
    /// The end of the part that is waited for.
    due: Instant,
    /// By how much timers were late.
    stalled: Duration,
    /// Whether many answers were waited for at some time since it began.
    is_loaded: bool,
}

/// Why there was no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Redis did not answer.
    Unanswered,
    /// This process stood still for so long that it cannot tell.
    Stalled,
}

impl TimeLimit {
    /// From now on.
    pub(crate) fn start(limit: Duration) -> Self {
        Self::start_at(limit, Instant::now())
    }

    fn start_at(limit: Duration, now: Instant) -> Self {
        let deadline = now + limit;
        let (end, due) = (deadline + MOST_STALLED, now + limit / PARTS);
        Self { limit, deadline, end, due, stalled: Duration::ZERO, is_loaded: false }
    }

    /// When the limit ends, but for further stalls.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// To be called before a further [`wait`](Self::wait), if something else was waited for since.
    pub(crate) fn resume(&mut self) {
        self.due = self.next_due(Instant::now());
    }

    fn next_due(&self, now: Instant) -> Instant {
        self.deadline.min(now + self.limit / PARTS)
    }

    /// What the future comes to within the limit. It is given up after that.
    pub(crate) fn wait<F: Future>(&mut self, future: F) -> WithinLimit<'_, F> {
        WithinLimit { timer: sleep_until(self.due), limit: self, future }
    }

    /// The end of a part has come, or is past. Says whether the limit is over.
    fn timer_fired(&mut self, now: Instant) -> Option<Late> {
        let was_last = self.due >= self.end;
        let late = now.saturating_duration_since(self.due);
        if late > IN_TIME {
            self.stalled += late;
            // The tasks that bring the answer have had no time either.
            let part = (self.limit / PARTS).clamp(LEAST_PART, MOST_PART);
            self.deadline = (self.deadline + late).max(now + part);
        }
        if was_last || now >= self.deadline {
            return Some(if self.is_stalled() { Late::Stalled } else { Late::Unanswered });
        }
        self.due = self.next_due(now);
        None
    }

    fn is_stalled(&self) -> bool {
        self.stalled >= self.limit.max(LEAST_STALLED)
    }

    /// Whether many answers are waited for at this moment. Those that are late at once are given up
    /// one after the other, and the last of them would see few.
    pub(crate) fn note_load(&mut self, is_loaded: bool) {
        self.is_loaded |= is_loaded;
    }

    /// Why there was no answer in time. Where many are waited for, the task that reads them comes
    /// to run later than the timers show, as each of those that wait has its turn before it. So a
    /// smaller part of the limit is a stall.
    pub(crate) fn why_late(&self, late: Late) -> Late {
        let is_stalled = self.stalled >= (self.limit / 4).max(LEAST_PART);
        if self.is_loaded && is_stalled { Late::Stalled } else { late }
    }

    /// The error to be told, of one that came instead of an answer: that an answer was read too
    /// late to be believed is no fault of Redis if this process stood still meanwhile.
    pub(crate) fn blame(&mut self, error: StoreError) -> StoreError {
        if !matches!(error.kind(), StoreErrorKind::Timeout | StoreErrorKind::NotPrimary) {
            return error;
        }
        self.stalled += Instant::now().saturating_duration_since(self.due);
        if self.is_stalled() { stalled() } else { error }
    }
}

pin_project! {
    /// Of [`TimeLimit::wait`].
    pub(crate) struct WithinLimit<'a, F> {
        limit: &'a mut TimeLimit,
        #[pin]
        future: F,
        #[pin]
        timer: Sleep,
    }
}

impl<F: Future> Future for WithinLimit<'_, F> {
    type Output = Result<F::Output, Late>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // First: an answer that is there is taken, however late the timer is.
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        while this.timer.as_mut().poll(cx).is_ready() {
            if let Some(late) = this.limit.timer_fired(Instant::now()) {
                return Poll::Ready(Err(late));
            }
            this.timer.as_mut().reset(this.limit.due);
        }
        Poll::Pending
    }
}

impl Late {
    /// What is told, where nobody counts timeouts.
    pub(crate) fn error(self) -> StoreError {
        match self {
            Self::Unanswered => {
                StoreError::new(StoreErrorKind::Timeout, "redis did not answer in time")
            }
            Self::Stalled => stalled(),
        }
    }
}

pub(crate) fn stalled() -> StoreError {
    StoreError::new(
        StoreErrorKind::Overloaded,
        "this process stood still for so long that the answer of redis could not be read in time",
    )
}

/// Waits no longer than the limit.
///
/// # Errors
/// [`Late::error`].
pub(crate) async fn within<T>(
    limit: Duration,
    future: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut limit = TimeLimit::start(limit);
    // In a box, because it is large and would be moved.
    match limit.wait(Box::pin(future)).await {
        Ok(answer) => answer.map_err(|error| limit.blame(error)),
        Err(late) => Err(late.error()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(80);

    /// Timers fire so many milliseconds late, one after the other and then the last again. After
    /// how long the limit is over, and what it says.
    fn over(limit: Duration, late: &[u64]) -> (Duration, Late) {
        let start = Instant::now();
        let mut limit = TimeLimit::start_at(limit, start);
        let mut late = late.iter().copied();
        let mut last = 0;
        loop {
            last = late.next().unwrap_or(last);
            let now = limit.due + Duration::from_millis(last);
            if let Some(late) = limit.timer_fired(now) {
                return (now - start, late);
            }
        }
    }

    #[test]
    fn time_in_which_the_process_stood_still_does_not_count() {
        let millis = Duration::from_millis;
        assert_eq!(over(LIMIT, &[0]), (LIMIT, Late::Unanswered));
        // One stall, in any part: then the answer is not there all the same.
        for before in 0..8 {
            let mut late = vec![0; before];
            late.extend([60, 0]);
            let (after, why) = over(LIMIT, &late);
            let least = millis(140 + if before == 7 { 10 } else { 0 });
            assert_eq!((after, why), (least, Late::Unanswered), "{before}");
        }
        // What is late by as much as the limit says nothing of Redis.
        assert_eq!(over(LIMIT, &[80, 0]), (millis(160), Late::Stalled));
        // A busy machine, and hardly any time left.
        let hardly = millis(2);
        assert_eq!(
            over(hardly, &[8, 0]),
            (hardly / PARTS + millis(8) + LEAST_PART, Late::Unanswered)
        );
        // The limit of a write.
        let (after, why) = over(millis(500), &[0, 0, 0, 0, 0, 0, 0, 4, 0]);
        assert_eq!((after, why), (millis(504) + MOST_PART, Late::Unanswered));
        // A little late, each time: the limit is longer, but it ends.
        let (after, why) = over(LIMIT, &[2]);
        assert!(after <= LIMIT + millis(2) && why == Late::Unanswered, "{after:?}");
    }

    #[test]
    fn stalls_prolong_a_limit_by_so_much_and_what_it_takes_to_read_the_answer() {
        for late in [10, 60, 120, 500, 3_000, 3_600_000] {
            let (after, why) = over(LIMIT, &[late, late, 0]);
            let (_, always) = over(LIMIT, &[late]);
            let most = LIMIT + MOST_STALLED + LIMIT / PARTS;
            assert!(after <= most.max(Duration::from_millis(late) * 2 + LIMIT), "{late} {after:?}");
            if late >= 60 {
                assert_eq!((why, always), (Late::Stalled, Late::Stalled), "{late}");
            }
        }
        // However long it was suspended, there is one part in which the answer can be read.
        let start = Instant::now();
        let mut limit = TimeLimit::start_at(LIMIT, start);
        let late = start + Duration::from_secs(3600);
        assert_eq!(limit.timer_fired(late), None);
        assert_eq!(limit.due, late + LIMIT / PARTS);
        assert_eq!(limit.timer_fired(limit.due), Some(Late::Stalled));
    }

    #[test]
    fn under_load_a_quarter_of_the_limit_is_a_stall() {
        let why = |limit, stalled, loads: &[bool]| {
            let mut limit = TimeLimit::start(Duration::from_millis(limit));
            limit.stalled = Duration::from_millis(stalled);
            for is_loaded in loads {
                limit.note_load(*is_loaded);
            }
            limit.why_late(Late::Unanswered)
        };
        assert_eq!(why(80, 19, &[true]), Late::Unanswered);
        assert_eq!(why(80, 20, &[true]), Late::Stalled);
        assert_eq!(why(80, 20, &[true, false]), Late::Stalled);
        assert_eq!(why(80, 20, &[false, true]), Late::Stalled);
        assert_eq!(why(80, 20, &[false]), Late::Unanswered);
        assert_eq!(why(4, 4, &[true]), Late::Unanswered, "hardly any time");
        assert_eq!(TimeLimit::start(LIMIT).why_late(Late::Stalled), Late::Stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_runtime_that_runs_the_limit_is_exact() {
        let start = Instant::now();
        assert_eq!(TimeLimit::start(LIMIT).wait(pending::<()>()).await, Err(Late::Unanswered));
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test]
    async fn an_answer_that_was_there_before_a_stall_ended_is_read() {
        let (told, answer) = tokio::sync::oneshot::channel();
        // As the task that reads from the socket: it needs a few turns.
        let reader = tokio::spawn(async move {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            let _ = told.send(());
        });
        let mut limit = TimeLimit::start(Duration::from_millis(20));
        let waiting =
            tokio::spawn(async move { limit.wait(answer).await.map(|answer| answer.is_ok()) });
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(waiting.await.unwrap(), Ok(true));
        reader.await.unwrap();
    }

    #[test]
    fn what_is_not_believed_because_of_a_stall_is_our_own_fault() {
        let error = |kind| StoreError::new(kind, "x");
        let mut limit = TimeLimit::start(LIMIT);
        let in_time = limit.blame(error(StoreErrorKind::Timeout)).kind();
        limit.stalled = LIMIT;
        for (kind, told) in [
            (StoreErrorKind::Timeout, StoreErrorKind::Overloaded),
            (StoreErrorKind::NotPrimary, StoreErrorKind::Overloaded),
            (StoreErrorKind::Unreachable, StoreErrorKind::Unreachable),
        ] {
            assert_eq!(limit.blame(error(kind)).kind(), told);
        }
        // On a busy machine more than the limit may have gone by here.
        assert!(matches!(in_time, StoreErrorKind::Timeout | StoreErrorKind::Overloaded));
    }
}
