//! The sessions of one user, and the sessions on one device: two documents, pure.
//!
//! A [`SessionList`] holds all sessions of a user, so that what concerns several (which one is
//! ended when there are too many) is decided on one document. [`DeviceSessions`] only says where to
//! look.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::documents::SessionDocument;
use crate::clock::Timestamp;

/// Largest [`Sessions::with_max_per_user`](super::Sessions::with_max_per_user): the sessions of a
/// user are read and written together.
pub(crate) const MAX_SESSIONS: usize = 1000;

/// How many sessions of a user that have ended are remembered: those of which something is left the
/// longest.
const MAX_ENDED: usize = 100;

/// A session, as it is listed. Times are by the clock of the store.
///
/// Serialized with the names of its fields and of those of its details, times as milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Session {
    /// The id of the session: the claim `sid` of its access tokens. 128 random bits, base64url.
    pub id: Box<str>,
    /// The user it belongs to: the claim `sub` of its access tokens.
    pub user: Box<str>,
    /// The id of the family of its refresh tokens: the claim `fid` of its access tokens.
    pub family: Box<str>,
    /// When it was begun. It is a millisecond later if the user or another target of it was revoked
    /// in the same millisecond, so that the revocation does not cover it.
    pub created_at: Timestamp,
    /// When it was last in use: at login, at a refresh, or at [`touch`](super::Sessions::touch). It
    /// is written at most once per [interval](super::Sessions::with_touch_interval).
    pub seen_at: Timestamp,
    /// When it ends if it is not used again: after the idle lifetime and the touch interval, but
    /// not later than the maximal age of its family.
    pub expires_at: Timestamp,
    /// Until then the session is found by its id and by its device.
    #[serde(skip)]
    pub(super) located_until: Timestamp,
    /// What the application has said about it.
    #[serde(flatten)]
    pub details: SessionDetails,
}

/// What the application says about a session at [login](super::Sessions::login), or later with
/// [`Sessions::update`](super::Sessions::update). Only [`device`](Self::device) and
/// [`client`](Self::client) have an effect; the rest is for display.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SessionDetails {
    /// The id of the device: the claim `device_id` of the access tokens. It outlasts the session,
    /// and no other device has it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Box<str>>,
    /// The id of the OAuth client: the claim `client_id` of the access tokens. The refresh tokens
    /// are bound to it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Box<str>>,
    /// A fingerprint of the device or browser, of up to 512 bytes. It is kept and shown, never
    /// compared. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Box<str>>,
    /// The address from which the user signed in. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The `User-Agent` with which the user signed in, up to 512 bytes of it. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Box<str>>,
    /// Whether a second factor was used. Default: false.
    pub mfa: bool,
    /// Data of the application, at most 4 KiB of JSON. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Which session ends when a user with the maximal number of sessions signs in again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// The session with the earliest [`seen_at`](Session::seen_at). The default.
    #[default]
    LeastRecentlySeen,
    /// The session with the earliest [`created_at`](Session::created_at).
    Oldest,
    /// None: the login is refused with [`Login::TooMany`](super::Login::TooMany).
    RefuseLogin,
}

/// A [`Session`], as it is kept in the store: by short names, as a user may have many.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Session")]
struct StoredSession {
    id: Box<str>,
    #[serde(rename = "u")]
    user: Box<str>,
    #[serde(rename = "f")]
    family: Box<str>,
    #[serde(rename = "at")]
    created_at: Timestamp,
    #[serde(rename = "seen")]
    seen_at: Timestamp,
    #[serde(rename = "until")]
    expires_at: Timestamp,
    #[serde(rename = "p")]
    located_until: Timestamp,
    #[serde(flatten, with = "StoredDetails")]
    details: SessionDetails,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SessionDetails")]
struct StoredDetails {
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    device: Option<Box<str>>,
    #[serde(rename = "cl", default, skip_serializing_if = "Option::is_none")]
    client: Option<Box<str>>,
    #[serde(rename = "fp", default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(rename = "ua", default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    mfa: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct WrittenSession<'a>(#[serde(with = "StoredSession")] &'a Session);

#[derive(Deserialize)]
struct ReadSession(#[serde(with = "StoredSession")] Session);

fn write_sessions<S: Serializer>(sessions: &[Session], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sessions.iter().map(WrittenSession))
}

fn read_sessions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Session>, D::Error> {
    let sessions = Vec::<ReadSession>::deserialize(deserializer)?;
    Ok(sessions.into_iter().map(|ReadSession(session)| session).collect())
}

/// All sessions of a user, and the devices it trusts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SessionList {
    #[serde(rename = "s", serialize_with = "write_sessions", deserialize_with = "read_sessions")]
    pub(super) sessions: Vec<Session>,
    #[serde(rename = "t", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) trusted: BTreeMap<Box<str>, DeviceTrust>,
    /// Sessions that have made room for others, or are being erased, and of which it is not
    /// confirmed yet that they are revoked. They are no sessions any more; who signs in next
    /// revokes what is left here.
    #[serde(
        rename = "o",
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "write_sessions",
        deserialize_with = "read_sessions"
    )]
    pub(super) outgoing: Vec<Session>,
    /// Sessions that were taken off, by their ids: what is kept of them elsewhere names the user,
    /// and an erasure has to find it.
    #[serde(rename = "e", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) ended: BTreeMap<Box<str>, EndedSession>,
}

