//! One connection to one server, and what its errors mean for a store.
//!
//! A connection that was lost is not made again: fred would go on with whatever server answers at
//! the address. The next connection is a new client, which is asked for its role first.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike as _, EventInterface as _};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, Server, ServerConfig, TcpConfig,
    UnresponsiveConfig,
};
use fred::types::{Builder, CustomCommand, Value};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::lease::Lease;
use super::options::DEFAULT_CONNECT_TIMEOUT;
use super::race::{ResolveHost, SystemResolver, addresses_of, race};
use super::server_id::{ServerId, field_of};
use super::time_limit::{Late, TimeLimit, within};
use crate::store::{StoreError, StoreErrorKind};

/// How long a connection may take to be made: TCP, TLS, password. Longer than a check, because it
/// is made in the background.
pub(crate) const CONNECT_TIMEOUT: Duration = DEFAULT_CONNECT_TIMEOUT;

/// How connections are made.
#[derive(Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) timeout: Duration,
    pub(crate) resolver: Arc<dyn ResolveHost>,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self { timeout: CONNECT_TIMEOUT, resolver: Arc::new(SystemResolver) }
    }
}

/// One client of fred with one connection. When the connection is lost, the client ends.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) server: ServerConfig,
    server_id: ServerId,
    lease: Arc<Lease>,
    task: JoinHandle<Result<(), fred::error::Error>>,
}

impl Connection {
    /// Connects to the server of the configuration, by whichever of its addresses connects first.
    pub(crate) async fn open(
        config: Config,
        settings: &ConnectSettings,
        command_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let limit = settings.timeout;
        let ServerConfig::Centralized { server } = config.server.clone() else {
            return Self::open_at(config, limit, command_timeout).await;
        };
        let connecting = async {
            let addresses = addresses_of(&*settings.resolver, &server.host, server.port).await?;
            race(addresses, limit, |address| {
                let server = ServerConfig::Centralized { server: literal(&server, address) };
                Self::open_at(Config { server, ..config.clone() }, limit, command_timeout)
            })
            .await
        };
        let mut connection = TimeLimit::start(limit)
            .wait(connecting)
            .await
            .unwrap_or_else(|late| Err(too_late(late)))?;
        // By this name the server is compared with what sentinels and clusters say.
        connection.server_id = ServerId::of_address(ServerAddress(&config.server));
        connection.server = config.server;
        Ok(connection)
    }

    /// Connects to one address, or one socket.
    async fn open_at(
        config: Config,
        limit: Duration,
        command_timeout: Duration,
    ) -> Result<Self, StoreError> {
        match Self::open_once(config.clone(), limit, command_timeout).await {
            // Without a password fred begins with `PING`, which Redis refuses while it cannot write
            // to its disk. With one it begins with `AUTH`, and a user without a password accepts
            // any.
            Err(error) if error_code(&error) == "MISCONF" && config.password.is_none() => {
                let username = config.username.clone().or_else(|| Some("default".into()));
                let config = Config { username, password: Some("none".into()), ..config };
                Self::open_once(config, limit, command_timeout).await.map_err(|_| error)
            }
            opened => opened,
        }
    }

