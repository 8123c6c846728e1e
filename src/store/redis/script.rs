//! The script that writes revocations: its arguments and its reply. Pure; `command` sends it.
//!
//! The script does what [`Revocation::apply`] does, because only Redis can read, decide and write
//! in one step. It is idempotent: a write of unknown fate may be sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::schema::{self, Epoch, LAYOUT, MAX_INTEGER, RedisKeys, Unreadable};
use crate::clock::Timestamp;
use crate::revocation::{Action, Extent, Fact, Fingerprint, Outcome, Revocation, Target};
use crate::store::feed::EndDoubt;

/// The script.
pub(crate) const SOURCE: &str = include_str!("write.lua");

/// The SHA-1 of [`SOURCE`], under which Redis keeps it.
pub(crate) const SHA: &str = "cf1a67b05011b3ce2335ef23faed7faf5bb931d7";

/// A Lua script, as it is sent.
pub(crate) struct LuaScript {
    pub(crate) source: &'static str,
    /// The SHA-1 of the source, under which Redis keeps it.
    pub(crate) sha: &'static str,
    /// Whether its writes have to be confirmed by replicas, if the store waits for replicas.
    pub(crate) writes: bool,
}

/// The script that writes revocations.
pub(crate) const WRITE: LuaScript = LuaScript { source: SOURCE, sha: SHA, writes: true };

/// The same script without changes: it begins an epoch or puts off its expiry.
pub(crate) const TOUCH: LuaScript = LuaScript { writes: false, ..WRITE };

/// How long keys without an end of their own are kept after the last write: longer than a service
/// stands still.
pub(crate) const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What the script is told besides the changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScriptContext {
    /// The id of the epoch that begins, if one has to.
    pub(crate) new_epoch: u64,
    /// The epoch that this process knows.
    pub(crate) known: Option<CallerEpoch>,
    /// The doubt that is to end, or to begin.
    pub(crate) doubt_change: Option<DoubtChange>,
    /// How long a doubt lasts.
    pub(crate) doubt_duration: Duration,
    /// How many entries the log keeps, about.
    pub(crate) log_length: u64,
    /// The clock of this process.
    pub(crate) caller_time: Timestamp,
    /// By how much cutoffs are dated later, because the clocks of issuers are ahead.
    pub(crate) issuer_clock_lead: Duration,
    /// The server to which the script is sent.
    pub(crate) server: u64,
    /// Who sends it.
    pub(crate) writer: WriterContext,
    /// What this process knows of the epoch that the present one carries on.
    pub(crate) long_known: Option<LongKnown>,
}

/// How many changes of an epoch a process has known of for so long that a replica which does not
/// have them was cut off, or is an older dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LongKnown {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
}

/// What the script is told of this process as a writer, see the module `writers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriterContext {
    /// Its id.
    pub(crate) id: u64,
    /// What it does.
    pub(crate) action: WriterAction,
    /// The highest number of its writes that is confirmed; of a replay, the highest number that it
    /// makes good.
    pub(crate) number: u64,
    /// The epoch in which all of them were there; zero if none.
    pub(crate) through: u64,
}

/// What a run of the script means for the numbers of its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriterAction {
    /// It writes something new, and gets the next number.
    Write,
    /// It is there.
    Renew,
    /// It writes again what it has confirmed.
    Replay,
    /// It has written all of that again.
    Through,
    /// The same, but it has forgotten some of it.
    ThroughWithGap,
    /// It ends, or will not write for long.
    SignOff,
}

impl WriterAction {
    fn code(self) -> &'static str {
        match self {
            Self::Write => "w",
            Self::Renew => "t",
            Self::Replay => "r",
            Self::Through => "d",
            Self::ThroughWithGap => "g",
            Self::SignOff => "o",
        }
    }
}

/// What becomes of a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoubtChange {
    /// A mirror has written everything again: it ends.
    Replayed(EndDoubt),
    /// An operator declares it, of tokens that were issued until then.
    Declare { issued_until: Timestamp },
    /// An operator ends it, unless it covers tokens that were issued later.
    Accept { issued_until: Timestamp },
}

