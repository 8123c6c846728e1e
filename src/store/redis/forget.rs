//! Forgetting: what is over is taken out of the indexes, by itself.
//!
//! Redis removes a record when it is over, and not the members that name it in the index. The
//! script that writes removes some with every write; where nothing is written, this task does.
//!
//! | the last look found | the next look at the shard is |
//! | --- | --- |
//! | more that is over | after [`PACE`] |
//! | the first end that is still to come | then, and not before [`REST`] |
//! | nothing at all | about [`AFTER_WRITES`] after something was written |
//! | another process at it | when its claim is over |
//!
//! Whether something was written is known from the epoch, which is read with every check and probe,
//! so while nothing is over nothing is asked. A process that has removed something has a claim for
//! [`CLAIM`], and others leave the work to it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures::stream::{self, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use super::command::StoreCommand;
use super::connection::unexpected_reply;
use super::core::StoreCore;
use super::random;
use super::reply::read_strings;
use super::script::LuaScript;
use crate::store::{StoreError, StoreErrorKind};

/// Removes what is over.
pub(super) const FORGET: LuaScript = LuaScript {
    source: include_str!("forget.lua"),
    sha: "34c90b7547dda18dfb92cb2218c91d8425656175",
    writes: false,
};

/// How many members of each index one run of the script removes: a fraction of a millisecond.
const BATCH: usize = 512;
/// How long after a run the next one comes, while there is more.
const PACE: Duration = Duration::from_millis(250);
/// How long it pauses otherwise, at least. What ends meanwhile is forgotten at once.
const REST: Duration = Duration::from_secs(5);
/// For how long a process that has removed something is the only one.
const CLAIM: Duration = Duration::from_secs(30);
/// How soon it looks after something was written, which may end before what was known: about.
const AFTER_WRITES: Duration = Duration::from_secs(30);
/// The pause after a script that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// The pause of a process without the right to write.
const WITHOUT_RIGHT: Duration = Duration::from_secs(6 * 60 * 60);
/// How many shards are looked at at once.
const SHARDS_AT_ONCE: usize = 8;

/// What is known of one shard.
#[derive(Clone, Copy, Debug)]
struct ShardPlan {
    shard: u16,
    /// When to look; `None` if there is nothing that could end.
    due: Option<Instant>,
    /// The epoch, and how many changes it had, before the last look.
    seen: Option<(u64, u64)>,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// The first end that is still to come is so far away; zero if there is more that is over.
    Next(Duration),
    /// The indexes are empty.
    Nothing,
    /// Another process is at it, for so long.
    Busy(Duration),
}

/// Forgets, for as long as the store is there.
pub(crate) async fn forget(core: Weak<StoreCore>) {
    let id = Bytes::from(format!("{:016x}", random::bits()));
    let Some(shards) = core.upgrade().map(|core| core.keys.shards()) else { return };
    // Not all processes that were started together at once.
    let first = Instant::now() + REST.mul_f64(random::fraction() / 2.0);
    let mut plans: Vec<_> =
        (0..shards).map(|shard| ShardPlan { shard, due: Some(first), seen: None }).collect();
    loop {
        let soonest = plans.iter().filter_map(|plan| plan.due).min();
        let rest = Instant::now() + REST;
        sleep_until(soonest.map_or(rest, |due| due.min(rest))).await;
        let Some(core) = core.upgrade() else { return };
        plans = stream::iter(plans)
            .map(|plan| look_if_due(&core, plan, &id))
            .buffered(SHARDS_AT_ONCE)
            .collect()
            .await;
    }
}

async fn look_if_due(core: &Arc<StoreCore>, plan: ShardPlan, id: &Bytes) -> ShardPlan {
    let written = core.tracker.known(plan.shard).map(|known| (known.epoch.id, known.epoch.seq));
    if plan.is_due(Instant::now()) {
        let found = core.forget(plan.shard, id).await;
        plan.after_look(Instant::now(), written, found)
    } else {
        plan.without_look(Instant::now(), written)
    }
}

impl ShardPlan {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    fn without_look(self, now: Instant, written: Option<(u64, u64)>) -> Self {
        if written == self.seen {
            return self;
        }
        let soon = now + AFTER_WRITES.mul_f64(1.0 + random::fraction());
        Self { due: Some(self.due.map_or(soon, |due| due.min(soon))), seen: written, ..self }
    }

