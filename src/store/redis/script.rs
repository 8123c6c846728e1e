//! The script that writes revocations: its arguments and its reply. Pure; `command` sends it.
//!
//! The script does what [`Revocation::apply`] does, because only Redis can read, decide and write
//! in one step. It is idempotent: a write of unknown fate may be sent again.

use std::time::Duration;

use bytes::Bytes;

use super::schema::{self, Epoch, LAYOUT, MAX_INTEGER, RedisKeys, Unreadable};
use crate::clock::Timestamp;
use crate::revocation::{Action, Extent, Fact, Fingerprint, Outcome, Revocation, Target};
use crate::store::feed::EndDoubt;

/// The script.
pub(crate) const SOURCE: &str = include_str!("write.lua");

/// The SHA-1 of [`SOURCE`], under which Redis keeps it.
pub(crate) const SHA: &str = "d1bdf9055b235fd38606f939eb90072302d0a0a0";

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
    /// The doubt that is to end.
    pub(crate) end_doubt: Option<EndDoubt>,
    /// How long a doubt lasts.
    pub(crate) doubt_duration: Duration,
    /// How many entries the log keeps, about.
    pub(crate) log_length: u64,
    /// The clock of this process.
    pub(crate) caller_time: Timestamp,
    /// By how much cutoffs are dated later, because the clocks of issuers are ahead.
    pub(crate) issuer_clock_lead: Duration,
}

/// What the script is told of the epoch that its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallerEpoch {
    pub(crate) id: u64,
    /// If its `seq` is lower, changes were lost and a new epoch begins.
    pub(crate) min_seq: u64,
    /// The `seq` up to which the caller knows it, if it is a former epoch.
    pub(crate) known_seq: u64,
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
        let optional =
            |words: Option<&str>| words.map_or(Bytes::new(), |words| format!("={words}").into());
        arguments.extend([
            Bytes::from_static(action.as_bytes()),
            time(cutoff),
            time(change.until),
            millis(change.lifetime),
            Bytes::copy_from_slice(fingerprint.as_bytes()),
            optional(change.reason.as_deref()),
            optional(change.actor.as_deref()),
            schema::print_words(&change.target, change.reason.as_deref(), change.actor.as_deref())
                .into(),
        ]);
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
        let numbers = [fact.all_revoked_at, fact.cutoff, fact.cutoff_set_at, fact.reinstated_at];
        let numbers =
            numbers.map(|number| number.as_millis().min(MAX_INTEGER).to_string()).join(" ");
        arguments.extend([
            Bytes::from_static(b"m"),
            numbers.into(),
            time(fact.until),
            text(0_u64),
            Bytes::copy_from_slice(fingerprint.as_bytes()),
            Bytes::new(),
            Bytes::new(),
            schema::print_words(&Target::nameless(fingerprint), None, None).into(),
        ]);
    }
    arguments
}

fn head(
    keys: &RedisKeys,
    shard: u16,
    context: &ScriptContext,
    fingerprints: &[Fingerprint],
) -> Vec<Bytes> {
    let names = keys.shard(shard);
    let mut arguments = vec![text(5 + fingerprints.len() as u64)];
    arguments.extend(
        [&names.epoch, &names.meta, &names.index, &names.tombstones, &names.log].map(Bytes::clone),
    );
    arguments.extend(fingerprints.iter().map(|fingerprint| names.record(fingerprint)));
    let known = context.known.map_or(Bytes::new(), |known| epoch_id(known.id));
    let (min_seq, known_seq) =
        context.known.map_or((0, 0), |known| (known.min_seq, known.known_seq));
    let end_doubt = context.end_doubt.map_or_else(<[Bytes; 4]>::default, |end| {
        [epoch_id(end.former_epoch), text(end.seq), time(end.issued_until), epoch_id(end.epoch)]
    });
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
    arguments.extend(end_doubt);
    arguments.extend([time(context.caller_time), millis(context.issuer_clock_lead)]);
    arguments
}

fn text(value: impl Into<u64>) -> Bytes {
    value.into().to_string().into()
}

fn epoch_id(id: u64) -> Bytes {
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
    /// One for each change, in order.
    pub(crate) changes: Vec<ChangeReply>,
}

/// What became of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangeReply {
    pub(crate) outcome: Outcome,
    pub(crate) at: Timestamp,
    /// The cutoff that is now in effect.
    pub(crate) cutoff: Option<Timestamp>,
    pub(crate) seq: u64,
}

impl ScriptReply {
    /// Reads the reply to as many changes as were sent.
    pub(crate) fn parse(parts: &[Bytes], changes: usize) -> Result<Self, Unreadable> {
        let [epoch, now, rest @ ..] = parts else { return Err(Unreadable) };
        if rest.len() != changes {
            return Err(Unreadable);
        }
        Ok(Self {
            epoch: Epoch::parse(epoch)?,
            now: Timestamp::from_millis(number(std::str::from_utf8(now).map_err(|_| Unreadable)?)?),
            changes: rest.iter().map(|part| ChangeReply::parse(part)).collect::<Result<_, _>>()?,
        })
    }
}

impl ChangeReply {
    fn parse(part: &[u8]) -> Result<Self, Unreadable> {
        let words: Vec<_> = std::str::from_utf8(part).map_err(|_| Unreadable)?.split(' ').collect();
        let [outcome, at, cutoff, seq] = *words.as_slice() else { return Err(Unreadable) };
        let outcome = match outcome {
            "n" => Outcome::New,
            "x" => Outcome::Extended,
            "a" => Outcome::Already,
            "e" => Outcome::AlreadyExpired,
            _ => return Err(Unreadable),
        };
        let cutoff =
            if cutoff == "-" { None } else { Some(Timestamp::from_millis(number(cutoff)?)) };
        Ok(Self { outcome, at: Timestamp::from_millis(number(at)?), cutoff, seq: number(seq)? })
    }
}

fn number(word: &str) -> Result<u64, Unreadable> {
    word.parse().map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests;
