//! The examples of the specifications, effects of the program, a store that fails at each step,
//! and events of our own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::revocation::FORM;
use super::tests::post;
use super::*;
use crate::audit::{AuditEvent, AuditKind, AuditSink};
use crate::clock::{Clock as _, ManualClock, SystemClock, Timestamp};
use crate::middleware::JwtRevocationLayer;
use crate::revocation::{Record, Revocation, Target, TargetKind};
use crate::session::{Login, RefreshPolicy, SessionDetails, Sessions};
use crate::store::memory::MemoryStore;
use crate::store::session::{Commit, Committed, SessionStore, Snapshot};
use crate::store::{
    ListQuery, Lookup, Receipt, RecordPage, RevocationStore, StoreError, StoreErrorKind,
};
use crate::testing::TestProvider;
use crate::token::jwt::{JwtVerifier, SigningKey};
use crate::token::{Algorithm, IssuerSet, TokenProfile};
use crate::verified::VerifiedToken;

const SECEVENT: &str = "application/secevent+jwt";
const OP: &str = "https://op.example";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

/// The key of all who sign in these tests.
fn key() -> SigningKey {
    SigningKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap()
}

fn sign(typ: Option<&str>, claims: &Value) -> String {
    let header = match typ {
        Some(typ) => json!({ "alg": "HS256", "typ": typ }),
        None => json!({ "alg": "HS256" }),
    };
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let input = format!("{}.{}", encode(&header), encode(claims));
    format!("{input}.{}", key().sign(&input).unwrap())
}

// === Examples ===

/// What stands in an example, received when it was sent, by someone who accepts the tokens of its
/// issuer: the status, and which of the tokens that it could be about are refused afterwards.
async fn received(example: &Value, subject: &Value, typ: Option<&str>) -> (u16, String) {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let iat = example["iat"].as_u64().unwrap();
    let issuer = text(&example["iss"]).unwrap();
    // Some subjects belong to another issuer than their transmitter.
    let owner = text(&subject["iss"]).unwrap_or_else(|| issuer.clone());
    let audience = match &example["aud"] {
        Value::Array(names) => text(&names[0]).unwrap(),
        name => text(name).unwrap(),
    };
    let clock = ManualClock::new(Timestamp::from_secs(iat + 5));
    let profile = |issuer: &str| {
        let profile = TokenProfile::new().with_issuer(issuer).with_audience(audience.as_str());
        profile.with_clock(clock.clone())
    };
    let verifier =
        |issuer: &str| JwtVerifier::new([key().verification_key()], profile(issuer)).unwrap();
    let store = MemoryStore::new().with_clock(clock.clone());
    let layer = JwtRevocationLayer::new(verifier(&owner), store.clone());
    let revoker = layer.revoker();
    let guard = ReplayGuard::new(store);
    let first = |values: &[&Value]| values.iter().find_map(|value| text(value));
    let user =
        first(&[&subject["user"]["sub"], &subject["sub"], &subject["email"], &subject["id"]]);
    let session = first(&[&subject["session"]["id"], &subject["sid"]]);
    let device = first(&[&subject["device"]["sub"]]);
    let (user, session) = (user.unwrap_or("u".into()), session.unwrap_or("s".into()));
    let (id, device) =
        (first(&[&subject["jti"]]).unwrap_or("t".into()), device.unwrap_or("d".into()));
    let tokens = [
        ("user", json!({ "sub": user, "sid": "s0", "jti": "t0" })),
        ("session", json!({ "sub": user, "sid": session, "jti": "t1" })),
        ("token", json!({ "sub": "u0", "sid": "s1", "jti": id })),
        ("device", json!({ "sub": "u0", "sid": "s2", "jti": "t2", "device_id": device })),
        ("bystander", json!({ "sub": "u1", "sid": "s3", "jti": "t3" })),
    ]
    .map(|(name, mut claims)| {
        claims["iss"] = owner.as_str().into();
        claims["aud"] = audience.as_str().into();
        claims["iat"] = (iat - 300).into();
        claims["exp"] = (iat + 300).into();
        (name, sign(None, &claims))
    });
    let token = sign(typ, example);
    let (status, _) = if typ == Some("secevent+jwt") {
        let events = EventReceiver::new(SubjectRevoker::new(revoker), guard);
        let endpoint = events.with(verifier(&issuer)).unwrap().into_endpoint();
        post(&endpoint, SECEVENT, &token).await
    } else {
        let logout = LogoutReceiver::new(revoker, guard);
        let endpoint = logout.with(verifier(&issuer)).unwrap().into_endpoint();
        post(&endpoint, FORM, &format!("logout_token={token}")).await
    };
    let mut refused = Vec::new();
    for (name, token) in &tokens {
        if layer.check(token).await.is_err() {
            refused.push(*name);
        }
    }
    (status, refused.join(" "))
}

