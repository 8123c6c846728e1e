//! The devices that a user trusts.

use std::time::Duration;

use super::calls::invalid;
use super::documents::{StoredDocument, read};
use super::families::issue_at;
use super::list::{DeviceTrust, Session, SessionList, TrustedDevice};
use super::login::cut;
use super::sessions::Sessions;
use crate::revocation::{Fingerprint, Target};
use crate::store::StoreError;
use crate::store::session::{Seen, Snapshot};

/// Most devices a user trusts; the one whose trust ends first makes room.
const MAX_TRUSTED: usize = 100;

impl Sessions {
    /// Trusts a device of a user for `duration`, for example to ask for no second factor on it. The
    /// trust ends earlier when the user or the device is revoked, and with
    /// [`end_all`](Self::end_all), except on the device of the session that it spares. A user has
    /// at most 100 trusted devices; with one more, the trust with the earliest end is removed.
    ///
    /// `duration` must not exceed the time for which records of users and devices are kept: 14 days
    /// and an hour with the default policy. Otherwise the trust would come back when the record
    /// that ended it is forgotten. For a longer trust, keep records for longer, with
    /// [`Revoker::extend_shared_retention`](crate::Revoker::extend_shared_retention) in every
    /// process that revokes.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed. Of kind
    /// [`InvalidInput`](crate::store::StoreErrorKind::InvalidInput) if `duration` is too long.
    #[doc(alias = "remember device")]
    pub async fn trust_device(
        &self,
        user: &str,
        device: impl Into<TrustedDevice>,
        duration: Duration,
    ) -> Result<(), StoreError> {
        let most = self.revoker().shared_retention();
        if duration > most {
            return Err(invalid(format!(
                "a device is trusted for at most {} s, which is how long the records are kept that \
                 end the trust; see Revoker::extend_shared_retention",
                most.as_secs()
            )));
        }
        let TrustedDevice { id, name, kind, .. } = device.into();
        let shown = |text: &Option<Box<str>>| text.as_deref().map(|text| cut(text).into());
        let key = self.target(Target::user(user))?;
        let targets = vec![key.clone(), self.target(Target::device(&*id))?];
        let seen = self.store().load(vec![key.clone()], targets).await?.settled()?;
        // The clock may stand where the last cutoff was set, or behind it.
        let (_, floor) = issue_at(&seen);
        let written = seen.documents.into_iter().next().flatten();
        let known = StoredDocument { written, now: seen.now };
        self.index
            .change(&key, Some(known), |list: &mut SessionList, now| {
                let now = now.max(floor);
                let trust = DeviceTrust {
                    since: now,
                    until: now.saturating_add(duration),
                    name: shown(&name),
                    kind: shown(&kind),
                };
                list.trusted.insert(id.clone(), trust);
                if list.trusted.len() > MAX_TRUSTED {
                    let first = list.trusted.iter().min_by_key(|(_, trust)| trust.until);
                    let first = first.map(|(device, _)| device.clone());
                    first.map(|device| list.trusted.remove(&device));
                }
                Some(Vec::new())
            })
            .await
            .map(drop)
    }

    /// Ends the trust in a device of a user.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn distrust_device(&self, user: &str, device: &str) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        let distrust = |list: &mut SessionList, _| list.trusted.remove(device).map(|_| Vec::new());
        self.index.change(&key, None, distrust).await.map(drop)
    }

    /// Whether a user trusts a device: the time of [`trust_device`](Self::trust_device) has not
    /// passed, and neither the user nor the device was revoked since, unless that spared a session
    /// on the device.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn is_trusted_device(&self, user: &str, device: &str) -> Result<bool, StoreError> {
        let targets = vec![self.target(Target::user(user))?, self.target(Target::device(device))?];
        let snapshot = self
            .store()
            .load(targets.get(..1).unwrap_or_default().to_vec(), targets)
            .await?
            .settled()?;
        let Some(document) = snapshot.documents.first().and_then(Option::as_ref) else {
            return Ok(false);
        };
        let list: SessionList = read(document)?;
        let Some(trust) = list.trusted.get(device) else { return Ok(false) };
        let sessions = self.sessions_on(&list, device)?;
        Ok(trust.is_good(&snapshot, snapshot.records.iter(), &sessions))
    }

    /// The devices that a user trusts, in the order of their ids: those for which
    /// [`is_trusted_device`](Self::is_trusted_device) is true.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn trusted_devices(&self, user: &str) -> Result<Vec<TrustedDevice>, StoreError> {
        let user = self.target(Target::user(user))?;
        let known = self.index.read_document(&user).await?;
        let Some(mut list) = known.read::<SessionList>()? else { return Ok(Vec::new()) };
        let trusted = std::mem::take(&mut list.trusted);
        let sessions = trusted.keys().map(|device| self.sessions_on(&list, device));
        let sessions = sessions.collect::<Result<Vec<_>, _>>()?;
        let devices = trusted.keys().map(|device| self.target(Target::device(&**device)));
        let targets = std::iter::once(Ok(user)).chain(devices).collect::<Result<Vec<_>, _>>()?;
        let snapshot = self.store().load(Vec::new(), targets).await?.settled()?;
        let Some((of_user, of_devices)) = snapshot.records.split_first() else {
            return Ok(Vec::new());
        };
        let known = trusted.into_iter().zip(of_devices).zip(sessions);
        let good = known.filter(|(((_, trust), of_device), sessions)| {
            trust.is_good(&snapshot, [of_user, of_device].into_iter(), sessions)
        });
        let shown = good.map(|(((id, trust), _), _)| {
            let DeviceTrust { since, until, name, kind } = trust;
            TrustedDevice { id, name, kind, since, until }
        });
        Ok(shown.collect())
    }

    /// The listed sessions of a user on a device.
    fn sessions_on(
        &self,
        list: &SessionList,
        device: &str,
    ) -> Result<Vec<Fingerprint>, StoreError> {
        let is_on_it = |session: &&Session| session.details.device.as_deref() == Some(device);
        let on_it = list.sessions.iter().filter(is_on_it);
        on_it.map(|it| Ok(self.target(Target::session(&*it.id))?.fingerprint())).collect()
    }
}

impl DeviceTrust {
    /// Whether it has not ended: by time, by one of these records, or with what the store has lost.
    /// A record that spares one of these sessions, which are on the device, spares the trust in it.
    fn is_good<'a>(
        &self,
        snapshot: &Snapshot,
        mut records: impl Iterator<Item = &'a Seen>,
        sessions: &[Fingerprint],
    ) -> bool {
        let since = Some(self.since);
        let covered = |seen: &Seen| {
            seen.record.as_ref().is_some_and(|record| {
                record.covers_issued_at(since, None)
                    && sessions.iter().all(|session| record.covers_issued_at(since, Some(session)))
            })
        };
        self.until > snapshot.now
            && Some(self.since) > snapshot.doubt.issued_until()
            && !records.any(covered)
    }
}
