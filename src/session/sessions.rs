//! [`Sessions`]: what a login server needs.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};

use super::calls::all;
use super::documents::{StoredDocument, read};
use super::families::{Families, RefreshObserver};
use super::family::{Family, RefreshPolicy};
use super::grant::{Ended, NewFamily, Refresh};
use super::index::{ListsOfSession, SessionIndex};
use super::list::{
    DeviceSessions, EvictionPolicy, MAX_SESSIONS, Session, SessionDetails, SessionLifetimes,
    SessionList, SessionLocation,
};
use super::login::{check_data, shorten};
use crate::audit::AuditEvent;
use crate::clock::Timestamp;
use crate::config::ConfigError;
#[cfg(feature = "endpoints")]
use crate::revocation::Extent;
use crate::revocation::{Target, TargetKind};
use crate::revoker::Revoker;
use crate::store::session::{Seen, SessionStore};
use crate::store::{Receipt, StoreError};
use crate::verified::VerifiedToken;

/// Default of [`Sessions::with_max_per_user`].
pub(crate) const DEFAULT_MAX_SESSIONS: usize = 50;
/// Default of [`Sessions::with_touch_interval`].
pub(crate) const DEFAULT_TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// The reason of a revocation that its user asked for.
const SIGNED_OUT: &str = "signed out";

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
    /// session is valid as long as its refresh tokens. `store` is where the sessions are, not a
    /// mirror of it.
    ///
    /// All clones of `revoker`, and all revokers of the layer it comes from, keep their records as
    /// long as refresh tokens are valid from now on. In other processes call
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

    /// How many sessions a user may have, and which one is ended when there would be one more.
    /// Default 50, and [`EvictionPolicy::LeastRecentlySeen`]; more than
    /// 1000 count as 1000.
    #[doc(alias = "concurrent sessions")]
    #[doc(alias = "single session")]
    #[must_use]
    pub fn with_max_per_user(mut self, most: NonZeroUsize, eviction: EvictionPolicy) -> Self {
        self.most = most.get().min(MAX_SESSIONS);
        self.eviction = eviction;
        self
    }

    /// How often at most [`Session::seen_at`] is written. Default 60 s; an interval longer than the
    /// [idle lifetime](RefreshPolicy::with_idle_lifetime) counts as one of that length. A session
    /// stays [counted](Self::count) for this much longer than its refresh tokens are valid; it is
    /// listed as long as they are.
    #[must_use]
    pub fn with_touch_interval(mut self, interval: Duration) -> Self {
        self.touch_interval = interval.min(self.families.policy.idle);
        self
    }

    /// The same sessions, for this reason: what is ended by what this returns has it in its record
    /// and in the audit, where [`Revoker::find`] and [`Revoker::explain`] show it. Default: what
    /// was done, such as that all sessions of the user were ended. At most 1024 bytes.
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
    /// kept where the reason of [`because`](Self::because) is. Default: nobody is named.
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

    /// Takes a refresh token and gives the next, as [`Families::refresh`], and notes that the
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

    /// How many sessions there are: those that were neither ended here nor have ended by
    /// themselves. Read off a counter; what was revoked in another way (a whole issuer) is counted
    /// until it ends by itself.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store().count_members().await
    }

    /// The active sessions on a device, of all users: those of its last 1000 logins.
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

    // === Changing ===

    /// Writes that a session is in use, which moves its end; at most once per
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

    /// Changes the details of a session, such as that a second factor was shown, within the bounds
    /// of [`SessionDetails`]. Device and client stay: tokens were issued for them.
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

    // === Ending ===

    /// Ends what the token says that it belongs to, whether or not it is listed here: its session
    /// and its family of refresh tokens; the token alone, if it names neither. For a "sign out",
    /// with the token of the request. After `Ok` this token is refused.
    ///
    /// What is known to be another user's is left alone: a program that signs tokens may have put
    /// an odd `sid` into one. Then the token itself ends.
    ///
    /// # Errors
    /// [`StoreError`] if the revocation was not confirmed, which may be repeated; if the token is
    /// of an issuer that the profile of the [revoker](Self::revoker) does not know, or has nothing
    /// by which it could be revoked, which may not. If the revoker has an
    /// [outbox](Revoker::with_outbox), the logout goes on being tried, and the error
    /// [is pending](StoreError::is_pending).
    #[doc(alias = "sign out")]
    #[doc(alias = "log out")]
    pub async fn logout(&self, token: &VerifiedToken) -> Result<(), StoreError> {
        let kept = token.clone();
        self.keep_as_a_whole(Some(token), move |sessions, asked_at| {
            let token = kept.clone();
            async move { sessions.logout_once(&token, asked_at).await }.boxed()
        })
        .await
    }

    /// Does it, or keeps all of it in the outbox, if there is one: what is done later tidies up and
    /// tells the lists of other programs as well. `once` does it, with sessions that keep nothing
    /// themselves; a later attempt is done as of when it was asked for.
    async fn keep_as_a_whole<T: 'static>(
        &self,
        token: Option<&VerifiedToken>,
        once: impl Fn(Self, Option<Timestamp>) -> BoxFuture<'static, Result<T, StoreError>>
        + Send
        + Sync
        + 'static,
    ) -> Result<T, StoreError> {
        let asked_at = self.revoker().profile().now();
        let sessions = self.with_revoker(self.revoker().without_outbox());
        let error = match once(sessions.clone(), None).await {
            Err(error) => error,
            done => return done,
        };
        let attempt = move || once(sessions.clone(), Some(asked_at)).map_ok(drop).boxed();
        Err(self.revoker().keep_trying(error, token, Box::new(attempt)))
    }

    async fn logout_once(
        &self,
        token: &VerifiedToken,
        asked_at: Option<Timestamp>,
    ) -> Result<(), StoreError> {
        let revoker = self.revoker();
        let named = |kind| token.target(kind).map(|target| self.target(target)).transpose();
        let (session, family) = (named(TargetKind::Session)?, named(TargetKind::Family)?);
        let mut named: Vec<_> = [&session, &family].into_iter().flatten().cloned().collect();
        let mut known = Vec::new();
        if !named.is_empty() {
            known = self.store().load(named.clone(), Vec::new()).await?.settled()?.documents;
        }
        let mut known = known.into_iter();
        let mut document = |of: &Option<Target>| of.as_ref().and_then(|_| known.next().flatten());
        let (location, refreshed) = (document(&session), document(&family));
        // What is not there, or cannot be read, keeps nobody signed in.
        let place = location.as_deref().and_then(|text| read::<SessionLocation>(text).ok());
        let refreshed = refreshed.and_then(|text| read::<Family>(&text).ok());
        let owners = [place.as_ref().map(|it| &*it.user), refreshed.as_ref().map(|it| &*it.user)];
        let user = token.target(TargetKind::User);
        let is_caller = |owner: &str| {
            token.subject() == Some(owner) || user.as_ref().is_some_and(|user| user.id() == owner)
        };
        if !owners.into_iter().flatten().all(is_caller) {
            named.clear();
        }
        if named.is_empty() {
            return revoker.revoke_token(token).usual_reason(SIGNED_OUT).await.map(drop);
        }
        let requests = named.into_iter().map(|target| {
            let request = revoker.revoke(target).asked_at(asked_at);
            request.usual_reason(SIGNED_OUT).by_token(token).into_future()
        });
        all(requests).await?;
        if let (Some(key), Some(place), Some(written)) = (session, place, location) {
            let tidied = async {
                let lists = self.index.read_lists(&place).await?;
                self.index.remove_everywhere(key.id(), (&key, written), &place, lists).await
            };
            tidied.await.unwrap_or_else(stays_listed);
        }
        Ok(())
    }

    /// Ends a session: its access tokens and its refresh tokens. The id is revoked whether or not
    /// there is such a session.
    ///
    /// # Errors
    /// [`StoreError`] if the revocation was not confirmed. It may be repeated, and goes on being
    /// tried if the revoker has an [outbox](Revoker::with_outbox).
    #[doc(alias = "kill session")]
    #[doc(alias = "logout")]
    #[doc(alias = "sign out")]
    pub async fn end(&self, id: &str) -> Result<(), StoreError> {
        let id: Box<str> = id.into();
        self.keep_as_a_whole(None, move |sessions, asked_at| {
            let id = id.clone();
            async move { sessions.end_once(&id, asked_at).await }.boxed()
        })
        .await
    }

    async fn end_once(&self, id: &str, asked_at: Option<Timestamp>) -> Result<(), StoreError> {
        let key = self.target(Target::session(id))?;
        let request = self.revoker().revoke(Target::session(id)).asked_at(asked_at);
        let (revoked, place) = request
            .while_looking(self.index.read_location(&key), |place| match place {
                Ok(Some((place, _))) => Some(&*place.user),
                Ok(None) | Err(_) => None,
            })
            .await;
        let receipt = revoked?;
        let lists = async {
            let Some((place, written)) = place? else { return Ok(None) };
            let lists = self.index.read_lists(&place).await?;
            Ok(Some((place, written, lists)))
        };
        self.tidy_up_after_one((id, &key), &receipt, lists.await).await
    }

    /// Ends a session if it is of this user, as [`end`](Self::end): for requests in which a user,
    /// who is known by an access token, names a session. The owner of a session that was forgotten
    /// is not known, so it is not found and nothing is revoked; for a "sign out" there is
    /// [`logout`](Self::logout).
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be asked or did not confirm. It may be repeated, and
    /// goes on being tried if the revoker has an [outbox](Revoker::with_outbox).
    #[doc(alias = "kill session")]
    pub async fn end_of(&self, user: &str, id: &str) -> Result<Ended, StoreError> {
        let (user, id): (Box<str>, Box<str>) = (user.into(), id.into());
        self.keep_as_a_whole(None, move |sessions, asked_at| {
            let (user, id) = (user.clone(), id.clone());
            async move { sessions.end_of_once(&user, &id, asked_at).await }.boxed()
        })
        .await
    }

    async fn end_of_once(
        &self,
        user: &str,
        id: &str,
        asked_at: Option<Timestamp>,
    ) -> Result<Ended, StoreError> {
        let key = self.target(Target::session(id))?;
        let Some((place, written)) =
            self.index.read_location(&key).await?.filter(|(place, _)| *place.user == *user)
        else {
            return Ok(Ended::NotFound);
        };
        let revoked = self.revoker().revoke(Target::session(id)).asked_at(asked_at);
        let revoked = revoked.about(|event| event.with_subject(Some(user))).into_future();
        let (revoked, lists) = futures::join!(revoked, self.index.read_lists(&place));
        let receipt = revoked?;
        let lists = lists.map(|lists| Some((place, written, lists)));
        self.tidy_up_after_one((id, &key), &receipt, lists).await?;
        Ok(Ended::Done)
    }

    /// Ends everything of a user but the session `but`: sessions, families without one, tokens of
    /// no session or of one that is not listed here, and the trust in all devices but that of
    /// `but`. The access tokens and refresh tokens of `but` go on to be accepted, without a moment
    /// in which they are not. Without `but` that ends as well.
    ///
    /// What `but` is refused for otherwise stays so: a cutoff of before covers what it covered, and
    /// a later `end_all` without it, or with another session, ends it.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    #[doc(alias = "logout everywhere")]
    #[doc(alias = "sign out everywhere")]
    #[doc(alias = "kill sessions")]
    pub async fn end_all(&self, user: &str, but: Option<&str>) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        let everything = self.revoker().revoke(Target::user(user));
        let receipt = match but {
            Some(but) => everything.sparing(but).await?,
            None => everything.await?,
        };
        // Each session is revoked by its id as well: a session that was dated past the cutoff of
        // something else it belongs to, set by the clock of another shard, may be dated later than
        // this one.
        let known = self.index.read_document(&key).await?;
        let Some(list) = known.read::<SessionList>()? else { return Ok(()) };
        let listed = list.sessions.into_iter().chain(list.outgoing);
        let gone: Vec<_> = listed.filter(|session| Some(&*session.id) != but).collect();
        self.revoke_sessions(&gone, "all sessions of the user were ended").await?;
        // The trust in a device that was revoked before is not to come back.
        let good = match but {
            Some(_) => self.trusted_devices(user).await?,
            None => Vec::new(),
        };
        let distrust = |list: &mut SessionList| {
            let kept = but.and_then(|but| list.session_mut(but)?.details.device.clone());
            list.trusted.retain(|device, _| Some(device) == kept.as_ref());
            // So that it outlives the session.
            for (device, trust) in &mut list.trusted {
                if good.iter().any(|good| good.id == *device && good.since == trust.since) {
                    trust.since = trust.since.max(receipt.reissue_at.unwrap_or_default());
                }
            }
        };
        self.tidy_up_after(&key, Some(known), &gone, distrust).await;
        Ok(())
    }

    /// Ends what a user had at `until`: revokes what was issued up to then, and all that has come
    /// out of the sessions that had begun.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn end_begun_until(
        &self,
        user: &str,
        until: Timestamp,
        reason: &str,
    ) -> Result<(), StoreError> {
        let key = self.target(Target::user(user))?;
        let cutoff = self.revoker().revoke(Target::user(user)).reason(reason);
        cutoff.extent(Extent::IssuedUntil(until)).await?;
        let known = self.index.read_document(&key).await?;
        let Some(list) = known.read::<SessionList>()? else { return Ok(()) };
        let sessions = list.sessions.into_iter();
        let gone: Vec<_> = sessions.filter(|session| session.created_at <= until).collect();
        self.revoke_sessions(&gone, reason).await?;
        let ids: Vec<_> = gone.iter().map(|session| &*session.id).collect();
        let unlisted = self.index.change(&key, Some(known), |list: &mut SessionList, _| {
            list.take_off(|session| ids.contains(&&*session.id));
            Some(ids.iter().map(|id| ((*id).into(), None)).collect())
        });
        let tidied =
            async { futures::try_join!(unlisted, self.index.remove_from_devices(&gone)).map(drop) };
        tidied.await.unwrap_or_else(stays_listed);
        Ok(())
    }

    /// Whose session this is, if that is known.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn owner_of(&self, id: &str) -> Result<Option<Box<str>>, StoreError> {
        let key = self.target(Target::session(id))?;
        Ok(self.index.read_location(&key).await?.map(|(place, _)| place.user))
    }

    /// Ends the sessions of a user on a device, and the trust in it: for a user, who is known by an
    /// access token, and names a device. Sessions of others on the same device go on, and so does
    /// what was issued for the device outside of a session. [`Ended::NotFound`] if the user has
    /// neither a session on it nor trusts it.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    #[doc(alias = "kill device")]
    pub async fn end_device_of(&self, user: &str, device: &str) -> Result<Ended, StoreError> {
        self.target(Target::device(device))?;
        let key = self.target(Target::user(user))?;
        let known = self.index.read_document(&key).await?;
        let Some(list) = known.read::<SessionList>()? else { return Ok(Ended::NotFound) };
        let is_trusted = list.trusted.contains_key(device);
        let is_on_it = |session: &Session| session.details.device.as_deref() == Some(device);
        let listed = list.sessions.into_iter().chain(list.outgoing);
        let gone: Vec<_> = listed.filter(is_on_it).collect();
        if gone.is_empty() && !is_trusted {
            return Ok(Ended::NotFound);
        }
        if is_trusted {
            self.distrust_device(user, device).await?;
        }
        self.revoke_sessions(&gone, "the sessions of the user on the device were ended").await?;
        self.tidy_up_after(&key, None, &gone, |_| {}).await;
        Ok(Ended::Done)
    }

    /// Ends all sessions on a device, of all users, and whatever else was issued for it so far.
    ///
    /// # Errors
    /// [`StoreError`] if not everything was confirmed. It may be repeated.
    pub async fn end_device(&self, device: &str) -> Result<(), StoreError> {
        let key = self.target(Target::device(device))?;
        self.revoker().revoke(Target::device(device)).await?;
        let known = self.index.read_document(&key).await?;
        let Some(places) = known.read::<DeviceSessions>()? else { return Ok(()) };
        let requests = places
            .sessions
            .iter()
            .map(|(id, place)| self.revoker().revoke(Target::session(&**id)).of_user(&*place.user));
        let receipts = self.revoker().revoke_many(requests).await?;
        let mut by_user: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for ((id, place), receipt) in places.sessions.iter().zip(&receipts) {
            by_user.entry(&place.user).or_default().push(id);
            if !receipt.unlisted.is_empty() {
                let user = self.target(Target::user(&*place.user))?;
                let known = self.index.read_document(&user).await?;
                self.tell_lists(id, receipt, &known).await?;
            }
        }
        let forgotten = places.sessions.keys().map(|id| self.index.remove_location(id));
        let unlisted = by_user.iter().map(|(user, ids)| self.index.remove_from_user(user, ids));
        let displaced = self.index.change(&key, Some(known), |list: &mut DeviceSessions, _| {
            list.sessions.retain(|id, _| !places.sessions.contains_key(id));
            Some(Vec::new())
        });
        let tidied =
            async { futures::try_join!(all(unlisted), all(forgotten), displaced).map(drop) };
        tidied.await.unwrap_or_else(stays_listed);
        Ok(())
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

    pub(super) async fn revoke_sessions(
        &self,
        sessions: &[Session],
        reason: &str,
    ) -> Result<(), StoreError> {
        let mut requests = Vec::new();
        for session in sessions {
            let request = self.revoker().revoke(Target::session(&*session.id));
            let request = request.usual_reason(reason);
            let about = |event: AuditEvent| {
                event.with_subject(Some(&session.user)).with_family(Some(&session.family))
            };
            let family = self.target(Target::family(&*session.family))?;
            requests.push(request.about(about).ending(vec![family]).into_future());
        }
        all(requests).await.map(drop)
    }

    /// Tells the lists of other programs of the family of a session that was revoked, if there are
    /// any that have not heard of it and the family is known.
    async fn tell_lists(
        &self,
        id: &str,
        receipt: &Receipt,
        known: &StoredDocument,
    ) -> Result<(), StoreError> {
        if receipt.unlisted.is_empty() {
            return Ok(());
        }
        let Some(list) = known.read::<SessionList>()? else { return Ok(()) };
        let mut listed = list.sessions.iter().chain(&list.outgoing);
        let Some(session) = listed.find(|session| *session.id == *id) else {
            return Ok(());
        };
        let family = self.target(Target::family(&*session.family))?;
        self.revoker().tell_lists(Target::session(id), vec![family]).await
    }

    /// Takes a session that was revoked out of where it is listed, after the lists of other programs
    /// were told. `found` is where it is listed, if that is known.
    async fn tidy_up_after_one(
        &self,
        (id, key): (&str, &Target),
        receipt: &Receipt,
        found: Result<Option<(SessionLocation, Bytes, ListsOfSession)>, StoreError>,
    ) -> Result<(), StoreError> {
        match found {
            Ok(Some((place, written, lists))) => {
                self.tell_lists(id, receipt, lists.of_user()).await?;
                let tidied = self.index.remove_everywhere(id, (key, written), &place, lists);
                tidied.await.unwrap_or_else(stays_listed);
            }
            Ok(None) => {}
            // There are lists to tell of its family, and its family is not known.
            Err(error) if !receipt.unlisted.is_empty() => return Err(error),
            Err(error) => stays_listed(error),
        }
        Ok(())
    }

    /// Takes sessions of a user that were revoked out of where they are listed.
    async fn tidy_up_after(
        &self,
        user: &Target,
        known: Option<StoredDocument>,
        gone: &[Session],
        also: impl Fn(&mut SessionList) + Send + Sync,
    ) {
        let ids: Vec<_> = gone.iter().map(|session| &*session.id).collect();
        let unlisted = self.index.change(user, known, |list: &mut SessionList, _| {
            list.take_off(|session| ids.contains(&&*session.id));
            also(list);
            Some(ids.iter().map(|id| ((*id).into(), None)).collect())
        });
        let tidied =
            async { futures::try_join!(unlisted, self.index.remove_from_devices(gone)).map(drop) };
        tidied.await.unwrap_or_else(stays_listed);
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
