//! [`Pending`]: the event of something that is still under way.

use std::fmt;

use super::{AuditEvent, AuditTrail};

/// The field `error` of an event whose end nobody waited for.
const ABANDONED: &str = "the caller went away before it was known what became of it";

/// The event of something that is under way; nothing once it has ended.
///
/// The caller may drop its future at any time: a client hangs up, a time limit is over. What was
/// done until then is done, so the event is recorded all the same, with the outcome `error`.
pub(crate) struct Pending(Option<(AuditTrail, AuditEvent)>);

impl Pending {
    pub(crate) fn new(trail: AuditTrail, event: AuditEvent) -> Self {
        Self(Some((trail, event)))
    }

    /// Adds what has become known meanwhile.
    #[cfg(feature = "sessions")]
    pub(crate) fn learn(&mut self, say: impl FnOnce(AuditEvent) -> AuditEvent) {
        self.0 = self.0.take().map(|(trail, event)| (trail, say(event)));
    }

    /// Records the event with how it ended.
    pub(crate) fn end(mut self, say: impl FnOnce(AuditEvent) -> AuditEvent) {
        if let Some((trail, event)) = self.0.take() {
            trail.record(&say(event));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((trail, event)) = self.0.take() {
            trail.record(&event.with("error", Some(ABANDONED)).failed());
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pending").field(&self.0.as_ref().map(|(_, event)| event)).finish()
    }
}
