//! [`StoreActivity`]: what the connections of a store have done, for metrics.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::health::Purpose;
use crate::samples::{Histogram, HistogramSnapshot, Metric, Samples};

/// The bounds of the sizes of batches.
const SIZES: [u64; 8] = [1, 2, 4, 8, 16, 64, 256, 1024];
const SIZE_BOUNDS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0];

#[derive(Default)]
pub(crate) struct StoreActivity {
    reconnects_for_checks: AtomicU64,
    reconnects_for_writes: AtomicU64,
    batches: Histogram<{ SIZES.len() + 1 }>,
    /// Errors and warnings that the doctor has found last.
    findings: OnceLock<[AtomicU64; 2]>,
}

impl StoreActivity {
    /// A connection was made that replaces another one.
    pub(crate) fn count_reconnect(&self, purpose: Purpose) {
        let reconnects = match purpose {
            Purpose::Checks => &self.reconnects_for_checks,
            Purpose::Writes => &self.reconnects_for_writes,
        };
        reconnects.fetch_add(1, Relaxed);
    }

    /// So many checks were sent together.
    pub(crate) fn count_batch(&self, checks: usize) {
        self.batches.observe(checks as u64, &SIZES);
    }

    /// The doctor has found so many errors and warnings.
    pub(crate) fn note_findings(&self, found: [usize; 2]) {
        let known = self.findings.get_or_init(Default::default);
        for (known, found) in known.iter().zip(found) {
            known.store(found as u64, Relaxed);
        }
    }

    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        for (purpose, reconnects) in
            [("checks", &self.reconnects_for_checks), ("writes", &self.reconnects_for_writes)]
        {
            samples.add_count(Metric::StoreReconnects, &[purpose], reconnects.load(Relaxed));
        }
        let mut sizes = HistogramSnapshot::default();
        self.batches.add_to(&mut sizes, 1.0);
        samples.add_histogram(Metric::StoreBatchSize, &[], &SIZE_BOUNDS, &sizes);
        let findings = self.findings.get().into_iter().flatten();
        for (severity, found) in ["error", "warning"].iter().zip(findings) {
            samples.add_count(Metric::StoreFindings, &[severity], found.load(Relaxed));
        }
    }
}
