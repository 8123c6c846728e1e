#[path = "poll_failure_tests.rs"]
mod failures;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{pending, ready};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt as _;

use super::*;
use crate::endpoints::event_tests::scim_example;
use crate::endpoints::{Endpoint, ReplayGuard, SecurityEventIssuer, SubjectRevoker};
use crate::middleware::JwtRevocationLayer;
use crate::store::memory::MemoryStore;
use crate::store::scripted::ScriptedStore;
use crate::store::{StoreError, StoreErrorKind};
use crate::testing::TestProvider;
use crate::token::jwks::Jwks;
use crate::token::jwt::{JwtVerifier, SigningKey};
use crate::token::{Algorithm, TokenProfile};

const OP: &str = "https://op.example";
const TRANSMITTER: &str = "https://events.example";
const URL: &str = "https://events.example/poll";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const RISK: &str = "https://schemas.openid.net/secevent/caep/event-type/risk-level-change";

/// A provider, a transmitter of events about its users, and a receiver of these.
struct Parties {
    provider: TestProvider,
    transmitter: TestProvider,
    store: ScriptedStore,
    layer: JwtRevocationLayer,
    receiver: EventReceiver,
}

impl Parties {
    fn new() -> Self {
        let provider = TestProvider::new(OP, "us").unwrap();
        let transmitter = TestProvider::new(TRANSMITTER, "us").unwrap();
        let store = ScriptedStore::new();
        let layer = JwtRevocationLayer::new(provider.verifier().unwrap(), store.clone());
        let subjects = SubjectRevoker::new(layer.revoker());
        // What was seen is known whatever the other store does: it would hide its failures.
        let receiver = EventReceiver::new(subjects, ReplayGuard::new(MemoryStore::new()))
            .with(transmitter.verifier().unwrap())
            .unwrap();
        Self { provider, transmitter, store, layer, receiver }
    }

    /// An event that ends what this user has.
    fn event_about(&self, user: &str) -> String {
        let subject = json!({ "format": "iss_sub", "iss": OP, "sub": user });
        self.transmitter.security_event(SESSION_REVOKED, &subject, &json!({}))
    }

    async fn is_revoked(&self, token: &str) -> bool {
        self.layer.check(token).await.is_err()
    }
}

/// Asks an endpoint as a client over the network would.
async fn ask(endpoint: &Endpoint, request: Request<Bytes>) -> Response<Bytes> {
    let answer = endpoint.clone().oneshot(request.map(Full::new)).await.unwrap();
    let (head, body) = answer.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn over(poller: EventPoller, endpoint: &Endpoint) -> EventPoller {
    let endpoint = endpoint.clone();
    poller.with_transport(move |request| {
        let endpoint = endpoint.clone();
        async move { Ok::<_, Infallible>(ask(&endpoint, request).await) }
    })
}

/// A task that polls, until it is told to stop.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(poller: EventPoller) -> Self {
        let (stop, stopped) = oneshot::channel();
        let polling = poller.run(async { drop(stopped.await) }).unwrap();
        Self { stop, task: tokio::spawn(polling) }
    }

    async fn stop(self) {
        drop(self.stop);
        timeout(Duration::from_secs(60), self.task).await.unwrap().unwrap();
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(600), waiting).await.expect("it does not come about");
}

