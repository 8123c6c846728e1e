//! [`SupervisedConnection`]: every question is answered in time, whatever Redis and fred do.
//!
//! There is one connection at a time, and a task that supervises it (`supervise`):
//!
//! ```text
//!            connected, and the server is proved to be the primary
//!   down ────────────────────────────────────────────▶ up
//!    ▲ ▲ ▲  no next one in time             closed     │ │▲
//!    │ │ └─────────────────────── replacing ◀──────────┤ ││
//!    │ └───────────────────────────────────────────────┘ ││
//!    │   5 timeouts in a row · 2 probes unanswered ·     ││
//!    │   not a primary any more · another is proved      ││
//!    │   to be the primary                               ││ proved again
//!    │                                  the lease is over▼│
//!    └─────────────────────────────────────────────── unproved
//! ```
//!
//! | state | what a question gets | what the task does |
//! | --- | --- | --- |
//! | down | an error at once, with the reason | connects to the primary, at once after a good connection, then with pauses from 25 ms to 1 s |
//! | replacing | a check waits for the next connection within its limit; else an error at once | connects at once, for the limit of a check and a second at most |
//! | up | a [`Permit`], and an answer within its limit | probes twice a second: its role, and the epochs |
//! | unproved | an error at once, with the voters that do not name the server, or do not answer | waits for a proof |
//!
//! Behind sentinels and in a cluster a proof is good for a second (`lease`). Whatever the state,
//! the lease is looked at again when an answer is read, and so is how old the answer is: the task
//! may be late, as after a suspension of the process.
//!
//! A connection that was lost after it had been good for [`GOOD_AFTER`] is *replaced*: the next one
//! is made at once, and until it is there, for a second at most, checks wait for it within their
//! limit. Those that were under way are asked again over it. Writes are sent again by those who
//! send them; see `command`. Only if it cannot be made in time is the connection down.
//!
//! A connection that was given up is never used again: the next one is a new client, which has
//! answered a probe before the first question. So an answer that comes late reaches nobody.

