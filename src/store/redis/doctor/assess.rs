//! What the answers of a server mean for a store of revocations. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::report::{Report, ServerFigures, Severity};
use crate::clock::Timestamp;
use crate::revocation::MAX_CLOCK_LEAD;
use crate::store::redis::options::StoreOptions;
use crate::store::redis::role::RoleSource;
use crate::store::redis::server_id::ServerId;
use crate::store::{StoreError, StoreErrorKind};

/// The oldest version that has all that is needed: `XADD NOMKSTREAM`, `SET PXAT`.
const OLDEST: (u32, u32) = (6, 2);
/// A larger difference of the clocks is a warning: what is revoked "until now" is off by as much.
const CLOCK_WARNING: Duration = Duration::from_secs(1);
/// A larger difference of the clocks is an error: it exceeds the leeway of verifiers.
const CLOCK_ERROR: Duration = Duration::from_secs(60);

/// What to do about a server that is no primary.
const WRONG_ROLE: &str = "connect to the primary, or name the sentinels";

/// The fields of `INFO`.
pub(super) struct ServerInfo(HashMap<String, String>);

impl ServerInfo {
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// What it says for people who look at its health.
    pub(super) fn figures(&self, address: String) -> ServerFigures {
        let named = [("valkey", "valkey_version"), ("redis", "redis_version")]
            .into_iter()
            .find(|(_, field)| !self.text(field).is_empty());
        let offsets = (0..)
            .map_while(|n| self.0.get(&format!("slave{n}")))
            .filter_map(|replica| replica.split(',').find_map(|part| part.strip_prefix("offset=")))
            .filter_map(|offset| offset.parse::<u64>().ok());
        let written = self.number("master_repl_offset");
        ServerFigures {
            address,
            version: named.map(|(name, field)| format!("{name} {}", self.text(field))),
            uptime_secs: self.number("uptime_in_seconds"),
            used_memory_bytes: self.number("used_memory"),
            max_memory_bytes: self.number("maxmemory").filter(|bound| *bound > 0),
            clients: self.number("connected_clients"),
            operations_per_second: self.number("instantaneous_ops_per_sec"),
            replicas: self.number("connected_slaves"),
            replication_lag_bytes: offsets
                .min()
                .zip(written)
                .map(|(least, written)| written.saturating_sub(least)),
        }
    }

    pub(super) fn assess_version(&self, report: &mut Report) {
        let valkey = self.text("valkey_version");
        let version = self.text("redis_version");
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version.is_empty() {
            report.add(Severity::Warning, "version", "the server does not tell its version", "");
        } else if number < OLDEST {
            report.add(
                Severity::Error,
                "version",
                format!("the server is redis {version}"),
                "needs redis 6.2 or later, or valkey",
            );
        } else if valkey.is_empty() {
            report.add(Severity::Info, "version", format!("the server is redis {version}"), "");
        } else {
            report.add(Severity::Info, "version", format!("the server is valkey {valkey}"), "");
        }
    }

