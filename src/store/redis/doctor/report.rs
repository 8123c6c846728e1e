//! [`Report`]: what was found.

use std::fmt;

use serde::Serialize;

/// What [`RedisStore::doctor`](crate::RedisStore::doctor) has found. Serialized, it is an object:
/// `{"findings":[{"severity":"error","subject":…,"sentence":…,"remedy":…}]}`.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// All findings, the worst first.
    pub findings: Vec<Finding>,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What it is about, as a fixed name that programs can match: `eviction`, `rights`, …
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

/// One finding per line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))
    }
}
