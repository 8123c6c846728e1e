//! [`ServiceState`]: what all clones of a service share, and what it leaves in requests.

use http::Extensions;

#[cfg(feature = "axum")]
use super::extract::KnownLayer;
use super::response::RefusalBuilder;
use crate::gate::{Decision, Gate};
use crate::policy::{Clearance, Rejection};

/// What all clones of a service share.
pub(super) struct ServiceState<A> {
    pub(super) gate: Gate,
    pub(super) refusals: RefusalBuilder<A>,
    /// Whether handlers want to know who calls.
    pub(super) leaves_clearance: bool,
    /// Whether the extractors have to leave the form of their refusals to the layer.
    pub(super) has_form: bool,
    /// For the extractors.
    #[cfg(feature = "axum")]
    pub(super) known: KnownLayer,
}

/// Nothing that says that a request passed may come from elsewhere: on a route that lets requests
/// pass without a token the handler would take it for ours.
pub(super) fn forget_older_decisions(extensions: &mut Extensions) {
    extensions.remove::<Clearance>();
    extensions.remove::<Rejection>();
    #[cfg(feature = "axum")]
    super::extract::forget(extensions);
}

impl<A> ServiceState<A> {
    /// Leaves the decision where handlers find it, or gives back the rejection.
    pub(super) fn mark(
        &self,
        decision: Decision,
        extensions: &mut Extensions,
    ) -> Result<(), Rejection> {
        match decision {
            Decision::Cleared(clearance) => {
                // That a request passes unchecked is never kept from its handler.
                if self.leaves_clearance || !clearance.is_checked() {
                    #[cfg(feature = "axum")]
                    let clearance = clearance.of_layer(self.known.number());
                    extensions.insert(clearance);
                }
            }
            Decision::Reported(rejection) => {
                #[cfg(feature = "axum")]
                super::extract::mark_reported(extensions, &self.refusals.heads, &rejection);
                extensions.insert(rejection);
            }
            Decision::Skipped(reason) => {
                #[cfg(feature = "axum")]
                super::extract::mark_skipped(extensions, &self.refusals.heads, reason);
                #[cfg(not(feature = "axum"))]
                let _ = reason;
            }
            Decision::Refused(rejection) => return Err(rejection),
        }
        Ok(())
    }
}
