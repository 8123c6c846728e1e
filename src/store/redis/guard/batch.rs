//! Checks that come while another one is under way travel together.
//!
//! The first check is sent at once. Those that come before its answer wait, and all go in one `MGET` when it is there;
//! those that come before *that* answer go in the next. So under load Redis, the client and the kernel are asked once
//! for many: several times as many checks for the same work.
//!
//! Nobody waits for long: a batch that has not been answered after [`PATIENCE`] lets the next one go. Far from Redis,
//! a check takes one round trip and that, not two.
//!
//! Batches are sent by tasks of their own, so that nobody depends on how eagerly someone else polls.
//!
//! A check only ever joins a batch that has not been sent yet, so a revocation that was confirmed before the check began
//! is seen by it.

use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::types::{Key, Value};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Core, Hold, Lane, replaced};
use crate::store::StoreError;

/// Most checks of one batch: some thousand keys, for which Redis needs a millisecond.
const LARGEST: usize = 256;

/// How long the next batch waits for the answer to this one. About what a server in the same place needs.
const PATIENCE: Duration = Duration::from_millis(1);

/// What one check asks for, all of it on one node.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The shards whose lives are asked for; few, and each once.
    pub(crate) shards: Vec<u16>,
    /// The keys of the records.
    pub(crate) records: Vec<Key>,
}

/// The values that were asked for, in the same order.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pub(crate) lives: Vec<Value>,
    pub(crate) records: Vec<Value>,
}

#[derive(Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Whether a batch is under way, whose end will send those that wait.
    is_busy: bool,
    checks: Vec<Check>,
}

type Check = (Ask, oneshot::Sender<Result<Values, StoreError>>);

impl Queue {
    // A panic while the lock is held cannot leave half a change.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Asks, alone or together with others.
    pub(crate) async fn read(&self, ask: Ask, limit: Duration) -> Result<Values, StoreError> {
        let core = &self.lane.core;
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = core.queue.lock();
            waiting.checks.push((ask, sender));
            if !waiting.is_busy {
                waiting.is_busy = true;
                drop(waiting);
                // Its end sends what waits, that is, this check.
                drop(Turn(Arc::clone(core)));
            }
        }
        match timeout(limit, answer).await {
            Ok(Ok(values)) => values,
            Ok(Err(_)) => Err(replaced()),
            Err(_) => Err(self.lane.count_timeout()),
        }
    }
}

/// The right to have a batch under way. However it ends, answered or given up, the next one is sent.
struct Turn(Arc<Core>);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut guard = self.0.queue.lock();
        let waiting = &mut *guard;
        // Nobody waits for these any more.
        waiting.checks.retain(|(_, sender)| !sender.is_closed());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !waiting.checks.is_empty() => {
                let rest = waiting.checks.split_off(waiting.checks.len().min(LARGEST));
                let batch = mem::replace(&mut waiting.checks, rest);
                drop(guard);
                runtime.spawn(send(Turn(Arc::clone(&self.0)), batch));
            }
            _ => {
                waiting.checks.clear();
                waiting.is_busy = false;
            }
        }
    }
}

async fn send(turn: Turn, batch: Vec<Check>) {
    let (asks, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let values = match turn.0.lane() {
        Ok(lane) => {
            let mut answer = pin!(lane.read_all(&asks, turn.0.config.limit));
            let soon = timeout(PATIENCE, &mut answer).await;
            drop(turn);
            match soon {
                Ok(values) => values,
                Err(_) => answer.await,
            }
        }
        Err(error) => {
            drop(turn);
            Err(error)
        }
    };
    // Whoever has gone away does not need an answer.
    match values {
        Ok(values) => {
            senders.into_iter().zip(values).for_each(|(sender, values)| drop(sender.send(Ok(values))));
        }
        Err(error) => senders.into_iter().for_each(|sender| drop(sender.send(Err(error.clone())))),
    }
}

impl Lane {
    /// Answers all in one command; each life is asked for once.
    async fn read_all(&self, asks: &[Ask], limit: Duration) -> Result<Vec<Values>, StoreError> {
        let mut shards: Vec<u16> = Vec::with_capacity(1);
        for shard in asks.iter().flat_map(|ask| &ask.shards) {
            if !shards.contains(shard) {
                shards.push(*shard);
            }
        }
        let lives = shards.iter().map(|shard| Key::from(self.core.config.keys.shard(*shard).life.clone()));
        let records = asks.iter().flat_map(|ask| ask.records.iter().cloned());
        let mut lives = self.mget(lives.chain(records).collect(), limit).await?;
        let mut records = lives.split_off(shards.len()).into_iter();
        let life_of = |shard: &u16| {
            let place = shards.iter().position(|known| known == shard);
            place.and_then(|place| lives.get(place)).cloned().unwrap_or(Value::Null)
        };
        let values = asks.iter().map(|ask| Values {
            lives: ask.shards.iter().map(life_of).collect(),
            records: records.by_ref().take(ask.records.len()).collect(),
        });
        Ok(values.collect())
    }
}
