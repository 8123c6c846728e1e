//! How long records are kept, by what a request asks for.

use std::sync::Mutex;

use futures::future::join_all;

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::store::memory::MemoryStore;
use crate::token::profile::SignedClaims;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn revoker() -> Revoker {
    Revoker::new(MemoryStore::new(), TokenProfile::new()).unwrap()
}

/// For how long the record of `target` is kept from now on, in days, rounded up.
async fn days(revoker: &Revoker, target: Target) -> u64 {
    let record = revoker.find(target).await.unwrap().unwrap();
    record.until().saturating_duration_since(SystemClock.now()).as_secs().div_ceil(DAY.as_secs())
}

#[tokio::test]
async fn only_a_token_can_be_given_a_time_at_which_it_expires() {
    let revoker = revoker();
    let at = SystemClock.now();
    for target in [Target::user("u"), Target::session("s"), Target::family("f"), Target::key("k")] {
        let error = revoker.revoke(target.clone()).until(at).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidInput, "{target:?}");
        assert!(revoker.find(target).await.unwrap().is_none());
    }
    revoker.revoke(Target::token("t")).until(at).await.unwrap();
}

#[tokio::test]
async fn the_order_of_until_and_lifetime_does_not_matter() {
    let revoker = revoker();
    let soon = SystemClock.now().saturating_add(DAY / 2);
    let request = |id| revoker.revoke(Target::token(id));
    let requests = [
        request("short").until(soon),
        request("one").until(soon).lifetime(DAY * 5),
        request("other").lifetime(DAY * 5).until(soon),
        request("longest").until(soon).until(soon.saturating_add(DAY * 5)).until(soon),
    ];
    join_all(requests.map(IntoFuture::into_future)).await;
    assert_eq!(days(&revoker, Target::token("short")).await, 1);
    assert_eq!(days(&revoker, Target::token("one")).await, 5);
    assert_eq!(days(&revoker, Target::token("other")).await, 5);
    assert_eq!(days(&revoker, Target::token("longest")).await, 6);
}

#[tokio::test]
async fn a_retention_is_shared_with_clones_and_never_becomes_shorter() {
    let revoker = revoker();
    let clone = revoker.clone();
    clone.extend_shared_retention(DAY * 30);
    clone.extend_shared_retention(DAY * 10);
    revoker.revoke(Target::user("alice")).await.unwrap();
    assert_eq!(days(&revoker, Target::user("alice")).await, 30);
    revoker.reinstate(Target::user("alice")).lifetime(DAY * 40).await.unwrap();
    assert_eq!(days(&revoker, Target::user("alice")).await, 40);
    revoker.revoke(Target::token("t")).await.unwrap();
    assert!(days(&revoker, Target::token("t")).await <= 2, "a single token has no refresh tokens");
}

#[tokio::test]
async fn a_session_whose_id_comes_again_is_revoked_so_far() {
    let profile = TokenProfile::new().with_recurring_session_ids();
    let revoker = Revoker::new(MemoryStore::new(), profile).unwrap();
    let cutoff = async |revoker: &Revoker, target: Target| {
        revoker.find(target).await.unwrap().unwrap().cutoff()
    };
    revoker.revoke(Target::session("one")).await.unwrap();
    revoker.revoke_many([revoker.revoke(Target::session("two"))]).await.unwrap();
    revoker.revoke(Target::session("gone")).extent(Extent::All).await.unwrap();
    revoker.revoke(Target::family("f")).await.unwrap();
    for (target, is_so_far) in [
        (Target::session("one"), true),
        (Target::session("two"), true),
        (Target::session("gone"), false),
        (Target::family("f"), false),
    ] {
        assert_eq!(cutoff(&revoker, target.clone()).await.is_some(), is_so_far, "{target}");
    }
    let usual = Revoker::new(MemoryStore::new(), TokenProfile::new()).unwrap();
    usual.revoke(Target::session("one")).await.unwrap();
    assert!(cutoff(&usual, Target::session("one")).await.is_none());
}

#[tokio::test]
async fn what_no_claim_feeds_cannot_be_revoked() {
    let part = |issuer: &str| TokenProfile::new().with_issuer(issuer);
    let profile = TokenProfile::combined([
        part("https://a.example").without_claim_target("device_id"),
        part("https://b.example"),
    ]);
    let revoker = Revoker::new(MemoryStore::new(), profile.unwrap()).unwrap();
    let device = |issuer: &str| revoker.revoke(Target::device("d").issued_by(issuer));
    let error = device("https://a.example").await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidInput);
    assert!(error.to_string().contains("with_claim_target"), "{error}");
    device("https://b.example").await.unwrap();
}

