//! Over a provider that answers what the test says, with a clock that the test moves.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::time::{Instant, advance};

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::token::Algorithm;
use crate::token::jwt::VerificationKey;
use crate::token::{TokenProfile, TokenVerifier as _};
use crate::{CachedVerifier, JwtVerifier};

const ISSUER: &str = "https://id.example/realm";
const SET: &str = "https://id.example/keys";

/// A provider that publishes what it is told to.
#[derive(Clone, Default)]
struct Provider(Arc<State>);

#[derive(Default)]
struct State {
    /// Answers to come; when there is none left, the last one is given again.
    answers: Mutex<VecDeque<Result<JwksDocument, JwksErrorKind>>>,
    urls: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
    delay: Mutex<Duration>,
}

impl Provider {
    fn publishes(kids: &[&str]) -> Self {
        let provider = Self::default();
        provider.publish(kids);
        provider
    }

    fn publish(&self, kids: &[&str]) {
        self.answer(Ok(JwksDocument::new(key_set(kids))));
    }

    fn answer(&self, answer: Result<JwksDocument, JwksErrorKind>) {
        let mut answers = self.0.answers.lock().unwrap();
        answers.clear();
        answers.push_back(answer);
    }

    fn fail(&self) {
        self.answer(Err(JwksErrorKind::Unreachable));
    }

    fn fetches(&self) -> usize {
        self.0.urls.lock().unwrap().len()
    }
}

impl JwksTransport for Provider {
    fn get(&self, url: &Uri) -> BoxFuture<'static, Result<JwksDocument, JwksError>> {
        let state = Arc::clone(&self.0);
        state.urls.lock().unwrap().push(url.to_string());
        async move {
            let under_way = state.now.fetch_add(1, Ordering::SeqCst) + 1;
            state.most.fetch_max(under_way, Ordering::SeqCst);
            let delay = *state.delay.lock().unwrap();
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let mut answers = state.answers.lock().unwrap();
            let answer = match answers.len() {
                0 | 1 => answers.front().cloned(),
                _ => answers.pop_front(),
            };
            state.now.fetch_sub(1, Ordering::SeqCst);
            answer.expect("an answer").map_err(|kind| JwksError::new(kind, "as the test wants it"))
        }
        .boxed()
    }
}

/// jsonwebtoken must not be asked for anything before a key of ours was made.
fn provider_is_there() {
    VerificationKey::from_secret(Algorithm::HS256, &[0; 32]).unwrap();
}

fn ed25519() -> EncodingKey {
    let pem = include_str!("../../../tests/keys/ed25519.pem");
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    EncodingKey::from_ed_der(&STANDARD.decode(base64).unwrap())
}

fn key_set(kids: &[&str]) -> String {
    provider_is_there();
    let keys: Vec<Value> = kids
        .iter()
        .map(|kid| {
            let mut jwk =
                Jwk::from_encoding_key(&ed25519(), jsonwebtoken::Algorithm::EdDSA).unwrap();
            jwk.common.key_id = Some((*kid).into());
            serde_json::to_value(jwk).unwrap()
        })
        .collect();
    json!({ "keys": keys }).to_string()
}

fn token(kid: &str) -> String {
    signed(&Header { kid: Some(kid.into()), ..Header::new(jsonwebtoken::Algorithm::EdDSA) })
}

fn signed(header: &Header) -> String {
    let now = SystemClock.now().as_secs();
    let claims = json!({"iss": ISSUER, "sub": "alice", "jti": "1", "iat": now, "exp": now + 600});
    jsonwebtoken::encode(header, &claims, &ed25519()).unwrap()
}

fn jwks(provider: &Provider) -> Jwks {
    Jwks::at(SET).unwrap().with_transport(provider.clone())
}

fn verifier(keys: &RemoteKeys) -> JwtVerifier {
    JwtVerifier::with_remote_keys(keys.clone(), TokenProfile::new().with_issuer(ISSUER)).unwrap()
}

