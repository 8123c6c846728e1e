//! What a revocation is, and which tokens it covers. Pure.
//!
//! Its values:
//!
//! - a [`Target`] names what is revoked (a token, a session, a user, …) and has a [`Fingerprint`],
//!   the fixed-size identity under which every store keeps it;
//! - a [`Revocation`] is a change of the standing of one target;
//! - a [`Fact`] is what is known of one target, the join of all that was ever written about it; a
//!   [`Record`] is a fact with a note for people.
//!
//! Facts only grow: [`Fact::merge`] takes the later of each time. So a fact that is applied twice,
//! late or out of order gives the same result, and stores that differ agree after they have
//! exchanged their facts.

mod accepted;
mod fact;
mod record;
mod spared;

use std::sync::Arc;
use std::time::Duration;

pub use accepted::AcceptedTargets;
pub(crate) use accepted::why_unmatched;
pub(crate) use fact::SparedTime;
pub use fact::{Fact, Spared};
pub use record::Record;
pub(crate) use record::RecordNote;
pub(crate) use spared::session_of;

use serde::Serialize;

use crate::clock::Timestamp;
pub(crate) use crate::target::IssuerDigest;
pub use crate::target::{Fingerprint, Target, TargetKind};
use crate::verified::VerifiedToken;

/// Longest id (`jti`, `sub`, …), reason and actor, in bytes.
///
/// Ids are hashed before they become part of a key, so this bounds what a record costs, not what is
/// safe.
pub(crate) const MAX_ID_BYTES: usize = 1024;

/// [`Record::until`] of a record that is never forgotten: the latest time that every store can
/// keep.
const NEVER: Timestamp = Timestamp::from_millis((1 << 53) - 1);

const MILLISECOND: Duration = Duration::from_millis(1);

/// How far the clock of a writer may date a cutoff ahead of the clock of the store: a cutoff in the
/// future refuses tokens that nobody has revoked.
#[cfg(feature = "redis")]
pub(crate) const MAX_CLOCK_LEAD: Duration = Duration::from_secs(5);

/// Up to when [`Extent::IssuedSoFar`] reaches: the later of the clocks of the store and of the
/// writer, so that a store that is behind does not spare a token that was issued before the call;
/// and later by what the clocks of issuers are ahead. For the tests of the script, which repeats
/// it.
#[cfg(all(test, feature = "redis"))]
pub(crate) fn so_far(store: Timestamp, writer: Timestamp, issuers_ahead: Duration) -> Timestamp {
    let latest = store.saturating_add(MAX_CLOCK_LEAD);
    store.max(writer.min(latest)).saturating_add(issuers_ahead)
}

/// How much of a target is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extent {
    /// Every token, whenever issued. The default for tokens, sessions and families.
    ///
    /// A device, a user, a client, a key, an issuer or a claim may get new tokens at any time, so
    /// its record is kept until it is reinstated.
    All,
    /// The tokens issued up to the moment of the write, by the clock of the store. The default for
    /// everything else. With Redis it is the later of the clocks of Redis and of the writer; the
    /// writer's counts at most 5 s more.
    #[doc(alias("logout everywhere", "not-before"))]
    IssuedSoFar,
    /// The tokens issued at or before this time: for events that arrive late and have a time of
    /// their own.
    ///
    /// A target keeps only its latest cutoff, also after a [reinstatement](Action::Reinstate). An
    /// earlier cutoff that is set after a reinstatement therefore restores the later, undone one:
    /// it may refuse more than you asked for, and never less.
    #[doc(alias = "not-before")]
    IssuedUntil(Timestamp),
}

impl Extent {
    /// What a revocation of this kind means when nothing else is said: things that end stay ended,
    /// while those that go on (a user logs in again, a client gets new tokens) lose only what they
    /// were given so far.
    const fn default_for(kind: TargetKind) -> Self {
        match kind {
            TargetKind::Token
            | TargetKind::SigningInput
            | TargetKind::Session
            | TargetKind::Family => Self::All,
            TargetKind::Device
            | TargetKind::User
            | TargetKind::Client
            | TargetKind::Key
            | TargetKind::Issuer
            | TargetKind::Claim => Self::IssuedSoFar,
        }
    }
}

/// What is to be done to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Refuse its tokens from now on.
    Revoke(Extent),
    /// Accept its tokens again. It undoes earlier revocations and no later ones. A cutoff that is
    /// set later reaches at least as far as the latest one that was undone.
    Reinstate,
}

/// A change of the standing of one target, as it is handed to a store. Made by
/// [`Revoker`](crate::Revoker).
#[derive(Clone, Debug)]
#[non_exhaustive]
#[doc(alias("denylist", "blocklist", "blacklist"))]
pub struct Revocation {
    /// What is revoked or reinstated.
    pub target: Target,
    /// What is to be done.
    pub action: Action,
    /// The session whose tokens a cutoff does not cover; with another action it means nothing.
    pub sparing: Option<Target>,
    /// The record is kept at least until then. With [`Timestamp::ZERO`], `lifetime` alone counts.
    pub until: Timestamp,
    /// The record is kept at least this long, counted from the write by the clock of the store.
    pub lifetime: Duration,
    /// Why, for people. At most 1024 bytes.
    pub reason: Option<Arc<str>>,
    /// Who did it, for people. At most 1024 bytes.
    pub actor: Option<Arc<str>>,
    /// Where it comes from: for the lists of other programs.
    pub(crate) origin: RevocationOrigin,
}