    pub(super) fn assess_memory(&self, report: &mut Report) {
        let policy = self.text("maxmemory_policy");
        let (used, bound) = (self.number("used_memory"), self.number("maxmemory").unwrap_or(0));
        let evicted = self.number("evicted_keys").unwrap_or(0);
        let remedy = "set maxmemory-policy to noeviction";
        match (policy, bound) {
            ("noeviction", _) => {}
            ("", _) => report.add(
                Severity::Warning,
                "eviction",
                "the server does not tell whether it evicts keys",
                "make sure that maxmemory-policy is noeviction",
            ),
            (policy, 0) => report.add(
                Severity::Warning,
                "eviction",
                format!(
                    "maxmemory-policy is {policy}: once maxmemory is set, redis will drop \
                    revocations when it is full"
                ),
                remedy,
            ),
            (policy, _) => report.add(
                Severity::Error,
                "eviction",
                format!(
                    "maxmemory-policy is {policy}: when redis is full, it drops revocations, \
                    and revoked tokens pass"
                ),
                remedy,
            ),
        }
        if evicted > 0 {
            let severity = if policy == "noeviction" { Severity::Warning } else { Severity::Error };
            report.add(
                severity,
                "evicted_keys",
                format!(
                    "keys evicted since the server was started: {evicted}; revocations may be \
                     among them"
                ),
                "set maxmemory-policy to noeviction, and revoke again what matters",
            );
        }
        match used {
            Some(used) if bound > 0 && used / 4 >= bound / 5 => report.add(
                Severity::Warning,
                "memory",
                format!(
                    "{} of {} of memory are used; when it is full, nothing can be revoked",
                    in_bytes(used),
                    in_bytes(bound)
                ),
                "raise maxmemory",
            ),
            Some(used) => {
                report.add(
                    Severity::Info,
                    "memory",
                    format!("{} of memory are used", in_bytes(used)),
                    "",
                );
            }
            None => {}
        }
    }

    /// `snapshots` is the setting `save`, where the user may read it.
    pub(super) fn assess_persistence(&self, snapshots: Option<&str>, report: &mut Report) {
        for (field, what) in [
            ("rdb_last_bgsave_status", "snapshot"),
            ("aof_last_write_status", "write to the append-only file"),
            ("aof_last_bgrewrite_status", "rewrite of the append-only file"),
        ] {
            if self.text(field) == "err" {
                report.add(
                    Severity::Error,
                    "persistence",
                    format!("the last {what} failed"),
                    "look into the log of redis; its disk may be full",
                );
            }
        }
        let remedy = "set appendonly to yes";
        match (self.text("aof_enabled"), snapshots) {
            ("1", _) => report.add(Severity::Info, "persistence", "the append-only file is on", ""),
            (_, Some("")) => report.add(
                Severity::Warning,
                "persistence",
                "nothing is written to disk: after a restart, every token issued before is in \
                 doubt",
                remedy,
            ),
            (_, Some(_)) => report.add(
                Severity::Warning,
                "persistence",
                "only snapshots are written to disk: a restart loses the revocations since the \
                 last one",
                remedy,
            ),
            (_, None) => report.add(
                Severity::Warning,
                "persistence",
                "there is no append-only file: a restart loses revocations, if not all of them",
                remedy,
            ),
        }
    }

    pub(super) fn assess_replication(&self, options: &StoreOptions, report: &mut Report) {
        // A hosted service may not tell.
        if !matches!(self.text("role"), "master" | "") {
            let sentence = format!("the server is a {}", self.text("role"));
            report.add(Severity::Error, "role", sentence, WRONG_ROLE);
        }
        let replicas = self.number("connected_slaves").unwrap_or(0);
        // Shown only where `min-replicas-to-write` is set.
        let good = self.number("min_slaves_good_slaves");
        if replicas > 0 && good.is_none() && options.wait_replicas.is_none() {
            report.add(
                Severity::Warning,
                "replication",
                format!(
                    "a write is confirmed before any replica has it ({replicas} connected): a \
                    failover may lose it"
                ),
                "set min-replicas-to-write on the servers, and \
                 RedisStoreBuilder::with_wait_replicas here",
            );
        }
        if let Some(wait) = options.wait_replicas
            && u64::from(wait.replicas.get()) > replicas
        {
            report.add(
                Severity::Error,
                "replication",
                format!(
                    "writes wait for {}, of which {replicas} are connected: every write fails",
                    counted(wait.replicas.get().into(), "replica")
                ),
                "start the replicas, or wait for fewer",
            );
        }
    }
}