/// Where something may be left of a session that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndedSession {
    /// Its family stays, so that reuse of its tokens is noticed.
    #[serde(rename = "f")]
    pub(super) family: Box<str>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Box<str>>,
    /// Then nothing is left.
    pub(super) until: Timestamp,
}

impl From<Session> for EndedSession {
    fn from(session: Session) -> Self {
        let Session { family, details, expires_at, located_until, .. } = session;
        Self { family, device: details.device, until: expires_at.max(located_until) }
    }
}

/// Since and until when a device is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceTrust {
    #[serde(rename = "at")]
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Box<str>>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<Box<str>>,
}

/// A device that a user trusts, for [`Sessions::trust_device`](super::Sessions::trust_device) and
/// from [`Sessions::trusted_devices`](super::Sessions::trusted_devices). A string converts to a
/// device with this id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrustedDevice {
    /// The id of the device: the claim `device_id` of access tokens.
    pub id: Box<str>,
    /// What the user calls it, up to 512 bytes of it. Default: none.
    pub name: Option<Box<str>>,
    /// What it is, such as `phone`, up to 512 bytes of it. Default: none.
    pub kind: Option<Box<str>>,
    /// Since when it is trusted, by the clock of the store.
    pub since: Timestamp,
    /// Until when, unless the trust is ended.
    pub until: Timestamp,
}

impl TrustedDevice {
    /// A device that is not trusted yet.
    pub fn new(id: impl AsRef<str>) -> Self {
        let (since, until) = (Timestamp::ZERO, Timestamp::ZERO);
        Self { id: id.as_ref().into(), name: None, kind: None, since, until }
    }

    /// With the name that the user has given it.
    #[must_use]
    pub fn with_name(mut self, name: impl AsRef<str>) -> Self {
        self.name = Some(name.as_ref().into());
        self
    }

    /// With what it is, such as `phone`.
    #[must_use]
    pub fn with_kind(mut self, kind: impl AsRef<str>) -> Self {
        self.kind = Some(kind.as_ref().into());
        self
    }
}

impl<T: AsRef<str>> From<T> for TrustedDevice {
    fn from(id: T) -> Self {
        Self::new(id)
    }
}

/// How sessions end by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLifetimes {
    pub(super) idle: Duration,
    pub(super) max_age: Option<Duration>,
}

impl SessionLifetimes {
    /// For what has to outlive the session, and is not to be written each time that it is seen.
    pub(super) fn twice(self) -> Self {
        Self { idle: self.idle * 2, ..self }
    }

    pub(super) fn end(self, created_at: Timestamp, seen_at: Timestamp) -> Timestamp {
        let idle = seen_at.saturating_add(self.idle);
        self.max_age.map_or(idle, |age| idle.min(created_at.saturating_add(age)))
    }
}

impl SessionDocument for SessionList {
    fn forget(&mut self, now: Timestamp) {
        self.take_off(|session| session.expires_at <= now);
        self.trusted.retain(|_, trust| trust.until > now);
        self.ended.retain(|_, ended| ended.until > now);
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty()
            && self.trusted.is_empty()
            && self.outgoing.is_empty()
            && self.ended.is_empty()
    }

    fn until(&self) -> Timestamp {
        let sessions = self.sessions.iter().chain(&self.outgoing).map(|session| session.expires_at);
        let trusted = self.trusted.values().map(|trust| trust.until);
        sessions
            .chain(trusted)
            .chain(self.ended.values().map(|ended| ended.until))
            .max()
            .unwrap_or_default()
    }
}

