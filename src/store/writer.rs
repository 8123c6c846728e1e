//! [`RevocationWriter`]: the write side, as an import sees it.

use futures::future::BoxFuture;

use super::{Receipt, StoreError};
use crate::revocation::{Revocation, Target};

/// Writes revocations under the rules of a token profile: for code that takes them from somewhere
/// else, such as the import of a foreign list.
///
/// Only [`Revoker`](crate::Revoker) implements it. It is a trait because the modules of stores must
/// not name the revoker.
#[expect(unnameable_types, reason = "nobody else implements it, and who has a revoker calls that")]
pub trait RevocationWriter: Send + Sync + 'static {
    /// A revocation of `target` with the usual extent for its kind, kept as long as the tokens that
    /// it covers. The issuer is filled in if there is only one.
    ///
    /// # Errors
    /// [`StoreError`] if no token that is accepted could match the target.
    fn prepare(&self, target: Target) -> Result<Revocation, StoreError>;

    /// Writes revocations; the receipts are in the same order.
    ///
    /// # Errors
    /// [`StoreError`] if the write was not confirmed: none, some or all were done. It may be
    /// repeated.
    fn write_all(
        &self,
        revocations: Vec<Revocation>,
    ) -> BoxFuture<'static, Result<Vec<Receipt>, StoreError>>;
}
