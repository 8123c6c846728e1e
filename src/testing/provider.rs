//! [`TestProvider`]: an identity provider for tests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::endpoints::{Endpoint, LOGOUT_EVENT};
use crate::token::jwt::{JwtVerifier, SigningKey};
use crate::token::{Algorithm, TokenProfile};

/// How long the tokens of a test provider are valid, in seconds.
const LIFETIME: u64 = 120;

/// How long a poll is held while there are no events.
const HELD_FOR: Duration = Duration::from_secs(20);

/// An identity provider for tests (features `test-util` and `endpoints`). It signs access tokens,
/// logout tokens and security events, and [answers polls](Self::poll_endpoint) for events.
///
/// ```
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// use tower_jwt_revocation::endpoints::{LogoutReceiver, ReplayGuard};
/// use tower_jwt_revocation::testing::TestProvider;
/// use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore};
///
/// let provider = TestProvider::new("https://id.example", "our client id")?;
/// let store = MemoryStore::new();
/// let layer = JwtRevocationLayer::new(provider.verifier()?, store.clone());
/// let logout = LogoutReceiver::new(layer.revoker(), ReplayGuard::new(store));
/// let endpoint = logout.with(provider.verifier()?)?.into_endpoint();
///
/// // In a test: a request with this token passes, then the provider sends the other to `endpoint`.
/// let access = provider.access_token("alice", Some("session-1"));
/// let logout = provider.logout_token(None, Some("session-1"));
/// # let _ = (endpoint, access, logout); }
/// # Ok::<_, tower_jwt_revocation::ConfigError>(())
/// ```
pub struct TestProvider {
    key: SigningKey,
    issuer: Box<str>,
    audience: Box<str>,
    tokens: AtomicU64,
    stream: Arc<watch::Sender<EventStream>>,
}

/// The events that are polled for.
#[derive(Default)]
struct EventStream {
    /// Each with its `jti`, until it is acknowledged or refused.
    outstanding: Vec<(String, String)>,
    /// Each `jti` with the code (`err`).
    refused: Vec<(String, String)>,
}

impl TestProvider {
    /// A provider with this issuer, whose tokens are for this audience. All providers with one
    /// issuer have the same key, which everybody knows: it is for tests only.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no crypto provider.
    pub fn new(
        issuer: impl Into<Box<str>>,
        audience: impl Into<Box<str>>,
    ) -> Result<Self, ConfigError> {
        let issuer = issuer.into();
        // Providers must not have one secret.
        let secret = format!("the secret of a provider in tests: {issuer}");
        let key = SigningKey::from_secret(Algorithm::HS256, secret.as_bytes())?;
        let key = key.with_kid("test")?;
        let (tokens, stream) = (AtomicU64::new(0), Arc::new(watch::Sender::default()));
        Ok(Self { key, issuer, audience: audience.into(), tokens, stream })
    }

    /// A verifier of its access tokens, which a receiver takes, too.
    ///
    /// # Errors
    /// [`ConfigError`] if issuer or audience are empty.
    pub fn verifier(&self) -> Result<JwtVerifier, ConfigError> {
        let profile =
            TokenProfile::new().with_issuer(&*self.issuer).with_audience(self.audience.clone());
        JwtVerifier::new([self.key.verification_key()], profile)
    }

    /// An access token of this user, in this session. It is dated a moment ago, so that a
    /// revocation covers it.
    pub fn access_token(&self, sub: &str, sid: Option<&str>) -> String {
        let now = Timestamp::now().as_secs();
        let claims = json!({ "sub": sub, "sid": sid, "iat": now - 2, "exp": now + LIFETIME });
        self.sign(Some("at+jwt"), &self.claims_and(claims))
    }

    /// A logout token (`OpenID` Connect Back-Channel Logout 1.0 §2.4) of a user, a session, or
    /// both.
    pub fn logout_token(&self, sub: Option<&str>, sid: Option<&str>) -> String {
        let exp = Timestamp::now().as_secs() + LIFETIME;
        let events = json!({ LOGOUT_EVENT: {} });
        let claims = json!({ "sub": sub, "sid": sid, "exp": exp, "events": events });
        self.sign(Some("logout+jwt"), &self.claims_and(claims))
    }

    /// The token of an event (RFC 8417, SSF 1.0): its type, a URI; its subject (RFC 9493); and its
    /// details, such as `{"event_timestamp":…}`.
    pub fn security_event(&self, event: &str, subject: &Value, details: &Value) -> String {
        let claims = json!({ "sub_id": subject, "events": { event: details } });
        self.sign(Some("secevent+jwt"), &self.claims_and(claims))
    }