/// An example of SSF, CAEP or RISC, with the claims that all of them have.
fn example(subject: &Value, event: &str, details: &Value) -> Value {
    json!({
        "iss": "https://idp.example.com/123456789/", "jti": "24c63fb56e5a2d77a6b512616ca9fa24",
        "iat": 1_615_305_159, "aud": "https://sp.example.com/caep", "txn": "8675309",
        "sub_id": subject, "events": { event: details },
    })
}

fn caep(event: &str) -> String {
    format!("{CAEP}{event}")
}

fn risc(event: &str) -> String {
    format!("{RISC}{event}")
}

/// An event about a subject, and what is refused after it.
type Case = (Value, String, Value, &'static str);

async fn assert_ended(cases: impl IntoIterator<Item = Case>) {
    for (subject, event, details, expected) in cases {
        let example = example(&subject, &event, &details);
        let received = received(&example, &subject, Some("secevent+jwt")).await;
        assert_eq!(received, (202, expected.to_owned()), "{example}");
    }
}

fn opaque(id: &str) -> Value {
    json!({ "format": "opaque", "id": id })
}

/// A user of the issuer of the examples.
fn of_example(sub: &str) -> Value {
    json!({ "format": "iss_sub", "iss": "https://idp.example.com/123456789/", "sub": sub })
}

fn jane() -> Value {
    of_example("jane.smith@example.com")
}

fn on_device() -> Value {
    json!({
        "format": "complex", "device": of_example("e9297990-14d2-42ec-a4a9-4036db86509a"),
        "tenant": opaque("123456789"),
    })
}

/// When what the examples of CAEP tell has happened.
const AT: u64 = 1_615_304_991;

/// CAEP 1.0 §3.1.
#[tokio::test]
async fn the_examples_of_session_revoked_end_what_they_say() {
    let session = opaque("dMTlD|1600802906337.16|16008.16");
    let mut of_user = on_device();
    of_user["user"] = jane();
    let cases = [
        // An opaque id alone is that of a user.
        (session.clone(), json!({ "event_timestamp": AT }), "user session"),
        (
            json!({
                "format": "complex", "session": session, "tenant": opaque("123456789"),
                "user": of_example("99beb27c-c1c2-4955-882a-e0dc4996fcbc"),
            }),
            json!({
                "initiating_entity": "policy", "event_timestamp": AT,
                "reason_admin": { "en": "Landspeed Policy Violation: C076E82F" },
                "reason_user": {
                    "en": "Access attempt from multiple regions.",
                    "es-410": "Intento de acceso desde varias regiones.",
                },
            }),
            "session",
        ),
        // Which of a user's tokens are on a device is known of own sessions alone.
        (of_user, json!({ "initiating_entity": "policy", "event_timestamp": AT }), ""),
        (on_device(), json!({ "event_timestamp": AT }), "device"),
    ];
    let event = caep("session-revoked");
    assert_ended(cases.map(|(subject, details, ended)| (subject, event.clone(), details, ended)))
        .await;
}

/// CAEP 1.0 §3.2, §3.3.
#[tokio::test]
async fn the_examples_of_changed_claims_and_credentials_end_what_they_say() {
    let jwt = json!({
        "format": "jwt_id", "iss": "https://idp.example.com/987654321/",
        "jti": "f61t6e20zdo3px56gepu8rzlsp4c1dpc0fx7",
    });
    let saml = json!({
        "format": "saml_assertion_id", "issuer": "https://idp.example.com/987654321/",
        "assertion_id": "_a75adf55-01d7-dbd8372ebdfc",
    });
    let role = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/role";
    let changed = |claims: Value| json!({ "event_timestamp": AT, "claims": claims });
    let (claims, credential) = (caep("token-claims-change"), caep("credential-change"));
    assert_ended([
        (jwt.clone(), claims.clone(), changed(json!({ "role": "ro-admin" })), "token"),
        (jwt, claims.clone(), changed(json!({ "trusted_network": false })), "token"),
        (saml, claims.clone(), changed(json!({ role: "ro-admin" })), ""),
        // It names more than one token.
        (jane(), claims, changed(json!({ "role": "ro-admin" })), ""),
        (
            jane(),
            credential.clone(),
            json!({
                "credential_type": "fido2-roaming", "change_type": "create",
                "fido2_aaguid": "accced6a-63f5-490a-9eea-e59bc1896cfc",
                "friendly_name": "Jane's USB authenticator", "initiating_entity": "user",
                "reason_admin": { "en": "User self-enrollment" }, "event_timestamp": AT,
            }),
            "",
        ),
        (
            jane(),
            credential.clone(),
            json!({ "credential_type": "fido2-roaming", "change_type": "delete" }),
            "user session",
        ),
        (
            jane(),
            credential,
            json!({ "credential_type": "password", "change_type": "update" }),
            "user session",
        ),
    ])
    .await;
}

/// CAEP 1.0 §3.4 to §3.8.
#[tokio::test]
async fn the_examples_of_devices_risks_and_assurance_end_nothing_by_themselves() {
    let email = json!({ "format": "email", "email": "someuser@somedomain.com" });
    let cases = [
        (
            jane(),
            "assurance-level-change",
            json!({
                "namespace": "NIST-AAL", "current_level": "nist-aal2",
                "previous_level": "nist-aal1", "change_direction": "increase",
                "initiating_entity": "user", "event_timestamp": AT,
            }),
        ),
        (
            jane(),
            "assurance-level-change",
            json!({
                "namespace": "Retinal Scan", "current_level": "hi-res-scan",
                "initiating_entity": "user", "event_timestamp": AT,
            }),
        ),
        (
            on_device(),
            "device-compliance-change",
            json!({
                "current_status": "not-compliant", "previous_status": "compliant",
                "initiating_entity": "policy", "event_timestamp": AT,
            }),
        ),
        (
            email.clone(),
            "session-established",
            json!({ "acr": "AAL2", "amr": ["otp"], "event_timestamp": AT }),
        ),
        (email, "session-presented", json!({ "ext_id": "12345", "event_timestamp": AT })),
        (
            jane(),
            "risk-level-change",
            json!({
                "current_level": "LOW", "previous_level": "HIGH", "event_timestamp": AT,
                "principal": "USER", "risk_reason": "PASSWORD_FOUND_IN_DATA_BREACH",
            }),
        ),
    ];
    assert_ended(cases.map(|(subject, event, details)| (subject, caep(event), details, ""))).await;
}

/// RISC 1.0 §2, all of its events.
#[tokio::test]
async fn the_examples_of_risc_end_what_they_say() {
    let email = |email: &str| json!({ "format": "email", "email": email });
    let all = "user session";
    let cases = [
        (jane(), "account-credential-change-required", json!({}), ""),
        (jane(), "account-purged", json!({}), all),
        (jane(), "account-disabled", json!({ "reason": "hijacking" }), all),
        (jane(), "account-enabled", json!({}), ""),
        (
            email("john.doe@example.com"),
            "identifier-changed",
            json!({ "new-value": "john.roe@example.com" }),
            "",
        ),
        (email("foo@example.com"), "identifier-recycled", json!({}), ""),
        (jane(), "credential-compromise", json!({ "credential_type": "password" }), all),
        (jane(), "opt-in", json!({}), ""),
        (jane(), "opt-out-initiated", json!({}), ""),
        (jane(), "opt-out-cancelled", json!({}), ""),
        (jane(), "opt-out-effective", json!({}), ""),
        (jane(), "recovery-activated", json!({}), ""),
        (jane(), "recovery-information-changed", json!({}), ""),
        (jane(), "sessions-revoked", json!({}), all),
    ];
    assert_ended(
        cases.map(|(subject, event, details, ended)| (subject, risc(event), details, ended)),
    )
    .await;
}

/// The examples of RFC 8417 §2.1, of OpenID Connect Back-Channel Logout §2.4, and of RFC 8935 §2.1.
#[tokio::test]
async fn the_examples_of_tokens_of_events_are_received() {
    // RFC 8417 figure 1, which is also what RFC 8935 pushes: nothing to us.
    let scim = json!({
        "iss": "https://scim.example.com", "iat": 1_458_496_404,
        "jti": "4d3559ec67504aaba65d40b0363faad8",
        "aud": [
            "https://scim.example.com/Feeds/98d52461fa5bbc879593b7754",
            "https://scim.example.com/Feeds/5d7604516b1d08641d7676ee7",
        ],
        "events": {
            "urn:ietf:params:scim:event:create": {
                "ref": "https://scim.example.com/Users/44f6142df96bd6ab61e7521d9",
                "attributes": ["id", "name", "userName", "password", "emails"],
            }
        }
    });
    let typ = Some("secevent+jwt");
    assert_eq!(received(&scim, &json!({}), typ).await, (202, String::new()));
    // Figure 2 has two events, the second of an extension.
    let mut extended = scim.clone();
    extended["events"] = json!({
        "urn:ietf:params:scim:event:passwordReset": { "id": "44f6142df96bd6ab61e7521d9" },
        "https://example.com/scim/event/passwordResetExt": { "resetAttempts": 5 },
    });
    assert_eq!(received(&extended, &json!({}), typ).await, (202, String::new()));
    // Figure 3 is a logout token of a draft, without `exp`, and no token of an event for SSF.
    let mut logout = json!({
        "iss": "https://server.example.com", "sub": "248289761001", "aud": "s6BhdRkqt3",
        "iat": 1_471_566_154, "jti": "bWJq", "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let subject = json!({
        "sub": "248289761001", "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
    });
    assert_eq!(received(&logout, &subject, typ).await, (400, String::new()));
    assert_eq!(received(&logout, &subject, None).await, (400, String::new()));
    // Back-Channel Logout §2.4: the same with `exp`.
    logout["exp"] = 1_471_569_754.into();
    assert_eq!(received(&logout, &subject, Some("logout+jwt")).await, (200, "session".to_owned()));
    logout.as_object_mut().unwrap().remove("sid");
    assert_eq!(received(&logout, &subject, None).await, (200, "user session".to_owned()));
    // Figure 4: consent.
    let consent = json!({
        "iss": "https://my.med.example.org", "iat": 1_458_496_025,
        "jti": "fb4e75b5411e4e19b6c0fe87950f7749", "aud": ["https://rp.example.com"],
        "events": {
            "https://openid.net/heart/specs/consent.html": {
                "iss": "https://connect.example.com", "sub": "248289761001",
                "consentUri": ["https://terms.med.example.org/labdisclosure.html#Agree"],
            }
        }
    });
    assert_eq!(received(&consent, &json!({}), typ).await, (202, String::new()));
    // Figure 5: RISC as it was before SSF, and as Google still sends it.
    let subject = json!({
        "subject_type": "iss-sub", "iss": "https://idp.example.com/", "sub": "7375626A656374",
    });
    let disabled = json!({
        "iss": "https://idp.example.com/", "jti": "756E69717565206964656E746966696572",
        "iat": 1_508_184_845, "aud": "636C69656E745F6964",
        "events": { risc("account-disabled"): { "subject": subject, "reason": "hijacking" } },
    });
    assert_eq!(received(&disabled, &subject, typ).await, (202, "user session".to_owned()));
}

/// RFC 8935 §2.3: what is refused is refused in a language.
#[tokio::test]
async fn a_refusal_says_in_which_language_it_is() {
    use http_body_util::{BodyExt as _, Full};
    use tower::ServiceExt as _;

    let provider = TestProvider::new(OP, "us").unwrap();
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let events = EventReceiver::new(SubjectRevoker::new(layer.revoker()), ReplayGuard::new(store));
    let endpoint = events.with(provider.verifier().unwrap()).unwrap().into_endpoint();
    let request = http::Request::post("/").header("content-type", SECEVENT);
    let request =
        request.body(Full::<bytes::Bytes>::from("eyJ0eXAiOiJzZWNldmVudCtqd3QifQ")).unwrap();
    let answer = endpoint.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["content-language"], "en");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["err"].is_string() && body["description"].is_string());
}

