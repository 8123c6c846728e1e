//! Proves that the things the other tests stand on hold.
#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap just as tests do")]

#[path = "support/mod.rs"]
mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream as BlockingStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use support::{
    Cluster, Fault, FaultProxy, RedisServer, Sentinel, TlsFiles, is_running, redis_or_skip,
    wait_until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
/// What must come, comes within this, on the busiest machine.
const LONG: Duration = Duration::from_secs(10);
/// What must not come would have come within this.
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn server_starts_loses_its_data_by_restart_and_keeps_its_port() {
    redis_or_skip!();
    let mut server = RedisServer::start();
    assert_eq!(server.cli(&["SET", "key", "a value"]), "OK");
    assert_eq!(server.cli(&["GET", "key"]), "a value");
    assert_eq!(server.cli(&["PING"]), "PONG");
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
    assert!(server.try_cli(&["NONSENSE"]).unwrap_err().starts_with("ERR unknown command"));

    let (port, pid) = (server.port(), server.pid());
    server.kill();
    assert!(!server.answers());
    assert_eq!(
        BlockingStream::connect(server.addr()).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    server.restart();
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.cli(&["EXISTS", "key"]), "0");

    server.restart(); // one that runs
    assert_eq!(server.cli(&["PING"]), "PONG");
}

#[test]
fn server_told_to_write_its_data_has_it_after_restart() {
    redis_or_skip!();
    let mut server =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    server.cli(&["SET", "key", "value"]);
    server.kill();
    server.restart();
    assert_eq!(server.cli(&["GET", "key"]), "value");
}

#[test]
fn hung_server_accepts_but_answers_only_when_resumed() {
    redis_or_skip!();
    let server = RedisServer::start();
    server.stop_hung();
    let mut stream = BlockingStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(SHORT)).unwrap();
    stream.write_all(PING).unwrap();
    let mut reply = [0; 7];
    assert_eq!(stream.read(&mut reply).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.resume();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply, PONG);
}

#[test]
fn server_takes_directives_and_users() {
    redis_or_skip!();
    let server = RedisServer::builder()
        .arg("--maxmemory", "3mb")
        .acl("default off")
        .acl("reader on >secret ~* &* -@all +get")
        .start();
    assert_eq!(server.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n3145728");
    assert_eq!(
        server.url_as("reader", "secret"),
        format!("redis://reader:secret@127.0.0.1:{}", server.port())
    );
    let cli = |command: &[&str]| {
        let mut cli = Command::new("redis-cli");
        cli.args(["-u", &server.url_as("reader", "secret"), "--no-auth-warning"]).args(command);
        String::from_utf8(cli.output().unwrap().stdout).unwrap()
    };
    assert_eq!(cli(&["GET", "key"]), "\n");
    assert!(cli(&["SET", "key", "value"]).starts_with("NOPERM"));
    server.cli(&["SET", "key", "value"]);
}

#[test]
fn unix_socket_is_in_the_url() {
    redis_or_skip!();
    let server = RedisServer::builder().unix_socket().start();
    assert_eq!(server.url(), format!("redis+unix://{}", server.socket().display()));
    let output =
        Command::new("redis-cli").arg("-s").arg(server.socket()).arg("PING").output().unwrap();
    assert_eq!(output.stdout, b"PONG\n");
}

#[test]
fn tls_server_speaks_tls_and_wants_a_certificate_if_told_so() {
    redis_or_skip!();
    let ping = |server: &RedisServer, with_certificate: bool| {
        let TlsFiles { ca, client_cert, client_key, .. } = server.tls();
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &server.port().to_string(), "--tls", "--cacert"]).arg(ca);
        if with_certificate {
            cli.arg("--cert").arg(client_cert).arg("--key").arg(client_key);
        }
        String::from_utf8(cli.arg("PING").output().unwrap().stdout).unwrap()
    };
    let one_sided = RedisServer::builder().tls(false).start();
    assert_eq!(one_sided.url(), format!("rediss://127.0.0.1:{}", one_sided.port()));
    assert_eq!(ping(&one_sided, false), "PONG\n");
    assert_eq!(one_sided.cli(&["PING"]), "PONG");
    let mutual = RedisServer::builder().tls(true).start();
    assert_eq!(ping(&mutual, true), "PONG\n");
    assert_ne!(ping(&mutual, false), "PONG\n");
}

