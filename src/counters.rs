//! Counts of what became of the requests, for metrics: [`Counters`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::policy::RejectionKind;
use crate::samples::{DURATION_SECONDS, DurationHistogram, HistogramSnapshot, Metric, Samples};
use crate::store::StoreErrorKind;
use crate::stripes::Stripes;
use crate::target::TargetKind;
use crate::token::TokenErrorKind;

/// The counts of one layer and of all services made by it, from
/// [`JwtRevocationLayer::counters`](crate::JwtRevocationLayer::counters). Clones read the same
/// counts.
///
/// They begin at zero with the layer and only grow. [`Metrics`](crate::metrics::Metrics) has them,
/// and more, in the form that monitoring needs.
///
/// ```
/// # use tower_jwt_revocation::JwtRevocationLayer;
/// # fn f(layer: &JwtRevocationLayer) {
/// let counters = layer.counters();
/// let now = counters.snapshot();
/// println!("{} requests passed, {} tokens were revoked", now.admitted, now.refused.revoked);
/// # }
/// ```
#[doc(alias = "metrics")]
#[doc(alias = "prometheus")]
#[doc(alias = "statistics")]
#[derive(Clone)]
pub struct Counters(Arc<Stripes<CounterStripe>>);

/// The [`Counters`] at one moment: how many requests there were since the layer was made.
///
/// Each number is exact, but a request that ends while the numbers are read may be missing in some.
/// Each request is in exactly one of the public fields, except that [misfits](Self::misfits) are
/// also counted as passed.
#[doc(alias = "metrics")]
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CounterSnapshot {
    /// Requests that passed with a verified token of which the store said that it is live.
    pub admitted: u64,
    /// Requests that passed with a verified token although the store gave no answer
    /// ([`FailMode::Open`](crate::FailMode::Open)): it may have been revoked. Stays zero under
    /// [`FailMode::Closed`](crate::FailMode::Closed), the default.
    pub admitted_unchecked: u64,
    /// Requests that passed without credentials, where they are
    /// [optional](crate::JwtRevocationLayer::with_optional_credentials).
    pub anonymous: u64,
    /// Requests that passed because they are [exempt](crate::JwtRevocationLayer::with_exemption);
    /// nothing was verified.
    pub exempted: u64,
    /// Requests that passed because they are
    /// [CORS preflights](crate::JwtRevocationLayer::with_cors_preflight).
    pub preflights: u64,
    /// Requests that were refused, by reason.
    pub refused: Refusals,
    /// Requests that passed because the layer
    /// [only reports](crate::JwtRevocationLayer::with_report_only), by the reason for which they
    /// would have been refused.
    pub would_refuse: Refusals,
    /// Requests that passed, and whose claims do not fit the type that the handler wants
    /// (`middleware::Claims`); answered with 401.
    pub misfits: u64,
    /// Serialized by kind.
    #[serde(serialize_with = "by_kind")]
    store_errors: [u64; StoreErrorKind::ALL.len()],
}

fn by_kind<S: Serializer>(
    counts: &[u64; StoreErrorKind::ALL.len()],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(StoreErrorKind::ALL.iter().zip(counts))
}

/// Numbers of refused requests, one for each kind of [`Rejection`](crate::Rejection).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refusals {
    /// Requests without credentials
    /// ([`Rejection::NoCredentials`](crate::Rejection::NoCredentials)); answered with 401.
    pub no_credentials: u64,
    /// Requests whose credentials cannot be read, or that have two different ones
    /// ([`Rejection::BadRequest`](crate::Rejection::BadRequest)); answered with 400.
    pub bad_request: u64,
    /// Requests whose token is not acceptable: forged, expired, of another issuer, …
    /// ([`Rejection::InvalidToken`](crate::Rejection::InvalidToken)); answered with 401.
    pub invalid_token: u64,
    /// Requests whose token could not be verified, because the keys of its issuer are out of reach
    /// ([`Rejection::NoKeys`](crate::Rejection::NoKeys)); answered with 503.
    pub no_keys: u64,
    /// Requests with a revoked token ([`Rejection::Revoked`](crate::Rejection::Revoked)); answered
    /// with 401.
    pub revoked: u64,
    /// Requests with a verified token of which the store could not tell whether it is revoked,
    /// because it was out of reach or [settling](crate::store::Doubt::Settling), under
    /// [`FailMode::Closed`](crate::FailMode::Closed)
    /// ([`Rejection::StandingUnknown`](crate::Rejection::StandingUnknown)); answered with 503.
    pub standing_unknown: u64,
    /// Requests with a verified token about which the store can never answer, because it has lost
    /// revocations, under [`FailMode::Closed`](crate::FailMode::Closed)
    /// ([`Rejection::InDoubt`](crate::Rejection::InDoubt)); answered with 401.
    pub in_doubt: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestOutcome {
    /// By a verdict that was known at once.
    Admitted,
    /// After the store was asked.
    AdmittedLater,
    AdmittedUnchecked,
    Anonymous,
    Exempted,
    Preflight,
    Refused(RejectionKind),
    WouldRefuse(RejectionKind),
}