/// draft-parecki-oauth-global-token-revocation §3: its two requests.
#[tokio::test]
async fn the_requests_of_global_token_revocation_are_answered() {
    let (issuer, sub) = ("https://issuer.example.com/", "af19c476f1dc4470fa3d0d9a25");
    let provider = TestProvider::new(issuer, "us").unwrap();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), MemoryStore::new());
    let subjects = SubjectRevoker::new(layer.revoker()).with_resolver(|subject| {
        let is_user = subject["email"] == "user@example.com";
        ready(Ok(is_user.then(|| Target::user("by email"))))
    });
    let endpoint = Endpoint::global_token_revocation_for(subjects, |_| true);
    for (subject, user) in [
        (json!({ "format": "iss_sub", "iss": issuer, "sub": sub }), sub),
        (json!({ "format": "email", "email": "user@example.com" }), "by email"),
    ] {
        let token = provider.access_token(user, None);
        layer.check(&token).await.unwrap();
        let body = json!({ "sub_id": subject }).to_string();
        assert_eq!(post(&endpoint, "application/json", &body).await.0, 204);
        layer.check(&token).await.unwrap_err();
    }
}

// === What the program does with events ===

#[tokio::test]
async fn devices_and_risks_end_what_the_program_says() {
    let provider = TestProvider::new(OP, "us").unwrap();
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let subjects = SubjectRevoker::new(layer.revoker());
    let receiver = EventReceiver::new(subjects, ReplayGuard::new(store))
        .with(provider.verifier().unwrap())
        .unwrap()
        .with_effect(move |event| {
            let kept = Arc::clone(&kept);
            async move {
                assert_eq!(event.issuer(), OP);
                assert!(event.id().starts_with("test-"));
                let details = event.details();
                let is_bad = details["current_status"] == "not-compliant"
                    || details["current_level"] == "HIGH"
                    || details["change_direction"] == "decrease";
                let revoked = is_bad && event.revoke_subject().await?;
                let name = event.event_type().rsplit('/').next().unwrap().to_owned();
                kept.lock().unwrap().push((name, event.subject().cloned(), revoked));
                Ok(())
            }
        });
    let endpoint = receiver.into_endpoint();
    let iss_sub = |sub: &str| json!({ "format": "iss_sub", "iss": OP, "sub": sub });
    let complex = json!({ "format": "complex", "device": iss_sub("phone") });
    let verification = json!({ "format": "opaque", "id": "stream" });
    let on_phone = {
        let mut claims = provider.claims();
        claims["sub"] = "carol".into();
        claims["device_id"] = "phone".into();
        claims["iat"] = (Timestamp::now().as_secs() - 2).into();
        claims["exp"] = (Timestamp::now().as_secs() + 60).into();
        provider.sign(None, &claims)
    };
    let tokens = ["alice", "bob"].map(|user| provider.access_token(user, None));
    let all = [on_phone, tokens[0].clone(), tokens[1].clone()];
    let events = [
        (caep("device-compliance-change"), &complex, json!({ "current_status": "compliant" })),
        (caep("device-compliance-change"), &complex, json!({ "current_status": "not-compliant" })),
        (caep("risk-level-change"), &iss_sub("alice"), json!({ "current_level": "LOW" })),
        (caep("risk-level-change"), &iss_sub("alice"), json!({ "current_level": "HIGH" })),
        (
            caep("assurance-level-change"),
            &iss_sub("bob"),
            json!({ "change_direction": "decrease" }),
        ),
        (
            "https://schemas.openid.net/secevent/ssf/event-type/verification".to_owned(),
            &verification,
            json!({ "state": "VGhpcyBpcyBhbiBleGFtcGxlIHN0YXRlIHZhbHVlLgo=" }),
        ),
        // By itself it has an effect; the program sees it too.
        (risc("account-disabled"), &iss_sub("nobody"), json!({})),
    ];
    let mut refused = Vec::new();
    for (event, subject, details) in &events {
        let token = provider.security_event(event, subject, details);
        for _ in 0..2 {
            assert_eq!(post(&endpoint, SECEVENT, &token).await.0, 202, "{event}");
        }
        let mut now_refused = 0;
        for token in &all {
            now_refused += u32::from(layer.check(token).await.is_err());
        }
        refused.push(now_refused);
    }
    assert_eq!(refused, [0, 1, 1, 2, 3, 3, 3]);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), events.len(), "each is given once, also if it comes twice");
    let revoked: Vec<_> = seen.iter().map(|(_, _, revoked)| *revoked).collect();
    assert_eq!(revoked, [false, true, false, true, true, false, false]);
    for ((name, subject, _), (event, expected, _)) in seen.iter().zip(&events) {
        assert!(event.ends_with(name.as_str()));
        assert_eq!(subject.as_ref(), Some(*expected));
    }
}

