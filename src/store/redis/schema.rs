//! What is kept in Redis: names of keys, and what their values look like. Pure.
//!
//! All keys of shard `k` begin with the prefix and carry the hash tag `{k}`, so a cluster keeps
//! them on one node:
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `prefix:{k}:r:<fingerprint>` | string | one [`Record`]. Expires when it may be forgotten |
//! | `prefix:{k}:e` | string | the [`Epoch`] of the shard: it changes with every loss of data |
//! | `prefix:{k}:i` | zset | what is in effect: class byte and raw fingerprint, by the time it may be forgotten |
//! | `prefix:{k}:b` | zset | what was reinstated: raw fingerprint, by the time it may be forgotten |
//! | `prefix:{k}:l` | stream | the latest writes, for mirrors |
//! | `prefix:{k}:m` | hash | layout version, number of shards, id of the epoch (`life`); id of the former one, its highest known `seq` (`reach`), and what was replayed (`healed`, `healed_to`) |
//! | `prefix:{k}:w` | zset | the mirrors: raw ids, by the hour in which they were last heard of |
//! | `prefix:{k}:w:<id>` | string | the [`MirrorLease`] of one mirror. Expires when no write has to wait for the mirror |
//! | `prefix:{k}:a:<fingerprint>` | stream | the latest audit events of a user, see the module `journal` |
//! | `prefix:{k}:q:<fingerprint>` | stream | the latest of those that requests bring about |
//! | `prefix:{k}:d:<fingerprint>` | string | one document of a session, a family, …, see the module `session` |
//! | `prefix:{0}:p` | zset | which targets layers accept, as JSON, by when they last said so; see the module `accepted` |
//! | `prefix:{k}:f:<fingerprint>` | string | the mark that an entry of a list of another program was written here, see the module `foreign` |
//! | `prefix:{k}:n` | zset | the sessions that are counted, by the time at which they end |
//!
//! Every key has an expiry: nothing stays behind when the last program that used it is gone.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint, Record, RecordNote, Target};
use crate::store::{Doubt, StoreError, StoreErrorKind};

/// The version of everything in this file and in the script. Another one is refused when the store
/// is opened.
pub(crate) const LAYOUT: u32 = 3;

/// The largest integer that scripts are given: up to it, integers are exact in the numbers of Lua.
/// It is also the latest time, in milliseconds.
pub(crate) const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The most shards. Each adds to every check at the start, and a cluster has no use for more.
pub(crate) const MAX_SHARDS: u16 = 1024;

/// A value in Redis that is not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// What to do where the data in Redis has another layout.
pub(crate) const LAYOUT_REMEDY: &str = "run one version of this crate on a prefix, or set another \
    prefix (JWT_REDIS_PREFIX) for this one";

/// Why a value cannot be read. Every value begins with the version of the layout in which it was
/// written.
pub(crate) fn unreadable(what: &str, value: &[u8]) -> StoreError {
    let held = Words::of(value).and_then(|mut words| words.number()).ok();
    let problem = match held.filter(|held| *held < 1000 && *held != u64::from(LAYOUT)) {
        Some(held) => format!(
            "{what} in redis has version {held} of the layout, this program reads version \
             {LAYOUT}: {LAYOUT_REMEDY}"
        ),
        None => format!("{what} in redis is unreadable: another program uses the prefix"),
    };
    StoreError::new(StoreErrorKind::Protocol, problem)
}

// === Keys ===

/// The names of all keys.
#[derive(Clone, Debug)]
pub(crate) struct RedisKeys {
    shards: Box<[ShardKeys]>,
}

