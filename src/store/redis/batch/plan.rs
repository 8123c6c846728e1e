//! Which keys one `MGET` asks for, and what the values mean for each token.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use fred::types::Value;

use super::super::connection::unexpected_reply;
use super::super::epoch::{self, EpochSource, EpochTracker, KnownEpoch, ReadFrom};
use super::super::reply::read_record;
use super::super::schema::{Epoch, RedisKeys};
use crate::clock::{Clock as _, SystemClock};
use crate::store::{Doubt, RevokedBy, Standing, StoreError};
use crate::target::FingerprintMap;
use crate::verified::{TokenTarget, VerifiedToken};

/// The answer to one check.
pub(super) type CheckAnswer = Result<Standing, StoreError>;

/// The shards behind one connection.
pub(super) struct ShardGroup {
    pub(super) keys: Arc<RedisKeys>,
    pub(super) tracker: Arc<EpochTracker>,
    pub(super) shards: Range<u16>,
}

/// The keys of one `MGET`: first those of the epochs of these shards, then those of the records.
pub(super) struct KeyPlan {
    /// The shards, with what was known of their epochs when the question was sent.
    pub(super) epochs: Vec<(u16, Option<Arc<KnownEpoch>>)>,
    /// For each target of each token, in order, where its values are in the reply.
    pub(super) positions: Vec<KeyPosition>,
}

/// The positions of an epoch among the epochs, and of a record among the records.
pub(super) struct KeyPosition {
    epoch: usize,
    record: usize,
}

/// Where among the records each fingerprint is.
pub(super) type RecordPositions = FingerprintMap<usize>;

impl ShardGroup {
    /// The targets of a token that belong to these shards.
    pub(super) fn targets<'a>(
        &'a self,
        token: &'a VerifiedToken,
    ) -> impl Iterator<Item = (u16, &'a TokenTarget)> {
        let targets = token.targets().iter();
        targets
            .map(|target| (self.keys.shard_of(target.fingerprint()), target))
            .filter(|(shard, _)| self.shards.contains(shard))
    }

    /// The keys to ask for, and where the values will be. `seen` holds the positions of records
    /// that are asked for already. It is not needed for one token, which has no target twice.
    pub(super) fn plan<'a>(
        &self,
        tokens: impl Iterator<Item = &'a VerifiedToken> + Clone,
        seen: &mut Option<&mut RecordPositions>,
    ) -> (Vec<Value>, KeyPlan) {
        let targets = tokens.clone().map(|token| token.targets().len()).sum();
        let mut plan =
            KeyPlan { epochs: Vec::with_capacity(1), positions: Vec::with_capacity(targets) };
        let mut records = Vec::with_capacity(targets);
        let mut text =
            BytesMut::with_capacity(targets * self.keys.shard(self.shards.start).record_length());
        for token in tokens {
            for (shard, target) in self.targets(token) {
                let epochs = &mut plan.epochs;
                let epoch =
                    epochs.iter().position(|(planned, _)| *planned == shard).unwrap_or_else(|| {
                        epochs.push((shard, self.tracker.known(shard)));
                        epochs.len() - 1
                    });
                let mut add = || {
                    self.keys.shard(shard).write_record(target.fingerprint(), &mut text);
                    records.push(Value::Bytes(text.split().freeze()));
                    records.len() - 1
                };
                let record = match seen {
                    Some(seen) => *seen.entry(*target.fingerprint()).or_insert_with(add),
                    None => add(),
                };
                plan.positions.push(KeyPosition { epoch, record });
            }
        }
        let mut keys = Vec::with_capacity(plan.epochs.len() + records.len());
        let epoch_key = |(shard, _): &(u16, _)| Value::Bytes(self.keys.shard(*shard).epoch.clone());
        keys.extend(plan.epochs.iter().map(epoch_key));
        keys.append(&mut records);
        (keys, plan)
    }

    /// Decides the only token of a plan.
    pub(super) fn decide_single(
        &self,
        token: &VerifiedToken,
        plan: &KeyPlan,
        server: u64,
        values: &[Value],
    ) -> CheckAnswer {
        let from = ReadFrom { source: EpochSource::Checks, server };
        let Some((epochs, records)) = values.split_at_checked(plan.epochs.len()) else {
            return Err(unexpected_reply("redis"));
        };
        let doubts: Vec<_> = epochs
            .iter()
            .zip(&plan.epochs)
            .map(|(value, (shard, known))| {
                let epoch = read_epoch(value, &mut None)?;
                self.tracker.observe(from, *shard, known.as_ref(), epoch)
            })
            .collect();
        self.decide(token, &doubts, records, &mut plan.positions.iter())
    }

    /// Decides one token. It takes as many positions as the token has targets in these shards.
    pub(super) fn decide<'a>(
        &self,
        token: &VerifiedToken,
        doubts: &[Result<Doubt, StoreError>],
        records: &[Value],
        positions: &mut impl Iterator<Item = &'a KeyPosition>,
    ) -> CheckAnswer {
        let (mut revoked, mut doubtful, mut unreadable) = (None, None, None);
        let mut doubt_because = |error: StoreError| {
            doubtful = Some(match doubtful.take() {
                None => error,
                Some(other) => error.or_passing(other),
            });
        };
        for ((_, target), position) in self.targets(token).zip(positions) {
            match records.get(position.record) {
                Some(Value::Null) => {}
                Some(value) => match read_record(value, target.fingerprint()) {
                    Ok(record) if record.covers(token) => revoked = Some(RevokedBy::from(&record)),
                    Ok(_) => {}
                    Err(error) => unreadable = Some(error),
                },
                None => unreadable = Some(unexpected_reply("redis")),
            }
            match doubts.get(position.epoch) {
                Some(Ok(Doubt::None)) => {}
                Some(Ok(doubt)) if doubt.covers(token, SystemClock.now()) => {
                    doubt_because(doubt.error());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => doubt_because(error.clone()),
                None => doubt_because(unexpected_reply("redis")),
            }
        }
        let unknown = match (doubtful, unreadable) {
            (Some(doubtful), Some(unreadable)) => Some(doubtful.or_passing(unreadable)),
            (doubtful, unreadable) => doubtful.or(unreadable),
        };
        match (revoked, unknown) {
            // A record that covers the token decides, whatever else could not be read.
            (Some(revoked), _) => Ok(Standing::Revoked(revoked)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Standing::Live),
        }
    }
}

/// Reads the value of an epoch. Between two writes it is the same in every reply: `last` is the
/// value that was read last, and what it was read as.
pub(super) fn read_epoch(
    value: &Value,
    last: &mut Option<(Box<[u8]>, Epoch)>,
) -> Result<Option<Epoch>, StoreError> {
    if value.is_null() {
        return Ok(None);
    }
    let value = value.as_bytes().ok_or_else(|| unexpected_reply("redis"))?;
    match last {
        Some((text, epoch)) if **text == *value => Ok(Some(*epoch)),
        _ => {
            let epoch = epoch::parse(value)?;
            *last = Some((value.into(), epoch));
            Ok(Some(epoch))
        }
    }
}
