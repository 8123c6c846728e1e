//! Tokens that no request has brought: messages, jobs, command lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::audit::{AuditEvent, AuditSink};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::TargetKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::token::{TokenError, TokenErrorKind, TokenVerifier, UpstreamClaims};
use tower_jwt_revocation::{
    CachedVerifier, Clearance, FailMode, JwtRevocationLayer, MemoryStore, Rejection, Target,
    TokenProfile, VerifiedToken,
};

use crate::support::{
    DeadStore, Handler, WordVerifier, claims, expired_token, late_store, layer,
    layer_without_store, rejection, seen, signed, token, with_token,
};

#[derive(Default)]
struct EventCount(AtomicUsize);

impl AuditSink for EventCount {
    fn record(&self, _: &AuditEvent) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn outcome(result: &Result<Clearance, Rejection>) -> Result<bool, RejectionKind> {
    result.as_ref().map(Clearance::is_checked).map_err(Rejection::kind)
}

async fn in_a_request(layer: &JwtRevocationLayer, token: &str) -> Result<bool, RejectionKind> {
    let answer = layer.layer(Handler).oneshot(with_token(token)).await.unwrap();
    if answer.status().is_success() {
        return Ok(seen(&answer).clearance.as_ref().unwrap().is_checked());
    }
    Err(rejection(&answer).kind())
}

#[tokio::test]
async fn a_token_outside_of_a_request_gets_the_same_answer_as_in_one() {
    let cached = CachedVerifier::new(WordVerifier::default());
    for layer in [
        layer(),
        JwtRevocationLayer::new(WordVerifier::default(), late_store()),
        JwtRevocationLayer::new(cached, MemoryStore::new()),
        layer_without_store(),
        layer_without_store().with_fail_mode(FailMode::Open),
    ] {
        // Where the store is dead, nothing can be written either.
        let _ = layer.revoker().revoke(Target::user("mallory")).await;
        let (good, revoked) = (token("alice", "1"), token("mallory", "2"));
        for token in [&*good, &good, &revoked, &expired_token(), "junk", "a b", "é"] {
            let outside = layer.check(token).await;
            assert_eq!(outcome(&outside), in_a_request(&layer, token).await, "{token} {layer:?}");
        }
        // An empty token is none.
        assert_eq!(outcome(&layer.check("").await), Err(RejectionKind::BadRequest));
    }
    assert_eq!(outcome(&layer().check(&token("alice", "1")).await), Ok(true));
    let clearance = layer().check(&token("alice", "1")).await.unwrap();
    assert_eq!(clearance.token().subject(), Some("alice"));
}

/// A connection that stays open: each message is checked anew, whatever was known of the token
/// before.
#[tokio::test]
async fn each_message_of_a_stream_is_checked_anew() {
    let verifier = CachedVerifier::new(WordVerifier::default());
    let layer = JwtRevocationLayer::new(verifier, MemoryStore::new());
    let (mine, other) = (token("alice", "1"), token("bob", "2"));
    for _ in 0..3 {
        for token in [&mine, &other] {
            assert_eq!(outcome(&layer.check(token).await), Ok(true));
        }
        layer.revoker().revoke(Target::user("alice")).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let (layer, mine) = (layer.clone(), mine.clone());
            waiting.push(tokio::spawn(async move { outcome(&layer.check(&mine).await) }));
        }
        for answer in waiting {
            assert_eq!(answer.await.unwrap(), Err(RejectionKind::Revoked(TargetKind::User)));
        }
        assert_eq!(outcome(&layer.check(&other).await), Ok(true));
        layer.revoker().reinstate(Target::user("alice")).await.unwrap();
    }
    let counts = layer.counters().snapshot();
    assert_eq!((counts.admitted, counts.refused.revoked), (9, 24));
}

#[tokio::test]
async fn it_is_counted_and_audited_like_a_request() {
    let events = Arc::new(EventCount::default());
    let layer = layer().with_audit(Arc::clone(&events));
    layer.revoker().revoke(Target::user("mallory")).await.unwrap();
    let written = events.0.load(Relaxed);
    layer.check(&token("alice", "1")).await.unwrap();
    layer.check(&token("mallory", "2")).await.unwrap_err();
    layer.check("junk").await.unwrap_err();
    let counts = layer.counters().snapshot();
    assert_eq!((counts.admitted, counts.refused.revoked, counts.refused.invalid_token), (1, 1, 1));
    assert_eq!(events.0.load(Relaxed) - written, 1, "the revoked token");

    let reporting = layer.with_report_only();
    let refused = reporting.check(&token("mallory", "2")).await;
    assert_eq!(outcome(&refused), Err(RejectionKind::Revoked(TargetKind::User)));
    assert_eq!(reporting.counters().snapshot().would_refuse.revoked, 1);
}

