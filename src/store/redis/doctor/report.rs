//! [`Report`]: what was found.

use std::fmt;

use serde::Serialize;

/// What [`RedisStore::doctor`](crate::RedisStore::doctor) has found. Serialized, it is an object:
/// `{"findings":[{"severity":"error","subject":…,"sentence":…,"remedy":…}],"servers":[…],…}`. What
/// is not known is left out.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// All findings, the worst first.
    pub findings: Vec<Finding>,
    /// What the servers report about themselves: the one server, or in a cluster each that keeps a
    /// shard.
    pub servers: Vec<ServerFigures>,
    /// How many revocations are in effect; `None` if they could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocations: Option<u64>,
    /// How many sessions there are, by
    /// [`SessionStore::count_members`](crate::store::session::SessionStore::count_members); `None`
    /// without the feature `sessions`, or if they could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    /// How long a check takes at the slowest server, in microseconds: the quickest of three. `None`
    /// if one was not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_micros: Option<u64>,
}

/// What one server reports about itself (`INFO`), for health pages. A field is `None` if the server
/// does not report it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServerFigures {
    /// Its address, as `host:port`.
    pub address: String,
    /// Its name and version, such as `redis 7.0.15` or `valkey 8.1.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For how long it has been up, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_secs: Option<u64>,
    /// How much memory it uses, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_memory_bytes: Option<u64>,
    /// How much memory it may use (`maxmemory`), in bytes; `None` also if there is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory_bytes: Option<u64>,
    /// How many clients are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// How many commands it runs per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<u64>,
    /// How many replicas are connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// How far the slowest replica is behind, in bytes of replication; `None` also without
    /// replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_lag_bytes: Option<u64>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What it is about: a fixed name that programs can match, such as `eviction` or `rights`.
    pub subject: &'static str,
    /// What was found, in a sentence for the operator.
    pub sentence: String,
    /// What to do; empty where nothing needs to be done.
    pub remedy: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// A revocation may be lost, or be without effect: do not run like this.
    Error,
    /// A risk that may be acceptable.
    Warning,
    /// No problem.
    Info,
}

impl Report {
    /// Whether no finding is an [error](Finding::is_error).
    pub fn is_fit(&self) -> bool {
        !self.findings.iter().any(Finding::is_error)
    }

    pub(super) fn add(
        &mut self,
        severity: Severity,
        subject: &'static str,
        sentence: impl Into<String>,
        remedy: &str,
    ) {
        let finding =
            Finding { severity, subject, sentence: sentence.into(), remedy: remedy.into() };
        // In a cluster most findings are those of every node.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

impl Finding {
    /// Whether a revocation may be lost, or be without effect: do not run like this.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Whether this is a risk that may be acceptable.
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// One line: `error: eviction: … -> …`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.subject, self.sentence)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, " -> {}", self.remedy) }
    }
}

/// One line: `10.0.0.7:6379: redis 7.0.15, up 3 d 4 h, 1.4 MiB of memory, 12 clients, …`. What is
/// not known is left out.
impl fmt::Display for ServerFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes =
            |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20);
        let number = |number: u64, one: &str, more: &str| {
            format!("{number} {}", if number == 1 { one } else { more })
        };
        let memory = match (self.used_memory_bytes, self.max_memory_bytes) {
            (Some(used), Some(most)) => {
                Some(format!("{} of {} of memory", mebibytes(used), mebibytes(most)))
            }
            (Some(used), None) => Some(format!("{} of memory", mebibytes(used))),
            (None, _) => None,
        };
        let told = [
            self.version.clone(),
            self.uptime_secs.map(|secs| match (secs / 86_400, secs / 3600 % 24, secs / 60 % 60) {
                (0, 0, 0) => format!("up {secs} s"),
                (0, 0, minutes) => format!("up {minutes} min"),
                (0, hours, minutes) => format!("up {hours} h {minutes} min"),
                (days, hours, _) => format!("up {days} d {hours} h"),
            }),
            memory,
            self.clients.map(|clients| number(clients, "client", "clients")),
            self.operations_per_second.map(|commands| format!("{commands} commands a second")),
            self.replicas.map(|replicas| number(replicas, "replica", "replicas")),
            self.replication_lag_bytes
                .map(|bytes| format!("{} behind in replication", number(bytes, "byte", "bytes"))),
        ];
        f.write_str(&self.address)?;
        told.into_iter()
            .flatten()
            .enumerate()
            .try_for_each(|(n, words)| write!(f, "{}{words}", if n == 0 { ": " } else { ", " }))
    }
}

/// One finding per line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))
    }
}
