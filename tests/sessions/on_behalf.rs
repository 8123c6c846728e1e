//! Who ends a session, and why; and what a user ends of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_jwt_revocation::audit::{AuditEvent, AuditSink};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::session::{
    Ended, Grant, Login, NewFamily, Refresh, RefreshPolicy, SessionDetails, Sessions,
};
use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};

fn sessions() -> Sessions {
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    Sessions::new(store, revoker, RefreshPolicy::new()).unwrap()
}

async fn login(sessions: &Sessions, user: &str, device: &str) -> Grant {
    // As an application has them: borrowed strings of its own.
    let (user, device) = (String::from(user), String::from(device));
    let details = SessionDetails::new().on_device(&device);
    match sessions.login(&user, details).await.unwrap() {
        Login::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

fn id(grant: &Grant) -> &str {
    grant.session.as_deref().unwrap()
}

/// The reason and the actor in the record of a target.
async fn note(sessions: &Sessions, target: Target) -> (Option<String>, Option<String>) {
    let record = sessions.revoker().find(target).await.unwrap().unwrap();
    (record.reason().map(ToString::to_string), record.actor().map(ToString::to_string))
}

#[tokio::test]
async fn whatever_ends_says_why_and_who_ended_it() {
    let sessions = sessions();
    let support = sessions.acting_as("support:7").because("stolen");
    let expected = (Some("stolen".to_owned()), Some("support:7".to_owned()));

    let one = login(&sessions, "alice", "phone").await;
    assert_eq!(support.end_of("alice", id(&one)).await.unwrap(), Ended::Done);
    assert_eq!(note(&sessions, Target::session(id(&one))).await, expected);

    let two = login(&sessions, "alice", "laptop").await;
    support.end_device("laptop").await.unwrap();
    assert_eq!(note(&sessions, Target::device("laptop")).await, expected);
    assert_eq!(note(&sessions, Target::session(id(&two))).await, expected);

    let three = login(&sessions, "alice", "tablet").await;
    support.end_all("alice", None).await.unwrap();
    assert_eq!(note(&sessions, Target::user("alice")).await, expected);
    assert_eq!(note(&sessions, Target::session(id(&three))).await, expected);

    // Those who are not told say what they did, and name nobody.
    let four = login(&sessions, "bob", "phone").await;
    sessions.end_all("bob", Some("another")).await.unwrap();
    let usual = (Some("all sessions of the user were ended".to_owned()), None);
    assert_eq!(note(&sessions, Target::session(id(&four))).await, usual);
}

#[tokio::test]
async fn a_user_ends_its_own_sessions_on_a_device_and_its_trust_in_it() {
    let sessions = sessions();
    let (phone, laptop) =
        (login(&sessions, "alice", "phone").await, login(&sessions, "alice", "laptop").await);
    let of_bob = login(&sessions, "bob", "phone").await;
    let device = String::from("phone");
    sessions.trust_device("alice", &device, Duration::from_secs(600)).await.unwrap();
    sessions.trust_device("bob", &device, Duration::from_secs(600)).await.unwrap();

    assert_eq!(sessions.end_device_of("alice", "phone").await.unwrap(), Ended::Done);
    let ids = async |user: &str| {
        let listed = sessions.list(user).await.unwrap();
        listed.into_iter().map(|session| session.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids("alice").await, [id(&laptop)]);
    assert_eq!(ids("bob").await, [id(&of_bob)], "it is his device, too");
    assert!(sessions.revoker().find(Target::session(id(&phone))).await.unwrap().is_some());
    assert!(!sessions.is_trusted_device("alice", "phone").await.unwrap());
    assert!(sessions.is_trusted_device("bob", "phone").await.unwrap());
    assert_eq!(sessions.end_device_of("alice", "phone").await.unwrap(), Ended::NotFound);
    assert_eq!(sessions.end_device_of("carol", "phone").await.unwrap(), Ended::NotFound);
}

/// The kind of an event, and its user.
type KindAndUser = (&'static str, Option<String>);

/// Events, in their order.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Vec<KindAndUser>>>);

impl AuditSink for History {
    fn record(&self, event: &AuditEvent) {
        let user = event.field("sub").map(ToString::to_string);
        self.0.lock().unwrap().push((event.kind().as_str(), user));
    }
}

#[tokio::test]
async fn what_an_administrator_ends_stands_in_the_history_of_its_user() {
    let (store, history) = (MemoryStore::new(), History::default());
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let revoker = revoker.with_audit(history.clone());
    let sessions = Sessions::new(store, revoker.clone(), RefreshPolicy::new()).unwrap();
    let last = || history.0.lock().unwrap().last().cloned().unwrap();
    let alice = || Some("alice".to_owned());

    let one = login(&sessions, "alice", "phone").await;
    sessions.acting_as("support:7").end(id(&one)).await.unwrap();
    assert_eq!(last(), ("revoke_session", alice()));
    // Of a session that nobody knows, nobody knows the user.
    sessions.end("unknown").await.unwrap();
    assert_eq!(last(), ("revoke_session", None));
    login(&sessions, "alice", "laptop").await;
    sessions.end_device("laptop").await.unwrap();
    assert_eq!(last(), ("revoke_session", alice()));
    // An id alone does not tell whose it is; the caller may know.
    revoker.revoke(Target::token("t1")).of_user("alice").await.unwrap();
    assert_eq!(last(), ("revoke_token", alice()));
    revoker.revoke(Target::token("t2")).await.unwrap();
    assert_eq!(last(), ("revoke_token", None));
}

#[tokio::test]
async fn a_family_of_another_program_goes_on_by_its_ids_unless_it_is_revoked() {
    let sessions = sessions();
    let families = sessions.families();
    let began = Timestamp::now().saturating_sub(Duration::from_secs(60));
    let of = NewFamily::of_user;
    assert!(families.import(of("alice"), "f1", "r1", began).await.unwrap());
    let refreshed = families.refresh_id("f1", "r1", "r2", None).await.unwrap();
    assert!(matches!(refreshed, Refresh::Granted(_)), "{refreshed:?}");
    assert!(!families.import(of("alice"), "f1", "r1", began).await.unwrap());

    // Revoked as of now, a family of an hour ago is not taken over, and a new one is.
    sessions.revoker().revoke(Target::user("bob")).await.unwrap();
    assert!(!families.import(of("bob"), "f2", "r1", began).await.unwrap());
    families.end("f3", None).await.unwrap();
    assert!(!families.import(of("carol"), "f3", "r1", began).await.unwrap());
    // It is over: older than any may get.
    assert!(!families.import(of("dave"), "f4", "r1", Timestamp::ZERO).await.unwrap());
    for (family, token) in [("f.5", "r1"), ("", "r1"), ("f5", "")] {
        let error = families.import(of("erin"), family, token, began).await.unwrap_err();
        assert!(error.is_permanent(), "{error}");
    }
    // What is revoked later ends it.
    assert!(families.import(of("frank"), "f6", "r1", began).await.unwrap());
    sessions.end_all("frank", None).await.unwrap();
    let refused = families.refresh_id("f6", "r1", "r2", None).await.unwrap();
    assert!(matches!(refused, Refresh::Refused(_)), "{refused:?}");
}