    /// Sends the token of an event by [`poll_endpoint`](Self::poll_endpoint), again and again until
    /// it is acknowledged or refused. It is listed by its `jti`, or under `?` if it has none.
    pub fn give_out(&self, token: impl Into<String>) {
        let token = token.into();
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<Value> = claims.and_then(|json| serde_json::from_slice(&json).ok());
        let id = claims.as_ref().and_then(|claims| claims["jti"].as_str()).unwrap_or("?");
        let id = id.to_owned();
        self.stream.send_modify(|stream| stream.outstanding.push((id, token)));
    }

    /// The ids of the events that are neither acknowledged nor refused yet.
    pub fn outstanding(&self) -> Vec<String> {
        self.stream.borrow().outstanding.iter().map(|(id, _)| id.clone()).collect()
    }

    /// The ids of the events that were refused (`setErrs`), each with the code (`err`).
    pub fn refused(&self) -> Vec<(String, String)> {
        self.stream.borrow().refused.clone()
    }

    /// The endpoint for polls (RFC 8936): a service like those of [`endpoints`](crate::endpoints).
    /// It holds a poll for up to 20 s while there are no events, unless the poll has
    /// `returnImmediately`.
    pub fn poll_endpoint(&self) -> Endpoint {
        let stream = Arc::clone(&self.stream);
        Endpoint::answering_json(move |body| {
            let stream = Arc::clone(&stream);
            async move {
                let Ok(Value::Object(asked)) = serde_json::from_slice(&body) else {
                    return (StatusCode::BAD_REQUEST, json!({ "err": "invalid_request" }));
                };
                let most = asked.get("maxEvents").and_then(Value::as_u64).unwrap_or(u64::MAX);
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                stream.send_modify(|stream| stream.take_replies(&asked));
                if most > 0 && asked.get("returnImmediately") != Some(&true.into()) {
                    let mut changes = stream.subscribe();
                    let more = changes.wait_for(|stream| !stream.outstanding.is_empty());
                    // Without an event in time the answer has none.
                    let _ = timeout(HELD_FOR, more).await;
                }
                let stream = stream.borrow();
                let sets = stream.outstanding.iter().take(most);
                let sets: Map<_, _> =
                    sets.map(|(id, token)| (id.clone(), token.as_str().into())).collect();
                let more = stream.outstanding.len() > sets.len();
                (StatusCode::OK, json!({ "sets": sets, "moreAvailable": more }))
            }
            .boxed()
        })
    }

    /// Signs any claims with any type (`typ`): for tokens that must be refused.
    pub fn sign(&self, typ: Option<&str>, claims: &Value) -> String {
        let header = match typ {
            Some(typ) => json!({ "alg": "HS256", "kid": "test", "typ": typ }),
            None => json!({ "alg": "HS256", "kid": "test" }),
        };
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.key.sign(&input).unwrap_or_default();
        format!("{input}.{signature}")
    }

    /// The claims of every token: `iss`, `aud`, `iat`, and a `jti` of its own.
    pub fn claims(&self) -> Value {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        json!({
            "iss": self.issuer,
            "aud": self.audience,
            "iat": Timestamp::now().as_secs(),
            "jti": format!("test-{number}"),
        })
    }
}

impl TestProvider {
    /// The claims of every token with these, of which those that are null are left out.
    fn claims_and(&self, more: Value) -> Value {
        let (Value::Object(mut claims), Value::Object(more)) = (self.claims(), more) else {
            return Value::Null;
        };
        claims.extend(more.into_iter().filter(|(_, value)| !value.is_null()));
        claims.into()
    }
}

impl EventStream {
    /// What a poll says of events that were given out before (RFC 8936 §2.2).
    fn take_replies(&mut self, asked: &Map<String, Value>) {
        let acknowledged = asked.get("ack").and_then(Value::as_array).into_iter().flatten();
        let acknowledged: Vec<_> = acknowledged.filter_map(Value::as_str).collect();
        self.outstanding.retain(|(id, _)| !acknowledged.contains(&id.as_str()));
        for (id, error) in asked.get("setErrs").and_then(Value::as_object).into_iter().flatten() {
            let is_outstanding = self.outstanding.iter().any(|(known, _)| known == id);
            if is_outstanding {
                let code = error["err"].as_str().unwrap_or_default();
                self.refused.push((id.clone(), code.to_owned()));
                self.outstanding.retain(|(known, _)| known != id);
            }
        }
    }
}

impl fmt::Debug for TestProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestProvider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
