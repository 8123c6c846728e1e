//! The devices that a user trusts.

use std::time::Duration;

use super::read;
use super::roster::{Roster, Trust};
use super::sessions::Sessions;
use crate::revocation::Target;
use crate::store::StoreError;
use crate::store::session::Seen;

/// Most devices a user trusts; the one whose trust ends first makes room.
const MAX_TRUSTED: usize = 100;

impl Sessions {
    /// Trusts a device of a user for `duration`: to ask for no second factor on it, say. It ends
    /// early when the user is revoked, and with [`end_all`](Self::end_all). At most 100 devices per
    /// user.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn trust_device(
        &self,
        user: &str,
        device: &str,
        duration: Duration,
    ) -> Result<(), StoreError> {
        self.target(Target::device(device))?;
        let key = self.target(Target::user(user))?;
        self.change(&key, None, |roster: &mut Roster, now| {
            let trust = Trust { since: now, until: now.saturating_add(duration) };
            roster.trusted.insert(device.into(), trust);
            if roster.trusted.len() > MAX_TRUSTED {
                let first = roster.trusted.iter().min_by_key(|(_, trust)| trust.until);
                let first = first.map(|(device, _)| device.clone());
                first.map(|device| roster.trusted.remove(&device));
            }
            Some(Vec::new())
        })
        .await
        .map(drop)
    }

    /// Trusts a device no longer.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn distrust_device(&self, user: &str, device: &str) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        let distrust = |roster: &mut Roster, _| roster.trusted.remove(device).map(|_| Vec::new());
        self.change(&key, None, distrust).await.map(drop)
    }

    /// Whether a device of a user is trusted: it was said so, that time is not over, and neither
    /// the user nor the device was revoked since.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn is_trusted_device(&self, user: &str, device: &str) -> Result<bool, StoreError> {
        let targets = vec![self.target(Target::user(user))?, self.target(Target::device(device))?];
        let snapshot =
            self.store().load(targets.get(..1).unwrap_or_default().to_vec(), targets).await?;
        let Some(document) = snapshot.documents.first().and_then(Option::as_ref) else {
            return Ok(false);
        };
        let roster: Roster = read(document)?;
        Ok(roster.trusted.get(device).is_some_and(|trust| {
            let covered = |seen: &Seen| {
                seen.record
                    .as_ref()
                    .is_some_and(|record| record.covers_issued_at(Some(trust.since)))
            };
            trust.until > snapshot.now
                && Some(trust.since) > snapshot.doubt.issued_until()
                && !snapshot.records.iter().any(covered)
        }))
    }
}
