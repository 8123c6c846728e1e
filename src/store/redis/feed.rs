//! [`RedisFeed`]: the log of one shard, for a mirror.
//!
//! It has a connection of its own, because reading a log blocks it. Questions are asked one after
//! the other; every one has a deadline. After a failure the connection is thrown away, and the next
//! one asks anew who the primary is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::StoreInner;
use super::connection::{Connection, unexpected_reply, unreachable};
use super::epoch::EpochSource;
use super::log_check::compare;
use super::random;
use super::schema::{self, IndexClass, IndexMember, MirrorId, MirrorLease, ShardKeys};
use crate::clock::Timestamp;
use crate::revocation::Fingerprint;
use crate::store::feed::{Fact, Feed, Heartbeat, Lift, LogEntry, LogId, Progress, SnapshotPage};
use crate::store::{StoreError, StoreErrorKind};

/// How long an answer may take; a command that waits has as much on top.
const LIMIT: Duration = Duration::from_millis(500);
/// fred's own, below which nothing of ours may fall.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// How often the sentinels are asked whether the primary is another.
const FIND_EVERY: Duration = Duration::from_secs(1);
/// How exactly it is known when a mirror was last heard of: a place in the index that does not
/// change costs Redis nothing.
const HOUR: u64 = 60 * 60 * 1000;
/// How long the index remembers a mirror that was not heard of any more, in milliseconds. The
/// leases are what counts.
const REMEMBERED: u64 = 24 * HOUR;
/// Members of a page of the snapshot, about: a millisecond of the time of Redis.
const PAGE: &str = "2000";
/// Entries that are read at once.
const ENTRIES: &str = "1000";

/// The log of one shard of a [`RedisStore`](super::RedisStore), made by
/// [`Mirror::builder`](crate::Mirror::builder).
pub struct RedisFeed {
    store: Arc<StoreInner>,
    shard: u16,
    id: MirrorId,
    connection: Option<Arc<Connection>>,
    /// What Redis last took the time to be.
    time: Option<Timestamp>,
    /// The hour of which the index has been told on this connection.
    listed: Option<u64>,
    /// The next page of a snapshot, asked for while the last one is being read.
    ahead: Option<(u64, JoinHandle<Result<Value, StoreError>>)>,
    /// Who the sentinels say is the primary.
    find: Option<JoinHandle<Result<bool, StoreError>>>,
    find_at: Instant,
}

impl RedisFeed {
    pub(super) fn new(store: Arc<StoreInner>, shard: u16) -> Self {
        Self {
            store,
            shard,
            id: MirrorId(random::bits()),
            connection: None,
            time: None,
            listed: None,
            ahead: None,
            find: None,
            find_at: Instant::now(),
        }
    }

    fn names(&self) -> &ShardKeys {
        self.store.keys.shard(self.shard)
    }

    fn connection(&self) -> Result<&Arc<Connection>, StoreError> {
        self.connection
            .as_ref()
            .filter(|connection| !connection.has_ended())
            .ok_or_else(|| unreachable("not connected to redis"))
    }

    async fn ask(&self, command: &'static str, arguments: Vec<Bytes>) -> Result<Value, StoreError> {
        self.connection()?.ask(command, arguments, LIMIT).await
    }

    /// An old primary may go on thinking that it is one; the sentinels know better.
    async fn ask_who_is_primary(&mut self) -> Result<(), StoreError> {
        if !self.store.topology.has_sentinels() {
            return Ok(());
        }
        match self.find.take_if(|find| find.is_finished()) {
            Some(found) => {
                // If no sentinel answers, there is no reason to believe that anything has changed.
                if let Ok(Ok(false)) = found.await {
                    return Err(StoreError::new(
                        StoreErrorKind::NotPrimary,
                        "the sentinels name another primary",
                    ));
                }
            }
            None if self.find.is_none() && self.find_at <= Instant::now() => {
                let (topology, connection, slot) =
                    (Arc::clone(&self.store.topology), Arc::clone(self.connection()?), self.slot());
                self.find = Some(tokio::spawn(async move {
                    topology.find(slot).await.map(|found| found == connection.server)
                }));
                self.find_at = Instant::now() + FIND_EVERY;
            }
            None => {}
        }
        Ok(())
    }

