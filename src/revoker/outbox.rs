//! [`Outbox`]: what could not be confirmed, and goes on being tried.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
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
    waiting: VecDeque<Arc<Attempt>>,
    /// Those that are being tried.
    under_way: Vec<Arc<Attempt>>,
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
        state.len()
    }

    /// Goes on trying, unless there is no room, or no runtime to do it.
    pub(super) fn keep(&self, attempt: Attempt) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let begins = {
            let mut state = self.lock();
            if state.len() >= self.most {
                return false;
            }
            state.waiting.push_back(Arc::new(attempt));
            !std::mem::replace(&mut state.is_worked, true)
        };
        if begins {
            tracing::warn!(
                "a revocation is not confirmed: it goes on being tried, as those that follow"
            );
            // Not under the lock: a runtime that ends drops the task at once, which takes the lock.
            runtime.spawn(work(Worker(self.clone())));
        }
        true
    }

    fn take(&self) -> Vec<Arc<Attempt>> {
        let mut state = self.lock();
        let count = state.waiting.len().min(AT_ONCE);
        state.under_way = state.waiting.drain(..count).collect();
        state.under_way.clone()
    }

    /// Puts back what is to be tried again. Whether anything is left.
    fn put_back(&self, failed: Vec<Arc<Attempt>>) -> bool {
        let mut state = self.lock();
        state.under_way.clear();
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

impl OutboxState {
    fn len(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }
}

/// The outbox, for its task. If the task is dropped, as when its runtime ends, the next revocation
/// begins another one, on a runtime of its own, which goes on with all.
struct Worker(Outbox);

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        for attempt in std::mem::take(&mut state.under_way).into_iter().rev() {
            state.waiting.push_front(attempt);
        }
        state.is_worked = false;
    }
}

/// The task. It ends when everything is done.
async fn work(worker: Worker) {
    let outbox = &worker.0;
    let [first, longest] = PAUSES;
    let mut pause = first;
    loop {
        // So that several processes do not come back at the same moment.
        sleep(pause.mul_f64(0.5 + chance() / 2.0)).await;
        let attempts = outbox.take();
        let tried = attempts.len();
        // A store that panics must not end the task: nobody would try the others.
        let results = join_all(attempts.iter().map(|attempt| {
            let once = async move { attempt().await };
            AssertUnwindSafe(once).catch_unwind()
        }))
        .await;
        let mut failed = Vec::new();
        for (attempt, result) in attempts.into_iter().zip(results) {
            match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.may_be_repeated() => failed.push(attempt),
                Ok(Err(error)) => tracing::error!(error = %error.chain(),
                    "a revocation that was pending cannot be done, and is given up"),
                Err(_) => tracing::error!(
                    "a revocation that was pending is given up: the store has panicked"
                ),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn what_a_runtime_has_left_is_done_by_the_next() {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let outbox = Outbox::new(NonZeroUsize::new(8).unwrap());
        let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let attempt = |may_end: Arc<std::sync::atomic::AtomicBool>| {
            let (begun, done) = (Arc::clone(&begun), Arc::clone(&done));
            let attempt: Attempt = Box::new(move || {
                let (begun, done, may_end) =
                    (Arc::clone(&begun), Arc::clone(&done), Arc::clone(&may_end));
                async move {
                    begun.fetch_add(1, Relaxed);
                    if !may_end.load(Relaxed) {
                        std::future::pending::<()>().await;
                    }
                    done.fetch_add(1, Relaxed);
                    Ok(())
                }
                .boxed()
            });
            attempt
        };
        let may_end = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let first = runtime();
        first.block_on(async {
            assert!(outbox.keep(attempt(Arc::clone(&may_end))));
            while begun.load(Relaxed) == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(outbox.len(), 1);
        drop(first);
        assert_eq!(outbox.len(), 1, "it is not lost with the runtime");
        may_end.store(true, Relaxed);
        runtime().block_on(async {
            assert!(outbox.keep(attempt(Arc::clone(&may_end))));
            tokio::time::timeout(Duration::from_secs(60), async {
                while outbox.len() > 0 {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await
            .unwrap();
        });
        assert_eq!(done.load(Relaxed), 2);
        // On a runtime that has ended it waits for the next one.
        let ended = runtime();
        let handle = ended.handle().clone();
        drop(ended);
        let _entered = handle.enter();
        assert!(outbox.keep(attempt(may_end)));
        assert_eq!((outbox.len(), outbox.lock().is_worked), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_panics_does_not_keep_the_others_from_being_tried() {
        let outbox = Outbox::new(NonZeroUsize::new(8).unwrap());
        let done = Arc::new(AtomicUsize::new(0));
        for n in 0..4 {
            let done = Arc::clone(&done);
            let is_kept = outbox.keep(Box::new(move || {
                let done = Arc::clone(&done);
                async move {
                    assert!(n != 1, "as a store may");
                    done.fetch_add(1, Relaxed);
                    Ok(())
                }
                .boxed()
            }));
            assert!(is_kept);
        }
        tokio::time::timeout(Duration::from_secs(60), async {
            while outbox.len() > 0 {
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(done.load(Relaxed), 3);
        // And the task is there for the next one.
        let done_again = Arc::clone(&done);
        assert!(outbox.keep(Box::new(move || {
            done_again.fetch_add(1, Relaxed);
            async { Ok(()) }.boxed()
        })));
        sleep(Duration::from_secs(10)).await;
        assert_eq!((done.load(Relaxed), outbox.len()), (4, 0));
    }
}
