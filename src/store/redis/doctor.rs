//! The self-check: whether this Redis is fit to keep revocations.
//!
//! | | |
//! | --- | --- |
//! | this file | asks the servers |
//! | `assess` | says what their answers mean: pure |
//! | `report` | what was found |

mod assess;
mod report;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::Value;
use futures::future::join_all;
use tokio::time::timeout;

use self::assess::{
    ServerInfo, assess_clock, assess_failure, assess_role, assess_server_id, counted, in_words,
};
use self::report::Severity;
pub use self::report::{Finding, Report, ServerFigures};
use super::connection::{ServerAddress, error_code};
use super::core::StoreCore;
use super::options::StoreOptions;
use super::reply::read_time;
use super::schema::{LAYOUT, ShardKeys};
use super::script;
use super::store::RedisStore;
use super::supervised::{Permit, SupervisedConnection};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{Doubt, StoreError, StoreErrorKind};

impl RedisStore {
    /// Checks whether the server, or every primary of the cluster that serves a shard, is fit to
    /// keep revocations: reachable and in time, eviction, persistence, replication, clock, access
    /// rights, layout, lost data. It takes some dozen round trips and writes only the expiry of the
    /// store's own keys. Use it at the start of a program, which may refuse to run on an
    /// [error](Finding::is_error), and to look into a problem.
    ///
    /// ```no_run
    /// # async fn f(store: tower_jwt_revocation::RedisStore) {
    /// let report = store.doctor().await;
    /// assert!(report.is_fit(), "{report}");
    /// println!("{}", serde_json::json!(report)); // and what the servers say of themselves
    /// # }
    /// ```
    ///
    /// # The rights that are needed
    /// This user can do everything that the store does, and nothing else:
    ///
    /// ```text
    #[doc = include_str!("least_rights.acl")]
    /// ```
    ///
    /// A [`Mirror`](crate::Mirror) reads the log, so add `+xread +xrevrange`. To read an audit
    /// trail ([`RedisAuditSink::events_of`](super::RedisAuditSink::events_of)), add `+xrevrange`.
    /// With another prefix, change the pattern. In a cluster add `+cluster|nodes +asking`; with
    /// [`with_wait_replicas`](super::RedisStoreBuilder::with_wait_replicas) add `+wait`; with a
    /// database in the URL add `+select`. The user at the sentinels needs `+ping +client|id +info
    /// +sentinel|master +sentinel|sentinels +sentinel|get-master-addr-by-name`.
    ///
    /// `+role +info +ping +client|id` are optional. The role of the server is learned from `ROLE`,
    /// else from `HELLO`, else from `INFO`, else from a write that changes nothing. The report says
    /// from which, and what is not known without `INFO`. `INFO` also tells one server from the next
    /// one at the same address: without it a restart with older data, or a failover behind one
    /// address, is noticed less reliably. An [`Import`](super::Import) of a foreign list needs
    /// `INFO`.
    pub async fn doctor(&self) -> Report {
        let mut report = Report::default();
        let core = &self.core;
        core.wait_for_first_attempts().await;
        let mut servers = Vec::new();
        let mut slowest = Some(Duration::ZERO);
        let mut is_connected = true;
        for (n, (checks, writes)) in core.checks.iter().zip(&core.writes).enumerate() {
            let shard = u16::try_from(n).unwrap_or(u16::MAX);
            let latency = core.latency(checks.connection(), shard).await;
            let limit = core.options.check_timeout;
            slowest = slowest.zip(latency.as_ref().ok()).map(|(known, it)| known.max(*it));
            match &latency {
                Err(error) => assess_failure(error, "tokens cannot be checked", &mut report),
                Ok(latency) if *latency > limit / 2 => report.add(
                    Severity::Warning,
                    "latency",
                    format!(
                        "a check takes {}, of the {} that it may take",
                        in_words(*latency),
                        in_words(limit)
                    ),
                    "bring redis closer, or raise the check timeout",
                ),
                Ok(latency) => {
                    report.add(
                        Severity::Info,
                        "latency",
                        format!("a check takes {}", in_words(*latency)),
                        "",
                    );
                }
            }
            // Without a connection it was not asked for.
            if latency.is_ok() {
                assess_role(checks.connection().role_source(), &mut report);
            }
            let permit = match writes.acquire() {
                Ok(permit) => permit,
                Err(error) => {
                    is_connected = false;
                    assess_failure(&error, "revocations cannot be written", &mut report);
                    continue;
                }
            };
            assess_role(writes.role_source(), &mut report);
            if !servers.contains(permit.server()) {
                // In a box, because it is large.
                Box::pin(core.examine(&permit, shard, &mut report)).await;
                servers.push(permit.server().clone());
            }
        }
        report.latency_micros = slowest.and_then(|it| u64::try_from(it.as_micros()).ok());
        Box::pin(core.examine_store(is_connected, &mut report)).await;
        // A server that cannot be asked would take the whole limit of a write, to say what was
        // reported before.
        if is_connected {
            Box::pin(core.count_kept(&mut report)).await;
        }
        report.findings.sort_by_key(|finding| finding.severity);
        let found = [Severity::Error, Severity::Warning]
            .map(|severity| report.findings.iter().filter(|it| it.severity == severity).count());
        core.activity.note_findings(found);
        report
    }
}

