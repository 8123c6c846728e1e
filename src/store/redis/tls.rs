//! TLS: which authorities are trusted, and by which certificate this client shows who it is.
//!
//! It is rustls where that is compiled in, else native-tls. What comes from files is read for each
//! connection, as certificates are renewed while programs run. As long as a file cannot be used, or
//! is not read within [`READ_LIMIT`], the certificates that were read before go on being used: a
//! service that has a valid certificate must not lose its Redis because a volume is away. Once that
//! one is over, the servers refuse it, which is an error of its own.

#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
mod by_native_tls;
#[cfg(feature = "rustls")]
mod by_rustls;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::types::config::Config;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
use self::by_native_tls::connector;
#[cfg(feature = "rustls")]
use self::by_rustls::connector;
use crate::config::ConfigError;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use crate::config::names_unreadable;

/// Certificates and a key of one's own, in PEM (RFC 7468).
#[derive(Clone, Default)]
pub(crate) struct TlsSettings {
    /// The authorities that are trusted instead of those of the system.
    roots: Option<PemSource>,
    client: Option<ClientIdentity>,
}

/// The certificate of this client, with those between it and an authority, and its key.
#[derive(Clone)]
struct ClientIdentity {
    certificate: PemSource,
    key: PemSource,
}

#[derive(Clone)]
#[cfg_attr(
    not(any(feature = "rustls", feature = "native-tls")),
    expect(dead_code, reason = "nothing is made of it without TLS")
)]
enum PemSource {
    Text { setting: &'static str, pem: Arc<[u8]> },
    File { setting: &'static str, path: PathBuf },
}

/// PEM as it was read, and what to say of it in errors.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
struct Pem<'a> {
    source: &'a PemSource,
    text: Arc<[u8]>,
}

// === impl TlsSettings ===

impl TlsSettings {
    pub(crate) fn set_roots(&mut self, pem: &[u8]) {
        self.roots = Some(PemSource::text("root_certificates", pem));
    }

    pub(crate) fn set_roots_file(&mut self, path: PathBuf) {
        self.roots = Some(PemSource::File { setting: "root_certificates_file", path });
    }

    pub(crate) fn set_client(&mut self, certificate: &[u8], key: &[u8]) {
        self.client = Some(ClientIdentity {
            certificate: PemSource::text("client_certificate", certificate),
            key: PemSource::text("client_key", key),
        });
    }

    pub(crate) fn set_client_files(&mut self, certificate: PathBuf, key: PathBuf) {
        self.client = Some(ClientIdentity {
            certificate: PemSource::File { setting: "client_certificate_file", path: certificate },
            key: PemSource::File { setting: "client_key_file", path: key },
        });
    }

    /// One of these that is set, by the name of its setting.
    pub(crate) fn any(&self) -> Option<&'static str> {
        let client = self.client.as_ref().map(|client| client.certificate.setting());
        self.roots.as_ref().map(PemSource::setting).or(client)
    }

    /// Whether a file may change.
    fn has_files(&self) -> bool {
        let of_client = self.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        self.roots.iter().chain(of_client).any(|pem| matches!(pem, PemSource::File { .. }))
    }

    /// A configuration of fred with this TLS and nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] naming the setting that cannot be used. It never quotes what a file holds.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    pub(crate) fn secured(&self) -> Result<Config, ConfigError> {
        let roots = self.roots.as_ref().map(PemSource::read).transpose()?;
        let client = match &self.client {
            Some(client) => Some((client.certificate.read()?, client.key.read()?)),
            None => None,
        };
        let connector = connector(roots.as_ref(), client.as_ref())?;
        Ok(Config { tls: Some(connector.into()), ..Config::default() })
    }

    /// Without TLS compiled in, who asks for it has been refused before.
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "as with TLS")]
    pub(crate) fn secured(&self) -> Result<Config, ConfigError> {
        Ok(Config::default())
    }
}

/// Which settings there are. Of a text that was given, nothing is shown: it may be a key.
impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_client = self.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        f.debug_list().entries(self.roots.iter().chain(of_client)).finish()
    }
}

// === impl PemSource ===

impl PemSource {
    fn text(setting: &'static str, pem: &[u8]) -> Self {
        Self::Text { setting, pem: pem.into() }
    }

