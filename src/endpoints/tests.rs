use std::collections::BTreeSet;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, ready};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::request::{Form, form_decode};
use super::revocation::FORM;
use super::subject::Subject;
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::middleware::JwtRevocationLayer;
use crate::revocation::Target;
use crate::revoker::Revoker;
use crate::session::{Login, RefreshPolicy, SessionDetails, Sessions};
use crate::store::memory::MemoryStore;
use crate::store::scripted::ScriptedStore;
use crate::store::{StoreError, StoreErrorKind};
use crate::testing::TestProvider;
use crate::token::issue::TokenIssuer;
use crate::token::jwt::{JwtVerifier, SigningKey};
use crate::token::{Algorithm, IssuerSet, TokenProfile};

const OP: &str = "https://op.example";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

async fn send<B>(endpoint: &Endpoint, request: Request<B>) -> Response<EndpointBody>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    let answer = endpoint.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer
}

pub(super) async fn post(endpoint: &Endpoint, content_type: &str, body: &str) -> (u16, Value) {
    let request = Request::post("/").header("content-type", content_type);
    let answer = send(endpoint, request.body(Full::<Bytes>::from(body.to_owned())).unwrap()).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn provider() -> TestProvider {
    TestProvider::new(OP, "us").unwrap()
}

#[test]
fn forms_are_decoded_as_rfc_6749_encodes_them() {
    assert_eq!(form_decode("+%25%26%2B%C2%A3%E2%82%AC").as_deref(), Some(" %&+£€"));
    for broken in ["%", "%2", "%zz", "%ff", "%C3"] {
        assert_eq!(form_decode(broken), None, "{broken}");
    }
    let form = Form::parse(b"a=1&b=&c&d=x%3Dy").unwrap();
    assert_eq!((form.get("a"), form.get("d")), (Some("1"), Some("x=y")));
    assert_eq!((form.get("b"), form.get("c"), form.get("e")), (None, None, None));
    for odd in ["a=1&a=2", "a=1&%61=2", "a=&a=1", "a=%", "a=\u{fffd}%ff"] {
        Form::parse(odd.as_bytes()).unwrap_err();
    }
    Form::parse(b"\xff=1").unwrap_err();
}

/// Goes on for ever, and says so if it is asked how much there is.
struct Endless {
    says_how_much: bool,
    was_read: Arc<AtomicBool>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.was_read.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))))
    }

    fn size_hint(&self) -> SizeHint {
        let least = if self.says_how_much { 64 * 1024 + 1 } else { 0 };
        let mut hint = SizeHint::new();
        hint.set_lower(least);
        hint
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_64_kib_and_not_at_all_if_it_says_that_it_is_longer() {
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    let endpoint = LogoutReceiver::new(revoker, ReplayGuard::new(store)).into_endpoint();
    for says_how_much in [true, false] {
        let was_read = Arc::new(AtomicBool::new(false));
        let body = Endless { says_how_much, was_read: Arc::clone(&was_read) };
        let request = Request::post("/").header("content-type", FORM).body(body).unwrap();
        let answer = send(&endpoint, request).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(was_read.load(Ordering::Relaxed), !says_how_much);
    }
    let body = Endless { says_how_much: false, was_read: Arc::default() };
    let answer = send(&endpoint, Request::get("/").body(body).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()["allow"], "POST");
}

/// The requests that RFC 7009 §2.1 and RFC 7662 §2.1 show.
#[tokio::test]
async fn the_requests_of_the_specifications_are_answered() {
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(provider().verifier().unwrap(), store.clone());
    let sessions = Sessions::new(store, layer.revoker(), RefreshPolicy::new()).unwrap();
    let clients = ClientAuth::with_secret("s6BhdRkqt3", "gX1fBat3bV");
    let revocation = Endpoint::token_revocation(&layer, Some(sessions.clone()), clients.clone());
    let introspection = Endpoint::introspection(&layer, Some(sessions), clients);
    let request = |body: &str| {
        Request::post("/")
            .header("content-type", FORM)
            .header("authorization", "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW")
            .body(Full::<Bytes>::from(body.to_owned()))
            .unwrap()
    };
    let body = "token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token";
    assert_eq!(send(&revocation, request(body)).await.status(), StatusCode::OK);
    let body = "token=2YotnFZFEjr1zCsicMWpAA";
    let told = send(&introspection, request(body)).await.into_body().collect().await.unwrap();
    assert_eq!(&*told.to_bytes(), br#"{"active":false}"#);
}

#[tokio::test]
async fn a_client_revokes_and_refreshes_its_own_tokens_alone() {
    let store = MemoryStore::new();
    let provider = provider();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let sessions = Sessions::new(store, layer.revoker(), RefreshPolicy::new()).unwrap();
    let clients = ClientAuth::by(|id, secret| ready(Ok(id == secret)));
    let key = SigningKey::from_secret(Algorithm::HS256, &[1; 32]).unwrap();
    let profile = TokenProfile::new().with_issuer(OP).with_audience("us");
    let issuer = TokenIssuer::new(key, profile).unwrap();
    let revocation = Endpoint::token_revocation(&layer, Some(sessions.clone()), clients.clone());
    let refresh = Endpoint::refresh(sessions.clone(), issuer, clients);
    let ask = async |endpoint: &Endpoint, client: &str, field: &str| {
        let body = format!("client_id={client}&client_secret={client}&{field}");
        post(endpoint, FORM, &body).await
    };
    let mut claims = provider.claims();
    claims["client_id"] = "one".into();
    claims["exp"] = (Timestamp::now().as_secs() + 60).into();
    let access = provider.sign(None, &claims);
    let mut details = SessionDetails::new();
    details.client = Some("one".into());
    let Login::Granted(grant) = sessions.login("alice", details).await.unwrap() else {
        panic!("refused")
    };
    let token = grant.token.expose();
    assert_eq!(ask(&revocation, "two", &format!("token={access}")).await.0, 200);
    layer.check(&access).await.unwrap();
    assert_eq!(ask(&revocation, "one", &format!("token={access}")).await.0, 200);
    layer.check(&access).await.unwrap_err();
    let field = format!("grant_type=refresh_token&refresh_token={token}");
    let (status, told) = ask(&refresh, "two", &field).await;
    assert_eq!((status, &told["error"]), (400, &json!("invalid_grant")));
    assert_eq!(ask(&revocation, "two", &format!("token={token}")).await.0, 200);
    assert_eq!(ask(&refresh, "one", &field).await.0, 200);
}

#[tokio::test]
async fn of_those_who_mark_an_id_at_the_same_time_one_is_first() {
    let clock = ManualClock::new(Timestamp::from_secs(1000));
    let guard = ReplayGuard::new(MemoryStore::new().with_clock(clock.clone()));
    let minute = Duration::from_secs(60);
    let marks = (0..50).map(|_| guard.mark("dpop", "a", "1", minute));
    let firsts = join_all(marks).await.into_iter().filter(|first| *first.as_ref().unwrap());
    assert_eq!(firsts.count(), 1);
    assert!(guard.is_seen("dpop", "a", "1").await.unwrap());
    for (namespace, issuer, id) in [("logout", "a", "1"), ("dpop", "b", "1"), ("dpop", "a", "2")] {
        assert!(!guard.is_seen(namespace, issuer, id).await.unwrap());
    }
    clock.advance(minute);
    assert!(!guard.is_seen("dpop", "a", "1").await.unwrap(), "it is over");
    assert!(guard.mark("dpop", "a", "1", minute).await.unwrap());
}

#[tokio::test]
async fn a_logout_that_is_not_confirmed_is_carried_out_when_it_comes_again() {
    let provider = provider();
    let store = ScriptedStore::new();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let guard = ReplayGuard::new(MemoryStore::new());
    let (calls, fails) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, failing) = (Arc::clone(&calls), Arc::clone(&fails));
    let endpoint = LogoutReceiver::new(layer.revoker(), guard.clone())
        .with(provider.verifier().unwrap())
        .unwrap()
        .with_effect(move |issuer, user, session| {
            assert_eq!((issuer, user, session), (OP, None, Some("s")));
            counted.fetch_add(1, Ordering::Relaxed);
            ready(if failing.load(Ordering::Relaxed) {
                Err(StoreError::new(StoreErrorKind::Timeout, "no answer"))
            } else {
                Ok(())
            })
        })
        .into_endpoint();
    let access = provider.access_token("alice", Some("s"));
    let logout = format!("logout_token={}", provider.logout_token(None, Some("s")));
    let send = async || post(&endpoint, FORM, &logout).await.0;

    store.fail(StoreErrorKind::Timeout);
    assert_eq!(send().await, 503);
    store.answer();
    layer.check(&access).await.unwrap();
    fails.store(true, Ordering::Relaxed);
    assert_eq!(send().await, 503, "what comes after it is not confirmed");
    fails.store(false, Ordering::Relaxed);
    assert_eq!(send().await, 200);
    layer.check(&access).await.unwrap_err();
    assert_eq!(send().await, 400, "it was carried out");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_logout_has_its_other_effects_also_if_no_layer_accepts_tokens_of_the_provider() {
    let provider = provider();
    let store = MemoryStore::new();
    let ours = TestProvider::new("https://ours.example", "us").unwrap();
    let _layer = JwtRevocationLayer::new(ours.verifier().unwrap(), store.clone());
    let revoker = Revoker::new(store.clone(), TokenProfile::new().with_issuer(OP)).unwrap();
    let ended = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&ended);
    let endpoint = LogoutReceiver::new(revoker.clone(), ReplayGuard::new(store))
        .with(provider.verifier().unwrap())
        .unwrap()
        .with_effect(move |_, _, _| {
            count.fetch_add(1, Ordering::Relaxed);
            ready(Ok(()))
        })
        .into_endpoint();
    let mut claims = provider.claims();
    claims["exp"] = (Timestamp::now().as_secs() + 60).into();
    claims["sub"] = "alice".into();
    claims["events"] = json!({ LOGOUT_EVENT: {} });
    let body = format!("logout_token={}", provider.sign(Some("logout+jwt"), &claims));
    assert_eq!(post(&endpoint, FORM, &body).await.0, 200);
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    let error = revoker.revoke(Target::user("alice")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unmatched);
}

#[tokio::test]
async fn a_strict_receiver_takes_the_type_of_logout_tokens_alone() {
    let provider = provider();
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), TokenProfile::new().with_issuer(OP)).unwrap();
    let receiver = LogoutReceiver::new(revoker, ReplayGuard::new(store));
    let receiver = receiver.with(provider.verifier().unwrap()).unwrap();
    let strict = receiver.clone().with_required_type().into_endpoint();
    let usual = receiver.into_endpoint();
    for (typ, is_strict) in [
        (None, false),
        (Some("JWT"), false),
        (Some("logout+jwt"), true),
        (Some("LOGOUT+JWT"), true),
    ] {
        let mut claims = provider.claims();
        claims["exp"] = (Timestamp::now().as_secs() + 60).into();
        claims["sub"] = "alice".into();
        claims["events"] = json!({ LOGOUT_EVENT: {} });
        let body = format!("logout_token={}", provider.sign(typ, &claims));
        let expected = if is_strict { 200 } else { 400 };
        assert_eq!(post(&strict, FORM, &body).await.0, expected, "{typ:?}");
        let expected = if is_strict { 400 } else { 200 };
        assert_eq!(post(&usual, FORM, &body).await.0, expected, "{typ:?}: it was carried out");
    }
}

