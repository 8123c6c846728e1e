//! Over HTTP: an axum server in a process of its own, keep-alive connections over the loopback
//! interface.
//!
//! The server has one thread. Where there are two processors it has one for itself, and the clients
//! share the other with Redis, so that it is the server that is measured.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tower_jwt_revocation::{CachedVerifier, JwtRevocationLayer, Mirror, RedisStore};
use tower_jwt_revocation_report::support::{rs256, verifier};

use crate::peers::{self, ByHand, Exists};
use tower_jwt_revocation_report::machine::{cpu_of_process, median, pin};

pub const SERVERS: [(&str, &str); 8] = [
    ("bare", "bare"),
    ("mirror", "mirror"),
    ("direct", "direct"),
    ("fred", FRED),
    ("redis-rs", "by hand: from_fn, jsonwebtoken, EXISTS by redis-rs"),
    ("no-revocation", "by hand: from_fn, jsonwebtoken, no revocation"),
    ("jwt-authorizer", "jwt-authorizer, no revocation"),
    ("resource-server", "tower-oauth2-resource-server, no revocation"),
];
/// What the targets compare with.
pub const FRED: &str = "by hand: from_fn, jsonwebtoken, EXISTS by fred";
pub const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Different tokens that are sent in turns.
const TOKENS: usize = 1000;
const TURNS: usize = 5;
const TURN: Duration = Duration::from_millis(700);

/// One server at one number of connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    pub name: String,
    pub connections: usize,
    pub per_second: f64,
    /// Microseconds.
    pub latency: [f64; 3],
    /// What the process of the server took of its processor, per request, in nanoseconds.
    pub cpu: f64,
}

/// What the child does: serves until its standard input ends, and says there how much time it took
/// when it is asked.
pub fn serve(name: &str, redis: &str) {
    pin(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys = rs256();
        let app = || Router::new().route("/", get(|| async { "ok" }));
        let store = || async {
            let store =
                RedisStore::builder().with_url(redis).with_check_timeout(Duration::from_secs(5));
            store.connect().await.unwrap()
        };
        let cached = || CachedVerifier::new(verifier(&keys));
        let by_hand = |exists| {
            let by_hand = ByHand::new(&keys, exists);
            from_fn(move |request, next| by_hand.clone().pass(request, next))
        };
        let app = match name {
            "bare" => app(),
            "mirror" => {
                let mirror = Mirror::new(store().await).unwrap();
                mirror.ready().await;
                app().layer(JwtRevocationLayer::new(cached(), mirror))
            }
            "direct" => app().layer(JwtRevocationLayer::new(cached(), store().await)),
            "fred" => app().layer(by_hand(Exists::by_fred(redis).await)),
            "redis-rs" => app().layer(by_hand(Exists::by_redis(redis).await)),
            "no-revocation" => app().layer(by_hand(Exists::Nobody)),
            "resource-server" => app().layer(peers::resource_server().await.into_layer()),
            "jwt-authorizer" => {
                let app = axum07::Router::new().route("/", axum07::routing::get(|| async { "ok" }));
                let app = app.layer(peers::jwt_authorizer().await);
                watch_input(port);
                return axum07::serve(listener, app).await.unwrap();
            }
            _ => panic!("no server is called {name}"),
        };
        watch_input(port);
        axum::serve(listener, app).await.unwrap();
    });
}

fn watch_input(port: u16) {
    println!("{port}");
    std::thread::spawn(|| {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            println!("{}", cpu_of_process().as_nanos());
        }
        std::process::exit(0);
    });
}

/// A server in a process of its own; it ends with this value, or with this process.
struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(name: &str, redis: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", name, redis])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, input, output, port: 0 };
        server.port = u16::try_from(server.line()).unwrap();
        server
    }

    fn line(&mut self) -> u64 {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().parse().expect("the server did not start")
    }

    fn cpu(&mut self) -> Duration {
        writeln!(self.input.as_mut().unwrap(), "cpu").unwrap();
        Duration::from_nanos(self.line())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.output.read_to_string(&mut String::new());
        let _ = self.child.wait();
    }
}

pub fn measure_all(redis: &str) -> Vec<Served> {
    pin(1);
    let keys = rs256();
    let requests: Vec<Vec<u8>> = (0..TOKENS)
        .map(|n| {
            let token = keys.token(n);
            format!("GET / HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer {token}\r\n\r\n")
                .into_bytes()
        })
        .collect();
    let mut servers: Vec<_> = SERVERS.iter().map(|(name, _)| Server::start(name, redis)).collect();
    for server in &mut servers {
        load(server, &requests, 16, Duration::from_millis(300));
    }
    let mut served = Vec::new();
    for connections in CONNECTIONS {
        let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); servers.len()];
        for _ in 0..TURNS {
            for (server, turns) in servers.iter_mut().zip(&mut turns) {
                turns.push(load(server, &requests, connections, TURN));
            }
        }
        for ((_, name), turns) in SERVERS.iter().zip(turns) {
            let of = |pick: fn(&Turn) -> f64| median(turns.iter().map(pick).collect());
            served.push(Served {
                name: (*name).into(),
                connections,
                per_second: of(|turn| turn.per_second),
                latency: [
                    of(|turn| turn.latency[0]),
                    of(|turn| turn.latency[1]),
                    of(|turn| turn.latency[2]),
                ],
                cpu: of(|turn| turn.cpu),
            });
        }
    }
    served
}

#[derive(Clone)]
struct Turn {
    per_second: f64,
    latency: [f64; 3],
    cpu: f64,
}

fn load(server: &mut Server, requests: &[Vec<u8>], connections: usize, time: Duration) -> Turn {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = server.cpu();
    let start = Instant::now();
    let mut latencies: Vec<u32> = runtime.block_on(async {
        let clients = (0..connections).map(|n| client(server.port, requests, n * 37, start + time));
        futures::future::join_all(clients).await.concat()
    });
    let took = start.elapsed().as_secs_f64();
    let cpu = server.cpu() - before;
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place.min(latencies.len() - 1)).map_or(0.0, |ns| f64::from(*ns) / 1000.0)
    };
    let count = latencies.len() as f64;
    Turn {
        per_second: count / took,
        latency: [at(0.5), at(0.99), at(0.999)],
        cpu: cpu.as_nanos() as f64 / count,
    }
}

/// One connection: one request after the other. The latencies in nanoseconds.
async fn client(port: u16, requests: &[Vec<u8>], first: usize, end: Instant) -> Vec<u32> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut latencies = Vec::with_capacity(1 << 16);
    let mut buffer = vec![0; 4096];
    for request in requests.iter().cycle().skip(first % requests.len()) {
        let start = Instant::now();
        if start >= end {
            break;
        }
        stream.write_all(request).await.unwrap();
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            // All answers are alike and short: they end with their body.
            if buffer[..filled].ends_with(b"\r\n\r\nok") {
                break;
            }
            assert!(filled < buffer.len(), "{}", String::from_utf8_lossy(&buffer));
        }
        assert!(
            buffer.starts_with(b"HTTP/1.1 200 "),
            "{}",
            String::from_utf8_lossy(&buffer[..filled])
        );
        latencies.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
    latencies
}