    /// Takes a lease, and a place in the index, for a mirror that is in an epoch. Says whether the
    /// place is a new one.
    async fn renew(&self, progress: &Progress) -> Result<bool, StoreError> {
        if progress.epoch == 0 {
            return Ok(false);
        }
        let time = self.time.ok_or_else(|| unreachable("the time of redis is not known yet"))?;
        let lease = MirrorLease {
            epoch: progress.epoch,
            seq: progress.seq,
            name: Arc::clone(&progress.name),
        };
        let millis = progress.lease.as_millis().max(1).to_string();
        let set = vec![
            self.names().lease(self.id),
            lease.print(),
            Bytes::from_static(b"PX"),
            millis.into(),
        ];
        let hour = time.as_millis() / HOUR * HOUR;
        let add = vec![self.names().mirrors.clone(), hour.to_string().into(), self.id.print()];
        let (set, add) = tokio::join!(biased; self.ask("SET", set), self.ask("ZADD", add));
        match (set?, add?) {
            (Value::String(answer), Value::Integer(new)) if answer == "OK" => Ok(new > 0),
            _ => Err(unexpected_reply("redis")),
        }
    }

    /// Forgets mirrors that were not heard of for long, and puts off the expiry of the index.
    async fn tend_index(&self, hour: u64) -> Result<(), StoreError> {
        let index = &self.names().mirrors;
        let past = hour.saturating_sub(REMEMBERED).to_string();
        let forget = vec![index.clone(), "-inf".into(), past.into()];
        let keep = vec![index.clone(), (hour + 2 * REMEMBERED).to_string().into()];
        let (swept, kept) =
            tokio::join!(self.ask("ZREMRANGEBYSCORE", forget), self.ask("PEXPIREAT", keep));
        swept.and(kept).map(|_| ())
    }

    fn slot(&self) -> u16 {
        fred::util::redis_keyslot(&self.names().epoch)
    }

    /// What stands in the records, `None` where nothing does.
    async fn records(&self, fingerprints: &[Fingerprint]) -> Result<Vec<Option<Fact>>, StoreError> {
        if fingerprints.is_empty() {
            return Ok(Vec::new());
        }
        let keys =
            fingerprints.iter().map(|fingerprint| self.names().record(fingerprint)).collect();
        let Value::Array(values) = self.ask("MGET", keys).await? else {
            return Err(unexpected_reply("redis"));
        };
        if values.len() != fingerprints.len() {
            return Err(unexpected_reply("redis"));
        }
        let read = |value: &Value| match value {
            Value::Null => Ok(None),
            value => {
                let record = value.as_bytes().and_then(|value| schema::parse_record(value).ok());
                record
                    .map(|record| Some(Fact::from(&record)))
                    .ok_or_else(|| unexpected_reply("redis"))
            }
        };
        values.iter().map(read).collect()
    }
}