// === The asking ===

/// What is sent with each new connection, and nothing depends on.
const OPTIONAL: [&str; 2] = ["ping", "client|id"];

/// Every command that the store sends or its scripts call, in a form that changes nothing: Redis
/// checks the access rules before it finds that the arguments are invalid or that there is no such
/// key. `ROLE` and `INFO` are not among them: what becomes of them was reported before.
fn trials(
    keys: &ShardKeys,
    options: &StoreOptions,
    is_cluster: bool,
) -> Vec<(&'static str, &'static str, Vec<Bytes>)> {
    let key = keys.trial.clone();
    let with = |rest: &[&'static str]| -> Vec<Bytes> {
        std::iter::once(key.clone())
            .chain(rest.iter().map(|word| Bytes::from_static(word.as_bytes())))
            .collect()
    };
    let words = |words: &[&'static str]| -> Vec<Bytes> {
        words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect()
    };
    let mut trials = vec![
        ("ping", "PING", Vec::new()),
        ("time", "TIME", Vec::new()),
        ("client|id", "CLIENT", words(&["ID"])),
        ("del", "DEL", with(&[])),
        ("get", "GET", with(&[])),
        ("mget", "MGET", with(&[])),
        ("set", "SET", with(&["x", "nonsense"])),
        ("hset", "HSET", with(&["a", "b", "odd"])),
        ("hmget", "HMGET", with(&["a"])),
        ("hgetall", "HGETALL", with(&[])),
        ("hdel", "HDEL", with(&["a"])),
        ("pexpireat", "PEXPIREAT", with(&["1"])),
        ("zadd", "ZADD", with(&["nonsense", "x"])),
        ("zrem", "ZREM", with(&["x"])),
        ("zcard", "ZCARD", with(&[])),
        ("zcount", "ZCOUNT", with(&["-inf", "+inf"])),
        ("zscan", "ZSCAN", with(&["0"])),
        ("zrangebyscore", "ZRANGEBYSCORE", with(&["-inf", "+inf"])),
        ("zremrangebyscore", "ZREMRANGEBYSCORE", with(&["-inf", "+inf"])),
        ("zrevrange", "ZREVRANGE", with(&["0", "0"])),
        ("xadd", "XADD", with(&["NOMKSTREAM", "*", "a", "b"])),
        ("xlen", "XLEN", with(&[])),
        ("xrange", "XRANGE", with(&["-", "+", "COUNT", "1"])),
        ("eval", "EVAL", words(&["return 1", "0"])),
        ("evalsha", "EVALSHA", words(&[script::SHA, "nonsense"])),
    ];
    if options.wait_replicas.is_some() {
        trials.push(("wait", "WAIT", words(&["0", "1"])));
    }
    if is_cluster {
        trials.push(("cluster|nodes", "CLUSTER", words(&["NODES"])));
        trials.push(("asking", "ASKING", Vec::new()));
    }
    trials
}

impl StoreCore {
    /// Of a store that was opened a moment ago it is not known yet what its connections come to.
    async fn wait_for_first_attempts(&self) {
        let mut health = self.health_tx.subscribe();
        let tried = health.wait_for(|health| !health.is_starting());
        // Longer than an attempt takes. If it takes longer all the same, that is in the report.
        let limit = self.options.connect_timeout + self.options.check_timeout;
        let _ = timeout(limit, tried).await;
    }

