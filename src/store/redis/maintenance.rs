//! Opening a store, and the maintenance task that keeps its epochs in Redis.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::command::{RETRY_PAUSE, SendContext};
use super::connection::{error_code, is_write_refused};
use super::core::StoreCore;
use super::error::ConnectError;
use super::random;
use super::schema::LAYOUT_REMEDY;
use super::script::{self, WriterAction, WriterContext};
use super::write::{CHUNK, TouchReply};
use super::writers::{Confirmed, FoundServer, ReplayRun, SigningOff};
use crate::config::ConfigError;
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// How many shards are touched at once.
const SHARDS_AT_ONCE: usize = 64;
/// How often the expiry of keys without an end of their own is put off.
const TOUCH_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);
/// How long a process that ends without closing its store waits until its signing off is confirmed.
const SIGN_OFF_LIMIT: Duration = Duration::from_millis(500);
/// How long closing waits for a server that stays the primary.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How soon it tries again.
const CLOSE_PAUSE: Duration = Duration::from_millis(50);
/// How often a process renews that writes.
const RENEWAL: Duration = Duration::from_secs(1);
/// How often the script is run while a server settles.
const SETTLING_INTERVAL: Duration = Duration::from_millis(100);
/// How long the task pauses after each round: the first after one that succeeded; it doubles with
/// each that failed, up to the second. While an epoch is missing, every check notifies the task,
/// however often its script is refused.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

