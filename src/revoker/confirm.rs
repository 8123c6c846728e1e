//! Waiting until a write has reached every mirror: [`RevokeRequest::confirm`].

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{ReinstateRequest, RevokeRequest};
use crate::store::{Receipt, RevocationStore, StoreError, StoreErrorKind};

/// The mirrors are asked again after the first of these, then after twice as long, up to the
/// second. A mirror usually says within a millisecond that it has a write.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(25)];

impl RevokeRequest {
    /// Waits until no process answers from memory without this write any more: until every
    /// [`Mirror`](crate::Mirror) of the store has applied it, wherever it runs, or has not been
    /// heard of for twice its maximal staleness, after which it does not answer from memory.
    /// Usually that takes a few milliseconds. `limit` counts from when the write was confirmed.
    ///
    /// The caller needs no mirror of its own. A check that starts after `Ok` refuses the token in
    /// every process.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
    /// let confirmed = revoker.revoke(Target::user("mallory")).confirm(Duration::from_secs(3)).await?;
    /// println!("refused everywhere, also by {} mirrors", confirmed.mirrors);
    /// # Ok(()) }
    /// ```
    ///
    /// # Limits
    /// When Redis has lost its data, it has also lost the list of its mirrors, until each has
    /// registered again. So in the first two seconds after a loss no write is confirmed; a mirror
    /// with a maximal staleness of more than a second may take longer to register than that. A
    /// process that still follows a primary which was replaced is not known to the new one.
    pub fn confirm(self, limit: Duration) -> ConfirmRequest {
        ConfirmRequest { request: self, limit }
    }
}

impl ReinstateRequest {
    /// Waits until every mirror has applied it, as [`RevokeRequest::confirm`].
    pub fn confirm(self, limit: Duration) -> ConfirmRequest {
        ConfirmRequest { request: self.0, limit }
    }
}

/// A revocation or reinstatement that has not been sent yet and, once it is confirmed, waits until
/// all mirrors have it. Await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is revoked until this is awaited"]
pub struct ConfirmRequest {
    request: RevokeRequest,
    limit: Duration,
}

/// A write that every mirror has applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Confirmed {
    /// The confirmation of the store.
    pub receipt: Receipt,
    /// How many mirrors have reported that they have it.
    pub mirrors: usize,
}

/// Why a write was not confirmed by all mirrors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The store did not confirm the write. It may be repeated.
    Write(StoreError),
    /// The write is in force, but these mirrors had not applied it when the time was over; they
    /// will, or stop to answer from memory, within their maximal staleness.
    Behind {
        /// The confirmation of the store.
        receipt: Receipt,
        /// Their names, see [`MirrorBuilder::with_name`](crate::mirror::MirrorBuilder::with_name).
        mirrors: Vec<Arc<str>>,
    },
    /// The write was confirmed by the store, but which mirrors there are, or how far they have
    /// come, could not be found out.
    Unknown {
        /// The confirmation of the store.
        receipt: Receipt,
        /// Why. If its kind is [`StoreErrorKind::DataLoss`], the write may be lost and should be
        /// repeated.
        error: StoreError,
    },
}

impl ConfirmError {
    /// The confirmation of the store, if it gave one.
    pub fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Write(_) => None,
            Self::Behind { receipt, .. } | Self::Unknown { receipt, .. } => Some(receipt),
        }
    }
}

impl IntoFuture for ConfirmRequest {
    type Output = Result<Confirmed, ConfirmError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { request, limit } = self;
        let store = Arc::clone(&request.revoker.store);
        async move {
            let receipt = request.await.map_err(ConfirmError::Write)?;
            wait_for_mirrors(&*store, receipt, limit).await
        }
        .boxed()
    }
}

async fn wait_for_mirrors(
    store: &dyn RevocationStore,
    receipt: Receipt,
    limit: Duration,
) -> Result<Confirmed, ConfirmError> {
    // Without a log there is nothing that a mirror could follow.
    let Some(fence) = receipt.fence else { return Ok(Confirmed { receipt, mirrors: 0 }) };
    let deadline = Instant::now() + limit;
    let [mut pause, longest] = PAUSES;
    // What there is to say when the time is over.
    let mut answer =
        Err(StoreError::new(StoreErrorKind::Timeout, "the mirrors could not be asked in time"));
    while let Ok(followers) = timeout_at(deadline, store.followers(fence)).await {
        answer = followers;
        match &answer {
            Ok(mirrors) if mirrors.iter().all(|mirror| mirror.has_applied) => {
                let mirrors = mirrors.len();
                return Ok(Confirmed { receipt, mirrors });
            }
            // It does not get better by waiting.
            Err(error) if error.kind() == StoreErrorKind::DataLoss || !error.may_be_repeated() => {
                break;
            }
            _ => {}
        }
        let again = Instant::now() + pause;
        if again >= deadline {
            break;
        }
        sleep_until(again).await;
        pause = (pause * 2).min(longest);
    }
    Err(match answer {
        Ok(mirrors) => {
            let behind = mirrors.into_iter().filter(|mirror| !mirror.has_applied);
            ConfirmError::Behind { receipt, mirrors: behind.map(|mirror| mirror.name).collect() }
        }
        Err(error) => ConfirmError::Unknown { receipt, error },
    })
}

impl fmt::Display for ConfirmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(error) => {
                write!(f, "the write was not confirmed and may be repeated: {error}")
            }
            Self::Behind { mirrors, .. } => {
                write!(
                    f,
                    "the write is in force, but not applied yet by the mirrors {}",
                    mirrors.join(", ")
                )
            }
            Self::Unknown { error, .. } => {
                write!(
                    f,
                    "the write was confirmed, but whether all mirrors have it is not known: {error}"
                )
            }
        }
    }
}

impl std::error::Error for ConfirmError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Write(error) | Self::Unknown { error, .. } => error.source(),
            Self::Behind { .. } => None,
        }
    }
}
