//! [`ReplayGuard`]: the ids of tokens that were carried out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::revocation::Target;
use crate::session::random_id;
use crate::store::StoreError;
use crate::store::session::{Commit, Committed, SessionStore, Snapshot};

/// Remembers the ids (`jti`) of tokens that may be used once: logout tokens, security events,
/// assertions of clients, DPoP proofs. It keeps them in a store, so all processes on the store
/// share them.
///
/// An id belongs to a namespace, which says what kind of token it is, and to the issuer of the
/// token. It counts as seen only once its effect is confirmed: ask [`is_seen`](Self::is_seen),
/// carry out what the token says, then [`mark`](Self::mark). If the store fails in between, the
/// token is carried out again when it comes again, which must change nothing. If something must not
/// happen twice at all, mark the id *before*, and do it if `mark` returns true.
///
/// ```
/// # use tower_jwt_revocation::{MemoryStore, endpoints::ReplayGuard};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let guard = ReplayGuard::new(MemoryStore::new());
/// let minute = Duration::from_secs(60);
/// assert!(guard.mark("dpop", "https://client.example", "a", minute).await?);
/// assert!(!guard.mark("dpop", "https://client.example", "a", minute).await?);
/// # Ok(()) }
/// ```
#[doc(alias = "jti")]
#[doc(alias = "nonce")]
#[derive(Clone)]
pub struct ReplayGuard {
    store: Arc<dyn SessionStore>,
}

impl ReplayGuard {
    /// A guard that keeps the ids in this store. With a mirror, use the store behind it.
    pub fn new(store: impl SessionStore) -> Self {
        Self { store: Arc::new(store) }
    }

    /// Whether this id is marked and not forgotten yet.
    ///
    /// # Errors
    /// [`StoreError`] if this is not known: answer 503, never that the token is invalid.
    pub async fn is_seen(
        &self,
        namespace: &str,
        issuer: &str,
        id: &str,
    ) -> Result<bool, StoreError> {
        let snapshot = self.load(&key(namespace, issuer, id)).await?;
        Ok(snapshot.documents.iter().any(Option::is_some))
    }

    /// Marks the id for this long from now. Returns true to the first caller only, also if several
    /// mark it at the same time. The time must be as long as the token can be accepted, leeway
    /// included.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed. The id may be marked nevertheless.
    pub async fn mark(
        &self,
        namespace: &str,
        issuer: &str,
        id: &str,
        lifetime: Duration,
    ) -> Result<bool, StoreError> {
        let key = key(namespace, issuer, id);
        let now = self.load(&key).await?.now;
        self.mark_until(key, now.saturating_add(lifetime)).await
    }

    async fn mark_until(&self, key: Target, until: Timestamp) -> Result<bool, StoreError> {
        // A store takes a commit for a repetition of one that was done if both write the same.
        let unique = Bytes::from(random_id()?.into_string());
        let committed = self.store.commit(Commit::new(key, None, Some(unique), until)).await?;
        Ok(matches!(committed, Committed::Done))
    }

    async fn load(&self, key: &Target) -> Result<Snapshot, StoreError> {
        self.store.load(vec![key.clone()], Vec::new()).await?.settled()
    }
}

fn key(namespace: &str, issuer: &str, id: &str) -> Target {
    Target::claim(format!("replay:{namespace}"), id).issued_by(issuer)
}

impl fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayGuard").finish_non_exhaustive()
    }
}
