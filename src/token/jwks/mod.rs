//! Keys that an identity provider publishes: a JSON Web Key Set, by its URL or by discovery from
//! the issuer.
//!
//! Requests never wait for the provider. A task fetches the keys and replaces them; a request uses
//! those that are there.

// | module | what it does |
// | --- | --- |
// | `http` | one request, bounded in every direction; nothing else names `hyper-util` and TLS |
// | `document` | what the answers mean |
// | `refresh` | when to fetch again |
// | `unknown` | what it means that a token names a key that is not there |

mod document;
mod http;
mod refresh;
mod unknown;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Response, Uri};
use arc_swap::Guard;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

use self::document::{JwksSource, KeyOrigin};
use self::http::HttpClient;
pub(crate) use self::http::HttpSettings;
#[cfg(feature = "endpoints")]
pub(crate) use self::http::PostClient;
use self::refresh::{FetchedKeys, RefreshSchedule, RefreshState, RefreshTask};
use super::jwt::{USUAL_RSA, VerifierKeys, rsa_algorithms};
use super::{Algorithm, TokenError, TokenErrorKind};
use crate::config::ConfigError;
use crate::error_chain::ErrorChain;
use crate::samples::{Metric, Samples};

/// Default of [`Jwks::with_max_age`].
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// Default of [`Jwks::with_cooldown`].
pub(crate) const DEFAULT_COOLDOWN: Duration = Duration::from_secs(10);
/// Default of [`Jwks::with_outage_grace`].
pub(crate) const DEFAULT_OUTAGE_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// Default of [`Jwks::with_timeout`].
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest document that is read. The largest published key sets have a tenth of it.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Where an identity provider publishes its keys, and how they are kept up to date.
///
/// ```no_run
/// use tower_jwt_revocation::token::jwks::Jwks;
/// use tower_jwt_revocation::{JwtVerifier, TokenProfile};
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let keys = Jwks::of_issuer("https://id.example")?.fetch().await?;
/// let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
/// let verifier = JwtVerifier::with_remote_keys(keys, profile)?;
/// # Ok(()) }
/// ```
///
/// - The keys are fetched anew when they reach their [greatest age](Self::with_max_age), and when a
///   token names an unknown key or does not fit the key that it names (after a
///   [pause](Self::with_cooldown)). At most one fetch is under way at a time.
/// - A key that is no longer published is refused after the next fetch, even if no usable key is
///   left. An empty set (`{"keys":[]}`) withdraws nothing: it counts as an outage.
/// - When the provider is out of reach, the last keys stay in use [for a
///   while](Self::with_outage_grace).
/// - A token whose key is not known *yet* is answered with 503, not 401, so that a client keeps it.
///   Only a fetch that begins after the token was seen can tell whether the key exists. If that
///   fetch does not find the key, the answer is 401 from then on, and the key is looked for again
///   once a minute at most. The same holds for a withdrawn key. Attackers can make up key names: 64
///   such names are waited for at a time, and 1024 are remembered, for 10 min after they were last
///   seen.
/// - `https` only, no redirects, at most 256 KiB, all within a [time limit](Self::with_timeout).
///   What a token says about where its key is (`jku`, `x5u`, `jwk`, `x5c`) is ignored.
/// - Keys that cannot be used are skipped and logged at `debug`, with the reason. These are keys
///   for encryption, weak keys, keys of unknown type, secrets, keys without a name beside others,
///   and keys with the name and algorithm of another. RSA keys without `alg` are for RS256, unless
///   [another algorithm](Self::with_default_algorithms) is set.
/// - Of several keys with one name, the `alg` of the token chooses (RFC 7517 §4.5).
#[derive(Clone)]
pub struct Jwks {
    source: JwksSource,
    default_algorithms: Vec<Algorithm>,
    schedule: RefreshSchedule,
    http: HttpSettings,
    transport: Option<Arc<JwksTransport>>,
}

