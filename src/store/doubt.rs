//! [`Doubt`]: what is not known any more after a store has lost data, or not known yet.

use std::time::Duration;

use serde::Serialize;

#[cfg(any(feature = "redis", feature = "sessions", feature = "test-util", test))]
use super::{StoreError, StoreErrorKind};
use crate::clock::Timestamp;
use crate::verified::VerifiedToken;

/// Which tokens may have been revoked without the store knowing it, because it has lost data or may
/// have lost data.
///
/// A store that has lost revocations must not answer *live* for the tokens that they may have
/// covered. A check of such a token is an error, unless the token is found to be revoked: of kind
/// [`Settling`](crate::store::StoreErrorKind::Settling) while waiting helps, else of kind
/// [`DataLoss`](crate::store::StoreErrorKind::DataLoss).
///
/// Serialized, it is an object with its name as `state`: `none`, `settling` or `lasting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Doubt {
    /// No token is in doubt. The default.
    #[default]
    None,
    /// Every token is in doubt, for seconds: the data is at another server than before, and the
    /// processes that wrote to the former server still put back what the new one does not have. It
    /// ends with no doubt, or with a lasting one.
    #[doc(alias = "failover")]
    Settling,
    /// Revocations were lost, and nobody is known who could write them again.
    Lasting {
        /// Tokens with an `iat` up to this time, inclusive, are in doubt. A later token cannot have
        /// been revoked before the loss.
        issued_until: Timestamp,
        /// By then every token from before the loss has expired, so the doubt ends. Until then
        /// tokens without an `iat` are in doubt, too.
        ends_at: Timestamp,
    },
}

impl Doubt {
    /// Whether `token` may have been revoked before the loss. `now` is the clock of the store.
    ///
    /// A token that is found to be revoked is revoked in any doubt.
    pub fn covers(&self, token: &VerifiedToken, now: Timestamp) -> bool {
        match *self {
            Self::None => false,
            Self::Settling => true,
            Self::Lasting { issued_until, ends_at } => match token.issued_at() {
                Some(issued_at) => issued_at <= issued_until,
                // How old it is nobody knows, but not older than the longest lifetime of a token.
                None => now < ends_at,
            },
        }
    }

    /// For how long a lasting doubt goes on; zero if there is none.
    pub(crate) fn left(&self, now: Timestamp) -> Duration {
        match *self {
            Self::None | Self::Settling => Duration::ZERO,
            Self::Lasting { ends_at, .. } => ends_at.saturating_duration_since(now),
        }
    }

    /// Why the store cannot tell the standing of a token that is covered.
    #[cfg(any(feature = "redis", feature = "sessions", feature = "test-util", test))]
    pub(crate) fn error(&self) -> StoreError {
        match self {
            Self::Settling => StoreError::new(
                StoreErrorKind::Settling,
                "the data is at another server than before, and what this one does not have is \
                 being put back; ask again in a moment",
            ),
            Self::None | Self::Lasting { .. } => StoreError::new(
                StoreErrorKind::DataLoss,
                "the store has lost revocations, and the token is old enough to have been revoked \
                 before",
            ),
        }
    }

    /// Up to when tokens were issued that are in lasting doubt.
    #[cfg(any(feature = "redis", feature = "sessions"))]
    pub(crate) fn issued_until(&self) -> Option<Timestamp> {
        match *self {
            Self::None | Self::Settling => None,
            Self::Lasting { issued_until, .. } => Some(issued_until),
        }
    }

    /// The doubt of all tokens that either of them covers.
    pub(crate) fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Settling, _) | (_, Self::Settling) => Self::Settling,
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
    use crate::token::TokenProfile;
    use crate::token::profile::SignedClaims;

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
        for doubt in [Doubt::None, Doubt::Settling, lasting(5, 9)] {
            assert_eq!(doubt.joined(Doubt::Settling), Doubt::Settling);
            assert_eq!(Doubt::Settling.joined(doubt), Doubt::Settling);
        }
    }

    #[test]
    fn while_a_store_settles_every_token_is_in_doubt_whenever_it_was_issued() {
        let token = |claims: &[u8]| {
            let claims = SignedClaims::new(claims);
            let profile = TokenProfile::new().allow_missing_iat();
            profile.assert_verified_for_revocation(claims).unwrap()
        };
        let now = Timestamp::from_secs(1500);
        for claims in [r#"{"jti":"1","iat":1000,"exp":9000}"#, r#"{"jti":"1","exp":9000}"#] {
            assert!(Doubt::Settling.covers(&token(claims.as_bytes()), now), "{claims}");
        }
        let young = token(br#"{"jti":"1","iat":8000,"exp":9000}"#);
        assert!(Doubt::Settling.covers(&young, now) && !lasting(1_000_000, 0).covers(&young, now));
    }

    #[test]
    fn a_doubt_that_passes_is_another_error_than_one_that_lasts() {
        assert_eq!(Doubt::Settling.error().kind(), StoreErrorKind::Settling);
        assert!(Doubt::Settling.error().may_be_repeated());
        assert_eq!(lasting(5, 9).error().kind(), StoreErrorKind::DataLoss);
    }
}
