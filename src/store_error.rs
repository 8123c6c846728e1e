//! [`StoreError`]: why a store gave no answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::error_chain::ErrorChain;

/// Why a store gave no answer. It never means "not revoked", and never "revoked".
///
/// Cheap to clone. `Display` is for the operator and holds no token and no key.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    detail: Arc<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// Whether the text tells the words of the source, so that `Error::source` leaves it out.
    is_told: bool,
    /// Whether what was asked for goes on being tried.
    is_pending: bool,
    /// Whether it is known that nothing was written.
    #[cfg(any(feature = "redis", feature = "sessions"))]
    is_unwritten: bool,
}

/// The kinds of [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No connection.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// There were more questions at once than the limit of the store allows, or this process
    /// stalled while an answer was due. This is our own load and no outage: a token that cannot be
    /// checked because of it is refused in every [`FailMode`](crate::FailMode).
    Overloaded,
    /// The server is loading its data (`LOADING`).
    Loading,
    /// The server is a replica or was demoted to one (`READONLY`, `ROLE`).
    NotPrimary,
    /// The cluster does not serve the slot (`MOVED`, `ASK`, `CLUSTERDOWN`, `TRYAGAIN`).
    Cluster,
    /// The rights are missing, or the password is missing or wrong (`NOPERM`, `NOAUTH`,
    /// `WRONGPASS`).
    Denied,
    /// The store is full (`OOM`, or a bounded store at its bound), or cannot write to its disk
    /// (`MISCONF`). The write was refused.
    Full,
    /// Fewer replicas than required confirmed the write (`NOREPLICAS`, `WAIT`).
    Replicas,
    /// The answer cannot be read: wrong type, wrong shape, unknown record version.
    Protocol,
    /// The store has lost data, and the token may be among what was lost. Waiting does not help:
    /// newer tokens are not in doubt.
    DataLoss,
    /// The store may have lost data, for example after a change of server, and it is being put
    /// back, or nobody knows yet whether anything was lost. This is over within seconds; the store
    /// takes no writes meanwhile.
    Settling,
    /// A mirror that cannot prove that it is fresh.
    Stale,
    /// The input is not valid: an id that is empty or too long, a cursor of another store. For a
    /// check: the store cannot look for such a token, which is no outage but 401 in every
    /// [`FailMode`](crate::FailMode).
    InvalidInput,
    /// No known layer on the store accepts a token that the revocation could match. It was written
    /// nevertheless. [`Revoker::could_match`](crate::Revoker::could_match) asks without writing.
    Unmatched,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// All kinds, in the order in which they are counted.
    pub const ALL: [Self; 16] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Overloaded,
        Self::Loading,
        Self::NotPrimary,
        Self::Cluster,
        Self::Denied,
        Self::Full,
        Self::Replicas,
        Self::Protocol,
        Self::DataLoss,
        Self::Settling,
        Self::Stale,
        Self::InvalidInput,
        Self::Unmatched,
        Self::Other,
    ];

    /// The name of the kind, as it is written in metrics and logs, and serialized.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::Loading => "loading",
            Self::NotPrimary => "not_primary",
            Self::Cluster => "cluster",
            Self::Denied => "denied",
            Self::Full => "full",
            Self::Replicas => "replicas",
            Self::Protocol => "protocol",
            Self::DataLoss => "data_loss",
            Self::Settling => "settling",
            Self::Stale => "stale",
            Self::InvalidInput => "invalid_input",
            Self::Unmatched => "unmatched",
            Self::Other => "other",
        }
    }
}

impl StoreError {
    /// An error with a text for the operator.
    pub fn new(kind: StoreErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            source: None,
            is_told: false,
            is_pending: false,
            #[cfg(any(feature = "redis", feature = "sessions"))]
            is_unwritten: false,
        }
    }

    /// What was read back from a store is not a record, or not a target: why.
    pub(crate) fn invalid_record(why: &'static str) -> Self {
        Self::new(StoreErrorKind::Protocol, format!("a stored record cannot be read: {why}"))
    }

    /// The same error with its cause, which is its [`source`](std::error::Error::source). The log
    /// shows it after the text, so the text must not repeat it.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.is_told = false;
        self.source = Some(Arc::new(source));
        self
    }

    /// The error with its causes, for the log.
    pub(crate) fn chain(&self) -> ErrorChain<'_> {
        ErrorChain(self)
    }

    /// The same error, which keeps the error of another crate whose words its text tells.
    #[cfg(feature = "redis")]
    pub(crate) fn with_told(mut self, error: impl Error + Send + Sync + 'static) -> Self {
        self.is_told = true;
        self.source = Some(Arc::new(error));
        self
    }

    #[cfg(feature = "redis")]
    pub(crate) fn told(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().filter(|_| self.is_told).map(|error| error as _)
    }

    /// The same error without the error of another crate: it was the answer to something else.
    #[cfg(feature = "redis")]
    pub(crate) fn without_told(mut self) -> Self {
        if self.is_told {
            (self.is_told, self.source) = (false, None);
        }
        self
    }

    /// The same error with another text.
    #[cfg(feature = "redis")]
    pub(crate) fn with_detail(mut self, detail: impl Into<Arc<str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The reason to be told if this one and the other are why a standing is not known. That a
    /// token will never be decided is said only where everything else was heard: a client that
    /// signs in again in vain loses more than one that waits in vain. What the token is like is
    /// said before all else: it is so whatever the others say.
    #[cfg(feature = "redis")]
    pub(crate) fn or_passing(self, other: Self) -> Self {
        let is_other = !self.is_permanent() && self.kind == StoreErrorKind::DataLoss;
        if is_other || other.is_permanent() { other } else { self }
    }

    /// What kind of error this is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call can never succeed, because the caller has made a mistake
    /// ([`InvalidInput`](StoreErrorKind::InvalidInput), [`Unmatched`](StoreErrorKind::Unmatched)).
    /// Do not answer 503 then, which promises that waiting helps.
    pub fn is_permanent(&self) -> bool {
        matches!(self.kind, StoreErrorKind::InvalidInput | StoreErrorKind::Unmatched)
    }

    /// The same error, of a write that was surely not done, or may have been.
    #[cfg(any(feature = "redis", feature = "sessions"))]
    pub(crate) fn unwritten(self, is_unwritten: bool) -> Self {
        Self { is_unwritten, ..self }
    }

    /// Whether nothing was written for sure. An error that does not say so may have come after it.
    #[cfg(any(feature = "redis", feature = "sessions"))]
    pub(crate) fn is_unwritten(&self) -> bool {
        self.is_unwritten
    }

    /// The same error, of something that goes on being tried.
    pub(crate) fn pending(self) -> Self {
        Self { is_pending: true, ..self }
    }

    /// Whether the revocation was not confirmed, but is being repeated: see
    /// [`Revoker::with_outbox`](crate::Revoker::with_outbox). It is no confirmation: the tokens
    /// work until the store has the revocation.
    pub fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Whether repeating the call can help. Repeating is always safe: writes are idempotent.
    pub fn may_be_repeated(&self) -> bool {
        !self.is_permanent() && self.kind != StoreErrorKind::Denied
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().filter(|_| !self.is_told).map(|source| source as _)
    }
}