/// The numbers of the threads that share this stripe.
#[derive(Default)]
struct CounterStripe {
    /// By a verdict that was known at once: this is a check from memory, too.
    admitted: AtomicU64,
    admitted_later: AtomicU64,
    admitted_unchecked: AtomicU64,
    anonymous: AtomicU64,
    exempted: AtomicU64,
    preflights: AtomicU64,
    refused: RefusalCells,
    would_refuse: RefusalCells,
    misfits: AtomicU64,
    store_errors: [AtomicU64; StoreErrorKind::ALL.len()],
    invalid_tokens: [AtomicU64; TokenErrorKind::ALL.len()],
    revoked_tokens: [AtomicU64; TargetKind::ALL.len()],
    /// Verdicts that were known at once and are not "live".
    revoked_at_once: AtomicU64,
    /// The checks that are none of the store's memory.
    asked: DurationHistogram,
}

#[derive(Default)]
struct RefusalCells {
    no_credentials: AtomicU64,
    bad_request: AtomicU64,
    invalid_token: AtomicU64,
    no_keys: AtomicU64,
    revoked: AtomicU64,
    standing_unknown: AtomicU64,
    in_doubt: AtomicU64,
}

// === impl Counters ===

impl Counters {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Stripes::new()))
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> CounterSnapshot {
        let mut sum = CounterSnapshot::default();
        for stripe in self.0.iter() {
            sum.admitted += stripe.admitted.load(Relaxed) + stripe.admitted_later.load(Relaxed);
            sum.admitted_unchecked += stripe.admitted_unchecked.load(Relaxed);
            sum.anonymous += stripe.anonymous.load(Relaxed);
            sum.exempted += stripe.exempted.load(Relaxed);
            sum.preflights += stripe.preflights.load(Relaxed);
            stripe.refused.add_to(&mut sum.refused);
            stripe.would_refuse.add_to(&mut sum.would_refuse);
            sum.misfits += stripe.misfits.load(Relaxed);
            for (sum, cell) in sum.store_errors.iter_mut().zip(&stripe.store_errors) {
                *sum += cell.load(Relaxed);
            }
        }
        sum
    }

    #[inline]
    pub(crate) fn count(&self, outcome: RequestOutcome) {
        let Some(stripe) = self.0.mine() else { return };
        let cell = match outcome {
            RequestOutcome::Admitted => &stripe.admitted,
            RequestOutcome::AdmittedLater => &stripe.admitted_later,
            RequestOutcome::AdmittedUnchecked => &stripe.admitted_unchecked,
            RequestOutcome::Anonymous => &stripe.anonymous,
            RequestOutcome::Exempted => &stripe.exempted,
            RequestOutcome::Preflight => &stripe.preflights,
            RequestOutcome::Refused(kind) => {
                stripe.count_kind(kind);
                stripe.refused.cell(kind)
            }
            RequestOutcome::WouldRefuse(kind) => {
                stripe.count_kind(kind);
                stripe.would_refuse.cell(kind)
            }
        };
        cell.fetch_add(1, Relaxed);
    }

    #[cfg(feature = "axum")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    #[cfg(feature = "axum")]
    pub(crate) fn count_misfit(&self) {
        if let Some(stripe) = self.0.mine() {
            stripe.misfits.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn count_store_error(&self, kind: StoreErrorKind) {
        if let Some(stripe) = self.0.mine() {
            count_one(&stripe.store_errors, &StoreErrorKind::ALL, kind);
        }
    }

    /// A check of which the verdict was "revoked", and was known at once.
    pub(crate) fn count_revoked_at_once(&self) {
        if let Some(stripe) = self.0.mine() {
            stripe.revoked_at_once.fetch_add(1, Relaxed);
        }
    }

    /// A check that had to ask, or could not: with how long it waited.
    pub(crate) fn count_asked(&self, waited: Duration) {
        if let Some(stripe) = self.0.mine() {
            stripe.asked.observe_duration(waited);
        }
    }

    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        let seen = self.snapshot();
        let skipped = [
            ("anonymous", seen.anonymous),
            ("exempt", seen.exempted),
            ("preflight", seen.preflights),
        ];
        for (outcome, number) in [
            ("admitted", seen.admitted),
            ("admitted_unchecked", seen.admitted_unchecked),
            ("refused", seen.refused.total()),
            ("would_refuse", seen.would_refuse.total()),
            ("unasked", skipped.iter().map(|(_, number)| number).sum()),
        ] {
            samples.add_count(Metric::Requests, &[outcome], number);
        }
        for (reason, number) in skipped {
            samples.add_count(Metric::Unasked, &[reason], number);
        }
        for (metric, refusals) in
            [(Metric::Refusals, &seen.refused), (Metric::WouldRefuse, &seen.would_refuse)]
        {
            for (reason, number) in refusals.by_reason() {
                samples.add_count(metric, &[reason], number);
            }
        }
        for (kind, number) in seen.store_errors_by_kind() {
            samples.add_count(Metric::StoreErrors, &[kind.as_str()], number);
        }
        let sum = |cell: fn(&CounterStripe) -> &AtomicU64| {
            self.0.iter().map(|stripe| cell(stripe).load(Relaxed)).sum::<u64>()
        };
        for (place, kind) in TokenErrorKind::ALL.into_iter().enumerate() {
            let cells = self.0.iter().filter_map(|stripe| stripe.invalid_tokens.get(place));
            let number = cells.map(|cell| cell.load(Relaxed)).sum();
            samples.add_count(Metric::InvalidTokens, &[kind.as_str()], number);
        }
        for (place, kind) in TargetKind::ALL.into_iter().enumerate() {
            let cells = self.0.iter().filter_map(|stripe| stripe.revoked_tokens.get(place));
            let number = cells.map(|cell| cell.load(Relaxed)).sum();
            samples.add_count(Metric::RevokedTokens, &[kind.as_str()], number);
        }
        samples.add_count(Metric::Misfits, &[], seen.misfits);
        // A verdict from memory takes less than the lowest bound, and no clock is read for it.
        let at_once = sum(|stripe| &stripe.admitted) + sum(|stripe| &stripe.revoked_at_once);
        let mut from_memory = vec![0; DURATION_SECONDS.len() + 1];
        from_memory.iter_mut().take(1).for_each(|lowest| *lowest = at_once);
        let from_memory = HistogramSnapshot { buckets: from_memory, sum: 0.0 };
        let mut asked = HistogramSnapshot::default();
        self.0.iter().for_each(|stripe| stripe.asked.add_seconds_to(&mut asked));
        for (source, durations) in [("memory", &from_memory), ("store", &asked)] {
            samples.add_histogram(Metric::CheckDuration, &[source], &DURATION_SECONDS, durations);
        }
    }
}

