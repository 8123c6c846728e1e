//! What monitoring wants to know: [`Metrics`], as text for Prometheus, or number by number.
//!
//! [`docs/metrics.md`] explains names, types and labels. Nothing here asks the store: the process
//! knows all numbers already, so they can be read while the store is away.
//!
//! ```
//! # use tower_jwt_revocation::JwtRevocationLayer;
//! # fn f(layer: &JwtRevocationLayer) {
//! let metrics = layer.metrics();
//! // The answer to `GET /metrics`, as `text/plain; version=0.0.4`:
//! let text = metrics.prometheus();
//! assert!(text.contains("# TYPE jwt_revocation_requests_total counter"));
//! // Number by number, for anything else:
//! for sample in metrics.samples() {
//!     println!("{} {:?} {}", sample.name, sample.labels, sample.value);
//! }
//! # }
//! ```
//!
//! A dashboard for Grafana, rules for alerts, and what to do when one fires are in
//! [`docs/monitoring`] and [`docs/runbook.md`].
//!
//! [`docs/metrics.md`]: https://docs.rs/crate/tower-jwt-revocation/latest/source/docs/metrics.md
//! [`docs/monitoring`]: https://docs.rs/crate/tower-jwt-revocation/latest/source/docs/monitoring/
//! [`docs/runbook.md`]: https://docs.rs/crate/tower-jwt-revocation/latest/source/docs/runbook.md

#[cfg(feature = "metrics")]
mod facade;

use std::fmt;
use std::sync::Arc;

use crate::audit::{AuditCounts, AuditSink};
use crate::counters::Counters;
use crate::samples::Metric;
pub use crate::samples::{Sample, Samples};
use crate::store::RevocationStore;
use crate::token::TokenVerifier;

/// The metrics of a layer, of its clones and of the services and revokers that it has made, from
/// [`JwtRevocationLayer::metrics`](crate::JwtRevocationLayer::metrics); those of a process that
/// only writes, from [`Revoker::metrics`](crate::Revoker::metrics).
///
/// It reads the numbers at each call, and is cheap to clone. Like the layer, it keeps the store
/// alive.
///
/// Nothing in it grows with the number of users or tokens, and no label holds an id, a token or
/// text of a client.
#[doc(alias = "prometheus")]
#[doc(alias = "openmetrics")]
#[doc(alias = "statistics")]
#[derive(Clone)]
pub struct Metrics {
    /// Of requests; a revoker has none.
    pub(crate) requests: Option<(Counters, Arc<dyn TokenVerifier>)>,
    pub(crate) store: Arc<dyn RevocationStore>,
    pub(crate) audit: Option<Arc<dyn AuditSink>>,
    /// What was revoked, begun and refreshed.
    pub(crate) operations: Arc<AuditCounts>,
}

impl Metrics {
    /// All numbers as they are now, in the text format of Prometheus 0.0.4. Serve it as
    /// `text/plain; version=0.0.4`. It is complete: no other library is needed.
    pub fn prometheus(&self) -> String {
        self.gather().into_prometheus()
    }

    /// All numbers as they are now: each with its name and its labels, as in the text.
    pub fn samples(&self) -> impl Iterator<Item = Sample> {
        self.gather().into_sorted().into_iter()
    }

    fn gather(&self) -> Samples {
        let mut samples = Samples::default();
        samples.add(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
        if let Some((counters, verifier)) = &self.requests {
            counters.add_metrics(&mut samples);
            verifier.add_metrics(&mut samples);
        }
        self.operations.add_metrics(&mut samples);
        let lost = self.audit.as_ref().map_or(0, AuditSink::lost);
        samples.add_count(Metric::AuditLost, &[], lost);
        self.store.add_metrics(&mut samples);
        self.store.condition().add_metrics(&mut samples);
        // Of a gauge the first number stays, so these are for stores without a mirror: a query
        // finds the same names everywhere. There each check asks the store.
        for metric in [Metric::MirrorFresh, Metric::MirrorStaleness, Metric::MirrorRevocations] {
            samples.add(metric, &[], 0.0);
        }
        samples
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("requests", &self.requests.as_ref().map(|(counters, _)| counters))
            .finish_non_exhaustive()
    }
}
