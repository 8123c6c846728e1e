//! [`RedisFeed`]: the log of one shard, for a mirror.
//!
//! It has a connection of its own, because `XREAD` blocks it. Every command has a deadline. After a
//! failure the mirror connects again, to the server that is the primary then.

mod page;
mod parse;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::page::PageSize;
use self::parse::{parse_entries, parse_id, parse_score};
use super::command::task_failed;
use super::connection::{Connection, is_write_refused, unexpected_reply, unreachable};
use super::core::StoreCore;
use super::epoch::{EpochSource, ReadFrom};
use super::log_check::check_log;
use super::random;
use super::reply::read_time;
use super::role::RoleProbe;
use super::schema::{self, IndexClass, IndexMember, MirrorId, MirrorLease, ShardKeys};
use super::store::RedisStore;
use super::topology::{ProvedPrimary, is_moving};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::{Fact, Fingerprint};
use crate::store::feed::{EndDoubt, Feed, FeedSource, Heartbeat, LogEntry, Progress, SnapshotPage};
use crate::store::{StoreError, StoreErrorKind};

/// How long a reply may take; for a command that waits, in addition to its wait.
const LIMIT: Duration = Duration::from_millis(500);
/// The timeout of fred itself; larger than every deadline here. A command that meets it costs the
/// connection.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// How long a read waits at most, however long it was asked to: its deadline comes before that of
/// fred.
const LONGEST_WAIT: Duration = COMMAND_LIMIT.saturating_sub(LIMIT.saturating_mul(2));
/// How exactly the index says when a mirror was last heard of. A score that does not change costs
/// Redis nothing.
const HOUR: u64 = 60 * 60 * 1000;
/// How long the index keeps a mirror that is not heard of any more, in milliseconds. The leases
/// decide who is waited for.
const REMEMBERED: u64 = 24 * HOUR;
/// How often the log is read while it is at the node to which its slot is being moved.
const MOVING_PAUSE: Duration = Duration::from_millis(20);
/// How many entries of the log are read at once.
const ENTRIES: &str = "1000";

/// The log of one shard of a [`RedisStore`](super::RedisStore), made by
/// [`Mirror::builder`](crate::Mirror::builder).
#[expect(
    unnameable_types,
    reason = "whoever needs its name has `<RedisStore as FeedSource>::Feed`"
)]
pub struct RedisFeed {
    core: Arc<StoreCore>,
    shard: u16,
    id: MirrorId,
    connection: Option<Arc<Connection>>,
    role: RoleProbe,
    /// The latest time by the clock of Redis.
    time: Option<Timestamp>,
    /// The hour that the index was given on this connection.
    listed: Option<u64>,
    /// The next page of a snapshot, requested while the last one is being read.
    ahead: Option<(u64, JoinHandle<Result<Scanned, StoreError>>)>,
    /// Which server is proved to be the primary.
    proofs: Option<watch::Receiver<Option<ProvedPrimary>>>,
}

/// A page of the index, or of the tombstones, as Redis has answered it.
struct Scanned {
    reply: Value,
    next_size: PageSize,
}

impl FeedSource for RedisStore {
    type Feed = RedisFeed;

    fn feeds(&self) -> Result<Vec<RedisFeed>, ConfigError> {
        if self.foreign.is_some() {
            return Err(ConfigError::new(
                "foreign_list",
                "is served in direct mode only: what other programs write is in no log that a \
                 mirror could follow; use the store without a mirror, or import the list and \
                 remove it",
            ));
        }
        let feed = |shard| RedisFeed::new(Arc::clone(&self.core), shard);
        Ok((0..self.core.keys.shards()).map(feed).collect())
    }
}

impl RedisFeed {
    fn new(core: Arc<StoreCore>, shard: u16) -> Self {
        Self {
            core,
            shard,
            id: MirrorId(random::bits()),
            connection: None,
            role: RoleProbe::default(),
            time: None,
            listed: None,
            ahead: None,
            proofs: None,
        }
    }

    fn names(&self) -> &ShardKeys {
        self.core.keys.shard(self.shard)
    }

    fn connection(&self) -> Result<&Arc<Connection>, StoreError> {
        self.connection
            .as_ref()
            .filter(|connection| !connection.is_closed())
            .ok_or_else(|| unreachable("not connected to redis"))
    }

    /// Sends a command, also where the slot of the key is being moved.
    async fn ask(&self, command: &'static str, arguments: Vec<Bytes>) -> Result<Value, StoreError> {
        let arguments = arguments.into_iter().map(Value::Bytes).collect();
        let topology = &self.core.topology;
        topology.command_for_key(self.connection()?, command, arguments, LIMIT).await
    }

