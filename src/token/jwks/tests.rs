//! Over a provider that answers what the test says, with a clock that the test moves.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::{HeaderValue, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
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
    /// When each answer was asked for that was given, and whether it was keys.
    log: Mutex<Vec<(Instant, bool)>>,
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

impl JwksDocument {
    fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), max_age: None }
    }
}

impl Provider {
    /// Has the documents of `jwks` fetched from here.
    fn serves(&self, mut jwks: Jwks) -> Jwks {
        let provider = self.clone();
        jwks.transport = Some(Arc::new(move |url| provider.get(url)));
        jwks
    }

    fn get(&self, url: &Uri) -> BoxFuture<'static, Result<JwksDocument, JwksError>> {
        let state = Arc::clone(&self.0);
        state.urls.lock().unwrap().push(url.to_string());
        let asked_at = Instant::now();
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
            let answer = answer.expect("an answer");
            state.log.lock().unwrap().push((asked_at, answer.is_ok()));
            answer.map_err(|kind| JwksError::new(kind, "as the test wants it"))
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
    provider.serves(Jwks::at(SET).unwrap())
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
    assert_eq!(provider.fetches(), 1);
    assert_eq!(keys.age(), Some(Duration::ZERO));
    assert!(keys.last_error().is_none());
    // However new the keys are, it may be newer still.
    let fetched = keys.next_fetch();
    assert_eq!(kind(&verifier, "c"), Some(TokenErrorKind::NoKeys));
    fetched.await.unwrap();
    assert_eq!(kind(&verifier, "c"), Some(TokenErrorKind::UnknownKey), "there is no such key");
    assert_eq!(provider.fetches(), 2);
}

