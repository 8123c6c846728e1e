//! The documents of sessions: how they are read, and changed until nobody is in the way.
//!
//! | document of | says | written |
//! | --- | --- | --- |
//! | a user | its sessions: [`Roster`] | after the other two, and it decides: what is not in it is no session |
//! | a device | where to look for the sessions on it: [`DeviceRoster`] | before the roster |
//! | a session | where to look for it: [`Place`] | before the roster |
//!
//! Nothing here has to be right for a session to be over: that is a revocation, and lists leave out
//! what is revoked.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::roster::{DeviceRoster, Place, Roster, Session};
use super::sessions::Sessions;
use super::{Attempts, all, out_of_attempts, print, read};
use crate::clock::Timestamp;
use crate::revocation::Target;
use crate::store::StoreError;
use crate::store::session::{Commit, Committed};

/// Sessions to be counted, until when, or no longer.
pub(super) type Members = Vec<(Box<str>, Option<Timestamp>)>;

/// A document that is kept for as long as anything in it counts.
pub(super) trait Document: Default + Serialize + DeserializeOwned + Send {
    /// Drops what has ended by itself.
    fn forget(&mut self, now: Timestamp);
    fn is_empty(&self) -> bool;
    fn until(&self) -> Timestamp;

    fn commit(&self, key: &Target, before: Option<Bytes>) -> Result<Commit, StoreError> {
        let after = (!self.is_empty()).then(|| print(self)).transpose()?;
        Ok(Commit::new(key.clone(), before, after, self.until()))
    }
}

/// A document as it was read.
pub(super) struct Known {
    written: Option<Bytes>,
    pub(super) now: Timestamp,
}

impl Known {
    pub(super) fn read<D: DeserializeOwned>(&self) -> Result<Option<D>, StoreError> {
        self.written.as_deref().map(read).transpose()
    }
}

/// The lists on which a session stands.
pub(super) struct Lists {
    user: (Target, Known),
    device: Option<(Target, Known)>,
}

impl Sessions {
    pub(super) async fn read_known(&self, key: &Target) -> Result<Known, StoreError> {
        let snapshot = self.store().load(vec![key.clone()], Vec::new()).await?;
        let written = snapshot.documents.into_iter().next().flatten();
        Ok(Known { written, now: snapshot.now })
    }

    /// Where a session is to be found, and how that is written.
    pub(super) async fn read_place(
        &self,
        key: &Target,
    ) -> Result<Option<(Place, Bytes)>, StoreError> {
        let Some(written) = self.read_known(key).await?.written else { return Ok(None) };
        Ok(Some((read(&written)?, written)))
    }

    /// The lists that name a session, in one round trip.
    pub(super) async fn read_lists(&self, place: &Place) -> Result<Lists, StoreError> {
        let user = self.target(Target::user(&*place.user))?;
        let device = place
            .device
            .as_deref()
            .map(|device| self.target(Target::device(device)))
            .transpose()?;
        let keys = [Some(&user), device.as_ref()].into_iter().flatten().cloned().collect();
        let snapshot = self.store().load(keys, Vec::new()).await?;
        let mut documents = snapshot.documents.into_iter();
        let mut next = || Known { written: documents.next().flatten(), now: snapshot.now };
        let user = (user, next());
        Ok(Lists { user, device: device.map(|device| (device, next())) })
    }

