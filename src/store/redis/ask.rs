//! What goes over the wire: the check, the write, the look-ups, and the maintenance, who begins and
//! prolongs epochs.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::FutureExt as _;
use futures::future::join_all;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep};

use super::connection::{code_of, unexpected_reply};
use super::epoch::KnownEpoch;
use super::options::ConnectError;
use super::schema::{self, IndexMember, LAYOUT};
use super::script::{self, LuaScript, ScriptContext, ScriptReply};
use super::supervised::{Permit, SupervisedConnection};
use super::{StoreInner, random};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::config::ConfigError;
use crate::revocation::{Fingerprint, Record, Revocation};
use crate::store::feed::{Fact, Lift};
use crate::store::{
    Cursor, Fence, ListQuery, Lookup, Page, Receipt, Standing, StoreError, StoreErrorKind,
};
use crate::verified::VerifiedToken;

/// How many writes and look-ups may be under way at once.
pub(super) const MAX_WRITES: usize = 1024;
/// How many changes one run of the script takes: Redis does nothing else meanwhile.
const CHUNK: usize = 128;
/// How soon a write is tried again while its connection is down.
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// How many shards are seen to at once.
const TOUCHES: usize = 64;
/// How often the expiry of the keys without an end of their own is put off.
const TOUCH_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// How long the maintenance rests after each round: the first is for one that went well, then it
/// doubles with each that did not. Every check rings for it while an epoch is missing, however often
/// its script is refused.
const RESTS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

// === The check ===

impl StoreInner {
    pub(super) fn check(self: &Arc<Self>, token: &Arc<VerifiedToken>) -> Lookup {
        if token.targets().is_empty() {
            let nothing = "the token has nothing by which it could be revoked";
            return Lookup::Now(Err(StoreError::new(StoreErrorKind::InvalidInput, nothing)));
        }
        let (inner, token) = (Arc::clone(self), Arc::clone(token));
        if let [checks] = &*self.checks {
            return match checks.acquire() {
                Ok(permit) => {
                    Lookup::Later(async move { inner.ask(0, permit, token).await }.boxed())
                }
                Err(error) => Lookup::Now(Err(error)),
            };
        }
        let mut permits = Vec::with_capacity(token.targets().len());
        let mut failure = None;
        for (n, checks) in self.checks.iter().enumerate() {
            if !checks.keeps(&token) {
                continue;
            }
            match checks.acquire() {
                Ok(permit) => permits.push((n, permit)),
                // The other shards are asked all the same: one of them may know that the token is
                // revoked.
                Err(error) => failure = Some(error),
            }
        }
        Lookup::Later(
            async move {
                let ask = |(n, permit)| inner.ask(n, permit, Arc::clone(&token));
                let mut answers: FuturesUnordered<_> = permits.into_iter().map(ask).collect();
                while let Some(answer) = answers.next().await {
                    match answer {
                        Ok(revoked @ Standing::Revoked(_)) => return Ok(revoked),
                        Ok(Standing::Live | Standing::WasLive { .. }) => {}
                        Err(error) => failure = Some(error),
                    }
                }
                failure.map_or(Ok(Standing::Live), Err)
            }
            .boxed(),
        )
    }

    /// What the shards behind one checks know of a token.
    async fn ask(
        &self,
        checks: usize,
        permit: Permit,
        token: Arc<VerifiedToken>,
    ) -> Result<Standing, StoreError> {
        match self.checks.get(checks) {
            Some(checks) => checks.ask(permit, token).await,
            None => Err(unexpected_reply("redis")),
        }
    }
}

pub(super) fn read_record(value: &Value, fingerprint: &Fingerprint) -> Result<Record, StoreError> {
    value
        .as_bytes()
        .and_then(|value| schema::parse_record(value).ok())
        .filter(|record| record.target().is_known_as(fingerprint))
        .ok_or_else(|| {
            StoreError::new(
                StoreErrorKind::Protocol,
                "a record in redis is unreadable: another program, or another version of this one, \
                 uses the prefix",
            )
        })
}

#[expect(
    clippy::indexing_slicing,
    reason = "there is one connection for all shards, or one for each"
)]
fn link_of(links: &[SupervisedConnection], shard: u16) -> &SupervisedConnection {
    &links[usize::from(shard) % links.len()]
}

// === The write ===

