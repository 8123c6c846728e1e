//! [`EventPoller`]: asks a transmitter for security events (RFC 8936).

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::fmt;
use std::hash::BuildHasher as _;
use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LANGUAGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::events::{EventReceiver, INVALID_KEY, Received, warn_of_lasting};
use super::request::json_object;
use crate::config::ConfigError;
use crate::error_chain::ErrorChain;
use crate::token::jwks::{HttpSettings, JwksError, JwksErrorKind, PostClient};

/// Default of [`EventPoller::with_max_events`].
pub(crate) const DEFAULT_MAX_EVENTS: u16 = 32;
/// Default of [`EventPoller::with_timeout`].
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Default of [`EventPoller::with_interval`].
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);

/// Longest answer that is read: many times what is asked for.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// How many events are carried out at the same time.
const AT_ONCE: usize = 8;

/// The pause after a failure, at first; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Its longest while the transmitter gives no answer.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// Its longest while the store does not confirm: that one is ours, and soon back.
const LAST_PAUSE_OF_STORE: Duration = Duration::from_secs(5);
/// For how long a transmitter may have us wait (`Retry-After`).
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// For how long an event whose key is not known is not refused.
const KEYS_ARE_LATE: Duration = Duration::from_secs(10 * 60);
/// How long the last acknowledgements may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Asks a transmitter for security events over HTTP (RFC 8936) and passes them to an
/// [`EventReceiver`]: for programs that a transmitter cannot reach (features `endpoints` and
/// `jwks`).
///
/// ```no_run
/// use tower_jwt_revocation::endpoints::{EventPoller, EventReceiver};
///
/// # async fn f(receiver: EventReceiver) -> Result<(), tower_jwt_revocation::ConfigError> {
/// let poller = EventPoller::new(receiver, "https://transmitter.example/poll")?
///     .with_bearer("the token that the transmitter has given out")?;
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let polling = tokio::spawn(poller.run(async { drop(stopped.await) })?);
/// // When the program ends:
/// drop(stop);
/// polling.await.ok();
/// # Ok(()) }
/// ```
///
/// - It acknowledges an event when the store has confirmed it, when it has no effect here, or when
///   it was carried out before. It refuses a token that is not an event of a transmitter
///   (`setErrs`), with the codes of a push. It does neither if the store did not confirm: the
///   transmitter sends the event again, and it is carried out then.
/// - A transmitter need not send a refused event again. So an event whose key is not known is
///   refused only after 10 min, because keys may be published late, and key sets are cached.
/// - The transmitter holds a request until it has events (long polling). A transmitter that answers
///   at once is asked [every 2 s](Self::with_interval). After an answer with events it is asked at
///   once, with or without `moreAvailable`.
/// - While it gives no answer, the pauses grow from 1 s to 60 s; its `Retry-After` is obeyed, up to
///   5 min. While the store does not confirm, the pauses grow to 5 s.
/// - `https` only, no redirects, at most 1 MiB. After a longer answer, it asks for fewer events.
///
/// Several processes may poll the same stream. The process that has carried out an event
/// acknowledges it; carrying it out twice changes nothing.
#[doc(alias("RFC 8936", "poll delivery", "SSF"))]
#[must_use = "nothing is polled until it runs"]
pub struct EventPoller {
    receiver: EventReceiver,
    url: Box<str>,
    http: HttpSettings,
    transport: Option<Transport>,
    authorization: Option<HeaderValue>,
    max_events: NonZeroU16,
    timeout: Duration,
    interval: Duration,
}

/// A client of the program.
type Transport = Arc<
    dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<Bytes>, JwksError>> + Send + Sync,
>;

impl EventPoller {
    /// A poller of this `https` URL, which a transmitter names in the configuration of a stream
    /// (`delivery.endpoint_url`, SSF 1.0 §6.1.2).
    ///
    /// # Errors
    /// [`ConfigError`] if `receiver` has no transmitter. Other mistakes are errors of
    /// [`run`](Self::run).
    pub fn new(receiver: EventReceiver, url: &str) -> Result<Self, ConfigError> {
        if !receiver.has_transmitters() {
            return Err(ConfigError::new(
                "transmitter",
                "is none, so that every event would be refused; see EventReceiver::with",
            ));
        }
        Ok(Self {
            receiver,
            url: url.into(),
            http: HttpSettings::default(),
            transport: None,
            authorization: None,
            max_events: NonZeroU16::new(DEFAULT_MAX_EVENTS).unwrap_or(NonZeroU16::MIN),
            timeout: DEFAULT_TIMEOUT,
            interval: DEFAULT_INTERVAL,
        })
    }

