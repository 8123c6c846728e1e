//! The documents of sessions and families: a script that reads, and one that changes one document.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `prefix:{k}:d:<fingerprint>` | string | one document, on the shard of its target |
//! | `prefix:{k}:n` | zset | the members that are counted, by the time at which they end |

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fred::types::Value;
use futures::FutureExt as _;
use futures::future::{BoxFuture, try_join_all};

use super::command::{StoreCommand, task_failed};
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::epoch::EpochSource;
use super::reply::read_record;
use super::schema::MAX_INTEGER;
use super::script::LuaScript;
use super::store::RedisStore;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::revocation::Target;
use crate::store::session::{Commit, Committed, Seen, SessionStore, Snapshot};
use crate::store::{Doubt, StoreError};

pub(super) const LOAD: LuaScript = LuaScript {
    source: include_str!("load.lua"),
    sha: "bb2432fabe7f9b9db98ccd64da0481f47d5d14d4",
    writes: false,
};

pub(super) const COMMIT: LuaScript = LuaScript {
    source: include_str!("commit.lua"),
    sha: "880d8941d2851897498fc2289d077dca5e94f934",
    writes: true,
};

/// How many keys one run of a script reads.
const CHUNK: usize = 256;

/// What was read from one shard.
struct ShardRead {
    now: Timestamp,
    doubt: Doubt,
    /// The values, with the places at which they were asked for.
    values: Vec<(usize, Option<Bytes>)>,
}

impl StoreCore {
    /// Reads keys of any shards. Of several times it is the earliest; the doubt covers all that any
    /// shard doubts.
    async fn read_all(
        &self,
        keys: Vec<(u16, Bytes)>,
    ) -> Result<(Timestamp, Doubt, Vec<Option<Bytes>>), StoreError> {
        let count = keys.len();
        let mut shards: BTreeMap<u16, Vec<(usize, Bytes)>> = BTreeMap::new();
        for (place, (shard, key)) in keys.into_iter().enumerate() {
            shards.entry(shard).or_default().push((place, key));
        }
        let chunks = shards.iter().flat_map(|(shard, keys)| {
            keys.chunks(CHUNK).map(|chunk| self.read_chunk(*shard, chunk))
        });
        let reads = try_join_all(chunks).await?;
        let now = reads.iter().map(|read| read.now).min().unwrap_or_else(|| SystemClock.now());
        let doubt = reads.iter().fold(Doubt::None, |doubt, read| doubt.joined(read.doubt));
        let mut values = vec![None; count];
        for (place, value) in reads.into_iter().flat_map(|read| read.values) {
            if let Some(slot) = values.get_mut(place) {
                *slot = value;
            }
        }
        Ok((now, doubt, values))
    }

    async fn read_chunk(
        &self,
        shard: u16,
        keys: &[(usize, Bytes)],
    ) -> Result<ShardRead, StoreError> {
        let mut arguments = Vec::with_capacity(keys.len() + 2);
        arguments.push((keys.len() + 1).to_string().into());
        arguments.push(self.keys.shard(shard).epoch.clone());
        arguments.extend(keys.iter().map(|(_, key)| key.clone()));
        let sent =
            self.send_knowing(shard, StoreCommand::Script(&LOAD), |_| arguments.clone()).await?;
        let Value::Array(reply) = sent.value else { return Err(unexpected_reply("the script")) };
        let mut reply = reply.into_iter();
        let (Some(now), Some(epoch)) = (reply.next(), reply.next()) else {
            return Err(unexpected_reply("the script"));
        };
        let now = now
            .as_str()
            .and_then(|now| now.parse().ok())
            .ok_or_else(|| unexpected_reply("the script"))?;
        // An error, if the shard has lost its data: then what was read proves nothing.
        let doubt = self.tracker.observe_value(
            EpochSource::Writes,
            shard,
            sent.known.as_ref(),
            epoch.as_bytes(),
        )?;
        let values: Vec<_> =
            keys.iter().map(|(place, _)| *place).zip(reply.map(Value::into_bytes)).collect();
        if values.len() != keys.len() {
            return Err(unexpected_reply("the script"));
        }
        Ok(ShardRead { now: Timestamp::from_millis(now), doubt, values })
    }