impl StoreInner {
    pub(super) async fn write(&self, changes: Vec<Revocation>) -> Result<Vec<Receipt>, StoreError> {
        let mut shards: BTreeMap<u16, Vec<(usize, &Revocation)>> = BTreeMap::new();
        for (n, change) in changes.iter().enumerate() {
            shards
                .entry(self.keys.shard_of(&change.target.fingerprint()))
                .or_default()
                .push((n, change));
        }
        let written = join_all(shards.into_iter().map(|(shard, changes)| async move {
            let mut receipts = Vec::with_capacity(changes.len());
            for chunk in changes.chunks(CHUNK) {
                let only: Vec<_> = chunk.iter().map(|(_, change)| *change).collect();
                let confirmed = self.run(shard, &only).await?;
                receipts.extend(chunk.iter().map(|(n, _)| *n).zip(confirmed));
            }
            Ok(receipts)
        }))
        .await;
        let mut receipts = Vec::with_capacity(changes.len());
        for shard in written {
            receipts.extend(shard?);
        }
        receipts.sort_unstable_by_key(|(n, _)| *n);
        Ok(receipts.into_iter().map(|(_, receipt)| receipt).collect())
    }

    /// Runs the script once, with any number of changes for one shard.
    async fn run(&self, shard: u16, changes: &[&Revocation]) -> Result<Vec<Receipt>, StoreError> {
        let arguments = |known: Option<&KnownEpoch>| {
            script::arguments(&self.keys, shard, &self.context(known), changes)
        };
        let sent =
            self.send_knowing(shard, StoreCommand::Script(&script::WRITE), arguments).await?;
        let replicas = sent.replicas;
        let reply = self.read_reply(shard, sent, changes.len())?;
        let receipt = |change: &script::ChangeReply| Receipt {
            outcome: change.outcome,
            at: change.at,
            reissue_at: change.cutoff.map(|cutoff| cutoff.saturating_add(Duration::from_millis(1))),
            fence: Some(Fence { shard, epoch: reply.epoch.id, seq: change.seq }),
            replicas,
        };
        Ok(reply.changes.iter().map(receipt).collect())
    }

    /// Begins or prolongs the epoch of a shard. Waits for no replicas: nobody was promised anything,
    /// and they would hold up the writes that come after it on the connection.
    async fn touch(&self, shard: u16) -> Result<(), StoreError> {
        let arguments = |known: Option<&KnownEpoch>| {
            script::arguments(&self.keys, shard, &self.context(known), &[])
        };
        let sent =
            self.send_knowing(shard, StoreCommand::Script(&script::TOUCH), arguments).await?;
        self.read_reply(shard, sent, 0).map(drop)
    }

    /// Writes facts that redis has lost, for one shard, as they are.
    pub(super) async fn restore(
        &self,
        shard: u16,
        facts: &[(Fingerprint, Fact)],
    ) -> Result<(), StoreError> {
        for facts in facts.chunks(CHUNK) {
            let arguments = |known: Option<&KnownEpoch>| {
                script::restoring(&self.keys, shard, &self.context(known), facts)
            };
            let sent =
                self.send_knowing(shard, StoreCommand::Script(&script::WRITE), arguments).await?;
            self.read_reply(shard, sent, facts.len())?;
        }
        Ok(())
    }

    /// Lifts a horizon, unless the script knows better; says whether there is none any more.
    pub(super) async fn lift(&self, shard: u16, lift: Lift) -> Result<bool, StoreError> {
        let arguments = |known: Option<&KnownEpoch>| {
            let context = ScriptContext { lift: Some(lift), ..self.context(known) };
            script::arguments(&self.keys, shard, &context, &[])
        };
        let sent =
            self.send_knowing(shard, StoreCommand::Script(&script::WRITE), arguments).await?;
        let now = self.read_reply(shard, sent, 0)?.epoch;
        Ok(now.id == lift.epoch && now.horizon == Timestamp::ZERO)
    }

    fn context(&self, known: Option<&KnownEpoch>) -> ScriptContext {
        ScriptContext {
            new_epoch: random::bits().max(1),
            known: known.map(KnownEpoch::for_script),
            lift: None,
            doubt_duration: self.tracker.doubt_duration(),
            log_length: self.settings.log_length,
        }
    }

    fn read_reply(
        &self,
        shard: u16,
        sent: CommandReply,
        changes: usize,
    ) -> Result<ScriptReply, StoreError> {
        let parts = bytes_of(sent.reply)?;
        let reply =
            ScriptReply::parse(&parts, changes).map_err(|_| unexpected_reply("the script"))?;
        // The changes are in force. What the epoch means for tokens is decided at each check.
        let _ = self.tracker.observe_script_reply(shard, sent.known.as_ref(), reply.epoch);
        Ok(reply)
    }