    /// Sends this in `Authorization: Bearer`. Default: nothing. For a token that changes, see
    /// [`with_transport`](Self::with_transport).
    ///
    /// # Errors
    /// [`ConfigError`] if it has characters that a header cannot have.
    pub fn with_bearer(mut self, secret: impl AsRef<str>) -> Result<Self, ConfigError> {
        let value = HeaderValue::try_from(format!("Bearer {}", secret.as_ref()));
        let mut value = value.map_err(|_| {
            ConfigError::new("bearer", "has characters that cannot stand in a header")
        })?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// How many events to ask for at a time (`maxEvents`); default 32.
    pub fn with_max_events(mut self, most: NonZeroU16) -> Self {
        self.max_events = most;
        self
    }

    /// How long an answer may take, including the time for which the transmitter holds a request
    /// without events; default 60 s. A dead connection is noticed after this time at the latest.
    /// Carrying out one event may take as long; after that it is given up, not acknowledged, and
    /// done again when the event comes again.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The time from one request to the next if the answer had nothing new; default 2 s. If the
    /// transmitter held the request for that long, it is asked again at once.
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Trusts the certificates in this PEM text instead of those of the system: for a transmitter
    /// with a private CA.
    ///
    /// # Errors
    /// [`ConfigError`] if it holds no certificate.
    pub fn with_root_certificates(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        self.http.set_roots(pem)?;
        Ok(self)
    }

    /// Allows an `http` URL if its host is this machine: for tests and development.
    ///
    /// # Security
    /// Not for production: any program on this machine can listen on the port of the transmitter.
    pub fn with_plain_http_on_loopback(mut self) -> Self {
        self.http.allow_plain_loopback();
        self
    }

    /// Polls through this HTTP proxy, such as `http://proxy.example:3128`, by a tunnel (`CONNECT`).
    /// Default: no proxy; `HTTPS_PROXY` and similar variables are not read.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not an `http` URL with a host and without path and query.
    pub fn with_proxy(mut self, url: &str) -> Result<Self, ConfigError> {
        self.http.set_proxy(url)?;
        Ok(self)
    }

    /// Polls with your own HTTP client, such as one with a client certificate, or with an access
    /// token that it renews. The settings about certificates, the proxy and `http` have no effect
    /// on it.
    ///
    /// `send` gets the request and returns the response, whatever its status. It should not follow
    /// redirects. The future is dropped when it takes [too long](Self::with_timeout).
    pub fn with_transport<F, Fut, B, E>(mut self, send: F) -> Self
    where
        F: Fn(Request<Bytes>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.transport = Some(Arc::new(move |request| {
            let response = send(request);
            async move {
                response.await.map(|response| response.map(Into::into)).map_err(JwksError::lost)
            }
            .boxed()
        }));
        self
    }

    /// The future that polls, for `tokio::spawn`. It owns its client, and ends when `shutdown`
    /// completes or when it is dropped. After `shutdown` it begins nothing more, and acknowledges
    /// within 5 s what was carried out, so that the transmitter does not send it again.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting cannot work.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<impl Future<Output = ()> + Send, ConfigError> {
        if self.timeout.is_zero() {
            return Err(ConfigError::new("timeout", "must be over zero"));
        }
        // Without it a transmitter that has nothing new would be asked all the time.
        if self.interval.is_zero() {
            return Err(ConfigError::new("interval", "must be over zero"));
        }
        let transport = if let Some(transport) = self.transport {
            transport
        } else {
            let client = Arc::new(PostClient::new(&self.http, "poll_url", &self.url)?);
            Arc::new(move |request| {
                let client = Arc::clone(&client);
                async move { client.send(request, MAX_ANSWER_BYTES).await }.boxed()
            }) as Transport
        };
        let polling = Polling {
            receiver: self.receiver,
            url: self.url,
            transport,
            authorization: self.authorization,
            timeout: self.timeout,
            interval: self.interval,
            most: self.max_events.get(),
            max_events: self.max_events.get(),
            replies: Replies::default(),
            key_missing_since: HashMap::new(),
            warned_of: HashSet::new(),
            failures: 0,
            problem: None,
        };
        Ok(polling.run(shutdown))
    }
}

/// The state of the task.
struct Polling {
    receiver: EventReceiver,
    url: Box<str>,
    transport: Transport,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    interval: Duration,
    most: u16,
    /// How many events are asked for now: fewer than `most` after an answer that was too long.
    max_events: u16,
    /// What the transmitter has still to be told.
    replies: Replies,
    /// Since when events are given out whose key is not known, by their `jti`.
    key_missing_since: HashMap<String, Instant>,
    /// The events that will not be carried out however often they come.
    warned_of: HashSet<String>,
    failures: u32,
    /// What does not work, as it was logged last.
    problem: Option<Problem>,
}

