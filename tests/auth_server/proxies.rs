//! The settings in `examples/forward_auth`, in the real nginx, Caddy and `HAProxy`: what they pass
//! on, and what of a refusal reaches the client.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use crate::forward_auth::start;
use crate::server::*;
use crate::support::{self, RedisServer, redis_or_skip};

/// What the service behind a proxy was told of each request.
type Seen = Arc<Mutex<Vec<HashMap<String, String>>>>;

struct Proxy {
    child: Child,
    address: SocketAddr,
    _dir: Arc<Dir>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Told to end, a proxy ends what it has started, too.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let start = std::time::Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(10) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The program, unless it is not installed: said loudly, and an error where it has to be.
fn installed(name: &str) -> Option<String> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"]
        .iter()
        .map(|dir| format!("{dir}/{name}"))
        .find(|path| Path::new(path).is_file());
    if found.is_none() {
        assert!(std::env::var_os("REQUIRE_PROXIES").is_none(), "{name} is not installed");
        eprintln!("skipped: {name} is not installed (apt-get install {name})");
    }
    found
}

/// A file of the example, with the addresses of the test in the place of its own.
fn settings(file: &str, proxy: SocketAddr, auth: &str, service: SocketAddr) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/forward_auth").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut settings = text.clone();
    for (theirs, ours) in [
        ("127.0.0.1:8080", proxy.to_string()),
        ("127.0.0.1:4181", auth.strip_prefix("http://").unwrap().to_owned()),
        ("127.0.0.1:3000", service.to_string()),
    ] {
        assert!(text.contains(theirs), "{file} does not name {theirs}");
        settings = settings.replace(theirs, &ours);
    }
    settings
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start_proxy(name: &str, auth: &str, service: SocketAddr) -> Option<Proxy> {
    let program = installed(name)?;
    let (dir, address) = (Dir::new(), free_address());
    let write = |file: &str, text: &str| {
        std::fs::write(dir.path(file), text).unwrap();
        dir.path(file)
    };
    let mut command = Command::new(program);
    match name {
        "nginx" => {
            let server = write("server.conf", &settings("nginx.conf", address, auth, service));
            let root = dir.path("");
            let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
            let main = format!(
                "daemon off; {user} pid {root}pid; error_log stderr; worker_processes 1;
                 events {{ worker_connections 64; }}
                 http {{ access_log off;
                 client_body_temp_path {root}body; proxy_temp_path {root}proxy;
                 fastcgi_temp_path {root}f; uwsgi_temp_path {root}u; scgi_temp_path {root}s;
                 include {server}; }}"
            );
            command.args(["-e", "stderr", "-p", &root, "-c", &write("nginx.conf", &main)]);
        }
        "caddy" => {
            let file = write("Caddyfile", &settings("Caddyfile", address, auth, service));
            command.args(["run", "--config", &file, "--adapter", "caddyfile"]);
            command.env("HOME", dir.path("")).env("XDG_DATA_HOME", dir.path("data"));
        }
        _ => {
            let lua = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("examples/forward_auth/forward_auth.lua");
            let text = settings("haproxy.cfg", address, auth, service)
                .replace("forward_auth.lua", lua.to_str().unwrap());
            command.args(["-db", "-f", &write("haproxy.cfg", &text)]);
        }
    }
    let log = std::fs::File::create(dir.path("proxy.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    support::wait_until(&format!("{name} listens"), Duration::from_secs(30), || {
        let ended = child.try_wait().unwrap();
        let log = || std::fs::read_to_string(dir.path("proxy.log")).unwrap();
        assert!(ended.is_none(), "{name} ended: {}", log());
        std::net::TcpStream::connect(address).is_ok()
    });
    Some(Proxy { child, address, _dir: dir })
}

/// A service that knows nothing of tokens.
async fn start_service() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let answer = move |request: Request<axum::body::Body>| {
        let headers = request.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        kept.lock().unwrap().push(headers.collect());
        async { "the service" }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
    (address, seen)
}

async fn behind(name: &str) {
    let redis = RedisServer::start();
    let (admin, auth) = (Server::on(&redis, &[]), start(&redis, &[]));
    let (service, seen) = start_service().await;
    let started = tokio::task::block_in_place(|| start_proxy(name, &auth.url, service));
    let Some(proxy) = started else { return };
    let http: Client<HttpConnector, Full<bytes::Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let ask = |token: Option<&str>, method: &str| {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}/orders?a=b", proxy.address))
            // What a client says of itself.
            .header("x-auth-subject", "root")
            .header("x_auth_subject", "root")
            .header("x-auth_subject", "root")
            .header("x-auth-token-id", "root")
            .header("x-auth-checked", "true");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if method == "POST" { "body" } else { "" };
        send_with(&http, request.body(Full::from(body)).unwrap())
    };
    let subject = "al ice/é";
    let token = foreign(&claims(subject, "t-1"));
    for method in ["GET", "POST"] {
        let answer = ask(Some(&token), method).await.is(200);
        assert_eq!(&answer.body[..], b"the service");
        let told = seen.lock().unwrap().pop().unwrap();
        assert_eq!(told["x-auth-subject"], "al%20ice%2F%C3%A9", "{name}");
        // Some services take one for the other.
        let others = told.keys().filter(|other| other.contains("x_auth") || other.contains("th_"));
        assert_eq!(others.count(), 0, "{name}: {told:?}");
        assert_eq!((&*told["x-auth-token-id"], &*told["x-auth-checked"]), ("t-1", "true"));
    }

    // Refusals reach the client as they are, and the service hears nothing of them.
    let answer = ask(None, "GET").await.is(401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"auth\""), "{name}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
    let answer = ask(Some("nonsense"), "GET").await.is(401);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{name}");
    let malformed = ask(Some("a b"), "GET").await.status;
    assert!([400, 401].contains(&malformed), "{name}: {malformed}");
    admin.admin("revoke", json!({ "jti": "t-1" })).await.is(204);
    let answer = ask(Some(&token), "POST").await.is(401);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{name}");
    let other = foreign(&claims("bob", "t-2"));
    ask(Some(&other), "GET").await.is(200);
    seen.lock().unwrap().clear();

    // No verdict is 503, with a time to come back: because the store is away, …
    redis.kill();
    let answer = ask(Some(&other), "GET").await.is_unavailable();
    assert_ne!(&answer.body[..], b"the service");
    ask(Some(&token), "GET").await.is(401);
    // … or because nobody can be asked.
    drop(auth);
    ask(Some(&other), "GET").await.is_unavailable();
    assert!(seen.lock().unwrap().is_empty(), "{name} has passed on what was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_asks_and_refuses() {
    redis_or_skip!();
    behind("nginx").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_asks_and_refuses() {
    redis_or_skip!();
    behind("caddy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_asks_and_refuses() {
    redis_or_skip!();
    behind("haproxy").await;
}