#[test]
fn server_and_its_files_go_with_a_panic_even_if_hung() {
    redis_or_skip!();
    let (sender, receiver) = mpsc::channel();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let server = RedisServer::start();
        server.stop_hung();
        sender.send((server.pid(), server.socket())).unwrap();
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    let (pid, socket) = receiver.recv().unwrap();
    assert!(!is_running(pid));
    assert!(!socket.parent().unwrap().exists());
}

/// Runs this test binary anew, for one test that starts a server and waits; then kills it as the
/// system would when out of memory, which runs no destructor.
#[test]
fn server_and_its_files_go_with_a_killed_test_process() {
    const REPORT: &str = "SUPPORT_WORKS_REPORT";
    redis_or_skip!();
    let this = "server_and_its_files_go_with_a_killed_test_process";
    if let Ok(report) = std::env::var(REPORT) {
        let server = RedisServer::start();
        let text = format!("{} {}\n", server.pid(), server.socket().display());
        std::fs::write(report, text).unwrap();
        std::thread::sleep(LONG); // until killed
        return;
    }
    let report = std::env::temp_dir().join(format!("support-works-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([this, "--exact", "--quiet"])
        .env(REPORT, &report)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    wait_until("the server of the other process runs", LONG, || {
        text = std::fs::read_to_string(&report).unwrap_or_default();
        text.ends_with('\n')
    });
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&report).unwrap();
    let (pid, socket) = text.trim().split_once(' ').unwrap();
    let directory = std::path::Path::new(socket).parent().unwrap();
    let pid = pid.parse().unwrap();
    wait_until("its server is gone", LONG, || !is_running(pid) && !directory.exists());
}

/// A server, a proxy before it, and a connection through the proxy that works.
async fn behind_proxy() -> (RedisServer, FaultProxy, TcpStream) {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr()).await;
    let mut live = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_pong(&mut live).await;
    (server, proxy, live)
}

/// Sends `PING` and returns what comes back until the reply is whole or the connection ends.
async fn ping(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.write_all(PING).await?;
    read_reply(stream).await
}

async fn read_reply(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    while reply.len() < PONG.len() && timeout(LONG, stream.read_buf(&mut reply)).await?? > 0 {}
    Ok(reply)
}

async fn assert_pong(stream: &mut TcpStream) {
    assert_eq!(ping(stream).await.unwrap(), PONG);
}

#[tokio::test]
async fn proxy_passes() {
    redis_or_skip!();
    let (server, proxy, mut live) = behind_proxy().await;
    assert_pong(&mut live).await;
    assert_eq!(proxy.accepted(), 1);
    assert_eq!(proxy.url(), format!("redis://{}", proxy.addr()));
    // More than the buffers on the way hold.
    server.cli(&["SETRANGE", "key", "7999999", "x"]);
    live.write_all(b"GET key\r\n").await.unwrap();
    let mut reply = vec![0; b"$8000000\r\n".len() + 8_000_000 + 2];
    timeout(LONG, live.read_exact(&mut reply)).await.unwrap().unwrap();
    assert!(reply.ends_with(b"x\r\n"));
}

#[tokio::test]
async fn proxy_adds_latency() {
    redis_or_skip!();
    let (_server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::Latency { base: SHORT, jitter: Duration::from_millis(20) }).await;
    let start = Instant::now();
    assert_pong(&mut live).await;
    assert!(start.elapsed() >= SHORT);
    proxy.set(Fault::Latency { base: LONG, jitter: Duration::ZERO }).await;
    live.write_all(PING).await.unwrap();
    proxy.set(Fault::Pass).await;
    assert_eq!(read_reply(&mut live).await.unwrap(), PONG, "a lifted fault delays nothing");
}

