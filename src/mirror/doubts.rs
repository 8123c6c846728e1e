//! The [`Doubt`] of several shards, and which of two doubts reaches further.

use crate::clock::Timestamp;
use crate::store::Doubt;

/// No token is issued, and no doubt ends, as late as this.
const ALWAYS: Timestamp = Timestamp::from_millis(u64::MAX);

/// Tokens issued up to here are in doubt; zero if none are, and the end of all time if all are.
pub(super) fn issued_until(doubt: Doubt) -> Timestamp {
    match doubt {
        Doubt::None => Timestamp::ZERO,
        Doubt::Settling => ALWAYS,
        Doubt::Lasting { issued_until, .. } => issued_until,
    }
}

/// When the last token that is in doubt has expired; zero if none is.
pub(super) fn ends_at(doubt: Doubt) -> Timestamp {
    match doubt {
        Doubt::None => Timestamp::ZERO,
        Doubt::Settling => ALWAYS,
        Doubt::Lasting { ends_at, .. } => ends_at,
    }
}

/// Whether no token is in doubt at this time of the store.
pub(super) fn is_over(doubt: Doubt, now: Timestamp) -> bool {
    issued_until(doubt) == Timestamp::ZERO || ends_at(doubt) <= now
}

/// What is in doubt in any of the shards.
pub(super) fn widest(doubts: impl Iterator<Item = Doubt>) -> Doubt {
    doubts.fold(Doubt::None, Doubt::joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasting(issued_until: u64, ends_at: u64) -> Doubt {
        let [issued_until, ends_at] = [issued_until, ends_at].map(Timestamp::from_millis);
        Doubt::Lasting { issued_until, ends_at }
    }

    #[test]
    fn the_widest_doubt_covers_the_tokens_of_each_shard() {
        assert_eq!(widest([Doubt::None, Doubt::None].into_iter()), Doubt::None);
        let doubts = [Doubt::None, lasting(5, 20), lasting(7, 18)];
        assert_eq!(widest(doubts.into_iter()), lasting(7, 20));
        let doubts = doubts.into_iter().chain([Doubt::Settling]);
        assert_eq!(widest(doubts), Doubt::Settling);
        assert!(issued_until(Doubt::Settling) > issued_until(lasting(7, 20)));
    }

    #[test]
    fn a_doubt_is_over_when_the_last_token_has_expired() {
        assert!(is_over(Doubt::None, Timestamp::ZERO));
        assert!(!is_over(lasting(5, 20), Timestamp::from_millis(19)));
        assert!(is_over(lasting(5, 20), Timestamp::from_millis(20)));
        assert!(!is_over(Doubt::Settling, Timestamp::from_secs(1 << 40)));
    }
}
