//! Which mirrors there are, and how far they have come.
//!
//! A mirror renews its lease with every heartbeat, *before* the state is read by which it proves
//! that it is fresh, and for longer than it is fresh by that proof. So after a write is confirmed,
//! every mirror that might answer from memory without it has a lease; one whose lease is over has
//! to read the state again first, and the write is in that.

use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;

use super::Inner;
use super::ask::Command;
use super::feed::parse_time;
use super::schema::{Lease, Life, MirrorId};
use super::wire::odd_reply;
use crate::store::{Fence, Follower, StoreError, StoreErrorKind};

/// How long after the beginning of a life mirrors that followed another one may be unknown: the
/// default lease.
const UNSURE: Duration = Duration::from_secs(2);

impl Inner {
    pub(super) async fn followers(&self, fence: Fence) -> Result<Vec<Follower>, StoreError> {
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
            return Err(odd_reply("redis"));
        };
        let mut keys = vec![names.life.clone()];
        for member in &members {
            let id = member.as_bytes().and_then(|member| MirrorId::parse(member).ok());
            keys.push(names.lease(id.ok_or_else(|| odd_reply("redis"))?));
        }
        let (time, values) = tokio::join!(
            self.look_up(&fence, "TIME", Vec::new()),
            self.look_up(&fence, "MGET", keys)
        );
        let (time, Value::Array(values)) = (time?, values?) else { return Err(odd_reply("redis")) };
        let [life, leases @ ..] = values.as_slice() else { return Err(odd_reply("redis")) };
        let life = life.as_bytes().and_then(|life| Life::parse(life).ok());
        let Some(life) = life.filter(|life| life.id == fence.epoch && life.seq >= fence.seq) else {
            return Err(StoreError::new(
                StoreErrorKind::DataLoss,
                "redis has begun another life since the write, which may be lost; it may be \
                 repeated",
            ));
        };
        let time = parse_time(&time).ok_or_else(|| odd_reply("redis"))?;
        if time < life.birth.saturating_add(UNSURE) {
            // With the data of a former life, their leases may be gone.
            return Err(StoreError::new(
                StoreErrorKind::Stale,
                "the life of the shard has just begun, and mirrors that are there may not have \
                 said so yet",
            ));
        }
        let follower = |lease: &Value| {
            let lease = Lease::parse(lease.as_bytes()?).ok();
            // One that another version wrote has not said that it is anywhere.
            let has_applied =
                lease.as_ref().is_some_and(|lease| lease.life == life.id && lease.seq >= fence.seq);
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
        Ok(self.send(fence.shard, Command::Other(command), arguments).await?.0)
    }
}
