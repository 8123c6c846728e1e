//! A guarded connection: every question is answered in time, whatever Redis and fred do.
//!
//! A [`SupervisedConnection`] has one connection at a time and a keeper, a task that watches over it:
//!
//! ```text
//!            connected, is a primary
//!   down ───────────────────────────────▶ up
//!    ▲                                     │ closed · 5 timeouts in a row · 2 probes unanswered ·
//!    └─────────────────────────────────────┘ not a primary any more · sentinels name another one
//! ```
//!
//! While it is down, questions are answered at once, with the reason. Only a connection that has
//! answered the keeper's own question brings it up again, and always a new one: answers that come
//! late have nowhere to arrive.

use std::future::pending;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fred::interfaces::ClientLike as _;
use fred::types::config::ServerConfig;
use fred::types::{CustomCommand, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Health;
use super::connection::{
    CONNECT_TIMEOUT, Connection, ServerAddress, classify, code_of, timed_out, unexpected_reply,
};
use super::epoch::{EpochSource, EpochTracker};
use super::log_check::compare;
use super::random;
use super::schema::RedisKeys;
use super::topology::SharedTopology;
use crate::store::{StoreError, StoreErrorKind};

/// How often the keeper asks whether all is well; also how late a loss of data is noticed without
/// traffic.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How soon it asks again after a probe that was not answered.
const PROBE_AGAIN: Duration = Duration::from_millis(25);
/// How often the sentinels are asked whether the primary is still theirs.
const FIND_EVERY: Duration = Duration::from_secs(2);
/// So many timeouts in a row and the connection is given up.
const TIMEOUTS: u32 = 5;
/// The pause before the next attempt to connect doubles between these.
const BACKOFF: Range<Duration> = Duration::from_millis(25)..Duration::from_secs(1);

/// A connection that has lasted so long was a good one.
const STABLE: Duration = Duration::from_secs(5);
/// As so many failures count those that did not last: a pause of 200 ms.
const UNSTABLE: u32 = 3;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The checks of requests.
    Checks,
    /// Writes and everything that may take its time.
    Writes,
}

/// What a connection is told when it is made.
pub(crate) struct SupervisionConfig {
    pub(crate) purpose: Purpose,
    pub(crate) topology: SharedTopology,
    pub(crate) keys: Arc<RedisKeys>,
    pub(crate) tracker: Arc<EpochTracker>,
    /// The hash slot by which the primary is found in a cluster.
    pub(crate) slot: u16,
    /// The shards behind it; none, if it is for keys of others.
    pub(crate) shards: Range<u16>,
    /// How long one answer may take.
    pub(crate) limit: Duration,
    /// How many questions may be open.
    pub(crate) in_flight: usize,
    pub(crate) health_tx: Arc<watch::Sender<Health>>,
}

/// A guarded connection. Its keeper ends with it.
pub(crate) struct SupervisedConnection {
    core: Arc<Core>,
    keeper: JoinHandle<()>,
}

struct Core {
    config: SupervisionConfig,
    state: ArcSwap<State>,
    slots: Arc<Semaphore>,
}

enum State {
    Up(Arc<Conn>),
    Down(StoreError),
}

struct Conn {
    connection: Connection,
    timeouts: AtomicU32,
    /// Why the connection was given up.
    lost: watch::Sender<Option<StoreError>>,
}

impl SupervisedConnection {
    /// Starts to connect, in the background.
    pub(crate) fn start(config: SupervisionConfig) -> Self {
        let slots = Arc::new(Semaphore::new(config.in_flight));
        let starting = StoreError::new(StoreErrorKind::Unreachable, "not connected to redis yet");
        let core =
            Arc::new(Core { config, state: ArcSwap::from_pointee(State::Down(starting)), slots });
        let keeper = tokio::spawn(Arc::clone(&core).keep());
        Self { core, keeper }
    }

    /// The right to ask one question; an error at once if it could not be answered.
    pub(crate) fn acquire(&self) -> Result<Permit, StoreError> {
        let connection = self.core.connection()?;
        let permit = Arc::clone(&self.core.slots).try_acquire_owned().map_err(|_| {
            StoreError::new(
                StoreErrorKind::Overloaded,
                "as many questions to redis are open as are allowed",
            )
        })?;
        Ok(Permit { connection, _permit: permit })
    }

    /// For those who ask on behalf of others that have acquired the connection.
    pub(crate) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle(Arc::clone(&self.core))
    }
}

/// The connections of a connection, one after the other. It does not keep the connection up.
pub(crate) struct ConnectionHandle(Arc<Core>);

impl ConnectionHandle {
    /// The connection of this moment; an error at once if there is none.
    pub(crate) fn connection(&self) -> Result<PinnedConnection, StoreError> {
        self.0.connection()
    }
}

