//! Checks that are under way at the same time share round trips.
//!
//! A check that is the only one is sent at once, directly. Checks that start while others are in
//! flight wait in a queue and become the next `MGET`, which asks for each epoch and each record
//! once. So an answer costs less the more checks there are, and a single check waits for nothing.
//!
//! ```text
//!   check ─▶ queue ─▶ batch ─▶ MGET ─▶ reply ─▶ each check is decided by itself ─▶ its answer
//!     │                ▲ the batch before was answered, or was sent a millisecond ago
//!     └─ only one ─▶ MGET ─▶ reply ─▶ decided
//! ```
//!
//! A check has the same guarantees in a batch as alone:
//! - Its question is sent after it began, never taken from one that is already in flight: a
//!   revocation that was confirmed before is seen.
//! - Its deadline counts from its own start. A slow answer delays others by a millisecond at most,
//!   because the next batch does not wait for it.
//! - An unreadable record is an error for the checks that asked for it, and for no others.
//! - If the caller of one check goes away, the others are answered all the same.
//!
//! Where many checks are under way, one that asks what another asks that has not been sent yet
//! waits for the same answer and takes no permit of its own: one token, presented by thousands of
//! connections at once, does not take the permits of all others. A question in flight is never
//! joined: its answer may be older than a revocation that was confirmed since.
//!
//! A batch that is not answered in time is one timeout, however many checks are in it, and a check
//! whose own time is over while it waits is none: how much we ask says nothing about Redis. Nor is
//! it a timeout if this process stood still meanwhile, see `time_limit`.
//!
//! While a cluster moves the slot of the keys, `MGET` is refused. Then each key is asked for by
//! itself, see `supervised/moving`.

mod plan;
mod queue;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::plan::{CheckAnswer, KeyPlan, RecordPositions, ShardGroup, read_epoch};
use self::queue::{BatchQueue, BatchTransport, run_worker};
use super::activity::StoreActivity;
use super::connection::unexpected_reply;
use super::epoch::{EpochSource, ReadFrom};
use super::schema::Epoch;
use super::supervised::{
    ConnectionHandle, Permit, PinnedConnection, SupervisedConnection, SupervisionConfig,
};
use super::time_limit::{Late, TimeLimit};
use super::topology::is_moving;
use crate::store::{StoreError, StoreErrorKind};
use crate::verified::{TokenTarget, VerifiedToken};

/// How many records one `MGET` asks for, about: Redis does nothing else meanwhile.
const MAX_RECORDS: usize = 1024;

/// A supervised connection for checks, and the queue of those that wait for it.
pub(crate) struct BatchedChecks {
    connection: SupervisedConnection,
    limit: Duration,
    shards: Arc<ShardGroup>,
    queue: Arc<BatchQueue<PendingCheck>>,
    /// Seeds the hashes of tokens, so that nobody can aim at one.
    seed: RandomState,
    activity: Arc<StoreActivity>,
    worker: JoinHandle<()>,
}

