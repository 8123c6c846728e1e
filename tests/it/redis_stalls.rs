//! A runtime that stands still is no outage of Redis: clients can make it stand still.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceExt as _};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::{FailMode, JwtRevocationLayer, RedisStore, Target};

use crate::servers::{RedisServer, Sentinel, redis_is_installed};
use crate::support::{Handler, WordVerifier, rejection, seen, token, with_token};

/// Connections of clients that nobody knows, to a handler that blocks its thread.
struct Stalls {
    asking: Vec<thread::JoinHandle<()>>,
    ends: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
}

impl Stalls {
    async fn start(connections: usize, blocks_for: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ends, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&served);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    while connection.read_u8().await.is_ok() {
                        thread::sleep(blocks_for);
                        counted.fetch_add(1, Ordering::SeqCst);
                        let _ = connection.write_u8(0).await;
                    }
                });
            }
        });
        let asking = (0..connections).map(|_| {
            let ends = Arc::clone(&ends);
            thread::spawn(move || {
                let mut connection = TcpStream::connect(address).unwrap();
                while !ends.load(Ordering::SeqCst) {
                    connection.write_all(&[0]).unwrap();
                    connection.read_exact(&mut [0]).unwrap();
                }
            })
        });
        Self { asking: asking.collect(), ends, served }
    }

    /// All connections were served since.
    async fn have_begun(&self) {
        let all = u32::try_from(self.asking.len()).unwrap();
        while self.served.load(Ordering::SeqCst) < all {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        tokio::task::spawn_blocking(|| self.asking.into_iter().for_each(|one| one.join().unwrap()))
            .await
            .unwrap();
    }
}

/// The ids of the connections that there are, but for the one that asks.
fn connections(server: &RedisServer) -> Vec<String> {
    let list = server.cli(&["CLIENT", "LIST"]);
    let others = list.lines().filter(|line| !line.contains("cmd=client"));
    others.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// The attack: four connections to a handler that blocks a thread for longer than a check may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_the_runtime_opens_nothing_and_no_check_fails() {
    if !redis_is_installed() {
        return;
    }
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    let layer =
        JwtRevocationLayer::new(WordVerifier::default(), store).with_fail_mode(FailMode::Open);
    layer.revoker().revoke(Target::token("bad")).await.unwrap();
    let service = layer.layer(Handler);
    let connections = connections(&server);
    let stalls = Stalls::start(4, Duration::from_millis(60)).await;
    stalls.have_begun().await;
    let mut answers = Vec::new();
    for n in 0..5 {
        // One after the other, and some at once.
        let ids = [format!("good {n}"), "bad".into(), format!("good too {n}")];
        let asked = ids.map(|id| {
            let service = service.clone();
            tokio::spawn(
                async move { service.oneshot(with_token(&token("alice", &id))).await.unwrap() },
            )
        });
        for asked in asked {
            answers.push(asked.await.unwrap());
        }
    }
    stalls.end().await;
    for (n, answer) in answers.iter().enumerate() {
        if n % 3 == 1 {
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{n}");
        } else {
            assert!(answer.status().is_success(), "{n}: {:?}", rejection(answer).kind());
            assert!(seen(answer).clearance.as_ref().unwrap().is_checked(), "{n}");
        }
    }
    assert_eq!(layer.counters().snapshot().store_errors(StoreErrorKind::Timeout), 0);
    assert_eq!(self::connections(&server), connections, "a connection was given up");
}

/// No sentinel is asked meanwhile, and the lease of the last proof ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_still_for_longer_than_a_lease_lets_nobody_in() {
    if !redis_is_installed() {
        return;
    }
    let sentinel = tokio::task::spawn_blocking(|| Sentinel::start(1, 3)).await.unwrap();
    let store = RedisStore::connect(sentinel.url()).await.unwrap();
    let layer =
        JwtRevocationLayer::new(WordVerifier::default(), store).with_fail_mode(FailMode::Open);
    layer.revoker().revoke(Target::token("bad")).await.unwrap();
    let service = layer.layer(Handler);
    let ask = || {
        let service = service.clone();
        tokio::spawn(
            async move { service.oneshot(with_token(&token("alice", "bad"))).await.unwrap() },
        )
    };
    let mut unknown = 0;
    for round in 0..3 {
        let mut asked: Vec<_> = (0..5).map(|_| ask()).collect();
        // Both threads, at once.
        let blocking: Vec<_> = (0..2)
            .map(|_| tokio::spawn(async { thread::sleep(Duration::from_millis(1800)) }))
            .collect();
        asked.extend((0..5).map(|_| ask()));
        for blocked in blocking {
            blocked.await.unwrap();
        }
        let began = Instant::now();
        loop {
            asked.extend((0..5).map(|_| ask()));
            let mut is_known = true;
            for asked in asked.drain(..) {
                let answer = asked.await.unwrap();
                assert!(!answer.status().is_success(), "round {round}: it was let in");
                if answer.status() != StatusCode::UNAUTHORIZED {
                    let kind = RejectionKind::StandingUnknown(StoreErrorKind::Overloaded);
                    assert_eq!(rejection(&answer).kind(), kind);
                    (is_known, unknown) = (false, unknown + 1);
                }
            }
            if is_known {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it does not recover");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // Else it was not tried.
    assert!(unknown > 0);
}
