//! Commands over the connections for writes: sent again while the connection is down, until the
//! time for a write is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use tokio::time::{Instant, sleep};

use super::connection::{
    error_code, is_command_refused, is_script_refused, is_write_refused, unexpected_reply,
};
use super::core::StoreCore;
use super::epoch::KnownEpoch;
use super::schema::{LAYOUT, LAYOUT_REMEDY};
use super::script::{self, LuaScript, WriterContext};
use super::supervised::Permit;
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// How soon a command is sent again while its connection is down.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How soon while a server settles.
const SETTLING_PAUSE: Duration = Duration::from_millis(50);

/// What is sent for a write or a look-up.
#[derive(Clone, Copy)]
pub(crate) enum StoreCommand {
    /// A script: by its hash, and by its text if Redis does not know the hash.
    Script(&'static LuaScript),
    /// A command of Redis that may be repeated.
    Plain(&'static str),
}

/// What is known at the moment in which a command is sent.
pub(crate) struct SendContext {
    /// Of the epoch of the shard.
    pub(crate) known: Option<Arc<KnownEpoch>>,
    /// The [tag](super::server_id::ServerId::tag) of the server to which it is sent.
    pub(crate) server: u64,
    /// As which writer it is sent.
    pub(crate) writer: WriterContext,
}

impl SendContext {
    /// # Errors
    /// [`StoreErrorKind::Settling`] if another server than this one would get the command.
    pub(crate) fn expect_server(&self, server: Option<u64>) -> Result<(), StoreError> {
        match server {
            Some(server) if server != self.server => Err(Doubt::Settling.error()),
            _ => Ok(()),
        }
    }
}

/// What came of a script.
pub(crate) struct ScriptResult<T> {
    pub(crate) value: T,
    /// How many replicas have confirmed it, if they were waited for.
    pub(crate) replicas: Option<u32>,
}

impl StoreCore {
    /// Sends a command for one shard. All that is sent here is safe to repeat.
    pub(crate) async fn send(
        &self,
        shard: u16,
        command: StoreCommand,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        let script = match command {
            StoreCommand::Script(script) => script,
            StoreCommand::Plain(_) => {
                let acquire = || self.write_connection(shard).acquire();
                return self.send_over(acquire, command, arguments).await;
            }
        };
        let sent = self.run(shard, script, |_| Ok(arguments.clone()), |_, value| Ok(value)).await;
        sent.map(|sent| sent.value)
    }

    /// The same over the connection for which `acquire` gives a permit at each attempt.
    pub(crate) async fn send_over(
        &self,
        acquire: impl Fn() -> Result<Permit, StoreError>,
        command: StoreCommand,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        let arguments = |_: &Permit| Ok(((), arguments.clone()));
        let sent = self.repeat(acquire, command, arguments, |(), value| Ok(value)).await;
        sent.map(|sent| sent.value)
    }

    /// Runs a script for one shard, with arguments that depend on what is known when it is sent.
    /// They are made for each attempt: a late attempt with the knowledge of the first could begin
    /// an epoch as if no data had been lost that this process knew of. `read` takes in the reply
    /// before replicas are waited for.
    pub(crate) async fn run<T>(
        &self,
        shard: u16,
        script: &'static LuaScript,
        arguments: impl Fn(&mut SendContext) -> Result<Vec<Bytes>, StoreError>,
        read: impl Fn(&SendContext, Value) -> Result<T, StoreError>,
    ) -> Result<ScriptResult<T>, StoreError> {
        let acquire = || self.write_connection(shard).acquire();
        let arguments = |permit: &Permit| {
            let known = self.tracker.known(shard);
            let (server, writer) = (permit.server_id().tag(), self.writers.renewing(shard));
            let mut context = SendContext { known, server, writer };
            let arguments = arguments(&mut context)?;
            Ok((context, arguments))
        };
        let sent =
            self.repeat(acquire, StoreCommand::Script(script), arguments, |context, value| {
                read(&context, value)
            });
        let sent = sent.await.map_err(|error| self.explain_layout(error));
        self.note_write(shard, script, sent.as_ref().err());
        sent
    }

    /// Says what to do if the script has found the layout of another version, or another number of
    /// shards.
    pub(crate) fn explain_layout(&self, error: StoreError) -> StoreError {
        if error_code(&error) != "LAYOUT" {
            return error;
        }
        let words = error.told().map(ToString::to_string).unwrap_or_default();
        let held = words.split_once("LAYOUT ").map_or(&*words, |(_, held)| held);
        let is_ours = held.starts_with(&format!("version {LAYOUT} "));
        let remedy = if is_ours {
            "set the same number in all programs, or another prefix"
        } else {
            LAYOUT_REMEDY
        };
        let detail = format!(
            "redis holds {held} under the prefix {}, this program uses version {LAYOUT} with {} \
             shards; {remedy}",
            self.options.prefix,
            self.keys.shards(),
        );
        error.with_detail(detail)
    }

    /// Takes note of a server that refuses writes, or takes them again. What a user may not write
    /// is no matter of the server.
    fn note_write(&self, shard: u16, script: &LuaScript, error: Option<&StoreError>) {
        let refusal = match error {
            Some(error) if error.kind() == StoreErrorKind::Denied => return,
            Some(error) if is_write_refused(error) => Some(error),
            // Another script may have had nothing to write.
            None if script.sha == script::SHA => None,
            _ => return,
        };
        let is_new = self.health_tx.send_if_modified(|health| health.record_write(shard, refusal));
        if is_new && let Some(error) = refusal {
            tracing::warn!(shard, error = %error.chain(),
                "redis refuses writes; tokens are checked, and revocations fail until it takes \
                writes again");
            // The maintenance task finds out when that is.
            self.tracker.maintenance_due.notify_one();
        } else if is_new {
            tracing::info!(shard, "redis takes writes again");
        }
    }

    /// Sends a command until it is answered, or the time for a write is over.
    async fn repeat<C, T>(
        &self,
        acquire: impl Fn() -> Result<Permit, StoreError>,
        command: StoreCommand,
        arguments: impl Fn(&Permit) -> Result<(C, Vec<Bytes>), StoreError>,
        read: impl Fn(C, Value) -> Result<T, StoreError>,
    ) -> Result<ScriptResult<T>, StoreError> {
        let deadline = Instant::now() + self.options.write_timeout;
        let mut is_cached = true;
        // Of an attempt whose answer was lost nobody knows what it has done.
        let mut may_be_written = false;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let prepared = acquire().and_then(|permit| Ok((arguments(&permit)?, permit)));
            let attempt = match prepared {
                Ok(((context, arguments), permit)) => {
                    let read = |value| read(context, value);
                    self.attempt(&permit, command, is_cached, arguments, limit, read).await
                }
                Err(error) => Err(error.unwritten(true)),
            };
            let error = match attempt {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            may_be_written |= !error.is_unwritten();
            let is_unknown_script = is_cached
                && matches!(command, StoreCommand::Script(_))
                && error_code(&error) == "NOSCRIPT";
            let pause = match error.kind() {
                StoreErrorKind::Unreachable
                | StoreErrorKind::Loading
                | StoreErrorKind::NotPrimary
                | StoreErrorKind::Cluster => Some(RETRY_PAUSE),
                StoreErrorKind::Settling => {
                    self.tracker.maintenance_due.notify_one();
                    Some(SETTLING_PAUSE)
                }
                _ => None,
            };
            if is_unknown_script {
                is_cached = false;
            } else if let Some(pause) = pause
                && Instant::now() + pause < deadline
            {
                sleep(pause).await;
            } else {
                return Err(error.unwritten(!may_be_written));
            }
        }
    }

    async fn attempt<T>(
        &self,
        permit: &Permit,
        command: StoreCommand,
        is_cached: bool,
        arguments: Vec<Bytes>,
        limit: Duration,
        read: impl FnOnce(Value) -> Result<T, StoreError>,
    ) -> Result<ScriptResult<T>, StoreError> {
        let script = match command {
            StoreCommand::Script(script) => script,
            StoreCommand::Plain(name) => {
                let arguments: Vec<_> = arguments.into_iter().map(Value::Bytes).collect();
                let again = arguments.clone();
                let reply = match permit.command(name, arguments, limit).await {
                    Err(error) => permit.command_while_moving(error, name, again, limit).await,
                    reply => reply,
                };
                return Ok(ScriptResult { value: read(reply?)?, replicas: None });
            }
        };
        let (name, text) =
            if is_cached { ("EVALSHA", script.sha) } else { ("EVAL", script.source) };
        let arguments = std::iter::once(Bytes::from_static(text.as_bytes())).chain(arguments);
        let reply = permit.command(name, arguments.map(Value::Bytes).collect(), limit).await;
        let reply = reply.map_err(|error| {
            let is_refused = is_script_refused(&error);
            error.unwritten(is_refused)
        })?;
        // What it confirms is in force, whatever becomes of the replicas.
        let value = read(reply)?;
        let replicas = if script.writes {
            let replicas = self.wait_for_replicas(permit, limit).await;
            replicas.map_err(|error| error.unwritten(false))?
        } else {
            None
        };
        Ok(ScriptResult { value, replicas })
    }

    /// `WAIT`: it has to be sent over the connection of the write.
    async fn wait_for_replicas(
        &self,
        permit: &Permit,
        limit: Duration,
    ) -> Result<Option<u32>, StoreError> {
        let Some(wait) = self.options.wait_replicas else { return Ok(None) };
        let millis = i64::try_from(wait.limit.as_millis()).unwrap_or(i64::MAX);
        let arguments = vec![Value::Integer(wait.replicas.get().into()), Value::Integer(millis)];
        let reply = permit.waiting_command("WAIT", arguments, wait.limit, limit).await;
        let reply = reply.map_err(|error| {
            if is_command_refused(&error) {
                let unknown = "the write is in force, and it cannot be known how many replicas \
                               have it: `WAIT` is refused";
                StoreError::new(StoreErrorKind::Replicas, unknown).with_source(error)
            } else {
                error
            }
        })?;
        let Value::Integer(reached) = reply else { return Err(unexpected_reply("redis")) };
        let reached = u32::try_from(reached).map_err(|_| unexpected_reply("redis"))?;
        if reached < wait.replicas.get() {
            return Err(StoreError::new(
                StoreErrorKind::Replicas,
                format!(
                    "only {reached} of {} replicas confirmed the write; it is in force and may be \
                     repeated",
                    wait.replicas
                ),
            ));
        }
        Ok(Some(reached))
    }
}

/// A task of this store did not end: the runtime is shutting down.
pub(crate) fn task_failed(error: tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Other, "the task of the write did not end").with_source(error)
}
