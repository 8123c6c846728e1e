//! What an operator decides about a doubt.

use fred::types::Value;

use super::command::SendContext;
use super::core::StoreCore;
use super::epoch::{EpochSource, ReadFrom};
use super::script::{self, DoubtChange, ScriptContext};
use super::store::RedisStore;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::store::{Doubt, StoreError, StoreErrorKind};

impl RedisStore {
    /// Asks Redis which tokens are in doubt in any shard. [`health`](Self::health) tells without a
    /// round trip what was read last.
    ///
    /// # Errors
    /// [`StoreError`] if a shard gave no answer.
    pub async fn read_doubt(&self) -> Result<Doubt, StoreError> {
        let mut doubt = Doubt::None;
        for shard in 0..self.core.keys.shards() {
            doubt = doubt.joined(self.core.read_doubt(shard).await?);
        }
        Ok(doubt)
    }

    /// Declares that revocations were lost, if Redis cannot know it: for example after a backup was
    /// restored before any process of the service had started. Tokens that were issued until
    /// `issued_until` are in doubt from now on, for as long as such tokens are accepted. Usually
    /// that is the time of the loss; a time in the future counts as now. Returns what is in doubt
    /// then.
    ///
    /// Under `FailMode::Closed` their holders have to sign in again (401), and sessions that began
    /// before end. [`accept_tokens_in_doubt`](Self::accept_tokens_in_doubt) undoes it.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed for each shard; it may be repeated. Of kind
    /// [`InvalidInput`](StoreErrorKind::InvalidInput) if all such tokens have expired.
    #[doc(alias = "distrust")]
    pub async fn declare_doubt(&self, issued_until: Timestamp) -> Result<Doubt, StoreError> {
        let lasts = self.core.tracker.doubt_duration();
        if issued_until.saturating_add(lasts) <= SystemClock.now() {
            return Err(StoreError::new(
                StoreErrorKind::InvalidInput,
                format!("no token that was issued until {issued_until} is accepted any more"),
            ));
        }
        self.change_doubt(DoubtChange::Declare { issued_until }).await
    }

    /// Ends a lasting doubt although nobody knows what was lost. Tokens whose revocation was lost
    /// are **accepted again**. It is for an operator who knows that no revocation was lost, or who
    /// has written the lost ones again.
    ///
    /// `issued_until` is that of the doubt to end, from [`read_doubt`](Self::read_doubt). A doubt
    /// that reaches further comes from another loss and stays. So does [`Doubt::Settling`], which
    /// ends by itself. Returns what is in doubt then.
    ///
    /// # Errors
    /// [`StoreError`] if it was not confirmed for each shard; it may be repeated.
    #[doc(alias = "end_doubt")]
    pub async fn accept_tokens_in_doubt(
        &self,
        issued_until: Timestamp,
    ) -> Result<Doubt, StoreError> {
        self.change_doubt(DoubtChange::Accept { issued_until }).await
    }

    async fn change_doubt(&self, change: DoubtChange) -> Result<Doubt, StoreError> {
        for shard in 0..self.core.keys.shards() {
            self.core.change_doubt(shard, change).await?;
        }
        self.read_doubt().await
    }
}

impl StoreCore {
    pub(super) async fn read_doubt(&self, shard: u16) -> Result<Doubt, StoreError> {
        let known = self.tracker.known(shard);
        let permit = self.write_connection(shard).acquire()?;
        let from = ReadFrom { source: EpochSource::Writes, server: permit.server_id().tag() };
        let key = vec![Value::Bytes(self.keys.shard(shard).epoch.clone())];
        let epoch = permit.command("GET", key, self.options.write_timeout).await?;
        let doubt = self.tracker.observe_value(from, shard, known.as_ref(), epoch.as_bytes());
        match doubt {
            Ok(Doubt::Lasting { ends_at, .. }) if ends_at <= SystemClock.now() => Ok(Doubt::None),
            Err(error) if error.kind() == StoreErrorKind::Settling => Ok(Doubt::Settling),
            doubt => doubt,
        }
    }

    async fn change_doubt(&self, shard: u16, change: DoubtChange) -> Result<(), StoreError> {
        let arguments = |context: &mut SendContext| {
            let context = self.script_context(context);
            let context = ScriptContext { doubt_change: Some(change), ..context };
            Ok(script::arguments(&self.keys, shard, &context, &[]))
        };
        let read = |context: &SendContext, value| {
            self.read_script_reply(shard, context, value, 0).map(drop)
        };
        self.run(shard, &script::WRITE, arguments, read).await.map(drop)
    }
}
