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

use super::command::{SendContext, StoreCommand, task_failed};
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::epoch::{EpochSource, ReadFrom};
use super::reply::{read_record, read_strings};
use super::schema::{MAX_INTEGER, parse_document};
use super::script::{LuaScript, WriterContext, epoch_id};
use super::store::RedisStore;
use super::writers::{Confirmed, ConfirmedDocument};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::revocation::Target;
use crate::store::session::{Commit, Committed, Seen, SessionStore, Snapshot};
use crate::store::{Doubt, StoreError, StoreErrorKind};

pub(super) const LOAD: LuaScript = LuaScript {
    source: include_str!("load.lua"),
    sha: "bb2432fabe7f9b9db98ccd64da0481f47d5d14d4",
    writes: false,
};

pub(super) const COMMIT: LuaScript = LuaScript {
    source: include_str!("commit.lua"),
    sha: "56c127da75ca59ff5b57e68273d633bc993b1ab1",
    writes: true,
};

/// The same, for what was confirmed before.
const REPLAY_COMMIT: LuaScript = LuaScript { writes: false, ..COMMIT };

/// How many keys one run of a script reads.
const CHUNK: usize = 256;

/// What was read from one shard.
struct ShardRead {
    now: Timestamp,
    doubt: Doubt,
    moved_at: Option<Timestamp>,
    /// The values, with the places at which they were asked for.
    values: Vec<(usize, Option<Bytes>)>,
}

impl StoreCore {
    /// Reads keys of any shards. Of several times it is the earliest; the doubt covers all that any
    /// shard doubts. The documents are all values that were read.
    async fn read_all(&self, keys: Vec<(u16, Bytes)>) -> Result<Snapshot, StoreError> {
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
        let moved_at = reads.iter().filter_map(|read| read.moved_at).max();
        for (place, value) in reads.into_iter().flat_map(|read| read.values) {
            if let Some(slot) = values.get_mut(place) {
                *slot = value;
            }
        }
        let mut snapshot = Snapshot::new(now, values, Vec::new());
        (snapshot.doubt, snapshot.moved_at) = (doubt, moved_at);
        Ok(snapshot)
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
        let read = |context: &SendContext, value| {
            let Value::Array(reply) = value else { return Err(unexpected_reply("the script")) };
            let mut reply = reply.into_iter();
            let (Some(now), Some(epoch)) = (reply.next(), reply.next()) else {
                return Err(unexpected_reply("the script"));
            };
            let now = now
                .as_str()
                .and_then(|now| now.parse().ok())
                .ok_or_else(|| unexpected_reply("the script"))?;
            // An error, if the shard has lost its data: then what was read proves nothing.
            let known = context.known.as_ref();
            let from = ReadFrom { source: EpochSource::Writes, server: context.server };
            let doubt = self.tracker.observe_value(from, shard, known, epoch.as_bytes())?;
            if doubt == Doubt::Settling {
                return Err(doubt.error());
            }
            let values: Vec<_> =
                keys.iter().map(|(place, _)| *place).zip(reply.map(Value::into_bytes)).collect();
            if values.len() != keys.len() {
                return Err(unexpected_reply("the script"));
            }
            let moved_at = self.tracker.known(shard).and_then(|known| known.moved_at());
            Ok(ShardRead { now: Timestamp::from_millis(now), doubt, moved_at, values })
        };
        self.run(shard, &LOAD, |_| Ok(arguments.clone()), read).await.map(|sent| sent.value)
    }

    async fn load(
        &self,
        documents: Vec<Target>,
        records: Vec<Target>,
    ) -> Result<Snapshot, StoreError> {
        let keys = documents.iter().map(|target| self.document_key(target));
        let keys = keys.chain(records.iter().map(|target| self.record_key(target))).collect();
        let mut snapshot = self.read_all(keys).await?;
        let stamps = snapshot.documents.split_off(documents.len());
        let records = stamps.into_iter().zip(records);
        let text = |value: Bytes| parse_document(&value).map_err(|_| unreadable_document());
        let values = snapshot.documents.into_iter().map(|value| value.map_or(Ok(None), text));
        snapshot.documents = values.collect::<Result<_, _>>()?;
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
        let tail: Vec<Bytes> = near.iter().map(|(_, stamp)| optional(stamp.as_ref())).collect();
        let near: Vec<Bytes> = near.into_iter().map(|((_, key), _)| key).collect();
        let arguments = |context: &mut SendContext| {
            context.writer = self.writers.writing(shard, context.server)?;
            let mut arguments = self.commit_arguments(shard, &key, &near);
            arguments.extend([
                optional(commit.before.as_ref()),
                optional(commit.after.as_ref()),
                time(commit.until),
            ]);
            arguments.extend(writer_arguments(context));
            arguments.extend([Bytes::new(), epoch_id(context.writer.through)]);
            arguments.extend(tail.iter().cloned());
            arguments.extend(member_arguments(&commit.members));
            Ok(arguments)
        };
        let read = |context: &SendContext, value| match CommitReply::parse(value)? {
            CommitReply::Conflict => Ok(Committed::Conflict),
            CommitReply::Settling => Err(Doubt::Settling.error().unwritten(true)),
            CommitReply::Overtaken => Err(unexpected_reply("the script")),
            CommitReply::Done { number, version } => {
                let document = ConfirmedDocument {
                    key: key.clone(),
                    version,
                    text: commit.after.clone(),
                    until: commit.until,
                    members: commit.members.clone(),
                };
                let what = Confirmed::Document(Arc::new(document));
                let epoch = context.known.as_ref().map_or(0, |known| known.epoch.id);
                let place = (context.server, epoch);
                self.writers.confirm(shard, &context.writer, place, number, what)?;
                Ok(Committed::Done)
            }
        };
        match self.run(shard, &COMMIT, arguments, read).await?.value {
            Committed::Done if !far.is_empty() => {
                let (keys, stamps): (Vec<_>, Vec<_>) = far.into_iter().unzip();
                let read = self.read_all(keys).await;
                let values = read.map_err(|error| error.unwritten(false))?.documents;
                Ok(if values == stamps { Committed::Done } else { Committed::Overtaken })
            }
            committed => Ok(committed),
        }
    }