impl Feed for RedisFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.drop_connection();
        let server = self.store.topology.find(self.slot()).await?;
        self.connection =
            Some(Arc::new(self.store.topology.open(server.clone(), COMMAND_LIMIT).await?));
        // One that hung while it was connected to may have been replaced meanwhile, and does not
        // know it yet.
        if self.store.topology.find(self.slot()).await? != server {
            return Err(StoreError::new(
                StoreErrorKind::NotPrimary,
                "the server was replaced as the primary while it was connected to",
            ));
        }
        compare(
            self.connection()?,
            &self.store.keys,
            &self.store.tracker,
            self.shard..self.shard + 1,
        )
        .await?;
        self.find_at = Instant::now() + FIND_EVERY;
        Ok(())
    }

    async fn heartbeat(&mut self, progress: Progress) -> Result<Heartbeat, StoreError> {
        self.ask_who_is_primary().await?;
        let known = self.store.tracker.known(self.shard);
        let epoch = vec![self.names().epoch.clone()];
        // All in one trip, in this order. The lease comes first: whatever is not in the epoch yet
        // finds it. The role is asked for last: whoever was the primary afterwards was it before.
        let (lease, epoch, time, role) = tokio::join!(
            biased;
            self.renew(&progress),
            self.ask("GET", epoch),
            self.ask("TIME", Vec::new()),
            self.ask("ROLE", Vec::new()),
        );
        let (epoch, time, role) = (epoch?, time?, role?);
        if first_word(&role).as_deref() != Some("master") {
            return Err(StoreError::new(
                StoreErrorKind::NotPrimary,
                "the server is not a primary, but a replica",
            ));
        }
        let doubt = self.store.tracker.observe_value(
            EpochSource::Feed,
            self.shard,
            known.as_ref(),
            epoch.as_bytes(),
        )?;
        let epoch = epoch.as_bytes().and_then(|value| schema::Epoch::parse(value).ok());
        let epoch = epoch.ok_or_else(|| unexpected_reply("redis"))?;
        let time = parse_time(&time).ok_or_else(|| unexpected_reply("redis"))?;
        let uncounted = self.heed_lease(lease, progress.epoch).await?;
        self.time = Some(time);
        Ok(Heartbeat {
            epoch: epoch.id,
            seq: epoch.seq,
            time,
            horizon: doubt.horizon,
            lifted: doubt.lifted,
            uncounted,
        })
    }

    async fn tail(&mut self) -> Result<LogId, StoreError> {
        let mut arguments = vec![self.names().log.clone()];
        arguments.extend(["+", "-", "COUNT", "1"].map(Bytes::from));
        let Value::Array(entries) = self.ask("XREVRANGE", arguments).await? else {
            return Err(unexpected_reply("redis"));
        };
        let Some(Value::Array(entry)) = entries.first() else { return Ok(LogId::default()) };
        entry.first().and_then(parse_id).ok_or_else(|| unexpected_reply("redis"))
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        let index = vec![self.names().index.clone()];
        match self.ask("ZCARD", index).await? {
            Value::Integer(count) => Ok(u64::try_from(count).unwrap_or(0)),
            _ => Err(unexpected_reply("redis")),
        }
    }

    /// First the index, then the tombstones; the lowest bit of the cursor tells which.
    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        let cursor = cursor.unwrap_or(0);
        let reply = match self.ahead.take() {
            Some((at, reply)) if at == cursor => reply.await.map_err(super::ask::broken)??,
            _ => scan(self.connection()?, self.names(), cursor).await?,
        };
        let Value::Array(reply) = reply else { return Err(unexpected_reply("redis")) };
        let [position, Value::Array(members)] = reply.as_slice() else {
            return Err(unexpected_reply("redis"));
        };
        let position: u64 = position
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| unexpected_reply("redis"))?;
        let is_index = cursor & 1 == 0;
        let next = match position {
            0 => is_index.then_some(1),
            position => Some(position << 1 | cursor & 1),
        };
        if let Some(next) = next {
            let (connection, keys, shard) =
                (Arc::clone(self.connection()?), Arc::clone(&self.store.keys), self.shard);
            self.ahead = Some((
                next,
                tokio::spawn(async move { scan(&connection, keys.shard(shard), next).await }),
            ));
        }
        let mut facts = Vec::with_capacity(members.len() / 2);
        let mut unread = Vec::new();
        for pair in members.chunks_exact(2) {
            let [member, until] = pair else { continue };
            let member = member.as_bytes().ok_or_else(|| unexpected_reply("redis"))?;
            let member = if is_index {
                IndexMember::parse(member)
            } else {
                <[u8; 16]>::try_from(member)
                    .map(|bytes| IndexMember {
                        class: IndexClass::Read,
                        fingerprint: Fingerprint::from_bytes(bytes),
                    })
                    .map_err(|_| schema::Unreadable)
            };
            let member = member.map_err(|_| unexpected_reply("redis"))?;
            match member.class {
                IndexClass::All => {
                    let until = parse_score(until).ok_or_else(|| unexpected_reply("redis"))?;
                    facts.push((member.fingerprint, Fact::revoked_until(until)));
                }
                IndexClass::Read => unread.push(member.fingerprint),
            }
        }
        let read = self.records(&unread).await?;
        facts.extend(unread.into_iter().zip(read).filter_map(|(name, fact)| Some((name, fact?))));
        Ok(SnapshotPage { facts, next })
    }

    async fn find(
        &mut self,
        fingerprints: &[Fingerprint],
    ) -> Result<Vec<Option<Fact>>, StoreError> {
        self.records(fingerprints).await
    }

    async fn read(&mut self, after: LogId, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let mut arguments =
            vec![Bytes::from_static(b"COUNT"), Bytes::from_static(ENTRIES.as_bytes())];
        // Zero would be for ever.
        if wait >= Duration::from_millis(1) {
            arguments.extend([Bytes::from_static(b"BLOCK"), wait.as_millis().to_string().into()]);
        }
        let id = format!("{}-{}", after.ms, after.n);
        arguments.extend([Bytes::from_static(b"STREAMS"), self.names().log.clone(), id.into()]);
        let reply = self.connection()?.ask("XREAD", arguments, wait + LIMIT).await?;
        parse_entries(&reply).ok_or_else(|| unexpected_reply("redis"))
    }

    async fn restore(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        self.store.restore(self.shard, facts).await
    }

    async fn lift(&mut self, lift: Lift) -> Result<bool, StoreError> {
        self.store.lift(self.shard, lift).await
    }

    fn owns(&self, fingerprint: &Fingerprint) -> bool {
        self.store.keys.shard_of(fingerprint) == self.shard
    }

    async fn leave(&mut self) {
        let (lease, index) = (self.names().lease(self.id), self.names().mirrors.clone());
        // If it cannot be said, the lease ends by itself.
        let _ = tokio::join!(
            self.ask("DEL", vec![lease]),
            self.ask("ZREM", vec![index, self.id.print()])
        );
        self.drop_connection();
    }
}