#[tokio::test(start_paused = true)]
async fn what_is_given_out_is_carried_out_and_acknowledged_or_refused() {
    let parties = Parties::new();
    let transmitter = &parties.transmitter;
    let (alice, bob) =
        (parties.provider.access_token("alice", None), parties.provider.access_token("bob", None));
    let running = Running::start(over(
        EventPoller::new(parties.receiver.clone(), URL).unwrap().with_max_events(NonZeroU16::MIN),
        &transmitter.poll_endpoint(),
    ));
    // It waits while there are none.
    sleep(Duration::from_secs(100)).await;
    transmitter.give_out(parties.event_about("alice"));
    transmitter.give_out(transmitter.security_event(
        "https://example.com/unknown",
        &json!({ "format": "opaque", "id": "bob" }),
        &json!({}),
    ));
    let forger = TestProvider::new("https://forger.example", "us").unwrap();
    let claims = |id: &str, more: Value| {
        let mut claims = transmitter.claims();
        claims["jti"] = id.into();
        claims["sub_id"] = json!({ "format": "iss_sub", "iss": OP, "sub": "bob" });
        claims["events"] = json!({ SESSION_REVOKED: {} });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let typ = Some("secevent+jwt");
    for token in [
        forger.sign(typ, &claims("forged", json!({}))),
        forger.sign(typ, &claims("unknown", json!({ "iss": "https://forger.example" }))),
        transmitter.sign(typ, &claims("for-others", json!({ "aud": "others" }))),
        transmitter.sign(typ, &claims("expiring", json!({ "exp": 1 }))),
        transmitter.sign(Some("logout+jwt"), &claims("of-another-type", json!({}))),
        transmitter.sign(typ, &claims("no-event", json!({ "events": {} }))),
        "nonsense".to_owned(),
    ] {
        transmitter.give_out(token);
    }
    until(|| transmitter.outstanding().is_empty()).await;
    let refused: BTreeMap<_, _> = transmitter.refused().into_iter().collect();
    let expected = [
        ("?", "invalid_issuer"),
        ("expiring", "invalid_request"),
        ("for-others", "invalid_audience"),
        ("forged", "authentication_failed"),
        ("no-event", "invalid_request"),
        ("of-another-type", "invalid_request"),
        ("unknown", "invalid_issuer"),
    ];
    let expected = expected.map(|(id, code)| (id.to_owned(), code.to_owned()));
    let mut expected: BTreeMap<_, _> = expected.into_iter().collect();
    // A text that is no token names no issuer at all: which of the two it is told is no matter.
    expected.insert("?".into(), refused["?"].clone());
    assert_eq!(refused, expected);
    assert!(parties.is_revoked(&alice).await && !parties.is_revoked(&bob).await);
    running.stop().await;
}

/// A token may be listed by another name than its own: to acknowledge that would lose another one.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_listed_by_the_id_of_another_is_refused() {
    let parties = Parties::new();
    let alice = parties.provider.access_token("alice", None);
    let event = parties.event_about("alice");
    let replies = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&replies);
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let poller = poller.with_transport(move |request: Request<Bytes>| {
        let asked: Value = serde_json::from_slice(request.body()).unwrap();
        kept.lock().unwrap().push(asked);
        ready(Ok::<_, Infallible>(Response::new(
            json!({ "sets": { "another": event, "no-text": 7 } }).to_string(),
        )))
    });
    let running = Running::start(poller);
    until(|| replies.lock().unwrap().len() > 1).await;
    let second = replies.lock().unwrap()[1].clone();
    assert_eq!(second.get("ack"), None);
    for id in ["another", "no-text"] {
        assert_eq!(second["setErrs"][id]["err"], "invalid_request");
    }
    assert!(!parties.is_revoked(&alice).await);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_confirm_is_not_acknowledged_and_is_carried_out_later() {
    type Fail = fn(&ScriptedStore);
    let failures: [Fail; 5] = [
        |store| store.fail(StoreErrorKind::Timeout),
        |store| store.fail_later(StoreErrorKind::Unreachable),
        |store| store.fail(StoreErrorKind::Settling),
        |store| store.fail(StoreErrorKind::Overloaded),
        |store| store.answer_after(Duration::from_secs(10)),
    ];
    for fail in failures {
        let parties = Parties::new();
        let alice = parties.provider.access_token("alice", None);
        parties.transmitter.give_out(parties.event_about("alice"));
        fail(&parties.store);
        let polls = Arc::new(AtomicU32::new(0));
        let (counted, endpoint) = (Arc::clone(&polls), parties.transmitter.poll_endpoint());
        let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
        let running = Running::start(poller.with_transport(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            let endpoint = endpoint.clone();
            async move { Ok::<_, Infallible>(ask(&endpoint, request).await) }
        }));
        until(|| polls.load(Ordering::Relaxed) > 5).await;
        assert_eq!(parties.transmitter.outstanding().len(), 1);
        parties.store.answer();
        until(|| parties.transmitter.outstanding().is_empty()).await;
        assert!(parties.is_revoked(&alice).await);
        assert_eq!(parties.transmitter.refused(), []);
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_carried_out_holds_up_no_other() {
    let parties = Parties::new();
    let receiver = parties.receiver.clone().with_effect(|event| async move {
        let kind = match event.details()["fails"].as_str() {
            Some("panic") => panic!("the program fails"),
            Some("hang") => pending().await,
            Some("invalid") => StoreErrorKind::InvalidInput,
            Some(_) => StoreErrorKind::Other,
            None => return Ok(()),
        };
        Err(StoreError::new(kind, "the program fails"))
    });
    let subject = json!({ "format": "opaque", "id": "x" });
    let all = ["panic", "hang", "invalid", "error"];
    for fails in all {
        let details = json!({ "fails": fails });
        parties.transmitter.give_out(parties.transmitter.security_event(RISK, &subject, &details));
    }
    let alice = parties.provider.access_token("alice", None);
    parties.transmitter.give_out(parties.event_about("alice"));
    let endpoint = parties.transmitter.poll_endpoint();
    let running = Running::start(over(EventPoller::new(receiver, URL).unwrap(), &endpoint));
    until(|| parties.transmitter.outstanding().len() == all.len()).await;
    assert!(parties.is_revoked(&alice).await);
    running.stop().await;
    // The token of an event is not to blame for what the program makes of it.
    assert_eq!(parties.transmitter.refused(), []);
}

/// The texts of warnings.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN {
            event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
                self.0.lock().unwrap().push(format!("{field}: {value:?}"));
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_does_not_pass_is_warned_of_once_for_each_event() {
    use tracing_subscriber::layer::SubscriberExt as _;

    let warnings = Warnings::default();
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let _collecting = tracing::subscriber::set_default(subscriber);
    let parties = Parties::new();
    let effects = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&effects);
    let receiver = parties.receiver.clone().with_effect(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        ready(Err(StoreError::new(StoreErrorKind::InvalidInput, "no such device")))
    });
    for user in ["alice", "bob"] {
        parties.transmitter.give_out(parties.event_about(user));
    }
    let endpoint = parties.transmitter.poll_endpoint();
    let running = Running::start(over(EventPoller::new(receiver, URL).unwrap(), &endpoint));
    until(|| effects.load(Ordering::Relaxed) > 10).await;
    running.stop().await;
    let warnings = warnings.0.lock().unwrap();
    let about = warnings.iter().filter(|text| text.contains("no such device")).count();
    assert_eq!(about, 2, "{warnings:?}");
}

