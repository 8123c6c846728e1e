//! Loss of data: how this process notices that Redis has lost data, and which tokens it doubts then.
//!
//! The [`Life`] of a shard is read together with every record. It is compared with what this
//! process knew when it *sent* the question, so replies that overtake each other raise no alarm:
//!
//! | the life is | what happened | what is doubted |
//! | --- | --- | --- |
//! | the known one, with at least the known seq | nothing | what its horizon says |
//! | missing | `FLUSHALL`, a restart without data, eviction, another database | everything, until a new life has begun |
//! | the known one, with a lower seq | an older dump, a fail-over that lost writes | everything, until a new life has begun |
//! | the known one, with the known seq, but another change | the same, and others have written since | the same |
//! | the known one, but on a new connection its latest known change is missing in a log that reaches further back (room `compare`) | the same | the same |
//! | another one, begun before the known one or its latest known change | two primaries were believed at once, or an older state has come back | everything, until a new life has begun |
//! | another one | any of these, and someone was faster | tokens issued up to its birth |
//!
//! A token that is in doubt and not found to be revoked is [`StoreErrorKind::DataLoss`]: the policy
//! decides. Tokens issued later than the horizon cannot have been revoked before it, and pass.
//!
//! A horizon is lifted when all that was lost is in redis again. That is a change of the life with
//! a number of its own; by it whoever read the life before knows which came later. It holds for
//! those who know no more of the former life than the one who lifted it: all others say so, and the
//! horizon is drawn anew. How much one knows is told by a number, so nobody can claim to know all
//! of a life that went on from an older state: after a restart or a fail-over that lost data, the
//! horizon stays.
//!
//! A question may be under way for long, and may itself be the one that begins a life in ignorance
//! of the last one. So what is known only grows: once a process has heard of two lives, it never
//! again takes either for the first, and says so to redis until redis says so to all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::schema::{EntryId, FAR, Life};
use super::script::Told;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

/// Later than all tokens.
const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// What this process knows of the lives of all shards.
#[derive(Debug)]
pub(crate) struct Memory {
    shards: Box<[ArcSwapOption<Known>]>,
    /// How long after a loss tokens from before it may be met, in milliseconds; only grows.
    span: AtomicU64,
    /// Rung when a life has to begin or a horizon to be published.
    pub(crate) alarm: Notify,
}

/// What is known of the life of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// As redis holds it.
    pub(crate) life: Life,
    /// A life that this process knew before, until it has told redis: so that all others hear that
    /// this one is not the first, and how much there was in it that has to be there again before
    /// the horizon may be lifted.
    pub(crate) former: Option<Former>,
    /// Changes of this life were lost: a new one has to begin.
    pub(crate) lost: bool,
    /// The entries of the latest changes that each connection has heard of.
    heard: [EntryId; 3],
}

/// Over which connection a life was read: they may lead to different servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// That of the checks.
    Checks,
    /// That of the writes and look-ups.
    Writes,
    /// That of a mirror.
    Feed,
}

/// What is remembered of a former life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    id: u64,
    seq: u64,
}

/// In place of one whose id does not matter, or of several: no life has it, so nobody can claim to
/// know it all.
const SOME_LIFE: Former = Former { id: 0, seq: FAR };

impl Known {
    fn first(via: Via, life: Life) -> Self {
        let mut known = Self { life, former: None, lost: false, heard: [EntryId::default(); 3] };
        known.hear(via, life.mark);
        known
    }

    fn hear(&mut self, via: Via, mark: EntryId) {
        if let Some(heard) = self.heard.get_mut(via as usize) {
            *heard = mark.max(*heard);
        }
    }

    fn has_heard(&self, via: Via, mark: EntryId) -> bool {
        self.heard.get(via as usize) == Some(&mark)
    }

    /// The entries that have to be in the log, unless it was trimmed.
    pub(super) fn marks(&self) -> Vec<EntryId> {
        let mut marks = self.heard.to_vec();
        marks.sort_unstable();
        marks.dedup();
        marks.retain(|mark| *mark != EntryId::default());
        marks
    }

    /// What the script is told, so that it begins a new life or draws a horizon where one is
    /// missing.
    pub(crate) fn for_script(&self) -> Told {
        let Life { id, seq, .. } = self.life;
        match self.former {
            _ if self.lost => Told { id, seq: FAR, reach: FAR },
            Some(former) => Told { id: former.id, seq: 0, reach: former.seq },
            None => Told { id, seq, reach: seq },
        }
    }

    fn doubt(&self) -> Doubt {
        let Life { birth, horizon, lifted, .. } = self.life;
        match self.former {
            // Until the script has said how long it lasts, or that it was lifted for those who know
            // this much.
            Some(_) if horizon < birth => Doubt { horizon: birth, lifted: FOREVER },
            _ => Doubt { horizon, lifted },
        }
    }

