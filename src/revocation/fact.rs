//! [`Fact`]: what decides about the tokens of one target, as times that only grow.

use std::cmp::Ordering;
use std::time::Duration;

use super::Fingerprint;
use crate::clock::Timestamp;

/// What is known of one target and decides about its tokens: the join of everything that was ever
/// written about it.
///
/// It is a join-semilattice: [`merge`](Self::merge) takes the later of each time, for each session.
/// A revocation counts unless there is a *later* reinstatement, so a tie is revoked. The default is
/// that nothing is known.
///
/// A [`Record`](crate::revocation::Record) is a fact with a note for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is these times, no more and no less")]
pub struct Fact {
    /// When all tokens were last revoked, whenever issued; zero for never.
    pub all_revoked_at: Timestamp,
    /// Tokens issued at or before this are revoked, if `cutoff_set_at` says that there is a cutoff.
    pub cutoff: Timestamp,
    /// When the cutoff was last set or confirmed; zero for never.
    pub cutoff_set_at: Timestamp,
    /// When the target was last reinstated; zero for never.
    pub reinstated_at: Timestamp,
    /// When the fact may be forgotten: later than the end of every token that it covers.
    pub until: Timestamp,
    /// The session for which the cutoff is earlier, was set earlier, or was never set.
    pub spared: Spared,
}

/// The session that the cutoff of a [`Fact`] spares
/// ([`RevokeRequest::sparing`](crate::revoker::RevokeRequest::sparing)). For its tokens `cutoff`
/// and `cutoff_set_at` are earlier times; zero if there is no other cutoff. Each of the two times
/// may spare a session of its own, if cutoffs were written out of order. The default is that none
/// is spared.
///
/// A store keeps it as the text that `Display` gives and `FromStr` reads: `-` for no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spared {
    pub(super) cutoff: Option<SparedTime>,
    pub(super) set_at: Option<SparedTime>,
}

/// The time that holds for the tokens of one session, in place of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SparedTime {
    pub(crate) session: Fingerprint,
    pub(crate) time: Timestamp,
}

/// A time as a function of the session: the same for all, but for one at most.
#[derive(Clone, Copy, Debug)]
struct TimeBySession {
    time: Timestamp,
    spared: Option<SparedTime>,
}

impl TimeBySession {
    fn of(self, session: Option<&Fingerprint>) -> Timestamp {
        match self.spared {
            Some(spared) if session == Some(&spared.session) => spared.time,
            _ => self.time,
        }
    }

    /// For each session the later time. Where the times of all others differ, only the session that
    /// the later one spares can have another; where they are the same, only one that both spare.
    fn later(self, other: Self) -> Self {
        let session = match self.time.cmp(&other.time) {
            Ordering::Greater => self.spared.map(|spared| spared.session),
            Ordering::Less => other.spared.map(|spared| spared.session),
            Ordering::Equal => self
                .spared
                .map(|spared| spared.session)
                .filter(|session| other.spared.is_some_and(|spared| spared.session == *session)),
        };
        let spared = session.map(|session| {
            let time = self.of(Some(&session)).max(other.of(Some(&session)));
            SparedTime { session, time }
        });
        Self { time: self.time.max(other.time), spared }
    }
}

impl Spared {
    /// Whether every session is covered alike.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What holds for the tokens of one session: its cutoff, and when that was set.
    pub(crate) fn times(&self) -> [Option<SparedTime>; 2] {
        [self.cutoff, self.set_at]
    }

    pub(crate) fn of_times([cutoff, set_at]: [Option<SparedTime>; 2]) -> Self {
        Self { cutoff, set_at }
    }
}

impl Fact {
    /// All tokens were revoked at an unknown time, and the target was never reinstated.
    pub const fn revoked_until(until: Timestamp) -> Self {
        Self {
            // Before any reinstatement.
            all_revoked_at: Timestamp::from_millis(1),
            cutoff: Timestamp::ZERO,
            cutoff_set_at: Timestamp::ZERO,
            reinstated_at: Timestamp::ZERO,
            until,
            spared: Spared { cutoff: None, set_at: None },
        }
    }

