//! [`SessionIndex`]: the documents of sessions in the store, read, and changed until there is no
//! conflict.
//!
//! | document of | says | written |
//! | --- | --- | --- |
//! | a user | its sessions: [`SessionList`] | after the other two, and it decides: what is not in it is no session |
//! | a device | where to look for the sessions on it: [`DeviceSessions`] | before the list |
//! | a session | where to look for it: [`SessionLocation`] | before the list |
//!
//! Nothing here has to be right for a session to be over: that is a revocation, and lists leave out
//! what is revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::calls::{Attempts, all, out_of_attempts};
use super::documents::{CountedMembers, SessionDocument, StoredDocument, print, read};
use super::list::{DeviceSessions, Session, SessionList, SessionLocation};
use super::turns::{DocumentTurns, Turn};
use crate::clock::Timestamp;
use crate::revocation::Target;
use crate::revoker::Revoker;
use crate::store::StoreError;
use crate::store::session::{Commit, Committed, SessionStore};

/// The lists that name a session.
pub(super) struct ListsOfSession {
    user: (Target, StoredDocument),
    device: Option<(Target, StoredDocument)>,
}

impl ListsOfSession {
    /// The document of the user of the session.
    pub(super) fn of_user(&self) -> &StoredDocument {
        &self.user.1
    }
}

/// Where sessions are listed. Cheap to clone.
#[derive(Clone)]
pub(super) struct SessionIndex {
    store: Arc<dyn SessionStore>,
    revoker: Revoker,
    pub(super) turns: DocumentTurns,
}

impl SessionIndex {
    pub(super) fn new(store: Arc<dyn SessionStore>, revoker: Revoker) -> Self {
        Self { store, revoker, turns: DocumentTurns::default() }
    }

    fn target(&self, target: Target) -> Result<Target, StoreError> {
        self.revoker.complete(target)
    }

    pub(super) async fn read_document(&self, key: &Target) -> Result<StoredDocument, StoreError> {
        let snapshot = self.store.load(vec![key.clone()], Vec::new()).await?.settled()?;
        let written = snapshot.documents.into_iter().next().flatten();
        Ok(StoredDocument { written, now: snapshot.now })
    }

    /// Where a session is to be found, and how that is written.
    pub(super) async fn read_location(
        &self,
        key: &Target,
    ) -> Result<Option<(SessionLocation, Bytes)>, StoreError> {
        let Some(written) = self.read_document(key).await?.written else { return Ok(None) };
        Ok(Some((read(&written)?, written)))
    }

    /// The lists that name a session, in one round trip.
    pub(super) async fn read_lists(
        &self,
        place: &SessionLocation,
    ) -> Result<ListsOfSession, StoreError> {
        let user = self.target(Target::user(&*place.user))?;
        let device = place
            .device
            .as_deref()
            .map(|device| self.target(Target::device(device)))
            .transpose()?;
        let keys = [Some(&user), device.as_ref()].into_iter().flatten().cloned().collect();
        let snapshot = self.store.load(keys, Vec::new()).await?.settled()?;
        let mut documents = snapshot.documents.into_iter();
        let mut next = || StoredDocument { written: documents.next().flatten(), now: snapshot.now };
        let user = (user, next());
        Ok(ListsOfSession { user, device: device.map(|device| (device, next())) })
    }

    /// Changes a document until there is no conflict. The first attempt starts from `known`, if it
    /// is given. `change` gives the members to count, or `None` if there is nothing to write.
    /// Whether something was written.
    pub(super) async fn change<D: SessionDocument>(
        &self,
        key: &Target,
        known: Option<StoredDocument>,
        change: impl FnMut(&mut D, Timestamp) -> Option<CountedMembers> + Send,
    ) -> Result<bool, StoreError> {
        let document = self.turns.of(key);
        let mut turn = document.turn().await?;
        self.change_in_turn(&mut turn, key, known, change).await
    }

