//! One GET: over TLS, without redirects, bounded in size. Bounded in time by the caller.
//!
//! A connection per document: there is one every few minutes, and nothing to keep open in between.

mod guard;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, HOST, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use self::guard::is_public;
use super::document::{JwksSource, too_large};
use super::{JwksDocument, JwksError, JwksErrorKind, JwksTransport, MAX_DOCUMENT_BYTES};
use crate::config::ConfigError;

/// How long one address may take to connect, so that a dead one leaves time for the others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Default)]
pub(super) struct HttpSettings {
    roots: Option<Arc<RootCertStore>>,
    plain_loopback: bool,
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
    Custom(Arc<dyn JwksTransport>),
}

pub(super) struct HttpClient {
    tls: Option<TlsConnector>,
    plain_loopback: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The task that drives a connection ends with the request it was made for.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl HttpSettings ===

impl HttpSettings {
    pub(super) fn set_roots(&mut self, pem: &[u8]) -> Result<(), ConfigError> {
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

    pub(super) fn allow_plain_loopback(&mut self) {
        self.plain_loopback = true;
    }
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
            Self::Custom(transport) => transport.get(url).await,
        }
    }
}

// === impl HttpClient ===

impl HttpClient {
    pub(super) fn new(settings: &HttpSettings, source: &JwksSource) -> Result<Self, ConfigError> {
        let is_plain = source.first_url().scheme_str() == Some("http");
        if is_plain && !settings.plain_loopback {
            return Err(ConfigError::new(
                "jwks_url",
                "is not https; for tests on this machine see Jwks::with_plain_http_on_loopback",
            ));
        }
        // With a plain start nothing else is expected, and the certificates of the system need not
        // be there.
        let tls =
            if is_plain && settings.roots.is_none() { None } else { Some(connector(settings)?) };
        Ok(Self { tls, plain_loopback: settings.plain_loopback })
    }

    async fn get(&self, url: &Uri, scope: AddressScope) -> Result<JwksDocument, JwksError> {
        let stream = self.connect(url, scope).await?;
        let broken = |error| unreachable("the connection to the provider broke").with_source(error);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _driver = Driver(tokio::spawn(async move {
            // How it ends is seen by the request.
            let _ = connection.await;
        }));
        let answer = sender.send_request(request(url)?).await.map_err(broken)?;
        match answer.status() {
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
        let max_age = max_age(answer.headers());
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT_BYTES).collect().await.map_err(
            |error| {
                if error.is::<LengthLimitError>() {
                    too_large()
                } else {
                    unreachable("the answer of the provider broke off")
                }
            },
        )?;
        Ok(JwksDocument::new(body.to_bytes()).with_max_age(max_age))
    }

    async fn connect(&self, url: &Uri, scope: AddressScope) -> Result<Box<dyn Stream>, JwksError> {
        let forbidden = |detail| Err(JwksError::new(JwksErrorKind::Forbidden, detail));
        let is_plain = url.scheme_str() != Some("https");
        if is_plain && !self.plain_loopback {
            return forbidden("a URL of the provider is not https");
        }
        let host = url.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = url.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let addresses: Vec<SocketAddr> = lookup_host((host, port))
            .await
            .map_err(|error| {
                unreachable("the host of the provider has no address").with_source(error)
            })?
            .collect();
        if is_plain && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return forbidden(
                "a URL of the provider is not https, and its host is not this machine",
            );
        }
        let is_loopback_allowed = |ip: IpAddr| self.plain_loopback && ip.is_loopback();
        let is_allowed =
            |ip| scope == AddressScope::Any || is_public(ip) || is_loopback_allowed(ip);
        if !addresses.iter().all(|address| is_allowed(address.ip())) {
            return forbidden(
                "the `jwks_uri` is at another host than the issuer, with an address that is not \
                 public",
            );
        }
        let tcp = connect_to_any(&addresses).await?;
        if is_plain {
            return Ok(Box::new(tcp));
        }
        let Some(tls) = &self.tls else {
            return forbidden("the provider went from http to https; start with https");
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| {
            unreachable("the host of the provider cannot have a certificate").with_source(error)
        })?;
        let tls = tls.connect(name, tcp).await;
        Ok(Box::new(
            tls.map_err(|error| unreachable("TLS with the provider failed").with_source(error))?,
        ))
    }
}

fn connector(settings: &HttpSettings) -> Result<TlsConnector, ConfigError> {
    let roots = match &settings.roots {
        Some(roots) => Arc::clone(roots),
        None => system_roots()?,
    };
    // The choice of the application, if it has made one for the process.
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::new("tls", "cannot be set up").with_source(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
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

async fn connect_to_any(addresses: &[SocketAddr]) -> Result<TcpStream, JwksError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(unreachable("the provider cannot be reached").with_source(last))
}

fn request(url: &Uri) -> Result<Request<Empty<Bytes>>, JwksError> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let host = url.authority().map_or("", |authority| authority.as_str());
    Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| {
            unreachable("the URL of the provider cannot be asked for").with_source(error)
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

fn unreachable(detail: &'static str) -> JwksError {
    JwksError::new(JwksErrorKind::Unreachable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_read_as_http_writes_it() {
        let age = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, text.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, max-age=300, must-revalidate"), Some(300));
        assert_eq!(age("Max-Age=\"300\""), Some(300));
        assert_eq!(age("no-store"), Some(0));
        assert_eq!(age("max-age=300, no-cache"), Some(0));
        assert_eq!(age("s-maxage=300"), None);
        assert_eq!(age("max-age=-1"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
