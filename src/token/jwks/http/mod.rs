//! One request: over TLS, without redirects, bounded in size. The caller bounds it in time.
//!
//! `hyper-util` dials and speaks HTTP, with two families of addresses at once (RFC 6555). What it
//! may dial is decided here. A document has a connection of its own, because there is one every few
//! minutes; so has a poll for events, which waits for most of its time. The environment is not
//! asked for a proxy.

mod guard;
#[cfg(feature = "endpoints")]
mod post;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{io, iter};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tower::Service;

use self::guard::{AddressRule, GuardedResolver};
#[cfg(feature = "endpoints")]
pub(crate) use self::post::PostClient;
use super::document::too_large;
use super::{JwksDocument, JwksError, JwksErrorKind, JwksTransport, MAX_DOCUMENT_BYTES};
use crate::config::ConfigError;

#[derive(Clone, Default)]
pub(crate) struct HttpSettings {
    roots: Option<Arc<RootCertStore>>,
    plain_loopback: bool,
    proxy: Option<Arc<HttpProxy>>,
}

/// A proxy that opens tunnels (`CONNECT`, RFC 9110 §9.3.6).
struct HttpProxy {
    url: Uri,
    credentials: Option<HeaderValue>,
}

/// Which addresses a host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressScope {
    Any,
    PublicOnly,
}

/// The client in use.
pub(super) enum JwksFetcher {
    BuiltIn(HttpClient),
    Custom(Arc<JwksTransport>),
}

/// `R` resolves names.
pub(super) struct HttpClient<R = GaiResolver> {
    resolver: R,
    tls: Option<Arc<ClientConfig>>,
    plain_loopback: bool,
    proxy: Option<Arc<HttpProxy>>,
    connect_timeout: Duration,
}

// === impl HttpSettings ===

impl HttpSettings {
    pub(crate) fn set_roots(&mut self, pem: &[u8]) -> Result<(), ConfigError> {
        let mut roots = RootCertStore::empty();
        let bad = |problem| ConfigError::new("root_certificates", problem);
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| bad("are not PEM"))?;
            roots
                .add(certificate)
                .map_err(|error| bad("hold one that cannot be used").with_source(error))?;
        }
        if roots.is_empty() {
            return Err(bad("has no certificate; give PEM with at least one CERTIFICATE"));
        }
        self.roots = Some(Arc::new(roots));
        Ok(())
    }

    pub(crate) fn allow_plain_loopback(&mut self) {
        self.plain_loopback = true;
    }

    pub(crate) fn set_proxy(&mut self, url: &str) -> Result<(), ConfigError> {
        let proxy = HttpProxy::at(url).ok_or_else(|| {
            ConfigError::new(
                "proxy",
                "is not the URL of an http proxy, such as http://proxy.example:3128 or \
                 http://user:password@proxy.example:3128",
            )
        })?;
        self.proxy = Some(Arc::new(proxy));
        Ok(())
    }
}

// === impl HttpProxy ===

impl HttpProxy {
    fn at(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?.as_str();
        let (user_info, server) = match authority.rsplit_once('@') {
            Some((user_info, server)) => (Some(user_info), server),
            None => (None, authority),
        };
        let is_proxy =
            uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        if !is_proxy || uri.host().unwrap_or_default().is_empty() {
            return None;
        }
        let url = Uri::builder().scheme("http").authority(server).path_and_query("/").build();
        let credentials = match user_info {
            Some(user_info) => Some(basic(user_info)?),
            None => None,
        };
        Some(Self { url: url.ok()?, credentials })
    }

    fn tunnel<C>(&self, connector: C) -> Tunnel<C> {
        let tunnel = Tunnel::new(self.url.clone(), connector);
        match &self.credentials {
            Some(credentials) => tunnel.with_auth(credentials.clone()),
            None => tunnel,
        }
    }
}

/// The credentials of a URL as RFC 7617 §2 sends them.
fn basic(user_info: &str) -> Option<HeaderValue> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let mut credentials: Vec<u8> = percent_decode_str(user).collect();
    credentials.push(b':');
    credentials.extend(percent_decode_str(password));
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials))).ok()
}

// === impl JwksFetcher ===

impl JwksFetcher {
    pub(super) async fn get(
        &self,
        url: &Uri,
        scope: AddressScope,
    ) -> Result<JwksDocument, JwksError> {
        match self {
            Self::BuiltIn(client) => client.get(url, scope).await,
            Self::Custom(transport) => {
                // Plain `http` is followed from plain `http` alone, which the program has named.
                let rule = match scope {
                    AddressScope::Any => AddressRule::Any,
                    AddressScope::PublicOnly if url.scheme_str() == Some("https") => {
                        AddressRule::Public
                    }
                    AddressScope::PublicOnly => AddressRule::PublicOrLoopback,
                };
                if let Some(ip) = literal(url) {
                    rule.check(ip)?;
                }
                transport(url).await
            }
        }
    }
}

