//! When batches are sent. Generic: it does not know what is asked.
//!
//! A queue has one worker, a task that sends batches through a [`BatchTransport`] as long as there
//! are items. While nothing is in flight and there is little load, an item may be sent directly,
//! without the queue: that saves the way through two tasks.
//!
//! No wake-up is lost, because one lock guards both sides: a pusher adds its item and takes the
//! worker's waker under it; the worker sees that there is no item and leaves its waker under it.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep};

/// How long a batch in flight delays the next one. A shorter delay makes smaller batches; a longer
/// one would only make answers late over a slow network.
pub(super) const BATCH_DELAY: Duration = Duration::from_millis(1);
/// How many batches may be in flight. A batch ends with the time limit of its checks, so even a
/// Redis that hangs is sent fewer than this.
const MAX_BATCHES: usize = 128;

/// How a worker sends batches and delivers answers.
pub(super) trait BatchTransport: Send {
    /// What waits in the queue.
    type Item: Send;
    /// A batch in flight. It resolves to the reply, with the items that wait for it.
    type InFlight: Future<Output = Self::Reply> + Send;
    type Reply: Send;

    /// The sum of sizes that fits into a batch.
    const CAPACITY: usize;

    /// The size of one item. A single item may exceed the capacity.
    fn size(item: &Self::Item) -> usize;

    /// Sends a batch; `None` if no item is left, or nothing can be sent and all have got an error.
    fn send(&mut self, batch: Vec<Self::Item>) -> Option<Self::InFlight>;

    /// Gives each item its answer.
    fn deliver(&mut self, reply: Self::Reply);
}

/// Items that have not been sent.
pub(super) struct BatchQueue<T>(Mutex<QueueState<T>>);

struct QueueState<T> {
    items: VecDeque<T>,
    /// How many items were taken so far: the first of `items` has this number.
    taken: u64,
    /// The numbers of items that others may join, by the hash of what they ask.
    joinable: HashMap<u64, u64>,
    /// The waker of the worker, while it has nothing to send.
    worker: Option<Waker>,
    /// Whether an item may be sent directly: no batch is in flight, and the last one held a single
    /// item.
    allows_direct: bool,
    /// Whether an item that was sent directly is in flight.
    has_direct: bool,
    is_closed: bool,
}

/// The worker of this queue has ended, and its runtime with it.
#[derive(Debug)]
pub(super) struct QueueClosed;

impl<T> Default for BatchQueue<T> {
    fn default() -> Self {
        Self(Mutex::new(QueueState {
            items: VecDeque::new(),
            taken: 0,
            joinable: HashMap::new(),
            worker: None,
            allows_direct: true,
            has_direct: false,
            is_closed: false,
        }))
    }
}

impl<T> BatchQueue<T> {
    // A panic while the lock is held cannot leave half a change.
    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to send one item directly, if there is nothing it could share a batch with. It
    /// delays no batch.
    pub(super) fn try_direct(&self) -> Option<DirectPermit<'_, T>> {
        let mut state = self.lock();
        let may =
            state.allows_direct && !state.has_direct && !state.is_closed && state.items.is_empty();
        state.has_direct |= may;
        may.then(|| DirectPermit(self))
    }

    /// Hands over the item with this hash, if there is one that was not taken yet. Whether `join`
    /// has accepted it: another item may have the same hash.
    pub(super) fn join(&self, hash: u64, join: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.lock();
        let place = state.joinable.get(&hash).and_then(|number| number.checked_sub(state.taken));
        let place = place.and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| state.items.get_mut(place)).is_some_and(join)
    }

    /// Adds an item, and wakes the worker. With a hash of what it asks, others may join it.
    pub(super) fn push(&self, item: T, hash: Option<u64>) -> Result<(), QueueClosed> {
        let worker = {
            let mut state = self.lock();
            if state.is_closed {
                return Err(QueueClosed);
            }
            if let Some(hash) = hash {
                let number = state.taken + state.items.len() as u64;
                state.joinable.insert(hash, number);
            }
            state.items.push_back(item);
            state.worker.take()
        };
        if let Some(worker) = worker {
            worker.wake();
        }
        Ok(())
    }

    fn poll_filled(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.items.is_empty() {
            return Poll::Ready(());
        }
        state.worker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes the items of one batch: at least one, if there is one, and as many as fit. Also says
    /// whether any are left.
    fn take(&self, capacity: usize, size: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
        let mut state = self.lock();
        state.allows_direct = false;
        let mut taken = 0;
        let mut fits = |item: &T| {
            taken += size(item);
            taken <= capacity
        };
        let count = state.items.iter().map_while(|item| fits(item).then_some(())).count();
        let count = count.max(1).min(state.items.len());
        let batch = state.items.drain(..count).collect();
        state.taken += count as u64;
        if !state.joinable.is_empty() {
            let taken = state.taken;
            state.joinable.retain(|_, number| *number >= taken);
        }
        (batch, !state.items.is_empty())
    }

    fn allow_direct(&self) {
        self.lock().allows_direct = true;
    }

    fn close(&self) {
        // Dropped after the lock is released: dropping an item wakes its caller.
        let _dropped = {
            let mut state = self.lock();
            state.is_closed = true;
            mem::take(&mut state.items)
        };
    }
}

/// The right to send one item directly, until it is dropped.
pub(super) struct DirectPermit<'a, T>(&'a BatchQueue<T>);

impl<T> Drop for DirectPermit<'_, T> {
    fn drop(&mut self) {
        self.0.lock().has_direct = false;
    }
}

/// Closes the queue, however the worker ends.
struct CloseOnDrop<T>(Arc<BatchQueue<T>>);

impl<T> Drop for CloseOnDrop<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The task of the worker. It runs until it is aborted.
pub(super) async fn run_worker<B: BatchTransport>(
    queue: Arc<BatchQueue<B::Item>>,
    mut transport: B,
) {
    let queue = CloseOnDrop(queue);
    let queue = &*queue.0;
    let mut in_flight = FuturesUnordered::new();
    let mut delay = pin!(sleep(BATCH_DELAY));
    let (mut had_several, mut was_full) = (false, false);
    loop {
        // After a full batch there is no delay: it would not make the next one any larger.
        let is_delayed = !in_flight.is_empty() && !delay.is_elapsed() && !was_full;
        let may_send = !is_delayed && in_flight.len() < MAX_BATCHES;
        tokio::select! {
            biased;
            Some(reply) = in_flight.next() => {
                transport.deliver(reply);
                if in_flight.is_empty() && !had_several {
                    queue.allow_direct();
                }
                // The callers that were answered run first: what they ask next goes into one batch.
                yield_once().await;
            }
            () = &mut delay, if is_delayed => {}
            () = filled(queue, was_full), if may_send => {
                let batch;
                (batch, was_full) = queue.take(B::CAPACITY, B::size);
                had_several = batch.len() > 1;
                if let Some(sent) = transport.send(batch) {
                    in_flight.push(sent);
                    delay.as_mut().reset(Instant::now() + BATCH_DELAY);
                } else if in_flight.is_empty() {
                    queue.allow_direct();
                }
            }
        }
    }
}

/// Waits until there is an item. After a full batch, the task yields first, so that it is sent.
async fn filled<T>(queue: &BatchQueue<T>, was_full: bool) {
    if was_full {
        yield_once().await;
    }
    poll_fn(|cx| queue.poll_filled(cx)).await;
}

/// Lets every other task run that is ready to.
async fn yield_once() {
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
