//! Journals: one bounded stream of entries per target, which expires.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `prefix:{k}:a:<fingerprint>` | stream | the latest entries about a target |
//! | `prefix:{k}:q:<fingerprint>` | stream | the latest of those that requests bring about |

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;

use super::command::StoreCommand;
use super::connection::unexpected_reply;
use super::schema::MAX_INTEGER;
use super::script::LuaScript;
use super::store::RedisStore;
use crate::revocation::Target;
use crate::store::StoreError;

/// Waits for no replica: entries of a journal may be lost.
pub(super) const APPEND: LuaScript = LuaScript {
    source: include_str!("journal.lua"),
    sha: "6bb7d828532d85f9ea9cebf78f06288bd2405f08",
    writes: false,
};

/// Which of the journals of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    /// What was done.
    Events,
    /// What requests bring about, so that it displaces nothing else.
    Requests,
}

impl RedisStore {
    /// Appends to the journal of `target`, which keeps about `most` entries for `retention`.
    pub(crate) async fn append(
        &self,
        (journal, target): (Journal, &Target),
        entry: Bytes,
        most: NonZeroU32,
        retention: Duration,
    ) -> Result<(), StoreError> {
        let (shard, key) = self.journal(journal, target);
        let retention =
            u64::try_from(retention.as_millis()).unwrap_or(MAX_INTEGER).clamp(1, MAX_INTEGER);
        let arguments = vec![
            "1".into(),
            key,
            entry,
            most.to_string().into(),
            Bytes::from(retention.to_string()),
        ];
        self.core.send(shard, StoreCommand::Script(&APPEND), arguments).await.map(drop)
    }

    /// The latest entries of the journal of `target`, the latest first.
    pub(crate) async fn entries(
        &self,
        (journal, target): (Journal, &Target),
        most: NonZeroU32,
    ) -> Result<Vec<Bytes>, StoreError> {
        let (shard, key) = self.journal(journal, target);
        let [end, start, count] = [&b"+"[..], b"-", b"COUNT"].map(Bytes::from_static);
        let arguments = vec![key, end, start, count, most.to_string().into()];
        let Value::Array(entries) =
            self.core.send(shard, StoreCommand::Plain("XREVRANGE"), arguments).await?
        else {
            return Err(unexpected_reply("redis"));
        };
        let read = |entry: Value| {
            let Value::Array(parts) = entry else { return None };
            let Some(Value::Array(fields)) = parts.into_iter().nth(1) else { return None };
            fields.into_iter().nth(1).and_then(Value::into_bytes)
        };
        entries
            .into_iter()
            .map(|entry| read(entry).ok_or_else(|| unexpected_reply("redis")))
            .collect()
    }

    /// Removes the journals of `target`.
    pub(crate) async fn remove_journals(&self, target: &Target) -> Result<(), StoreError> {
        for journal in [Journal::Events, Journal::Requests] {
            let (shard, key) = self.journal(journal, target);
            self.core.send(shard, StoreCommand::Plain("DEL"), vec![key]).await?;
        }
        Ok(())
    }

    fn journal(&self, journal: Journal, target: &Target) -> (u16, Bytes) {
        let fingerprint = target.fingerprint();
        let keys = &self.core.keys;
        let shard = keys.shard_of(&fingerprint);
        let names = keys.shard(shard);
        let key = match journal {
            Journal::Events => names.journal(&fingerprint),
            Journal::Requests => names.request_journal(&fingerprint),
        };
        (shard, key)
    }
}
