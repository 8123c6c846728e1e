//! What replies of Redis hold. Pure: a reply that has another form is an error.

use bytes::Bytes;
use fred::types::Value;

use super::connection::unexpected_reply;
use super::schema::{self, unreadable};
use crate::clock::Timestamp;
use crate::revocation::{Fingerprint, Record};
use crate::store::StoreError;

/// The value of the key of a record.
pub(crate) fn read_record(value: &Value, fingerprint: &Fingerprint) -> Result<Record, StoreError> {
    let bytes = value.as_bytes().unwrap_or_default();
    schema::parse_record(bytes)
        .ok()
        .filter(|record| record.target().is_known_as(fingerprint))
        .ok_or_else(|| unreadable("a record", bytes))
}

/// An array of strings.
pub(crate) fn read_strings(value: Value) -> Result<Vec<Bytes>, StoreError> {
    let Value::Array(values) = value else { return Err(unexpected_reply("redis")) };
    values
        .into_iter()
        .map(|value| value.into_bytes().ok_or_else(|| unexpected_reply("redis")))
        .collect()
}

/// The reply to `TIME`: seconds and microseconds.
pub(crate) fn read_time(reply: &Value) -> Result<Timestamp, StoreError> {
    let read = || {
        let Value::Array(parts) = reply else { return None };
        let [secs, micros] = parts.as_slice() else { return None };
        let secs: u64 = secs.as_str()?.parse().ok()?;
        let micros: u64 = micros.as_str()?.parse().ok()?;
        Some(Timestamp::from_millis(secs.checked_mul(1000)? + micros / 1000))
    };
    read().ok_or_else(|| unexpected_reply("redis"))
}