    async fn open_once(
        config: Config,
        limit: Duration,
        command_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let server = config.server.clone();
        // A new connection is in database 0. Not every server has `SELECT`.
        let database = config.database.filter(|&database| database != 0);
        let mut builder = Builder::from_config(Config { fail_fast: true, database, ..config });
        // In addition to the deadlines of this crate, so that fred forgets what nobody waits for.
        builder.set_performance_config(PerformanceConfig {
            default_command_timeout: command_timeout,
            ..PerformanceConfig::default()
        });
        builder.set_connection_config(ConnectionConfig {
            connection_timeout: limit,
            internal_command_timeout: limit,
            max_command_attempts: 1,
            // With a bound, fred stops flushing for good once it was reached. The permits of this
            // crate are the bound.
            max_command_buffer_len: 0,
            unresponsive: UnresponsiveConfig::default(),
            reconnect_errors: Vec::new(),
            // Otherwise a command waits until the one before it was received, up to 40 ms.
            tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
            ..ConnectionConfig::default()
        });
        let client = builder.build().map_err(|error| classify(&error))?;
        // To be polled before the connection begins: fred tells only those who listen already, and
        // one that is made between its look and its listening would be waited for in vain.
        let waiting = client.clone();
        let mut connected = std::pin::pin!(waiting.wait_for_connect());
        let _ = futures::poll!(connected.as_mut());
        let task = client.connect();
        let server_id = ServerId::of_address(ServerAddress(&server));
        let lease = Arc::new(Lease::unlimited());
        let mut connection = Self { client, server, server_id, lease, task };
        let first = async {
            tokio::select! {
                connected = &mut connected => connected,
                ended = &mut connection.task => match ended {
                    Ok(Err(error)) => Err(error),
                    _ => Err(fred::error::Error::new(fred::error::ErrorKind::IO, "the connection \
                        was closed")),
                },
            }
        };
        match TimeLimit::start(limit).wait(first).await {
            Ok(Ok(())) => Ok(connection),
            Ok(Err(error)) => Err(classify(&error)),
            Err(late) => Err(too_late(late)),
        }
    }

    /// Asks the server who it is. To be called before anything is read that is believed of this
    /// server. One that does not tell keeps its address for an id.
    ///
    /// # Errors
    /// What keeps the server from answering; not that it refuses `INFO`.
    pub(crate) async fn learn_server_id(&mut self, limit: Duration) -> Result<(), StoreError> {
        for (section, field) in [("server", "run_id"), ("replication", "master_replid")] {
            let info = match self.command("INFO", vec![section], limit).await {
                Ok(info) => info,
                Err(error) if is_command_refused(&error) => continue,
                Err(error) => return Err(error),
            };
            if let Some(id) = info.as_str().as_deref().and_then(|info| field_of(info, field)) {
                self.server_id = ServerId::told(id);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Which server is at the other end. It does not change as long as the connection lasts.
    pub(crate) fn server_id(&self) -> &ServerId {
        &self.server_id
    }

    /// Answers are believed as long as this lease lasts. Without one the server stands alone, or is
    /// none that keeps data.
    pub(crate) fn believe_until(&mut self, lease: Arc<Lease>) {
        self.lease = lease;
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) fn has_lease(&self, lease: &Arc<Lease>) -> bool {
        Arc::ptr_eq(&self.lease, lease)
    }

    /// Sends one command. The limit holds whatever fred does.
    ///
    /// # Errors
    /// Also if the answer is not to be believed any more; see [`lease`](super::lease).
    pub(crate) async fn command<T>(
        &self,
        command: &'static str,
        arguments: Vec<T>,
        limit: Duration,
    ) -> Result<Value, StoreError>
    where
        T: TryInto<Value> + Send,
        T::Error: Into<fred::error::Error> + Send,
    {
        self.waiting_command(command, arguments, Duration::ZERO, limit).await
    }

    /// The same for a command that makes the server wait.
    pub(crate) async fn waiting_command<T>(
        &self,
        command: &'static str,
        arguments: Vec<T>,
        wait: Duration,
        limit: Duration,
    ) -> Result<Value, StoreError>
    where
        T: TryInto<Value> + Send,
        T::Error: Into<fred::error::Error> + Send,
    {
        let command = CustomCommand::new_static(command, None::<u16>, false);
        let believed = self.lease.with_wait(wait);
        let answer = async {
            let value = self.client.custom(command, arguments).await;
            let value = value.map_err(|error| classify(&error))?;
            self.lease.check(believed)?;
            Ok(value)
        };
        within(limit, answer).await
    }

    /// The errors of the connection from now on. The channel closes when the client ends.
    pub(crate) fn errors(&self) -> broadcast::Receiver<(fred::error::Error, Option<Server>)> {
        self.client.error_rx()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.task.is_finished()
    }

    pub(crate) fn close(&self) {
        self.task.abort();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", ServerAddress(&self.server))
    }
}

fn too_late(late: Late) -> StoreError {
    match late {
        Late::Unanswered => StoreError::new(StoreErrorKind::Timeout, "no connection in time"),
        Late::Stalled => late.error(),
    }
}

/// The server at one of its addresses. A certificate is checked by the name.
fn literal(server: &Server, address: SocketAddr) -> Server {
    let literal = Server::new(address.ip().to_string(), address.port());
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let literal = Server {
        tls_server_name: server.tls_server_name.clone().or_else(|| Some(server.host.clone())),
        ..literal
    };
    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    let _ = server;
    literal
}

/// Host and port of a server, without credentials.
pub(crate) struct ServerAddress<'a>(pub(crate) &'a ServerConfig);

impl fmt::Display for ServerAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, server) in self.0.hosts().iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            match server.port {
                0 => write!(f, "{comma}{}", server.host)?,
                port => write!(f, "{comma}{}:{port}", server.host)?,
            }
        }
        Ok(())
    }
}