impl SessionList {
    /// Makes those [outgoing](Self::outgoing) that have to end so that one more fits, and says
    /// which they are; `None` if the login has to be refused.
    pub(super) fn make_room(
        &mut self,
        most: usize,
        policy: EvictionPolicy,
    ) -> Option<Vec<Box<str>>> {
        let surplus = (self.sessions.len() + 1).saturating_sub(most);
        if surplus == 0 {
            return Some(Vec::new());
        }
        match policy {
            EvictionPolicy::RefuseLogin => return None,
            EvictionPolicy::LeastRecentlySeen => {
                self.sessions.sort_by_key(|session| (session.seen_at, session.created_at));
            }
            EvictionPolicy::Oldest => self.sessions.sort_by_key(|session| session.created_at),
        }
        let gone = self.sessions.drain(..surplus.min(self.sessions.len()));
        let before = self.outgoing.len();
        self.outgoing.extend(gone);
        Some(self.outgoing.iter().skip(before).map(|session| session.id.clone()).collect())
    }

    /// Takes off sessions that have ended, says which they were, and remembers where something may
    /// be left of them.
    pub(super) fn take_off(&mut self, has_ended: impl Fn(&Session) -> bool) -> Vec<Box<str>> {
        let listed = self.sessions.extract_if(.., |session| has_ended(session));
        let outgoing = self.outgoing.extract_if(.., |session| has_ended(session));
        let mut gone = Vec::new();
        for session in listed.chain(outgoing) {
            gone.push(session.id.clone());
            self.ended.insert(session.id.clone(), session.into());
        }
        while self.ended.len() > MAX_ENDED {
            let first = self.ended.iter().min_by_key(|(_, ended)| ended.until);
            let Some(first) = first.map(|(id, _)| id.clone()) else { break };
            self.ended.remove(&first);
        }
        gone
    }

    pub(super) fn session_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| *session.id == *id)
    }
}

/// Where the sessions on a device are to be found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DeviceSessions {
    /// Users by session.
    #[serde(rename = "s")]
    pub(super) sessions: BTreeMap<Box<str>, SessionLocation>,
}

impl DeviceSessions {
    /// Most sessions of a device: they are read and written together, at each login. It is a bound
    /// for programs that sign in again and again, and for devices that share one id.
    const MOST: usize = MAX_SESSIONS;

    /// Adds a session; if there are too many, those that are over first make room.
    pub(super) fn insert(&mut self, id: Box<str>, place: SessionLocation) {
        self.sessions.insert(id, place);
        while self.sessions.len() > Self::MOST {
            let first = self.sessions.iter().min_by_key(|(_, place)| place.until);
            let Some(first) = first.map(|(id, _)| id.clone()) else { return };
            self.sessions.remove(&first);
        }
    }
}

/// Where a session is to be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionLocation {
    #[serde(rename = "u")]
    pub(super) user: Box<str>,
    /// The device it is on, where that is not where this stands.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Box<str>>,
    /// When this may be forgotten.
    pub(super) until: Timestamp,
}

