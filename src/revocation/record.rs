//! The fact: what is known of one target, as a [`Record`] that only grows.

use std::sync::Arc;
use std::time::Duration;

use super::Target;
use crate::clock::Timestamp;
use crate::verified::VerifiedToken;

/// The standing of one target: the join of everything that was ever written about it.
///
/// A join-semilattice: each part only grows, [`merge`](Self::merge) takes the larger of each. What
/// is in effect is read off: a revocation counts unless a *later* reinstatement stands against it,
/// so a tie is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When all tokens were last revoked; zero for never.
    pub(crate) all: Timestamp,
    /// Tokens issued at or before this are revoked; zero for none.
    pub(crate) cutoff: Timestamp,
    /// When the cutoff was last set or confirmed.
    pub(crate) cutoff_set: Timestamp,
    /// When the target was last reinstated; zero for never.
    pub(crate) reinstated: Timestamp,
    /// When the record may be forgotten.
    pub(crate) until: Timestamp,
    /// The latest change, in words.
    pub(crate) note: Note,
}

/// The words that go with the latest change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) target: Target,
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<Arc<str>>,
    pub(crate) actor: Option<Arc<str>>,
}

impl Record {
    pub(super) fn blank(note: Note) -> Self {
        Self {
            all: Timestamp::ZERO,
            cutoff: Timestamp::ZERO,
            cutoff_set: Timestamp::ZERO,
            reinstated: Timestamp::ZERO,
            until: Timestamp::ZERO,
            note,
        }
    }

    /// What decides, as far as it is in effect.
    pub(super) fn coverage(&self) -> (bool, Option<Timestamp>) {
        (self.revokes_all(), self.cutoff())
    }

    /// Takes in what `other` knows of the same target. Commutative, associative and idempotent;
    /// returns whether anything that decides, or the lifetime, has grown.
    pub fn merge(&mut self, other: &Self) -> bool {
        let before = self.weight();
        self.all = self.all.max(other.all);
        self.cutoff = self.cutoff.max(other.cutoff);
        self.cutoff_set = self.cutoff_set.max(other.cutoff_set);
        self.reinstated = self.reinstated.max(other.reinstated);
        self.until = self.until.max(other.until);
        if self.note.rank() < other.note.rank() {
            self.note = other.note.clone();
        }
        self.weight() != before
    }

    pub(super) fn weight(&self) -> [Timestamp; 5] {
        [self.all, self.cutoff, self.cutoff_set, self.reinstated, self.until]
    }

    /// Whether every token of the target is revoked, whenever issued.
    pub fn revokes_all(&self) -> bool {
        self.all > Timestamp::ZERO && self.all >= self.reinstated
    }

    /// Tokens of the target that were issued at or before this time are revoked.
    pub fn cutoff(&self) -> Option<Timestamp> {
        (self.cutoff_set > Timestamp::ZERO && self.cutoff_set >= self.reinstated)
            .then_some(self.cutoff)
    }

    /// Whether any token can be refused because of this record.
    pub fn is_in_effect(&self) -> bool {
        self.revokes_all() || self.cutoff().is_some()
    }

    /// Whether this record, kept for one of the targets of `token`, revokes it.
    ///
    /// The `iat` of the token is compared with the cutoff, never the clock. An `iat` in whole
    /// seconds says that the token was issued *within* that second, so the whole second of the
    /// cutoff is refused and nothing issued before the revocation survives. A token without `iat`
    /// is covered.
    pub fn covers(&self, token: &VerifiedToken) -> bool {
        self.covers_issued_at(token.issued_at())
    }

    pub(crate) fn covers_issued_at(&self, issued_at: Option<Timestamp>) -> bool {
        self.revokes_all()
            || self
                .cutoff()
                .is_some_and(|cutoff| issued_at.is_none_or(|issued_at| issued_at <= cutoff))
    }

    /// The first `iat` that the cutoff does not cover, a millisecond after it: stamp new tokens
    /// with this or later.
    pub fn reissue_at(&self) -> Option<Timestamp> {
        self.cutoff().map(|cutoff| cutoff.saturating_add(Duration::from_millis(1)))
    }

    /// The target of this record.
    pub fn target(&self) -> &Target {
        &self.note.target
    }

    /// When the latest change was written, by the clock of the store.
    pub fn changed_at(&self) -> Timestamp {
        self.note.at
    }

    /// When the record may be forgotten: later than the end of every token that it covers.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    /// Why the latest change was made.
    pub fn reason(&self) -> Option<&Arc<str>> {
        self.note.reason.as_ref()
    }

    /// Who made the latest change.
    pub fn actor(&self) -> Option<&Arc<str>> {
        self.note.actor.as_ref()
    }
}

impl Note {
    /// Notes are ordered by time; the rest makes the order total, so that a merge does not depend
    /// on its order.
    fn rank(&self) -> (Timestamp, Option<&Arc<str>>, Option<&Arc<str>>) {
        (self.at, self.reason.as_ref(), self.actor.as_ref())
    }
}
