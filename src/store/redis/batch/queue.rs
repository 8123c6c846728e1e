//! Who waits, who is sent, and when: knows nothing of what is asked, nor whom.
//!
//! A queue has one worker, a task that sends batches through an [`BatchTransport`] as long as anybody waits.
//! Whoever asks while nothing is under way and little is asked goes alone, without the worker: that
//! saves the way through two tasks.
//!
//! No wake-up is lost, because there is one lock: who asks joins the queue and takes the waker of
//! the worker under it, and the worker sees that nobody waits and leaves its waker under it. All else
//! that the worker waits for, answers and the end of its patience, it waits for itself.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep};

/// How long a batch in flight holds up the next one. Below it, waiting makes larger batches; above
/// it, over a slow network, it would only make answers late.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// How many batches may be in flight. They are given up with their checks, so that even a Redis
/// that hangs is sent less than this.
const MAX_BATCHES: usize = 128;

/// How a worker gets at answers.
pub(super) trait BatchTransport: Send {
    /// What one of those who wait asks.
    type Ask: Send;
    /// A batch in flight, which comes back with the answers and those who wait for them.
    type InFlight: Future<Output = Self::Reply> + Send;
    type Reply: Send;

    /// How much goes into a batch.
    const ROOM: usize;

    /// How much of it one takes. One alone may take more than there is.
    fn size(ask: &Self::Ask) -> usize;

    /// Sends a batch; `None` if there is nobody, or nothing can be sent, and all have been told.
    fn send(&mut self, batch: Vec<Self::Ask>) -> Option<Self::InFlight>;

    /// Tells everyone the answer.
    fn deliver(&mut self, reply: Self::Reply);
}

/// Those who have not been sent.
pub(super) struct BatchQueue<A>(Mutex<Waiting<A>>);

struct Waiting<A> {
    asks: VecDeque<A>,
    /// The worker, if it has nothing to send.
    idle: Option<Waker>,
    /// Whether one who asks may go alone: the worker has nothing in flight, and had no two at once
    /// to send.
    is_quiet: bool,
    /// Whether one has gone alone, and is not back yet.
    is_one_out: bool,
    is_closed: bool,
}

/// The worker of this queue has gone. So has the runtime it worked on.
#[derive(Debug)]
pub(super) struct Closed;

impl<A> Default for BatchQueue<A> {
    fn default() -> Self {
        Self(Mutex::new(Waiting {
            asks: VecDeque::new(),
            idle: None,
            is_quiet: true,
            is_one_out: false,
            is_closed: false,
        }))
    }
}

impl<A> BatchQueue<A> {
    // A panic while the lock is held cannot leave half a change.
    fn lock(&self) -> MutexGuard<'_, Waiting<A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to go alone, if that holds up nobody and takes nobody along. Nobody waits for who
    /// has it.
    pub(super) fn try_direct(&self) -> Option<DirectPermit<'_, A>> {
        let mut waiting = self.lock();
        let may = waiting.is_quiet
            && !waiting.is_one_out
            && !waiting.is_closed
            && waiting.asks.is_empty();
        waiting.is_one_out |= may;
        may.then(|| DirectPermit(self))
    }

    /// Waits for the worker.
    pub(super) fn push(&self, ask: A) -> Result<(), Closed> {
        let idle = {
            let mut waiting = self.lock();
            if waiting.is_closed {
                return Err(Closed);
            }
            waiting.asks.push_back(ask);
            waiting.idle.take()
        };
        if let Some(idle) = idle {
            idle.wake();
        }
        Ok(())
    }

    fn poll_filled(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if !waiting.asks.is_empty() {
            return Poll::Ready(());
        }
        waiting.idle = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes what goes into one batch: at least one, if there is one, and as many as there is room
    /// for. Says as well whether any are left.
    fn take(&self, room: usize, size: impl Fn(&A) -> usize) -> (Vec<A>, bool) {
        let mut waiting = self.lock();
        waiting.is_quiet = false;
        let mut taken = 0;
        let mut fits = |ask: &A| {
            taken += size(ask);
            taken <= room
        };
        let count = waiting.asks.iter().map_while(|ask| fits(ask).then_some(())).count();
        let count = count.max(1).min(waiting.asks.len());
        let batch = waiting.asks.drain(..count).collect();
        (batch, !waiting.asks.is_empty())
    }

    fn calm_down(&self) {
        self.lock().is_quiet = true;
    }

    fn close(&self) {
        // Dropped after the lock is free: it wakes those who wait.
        let _given_up = {
            let mut waiting = self.lock();
            waiting.is_closed = true;
            mem::take(&mut waiting.asks)
        };
    }
}

/// The right to go alone, until it is dropped.
pub(super) struct DirectPermit<'a, A>(&'a BatchQueue<A>);

impl<A> Drop for DirectPermit<'_, A> {
    fn drop(&mut self) {
        self.0.lock().is_one_out = false;
    }
}

/// Closes the queue, however the worker ends.
struct Closing<A>(Arc<BatchQueue<A>>);

impl<A> Drop for Closing<A> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The work of the worker. It ends only by being dropped.
pub(super) async fn work<O: BatchTransport>(queue: Arc<BatchQueue<O::Ask>>, mut office: O) {
    let queue = Closing(queue);
    let queue = &*queue.0;
    let mut in_flight = FuturesUnordered::new();
    let mut patience = pin!(sleep(PATIENCE));
    let (mut had_several, mut was_full) = (false, false);
    loop {
        // Waiting would not make a full batch any larger.
        let is_held_up = !in_flight.is_empty() && !patience.is_elapsed() && !was_full;
        let may_send = !is_held_up && in_flight.len() < MAX_BATCHES;
        tokio::select! {
            biased;
            Some(reply) = in_flight.next() => {
                office.deliver(reply);
                if in_flight.is_empty() && !had_several {
                    queue.calm_down();
                }
                // Those who got an answer go first: what they ask next goes out together.
                give_way().await;
            }
            () = &mut patience, if is_held_up => {}
            () = filled(queue, was_full), if may_send => {
                let batch;
                (batch, was_full) = queue.take(O::ROOM, O::size);
                had_several = batch.len() > 1;
                if let Some(trip) = office.send(batch) {
                    in_flight.push(trip);
                    patience.as_mut().reset(Instant::now() + PATIENCE);
                } else if in_flight.is_empty() {
                    queue.calm_down();
                }
            }
        }
    }
}

/// Waits until somebody waits. After a full batch, it goes on its way first.
async fn filled<A>(queue: &BatchQueue<A>, was_full: bool) {
    if was_full {
        give_way().await;
    }
    poll_fn(|cx| queue.poll_filled(cx)).await;
}

/// Lets every task run that is ready to.
async fn give_way() {
    let mut is_done = false;
    poll_fn(|cx| {
        if mem::replace(&mut is_done, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests;
