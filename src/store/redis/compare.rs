//! Whether a server still has what was known: asked on each new connection, before anything is
//! learned over it.
//!
//! A life tells how many changes were written in it. A server that has lost some may have been
//! given as many others since, and then tells nothing. So the latest known changes are looked for
//! in its log: the latest of each connection, because two of them may have led to two servers that
//! both took themselves for the primary.

use std::ops::Range;

use fred::types::Value;

use super::life::{Known, Memory};
use super::schema::{EntryId, Keys};
use super::wire::{CONNECT_TIMEOUT, Wire, odd_reply};
use crate::store::StoreError;

/// Looks in the logs of these shards for what is known of them, and takes note of what is missing.
/// If nothing is known, it asks all the same, so that a missing right shows at the start.
pub(super) async fn compare(
    wire: &Wire,
    keys: &Keys,
    memory: &Memory,
    shards: Range<u16>,
) -> Result<(), StoreError> {
    for shard in shards.clone() {
        let known = memory.recall(shard);
        let marks = known.as_deref().map(Known::marks).unwrap_or_default();
        if marks.is_empty() && shard == shards.start {
            first_entry(wire, keys, shard, EntryId::default()).await?;
        }
        for mark in marks {
            if is_missing(wire, keys, shard, mark).await?
                && let Some(known) = &known
            {
                memory.miss(shard, known);
            }
        }
    }
    Ok(())
}

/// Whether a change is not in the log any more, although what was written before it is.
async fn is_missing(
    wire: &Wire,
    keys: &Keys,
    shard: u16,
    mark: EntryId,
) -> Result<bool, StoreError> {
    if first_entry(wire, keys, shard, mark).await? == Some(mark) {
        return Ok(false);
    }
    // If the log begins later, or is empty, it was trimmed, maybe only just; that proves nothing.
    let first = first_entry(wire, keys, shard, EntryId::default()).await?;
    Ok(first.is_some_and(|first| first < mark))
}

/// The first entry of the log that is not before `from`.
async fn first_entry(
    wire: &Wire,
    keys: &Keys,
    shard: u16,
    from: EntryId,
) -> Result<Option<EntryId>, StoreError> {
    let key = Value::Bytes(keys.shard(shard).log.clone());
    let arguments: Vec<Value> =
        vec![key, from.to_string().into(), "+".into(), "COUNT".into(), 1.into()];
    let Value::Array(entries) = wire.ask("XRANGE", arguments, CONNECT_TIMEOUT).await? else {
        return Err(odd_reply("redis"));
    };
    match entries.as_slice() {
        [] => Ok(None),
        [Value::Array(entry), ..] => entry
            .first()
            .and_then(Value::as_str)
            .and_then(|id| EntryId::parse(&id).ok())
            .map(Some)
            .ok_or_else(|| odd_reply("redis")),
        _ => Err(odd_reply("redis")),
    }
}