#[test]
fn a_provider_has_an_issuer_and_an_audience() {
    let key = SigningKey::from_secret(Algorithm::HS256, &[1; 32]).unwrap().verification_key();
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), TokenProfile::new()).unwrap();
    for (profile, setting) in [
        (TokenProfile::new().with_audience("us"), "issuer"),
        (TokenProfile::new().with_issuer(OP), "audience"),
    ] {
        let provider = JwtVerifier::new([key.clone()], profile).unwrap();
        let guard = ReplayGuard::new(store.clone());
        let refused = LogoutReceiver::new(revoker.clone(), guard.clone()).with(provider.clone());
        assert_eq!(refused.unwrap_err().setting(), setting);
        let subjects = SubjectRevoker::new(revoker.clone());
        let refused = EventReceiver::new(subjects, guard).with(provider);
        assert_eq!(refused.unwrap_err().setting(), setting);
    }
}

#[tokio::test]
async fn a_client_is_known_by_what_it_has_signed_once() {
    let client = TestProvider::new("client 1", "https://own.example").unwrap();
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(provider().verifier().unwrap(), store.clone());
    let clients = ClientAuth::by(|_, _| ready(Ok(false)))
        .with_assertions([client.verifier().unwrap()], ReplayGuard::new(store))
        .unwrap();
    let endpoint = Endpoint::introspection(&layer, None, clients);
    let claims = |more: Value| {
        let mut claims = client.claims();
        claims["sub"] = "client 1".into();
        claims["exp"] = (Timestamp::now().as_secs() + 60).into();
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let kind =
        "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    let ask = async |assertion: &str, more: &str| {
        let body = format!("token=x&{kind}&client_assertion={assertion}{more}");
        post(&endpoint, FORM, &body).await
    };
    let good = client.sign(None, &claims(json!({})));
    assert_eq!(ask(&good, "&client_id=another").await.0, 401);
    assert_eq!(ask(&good, "&client_secret=x").await.0, 400);
    assert_eq!(ask(&good, "").await, (200, json!({ "active": false })));
    let again = ask(&good, "").await;
    assert_eq!(again, (401, json!({ "error": "invalid_client" })), "it was used");
    for (typ, more) in [
        (None, json!({ "sub": "client 2" })),
        (None, json!({ "aud": "https://other.example" })),
        (None, json!({ "iss": OP })),
        (None, json!({ "exp": Timestamp::now().as_secs() - 100 })),
        (None, json!({ "exp": Timestamp::now().as_secs() + 10_000 })),
        (Some("at+jwt"), json!({})),
    ] {
        assert_eq!(ask(&client.sign(typ, &claims(more.clone())), "").await.0, 401, "{more}");
    }
    let body = format!("token=x&client_assertion_type=x&client_assertion={good}");
    assert_eq!(post(&endpoint, FORM, &body).await.0, 400);
    let named = client.sign(Some("client-authentication+jwt"), &claims(json!({})));
    assert_eq!(ask(&named, "&client_id=client+1").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_logout_in_the_outbox_is_carried_out_when_the_store_is_back() {
    let provider = provider();
    let store = ScriptedStore::new();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let receiver = LogoutReceiver::new(layer.revoker(), ReplayGuard::new(MemoryStore::new()))
        .with(provider.verifier().unwrap())
        .unwrap()
        .with_outbox(NonZeroUsize::MIN);
    let endpoint = receiver.clone().into_endpoint();
    let literal = receiver.with_bad_request_on_failure().into_endpoint();
    let token = |sid| provider.access_token("alice", Some(sid));
    let (kept, not_kept) = (token("s1"), token("s2"));
    let logout = |sid| format!("logout_token={}", provider.logout_token(None, Some(sid)));
    store.fail(StoreErrorKind::Timeout);
    let first = logout("s1");
    assert_eq!(post(&endpoint, FORM, &first).await.0, 503);
    assert_eq!(post(&literal, FORM, &logout("s2")).await.0, 400);
    tokio::time::sleep(Duration::from_secs(60)).await;
    store.answer();
    layer.check(&kept).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    layer.check(&kept).await.unwrap_err();
    layer.check(&not_kept).await.unwrap();
    assert_eq!(post(&endpoint, FORM, &first).await.0, 200, "it is carried out again");
}

/// The examples of RFC 9493 §3.2, and of SSF 1.0 §3.
#[test]
fn the_subjects_of_the_specifications_are_understood() {
    let id = |issuer: Option<&str>, id: &str| Subject::Id {
        issuer: issuer.map(Into::into),
        id: id.into(),
    };
    let other = |value: &Value| Subject::Other(value.clone());
    for (subject, expected) in [
        (
            json!({"format":"iss_sub","iss":"https://issuer.example.com/","sub":"145234573"}),
            id(Some("https://issuer.example.com/"), "145234573"),
        ),
        (json!({"format":"opaque","id":"11112222333344445555"}), id(None, "11112222333344445555")),
        (
            json!({"subject_type":"iss-sub","iss":"https://accounts.google.com","sub":"73757"}),
            id(Some("https://accounts.google.com"), "73757"),
        ),
        (
            json!({
                "format": "jwt_id",
                "iss": "https://idp.example.com/123456789/",
                "jti": "B70BA622-9515-4353-A866-823539EECBC8",
            }),
            Subject::Token {
                issuer: "https://idp.example.com/123456789/".into(),
                id: "B70BA622-9515-4353-A866-823539EECBC8".into(),
            },
        ),
    ] {
        assert_eq!(Subject::parse(&subject), Some(expected), "{subject}");
    }
    for subject in [
        json!({"format":"account","uri":"acct:example.user@service.example.com"}),
        json!({"format":"email","email":"user@example.com"}),
        json!({"format":"phone_number","phone_number":"+12065550100"}),
        json!({"format":"did","url":"did:example:123456"}),
        json!({"format":"uri","uri":"https://user.example.com/"}),
        json!({
            "format": "saml_assertion_id",
            "issuer": "https://idp.example.com/123456789/",
            "assertion_id": "_8e8dc5f69a98cc4c1ff3427e5ce34606fd672f91e6",
        }),
    ] {
        assert_eq!(Subject::parse(&subject), Some(other(&subject)), "{subject}");
    }
    let email = json!({"format":"email","email":"user@example.com"});
    let phone = json!({"format":"phone_number","phone_number":"+12065550100"});
    let aliases = json!({"format":"aliases","identifiers":[email, phone]});
    let expected = Subject::Aliases(vec![other(&email), other(&phone)]);
    assert_eq!(Subject::parse(&aliases), Some(expected));
    let complex = json!({
        "format": "complex",
        "user": {"format":"email","email":"bar@example.com"},
        "tenant": {"format":"iss_sub","iss":"https://example.com/idp1","sub":"1234"},
        "session": {"format":"opaque","id":"dMTlD|1600802906337.16|16008.16"},
    });
    let Some(Subject::Complex { user: Some(_), session: Some(session), device: None, others }) =
        Subject::parse(&complex)
    else {
        panic!("it is complex")
    };
    assert_eq!(*session, id(None, "dMTlD|1600802906337.16|16008.16"));
    assert_eq!(others, [Box::from("tenant")]);
    for odd in [
        json!("alice"),
        json!({}),
        json!({"format":7}),
        json!({"format":"opaque"}),
        json!({"format":"opaque","id":""}),
        json!({"format":"iss_sub","sub":"1"}),
        json!({"format":"aliases","identifiers":[]}),
        json!({"format":"aliases","identifiers":[aliases]}),
        json!({"format":"complex","user":"alice"}),
        json!({"format":"complex","user":{"format":"complex"}}),
    ] {
        assert_eq!(Subject::parse(&odd), None, "{odd}");
    }
}

#[tokio::test]
async fn a_resolver_finds_users_by_other_formats() {
    let provider = provider();
    let store = MemoryStore::new();
    let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
    let subjects = SubjectRevoker::new(layer.revoker()).with_resolver(|subject| {
        let user = match subject["email"].as_str() {
            Some("alice@example.com") => Some(Target::user("alice")),
            _ => None,
        };
        ready(Ok(user))
    });
    let endpoint = Endpoint::global_token_revocation(subjects.clone(), "secret");
    let access = provider.access_token("alice", None);
    let email = |email: &str| json!({"sub_id":{"format":"email","email":email}}).to_string();
    let ask = async |endpoint: &Endpoint, body: String| {
        let request = Request::post("/")
            .header("content-type", "application/json; charset=utf-8")
            .header("authorization", "Bearer secret");
        send(endpoint, request.body(Full::<Bytes>::from(body)).unwrap()).await.status().as_u16()
    };
    assert_eq!(ask(&endpoint, email("nobody@example.com")).await, 404);
    layer.check(&access).await.unwrap();
    assert_eq!(ask(&endpoint, email("alice@example.com")).await, 204);
    layer.check(&access).await.unwrap_err();
    let refusing = Endpoint::global_token_revocation_for(subjects, |_| false);
    assert_eq!(ask(&refusing, email("alice@example.com")).await, 401);
}

// === What is refused is what the subject names, no more ===

const USERS: [&str; 2] = ["alice", "bob"];
const SESSIONS: [&str; 2] = ["s1", "s2"];
const ISSUERS: [&str; 2] = ["https://own.example", OP];

/// Issuer, user, session and id of a token.
type Held = (&'static str, &'static str, &'static str, String);

#[derive(Clone, Debug)]
enum Named {
    User(&'static str, &'static str),
    Session(&'static str, &'static str),
    /// Each session is on a device of its own, which has the number of the session.
    Device(&'static str, &'static str),
    UserOfSession(&'static str, &'static str, &'static str),
    Token(&'static str, String),
    ThirdUser(&'static str),
}

impl Named {
    fn covers(&self, (issuer, user, session, id): &Held) -> bool {
        match self {
            Self::User(of, name) => (of, name) == (issuer, user),
            // Whose session one of another issuer is, is not known here.
            Self::Session(of, name) | Self::UserOfSession(of, _, name) => {
                (of, name) == (issuer, session)
            }
            Self::Device(of, name) => *of == *issuer && name[1..] == session[1..],
            Self::Token(of, name) => (of, name) == (issuer, id),
            Self::ThirdUser(_) => false,
        }
    }

    fn subject(&self) -> Value {
        let iss_sub = |iss: &str, sub: &str| json!({"format":"iss_sub","iss":iss,"sub":sub});
        match self {
            Self::User(issuer, user) => iss_sub(issuer, user),
            Self::Session(issuer, session) => {
                json!({"format":"complex","session":iss_sub(issuer, session)})
            }
            Self::Device(issuer, device) => {
                json!({"format":"complex","device":iss_sub(issuer, device)})
            }
            Self::UserOfSession(issuer, user, session) => json!({
                "format": "complex", "user": iss_sub(issuer, user),
                "session": iss_sub(issuer, session),
            }),
            Self::Token(issuer, id) => json!({"format":"jwt_id","iss":issuer,"jti":id}),
            Self::ThirdUser(user) => iss_sub("https://third.example", user),
        }
    }
}

fn named() -> impl Strategy<Value = Named> {
    use prop::sample::select;

    let issuer = || select(&ISSUERS[..]);
    prop_oneof![
        (issuer(), select(&USERS[..])).prop_map(|(issuer, user)| Named::User(issuer, user)),
        (issuer(), select(&SESSIONS[..])).prop_map(|(issuer, sid)| Named::Session(issuer, sid)),
        (issuer(), select(&["d1", "d2"][..])).prop_map(|(issuer, on)| Named::Device(issuer, on)),
        (issuer(), select(&USERS[..]), select(&SESSIONS[..]))
            .prop_map(|(issuer, user, sid)| Named::UserOfSession(issuer, user, sid)),
        (issuer(), 0..4_u8).prop_map(|(issuer, id)| Named::Token(issuer, format!("t{id}"))),
        select(&USERS[..]).prop_map(Named::ThirdUser),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_refused_after_an_event_is_what_its_subject_names(
        named in named(), is_logout in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let [own, op] = ISSUERS.map(|issuer| TestProvider::new(issuer, "us").unwrap());
            let verifiers = IssuerSet::new(own.verifier().unwrap()).unwrap();
            let verifiers = verifiers.with(op.verifier().unwrap()).unwrap();
            let store = MemoryStore::new();
            let layer = JwtRevocationLayer::new(verifiers, store.clone());
            let revoker = layer.revoker().with_default_issuer(ISSUERS[0]).unwrap();
            let guard = ReplayGuard::new(store.clone());
            let sessions =
                Sessions::new(store, revoker.clone(), RefreshPolicy::new()).unwrap();
            let subjects = SubjectRevoker::new(revoker.clone()).with_sessions(sessions);
            let transmitter = TestProvider::new("https://events.example", "us").unwrap();
            let events = EventReceiver::new(subjects, guard.clone());
            let events = events.with(transmitter.verifier().unwrap()).unwrap().into_endpoint();
            let logout = LogoutReceiver::new(revoker, guard).with(op.verifier().unwrap()).unwrap();
            let logout = logout.into_endpoint();

            let mut tokens: Vec<(Held, String)> = Vec::new();
            for (issuer, provider) in ISSUERS.into_iter().zip([&own, &op]) {
                for (number, (user, session)) in
                    USERS.into_iter().flat_map(|user| SESSIONS.map(|sid| (user, sid))).enumerate()
                {
                    let id = format!("t{number}");
                    let mut claims = provider.claims();
                    claims["sub"] = user.into();
                    claims["sid"] = session.into();
                    claims["device_id"] = session.replace('s', "d").into();
                    claims["jti"] = id.clone().into();
                    claims["exp"] = (Timestamp::now().as_secs() + 60).into();
                    tokens.push(((issuer, user, session, id), provider.sign(None, &claims)));
                }
            }
            // The same by a logout token, where one can say it.
            let by_logout = match &named {
                Named::User(issuer, user) if *issuer == OP => Some((Some(*user), None)),
                Named::Session(issuer, session) if *issuer == OP => Some((None, Some(*session))),
                _ => None,
            };
            let status = if let Some((user, session)) = by_logout.filter(|_| is_logout) {
                let body = format!("logout_token={}", op.logout_token(user, session));
                post(&logout, FORM, &body).await.0
            } else {
                let event =
                    transmitter.security_event(SESSION_REVOKED, &named.subject(), &json!({}));
                post(&events, "application/secevent+jwt", &event).await.0
            };
            prop_assert!(matches!(status, 200 | 202), "{}", status);
            let mut refused = BTreeSet::new();
            for (held, token) in &tokens {
                if layer.check(token).await.is_err() {
                    refused.insert(held.clone());
                }
            }
            let expected: BTreeSet<_> = tokens
                .iter()
                .filter(|(held, _)| named.covers(held))
                .map(|(held, _)| held.clone())
                .collect();
            prop_assert_eq!(refused, expected);
            Ok(())
        })?;
    }
}