impl RedisFeed {
    /// What came of the lease: why there is none, if Redis is there but does not let us write.
    async fn heed_lease(
        &mut self,
        lease: Result<bool, StoreError>,
        epoch: u64,
    ) -> Result<Option<StoreError>, StoreError> {
        let is_new = match lease {
            Ok(is_new) => is_new,
            Err(error) => {
                let is_refused = matches!(
                    error.kind(),
                    StoreErrorKind::Denied | StoreErrorKind::Full | StoreErrorKind::Replicas
                );
                return if is_refused { Ok(Some(error)) } else { Err(error) };
            }
        };
        let hour = self.time.map(|time| time.as_millis() / HOUR * HOUR);
        if epoch != 0
            && let Some(hour) = hour
            && (is_new || self.listed != Some(hour))
        {
            self.tend_index(hour).await?;
            self.listed = Some(hour);
        }
        Ok(None)
    }

    fn drop_connection(&mut self) {
        self.listed = None;
        if let Some((_, ahead)) = self.ahead.take() {
            ahead.abort();
        }
        if let Some(find) = self.find.take() {
            find.abort();
        }
        if let Some(connection) = self.connection.take() {
            connection.end();
        }
    }
}

impl Drop for RedisFeed {
    fn drop(&mut self) {
        self.drop_connection();
    }
}

async fn scan(
    connection: &Connection,
    names: &ShardKeys,
    cursor: u64,
) -> Result<Value, StoreError> {
    let key = if cursor & 1 == 0 { &names.index } else { &names.tombstones };
    let arguments = vec![
        key.clone(),
        (cursor >> 1).to_string().into(),
        Bytes::from_static(b"COUNT"),
        Bytes::from_static(PAGE.as_bytes()),
    ];
    connection.ask("ZSCAN", arguments, LIMIT).await
}

// === Replies ===

fn first_word(reply: &Value) -> Option<String> {
    let Value::Array(parts) = reply else { return None };
    parts.first().and_then(Value::as_string)
}

/// The reply to `TIME`: seconds and microseconds.
pub(super) fn parse_time(reply: &Value) -> Option<Timestamp> {
    let Value::Array(parts) = reply else { return None };
    let [secs, micros] = parts.as_slice() else { return None };
    let (secs, micros): (u64, u64) = (secs.as_str()?.parse().ok()?, micros.as_str()?.parse().ok()?);
    Some(Timestamp::from_millis(secs.checked_mul(1000)? + micros / 1000))
}

/// Scores are whole milliseconds below 2⁵³, which Redis prints as such or, when large, with an
/// exponent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn parse_score(score: &Value) -> Option<Timestamp> {
    let text = score.as_str()?;
    let millis = match text.parse() {
        Ok(millis) => millis,
        Err(_) => text.parse::<f64>().ok().filter(|n| (0.0..=9.1e15).contains(n))?.ceil() as u64,
    };
    Some(Timestamp::from_millis(millis))
}

fn parse_id(value: &Value) -> Option<LogId> {
    let text = value.as_str()?;
    let (ms, n) = text.split_once('-')?;
    Some(LogId { ms: ms.parse().ok()?, n: n.parse().ok()? })
}

/// The reply to `XREAD` of one stream.
fn parse_entries(reply: &Value) -> Option<Vec<LogEntry>> {
    if reply.is_null() {
        return Some(Vec::new());
    }
    let Value::Array(streams) = reply else { return None };
    let [Value::Array(stream)] = streams.as_slice() else { return None };
    let [_, Value::Array(entries)] = stream.as_slice() else { return None };
    entries.iter().map(parse_entry).collect()
}

fn parse_entry(entry: &Value) -> Option<LogEntry> {
    let Value::Array(entry) = entry else { return None };
    let [id, Value::Array(fields)] = entry.as_slice() else { return None };
    let field = |wanted: &[u8]| {
        fields.chunks_exact(2).find_map(|pair| match pair {
            [name, value] if name.as_bytes() == Some(wanted) => value.as_bytes(),
            _ => None,
        })
    };
    let text = |wanted: &[u8]| field(wanted).and_then(|value| std::str::from_utf8(value).ok());
    let mut numbers =
        text(b"n")?.split(' ').map(|word| word.parse().map(Timestamp::from_millis).ok());
    let mut next = || numbers.next().flatten();
    let fact = Fact {
        all: next()?,
        cutoff: next()?,
        cutoff_set: next()?,
        reinstated: next()?,
        until: next()?,
    };
    Some(LogEntry {
        id: parse_id(id)?,
        epoch: u64::from_str_radix(text(b"e")?, 16).ok()?,
        seq: text(b"s")?.parse().ok()?,
        fingerprint: Fingerprint::from_bytes(<[u8; 16]>::try_from(field(b"f")?).ok()?),
        fact,
    })
}

impl fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFeed")
            .field("shard", &self.shard)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