// === impl HttpClient ===

impl HttpClient {
    /// `timeout` is for a whole fetch. Connecting may take three fifths of it. `setting` is what
    /// the operator calls the first URL.
    pub(super) fn new(
        settings: &HttpSettings,
        setting: &'static str,
        first_url: &Uri,
        timeout: Duration,
    ) -> Result<Self, ConfigError> {
        let is_plain = first_url.scheme_str() == Some("http");
        if is_plain && !settings.plain_loopback {
            return Err(ConfigError::new(
                setting,
                "is not https; for tests on this machine see with_plain_http_on_loopback",
            ));
        }
        // With a plain start nothing else is expected, and the certificates of the system need not
        // be there.
        let tls =
            if is_plain && settings.roots.is_none() { None } else { Some(tls_config(settings)?) };
        Ok(Self {
            resolver: GaiResolver::new(),
            tls,
            plain_loopback: settings.plain_loopback,
            proxy: settings.proxy.clone(),
            connect_timeout: timeout * 3 / 5,
        })
    }
}

impl<R> HttpClient<R>
where
    R: Service<Name, Error = io::Error, Future: Send + 'static> + Clone + Send + Sync + 'static,
    R::Response: Iterator<Item = SocketAddr>,
{
    async fn get(&self, url: &Uri, scope: AddressScope) -> Result<JwksDocument, JwksError> {
        let check = |head: &response::Parts| check_head(head.status, &head.headers);
        let (max_age, body) =
            self.send(url, scope, request(url)?, MAX_DOCUMENT_BYTES, check).await?;
        Ok(JwksDocument { body, max_age })
    }

    /// Sends this request to this URL. What `check` makes of the head of the answer comes with the
    /// body, which is read if it has no objection.
    async fn send<T>(
        &self,
        url: &Uri,
        scope: AddressScope,
        request: Request<Full<Bytes>>,
        most: usize,
        check: impl FnOnce(&response::Parts) -> Result<T, JwksError>,
    ) -> Result<(T, Bytes), JwksError> {
        let is_plain = url.scheme_str() != Some("https");
        if is_plain && !self.plain_loopback {
            return Err(forbidden("a URL of the provider is not https"));
        }
        let rule = match scope {
            _ if is_plain => AddressRule::Loopback,
            AddressScope::Any => AddressRule::Any,
            AddressScope::PublicOnly if self.plain_loopback => AddressRule::PublicOrLoopback,
            AddressScope::PublicOnly => AddressRule::Public,
        };
        // `HttpConnector` does not ask the resolver about a host that is an address already.
        if let Some(ip) = literal(url) {
            rule.check(ip)?;
        }
        if is_plain {
            let not_connected = "the provider cannot be reached";
            return fetch(self.connector(rule), request, not_connected, most, check).await;
        }
        let Some(tls) = &self.tls else {
            return Err(forbidden("the provider went from http to https; start with https"));
        };
        match &self.proxy {
            None => {
                let https = HttpsConnector::from((self.connector(rule), Arc::clone(tls)));
                fetch(https, request, "the provider cannot be reached", most, check).await
            }
            // The operator named the proxy. It resolves the name of the provider by itself.
            Some(proxy) => {
                let tunnel = proxy.tunnel(self.connector(AddressRule::Any));
                let https = HttpsConnector::from((tunnel, Arc::clone(tls)));
                let not_connected = "the provider cannot be reached through the proxy";
                fetch(https, request, not_connected, most, check).await
            }
        }
    }

    fn connector(&self, rule: AddressRule) -> HttpConnector<GuardedResolver<R>> {
        let resolver = GuardedResolver { names: self.resolver.clone(), rule };
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(self.connect_timeout));
        connector
    }
}