    /// Takes in what was read of the same life. Replies may be read in another order than they were
    /// given, so nothing that is known is given up for what is not.
    fn join(&mut self, life: Life) {
        let [older, newer] =
            if life.seq >= self.life.seq { [self.life, life] } else { [life, self.life] };
        let stays = older.horizon > newer.horizon && !newer.is_lifted_since(&older);
        let drawn = if stays { older } else { newer };
        self.life = Life { horizon: drawn.horizon, lifted: drawn.lifted, ..newer };
    }

    /// The life that was found where this one was expected.
    fn succeeded_by(&self, via: Via, life: Life) -> Self {
        let latest = self.heard.iter().map(|mark| mark.0).max().unwrap_or_default();
        Self {
            former: Some(match self.former {
                None if !self.lost => Former { id: self.life.id, seq: self.life.seq },
                // Where it went on without what this process knew, its numbers were given out a
                // second time.
                _ => SOME_LIFE,
            }),
            // The former life went on after this one had begun, or began later: two primaries were
            // believed at once, or an old state has come back. What was written meanwhile is lost
            // as well.
            lost: latest.max(self.life.birth.as_millis())
                > life.horizon.max(life.birth).as_millis(),
            ..Self::first(via, life)
        }
    }
}

/// Up to where tokens are in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(super) horizon: Timestamp,
    pub(super) lifted: Timestamp,
}

impl Doubt {
    /// Tokens issued until then are in doubt; zero if none are.
    #[cfg(feature = "sessions")]
    pub(crate) fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Whether a token that was not found to be revoked may have been.
    pub(crate) fn covers(&self, token: &VerifiedToken) -> bool {
        if self.horizon == Timestamp::ZERO {
            return false;
        }
        match token.issued_at() {
            Some(issued_at) => issued_at <= self.horizon,
            // How old it is nobody knows, but not older than the longest life of a token.
            None => SystemClock.now() < self.lifted,
        }
    }
}

impl Memory {
    pub(crate) fn new(shards: u16, span: Duration) -> Self {
        Self {
            shards: (0..shards).map(|_| ArcSwapOption::empty()).collect(),
            span: AtomicU64::new(millis(span)),
            alarm: Notify::new(),
        }
    }

    /// Tokens may be met for so long after they were issued.
    pub(crate) fn expect_tokens_for(&self, longest: Duration) {
        self.span.fetch_max(millis(longest), Ordering::Relaxed);
    }

    /// How long a doubt lasts.
    pub(crate) fn span(&self) -> Duration {
        Duration::from_millis(self.span.load(Ordering::Relaxed))
    }

    /// Which tokens are in doubt, as long as this life goes on. Others may have drawn the horizon
    /// who expect no tokens as long-lived as this process does.
    pub(crate) fn doubt(&self, known: &Known) -> Doubt {
        let doubt = known.doubt();
        if doubt.horizon == Timestamp::ZERO {
            return doubt;
        }
        Doubt { lifted: doubt.lifted.max(doubt.horizon.saturating_add(self.span())), ..doubt }
    }

    /// What is known now: to be called before the question is sent.
    pub(crate) fn recall(&self, shard: u16) -> Option<Arc<Known>> {
        self.shards.get(usize::from(shard)).and_then(ArcSwapOption::load_full)
    }

    /// Compares what was read with what was known when the question was sent, and with what is
    /// known now.
    pub(crate) fn judge(
        &self,
        via: Via,
        shard: u16,
        before: Option<&Arc<Known>>,
        value: Option<&[u8]>,
    ) -> Result<Doubt, StoreError> {
        self.weigh(via, shard, before, value.map(read).transpose()?)
    }

    /// The same, if the life was read before.
    pub(crate) fn weigh(
        &self,
        via: Via,
        shard: u16,
        before: Option<&Arc<Known>>,
        life: Option<Life>,
    ) -> Result<Doubt, StoreError> {
        let Some(life) = life else {
            self.alarm.notify_one();
            return Err(data_loss("redis holds no life of this shard: its data was lost"));
        };
        if before.is_some_and(|known| {
            known.life.id == life.id && (known.lost || known.life.seq > life.seq)
        }) {
            self.alarm.notify_one();
            return Err(data_loss(
                "redis knows of fewer revocations than before: an older state was restored",
            ));
        }
        self.learn(via, shard, before, life, None)
    }

    /// Takes in the life that the script has answered with, after it was told what was known.
    pub(crate) fn learn_told(
        &self,
        shard: u16,
        before: Option<&Arc<Known>>,
        life: Life,
    ) -> Result<Doubt, StoreError> {
        self.learn(Via::Writes, shard, before, life, before.and_then(|before| before.former))
    }