/// A client of the program, which fetches a document.
type JwksTransport =
    dyn Fn(&Uri) -> BoxFuture<'static, Result<JwksDocument, JwksError>> + Send + Sync;

/// What a provider has answered.
#[derive(Clone, Debug)]
struct JwksDocument {
    body: Bytes,
    /// For how long the provider says that it may be kept.
    max_age: Option<Duration>,
}

// === impl Jwks ===

impl Jwks {
    /// The key set at this `https` URL.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not an absolute URL, or contains a user name.
    pub fn at(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::of(JwksSource::at(url)?))
    }

    /// The key set of this issuer, found by OpenID Connect Discovery: the document at
    /// `<issuer>/.well-known/openid-configuration` must be about this very issuer, and says where
    /// the keys are.
    ///
    /// If the keys are at another host, its address must be public: otherwise the author of the
    /// document could make this process call a server in its own network. For a key set within your
    /// network, use [`at`](Self::at), and name the issuer in the profile. This is so for the
    /// service accounts of Kubernetes: `https://kubernetes.default.svc/openid/v1/jwks`, with the
    /// [certificates](Self::with_root_certificates) in
    /// `/var/run/secrets/kubernetes.io/serviceaccount/ca.crt`. Unless the role
    /// `system:service-account-issuer-discovery` is bound to `system:unauthenticated`, the request
    /// needs a token, which a [transport](Self::with_transport) of yours can send.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not an absolute URL, or contains a user name, a query or a
    /// fragment.
    pub fn of_issuer(issuer: &str) -> Result<Self, ConfigError> {
        Ok(Self::of(JwksSource::of_issuer(issuer)?))
    }

    fn of(source: JwksSource) -> Self {
        Self {
            source,
            default_algorithms: USUAL_RSA.into(),
            schedule: RefreshSchedule {
                max_age: DEFAULT_MAX_AGE,
                cooldown: DEFAULT_COOLDOWN,
                grace: DEFAULT_OUTAGE_GRACE,
                timeout: DEFAULT_TIMEOUT,
            },
            http: HttpSettings::default(),
            transport: None,
        }
    }

    /// The algorithms of published RSA keys that name none (`alg`); default RS256, as in OpenID
    /// Connect. A token must name one of these, and is checked by it. With an empty list such keys
    /// are not used. The type of all other keys leaves no choice.
    ///
    /// ```
    /// use tower_jwt_revocation::Algorithm;
    /// use tower_jwt_revocation::token::jwks::Jwks;
    ///
    /// // A `PingFederate` that signs with PS256.
    /// let keys = Jwks::at("https://id.example/pf/JWKS")?;
    /// let keys = keys.with_default_algorithms([Algorithm::PS256])?;
    /// # let _ = keys;
    /// # Ok::<_, tower_jwt_revocation::ConfigError>(())
    /// ```
    ///
    /// # Security
    /// A key for one algorithm is safer than one for several (RFC 8725 §3.1), so name no more than
    /// the provider uses.
    ///
    /// # Errors
    /// [`ConfigError`] if one of them is not for RSA.
    pub fn with_default_algorithms(
        mut self,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Result<Self, ConfigError> {
        self.default_algorithms = rsa_algorithms(&algorithms.into_iter().collect::<Vec<_>>())?;
        Ok(self)
    }

    /// How old keys may get before they are fetched anew; default 15 min. A key that the provider
    /// has withdrawn is accepted for up to this long. If the provider sets a shorter time
    /// (`Cache-Control: max-age`), that counts, but the [pause](Self::with_cooldown) is kept.
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.schedule.max_age = max_age;
        self
    }

    /// The shortest pause between two fetches; default 10 s. Without it, tokens with made-up key
    /// names could make this process flood the provider.
    #[must_use]
    pub fn with_cooldown(mut self, cooldown: Duration) -> Self {
        self.schedule.cooldown = cooldown;
        self
    }

    /// For how long after the last good fetch keys stay in use while the provider is out of reach,
    /// or answers with nonsense or an empty set; default 24 h. By then all tokens that it issued
    /// have expired, under the default of
    /// [`TokenProfile::with_max_lifetime`](super::TokenProfile::with_max_lifetime).
    ///
    /// # Security
    /// An attacker who cuts us off from the provider keeps a withdrawn key in use for this long.
    #[must_use]
    pub fn with_outage_grace(mut self, grace: Duration) -> Self {
        self.schedule.grace = grace;
        self
    }

    /// How long a fetch may take from the first packet to the last byte, discovery included;
    /// default 5 s. No request waits for it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.schedule.timeout = timeout;
        self
    }

    /// Trusts the certificates in this PEM text instead of those of the system: for a provider with
    /// a private CA.
    ///
    /// # Errors
    /// [`ConfigError`] if it holds no certificate.
    pub fn with_root_certificates(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        self.http.set_roots(pem)?;
        Ok(self)
    }

    /// Allows `http` URLs as long as their host is this machine: for tests and development.
    ///
    /// # Security
    /// Not for production: any program on this machine can listen on the port of the provider.
    #[must_use]
    pub fn with_plain_http_on_loopback(mut self) -> Self {
        self.http.allow_plain_loopback();
        self
    }

    /// Fetches through this HTTP proxy, such as `http://proxy.example:3128`. Default: no proxy;
    /// `HTTPS_PROXY` and similar variables are not read. The proxy opens a tunnel (`CONNECT`), so
    /// it sees only the host of the provider. A user and a password in the URL, percent-encoded,
    /// are sent to the proxy (RFC 7617). Plain `http` URLs of this machine are fetched without it.
    ///
    /// # Security
    /// The proxy resolves host names, so this process cannot check that a name has a public
    /// address; it checks addresses that are written in a URL. A discovery document with a
    /// `jwks_uri` at another host can then lead to whatever the proxy can reach.
    ///
    /// # Errors
    /// [`ConfigError`] if this is not an `http` URL with a host and without path and query.
    #[doc(alias = "HTTPS_PROXY")]
    pub fn with_proxy(mut self, url: &str) -> Result<Self, ConfigError> {
        self.http.set_proxy(url)?;
        Ok(self)
    }

    /// Fetches with your own HTTP client, such as one with a client certificate. The settings about
    /// certificates, the proxy and `http` have no effect on it.
    ///
    /// `fetch` requests a URL (`GET`) and returns the response, whatever its status; only 200 is
    /// accepted. It should not follow redirects, nor read more than 256 KiB, because longer
    /// responses are refused. `Cache-Control` is obeyed (RFC 9111 §5.2.2). The future is dropped
    /// when it takes too long.
    ///
    /// # Security
    /// A discovery document can name a `jwks_uri` at another host than that of the issuer. It must
    /// be `https` if the issuer is, and an address in it must be public. Only your client knows the
    /// addresses of a *name*, so they are not checked. If the author of the document must not reach
    /// what your client can reach, let the client refuse unknown hosts, or name the key set by
    /// [`at`](Self::at).
    ///
    /// ```
    /// use http::{Response, Uri};
    /// use tower_jwt_revocation::token::jwks::Jwks;
    ///
    /// # #[derive(Clone)]
    /// # struct Client;
    /// # impl Client {
    /// #     async fn get(&self, _: Uri) -> Result<Response<Vec<u8>>, std::io::Error> {
    /// #         Ok(Response::default())
    /// #     }
    /// # }
    /// # fn f(client: Client) -> Result<(), tower_jwt_revocation::ConfigError> {
    /// let keys = Jwks::at("https://id.example/keys")?.with_transport(move |url: Uri| {
    ///     let client = client.clone();
    ///     async move { client.get(url).await }
    /// });
    /// # let _ = keys;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_transport<F, Fut, B, E>(mut self, fetch: F) -> Self
    where
        F: Fn(Uri) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Into<Bytes>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.transport = Some(Arc::new(move |url| {
            let response = fetch(url.clone());
            async move { http::document(response.await) }.boxed()
        }));
        self
    }

    /// Fetches the keys and keeps them up to date on the current Tokio runtime.
    ///
    /// # Errors
    /// [`JwksError`] if the first fetch fails, or a setting cannot work.
    pub async fn fetch(self) -> Result<RemoteKeys, JwksError> {
        let keys = self.start()?;
        keys.fetched().await?;
        Ok(keys)
    }

    /// Starts to fetch the keys on the current Tokio runtime without waiting for them: the program
    /// can start while the provider is down. Until the keys are there, requests with tokens are
    /// answered with 503.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting cannot work, or outside of a Tokio runtime.
    pub fn start(self) -> Result<RemoteKeys, ConfigError> {
        self.schedule.validate()?;
        let runtime = Handle::try_current().map_err(|error| {
            ConfigError::new("runtime", "there is none; fetch keys from within a Tokio runtime")
                .with_source(error)
        })?;
        let issuer = self.source.issuer().map(Into::into);
        // Without the query of a URL, which may hold a secret.
        let label = self.source.issuer().map_or_else(|| format!("{:?}", self.source), Into::into);
        let transport = match self.transport {
            Some(transport) => http::JwksFetcher::Custom(transport),
            None => http::JwksFetcher::BuiltIn(HttpClient::new(
                &self.http,
                "jwks_url",
                self.source.first_url(),
                self.schedule.timeout,
            )?),
        };
        let origin = KeyOrigin {
            source: self.source,
            default_algorithms: self.default_algorithms,
            client: transport,
        };
        let task = RefreshTask::spawn(&runtime, self.schedule, origin);
        Ok(RemoteKeys { task: Arc::new(task), issuer, label: label.into() })
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks")
            .field("source", &self.source)
            .field("default_algorithms", &self.default_algorithms)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}