impl CounterStripe {
    /// By which rule a token is not accepted, or what of it is revoked.
    fn count_kind(&self, kind: RejectionKind) {
        match kind {
            RejectionKind::InvalidToken(kind) => {
                count_one(&self.invalid_tokens, &TokenErrorKind::ALL, kind);
            }
            RejectionKind::Revoked(kind) => count_one(&self.revoked_tokens, &TargetKind::ALL, kind),
            _ => {}
        }
    }
}

/// A kind that is missing in `all` is counted as the last one.
fn count_one<K: PartialEq + Copy>(cells: &[AtomicU64], all: &[K], kind: K) {
    let place = all.iter().position(|known| *known == kind);
    if let Some(cell) = place.map_or(cells.last(), |place| cells.get(place)) {
        cell.fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.snapshot()).finish()
    }
}

// === impl RefusalCells ===

impl RefusalCells {
    fn cell(&self, kind: RejectionKind) -> &AtomicU64 {
        match kind {
            RejectionKind::NoCredentials => &self.no_credentials,
            RejectionKind::BadRequest => &self.bad_request,
            RejectionKind::InvalidToken(_) => &self.invalid_token,
            RejectionKind::NoKeys => &self.no_keys,
            RejectionKind::Revoked(_) => &self.revoked,
            RejectionKind::StandingUnknown(_) => &self.standing_unknown,
            RejectionKind::InDoubt => &self.in_doubt,
        }
    }

    fn add_to(&self, sum: &mut Refusals) {
        sum.no_credentials += self.no_credentials.load(Relaxed);
        sum.bad_request += self.bad_request.load(Relaxed);
        sum.invalid_token += self.invalid_token.load(Relaxed);
        sum.no_keys += self.no_keys.load(Relaxed);
        sum.revoked += self.revoked.load(Relaxed);
        sum.standing_unknown += self.standing_unknown.load(Relaxed);
        sum.in_doubt += self.in_doubt.load(Relaxed);
    }
}

// === impl CounterSnapshot ===

impl CounterSnapshot {
    /// How many requests asked the store and got an answer or an error. A request that was dropped
    /// while it waited is not counted.
    pub fn checks(&self) -> u64 {
        let checked =
            |refusals: &Refusals| refusals.revoked + refusals.standing_unknown + refusals.in_doubt;
        self.admitted
            + self.admitted_unchecked
            + checked(&self.refused)
            + checked(&self.would_refuse)
    }

