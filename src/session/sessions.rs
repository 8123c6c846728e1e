//! [`Sessions`]: what a login server needs.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::calls::all;
use super::documents::read;
use super::families::{Families, RefreshObserver};
use super::family::{Family, RefreshPolicy};
use super::grant::{NewFamily, Refresh};
use super::index::SessionIndex;
use super::list::{
    DeviceSessions, EvictionPolicy, MAX_SESSIONS, Session, SessionDetails, SessionLifetimes,
    SessionList,
};
use super::login::{check_data, shorten};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::Target;
use crate::revoker::Revoker;
use crate::store::StoreError;
use crate::store::session::{Seen, SessionStore};

/// Default of [`Sessions::with_max_per_user`].
pub(crate) const DEFAULT_MAX_SESSIONS: usize = 50;
/// Default of [`Sessions::with_touch_interval`].
pub(crate) const DEFAULT_TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// Signs users in, refreshes, lists and ends their sessions. Cheap to clone.
///
/// A session has one family of refresh tokens. Access tokens carry the ids of both (`sid` and
/// `fid`), of the user and of the device, all of which are in the [`Grant`](super::Grant).
///
/// ```
/// # use tower_jwt_revocation::{MemoryStore, Revoker, TokenProfile};
/// use tower_jwt_revocation::session::{Login, Refresh, RefreshPolicy, SessionDetails, Sessions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let revoker = Revoker::new(store.clone(), TokenProfile::new())?;
/// let sessions = Sessions::new(store, revoker, RefreshPolicy::new())?;
///
/// let phone = SessionDetails::new().on_device("phone");
/// let Login::Granted(grant) = sessions.login("alice", phone).await? else {
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
    pub(super) index: SessionIndex,
    pub(super) most: usize,
    pub(super) eviction: EvictionPolicy,
    touch_interval: Duration,
}

impl Sessions {
    /// Sessions in this store, revoked by this revoker, with refresh tokens under this policy. A
    /// session is valid as long as its refresh tokens. `store` is the store itself, not a mirror of
    /// it.
    ///
    /// From now on, all clones of `revoker`, and all revokers of its layer, keep their records as
    /// long as refresh tokens are valid. In other processes call
    /// [`Revoker::extend_shared_retention`].
    ///
    /// # Errors
    /// [`ConfigError`] as [`Families::new`].
    pub fn new(
        store: impl SessionStore,
        revoker: Revoker,
        policy: RefreshPolicy,
    ) -> Result<Self, ConfigError> {
        let families = Families::new(store, revoker, policy)?;
        let touch_interval = DEFAULT_TOUCH_INTERVAL.min(families.policy.idle);
        let index = SessionIndex::new(Arc::clone(&families.store), families.revoker.clone());
        Ok(Self {
            families,
            index,
            most: DEFAULT_MAX_SESSIONS,
            eviction: EvictionPolicy::default(),
            touch_interval,
        })
    }

    /// How many sessions a user may have, and which one ends when there would be one more. Default
    /// 50, and [`EvictionPolicy::LeastRecentlySeen`]; more than 1000 count as 1000, because all are
    /// in one document.
    #[doc(alias = "concurrent sessions")]
    #[doc(alias = "single session")]
    #[must_use]
    pub fn with_max_per_user(mut self, most: NonZeroUsize, eviction: EvictionPolicy) -> Self {
        self.most = most.get().min(MAX_SESSIONS);
        self.eviction = eviction;
        self
    }

    /// The shortest time between two writes of [`Session::seen_at`]. Default 60 s, to spare writes;
    /// at most the [idle lifetime](RefreshPolicy::with_idle_lifetime) counts. A session stays
    /// [counted](Self::count) for this much longer than its refresh tokens are valid; it is listed
    /// as long as they are.
    #[must_use]
    pub fn with_touch_interval(mut self, interval: Duration) -> Self {
        self.touch_interval = interval.min(self.families.policy.idle);
        self
    }

    /// The same sessions, with this reason: what the returned value ends has it in its record and
    /// in the audit, and [`Revoker::find`] and [`Revoker::explain`] show it. Default: a text that
    /// says what was done, such as that all sessions of the user were ended. At most 1024 bytes.
    ///
    /// ```
    /// # use tower_jwt_revocation::session::Sessions;
    /// # use tower_jwt_revocation::store::StoreError;
    /// # async fn f(sessions: Sessions) -> Result<(), StoreError> {
    /// let support = sessions.acting_as("support:7").because("the laptop was stolen");
    /// support.end_device("laptop-1").await?;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "reason")]
    #[must_use]
    pub fn because(&self, reason: impl AsRef<str>) -> Self {
        let mut sessions = self.clone();
        sessions.families.revoker.set_reason(reason.as_ref());
        sessions
    }