/// The names of the keys of one shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardKeys {
    pub(crate) epoch: Bytes,
    pub(crate) meta: Bytes,
    pub(crate) index: Bytes,
    pub(crate) tombstones: Bytes,
    pub(crate) log: Bytes,
    pub(crate) mirrors: Bytes,
    pub(crate) writers: Bytes,
    /// Used of the first shard alone.
    pub(crate) accepted: Bytes,
    /// Never holds anything: for trials of access rights.
    pub(crate) trial: Bytes,
    record: Box<str>,
    lease: Box<str>,
    journal: Box<str>,
    request_journal: Box<str>,
    list_mark: Box<str>,
    #[cfg(feature = "sessions")]
    pub(crate) members: Bytes,
    #[cfg(feature = "sessions")]
    document: Box<str>,
}

impl RedisKeys {
    pub(crate) fn new(prefix: &str, shards: u16) -> Self {
        let shard = |k: u16| {
            let key = |name: &str| Bytes::from(format!("{prefix}:{{{k}}}:{name}"));
            ShardKeys {
                epoch: key("e"),
                meta: key("m"),
                index: key("i"),
                tombstones: key("b"),
                log: key("l"),
                mirrors: key("w"),
                writers: key("s"),
                accepted: key("p"),
                trial: key("t"),
                record: format!("{prefix}:{{{k}}}:r:").into(),
                lease: format!("{prefix}:{{{k}}}:w:").into(),
                journal: format!("{prefix}:{{{k}}}:a:").into(),
                request_journal: format!("{prefix}:{{{k}}}:q:").into(),
                list_mark: format!("{prefix}:{{{k}}}:f:").into(),
                #[cfg(feature = "sessions")]
                members: key("n"),
                #[cfg(feature = "sessions")]
                document: format!("{prefix}:{{{k}}}:d:").into(),
            }
        };
        Self { shards: (0..shards.max(1)).map(shard).collect() }
    }

    /// How many shards there are; never none.
    #[expect(clippy::cast_possible_truncation, reason = "made from a `u16`")]
    pub(crate) fn shards(&self) -> u16 {
        self.shards.len() as u16
    }

    /// The keys of a shard below [`shards`](Self::shards).
    #[expect(clippy::indexing_slicing, reason = "shard numbers come from this type")]
    pub(crate) fn shard(&self, shard: u16) -> &ShardKeys {
        &self.shards[usize::from(shard)]
    }

    pub(crate) fn shard_of(&self, fingerprint: &Fingerprint) -> u16 {
        let [first, second, ..] = *fingerprint.as_bytes();
        u16::from_be_bytes([first, second]) % self.shards()
    }
}

impl ShardKeys {
    pub(crate) fn record(&self, fingerprint: &Fingerprint) -> Bytes {
        let mut key = BytesMut::with_capacity(self.record_length());
        self.write_record(fingerprint, &mut key);
        key.freeze()
    }

    /// How long the key of a record is.
    pub(crate) fn record_length(&self) -> usize {
        self.record.len() + 32
    }

    /// Appends the key of a record.
    pub(crate) fn write_record(&self, fingerprint: &Fingerprint, out: &mut BytesMut) {
        out.put_slice(self.record.as_bytes());
        out.put_slice(&fingerprint.digits());
    }

    pub(crate) fn lease(&self, mirror: MirrorId) -> Bytes {
        format!("{}{:016x}", self.lease, mirror.0).into()
    }

    pub(crate) fn journal(&self, fingerprint: &Fingerprint) -> Bytes {
        format!("{}{fingerprint}", self.journal).into()
    }

    pub(crate) fn request_journal(&self, fingerprint: &Fingerprint) -> Bytes {
        format!("{}{fingerprint}", self.request_journal).into()
    }

    pub(crate) fn list_mark(&self, fingerprint: &Fingerprint) -> Bytes {
        format!("{}{fingerprint}", self.list_mark).into()
    }

    #[cfg(feature = "sessions")]
    pub(crate) fn document(&self, fingerprint: &Fingerprint) -> Bytes {
        format!("{}{fingerprint}", self.document).into()
    }
}

/// Whether a prefix can be part of keys and of the key patterns of access rules.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    (1..=64).contains(&prefix.len())
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte))
}

// === Epochs ===

