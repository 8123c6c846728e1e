//! [`AuditTrail`]: where the events of a revoker go, and how many there were.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{AuditEvent, AuditKind, AuditSink};
use crate::samples::{Metric, Samples};
use crate::target::TargetKind;

/// What is counted: all that a process is asked for. What becomes of requests has counters of its
/// own.
const COUNTED: [AuditKind; 14] = [
    AuditKind::Login,
    AuditKind::Refresh,
    AuditKind::RefreshReuse,
    AuditKind::Revoke(TargetKind::Token),
    AuditKind::Revoke(TargetKind::SigningInput),
    AuditKind::Revoke(TargetKind::Session),
    AuditKind::Revoke(TargetKind::Device),
    AuditKind::Revoke(TargetKind::Family),
    AuditKind::Revoke(TargetKind::User),
    AuditKind::Revoke(TargetKind::Client),
    AuditKind::Revoke(TargetKind::Key),
    AuditKind::Revoke(TargetKind::Issuer),
    AuditKind::Revoke(TargetKind::Claim),
    AuditKind::Reinstate(TargetKind::Token),
];

/// How many events there were of each kind, whether or not there is a sink: those that ended well,
/// and those that did not.
#[derive(Debug, Default)]
pub(crate) struct AuditCounts([[AtomicU64; 2]; COUNTED.len()]);

impl AuditCounts {
    fn count(&self, event: &AuditEvent) {
        let is_it = |kind: &AuditKind| match (kind, event.kind()) {
            (AuditKind::Reinstate(_), AuditKind::Reinstate(_)) => true,
            (kind, other) => *kind == other,
        };
        let place = COUNTED.iter().position(is_it);
        let cells = place.and_then(|place| self.0.get(place));
        if let Some(cell) = cells.and_then(|cells| cells.get(usize::from(event.is_failed()))) {
            cell.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        for (kind, cells) in COUNTED.iter().zip(&self.0) {
            for (outcome, cell) in ["ok", "error"].into_iter().zip(cells) {
                let number = cell.load(Relaxed);
                samples.add_count(Metric::Operations, &[kind.as_str(), outcome], number);
            }
        }
    }
}

/// Where events go. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct AuditTrail {
    sink: Option<Arc<dyn AuditSink>>,
    counts: Arc<AuditCounts>,
}

impl AuditTrail {
    pub(crate) fn new(sink: Option<Arc<dyn AuditSink>>, counts: Arc<AuditCounts>) -> Self {
        Self { sink, counts }
    }

    pub(crate) fn sink(&self) -> Option<&Arc<dyn AuditSink>> {
        self.sink.as_ref()
    }

    pub(crate) fn counts(&self) -> &Arc<AuditCounts> {
        &self.counts
    }

    pub(crate) fn record(&self, event: &AuditEvent) {
        self.counts.count(event);
        if let Some(sink) = &self.sink {
            sink.record(event);
        }
    }
}

impl fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditTrail").field("sink", &self.sink.is_some()).finish_non_exhaustive()
    }
}