    /// Writes a document again that this process has confirmed, unless it has gone on since. Says
    /// whether what was confirmed is there: a document that was changed here, before this process
    /// came, has gone on without it.
    pub(crate) async fn replay_document(
        &self,
        shard: u16,
        server: u64,
        writer: WriterContext,
        document: &ConfirmedDocument,
    ) -> Result<bool, StoreError> {
        let arguments = |context: &mut SendContext| {
            context.expect_server(Some(server))?;
            context.writer = writer;
            let mut arguments = self.commit_arguments(shard, &document.key, &[]);
            arguments.extend([
                Bytes::new(),
                optional(document.text.as_ref()),
                time(document.until),
            ]);
            arguments.extend(writer_arguments(context));
            arguments.extend([document.version.to_string().into(), epoch_id(0)]);
            arguments.extend(member_arguments(&document.members));
            Ok(arguments)
        };
        let read = |_: &SendContext, value| match CommitReply::parse(value)? {
            CommitReply::Done { .. } => Ok(true),
            CommitReply::Overtaken => Ok(false),
            CommitReply::Settling | CommitReply::Conflict => Err(Doubt::Settling.error()),
        };
        self.run(shard, &REPLAY_COMMIT, arguments, read).await.map(|sent| sent.value)
    }

    /// The number of keys, and the keys.
    fn commit_arguments(&self, shard: u16, document: &Bytes, guards: &[Bytes]) -> Vec<Bytes> {
        let names = self.keys.shard(shard);
        let keys = [document, &names.members, &names.epoch, &names.writers];
        let mut arguments = vec![(keys.len() + guards.len()).to_string().into()];
        arguments.extend(keys.map(Bytes::clone));
        arguments.extend(guards.iter().cloned());
        arguments
    }

    pub(crate) async fn count_members(&self) -> Result<u64, StoreError> {
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

/// Empty for none, else after a `=`.
fn optional(value: Option<&Bytes>) -> Bytes {
    value.map_or(Bytes::new(), |value| [b"=", &**value].concat().into())
}

fn time(at: Timestamp) -> Bytes {
    at.as_millis().min(MAX_INTEGER).to_string().into()
}

fn writer_arguments(context: &SendContext) -> [Bytes; 3] {
    let WriterContext { id, number, .. } = context.writer;
    [epoch_id(context.server), epoch_id(id), number.to_string().into()]
}

fn member_arguments(members: &[(Box<str>, Option<Timestamp>)]) -> impl Iterator<Item = Bytes> + '_ {
    members.iter().flat_map(|(name, until)| {
        [Bytes::copy_from_slice(name.as_bytes()), until.map_or(Bytes::new(), time)]
    })
}

/// What the script answers to a commit.
enum CommitReply {
    Done {
        number: u64,
        version: u64,
    },
    Conflict,
    Settling,
    /// What was to be replayed is lost.
    Overtaken,
}

impl CommitReply {
    fn parse(reply: Value) -> Result<Self, StoreError> {
        let parts = read_strings(reply)?;
        let number = |part: &Bytes| std::str::from_utf8(part).ok()?.parse().ok();
        let parsed = match parts.as_slice() {
            [status, number_, version] if **status == *b"done" => number(number_)
                .zip(number(version))
                .map(|(number, version)| Self::Done { number, version }),
            [status, ..] if **status == *b"overtaken" => Some(Self::Overtaken),
            [status] if **status == *b"conflict" => Some(Self::Conflict),
            [status] if **status == *b"settling" => Some(Self::Settling),
            _ => None,
        };
        parsed.ok_or_else(|| unexpected_reply("the script"))
    }
}

fn unreadable_document() -> StoreError {
    StoreError::new(
        StoreErrorKind::Protocol,
        "a document is unreadable: another program, or another version of this one, uses the \
         prefix",
    )
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
