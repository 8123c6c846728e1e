//! [`Sessions`]: what a login server needs.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;

use super::families::{Families, issue_at};
use super::family::RefreshPolicy;
use super::login::{Login, NewSession, check_data};
use super::roster::{DeviceRoster, Lifetimes, Place, Roster, Session, SessionDetails, WhoGoes};
use super::token::random_id;
use super::{Attempts, invalid, out_of_attempts, print, read};
use super::{Grant, NewFamily, Refresh, Refusal};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::Target;
use crate::revoker::Revoker;
use crate::store::StoreError;
use crate::store::session::{Commit, Committed, Seen, SessionStore};

/// Default of [`Sessions::with_max_per_user`].
pub const DEFAULT_MAX_SESSIONS: usize = 50;
/// Largest [`Sessions::with_max_per_user`]: the sessions of a user are read and written together.
pub const MAX_SESSIONS: usize = 1000;
/// Default of [`Sessions::with_touch_interval`].
pub const DEFAULT_TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// Signs users in, refreshes, lists and ends their sessions. Cheap to clone.
///
/// A session has one family of refresh tokens. Access tokens carry the ids of both (`sid` and `fid`), of the user and of
/// the device, all of which are in the [`Grant`].
///
/// ```
/// # use tower_jwt_revocation::{MemoryStore, Revoker, token::TokenProfile};
/// use tower_jwt_revocation::session::{Login, NewSession, Refresh, RefreshPolicy, Sessions};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let revoker = Revoker::new(store.clone(), TokenProfile::new())?;
/// let sessions = Sessions::new(store, revoker, RefreshPolicy::new())?;
///
/// let Login::Granted(grant) = sessions.login(NewSession::of_user("alice").on_device("phone")).await? else {
///     unreachable!()
/// };
/// assert_eq!(sessions.list("alice").await?.len(), 1);
///
/// sessions.end_all("alice", None).await?;
/// assert!(sessions.list("alice").await?.is_empty());
/// assert!(matches!(sessions.refresh(grant.token.expose(), None).await?, Refresh::Refused(_)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Sessions {
    families: Families,
    most: usize,
    who_goes: WhoGoes,
    touch_interval: Duration,
}

impl Sessions {
    /// Sessions in this store, revoked by this revoker, with refresh tokens under this policy. A session lives as long
    /// as its refresh tokens.
    ///
    /// # Errors
    /// [`ConfigError`] as [`Families::new`].
    pub fn new(
        store: impl SessionStore,
        revoker: Revoker,
        policy: RefreshPolicy,
    ) -> Result<Self, ConfigError> {
        let families = Families::new(store, revoker, policy)?;
        Ok(Self {
            families,
            most: DEFAULT_MAX_SESSIONS,
            who_goes: WhoGoes::default(),
            touch_interval: DEFAULT_TOUCH_INTERVAL,
        })
    }

    /// How many sessions a user may have, and who has to go when there is one more. Default 50, at most
    /// [`MAX_SESSIONS`], and the least recently seen.
    #[must_use]
    pub fn with_max_per_user(mut self, most: NonZeroUsize, who_goes: WhoGoes) -> Self {
        self.most = most.get().min(MAX_SESSIONS);
        self.who_goes = who_goes;
        self
    }

    /// How often at most it is written down that a session is in use. Default 60 s.
    #[must_use]
    pub fn with_touch_interval(mut self, interval: Duration) -> Self {
        self.touch_interval = interval;
        self
    }

    /// The refresh tokens of the sessions.
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// A revoker whose records outlive refresh tokens.
    pub fn revoker(&self) -> &Revoker {
        self.families.revoker()
    }

    // === Signing in ===

