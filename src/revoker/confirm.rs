//! Waiting until a write has reached every mirror: [`RevokeRequest::confirm`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{ReinstateRequest, RevokeRequest};
use crate::store::{Receipt, RevocationStore, StoreError, StoreErrorKind};

/// The mirrors are asked again after the first of these, then after twice as long, up to the
/// second. A mirror usually says within a millisecond that it has a write.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(25)];

impl RevokeRequest {
    /// Waits until no process answers from memory without this write. That is when every
    /// [`Mirror`](crate::Mirror) of the store, in any process, has applied it, or was silent for
    /// twice its maximal staleness: such a mirror does not answer from memory. Usually this takes a
    /// few milliseconds. `limit` counts from the confirmation of the write.
    ///
    /// The caller needs no mirror of its own. A check that starts after `Ok` refuses the token in
    /// every process.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_jwt_revocation::{MemoryStore, Revoker, Target, TokenProfile};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let revoker = Revoker::new(MemoryStore::new(), TokenProfile::new())?;
    /// let limit = Duration::from_secs(3);
    /// let receipt = revoker.revoke(Target::user("mallory")).confirm(limit).await?;
    /// println!("refused everywhere, also by {} mirrors", receipt.mirrors.unwrap_or_default());
    /// # Ok(()) }
    /// ```
    ///
    /// # Limits
    /// When Redis has lost its data, it has also lost the list of its mirrors, until each has
    /// registered again. So no write is confirmed here in the first two seconds after a loss. A
    /// mirror with a maximal staleness of more than a second may take longer to register. A new
    /// primary does not know a process that still follows the replaced one.
    ///
    /// # Errors
    /// [`ConfirmError`] if the write was not confirmed, or not by all mirrors in time.
    pub async fn confirm(self, limit: Duration) -> Result<Receipt, ConfirmError> {
        let store = Arc::clone(&self.revoker.store);
        let receipt = self.await.map_err(ConfirmError::Write)?;
        wait_for_mirrors(&*store, receipt, limit).await
    }
}

impl ReinstateRequest {
    /// Waits until every mirror has applied it, as [`RevokeRequest::confirm`].
    ///
    /// # Errors
    /// [`ConfirmError`] if the write was not confirmed, or not by all mirrors in time.
    pub async fn confirm(self, limit: Duration) -> Result<Receipt, ConfirmError> {
        self.0.confirm(limit).await
    }
}

/// Why a write was not confirmed by all mirrors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The store did not confirm the write. It may be repeated.
    Write(StoreError),
    /// The write is in effect, but these mirrors had not applied it in time. Within their maximal
    /// staleness they will apply it, or stop answering from memory.
    Behind {
        /// The confirmation of the store.
        receipt: Receipt,
        /// Their names, see [`MirrorBuilder::with_name`](crate::mirror::MirrorBuilder::with_name).
        mirrors: Vec<Arc<str>>,
    },
    /// The store confirmed the write, but the state of the mirrors could not be found out.
    Unknown {
        /// The confirmation of the store.
        receipt: Receipt,
        /// The error. If its kind is [`StoreErrorKind::DataLoss`], the write may be lost and should
        /// be repeated.
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

async fn wait_for_mirrors(
    store: &dyn RevocationStore,
    receipt: Receipt,
    limit: Duration,
) -> Result<Receipt, ConfirmError> {
    // Without a log there is nothing that a mirror could follow.
    let Some(fence) = receipt.fence else { return Ok(Receipt { mirrors: Some(0), ..receipt }) };
    let deadline = Instant::now() + limit;
    let [mut pause, longest] = PAUSES;
    // What there is to say when the time is over.
    let mut answer =
        Err(StoreError::new(StoreErrorKind::Timeout, "the mirrors could not be asked in time"));
    while let Ok(followers) = timeout_at(deadline, store.followers(fence)).await {
        answer = followers;
        match &answer {
            Ok(mirrors) if mirrors.iter().all(|mirror| mirror.has_applied) => {
                return Ok(Receipt { mirrors: Some(mirrors.len()), ..receipt });
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
