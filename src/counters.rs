//! Counts of what became of the requests, for metrics: [`Counters`].

// Every request counts, on every core, so the numbers are kept in stripes: a thread adds to its own
// and shares no cache line with the others. Reading adds the stripes up.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use serde::{Serialize, Serializer};

use crate::policy::RejectionKind;
use crate::store::StoreErrorKind;

/// The counts of one layer and of all services made by it, from
/// [`JwtRevocationLayer::counters`](crate::JwtRevocationLayer::counters). Clones read the same
/// counts.
///
/// They begin at zero with the layer and only grow: export them as monotonic counters. No count is
/// about a single user or token.
///
/// ```
/// # use tower_jwt_revocation::JwtRevocationLayer;
/// # fn f(layer: &JwtRevocationLayer) {
/// let counters = layer.counters();
/// let now = counters.snapshot();
/// println!("jwt_requests_admitted_total {}", now.admitted);
/// println!("jwt_requests_refused_total{{reason=\"revoked\"}} {}", now.refused.revoked);
/// # }
/// ```
#[doc(alias = "metrics")]
#[doc(alias = "prometheus")]
#[doc(alias = "statistics")]
#[derive(Clone)]
pub struct Counters(Arc<[Stripe]>);

/// The [`Counters`] at one moment: numbers of requests since the layer was made.
///
/// Each number is exact; requests that end while the numbers are read may be in some and not in
/// others. Each request is in exactly one of the public fields; of those that passed, some are also
/// among the [misfits](Self::misfits).
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
    /// Requests that passed because they are
    /// [exempt](crate::JwtRevocationLayer::with_exemption); nothing was looked at.
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
    /// Requests whose credentials cannot be read, or have two that differ
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
    /// Requests with a verified token that the store will never be able to decide, since it has
    /// lost revocations, under [`FailMode::Closed`](crate::FailMode::Closed)
    /// ([`Rejection::InDoubt`](crate::Rejection::InDoubt)); answered with 401.
    pub in_doubt: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestOutcome {
    Admitted,
    AdmittedUnchecked,
    Anonymous,
    Exempted,
    Preflight,
    Refused(RejectionKind),
    WouldRefuse(RejectionKind),
}

/// More stripes than this would cost memory and reading time for cores that few machines have.
const MAX_STRIPES: usize = 64;

/// The numbers of the threads that share this stripe, apart from the cache lines of all others
/// (128: pairs of lines are fetched together on x86, and lines are that long on some ARM).
#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    admitted: AtomicU64,
    admitted_unchecked: AtomicU64,
    anonymous: AtomicU64,
    exempted: AtomicU64,
    preflights: AtomicU64,
    refused: RefusalCells,
    would_refuse: RefusalCells,
    misfits: AtomicU64,
    store_errors: [AtomicU64; StoreErrorKind::ALL.len()],
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
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = cores.next_power_of_two().min(MAX_STRIPES);
        Self((0..stripes).map(|_| Stripe::default()).collect())
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> CounterSnapshot {
        let mut sum = CounterSnapshot::default();
        for stripe in &*self.0 {
            sum.admitted += stripe.admitted.load(Relaxed);
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

    pub(crate) fn count(&self, outcome: RequestOutcome) {
        let Some(stripe) = self.stripe() else { return };
        let cell = match outcome {
            RequestOutcome::Admitted => &stripe.admitted,
            RequestOutcome::AdmittedUnchecked => &stripe.admitted_unchecked,
            RequestOutcome::Anonymous => &stripe.anonymous,
            RequestOutcome::Exempted => &stripe.exempted,
            RequestOutcome::Preflight => &stripe.preflights,
            RequestOutcome::Refused(kind) => stripe.refused.cell(kind),
            RequestOutcome::WouldRefuse(kind) => stripe.would_refuse.cell(kind),
        };
        cell.fetch_add(1, Relaxed);
    }

    #[cfg(feature = "axum")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    #[cfg(feature = "axum")]
    pub(crate) fn count_misfit(&self) {
        if let Some(stripe) = self.stripe() {
            stripe.misfits.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn count_store_error(&self, kind: StoreErrorKind) {
        let Some(stripe) = self.stripe() else { return };
        // A kind that is missing there is counted as `Other`.
        let place = StoreErrorKind::ALL.iter().position(|known| *known == kind);
        if let Some(cell) =
            place.map_or(stripe.store_errors.last(), |place| stripe.store_errors.get(place))
        {
            cell.fetch_add(1, Relaxed);
        }
    }

    /// The stripe of this thread. Threads are dealt to the stripes in turn.
    fn stripe(&self) -> Option<&Stripe> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static TURN: Cell<Option<usize>> = const { Cell::new(None) };
        }
        let turn = TURN.with(|turn| {
            turn.get().unwrap_or_else(|| {
                let mine = NEXT.fetch_add(1, Relaxed);
                turn.set(Some(mine));
                mine
            })
        });
        // The number of stripes is a power of two.
        self.0.get(turn & self.0.len().wrapping_sub(1))
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
    /// How many requests asked the store, and got an answer or an error. A request that was dropped
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
            RejectionKind::Revoked(crate::target::TargetKind::User),
            RejectionKind::StandingUnknown(StoreErrorKind::Settling),
            RejectionKind::InDoubt,
        ];
        for kind in kinds {
            counters.count(RequestOutcome::Refused(kind));
            counters.count(RequestOutcome::WouldRefuse(kind));
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