    async fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> Result<Snapshot, StoreError> {
        let keys = documents.iter().map(|target| self.document_key(target));
        let keys = keys.chain(records.iter().map(|target| self.record_key(target))).collect();
        let (now, doubt, mut values) = self.read_all(keys).await?;
        let records = values.split_off(documents.len()).into_iter().zip(records);
        let mut snapshot = Snapshot::new(now, values, Vec::new());
        snapshot.doubt = doubt;
        for (stamp, target) in records {
            let value = stamp.clone().map(Value::Bytes);
            let record =
                value.map(|value| read_record(&value, &target.fingerprint())).transpose()?;
            snapshot.records.push(Seen::new(target, record, stamp));
        }
        Ok(snapshot)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, StoreError> {
        let (shard, key) = self.document_key(&commit.key);
        let (near, far): (Vec<_>, Vec<_>) = commit
            .guards
            .into_iter()
            .map(|guard| (self.record_key(&guard.target), guard.stamp))
            .partition(|((guarded, _), _)| *guarded == shard);
        let text = |value: Option<Bytes>| {
            value.map_or(Bytes::new(), |value| [b"=", &*value].concat().into())
        };
        let time = |at: Timestamp| Bytes::from(at.as_millis().min(MAX_INTEGER).to_string());
        let mut arguments =
            vec![(near.len() + 2).to_string().into(), key, self.keys.shard(shard).members.clone()];
        arguments.extend(near.iter().map(|((_, key), _)| key.clone()));
        arguments.extend([text(commit.before), text(commit.after), time(commit.until)]);
        arguments.extend(near.into_iter().map(|(_, stamp)| text(stamp)));
        for (member, until) in commit.members {
            arguments.extend([member.into_string().into(), until.map_or(Bytes::new(), time)]);
        }
        let reply = self.send(shard, StoreCommand::Script(&COMMIT), arguments).await?;
        match reply.as_str().as_deref() {
            Some("done") if far.is_empty() => Ok(Committed::Done),
            Some("done") => {
                let (keys, stamps): (Vec<_>, Vec<_>) = far.into_iter().unzip();
                let (_, _, values) = self.read_all(keys).await?;
                Ok(if values == stamps { Committed::Done } else { Committed::Overtaken })
            }
            Some("conflict") => Ok(Committed::Conflict),
            _ => Err(unexpected_reply("the script")),
        }
    }

    async fn count_members(&self) -> Result<u64, StoreError> {
        let after = format!("({}", SystemClock.now().as_millis());
        let counts = (0..self.keys.shards()).map(|shard| {
            let members = self.keys.shard(shard).members.clone();
            let arguments = vec![members, after.clone().into(), Bytes::from_static(b"+inf")];
            async move {
                match self.send(shard, StoreCommand::Plain("ZCOUNT"), arguments).await? {
                    Value::Integer(count) => Ok(u64::try_from(count).unwrap_or(0)),
                    _ => Err(unexpected_reply("redis")),
                }
            }
        });
        Ok(try_join_all(counts).await?.into_iter().sum())
    }

    fn document_key(&self, target: &Target) -> (u16, Bytes) {
        let fingerprint = target.fingerprint();
        let shard = self.keys.shard_of(&fingerprint);
        (shard, self.keys.shard(shard).document(&fingerprint))
    }

    fn record_key(&self, target: &Target) -> (u16, Bytes) {
        let fingerprint = target.fingerprint();
        let shard = self.keys.shard_of(&fingerprint);
        (shard, self.keys.shard(shard).record(&fingerprint))
    }
}

impl SessionStore for RedisStore {
    fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> BoxFuture<'static, Result<Snapshot, StoreError>> {
        let core = Arc::clone(&self.core);
        async move { core.load(documents, records).await }.boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'static, Result<Committed, StoreError>> {
        // In a task of its own, so that a caller who goes away leaves nothing half done.
        let core = Arc::clone(&self.core);
        let task = tokio::spawn(async move { core.commit(commit).await });
        async move { task.await.unwrap_or_else(|error| Err(task_failed(error))) }.boxed()
    }

    fn count_members(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        let core = Arc::clone(&self.core);
        async move { core.count_members().await }.boxed()
    }
}