#[tokio::test]
async fn proxy_swallows_requests() {
    redis_or_skip!();
    let (server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::BlackHoleRequests).await;
    live.write_all(b"SET key value\r\n").await.unwrap();
    assert!(timeout(SHORT, live.readable()).await.is_err());
    assert_eq!(server.cli(&["EXISTS", "key"]), "0");
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    new.write_all(PING).await.unwrap();
    assert!(timeout(SHORT, new.readable()).await.is_err());
    proxy.set(Fault::Pass).await;
    assert_eq!(read_reply(&mut new).await.unwrap(), PONG);
    let mut reply = [0; 5];
    live.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"+OK\r\n");
}

#[tokio::test]
async fn proxy_swallows_replies() {
    redis_or_skip!();
    let (server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::BlackHoleReplies).await;
    live.write_all(b"SET key value\r\n").await.unwrap();
    assert!(timeout(SHORT, live.readable()).await.is_err());
    assert_eq!(server.cli(&["EXISTS", "key"]), "1");
    proxy.set(Fault::Pass).await;
    let mut reply = [0; 5];
    live.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"+OK\r\n");
}

#[tokio::test]
async fn proxy_cuts_a_reply() {
    redis_or_skip!();
    let (_server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::CutReplyAfter(3)).await;
    assert_eq!(ping(&mut live).await.unwrap(), b"+PO");
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(ping(&mut new).await.unwrap(), b"+PO");
    proxy.set(Fault::CutReplyAfter(10)).await;
    let mut new = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_pong(&mut new).await;
    assert_eq!(ping(&mut new).await.unwrap(), b"+PO", "the tenth byte is in the second reply");
}

