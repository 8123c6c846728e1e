//! Checks that are under way at once share round trips.
//!
//! A check that is alone goes out at once, by itself. What is asked while others are in flight
//! waits in a queue and becomes the next `MGET`, in which each epoch and each record is asked for
//! once. So the more is asked, the less each answer costs, and who is alone waits for nobody.
//!
//! ```text
//!   check ─▶ queue ─▶ batch ─▶ MGET ─▶ reply ─▶ judged for each check by itself ─▶ its answer
//!     │                ▲ the one before was answered, or has been out for a millisecond
//!     └─ alone ─▶ MGET ─▶ reply ─▶ judged
//! ```
//!
//! What a check can rely on is what it could rely on alone:
//! - Its question is sent after it was asked, never taken from one that is already in flight: a
//!   revocation that was confirmed before is seen.
//! - It has its own deadline, counted from its own start. A slow answer holds up nobody for longer
//!   than a millisecond, because the next batch does not wait for it.
//! - An odd record is an error for the checks that asked for it, and for no others.
//! - A check that is given up takes nothing from the others with it.

mod queue;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fred::types::Value;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use self::queue::{BatchQueue, BatchTransport};
use super::ask::read_record;
use super::connection::unexpected_reply;
use super::epoch::{self, Doubt, EpochSource, EpochTracker, KnownEpoch, in_doubt};
use super::schema::{Epoch, RedisKeys};
use super::supervised::{
    ConnectionHandle, Permit, PinnedConnection, SupervisedConnection, SupervisionConfig,
};
use crate::revocation::Fingerprint;
use crate::store::{RevokedBy, Standing, StoreError, StoreErrorKind};
use crate::verified::{TokenTarget, VerifiedToken};

/// How many records one `MGET` asks for, about: Redis does nothing else meanwhile.
const MAX_RECORDS: usize = 1024;

type Answer = Result<Standing, StoreError>;
type Reply = Result<Result<Vec<Value>, StoreError>, Elapsed>;

/// A guarded connection for checks. What asks over it ends with it.
pub(crate) struct BatchedChecks {
    connection: SupervisedConnection,
    limit: Duration,
    shards: Arc<ShardGroup>,
    queue: Arc<BatchQueue<Ask>>,
    worker: JoinHandle<()>,
}

impl BatchedChecks {
    /// Starts to connect, in the background.
    pub(crate) fn start(config: SupervisionConfig) -> Self {
        let limit = config.limit;
        let shards = Arc::new(ShardGroup {
            keys: Arc::clone(&config.keys),
            tracker: Arc::clone(&config.tracker),
            shards: config.shards.clone(),
        });
        let queue = Arc::new(BatchQueue::default());
        let connection = SupervisedConnection::start(config);
        let worker = BatchWorker {
            line: connection.handle(),
            limit,
            shards: Arc::clone(&shards),
            places: Places::default(),
            last_epoch: None,
        };
        let worker = tokio::spawn(queue::work(Arc::clone(&queue), worker));
        Self { connection, limit, shards, queue, worker }
    }

    pub(crate) fn connection(&self) -> &SupervisedConnection {
        &self.connection
    }

    /// Whether any target of the token is kept here.
    pub(crate) fn keeps(&self, token: &VerifiedToken) -> bool {
        self.shards.targets(token).next().is_some()
    }

    /// The right to one check; an error at once if it could not be answered.
    pub(crate) fn acquire(&self) -> Result<Permit, StoreError> {
        self.connection.acquire()
    }

    /// What the shards behind this connection know of a token.
    pub(crate) async fn ask(&self, permit: Permit, token: Arc<VerifiedToken>) -> Answer {
        if let Some(_alone) = self.queue.try_direct() {
            let (keys, question) = self.shards.compose(iter::once(&*token), &mut None);
            // In a box of its own: those who wait in the queue need no room for it.
            return match timeout(self.limit, Box::pin(permit.connection().mget(keys))).await {
                Ok(values) => self.shards.judge_alone(&token, &question, &values?),
                Err(_) => Err(permit.connection().count_timeout()),
            };
        }
        let (answer, arrived) = oneshot::channel();
        self.queue.push(Ask { token, answer }).map_err(|_| closed())?;
        match timeout(self.limit, arrived).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(permit.connection().count_timeout()),
        }
    }
}