    /// Takes in a life that was read, or that the script has answered with.
    ///
    /// What was known when the question was sent may be long out of date when it is answered, or
    /// have been nothing at all. So the life is always laid beside the one that is known by now:
    /// another one may take its place only if that one was known when the question was sent, and
    /// whatever this process knows of either is kept.
    fn learn(
        &self,
        via: Via,
        shard: u16,
        before: Option<&Arc<Known>>,
        life: Life,
        told: Option<Former>,
    ) -> Result<Doubt, StoreError> {
        let slot = self.shards.get(usize::from(shard)).ok_or_else(in_doubt)?;
        // Most of the time there is nothing new.
        if let (Some(before), Some(now)) = (before, &*slot.load())
            && Arc::ptr_eq(before, now)
            && before.life == life
            && before.has_heard(via, life.mark)
            && !before.lost
            && told.is_none()
        {
            return Ok(self.doubt(before));
        }
        let asked_of = before.map(|before| before.life);
        let next = |now: Option<&Known>| next(now, via, asked_of, life, told);
        let was = slot.rcu(|now| match (now, next(now.as_deref())) {
            // Those who have asked since then find it unchanged.
            (Some(now), next) if **now == next => Some(Arc::clone(now)),
            (_, next) => Some(Arc::new(next)),
        });
        let learned = next(was.as_deref());
        if learned.former.is_some() || learned.lost {
            self.alarm.notify_one();
        }
        if was.is_some_and(|was| was.life.id != learned.life.id) {
            tracing::warn!(
                shard,
                horizon = %learned.doubt().horizon,
                "redis has lost revocations; the standing of tokens issued up to the horizon is \
                 unknown"
            );
        }
        if learned.lost {
            return Err(data_loss(
                "redis has lost revocations that this process knew of: a new life has to begin",
            ));
        }
        if learned.life.id != life.id {
            return Err(data_loss(
                "the life of the shard changed while the question was under way; ask again",
            ));
        }
        if learned.life.is_lifted() && !life.is_lifted() {
            // What stands beside it was read before everything was there again.
            return Ok(Doubt { horizon: life.birth.max(life.horizon), lifted: FOREVER });
        }
        Ok(self.doubt(&learned))
    }

    /// On a new connection, a change that was known before was not found: whatever the life says,
    /// changes were lost.
    pub(crate) fn miss(&self, shard: u16, known: &Known) {
        let Some(slot) = self.shards.get(usize::from(shard)) else { return };
        slot.rcu(|now| match now {
            Some(now) if now.life.id == known.life.id => {
                Some(Arc::new(Known { lost: true, ..**now }))
            }
            other => other.clone(),
        });
        self.alarm.notify_one();
    }
}

/// What is to be known after an answer, by what is known now and what was known when the question
/// was sent.
fn next(
    now: Option<&Known>,
    via: Via,
    before: Option<Life>,
    life: Life,
    told: Option<Former>,
) -> Known {
    let Some(now) = now else { return Known::first(via, life) };
    if now.life.id == life.id {
        let mut next = *now;
        // One number for two changes: two servers have gone on from one state.
        next.lost |= life.seq == now.life.seq && life.mark != now.life.mark;
        next.join(life);
        next.hear(via, life.mark);
        if told.is_some() && told == now.former {
            next.former = None;
        }
        let is_gone =
            |before: Life| before.horizon > life.horizon && !life.is_lifted_since(&before);
        if before.is_some_and(|before| before.id == life.id && is_gone(before)) {
            // The horizon had been drawn and is gone again: it has to be drawn anew.
            next.former = Some(SOME_LIFE);
        }
        return next;
    }
    // The question may have been sent before the known life was heard of. Then the later one is
    // believed.
    if before.is_some_and(|before| before.id == now.life.id) || life.birth > now.life.birth {
        return now.succeeded_by(via, life);
    }
    // The known one stays, but it is not the only one any more.
    let other = Known::first(via, life).succeeded_by(via, now.life);
    let former = match (now.former, other.former) {
        (Some(known), Some(heard)) if known.id == heard.id => {
            Some(Former { seq: known.seq.max(heard.seq), ..known })
        }
        (Some(_), Some(_)) => Some(SOME_LIFE),
        (former, None) | (None, former) => former,
    };
    Known { former, lost: now.lost || other.lost, ..*now }
}

/// Reads the value of the key of a life.
pub(crate) fn read(value: &[u8]) -> Result<Life, StoreError> {
    Life::parse(value).map_err(|_| {
        StoreError::new(
            StoreErrorKind::Protocol,
            "the life of the shard is unreadable: another program, or another version of this one, \
             uses the prefix",
        )
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(FAR).min(FAR)
}

fn data_loss(problem: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::DataLoss, problem)
}

/// Tokens of this shard are in doubt.
pub(crate) fn in_doubt() -> StoreError {
    data_loss("redis has lost revocations, and the token is old enough to have been revoked before")
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
