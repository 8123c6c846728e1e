//! The documents of sessions as a store keeps them: a version and JSON; pure.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::invalid;
use crate::clock::Timestamp;
use crate::revocation::Target;
use crate::store::session::Commit;
use crate::store::{StoreError, StoreErrorKind};

/// Sessions to be counted, until when, or no longer.
pub(super) type CountedMembers = Vec<(Box<str>, Option<Timestamp>)>;

/// A document that is kept for as long as anything in it counts.
pub(super) trait SessionDocument: Default + Serialize + DeserializeOwned + Send {
    /// Drops what has ended by itself.
    fn forget(&mut self, now: Timestamp);
    fn is_empty(&self) -> bool;
    fn until(&self) -> Timestamp;

    fn commit(&self, key: &Target, before: Option<Bytes>) -> Result<Commit, StoreError> {
        let after = (!self.is_empty()).then(|| print(self)).transpose()?;
        Ok(Commit::new(key.clone(), before, after, self.until()))
    }
}

/// A document as it was read.
pub(super) struct StoredDocument {
    pub(super) written: Option<Bytes>,
    pub(super) now: Timestamp,
}

impl StoredDocument {
    pub(super) fn read<D: DeserializeOwned>(&self) -> Result<Option<D>, StoreError> {
        self.written.as_deref().map(read).transpose()
    }
}

/// The version of the documents. Another one is an error: to take it for none would sign people
/// out.
const VERSION: &str = "1 ";

pub(super) fn print(document: &impl Serialize) -> Result<Bytes, StoreError> {
    let mut text = VERSION.as_bytes().to_vec();
    match serde_json::to_writer(&mut text, document) {
        Ok(()) => Ok(text.into()),
        Err(error) => Err(invalid("the data of the session is not JSON").with_source(error)),
    }
}

pub(super) fn read<T: DeserializeOwned>(document: &[u8]) -> Result<T, StoreError> {
    let json = document.strip_prefix(VERSION.as_bytes());
    // The cause is dropped: its text may quote the document.
    json.and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(|| {
        StoreError::new(StoreErrorKind::Protocol, "a document of a session is not of this version")
    })
}
