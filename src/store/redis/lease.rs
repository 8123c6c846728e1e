//! [`Lease`]: until when a server is believed to be the primary, and which answers are believed.
//! Pure, but for the clock that is read when a question is sent and when its answer is.
//!
//! A server that was replaced may not know it: it hung, or is cut off from its sentinels. So it is
//! believed for a second after the last proof, counted from when the proof was asked for, by a clock
//! that goes on while the machine is suspended. An answer that is read later than a second after its
//! question was sent is not believed either: the process, or its runtime, stood still meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::BootTime;
use crate::store::{StoreError, StoreErrorKind};

/// For how long a server is believed after the last proof was asked for, and an answer after its
/// question was sent.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// Until when one server is believed to be the primary.
#[derive(Debug)]
pub(crate) struct Lease(AtomicU64);

impl Lease {
    /// Of a server that stands alone: nobody could replace it.
    pub(crate) fn unlimited() -> Self {
        Self(AtomicU64::new(BootTime::NEVER.as_nanos()))
    }

    /// By a proof that was asked for at this time.
    pub(crate) fn proved(asked_at: BootTime) -> Self {
        Self(AtomicU64::new(asked_at.saturating_add(LEASE).as_nanos()))
    }

    /// Takes in a further proof.
    pub(crate) fn renew(&self, asked_at: BootTime) {
        self.0.fetch_max(asked_at.saturating_add(LEASE).as_nanos(), Ordering::AcqRel);
    }

    /// Another server was proved to be the primary.
    pub(crate) fn end(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// How long it lasts from now on; zero if it is over.
    pub(crate) fn left(&self, now: BootTime) -> Duration {
        BootTime::from_nanos(self.0.load(Ordering::Acquire)).saturating_duration_since(now)
    }

    pub(crate) fn is_over(&self, now: BootTime) -> bool {
        self.left(now).is_zero()
    }

    /// Whether an answer that is read now is believed.
    ///
    /// # Errors
    /// [`StoreErrorKind::Timeout`] if it is read too late, [`StoreErrorKind::NotPrimary`] if the
    /// lease is over.
    pub(crate) fn check(
        &self,
        sent_at: BootTime,
        now: BootTime,
        allowed: Duration,
    ) -> Result<(), StoreError> {
        if now.saturating_duration_since(sent_at) > allowed {
            return Err(too_old());
        }
        if self.is_over(now) { Err(not_proved()) } else { Ok(()) }
    }
}

pub(crate) fn too_old() -> StoreError {
    StoreError::new(StoreErrorKind::Timeout, "the answer of redis was read too late to be believed")
}

pub(crate) fn not_proved() -> StoreError {
    StoreError::new(
        StoreErrorKind::NotPrimary,
        "the server could not be confirmed as the primary in time",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_lease_is_counted_from_when_the_proof_was_asked_for() {
        let lease = Lease::proved(at(5_000));
        assert_eq!(lease.left(at(5_300)), Duration::from_millis(700));
        assert!(!lease.is_over(at(5_999)) && lease.is_over(at(6_000)));
        lease.renew(at(5_800));
        assert!(!lease.is_over(at(6_799)) && lease.is_over(at(6_800)));
        // An earlier proof that is heard of later shortens nothing.
        lease.renew(at(5_100));
        assert!(!lease.is_over(at(6_799)));
        lease.end();
        assert!(lease.is_over(at(0)));
        assert!(!Lease::unlimited().is_over(at(u64::MAX / 1_000_000)));
    }

    #[test]
    fn an_answer_is_believed_if_it_is_read_in_time_and_within_the_lease() {
        let (lease, alone) = (Lease::proved(at(1_000)), Lease::unlimited());
        let kind = |lease: &Lease, sent, read| {
            lease.check(at(sent), at(read), LEASE).err().map(|error| error.kind())
        };
        for (lease, sent, read, expected) in [
            (&lease, 1_500, 1_600, None),
            (&lease, 1_500, 2_000, Some(StoreErrorKind::NotPrimary)),
            // A process that was suspended reads what was said before.
            (&lease, 1_500, 41_500, Some(StoreErrorKind::Timeout)),
            (&alone, 1_500, 41_500, Some(StoreErrorKind::Timeout)),
            (&alone, 1_500, 2_501, Some(StoreErrorKind::Timeout)),
            (&alone, 1_500, 2_500, None),
            // The clock does not go back, but threads may have read it in another order.
            (&alone, 1_500, 1_499, None),
        ] {
            assert_eq!(kind(lease, sent, read), expected, "sent {sent}, read {read}");
        }
    }
}