/// What the script is told of the epoch that its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallerEpoch {
    pub(crate) id: u64,
    /// If its `seq` is lower, changes were lost and a new epoch begins.
    pub(crate) min_seq: u64,
    /// The `seq` up to which the caller knows it, if it is a former epoch.
    pub(crate) known_seq: u64,
    /// Whether it went on after the present one had begun.
    pub(crate) went_on: bool,
}

/// The arguments that come after the script or its SHA: number of keys, keys, arguments.
pub(crate) fn arguments(
    keys: &RedisKeys,
    shard: u16,
    context: &ScriptContext,
    changes: &[&Revocation],
) -> Vec<Bytes> {
    let fingerprints: Vec<_> = changes.iter().map(|change| change.target.fingerprint()).collect();
    let mut arguments = head(keys, shard, context, &fingerprints);
    for (change, fingerprint) in changes.iter().zip(&fingerprints) {
        let (action, cutoff) = match change.action {
            Action::Revoke(Extent::All) => ("a", Timestamp::ZERO),
            Action::Revoke(Extent::IssuedSoFar) => ("s", Timestamp::ZERO),
            Action::Revoke(Extent::IssuedUntil(cutoff)) => ("u", cutoff),
            Action::Reinstate => ("b", Timestamp::ZERO),
        };
        let cutoff = cutoff.as_millis().min(MAX_INTEGER);
        let numbers = match &change.sparing {
            Some(session) => format!("{cutoff} {}", session.fingerprint()),
            None => format!("{cutoff} -"),
        };
        arguments.extend([
            Bytes::from_static(action.as_bytes()),
            numbers.into(),
            time(change.until),
            millis(change.lifetime),
            Bytes::copy_from_slice(fingerprint.as_bytes()),
        ]);
        arguments.extend(note_arguments(change));
    }
    arguments
}

/// The arguments that write facts again which the store has lost and a mirror still has.
pub(crate) fn replay_arguments(
    keys: &RedisKeys,
    shard: u16,
    context: &ScriptContext,
    facts: &[(Fingerprint, Fact)],
) -> Vec<Bytes> {
    let fingerprints: Vec<_> = facts.iter().map(|(fingerprint, _)| *fingerprint).collect();
    let mut arguments = head(keys, shard, context, &fingerprints);
    for (fingerprint, fact) in facts {
        push_fact(&mut arguments, b"m", fingerprint, fact, 0);
        let words = schema::print_words(&Target::nameless(fingerprint), None, None);
        arguments.extend([Bytes::new(), Bytes::new(), words.into()]);
    }
    arguments
}

/// The arguments that write again what this process has confirmed.
pub(crate) fn confirmed_arguments(
    keys: &RedisKeys,
    shard: u16,
    context: &ScriptContext,
    changes: &[Arc<ConfirmedChange>],
) -> Vec<Bytes> {
    let fingerprints: Vec<_> = changes.iter().map(|change| change.fingerprint).collect();
    let mut arguments = head(keys, shard, context, &fingerprints);
    for change in changes {
        push_fact(&mut arguments, b"p", &change.fingerprint, &change.fact, change.seq);
        arguments.extend(change.note.clone());
    }
    arguments
}

fn push_fact(
    arguments: &mut Vec<Bytes>,
    action: &'static [u8],
    fingerprint: &Fingerprint,
    fact: &Fact,
    seq: u64,
) {
    let numbers = [fact.all_revoked_at, fact.cutoff, fact.cutoff_set_at, fact.reinstated_at];
    let [all, cutoff, set, back] = numbers.map(|number| number.as_millis().min(MAX_INTEGER));
    let numbers = format!("{all} {cutoff} {set} {back} {}", fact.spared);
    arguments.extend([
        Bytes::from_static(action),
        numbers.into(),
        time(fact.until),
        text(seq),
        Bytes::copy_from_slice(fingerprint.as_bytes()),
    ]);
}

/// A change that was confirmed, as it is written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfirmedChange {
    pub(super) fingerprint: Fingerprint,
    /// Of a reinstatement, with the revocations that it stands against.
    fact: Fact,
    /// The `seq` of the change; zero if it found everything as it should be.
    seq: u64,
    /// Reason, actor and words, as the script is given them.
    note: [Bytes; 3],
    /// Whether it was a reinstatement.
    is_withheld: bool,
}