/// Published keys, kept up to date while this value, a clone of it, or a verifier made with it
/// exists.
#[derive(Clone)]
pub struct RemoteKeys {
    task: Arc<RefreshTask>,
    issuer: Option<Box<str>>,
    /// The issuer or, without one, the URL: for metrics.
    label: Box<str>,
}

impl RemoteKeys {
    /// The names (`kid`) of the keys that are in use, for logs and health checks.
    pub fn key_ids(&self) -> Vec<Box<str>> {
        self.task.state.current().as_ref().map(|fetched| fetched.keys.ids()).unwrap_or_default()
    }

    /// How long ago the keys in use were fetched; `None` if there are no keys. More than
    /// [`Jwks::with_max_age`] means that the provider is out of reach.
    pub fn age(&self) -> Option<Duration> {
        self.task.state.current().as_ref().map(|fetched| fetched.asked_at.elapsed())
    }

    /// Why the last fetch failed; `None` if it did not.
    pub fn last_error(&self) -> Option<JwksError> {
        self.task.state.last_error()
    }

    /// Waits until the first fetch is done.
    pub(crate) async fn fetched(&self) -> Result<(), JwksError> {
        self.task.state.attempt_after(0).await
    }

    /// Waits until the next fetch is done, counted from when this was called: for tests, and for
    /// programs that want to wait for the first keys after [`Jwks::start`].
    ///
    /// # Errors
    /// [`JwksError`] if that fetch failed.
    pub fn next_fetch(&self) -> impl Future<Output = Result<(), JwksError>> + Send + use<> {
        let task = Arc::clone(&self.task);
        let seen = task.state.attempts();
        async move { task.state.attempt_after(seen).await }
    }