    /// `written` is what was known before the look.
    fn after_look(
        self,
        now: Instant,
        written: Option<(u64, u64)>,
        found: Result<Found, StoreError>,
    ) -> Self {
        let some = random::fraction();
        let pause = match found {
            Ok(Found::Next(Duration::ZERO)) => Some(PACE.mul_f64(0.5 + some)),
            Ok(Found::Next(wait)) => Some(wait.max(REST).saturating_add(REST.mul_f64(some))),
            Ok(Found::Busy(wait)) => Some(wait.saturating_add(REST.mul_f64(some))),
            Ok(Found::Nothing) => None,
            Err(error) if error.kind() == StoreErrorKind::Denied => Some(WITHOUT_RIGHT),
            Err(_) => Some(AFTER_FAILURE.mul_f64(0.5 + some / 2.0)),
        };
        Self { due: pause.and_then(|pause| now.checked_add(pause)), seen: written, ..self }
    }
}

impl StoreCore {
    /// Removes some of what is over from the indexes of a shard.
    async fn forget(&self, shard: u16, id: &Bytes) -> Result<Found, StoreError> {
        let names = self.keys.shard(shard);
        let mut keys = vec![names.meta.clone(), names.index.clone(), names.tombstones.clone()];
        #[cfg(feature = "sessions")]
        keys.push(names.members.clone());
        let mut arguments = vec![Bytes::from(keys.len().to_string())];
        arguments.append(&mut keys);
        arguments.extend([
            id.clone(),
            CLAIM.as_millis().to_string().into(),
            BATCH.to_string().into(),
        ]);
        read(self.send(shard, StoreCommand::Script(&FORGET), arguments).await?)
    }
}

/// The reply of the script.
fn read(reply: Value) -> Result<Found, StoreError> {
    let parts = read_strings(reply)?;
    let [first, second] = parts.as_slice() else { return Err(unexpected_reply("the script")) };
    let millis = |text: &[u8]| {
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        number.map(Duration::from_millis).ok_or_else(|| unexpected_reply("the script"))
    };
    match &**first {
        b"busy" => millis(second).map(Found::Busy),
        b"none" => Ok(Found::Nothing),
        wait => millis(wait).map(Found::Next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: ShardPlan = ShardPlan { shard: 0, due: None, seen: Some((7, 1)) };

    #[test]
    fn nothing_is_asked_until_something_was_written() {
        let now = Instant::now();
        let idle = PLAN.after_look(now, PLAN.seen, Ok(Found::Nothing));
        assert!(idle.due.is_none());
        assert!(idle.without_look(now, PLAN.seen).due.is_none());
        let due = idle.without_look(now, Some((7, 2))).due.unwrap();
        assert!(due >= now + AFTER_WRITES && due <= now + AFTER_WRITES * 2);
        // Further writes do not put it off.
        let again = ShardPlan { due: Some(due), ..PLAN }.without_look(due, Some((7, 3)));
        assert_eq!(again.due, Some(due));
    }

    #[test]
    fn the_next_look_is_when_the_first_end_has_come_and_paced_while_there_is_more() {
        let now = Instant::now();
        let pause = |found| PLAN.after_look(now, None, found).due.unwrap() - now;
        for _ in 0..100 {
            assert!((PACE / 2..=PACE * 2).contains(&pause(Ok(Found::Next(Duration::ZERO)))));
            let soon = pause(Ok(Found::Next(Duration::from_millis(1))));
            assert!((REST..=REST * 2).contains(&soon), "{soon:?}");
            let hour = Duration::from_secs(3600);
            assert!((hour..=hour + REST).contains(&pause(Ok(Found::Next(hour)))));
            assert!((CLAIM..=CLAIM + REST).contains(&pause(Ok(Found::Busy(CLAIM)))));
        }
        let denied = StoreError::new(StoreErrorKind::Denied, "no");
        assert_eq!(pause(Err(denied)), WITHOUT_RIGHT);
        // An end that no clock can reach.
        assert!(PLAN.after_look(now, None, Ok(Found::Next(Duration::MAX))).due.is_none());
    }
}