impl ConfirmedChange {
    /// What a reply of the script has confirmed of a change, if it is in effect.
    pub(crate) fn new(change: &Revocation, reply: &ChangeReply) -> Option<Self> {
        let known = reply.fact;
        let fact = match change.action {
            _ if reply.outcome == Outcome::AlreadyExpired => return None,
            Action::Revoke(Extent::All) => {
                Fact { all_revoked_at: known.all_revoked_at, ..Fact::default() }
            }
            Action::Revoke(Extent::IssuedSoFar | Extent::IssuedUntil(_)) => {
                let Fact { cutoff, cutoff_set_at, spared, .. } = known;
                Fact { cutoff, cutoff_set_at, spared, ..Fact::default() }
            }
            // Nothing was ever revoked that could be reinstated.
            Action::Reinstate if known.reinstated_at == Timestamp::ZERO => return None,
            // It may have been reinstated by a write of which the reply was lost.
            Action::Reinstate => known,
        };
        let fact = Fact { until: reply.until, ..fact };
        let seq = if reply.is_written { reply.seq } else { 0 };
        let fingerprint = change.target.fingerprint();
        let note = note_arguments(change);
        Some(Self { fingerprint, fact, seq, note, is_withheld: false })
    }

    /// The same change, without the words that name people.
    pub(super) fn nameless(&self) -> Self {
        let words = schema::print_words(&Target::nameless(&self.fingerprint), None, None);
        Self { note: [Bytes::new(), Bytes::new(), words.into()], ..self.clone() }
    }

    /// Of a reinstatement: the revocations that it stands against.
    pub(super) fn without_reinstatement(&self) -> Option<Self> {
        let fact = Fact { reinstated_at: Timestamp::ZERO, ..self.fact };
        (fact != self.fact).then(|| Self { fact, is_withheld: true, ..self.clone() })
    }

    /// Whether it was a reinstatement, which is not put back.
    pub(super) fn is_withheld(&self) -> bool {
        self.is_withheld
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.note.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Reason and actor, each empty or after a `=`, and the words of the record.
fn note_arguments(change: &Revocation) -> [Bytes; 3] {
    let optional =
        |words: Option<&str>| words.map_or(Bytes::new(), |words| format!("={words}").into());
    let (reason, actor) = (change.reason.as_deref(), change.actor.as_deref());
    let words = schema::print_words(&change.target, reason, actor);
    [optional(reason), optional(actor), words.into()]
}

fn head(
    keys: &RedisKeys,
    shard: u16,
    context: &ScriptContext,
    fingerprints: &[Fingerprint],
) -> Vec<Bytes> {
    let names = keys.shard(shard);
    let fixed =
        [&names.epoch, &names.meta, &names.index, &names.tombstones, &names.log, &names.writers];
    let mut arguments = vec![text((fixed.len() + fingerprints.len()) as u64)];
    arguments.extend(fixed.map(Bytes::clone));
    arguments.extend(fingerprints.iter().map(|fingerprint| names.record(fingerprint)));
    let known = context.known.map_or(Bytes::new(), |known| epoch_id(known.id));
    let (min_seq, known_seq) =
        context.known.map_or((0, 0), |known| (known.min_seq, known.known_seq));
    let operator = |what, issued_until| {
        [Bytes::from_static(what), text(0_u64), time(issued_until), Bytes::new()]
    };
    let doubt_change = match context.doubt_change {
        None => Default::default(),
        Some(DoubtChange::Replayed(end)) => {
            [epoch_id(end.former_epoch), text(end.seq), time(end.issued_until), epoch_id(end.epoch)]
        }
        Some(DoubtChange::Declare { issued_until }) => operator(b"declare", issued_until),
        Some(DoubtChange::Accept { issued_until }) => operator(b"accept", issued_until),
    };
    arguments.extend([
        text(LAYOUT),
        text(keys.shards()),
        epoch_id(context.new_epoch),
        known,
        text(min_seq),
        millis(context.doubt_duration),
        millis(KEPT),
        text(context.log_length),
        text(known_seq),
    ]);
    arguments.extend(doubt_change);
    let went_on = context.known.is_some_and(|known| known.went_on);
    arguments.extend([
        time(context.caller_time),
        millis(context.issuer_clock_lead),
        epoch_id(context.server),
        epoch_id(context.writer.id),
        Bytes::from_static(context.writer.action.code().as_bytes()),
        text(context.writer.number),
        Bytes::from_static(if went_on { b"1" } else { b"" }),
        context.long_known.map_or(Bytes::new(), |known| epoch_id(known.epoch)),
        text(context.long_known.map_or(0, |known| known.seq)),
        epoch_id(context.writer.through),
    ]);
    arguments
}

fn text(value: impl Into<u64>) -> Bytes {
    value.into().to_string().into()
}

/// An id as scripts have it: sixteen hexadecimal digits.
pub(crate) fn epoch_id(id: u64) -> Bytes {
    format!("{id:016x}").into()
}

fn time(time: Timestamp) -> Bytes {
    text(time.as_millis().min(MAX_INTEGER))
}

fn millis(duration: Duration) -> Bytes {
    text(u64::try_from(duration.as_millis()).unwrap_or(MAX_INTEGER).min(MAX_INTEGER))
}

/// What the script answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScriptReply {
    /// The epoch of the shard after the write.
    pub(crate) epoch: Epoch,
    /// What Redis took the time to be.
    pub(crate) now: Timestamp,
    /// How many writes of this process the server had before; `None` if it knows of none.
    pub(crate) had: Option<u64>,
    /// The number of this write.
    pub(crate) number: u64,
    /// One for each change, in order; `None` if none was written, because the server still settles.
    pub(crate) changes: Option<Vec<ChangeReply>>,
}

/// What became of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeReply {
    pub(crate) outcome: Outcome,
    pub(crate) at: Timestamp,
    /// The cutoff that is now in effect.
    pub(crate) cutoff: Option<Timestamp>,
    pub(crate) seq: u64,
    /// When the record may be forgotten.
    pub(crate) until: Timestamp,
    /// What is known of the target now, but for `until`.
    pub(crate) fact: Fact,
    /// Whether anything was written.
    pub(crate) is_written: bool,
}

