//! Writes: changes of records, replayed records, and the epochs themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::types::Value;
use futures::future::join_all;

use super::command::{ScriptResult, SendContext};
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::epoch::KnownEpoch;
use super::random;
use super::reply::read_strings;
use super::schema::Epoch;
use super::script::{
    self, ChangeReply, ConfirmedChange, DoubtChange, ScriptContext, ScriptReply, WriterContext,
};
use super::writers::Confirmed;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::revocation::{Action, Extent, Fact, Fingerprint, MAX_CLOCK_LEAD, Revocation};
use crate::store::feed::EndDoubt;
use crate::store::{Doubt, Fence, Receipt, StoreError};

/// How many changes one run of the script takes: Redis does nothing else meanwhile.
pub(super) const CHUNK: usize = 128;

impl StoreCore {
    /// Writes changes, in one or more runs of the script for each shard.
    pub(crate) async fn write(&self, changes: Vec<Revocation>) -> Result<Vec<Receipt>, StoreError> {
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
                let confirmed = self.write_chunk(shard, &only).await?;
                receipts.extend(chunk.iter().map(|(n, _)| *n).zip(confirmed));
            }
            Ok::<_, StoreError>(receipts)
        }))
        .await;
        let mut receipts = Vec::with_capacity(changes.len());
        for shard in written {
            receipts.extend(shard?);
        }
        receipts.sort_unstable_by_key(|(n, _)| *n);
        Ok(receipts.into_iter().map(|(_, receipt)| receipt).collect())
    }

    /// Runs the script once.
    async fn write_chunk(
        &self,
        shard: u16,
        changes: &[&Revocation],
    ) -> Result<Vec<Receipt>, StoreError> {
        let asked_at = SystemClock.now();
        let arguments = |context: &mut SendContext| {
            context.writer = self.writers.writing(shard, context.server)?;
            let context = self.script_context(context);
            Ok(script::arguments(&self.keys, shard, &context, changes))
        };
        let read = |context: &SendContext, value| {
            let reply = self.read_script_reply(shard, context, value, changes.len())?;
            let Some(confirmed) = &reply.changes else { return Err(Doubt::Settling.error()) };
            let confirmed = changes.iter().zip(confirmed);
            let confirmed =
                confirmed.filter_map(|(change, reply)| ConfirmedChange::new(change, reply));
            let what = Confirmed::Changes(confirmed.map(Arc::new).collect());
            let place = (context.server, reply.epoch.id);
            self.writers.confirm(shard, &context.writer, place, reply.number, what)?;
            Ok(reply)
        };
        let ScriptResult { value: reply, replicas } =
            self.run(shard, &script::WRITE, arguments, read).await?;
        let so_far = Action::Revoke(Extent::IssuedSoFar);
        if changes.iter().any(|change| change.action == so_far) {
            self.compare_clocks(asked_at, reply.now);
        }
        let receipt = |change: &ChangeReply| Receipt {
            outcome: change.outcome,
            at: change.at,
            reissue_at: change.cutoff.map(|cutoff| cutoff.saturating_add(Duration::from_millis(1))),
            fence: Some(Fence { shard, epoch: reply.epoch.id, seq: change.seq }),
            replicas,
            mirrors: None,
            unlisted: Vec::new(),
        };
        Ok(reply.changes.iter().flatten().map(receipt).collect())
    }

    /// Warns, once, that a cutoff is dated too early or too late because the clocks of this process
    /// and of Redis are apart. `asked_at` is before Redis took the time.
    fn compare_clocks(&self, asked_at: Timestamp, redis: Timestamp) {
        let behind = asked_at.saturating_duration_since(redis);
        let ahead = redis.saturating_duration_since(SystemClock.now());
        let are_apart = behind > MAX_CLOCK_LEAD || ahead > MAX_CLOCK_LEAD;
        if self.clocks_are_apart.swap(are_apart, Ordering::Relaxed) || !are_apart {
            return;
        }
        if behind > MAX_CLOCK_LEAD {
            tracing::warn!(
                ?behind,
                "the clock of redis is behind that of this process by more than 5 s: tokens issued \
                before a revocation may pass; synchronise the clocks"
            );
        } else {
            tracing::warn!(
                ?ahead,
                "the clock of redis is ahead of that of this process by more than 5 s: tokens \
                issued after a revocation may be refused; synchronise the clocks"
            );
        }
    }

    /// Runs the script without changes: it begins the epoch of a shard, lets its server settle, or
    /// puts off its expiry. It waits for no replicas: no write was confirmed to anybody, and
    /// waiting would delay the writes that follow on the connection. With `only_at`, no other
    /// server may run it.
    pub(crate) async fn touch(
        &self,
        shard: u16,
        only_at: Option<u64>,
        writer: WriterContext,
    ) -> Result<TouchReply, StoreError> {
        let arguments = |context: &mut SendContext| {
            context.expect_server(only_at)?;
            context.writer = writer;
            let context = self.script_context(context);
            Ok(script::arguments(&self.keys, shard, &context, &[]))
        };
        let read = |context: &SendContext, value| {
            let reply = self.read_script_reply(shard, context, value, 0)?;
            let ScriptReply { epoch, had, .. } = reply;
            Ok(TouchReply { server: context.server, epoch, had })
        };
        self.run(shard, &script::TOUCH, arguments, read).await.map(|sent| sent.value)
    }

    /// Writes facts again that Redis has lost, for one shard, as they are.
    pub(crate) async fn replay(
        &self,
        shard: u16,
        facts: &[(Fingerprint, Fact)],
    ) -> Result<(), StoreError> {
        for facts in facts.chunks(CHUNK) {
            let arguments = |context: &mut SendContext| {
                let context = self.script_context(context);
                Ok(script::replay_arguments(&self.keys, shard, &context, facts))
            };
            let read = |context: &SendContext, value| {
                self.read_script_reply(shard, context, value, facts.len()).map(drop)
            };
            self.run(shard, &script::WRITE, arguments, read).await?;
        }
        Ok(())
    }

    /// Writes again what this process has confirmed: one run of the script.
    pub(crate) async fn replay_confirmed(
        &self,
        shard: u16,
        server: u64,
        writer: WriterContext,
        changes: &[Arc<ConfirmedChange>],
    ) -> Result<(), StoreError> {
        let arguments = |context: &mut SendContext| {
            context.expect_server(Some(server))?;
            context.writer = writer;
            let context = self.script_context(context);
            Ok(script::confirmed_arguments(&self.keys, shard, &context, changes))
        };
        let read = |context: &SendContext, value| {
            self.read_script_reply(shard, context, value, changes.len()).map(drop)
        };
        self.run(shard, &script::TOUCH, arguments, read).await.map(drop)
    }

    /// Ends a doubt, unless the script knows of a process that knew more; says whether there is
    /// none any more.
    pub(crate) async fn end_doubt(
        &self,
        shard: u16,
        request: EndDoubt,
    ) -> Result<bool, StoreError> {
        let arguments = |context: &mut SendContext| {
            let context = self.script_context(context);
            let change = Some(DoubtChange::Replayed(request));
            let context = ScriptContext { doubt_change: change, ..context };
            Ok(script::arguments(&self.keys, shard, &context, &[]))
        };
        let read = |context: &SendContext, value| {
            self.read_script_reply(shard, context, value, 0).map(|reply| reply.epoch)
        };
        let now = self.run(shard, &script::WRITE, arguments, read).await?.value;
        Ok(now.id == request.epoch && now.doubt == Doubt::None)
    }

    pub(super) fn script_context(&self, context: &SendContext) -> ScriptContext {
        ScriptContext {
            new_epoch: random::bits().max(1),
            known: context.known.as_deref().map(KnownEpoch::for_script),
            doubt_change: None,
            doubt_duration: self.tracker.doubt_duration(),
            log_length: self.options.log_length,
            caller_time: SystemClock.now(),
            issuer_clock_lead: self.options.issuer_clock_lead,
            server: context.server,
            writer: context.writer,
            long_known: context.known.as_deref().and_then(KnownEpoch::long_known),
        }
    }

    pub(super) fn read_script_reply(
        &self,
        shard: u16,
        context: &SendContext,
        value: Value,
        changes: usize,
    ) -> Result<ScriptReply, StoreError> {
        let parts = read_strings(value)?;
        let read =
            ScriptReply::parse(&parts, changes).map_err(|_| unexpected_reply("the script"))?;
        // The changes are in force. What the epoch means for tokens is decided at each check.
        let _ = self.tracker.observe_script_reply(shard, context.known.as_ref(), read.epoch);
        Ok(read)
    }
}

/// What a run of the script without changes says.
pub(crate) struct TouchReply {
    /// The server that has answered.
    pub(crate) server: u64,
    pub(crate) epoch: Epoch,
    /// How many writes of this process it has had.
    pub(crate) had: Option<u64>,
}