    async fn check_role(&self) -> Result<(), StoreError> {
        self.role.check(self.connection()?, Some(&self.names().trial), LIMIT).await
    }

    /// A server that was replaced may still take itself for a primary. That it is proved to be one
    /// is looked at with each answer.
    fn check_proof(&self) -> Result<(), StoreError> {
        let connection = self.connection()?;
        match self.proofs.as_ref().and_then(|proofs| proofs.borrow().clone()) {
            Some(primary) if !primary.leads_to(connection) => Err(StoreError::new(
                StoreErrorKind::NotPrimary,
                "another server is proved to be the primary",
            )),
            _ => Ok(()),
        }
    }

    /// Renews the lease of a mirror that follows an epoch, and its entry in the index. Says whether
    /// the entry is new.
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
        // Not followed to where the slot is being moved: the epoch would be read before. Then there
        // is no lease, and checks go to the store.
        let connection = self.connection()?;
        let (set, add) = tokio::join!(
            biased;
            connection.command("SET", set, LIMIT),
            connection.command("ZADD", add, LIMIT),
        );
        match (set?, add?) {
            (Value::String(answer), Value::Integer(new)) if answer == "OK" => Ok(new > 0),
            _ => Err(unexpected_reply("redis")),
        }
    }

    /// Removes mirrors that were not heard of for long, and puts off the expiry of the index.
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

    /// The facts of the records, `None` where there is none.
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
                let value = value.as_bytes().unwrap_or_default();
                let record = schema::parse_record(value);
                record
                    .map(|record| Some(record.fact()))
                    .map_err(|_| schema::unreadable("a record", value))
            }
        };
        values.iter().map(read).collect()
    }
}

