//! The task that connects, watches the connection, and connects again.

use std::future::pending;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use fred::types::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::connection::{
    CONNECT_TIMEOUT, Connection, ServerAddress, classify, unexpected_reply,
};
use super::super::epoch::{EpochSource, ReadFrom};
use super::super::health::Purpose;
use super::super::log_check::check_log;
use super::super::random;
use super::super::time_limit::MOST_STALLED;
use super::{ConnectionState, CurrentConnection, Supervision, given_up_early};
use crate::clock::BootTime;
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// How often the connection is probed; also how late a loss of data is noticed without traffic.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// How soon it is probed again after a probe that was not answered.
const PROBE_RETRY: Duration = Duration::from_millis(25);
/// How long checks wait for the connection that replaces one that was lost, if they have the time.
const REPLACING_MOST: Duration = Duration::from_secs(1);
/// The pause before the next attempt doubles from this meanwhile.
const REPLACING_PAUSE: Duration = Duration::from_millis(5);
/// The pause before the next attempt to connect doubles between these.
const BACKOFF: Range<Duration> = Duration::from_millis(25)..Duration::from_secs(1);
/// A connection that was up for so long resets the pause.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Connections that were up for less count as failures, up to this number: a pause of 200 ms.
const UNSTABLE_FAILURES: u32 = 3;

/// Runs until it is aborted.
pub(super) async fn supervise(supervision: Arc<Supervision>) {
    let guard = DownOnDrop(supervision);
    guard.0.run().await;
}

/// However the task ends, by a panic too: without supervision a connection must not be used.
struct DownOnDrop(Arc<Supervision>);

impl Drop for DownOnDrop {
    fn drop(&mut self) {
        let ended = "the task that supervises the connection to redis has ended";
        let error = StoreError::new(StoreErrorKind::Unreachable, ended);
        if std::thread::panicking() {
            tracing::error!(purpose = ?self.0.config.purpose, error = %error.chain(),
                "redis cannot be used until the program is restarted");
            self.0.report(Some(&error));
        }
        let down = Arc::new(ConnectionState::Down(error.clone()));
        let was = self.0.state.swap(down);
        self.0.changes.send_replace(());
        if let ConnectionState::Up(current) | ConnectionState::Unproved(current, _) = &*was {
            current.given_up.send_replace(Some(error));
            current.connection.close();
        }
    }
}

impl Supervision {
    /// Never returns.
    async fn run(&self) {
        let mut failures = 0;
        // While a connection that was lost is being replaced: until when, and the next pause.
        let mut replacing: Option<(Instant, Duration)> = None;
        // Whether the present outage is in the log.
        let mut is_logged = false;
        let mut was_up = false;
        loop {
            match self.connect_or_give_up(&mut replacing, &mut is_logged).await {
                Ok(connection) => {
                    replacing = None;
                    // Down → up.
                    let server = ServerAddress(&connection.server).to_string();
                    let id = connection.server_id().clone();
                    let current = Arc::new(CurrentConnection {
                        connection,
                        up_since: Instant::now(),
                        timeouts: AtomicU32::new(0),
                        given_up: watch::Sender::new(None),
                    });
                    self.set_state(ConnectionState::Up(Arc::clone(&current)));
                    tracing::info!(purpose = ?self.config.purpose, server, %id,
                        "connected to redis");
                    self.report(None);
                    is_logged = false;
                    if was_up {
                        self.config.activity.count_reconnect(self.config.purpose);
                    }
                    was_up = true;
                    let error = self.watch(&current).await;
                    let is_stable = current.up_since.elapsed() >= STABLE_AFTER;
                    self.give_up(&current, &error);
                    current.connection.close();
                    if is_stable {
                        failures = 0;
                    }
                    if self.is_replacing(&current) {
                        tracing::info!(purpose = ?self.config.purpose, error = %error.chain(),
                            "the connection to redis was lost; connecting anew");
                        let most = self.config.limit.min(REPLACING_MOST);
                        replacing = Some((Instant::now() + most, REPLACING_PAUSE));
                        continue;
                    }
                    self.report_outage(&error, &mut is_logged);
                    if is_stable {
                        continue;
                    }
                    // A server that answers probes but no checks must not get a storm of
                    // connections.
                    failures = (failures + 1).min(UNSTABLE_FAILURES);
                }
                Err(error) => {
                    if let Some((until, pause)) = &mut replacing
                        && error.kind() == StoreErrorKind::Unreachable
                        && Instant::now() + *pause < *until
                    {
                        sleep(*pause).await;
                        *pause *= 2;
                        continue;
                    }
                    replacing = None;
                    self.set_state(ConnectionState::Down(error.clone()));
                    self.report_outage(&error, &mut is_logged);
                    failures += 1;
                }
            }
            // Jitter, so that a thousand processes do not all come back in one instant.
            let pause = BACKOFF.start.saturating_mul(1 << failures.min(10)).min(BACKOFF.end);
            sleep(pause.mul_f64(0.5 + random::fraction() / 2.0)).await;
        }
    }