/// What the transmitter is told of events that it has given out, by their `jti`.
#[derive(Default)]
struct Replies {
    acknowledged: BTreeSet<String>,
    refused: BTreeMap<String, (&'static str, &'static str)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Problem {
    Transmitter,
    Store,
}

/// Why there are no events.
struct Failure {
    error: JwksError,
    retry_after: Option<Duration>,
}

/// What one round was worth.
enum Round {
    /// There was something new.
    News,
    Nothing,
    /// The store did not confirm all of it.
    Unconfirmed,
}

impl Polling {
    async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        loop {
            let asked_at = Instant::now();
            let request = self.request(self.max_events, false);
            let answer = tokio::select! {
                biased;
                () = &mut shutdown => break,
                answer = self.ask(request, self.timeout) => answer,
            };
            let pause = match answer {
                Ok(events) => {
                    self.max_events = self.max_events.saturating_mul(2).min(self.most);
                    let Some(round) = self.carry_out(events, shutdown.as_mut()).await else {
                        break;
                    };
                    self.pause_after(&round, asked_at)
                }
                Err(failure) => self.pause_after_failure(&failure),
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = sleep(pause) => {}
            }
        }
        self.say_farewell().await;
    }

    /// What is still to be acknowledged, and no more events (RFC 8936 §2.4.2).
    async fn say_farewell(self) {
        if self.replies.is_empty() {
            return;
        }
        if let Err(Failure { error, .. }) = self.ask(self.request(0, true), FAREWELL).await {
            tracing::debug!(%error, "the last events could not be acknowledged: they come again");
        }
    }

    fn request(&self, max_events: u16, at_once: bool) -> Request<Bytes> {
        let mut body = Map::new();
        body.insert("maxEvents".into(), max_events.into());
        body.insert("returnImmediately".into(), at_once.into());
        if !self.replies.acknowledged.is_empty() {
            body.insert("ack".into(), self.replies.acknowledged.iter().cloned().collect());
        }
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = http::Method::POST;
        // A URL that is none was refused, but where a client of the program is to know it.
        *request.uri_mut() = self.url.parse().unwrap_or_default();
        let headers = request.headers_mut();
        let json_type = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json_type.clone());
        headers.insert(ACCEPT, json_type);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if !self.replies.refused.is_empty() {
            let refused = self.replies.refused.iter().map(|(id, (code, description))| {
                (id.clone(), json!({ "err": code, "description": description }))
            });
            body.insert("setErrs".into(), refused.collect::<Map<_, _>>().into());
            headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
        }
        *request.body_mut() = Value::from(body).to_string().into();
        request
    }

    /// The events that the transmitter gives out, by their `jti`.
    fn ask(
        &self,
        request: Request<Bytes>,
        limit: Duration,
    ) -> impl Future<Output = Result<Map<String, Value>, Failure>> + Send + use<> {
        let answer = (self.transport)(request);
        async move {
            let Ok(answer) = timeout(limit, answer).await else {
                let problem = "the transmitter did not answer in time";
                return Err(JwksError::new(JwksErrorKind::Timeout, problem).into());
            };
            events_of(answer?)
        }
    }

    /// Carries out what the transmitter has given out, and keeps what it is to be told of it. None
    /// if it was interrupted by the shutdown.
    async fn carry_out(
        &mut self,
        events: Map<String, Value>,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Option<Round> {
        // It was told of these with the request, and should not give them out again.
        let told = std::mem::take(&mut self.replies);
        let mut round = Round::Nothing;
        if events.keys().any(|id| !told.is_about(id)) {
            round = Round::News;
        }
        self.key_missing_since.retain(|id, _| events.contains_key(id));
        self.warned_of.retain(|id| events.contains_key(id));
        let (receiver, limit) = (&self.receiver, self.timeout);
        let carried_out = stream::iter(events).map(|(id, token)| async move {
            let Value::String(token) = token else {
                let description = "the token is not a string";
                return (id, Received::Refused { code: "invalid_request", description });
            };
            // What the program does with an event may panic. The task goes on.
            let carrying_out = AssertUnwindSafe(receiver.receive(token.trim(), Some(&id)));
            let outcome = match timeout(limit, carrying_out.catch_unwind()).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => {
                    tracing::error!("a panic came out of what is done with a security event");
                    Received::Unconfirmed(None)
                }
                // One that hangs would hold up all others.
                Err(_) => {
                    tracing::warn!("what is done with a security event took too long");
                    Received::Unconfirmed(None)
                }
            };
            (id, outcome)
        });
        let mut carried_out = pin!(carried_out.buffer_unordered(AT_ONCE));
        loop {
            let (id, outcome) = tokio::select! {
                biased;
                () = &mut shutdown => return None,
                next = carried_out.next() => match next {
                    Some(next) => next,
                    None => return Some(round),
                },
            };
            if let Some(error) = outcome.lasting_error()
                && self.warned_of.insert(id.clone())
            {
                warn_of_lasting(error);
            }
            match outcome {
                Received::Done => {
                    self.replies.acknowledged.insert(id);
                }
                Received::Refused { code, description } => {
                    let is_early = code == INVALID_KEY && {
                        let since = self.key_missing_since.entry(id.clone());
                        since.or_insert_with(Instant::now).elapsed() < KEYS_ARE_LATE
                    };
                    if is_early {
                        round = Round::Unconfirmed;
                    } else {
                        self.replies.refused.insert(id, (code, description));
                    }
                }
                Received::Unconfirmed(_) => round = Round::Unconfirmed,
            }
        }
    }

    fn pause_after(&mut self, round: &Round, asked_at: Instant) -> Duration {
        if let Round::Unconfirmed = round {
            if self.problem != Some(Problem::Store) {
                self.problem = Some(Problem::Store);
                tracing::warn!(
                    "security events could not be carried out and are not acknowledged: they are \
                     polled for again"
                );
            }
            return self.backoff(LAST_PAUSE_OF_STORE);
        }
        self.failures = 0;
        if self.problem.take().is_some() {
            tracing::info!("security events are polled for and carried out again");
        }
        match round {
            Round::News => Duration::ZERO,
            _ => self.interval.saturating_sub(asked_at.elapsed()),
        }
    }

    fn pause_after_failure(&mut self, Failure { error, retry_after }: &Failure) -> Duration {
        if error.kind() == JwksErrorKind::TooLarge {
            self.max_events = (self.max_events / 2).max(1);
        }
        if self.problem == Some(Problem::Transmitter) {
            tracing::debug!(error = %ErrorChain(error), "security events cannot be polled for");
        } else {
            self.problem = Some(Problem::Transmitter);
            tracing::warn!(error = %ErrorChain(error), "security events cannot be polled for");
        }
        let asked_for = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        self.backoff(LAST_PAUSE).max(asked_for)
    }

    /// Doubles with each failure. Up to a quarter less, by chance, so that processes that failed
    /// together do not ask together for ever.
    fn backoff(&mut self, longest: Duration) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let percent = u32::try_from(RandomState::new().hash_one(()) % 25).unwrap_or(0);
        pause.saturating_sub(pause / 100 * percent)
    }
}