/// The time between two losses of data or changes of server, see the module `epoch`.
///
/// Its value has these parts, with ids in hexadecimal digits and times in milliseconds:
///
/// ```text
/// 2 <id> <parent> <server> <started_at> <settling since> <awaited> <doubted until>
///   <doubt ends or ended at> <seq> <last entry>
/// ```
///
/// Without a parent, settling or doubt the numbers are 0. Of a doubt that has ended in this epoch
/// the second number remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    /// Random; never zero.
    pub(crate) id: u64,
    /// The epoch that this one carries on at another server; zero if it is the first, or has begun
    /// after a loss of data.
    pub(crate) parent: u64,
    /// The [tag](ServerId::tag) of the server that has begun it. At any other server it may be out
    /// of date.
    pub(crate) server: u64,
    /// When it began, by the clock of Redis.
    pub(crate) started_at: Timestamp,
    /// Whether what its server does not have is still being put back.
    pub(crate) settling: Option<SettlingState>,
    /// Which tokens may have been revoked before it began, without their records being there.
    pub(crate) doubt: Doubt,
    /// When the doubt of this epoch was ended, because everything had been written again.
    pub(crate) doubt_ended_at: Option<Timestamp>,
    /// How many changes were written.
    pub(crate) seq: u64,
    /// The entry of the latest change in the log. After a failover, it shows whether the change is
    /// still there.
    pub(crate) last_entry: EntryId,
}

/// How far a server is that settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SettlingState {
    /// Since when it takes the writes that belong to it, by its clock.
    pub(crate) since: Timestamp,
    /// How many writers have not said yet that they have put back what they have confirmed.
    pub(crate) awaited: u32,
}

/// The id of an entry of a stream; zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId(pub(crate) u64, pub(crate) u64);