fn kind(verifier: &JwtVerifier, kid: &str) -> Option<TokenErrorKind> {
    verifier.verify(&token(kid)).err().map(|error| error.kind())
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_and_used_by_name() {
    let provider = Provider::publishes(&["a", "b"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    assert_eq!(keys.key_ids().join(" "), "a b");
    for kid in ["a", "b"] {
        assert_eq!(kind(&verifier, kid), None);
    }
    assert_eq!(
        kind(&verifier, "c"),
        Some(TokenErrorKind::UnknownKey),
        "the keys are new: there is no such key"
    );
    assert_eq!(provider.fetches(), 1);
    assert_eq!(keys.age(), Some(Duration::ZERO));
    assert!(keys.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rotation_announced_in_time_refuses_nobody() {
    let provider = Provider::publishes(&["old"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    // The new key is published next to the old one, then used, then alone.
    for (published, used) in
        [(&["old", "new"][..], "old"), (&["old", "new"], "new"), (&["new"], "new")]
    {
        provider.publish(published);
        let fetched = keys.next_fetch();
        advance(DEFAULT_MAX_AGE).await;
        fetched.await.unwrap();
        assert_eq!(kind(&verifier, used), None, "{published:?}");
    }
    assert_eq!(provider.fetches(), 4, "by age alone");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_withdrawn_is_no_longer_accepted() {
    let provider = Provider::publishes(&["good", "stolen"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    let cached = CachedVerifier::new(Arc::new(verifier.clone()));
    let stolen = token("stolen");
    cached.verify(&stolen).unwrap();
    cached.verify(&stolen).unwrap();
    let generation = keys.generation();
    provider.publish(&["good"]);
    let fetched = keys.next_fetch();
    advance(DEFAULT_MAX_AGE).await;
    fetched.await.unwrap();
    assert_eq!(kind(&verifier, "stolen"), Some(TokenErrorKind::UnknownKey));
    assert_eq!(cached.verify(&stolen).unwrap_err().kind(), TokenErrorKind::UnknownKey);
    assert_eq!(kind(&verifier, "good"), None);
    assert_ne!(keys.generation(), generation, "caches must notice");
}

#[tokio::test(start_paused = true)]
async fn the_same_keys_again_are_no_change() {
    let provider = Provider::publishes(&["a", "b"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let generation = keys.generation();
    provider.publish(&["b", "a"]);
    let fetched = keys.next_fetch();
    advance(DEFAULT_MAX_AGE).await;
    fetched.await.unwrap();
    assert_eq!(keys.generation(), generation);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_known_yet_is_fetched_and_its_tokens_are_not_called_bad_meanwhile() {
    let provider = Provider::publishes(&["old"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    advance(DEFAULT_COOLDOWN).await;
    provider.publish(&["new"]);
    let fetched = keys.next_fetch();
    assert_eq!(kind(&verifier, "new"), Some(TokenErrorKind::NoKeys));
    fetched.await.unwrap();
    assert_eq!(kind(&verifier, "new"), None);
    assert_eq!(kind(&verifier, "old"), Some(TokenErrorKind::UnknownKey));
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_make_us_flood_the_provider() {
    let provider = Provider::publishes(&["a"]);
    *provider.0.delay.lock().unwrap() = Duration::from_millis(300);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    let start = Instant::now();
    let minute = Duration::from_secs(60);
    let mut made_up = 0;
    while start.elapsed() < minute {
        made_up += 1;
        assert!(kind(&verifier, &format!("made up {made_up}")).is_some());
        assert_eq!(kind(&verifier, "a"), None, "and nobody else is refused");
        advance(Duration::from_millis(50)).await;
    }
    let most = usize::try_from(minute.as_secs() / DEFAULT_COOLDOWN.as_secs()).unwrap() + 1;
    assert!((3..=most).contains(&provider.fetches()), "{} fetches", provider.fetches());
    assert_eq!(provider.0.most.load(Ordering::SeqCst), 1, "one at a time");
}

#[tokio::test(start_paused = true)]
async fn the_last_keys_outlive_an_outage_but_not_for_ever() {
    let provider = Provider::publishes(&["a"]);
    let keys = jwks(&provider).with_outage_grace(Duration::from_secs(3600)).fetch().await.unwrap();
    let verifier = verifier(&keys);
    let generation = keys.generation();
    provider.fail();
    let failed = keys.next_fetch();
    advance(DEFAULT_MAX_AGE).await;
    assert_eq!(failed.await.unwrap_err().kind(), JwksErrorKind::Unreachable);
    assert!(keys.last_error().is_some());
    while keys.age().unwrap() < Duration::from_secs(3590) {
        assert_eq!(kind(&verifier, "a"), None);
        assert_eq!(kind(&verifier, "b"), Some(TokenErrorKind::NoKeys), "nobody can know");
        advance(Duration::from_secs(10)).await;
    }
    assert_eq!(keys.generation(), generation);
    advance(Duration::from_secs(11)).await;
    assert_eq!(kind(&verifier, "a"), Some(TokenErrorKind::NoKeys));
    let failed = keys.next_fetch();
    failed.await.unwrap_err();
    assert_eq!(keys.age(), None);
    let without = keys.generation();
    assert_ne!(without, generation, "caches must notice");

    provider.publish(&["a"]);
    let fetched = keys.next_fetch();
    fetched.await.unwrap();
    assert_eq!(kind(&verifier, "a"), None);
    assert!(keys.generation() > without);
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_an_outage_too() {
    let provider = Provider::publishes(&["a"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    let weak = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"}]}"#;
    let secret = r#"{"keys": [{"kty": "oct", "alg": "HS256", "k": "AAAA", "kid": "a"}]}"#;
    for (answer, expected) in [
        ("", JwksErrorKind::Malformed),
        ("<html>", JwksErrorKind::Malformed),
        ("{}", JwksErrorKind::Malformed),
        (r#"{"keys": {}}"#, JwksErrorKind::Malformed),
        (r#"{"keys": []}"#, JwksErrorKind::NoUsableKey),
        (weak, JwksErrorKind::NoUsableKey),
        (secret, JwksErrorKind::NoUsableKey),
        (&" ".repeat(MAX_DOCUMENT_BYTES + 1), JwksErrorKind::TooLarge),
    ] {
        provider.answer(Ok(JwksDocument::new(answer.to_owned())));
        let fetched = keys.next_fetch();
        advance(DEFAULT_MAX_AGE).await;
        assert_eq!(fetched.await.unwrap_err().kind(), expected, "{answer:.20}");
        assert_eq!(kind(&verifier, "a"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_given_up() {
    let provider = Provider::publishes(&["a"]);
    *provider.0.delay.lock().unwrap() = Duration::from_secs(3600);
    let start = Instant::now();
    let error = jwks(&provider).fetch().await.unwrap_err();
    assert_eq!(error.kind(), JwksErrorKind::Timeout);
    assert_eq!(start.elapsed(), DEFAULT_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn the_provider_may_want_it_sooner_but_neither_later_nor_at_once() {
    let provider = Provider::publishes(&["a"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    for (max_age, least, most) in [
        (None, DEFAULT_MAX_AGE * 9 / 10, DEFAULT_MAX_AGE),
        (Some(Duration::from_secs(100)), Duration::from_secs(90), Duration::from_secs(100)),
        (Some(Duration::ZERO), DEFAULT_COOLDOWN, DEFAULT_COOLDOWN),
        (Some(Duration::MAX), DEFAULT_MAX_AGE * 9 / 10, DEFAULT_MAX_AGE),
    ] {
        provider.answer(Ok(JwksDocument::new(key_set(&["a"])).with_max_age(max_age)));
        keys.next_fetch().await.unwrap();
        let start = Instant::now();
        keys.next_fetch().await.unwrap();
        // Timers are to the millisecond, rounded up.
        let took = start.elapsed();
        assert!(least <= took && took <= most + Duration::from_millis(1), "{max_age:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_can_start_while_the_provider_is_down() {
    let provider = Provider::default();
    provider.fail();
    let keys = jwks(&provider).start().unwrap();
    provider_is_there();
    let verifier = verifier(&keys);
    assert_eq!(kind(&verifier, "a"), Some(TokenErrorKind::NoKeys));
    assert_eq!(
        verifier.verify("junk").unwrap_err().kind(),
        TokenErrorKind::Malformed,
        "that needs no key"
    );
    keys.next_fetch().await.unwrap_err();
    let start = Instant::now();
    for _ in 0..8 {
        keys.next_fetch().await.unwrap_err();
    }
    assert!(start.elapsed() > 4 * DEFAULT_COOLDOWN, "the pauses get longer");
    provider.publish(&["a"]);
    let start = Instant::now();
    keys.next_fetch().await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(61));
    assert_eq!(kind(&verifier, "a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_the_name_of_its_key_needs_a_set_of_one() {
    let provider = Provider::publishes(&["a", "b"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let unnamed = signed(&Header::new(jsonwebtoken::Algorithm::EdDSA));
    let verifier = verifier(&keys);
    assert_eq!(verifier.verify(&unnamed).unwrap_err().kind(), TokenErrorKind::UnknownKey);
    provider.publish(&["b"]);
    let fetched = keys.next_fetch();
    advance(DEFAULT_MAX_AGE).await;
    fetched.await.unwrap();
    verifier.verify(&unnamed).unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_two_keys_with_one_name_the_first_counts_and_nameless_ones_do_not() {
    let mut set: Value = serde_json::from_str(&key_set(&["a", "a", "b"])).unwrap();
    set["keys"].as_array_mut().unwrap().push(json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    }));
    set["keys"][1]["x"] = json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let provider = Provider::default();
    provider.answer(Ok(JwksDocument::new(set.to_string())));
    let keys = jwks(&provider).fetch().await.unwrap();
    assert_eq!(keys.key_ids().join(" "), "a b");
    assert_eq!(kind(&verifier(&keys), "a"), None);
}

// === Discovery ===

fn discovery(issuer: &str, jwks_uri: &str) -> JwksDocument {
    JwksDocument::new(json!({"issuer": issuer, "jwks_uri": jwks_uri, "other": [1]}).to_string())
}

fn discovers(documents: impl IntoIterator<Item = JwksDocument>) -> (Provider, Jwks) {
    let provider = Provider::default();
    provider.0.answers.lock().unwrap().extend(documents.into_iter().map(Ok));
    let jwks = Jwks::of_issuer(ISSUER).unwrap().with_transport(provider.clone());
    (provider, jwks)
}

#[tokio::test(start_paused = true)]
async fn keys_are_discovered_from_the_issuer() {
    let (provider, jwks) = discovers([discovery(ISSUER, SET), JwksDocument::new(key_set(&["a"]))]);
    let keys = jwks.fetch().await.unwrap();
    assert_eq!(
        *provider.0.urls.lock().unwrap(),
        ["https://id.example/realm/.well-known/openid-configuration", SET]
    );
    assert_eq!(kind(&verifier(&keys), "a"), None);
    let other = TokenProfile::new().with_issuer("https://else.example");
    assert_eq!(JwtVerifier::with_remote_keys(keys.clone(), other).unwrap_err().setting(), "issuer");
    assert_eq!(
        JwtVerifier::with_remote_keys(keys, TokenProfile::new()).unwrap_err().setting(),
        "issuer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_document_about_another_issuer_is_refused() {
    for issuer in
        ["https://else.example", "https://id.example/realm/", "HTTPS://id.example/realm", ""]
    {
        let (_, jwks) = discovers([discovery(issuer, SET), JwksDocument::new(key_set(&["a"]))]);
        assert_eq!(jwks.fetch().await.unwrap_err().kind(), JwksErrorKind::WrongIssuer, "{issuer}");
    }
    for bad in
        ["", "/keys", "id.example/keys", "file:///etc/passwd", "https://", "https://a@id.example/"]
    {
        let (_, jwks) = discovers([discovery(ISSUER, bad)]);
        assert_eq!(jwks.fetch().await.unwrap_err().kind(), JwksErrorKind::Malformed, "{bad}");
    }
    let (_, jwks) = discovers([JwksDocument::new("{}")]);
    assert_eq!(jwks.fetch().await.unwrap_err().kind(), JwksErrorKind::Malformed);
}

// === Settings and life ===

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_work_are_named() {
    for bad in [
        "",
        "id.example",
        "/keys",
        "ftp://id.example/",
        "https://id.example/#a",
        "https://a:b@id.example/",
    ] {
        assert_eq!(Jwks::at(bad).unwrap_err().setting(), "jwks_url", "{bad}");
        assert_eq!(Jwks::of_issuer(bad).unwrap_err().setting(), "issuer", "{bad}");
    }
    assert!(
        !Jwks::at("https://user:hunter2@id.example/").unwrap_err().to_string().contains("hunter2")
    );
    assert!(
        !format!("{:?}", Jwks::at("https://id.example/keys?code=hunter2").unwrap())
            .contains("hunter2")
    );
    Jwks::of_issuer("https://id.example/?a=b").unwrap_err();
    let provider = Provider::publishes(&["a"]);
    let second = Duration::from_secs(1);
    for (jwks, setting) in [
        (jwks(&provider).with_cooldown(Duration::ZERO), "cooldown"),
        (jwks(&provider).with_max_age(second), "max_age"),
        (jwks(&provider).with_outage_grace(second), "outage_grace"),
        (jwks(&provider).with_timeout(Duration::ZERO), "timeout"),
        (Jwks::at("http://id.example/keys").unwrap(), "jwks_url"),
    ] {
        assert_eq!(jwks.start().unwrap_err().setting(), setting);
    }
    assert_eq!(
        jwks(&provider).with_root_certificates(b"no PEM").unwrap_err().setting(),
        "root_certificates"
    );
    assert_eq!(provider.fetches(), 0);
}

#[test]
fn keys_need_a_runtime() {
    assert_eq!(jwks(&Provider::publishes(&["a"])).start().unwrap_err().setting(), "runtime");
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_the_last_that_holds_the_keys() {
    let provider = Provider::publishes(&["a"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    drop(keys);
    advance(DEFAULT_MAX_AGE).await;
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&provider.0), 2, "the verifier holds the keys");
    drop(verifier);
    while Arc::strong_count(&provider.0) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn keys_whose_runtime_is_gone_are_not_used_for_ever() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let provider = Provider::publishes(&["a"]);
    let keys = runtime.block_on(jwks(&provider).fetch()).unwrap();
    let verifier = verifier(&keys);
    assert_eq!(kind(&verifier, "a"), None);
    drop(runtime);
    assert_eq!(keys.last_error().unwrap().kind(), JwksErrorKind::Unreachable);
    assert_eq!(kind(&verifier, "a"), None, "in the grace they are as good as in an outage");
}

#[test]
fn defaults_are_as_documented() {
    assert_eq!(
        [DEFAULT_MAX_AGE, DEFAULT_COOLDOWN, DEFAULT_OUTAGE_GRACE, DEFAULT_TIMEOUT]
            .map(|time| time.as_secs()),
        [900, 10, 86_400, 5]
    );
    assert_eq!(MAX_DOCUMENT_BYTES, 262_144);
}
