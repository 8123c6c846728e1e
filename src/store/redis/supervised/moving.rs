//! Questions about keys of a hash slot that is being moved: each is asked by itself, and at the
//! node to which it was moved if it is not here any more.

use std::time::Duration;

use fred::interfaces::ClientLike as _;
use fred::types::{CustomCommand, Value};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::super::connection::{classify, error_code, unexpected_reply};
use super::super::time_limit::{Late, TimeLimit};
use super::super::topology::{KeyCommand, is_moving};
use super::{Permit, PinnedConnection, given_up_early};
use crate::store::{StoreError, StoreErrorKind};

/// How often keys are read again because the first of them have changed meanwhile.
const ATTEMPTS: usize = 3;

/// Reads keys, and those before `guards` once more: they must not have changed.
async fn read_guarded<'a>(
    keys: &[Value],
    guards: usize,
    read: impl Fn(Vec<Value>) -> BoxFuture<'a, Result<Vec<Value>, StoreError>>,
) -> Result<Vec<Value>, StoreError> {
    for _ in 0..ATTEMPTS {
        let values = read(keys.to_vec()).await?;
        let again = read(keys.iter().take(guards).cloned().collect()).await?;
        if values.starts_with(&again) {
            return Ok(values);
        }
    }
    Err(StoreError::new(
        StoreErrorKind::Cluster,
        "the slot is being moved, and was written to while its keys were read one by one",
    ))
}

impl Permit {
    /// Asks again what was answered with an error. If it was because the slot is being moved, one
    /// key is asked for where it is, and several are asked for one by one; else the error stays.
    pub(crate) async fn command_while_moving(
        &self,
        error: StoreError,
        command: &'static str,
        arguments: Vec<Value>,
        limit: Duration,
    ) -> Result<Value, StoreError> {
        if !is_moving(&error) {
            return Err(error);
        }
        let moving = error.clone();
        let asked = async {
            if command == "MGET" {
                return self.connection.get_each(arguments).await.map(Value::Array);
            }
            let answers = self.connection.ask_importing(error, vec![(command, arguments)]).await?;
            answers.into_iter().next().ok_or_else(|| unexpected_reply("redis"))
        };
        let mut limit = TimeLimit::start(limit);
        match limit.wait(asked).await {
            Ok(answer) => answer.map_err(|error| limit.blame(error)),
            Err(Late::Unanswered) => Err(moving),
            Err(late) => Err(late.error()),
        }
    }
}

impl PinnedConnection {
    /// The values of keys whose slot is being moved. The first `guards` are read before and after
    /// the others, and have to be the same: nothing was lost in between. The caller says how long
    /// to wait.
    pub(crate) async fn mget_while_moving(
        &self,
        keys: Vec<Value>,
        guards: usize,
    ) -> Result<Vec<Value>, StoreError> {
        read_guarded(&keys, guards, |keys| self.get_each(keys).boxed()).await
    }

    /// The values of keys, each asked for by itself: here, and where it is not here any more, at
    /// the node to which it was moved. In order: no key is asked for before those before it have
    /// been asked for.
    async fn get_each(&self, keys: Vec<Value>) -> Result<Vec<Value>, StoreError> {
        let mut given_up = self.current.given_up.subscribe();
        let believed = self.current.connection.lease().as_it_stands();
        let pipeline = self.current.connection.client.pipeline();
        for key in &keys {
            let command = CustomCommand::new_static("GET", None::<u16>, false);
            // It is only put into a queue.
            let queued: Result<Value, _> = pipeline.custom(command, vec![key.clone()]).await;
            queued.map_err(|error| classify(&error))?;
        }
        let replies = tokio::select! {
            replies = pipeline.try_all::<Value>() => replies,
            _ = given_up.wait_for(Option::is_some) => return Err(given_up_early()),
        };
        let is_one_for_all = replies.len() != keys.len();
        let mut values = Vec::with_capacity(keys.len());
        let mut elsewhere: Vec<(usize, StoreError)> = Vec::new();
        for reply in replies {
            match self.assess(reply, believed) {
                Err(error) if error_code(&error) == "ASK" => {
                    elsewhere.push((values.len(), error));
                    values.push(Value::Null);
                }
                reply => values.push(reply?),
            }
        }
        if is_one_for_all {
            return Err(unexpected_reply("redis"));
        }
        // All keys of a question are in one slot, so they are moved to one node.
        let Some((_, redirect)) = elsewhere.first() else { return Ok(values) };
        let commands: Vec<KeyCommand> = elsewhere
            .iter()
            .filter_map(|(at, _)| Some(("GET", vec![keys.get(*at)?.clone()])))
            .collect();
        let found = self.ask_importing(redirect.clone(), commands).await?;
        for ((at, _), value) in elsewhere.iter().zip(found) {
            if let Some(place) = values.get_mut(*at) {
                *place = value;
            }
        }
        Ok(values)
    }

    async fn ask_importing(
        &self,
        redirect: StoreError,
        commands: Vec<KeyCommand>,
    ) -> Result<Vec<Value>, StoreError> {
        if error_code(&redirect) != "ASK" {
            return Err(redirect);
        }
        let (topology, connection) = (&self.shared.config.topology, &self.current.connection);
        // In a box, because it is large and seldom needed.
        let found = topology.ask_importing(&redirect, connection, commands).boxed().await?;
        // A node that has been given up meanwhile does not say any more where its keys are.
        if self.shared.is_current(&self.current) { Ok(found) } else { Err(given_up_early()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What is read of an epoch and of a record, where the epoch changes before these reads.
    async fn read(changes: &[usize]) -> (Result<Vec<Value>, StoreError>, usize) {
        let reads = AtomicUsize::new(0);
        let keys = ["e".into(), "r".into()];
        let values = read_guarded(&keys, 1, |keys: Vec<Value>| {
            let n = reads.fetch_add(1, Ordering::Relaxed);
            let epoch = changes.iter().filter(|change| **change <= n).count();
            let epoch = Value::from(u32::try_from(epoch).unwrap());
            let values = std::iter::once(epoch).chain(keys.into_iter().skip(1)).collect();
            async { Ok(values) }.boxed()
        });
        (values.await, reads.into_inner())
    }

    #[tokio::test]
    async fn what_was_read_counts_only_if_the_epoch_was_the_same_before_and_after() {
        assert_eq!(read(&[]).await.0.unwrap(), [0.into(), "r".into()]);
        let (values, reads) = read(&[1, 3]).await;
        assert_eq!((values.unwrap(), reads), (vec![2.into(), "r".into()], 6));
        let (values, reads) = read(&[1, 3, 5]).await;
        assert_eq!((values.unwrap_err().kind(), reads), (StoreErrorKind::Cluster, 6));
    }
}