    fn setting(&self) -> &'static str {
        match self {
            Self::Text { setting, .. } | Self::File { setting, .. } => setting,
        }
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    fn read(&self) -> Result<Pem<'_>, ConfigError> {
        let text = match self {
            Self::Text { pem, .. } => Arc::clone(pem),
            Self::File { setting, path } => std::fs::read(path)
                .map_err(|error| {
                    let problem = names_unreadable(&path.to_string_lossy());
                    ConfigError::new(*setting, problem).with_source(error)
                })?
                .into(),
        };
        Ok(Pem { source: self, text })
    }
}

impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { setting, .. } => write!(f, "{setting}"),
            Self::File { setting, path } => write!(f, "{setting}: {}", path.display()),
        }
    }
}

// === What can change while the program runs ===

/// How long a new connection waits for the files. They are small; what takes longer is a volume
/// that hangs, and would keep all connections from being made.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// The TLS of the next connection.
pub(crate) struct CurrentTls {
    settings: TlsSettings,
    /// What was made of the files when they could last be used.
    last: Mutex<Config>,
    /// One reads at a time: on a volume that hangs, threads must not become more and more.
    reading: Arc<Semaphore>,
}

impl CurrentTls {
    /// None if nothing of it can change. `first` is what was made of the files a moment ago.
    pub(crate) fn new(settings: &TlsSettings, first: &Config) -> Option<Arc<Self>> {
        (settings.has_files() && first.uses_tls()).then(|| {
            Arc::new(Self {
                settings: settings.clone(),
                last: Mutex::new(first.clone()),
                reading: Arc::new(Semaphore::new(1)),
            })
        })
    }

    /// The configuration with the TLS that the files stand for now, if it has TLS at all. With what
    /// they stood for before, if they cannot be used, or are not read in time.
    pub(crate) async fn renew(self: &Arc<Self>, config: Config) -> Config {
        if !config.uses_tls() {
            return config;
        }
        if !matches!(timeout(READ_LIMIT, self.read()).await, Ok(Some(()))) {
            tracing::warn!(
                settings = ?self.settings,
                limit = ?READ_LIMIT,
                "the certificates for redis were not read in time; those that were read before \
                are used"
            );
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        with_tls_of(config, last)
    }

    /// Reads the files, in a thread of its own: one that hangs must not keep the runtime from
    /// ending, as one of its own would. None if no thread could be had, or it has panicked.
    async fn read(self: &Arc<Self>) -> Option<()> {
        let permit = Arc::clone(&self.reading).acquire_owned().await.ok()?;
        let (done, is_done) = oneshot::channel();
        let this = Arc::clone(self);
        let read = move || {
            this.read_now();
            drop(permit);
            // Whoever has waited may be gone.
            let _ = done.send(());
        };
        let name = "redis certificates".to_owned();
        std::thread::Builder::new().name(name).spawn(read).ok()?;
        is_done.await.ok()
    }

    fn read_now(&self) {
        match self.settings.secured() {
            Ok(secured) => *self.last.lock().unwrap_or_else(PoisonError::into_inner) = secured,
            Err(error) => tracing::warn!(
                ?error,
                "the certificates for redis cannot be read \
                again; those that were read before are used"
            ),
        }
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn with_tls_of(config: Config, secured: Config) -> Config {
    Config { tls: secured.tls, ..config }
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
fn with_tls_of(config: Config, _: Config) -> Config {
    config
}

// === Errors ===

#[cfg(any(feature = "rustls", feature = "native-tls"))]
impl Pem<'_> {
    /// `problem` says what is wrong with it: "holds no certificate".
    fn error(&self, problem: &str) -> ConfigError {
        match self.source {
            PemSource::Text { setting, .. } => ConfigError::new(*setting, problem),
            PemSource::File { setting, path } => {
                ConfigError::new(*setting, format!("names {}, which {problem}", path.display()))
            }
        }
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
const NO_CERTIFICATE: &str =
    "holds no certificate in PEM; give PEM with at least one `BEGIN CERTIFICATE`";
#[cfg(any(feature = "rustls", feature = "native-tls"))]
const BAD_CERTIFICATE: &str = "holds a certificate that cannot be used";
#[cfg(any(feature = "rustls", feature = "native-tls"))]
const NOT_A_PAIR: &str =
    "cannot be used with the certificate of this client; give the key that the certificate is for";

#[cfg(test)]
mod tests;
