//! The examples of the specifications, and effects of the program.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::ready;
use serde_json::{Value, json};

use super::revocation::FORM;
use super::tests::post;
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::middleware::JwtRevocationLayer;
use crate::revocation::Target;
use crate::session::{Login, RefreshPolicy, SessionDetails, Sessions};
use crate::store::memory::MemoryStore;
use crate::testing::TestProvider;
use crate::token::jwt::{JwtVerifier, SigningKey};
use crate::token::{Algorithm, TokenProfile};

pub(super) const SECEVENT: &str = "application/secevent+jwt";
pub(super) const OP: &str = "https://op.example";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";

/// The key of all who sign in these tests.
pub(super) fn key() -> SigningKey {
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

pub(super) fn caep(event: &str) -> String {
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

/// RFC 8417 figure 1, which is also what RFC 8935 pushes and RFC 8936 gives out: nothing to us.
pub(super) fn scim_example() -> Value {
    json!({
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
    })
}

/// The examples of RFC 8417 §2.1, of OpenID Connect Back-Channel Logout §2.4, and of RFC 8935 §2.1.
#[tokio::test]
async fn the_examples_of_tokens_of_events_are_received() {
    let scim = scim_example();
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

/// Whose a session is, and on which device, is known of own sessions.
#[tokio::test]
async fn of_own_sessions_those_end_that_match_all_that_is_named() {
    let provider = TestProvider::new(OP, "us").unwrap();
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let sessions = Sessions::new(store.clone(), layer.revoker(), RefreshPolicy::new()).unwrap();
    let subjects = SubjectRevoker::new(layer.revoker()).with_sessions(sessions.clone());
    let receiver = EventReceiver::new(subjects, ReplayGuard::new(store));
    let endpoint = receiver.with(provider.verifier().unwrap()).unwrap().into_endpoint();
    let mut held = Vec::new();
    for (user, device) in [("alice", "laptop"), ("alice", "phone"), ("bob", "laptop")] {
        let details = SessionDetails::new().on_device(device);
        let Login::Granted(grant) = sessions.login(user, details).await.unwrap() else {
            panic!("refused")
        };
        held.push((format!("{user}'s {device}"), grant.session.clone().unwrap()));
    }
    let left = async || {
        let mut left = Vec::new();
        for (name, session) in &held {
            if sessions.find(session).await.unwrap().is_some() {
                left.push(name.as_str());
            }
        }
        left.join(", ")
    };
    let report = async |subject: Value| {
        let event = provider.security_event(&caep("session-revoked"), &subject, &json!({}));
        assert_eq!(post(&endpoint, SECEVENT, &event).await.0, 202);
    };
    let complex = |members: Value| {
        let mut subject = members;
        subject["format"] = "complex".into();
        subject
    };
    let all = left().await;
    for nothing in [
        json!({ "user": opaque("bob"), "session": opaque(&held[0].1) }),
        json!({ "session": opaque(&held[0].1), "device": opaque("phone") }),
        json!({ "user": opaque("bob"), "device": opaque("phone") }),
        json!({ "user": opaque("carol"), "device": opaque("laptop") }),
    ] {
        report(complex(nothing)).await;
        assert_eq!(left().await, all);
    }
    report(complex(json!({ "user": opaque("alice"), "device": opaque("laptop") }))).await;
    assert_eq!(left().await, "alice's phone, bob's laptop");
    let session = opaque(&held[2].1);
    report(complex(json!({ "user": opaque("bob"), "session": session }))).await;
    assert_eq!(left().await, "alice's phone");

    // Another program has signed this one, and nobody knows whose the session is.
    let token = provider.access_token("alice", Some("unknown"));
    layer.check(&token).await.unwrap();
    report(complex(json!({ "user": opaque("bob"), "session": opaque("unknown") }))).await;
    layer.check(&token).await.unwrap_err();
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