#[tokio::test]
async fn events_of_requests_say_what_the_application_wants_to_know() {
    #[derive(Default)]
    struct Kept(std::sync::Mutex<Vec<AuditEvent>>);

    impl AuditSink for Kept {
        fn record(&self, event: &AuditEvent) {
            self.0.lock().unwrap().push(event.clone());
        }
    }

    for is_late in [false, true] {
        let kept = Arc::new(Kept::default());
        let layer = if is_late {
            JwtRevocationLayer::new(WordVerifier::default(), late_store())
        } else {
            layer()
        };
        let layer = layer.with_audit(Arc::clone(&kept)).with_audit_facts(|head, event| {
            let event = event.with_field("method", Some(head.method().as_str()));
            event.with_field("path", Some(head.uri().path())).with_field("ts", Some("never"))
        });
        let revoker = layer.revoker();
        revoker.revoke(Target::user("mallory")).fact("peer", "::1").await.unwrap();
        for _ in 0..3 {
            let request = with_token(&token("mallory", "1"));
            let answer = layer.layer(Handler).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), http::StatusCode::UNAUTHORIZED);
        }
        let events = kept.0.lock().unwrap();
        // The second and the third refusal are counted, and told later.
        let [written, refused] = &**events else { panic!("{events:?}") };
        assert_eq!(written.field("peer"), Some("::1"));
        assert_eq!((refused.field("method"), refused.field("path")), (Some("GET"), Some("/")));
        let json = serde_json::to_value(refused).unwrap();
        assert!(json["ts"] != "never" && json["path"] == "/", "{json}");
    }
}

#[tokio::test]
async fn a_fail_mode_that_depends_on_the_request_is_closed_without_one() {
    let layer =
        JwtRevocationLayer::new(WordVerifier::default(), DeadStore(StoreErrorKind::Unreachable))
            .with_fail_mode_for(|_, _| FailMode::Open);
    assert_eq!(in_a_request(&layer, &token("alice", "1")).await, Ok(false));
    assert_eq!(
        outcome(&layer.check(&token("alice", "1")).await),
        Err(RejectionKind::StandingUnknown(StoreErrorKind::Unreachable))
    );
}

#[tokio::test]
async fn what_belongs_to_requests_lets_nothing_pass_without_a_token() {
    let layer = layer().with_optional_credentials().with_exemption(|_| true);
    assert_eq!(outcome(&layer.check("").await), Err(RejectionKind::BadRequest));
    assert_eq!(
        outcome(&layer.check("junk").await),
        Err(RejectionKind::InvalidToken(TokenErrorKind::BadSignature))
    );
}

#[tokio::test]
async fn a_layer_behind_another_one_says_that_it_cannot_verify() {
    let claims = UpstreamClaims::in_extension::<u8>(TokenProfile::new()).unwrap();
    let layer = JwtRevocationLayer::behind(claims, MemoryStore::new());
    let refused = layer.check(&token("alice", "1")).await.unwrap_err();
    assert_eq!(refused.kind(), RejectionKind::InvalidToken(TokenErrorKind::Other));
    assert!(refused.to_string().contains("another one has verified"), "{refused}");
}

/// A verifier that must not be asked.
struct NeverAsked(TokenProfile);

impl TokenVerifier for NeverAsked {
    fn verify(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        panic!("the token was looked at");
    }

    fn verify_for_revocation(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        panic!("the token was looked at");
    }

    fn profile(&self) -> &TokenProfile {
        &self.0
    }

    fn generation(&self) -> u64 {
        panic!("the cache was looked at");
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_is_refused_by_its_length_alone() {
    let never = || NeverAsked(TokenProfile::new().with_max_token_bytes(60_000));
    // The second has a character that no token has.
    for long in ["a".repeat(60_001), ",".repeat(60_001)] {
        let kind = RejectionKind::InvalidToken(TokenErrorKind::TooLong);
        for layer in [
            JwtRevocationLayer::new(never(), MemoryStore::new()),
            JwtRevocationLayer::new(CachedVerifier::new(never()), MemoryStore::new()),
        ] {
            assert_eq!(outcome(&layer.check(&long).await), Err(kind));
            assert_eq!(in_a_request(&layer, &long).await, Err(kind));
            let more = layer
                .with_token_sources([TokenSource::bearer(), TokenSource::cookie("t").unwrap()]);
            assert_eq!(in_a_request(&more, &long).await, Err(kind));
        }
    }
}

#[tokio::test]
async fn no_limit_stands_in_the_way_of_the_one_that_can_be_set() {
    let profile = TokenProfile::new().with_max_token_bytes(200_000);
    let layer = JwtRevocationLayer::new(WordVerifier::of(profile), MemoryStore::new());
    let mut claims = claims("alice", "1");
    claims["groups"] = serde_json::json!(vec!["0".repeat(36); 3000]);
    let long = signed(&claims);
    assert!(long.len() > 150_000);
    assert_eq!(in_a_request(&layer, &long).await, Ok(true));
    assert_eq!(outcome(&layer.check(&long).await), Ok(true));
}

#[tokio::test]
async fn it_can_be_awaited_in_a_task() {
    let layer = JwtRevocationLayer::new(WordVerifier::default(), late_store());
    let task = tokio::spawn(async move { layer.check(&token("alice", "1")).await });
    assert!(task.await.unwrap().is_ok());
}
