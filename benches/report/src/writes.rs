//! What a write takes, against the least that a write can be: a `SET` with an end, by fred.

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_jwt_revocation::{Revoker, Target};
use tower_jwt_revocation_report::support::profile;

use crate::follower::Follower;

/// One kind of write.
pub struct Write {
    pub name: &'static str,
    /// Of one alone, in microseconds.
    pub alone: f64,
    /// Writes per second with 64 in flight.
    pub per_sec: f64,
    /// Redis' processor for each, in microseconds.
    pub redis_micros: f64,
    /// Memory of Redis for each.
    pub bytes: f64,
}

const ROUNDS: usize = 5;
const FOR: Duration = Duration::from_millis(600);
const MANY: usize = 128;

pub async fn measure(redis: &str, address: &str) -> Vec<Write> {
    let config = Config::from_url(redis).unwrap();
    let bare = Builder::from_config(config).build().unwrap();
    bare.init().await.unwrap();
    let revoker = Revoker::new(crate::store(redis).await, profile()).unwrap();
    let writers = [
        ("`SET … PX` by fred", Writer::Bare(bare)),
        ("`revoke`", Writer::One(revoker.clone())),
        ("`revoke_many` of 128", Writer::Many(revoker)),
    ];
    let mut watch = Follower::connect(address, 0).await.unwrap();
    let mut seen: Vec<[Vec<f64>; 4]> = writers.iter().map(|_| Default::default()).collect();
    for round in 0..ROUNDS {
        for ((_, writer), seen) in writers.iter().zip(&mut seen) {
            let start = Instant::now();
            let mut alone = 0;
            while start.elapsed() < FOR {
                writer.write(format!("a{round}-{alone}")).await;
                alone += 1;
            }
            seen[0].push(start.elapsed().as_secs_f64() * 1e6 / f64::from(alone));
            let (before, held) = (crate::stats(&mut watch).await, crate::held(&mut watch).await);
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            let writer = Arc::new(writer.clone());
            for task in 0..64 {
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
            let (after, holds) = (crate::stats(&mut watch).await, crate::held(&mut watch).await);
            seen[1].push(written / took);
            seen[2].push((after.cpu - before.cpu) * 1e6 / written);
            seen[3].push((holds - held) / written);
        }
    }
    let median = |mut numbers: Vec<f64>| {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    };
    let written =
        writers.iter().zip(seen).map(|((name, _), [alone, per_sec, micros, bytes])| Write {
            name: *name,
            alone: median(alone),
            per_sec: median(per_sec),
            redis_micros: median(micros),
            bytes: median(bytes),
        });
    written.collect()
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
