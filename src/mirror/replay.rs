//! Writes again what a store has lost: [`Replay`].
//!
//! It goes through the whole set, shard by shard, a little at a time. It asks what the store has
//! and writes what is missing. So any number of mirrors may do this at once, and what one has
//! written no other writes again. Each begins after a random delay.

use std::time::Duration;

use tokio::time::Instant;

use super::set::{RevocationSet, SHARDS, is_kept_until};
use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};
use crate::store::feed::Feed;
use crate::store::{StoreError, StoreErrorKind};

/// Facts that are looked up and written in one step, and the pause between two steps: some ten
/// thousand a second, a few per cent of the time of Redis.
const AT_ONCE: usize = 128;
const EVERY: Duration = Duration::from_millis(10);

/// One round through the set.
#[derive(Debug)]
pub(super) struct Replay {
    next: Instant,
    /// The shards of the set that have been gone through.
    shards: usize,
    /// What is left of them to look up.
    facts: Vec<(Fingerprint, Fact)>,
    /// How many revocations cannot be replayed, since their whole fingerprints are not known.
    unidentified: usize,
    replayed: u64,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplayStep {
    /// There is more to do.
    More,
    /// The store has everything that is known.
    Done {
        /// How many facts it had lost.
        replayed: u64,
        /// How many revocations could not be replayed.
        unidentified: usize,
    },
}

impl Replay {
    /// To begin at this time.
    pub(super) fn starting_at(next: Instant) -> Self {
        Self { next, shards: 0, facts: Vec::new(), unidentified: 0, replayed: 0 }
    }

    /// How long there is nothing to do.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Goes on, if it is time. After an error the step is done again.
    pub(super) async fn step(
        &mut self,
        set: &RevocationSet,
        feed: &mut impl Feed,
        now: Timestamp,
    ) -> Result<ReplayStep, StoreError> {
        if !self.wait(Instant::now()).is_zero() {
            return Ok(ReplayStep::More);
        }
        while self.facts.len() < AT_ONCE && self.shards < SHARDS {
            let known = set.known(self.shards, now);
            self.unidentified += known.unidentified;
            let owned = known.facts.into_iter().filter(|(fingerprint, _)| feed.owns(fingerprint));
            self.facts.extend(owned);
            self.shards += 1;
            if self.shards == SHARDS && self.unidentified > 0 {
                let is_wanted = |(fingerprint, fact): &(Fingerprint, Fact)| {
                    fact.until > now && feed.owns(fingerprint)
                };
                self.facts.extend(set.recent().into_iter().filter(is_wanted));
            }
        }
        let first = self.facts.len().saturating_sub(AT_ONCE);
        let some = self.facts.get(first..).unwrap_or_default();
        if !some.is_empty() {
            let fingerprints: Vec<_> = some.iter().map(|(fingerprint, _)| *fingerprint).collect();
            let found = find_all(feed, &fingerprints).await?;
            let lost: Vec<_> = some
                .iter()
                .zip(found)
                .filter(|((_, known), found)| !found.is_some_and(|found| has(&found, known)))
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

    /// How many facts were written so far.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed
    }
}

/// Asks for facts, and sees to it that there is one answer for each.
pub(super) async fn find_all(
    feed: &mut impl Feed,
    fingerprints: &[Fingerprint],
) -> Result<Vec<Option<Fact>>, StoreError> {
    let found = feed.find(fingerprints).await?;
    if found.len() == fingerprints.len() {
        return Ok(found);
    }
    Err(StoreError::new(
        StoreErrorKind::Protocol,
        format!("the feed found {} facts of {} targets", found.len(), fingerprints.len()),
    ))
}

/// Whether a replay of `known` would change nothing in a store that has `found`.
fn has(found: &Fact, known: &Fact) -> bool {
    is_kept_until(found.until, known.until)
        && found.merge(Fact { until: found.until, ..*known }) == *found
}
