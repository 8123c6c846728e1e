//! How the store is called: attempts after a conflict, many calls at a time, and errors of ours.

use std::time::Duration;
use std::vec::IntoIter;

use futures::stream::{self, Buffered, Iter, StreamExt as _, TryCollect, TryStreamExt as _};

use crate::store::{StoreError, StoreErrorKind};

/// How often a document is read and decided on again after a conflict. In each round one writer
/// succeeds, so this many writers can change one user or one family at the same time.
const MOST_ATTEMPTS: u32 = 128;

/// How many calls for many sessions are under way at once.
const AT_A_TIME: usize = 32;

/// The longest pause before an attempt.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// Counts attempts, and waits before each: for up to half a millisecond, and twice as long each
/// time. Of as many processes as change one document at once one succeeds; the pauses become so
/// long that the others do not meet again.
pub(super) struct Attempts(u32);

impl Attempts {
    pub(super) fn new() -> Self {
        Self(0)
    }

    /// Whether there is another attempt.
    pub(super) async fn next(&mut self) -> bool {
        if self.0 > 0 {
            let mut random = [0];
            // Without random numbers all wait for the same time; one of them still succeeds.
            let _ = getrandom::fill(&mut random);
            let [random] = random.map(u32::from);
            let most = Duration::from_micros(250).saturating_mul(1 << self.0.min(10));
            tokio::time::sleep(most.min(LONGEST_PAUSE) * random / 255).await;
        }
        self.0 += 1;
        self.0 <= MOST_ATTEMPTS
    }
}

/// Does all of it, some at a time: the sessions of one user must not take all the permits that a
/// store has for everyone.
pub(super) fn all<T, F>(
    work: impl IntoIterator<Item = F>,
) -> TryCollect<Buffered<Iter<IntoIter<F>>>, Vec<T>>
where
    F: Future<Output = Result<T, StoreError>>,
{
    // The iterator may borrow what does not live as long as its futures.
    let work: Vec<F> = work.into_iter().collect();
    stream::iter(work).buffered(AT_A_TIME).try_collect()
}

pub(super) fn out_of_attempts() -> StoreError {
    StoreError::new(
        StoreErrorKind::Overloaded,
        format!(
            "{MOST_ATTEMPTS} others were faster; nothing was granted, the call may be repeated"
        ),
    )
}

pub(super) fn invalid(problem: impl Into<std::sync::Arc<str>>) -> StoreError {
    StoreError::new(StoreErrorKind::InvalidInput, problem)
}
