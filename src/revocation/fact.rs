//! [`Fact`]: what decides about the tokens of one target, as five times that only grow.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::verified::VerifiedToken;

/// What is known of one target, as far as it decides: the join of everything that was ever written
/// about it.
///
/// A join-semilattice: [`merge`](Self::merge) takes the later of each time. What is in effect is
/// read off: a revocation counts unless a *later* reinstatement stands against it, so a tie is
/// revoked. The default is that nothing is known.
///
/// A [`Record`](crate::revocation::Record) is a fact with a note for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is these five times, no more and no less")]
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
}

impl Fact {
    /// All tokens are revoked, since a time that is not known, and the target was never reinstated.
    pub const fn revoked_until(until: Timestamp) -> Self {
        Self {
            // Before any reinstatement.
            all_revoked_at: Timestamp::from_millis(1),
            cutoff: Timestamp::ZERO,
            cutoff_set_at: Timestamp::ZERO,
            reinstated_at: Timestamp::ZERO,
            until,
        }
    }

    /// The join of two facts about the same target: the later of each time. Commutative,
    /// associative and idempotent.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            all_revoked_at: self.all_revoked_at.max(other.all_revoked_at),
            cutoff: self.cutoff.max(other.cutoff),
            cutoff_set_at: self.cutoff_set_at.max(other.cutoff_set_at),
            reinstated_at: self.reinstated_at.max(other.reinstated_at),
            until: self.until.max(other.until),
        }
    }

    /// Whether every token of the target is revoked, whenever issued.
    pub fn revokes_all(&self) -> bool {
        self.all_revoked_at > Timestamp::ZERO && self.all_revoked_at >= self.reinstated_at
    }

    /// The cutoff that is in effect: tokens issued at or before this time are revoked.
    pub fn cutoff(&self) -> Option<Timestamp> {
        (self.cutoff_set_at > Timestamp::ZERO && self.cutoff_set_at >= self.reinstated_at)
            .then_some(self.cutoff)
    }

    /// Whether any token can be refused because of this.
    pub fn is_in_effect(&self) -> bool {
        self.revokes_all() || self.cutoff().is_some()
    }

    /// Whether this, if it is known of one of the targets of `token`, revokes it.
    ///
    /// The `iat` of the token is compared with the cutoff, never the clock. An `iat` in whole
    /// seconds says that the token was issued *within* that second, so the whole second of the
    /// cutoff is refused and nothing issued before the revocation survives. A token without `iat`
    /// is covered.
    pub fn covers(&self, token: &VerifiedToken) -> bool {
        self.covers_issued_at(token.issued_at())
    }

    /// As [`covers`](Self::covers), for a token with this `iat`.
    pub fn covers_issued_at(&self, issued_at: Option<Timestamp>) -> bool {
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

    /// When it was last changed, or later.
    pub(crate) fn latest(&self) -> Timestamp {
        self.all_revoked_at.max(self.cutoff_set_at).max(self.reinstated_at)
    }

    /// Whether a reinstatement stands against what was revoked before.
    pub(crate) fn is_reinstated(&self) -> bool {
        self.reinstated_at > Timestamp::ZERO && !self.revokes_all()
    }

    /// Whether eight bytes say it all.
    pub(crate) fn is_plain(&self) -> bool {
        self.all_revoked_at > Timestamp::ZERO
            && self.cutoff_set_at == Timestamp::ZERO
            && self.reinstated_at == Timestamp::ZERO
    }
}