    /// The same fact, but the cutoff says nothing of the tokens of this session.
    pub(crate) fn sparing(mut self, session: Option<Fingerprint>) -> Self {
        let spared = |time: Timestamp| {
            let session = session.filter(|_| time > Timestamp::ZERO)?;
            Some(SparedTime { session, time: Timestamp::ZERO })
        };
        self.spared = Spared { cutoff: spared(self.cutoff), set_at: spared(self.cutoff_set_at) };
        self
    }

    /// Whether a session is spared in the way in which the join does it: by an earlier time.
    pub(crate) fn spares_rightly(&self) -> bool {
        let is_earlier =
            |spared: Option<SparedTime>, time| spared.is_none_or(|spared| spared.time < time);
        is_earlier(self.spared.cutoff, self.cutoff)
            && is_earlier(self.spared.set_at, self.cutoff_set_at)
    }

    fn cutoffs(&self) -> TimeBySession {
        TimeBySession { time: self.cutoff, spared: self.spared.cutoff }
    }

    fn cutoffs_set_at(&self) -> TimeBySession {
        TimeBySession { time: self.cutoff_set_at, spared: self.spared.set_at }
    }

    /// The join of two facts about the same target: the later of each time, for each session.
    /// Commutative, associative and idempotent.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let cutoffs = self.cutoffs().later(other.cutoffs());
        let set_at = self.cutoffs_set_at().later(other.cutoffs_set_at());
        Self {
            all_revoked_at: self.all_revoked_at.max(other.all_revoked_at),
            cutoff: cutoffs.time,
            cutoff_set_at: set_at.time,
            reinstated_at: self.reinstated_at.max(other.reinstated_at),
            until: self.until.max(other.until),
            spared: Spared { cutoff: cutoffs.spared, set_at: set_at.spared },
        }
    }

    /// Whether every token of the target is revoked, whenever issued.
    pub fn revokes_all(&self) -> bool {
        self.all_revoked_at > Timestamp::ZERO && self.all_revoked_at >= self.reinstated_at
    }

    /// The cutoff that is in effect: tokens issued at or before this time are revoked, but for
    /// those of a session that is [spared](Self::spared).
    pub fn cutoff(&self) -> Option<Timestamp> {
        self.cutoff_of(None)
    }

    /// The cutoff that is in effect for the tokens of this session.
    fn cutoff_of(&self, session: Option<&Fingerprint>) -> Option<Timestamp> {
        let set_at = self.cutoffs_set_at().of(session);
        (set_at > Timestamp::ZERO && set_at >= self.reinstated_at)
            .then(|| self.cutoffs().of(session))
    }

    /// Whether any token can be refused because of this.
    pub fn is_in_effect(&self) -> bool {
        self.revokes_all() || self.cutoff().is_some()
    }

    /// As [`covers`](Self::covers), for a token with this `iat`, of this session if it is of one.
    pub fn covers_issued_at(
        &self,
        issued_at: Option<Timestamp>,
        session: Option<&Fingerprint>,
    ) -> bool {
        self.revokes_all()
            || self
                .cutoff_of(session)
                .is_some_and(|cutoff| issued_at.is_none_or(|issued_at| issued_at <= cutoff))
    }

    /// The first `iat` that the cutoff does not cover, a millisecond after it. Give new tokens this
    /// `iat` or a later one.
    pub fn reissue_at(&self) -> Option<Timestamp> {
        self.cutoff().map(|cutoff| cutoff.saturating_add(Duration::from_millis(1)))
    }

    /// When it was last changed, or later.
    pub(crate) fn latest(&self) -> Timestamp {
        self.all_revoked_at.max(self.cutoff_set_at).max(self.reinstated_at)
    }

    /// Whether a reinstatement stands against what was revoked before.
    pub(crate) fn is_reinstated(&self) -> bool {
        self.reinstated_at > Timestamp::ZERO && !self.revokes_all()
    }

    /// What a change has to change: how much is revoked of which session, and until when it is
    /// kept.
    pub(crate) fn effect(&self) -> (bool, Option<Timestamp>, Spared, Timestamp) {
        let spared = self.cutoff().map_or(Spared::default(), |_| self.spared);
        (self.revokes_all(), self.cutoff(), spared, self.until)
    }

    /// Whether eight bytes say it all.
    pub(crate) fn is_plain(&self) -> bool {
        self.all_revoked_at > Timestamp::ZERO
            && self.cutoff_set_at == Timestamp::ZERO
            && self.reinstated_at == Timestamp::ZERO
    }
}