#[tokio::test]
async fn every_record_that_covers_a_token_is_named_with_its_reason() {
    let profile = TokenProfile::new();
    let verified = |claims: &str| {
        profile.assert_verified_for_revocation(SignedClaims::new(claims.as_bytes())).unwrap()
    };
    let token =
        verified(r#"{"jti":"t","sub":"alice","sid":"s","client_id":"c","iat":1000,"exp":2000}"#);
    let later = verified(
        r#"{"jti":"l","sub":"alice","sid":"s","client_id":"c","iat":3000000000,"exp":3000001000}"#,
    );
    let revoker = revoker();
    assert_eq!(revoker.explain(&token).await.unwrap(), []);
    let before = SystemClock.now();
    revoker.revoke(Target::user("alice")).reason("password").actor("support:7").await.unwrap();
    revoker.revoke(Target::session("s")).reason("logout").await.unwrap();
    revoker.revoke(Target::client("c")).await.unwrap();
    revoker.reinstate(Target::client("c")).await.unwrap();
    revoker.revoke(Target::user("bob")).await.unwrap();
    let explain = async |token: &VerifiedToken| {
        let records = revoker.explain(token).await.unwrap();
        let told = |record: &Record| {
            assert!(record.changed_at() >= before && record.until() > record.changed_at());
            let words = [record.reason(), record.actor()].map(|text| text.map(ToString::to_string));
            (record.target().kind(), words)
        };
        records.iter().map(told).collect::<Vec<_>>()
    };
    let words = |reason: &str, actor: Option<&str>| [Some(reason.into()), actor.map(Into::into)];
    let by_session = (TargetKind::Session, words("logout", None));
    let by_user = (TargetKind::User, words("password", Some("support:7")));
    let mut found = explain(&token).await;
    found.sort_by_key(|(kind, _)| kind.as_str());
    assert_eq!(found, [by_session.clone(), by_user]);
    assert_eq!(explain(&later).await, [by_session], "it was issued after the cutoff");
}

#[tokio::test]
async fn many_are_revoked_each_as_it_is_asked_for() {
    let revoker = revoker();
    let in_days = |days| SystemClock.now().saturating_add(DAY * days);
    let request = |id| revoker.revoke(Target::token(id)).reason("leaked").actor("ops");
    let requests = [
        request("a").until(in_days(3)),
        request("b").until(in_days(5)).reason("lost"),
        request("c").lifetime(DAY * 9),
    ];
    let many = revoker.revoke_many(requests);
    assert!(revoker.find(Target::token("a")).await.unwrap().is_none(), "it was not awaited");
    assert_eq!(many.await.unwrap().len(), 3);
    for (id, reason, kept) in [("a", "leaked", 4), ("b", "lost", 6), ("c", "leaked", 9)] {
        let record = revoker.find(Target::token(id)).await.unwrap().unwrap();
        assert_eq!(record.reason().map(|text| &**text), Some(reason));
        assert_eq!(record.actor().map(|text| &**text), Some("ops"));
        assert_eq!(days(&revoker, Target::token(id)).await, kept, "with the leeway, {id}");
    }
    assert_eq!(revoker.revoke_many([]).await.unwrap(), []);
}

#[tokio::test]
async fn one_request_that_cannot_be_sent_holds_back_all_and_is_told_to_the_audit() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let successes = || std::mem::take(&mut *heard.lock().unwrap());
    let revoker = revoker().with_audit(Diary(Arc::clone(&heard)));
    let token = || revoker.revoke(Target::token("t"));
    let soon = SystemClock.now();
    let other = Revoker::new(MemoryStore::new(), TokenProfile::new()).unwrap();
    let clone = revoker.clone();
    let stranger = other.revoke(Target::user("u"));
    for bad in [revoker.revoke(Target::user("u")).until(soon), stranger] {
        let error = revoker.revoke_many([token(), bad]).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidInput, "{error}");
        assert!(revoker.find(Target::token("t")).await.unwrap().is_none());
        assert!(other.find(Target::user("u")).await.unwrap().is_none());
        assert!(successes().iter().all(|succeeded| !succeeded));
    }
    let profile =
        ["https://a.example", "https://b.example"].map(|at| TokenProfile::new().with_issuer(at));
    let a = Revoker::new(MemoryStore::new(), TokenProfile::combined(profile).unwrap()).unwrap();
    let b = a.clone().with_default_issuer("https://b.example").unwrap();
    let a = a.with_default_issuer("https://a.example").unwrap();
    let error = a.revoke_many([b.revoke(Target::user("u"))]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::InvalidInput, "it would be another user");
    clone.revoke_many([token(), clone.revoke(Target::user("u"))]).await.unwrap();
    assert_eq!(successes(), [true, true]);
}

/// Whether what was audited succeeded.
struct Diary(Arc<Mutex<Vec<bool>>>);

impl AuditSink for Diary {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().unwrap().push(!event.is_failed());
    }
}