/// Signs events by a key that is not that of its provider.
fn event_by(key: SigningKey, user: &str) -> String {
    let issuer = SecurityEventIssuer::new(key, TRANSMITTER, "us").unwrap();
    let subject = json!({ "format": "iss_sub", "iss": OP, "sub": user });
    issuer.issue(SESSION_REVOKED, &subject, &json!({})).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_key_is_published_late_is_not_lost() {
    let parties = Parties::new();
    let key =
        SigningKey::from_pem(Algorithm::EdDSA, include_bytes!("../../tests/keys/ed25519.pem"));
    let key = key.unwrap();
    let published = Arc::new(Mutex::new("old"));
    let (names, public) = (Arc::clone(&published), key.verification_key());
    let keys = Jwks::at("https://events.example/keys").unwrap().with_transport(move |_| {
        let key = public.clone().with_kid(*names.lock().unwrap()).unwrap();
        let set = format!(r#"{{"keys":[{}]}}"#, key.to_jwk().unwrap());
        ready(Ok::<_, Infallible>(Response::new(set)))
    });
    let profile = TokenProfile::new().with_issuer(TRANSMITTER).with_audience("us");
    let verifier = JwtVerifier::with_remote_keys(keys.fetch().await.unwrap(), profile).unwrap();
    let subjects = SubjectRevoker::new(parties.layer.revoker());
    let receiver = EventReceiver::new(subjects, ReplayGuard::new(MemoryStore::new()));
    let receiver = receiver.with(verifier).unwrap();

    let alice = parties.provider.access_token("alice", None);
    parties.transmitter.give_out(event_by(key.with_kid("new").unwrap(), "alice"));
    let endpoint = parties.transmitter.poll_endpoint();
    let running = Running::start(over(EventPoller::new(receiver, URL).unwrap(), &endpoint));
    sleep(Duration::from_secs(5 * 60)).await;
    assert_eq!(parties.transmitter.outstanding().len(), 1);
    *published.lock().unwrap() = "new";
    until(|| parties.transmitter.outstanding().is_empty()).await;
    assert_eq!(parties.transmitter.refused(), []);
    assert!(parties.is_revoked(&alice).await);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_key_is_never_published_is_refused_in_the_end() {
    let parties = Parties::new();
    let key = SigningKey::from_secret(Algorithm::HS256, &[7; 32]).unwrap();
    parties.transmitter.give_out(event_by(key.with_kid("unknown").unwrap(), "alice"));
    let endpoint = parties.transmitter.poll_endpoint();
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let running = Running::start(over(poller, &endpoint));
    sleep(KEYS_ARE_LATE * 9 / 10).await;
    assert_eq!(parties.transmitter.outstanding().len(), 1);
    until(|| parties.transmitter.outstanding().is_empty()).await;
    let [(_, code)] = parties.transmitter.refused().try_into().unwrap();
    assert_eq!(code, INVALID_KEY);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_is_acknowledged_again_and_not_carried_out_again() {
    let parties = Parties::new();
    let effects = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&effects);
    let receiver = parties.receiver.clone().with_effect(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        ready(Ok(()))
    });
    let event = parties.transmitter.security_event(
        RISK,
        &json!({ "format": "opaque", "id": "x" }),
        &json!({ "current_level": "HIGH" }),
    );
    let id = {
        parties.transmitter.give_out(event.clone());
        parties.transmitter.outstanding().remove(0)
    };
    // A transmitter that forgets what was acknowledged, and says that there is more.
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&asked);
    let listed = id.clone();
    let poller = EventPoller::new(receiver, URL).unwrap();
    let running = Running::start(poller.with_transport(move |request: Request<Bytes>| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        kept.lock().unwrap().push((Instant::now(), body));
        let answer = json!({ "sets": { &listed: event }, "moreAvailable": true });
        ready(Ok::<_, Infallible>(Response::new(answer.to_string())))
    }));
    until(|| asked.lock().unwrap().len() > 10).await;
    running.stop().await;
    assert_eq!(effects.load(Ordering::Relaxed), 1);
    let asked = asked.lock().unwrap();
    for (number, (_, body)) in asked.iter().enumerate().skip(1) {
        assert_eq!(body["ack"], json!([id]), "request {number}");
    }
    // The first acknowledgement is sent at once. From then on there is nothing new, so it pauses.
    let polls: Vec<_> = asked.iter().map(|(at, _)| *at).take(10).collect();
    assert!(polls[1] - polls[0] < DEFAULT_INTERVAL);
    for pair in polls[1..].windows(2) {
        assert!(pair[1] - pair[0] >= DEFAULT_INTERVAL);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_the_transmitter_is_told_what_was_carried_out() {
    let parties = Parties::new();
    let alice = parties.provider.access_token("alice", None);
    parties.transmitter.give_out(parties.event_about("alice"));
    let (polls, endpoint) = (Arc::new(Mutex::new(Vec::new())), parties.transmitter.poll_endpoint());
    let kept = Arc::clone(&polls);
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let running = Running::start(poller.with_transport(move |request: Request<Bytes>| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        kept.lock().unwrap().push(body);
        // The acknowledgement with the second one gets lost.
        let is_lost = kept.lock().unwrap().len() == 2;
        let endpoint = endpoint.clone();
        async move {
            if is_lost {
                return pending().await;
            }
            Ok::<_, Infallible>(ask(&endpoint, request).await)
        }
    }));
    until(|| polls.lock().unwrap().len() == 2).await;
    running.stop().await;
    let polls = polls.lock().unwrap().clone();
    assert_eq!(polls.len(), 3);
    assert_eq!((&polls[2]["maxEvents"], &polls[2]["returnImmediately"]), (&json!(0), &json!(true)));
    assert_eq!(polls[2]["ack"], polls[1]["ack"]);
    assert_eq!(parties.transmitter.outstanding(), [""; 0]);
    assert!(parties.is_revoked(&alice).await);
}

/// A store that hangs holds up nobody who wants to stop.
#[tokio::test(start_paused = true)]
async fn it_stops_while_the_store_hangs_and_acknowledges_nothing() {
    let parties = Parties::new();
    parties.transmitter.give_out(parties.event_about("alice"));
    parties.store.hang();
    let endpoint = parties.transmitter.poll_endpoint();
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let running = Running::start(over(poller, &endpoint));
    sleep(Duration::from_secs(30)).await;
    running.stop().await;
    assert_eq!(parties.transmitter.outstanding().len(), 1);
}

/// The answer of RFC 8936 §2.4 (figure 3), whose tokens are those of RFC 8417 §2.1.1 without a
/// signature. So they are refused, as figure 6 shows it.
#[tokio::test(start_paused = true)]
async fn requests_are_as_the_specification_shows_them() {
    let parties = Parties::new();
    let claims = scim_example();
    let id = claims["jti"].as_str().unwrap().to_owned();
    let encode = |json: &Value| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string())
    };
    let token = format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&claims));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (kept, listed) = (Arc::clone(&asked), id.clone());
    let poller = EventPoller::new(parties.receiver.clone(), URL).unwrap();
    let poller = poller.with_bearer("h480djs93hd8").unwrap();
    let running = Running::start(poller.with_transport(move |request: Request<Bytes>| {
        let is_first = kept.lock().unwrap().is_empty();
        let sets = if is_first { json!({ &listed: token }) } else { json!({}) };
        kept.lock().unwrap().push(request);
        ready(Ok::<_, Infallible>(Response::new(json!({ "sets": sets }).to_string())))
    }));
    until(|| asked.lock().unwrap().len() > 2).await;
    running.stop().await;
    let asked = asked.lock().unwrap();
    for request in &*asked {
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&http::Method::POST, URL.into())
        );
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(request.headers()["accept"], "application/json");
        assert_eq!(request.headers()["authorization"], "Bearer h480djs93hd8");
    }
    let body = |number: usize| serde_json::from_slice::<Value>(asked[number].body()).unwrap();
    let plain = json!({ "maxEvents": 32, "returnImmediately": false });
    assert_eq!(body(0), plain);
    assert!(!asked[0].headers().contains_key("content-language"));
    let second = body(1);
    assert_eq!(second["setErrs"][&id]["err"], "invalid_issuer");
    assert!(second["setErrs"][&id]["description"].is_string());
    assert_eq!(second.get("ack"), None);
    assert_eq!(asked[1].headers()["content-language"], "en");
    assert_eq!(body(2), plain, "it was told");
}