    /// Sends a command over the connection for writes, again if that is lost, until the time is
    /// over. All that is sent here is safe to repeat.
    pub(super) async fn send(
        &self,
        shard: u16,
        command: StoreCommand,
        arguments: Vec<Bytes>,
    ) -> Result<(Value, Option<u32>), StoreError> {
        let sent = self.send_knowing(shard, command, |_| arguments.clone()).await?;
        Ok((sent.reply, sent.replicas))
    }

    /// The same, with arguments for what is known of the epoch. They are made anew for each attempt:
    /// one that comes late with what was known at first could begin an epoch where data was lost that
    /// this process knew of.
    pub(super) async fn send_knowing(
        &self,
        shard: u16,
        command: StoreCommand,
        arguments: impl Fn(Option<&KnownEpoch>) -> Vec<Bytes>,
    ) -> Result<CommandReply, StoreError> {
        let connection = link_of(&self.writes, shard);
        let known_arguments = || {
            let known = self.tracker.known(shard);
            let arguments = arguments(known.as_deref());
            (known, arguments)
        };
        self.send_over(|| connection.acquire(), command, known_arguments).await
    }

    /// The same, over whichever connection there is at each attempt.
    pub(super) async fn send_over(
        &self,
        acquire: impl Fn() -> Result<Permit, StoreError>,
        command: StoreCommand,
        arguments: impl Fn() -> (Option<Arc<KnownEpoch>>, Vec<Bytes>),
    ) -> Result<CommandReply, StoreError> {
        let deadline = Instant::now() + self.settings.write_timeout;
        let mut is_cached = true;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let attempt = match acquire() {
                Ok(permit) => {
                    let (known, arguments) = arguments();
                    let answer = self.attempt(&permit, command, is_cached, arguments, limit).await;
                    answer.map(|(reply, replicas)| CommandReply { known, reply, replicas })
                }
                Err(error) => Err(error),
            };
            let error = match attempt {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            let is_missing = is_cached
                && matches!(command, StoreCommand::Script(_))
                && code(&error) == "NOSCRIPT";
            let is_passing = matches!(
                error.kind(),
                StoreErrorKind::Unreachable
                    | StoreErrorKind::Loading
                    | StoreErrorKind::NotPrimary
                    | StoreErrorKind::Cluster
            );
            if is_missing {
                is_cached = false;
            } else if is_passing && Instant::now() + TRY_AGAIN < deadline {
                sleep(TRY_AGAIN).await;
            } else {
                return Err(error);
            }
        }
    }

    async fn attempt(
        &self,
        permit: &Permit,
        command: StoreCommand,
        is_cached: bool,
        arguments: Vec<Bytes>,
        limit: Duration,
    ) -> Result<(Value, Option<u32>), StoreError> {
        let script = match command {
            StoreCommand::Script(script) => script,
            StoreCommand::Plain(name) => {
                let arguments = arguments.into_iter().map(Value::Bytes).collect();
                return Ok((permit.command(name, arguments, limit).await?, None));
            }
        };
        let (name, text) =
            if is_cached { ("EVALSHA", script.sha) } else { ("EVAL", script.source) };
        let arguments = std::iter::once(Bytes::from_static(text.as_bytes())).chain(arguments);
        let reply = permit.command(name, arguments.map(Value::Bytes).collect(), limit).await?;
        let replicas =
            if script.writes { self.wait_for_replicas(permit, limit).await? } else { None };
        Ok((reply, replicas))
    }

    /// Must be asked on the connection of the write.
    async fn wait_for_replicas(
        &self,
        permit: &Permit,
        limit: Duration,
    ) -> Result<Option<u32>, StoreError> {
        let Some(wait) = self.settings.wait_replicas else { return Ok(None) };
        let millis = i64::try_from(wait.limit.as_millis()).unwrap_or(i64::MAX);
        let arguments = vec![Value::Integer(wait.replicas.get().into()), Value::Integer(millis)];
        let Value::Integer(reached) = permit.command("WAIT", arguments, limit).await? else {
            return Err(unexpected_reply("redis"));
        };
        let reached = u32::try_from(reached).map_err(|_| unexpected_reply("redis"))?;
        if reached < wait.replicas.get() {
            return Err(StoreError::new(
                StoreErrorKind::Replicas,
                format!(
                    "only {reached} of {} replicas confirmed the write; it is in force and may be \
                     repeated",
                    wait.replicas
                ),
            ));
        }
        Ok(Some(reached))
    }
}