impl Replies {
    fn is_empty(&self) -> bool {
        self.acknowledged.is_empty() && self.refused.is_empty()
    }

    fn is_about(&self, id: &str) -> bool {
        self.acknowledged.contains(id) || self.refused.contains_key(id)
    }
}

impl From<JwksError> for Failure {
    fn from(error: JwksError) -> Self {
        Self { error, retry_after: None }
    }
}

/// Reads an answer (RFC 8936 §2.3). One to mere acknowledgements may have no events.
fn events_of(answer: Response<Bytes>) -> Result<Map<String, Value>, Failure> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        let problem = format!("the transmitter answered {}", head.status);
        let error = JwksError::new(JwksErrorKind::Status, problem);
        return Err(Failure { error, retry_after: retry_after(&head.headers) });
    }
    if body.len() > MAX_ANSWER_BYTES {
        let problem = "the answer of the transmitter is too long";
        return Err(JwksError::new(JwksErrorKind::TooLarge, problem).into());
    }
    let malformed = |problem| Failure::from(JwksError::new(JwksErrorKind::Malformed, problem));
    let members = json_object(&body).ok_or_else(|| {
        malformed("the answer of the transmitter is not a JSON object with each member once")
    })?;
    match members.into_iter().find(|(name, _)| name == "sets") {
        None => Ok(Map::new()),
        Some((_, Value::Object(sets))) => Ok(sets),
        Some(_) => Err(malformed("`sets` in the answer of the transmitter is not an object")),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

impl fmt::Debug for EventPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the user and the query of the URL, which may hold a secret.
        let url = self.url.parse::<Uri>().unwrap_or_default();
        // A password with a slash that is not encoded reaches into the path.
        let path = Some(url.path()).filter(|path| !path.contains('@')).unwrap_or("/?");
        let host = url.host().unwrap_or("?");
        let port = url.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let scheme = url.scheme_str().unwrap_or("?");
        f.debug_struct("EventPoller")
            .field("url", &format_args!("{scheme}://{host}{port}{path}"))
            .field("receiver", &self.receiver)
            .field("max_events", &self.max_events)
            .field("timeout", &self.timeout)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
#[path = "poll_tests.rs"]
mod tests;
