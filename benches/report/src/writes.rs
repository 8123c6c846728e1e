//! What a write takes, against the least that a write can be: a `SET` with an end, by fred.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_jwt_revocation::{Revoker, Target};

use crate::machine::median;
use crate::resp::Connection;
use crate::server::{address_of, held, stats};
use crate::store::store;
use crate::support::profile;

/// One kind of write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Write {
    pub name: String,
    /// Of one call alone, in microseconds.
    pub alone: f64,
    /// How many revocations one call has.
    pub each: usize,
    /// Revocations per second with 64 calls in flight.
    pub per_sec: f64,
    /// Redis' processor for each revocation, in microseconds.
    pub redis_micros: f64,
    /// Memory of Redis for each revocation.
    pub bytes: f64,
}

impl Write {
    /// Revocations per second, one call after the other.
    pub fn in_turn(&self) -> f64 {
        self.each as f64 * 1e6 / self.alone
    }
}

const ROUNDS: usize = 5;
const FOR: Duration = Duration::from_millis(600);
pub const IN_FLIGHT: usize = 64;
const MANY: usize = 128;

/// The bare write, one revocation, and many in one call, in this order.
pub async fn measure(redis: &str) -> [Write; 3] {
    let config = Config::from_url(redis).unwrap();
    let bare = Builder::from_config(config).build().unwrap();
    bare.init().await.unwrap();
    let revoker = Revoker::new(store(redis).await, profile()).unwrap();
    let writers = [
        ("`SET … PX` by fred", Writer::Bare(bare)),
        ("`revoke`", Writer::One(revoker.clone())),
        ("`revoke_many` of 128", Writer::Many(revoker)),
    ];
    let mut watch = Connection::open(address_of(redis)).await.unwrap();
    let mut seen: [[Vec<f64>; 4]; 3] = Default::default();
    for round in 0..ROUNDS {
        for ((_, writer), seen) in writers.iter().zip(&mut seen) {
            let start = Instant::now();
            let mut alone = 0;
            while start.elapsed() < FOR {
                writer.write(format!("a{round}-{alone}")).await;
                alone += 1;
            }
            seen[0].push(start.elapsed().as_secs_f64() * 1e6 / f64::from(alone));
            let (before, had) = (stats(&mut watch).await, held(&mut watch).await);
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            let writer = Arc::new(writer.clone());
            for task in 0..IN_FLIGHT {
                let writer = Arc::clone(&writer);
                tasks.spawn(async move {
                    let mut written = 0;
                    while start.elapsed() < FOR {
                        written += writer.write(format!("b{round}-{task}-{written}")).await;
                    }
                    written
                });
            }
            let written = tasks.join_all().await.into_iter().sum::<usize>() as f64;
            let took = start.elapsed().as_secs_f64();
            let (after, has) = (stats(&mut watch).await, held(&mut watch).await);
            seen[1].push(written / took);
            seen[2].push((after.cpu - before.cpu) * 1e6 / written);
            seen[3].push((has - had) / written);
        }
    }
    let mut seen = seen.into_iter();
    writers.map(|(name, writer)| {
        let [alone, per_sec, redis_micros, bytes] = seen.next().unwrap().map(median);
        let each = if matches!(writer, Writer::Many(_)) { MANY } else { 1 };
        Write { name: name.into(), alone, each, per_sec, redis_micros, bytes }
    })
}

#[derive(Clone)]
enum Writer {
    Bare(Client),
    One(Revoker),
    Many(Revoker),
}

impl Writer {
    /// How many were written.
    async fn write(&self, id: String) -> usize {
        match self {
            Self::Bare(client) => {
                let (key, end) = (format!("bare:{id:0>32}"), Some(Expiration::PX(3_600_000)));
                let value = "2 1700000000000 0 0 0 1700003600000 1700000000000 {}";
                client.set::<(), _, _>(key, value, end, None, false).await.unwrap();
                1
            }
            Self::One(revoker) => {
                revoker.revoke(Target::token(id)).await.unwrap();
                1
            }
            Self::Many(revoker) => {
                let each = |n| revoker.revoke(Target::token(format!("{id}-{n}")));
                revoker.revoke_many((0..MANY).map(each)).await.unwrap();
                MANY
            }
        }
    }
}