    /// Connects. If a connection is not replaced in time, it is down meanwhile.
    async fn connect_or_give_up(
        &self,
        replacing: &mut Option<(Instant, Duration)>,
        is_logged: &mut bool,
    ) -> Result<Connection, StoreError> {
        let mut connecting = pin!(self.connect());
        let Some((until, _)) = *replacing else { return connecting.await };
        if let Ok(connected) = timeout_at(until, &mut connecting).await {
            return connected;
        }
        *replacing = None;
        let late = "the connection to redis was lost, and the next one could not be made in time";
        let error = StoreError::new(StoreErrorKind::Unreachable, late);
        self.set_state(ConnectionState::Down(error.clone()));
        self.report_outage(&error, is_logged);
        connecting.await
    }

    /// Publishes the outage, and logs it once.
    fn report_outage(&self, error: &StoreError, is_logged: &mut bool) {
        self.report(Some(error));
        if !*is_logged {
            tracing::warn!(purpose = ?self.config.purpose, error = %error.chain(),
                "redis cannot be used; trying until it can");
            *is_logged = true;
        }
    }

    fn report(&self, error: Option<&StoreError>) {
        let (purpose, shards) = (self.config.purpose, &self.config.shards);
        self.config.health_tx.send_modify(|health| health.record(purpose, shards, error));
    }

    /// A connection to a server that has not said that it is a replica, and still has what was
    /// known.
    async fn connect(&self) -> Result<Connection, StoreError> {
        let command_timeout = match self.config.purpose {
            // Each batch of checks has a limit of its own, after which nobody waits for it.
            Purpose::Checks => Duration::ZERO,
            // Longer than anybody waits, however long this process stands still.
            Purpose::Writes => self.config.limit.max(CONNECT_TIMEOUT) + MOST_STALLED * 2,
        };
        let topology = &self.config.topology;
        let primary = topology.primary(self.config.slot).await?;
        let connection = topology.connect(primary, command_timeout).await?;
        let limit = self.config.limit.max(Duration::from_millis(50));
        self.role.reset();
        self.check_role(&connection, limit).await?;
        topology.confirm(self.config.slot, &connection).await?;
        // Before an epoch is read over this connection: it would replace what is to be compared.
        let shards = self.config.shards.clone();
        check_log(topology, &connection, &self.config.keys, &self.config.tracker, shards).await?;
        self.read_epochs(&connection, limit).await?;
        Ok(connection)
    }

    /// Asks for the role, and reads the epochs, so that a loss of data is noticed without traffic.
    async fn probe(&self, connection: &Connection, limit: Duration) -> Result<(), StoreError> {
        self.check_role(connection, limit).await?;
        self.read_epochs(connection, limit).await
    }