/// Where a change comes from.
#[derive(Clone, Debug)]
pub(crate) enum RevocationOrigin {
    /// Someone who knows the id.
    Id,
    /// Someone who has the token.
    Token(VerifiedToken),
    /// Someone who knows what ends with it, such as the family of a session: for the lists of other
    /// programs. Nothing of it is recorded.
    #[cfg(feature = "sessions")]
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "lists of other programs are in Redis")
    )]
    Ends(Box<[Target]>),
    /// A list of another program.
    #[cfg(feature = "redis")]
    List,
}

impl Revocation {
    /// A revocation of `target` with the extent that is usual for its kind, kept for `lifetime`.
    pub fn new(target: Target, lifetime: Duration) -> Self {
        let action = Action::Revoke(Extent::default_for(target.kind()));
        Self {
            target,
            action,
            sparing: None,
            until: Timestamp::ZERO,
            lifetime,
            reason: None,
            actor: None,
            origin: RevocationOrigin::Id,
        }
    }

    /// The same change, to be done later: what was issued since it was asked for is not covered.
    pub(crate) fn as_of(&self, asked_at: Timestamp) -> Self {
        let mut change = self.clone();
        if change.action == Action::Revoke(Extent::IssuedSoFar) {
            change.action = Action::Revoke(Extent::IssuedUntil(asked_at));
        }
        change
    }

    /// Makes sure that the record outlives the tokens that it covers, also those that are still to
    /// be issued.
    pub(crate) fn outlive_tokens(&mut self) {
        match self.action {
            // A thief who has a key, or a user who may log in, is given tokens for ever.
            Action::Revoke(Extent::All)
                if Extent::default_for(self.target.kind()) != Extent::All =>
            {
                self.until = NEVER;
            }
            Action::Revoke(Extent::IssuedUntil(cutoff)) => {
                self.until = self.until.max(cutoff.saturating_add(self.lifetime)).min(NEVER);
            }
            _ => {}
        }
    }

    /// What this change makes of a record: the pure core of every store, see
    /// [`Receipt::of`](crate::store::Receipt::of).
    pub(crate) fn apply(&self, before: Option<&Record>, now: Timestamp) -> Change {
        self.apply_dated(before, now, now)
    }

    /// The same, for a store with a clock of its own: [`Extent::IssuedSoFar`] reaches up to
    /// `so_far`.
    pub(crate) fn apply_dated(
        &self,
        before: Option<&Record>,
        now: Timestamp,
        so_far: Timestamp,
    ) -> Change {
        let before = before.filter(|record| record.until() > now);
        let until = if self.lifetime.is_zero() {
            self.until
        } else {
            self.until.max(now.saturating_add(self.lifetime))
        };
        if until <= now {
            return Change::Nothing(Outcome::AlreadyExpired);
        }
        let was_in_effect = before.is_some_and(Record::is_in_effect);
        if self.action == Action::Reinstate && !was_in_effect {
            return Change::Nothing(Outcome::Already);
        }
        let known = before.map_or_else(Fact::default, Record::fact);
        let floor = match self.action {
            Action::Revoke(_) => known.reinstated_at,
            Action::Reinstate => {
                known.all_revoked_at.max(known.cutoff_set_at).saturating_add(MILLISECOND)
            }
        };
        let at = now.max(floor);
        let mut fact = Fact { until, ..Fact::default() };
        match self.action {
            Action::Revoke(Extent::All) => fact.all_revoked_at = at,
            // Past the last cutoff in any case: tokens may have been issued right after it, in this
            // very millisecond.
            Action::Revoke(Extent::IssuedSoFar) => {
                fact.cutoff = known.reissue_at().map_or(so_far, |next| so_far.max(next));
                fact.cutoff_set_at = at;
            }
            Action::Revoke(Extent::IssuedUntil(cutoff)) => {
                (fact.cutoff, fact.cutoff_set_at) = (cutoff, at);
            }
            Action::Reinstate => fact.reinstated_at = at,
        }
        let fact = fact.sparing(self.sparing.as_ref().map(Target::fingerprint));
        let note = RecordNote {
            target: self.target.clone(),
            at,
            reason: self.reason.clone(),
            actor: self.actor.clone(),
        };
        let mut record = Record { fact, note };
        let Some(before) = before else { return Change::Write(Outcome::New, record) };
        record.merge(before);
        let unchanged = record.fact.effect() == known.effect();
        match (unchanged, was_in_effect, self.action) {
            (true, _, _) => Change::Nothing(Outcome::Already),
            (false, true, Action::Revoke(_)) => Change::Write(Outcome::Extended, record),
            (false, _, _) => Change::Write(Outcome::New, record),
        }
    }
}

/// What a [`Revocation`] makes of a record, see [`Revocation::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Change {
    /// There is nothing to write.
    Nothing(Outcome),
    /// The record to write in the place of the one before. It already holds what that one said.
    Write(Outcome, Record),
}

/// What a write changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The target had no record in effect, now it has; or it was reinstated.
    New,
    /// The target had a record in effect, which now covers more, or for longer.
    Extended,
    /// Everything that was asked for was in effect already.
    Already,
    /// Everything that the record would cover has expired. Nothing was written or needs to be.
    AlreadyExpired,
}

#[cfg(test)]
mod tests;