/// The address that stands in a URL instead of a name.
fn literal(url: &Uri) -> Option<IpAddr> {
    let host = url.host()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn tls_config(settings: &HttpSettings) -> Result<Arc<ClientConfig>, ConfigError> {
    let roots = match &settings.roots {
        Some(roots) => Arc::clone(roots),
        None => system_roots()?,
    };
    // The choice of the application, if it has made one for the process.
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(crypto::aws_lc_rs::default_provider()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("tls", "cannot be set up").with_source(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn system_roots() -> Result<Arc<RootCertStore>, ConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(ConfigError::new(
            "root_certificates",
            "the system has none; install ca-certificates, set SSL_CERT_FILE, or see \
             Jwks::with_root_certificates",
        ));
    }
    Ok(Arc::new(roots))
}

fn request(url: &Uri) -> Result<Request<Full<Bytes>>, JwksError> {
    let request = Request::get(url).header(ACCEPT, "application/json, application/jwk-set+json");
    with_our_headers(request).body(Full::default()).map_err(not_askable)
}

fn with_our_headers(request: http::request::Builder) -> http::request::Builder {
    request
        // A document that is unpacked could grow beyond every limit.
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
}

fn not_askable(error: http::Error) -> JwksError {
    unreachable("the URL of the provider cannot be asked for").with_source(error)
}

async fn fetch<C, T>(
    connector: C,
    request: Request<Full<Bytes>>,
    not_connected: &'static str,
    most: usize,
    check: impl FnOnce(&response::Parts) -> Result<T, JwksError>,
) -> Result<(T, Bytes), JwksError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .retry_canceled_requests(false)
        .build(connector);
    let answer =
        client.request(request).await.map_err(|error| request_failed(error, not_connected))?;
    let (head, body) = answer.into_parts();
    let checked = check(&head)?;
    let body = Limited::new(body, most).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return too_large(most);
        }
        broken("the answer of the provider broke off", error)
    })?;
    Ok((checked, body.to_bytes()))
}

/// What a client of the program has fetched.
pub(super) fn document<B, E>(answer: Result<Response<B>, E>) -> Result<JwksDocument, JwksError>
where
    B: Into<Bytes>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let answer = answer.map_err(|error| broken("the provider cannot be reached", error.into()))?;
    let max_age = check_head(answer.status(), answer.headers())?;
    Ok(JwksDocument { body: answer.into_body().into(), max_age })
}

pub(super) fn broken(detail: &'static str, source: Box<dyn Error + Send + Sync>) -> JwksError {
    JwksError { source: Some(Arc::from(source)), ..unreachable(detail) }
}

/// For how long an answer may be kept, if it holds a document at all.
fn check_head(status: StatusCode, headers: &HeaderMap) -> Result<Option<Duration>, JwksError> {
    match status {
        StatusCode::OK => {}
        status if status.is_redirection() => {
            return Err(JwksError::new(
                JwksErrorKind::Status,
                format!(
                    "the provider answered {status}, and redirects are not followed: name the \
                     final URL"
                ),
            ));
        }
        status => {
            return Err(JwksError::new(
                JwksErrorKind::Status,
                format!("the provider answered {status}"),
            ));
        }
    }
    if is_compressed(headers) {
        return Err(JwksError::new(
            JwksErrorKind::Malformed,
            "the answer is compressed, which was not asked for",
        ));
    }
    Ok(max_age(headers))
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity")
}

/// Says in our words what failed. The cause is the innermost one where it can be had; the links
/// around it name parts of the client.
fn request_failed(error: legacy::Error, not_connected: &'static str) -> JwksError {
    // Of the resolver.
    if let Some(ours) = causes(&error).find_map(|cause| cause.downcast_ref::<JwksError>()) {
        return ours.clone();
    }
    if let Some(tls) = causes(&error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return unreachable("TLS with the provider failed").with_source(tls.clone());
    }
    let failed = unreachable(if error.is_connect() {
        not_connected
    } else {
        "the connection to the provider broke"
    });
    let code = causes(&error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    match code {
        Some(code) => failed.with_source(io::Error::from_raw_os_error(code)),
        None => failed.with_source(error),
    }
}

/// An error and what it was caused by, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&cause| {
        // `io::Error::source` passes over the error that it was made of.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| cause.source())
    })
}

/// `max-age`; none if there is none. What must not be kept has the age 0.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let fields = headers.get_all(CACHE_CONTROL).iter().filter_map(|field| field.to_str().ok());
    let directives: Vec<&str> = fields.flat_map(|field| field.split(',')).map(str::trim).collect();
    if directives
        .iter()
        .any(|one| one.eq_ignore_ascii_case("no-store") || one.eq_ignore_ascii_case("no-cache"))
    {
        return Some(Duration::ZERO);
    }
    directives.iter().find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        let secs = value
            .trim_matches('"')
            .parse()
            .ok()
            .filter(|_| name.eq_ignore_ascii_case("max-age"))?;
        Some(Duration::from_secs(secs))
    })
}

fn forbidden(detail: &'static str) -> JwksError {
    JwksError::new(JwksErrorKind::Forbidden, detail)
}

fn unreachable(detail: &'static str) -> JwksError {
    JwksError::new(JwksErrorKind::Unreachable, detail)
}

#[cfg(test)]
mod tests;