/// SSF 1.0 §3.6: an event about a subject with a critical member that is not understood.
#[tokio::test]
async fn a_critical_member_that_is_not_understood_makes_the_event_void() {
    let provider = TestProvider::new(OP, "us").unwrap();
    let iss_sub = json!({ "format": "iss_sub", "iss": OP, "sub": "alice" });
    let tenant = json!({ "format": "opaque", "id": "123456789" });
    let subject = json!({ "format": "complex", "user": iss_sub, "tenant": tenant });
    for (critical, is_refused) in [("tenant", false), ("group", true)] {
        let store = MemoryStore::new();
        let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
        let subjects =
            SubjectRevoker::new(layer.revoker()).with_critical_members(["user", critical]);
        let events = EventReceiver::new(subjects, ReplayGuard::new(store));
        let endpoint = events.with(provider.verifier().unwrap()).unwrap().into_endpoint();
        let token = provider.access_token("alice", None);
        let event = provider.security_event(&caep("session-revoked"), &subject, &json!({}));
        assert_eq!(post(&endpoint, SECEVENT, &event).await.0, 202);
        assert_eq!(layer.check(&token).await.is_err(), is_refused, "{critical:?}");
    }
}

// === A store that fails at each step ===

/// Fails at the step of that number: before it has done it, or after.
#[derive(Clone)]
struct FailsAt {
    memory: MemoryStore,
    steps: Arc<AtomicU64>,
    failing_step: u64,
    is_done: bool,
    kind: StoreErrorKind,
}