impl Feed for RedisFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.drop_connection();
        self.role.reset();
        let topology = &self.core.topology;
        let primary = topology.primary(self.slot()).await?;
        let connection = topology.connect(primary, COMMAND_LIMIT).await?;
        topology.confirm(self.slot(), &connection).await?;
        self.proofs = topology.follow(self.slot());
        self.connection = Some(Arc::new(connection));
        check_log(
            &self.core.topology,
            self.connection()?,
            &self.core.keys,
            &self.core.tracker,
            self.shard..self.shard + 1,
        )
        .await?;
        Ok(())
    }

    async fn heartbeat(&mut self, progress: Progress) -> Result<Heartbeat, StoreError> {
        self.check_proof()?;
        let known = self.core.tracker.known(self.shard);
        let epoch = vec![self.names().epoch.clone()];
        // One round trip, in this order. The lease comes first: a write that is not in the epoch
        // yet finds it. The role comes last: a server that is still the primary was it before.
        let (lease, epoch, time, role) = tokio::join!(
            biased;
            self.renew(&progress),
            self.ask("GET", epoch),
            self.ask("TIME", Vec::new()),
            self.check_role(),
        );
        let (epoch, time) = (epoch?, time?);
        role?;
        let doubt = self.core.tracker.observe_value(
            ReadFrom { source: EpochSource::Feed, server: self.connection()?.server_id().tag() },
            self.shard,
            known.as_ref(),
            epoch.as_bytes(),
        )?;
        let epoch = epoch.as_bytes().and_then(|value| schema::Epoch::parse(value).ok());
        let epoch = epoch.ok_or_else(|| unexpected_reply("redis"))?;
        let time = read_time(&time)?;
        let uncounted = self.check_lease(lease, progress.epoch).await?;
        self.time = Some(time);
        let mut heartbeat = Heartbeat::new(epoch.id, epoch.seq, time, doubt);
        heartbeat.carries_on = (epoch.parent != 0).then_some(epoch.parent);
        Ok(match uncounted {
            Some(reason) => heartbeat.without_lease(reason),
            None => heartbeat,
        })
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
        let mut arguments = vec![self.names().log.clone()];
        arguments.extend(["+", "-", "COUNT", "1"].map(Bytes::from));
        let Value::Array(entries) = self.ask("XREVRANGE", arguments).await? else {
            return Err(unexpected_reply("redis"));
        };
        let Some(Value::Array(entry)) = entries.first() else { return Ok(0) };
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
        let Scanned { reply, next_size } = match self.ahead.take() {
            Some((at, reply)) if at == cursor => reply.await.map_err(task_failed)??,
            _ => scan(self.connection()?, self.names(), cursor, PageSize::FIRST).await?,
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
                (Arc::clone(self.connection()?), Arc::clone(&self.core.keys), self.shard);
            self.ahead = Some((
                next,
                tokio::spawn(
                    async move { scan(&connection, keys.shard(shard), next, next_size).await },
                ),
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

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let xread = |wait| xread(&self.names().log, after, wait);
        let connection = self.connection()?;
        let (arguments, wait) = xread(wait);
        let reply = connection.waiting_command("XREAD", arguments, wait, wait + LIMIT).await;
        let reply = match reply {
            // The log was moved with its slot, to a node over whose connection others ask as well:
            // they must not wait for it.
            Err(error) if is_moving(&error) => {
                sleep(wait.min(MOVING_PAUSE)).await;
                self.ask("XREAD", xread(Duration::ZERO).0).await?
            }
            reply => reply?,
        };
        parse_entries(&reply).ok_or_else(|| unexpected_reply("redis"))
    }

    async fn replay(&mut self, facts: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        self.core.replay(self.shard, facts).await
    }

    async fn end_doubt(&mut self, request: EndDoubt) -> Result<bool, StoreError> {
        self.core.end_doubt(self.shard, request).await
    }

    fn owns(&self, fingerprint: &Fingerprint) -> bool {
        self.core.keys.shard_of(fingerprint) == self.shard
    }

    async fn leave(&mut self) {
        let (lease, index) = (self.names().lease(self.id), self.names().mirrors.clone());
        // If this fails, the lease ends by itself.
        let _ = tokio::join!(
            self.ask("DEL", vec![lease]),
            self.ask("ZREM", vec![index, self.id.print()])
        );
        self.drop_connection();
    }
}

impl RedisFeed {
    /// Checks the renewal of the lease: the error, if Redis can be used but refuses writes.
    async fn check_lease(
        &mut self,
        lease: Result<bool, StoreError>,
        epoch: u64,
    ) -> Result<Option<StoreError>, StoreError> {
        let is_new = match lease {
            Ok(is_new) => is_new,
            Err(error) => {
                return if is_write_refused(&error) { Ok(Some(error)) } else { Err(error) };
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
        self.proofs = None;
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }
}

impl Drop for RedisFeed {
    fn drop(&mut self) {
        self.drop_connection();
    }
}

/// The arguments of `XREAD`, and for how long it may make Redis wait.
fn xread(log: &Bytes, after: u128, wait: Duration) -> (Vec<Bytes>, Duration) {
    let wait = wait.min(LONGEST_WAIT);
    let mut arguments = vec![Bytes::from_static(b"COUNT"), Bytes::from_static(ENTRIES.as_bytes())];
    // `BLOCK 0` would wait without end.
    if wait >= Duration::from_millis(1) {
        let millis = wait.as_millis().to_string();
        arguments.extend([Bytes::from_static(b"BLOCK"), millis.into()]);
    }
    let id = format!("{}-{}", after >> 64, after & u128::from(u64::MAX));
    arguments.extend([Bytes::from_static(b"STREAMS"), log.clone(), id.into()]);
    (arguments, wait)
}

/// A page of about this size.
async fn scan(
    connection: &Connection,
    names: &ShardKeys,
    cursor: u64,
    size: PageSize,
) -> Result<Scanned, StoreError> {
    let key = if cursor & 1 == 0 { &names.index } else { &names.tombstones };
    let arguments = vec![
        key.clone(),
        (cursor >> 1).to_string().into(),
        Bytes::from_static(b"COUNT"),
        size.count().to_string().into(),
    ];
    let asked_at = Instant::now();
    let reply = connection.command("ZSCAN", arguments, LIMIT).await?;
    Ok(Scanned { reply, next_size: size.after(asked_at.elapsed()) })
}

impl fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFeed")
            .field("shard", &self.shard)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_ends_before_fred_gives_up_the_connection() {
        let sent = |wait| {
            let (arguments, wait) = xread(&Bytes::from_static(b"log"), (7 << 64) | 3, wait);
            let words = arguments.iter().map(|word| String::from_utf8_lossy(word).into_owned());
            (words.collect::<Vec<_>>().join(" "), wait)
        };
        // As idle mirrors ask that may be 100 ms or a minute behind, or as long as a mirror may.
        for wait in [25, 15_000, 900_000_000].map(Duration::from_millis) {
            let (words, limited) = sent(wait);
            assert!(limited + LIMIT < COMMAND_LIMIT, "{limited:?}");
            assert_eq!(limited, wait.min(Duration::from_secs(4)));
            let millis = limited.as_millis();
            assert_eq!(words, format!("COUNT 1000 BLOCK {millis} STREAMS log 7-3"));
        }
        assert_eq!(sent(Duration::ZERO).0, "COUNT 1000 STREAMS log 7-3");
    }
}