impl StoreCore {
    /// Waits until Redis can be read, begins the epochs and checks that the layout is that of this
    /// version. A server that refuses writes is good enough once the epochs have begun. `last` is
    /// set to the last failure.
    pub(crate) async fn open(
        &self,
        at_once: bool,
        last: &mut StoreError,
    ) -> Result<(), ConnectError> {
        let mut health = self.health_tx.subscribe();
        loop {
            let now = health.borrow_and_update().clone();
            if let Some(error) = now.connection_error() {
                *last = error.clone();
                // A password does not become right by waiting.
                if at_once || error.kind() == StoreErrorKind::Denied {
                    return Err(ConnectError::Store(last.clone()));
                }
            } else if now.is_connected() {
                break;
            }
            if health.changed().await.is_err() {
                return Err(ConnectError::Store(last.clone()));
            }
        }
        for shard in 0..self.keys.shards() {
            while let Err(error) = self.keep_epoch(shard).await {
                if error_code(&error) == "LAYOUT" {
                    return Err(self.wrong_layout(&error).into());
                }
                // Reading needs no write, once the epochs have begun. A right does not come by
                // waiting.
                let is_denied = error.kind() == StoreErrorKind::Denied;
                if is_write_refused(&error) && (is_denied || self.tracker.known(shard).is_some()) {
                    // The others are in the log already.
                    if is_denied {
                        self.warn_of_refusal(&error);
                    }
                    break;
                }
                if at_once {
                    return Err(ConnectError::Store(error));
                }
                *last = error;
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }

    /// The store is opened, although Redis refuses writes.
    pub(crate) fn warn_of_refusal(&self, error: &StoreError) {
        if (0..self.keys.shards()).all(|shard| self.tracker.known(shard).is_some()) {
            tracing::warn!(error = %error.chain(),
                "redis refuses writes; tokens are checked, and revocations of this process fail");
        } else {
            tracing::warn!(error = %error.chain(),
                "redis refuses writes, and holds no epoch yet: until one has begun, no token can \
                be checked, and the fail mode decides");
        }
    }

    fn wrong_layout(&self, error: &StoreError) -> ConfigError {
        let error = self.explain_layout(error.clone());
        let problem = error.to_string();
        let is_version = problem.contains(LAYOUT_REMEDY);
        ConfigError::new(if is_version { "prefix" } else { "shards" }, problem)
    }

    /// Runs the script without changes, and lets the server have what this process has confirmed
    /// and it does not have. Says whether it still settles.
    async fn keep_epoch(&self, shard: u16) -> Result<bool, StoreError> {
        let signing_off = self.writers.prune(shard);
        let writer = signing_off.as_ref().map(|signing_off| signing_off.writer);
        let writer = writer.unwrap_or_else(|| self.writers.renewing(shard));
        let asked_at = Instant::now();
        let reply = self.touch(shard, None, writer).await?;
        if let Some(signing_off) = signing_off
            && reply.server == signing_off.server
        {
            self.writers.signed_off(shard, &signing_off);
        }
        if self.writers.is_through(shard, reply.server, reply.epoch.id, asked_at) {
            return Ok(reply.epoch.settling.is_some());
        }
        self.recover(shard, &reply).await
    }

    /// Replays to this server what it does not have.
    async fn recover(&self, shard: u16, found: &TouchReply) -> Result<bool, StoreError> {
        let (server, epoch) = (found.server, found.epoch);
        let place = FoundServer { server, epoch: epoch.id, parent: epoch.parent, had: found.had };
        let Some(recovery) = self.writers.recover(shard, place) else { return Ok(false) };
        let (replays, has_gap) = recovery.replays(CHUNK);
        for ReplayRun { writer, what } in &replays {
            match what {
                Confirmed::Changes(changes) => {
                    self.replay_confirmed(shard, server, *writer, changes).await?;
                }
                #[cfg(feature = "sessions")]
                Confirmed::Document(document) => {
                    if !self.replay_document(shard, server, *writer, document).await? {
                        tracing::warn!(
                            shard,
                            "a change of a session, or of its devices, that this process had \
                            confirmed is lost: it was changed at the present server before this \
                            process came back"
                        );
                    }
                }
            }
        }
        let withheld = recovery.withheld();
        if withheld > 0 {
            tracing::warn!(
                shard,
                withheld,
                "reinstatements that this process had confirmed are not put back: redis has \
                changed servers twice, and whether a revocation was confirmed after them cannot \
                be told; what they reinstated stays revoked"
            );
        }
        let mut is_settling = epoch.settling.is_some();
        // It may have had a write that was never confirmed, and then it waits for this process.
        if recovery.writer.number > 0 || found.had.is_some() {
            // Where nothing was carried on, everything from before is in doubt already.
            let action = if has_gap && epoch.parent != 0 {
                WriterAction::ThroughWithGap
            } else {
                WriterAction::Through
            };
            let through = WriterContext { action, ..recovery.writer };
            let reply = self.touch(shard, Some(server), through).await?;
            is_settling = reply.epoch.settling.is_some();
            if !replays.is_empty() || has_gap {
                tracing::info!(
                    shard,
                    runs = replays.len(),
                    has_gap,
                    "put back what redis did not have of the writes of this process"
                );
            }
        }
        for former in &recovery.former {
            // It may have signed off at a server of which this one had not heard so much.
            let Some(had) = self.touch(shard, Some(server), *former).await?.had else { continue };
            let action = match recovery.former_action(had, former) {
                WriterAction::ThroughWithGap if epoch.parent == 0 => WriterAction::Through,
                action => action,
            };
            for action in [action, WriterAction::SignOff] {
                let writer = WriterContext { action, ..*former };
                let reply = self.touch(shard, Some(server), writer).await?;
                is_settling = reply.epoch.settling.is_some();
            }
        }
        self.writers.recovered(shard, server, epoch.id);
        Ok(is_settling)
    }

    /// Lets every server have what this process has confirmed, and says that this process need not
    /// be waited for: to a server that stays the primary. One that is being replaced may have
    /// nobody left to tell.
    pub(crate) async fn sign_off(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + CLOSE_LIMIT;
        for shard in 0..self.keys.shards() {
            while let Err(error) = self.sign_off_from(shard).await {
                let may_pass = match error.kind() {
                    StoreErrorKind::NotPrimary
                    | StoreErrorKind::Settling
                    | StoreErrorKind::Cluster => true,
                    // Of a server that stands alone nobody knows when it comes back.
                    StoreErrorKind::Unreachable
                    | StoreErrorKind::Timeout
                    | StoreErrorKind::Loading => self.topology.has_voters(),
                    _ => false,
                };
                if !may_pass || Instant::now() >= deadline {
                    return Err(error);
                }
                sleep(CLOSE_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn sign_off_from(&self, shard: u16) -> Result<(), StoreError> {
        if !self.writers.is_active(shard) {
            return Ok(());
        }
        self.keep_epoch(shard).await?;
        let Some(signing_off) = self.writers.signing_off(shard) else { return Ok(()) };
        self.touch(shard, Some(signing_off.server), signing_off.writer).await?;
        let permit = self.write_connection(shard).acquire()?;
        if permit.server_id().tag() != signing_off.server {
            return Err(Doubt::Settling.error());
        }
        permit.connection().confirm_stays().await?;
        if self.writers.signed_off(shard, &signing_off) {
            return Ok(());
        }
        let detail = "this process went on writing while its store was closed";
        Err(StoreError::new(StoreErrorKind::Settling, detail))
    }
}

impl Drop for StoreCore {
    fn drop(&mut self) {
        if let Some(maintenance) = self.maintenance.get() {
            maintenance.abort();
        }
        // Nobody has to wait for this process after a failover. If this is not sent any more, it is
        // waited for in vain.
        let Ok(runtime) = Handle::try_current() else { return };
        let sign_off = |shard| {
            let SigningOff { server, writer, .. } = self.writers.signing_off(shard)?;
            let permit = self.write_connection(shard).acquire().ok()?;
            let context = SendContext { known: self.tracker.known(shard), server, writer };
            let arguments =
                script::arguments(&self.keys, shard, &self.script_context(&context), &[]);
            (permit.server_id().tag() == server).then_some((permit, arguments))
        };
        let leaving: Vec<_> = (0..self.keys.shards()).filter_map(sign_off).collect();
        if leaving.is_empty() {
            return;
        }
        let connections = mem::take(&mut self.writes);
        runtime.spawn(async move {
            join_all(leaving.into_iter().map(|(permit, arguments)| async move {
                let sha = Bytes::from_static(script::SHA.as_bytes());
                let arguments = std::iter::once(sha).chain(arguments).map(Value::Bytes);
                let _ = permit.command("EVALSHA", arguments.collect(), SIGN_OFF_LIMIT).await;
            }))
            .await;
            drop(connections);
        });
    }
}

/// The maintenance task: runs the script without changes whenever an epoch has to begin, a former
/// epoch to be reported or a server to settle; every second for the shards that this process writes
/// to, so that it is waited for after a failover; and every few hours to put off the expiry of its
/// keys. It also says which targets the layers of this process accept: when one is made, and
/// whenever the script has to be run for another reason than being waited for.
pub(crate) async fn maintain(core: Weak<StoreCore>) {
    let Some(tracker) = core.upgrade().map(|core| Arc::clone(&core.tracker)) else { return };
    let [shortest, longest] = PAUSES;
    let mut pause_after = shortest;
    let (mut has_failed, mut is_settling) = (false, false);
    let mut next_touch = Instant::now() + TOUCH_INTERVAL.mul_f64(random::fraction());
    loop {
        let is_active = core
            .upgrade()
            .is_some_and(|core| (0..core.keys.shards()).any(|shard| core.writers.is_active(shard)));
        let pause = match (has_failed, is_settling, is_active) {
            (true, ..) => pause_after,
            (_, true, _) => SETTLING_INTERVAL,
            (.., true) => RENEWAL,
            _ => next_touch.saturating_duration_since(Instant::now()),
        };
        let is_due = tokio::select! {
            () = tracker.maintenance_due.notified(), if !has_failed && !is_settling => true,
            () = sleep(pause.mul_f64(0.5 + random::fraction() / 2.0)) => has_failed || is_settling,
            () = tracker.doubt_changed.notified() => {
                let Some(core) = core.upgrade() else { return };
                core.health_tx.send_if_modified(|health| core.tell_doubt(health));
                continue;
            }
        };
        let Some(core) = core.upgrade() else { return };
        let is_due = is_due || next_touch <= Instant::now();
        if is_due {
            next_touch = Instant::now() + TOUCH_INTERVAL.mul_f64(0.5 + random::fraction() / 2.0);
        }
        // Several at once: if a node of a cluster is down, each of its shards takes the whole time
        // limit of a write.
        let shards =
            (0..core.keys.shards()).filter(|shard| is_due || core.writers.is_active(*shard));
        let kept = stream::iter(shards).map(|shard| core.keep_epoch(shard));
        let kept = kept.buffer_unordered(SHARDS_AT_ONCE).collect::<Vec<_>>().await;
        is_settling = kept.iter().any(|kept| matches!(kept, Ok(true)));
        let is_kept = kept.iter().all(Result::is_ok);
        let said =
            if is_due && !is_settling && is_kept { core.say_accepted().await } else { Ok(()) };
        core.health_tx.send_if_modified(|health| core.tell_doubt(health));
        let is_denied = |error: &StoreError| error.kind() == StoreErrorKind::Denied;
        if kept.iter().any(|kept| kept.as_ref().is_err_and(is_denied)) {
            core.tracker.cannot_report.store(true, Ordering::Relaxed);
        } else if is_kept && !kept.is_empty() {
            // The right may have been missing for a while.
            core.tracker.cannot_report.store(false, Ordering::Relaxed);
        }
        let failure = match (kept.into_iter().find_map(Result::err), said) {
            (Some(error), _) => Some((
                error,
                "what redis says of the state of its data could not \
                be kept up: to put off its expiry, to begin it anew, or to put back what redis has \
                lost",
            )),
            (None, Err(error)) => Some((
                error,
                "redis could not be told which tokens the layers of \
                this process accept",
            )),
            (None, Ok(())) => None,
        };
        if let Some((error, what)) = failure {
            if !has_failed {
                tracing::warn!(error = %error.chain(), "{what}; trying again");
            }
            has_failed = true;
            pause_after = (pause_after * 2).min(longest);
        } else {
            has_failed = false;
            pause_after = shortest;
            drop(core);
            sleep(pause_after).await;
        }
    }
}