impl FailsAt {
    fn step<T: Send + 'static>(
        &self,
        done: impl FnOnce(&MemoryStore) -> BoxFuture<'static, Result<T, StoreError>>,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        if step != self.failing_step {
            return done(&self.memory);
        }
        let failure = StoreError::new(self.kind, "the test says so");
        if !self.is_done {
            return ready(Err(failure)).boxed();
        }
        let done = done(&self.memory);
        async move {
            done.await?;
            Err(failure)
        }
        .boxed()
    }
}

impl RevocationStore for FailsAt {
    fn check(&self, token: &Arc<VerifiedToken>) -> Lookup {
        self.memory.check(token)
    }

    fn write(
        &self,
        changes: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>> {
        self.step(|memory| memory.write(changes))
    }

    fn find(&self, target: &Target) -> BoxFuture<'static, Result<Option<Record>, StoreError>> {
        self.step(|memory| memory.find(target))
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'static, Result<RecordPage, StoreError>> {
        self.step(|memory| memory.list(query))
    }

    fn count(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.step(<MemoryStore as RevocationStore>::count)
    }
}

impl SessionStore for FailsAt {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        self.step(|memory| memory.load(documents, records))
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        self.step(|memory| memory.commit(commit))
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.step(<MemoryStore as SessionStore>::count_members)
    }
}