#[tokio::test]
async fn proxy_drips() {
    redis_or_skip!();
    let (_server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::Drip { bytes: 2, every: Duration::from_millis(50) }).await;
    let start = Instant::now();
    assert_pong(&mut live).await; // 7 bytes: three pauses before the last
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn proxy_resets() {
    redis_or_skip!();
    let (_server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::Reset).await;
    let error = timeout(LONG, live.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The connection is made, and then reset: the client may notice when it writes or when it
    // reads.
    if let Ok(mut new) = TcpStream::connect(proxy.addr()).await {
        assert!(ping(&mut new).await.is_err());
    }
    proxy.set(Fault::Pass).await;
    assert_pong(&mut TcpStream::connect(proxy.addr()).await.unwrap()).await;
}

#[tokio::test]
async fn proxy_refuses_new_connections_only() {
    redis_or_skip!();
    let (_server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::Refuse).await;
    let error = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_pong(&mut live).await;
    proxy.set(Fault::Pass).await;
    assert_pong(&mut TcpStream::connect(proxy.addr()).await.unwrap()).await;
}

#[tokio::test]
async fn proxy_answers_garbage() {
    redis_or_skip!();
    let (_server, proxy, mut live) = behind_proxy().await;
    proxy.set(Fault::Garbage(b"\0\xff?!\r\n:".to_vec())).await;
    assert_eq!(ping(&mut live).await.unwrap(), b"\0\xff?!\r\n:");
}

#[tokio::test]
async fn proxy_closes_with_its_server_and_all_on_drop() {
    redis_or_skip!();
    let (mut server, proxy, mut live) = behind_proxy().await;
    server.kill();
    let end = timeout(LONG, live.read_u8()).await.unwrap();
    assert!(end.is_err());
    assert!(
        timeout(LONG, async { ping(&mut TcpStream::connect(proxy.addr()).await?).await })
            .await
            .unwrap()
            .is_err()
    );
    server.restart();
    let mut live = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_pong(&mut live).await;
    let addr = proxy.addr();
    drop(proxy);
    let _ = timeout(LONG, live.read_u8()).await.unwrap().unwrap_err();
    // Another test may have got the port: what answers there is not this server.
    let connections = || {
        let stats = server.cli(&["INFO", "stats"]);
        let received =
            stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        received.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = connections();
    if let Ok(mut other) = TcpStream::connect(addr).await {
        let _ = timeout(LONG, ping(&mut other)).await;
    }
    // The two looks make one connection.
    assert_eq!(connections(), before + 1);
}

#[test]
fn sentinels_promote_a_replica_by_order_and_after_death() {
    redis_or_skip!();
    let mut sentinel = Sentinel::start(2, 3);
    assert!(sentinel.url().starts_with("redis-sentinel://127.0.0.1:"));
    assert!(sentinel.url().contains("?sentinelServiceName=primary&node=127.0.0.1:"));
    assert_eq!(sentinel.primary_index(), 0);
    sentinel.primary().cli(&["SET", "key", "value"]);
    sentinel.primary().cli(&["WAIT", "2", "5000"]);
    sentinel.failover();
    assert_ne!(sentinel.primary_index(), 0);
    assert_eq!(sentinel.primary().cli(&["GET", "key"]), "value");

    let dead = sentinel.kill_primary();
    sentinel.wait_for_failover_from(dead);
    assert_eq!(sentinel.primary().cli(&["GET", "key"]), "value");
    sentinel.server_mut(dead).restart();
    wait_until("the old primary has become a replica", Duration::from_secs(30), || {
        sentinel.servers()[dead].try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("slave"))
    });
}

#[test]
fn a_lone_sentinel_replaces_a_hung_primary() {
    redis_or_skip!();
    let sentinel = Sentinel::start(1, 1);
    let hung = sentinel.hang_primary();
    sentinel.wait_for_failover_from(hung);
    assert_eq!(sentinel.primary_index(), 1 - hung);
    sentinel.servers()[hung].resume();
}

#[test]
fn cluster_has_owners_for_keys_and_moves_slots() {
    redis_or_skip!();
    let cluster = Cluster::start();
    assert!(cluster.url().starts_with("redis-cluster://127.0.0.1:"));
    assert_eq!(cluster.slot("123456789"), 0x31c3); // the check value in the cluster's specification
    let key = cluster.key_on(1, "key:");
    assert_eq!(cluster.owner(&key), 1);
    assert_eq!(cluster.nodes()[1].cli(&["SET", &key, "value"]), "OK");
    assert!(cluster.nodes()[0].try_cli(&["GET", &key]).unwrap_err().starts_with("MOVED"));

    let slot = cluster.slot(&key);
    cluster.begin_migration(slot, 2);
    let absent = format!("{{{key}}}absent");
    assert_eq!(cluster.nodes()[1].cli(&["GET", &key]), "value");
    assert!(cluster.nodes()[1].try_cli(&["GET", &absent]).unwrap_err().starts_with("ASK"));
    cluster.migrate_slot(slot, 2);
    assert_eq!(cluster.owner(&key), 2);
    assert_eq!(cluster.nodes()[2].cli(&["GET", &key]), "value");
    assert!(cluster.nodes()[1].try_cli(&["GET", &key]).unwrap_err().starts_with("MOVED"));

    cluster.kill(0);
    assert_eq!(cluster.nodes()[2].cli(&["GET", &key]), "value", "the rest goes on");
}

#[test]
fn cluster_replica_takes_over() {
    redis_or_skip!();
    let cluster = Cluster::with_replicas(1);
    let key = cluster.key_on(0, "key:");
    let slot = cluster.slot(&key);
    cluster.kill(0);
    cluster.wait_for_failover_of(slot, 0);
    assert_ne!(cluster.owner(&key), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_with_its_own_clock_goes_by_it() {
    redis_or_skip!();
    let mut server = RedisServer::builder().own_clock().start();
    let seconds = |server: &RedisServer| {
        server.cli(&["EVAL", "return redis.call('TIME')[1]", "0"]).parse::<i64>().unwrap()
    };
    let began = seconds(&server);
    assert_eq!(server.cli(&["SET", "key", "a value", "EX", "1000"]), "OK");
    server.set_clock(-90_500);
    assert!((began - 91..began - 80).contains(&seconds(&server)));
    assert_eq!(server.cli(&["GET", "key"]), "a value");
    server.set_clock(2_000_000);
    assert!((began + 2000..began + 2010).contains(&seconds(&server)));
    assert_eq!(server.cli(&["GET", "key"]), "");
    server.kill();
    server.restart();
    assert!((began + 2000..began + 2020).contains(&seconds(&server)), "also after a restart");
}