    async fn check_role(&self, connection: &Connection, limit: Duration) -> Result<(), StoreError> {
        // A connection for keys of other programs has no shards, and the server may have the slot
        // of none.
        let shards = &self.config.shards;
        let trial = (!shards.is_empty()).then(|| &self.config.keys.shard(shards.start).trial);
        self.role.check(connection, trial, limit).await
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
        let tracker = &self.config.tracker;
        let known: Vec<_> = shards.clone().map(|shard| tracker.known(shard)).collect();
        let keys: Vec<Value> = shards
            .clone()
            .map(|shard| Value::Bytes(self.config.keys.shard(shard).epoch.clone()))
            .collect();
        // A single key, where slots can be moved: in a cluster each shard has its own connection.
        let asked_at = Instant::now();
        let asked = self.config.topology.command_for_key(connection, "MGET", keys, limit);
        let Value::Array(values) = asked.await? else { return Err(unexpected_reply("redis")) };
        let server = connection.server_id().tag();
        let from = ReadFrom { source: EpochSource::Checks, server };
        for ((shard, before), value) in shards.zip(&known).zip(&values) {
            // What it means for tokens is decided at each check; here a loss only has to be
            // noticed.
            let observed = tracker.observe_value(from, shard, before.as_ref(), value.as_bytes());
            if observed.is_ok_and(|doubt| doubt != Doubt::Settling) {
                tracker.note_kept(shard, asked_at);
            }
        }
        Ok(())
    }

    /// Returns when the connection is not to be used any more, with the reason.
    async fn watch(&self, current: &Arc<CurrentConnection>) -> StoreError {
        let connection = &current.connection;
        let mut errors = connection.errors();
        let mut given_up = current.given_up.subscribe();
        let closed = async {
            // The receiver gets what happens from now on; what happened before shows in the task of
            // the client.
            while !connection.is_closed() {
                match errors.recv().await {
                    Ok((error, _)) => return classify(&error),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                }
            }
            StoreError::new(StoreErrorKind::Unreachable, "the connection to redis was closed")
        };
        tokio::select! {
            reason = given_up.wait_for(Option::is_some) => {
                reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(given_up_early)
            }
            error = closed => error,
            error = self.probe_regularly(connection) => error,
            error = self.watch_proofs(current) => error,
        }
    }

    async fn probe_regularly(&self, connection: &Connection) -> StoreError {
        let mut unanswered = 0;
        sleep(PROBE_INTERVAL.mul_f64(random::fraction())).await;
        loop {
            match self.probe(connection, self.config.limit).await {
                Ok(()) => unanswered = 0,
                // What is answered now proves nothing, and what was closed shows by itself.
                Err(_) if connection.lease().is_over(BootTime::now()) => unanswered = 0,
                // This process stood still.
                Err(error) if error.kind() == StoreErrorKind::Overloaded => {}
                Err(error) if error.kind() == StoreErrorKind::Timeout && unanswered == 0 => {
                    unanswered += 1;
                }
                Err(error) => return error,
            }
            sleep(if unanswered == 0 { PROBE_INTERVAL } else { PROBE_RETRY }).await;
        }
    }

    /// Watches whether the server is still proved to be the primary, and returns when another one
    /// is. One that is cut off from its sentinels does not know that it has been replaced.
    async fn watch_proofs(&self, current: &Arc<CurrentConnection>) -> StoreError {
        let topology = &self.config.topology;
        let Some(mut proofs) = topology.follow(self.config.slot) else {
            return pending().await;
        };
        let connection = &current.connection;
        // Why it is not proved, as it was told.
        let mut told: Option<StoreErrorKind> = None;
        loop {
            let is_replaced = match &*proofs.borrow_and_update() {
                Some(primary) => !primary.leads_to(connection),
                None => false,
            };
            if is_replaced {
                return StoreError::new(
                    StoreErrorKind::NotPrimary,
                    "another server is proved to be the primary",
                );
            }
            let left = connection.lease().left(BootTime::now());
            let is_proved = !left.is_zero();
            let why_not = (!is_proved).then(|| topology.why_not_proved(self.config.slot));
            let kind = why_not.as_ref().map(StoreError::kind);
            // Once this process runs again, it may turn out that it was not for that.
            if told != kind {
                told = kind;
                self.set_proof(current, why_not.as_ref());
                self.report(why_not.as_ref());
                if let Some(error) = why_not {
                    tracing::warn!(purpose = ?self.config.purpose, error = %error.chain(),
                        "redis cannot be used until it is proved again that it is the primary");
                } else {
                    tracing::info!(purpose = ?self.config.purpose,
                        "it is proved again that redis is the primary");
                }
            }
            let over = async { if is_proved { sleep(left).await } else { pending().await } };
            tokio::select! {
                changed = proofs.changed() => {
                    if changed.is_err() {
                        return given_up_early();
                    }
                }
                () = over => {}
            }
        }
    }
}