/// Whatever step of the store fails, and in whichever way: what is acknowledged has its effect, and
/// what is not has it when it is sent again.
#[tokio::test]
async fn nothing_that_is_acknowledged_is_lost_at_whichever_step_the_store_fails() {
    let provider = TestProvider::new(OP, "us").unwrap();
    let iss_sub = json!({ "format": "iss_sub", "iss": OP, "sub": "alice" });
    let kinds = [
        StoreErrorKind::Timeout,
        StoreErrorKind::Unreachable,
        StoreErrorKind::Settling,
        StoreErrorKind::Overloaded,
        StoreErrorKind::NotPrimary,
        StoreErrorKind::Full,
    ];
    let mut failed = 0;
    for (kind, is_done) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        for failing_step in 0..100 {
            let mut reached_the_end = true;
            for way in ["logout", "event", "global", "client"] {
                let memory = MemoryStore::new();
                let whole = JwtRevocationLayer::new(provider.verifier().unwrap(), memory.clone());
                let sessions =
                    Sessions::new(memory.clone(), whole.revoker(), RefreshPolicy::new()).unwrap();
                let mut details = SessionDetails::new();
                details.client = Some("client".into());
                let Login::Granted(grant) = sessions.login("alice", details).await.unwrap() else {
                    panic!("refused")
                };
                let refresh = grant.token.expose().to_owned();
                let steps = Arc::new(AtomicU64::new(0));
                let store =
                    FailsAt { memory, steps: Arc::clone(&steps), failing_step, is_done, kind };
                let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
                let broken =
                    Sessions::new(store.clone(), layer.revoker(), RefreshPolicy::new()).unwrap();
                let guard = ReplayGuard::new(store);
                let subjects = SubjectRevoker::new(layer.revoker()).with_sessions(broken.clone());
                let access = provider.access_token("alice", Some("s"));
                let global = json!({ "sub_id": iss_sub }).to_string();
                let (endpoint, media_type, body) = match way {
                    "logout" => {
                        let ended = broken.clone();
                        let receiver = LogoutReceiver::new(layer.revoker(), guard)
                            .with(provider.verifier().unwrap())
                            .unwrap()
                            .with_effect(move |_, user, _| {
                                let (ended, user) = (ended.clone(), user.unwrap().to_owned());
                                async move { ended.end_all(&user, None).await.map(drop) }
                            });
                        let token = provider.logout_token(Some("alice"), None);
                        (receiver.into_endpoint(), FORM, format!("logout_token={token}"))
                    }
                    "event" => {
                        let receiver = EventReceiver::new(subjects, guard)
                            .with(provider.verifier().unwrap())
                            .unwrap();
                        let event = caep("session-revoked");
                        let event = provider.security_event(&event, &iss_sub, &json!({}));
                        (receiver.into_endpoint(), SECEVENT, event)
                    }
                    "global" => {
                        let endpoint = Endpoint::global_token_revocation_for(subjects, |_| true);
                        (endpoint, "application/json", global)
                    }
                    _ => {
                        let clients = ClientAuth::with_secret("client", "secret");
                        let endpoint =
                            Endpoint::token_revocation(&layer, Some(broken.clone()), clients);
                        let form = format!("client_id=client&client_secret=secret&token={refresh}");
                        (endpoint, FORM, form)
                    }
                };
                let (mut status, mut sent) = (0, 0);
                while !(200..300).contains(&status) {
                    status = post(&endpoint, media_type, &body).await.0;
                    sent += 1;
                    let context = format!("{way} at step {failing_step} ({kind:?}, {is_done})");
                    // A mark that was kept although that was not confirmed: it was carried out.
                    if way == "logout" && status == 400 && sent > 1 {
                        break;
                    }
                    assert!(matches!(status, 200..300 | 503), "{context}: {status}");
                    assert!(sent < 4, "{context}: it recovers");
                }
                failed += sent - 1;
                let refused = way == "client" || whole.check(&access).await.is_err();
                assert!(refused, "{way} at step {failing_step} ({kind:?}, {is_done}): access");
                let kept = sessions.families().look_at(&refresh).await.unwrap();
                assert!(
                    kept.is_none(),
                    "{way} at step {failing_step} ({kind:?}, {is_done}): refresh"
                );
                reached_the_end &= steps.load(Ordering::SeqCst) <= failing_step;
            }
            if reached_the_end {
                break;
            }
        }
    }
    assert!(failed > 50, "the store failed {failed} times only");
}

// === Events of our own ===

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