/// Each token of such a key is answered with 503 until it is accepted, and no longer than the
/// pause.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_published_just_after_a_fetch_is_found_without_calling_its_tokens_bad() {
    let provider = Provider::publishes(&["old"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    advance(Duration::from_secs(1)).await;
    provider.publish(&["old", "new"]);
    let start = Instant::now();
    while let Some(kind) = kind(&verifier, "new") {
        assert_eq!(kind, TokenErrorKind::NoKeys, "after {:?}", start.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() <= DEFAULT_COOLDOWN, "{:?}", start.elapsed());
    assert_eq!(provider.fetches(), 2);
}

/// Of a fetch that was under way nobody knows what the provider had read of its keys by then.
#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_under_way_does_not_tell_that_there_is_no_such_key() {
    let provider = Provider::publishes(&["old"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    *provider.0.delay.lock().unwrap() = Duration::from_secs(2);
    let fetched = keys.next_fetch();
    advance(DEFAULT_MAX_AGE).await;
    while provider.fetches() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(kind(&verifier, "new"), Some(TokenErrorKind::NoKeys));
    fetched.await.unwrap();
    assert_eq!(provider.fetches(), 2);
    assert_eq!(kind(&verifier, "new"), Some(TokenErrorKind::NoKeys), "it began too early");
    keys.next_fetch().await.unwrap();
    assert_eq!(kind(&verifier, "new"), Some(TokenErrorKind::UnknownKey));
}

/// A lasting state is never answered as a passing one: its bearer has to sign in again.
#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_is_called_unknown_for_good_and_seldom_asked_for() {
    let provider = Provider::publishes(&["good", "withdrawn"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    provider.publish(&["good"]);
    let fetched = keys.next_fetch();
    advance(DEFAULT_MAX_AGE).await;
    fetched.await.unwrap();
    let (start, before) = (Instant::now(), provider.fetches());
    while start.elapsed() < Duration::from_secs(3600) {
        assert_eq!(kind(&verifier, "withdrawn"), Some(TokenErrorKind::UnknownKey));
        let never_there = kind(&verifier, "never there");
        match start.elapsed().as_secs() {
            0..10 => assert_eq!(never_there, Some(TokenErrorKind::NoKeys)),
            // The fetch is under way.
            10..12 => {}
            _ => assert_eq!(never_there, Some(TokenErrorKind::UnknownKey)),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let times = provider.fetches() - before;
    assert!((55..=65).contains(&times), "once a minute, not {times} times");
    // A provider that takes it back is believed.
    provider.publish(&["good", "withdrawn"]);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(kind(&verifier, "withdrawn"), Some(TokenErrorKind::UnknownKey), "this asks for it");
    tokio::time::sleep(DEFAULT_COOLDOWN).await;
    assert_eq!(kind(&verifier, "withdrawn"), None);
}

/// Neither what an attacker has used up nor the name of the next key, sent before it is published,
/// keeps its tokens away for longer than a minute.
#[tokio::test(start_paused = true)]
async fn junk_is_not_answered_as_an_outage_and_does_not_keep_a_new_key_away() {
    let provider = Provider::publishes(&["old"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    let (mut made_up, mut waited) = (0, 0);
    let mut junk = |times: usize| {
        for _ in 0..times {
            made_up += 1;
            let kind = kind(&verifier, &format!("made up {made_up}"));
            waited += usize::from(kind == Some(TokenErrorKind::NoKeys));
        }
        (made_up, waited)
    };
    for _ in 0..30 {
        junk(50);
        kind(&verifier, "new");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (made_up, waited) = junk(1);
    assert!(waited <= 4 * 64, "{waited} of {made_up}");
    provider.publish(&["old", "new"]);
    let start = Instant::now();
    while kind(&verifier, "new").is_some() {
        junk(50);
        assert!(start.elapsed() < Duration::from_secs(60), "it is starved");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() <= DEFAULT_COOLDOWN, "{:?}", start.elapsed());
    assert_eq!(kind(&verifier, "old"), None);
}

/// Any order of rotations, outages, slow answers and tokens: 503 lasts until one fetch that began
/// after the token is done, 401 is given only after that, and what is published is found within the
/// pause, or within a minute if it was absent before.
#[tokio::test(start_paused = true)]
async fn what_an_unknown_key_means_holds_for_any_order_of_events() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "junk", "more junk"];
    for seed in 0..60_u64 {
        let mut random = seed;
        let mut next = |below: u64| {
            // As Knuth has it in MMIX; the high bits are the random ones.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let provider = Provider::publishes(&["a"]);
        let keys = jwks(&provider).fetch().await.unwrap();
        let verifier = verifier(&keys);
        let mut published: Vec<&str> = vec!["a"];
        let (mut first, mut last) = ([None::<Instant>; 6], [None::<Instant>; 6]);
        for step in 0..120 {
            match next(8) {
                0 => {
                    published = NAMES[..4].iter().copied().filter(|_| next(2) == 0).collect();
                    published.extend(published.is_empty().then_some("a"));
                    provider.publish(&published);
                }
                1 => provider.fail(),
                2 => *provider.0.delay.lock().unwrap() = Duration::from_millis(next(7) * 1000),
                3 => tokio::time::sleep(Duration::from_secs(next(40))).await,
                _ => tokio::time::sleep(Duration::from_millis(next(4) * 700)).await,
            }
            let at = usize::try_from(next(6)).unwrap();
            let (name, now) = (NAMES[at], Instant::now());
            let is_forgotten = last[at].is_none_or(|last| now - last >= Duration::from_secs(600));
            if is_forgotten {
                first[at] = Some(now);
            }
            let since = first[at].unwrap();
            // What began in the same moment may have begun before or after.
            let has_told = |earliest: Instant| {
                let log = provider.0.log.lock().unwrap();
                log.iter().any(|(asked_at, is_keys)| *is_keys && *asked_at >= earliest)
            };
            let (may_be_known, is_known) =
                (has_told(since), has_told(since + Duration::from_nanos(1)));
            let kind = kind(&verifier, name);
            let what = format!("seed {seed}, step {step}: {name} {kind:?}");
            match kind {
                None => {
                    assert!(keys.key_ids().iter().any(|kid| **kid == *name), "{what}");
                    // Gone again, it is a name that was seen long ago.
                    first[at] = Some(now);
                }
                Some(TokenErrorKind::UnknownKey) => {
                    let was_there = NAMES[..4].contains(&name);
                    assert!(may_be_known || was_there, "{what}: nobody can know that");
                }
                Some(TokenErrorKind::NoKeys) => assert!(!is_known, "{what}: it is known"),
                Some(_) => panic!("{what}"),
            }
            last[at] = Some(now);
        }
        // In the end what is published is found.
        *provider.0.delay.lock().unwrap() = Duration::ZERO;
        provider.publish(&published);
        for name in &published {
            let start = Instant::now();
            while kind(&verifier, name).is_some() {
                assert!(
                    start.elapsed() < Duration::from_secs(80),
                    "seed {seed}: {name} is starved"
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// While nobody can know, whoever waits goes on waiting.
#[tokio::test(start_paused = true)]
async fn only_an_answer_ends_the_waiting() {
    let provider = Provider::publishes(&["a"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    for failure in [JwksErrorKind::Unreachable, JwksErrorKind::Status] {
        provider.answer(Err(failure));
        for _ in 0..5 {
            assert_eq!(kind(&verifier, "b"), Some(TokenErrorKind::NoKeys));
            keys.next_fetch().await.unwrap_err();
        }
    }
    provider.publish(&["a"]);
    keys.next_fetch().await.unwrap();
    assert_eq!(kind(&verifier, "b"), Some(TokenErrorKind::UnknownKey));
}

/// A token that comes before there are any keys has been seen, too.
#[tokio::test(start_paused = true)]
async fn the_first_keys_tell_about_tokens_that_were_there_before_them() {
    let provider = Provider::default();
    provider.fail();
    provider_is_there();
    let keys = jwks(&provider).start().unwrap();
    let verifier = verifier(&keys);
    keys.next_fetch().await.unwrap_err();
    assert_eq!(kind(&verifier, "b"), Some(TokenErrorKind::NoKeys));
    provider.publish(&["a"]);
    keys.next_fetch().await.unwrap();
    assert_eq!(kind(&verifier, "b"), Some(TokenErrorKind::UnknownKey));
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

/// Its tokens are bad for no longer than the pause, although nothing shows that they are not.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_replaced_under_its_name_is_fetched_when_a_token_does_not_fit() {
    let other = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for (old, expected) in [
        (rsa(Some("RS256"), Some("a")), TokenErrorKind::WrongAlgorithm),
        (other, TokenErrorKind::BadSignature),
    ] {
        let provider = publishes(&[old]);
        let keys = jwks(&provider).fetch().await.unwrap();
        let verifier = verifier(&keys);
        tokio::time::sleep(DEFAULT_COOLDOWN * 2).await;
        provider.publish(&["a"]);
        let (fetched, start) = (keys.next_fetch(), Instant::now());
        assert_eq!(kind(&verifier, "a"), Some(expected));
        fetched.await.unwrap();
        assert!(start.elapsed() <= DEFAULT_COOLDOWN, "{:?}", start.elapsed());
        assert_eq!(kind(&verifier, "a"), None);
        // And no more often than that.
        let (before, start) = (provider.fetches(), Instant::now());
        while start.elapsed() < DEFAULT_COOLDOWN * 6 {
            let forged = token("a") + "AAAA";
            verifier.verify(&forged).unwrap_err();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let times = provider.fetches() - before;
        assert!(times <= 7, "{times} fetches");
    }
}

/// A set in which nothing can be used is an outage, but it says what is withdrawn.
#[tokio::test(start_paused = true)]
async fn a_key_that_a_set_without_usable_keys_has_no_longer_is_withdrawn() {
    let unusable = |kid: &str| {
        json!({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": kid}]}).to_string()
    };
    let provider = Provider::publishes(&["good", "stolen"]);
    let keys = jwks(&provider).fetch().await.unwrap();
    let verifier = verifier(&keys);
    let cached = CachedVerifier::new(Arc::new(verifier.clone()));
    let stolen = token("stolen");
    cached.verify(&stolen).unwrap();
    for (set, good, stolen_kind) in [
        (unusable("good"), None, TokenErrorKind::UnknownKey),
        (unusable("good"), None, TokenErrorKind::UnknownKey),
        (r#"{"keys": []}"#.into(), None, TokenErrorKind::UnknownKey),
        (unusable("other"), Some(TokenErrorKind::NoKeys), TokenErrorKind::NoKeys),
    ] {
        provider.answer(Ok(JwksDocument::new(set)));
        let fetched = keys.next_fetch();
        // A failed one is repeated within a minute.
        assert_eq!(fetched.await.unwrap_err().kind(), JwksErrorKind::NoUsableKey);
        assert_eq!(kind(&verifier, "good"), good);
        assert_eq!(kind(&verifier, "stolen"), Some(stolen_kind));
        assert_eq!(cached.verify(&stolen).unwrap_err().kind(), stolen_kind);
    }
    provider.publish(&["good"]);
    keys.next_fetch().await.unwrap();
    assert_eq!(kind(&verifier, "good"), None);
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
        provider.answer(Ok(JwksDocument { max_age, ..JwksDocument::new(key_set(&["a"])) }));
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

fn rsa(alg: Option<&str>, kid: Option<&str>) -> Value {
    let pem = include_str!("../../../tests/keys/rsa2048.pub.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    // The modulus begins after the 33 bytes that each such key begins with.
    let n = URL_SAFE_NO_PAD.encode(&der[33..33 + 256]);
    let mut jwk = json!({"kty": "RSA", "n": n, "e": "AQAB"});
    for (name, value) in [("alg", alg), ("kid", kid)] {
        if let Some(value) = value {
            jwk[name] = value.into();
        }
    }
    jwk
}

fn rsa_token(alg: jsonwebtoken::Algorithm, kid: Option<&str>) -> String {
    let now = SystemClock.now().as_secs();
    let claims = json!({"iss": ISSUER, "sub": "alice", "jti": "1", "iat": now, "exp": now + 600});
    let pem = include_str!("../../../tests/keys/rsa2048.pkcs1.pem");
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = EncodingKey::from_rsa_der(&STANDARD.decode(body).unwrap());
    let header = Header { kid: kid.map(Into::into), ..Header::new(alg) };
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

fn publishes(keys: &[Value]) -> Provider {
    let provider = Provider::default();
    provider.answer(Ok(JwksDocument::new(json!({ "keys": keys }).to_string())));
    provider
}

/// As `OpenAM` publishes them: one key, or several, under one name, once for each algorithm.
#[tokio::test(start_paused = true)]
async fn several_published_keys_of_one_name_are_told_apart_by_their_algorithms() {
    use jsonwebtoken::Algorithm::{PS256, RS256, RS384, RS512};

    let mut ed: Value = serde_json::from_str(&key_set(&["a"])).unwrap();
    let ed = ed["keys"][0].take();
    let p256 = json!({"kty": "EC", "crv": "P-256", "kid": "a",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
        "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
    let mut published =
        vec![p256, rsa(Some("RS256"), Some("a")), ed, rsa(Some("PS256"), Some("a"))];
    for _ in 0..published.len() {
        published.rotate_left(1);
        let keys = jwks(&publishes(&published)).fetch().await.unwrap();
        assert_eq!(keys.key_ids().join(" "), "a");
        let verifier = verifier(&keys);
        assert_eq!(kind(&verifier, "a"), None);
        for (alg, expected) in [
            (RS256, None),
            (PS256, None),
            (RS384, Some(TokenErrorKind::WrongAlgorithm)),
            (RS512, Some(TokenErrorKind::WrongAlgorithm)),
        ] {
            let answer = verifier.verify(&rsa_token(alg, Some("a")));
            assert_eq!(answer.err().map(|error| error.kind()), expected, "{alg:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_published_keys_without_alg_may_verify_is_a_setting() {
    use jsonwebtoken::Algorithm::{PS256, RS256, RS512};

    let provider = publishes(&[rsa(None, Some("a")), rsa(Some("RS512"), Some("b"))]);
    let accepted = async |jwks: Jwks| {
        let verifier = verifier(&jwks.fetch().await.unwrap());
        let is_accepted = |alg, kid| verifier.verify(&rsa_token(alg, Some(kid))).is_ok();
        [RS256, PS256, RS512].map(|alg| (is_accepted(alg, "a"), is_accepted(alg, "b")))
    };
    let (yes, no) = (true, false);
    let by_default = accepted(jwks(&provider)).await;
    assert_eq!(by_default, [(yes, no), (no, no), (no, yes)], "RS256");
    let pss = jwks(&provider).with_default_algorithms([Algorithm::PS256]).unwrap();
    assert_eq!(accepted(pss).await, [(no, no), (yes, no), (no, yes)]);
    let both = [Algorithm::RS256, Algorithm::PS256];
    let both = jwks(&provider).with_default_algorithms(both).unwrap();
    assert_eq!(accepted(both).await, [(yes, no), (yes, no), (no, yes)]);
    let none = jwks(&provider).with_default_algorithms([]).unwrap();
    assert_eq!(accepted(none).await, [(no, no), (no, no), (no, yes)], "it must say so");
    for bad in [Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA] {
        let error = jwks(&provider).with_default_algorithms([bad]).unwrap_err();
        assert_eq!(error.setting(), "default_algorithms");
    }
    // Alone, it needs no name, however many algorithms it has.
    let both = jwks(&publishes(&[rsa(None, None)]));
    let both = both.with_default_algorithms([Algorithm::RS256, Algorithm::PS256]).unwrap();
    let verifier = verifier(&both.fetch().await.unwrap());
    verifier.verify(&rsa_token(PS256, None)).unwrap();
}

/// What says its algorithm counts before what may have it, wherever it stands.
#[tokio::test(start_paused = true)]
async fn a_key_that_names_its_algorithm_counts_before_one_that_does_not() {
    let mut other = rsa(None, Some("a"));
    let mut n = other["n"].as_str().unwrap().to_owned();
    n.replace_range(20..24, "AAAA");
    other["n"] = n.into();
    let named = rsa(Some("RS256"), Some("a"));
    for published in [[other.clone(), named.clone()], [named, other]] {
        let keys = jwks(&publishes(&published)).fetch().await.unwrap();
        let token = rsa_token(jsonwebtoken::Algorithm::RS256, Some("a"));
        verifier(&keys).verify(&token).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_set_is_said() {
    provider_is_there();
    let nameless = rsa(Some("RS256"), None);
    let p256 = json!({"kty": "EC", "crv": "P-256", "use": "enc", "kid": "e",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
        "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
    let second = json!({"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let set = |keys: &[&Value]| json!({ "keys": keys }).to_string();
    let oct = json!({"kty": "oct", "kid": "o", "alg": "HS256", "k": "AAAA"});
    let (no_set, no_key) = (JwksErrorKind::Malformed, JwksErrorKind::NoUsableKey);
    for (document, kind, part) in [
        (set(&[&nameless, &second]), no_key, "kid: is missing from 2 of 2 keys"),
        (set(&[&p256]), no_key, "the first one: key_set: the key `e` cannot be used: use: is not"),
        (
            set(&[&p256, &oct]),
            no_key,
            "use: is not `sig`: the key is not for signatures; the others",
        ),
        (set(&[]), no_key, "holds no key"),
        ("<html>".into(), no_set, "a web page"),
        ("{".into(), no_set, "no JSON (line 1)"),
        (r#"{"jwks_uri": "https://id.example/keys"}"#.into(), no_set, "see Jwks::of_issuer"),
        (r#"{"keys": [], "keys": []}"#.into(), no_set, "a member twice"),
    ] {
        let provider = Provider::default();
        provider.answer(Ok(JwksDocument::new(document)));
        let error = jwks(&provider).fetch().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    // What is published twice is one key.
    let keys = jwks(&publishes(&[nameless.clone(), nameless])).fetch().await.unwrap();
    verifier(&keys).verify(&rsa_token(jsonwebtoken::Algorithm::RS256, None)).unwrap();
}

// === Clients of the program ===

/// Fetches what `change` makes of the response, and says when it is fetched again.
async fn fetched_by_a_client(
    change: impl Fn(&mut Response<String>) + Send + Sync + 'static,
) -> Result<Duration, JwksError> {
    let set = key_set(&["a"]);
    let jwks = Jwks::at(SET).unwrap().with_transport(move |url: Uri| {
        assert_eq!(url, SET);
        let mut response = Response::new(set.clone());
        change(&mut response);
        async move { Ok::<_, std::io::Error>(response) }
    });
    let keys = jwks.fetch().await?;
    verifier(&keys).verify(&token("a")).unwrap();
    let start = Instant::now();
    keys.next_fetch().await?;
    Ok(start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_response_of_a_client_of_the_program_is_read_as_that_of_our_own() {
    let said = |response: &mut Response<String>| {
        response.headers_mut().insert("cache-control", HeaderValue::from_static("max-age=120"));
    };
    let minutes = Duration::from_secs(150);
    assert!(fetched_by_a_client(|_| ()).await.unwrap() > minutes);
    assert!(fetched_by_a_client(said).await.unwrap() < minutes);
    for status in [StatusCode::NO_CONTENT, StatusCode::FOUND, StatusCode::NOT_FOUND] {
        let refused = fetched_by_a_client(move |response| *response.status_mut() = status).await;
        assert_eq!(refused.unwrap_err().kind(), JwksErrorKind::Status, "{status}");
    }
    let packed = |response: &mut Response<String>| {
        response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    };
    let refused = fetched_by_a_client(packed).await;
    assert_eq!(refused.unwrap_err().kind(), JwksErrorKind::Malformed);
}

#[tokio::test]
async fn the_error_of_a_client_of_the_program_is_the_cause() {
    let jwks = Jwks::at(SET).unwrap().with_transport(|_| async {
        Err::<Response<Vec<u8>>, _>(std::io::Error::other("no route"))
    });
    let error = jwks.fetch().await.unwrap_err();
    assert_eq!(error.kind(), JwksErrorKind::Unreachable);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no route");
}

/// Both before there is a future and in it.
#[tokio::test(start_paused = true)]
async fn a_client_of_the_program_that_panics_does_not_end_the_refreshing() {
    let (set, times) = (key_set(&["a"]), AtomicUsize::new(0));
    let jwks = Jwks::at(SET).unwrap().with_transport(move |_| {
        let time = times.fetch_add(1, Ordering::SeqCst);
        assert_ne!(time, 1, "as the test wants it");
        let set = set.clone();
        async move {
            assert_ne!(time, 2, "as the test wants it");
            Ok::<_, std::io::Error>(Response::new(set))
        }
    });
    let keys = jwks.fetch().await.unwrap();
    let verifier = verifier(&keys);
    for _ in 0..2 {
        let error = keys.next_fetch().await.unwrap_err();
        assert_eq!(error.kind(), JwksErrorKind::Unreachable);
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(kind(&verifier, "a"), None);
    }
    keys.next_fetch().await.unwrap();
}

// === Discovery ===

fn discovery(issuer: &str, jwks_uri: &str) -> JwksDocument {
    JwksDocument::new(json!({"issuer": issuer, "jwks_uri": jwks_uri, "other": [1]}).to_string())
}

fn discovers(documents: impl IntoIterator<Item = JwksDocument>) -> (Provider, Jwks) {
    let provider = Provider::default();
    provider.0.answers.lock().unwrap().extend(documents.into_iter().map(Ok));
    let jwks = provider.serves(Jwks::of_issuer(ISSUER).unwrap());
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

/// Whoever fetches: what a client of the program would dial is not known, but what is said is.
#[tokio::test(start_paused = true)]
async fn a_document_leads_neither_from_https_to_http_nor_into_this_network() {
    for bad in [
        "http://id.example/keys",
        "http://127.0.0.1/keys",
        "https://127.0.0.1/keys",
        "https://10.0.0.7/keys",
        "https://169.254.169.254/latest",
        "https://[::1]/keys",
        "https://[fc00::1]:8443/keys",
    ] {
        let (provider, jwks) =
            discovers([discovery(ISSUER, bad), JwksDocument::new(key_set(&["a"]))]);
        assert_eq!(jwks.fetch().await.unwrap_err().kind(), JwksErrorKind::Forbidden, "{bad}");
        assert_eq!(provider.fetches(), 1, "{bad}");
    }
    for (issuer, good) in [
        (ISSUER, "https://8.8.8.8/keys"),
        (ISSUER, "https://keys.example/"),
        // The operator has named this address, or plain `http`.
        ("https://10.0.0.7/realm", "https://10.0.0.7:8443/keys"),
        ("http://localhost:8080", "http://127.0.0.1:8080/keys"),
    ] {
        let provider = Provider::default();
        let answers = [discovery(issuer, good), JwksDocument::new(key_set(&["a"]))];
        provider.0.answers.lock().unwrap().extend(answers.map(Ok));
        provider.serves(Jwks::of_issuer(issuer).unwrap()).fetch().await.unwrap();
    }
}

// === Settings, and how it ends ===

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
