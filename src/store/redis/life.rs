//! Amnesia: how this process notices that Redis has lost data, and which tokens it doubts then.
//!
//! The [`Life`] of a shard is read together with every record. It is compared with what this process knew when it
//! *sent* the question, so replies that overtake each other raise no alarm:
//!
//! | the life is | what happened | what is doubted |
//! | --- | --- | --- |
//! | the known one, with at least the known seq | nothing | what its horizon says |
//! | missing | `FLUSHALL`, a restart without data, eviction, another database | everything, until a new life has begun |
//! | the known one, with a lower seq | an older dump, a fail-over that lost writes | everything, until a new life has begun |
//! | the known one, but on a new connection its latest known change is not in the log | the same, and others have written since | the same |
//! | another one, begun before the latest known change | two primaries were believed at once | everything, until a new life has begun |
//! | another one | any of these, and someone was faster | tokens issued up to its birth |
//!
//! A token that is in doubt and not found to be revoked is [`StoreErrorKind::Amnesia`]: the policy decides. Tokens
//! issued later than the horizon cannot have been revoked before it, and pass.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::schema::{FAR, Life};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{StoreError, StoreErrorKind};
use crate::verified::VerifiedToken;

/// Later than all tokens.
const FOREVER: Timestamp = Timestamp::from_millis(u64::MAX);

/// What this process knows of the lives of all shards.
#[derive(Debug)]
pub(crate) struct Memory {
    shards: Box<[ArcSwapOption<Known>]>,
    /// Rung when a life has to begin or a horizon to be published.
    pub(crate) alarm: Notify,
}

/// What is known of the life of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) life: Life,
    /// The life that this process knew before, until all others have been told.
    pub(crate) former: Option<u64>,
    /// Changes of this life were lost: a new one has to begin.
    pub(crate) lost: bool,
}

impl Known {
    /// What the script is told, so that it begins a new life or draws a horizon where one is missing.
    pub(crate) fn for_script(&self) -> (u64, u64) {
        if self.lost {
            return (self.life.id, FAR);
        }
        self.former.map_or((self.life.id, self.life.seq), |former| (former, 0))
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
    pub(crate) fn new(shards: u16) -> Self {
        Self { shards: (0..shards).map(|_| ArcSwapOption::empty()).collect(), alarm: Notify::new() }
    }

    /// What is known now: to be called before the question is sent.
    pub(crate) fn recall(&self, shard: u16) -> Option<Arc<Known>> {
        self.shards.get(usize::from(shard)).and_then(ArcSwapOption::load_full)
    }

    /// Compares what was read with what was known when the question was sent.
    pub(crate) fn judge(
        &self,
        shard: u16,
        before: Option<&Arc<Known>>,
        value: Option<&[u8]>,
    ) -> Result<Doubt, StoreError> {
        let Some(value) = value else {
            self.alarm.notify_one();
            return Err(amnesia("redis holds no life of this shard: its data was lost"));
        };
        let life = Life::parse(value).map_err(|_| {
            StoreError::new(
                StoreErrorKind::Protocol,
                "the life of the shard is unreadable: another program, or another version of this one, uses the prefix",
            )
        })?;
        if before.is_some_and(|known| known.life.id == life.id && (known.lost || known.life.seq > life.seq)) {
            self.alarm.notify_one();
            return Err(amnesia("redis knows of fewer revocations than before: an older state was restored"));
        }
        Ok(self.learn(shard, before, life))
    }

    /// Takes in a life that was read, or that the script has answered with.
    pub(crate) fn learn(&self, shard: u16, before: Option<&Arc<Known>>, life: Life) -> Doubt {
        let mut seen = Known { life, former: None, lost: false };
        match before {
            Some(known) if known.life.id == life.id => {
                let is_unpublished = known.former.is_some() && life.horizon < known.life.horizon;
                // Most of the time there is nothing new.
                if known.life == life || (is_unpublished && known.life.seq == life.seq) {
                    return Doubt { horizon: known.life.horizon, lifted: known.life.lifted };
                }
                if is_unpublished {
                    seen.former = known.former;
                    (seen.life.horizon, seen.life.lifted) = (known.life.horizon, known.life.lifted);
                }
            }
            // The former life went on after this one had begun: two primaries were believed at once. What was written to
            // the other one meanwhile is lost as well.
            Some(known) if known.life.mark.0 > life.horizon.max(life.birth).as_millis() => {
                seen.lost = true;
                self.alarm.notify_one();
                self.keep(shard, before, seen);
                return Doubt { horizon: FOREVER, lifted: FOREVER };
            }
            Some(known) if life.horizon < life.birth => {
                seen.life.horizon = life.birth;
                // Until it is published, when the script says how long it lasts.
                seen.life.lifted = FOREVER;
                seen.former = Some(known.life.id);
                self.alarm.notify_one();
            }
            _ => {}
        }
        let doubt = Doubt { horizon: seen.life.horizon, lifted: seen.life.lifted };
        if self.keep(shard, before, seen) {
            tracing::warn!(
                shard,
                horizon = %seen.life.horizon,
                "redis has lost revocations; the standing of tokens issued up to the horizon is unknown"
            );
        }
        doubt
    }

    /// On a new connection, a change that was known before was not found: whatever the life says, changes were lost.
    pub(crate) fn miss(&self, shard: u16, known: &Known) {
        let Some(slot) = self.shards.get(usize::from(shard)) else { return };
        slot.rcu(|now| match now {
            Some(now) if now.life.id == known.life.id => Some(Arc::new(Known { lost: true, ..**now })),
            other => other.clone(),
        });
        self.alarm.notify_one();
    }

    /// Replies may be read in another order than they were given. Within a life the larger seq is the newer one; of two
    /// lives the one that replaces what is known. Returns whether another life has replaced the known one.
    fn keep(&self, shard: u16, before: Option<&Arc<Known>>, seen: Known) -> bool {
        let Some(slot) = self.shards.get(usize::from(shard)) else { return false };
        let is_current = |now: &Known| before.is_some_and(|before| before.life.id == now.life.id);
        let was = slot.rcu(|now| match now {
            Some(now) if now.life.id == seen.life.id => {
                let is_newer = seen.life.seq >= now.life.seq;
                let mut kept = if is_newer { seen } else { **now };
                kept.life.horizon = seen.life.horizon.max(now.life.horizon);
                kept.life.lifted = if is_newer { seen.life.lifted } else { now.life.lifted };
                kept.lost = now.lost;
                Some(Arc::new(kept))
            }
            Some(now) if !is_current(now) => Some(Arc::clone(now)),
            _ => Some(Arc::new(seen)),
        });
        was.is_some_and(|was| was.life.id != seen.life.id && is_current(&was))
    }
}

fn amnesia(problem: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Amnesia, problem)
}

/// Tokens of this shard are in doubt.
pub(crate) fn in_doubt() -> StoreError {
    amnesia("redis has lost revocations, and the token is old enough to have been revoked before")
}

#[cfg(test)]
mod tests;
