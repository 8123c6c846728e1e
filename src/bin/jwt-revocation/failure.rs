//! Why a command failed, and with which status a command ends.

use std::error::Error;
use std::process::ExitCode;

use serde_json::{Map, Value};
use tower_jwt_revocation::ConfigError;
use tower_jwt_revocation::store::StoreError;
use tower_jwt_revocation::store::redis::ConnectError;

/// With which status a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done, or live.
    Done,
    /// Revoked, or unfit.
    Refused,
    /// Wrong use, or no acceptable token.
    Unacceptable,
    /// The store is out of reach, a write was not confirmed, or what was asked for could not be
    /// told.
    Unknown,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Done => 0,
            Status::Refused => 1,
            Status::Unacceptable => 2,
            Status::Unknown => 3,
        })
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was used wrongly, or a setting cannot work.
    Usage(String),
    /// The store gave no answer.
    Store {
        error: String,
        /// Whether the same call may succeed later.
        repeatable: bool,
        /// What else a program should know, such as where an import stopped.
        also: Map<String, Value>,
    },
    /// Nobody reads the output any more.
    ClosedPipe,
    /// The output could not be written, as on a disk that is full. What was asked for is not known
    /// to whoever asked.
    Output(String),
}

impl Failure {
    pub(crate) fn usage(problem: impl Into<String>) -> Self {
        Self::Usage(problem.into())
    }

    /// Of standard output.
    pub(crate) fn of_output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Output(format!("standard output cannot be written: {error}")),
        }
    }

    pub(crate) fn of_file(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Usage(error.to_string()),
        }
    }

    /// Of a write that was not confirmed.
    pub(crate) fn of_write(error: &StoreError) -> Self {
        match Self::from(error) {
            Self::Store { error, repeatable, also } => Self::Store {
                error: format!("the write was not confirmed and may be repeated: {error}"),
                repeatable,
                also,
            },
            other => other,
        }
    }

    /// The same failure, with something more for programs.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        if let Self::Store { also, .. } = &mut self {
            also.insert(name.into(), value);
        }
        self
    }
}

impl From<&StoreError> for Failure {
    fn from(error: &StoreError) -> Self {
        if error.is_permanent() {
            return Self::Usage(with_causes(error));
        }
        let repeatable = error.may_be_repeated();
        Self::Store { error: with_causes(error), repeatable, also: Map::new() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(with_causes(&error))
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Store(store) => Self::from(store),
            other => Self::Usage(with_causes(&other)),
        }
    }
}

/// The error and its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