    /// How many checks failed with an error of this kind, whatever then became of the request.
    pub fn store_errors(&self, kind: StoreErrorKind) -> u64 {
        self.store_errors_by_kind().find(|(known, _)| *known == kind).map_or(0, |(_, count)| count)
    }

    /// How many checks failed, for each kind of error, also those that never occurred.
    pub fn store_errors_by_kind(&self) -> impl Iterator<Item = (StoreErrorKind, u64)> + '_ {
        StoreErrorKind::ALL.into_iter().zip(self.store_errors)
    }
}

/// Errors of the store by name, and only those that there were.
impl fmt::Debug for CounterSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store_errors: Vec<_> =
            self.store_errors_by_kind().filter(|(_, count)| *count > 0).collect();
        f.debug_struct("CounterSnapshot")
            .field("admitted", &self.admitted)
            .field("admitted_unchecked", &self.admitted_unchecked)
            .field("anonymous", &self.anonymous)
            .field("exempted", &self.exempted)
            .field("preflights", &self.preflights)
            .field("refused", &self.refused)
            .field("would_refuse", &self.would_refuse)
            .field("misfits", &self.misfits)
            .field("store_errors", &store_errors)
            .finish()
    }
}

// === impl Refusals ===

impl Refusals {
    /// Each field, by the name of its reason: [`RejectionKind::as_str`].
    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 7] {
        [
            ("no_credentials", self.no_credentials),
            ("bad_request", self.bad_request),
            ("invalid_token", self.invalid_token),
            ("no_keys", self.no_keys),
            ("revoked", self.revoked),
            ("no_verdict", self.standing_unknown),
            ("in_doubt", self.in_doubt),
        ]
    }

    /// The sum of all fields.
    pub fn total(&self) -> u64 {
        self.no_credentials
            + self.bad_request
            + self.invalid_token
            + self.no_keys
            + self.revoked
            + self.standing_unknown
            + self.in_doubt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_is_all_there() {
        let counters = Counters::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| counters.count(RequestOutcome::Admitted)));
            }
        });
        assert_eq!(counters.snapshot().admitted, 8000);
        assert_eq!(counters.snapshot().checks(), 8000);
    }

    #[test]
    fn each_kind_of_store_error_has_a_number_of_its_own() {
        let counters = Counters::new();
        for (times, kind) in (1_u64..).zip(StoreErrorKind::ALL) {
            (0..times).for_each(|_| counters.count_store_error(kind));
        }
        for (times, kind) in (1_u64..).zip(StoreErrorKind::ALL) {
            assert_eq!(counters.snapshot().store_errors(kind), times, "{kind:?}");
        }
    }

    #[test]
    fn debug_names_the_errors_of_the_store() {
        let counters = Counters::new();
        counters.count(RequestOutcome::Admitted);
        counters.count_store_error(StoreErrorKind::Timeout);
        let shown = format!("{counters:?}");
        assert!(shown.contains("admitted: 1, "), "{shown}");
        assert!(shown.ends_with("store_errors: [(Timeout, 1)] })"), "{shown}");
    }

    #[test]
    fn what_the_store_was_asked_about_is_a_check_whatever_became_of_the_request() {
        let counters = Counters::new();
        let kinds = [
            RejectionKind::Revoked(TargetKind::User),
            RejectionKind::StandingUnknown(StoreErrorKind::Settling),
            RejectionKind::InDoubt,
        ];
        for kind in kinds {
            counters.count(RequestOutcome::Refused(kind));
            counters.count(RequestOutcome::WouldRefuse(kind));
            assert!(Refusals::default().by_reason().iter().any(|(name, _)| *name == kind.as_str()));
        }
        let seen = counters.snapshot();
        assert_eq!((seen.checks(), seen.refused.total(), seen.refused.in_doubt), (6, 3, 1));
    }

    #[test]
    fn would_be_refusals_are_kept_apart() {
        let counters = Counters::new();
        counters.count(RequestOutcome::Refused(RejectionKind::BadRequest));
        counters.count(RequestOutcome::WouldRefuse(RejectionKind::NoCredentials));
        let seen = counters.snapshot();
        assert_eq!(seen.refused, Refusals { bad_request: 1, ..Refusals::default() });
        assert_eq!(seen.would_refuse, Refusals { no_credentials: 1, ..Refusals::default() });
        assert_eq!((seen.refused.total(), seen.checks()), (1, 0));
    }

    #[test]
    fn a_snapshot_is_serialized_by_name() {
        let counters = Counters::new();
        counters.count(RequestOutcome::Admitted);
        counters.count_store_error(StoreErrorKind::NotPrimary);
        let json = serde_json::to_value(counters.snapshot()).unwrap();
        assert_eq!(json["admitted"], 1);
        assert_eq!(json["refused"]["revoked"], 0);
        assert_eq!(json["store_errors"]["not_primary"], 1);
    }
}