    /// A number that changes whenever keys come or go, and never repeats.
    pub fn generation(&self) -> u64 {
        self.task.state.generation()
    }

    pub(crate) fn add_metrics(&self, samples: &mut Samples) {
        let (state, label) = (&self.task.state, &[&*self.label][..]);
        let current = state.current();
        let is_usable = current.as_ref().is_some_and(|fetched| state.is_in_grace(fetched));
        samples.add_flag(Metric::KeysUsable, label, is_usable);
        if let Some(age) = self.age() {
            samples.add(Metric::KeysAge, label, age.as_secs_f64());
        }
        let (fetches, failures) = state.fetches();
        samples.add_count(Metric::KeysFetches, label, fetches);
        samples.add_count(Metric::KeysFailures, label, failures);
    }

    /// The issuer from which the keys were discovered.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    pub(crate) fn load(&self) -> LoadedKeys<'_> {
        LoadedKeys { current: self.task.state.current(), state: &self.task.state }
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("issuer", &self.issuer)
            .field("key_ids", &self.key_ids())
            .field("age", &self.age())
            .finish_non_exhaustive()
    }
}

/// The keys of one moment.
pub(crate) struct LoadedKeys<'a> {
    current: Guard<Option<Arc<FetchedKeys>>>,
    state: &'a RefreshState,
}

