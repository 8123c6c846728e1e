//! `revoke --confirm`: waits for the mirrors, and says who is behind.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use tower_jwt_revocation::{Mirror, RedisStore};

use crate::program::Program;
use crate::support::{RedisServer, redis_or_skip};

/// A process with a mirror, on a thread of its own.
struct Other {
    stuck: mpsc::Sender<Duration>,
}

impl Other {
    fn start(url: String, name: &'static str) -> Self {
        let (stuck, orders) = mpsc::channel::<Duration>();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = RedisStore::connect(url).await.unwrap();
                let mirror = Mirror::builder(store)
                    .with_max_staleness(Duration::from_secs(20))
                    .with_name(name)
                    .start()
                    .unwrap();
                mirror.ready().await;
                ready.send(()).unwrap();
                loop {
                    match orders.try_recv() {
                        // The whole process stands still, as when its machine is suspended.
                        Ok(time) => std::thread::sleep(time),
                        Err(mpsc::TryRecvError::Empty) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(mpsc::TryRecvError::Disconnected) => return,
                    }
                }
            });
        });
        is_ready.recv_timeout(Duration::from_secs(30)).unwrap();
        Self { stuck }
    }
}

#[test]
fn a_revocation_waits_for_the_mirrors_and_names_those_that_are_behind() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let program = Program::at(&redis.url());
    assert_eq!(program.run("revoke --user a --confirm --json").exits(0).json()["mirrors"], 0);

    let _quick = Other::start(redis.url(), "quick");
    let slow = Other::start(redis.url(), "slow");
    let done = program.run("revoke --user b --confirm --json").exits(0).json();
    assert_eq!((&done["mirrors"], &done["behind"]), (&json!(2), &json!([])));
    assert!(program.run("reinstate --user b --confirm=5s").exits(0).out.contains("2 mirrors"));

    slow.stuck.send(Duration::from_secs(12)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let ran = program.run("revoke --user c --confirm=1s --json").exits(3);
    let document = ran.json();
    assert_eq!(document["behind"], json!(["slow"]));
    assert_eq!((&document["mirrors"], &document["repeatable"]), (&json!(1), &json!(true)));
    let ran = program.run("revoke --user c --confirm=1s").exits(3);
    assert!(ran.err.contains("in force") && ran.err.contains("slow"), "{ran:?}");
    // It is revoked all the same.
    program.run("find --user c").exits(1);
}