impl Drop for BatchedChecks {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

fn closed() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unreachable,
        "the runtime on which the store was opened has ended",
    )
}

// === The question and its answer ===

/// The shards behind one connection: what to ask for, and what the answer means.
struct ShardGroup {
    keys: Arc<RedisKeys>,
    tracker: Arc<EpochTracker>,
    shards: Range<u16>,
}

/// One `MGET`: the epochs of these shards, and then the records.
struct Question {
    /// With what was known of them when the question was sent.
    epochs: Vec<(u16, Option<Arc<KnownEpoch>>)>,
    /// For each target of each token, in order, where in the reply to look.
    places: Vec<Place>,
}

/// Positions among the records.
type Places = HashMap<Fingerprint, usize, BuildHasherDefault<AsItIs>>;

/// A fingerprint is a hash already. Whoever could choose tokens, and so make some of them meet,
/// would make one batch slower.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    /// The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The positions of an epoch among the epochs, and of a record among the records.
struct Place {
    epoch: usize,
    record: usize,
}

impl ShardGroup {
    /// The targets of a token that are kept here.
    fn targets<'a>(
        &'a self,
        token: &'a VerifiedToken,
    ) -> impl Iterator<Item = (u16, &'a TokenTarget)> {
        let targets = token.targets().iter();
        targets
            .map(|target| (self.keys.shard_of(target.fingerprint()), target))
            .filter(|(shard, _)| self.shards.contains(shard))
    }

    /// What to ask for. In `seen` stands where records are that others have asked for; without it,
    /// none is asked for twice: one token has no target twice.
    fn compose<'a>(
        &self,
        tokens: impl Iterator<Item = &'a VerifiedToken> + Clone,
        seen: &mut Option<&mut Places>,
    ) -> (Vec<Value>, Question) {
        let targets = tokens.clone().map(|token| token.targets().len()).sum();
        let mut question =
            Question { epochs: Vec::with_capacity(1), places: Vec::with_capacity(targets) };
        let mut records = Vec::with_capacity(targets);
        let mut text =
            BytesMut::with_capacity(targets * self.keys.shard(self.shards.start).record_length());
        for token in tokens {
            for (shard, target) in self.targets(token) {
                let epochs = &mut question.epochs;
                let epoch =
                    epochs.iter().position(|(known, _)| *known == shard).unwrap_or_else(|| {
                        epochs.push((shard, self.tracker.known(shard)));
                        epochs.len() - 1
                    });
                let mut write = || {
                    self.keys.shard(shard).write_record(target.fingerprint(), &mut text);
                    records.push(Value::Bytes(text.split().freeze()));
                    records.len() - 1
                };
                let record = match seen {
                    Some(seen) => *seen.entry(*target.fingerprint()).or_insert_with(write),
                    None => write(),
                };
                question.places.push(Place { epoch, record });
            }
        }
        let mut keys = Vec::with_capacity(question.epochs.len() + records.len());
        keys.extend(
            question
                .epochs
                .iter()
                .map(|(shard, _)| Value::Bytes(self.keys.shard(*shard).epoch.clone())),
        );
        keys.append(&mut records);
        (keys, question)
    }

    fn judge_alone(&self, token: &VerifiedToken, question: &Question, values: &[Value]) -> Answer {
        let Some((epochs, records)) = values.split_at_checked(question.epochs.len()) else {
            return Err(unexpected_reply("redis"));
        };
        let doubts: Vec<_> = epochs
            .iter()
            .zip(&question.epochs)
            .map(|(value, (shard, known))| {
                self.tracker.observe(
                    EpochSource::Checks,
                    *shard,
                    known.as_ref(),
                    read_epoch(value, &mut None)?,
                )
            })
            .collect();
        self.judge(token, &doubts, records, &mut question.places.iter())
    }

    /// Takes as many places as the token has targets here.
    fn judge<'a>(
        &self,
        token: &VerifiedToken,
        doubts: &[Result<Doubt, StoreError>],
        records: &[Value],
        places: &mut impl Iterator<Item = &'a Place>,
    ) -> Answer {
        let (mut revoked, mut doubtful, mut unreadable) = (None, None, None);
        for ((_, target), place) in self.targets(token).zip(places) {
            match records.get(place.record) {
                Some(Value::Null) => {}
                Some(value) => match read_record(value, target.fingerprint()) {
                    Ok(record) if record.covers(token) => revoked = Some(RevokedBy::from(&record)),
                    Ok(_) => {}
                    Err(error) => unreadable = Some(error),
                },
                None => unreadable = Some(unexpected_reply("redis")),
            }
            match doubts.get(place.epoch) {
                Some(Ok(doubt)) if doubt.covers(token) => doubtful = Some(in_doubt()),
                Some(Ok(_)) => {}
                Some(Err(error)) => doubtful = Some(error.clone()),
                None => doubtful = Some(unexpected_reply("redis")),
            }
        }
        match (revoked, doubtful.or(unreadable)) {
            // A record that covers the token decides, whatever else could not be read.
            (Some(revoked), _) => Ok(Standing::Revoked(revoked)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Standing::Live),
        }
    }
}