    /// The same, for one who has the turn already.
    pub(super) async fn change_in_turn<D: SessionDocument>(
        &self,
        turn: &mut Turn<'_>,
        key: &Target,
        mut known: Option<StoredDocument>,
        mut change: impl FnMut(&mut D, Timestamp) -> Option<CountedMembers> + Send,
    ) -> Result<bool, StoreError> {
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let known = match known.take() {
                Some(known) => known,
                None => self.read_document(key).await?,
            };
            let mut document: D = known.read()?.unwrap_or_default();
            let Some(members) = change(&mut document, known.now) else { return Ok(false) };
            document.forget(known.now);
            let commit = document.commit(key, known.written)?.with_members(members);
            turn.note_change();
            if self.store.commit(commit).await? != Committed::Conflict {
                return Ok(true);
            }
        }
        Err(out_of_attempts())
    }

    /// Writes, for the session and for its device, where the session is listed.
    pub(super) async fn add_location(&self, session: &Session) -> Result<(), StoreError> {
        let device = session.details.device.as_deref();
        let place = SessionLocation {
            user: session.user.clone(),
            device: None,
            until: session.located_until,
        };
        let by_id = async {
            let place = SessionLocation { device: device.map(Into::into), ..place.clone() };
            let key = self.target(Target::session(&*session.id))?;
            let mut attempts = Attempts::new();
            while attempts.next().await {
                let before = self.read_document(&key).await?.written;
                let commit = Commit::new(key.clone(), before, Some(print(&place)?), place.until);
                if self.store.commit(commit).await? != Committed::Conflict {
                    return Ok(());
                }
            }
            Err(out_of_attempts())
        };
        let by_device = async {
            let Some(device) = device else { return Ok(()) };
            let key = self.target(Target::device(device))?;
            let insert = |list: &mut DeviceSessions, _| {
                list.insert(session.id.clone(), place.clone());
                Some(Vec::new())
            };
            self.change(&key, None, insert).await.map(drop)
        };
        futures::try_join!(by_id, by_device).map(drop)
    }

    /// Takes one session off all lists that name it, all at once.
    pub(super) async fn remove_everywhere(
        &self,
        id: &str,
        (key, written): (&Target, Bytes),
        place: &SessionLocation,
        lists: ListsOfSession,
    ) -> Result<(), StoreError> {
        let ListsOfSession { user: (user, known), device } = lists;
        let unlisted =
            self.change(&user, Some(known), |list: &mut SessionList, _| take_off(list, &[id]));
        let displaced = async {
            let Some((device, known)) = device else { return Ok(false) };
            self.change(&device, Some(known), |list: &mut DeviceSessions, _| {
                list.sessions.remove(id).map(|_| Vec::new())
            })
            .await
        };
        // If it is written anew meanwhile, by one who has touched the session and comes too late,
        // it ends by itself.
        let forgotten =
            self.store.commit(Commit::new(key.clone(), Some(written), None, place.until));
        let (unlisted, displaced, forgotten) = futures::join!(unlisted, displaced, forgotten);
        unlisted.and(displaced).and(forgotten).map(drop)
    }

    /// Takes sessions off the list of their user.
    pub(super) async fn remove_from_user(
        &self,
        user: &str,
        ids: &[&str],
    ) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        self.change(&key, None, |list: &mut SessionList, _| take_off(list, ids)).await.map(drop)
    }

    /// Takes sessions off the lists of their devices, and removes their locations.
    pub(super) async fn remove_from_devices(&self, gone: &[Session]) -> Result<(), StoreError> {
        let places = gone.iter().map(|session| (&*session.id, session.details.device.as_deref()));
        self.remove_places(&places.collect()).await
    }

    /// The same, for the ids of sessions, each with the device it is on.
    pub(super) async fn remove_places(
        &self,
        places: &BTreeMap<&str, Option<&str>>,
    ) -> Result<(), StoreError> {
        let devices: BTreeSet<_> = places.values().copied().flatten().collect();
        let displaced = devices.into_iter().map(|device| async move {
            let key = self.target(Target::device(device))?;
            self.change(&key, None, |list: &mut DeviceSessions, _| {
                let before = list.sessions.len();
                list.sessions.retain(|id, _| !places.contains_key(&**id));
                (list.sessions.len() < before).then(Vec::new)
            })
            .await
        });
        let forgotten = places.keys().map(|id| self.remove_location(id));
        futures::try_join!(all(displaced), all(forgotten)).map(drop)
    }

    /// Forgets where a session was to be found.
    pub(super) async fn remove_location(&self, id: &str) -> Result<(), StoreError> {
        let key = self.target(Target::session(id))?;
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let Some((place, written)) = self.read_location(&key).await? else { return Ok(()) };
            let commit = Commit::new(key.clone(), Some(written), None, place.until);
            if self.store.commit(commit).await? != Committed::Conflict {
                return Ok(());
            }
        }
        Err(out_of_attempts())
    }
}

/// Takes sessions off a list, and off the count; nothing if none of them is there.
pub(super) fn take_off(list: &mut SessionList, ids: &[&str]) -> Option<CountedMembers> {
    let gone = list.take_off(|session| ids.contains(&&*session.id));
    (!gone.is_empty()).then(|| gone.into_iter().map(|id| (id, None)).collect())
}