/// Why a server is not used, and what cannot be done for that.
pub(super) fn assess_failure(error: &StoreError, what: &str, report: &mut Report) {
    let sentence = format!("{what}: {error}");
    let (subject, remedy) = match error.kind() {
        StoreErrorKind::NotPrimary => ("role", WRONG_ROLE),
        StoreErrorKind::Denied => (
            "reachable",
            "see to the password, the rights or the certificate of this user, as the error says",
        ),
        _ => ("reachable", "see to it that redis runs, and that this process can reach it"),
    };
    report.add(Severity::Error, subject, sentence, remedy);
}

/// By what it is known that the server is a primary.
pub(super) fn assess_role(source: RoleSource, report: &mut Report) {
    let by = match source {
        RoleSource::Role => "ROLE",
        RoleSource::Hello => "HELLO, as ROLE is refused",
        RoleSource::Info => "INFO, as ROLE and HELLO are refused",
        RoleSource::Trial => {
            "a write that changes nothing, as ROLE, HELLO and INFO are refused; when redis is full \
             or cannot write to its disk, it may not be known"
        }
        RoleSource::Unknown => {
            report.add(
                Severity::Warning,
                "role",
                "it cannot be known whether the server is a primary: ROLE, HELLO and INFO are \
                 refused, and so is a write; a replica would be asked about tokens, and may not \
                 have the latest revocations",
                "give the user one of the rights +role, +hello and +info",
            );
            return;
        }
    };
    let sentence = format!("it is known that the server is a primary by {by}");
    report.add(Severity::Info, "role", sentence, "");
}

/// Whether a change of the server can be noticed.
pub(super) fn assess_server_id(id: &ServerId, report: &mut Report) {
    if !id.is_own() {
        report.add(
            Severity::Warning,
            "server_id",
            "the server does not tell its id, as INFO is refused: if another one takes its place \
             at the same address, or it is restarted with older data, that may not be noticed, and \
             a revocation that was confirmed last may be without effect",
            "give the user the right +info",
        );
    }
}

pub(super) fn assess_clock(server: Timestamp, local: Timestamp, report: &mut Report) {
    let offset =
        server.saturating_duration_since(local).max(local.saturating_duration_since(server));
    let sentence = match offset.as_millis() {
        0 => "the clocks of redis and of this process agree to the millisecond".into(),
        _ => format!("the clocks of redis and of this process are {} apart", in_words(offset)),
    };
    let remedy = "synchronise both with NTP";
    if offset <= CLOCK_ERROR && local.saturating_duration_since(server) > MAX_CLOCK_LEAD {
        let effect = "redis is behind by more than the 5 s by which a cutoff may be dated ahead of \
                      it: tokens issued before a revocation may pass";
        report.add(Severity::Error, "clock", format!("{sentence}; {effect}"), remedy);
    } else if offset > CLOCK_ERROR {
        report.add(Severity::Error, "clock", sentence, remedy);
    } else if offset > CLOCK_WARNING {
        report.add(Severity::Warning, "clock", sentence, remedy);
    } else {
        report.add(Severity::Info, "clock", sentence, "");
    }
}

// === Numbers in words ===

/// `1 shard`, `2 shards`.
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Rounded, with the unit that makes it short.
pub(super) fn in_words(duration: Duration) -> String {
    let (secs, ms) = (duration.as_secs_f64(), duration.as_secs_f64() * 1000.0);
    match secs {
        _ if ms < 10.0 => format!("{ms:.2} ms"),
        _ if ms < 1000.0 => format!("{ms:.0} ms"),
        _ if secs < 120.0 => format!("{secs:.1} s"),
        _ if secs < 2.0 * 3600.0 => format!("{:.0} min", secs / 60.0),
        _ if secs < 48.0 * 3600.0 => format!("{:.0} h", secs / 3600.0),
        _ => format!("{:.0} days", secs / 86_400.0),
    }
}

pub(super) fn in_bytes(bytes: u64) -> String {
    match bytes {
        ..1024 => counted(bytes, "byte"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, ((bytes >> 20) % 1024) * 10 / 1024),
    }
}