    /// Changes a document until nobody is in the way. The first attempt takes what is `known`, if
    /// it is. `change` gives the members to count, or `None` if there is nothing to write. Whether
    /// something was written.
    pub(super) async fn change<D: Document>(
        &self,
        key: &Target,
        mut known: Option<Known>,
        mut change: impl FnMut(&mut D, Timestamp) -> Option<Members> + Send,
    ) -> Result<bool, StoreError> {
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let known = match known.take() {
                Some(known) => known,
                None => self.read_known(key).await?,
            };
            let mut document: D = known.read()?.unwrap_or_default();
            let Some(members) = change(&mut document, known.now) else { return Ok(false) };
            document.forget(known.now);
            let commit = document.commit(key, known.written)?.with_members(members);
            if self.store().commit(commit).await? != Committed::Conflict {
                return Ok(true);
            }
        }
        Err(out_of_attempts())
    }

    /// Writes down, for the session and for its device, where the session is to be found.
    pub(super) async fn place(&self, session: &Session) -> Result<(), StoreError> {
        let device = session.details.device.as_deref();
        let place = Place { user: session.user.clone(), device: None, until: session.placed_until };
        let by_id = async {
            let place = Place { device: device.map(Into::into), ..place.clone() };
            let key = self.target(Target::session(&*session.id))?;
            let mut attempts = Attempts::new();
            while attempts.next().await {
                let before = self.read_known(&key).await?.written;
                let commit = Commit::new(key.clone(), before, Some(print(&place)?), place.until);
                if self.store().commit(commit).await? != Committed::Conflict {
                    return Ok(());
                }
            }
            Err(out_of_attempts())
        };
        let by_device = async {
            let Some(device) = device else { return Ok(()) };
            let key = self.target(Target::device(device))?;
            let insert = |roster: &mut DeviceRoster, _| {
                roster.insert(session.id.clone(), place.clone());
                Some(Vec::new())
            };
            self.change(&key, None, insert).await.map(drop)
        };
        futures::try_join!(by_id, by_device).map(drop)
    }

    /// Takes one session off all lists that name it, all at once.
    pub(super) async fn strike(
        &self,
        id: &str,
        (key, written): (&Target, Bytes),
        place: &Place,
        lists: Lists,
    ) -> Result<(), StoreError> {
        let Lists { user: (user, known), device } = lists;
        let unlisted =
            self.change(&user, Some(known), |roster: &mut Roster, _| take_off(roster, &[id]));
        let displaced = async {
            let Some((device, known)) = device else { return Ok(false) };
            self.change(&device, Some(known), |roster: &mut DeviceRoster, _| {
                roster.sessions.remove(id).map(|_| Vec::new())
            })
            .await
        };
        // If it is written anew meanwhile, by one who has touched the session and comes too late,
        // it ends by itself.
        let forgotten =
            self.store().commit(Commit::new(key.clone(), Some(written), None, place.until));
        let (unlisted, displaced, forgotten) = futures::join!(unlisted, displaced, forgotten);
        unlisted.and(displaced).and(forgotten).map(drop)
    }

    /// Takes sessions off the roster of their user.
    pub(super) async fn unlist(&self, user: &str, ids: &[&str]) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        self.change(&key, None, |roster: &mut Roster, _| take_off(roster, ids)).await.map(drop)
    }

    /// Takes sessions off the rosters of their devices, and forgets where they were to be found.
    pub(super) async fn displace(&self, gone: &[Session]) -> Result<(), StoreError> {
        let devices: std::collections::BTreeSet<_> =
            gone.iter().filter_map(|session| session.details.device.as_deref()).collect();
        let displaced = devices.into_iter().map(|device| async move {
            let key = self.target(Target::device(device))?;
            self.change(&key, None, |roster: &mut DeviceRoster, _| {
                roster.sessions.retain(|id, _| !gone.iter().any(|session| session.id == *id));
                Some(Vec::new())
            })
            .await
        });
        let forgotten = gone.iter().map(|session| self.forget_place(&session.id));
        futures::try_join!(all(displaced), all(forgotten)).map(drop)
    }

    /// Forgets where a session was to be found.
    pub(super) async fn forget_place(&self, id: &str) -> Result<(), StoreError> {
        let key = self.target(Target::session(id))?;
        if let Some((place, written)) = self.read_place(&key).await? {
            let commit = Commit::new(key, Some(written), None, place.until);
            let _written_anew_or_gone = self.store().commit(commit).await?;
        }
        Ok(())
    }
}

/// Takes sessions off a roster, and off the count; nothing if none of them is there.
fn take_off(roster: &mut Roster, ids: &[&str]) -> Option<Members> {
    let gone: Vec<_> =
        roster.sessions.extract_if(.., |session| ids.contains(&&*session.id)).collect();
    (!gone.is_empty()).then(|| gone.into_iter().map(|session| (session.id, None)).collect())
}