impl SessionDocument for DeviceSessions {
    fn forget(&mut self, now: Timestamp) {
        self.sessions.retain(|_, place| place.until > now);
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn until(&self) -> Timestamp {
        self.sessions.values().map(|place| place.until).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, created: u64, seen: u64) -> Session {
        Session {
            id: id.into(),
            user: "alice".into(),
            family: "f".into(),
            created_at: Timestamp::from_secs(created),
            seen_at: Timestamp::from_secs(seen),
            expires_at: Timestamp::from_secs(100),
            located_until: Timestamp::from_secs(100),
            details: SessionDetails::default(),
        }
    }

    fn gone(most: usize, who: EvictionPolicy) -> Option<Vec<String>> {
        let sessions = vec![session("b", 2, 9), session("a", 1, 8), session("c", 3, 7)];
        let mut list = SessionList { sessions, ..SessionList::default() };
        let gone = list.make_room(most, who)?;
        assert!(list.sessions.len() < most.max(1));
        let outgoing: Vec<_> = list.outgoing.iter().map(|session| session.id.clone()).collect();
        assert_eq!(gone, outgoing);
        Some(gone.into_iter().map(Into::into).collect())
    }

    #[test]
    fn the_policy_says_which_sessions_end() {
        assert_eq!(gone(4, EvictionPolicy::RefuseLogin), Some(vec![]));
        assert_eq!(gone(3, EvictionPolicy::RefuseLogin), None);
        assert_eq!(gone(3, EvictionPolicy::Oldest), Some(vec!["a".into()]));
        assert_eq!(gone(3, EvictionPolicy::LeastRecentlySeen), Some(vec!["c".into()]));
        assert_eq!(gone(1, EvictionPolicy::Oldest), Some(vec!["a".into(), "b".into(), "c".into()]));
    }

    #[test]
    fn what_has_ended_is_removed() {
        let mut list = SessionList { sessions: vec![session("a", 1, 1)], ..SessionList::default() };
        let (since, until) = (Timestamp::ZERO, Timestamp::from_secs(200));
        let trust = DeviceTrust { since, until, name: None, kind: None };
        list.trusted.insert("phone".into(), trust);
        assert_eq!(list.until(), Timestamp::from_secs(200));
        list.forget(Timestamp::from_secs(100));
        assert!(list.sessions.is_empty() && list.trusted.len() == 1);
        list.forget(Timestamp::from_secs(200));
        assert_eq!(list, SessionList::default());
        assert_eq!(list.until(), Timestamp::ZERO);
    }

    #[test]
    fn where_something_is_left_of_ended_sessions_is_known_until_nothing_is() {
        let named = |id: &str, secs| Session {
            located_until: Timestamp::from_secs(secs),
            ..session(id, 1, 1)
        };
        let (sessions, outgoing) = (vec![named("a", 200), named("b", 200)], vec![named("c", 100)]);
        let mut list = SessionList { sessions, outgoing, ..SessionList::default() };
        let gone = list.take_off(|session| *session.id != *"b");
        assert!(gone.iter().map(|id| &**id).eq(["a", "c"]));
        assert_eq!((list.sessions.len(), list.outgoing.len()), (1, 0));
        assert!(list.ended.keys().map(|id| &**id).eq(["a", "c"]));
        // By itself, too.
        list.forget(Timestamp::from_secs(100));
        assert!(list.sessions.is_empty());
        assert!(list.ended.keys().map(|id| &**id).eq(["a", "b"]));
        assert!(!list.is_empty() && list.until() == Timestamp::from_secs(200));
        list.forget(Timestamp::from_secs(200));
        assert_eq!(list, SessionList::default());

        for n in 0..1000 {
            list.sessions.push(named(&n.to_string(), 1000 + n));
            list.take_off(|_| true);
        }
        assert_eq!(list.ended.len(), MAX_ENDED);
        assert!(list.ended.contains_key("999") && !list.ended.contains_key("0"));
    }

    #[test]
    fn a_device_holds_so_many_sessions_and_no_more() {
        let mut list = DeviceSessions::default();
        let place = |secs| SessionLocation {
            user: "alice".into(),
            device: None,
            until: Timestamp::from_secs(secs),
        };
        for n in 0..1100 {
            // The one with the name `new` is never the first to end.
            list.insert(format!("{n}").into(), place(n));
            list.insert("new".into(), place(n + 1));
        }
        assert_eq!(list.sessions.len(), MAX_SESSIONS);
        assert!(list.sessions.contains_key("new") && list.sessions.contains_key("1099"));
        assert!(!list.sessions.contains_key("100") && list.sessions.contains_key("101"));
    }

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let mut full = session("a", 1, 2);
        full.details = SessionDetails {
            device: Some("phone".into()),
            ip: Some([127, 0, 0, 1].into()),
            mfa: true,
            data: Some(serde_json::json!({"theme": "dark"})),
            ..SessionDetails::default()
        };
        let list = SessionList { sessions: vec![full], ..SessionList::default() };
        let text = serde_json::to_string(&list).unwrap();
        let stored = r#"{"s":[{"id":"a","u":"alice","f":""#;
        assert!(text.starts_with(stored), "other processes read it by these names: {text}");
        assert_eq!(serde_json::from_str::<SessionList>(&text).unwrap(), list);
    }

    /// What an application shows to its users, as JSON.
    #[test]
    fn a_session_is_serialized_in_words() {
        let mut shown = session("a", 1, 2);
        shown.details.device = Some("phone".into());
        shown.details.user_agent = Some("curl".into());
        let shown = serde_json::to_value(&shown).unwrap();
        let names: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "created_at",
            "device",
            "expires_at",
            "family",
            "id",
            "mfa",
            "seen_at",
            "user",
            "user_agent",
        ];
        expected.sort_unstable();
        let mut names = names;
        names.sort_unstable();
        assert_eq!(names, expected);
    }
}
