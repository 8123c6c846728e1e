//! [`Doubt`]: what is not known any more after a store has lost data.

use crate::clock::Timestamp;
use crate::verified::VerifiedToken;

/// Which tokens may have been revoked without the store knowing it, because it has lost data.
///
/// A store that loses revocations must not answer *live* for the tokens that they may have covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// No token is in doubt. The default.
    #[default]
    None,
    /// Revocations were lost, and nobody is known who could write them again.
    Lasting {
        /// Tokens with an `iat` up to this time, inclusive, are in doubt. A later token cannot have
        /// been revoked before the loss.
        issued_until: Timestamp,
        /// By then every token from before the loss is over, so the doubt ends. Until then tokens
        /// without an `iat` are in doubt, too.
        ends_at: Timestamp,
    },
}

impl Doubt {
    /// Whether `token` may have been revoked before the loss. `now` is the clock of the store.
    ///
    /// A token that is found to be revoked is revoked, whatever the doubt.
    pub fn covers(&self, token: &VerifiedToken, now: Timestamp) -> bool {
        match *self {
            Self::None => false,
            Self::Lasting { issued_until, ends_at } => match token.issued_at() {
                Some(issued_at) => issued_at <= issued_until,
                // How old it is nobody knows, but not older than the longest lifetime of a token.
                None => now < ends_at,
            },
        }
    }

    /// Up to when tokens that are in doubt were issued.
    pub(crate) fn issued_until(&self) -> Option<Timestamp> {
        match *self {
            Self::None => None,
            Self::Lasting { issued_until, .. } => Some(issued_until),
        }
    }

    /// The doubt of all tokens that either of them covers.
    pub(crate) fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, doubt) | (doubt, Self::None) => doubt,
            (
                Self::Lasting { issued_until, ends_at },
                Self::Lasting { issued_until: other_until, ends_at: other_end },
            ) => Self::Lasting {
                issued_until: issued_until.max(other_until),
                ends_at: ends_at.max(other_end),
            },
        }
    }
}

#[cfg(all(test, any(feature = "redis", feature = "sessions")))]
mod tests {
    use super::*;

    fn lasting(issued_until: u64, ends_at: u64) -> Doubt {
        Doubt::Lasting {
            issued_until: Timestamp::from_millis(issued_until),
            ends_at: Timestamp::from_millis(ends_at),
        }
    }

    #[test]
    fn a_joined_doubt_covers_what_either_covers() {
        assert_eq!(Doubt::None.joined(Doubt::None), Doubt::None);
        assert_eq!(Doubt::None.joined(lasting(5, 9)), lasting(5, 9));
        assert_eq!(lasting(5, 9).joined(Doubt::None), lasting(5, 9));
        assert_eq!(lasting(5, 9).joined(lasting(3, 12)), lasting(5, 12));
    }
}
