//! Events of our own, made of what was audited.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::event_tests::{OP, SECEVENT, caep, key};
use super::tests::post;
use super::*;
use crate::audit::{AuditEvent, AuditKind, AuditSink};
use crate::clock::{Clock as _, ManualClock, SystemClock, Timestamp};
use crate::middleware::JwtRevocationLayer;
use crate::revocation::{Extent, Target, TargetKind};
use crate::revoker::Revoker;
use crate::store::memory::MemoryStore;
use crate::testing::TestProvider;
use crate::token::jwt::JwtVerifier;
use crate::token::{IssuerSet, TokenProfile};

fn claims_of(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap_or_default()
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn audit_events_are_told_as_events_of_caep() {
    let clock = ManualClock::new(Timestamp::from_millis(1_615_305_159_500));
    let events = SecurityEventIssuer::new(key().with_kid("k1").unwrap(), OP, "https://rp.example")
        .unwrap()
        .with_subject_issuer("https://own.example")
        .with_clock(clock);
    let own = |sub: &str| json!({ "format": "iss_sub", "iss": "https://own.example", "sub": sub });
    let opaque = |id: &str| json!({ "format": "opaque", "id": id });
    let revoke = |kind| AuditEvent::new(AuditKind::Revoke(kind));
    let other = Target::user("bob").issued_by("https://other.example");
    let told = [
        (revoke(TargetKind::User).with_subject(Some("alice")), own("alice")),
        (
            revoke(TargetKind::User).with_target(&other),
            json!({ "format": "iss_sub", "iss": "https://other.example", "sub": "bob" }),
        ),
        (
            revoke(TargetKind::Session).with_session(Some("s")),
            json!({ "format": "complex", "session": opaque("s") }),
        ),
        (
            revoke(TargetKind::Session).with_session(Some("s")).with_subject(Some("alice")),
            json!({ "format": "complex", "session": opaque("s"), "user": own("alice") }),
        ),
        (
            revoke(TargetKind::Family).with_family(Some("f")).with_session(Some("s")),
            json!({ "format": "complex", "session": opaque("s") }),
        ),
        (
            revoke(TargetKind::Device).with_device(Some("d")),
            json!({ "format": "complex", "device": opaque("d") }),
        ),
        (
            revoke(TargetKind::Token).with_token_id(Some("t")),
            json!({ "format": "jwt_id", "iss": "https://own.example", "jti": "t" }),
        ),
        (
            AuditEvent::new(AuditKind::Login).with_session(Some("s")).with_subject(Some("alice")),
            json!({ "format": "complex", "session": opaque("s"), "user": own("alice") }),
        ),
    ];
    let mut ids = BTreeSet::new();
    for (event, subject) in told {
        let event = event.with_reason(Some("left the company"));
        let (header, claims) = claims_of(&events.issue_audited(&event).unwrap().unwrap());
        assert_eq!(header, json!({ "alg": "HS256", "typ": "secevent+jwt", "kid": "k1" }));
        let name = match event.kind() {
            AuditKind::Login => "session-established",
            _ => "session-revoked",
        };
        let id = claims["jti"].as_str().unwrap().to_owned();
        let expected = json!({
            "iss": OP, "aud": "https://rp.example", "iat": 1_615_305_159, "jti": id,
            "sub_id": subject,
            "events": {
                caep(name): {
                    "event_timestamp": event.at().as_secs(),
                    "reason_admin": { "en": "left the company" },
                }
            },
        });
        assert_eq!(claims, expected);
        assert!(ids.insert(id), "each has an id of its own");
    }
    for event in [
        AuditEvent::new(AuditKind::Refresh).with_subject(Some("alice")),
        AuditEvent::new(AuditKind::RefreshReuse).with_subject(Some("alice")),
        AuditEvent::new(AuditKind::Reinstate(TargetKind::User)).with_subject(Some("alice")),
        AuditEvent::new(AuditKind::Custom("password_changed")).with_subject(Some("alice")),
        revoke(TargetKind::User).with_subject(Some("alice")).failed(),
        revoke(TargetKind::User),
        revoke(TargetKind::Family).with_family(Some("f")),
        revoke(TargetKind::Issuer).with_target(&Target::issuer("https://own.example")),
        // A token that somebody gave for the id is not repeated.
        revoke(TargetKind::User).with_subject(Some("eyJhbGciOiJub25lIn0.e30.x")),
    ] {
        assert_eq!(events.issue_audited(&event).unwrap(), None, "{event:?}");
    }
    // What only the program knows.
    let details = json!({ "credential_type": "password", "change_type": "update" });
    let token = events.issue(&caep("credential-change"), &own("alice"), &details).unwrap();
    assert_eq!(claims_of(&token).1["events"], json!({ caep("credential-change"): details }));
    events.issue("x", &json!("alice"), &json!({})).unwrap_err();
    events.issue("x", &json!({}), &json!(null)).unwrap_err();
    for (issuer, audience, setting) in [("", "x", "issuer"), ("x", "", "audience")] {
        let refused = SecurityEventIssuer::new(key(), issuer, audience).unwrap_err();
        assert_eq!(refused.setting(), setting);
    }
}

/// Keeps the events of one side, for the other.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Kept {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// An event cannot say which session it spares, and without a time it would end what was issued
/// after the cutoff.
#[tokio::test]
async fn what_is_told_ends_no_more_than_what_was_revoked() {
    let kept = Kept::default();
    let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new()).unwrap();
    let revoker = revoker.with_audit(kept.clone());
    let events = SecurityEventIssuer::new(key(), OP, "https://rp.example").unwrap();
    let alice = || revoker.revoke(Target::user("alice"));
    let told = || {
        let event = kept.0.lock().unwrap().pop().unwrap();
        let token = events.issue_audited(&event).unwrap();
        let claims = token.map(|token| claims_of(&token).1);
        (event, claims.map(|claims| claims["events"][caep("session-revoked")].clone()))
    };

    alice().sparing("s").await.unwrap();
    assert_eq!(told().1, None);

    let past = Timestamp::from_millis(1_600_000_000_250);
    alice().extent(Extent::IssuedUntil(past)).await.unwrap();
    let (event, about) = told();
    assert_eq!(event.field("issued_until"), Some("2020-09-13T12:26:40.250Z"));
    assert_eq!(about.unwrap()["event_timestamp"], 1_600_000_000);

    // Up to now is the most that an event says.
    let future = SystemClock.now().saturating_add(Duration::from_secs(3600));
    for request in [alice().extent(Extent::IssuedUntil(future)), alice()] {
        request.await.unwrap();
        let (event, about) = told();
        assert_eq!(about.unwrap()["event_timestamp"], event.at().as_secs());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What one server has revoked is refused by another that is told of it by events: that, and no
    /// more. Both accept the tokens of the same two issuers.
    #[test]
    fn what_is_revoked_here_is_refused_where_the_events_are_received(
        revoked in prop::collection::vec((0..3_u8, 0..2_usize, 0..2_usize), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let issuers = ["https://own.example", OP];
            let providers = issuers.map(|issuer| TestProvider::new(issuer, "us").unwrap());
            let verifiers = || {
                let set = IssuerSet::new(providers[0].verifier().unwrap()).unwrap();
                set.with(providers[1].verifier().unwrap()).unwrap()
            };
            let kept = Kept::default();
            let source = JwtRevocationLayer::new(verifiers(), MemoryStore::new());
            let source = source.with_audit(kept.clone());
            let store = MemoryStore::new();
            let receiving = JwtRevocationLayer::new(verifiers(), store.clone());
            let revoker = receiving.revoker().with_default_issuer(issuers[0]).unwrap();
            let subjects = SubjectRevoker::new(revoker);
            let profile = TokenProfile::new().with_issuer("https://here.example");
            let profile = profile.with_audience("https://there.example");
            let transmitter = JwtVerifier::new([key().verification_key()], profile).unwrap();
            let receiver = EventReceiver::new(subjects, ReplayGuard::new(store));
            let endpoint = receiver.with(transmitter).unwrap().into_endpoint();
            let events =
                SecurityEventIssuer::new(key(), "https://here.example", "https://there.example");
            let events = events.unwrap().with_subject_issuer(issuers[0]);

            let mut tokens = Vec::new();
            for (number, provider) in providers.iter().enumerate() {
                for user in ["u0", "u1"] {
                    for session in ["s0", "s1"] {
                        let mut claims = provider.claims();
                        claims["sub"] = user.into();
                        claims["sid"] = session.into();
                        claims["jti"] = format!("{user}-{session}").into();
                        claims["iat"] = (SystemClock.now().as_secs() - 5).into();
                        claims["exp"] = (SystemClock.now().as_secs() + 60).into();
                        tokens.push((number, provider.sign(None, &claims)));
                    }
                }
            }
            for (kind, issuer, which) in revoked {
                let target = match kind {
                    0 => Target::user(format!("u{which}")),
                    1 => Target::session(format!("s{which}")),
                    _ => Target::token(format!("u{which}-s0")),
                };
                source.revoker().revoke(target.issued_by(issuers[issuer])).await.unwrap();
            }
            let told = kept.0.lock().unwrap().clone();
            for event in told {
                let Some(token) = events.issue_audited(&event).unwrap() else { continue };
                let (status, body) = post(&endpoint, SECEVENT, &token).await;
                prop_assert_eq!(status, 202, "{}", body);
            }
            for (issuer, token) in &tokens {
                let by_source = source.check(token).await.is_err();
                let by_receiver = receiving.check(token).await.is_err();
                prop_assert_eq!(by_source, by_receiver, "of issuer {}", issuer);
            }
            Ok(())
        })?;
    }
}