/// Over the network, by the client that there is without a transport of the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_polled_for_over_http() {
    let parties = Parties::new();
    let alice = parties.provider.access_token("alice", None);
    let endpoint = parties.transmitter.poll_endpoint();
    let admits = axum::middleware::from_fn(
        |request: axum::extract::Request, next: axum::middleware::Next| async move {
            match request.headers().get("authorization") {
                Some(given) if given == "Bearer secret" => next.run(request).await,
                _ => Response::builder().status(401).body(axum::body::Body::empty()).unwrap(),
            }
        },
    );
    let router = axum::Router::new().route_service("/poll", endpoint).layer(admits);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/poll", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let poller = || {
        let poller = EventPoller::new(parties.receiver.clone(), &url).unwrap();
        poller.with_plain_http_on_loopback().with_interval(Duration::from_millis(50))
    };
    let not_known = Running::start(poller());
    let known = Running::start(poller().with_bearer("secret").unwrap());
    parties.transmitter.give_out(parties.event_about("alice"));
    until(|| parties.transmitter.outstanding().is_empty()).await;
    assert!(parties.is_revoked(&alice).await);
    known.stop().await;
    not_known.stop().await;
    server.abort();
}

#[tokio::test]
async fn settings_that_cannot_work_are_told_by_name() {
    let parties = Parties::new();
    let receiver = || parties.receiver.clone();
    let stop = || ready(());
    let setting =
        |poller: EventPoller| poller.run(stop()).map(drop).unwrap_err().setting().to_owned();
    let poller = |url: &str| EventPoller::new(receiver(), url).unwrap();
    for url in ["http://events.example/poll", "events.example", "https://user@events.example", ""] {
        assert_eq!(setting(poller(url)), "poll_url", "{url}");
    }
    assert_eq!(setting(poller(URL).with_timeout(Duration::ZERO)), "timeout");
    assert_eq!(setting(poller(URL).with_interval(Duration::ZERO)), "interval");
    assert_eq!(poller(URL).with_bearer("a\nb").unwrap_err().setting(), "bearer");
    assert_eq!(poller(URL).with_proxy("x").unwrap_err().setting(), "proxy");
    assert_eq!(poller(URL).with_root_certificates(b"").unwrap_err().setting(), "root_certificates");
    let subjects = SubjectRevoker::new(parties.layer.revoker());
    let nobody = EventReceiver::new(subjects, ReplayGuard::new(MemoryStore::new()));
    assert_eq!(EventPoller::new(nobody, URL).unwrap_err().setting(), "transmitter");
    let shown = format!("{:?}", poller("https://user:hidden@events.example:8443/a/b?key=hidden"));
    assert!(!shown.contains("hidden") && !shown.contains("user:"), "{shown}");
    assert!(shown.contains("https://events.example:8443/a/b,"), "{shown}");
    for odd in [
        "https://user:hid?den@events.example/",
        "https://user:hid/den@events.example/",
        "user:hidden@events.example/",
        "",
    ] {
        let shown = format!("{:?}", poller(odd));
        assert!(!shown.contains("hid") && !shown.contains("den"), "{shown}");
    }
}
