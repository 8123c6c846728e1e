//! Which mirrors there are, and which change each has applied.
//!
//! A mirror renews its lease with every heartbeat: *before* it reads the state that proves it
//! fresh, and for longer than this proof lasts. So after a write was confirmed, every mirror that
//! might answer from memory without it has a lease. A mirror whose lease has ended must read the
//! state again first, and then it has the write.

use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;

use super::command::StoreCommand;
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::reply::read_time;
use super::schema::{Epoch, MirrorId, MirrorLease};
use crate::store::{Fence, Follower, StoreError, StoreErrorKind};

/// How long after an epoch began a mirror of the former one may be without a lease: the default
/// duration of a lease.
const SETTLING: Duration = Duration::from_secs(2);

impl StoreCore {
    pub(crate) async fn followers(&self, fence: Fence) -> Result<Vec<Follower>, StoreError> {
        if fence.shard >= self.keys.shards() {
            return Err(StoreError::new(
                StoreErrorKind::InvalidInput,
                "the fence was not given out by this redis store",
            ));
        }
        let names = self.keys.shard(fence.shard);
        let all =
            vec![names.mirrors.clone(), Bytes::from_static(b"-inf"), Bytes::from_static(b"+inf")];
        let Value::Array(members) = self.look_up(&fence, "ZRANGEBYSCORE", all).await? else {
            return Err(unexpected_reply("redis"));
        };
        let mut keys = vec![names.epoch.clone()];
        for member in &members {
            let id = member.as_bytes().and_then(|member| MirrorId::parse(member).ok());
            keys.push(names.lease(id.ok_or_else(|| unexpected_reply("redis"))?));
        }
        let (time, values) = tokio::join!(
            self.look_up(&fence, "TIME", Vec::new()),
            self.look_up(&fence, "MGET", keys)
        );
        let (time, Value::Array(values)) = (time?, values?) else {
            return Err(unexpected_reply("redis"));
        };
        let [epoch, leases @ ..] = values.as_slice() else { return Err(unexpected_reply("redis")) };
        let epoch = epoch.as_bytes().and_then(|epoch| Epoch::parse(epoch).ok());
        let Some(epoch) = epoch.filter(|epoch| epoch.id == fence.epoch && epoch.seq >= fence.seq)
        else {
            return Err(StoreError::new(
                StoreErrorKind::DataLoss,
                "redis has begun another epoch since the write, which may be lost; it may be \
                 repeated",
            ));
        };
        let time = read_time(&time)?;
        if time < epoch.started_at.saturating_add(SETTLING) {
            // Their leases may have been lost with the data.
            return Err(StoreError::new(
                StoreErrorKind::Stale,
                "the epoch of the shard has just begun, and mirrors that are there may not have \
                 said so yet",
            ));
        }
        let follower = |lease: &Value| {
            let lease = MirrorLease::parse(lease.as_bytes()?).ok();
            // The lease of another version does not say how far the mirror is.
            let has_applied = lease
                .as_ref()
                .is_some_and(|lease| lease.epoch == epoch.id && lease.seq >= fence.seq);
            Some(Follower::new(lease.map_or_else(|| "?".into(), |lease| lease.name), has_applied))
        };
        Ok(leases.iter().filter_map(follower).collect())
    }

    async fn look_up(
        &self,
        fence: &Fence,
        command: &'static str,
        arguments: Vec<Bytes>,
    ) -> Result<Value, StoreError> {
        self.send(fence.shard, StoreCommand::Plain(command), arguments).await
    }
}
