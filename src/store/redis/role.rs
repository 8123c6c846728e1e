//! Whether a server is a primary, by whichever command it answers.
//!
//! | asked | where it is missing |
//! | --- | --- |
//! | `ROLE` | Redis Cloud, Redis Software and Azure Managed Redis have none; it is in `@admin` and `@dangerous` |
//! | `HELLO`, without arguments | before Redis 6 |
//! | `INFO replication` | in `@dangerous`; some hosted services have none |
//! | `PEXPIREAT` of a key that is never there: a replica answers `READONLY` | for a user without the right to write |
//!
//! If all are refused, the role is unknown. Such a connection is used, because reading needs
//! neither these rights nor the right to write; the self-check reports it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;

use super::connection::{Connection, error_code, is_command_refused, unexpected_reply};
use crate::store::{StoreError, StoreErrorKind};

/// What can be asked, in this order.
const SOURCES: [RoleSource; 4] =
    [RoleSource::Role, RoleSource::Hello, RoleSource::Info, RoleSource::Trial];

/// By what the role of a server is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleSource {
    /// `ROLE`.
    Role,
    /// `HELLO`.
    Hello,
    /// `INFO replication`.
    Info,
    /// A write that changes nothing.
    Trial,
    /// All of them are refused.
    Unknown,
}

/// Asks one connection after the other for the role of its server, first by what was answered the
/// last time.
#[derive(Debug, Default)]
pub(crate) struct RoleProbe {
    /// The place in [`SOURCES`]; past the end if the role is unknown.
    next: AtomicUsize,
}

impl RoleProbe {
    /// For a new connection: everything is asked again.
    pub(crate) fn reset(&self) {
        self.next.store(0, Ordering::Relaxed);
    }

    /// By what the role is known.
    pub(crate) fn source(&self) -> RoleSource {
        SOURCES.get(self.next.load(Ordering::Relaxed)).copied().unwrap_or(RoleSource::Unknown)
    }

    /// Asks whether the server is a primary. `trial` is a key that is never there, if the server
    /// has the slot of one. What was refused is not asked again over the same connection.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotPrimary`] if it is a replica, and whatever keeps it from answering.
    pub(crate) async fn check(
        &self,
        connection: &Connection,
        trial: Option<&Bytes>,
        limit: Duration,
    ) -> Result<(), StoreError> {
        let first = self.next.load(Ordering::Relaxed);
        for (n, source) in SOURCES.into_iter().enumerate().skip(first) {
            let Some((command, arguments)) = source.question(trial) else { continue };
            let reply = connection.command(command, arguments, limit).await;
            if let Some(is_primary) = source.read(reply)? {
                self.next.store(n, Ordering::Relaxed);
                return if is_primary { Ok(()) } else { Err(is_replica()) };
            }
        }
        self.next.store(SOURCES.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl RoleSource {
    fn question(self, trial: Option<&Bytes>) -> Option<(&'static str, Vec<Value>)> {
        match self {
            Self::Role => Some(("ROLE", Vec::new())),
            Self::Hello => Some(("HELLO", Vec::new())),
            Self::Info => Some(("INFO", vec!["replication".into()])),
            Self::Trial => {
                trial.map(|key| ("PEXPIREAT", vec![Value::Bytes(key.clone()), "1".into()]))
            }
            Self::Unknown => None,
        }
    }

    /// Whether the server is a primary; `None` if this reply does not tell.
    fn read(self, reply: Result<Value, StoreError>) -> Result<Option<bool>, StoreError> {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.read_error(error),
        };
        match self {
            Self::Role => {
                let Value::Array(parts) = reply else { return Err(unexpected_reply("redis")) };
                let role = parts.first().and_then(Value::as_string);
                role.map(|role| Some(role == "master")).ok_or_else(|| unexpected_reply("redis"))
            }
            Self::Hello => Ok(read_hello(&reply).map(|role| role == "master")),
            Self::Info => {
                let info = reply.as_string().unwrap_or_default();
                let role = info.lines().find_map(|line| line.strip_prefix("role:"));
                Ok(role.map(|role| role.trim() == "master"))
            }
            Self::Trial => Ok(Some(true)),
            Self::Unknown => Ok(None),
        }
    }

    fn read_error(self, error: StoreError) -> Result<Option<bool>, StoreError> {
        match (self, error.kind(), error_code(&error)) {
            // Only a primary counts its replicas before it takes a write, or moves a slot to
            // another node.
            (Self::Trial, _, "NOREPLICAS" | "ASK") => Ok(Some(true)),
            // Redis asks its disk before its role, so a replica may answer the same.
            (Self::Trial, StoreErrorKind::Full, _) => Ok(None),
            _ if is_command_refused(&error) => Ok(None),
            _ => Err(error),
        }
    }
}

/// The role in the reply to `HELLO`: a map, which RESP2 tells as an array.
fn read_hello(reply: &Value) -> Option<String> {
    match reply {
        Value::Array(parts) => parts
            .chunks_exact(2)
            .find(|pair| pair.first().and_then(Value::as_string).is_some_and(|name| name == "role"))
            .and_then(|pair| pair.get(1)?.as_string()),
        Value::Map(fields) => fields
            .iter()
            .find(|(name, _)| name.as_str() == Some("role"))
            .and_then(|(_, role)| role.as_string()),
        _ => None,
    }
}

fn is_replica() -> StoreError {
    StoreError::new(StoreErrorKind::NotPrimary, "the server is not a primary, but a replica")
}