impl LoadedKeys<'_> {
    /// The keys, if they are fit for use. `kid` is the name of the one that a token wants.
    pub(crate) fn keys(&self, kid: Option<&str>) -> Result<&VerifierKeys, TokenError> {
        match &*self.current {
            Some(fetched) if self.state.is_in_grace(fetched) => Ok(&fetched.keys),
            fetched => {
                self.state.request_fetch();
                // The next fetch will tell, if it begins after this.
                if let Some(kid) = kid {
                    self.state.is_absent(kid, fetched.as_deref());
                }
                Err(no_keys("the keys of the issuer could not be fetched yet, or not for too long"))
            }
        }
    }

    /// Asks for newer ones, as soon as the pause is over.
    pub(crate) fn request_fetch(&self) {
        self.state.request_fetch();
    }

    /// What it means that a token names a key that is not among them.
    pub(crate) fn unknown(&self, kid: &str, error: TokenError) -> TokenError {
        if self.state.is_absent(kid, self.current.as_deref()) {
            return error;
        }
        no_keys(
            "no key has the `kid` of the token, but it may be newer than the keys: they are being \
             fetched",
        )
    }
}

fn no_keys(detail: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::NoKeys, detail)
}

/// Why keys could not be fetched.
///
/// It names the rule. From the answer of the provider it quotes at most the name of a key, escaped
/// and cut to 64 characters.
#[derive(Clone)]
pub struct JwksError {
    kind: JwksErrorKind,
    detail: std::borrow::Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`JwksError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwksErrorKind {
    /// A setting cannot work.
    Config,
    /// No connection, or it broke.
    Unreachable,
    /// It took too long.
    Timeout,
    /// A URL that is not allowed: no `https`, or a private address that the operator did not name.
    Forbidden,
    /// Answered with another status than 200.
    Status,
    /// Longer than 256 KiB.
    TooLarge,
    /// Not the JSON that it must be.
    Malformed,
    /// The discovery document is about another issuer.
    WrongIssuer,
    /// No key in the set can be used.
    NoUsableKey,
}

impl JwksError {
    /// An error with a text for the operator.
    pub(crate) fn new(
        kind: JwksErrorKind,
        detail: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    /// The same error with its cause, which is its [`source`](std::error::Error::source). The log
    /// shows it after the text, so the text must not repeat it.
    fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What the client of the program says, by which a transmitter is asked.
    #[cfg(feature = "endpoints")]
    pub(crate) fn lost(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        http::broken("the transmitter cannot be reached", error.into())
    }

    /// What kind of error this is.
    pub fn kind(&self) -> JwksErrorKind {
        self.kind
    }
}

impl From<ConfigError> for JwksError {
    fn from(error: ConfigError) -> Self {
        let source = error.shared_source();
        Self { source, ..Self::new(JwksErrorKind::Config, error.to_string()) }
    }
}

/// As `Display`, with the causes: this is what a `main` that returns the error shows.
impl fmt::Debug for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&ErrorChain(self), f)
    }
}

impl fmt::Display for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for JwksError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

// Without a crypto provider there are no keys, and so nothing to fetch.
#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
mod tests;