impl ScriptReply {
    /// Reads the reply to as many changes as were sent.
    pub(crate) fn parse(parts: &[Bytes], changes: usize) -> Result<Self, Unreadable> {
        let [epoch, now, status, had, number, rest @ ..] = parts else { return Err(Unreadable) };
        let changes = match &**status {
            b"done" if rest.len() == changes => {
                Some(rest.iter().map(|part| ChangeReply::parse(part)).collect::<Result<_, _>>()?)
            }
            b"settling" if rest.is_empty() => None,
            _ => return Err(Unreadable),
        };
        Ok(Self {
            epoch: Epoch::parse(epoch)?,
            now: Timestamp::from_millis(read_number(now)?),
            had: if **had == *b"-" { None } else { Some(read_number(had)?) },
            number: read_number(number)?,
            changes,
        })
    }
}

impl ChangeReply {
    fn parse(part: &[u8]) -> Result<Self, Unreadable> {
        let words: Vec<_> = std::str::from_utf8(part).map_err(|_| Unreadable)?.split(' ').collect();
        let [outcome, at, cutoff, seq, until, all, latest_cutoff, set, back, spared] =
            *words.as_slice()
        else {
            return Err(Unreadable);
        };
        let is_written = matches!(outcome, "n" | "x" | "A");
        let outcome = match outcome {
            "n" => Outcome::New,
            "x" => Outcome::Extended,
            "a" | "A" => Outcome::Already,
            "e" => Outcome::AlreadyExpired,
            _ => return Err(Unreadable),
        };
        let time = |word| number(word).map(Timestamp::from_millis);
        let cutoff = if cutoff == "-" { None } else { Some(time(cutoff)?) };
        let fact = Fact {
            all_revoked_at: time(all)?,
            cutoff: time(latest_cutoff)?,
            cutoff_set_at: time(set)?,
            reinstated_at: time(back)?,
            until: Timestamp::ZERO,
            spared: spared.parse().map_err(|_| Unreadable)?,
        };
        let (at, seq, until) = (time(at)?, number(seq)?, time(until)?);
        Ok(Self { outcome, at, cutoff, seq, until, fact, is_written })
    }
}

fn read_number(part: &[u8]) -> Result<u64, Unreadable> {
    std::str::from_utf8(part).map_err(|_| Unreadable).and_then(number)
}

fn number(word: &str) -> Result<u64, Unreadable> {
    word.parse().map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests;