/// What came back.
pub(super) struct CommandReply {
    /// What was known of the epoch when the command was sent.
    pub(super) known: Option<Arc<KnownEpoch>>,
    pub(super) reply: Value,
    /// How many replicas have confirmed it, if they were waited for.
    pub(super) replicas: Option<u32>,
}

/// What is sent for a write or a look-up.
#[derive(Clone, Copy)]
pub(super) enum StoreCommand {
    /// A script.
    Script(&'static LuaScript),
    /// A command of Redis that only reads.
    Plain(&'static str),
}

/// The first word of the error that Redis gave, if it was Redis.
pub(super) fn code(error: &StoreError) -> &str {
    error
        .source()
        .and_then(|source| source.downcast_ref::<fred::error::Error>())
        .map_or("", |error| code_of(error.details()))
}

fn bytes_of(value: Value) -> Result<Vec<Bytes>, StoreError> {
    let Value::Array(values) = value else { return Err(unexpected_reply("redis")) };
    values
        .into_iter()
        .map(|value| value.into_bytes().ok_or_else(|| unexpected_reply("redis")))
        .collect()
}

/// A task of ours that did not come to its end: the runtime is shutting down.
pub(super) fn broken(error: tokio::task::JoinError) -> StoreError {
    StoreError::new(StoreErrorKind::Other, "the task of the write did not end").with_source(error)
}

// === The look-ups ===

impl StoreInner {
    pub(super) async fn find(
        &self,
        fingerprint: &Fingerprint,
    ) -> Result<Option<Record>, StoreError> {
        let shard = self.keys.shard_of(fingerprint);
        let key = self.keys.shard(shard).record(fingerprint);
        match self.send(shard, StoreCommand::Plain("GET"), vec![key]).await? {
            (Value::Null, _) => Ok(None),
            (value, _) => read_record(&value, fingerprint).map(Some),
        }
    }

    pub(super) async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let (shard, position) = match &query.cursor {
            Some(cursor) => self.parse_cursor(cursor)?,
            None => (0, 0),
        };
        let keys = self.keys.shard(shard);
        let arguments = vec![
            keys.index.clone(),
            position.to_string().into(),
            Bytes::from_static(b"COUNT"),
            query.page_size().to_string().into(),
        ];
        let (Value::Array(reply), _) =
            self.send(shard, StoreCommand::Plain("ZSCAN"), arguments).await?
        else {
            return Err(unexpected_reply("redis"));
        };
        let [position, Value::Array(members)] = reply.as_slice() else {
            return Err(unexpected_reply("redis"));
        };
        let position: u64 = position
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| unexpected_reply("redis"))?;
        let mut fingerprints = Vec::with_capacity(members.len() / 2);
        for pair in members.chunks(2) {
            let member = pair
                .first()
                .and_then(Value::as_bytes)
                .and_then(|member| IndexMember::parse(member).ok());
            fingerprints.push(member.ok_or_else(|| unexpected_reply("redis"))?.fingerprint);
        }
        let next = match (position, shard + 1) {
            (0, next) if next == self.keys.shards() => None,
            (0, next) => Some((next, 0)),
            (position, _) => Some((shard, position)),
        };
        Ok(Page {
            records: self.read_page(shard, &fingerprints, query).await?,
            next: next.map(|(shard, position)| Cursor::from_text(format!("{shard}:{position}"))),
        })
    }

    async fn read_page(
        &self,
        shard: u16,
        fingerprints: &[Fingerprint],
        query: &ListQuery,
    ) -> Result<Vec<Record>, StoreError> {
        if fingerprints.is_empty() {
            return Ok(Vec::new());
        }
        let keys = fingerprints
            .iter()
            .map(|fingerprint| self.keys.shard(shard).record(fingerprint))
            .collect();
        let (Value::Array(values), _) = self.send(shard, StoreCommand::Plain("MGET"), keys).await?
        else {
            return Err(unexpected_reply("redis"));
        };
        let mut records = Vec::with_capacity(values.len());
        for (value, fingerprint) in values.iter().zip(fingerprints) {
            // The index forgets later than the record expires, and a record may have been
            // reinstated meanwhile.
            if !value.is_null() {
                let record = read_record(value, fingerprint)?;
                if record.is_in_effect() && query.admits(&record) {
                    records.push(record);
                }
            }
        }
        Ok(records)
    }

