//! What was begun with a token ends when a request with it would be refused, over any store.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, advance, timeout};
use tower_jwt_revocation::clock::{ManualClock, Timestamp};
use tower_jwt_revocation::middleware::EndWithTokenLayer;
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::scripted::ScriptedStore;
use tower_jwt_revocation::store::{RevocationStore, StoreErrorKind};
use tower_jwt_revocation::token::TokenErrorKind;
use tower_jwt_revocation::{
    FailMode, JwtRevocationLayer, MemoryStore, Target, TokenProfile, VerifiedToken,
};

use crate::support::{Around, WordVerifier, claims, signed, token};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here takes, by a clock that stands still but for this.
const LONG: Duration = Duration::from_secs(100);

fn layer(store: impl RevocationStore) -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::default(), store)
}

#[tokio::test]
async fn a_store_in_memory_ends_what_is_open_at_once() {
    let layer = layer(MemoryStore::new());
    let ending = EndWithTokenLayer::new(&layer);
    let clearance = layer.check(&token("alice", "a")).await.unwrap();
    let mut ended = Box::pin(ending.ended(&clearance));
    assert!(ended.as_mut().now_or_never().is_none());
    layer.revoker().revoke(Target::user("bob")).await.unwrap();
    assert!(ended.as_mut().now_or_never().is_none(), "bob is not alice");
    layer.revoker().revoke(Target::user("alice")).await.unwrap();
    // Woken by the write, and not by a timer, which would not have run yet.
    let rejection = ended.now_or_never().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::Revoked(TargetKind::User));
    let late = ending.ended(&clearance).now_or_never().unwrap();
    assert_eq!(late.kind(), rejection.kind(), "what was revoked before ends at once");
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_only_reports_ends_nothing() {
    let layer = layer(MemoryStore::new()).with_report_only();
    let clearance = layer.check(&token("alice", "a")).await.unwrap();
    layer.revoker().revoke(Target::user("alice")).await.unwrap();
    let ending = EndWithTokenLayer::new(&layer);
    assert!(timeout(LONG, ending.ended(&clearance)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_tell_by_itself_is_asked() {
    let store = MemoryStore::new();
    let silent =
        Around(store.clone(), |store: &MemoryStore, token: &Arc<VerifiedToken>| store.check(token));
    let layer = layer(silent);
    let ending = EndWithTokenLayer::new(&layer).with_max_blind(4 * SECOND);
    let clearance = layer.check(&token("alice", "a")).await.unwrap();
    assert!(timeout(LONG, ending.ended(&clearance)).await.is_err(), "it is live");
    layer.revoker().revoke(Target::token("a")).await.unwrap();
    let rejection = timeout(SECOND * 3 / 2, ending.ended(&clearance)).await.unwrap();
    assert_eq!(rejection.kind(), RejectionKind::Revoked(TargetKind::Token));
}

#[tokio::test(start_paused = true)]
async fn what_is_open_ends_when_a_request_would_be_expired_and_not_before() {
    let clock = ManualClock::new(Timestamp::now());
    let profile = TokenProfile::new().with_leeway(30 * SECOND).with_clock(clock.clone());
    let layer = JwtRevocationLayer::new(WordVerifier::of(profile), MemoryStore::new());
    let mut short = claims("alice", "a");
    short["exp"] = (short["iat"].as_u64().unwrap() + 10).into();
    let short = signed(&short);
    let clearance = layer.check(&short).await.unwrap();
    let ending = EndWithTokenLayer::new(&layer);
    let ended = ending.ended(&clearance);
    tokio::pin!(ended);
    let exp = clearance.token().expires_at();
    clock.set(exp.saturating_add(Duration::from_millis(29_999)));
    assert!(timeout(LONG, ended.as_mut()).await.is_err());
    layer.check(&short).await.expect("a request passes for as long");
    clock.advance(Duration::from_millis(1));
    let rejection = timeout(LONG, ended).await.unwrap();
    let expired = RejectionKind::InvalidToken(TokenErrorKind::Expired);
    assert_eq!(rejection.kind(), expired);
    assert_eq!(layer.check(&short).await.unwrap_err().kind(), expired);
}

/// After how long what is open ends, and why, when the store begins to fail like this.
async fn ends(mode: FailMode, kind: StoreErrorKind) -> Option<(RejectionKind, Duration)> {
    let store = ScriptedStore::new();
    let layer = layer(store.clone()).with_fail_mode(mode);
    let ending = EndWithTokenLayer::new(&layer);
    let clearance = layer.check(&token("alice", "a")).await.unwrap();
    let ended = ending.ended(&clearance);
    tokio::pin!(ended);
    assert!(timeout(LONG, ended.as_mut()).await.is_err(), "while all is well it goes on");
    store.fail(kind);
    let start = Instant::now();
    let rejection = timeout(LONG, ended).await.ok()?;
    Some((rejection.kind(), start.elapsed()))
}

#[tokio::test(start_paused = true)]
async fn while_nobody_can_tell_what_is_open_goes_on_for_the_blind_time_in_fail_mode_closed() {
    for kind in [StoreErrorKind::Timeout, StoreErrorKind::Settling, StoreErrorKind::Overloaded] {
        let (why, after) = ends(FailMode::Closed, kind).await.unwrap();
        assert_eq!(why, RejectionKind::StandingUnknown(kind));
        // Counted from the last answer, and seen at the next question.
        assert!(after > 7 * SECOND && after < 13 * SECOND, "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_lasting_doubt_what_is_open_ends_at_the_next_question() {
    let (why, after) = ends(FailMode::Closed, StoreErrorKind::DataLoss).await.unwrap();
    assert_eq!(why, RejectionKind::InDoubt);
    assert!(after < 3 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn in_fail_mode_open_no_outage_ends_what_is_open() {
    for kind in [StoreErrorKind::Timeout, StoreErrorKind::Settling, StoreErrorKind::DataLoss] {
        assert_eq!(ends(FailMode::Open, kind).await, None);
    }
    // Load is no outage, and is refused in this mode, too.
    assert!(ends(FailMode::Open, StoreErrorKind::Overloaded).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_blip_ends_nothing_however_often_it_comes() {
    let store = ScriptedStore::new();
    let layer = layer(store.clone());
    let clearance = layer.check(&token("alice", "a")).await.unwrap();
    let ended = tokio::spawn(EndWithTokenLayer::new(&layer).ended(&clearance));
    for _ in 0..20 {
        store.fail(StoreErrorKind::Unreachable);
        advance_by(4 * SECOND).await;
        store.answer();
        advance_by(4 * SECOND).await;
    }
    assert!(!ended.is_finished());
    // Also one that does not answer at all is given up.
    store.hang();
    let why = timeout(LONG, ended).await.unwrap().unwrap();
    assert_eq!(why.kind(), RejectionKind::StandingUnknown(StoreErrorKind::Timeout));
}

/// In steps, so that the timers run between.
async fn advance_by(time: Duration) {
    for _ in 0..time.as_millis() / 100 {
        advance(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_knows_the_fail_mode_and_for_how_long_the_store_has_been_away() {
    let store = ScriptedStore::new();
    let closed = layer(store.clone());
    let open = layer(store.clone()).with_fail_mode(FailMode::Open);
    let told = |layer: &JwtRevocationLayer| {
        let readiness = layer.readiness();
        (readiness.is_ready(), readiness.is_degraded())
    };
    assert_eq!((told(&closed), told(&open)), ((true, false), (true, false)));
    store.fail(StoreErrorKind::Unreachable);
    advance(Duration::from_millis(9_999)).await;
    assert_eq!((told(&closed), told(&open)), ((true, true), (true, true)), "a blip");
    advance(Duration::from_millis(1)).await;
    assert_eq!((told(&closed), told(&open)), ((false, true), (true, true)), "an outage");
    store.fail(StoreErrorKind::Settling);
    advance(LONG).await;
    assert_eq!(told(&closed), (true, true), "it settles");
    store.answer();
    let json = serde_json::to_string(&closed.readiness()).unwrap();
    assert_eq!(json, r#"{"ready":true,"degraded":false,"reason":null}"#);
}