impl EntryId {
    pub(crate) fn parse(text: &str) -> Result<Self, Unreadable> {
        let (millis, n) = text.split_once('-').ok_or(Unreadable)?;
        Ok(Self(decimal(millis)?, decimal(n)?))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Epoch {
    /// Whether `before`, a state of the same epoch, had a doubt that is neither in this state nor
    /// was ended since.
    pub(crate) fn has_lost_doubt_of(&self, before: &Self) -> bool {
        let has_ended = self.seq > before.seq && self.doubt_ended_at.is_some();
        self.doubt.issued_until() < before.doubt.issued_until() && !has_ended
    }

    #[cfg(test)]
    pub(crate) fn print(&self) -> String {
        let [until, end] = match (self.doubt, self.doubt_ended_at) {
            (Doubt::Lasting { issued_until, ends_at }, _) => [issued_until, ends_at],
            (_, ended_at) => [Timestamp::ZERO, ended_at.unwrap_or_default()],
        };
        let (since, awaited) = self.settling.map_or_else(Default::default, |settling| {
            (settling.since.as_millis(), settling.awaited)
        });
        format!(
            "{LAYOUT} {:016x} {:016x} {:016x} {} {since} {awaited} {} {} {} {}",
            self.id,
            self.parent,
            self.server,
            self.started_at.as_millis(),
            until.as_millis(),
            end.as_millis(),
            self.seq,
            self.last_entry
        )
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, Unreadable> {
        let mut words = Words::of(value)?;
        words.version()?;
        let (id, parent, server) = (words.id()?, words.id()?, words.id()?);
        let started_at = words.time()?;
        let (since, awaited) = (words.time()?, words.number()?);
        let awaited = u32::try_from(awaited).map_err(|_| Unreadable)?;
        let settling = (since != Timestamp::ZERO).then_some(SettlingState { since, awaited });
        let (issued_until, end) = (words.time()?, words.time()?);
        let (doubt, doubt_ended_at) = match (issued_until, end) {
            (Timestamp::ZERO, Timestamp::ZERO) => (Doubt::None, None),
            (Timestamp::ZERO, ended_at) => (Doubt::None, Some(ended_at)),
            (issued_until, ends_at) => (Doubt::Lasting { issued_until, ends_at }, None),
        };
        let (seq, last_entry) = (words.number()?, EntryId::parse(words.next()?)?);
        words.end()?;
        if id == 0 {
            return Err(Unreadable);
        }
        Ok(Self {
            id,
            parent,
            server,
            started_at,
            settling,
            doubt,
            doubt_ended_at,
            seq,
            last_entry,
        })
    }
}

// === Mirrors ===

/// The id of a mirror: random, for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MirrorId(pub(crate) u64);

impl MirrorId {
    pub(crate) fn print(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    pub(crate) fn parse(member: &[u8]) -> Result<Self, Unreadable> {
        <[u8; 8]>::try_from(member)
            .map(|bytes| Self(u64::from_be_bytes(bytes)))
            .map_err(|_| Unreadable)
    }
}

/// What a mirror says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MirrorLease {
    /// The epoch that it follows, and the last change of it that it has applied.
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// Its name, for people.
    pub(crate) name: Arc<str>,
}

impl MirrorLease {
    pub(crate) fn print(&self) -> Bytes {
        format!("{LAYOUT} {:016x} {} {}", self.epoch, self.seq, self.name).into()
    }

    pub(crate) fn parse(value: &[u8]) -> Result<Self, Unreadable> {
        let mut words = Words::of(value)?;
        words.version()?;
        let epoch = u64::from_str_radix(words.next()?, 16).map_err(|_| Unreadable)?;
        Ok(Self { epoch, seq: words.number()?, name: words.rest().into() })
    }
}

// === Records ===

/// The note of a record as JSON, so that `GET` in `redis-cli` shows who revoked what, and why.
#[derive(Serialize, Deserialize)]
struct NoteJson<'a> {
    kind: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    claim: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
}

/// The note of a change: the part of a record that the script copies as it is.
pub(crate) fn print_words(target: &Target, reason: Option<&str>, actor: Option<&str>) -> String {
    let words = NoteJson {
        kind: target.kind().as_str(),
        iss: target.issuer_name().map(Cow::Borrowed),
        claim: target.claim_name().map(Cow::Borrowed),
        id: target.id().into(),
        reason: reason.map(Cow::Borrowed),
        actor: actor.map(Cow::Borrowed),
    };
    // Strings alone cannot fail to be written.
    serde_json::to_string(&words).unwrap_or_default()
}

/// As the script prints it: layout version, the five numbers, what is spared, when it was last
/// changed, and the words.
#[cfg(test)]
pub(crate) fn print_record(record: &Record) -> String {
    let [all, cutoff, cutoff_set, reinstated, until, at] = [
        record.fact.all_revoked_at,
        record.fact.cutoff,
        record.fact.cutoff_set_at,
        record.fact.reinstated_at,
        record.fact.until,
        record.note.at,
    ]
    .map(Timestamp::as_millis);
    let note = &record.note;
    let words = print_words(&note.target, note.reason.as_deref(), note.actor.as_deref());
    let spared = record.fact.spared;
    format!("{LAYOUT} {all} {cutoff} {cutoff_set} {reinstated} {until} {spared} {at} {words}")
}

/// A record, from the value of its key. What this version would not have written is [`Unreadable`]:
/// if it counted as "nothing revoked", revoked tokens would pass.
pub(crate) fn parse_record(value: &[u8]) -> Result<Record, Unreadable> {
    let mut words = Words::of(value)?;
    words.version()?;
    let fact = Fact {
        all_revoked_at: words.time()?,
        cutoff: words.time()?,
        cutoff_set_at: words.time()?,
        reinstated_at: words.time()?,
        until: words.time()?,
        spared: words.next()?.parse().map_err(|_| Unreadable)?,
    };
    let at = words.time()?;
    if fact.latest() == Timestamp::ZERO || !fact.spares_rightly() {
        return Err(Unreadable);
    }
    let json: NoteJson<'_> = serde_json::from_str(words.rest()).map_err(|_| Unreadable)?;
    let kind = json.kind.parse().map_err(|_| Unreadable)?;
    let target = Target::from_parts(kind, json.claim.as_deref(), json.iss.as_deref(), json.id)
        .map_err(|_| Unreadable)?;
    let shared = |words: Option<Cow<'_, str>>| words.map(|words| Arc::from(&*words));
    let note = RecordNote { target, at, reason: shared(json.reason), actor: shared(json.actor) };
    Ok(Record { fact, note })
}

// === The index ===

/// What the index says about a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexClass {
    /// All tokens are revoked, and the target was never reinstated.
    All,
    /// The record has to be read.
    Read,
}

/// A member of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexMember {
    pub(crate) class: IndexClass,
    pub(crate) fingerprint: Fingerprint,
}