impl Drop for SupervisedConnection {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

// === One question ===

/// The right to ask one question on one connection.
pub(crate) struct Permit {
    connection: PinnedConnection,
    _permit: OwnedSemaphorePermit,
}

/// One connection, and who keeps it.
pub(crate) struct PinnedConnection {
    core: Arc<Core>,
    conn: Arc<Conn>,
}

impl Permit {
    /// At the other end of the connection.
    pub(crate) fn server(&self) -> &ServerConfig {
        &self.connection.conn.connection.server
    }

    /// Any command. Ends early, with an error, if the connection is given up meanwhile.
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
        let command = CustomCommand::new_static(command, None::<u16>, false);
        let asked = self
            .connection
            .answer(self.connection.conn.connection.client.custom::<Value, _>(command, arguments));
        timeout(limit, asked).await.unwrap_or_else(|_| Err(self.connection.count_timeout()))
    }

    pub(crate) fn connection(&self) -> &PinnedConnection {
        &self.connection
    }
}

impl PinnedConnection {
    /// The values of keys that are on one node. The caller says how long to wait, and calls
    /// [`count_timeout`](Self::count_timeout) after it.
    pub(crate) async fn mget(&self, keys: Vec<Value>) -> Result<Vec<Value>, StoreError> {
        let count = keys.len();
        // `mget` of fred looks at each key several times before it sends it.
        let command = CustomCommand::new_static("MGET", None::<u16>, false);
        // In a box, because it is large and would be moved several times.
        let asked = Box::pin(self.conn.connection.client.custom::<Value, _>(command, keys));
        match self.answer(asked).await? {
            Value::Array(values) if values.len() == count => Ok(values),
            _ => Err(unexpected_reply("redis")),
        }
    }

    /// The answer to a question; an error as soon as the connection is given up, which fred may not
    /// tell.
    async fn answer(
        &self,
        asked: impl Future<Output = Result<Value, fred::error::Error>>,
    ) -> Result<Value, StoreError> {
        let mut lost = self.conn.lost.subscribe();
        tokio::select! {
            answer = asked => self.settle(answer),
            lost = lost.wait_for(Option::is_some) => {
                Err(lost.ok().and_then(|lost| lost.clone()).unwrap_or_else(replaced))
            }
        }
    }

    /// Judges the connection by what came of a question, and the answer by the connection it came
    /// on.
    fn settle<T>(&self, answer: Result<T, fred::error::Error>) -> Result<T, StoreError> {
        match answer {
            Ok(value) => {
                if self.conn.timeouts.load(Ordering::Relaxed) != 0 {
                    self.conn.timeouts.store(0, Ordering::Relaxed);
                }
                // An answer from a primary that has been replaced meanwhile proves nothing.
                if self.core.is_current(&self.conn) { Ok(value) } else { Err(replaced()) }
            }
            Err(error) if *error.kind() == fred::error::ErrorKind::Timeout => {
                Err(self.count_timeout())
            }
            // A connection that is given up takes along what is under way; fred then has no word of
            // its own for it.
            Err(_) if !self.core.is_current(&self.conn) => {
                Err(self.conn.lost.borrow().clone().unwrap_or_else(replaced))
            }
            Err(error) => {
                let failure = classify(&error);
                if is_fatal(&error, &failure) {
                    self.core.give_up(&self.conn, &failure);
                }
                Err(failure)
            }
        }
    }

    /// Takes note of a question that was not answered in time.
    pub(crate) fn count_timeout(&self) -> StoreError {
        if self.conn.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
            let hung = "redis did not answer several times in a row";
            self.core.give_up(&self.conn, &StoreError::new(StoreErrorKind::Timeout, hung));
        }
        timed_out()
    }
}

fn replaced() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unreachable,
        "the connection was given up before the answer came",
    )
}

/// Whether an error says that the *connection*, or the server behind it, is not the one to talk to.
fn is_fatal(error: &fred::error::Error, failure: &StoreError) -> bool {
    use fred::error::ErrorKind;
    match failure.kind() {
        StoreErrorKind::Unreachable | StoreErrorKind::Loading | StoreErrorKind::NotPrimary => true,
        // While a slot is being moved, its old owner goes on serving it.
        StoreErrorKind::Cluster => matches!(code_of(error.details()), "MOVED" | "CLUSTERDOWN"),
        StoreErrorKind::Denied => code_of(error.details()) != "NOPERM",
        StoreErrorKind::Protocol => matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Parse),
        _ => false,
    }
}

// === The keeper ===

/// A connection that nobody watches over any more is not to be believed: it ends with its keeper,
/// however that ends.
struct Watched(Arc<Core>);