    /// The same sessions, used by somebody other than their user, such as `support:7`. The actor is
    /// kept where the reason of [`because`](Self::because) is. Default: none.
    #[doc(alias = "actor")]
    #[must_use]
    pub fn acting_as(&self, actor: impl AsRef<str>) -> Self {
        let mut sessions = self.clone();
        sessions.families.revoker.set_actor(actor.as_ref());
        sessions
    }

    /// The same sessions, revoked by another revoker.
    pub(super) fn with_revoker(&self, revoker: Revoker) -> Self {
        let mut sessions = self.clone();
        sessions.families.revoker = revoker;
        sessions
    }

    /// The refresh tokens of the sessions.
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// The revoker of these sessions: its records outlive refresh tokens.
    pub fn revoker(&self) -> &Revoker {
        self.families.revoker()
    }

    // === Refreshing ===

    /// Takes a refresh token and returns the next one, as [`Families::refresh`], and notes that the
    /// session is in use.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm: answer 503, never
    /// `invalid_grant`.
    #[doc(alias = "token rotation")]
    pub async fn refresh(&self, token: &str, client: Option<&str>) -> Result<Refresh, StoreError> {
        self.families.refresh_seen_by(self, token, client).await
    }

    // === Looking ===

    /// The active sessions of a user, in the order of their logins.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn list(&self, user: &str) -> Result<Vec<Session>, StoreError> {
        let known = self.index.read_document(&self.target(Target::user(user))?).await?;
        let mut sessions = match known.read::<SessionList>()? {
            Some(list) => self.active(list.sessions, known.now).await?,
            None => Vec::new(),
        };
        sessions
            .sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        Ok(sessions)
    }

    /// How many active sessions a user has.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn count_of(&self, user: &str) -> Result<usize, StoreError> {
        self.list(user).await.map(|sessions| sessions.len())
    }

    /// How many sessions there are: those that were not ended here and have not expired. It reads a
    /// counter; sessions that were revoked in another way (a whole issuer) count until they expire.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store().count_members().await
    }

    /// The active sessions on a device, of all users, among those of its last 1000 logins.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn list_device(&self, device: &str) -> Result<Vec<Session>, StoreError> {
        let known = self.index.read_document(&self.target(Target::device(device))?).await?;
        let Some(places) = known.read::<DeviceSessions>()? else { return Ok(Vec::new()) };
        let mut users: Vec<_> = places.sessions.values().map(|place| place.user.clone()).collect();
        users.sort_unstable();
        users.dedup();
        let lists = all(users.iter().map(|user| self.list(user))).await?;
        let on_device = |session: &Session| session.details.device.as_deref() == Some(device);
        Ok(lists.into_iter().flatten().filter(on_device).collect())
    }

    /// An active session by its id.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn find(&self, id: &str) -> Result<Option<Session>, StoreError> {
        let key = self.target(Target::session(id))?;
        let Some((place, _)) = self.index.read_location(&key).await? else { return Ok(None) };
        Ok(self.list(&place.user).await?.into_iter().find(|session| *session.id == *id))
    }

    /// Whose session this is, if that is known.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn owner_of(&self, id: &str) -> Result<Option<Box<str>>, StoreError> {
        let key = self.target(Target::session(id))?;
        Ok(self.index.read_location(&key).await?.map(|(place, _)| place.user))
    }

    // === Changing ===

    /// Writes that a session is in use, which moves its end, at most once per
    /// [interval](Self::with_touch_interval). Returns whether there is such a session.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed.
    pub async fn touch(&self, user: &str, id: &str) -> Result<bool, StoreError> {
        let known = self.index.read_document(&self.target(Target::user(user))?).await?;
        let now = known.now;
        let Some(mut list) = known.read::<SessionList>()? else { return Ok(false) };
        let Some(session) = list.session_mut(id).filter(|session| session.expires_at > now) else {
            return Ok(false);
        };
        if now.saturating_duration_since(session.seen_at) < self.touch_interval {
            return Ok(true);
        }
        let end = self.lifetimes().end(session.created_at, now);
        let is_located_anew = end > session.located_until;
        if is_located_anew {
            session.located_until = self.lifetimes().twice().end(session.created_at, now);
            self.index.add_location(session).await?;
        }
        let session = &*session;
        let is_there = self
            .change_session(user, id, |listed, _| {
                listed.seen_at = listed.seen_at.max(now);
                listed.expires_at = listed.expires_at.max(end);
                listed.located_until = listed.located_until.max(session.located_until);
                true
            })
            .await?;
        if is_located_anew && !is_there {
            // It has ended meanwhile, and so has the way to find it.
            let ended = std::slice::from_ref(session);
            self.index.remove_from_devices(ended).await.unwrap_or_else(stays_listed);
        }
        Ok(is_there)
    }

    /// Changes the details of a session, such as that a second factor was used, within the bounds
    /// of [`SessionDetails`]. Device and client cannot change, because tokens were issued for them.
    /// `change` may be called again after a conflict. Returns whether there is such a session.
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
            shorten(&mut session.details);
            (session.details.device, session.details.client) = (device, client);
            true
        })
        .await
    }

    // === For `sign_in` and `devices` ===

    pub(super) fn store(&self) -> &Arc<dyn SessionStore> {
        &self.families.store
    }

    pub(super) fn target(&self, target: Target) -> Result<Target, StoreError> {
        self.families.target(target)
    }

    pub(super) fn lifetimes(&self) -> SessionLifetimes {
        let policy = &self.families.policy;
        // The family may have been refreshed one interval after the session was last touched.
        SessionLifetimes { idle: policy.idle + self.touch_interval, max_age: policy.max_age }
    }

    /// The sessions of a list that nothing has ended, in whatever way it was revoked, and whose
    /// refresh tokens are not over.
    pub(super) async fn active(
        &self,
        mut sessions: Vec<Session>,
        now: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        sessions.retain(|session| session.expires_at > now);
        let mut targets = Vec::new();
        let mut counts = Vec::new();
        let mut ids = Vec::new();
        for session in &sessions {
            ids.push(self.target(Target::session(&*session.id))?.fingerprint());
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
        let families = sessions.iter().map(|it| self.target(Target::family(&*it.family)));
        let families = families.collect::<Result<Vec<_>, _>>()?;
        let snapshot = self.store().load(families, targets).await?.settled()?;
        let mut seen = snapshot.records.iter();
        let mut families = snapshot.documents.iter();
        let policy = &self.families.policy;
        let mut active = Vec::new();
        for ((session, id), count) in sessions.into_iter().zip(ids).zip(counts) {
            let family = families.next().and_then(Option::as_deref);
            let is_over = match family.map(read::<Family>) {
                Some(Ok(family)) => family.expires_at(policy) <= snapshot.now,
                Some(Err(_)) => false,
                // It is over, or was lost: then its access tokens may still be good.
                None => session.seen_at.saturating_add(policy.idle) <= snapshot.now,
            };
            let created_at = Some(session.created_at);
            let covered = |seen: &Seen| {
                let record = seen.record.as_ref();
                record.is_some_and(|record| record.covers_issued_at(created_at, Some(&id)))
            };
            // All of them are taken, so that the next session finds its own.
            let hits = seen.by_ref().take(count).filter(|seen| covered(seen)).count();
            if hits == 0 && !is_over && created_at > snapshot.doubt.issued_until() {
                active.push(session);
            }
        }
        Ok(active)
    }

    /// Changes a session; `change` says whether there is anything to write. Whether there is such a
    /// session.
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
        let key = self.target(Target::user(user))?;
        self.index
            .change(&key, None, |list: &mut SessionList, now| {
                let session = list.session_mut(id).filter(|session| session.expires_at > now);
                *found_in = session.is_some();
                let session = session?;
                let changed = change(session, now);
                *problem_in = check_data(session.details.data.as_ref()).err();
                (changed && problem_in.is_none())
                    .then(|| vec![(session.id.clone(), Some(session.expires_at))])
            })
            .await?;
        problem.map_or(Ok(found), Err)
    }
}

impl RefreshObserver for Sessions {
    async fn saw(&self, family: &Family, now: Timestamp) -> bool {
        let Some(session) = &family.session else { return false };
        if now.saturating_duration_since(family.touched_at) < self.touch_interval {
            return false;
        }
        let touched = self.touch(&family.user, session).await;
        // The refresh is granted all the same: a session that looks idle does less harm than a user
        // who is signed out.
        touched
            .inspect_err(
                |error| tracing::debug!(error = %error.chain(), "a session could not be touched"),
            )
            .is_ok()
    }
}

/// The revocation is confirmed. A list that still names the session does no harm: what is revoked
/// is left out where lists are read.
#[expect(clippy::needless_pass_by_value, reason = "it is handed an error to drop")]
pub(super) fn stays_listed(error: StoreError) {
    tracing::debug!(error = %error.chain(), "ended sessions stay listed");
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("families", &self.families)
            .field("most", &self.most)
            .field("eviction", &self.eviction)
            .field("touch_interval", &self.touch_interval)
            .finish_non_exhaustive()
    }
}