impl IndexMember {
    #[cfg(test)]
    pub(crate) fn print(self) -> Vec<u8> {
        let class = match self.class {
            IndexClass::All => b'a',
            IndexClass::Read => b'r',
        };
        [&[class], self.fingerprint.as_bytes().as_slice()].concat()
    }

    pub(crate) fn parse(member: &[u8]) -> Result<Self, Unreadable> {
        let (class, fingerprint) = match member {
            [b'a', fingerprint @ ..] => (IndexClass::All, fingerprint),
            [b'r', fingerprint @ ..] => (IndexClass::Read, fingerprint),
            _ => return Err(Unreadable),
        };
        let bytes = <[u8; 16]>::try_from(fingerprint).map_err(|_| Unreadable)?;
        Ok(Self { class, fingerprint: Fingerprint::from_bytes(bytes) })
    }
}

// === Documents ===

/// The text of a document, from the value of its key: `<version> <id of an epoch> <text>`. Without
/// a text it was deleted.
#[cfg(feature = "sessions")]
pub(crate) fn parse_document(value: &Bytes) -> Result<Option<Bytes>, Unreadable> {
    let mut spaces = value.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(n, _)| n);
    let (Some(first), second) = (spaces.next(), spaces.next()) else { return Err(Unreadable) };
    let version = value.get(..first).and_then(|digits| std::str::from_utf8(digits).ok());
    decimal(version.ok_or(Unreadable)?)?;
    Ok(second.map(|second| value.slice(second + 1..)))
}

// === Reading words ===

/// Words with one space between them. Numbers are decimal without a sign or leading zeros, as they
/// are printed.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn of(value: &'a [u8]) -> Result<Self, Unreadable> {
        std::str::from_utf8(value).map(Self).map_err(|_| Unreadable)
    }

    fn next(&mut self) -> Result<&'a str, Unreadable> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        if word.is_empty() { Err(Unreadable) } else { Ok(word) }
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        decimal(self.next()?)
            .and_then(|number| if number <= MAX_INTEGER { Ok(number) } else { Err(Unreadable) })
    }

    /// Sixteen hexadecimal digits.
    fn id(&mut self) -> Result<u64, Unreadable> {
        let id = self.next()?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() != 16 || !id.bytes().all(is_digit) {
            return Err(Unreadable);
        }
        u64::from_str_radix(id, 16).map_err(|_| Unreadable)
    }

    fn time(&mut self) -> Result<Timestamp, Unreadable> {
        self.number().map(Timestamp::from_millis)
    }

    fn version(&mut self) -> Result<(), Unreadable> {
        if self.number()? == u64::from(LAYOUT) { Ok(()) } else { Err(Unreadable) }
    }

    fn rest(self) -> &'a str {
        self.0
    }

    fn end(self) -> Result<(), Unreadable> {
        if self.0.is_empty() { Ok(()) } else { Err(Unreadable) }
    }
}

fn decimal(word: &str) -> Result<u64, Unreadable> {
    let plain =
        word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain).ok_or(Unreadable)
}

#[cfg(test)]
mod tests;
