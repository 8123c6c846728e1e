//! What a store that has lost its data is told again.
//!
//! All that the set holds is gone through, shard by shard, a little at a time. The store is asked
//! what it has, and told what it lacks; so any number of mirrors may do this at once, and what one
//! has told no other tells again. Each begins after a while of its own.

use std::time::Duration;

use tokio::time::Instant;

use super::set::{RevocationSet, SHARDS, is_kept_until};
use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};
use crate::store::StoreError;
use crate::store::feed::Feed;

/// Facts that the store is asked about, and told, at once, and the pause between two such steps:
/// some ten thousand a second, a few per cent of the time of Redis.
const AT_ONCE: usize = 128;
const EVERY: Duration = Duration::from_millis(10);

/// One round through the set.
#[derive(Debug)]
pub(super) struct Replay {
    next: Instant,
    /// The shards that have been gone through.
    shards: usize,
    /// What is still to be told of them.
    facts: Vec<(Fingerprint, Fact)>,
    /// How many revocations cannot be told, since their fingerprints are not known.
    unidentified: usize,
    replayed: u64,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayStep {
    /// There is more to do.
    More,
    /// The store has been told everything that is known.
    Done {
        /// How many facts it had lost.
        replayed: u64,
        /// How many revocations it could not be told.
        unidentified: usize,
    },
}

impl Replay {
    /// To begin after this long: another mirror may be faster.
    pub(super) fn after(patience: Duration) -> Self {
        Self {
            next: Instant::now() + patience,
            shards: 0,
            facts: Vec::new(),
            unidentified: 0,
            replayed: 0,
        }
    }

    /// How long there is nothing to do.
    pub(super) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Goes on, if it is time. What was begun when an error comes is begun again.
    pub(super) async fn step(
        &mut self,
        set: &RevocationSet,
        feed: &mut impl Feed,
        now: Timestamp,
    ) -> Result<ReplayStep, StoreError> {
        if !self.wait().is_zero() {
            return Ok(ReplayStep::More);
        }
        while self.facts.len() < AT_ONCE && self.shards < SHARDS {
            let known = set.known(self.shards, now);
            self.unidentified += known.unidentified;
            self.facts.extend(known.facts.into_iter().filter(|(name, _)| feed.owns(name)));
            self.shards += 1;
            if self.shards == SHARDS && self.unidentified > 0 {
                let ours = |(name, fact): &(Fingerprint, Fact)| fact.until > now && feed.owns(name);
                self.facts.extend(set.recent().into_iter().filter(ours));
            }
        }
        let first = self.facts.len().saturating_sub(AT_ONCE);
        let some = self.facts.get(first..).unwrap_or_default();
        if !some.is_empty() {
            let names: Vec<_> = some.iter().map(|(name, _)| *name).collect();
            let found = feed.find(&names).await?;
            let pairs = some.iter().zip(found);
            let lost: Vec<_> = pairs
                .filter(|((_, known), found)| !found.is_some_and(|found| says(&found, known)))
                .map(|(fact, _)| *fact)
                .collect();
            if !lost.is_empty() {
                feed.replay(&lost).await?;
                self.replayed += lost.len() as u64;
            }
            self.facts.truncate(first);
        }
        self.next = Instant::now() + EVERY;
        if self.facts.is_empty() && self.shards == SHARDS {
            return Ok(ReplayStep::Done {
                replayed: self.replayed,
                unidentified: self.unidentified,
            });
        }
        Ok(ReplayStep::More)
    }

    /// How many facts the store was told.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }
}

/// Whether the store would learn nothing new.
fn says(found: &Fact, known: &Fact) -> bool {
    is_kept_until(found.until, known.until)
        && found.merge(Fact { until: found.until, ..*known }) == *found
}
