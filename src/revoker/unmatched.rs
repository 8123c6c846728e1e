//! Whether any token could match a revocation, by what the layers on the store accept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Revoker;
use crate::revocation::{AcceptedTargets, Action, Revocation, Target, why_unmatched};
use crate::store::{StoreError, StoreErrorKind};

/// What the layers have said, when the store was last asked for it. Clones share it.
#[derive(Clone, Default)]
pub(super) struct LayersKnown(Arc<Mutex<Vec<AcceptedTargets>>>);

impl LayersKnown {
    fn lock(&self) -> MutexGuard<'_, Vec<AcceptedTargets>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first of these targets that none of them could match.
fn first_unmatched<'a>(targets: &'a [Target], accepted: &[AcceptedTargets]) -> Option<&'a Target> {
    targets.iter().find(|target| !accepted.iter().any(|known| known.could_match(target)))
}

impl Revoker {
    /// Returns the receipt even if no layer on the store accepts a token that the revocation could
    /// match. Default of [`Revoker::new`]: an error ([`Unmatched`](StoreErrorKind::Unmatched)),
    /// because such a revocation has no effect. The revoker of a layer never returns this error.
    ///
    /// Use it if tokens are accepted by something that the store does not know of: layers that may
    /// not write to Redis, layers of an older release, layers that start later, and code that asks
    /// the store itself.
    #[must_use]
    pub fn allow_unmatched_targets(mut self) -> Self {
        self.tells_unmatched = false;
        self
    }

    /// Whether a layer on this store accepts tokens that `target` could match, for example to warn
    /// a person before a revocation. `false` means that this is not known, because no layer has
    /// said what it accepts, or the store does not keep it.
    ///
    /// # Errors
    /// [`StoreError`] of kind [`Unmatched`](StoreErrorKind::Unmatched) if no layer does, with what
    /// they accept instead. Of another kind if the store could not be asked, or the target is not
    /// valid.
    pub async fn could_match(&self, target: Target) -> Result<bool, StoreError> {
        let target = self.complete(target)?;
        self.expect_matched(&[target]).await
    }

    /// What these changes revoke, if it matters whether a token could match it.
    pub(super) fn targets_to_match(
        &self,
        changes: &Result<Vec<Revocation>, StoreError>,
    ) -> Vec<Target> {
        let changes = changes.as_deref().ok().filter(|_| self.tells_unmatched).unwrap_or_default();
        let revoked = changes.iter().filter(|change| matches!(change.action, Action::Revoke(_)));
        revoked.filter_map(|change| self.complete(change.target.clone()).ok()).collect()
    }

    /// As [`could_match`](Self::could_match), of targets that name their issuers. What was accepted
    /// once needs no further question: a layer that is gone for now may come back.
    pub(super) async fn expect_matched(&self, targets: &[Target]) -> Result<bool, StoreError> {
        if first_unmatched(targets, &self.layers.lock()).is_none() {
            return Ok(true);
        }
        let accepted = self.store.accepted_targets().await?;
        let matched = match first_unmatched(targets, &accepted) {
            None => Ok(true),
            Some(_) if !accepted.iter().any(AcceptedTargets::is_of_layer) => Ok(false),
            Some(target) => {
                let why = why_unmatched(target, &accepted);
                Err(StoreError::new(StoreErrorKind::Unmatched, why))
            }
        };
        *self.layers.lock() = accepted;
        matched
    }
}

/// It was written all the same.
pub(super) fn without_effect(error: &StoreError) -> StoreError {
    let problem = format!(
        "the revocation was written, but {error}; give the revoker the profile of \
         those layers, or see Revoker::allow_unmatched_targets"
    );
    StoreError::new(error.kind(), problem)
}
