//! The sessions of one user, and the sessions on one device: two documents, pure.
//!
//! A [`Roster`] holds all sessions of a user, so that whatever is decided about them (who has to go
//! when there are too many) is decided about all of them at once. A [`DeviceRoster`] only says
//! where to look.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::documents::Document;
use crate::clock::Timestamp;

/// A session, as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Session {
    /// Its id: the claim `sid`.
    pub id: Box<str>,
    /// The user.
    #[serde(rename = "u")]
    pub user: Box<str>,
    /// The family of its refresh tokens.
    #[serde(rename = "f")]
    pub family: Box<str>,
    /// When it was begun, by the clock of the store.
    #[serde(rename = "at")]
    pub created_at: Timestamp,
    /// When it was last seen; not more exact than the interval at which it is touched.
    #[serde(rename = "seen")]
    pub seen_at: Timestamp,
    /// When it ends if it is not seen again.
    #[serde(rename = "until")]
    pub expires_at: Timestamp,
    /// Until then the session is found by its id and by its device.
    #[serde(rename = "p")]
    pub(super) placed_until: Timestamp,
    /// What is known of whoever holds it.
    #[serde(flatten)]
    pub details: SessionDetails,
}

/// What is known of whoever holds a session. All of it is the application's to fill in and to read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionDetails {
    /// The device, by an id that survives the session: a claim `device_id`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Box<str>>,
    /// The OAuth client.
    #[serde(rename = "cl", default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Box<str>>,
    /// A fingerprint of the device or browser.
    #[serde(rename = "fp", default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Box<str>>,
    /// The address from which the user signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The `User-Agent` with which the user signed in.
    #[serde(rename = "ua", default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Box<str>>,
    /// Whether a second factor was shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mfa: bool,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Who has to go when a user signs in once too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhoGoes {
    /// The session that was not seen for the longest time. The default.
    #[default]
    LeastRecentlySeen,
    /// The session that was begun first.
    Oldest,
    /// The one who signs in: the login is refused.
    Newcomer,
}

/// All sessions of a user, and the devices it trusts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Roster {
    #[serde(rename = "s")]
    pub(super) sessions: Vec<Session>,
    #[serde(rename = "t", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) trusted: BTreeMap<Box<str>, Trust>,
}

/// The trust in a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trust {
    #[serde(rename = "at")]
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
}

/// How sessions end by themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    pub(super) idle: Duration,
    pub(super) max_age: Option<Duration>,
}

impl Lifetimes {
    /// For what has to outlive the session, and is not to be written each time that it is seen.
    pub(super) fn twice(self) -> Self {
        Self { idle: self.idle * 2, ..self }
    }

    pub(super) fn end(self, created_at: Timestamp, seen_at: Timestamp) -> Timestamp {
        let idle = seen_at.saturating_add(self.idle);
        self.max_age.map_or(idle, |age| idle.min(created_at.saturating_add(age)))
    }
}

impl Document for Roster {
    fn forget(&mut self, now: Timestamp) {
        self.sessions.retain(|session| session.expires_at > now);
        self.trusted.retain(|_, trust| trust.until > now);
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.trusted.is_empty()
    }

    fn until(&self) -> Timestamp {
        let sessions = self.sessions.iter().map(|session| session.expires_at);
        sessions.chain(self.trusted.values().map(|trust| trust.until)).max().unwrap_or_default()
    }
}

impl Roster {
    /// Takes the sessions out that have to go so that one more fits; `None` if it is the newcomer.
    pub(super) fn make_room(&mut self, most: usize, who: WhoGoes) -> Option<Vec<Session>> {
        let surplus = (self.sessions.len() + 1).saturating_sub(most);
        if surplus == 0 {
            return Some(Vec::new());
        }
        match who {
            WhoGoes::Newcomer => return None,
            WhoGoes::LeastRecentlySeen => {
                self.sessions.sort_by_key(|session| (session.seen_at, session.created_at));
            }
            WhoGoes::Oldest => self.sessions.sort_by_key(|session| session.created_at),
        }
        Some(self.sessions.drain(..surplus.min(self.sessions.len())).collect())
    }

