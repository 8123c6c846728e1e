//! [`Lease`]: until when a server is believed to be the primary, and which answers are believed.
//! Pure, but for the clock that is read when a question is sent and when its answer is.
//!
//! A server that was replaced may not know it: it hung, or is cut off from its sentinels. So it is
//! believed for a second after the last proof, counted from when the proof was asked for, by a
//! clock that goes on while the machine is suspended. An answer that is read later than a second
//! after its question was sent is not believed either: the process, or its runtime, stood still
//! meanwhile. A server that stands alone needs no proof, and no clock is read for its answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::BootTime;
use crate::store::{StoreError, StoreErrorKind};

/// For how long a server is believed after the last proof was asked for, and its answer after the
/// question was sent.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// Until when one server is believed to be the primary.
#[derive(Debug)]
pub(crate) struct Lease(AtomicU64);

/// Until when the answer to one question is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerLimit(BootTime);

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

    fn until(&self) -> BootTime {
        BootTime::from_nanos(self.0.load(Ordering::Acquire))
    }

    /// How long it lasts from now on; zero if it is over.
    pub(crate) fn left(&self, now: BootTime) -> Duration {
        self.until().saturating_duration_since(now)
    }

    pub(crate) fn is_over(&self, now: BootTime) -> bool {
        self.left(now).is_zero()
    }

    /// For a question that is about to be sent, and is answered at once: the answer has to be read
    /// within the lease as it stands now, which is less than a second from now. It reads no clock.
    pub(crate) fn as_it_stands(&self) -> AnswerLimit {
        AnswerLimit(self.until())
    }

    /// For a question that is about to be sent, and may make the server wait: the answer has to be
    /// read within a second after that.
    pub(crate) fn with_wait(&self, wait: Duration) -> AnswerLimit {
        match self.until() {
            BootTime::NEVER => AnswerLimit(BootTime::NEVER),
            _ => AnswerLimit(BootTime::now().saturating_add(LEASE.saturating_add(wait))),
        }
    }

    /// Whether an answer that is read now is believed. Of a server that stands alone every answer
    /// is, and no clock is read.
    ///
    /// # Errors
    /// [`StoreErrorKind::Timeout`] if it is read too late, [`StoreErrorKind::NotPrimary`] if the
    /// lease is over.
    pub(crate) fn check(&self, limit: AnswerLimit) -> Result<(), StoreError> {
        match limit {
            AnswerLimit(BootTime::NEVER) => Ok(()),
            limit => self.check_at(limit, BootTime::now()),
        }
    }

    fn check_at(&self, AnswerLimit(limit): AnswerLimit, now: BootTime) -> Result<(), StoreError> {
        if self.is_over(now) {
            return Err(not_proved());
        }
        if now >= limit { Err(too_old()) } else { Ok(()) }
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
        let kind = |lease: &Lease, limit, read| {
            lease.check_at(AnswerLimit(limit), at(read)).err().map(|error| error.kind())
        };
        let lease = Lease::proved(at(1_000));
        let limit = lease.as_it_stands();
        assert_eq!(limit, AnswerLimit(at(2_000)));
        assert_eq!(kind(&lease, limit.0, 1_999), None);
        assert_eq!(kind(&lease, limit.0, 2_000), Some(StoreErrorKind::NotPrimary));
        // A process that was suspended reads what was said before: a proof that came since makes it
        // no younger.
        lease.renew(at(41_000));
        assert_eq!(kind(&lease, limit.0, 41_500), Some(StoreErrorKind::Timeout));
        assert_eq!(kind(&lease, at(41_600), 41_500), None);
        // Another server was proved to be the primary.
        lease.end();
        assert_eq!(kind(&lease, at(41_600), 41_500), Some(StoreErrorKind::NotPrimary));
    }

    #[test]
    fn a_question_that_makes_the_server_wait_has_a_second_more() {
        let (lease, before) = (Lease::proved(BootTime::now()), BootTime::now());
        let AnswerLimit(limit) = lease.with_wait(Duration::from_secs(5));
        let allowed = limit.saturating_duration_since(before);
        assert!(allowed >= Duration::from_secs(6) && allowed < Duration::from_secs(60));
    }

    #[test]
    fn every_answer_of_a_server_that_stands_alone_is_believed() {
        let alone = Lease::unlimited();
        for limit in [alone.as_it_stands(), alone.with_wait(Duration::ZERO)] {
            assert_eq!(limit, AnswerLimit(BootTime::NEVER));
            assert!(alone.check(limit).is_ok());
        }
    }
}
