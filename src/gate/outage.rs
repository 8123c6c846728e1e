//! Says when the store stops answering, and when it answers again: once per change, not once per
//! request.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::store::{StoreError, StoreErrorKind};

/// How long no check may have failed before an outage is called over. Without it a store that fails
/// every other check would be reported with every request.
const QUIET: Duration = Duration::from_secs(10);

const ANSWERING: u8 = 0;
const REFUSING: u8 = 1;
const ADMITTING: u8 = 2;

/// Whether checks are answered, as one layer sees it.
///
/// ```text
///             failed, refused              failed, admitted
///  ANSWERING ----------------> REFUSING -------------------> ADMITTING
///      ^  \------------------- failed, admitted ---------------^  |
///      \------ answered, after QUIET without a failure -----------/
/// ```
/// It never goes from admitting to refusing, so that routes with different fail modes do not take
/// turns.
#[derive(Debug)]
pub(super) struct Outage {
    state: AtomicU8,
    born: Instant,
    /// When a check last failed, in milliseconds since `born`.
    last_failure: AtomicU64,
    /// When more was asked than is allowed, the last time; a millisecond later, as 0 is never.
    last_overload: AtomicU64,
}

impl Outage {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(ANSWERING),
            born: Instant::now(),
            last_failure: AtomicU64::new(0),
            last_overload: AtomicU64::new(0),
        }
    }

    /// The store answered. On the path of every request: one load, as long as all is well.
    pub(super) fn answered(&self) {
        let state = self.state.load(Relaxed);
        if state == ANSWERING
            || self.now().saturating_sub(self.last_failure.load(Relaxed)) < millis(QUIET)
        {
            return;
        }
        if self.change(state, ANSWERING) {
            tracing::info!("the store answers again, all tokens are checked");
        }
    }

    /// The store did not answer, and the request was admitted all the same, or not.
    pub(super) fn failed(&self, error: &StoreError, admitted: bool) {
        self.last_failure.fetch_max(self.now(), Relaxed);
        let next = if admitted { ADMITTING } else { REFUSING };
        let state = self.state.load(Relaxed);
        if next <= state || !self.change(state, next) {
            return;
        }
        let kind = error.kind();
        if kind == StoreErrorKind::DataLoss && !admitted {
            tracing::warn!(error = %error.chain(),
                "the store has lost revocations: tokens from before are refused with 401, so that \
                their holders sign in again");
        } else if admitted {
            tracing::warn!(?kind, error = %error.chain(),
                "the store gives no answer: requests are ADMITTED UNCHECKED, revoked tokens \
                work");
        } else {
            tracing::warn!(?kind, error = %error.chain(),
                "the store gives no answer: requests are refused with 503");
        }
    }

    /// More was asked at once than the store allows, or this process stood still. That is load, and
    /// says nothing of the store.
    pub(super) fn overloaded(&self, error: &StoreError) {
        let now = self.now() + 1;
        let last = self.last_overload.fetch_max(now, Relaxed);
        if last == 0 || now.saturating_sub(last) >= millis(QUIET) {
            tracing::warn!(error = %error.chain(),
                "this process has more to do than it or the store allows: tokens that cannot be \
                checked for it are refused with 503, in every fail mode");
        }
    }

    /// True for the one that made the change.
    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }

    fn now(&self) -> u64 {
        millis(self.born.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_over_after_a_quiet_time_and_never_turns_from_admitting_to_refusing() {
        let error = StoreError::new(StoreErrorKind::Timeout, "no answer");
        let almost = QUIET.saturating_sub(Duration::from_millis(1));
        let outage = Outage::new();
        let state = || outage.state.load(Relaxed);
        outage.failed(&error, false);
        assert_eq!(state(), REFUSING);
        outage.failed(&error, true);
        assert_eq!(state(), ADMITTING);
        outage.failed(&error, false);
        assert_eq!(state(), ADMITTING);

        tokio::time::advance(almost).await;
        outage.answered();
        assert_eq!(state(), ADMITTING, "the last failure is not long enough ago");
        outage.failed(&error, true);
        tokio::time::advance(almost).await;
        outage.answered();
        assert_eq!(state(), ADMITTING, "each failure starts the quiet time anew");
        tokio::time::advance(Duration::from_millis(1)).await;
        outage.answered();
        assert_eq!(state(), ANSWERING);
    }
}