// === Errors ===

pub(crate) fn unreachable(problem: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, problem)
}

pub(crate) fn unexpected_reply(whose: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Protocol, format!("the reply of {whose} makes no sense"))
}

/// The first word of an error of Redis. Before 7.0 a script wraps the errors of its commands.
pub(crate) fn code_of(details: &str) -> &str {
    let inner = match details.strip_prefix("ERR Error running script") {
        Some(wrapped) => wrapped.split_once(": -").map_or(details, |(_, inner)| inner),
        None => details,
    };
    inner.split_whitespace().next().unwrap_or("")
}

/// The first word of the error that Redis gave; empty if it was not Redis.
pub(crate) fn error_code(error: &StoreError) -> &str {
    error
        .told()
        .and_then(|source| source.downcast_ref::<fred::error::Error>())
        .map_or("", |error| code_of(error.details()))
}

/// Whether the server has no such command, or the user may not use it: where a command was renamed
/// or forbidden, Redis and hosted services answer `ERR` or `NOPERM`.
pub(crate) fn is_command_refused(error: &StoreError) -> bool {
    matches!(error_code(error), "ERR" | "NOPERM")
}

/// Whether a script has written nothing, by the error that it was answered with: the server did not
/// run it, or has refused its first write for a reason that holds for all of them, or the script
/// has ended with an error of its own, before the first. Missing rights may concern a later
/// command.
pub(crate) fn is_script_refused(error: &StoreError) -> bool {
    matches!(
        error_code(error),
        "NOSCRIPT"
            | "NOAUTH"
            | "LOADING"
            | "MASTERDOWN"
            | "CLUSTERDOWN"
            | "MOVED"
            | "ASK"
            | "TRYAGAIN"
            | "CROSSSLOT"
            | "READONLY"
            | "OOM"
            | "MISCONF"
            | "NOREPLICAS"
            | "UNREADABLE"
            | "LAYOUT"
    )
}

/// Whether the server can be read, and has refused to write: also because the slot of the keys is
/// being moved, when keys can be read one by one.
pub(crate) fn is_write_refused(error: &StoreError) -> bool {
    if matches!(error_code(error), "ASK" | "TRYAGAIN") {
        return true;
    }
    let is_refusal = matches!(
        error.kind(),
        StoreErrorKind::Denied | StoreErrorKind::Full | StoreErrorKind::Replicas
    );
    // `NOAUTH` and `WRONGPASS` are `Denied` too, and refuse to read.
    is_refusal && !matches!(error_code(error), "NOAUTH" | "WRONGPASS" | "")
}

