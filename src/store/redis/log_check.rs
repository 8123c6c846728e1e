//! Whether a server still has the changes that were known, by its log. Asked on each new
//! connection, before an epoch is read over it.
//!
//! The epoch tells how many changes were written. A server that has lost some may have been given
//! as many others since; then the number is the same. So the last known entries are looked for in
//! its log: that of each connection, because two connections may have led to two servers that were
//! both primary.

use std::ops::Range;
use std::sync::Arc;

use fred::types::Value;

use super::connection::{CONNECT_TIMEOUT, Connection, unexpected_reply};
use super::epoch::{EpochTracker, KnownEpoch};
use super::schema::{EntryId, Epoch, RedisKeys};
use super::topology::Topology;
use crate::store::StoreError;

/// Looks in the logs of these shards for the last known entries, and reports those that are
/// missing. If none is known, it asks for the first entry, so that a missing right shows at the
/// start.
pub(crate) async fn check_log(
    topology: &Arc<Topology>,
    connection: &Connection,
    keys: &RedisKeys,
    tracker: &EpochTracker,
    shards: Range<u16>,
) -> Result<(), StoreError> {
    for shard in shards.clone() {
        let known = tracker.known(shard);
        let entries = known.as_deref().map(KnownEpoch::expected_entries).unwrap_or_default();
        if entries.is_empty() && shard == shards.start {
            first_entry(topology, connection, keys, shard, EntryId::default()).await?;
        }
        // A server that has begun another epoch, or has yet to begin one, has what it has: the
        // epoch tells. Only where it should be the same one, its log tells more.
        let known_epoch = known.as_deref();
        if !entries.is_empty()
            && !is_same_epoch(topology, connection, keys, shard, known_epoch).await?
        {
            continue;
        }
        for entry in entries {
            if is_missing(topology, connection, keys, shard, entry).await?
                && let Some(known) = &known
            {
                tracker.report_missing_entry(shard, known);
            }
        }
    }
    Ok(())
}

/// Whether the server holds the epoch that was known, and has begun it itself.
async fn is_same_epoch(
    topology: &Arc<Topology>,
    connection: &Connection,
    keys: &RedisKeys,
    shard: u16,
    known: Option<&KnownEpoch>,
) -> Result<bool, StoreError> {
    let key = vec![Value::Bytes(keys.shard(shard).epoch.clone())];
    let value = topology.command_for_key(connection, "GET", key, CONNECT_TIMEOUT).await?;
    let epoch = value.as_bytes().and_then(|value| Epoch::parse(value).ok());
    let server = connection.server_id().tag();
    Ok(epoch.zip(known).is_some_and(|(epoch, known)| {
        epoch.id == known.epoch.id && (epoch.server == server || server == 0)
    }))
}

/// Whether an entry is not in the log, although earlier ones are.
async fn is_missing(
    topology: &Arc<Topology>,
    connection: &Connection,
    keys: &RedisKeys,
    shard: u16,
    entry: EntryId,
) -> Result<bool, StoreError> {
    if first_entry(topology, connection, keys, shard, entry).await? == Some(entry) {
        return Ok(false);
    }
    // If the log begins later, or is empty, it was trimmed. That proves nothing.
    let first = first_entry(topology, connection, keys, shard, EntryId::default()).await?;
    Ok(first.is_some_and(|first| first < entry))
}

/// The first entry of the log that is not before `from`.
async fn first_entry(
    topology: &Arc<Topology>,
    connection: &Connection,
    keys: &RedisKeys,
    shard: u16,
    from: EntryId,
) -> Result<Option<EntryId>, StoreError> {
    let key = Value::Bytes(keys.shard(shard).log.clone());
    let arguments: Vec<Value> =
        vec![key, from.to_string().into(), "+".into(), "COUNT".into(), 1.into()];
    let asked = topology.command_for_key(connection, "XRANGE", arguments, CONNECT_TIMEOUT);
    let Value::Array(entries) = asked.await? else { return Err(unexpected_reply("redis")) };
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