/// A place in the line of those who are answered.
pub(crate) enum CheckTurn {
    /// A question of its own.
    Own(Permit),
    /// The answer to one that was waiting to be sent.
    Joined(oneshot::Receiver<CheckAnswer>),
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
        let activity = Arc::clone(&config.activity);
        let connection = SupervisedConnection::start(config);
        let worker = BatchWorker {
            connection: connection.handle(),
            limit,
            shards: Arc::clone(&shards),
            positions: RecordPositions::default(),
            last_epoch: None,
            activity: Arc::clone(&activity),
        };
        let worker = tokio::spawn(run_worker(Arc::clone(&queue), worker));
        let seed = RandomState::new();
        Self { connection, limit, shards, queue, seed, activity, worker }
    }

    pub(crate) fn connection(&self) -> &SupervisedConnection {
        &self.connection
    }

    /// Whether any target of the token belongs to a shard behind this connection.
    pub(crate) fn has_targets_of(&self, token: &VerifiedToken) -> bool {
        self.shards.targets(token).next().is_some()
    }

    /// Whether so many questions are open that it pays to look for one to join.
    pub(crate) fn is_crowded(&self) -> bool {
        self.connection.is_crowded()
    }

    /// The right to a question beside those of the checks; an error at once if it could not be
    /// answered.
    pub(crate) fn acquire(&self) -> Result<Permit, StoreError> {
        self.connection.acquire_patiently()
    }

    /// The right to check this token; an error at once if it could not be answered.
    pub(crate) fn turn(&self, token: &VerifiedToken) -> Result<CheckTurn, StoreError> {
        if self.connection.is_crowded() {
            let (answer, answered) = oneshot::channel();
            let join = |waiting: &mut PendingCheck| waiting.join(token, answer);
            if self.queue.join(self.hash_of(token), join) {
                return Ok(CheckTurn::Joined(answered));
            }
        }
        self.connection.acquire_patiently().map(CheckTurn::Own)
    }

    fn hash_of(&self, token: &VerifiedToken) -> u64 {
        let mut hasher = self.seed.build_hasher();
        for target in token.targets() {
            hasher.write(target.fingerprint().as_bytes());
        }
        hasher.finish()
    }

    /// What the shards behind this connection know of a token. If the connection is lost meanwhile,
    /// it is asked again over the next one, as long as there is time.
    pub(crate) async fn ask(&self, mut turn: CheckTurn, token: Arc<VerifiedToken>) -> CheckAnswer {
        let mut limit = self.connection.time_limit(self.limit);
        loop {
            let answer = match &mut turn {
                CheckTurn::Own(permit) => self.ask_once(permit, &token, &mut limit).await,
                CheckTurn::Joined(answered) => self.await_answer(answered, &mut limit).await,
            };
            match (answer, &mut turn) {
                (Err(error), CheckTurn::Own(permit)) => {
                    permit.next_connection(error, limit.deadline()).await?;
                    limit.resume();
                }
                (Err(error), CheckTurn::Joined(_)) => {
                    self.connection.next_connection(error, limit.deadline()).await?;
                    limit.resume();
                    turn = self.turn(&token)?;
                }
                (answer, _) => return answer,
            }
        }
    }

    async fn ask_once(
        &self,
        permit: &Permit,
        token: &Arc<VerifiedToken>,
        limit: &mut TimeLimit,
    ) -> CheckAnswer {
        if let Some(_direct) = self.queue.try_direct() {
            let (keys, plan) = self.shards.plan(iter::once(&**token), &mut None);
            // In a box of its own, so that the future of a check that waits in the queue is
            // smaller.
            // Why the keys are asked for one by one.
            let mut moving = None;
            let server = permit.server_id().tag();
            self.activity.count_batch(1);
            let asked = Box::pin(async {
                match permit.connection().mget(keys).await {
                    Err(error) if is_moving(&error) => {
                        moving = Some(error);
                        let tokens = iter::once(&**token);
                        ask_one_by_one(&self.shards, permit.connection(), tokens, &mut None).await
                    }
                    values => values.map(|values| (plan, values)),
                }
            });
            return match limit.wait(asked).await {
                Ok(Ok((plan, values))) => self.shards.decide_single(token, &plan, server, &values),
                Ok(Err(error)) => Err(limit.blame(error)),
                Err(late) => match (late, moving) {
                    (Late::Unanswered, Some(moving)) => Err(moving),
                    (late, _) => {
                        let connection = permit.connection();
                        Err(connection.note_late(connection.why_late(late, limit)))
                    }
                },
            };
        }
        let (answer, mut answered) = oneshot::channel();
        let hash = self.connection.is_crowded().then(|| self.hash_of(token));
        let check = PendingCheck { token: Arc::clone(token), answer, joined: Vec::new() };
        self.queue.push(check, hash).map_err(|_| runtime_ended())?;
        self.await_answer(&mut answered, limit).await
    }

    async fn await_answer(
        &self,
        answered: &mut oneshot::Receiver<CheckAnswer>,
        limit: &mut TimeLimit,
    ) -> CheckAnswer {
        match limit.wait(answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(runtime_ended())),
            Err(late) => Err(self.connection.late_error(late, limit)),
        }
    }
}

impl Drop for BatchedChecks {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// The keys of these tokens and their values, asked for while the slot of the keys is being moved.
/// What is known of the epochs is looked up anew: before the question that is answered.
fn ask_one_by_one<'a>(
    shards: &'a ShardGroup,
    connection: &'a PinnedConnection,
    tokens: impl Iterator<Item = &'a VerifiedToken> + Clone,
    seen: &mut Option<&mut RecordPositions>,
) -> BoxFuture<'a, Result<(KeyPlan, Vec<Value>), StoreError>> {
    let (keys, plan) = shards.plan(tokens, seen);
    async move {
        let values = connection.mget_while_moving(keys, plan.epochs.len()).await?;
        Ok((plan, values))
    }
    .boxed()
}

fn runtime_ended() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unreachable,
        "the runtime on which the store was opened has ended",
    )
}

// === The worker ===

/// One check that waits for its answer.
struct PendingCheck {
    token: Arc<VerifiedToken>,
    answer: oneshot::Sender<CheckAnswer>,
    /// Others who ask the same.
    joined: Vec<oneshot::Sender<CheckAnswer>>,
}