/// Between two writes the epoch reads the same in every reply: `last` is the one that was read last,
/// and from what.
fn read_epoch(
    value: &Value,
    last: &mut Option<(Box<[u8]>, Epoch)>,
) -> Result<Option<Epoch>, StoreError> {
    if value.is_null() {
        return Ok(None);
    }
    let value = value.as_bytes().ok_or_else(|| unexpected_reply("redis"))?;
    match last {
        Some((text, epoch)) if **text == *value => Ok(Some(*epoch)),
        _ => {
            let epoch = epoch::read(value)?;
            *last = Some((value.into(), epoch));
            Ok(Some(epoch))
        }
    }
}

// === The worker ===

/// One check that waits for its answer.
struct Ask {
    token: Arc<VerifiedToken>,
    answer: oneshot::Sender<Answer>,
}

/// Sends batches and hands out the answers.
struct BatchWorker {
    line: ConnectionHandle,
    limit: Duration,
    shards: Arc<ShardGroup>,
    /// Where the records of the batch in the making stand. Kept for its tracker.
    places: Places,
    last_epoch: Option<(Box<[u8]>, Epoch)>,
}

impl BatchTransport for BatchWorker {
    type Ask = Ask;
    type InFlight = BoxFuture<'static, Self::Reply>;
    type Reply = (PinnedConnection, Vec<Ask>, Question, Reply);

    const ROOM: usize = MAX_RECORDS;

    fn size(ask: &Ask) -> usize {
        ask.token.targets().len()
    }

    fn send(&mut self, mut asks: Vec<Ask>) -> Option<Self::InFlight> {
        // Those who have gone are not asked for.
        asks.retain(|ask| !ask.answer.is_closed());
        if asks.is_empty() {
            return None;
        }
        let connection = match self.line.connection() {
            Ok(connection) => connection,
            Err(error) => {
                refuse(asks, || error.clone());
                return None;
            }
        };
        self.places.clear();
        let mut seen = (asks.len() > 1).then_some(&mut self.places);
        let (keys, question) = self.shards.compose(asks.iter().map(|ask| &*ask.token), &mut seen);
        let limit = self.limit;
        Some(
            async move {
                // The checks have been waiting for longer, so nobody waits after that.
                let reply = timeout(limit, connection.mget(keys)).await;
                (connection, asks, question, reply)
            }
            .boxed(),
        )
    }

    fn deliver(&mut self, (connection, asks, question, reply): Self::Reply) {
        let values = match reply {
            Ok(Ok(values)) => values,
            Ok(Err(error)) => return refuse(asks, || error.clone()),
            Err(_) => return refuse(asks, || connection.count_timeout()),
        };
        let Some((epochs, records)) = values.split_at_checked(question.epochs.len()) else {
            return refuse(asks, || unexpected_reply("redis"));
        };
        let mut doubts = Vec::with_capacity(epochs.len());
        for (value, (shard, known)) in epochs.iter().zip(&question.epochs) {
            let epoch = read_epoch(value, &mut self.last_epoch);
            doubts.push(epoch.and_then(|epoch| {
                self.shards.tracker.observe(EpochSource::Checks, *shard, known.as_ref(), epoch)
            }));
        }
        let mut places = question.places.iter();
        for ask in asks {
            let answer = self.shards.judge(&ask.token, &doubts, records, &mut places);
            let _ = ask.answer.send(answer);
        }
    }
}

fn refuse(asks: Vec<Ask>, mut error: impl FnMut() -> StoreError) {
    for ask in asks {
        if !ask.answer.is_closed() {
            let _ = ask.answer.send(Err(error()));
        }
    }
}