    /// How long a check takes, the quickest of three; an error if none was answered.
    async fn latency(
        &self,
        connection: &SupervisedConnection,
        shard: u16,
    ) -> Result<Duration, StoreError> {
        let mut best = self.one_latency(connection, shard).await;
        for _ in 0..2 {
            best = match (best, self.one_latency(connection, shard).await) {
                (Ok(one), Ok(other)) => Ok(one.min(other)),
                (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
                (Err(_), Err(last)) => Err(last),
            };
        }
        best
    }

    async fn one_latency(
        &self,
        connection: &SupervisedConnection,
        shard: u16,
    ) -> Result<Duration, StoreError> {
        let permit = connection.acquire()?;
        let start = Instant::now();
        let keys = vec![Value::Bytes(self.keys.shard(shard).epoch.clone())];
        permit.command("MGET", keys, self.options.check_timeout).await?;
        Ok(start.elapsed())
    }

    async fn examine(&self, permit: &Permit, shard: u16, report: &mut Report) {
        let server = ServerAddress(permit.server()).to_string();
        report.add(Severity::Info, "server", format!("connected to {server}"), "");
        assess_server_id(permit.server_id(), report);
        match self.query(permit, "INFO", Vec::new()).await {
            Ok(reply) => {
                let info = ServerInfo::parse(&reply.as_str().unwrap_or_default());
                report.servers.push(info.figures(server));
                info.assess_version(report);
                info.assess_memory(report);
                let snapshots = self.setting(permit, "save").await;
                info.assess_persistence(snapshots.as_deref(), report);
                info.assess_replication(&self.options, report);
            }
            Err(error) => {
                report.servers.push(ServerFigures { address: server, ..ServerFigures::default() });
                report.add(
                    Severity::Warning,
                    "info",
                    format!(
                        "the server does not tell about itself ({error}): it is not known which \
                     version it is, whether it evicts keys, what it writes to disk, and how many \
                     replicas it has"
                    ),
                    "give the user the right +info, or look these settings up",
                );
            }
        }
        match self.server_time(permit).await {
            Ok(time) => assess_clock(time, SystemClock.now(), report),
            Err(error) => {
                report.add(
                    Severity::Warning,
                    "clock",
                    format!("the clock cannot be read: {error}"),
                    "",
                );
            }
        }
        self.try_rights(permit, shard, report).await;
    }

    async fn query(
        &self,
        permit: &Permit,
        command: &'static str,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        permit
            .command(
                command,
                arguments.into_iter().map(Value::Bytes).collect(),
                self.options.write_timeout,
            )
            .await
    }

    /// A setting of the server, if the user may read it.
    async fn setting(&self, permit: &Permit, name: &'static str) -> Option<String> {
        let arguments = vec![Bytes::from_static(b"GET"), Bytes::from_static(name.as_bytes())];
        let Ok(Value::Array(parts)) = self.query(permit, "CONFIG", arguments).await else {
            return None;
        };
        parts.get(1).and_then(Value::as_string)
    }

    async fn server_time(&self, permit: &Permit) -> Result<Timestamp, StoreError> {
        read_time(&self.query(permit, "TIME", Vec::new()).await?)
    }

    async fn try_rights(&self, permit: &Permit, shard: u16, report: &mut Report) {
        let (mut lacked, mut optional, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let mut keys_denied = false;
        // All at once: one after the other they take longer than a probe waits, where Redis is some
        // milliseconds away.
        let trials = trials(self.keys.shard(shard), &self.options, self.writes.len() > 1);
        let tried = trials.into_iter().map(async |(right, command, arguments)| {
            (right, command, self.query(permit, command, arguments).await)
        });
        for (right, command, result) in join_all(tried).await {
            let Err(error) = result else { continue };
            let is_denied = error_code(&error) == "NOPERM";
            match () {
                () if is_denied && error.to_string().contains(" key") => keys_denied = true,
                () if (is_denied || is_unknown_command(&error)) && OPTIONAL.contains(&right) => {
                    optional.push(format!("+{right}"));
                }
                () if is_denied => lacked.push(format!("+{right}")),
                () if is_unknown_command(&error) => unknown.push(command),
                () if matches!(
                    error.kind(),
                    StoreErrorKind::Timeout | StoreErrorKind::Unreachable
                ) =>
                {
                    report.add(
                        Severity::Error,
                        "reachable",
                        format!("the examination broke off: {error}"),
                        "",
                    );
                    return;
                }
                // The arguments were refused, so the right is there.
                () => {}
            }
        }
        if keys_denied {
            report.add(
                Severity::Error,
                "rights",
                "the user may not use the keys of the store",
                &format!("ACL SETUSER <user> ~{}:*", self.options.prefix),
            );
        }
        if !lacked.is_empty() {
            report.add(
                Severity::Error,
                "rights",
                format!("the user lacks the rights {}", lacked.join(" ")),
                &format!("ACL SETUSER <user> {}", lacked.join(" ")),
            );
        }
        if !unknown.is_empty() {
            report.add(
                Severity::Error,
                "commands",
                format!("the server does not know {}", unknown.join(" ")),
                "undo their rename-command, or use a service that has them",
            );
        }
        if !optional.is_empty() {
            report.add(
                Severity::Info,
                "rights",
                format!("refused, which does no harm: {}", optional.join(" ")),
                "",
            );
        }
    }

    async fn examine_store(&self, is_connected: bool, report: &mut Report) {
        let shards = self.keys.shards();
        report.add(
            Severity::Info,
            "layout",
            format!(
                "version {LAYOUT} under the prefix {}, in {}",
                self.options.prefix,
                counted(shards.into(), "shard")
            ),
            "",
        );
        let refusal = self.health_tx.borrow().refuses_writes().cloned();
        if let Some(error) = &refusal {
            report.add(
                Severity::Error,
                "writes",
                format!("redis refuses writes, so nothing can be revoked: {error}"),
                "raise maxmemory, or see to its disk or its replicas, as the error says",
            );
        }
        let now = SystemClock.now();
        let mut is_readable = true;
        for shard in 0..shards {
            // What was read before may be out of date. If it cannot be read, that was reported.
            let doubt = if is_readable { self.read_doubt(shard).await.ok() } else { None };
            is_readable = doubt.is_some();
            let is_elsewhere = doubt == Some(Doubt::Settling);
            let Some(known) = self.tracker.known(shard) else {
                // Why it was not read was reported.
                if !is_connected {
                    continue;
                }
                let without =
                    "holds no epoch, so no token can be checked and the fail mode decides";
                report.add(
                    Severity::Error,
                    "epoch",
                    match &refusal {
                        Some(_) => format!("shard {shard} {without}, until a write is taken"),
                        None => format!("shard {shard} {without}, or was never read"),
                    },
                    "see what else is reported",
                );
                continue;
            };
            match self.tracker.doubt(&known) {
                doubt if is_elsewhere || doubt == Doubt::Settling => {
                    let awaited = known.epoch.settling.map_or(0, |settling| settling.awaited);
                    report.add(
                        Severity::Warning,
                        "settling",
                        format!(
                            "the data of shard {shard} is at another server than before, and what \
                             this one does not have is being put back: {} awaited",
                            counted(awaited.into(), "writer")
                        ),
                        "wait half a minute at most and look again",
                    );
                }
                Doubt::Lasting { issued_until, ends_at } if ends_at > now => report.add(
                    Severity::Error,
                    "doubt",
                    format!(
                        "revocations were lost; the standing of tokens issued up to \
                         {issued_until} is unknown, and under `closed` they are refused until \
                         {ends_at}"
                    ),
                    "it ends when the last of them has expired, or what was lost is written \
                     again; whoever knows that nothing was may end it with \
                     accept_tokens_in_doubt; find out why the data was lost",
                ),
                _ => report.add(
                    Severity::Info,
                    "epoch",
                    format!(
                        "shard {shard} has kept its data for {}, epoch {:016x}",
                        in_words(now.saturating_duration_since(known.epoch.started_at)),
                        known.epoch.id
                    ),
                    "",
                ),
            }
        }
    }

    /// Counts what is kept.
    async fn count_kept(&self, report: &mut Report) {
        #[cfg(feature = "sessions")]
        {
            report.sessions = self.count_members().await.ok();
        }
        match self.count().await {
            Ok(count) => {
                report.revocations = Some(count);
                let are = if count == 1 { "is" } else { "are" };
                report.add(Severity::Info, "revocations", format!("{count} {are} in effect"), "");
            }
            Err(error) => {
                report.add(
                    Severity::Warning,
                    "revocations",
                    format!("they could not be counted: {error}"),
                    "",
                );
            }
        }
    }
}

/// Whether the server has no such command: Redis where it was renamed, and hosted services.
fn is_unknown_command(error: &StoreError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    error_code(error) == "ERR" && (text.contains("unknown command") || text.contains("not avail"))
}

#[cfg(test)]
mod tests;
