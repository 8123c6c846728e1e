//! [`Outbox`]: what could not be confirmed, and goes on being tried.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::mirror::chance;
use crate::store::StoreError;

/// How many are tried at once.
const AT_ONCE: usize = 16;
/// The pause after the first attempt that fails, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// Does it once.
pub(crate) type Attempt = Box<dyn Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

/// What waits for the store to come back, in the order in which it was asked for. Clones share it.
#[derive(Clone)]
pub(super) struct Outbox {
    most: usize,
    state: Arc<Mutex<OutboxState>>,
}

#[derive(Default)]
struct OutboxState {
    waiting: VecDeque<Attempt>,
    /// How many are being tried.
    under_way: usize,
    /// Whether there is a task that tries.
    is_worked: bool,
}

impl Outbox {
    pub(super) fn new(most: NonZeroUsize) -> Self {
        Self { most: most.get(), state: Arc::default() }
    }

    /// How many have not been done yet.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.under_way
    }

    /// Goes on trying, unless there is no room, or no runtime to do it.
    pub(super) fn keep(&self, attempt: Attempt) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let mut state = self.lock();
        if state.waiting.len() + state.under_way >= self.most {
            return false;
        }
        state.waiting.push_back(attempt);
        if !state.is_worked {
            state.is_worked = true;
            tracing::warn!(
                "a revocation is not confirmed: it goes on being tried, as those that follow"
            );
            runtime.spawn(work(self.clone()));
        }
        true
    }

    fn take(&self) -> Vec<Attempt> {
        let mut state = self.lock();
        let count = state.waiting.len().min(AT_ONCE);
        state.under_way = count;
        state.waiting.drain(..count).collect()
    }

    /// Puts back what is to be tried again. Whether anything is left.
    fn put_back(&self, failed: Vec<Attempt>) -> bool {
        let mut state = self.lock();
        state.under_way = 0;
        for attempt in failed.into_iter().rev() {
            state.waiting.push_front(attempt);
        }
        state.is_worked = !state.waiting.is_empty();
        state.is_worked
    }

    // A panic while the lock is held cannot leave half a change.
    fn lock(&self) -> MutexGuard<'_, OutboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task. It ends when everything is done.
async fn work(outbox: Outbox) {
    let [first, longest] = PAUSES;
    let mut pause = first;
    loop {
        // So that several processes do not come back at the same moment.
        sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
        let attempts = outbox.take();
        let tried = attempts.len();
        let results = join_all(attempts.iter().map(|attempt| attempt())).await;
        let mut failed = Vec::new();
        for (attempt, result) in attempts.into_iter().zip(results) {
            match result {
                Ok(()) => {}
                Err(error) if error.may_be_repeated() => failed.push(attempt),
                Err(error) => tracing::error!(error = %error.chain(),
                    "a revocation that was pending cannot be done, and is given up"),
            }
        }
        let all_failed = failed.len() == tried;
        if !outbox.put_back(failed) {
            tracing::info!("all revocations that were pending are done");
            return;
        }
        pause = if all_failed { (pause * 2).min(longest) } else { Duration::ZERO };
    }
}