    /// Begins a session and its family. Whoever has to go for it is revoked first.
    ///
    /// A login that overlaps a revocation of its user either fails to be covered by it or does not happen; one that
    /// starts later works, and its access token is stamped past the cutoff, see
    /// [`Grant::issued_at`](super::Grant::issued_at).
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed. What may have been written is worth nothing without the tokens.
    pub async fn login(&self, new: NewSession) -> Result<Login, StoreError> {
        check_data(new.details.data.as_ref())?;
        let id = random_id()?;
        let family = NewFamily {
            user: new.user.clone(),
            session: Some(id.clone()),
            device: new.details.device.clone(),
            client: new.details.client.clone(),
        };
        let result = self.try_login(&id, &new, &family).await;
        let event = match &result {
            Ok(Login::Granted(grant)) => Ok(Refresh::Granted(grant.clone())),
            Ok(Login::Revoked(by)) => Ok(Refresh::Refused(Refusal::Revoked(by.clone()))),
            Ok(Login::TooMany) => Err(invalid("the user has as many sessions as are allowed")),
            Err(error) => Err(error.clone()),
        };
        self.families.tell_start(&family, &event);
        result
    }

    async fn try_login(&self, id: &str, new: &NewSession, family: &NewFamily) -> Result<Login, StoreError> {
        let user = self.target(Target::user(&*new.user))?;
        let mut attempts = Attempts::new();
        'anew: while attempts.next().await {
            let targets = self.families.targets_of_new(family)?;
            let mut snapshot = self.store().load(vec![user.clone()], targets.clone()).await?;
            let first = match self.families.first(family, &snapshot)? {
                Ok(first) => first,
                Err(Refusal::Revoked(by)) => return Ok(Login::Revoked(by)),
                Err(_) => return Err(invalid("the login was refused")),
            };
            let mut grant = first.grant;
            let session = self.session(id, new, &grant, snapshot.now);
            let guards = snapshot.records.clone();
            // What points to the session is written before the session, so that it is found wherever it is listed.
            let (family_done, ()) = futures::try_join!(
                self.store().commit(first.commit.with_guards(guards)),
                self.place(&session),
            )?;
            if family_done != Committed::Done {
                continue;
            }
            while attempts.next().await {
                let before = snapshot.documents.first().cloned().flatten();
                let mut roster: Roster = before.as_deref().map(read).transpose()?.unwrap_or_default();
                let mut members = self.forget(&mut roster, snapshot.now).await?;
                let Some(gone) = roster.make_room(self.most, self.who_goes) else {
                    return Ok(Login::TooMany);
                };
                self.revoke_sessions(&gone, "another session took its place").await?;
                members.extend(gone.into_iter().map(|session| (session.id, None)));
                members.push((session.id.clone(), Some(session.expires_at)));
                roster.sessions.push(session.clone());
                let commit = roster_commit(&user, before, &roster)?
                    .with_guards(snapshot.records.clone())
                    .with_members(members);
                match self.store().commit(commit).await? {
                    Committed::Done => return Ok(Login::Granted(grant)),
                    Committed::Overtaken => continue 'anew,
                    Committed::Conflict => {}
                }
                let seen = snapshot.records;
                snapshot = self.store().load(vec![user.clone()], targets.clone()).await?;
                if changed(&seen, &snapshot.records) {
                    // The user was revoked meanwhile, and the family is as old as that.
                    continue 'anew;
                }
                (grant.issued_at, grant.reissue_at) = issue_at(&snapshot);
            }
        }
        Err(out_of_attempts())
    }

    fn session(&self, id: &str, new: &NewSession, grant: &Grant, now: Timestamp) -> Session {
        Session {
            id: id.into(),
            user: new.user.clone(),
            family: grant.family.clone(),
            // The family is at least as young as this, so that no cutoff covers the one and not the other.
            created_at: grant.created_at.max(now),
            seen_at: now,
            expires_at: self.lifetimes().end(grant.created_at, now),
            placed_until: self.lifetimes().twice().end(grant.created_at, now),
            details: new.details.clone(),
        }
    }

    /// Writes down, for the session and for its device, where the session is to be found.
    async fn place(&self, session: &Session) -> Result<(), StoreError> {
        let place = Place { user: session.user.clone(), until: session.placed_until };
        let by_id = async {
            let key = self.target(Target::session(&*session.id))?;
            let mut attempts = Attempts::new();
            while attempts.next().await {
                let snapshot = self.store().load(vec![key.clone()], Vec::new()).await?;
                let before = snapshot.documents.into_iter().next().flatten();
                let commit = Commit::new(key.clone(), before, Some(print(&place)?), place.until);
                if self.store().commit(commit).await? != Committed::Conflict {
                    return Ok(());
                }
            }
            Err(out_of_attempts())
        };
        let by_device = async {
            let Some(device) = session.details.device.as_deref() else { return Ok(()) };
            self.change_device(device, |sessions, now| {
                sessions.retain(|_, place| place.until > now);
                sessions.insert(session.id.clone(), place.clone());
            })
            .await
        };
        futures::try_join!(by_id, by_device).map(drop)
    }

    /// Takes a refresh token and gives the next, as [`Families::refresh`]; the session is seen.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm: answer 503, never `invalid_grant`.
    pub async fn refresh(&self, token: &str, client: Option<&str>) -> Result<Refresh, StoreError> {
        let (refresh, touch) = self.families.refresh_and_touch(token, client, self.touch_interval).await?;
        if let (true, Refresh::Granted(grant)) = (touch, &refresh)
            && let Some(session) = &grant.session
            && let Err(error) = self.touch(&grant.user, session).await
        {
            // The token is rotated, and its owner must get it: that the session looks idle is the lesser evil.
            tracing::debug!(%error, "a session could not be touched");
        }
        Ok(refresh)
    }

    // === Looking ===

    /// The active sessions of a user, in the order of their logins.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn list(&self, user: &str) -> Result<Vec<Session>, StoreError> {
        let mut sessions = match self.load_roster(user).await? {
            Some((roster, now)) => self.active(roster.sessions, now).await?,
            None => Vec::new(),
        };
        sessions.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        Ok(sessions)
    }

    /// How many active sessions a user has.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn count_of(&self, user: &str) -> Result<usize, StoreError> {
        self.list(user).await.map(|sessions| sessions.len())
    }

    /// How many sessions there are: those that were neither ended here nor have ended by themselves. Read off a
    /// counter; what was revoked in another way (a whole issuer) is counted until it ends by itself.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store().count_members().await
    }

    /// The active sessions on a device, of all users.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn list_device(&self, device: &str) -> Result<Vec<Session>, StoreError> {
        let key = self.target(Target::device(device))?;
        let Some(places) = self.load::<DeviceRoster>(&key).await? else { return Ok(Vec::new()) };
        let mut users: Vec<_> = places.sessions.values().map(|place| place.user.clone()).collect();
        users.sort_unstable();
        users.dedup();
        let lists = try_join_all(users.iter().map(|user| self.list(user))).await?;
        let on_device = |session: &Session| session.details.device.as_deref() == Some(device);
        Ok(lists.into_iter().flatten().filter(on_device).collect())
    }

    /// An active session by its id.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn find(&self, id: &str) -> Result<Option<Session>, StoreError> {
        let key = self.target(Target::session(id))?;
        let Some(place) = self.load::<Place>(&key).await? else { return Ok(None) };
        Ok(self.list(&place.user).await?.into_iter().find(|session| *session.id == *id))
    }

    // === Changing ===

    /// Writes down that a session is in use, which makes it live on; at most once per
    /// [interval](Self::with_touch_interval). Whether there is such a session.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn touch(&self, user: &str, id: &str) -> Result<bool, StoreError> {
        let Some((mut roster, now)) = self.load_roster(user).await? else { return Ok(false) };
        let Some(session) = roster.session_mut(id).filter(|session| session.expires_at > now) else {
            return Ok(false);
        };
        if now.since(session.seen_at) < self.touch_interval {
            return Ok(true);
        }
        let end = self.lifetimes().end(session.created_at, now);
        if end > session.placed_until {
            session.placed_until = self.lifetimes().twice().end(session.created_at, now);
            self.place(session).await?;
        }
        let placed_until = session.placed_until;
        self.change_session(user, id, |session, _| {
            session.seen_at = session.seen_at.max(now);
            session.expires_at = session.expires_at.max(end);
            session.placed_until = session.placed_until.max(placed_until);
            true
        })
        .await
    }

    /// Changes what is known of whoever holds a session, such as that a second factor was shown. Device and client stay:
    /// tokens were issued for them. Whether there is such a session.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn update(
        &self,
        user: &str,
        id: &str,
        change: impl Fn(&mut SessionDetails) + Send + Sync,
    ) -> Result<bool, StoreError> {
        self.change_session(user, id, |session, _| {
            let (device, client) = (session.details.device.clone(), session.details.client.clone());
            change(&mut session.details);
            (session.details.device, session.details.client) = (device, client);
            true
        })
        .await
    }

    // === Ending ===

    /// Ends a session: its access tokens and its refresh tokens. An unknown one too: nothing is asked first.
    ///
    /// # Errors
    /// [`StoreError`] if the revocation was not confirmed. It may be repeated.
    pub async fn end(&self, id: &str) -> Result<(), StoreError> {
        let key = self.target(Target::session(id))?;
        self.revoker().revoke(Target::session(id)).await?;
        // It is over. What is left is to tidy up, which listing does not depend on.
        let tidied = async {
            match self.load::<Place>(&key).await? {
                Some(place) => self.strike(&place.user, &[id]).await,
                None => Ok(()),
            }
        };
        tidied
            .await
            .unwrap_or_else(|error: StoreError| tracing::debug!(%error, "an ended session stays listed"));
        Ok(())
    }

    /// Ends all that a user has: everything that was issued so far, sessions or not, except for the session `but`. Trust
    /// in devices ends too, unless a session is spared.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    pub async fn end_all(&self, user: &str, but: Option<&str>) -> Result<(), StoreError> {
        if but.is_none() {
            self.revoker().revoke(Target::user(user)).await?;
        }
        // Each session is revoked by name as well: an access token that was stamped with the next second after an earlier
        // cutoff is not covered by this one.
        let Some((roster, ..)) = self.load_roster(user).await? else { return Ok(()) };
        let gone: Vec<_> = roster.sessions.into_iter().filter(|session| Some(&*session.id) != but).collect();
        self.revoke_sessions(&gone, "all sessions of the user were ended").await?;
        let ids: Vec<_> = gone.iter().map(|session| &*session.id).collect();
        let tidied = self.change_roster(user, |roster, _| {
            roster.sessions.retain(|session| !ids.contains(&&*session.id));
            if but.is_none() {
                roster.trusted.clear();
            }
            Some(ids.iter().map(|id| ((*id).into(), None)).collect())
        });
        let tidied = async {
            tidied.await?;
            self.displace(&gone).await
        };
        tidied.await.unwrap_or_else(|error| tracing::debug!(%error, "ended sessions stay listed"));
        Ok(())
    }

    /// Ends all sessions on a device, of all users, and whatever else was issued for it so far.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    pub async fn end_device(&self, device: &str) -> Result<(), StoreError> {
        let key = self.target(Target::device(device))?;
        self.revoker().revoke(Target::device(device)).await?;
        let Some(places) = self.load::<DeviceRoster>(&key).await? else { return Ok(()) };
        let ids = places.sessions.keys().map(|id| Target::session(&**id));
        self.revoker().revoke_many(ids).await?;
        let mut by_user: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, place) in &places.sessions {
            by_user.entry(&place.user).or_default().push(id);
        }
        let tidied = async {
            try_join_all(by_user.iter().map(|(user, ids)| self.strike(user, ids))).await?;
            self.change_device(device, |sessions, _| {
                sessions.retain(|id, _| !places.sessions.contains_key(id));
            })
            .await
        };
        tidied
            .await
            .unwrap_or_else(|error: StoreError| tracing::debug!(%error, "ended sessions stay listed"));
        Ok(())
    }

    // === What the others stand on ===

    pub(super) fn store(&self) -> &Arc<dyn SessionStore> {
        &self.families.store
    }

    pub(super) fn target(&self, target: Target) -> Result<Target, StoreError> {
        self.families.target(target)
    }

    fn lifetimes(&self) -> Lifetimes {
        let policy = &self.families.policy;
        // The family may have been refreshed one interval after the session was last touched.
        Lifetimes { idle: policy.idle + self.touch_interval, max_age: policy.max_age }
    }

    async fn load<T: serde::de::DeserializeOwned>(&self, key: &Target) -> Result<Option<T>, StoreError> {
        let snapshot = self.store().load(vec![key.clone()], Vec::new()).await?;
        snapshot.documents.first().and_then(Option::as_deref).map(read).transpose()
    }

    async fn load_roster(&self, user: &str) -> Result<Option<(Roster, Timestamp)>, StoreError> {
        let key = self.target(Target::user(user))?;
        let snapshot = self.store().load(vec![key], Vec::new()).await?;
        let roster = snapshot.documents.first().and_then(Option::as_deref).map(read).transpose()?;
        Ok(roster.map(|roster| (roster, snapshot.now)))
    }

    /// The sessions of a roster that nothing has ended, in whatever way it was revoked.
    async fn active(&self, mut sessions: Vec<Session>, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        sessions.retain(|session| session.expires_at > now);
        let mut targets = Vec::new();
        let mut counts = Vec::new();
        for session in &sessions {
            let before = targets.len();
            let family = NewFamily {
                user: session.user.clone(),
                session: Some(session.id.clone()),
                device: session.details.device.clone(),
                client: session.details.client.clone(),
            };
            targets.extend(self.families.targets_of_new(&family)?);
            targets.push(self.target(Target::family(&*session.family))?);
            counts.push(targets.len() - before);
        }
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.store().load(Vec::new(), targets).await?;
        let mut seen = snapshot.records.iter();
        let mut active = Vec::new();
        for (session, count) in sessions.into_iter().zip(counts) {
            let covered = |seen: &Seen| {
                seen.record.as_ref().is_some_and(|record| record.covers_issued_at(Some(session.created_at)))
            };
            // All of them are taken, so that the next session finds its own.
            let hits = seen.by_ref().take(count).filter(|seen| covered(seen)).count();
            if hits == 0 && session.created_at > snapshot.horizon {
                active.push(session);
            }
        }
        Ok(active)
    }

    /// Drops what has ended from a roster that is about to be full, and says which members to count no longer.
    async fn forget(
        &self,
        roster: &mut Roster,
        now: Timestamp,
    ) -> Result<Vec<(Box<str>, Option<Timestamp>)>, StoreError> {
        roster.forget(now);
        if roster.sessions.len() < self.most {
            return Ok(Vec::new());
        }
        let before: Vec<_> = roster.sessions.iter().map(|session| session.id.clone()).collect();
        roster.sessions = self.active(std::mem::take(&mut roster.sessions), now).await?;
        let is_gone = |id: &str| !roster.sessions.iter().any(|session| *session.id == *id);
        Ok(before.into_iter().filter(|id| is_gone(id)).map(|id| (id, None)).collect())
    }

    async fn revoke_sessions(&self, sessions: &[Session], reason: &str) -> Result<(), StoreError> {
        let requests = sessions.iter().map(|session| {
            let request = self.revoker().revoke(Target::session(&*session.id)).reason(reason);
            let about = |event: AuditEvent| {
                event.with_subject(Some(&session.user)).with_family(Some(&session.family))
            };
            request.about(about).into_future()
        });
        try_join_all(requests).await.map(drop)
    }

    /// Takes sessions off the roster of their user.
    async fn strike(&self, user: &str, ids: &[&str]) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        self.change_roster(user, |roster, _| {
            gone.clear();
            gone.extend(roster.sessions.extract_if(.., |session| ids.contains(&&*session.id)));
            (!gone.is_empty()).then(|| gone.iter().map(|session| (session.id.clone(), None)).collect())
        })
        .await?;
        self.displace(&gone).await
    }

    /// Takes sessions off the rosters of their devices.
    async fn displace(&self, gone: &[Session]) -> Result<(), StoreError> {
        let devices: std::collections::BTreeSet<_> =
            gone.iter().filter_map(|session| session.details.device.as_deref()).collect();
        let displace = |device| {
            self.change_device(device, |sessions, _| {
                sessions.retain(|id, _| !gone.iter().any(|session| session.id == *id));
            })
        };
        try_join_all(devices.into_iter().map(displace)).await.map(drop)
    }

    /// Changes a session; `change` says whether there is anything to write. Whether there is such a session.
    async fn change_session(
        &self,
        user: &str,
        id: &str,
        change: impl Fn(&mut Session, Timestamp) -> bool + Send + Sync,
    ) -> Result<bool, StoreError> {
        let mut found = false;
        let mut problem = None;
        let found_in = &mut found;
        let problem_in = &mut problem;
        self.change_roster(user, |roster, now| {
            let session = roster.session_mut(id).filter(|session| session.expires_at > now);
            *found_in = session.is_some();
            let session = session?;
            let changed = change(session, now);
            *problem_in = check_data(session.details.data.as_ref()).err();
            (changed && problem_in.is_none()).then(|| vec![(session.id.clone(), Some(session.expires_at))])
        })
        .await?;
        problem.map_or(Ok(found), Err)
    }

    /// Changes a roster until nobody is in the way. `change` gives the members to count, or `None` if there is nothing to
    /// write. Whether something was written.
    pub(super) async fn change_roster(
        &self,
        user: &str,
        mut change: impl FnMut(&mut Roster, Timestamp) -> Option<Vec<(Box<str>, Option<Timestamp>)>> + Send,
    ) -> Result<bool, StoreError> {
        let key = self.target(Target::user(user))?;
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let snapshot = self.store().load(vec![key.clone()], Vec::new()).await?;
            let before = snapshot.documents.into_iter().next().flatten();
            let mut roster: Roster = before.as_deref().map(read).transpose()?.unwrap_or_default();
            let Some(members) = change(&mut roster, snapshot.now) else { return Ok(false) };
            roster.forget(snapshot.now);
            let commit = roster_commit(&key, before, &roster)?.with_members(members);
            if self.store().commit(commit).await? != Committed::Conflict {
                return Ok(true);
            }
        }
        Err(out_of_attempts())
    }

    async fn change_device(
        &self,
        device: &str,
        change: impl Fn(&mut BTreeMap<Box<str>, Place>, Timestamp) + Send + Sync,
    ) -> Result<(), StoreError> {
        let key = self.target(Target::device(device))?;
        let mut attempts = Attempts::new();
        while attempts.next().await {
            let snapshot = self.store().load(vec![key.clone()], Vec::new()).await?;
            let before = snapshot.documents.into_iter().next().flatten();
            let mut places: DeviceRoster = before.as_deref().map(read).transpose()?.unwrap_or_default();
            change(&mut places.sessions, snapshot.now);
            let after = (!places.sessions.is_empty()).then(|| print(&places)).transpose()?;
            let commit = Commit::new(key.clone(), before, after, places.until());
            if self.store().commit(commit).await? != Committed::Conflict {
                return Ok(());
            }
        }
        Err(out_of_attempts())
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("families", &self.families)
            .field("most", &self.most)
            .field("who_goes", &self.who_goes)
            .field("touch_interval", &self.touch_interval)
            .finish()
    }
}

fn roster_commit(key: &Target, before: Option<Bytes>, roster: &Roster) -> Result<Commit, StoreError> {
    let is_empty = roster.sessions.is_empty() && roster.trusted.is_empty();
    let after = (!is_empty).then(|| print(roster)).transpose()?;
    Ok(Commit::new(key.clone(), before, after, roster.until()))
}

fn changed(before: &[Seen], after: &[Seen]) -> bool {
    before.iter().zip(after).any(|(before, after)| before.stamp != after.stamp)
}