    pub(super) fn session_mut(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| *session.id == *id)
    }
}

/// Where the sessions on a device are to be found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DeviceRoster {
    /// Users by session.
    #[serde(rename = "s")]
    pub(super) sessions: BTreeMap<Box<str>, Place>,
}

impl DeviceRoster {
    /// Most sessions of a device: they are read and written together, at each login. It is a bound
    /// for programs that sign in again and again, and for devices that are not told apart.
    const MOST: usize = super::MAX_SESSIONS;

    /// Adds a session; if there are too many, those that are over first make room.
    pub(super) fn insert(&mut self, id: Box<str>, place: Place) {
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
pub(super) struct Place {
    #[serde(rename = "u")]
    pub(super) user: Box<str>,
    /// The device it is on, where that is not where this stands.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Box<str>>,
    /// When this may be forgotten.
    pub(super) until: Timestamp,
}

impl Document for DeviceRoster {
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
            placed_until: Timestamp::from_secs(100),
            details: SessionDetails::default(),
        }
    }

    fn gone(most: usize, who: WhoGoes) -> Option<Vec<String>> {
        let sessions = vec![session("b", 2, 9), session("a", 1, 8), session("c", 3, 7)];
        let mut roster = Roster { sessions, trusted: BTreeMap::new() };
        let gone = roster.make_room(most, who)?;
        assert!(roster.sessions.len() < most.max(1));
        Some(gone.into_iter().map(|session| session.id.into()).collect())
    }

    #[test]
    fn the_rule_says_who_goes() {
        assert_eq!(gone(4, WhoGoes::Newcomer), Some(vec![]));
        assert_eq!(gone(3, WhoGoes::Newcomer), None);
        assert_eq!(gone(3, WhoGoes::Oldest), Some(vec!["a".into()]));
        assert_eq!(gone(3, WhoGoes::LeastRecentlySeen), Some(vec!["c".into()]));
        assert_eq!(gone(1, WhoGoes::Oldest), Some(vec!["a".into(), "b".into(), "c".into()]));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut roster = Roster { sessions: vec![session("a", 1, 1)], trusted: BTreeMap::new() };
        let trust = Trust { since: Timestamp::ZERO, until: Timestamp::from_secs(200) };
        roster.trusted.insert("phone".into(), trust);
        assert_eq!(roster.until(), Timestamp::from_secs(200));
        roster.forget(Timestamp::from_secs(100));
        assert!(roster.sessions.is_empty() && roster.trusted.len() == 1);
        roster.forget(Timestamp::from_secs(200));
        assert_eq!(roster, Roster::default());
        assert_eq!(roster.until(), Timestamp::ZERO);
    }

    #[test]
    fn a_device_holds_so_many_sessions_and_no_more() {
        let mut roster = DeviceRoster::default();
        let place =
            |secs| Place { user: "alice".into(), device: None, until: Timestamp::from_secs(secs) };
        for n in 0..1100 {
            // The one with the name `new` is never the first to end.
            roster.insert(format!("{n}").into(), place(n));
            roster.insert("new".into(), place(n + 1));
        }
        assert_eq!(roster.sessions.len(), super::super::MAX_SESSIONS);
        assert!(roster.sessions.contains_key("new") && roster.sessions.contains_key("1099"));
        assert!(!roster.sessions.contains_key("100") && roster.sessions.contains_key("101"));
    }

    #[test]
    fn sessions_survive_the_store() {
        let mut full = session("a", 1, 2);
        full.details = SessionDetails {
            device: Some("phone".into()),
            ip: Some([127, 0, 0, 1].into()),
            mfa: true,
            data: Some(serde_json::json!({"theme": "dark"})),
            ..SessionDetails::default()
        };
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<Session>(&text).unwrap(), full);
    }
}
