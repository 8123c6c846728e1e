//! Checks that are under way at once share round trips.
//!
//! A check that is alone goes out at once, by itself. What is asked while others are in flight
//! waits in a queue and becomes the next `MGET`, in which each life and each record is asked for
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

use self::queue::{Office, Queue};
use super::ask::read_record;
use super::guard::{Hold, Lane, Line, Link, LinkConfig};
use super::life::{self, Doubt, Known, Memory, Via, in_doubt};
use super::schema::{Keys, Life};
use super::wire::odd_reply;
use crate::revocation::Fingerprint;
use crate::store::{RevokedBy, Standing, StoreError, StoreErrorKind};
use crate::verified::{TokenTarget, VerifiedToken};

/// How many records one `MGET` asks for, about: Redis does nothing else meanwhile.
const MAX_RECORDS: usize = 1024;

type Answer = Result<Standing, StoreError>;
type Reply = Result<Result<Vec<Value>, StoreError>, Elapsed>;

/// A guarded connection for checks. What asks over it ends with it.
pub(crate) struct Desk {
    link: Link,
    limit: Duration,
    shelf: Arc<Shelf>,
    queue: Arc<Queue<Ask>>,
    clerk: JoinHandle<()>,
}

impl Desk {
    /// Starts to connect, in the background.
    pub(crate) fn start(config: LinkConfig) -> Self {
        let limit = config.limit;
        let shelf = Arc::new(Shelf {
            keys: Arc::clone(&config.keys),
            memory: Arc::clone(&config.memory),
            shards: config.shards.clone(),
        });
        let queue = Arc::new(Queue::default());
        let link = Link::start(config);
        let clerk = Clerk {
            line: link.line(),
            limit,
            shelf: Arc::clone(&shelf),
            places: Places::default(),
            last_life: None,
        };
        let clerk = tokio::spawn(queue::work(Arc::clone(&queue), clerk));
        Self { link, limit, shelf, queue, clerk }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Whether any target of the token is kept here.
    pub(crate) fn keeps(&self, token: &VerifiedToken) -> bool {
        self.shelf.targets(token).next().is_some()
    }

    /// The right to one check; an error at once if it could not be answered.
    pub(crate) fn seize(&self) -> Result<Hold, StoreError> {
        self.link.seize()
    }

    /// What the shards behind this connection know of a token.
    pub(crate) async fn ask(&self, hold: Hold, token: Arc<VerifiedToken>) -> Answer {
        if let Some(_alone) = self.queue.go_alone() {
            let (keys, question) = self.shelf.compose(iter::once(&*token), &mut None);
            // In a box of its own: those who wait in the queue need no room for it.
            return match timeout(self.limit, Box::pin(hold.lane().mget(keys))).await {
                Ok(values) => self.shelf.judge_alone(&token, &question, &values?),
                Err(_) => Err(hold.lane().count_timeout()),
            };
        }
        let (answer, arrived) = oneshot::channel();
        self.queue.push(Ask { token, answer }).map_err(|_| closed())?;
        match timeout(self.limit, arrived).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(closed())),
            Err(_) => Err(hold.lane().count_timeout()),
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.clerk.abort();
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
struct Shelf {
    keys: Arc<Keys>,
    memory: Arc<Memory>,
    shards: Range<u16>,
}

/// One `MGET`: the lives of these shards, and then the records.
struct Question {
    /// With what was known of them when the question was sent.
    lives: Vec<(u16, Option<Arc<Known>>)>,
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

/// The positions of a life among the lives, and of a record among the records.
struct Place {
    life: usize,
    record: usize,
}

impl Shelf {
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
            Question { lives: Vec::with_capacity(1), places: Vec::with_capacity(targets) };
        let mut records = Vec::with_capacity(targets);
        let mut text =
            BytesMut::with_capacity(targets * self.keys.shard(self.shards.start).record_length());
        for token in tokens {
            for (shard, target) in self.targets(token) {
                let lives = &mut question.lives;
                let life =
                    lives.iter().position(|(known, _)| *known == shard).unwrap_or_else(|| {
                        lives.push((shard, self.memory.recall(shard)));
                        lives.len() - 1
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
                question.places.push(Place { life, record });
            }
        }
        let mut keys = Vec::with_capacity(question.lives.len() + records.len());
        keys.extend(
            question
                .lives
                .iter()
                .map(|(shard, _)| Value::Bytes(self.keys.shard(*shard).life.clone())),
        );
        keys.append(&mut records);
        (keys, question)
    }

    fn judge_alone(&self, token: &VerifiedToken, question: &Question, values: &[Value]) -> Answer {
        let Some((lives, records)) = values.split_at_checked(question.lives.len()) else {
            return Err(odd_reply("redis"));
        };
        let doubts: Vec<_> = lives
            .iter()
            .zip(&question.lives)
            .map(|(value, (shard, known))| {
                self.memory.weigh(Via::Checks, *shard, known.as_ref(), read_life(value, &mut None)?)
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
                None => unreadable = Some(odd_reply("redis")),
            }
            match doubts.get(place.life) {
                Some(Ok(doubt)) if doubt.covers(token) => doubtful = Some(in_doubt()),
                Some(Ok(_)) => {}
                Some(Err(error)) => doubtful = Some(error.clone()),
                None => doubtful = Some(odd_reply("redis")),
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

/// Between two writes the life reads the same in every reply: `last` is the one that was read last,
/// and from what.
fn read_life(
    value: &Value,
    last: &mut Option<(Box<[u8]>, Life)>,
) -> Result<Option<Life>, StoreError> {
    if value.is_null() {
        return Ok(None);
    }
    let value = value.as_bytes().ok_or_else(|| odd_reply("redis"))?;
    match last {
        Some((text, life)) if **text == *value => Ok(Some(*life)),
        _ => {
            let life = life::read(value)?;
            *last = Some((value.into(), life));
            Ok(Some(life))
        }
    }
}

// === The clerk ===

/// One check that waits for its answer.
struct Ask {
    token: Arc<VerifiedToken>,
    answer: oneshot::Sender<Answer>,
}

/// Sends batches and hands out the answers.
struct Clerk {
    line: Line,
    limit: Duration,
    shelf: Arc<Shelf>,
    /// Where the records of the batch in the making stand. Kept for its memory.
    places: Places,
    last_life: Option<(Box<[u8]>, Life)>,
}

impl Office for Clerk {
    type Ask = Ask;
    type Trip = BoxFuture<'static, Self::Reply>;
    type Reply = (Lane, Vec<Ask>, Question, Reply);

    const ROOM: usize = MAX_RECORDS;

    fn size(ask: &Ask) -> usize {
        ask.token.targets().len()
    }

    fn send(&mut self, mut asks: Vec<Ask>) -> Option<Self::Trip> {
        // Those who have gone are not asked for.
        asks.retain(|ask| !ask.answer.is_closed());
        if asks.is_empty() {
            return None;
        }
        let lane = match self.line.lane() {
            Ok(lane) => lane,
            Err(error) => {
                refuse(asks, || error.clone());
                return None;
            }
        };
        self.places.clear();
        let mut seen = (asks.len() > 1).then_some(&mut self.places);
        let (keys, question) = self.shelf.compose(asks.iter().map(|ask| &*ask.token), &mut seen);
        let limit = self.limit;
        Some(
            async move {
                // The checks have been waiting for longer, so nobody waits after that.
                let reply = timeout(limit, lane.mget(keys)).await;
                (lane, asks, question, reply)
            }
            .boxed(),
        )
    }

    fn hand_out(&mut self, (lane, asks, question, reply): Self::Reply) {
        let values = match reply {
            Ok(Ok(values)) => values,
            Ok(Err(error)) => return refuse(asks, || error.clone()),
            Err(_) => return refuse(asks, || lane.count_timeout()),
        };
        let Some((lives, records)) = values.split_at_checked(question.lives.len()) else {
            return refuse(asks, || odd_reply("redis"));
        };
        let mut doubts = Vec::with_capacity(lives.len());
        for (value, (shard, known)) in lives.iter().zip(&question.lives) {
            let life = read_life(value, &mut self.last_life);
            doubts.push(life.and_then(|life| {
                self.shelf.memory.weigh(Via::Checks, *shard, known.as_ref(), life)
            }));
        }
        let mut places = question.places.iter();
        for ask in asks {
            let answer = self.shelf.judge(&ask.token, &doubts, records, &mut places);
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