impl Drop for Watched {
    fn drop(&mut self) {
        let ended = "the task that watches over the connection to redis has ended";
        let error = StoreError::new(StoreErrorKind::Unreachable, ended);
        if std::thread::panicking() {
            tracing::error!(purpose = ?self.0.config.purpose, %error, "redis cannot be used until \
                the program is restarted");
            self.0.report(Some(&error));
        }
        if let State::Up(conn) = &*self.0.state.swap(Arc::new(State::Down(error.clone()))) {
            conn.lost.send_replace(Some(error));
            conn.connection.end();
        }
    }
}

impl Core {
    /// The connection that is up, or why there is none.
    fn connection(self: &Arc<Self>) -> Result<PinnedConnection, StoreError> {
        match &**self.state.load() {
            State::Up(conn) => {
                Ok(PinnedConnection { core: Arc::clone(self), conn: Arc::clone(conn) })
            }
            State::Down(error) => Err(error.clone()),
        }
    }

    fn is_current(&self, conn: &Arc<Conn>) -> bool {
        matches!(&**self.state.load(), State::Up(current) if Arc::ptr_eq(current, conn))
    }

    /// From now on questions are answered with this error; the keeper is told.
    fn give_up(&self, conn: &Arc<Conn>, error: &StoreError) {
        let was = self.state.rcu(|state| match &**state {
            State::Up(current) if Arc::ptr_eq(current, conn) => {
                Arc::new(State::Down(error.clone()))
            }
            _ => Arc::clone(state),
        });
        if matches!(&*was, State::Up(current) if Arc::ptr_eq(current, conn)) {
            conn.lost.send_replace(Some(error.clone()));
        }
    }

    async fn keep(self: Arc<Self>) {
        let watched = Watched(self);
        watched.0.keep_up().await;
    }

    /// Never returns.
    async fn keep_up(&self) {
        let mut failures = 0;
        // Whether the log has been told of the present trouble.
        let mut told = false;
        loop {
            match self.connect().await {
                Ok(connection) => {
                    let server = ServerAddress(&connection.server).to_string();
                    let conn = Arc::new(Conn {
                        connection,
                        timeouts: AtomicU32::new(0),
                        lost: watch::Sender::new(None),
                    });
                    self.state.store(Arc::new(State::Up(Arc::clone(&conn))));
                    tracing::info!(purpose = ?self.config.purpose, server, "connected to redis");
                    self.report(None);
                    told = false;
                    let since = Instant::now();
                    let error = self.watch_over(&conn).await;
                    // A server that answers the keeper but not the checks must not be stormed with
                    // connections.
                    failures =
                        if since.elapsed() < STABLE { (failures + 1).min(UNSTABLE) } else { 0 };
                    self.give_up(&conn, &error);
                    conn.connection.end();
                    self.tell(&error, &mut told);
                }
                Err(error) => {
                    self.state.store(Arc::new(State::Down(error.clone())));
                    self.tell(&error, &mut told);
                    failures += 1;
                }
            }
            // Jitter, so that a thousand processes do not all come back in one instant.
            let pause = BACKOFF.start.saturating_mul(1 << failures.min(10)).min(BACKOFF.end);
            sleep(pause.mul_f64(0.5 + random::fraction() / 2.0)).await;
        }
    }

    fn tell(&self, error: &StoreError, told: &mut bool) {
        self.report(Some(error));
        if !*told {
            tracing::warn!(purpose = ?self.config.purpose, %error, "redis cannot be used; trying \
                until it can");
            *told = true;
        }
    }

    fn report(&self, error: Option<&StoreError>) {
        let (purpose, shards) = (self.config.purpose, &self.config.shards);
        self.config.health_tx.send_modify(|health| health.note(purpose, shards, error));
    }

    /// A connection to the primary, which has said that it is one.
    async fn connect(&self) -> Result<Connection, StoreError> {
        let net = match self.config.purpose {
            // Each batch of checks has its own limit, and is worth nothing to anybody after it.
            Purpose::Checks => Duration::ZERO,
            Purpose::Writes => self.config.limit.max(CONNECT_TIMEOUT),
        };
        let topology = &self.config.topology;
        let connection = topology.open(topology.find(self.config.slot).await?, net).await?;
        let limit = self.config.limit.max(Duration::from_millis(50));
        Self::ask_role(&connection, limit).await?;
        // One that hung while it was connected to may have been replaced meanwhile, and does not
        // know it yet.
        if topology.find(self.config.slot).await? != connection.server {
            return Err(StoreError::new(
                StoreErrorKind::NotPrimary,
                "the server was replaced as the primary while it was connected to",
            ));
        }
        // Before anything is learned from this server, which would hide what has to be compared.
        compare(&connection, &self.config.keys, &self.config.tracker, self.config.shards.clone())
            .await?;
        self.read_epochs(&connection, limit).await?;
        Ok(connection)
    }

