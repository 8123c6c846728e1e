//! Who ends a session, and why; and what a user ends of its own.

use std::time::Duration;

use tower_jwt_revocation::session::{Ended, Grant, Login, RefreshPolicy, SessionDetails, Sessions};
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
