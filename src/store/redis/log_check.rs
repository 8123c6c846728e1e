//! Whether a server still has what was known: asked on each new connection, before anything is
//! learned over it.
//!
//! An epoch tells how many changes were written in it. A server that has lost some may have been
//! given as many others since, and then tells nothing. So the latest known changes are looked for
//! in its log: the latest of each connection, because two of them may have led to two servers that
//! both took themselves for the primary.

use std::ops::Range;

use fred::types::Value;

use super::connection::{CONNECT_TIMEOUT, Connection, unexpected_reply};
use super::epoch::{EpochTracker, KnownEpoch};
use super::schema::{EntryId, RedisKeys};
use crate::store::StoreError;

/// Looks in the logs of these shards for what is known of them, and takes note of what is missing.
/// If nothing is known, it asks all the same, so that a missing right shows at the start.
pub(super) async fn compare(
    connection: &Connection,
    keys: &RedisKeys,
    tracker: &EpochTracker,
    shards: Range<u16>,
) -> Result<(), StoreError> {
    for shard in shards.clone() {
        let known = tracker.known(shard);
        let entries = known.as_deref().map(KnownEpoch::expected_entries).unwrap_or_default();
        if entries.is_empty() && shard == shards.start {
            first_entry(connection, keys, shard, EntryId::default()).await?;
        }
        for entry in entries {
            if is_missing(connection, keys, shard, entry).await?
                && let Some(known) = &known
            {
                tracker.report_missing(shard, known);
            }
        }
    }
    Ok(())
}

/// Whether a change is not in the log any more, although what was written before it is.
async fn is_missing(
    connection: &Connection,
    keys: &RedisKeys,
    shard: u16,
    entry: EntryId,
) -> Result<bool, StoreError> {
    if first_entry(connection, keys, shard, entry).await? == Some(entry) {
        return Ok(false);
    }
    // If the log begins later, or is empty, it was trimmed, maybe only just; that proves nothing.
    let first = first_entry(connection, keys, shard, EntryId::default()).await?;
    Ok(first.is_some_and(|first| first < entry))
}

/// The first entry of the log that is not before `from`.
async fn first_entry(
    connection: &Connection,
    keys: &RedisKeys,
    shard: u16,
    from: EntryId,
) -> Result<Option<EntryId>, StoreError> {
    let key = Value::Bytes(keys.shard(shard).log.clone());
    let arguments: Vec<Value> =
        vec![key, from.to_string().into(), "+".into(), "COUNT".into(), 1.into()];
    let Value::Array(entries) = connection.ask("XRANGE", arguments, CONNECT_TIMEOUT).await? else {
        return Err(unexpected_reply("redis"));
    };
    match entries.as_slice() {
        [] => Ok(None),
        [Value::Array(entry), ..] => entry
            .first()
            .and_then(Value::as_str)
            .and_then(|id| EntryId::parse(&id).ok())
            .map(Some)
            .ok_or_else(|| unexpected_reply("redis")),
        _ => Err(unexpected_reply("redis")),
    }
}