    /// Asks for the role, and reads the epochs so that a loss of data is noticed without traffic.
    async fn probe(&self, connection: &Connection, limit: Duration) -> Result<(), StoreError> {
        Self::ask_role(connection, limit).await?;
        self.read_epochs(connection, limit).await
    }

    async fn ask_role(connection: &Connection, limit: Duration) -> Result<(), StoreError> {
        let role = connection.ask::<Value>("ROLE", Vec::new(), limit).await?;
        match role {
            Value::Array(parts) => match parts.first().and_then(Value::as_str).as_deref() {
                Some("master") => Ok(()),
                Some(_) => Err(StoreError::new(
                    StoreErrorKind::NotPrimary,
                    "the server is not a primary, but a replica",
                )),
                None => Err(unexpected_reply("redis")),
            },
            _ => Err(unexpected_reply("redis")),
        }
    }

    async fn read_epochs(
        &self,
        connection: &Connection,
        limit: Duration,
    ) -> Result<(), StoreError> {
        if self.config.purpose == Purpose::Writes || self.config.shards.is_empty() {
            return Ok(());
        }
        let shards = self.config.shards.clone();
        let known: Vec<_> = shards.clone().map(|shard| self.config.tracker.known(shard)).collect();
        let keys: Vec<Value> = shards
            .clone()
            .map(|shard| Value::Bytes(self.config.keys.shard(shard).epoch.clone()))
            .collect();
        let Value::Array(epochs) = connection.ask("MGET", keys, limit).await? else {
            return Err(unexpected_reply("redis"));
        };
        for ((shard, before), epoch) in shards.zip(&known).zip(&epochs) {
            // What it means for tokens is decided at each check; here it only has to be noticed.
            let _ = self.config.tracker.observe_value(
                EpochSource::Checks,
                shard,
                before.as_ref(),
                epoch.as_bytes(),
            );
        }
        Ok(())
    }

    /// Returns when the connection is not to be used any more, with the reason.
    async fn watch_over(&self, conn: &Conn) -> StoreError {
        let mut errors = conn.connection.errors();
        let mut lost = conn.lost.subscribe();
        let closed = async {
            // Only what happens after this line is told; what happened before shows in the task.
            while !conn.connection.has_ended() {
                match errors.recv().await {
                    Ok((error, _)) => return classify(&error),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                }
            }
            StoreError::new(StoreErrorKind::Unreachable, "the connection to redis was closed")
        };
        tokio::select! {
            lost = lost.wait_for(Option::is_some) => {
                lost.ok().and_then(|lost| lost.clone()).unwrap_or_else(replaced)
            }
            error = closed => error,
            error = self.keep_asking(&conn.connection) => error,
            error = self.follow_sentinels(&conn.connection) => error,
        }
    }

    async fn keep_asking(&self, connection: &Connection) -> StoreError {
        let mut unanswered = 0;
        sleep(PROBE_EVERY.mul_f64(random::fraction())).await;
        loop {
            match self.probe(connection, self.config.limit).await {
                Ok(()) => unanswered = 0,
                Err(error) if error.kind() == StoreErrorKind::Timeout && unanswered == 0 => {
                    unanswered += 1;
                }
                Err(error) => return error,
            }
            sleep(if unanswered == 0 { PROBE_EVERY } else { PROBE_AGAIN }).await;
        }
    }

    /// A primary that is cut off from its sentinels does not know that it has been replaced. (One
    /// that is cut off from its cluster stops by itself.)
    async fn follow_sentinels(&self, connection: &Connection) -> StoreError {
        if !self.config.topology.has_sentinels() {
            return pending().await;
        }
        loop {
            sleep(FIND_EVERY.mul_f64(0.5 + random::fraction())).await;
            // If no sentinel answers, there is no reason to believe that anything has changed.
            if let Ok(server) = self.config.topology.find(self.config.slot).await
                && server != connection.server
            {
                return StoreError::new(
                    StoreErrorKind::NotPrimary,
                    "the sentinels name another primary",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::topology::{Topology, parse_url};
    use super::*;

    #[tokio::test]
    async fn a_connection_ends_with_its_keeper() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let connection = SupervisedConnection::start(SupervisionConfig {
            purpose: Purpose::Checks,
            topology: Arc::new(Topology::new(parse_url(&url).unwrap()).unwrap()),
            keys: Arc::new(RedisKeys::new("p", 1)),
            tracker: Arc::new(EpochTracker::new(1, Duration::from_secs(1))),
            slot: 0,
            shards: 0..1,
            limit: Duration::from_secs(1),
            in_flight: 1,
            health_tx: Arc::default(),
        });
        let problem = || connection.acquire().err().map(|error| error.to_string());
        assert_eq!(problem().unwrap(), "not connected to redis yet");
        tokio::task::yield_now().await;
        connection.keeper.abort();
        while !connection.keeper.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            problem().unwrap(),
            "the task that watches over the connection to redis has ended"
        );
    }
}