    fn parse_cursor(&self, cursor: &Cursor) -> Result<(u16, u64), StoreError> {
        let text = cursor.to_string();
        text.split_once(':')
            .and_then(|(shard, position)| Some((shard.parse().ok()?, position.parse().ok()?)))
            .filter(|(shard, _)| *shard < self.keys.shards())
            .ok_or_else(|| {
                StoreError::new(
                    StoreErrorKind::InvalidInput,
                    "the cursor was not given out by this redis store",
                )
            })
    }

    pub(super) async fn count(&self) -> Result<u64, StoreError> {
        let after = format!("({}", SystemClock.now().as_millis());
        let mut total = 0;
        for shard in 0..self.keys.shards() {
            let index = self.keys.shard(shard).index.clone();
            let arguments = vec![index, after.clone().into(), Bytes::from_static(b"+inf")];
            match self.send(shard, StoreCommand::Plain("ZCOUNT"), arguments).await? {
                (Value::Integer(count), _) => total += u64::try_from(count).unwrap_or(0),
                _ => return Err(unexpected_reply("redis")),
            }
        }
        Ok(total)
    }
}

// === The maintenance ===

impl StoreInner {
    /// Waits until Redis can be used, begins the epochs and checks that the layout is ours.
    pub(super) async fn begin(
        &self,
        at_once: bool,
        last: &mut StoreError,
    ) -> Result<(), ConnectError> {
        let mut health = self.health.subscribe();
        loop {
            let now = health.borrow_and_update().clone();
            if let Some(error) = now.error() {
                *last = error.clone();
                // A password does not become right by waiting.
                if at_once || error.kind() == StoreErrorKind::Denied {
                    return Err(ConnectError::Store(last.clone()));
                }
            } else if now.is_up() {
                break;
            }
            if health.changed().await.is_err() {
                return Err(ConnectError::Store(last.clone()));
            }
        }
        for shard in 0..self.keys.shards() {
            while let Err(error) = self.touch(shard).await {
                match (error.kind(), code(&error)) {
                    (_, "LAYOUT") => return Err(self.wrong_layout(&error).into()),
                    (StoreErrorKind::Denied, _) => {
                        // A process that only checks may do without the rights to write, if others
                        // have begun.
                        tracing::warn!(%error, "redis cannot be written to; revocations of this \
                            process will fail");
                        break;
                    }
                    _ if at_once => return Err(ConnectError::Store(error)),
                    _ => *last = error,
                }
                sleep(TRY_AGAIN).await;
            }
        }
        Ok(())
    }

    fn wrong_layout(&self, error: &StoreError) -> ConfigError {
        let held = error.to_string();
        let held = held.split_once("LAYOUT ").map_or(held.as_str(), |(_, held)| held);
        ConfigError::new(
            "shards",
            format!(
                "redis holds {held} under the prefix {}, this program uses version {LAYOUT} with \
                 {} shards; set the same number in all programs, or another prefix",
                self.settings.prefix,
                self.keys.shards(),
            ),
        )
    }
}

/// Runs the script without changes whenever an epoch has to begin or a horizon to be published, and
/// now and then to put off the expiry of its keys.
pub(super) async fn maintenance(inner: Weak<StoreInner>) {
    let Some(tracker) = inner.upgrade().map(|inner| Arc::clone(&inner.tracker)) else { return };
    let [shortest, longest] = RESTS;
    let mut rest = shortest;
    let mut has_failed = false;
    loop {
        let pause = if has_failed { rest } else { TOUCH_EVERY };
        tokio::select! {
            () = tracker.maintenance_due.notified(), if !has_failed => {}
            () = sleep(pause.mul_f64(0.5 + random::fraction() / 2.0)) => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        // Not in turn: where a node of a cluster is dead, each of its shards takes all the time
        // that a write has.
        let shards = stream::iter(0..inner.keys.shards());
        let touched = shards.map(|shard| inner.touch(shard)).buffer_unordered(TOUCHES);
        let failure = touched.collect::<Vec<_>>().await.into_iter().find_map(Result::err);
        drop(inner);
        if let Some(error) = failure {
            if !has_failed {
                tracing::warn!(%error, "the epoch of the store in redis could not be prolonged; \
                    trying on");
            }
            has_failed = true;
            rest = (rest * 2).min(longest);
        } else {
            has_failed = false;
            rest = shortest;
            sleep(rest).await;
        }
    }
}