mod moving;
mod supervise;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use fred::interfaces::ClientLike as _;
use fred::types::config::ServerConfig;
use fred::types::{CustomCommand, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::activity::StoreActivity;
use super::connection::{Connection, classify, code_of, unexpected_reply};
use super::epoch::EpochTracker;
use super::health::{Health, Purpose};
use super::lease::AnswerLimit;
use super::role::{RoleProbe, RoleSource};
use super::schema::RedisKeys;
use super::server_id::ServerId;
use super::time_limit::{Late, TimeLimit};
use super::topology::Topology;
use crate::store::{StoreError, StoreErrorKind};

/// After so many timeouts in a row the connection is given up.
const MAX_TIMEOUTS: u32 = 5;
/// So many open questions are many, and so is half of those that are allowed. Then further ones
/// look for one to join, which costs a hash and a place in a table; and a shorter stall makes what
/// is late our own fault.
const MANY: usize = 64;
/// A connection that is lost after so long is replaced at once. Those that are lost earlier must
/// not become a storm of connections.
const GOOD_AFTER: Duration = Duration::from_millis(50);

/// What a supervised connection is for, and what it may do.
pub(crate) struct SupervisionConfig {
    pub(crate) purpose: Purpose,
    pub(crate) topology: Arc<Topology>,
    pub(crate) keys: Arc<RedisKeys>,
    pub(crate) tracker: Arc<EpochTracker>,
    /// The hash slot by which the primary is found in a cluster.
    pub(crate) slot: u16,
    /// The shards behind it; none, if it is for keys of other programs.
    pub(crate) shards: Range<u16>,
    /// How long one answer may take.
    pub(crate) limit: Duration,
    /// How many questions may be open.
    pub(crate) in_flight: usize,
    pub(crate) health_tx: Arc<watch::Sender<Health>>,
    pub(crate) activity: Arc<StoreActivity>,
}

/// A connection that is watched and replaced by a task, which ends with it.
pub(crate) struct SupervisedConnection {
    shared: Arc<Supervision>,
    task: JoinHandle<()>,
}

/// What the task shares with those who ask.
struct Supervision {
    config: SupervisionConfig,
    role: RoleProbe,
    state: ArcSwap<ConnectionState>,
    /// Told of every change of the state but those by a proof.
    changes: watch::Sender<()>,
    permits: Arc<Semaphore>,
}

enum ConnectionState {
    Up(Arc<CurrentConnection>),
    /// A good connection was lost, and the next one is being made.
    Replacing(Arc<CurrentConnection>, StoreError),
    /// It is not proved that the server is still the primary.
    Unproved(Arc<CurrentConnection>, StoreError),
    Down(StoreError),
}

impl ConnectionState {
    fn is_of(&self, connection: &Arc<CurrentConnection>) -> bool {
        match self {
            Self::Up(current) | Self::Unproved(current, _) => Arc::ptr_eq(current, connection),
            Self::Replacing(..) | Self::Down(_) => false,
        }
    }
}

struct CurrentConnection {
    connection: Connection,
    up_since: Instant,
    /// Timeouts since the last answer.
    timeouts: AtomicU32,
    /// Why the connection was given up.
    given_up: watch::Sender<Option<StoreError>>,
}

impl SupervisedConnection {
    /// Starts to connect, in the background.
    pub(crate) fn start(config: SupervisionConfig) -> Self {
        let permits = Arc::new(Semaphore::new(config.in_flight));
        let starting = StoreError::new(StoreErrorKind::Unreachable, "not connected to redis yet");
        let state = ArcSwap::from_pointee(ConnectionState::Down(starting));
        let (role, changes) = (RoleProbe::default(), watch::Sender::new(()));
        let shared = Arc::new(Supervision { config, role, state, changes, permits });
        let task = tokio::spawn(supervise::supervise(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// The right to ask one question; an error at once if it could not be answered.
    pub(crate) fn acquire(&self) -> Result<Permit, StoreError> {
        self.permit(self.shared.pin()?)
    }

    /// The same, also while the connection is being replaced. Then the first question gets an
    /// error, after which [`Permit::next_connection`] waits for the next one.
    pub(crate) fn acquire_patiently(&self) -> Result<Permit, StoreError> {
        self.permit(self.shared.pin_patiently()?)
    }

    /// The same as [`Permit::next_connection`], for a question that was sent by somebody else.
    ///
    /// # Errors
    /// The error that was given, if asking again does not help or there is no time for it.
    pub(crate) async fn next_connection(
        &self,
        error: StoreError,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        if error.kind() != StoreErrorKind::Unreachable || Instant::now() >= deadline {
            return Err(error);
        }
        match timeout_at(deadline, self.shared.replaced()).await {
            Ok(next) => next.map(drop),
            Err(_) => Err(error),
        }
    }

    fn permit(&self, connection: PinnedConnection) -> Result<Permit, StoreError> {
        let permit = Arc::clone(&self.shared.permits).try_acquire_owned().map_err(|_| {
            StoreError::new(
                StoreErrorKind::Overloaded,
                "as many questions to redis are open as are allowed",
            )
        })?;
        Ok(Permit { connection, _permit: permit })
    }

    /// Whether so many questions are open that it pays to look for one to join.
    pub(crate) fn is_crowded(&self) -> bool {
        self.shared.is_crowded()
    }

    /// A limit from now on.
    pub(crate) fn time_limit(&self, limit: Duration) -> TimeLimit {
        self.shared.time_limit(limit)
    }

    /// The error of a question that was put for the caller, and not answered in time.
    pub(crate) fn late_error(&self, late: Late, limit: &mut TimeLimit) -> StoreError {
        self.shared.why_late(late, limit).error()
    }

    /// By what it is known that the server is a primary.
    pub(crate) fn role_source(&self) -> RoleSource {
        self.shared.role.source()
    }

    /// For a task that asks on behalf of others, who have the permits.
    pub(crate) fn handle(&self) -> ConnectionHandle {
        ConnectionHandle(Arc::clone(&self.shared))
    }
}

impl Drop for SupervisedConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives the connection of each moment, without a permit. It does not keep the supervision going.
pub(crate) struct ConnectionHandle(Arc<Supervision>);

impl ConnectionHandle {
    /// The connection of this moment; an error at once if there is none.
    pub(crate) fn pin(&self) -> Result<PinnedConnection, StoreError> {
        self.0.pin()
    }
}

// === One question ===

/// The right to ask one question on one connection.
pub(crate) struct Permit {
    connection: PinnedConnection,
    _permit: OwnedSemaphorePermit,
}

/// One connection, also after it was given up: then it answers with the reason.
pub(crate) struct PinnedConnection {
    shared: Arc<Supervision>,
    current: Arc<CurrentConnection>,
}

impl Permit {
    /// The server at the other end of the connection.
    pub(crate) fn server(&self) -> &ServerConfig {
        &self.connection.current.connection.server
    }

    /// Which server that is.
    pub(crate) fn server_id(&self) -> &ServerId {
        self.connection.server_id()
    }

    pub(crate) fn connection(&self) -> &PinnedConnection {
        &self.connection
    }

    /// After an error: waits for the next connection, if this one was lost and is being replaced.
    /// Then a question that changes nothing may be asked again.
    ///
    /// # Errors
    /// The error that was given, if asking again does not help or there is no time for it.
    pub(crate) async fn next_connection(
        &mut self,
        error: StoreError,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let PinnedConnection { shared, current } = &self.connection;
        if error.kind() != StoreErrorKind::Unreachable || shared.is_current(current) {
            return Err(error);
        }
        match timeout_at(deadline, shared.replaced()).await {
            Ok(next) => self.connection = next?,
            Err(_) => return Err(error),
        }
        Ok(())
    }

    /// Sends any command. Ends early, with an error, if the connection is given up meanwhile.
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
        let client = &self.connection.current.connection.client;
        let believed = self.connection.current.connection.lease().with_wait(wait);
        let answer =
            self.connection.answer(client.custom::<Value, _>(command, arguments), believed);
        let mut limit = self.connection.time_limit(limit);
        match limit.wait(answer).await {
            Ok(answer) => answer.map_err(|error| limit.blame(error)),
            Err(late) => Err(self.connection.note_late(self.connection.why_late(late, &mut limit))),
        }
    }
}

impl PinnedConnection {
    /// Which server is at the other end.
    pub(crate) fn server_id(&self) -> &ServerId {
        self.current.connection.server_id()
    }

    /// Has it asked whether that server stays the primary.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotPrimary`] if it is being replaced, or was.
    pub(crate) async fn confirm_stays(&self) -> Result<(), StoreError> {
        let config = &self.shared.config;
        config.topology.confirm_stays(config.slot, &self.current.connection).await
    }

    /// The values of keys that are on one node. The caller says how long to wait, and calls
    /// [`note_late`](Self::note_late) after it.
    pub(crate) async fn mget(&self, keys: Vec<Value>) -> Result<Vec<Value>, StoreError> {
        let count = keys.len();
        // `mget` of fred looks at each key several times before it sends it.
        let command = CustomCommand::new_static("MGET", None::<u16>, false);
        // In a box, because it is large and would be moved several times.
        let reply = Box::pin(self.current.connection.client.custom::<Value, _>(command, keys));
        let believed = self.current.connection.lease().as_it_stands();
        match self.answer(reply, believed).await? {
            Value::Array(values) if values.len() == count => Ok(values),
            _ => Err(unexpected_reply("redis")),
        }
    }

    /// The answer to a question; an error as soon as the connection is given up, which fred may not
    /// report.
    async fn answer(
        &self,
        reply: impl Future<Output = Result<Value, fred::error::Error>>,
        believed: AnswerLimit,
    ) -> Result<Value, StoreError> {
        let mut given_up = self.current.given_up.subscribe();
        tokio::select! {
            reply = reply => self.assess(reply, believed),
            reason = given_up.wait_for(Option::is_some) => {
                Err(to_others(reason.ok().and_then(|reason| reason.clone())))
            }
        }
    }

    /// Assesses the connection by the reply, and the reply by the connection.
    fn assess<T>(
        &self,
        reply: Result<T, fred::error::Error>,
        believed: AnswerLimit,
    ) -> Result<T, StoreError> {
        match reply {
            Ok(value) => {
                if self.current.timeouts.load(Ordering::Relaxed) != 0 {
                    self.current.timeouts.store(0, Ordering::Relaxed);
                }
                let believed = self.current.connection.lease().check(believed);
                believed.map_err(|error| self.shared.config.topology.blame(error))?;
                // An answer of a primary that has been replaced meanwhile proves nothing.
                if self.shared.is_current(&self.current) {
                    Ok(value)
                } else {
                    Err(given_up_early())
                }
            }
            Err(error) if *error.kind() == fred::error::ErrorKind::Timeout => {
                Err(self.count_timeout())
            }
            // The connection was given up, which cancels what is under way. The reason says more
            // than the error of fred.
            Err(_) if !self.shared.is_current(&self.current) => {
                Err(to_others(self.current.given_up.borrow().clone()))
            }
            Err(error) => {
                let failure = classify(&error);
                if is_fatal(&error, &failure) {
                    self.shared.give_up(&self.current, &failure);
                }
                Err(failure)
            }
        }
    }

    /// A limit from now on.
    pub(crate) fn time_limit(&self, limit: Duration) -> TimeLimit {
        self.shared.time_limit(limit)
    }

    /// Why a question was not answered in time, as seen with all that are open.
    pub(crate) fn why_late(&self, late: Late, limit: &mut TimeLimit) -> Late {
        self.shared.why_late(late, limit)
    }

    /// Takes note of a question that was not answered in time.
    pub(crate) fn note_late(&self, late: Late) -> StoreError {
        match late {
            Late::Unanswered => self.count_timeout(),
            Late::Stalled => late.error(),
        }
    }

    fn count_timeout(&self) -> StoreError {
        if self.current.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_TIMEOUTS {
            let hung = "redis did not answer several times in a row";
            self.shared.give_up(&self.current, &StoreError::new(StoreErrorKind::Timeout, hung));
        }
        Late::Unanswered.error()
    }
}

fn given_up_early() -> StoreError {
    StoreError::new(
        StoreErrorKind::Unreachable,
        "the connection was given up before the answer came",
    )
}

/// The reason why a connection was given up, as it is told to questions that were under way.
///
/// It may be the answer of redis to another question. So its code is no code here, by which it
/// would be known that a write was refused and not done; and its words may quote what the other one
/// was about.
fn to_others(reason: Option<StoreError>) -> StoreError {
    let Some(reason) = reason else { return given_up_early() };
    let Some(source) = reason.told().and_then(|told| told.downcast_ref::<fred::error::Error>())
    else {
        return reason;
    };
    // What the operating system says of a connection is about nothing else.
    if *source.kind() == fred::error::ErrorKind::IO {
        return reason.without_told();
    }
    let code = code_of(source.details());
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
    let code = if is_code { code } else { "with an error" };
    let detail = format!("redis: the connection was given up, as the server answered {code}");
    reason.without_told().with_detail(detail)
}

/// Whether an error says that the *connection*, or the server behind it, must not be used any more.
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

impl CurrentConnection {
    fn is_good(&self) -> bool {
        self.up_since.elapsed() >= GOOD_AFTER
    }
}

impl Supervision {
    fn is_crowded(&self) -> bool {
        let open = self.config.in_flight.saturating_sub(self.permits.available_permits());
        open >= MANY.min(self.config.in_flight / 2).max(1)
    }

    fn time_limit(&self, limit: Duration) -> TimeLimit {
        let mut limit = TimeLimit::start(limit);
        limit.note_load(self.is_crowded());
        limit
    }

    fn why_late(&self, late: Late, limit: &mut TimeLimit) -> Late {
        limit.note_load(self.is_crowded());
        limit.why_late(late)
    }

    /// The connection that is up, or why there is none.
    fn pin(self: &Arc<Self>) -> Result<PinnedConnection, StoreError> {
        match &**self.state.load() {
            ConnectionState::Up(current) => {
                Ok(PinnedConnection { shared: Arc::clone(self), current: Arc::clone(current) })
            }
            ConnectionState::Replacing(_, error)
            | ConnectionState::Unproved(_, error)
            | ConnectionState::Down(error) => Err(error.clone()),
        }
    }

    /// The same, and the connection that was lost while the next one is being made.
    fn pin_patiently(self: &Arc<Self>) -> Result<PinnedConnection, StoreError> {
        if let ConnectionState::Replacing(lost, _) = &**self.state.load() {
            return Ok(PinnedConnection { shared: Arc::clone(self), current: Arc::clone(lost) });
        }
        self.pin()
    }

    /// Waits while the connection is being replaced.
    async fn replaced(self: &Arc<Self>) -> Result<PinnedConnection, StoreError> {
        let mut changes = self.changes.subscribe();
        while let ConnectionState::Replacing(..) = &**self.state.load() {
            // The sender is in `self`.
            let _ = changes.changed().await;
        }
        self.pin()
    }

    fn set_state(&self, state: ConnectionState) {
        self.state.store(Arc::new(state));
        self.changes.send_replace(());
    }

    fn is_current(&self, connection: &Arc<CurrentConnection>) -> bool {
        self.state.load().is_of(connection)
    }

    /// Up or unproved → down, or being replaced, if this connection is still the current one: from
    /// now on questions get this error, and the task connects anew.
    fn give_up(&self, connection: &Arc<CurrentConnection>, error: &StoreError) {
        let is_lost = error.kind() == StoreErrorKind::Unreachable && connection.is_good();
        let next = || {
            if is_lost {
                ConnectionState::Replacing(Arc::clone(connection), error.clone())
            } else {
                ConnectionState::Down(error.clone())
            }
        };
        if self.replace(connection, next) {
            self.changes.send_replace(());
            connection.given_up.send_replace(Some(error.clone()));
        }
    }

    /// Whether this connection was lost, and the next one is being made.
    fn is_replacing(&self, connection: &Arc<CurrentConnection>) -> bool {
        match &**self.state.load() {
            ConnectionState::Replacing(lost, _) => Arc::ptr_eq(lost, connection),
            _ => false,
        }
    }

    /// Up → unproved, if there is a reason; unproved → up, if there is none.
    fn set_proof(&self, connection: &Arc<CurrentConnection>, why_not: Option<&StoreError>) {
        self.replace(connection, || match why_not {
            Some(error) => ConnectionState::Unproved(Arc::clone(connection), error.clone()),
            None => ConnectionState::Up(Arc::clone(connection)),
        });
    }

    /// The next state, if this connection is still the current one. Says whether it was.
    fn replace(
        &self,
        connection: &Arc<CurrentConnection>,
        next: impl Fn() -> ConnectionState,
    ) -> bool {
        let was = self.state.rcu(|state| {
            if state.is_of(connection) { Arc::new(next()) } else { Arc::clone(state) }
        });
        was.is_of(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::{ConnectSettings, error_code, is_script_refused};
    use super::super::topology::Topology;
    use super::super::url::parse_url;
    use super::*;
    use crate::support::{RedisServer, redis_or_skip, wait_until};

    fn start(url: &str) -> SupervisedConnection {
        SupervisedConnection::start(SupervisionConfig {
            purpose: Purpose::Checks,
            topology: Arc::new(
                Topology::new(parse_url(url).unwrap(), ConnectSettings::default()).unwrap(),
            ),
            keys: Arc::new(RedisKeys::new("p", 1)),
            tracker: Arc::new(EpochTracker::new(1, Duration::from_secs(1))),
            slot: 0,
            shards: 0..1,
            limit: Duration::from_secs(10),
            in_flight: 2,
            health_tx: Arc::default(),
            activity: Arc::default(),
        })
    }

    /// Of a write that is under way when another question is refused nobody knows whether it was
    /// done.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_redis_answered_to_one_question_is_no_answer_to_another() {
        redis_or_skip!();
        let redis = RedisServer::start();
        for (answer, kind, words) in [
            ("READONLY of the secret", StoreErrorKind::NotPrimary, "answered READONLY"),
            ("MOVED 1 secret:7000", StoreErrorKind::Cluster, "answered MOVED"),
            ("odd secret", StoreErrorKind::Unreachable, "answered with an error"),
        ] {
            let connection = start(&redis.url());
            let mut changes = connection.shared.changes.subscribe();
            let permit = loop {
                match connection.acquire() {
                    Ok(permit) => break permit,
                    Err(_) => changes.changed().await.unwrap(),
                }
            };
            let current = Arc::clone(&permit.connection.current);
            let waiting = tokio::spawn(async move {
                let limit = Duration::from_secs(60);
                permit.command("BLPOP", vec!["nothing", "0"], limit).await
            });
            wait_until("it is under way", Duration::from_secs(30), || {
                redis.cli(&["INFO", "clients"]).contains("blocked_clients:1")
            });
            let answer = fred::error::Error::new(fred::error::ErrorKind::Unknown, answer);
            assert!(is_fatal(&answer, &classify(&answer)));
            connection.shared.give_up(&current, &classify(&answer));
            let error = waiting.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(error_code(&error), "", "{error}");
            assert!(!is_script_refused(&error) && error.told().is_none(), "{error}");
            let text = error.to_string();
            assert!(text.contains(words) && !text.contains("secret"), "{text}");
            drop((connection, current));
            wait_until("it is gone", Duration::from_secs(30), || {
                redis.cli(&["INFO", "clients"]).contains("blocked_clients:0")
            });
        }
    }

    #[tokio::test]
    async fn a_connection_is_given_up_when_its_supervision_ends() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = start(&format!("redis://{}", listener.local_addr().unwrap()));
        let problem = || connection.acquire().err().map(|error| error.to_string());
        assert_eq!(problem().unwrap(), "not connected to redis yet");
        tokio::task::yield_now().await;
        connection.task.abort();
        while !connection.task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            problem().unwrap(),
            "the task that supervises the connection to redis has ended"
        );
    }
}
