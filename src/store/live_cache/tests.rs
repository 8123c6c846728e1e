use std::time::Duration;

use super::*;
use crate::revocation::Target;
use crate::store::StoreErrorKind;
use crate::store::scripted::ScriptedStore;
use crate::token::TokenProfile;
use crate::token::profile::SignedClaims;

const REMEMBERED: Duration = Duration::from_secs(2);

fn token(id: &str) -> Arc<VerifiedToken> {
    let now = SystemClock.now();
    let claims =
        format!(r#"{{"jti":"{id}","iat":{},"exp":{}}}"#, now.as_secs(), now.as_secs() + 600);
    Arc::new(TokenProfile::new().assert_verified(SignedClaims::new(claims.as_bytes())).unwrap())
}

/// A store that has to be waited for, and one before it that remembers.
fn stores() -> (ScriptedStore, LiveCache<ScriptedStore>) {
    let far = ScriptedStore::new();
    far.answer_later();
    (far.clone(), LiveCache::new(far, REMEMBERED).unwrap())
}

async fn ask(
    store: &impl RevocationStore,
    token: &Arc<VerifiedToken>,
) -> Result<Standing, StoreError> {
    store.check(token).answer().await
}

fn revocation(id: &str) -> Vec<Revocation> {
    vec![Revocation::new(Target::token(id), Duration::from_secs(600))]
}

#[test]
fn how_long_it_remembers_is_bounded() {
    for wrong in [Duration::ZERO, MAX_REMEMBERED + Duration::from_nanos(1)] {
        let error = LiveCache::new(ScriptedStore::new(), wrong).unwrap_err();
        assert_eq!(error.setting(), "remembered");
    }
    LiveCache::new(ScriptedStore::new(), MAX_REMEMBERED).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_live_token_is_asked_for_once_until_the_time_is_over_and_says_how_old_it_is() {
    let (far, store) = stores();
    let token = token("t");
    assert_eq!(ask(&store, &token).await.unwrap(), Standing::Live);
    far.fail(StoreErrorKind::Timeout);
    tokio::time::advance(Duration::from_millis(1999)).await;
    let Standing::WasLive { ago } = ask(&store, &token).await.unwrap() else {
        panic!("not remembered")
    };
    assert!(ago >= Duration::from_millis(1999) && ago < REMEMBERED, "{ago:?}");
    tokio::time::advance(Duration::from_millis(1)).await;
    ask(&store, &token).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_time_counts_from_the_question_and_not_from_its_answer() {
    let (far, store) = stores();
    let token = token("t");
    far.hang();
    let answer = store.check(&token).answer();
    tokio::time::advance(REMEMBERED).await;
    far.answer_later();
    assert_eq!(answer.await.unwrap(), Standing::Live);
    let asked = far.checks();
    assert_eq!(ask(&store, &token).await.unwrap(), Standing::Live);
    assert_eq!(far.checks(), asked + 1);
}

#[tokio::test(start_paused = true)]
async fn neither_refusals_nor_errors_are_remembered() {
    let (far, store) = stores();
    let token = token("t");
    far.fail_later(StoreErrorKind::Timeout);
    ask(&store, &token).await.unwrap_err();
    far.answer_later();
    assert_eq!(ask(&store, &token).await.unwrap(), Standing::Live);
    store.write(revocation("t")).await.unwrap();
    assert!(matches!(ask(&store, &token).await.unwrap(), Standing::Revoked(_)));
    let mut undo = revocation("t");
    undo[0].action = crate::revocation::Action::Reinstate;
    far.write(undo).await.unwrap();
    assert_eq!(
        ask(&store, &token).await.unwrap(),
        Standing::Live,
        "a reinstatement counts at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_through_it_counts_at_once_also_for_what_was_asked_before_and_answered_later() {
    let (_, store) = stores();
    let (known, under_way) = (token("known"), token("under way"));
    assert_eq!(ask(&store, &known).await.unwrap(), Standing::Live);
    let late = store.check(&under_way).answer();
    store.clone().write(revocation("known")).await.unwrap();
    assert!(matches!(ask(&store, &known).await.unwrap(), Standing::Revoked(_)));
    // Asked before the write, so whatever it says may not be kept; also if nobody waited for the
    // write.
    assert_eq!(late.await.unwrap(), Standing::Live);
    assert_eq!(ask(&store, &under_way).await.unwrap(), Standing::Live);
    drop(store.write(revocation("other")));
    assert_eq!(ask(&store, &under_way).await.unwrap(), Standing::Live);
    assert!(matches!(ask(&store, &under_way).await.unwrap(), Standing::WasLive { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_write_of_another_process_counts_when_the_time_is_over() {
    let (far, store) = stores();
    let token = token("t");
    assert_eq!(ask(&store, &token).await.unwrap(), Standing::Live);
    far.write(revocation("t")).await.unwrap();
    assert!(matches!(ask(&store, &token).await.unwrap(), Standing::WasLive { .. }));
    tokio::time::advance(REMEMBERED).await;
    assert!(matches!(ask(&store, &token).await.unwrap(), Standing::Revoked(_)));
}

#[tokio::test(start_paused = true)]
async fn tokens_that_meet_are_not_mistaken_for_each_other() {
    let (far, _) = stores();
    let store = LiveCache::new(far, REMEMBERED).unwrap().with_capacity(NonZeroUsize::MIN);
    for id in ["a", "b", "a"] {
        assert_eq!(ask(&store, &token(id)).await.unwrap(), Standing::Live, "{id}");
    }
}

#[test]
fn the_name_of_a_token_says_all_that_its_standing_depends_on() {
    let token = token("t");
    assert_eq!(name(&token), name(&token.presented_as("x", Needs::Claims)));
    let as_x = name(&token.presented_as("x", Needs::Text));
    assert_eq!(as_x, name(&token.presented_as("x", Needs::Digest)));
    assert_ne!(as_x, name(&token.presented_as("y", Needs::Text)));
    assert_ne!(as_x, name(&token));
    let claims = token.payload();
    let by = |kid| TokenProfile::new().assert_verified(SignedClaims::new(claims).with_key_id(kid));
    assert_ne!(name(&by(Some("a")).unwrap()), name(&by(Some("b")).unwrap()));
}

#[test]
fn a_place_takes_as_much_memory_as_the_documentation_says() {
    assert!(size_of::<Place>() <= 96, "{}", size_of::<Place>());
}