impl PendingCheck {
    /// Adds one who asks the same, if it is the same: everything that decides is alike.
    fn join(&mut self, token: &VerifiedToken, answer: oneshot::Sender<CheckAnswer>) -> bool {
        let (waiting, targets) = (self.token.targets().iter(), token.targets().iter());
        let is_same = self.token.issued_at() == token.issued_at()
            && waiting.map(TokenTarget::fingerprint).eq(targets.map(TokenTarget::fingerprint));
        if is_same {
            self.joined.push(answer);
        }
        is_same
    }

    /// Whether nobody waits for the answer any more.
    fn is_closed(&self) -> bool {
        self.answer.is_closed() && self.joined.iter().all(oneshot::Sender::is_closed)
    }

    fn send(self, answer: CheckAnswer) {
        for waiting in self.joined {
            let _ = waiting.send(answer.clone());
        }
        let _ = self.answer.send(answer);
    }
}

/// Sends batches of checks and delivers the answers.
struct BatchWorker {
    connection: ConnectionHandle,
    limit: Duration,
    shards: Arc<ShardGroup>,
    /// The positions of the records of the batch that is being planned. Kept for its allocation.
    positions: RecordPositions,
    last_epoch: Option<(Box<[u8]>, Epoch)>,
    activity: Arc<StoreActivity>,
}

/// What came of a batch.
struct BatchReply {
    connection: PinnedConnection,
    checks: Vec<PendingCheck>,
    /// Or why there was no reply in time.
    values: Result<Result<(KeyPlan, Vec<Value>), StoreError>, Late>,
}

impl BatchTransport for BatchWorker {
    type Item = PendingCheck;
    type InFlight = BoxFuture<'static, BatchReply>;
    type Reply = BatchReply;

    const CAPACITY: usize = MAX_RECORDS;

    fn size(check: &PendingCheck) -> usize {
        check.token.targets().len()
    }

    fn send(&mut self, mut checks: Vec<PendingCheck>) -> Option<Self::InFlight> {
        // Checks whose caller has gone are not sent.
        checks.retain(|check| !check.is_closed());
        if checks.is_empty() {
            return None;
        }
        let connection = match self.connection.pin() {
            Ok(connection) => connection,
            Err(error) => {
                fail_all(checks, || error.clone());
                return None;
            }
        };
        self.activity.count_batch(checks.iter().map(|check| 1 + check.joined.len()).sum());
        self.positions.clear();
        let mut seen = (checks.len() > 1).then_some(&mut self.positions);
        let (keys, plan) = self.shards.plan(checks.iter().map(|check| &*check.token), &mut seen);
        let (limit, shards) = (self.limit, Arc::clone(&self.shards));
        Some(
            async move {
                // Why the keys are asked for one by one.
                let mut moving = None;
                let asked = async {
                    match connection.mget(keys).await {
                        Err(error) if is_moving(&error) => {
                            moving = Some(error);
                            let tokens = checks.iter().map(|check| &*check.token);
                            let mut seen = RecordPositions::default();
                            let mut seen = Some(&mut seen);
                            ask_one_by_one(&shards, &connection, tokens, &mut seen).await
                        }
                        values => values.map(|values| (plan, values)),
                    }
                };
                // Each check began earlier, so none waits for longer than this.
                let mut limit = connection.time_limit(limit);
                let values = match (limit.wait(asked).await, moving) {
                    (Ok(values), _) => Ok(values.map_err(|error| limit.blame(error))),
                    (Err(Late::Unanswered), Some(moving)) => Ok(Err(moving)),
                    (Err(late), _) => Err(connection.why_late(late, &mut limit)),
                };
                BatchReply { connection, checks, values }
            }
            .boxed(),
        )
    }

    fn deliver(&mut self, reply: BatchReply) {
        let BatchReply { connection, checks, values } = reply;
        let (plan, values) = match values {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return fail_all(checks, || error.clone()),
            Err(late) => {
                let error = connection.note_late(late);
                return fail_all(checks, || error.clone());
            }
        };
        let Some((epochs, records)) = values.split_at_checked(plan.epochs.len()) else {
            return fail_all(checks, || unexpected_reply("redis"));
        };
        let from = ReadFrom { source: EpochSource::Checks, server: connection.server_id().tag() };
        let mut doubts = Vec::with_capacity(epochs.len());
        for (value, (shard, known)) in epochs.iter().zip(&plan.epochs) {
            let epoch = read_epoch(value, &mut self.last_epoch);
            doubts.push(epoch.and_then(|epoch| {
                self.shards.tracker.observe(from, *shard, known.as_ref(), epoch)
            }));
        }
        let mut positions = plan.positions.iter();
        for check in checks {
            let answer = self.shards.decide(&check.token, &doubts, records, &mut positions);
            check.send(answer);
        }
    }
}

fn fail_all(checks: Vec<PendingCheck>, mut error: impl FnMut() -> StoreError) {
    for check in checks {
        if !check.is_closed() {
            check.send(Err(error()));
        }
    }
}