/// What an error of fred means for a store. None of them ever means "not revoked".
pub(crate) fn classify(error: &fred::error::Error) -> StoreError {
    use fred::error::ErrorKind;
    let details = error.details();
    if let Some(problem) = certificate_problem(details) {
        return StoreError::new(StoreErrorKind::Denied, problem).with_told(error.clone());
    }
    let code = code_of(details);
    let kind = match code {
        "LOADING" => StoreErrorKind::Loading,
        "READONLY" | "MASTERDOWN" => StoreErrorKind::NotPrimary,
        "MOVED" | "ASK" | "CLUSTERDOWN" | "TRYAGAIN" | "CROSSSLOT" => StoreErrorKind::Cluster,
        "NOPERM" | "NOAUTH" | "WRONGPASS" => StoreErrorKind::Denied,
        "OOM" | "MISCONF" => StoreErrorKind::Full,
        "NOREPLICAS" => StoreErrorKind::Replicas,
        "WRONGTYPE" | "UNREADABLE" | "LAYOUT" => StoreErrorKind::Protocol,
        "NOSCRIPT" | "BUSY" | "ERR" => StoreErrorKind::Other,
        _ => match error.kind() {
            ErrorKind::Timeout => StoreErrorKind::Timeout,
            // Errors of Redis begin with a word in capitals. This one is of fred: a channel was
            // closed.
            ErrorKind::Unknown if !code.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                StoreErrorKind::Unreachable
            }
            ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Sentinel => {
                StoreErrorKind::Unreachable
            }
            ErrorKind::Auth => StoreErrorKind::Denied,
            ErrorKind::Cluster => StoreErrorKind::Cluster,
            ErrorKind::Protocol
            | ErrorKind::Parse
            | ErrorKind::NotFound
            | ErrorKind::InvalidArgument => StoreErrorKind::Protocol,
            ErrorKind::Backpressure => StoreErrorKind::Overloaded,
            _ => StoreErrorKind::Other,
        },
    };
    // Some errors quote the command that was sent, with the password if it was `AUTH` or `HELLO`.
    let short: String = details.chars().take(200).collect();
    let (short, source) = match short.split_once(", with args") {
        Some((plain, _)) => {
            (plain, fred::error::Error::new(error.kind().clone(), plain.to_owned()))
        }
        None => (&*short, error.clone()),
    };
    StoreError::new(kind, format!("redis: {}", message_of(short))).with_told(source)
}

/// What an operator can do about a certificate that is not accepted. It does not get better by
/// waiting.
const UNTRUSTED: &str = "redis: the certificate of the server is not accepted: it is of an \
    authority that is not trusted, for another name, or over; for an authority of your own set \
    REDIS_CA_FILE, or RedisStoreBuilder::with_root_certificates_file, to its certificates in PEM";

/// The same, where it is the server that does not accept this client.
const UNKNOWN_CLIENT: &str = "redis: the server does not accept this client without a certificate, \
    or not the one that it shows; set REDIS_CLIENT_CERT_FILE and REDIS_CLIENT_KEY_FILE, or \
    RedisStoreBuilder::with_client_certificate_files, to one of an authority that the server \
    trusts";

/// Whether TLS was refused because of a certificate, in the words of rustls and of OpenSSL.
fn certificate_problem(details: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| details.contains(word));
    // rustls tells it in words, and fred often hands on its `Debug`.
    if says(&["invalid peer certificate", "InvalidCertificate(", "certificate verify failed"]) {
        return Some(UNTRUSTED);
    }
    // An alert that the server has sent (RFC 8446 §6.2).
    let is_refusal = says(&["received fatal alert: ", "AlertReceived(", "alert "])
        && says(&[
            "CertificateRequired",
            "certificate required",
            "BadCertificate",
            "bad certificate",
            "CertificateExpired",
            "certificate expired",
            "CertificateRevoked",
            "certificate revoked",
            "CertificateUnknown",
            "certificate unknown",
            "UnknownCA",
            // An authority of the same name with another key.
            "DecryptError",
            "decrypt error",
            "unknown ca",
            "HandshakeFailure",
            "handshake failure",
        ]);
    is_refusal.then_some(UNKNOWN_CLIENT)
}

/// Whether one side has refused the certificate of the other, or that it shows none.
pub(crate) fn is_of_certificates(error: &StoreError) -> bool {
    error
        .told()
        .and_then(|source| source.downcast_ref::<fred::error::Error>())
        .is_some_and(|error| certificate_problem(error.details()).is_some())
}

/// The message of an error of the operating system. fred keeps it as its `Debug`, `Os { code: 111,
/// …, message: "…" }`.
fn message_of(details: &str) -> &str {
    let message = details
        .strip_prefix("Os {")
        .and_then(|rest| rest.split_once("message: \"")?.1.split_once('"'));
    message.map_or(details, |(message, _)| message)
}

#[cfg(test)]
mod tests;
