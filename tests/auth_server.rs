//! Drives the example `auth_server` over HTTP, as an outside program would.
#![cfg(all(
    feature = "redis",
    feature = "aws_lc_rs",
    feature = "axum",
    feature = "issuer",
    feature = "sessions"
))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]
#![allow(clippy::wrong_self_convention, reason = "`answer.is(401)` reads as it is meant")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::RedisServer;
use tower_jwt_revocation::{Clock as _, SystemClock};

// === A server under test ===

const SECRET: [u8; 32] = [7; 32];
const JWKS: &str =
    r#"{"keys":[{"kty":"oct","kid":"k1","alg":"HS256","k":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;
const ADMIN: &str = "the token of the administrator";
/// The budget B of the tests, and what the contract adds to it.
const BUDGET: Duration = Duration::from_millis(250);
const SLACK: Duration = Duration::from_millis(150);
/// What a loaded test machine may add to every time that is measured.
const NOISE: Duration = Duration::from_millis(350);

/// The program, built once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/<profile>/deps/<this test>
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--all-features", "--example", "auth_server", "--target-dir"])
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.unwrap().success());
        profile.join("examples/auth_server")
    })
}

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Arc<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("auth_server-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("jwks.json"), JWKS).unwrap();
        Arc::new(Self(dir))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server {
    child: Child,
    url: String,
    grpc: Option<String>,
    logs: Arc<Mutex<String>>,
    http: Client<HttpConnector, Full<Bytes>>,
    dir: Arc<Dir>,
}

impl Server {
    fn start(env: &[(&str, &str)]) -> Self {
        Self::start_in(&Dir::new(), env)
    }

    fn start_in(dir: &Arc<Dir>, env: &[(&str, &str)]) -> Self {
        let mut child = command(dir, env).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let logs = Arc::new(Mutex::new(String::new()));
        let (kept, stderr) = (Arc::clone(&logs), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut logs = kept.lock().unwrap();
                logs.push_str(&line);
                logs.push('\n');
            }
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = |word: &str| {
            let line = lines.next().unwrap_or_else(|| panic!("no {word}: {}", logs.lock().unwrap())).unwrap();
            format!("http://{}", line.strip_prefix(word).unwrap_or_else(|| panic!("{line}")))
        };
        let url = line("LISTENING ");
        let grpc = env.iter().any(|(name, _)| *name == "AUTH_GRPC").then(|| line("GRPC "));
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { child, url, grpc, logs, http, dir: Arc::clone(dir) }
    }

    fn on(redis: &RedisServer, more: &[(&str, &str)]) -> Self {
        Self::on_in(&Dir::new(), redis, more)
    }

    fn on_in(dir: &Arc<Dir>, redis: &RedisServer, more: &[(&str, &str)]) -> Self {
        let url = redis.url();
        let env = [("AUTH_STORE", "redis"), ("AUTH_REDIS_URL", url.as_str())];
        Self::start_in(dir, &[&env, more].concat())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        support::wait_until("the server has ended", limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn logs(&self) -> String {
        self.logs.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.url, self.logs());
        }
    }
}

fn command(dir: &Dir, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    command
        .env_clear()
        .env("AUTH_JWKS", dir.path("jwks.json"))
        .env("AUTH_AUDIT", dir.path("audit.log"))
        .env("AUTH_ADMIN_TOKEN", ADMIN)
        .env("AUTH_STORE", "memory");
    for (name, value) in env {
        command.env(name, value);
    }
    command
}

// === Requests and answers ===

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    took: Duration,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{} {:?}", self.status, self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {:?}", self.headers, self.body);
        self
    }

    /// The form of each refusal of the layer.
    #[track_caller]
    fn is_invalid_token(self) -> Self {
        let answer = self.is(401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"auth\", error=\"invalid_token\""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body.is_empty());
        answer
    }

    #[track_caller]
    fn is_unavailable(self) -> Self {
        let answer = self.is(503);
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds > 0);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("www-authenticate"), None);
        answer
    }

    #[track_caller]
    fn in_time(self, limit: Duration) -> Self {
        assert!(self.took < limit + SLACK + NOISE, "{:?}, not {limit:?}", self.took);
        self
    }
}

impl Server {
    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        send_with(&self.http, request).await
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.uri(format!("{}{path}", self.url)).body(Full::new(body.into())).unwrap()
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(self.request("GET", path, token, "")).await
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.send(self.request("POST", path, token, body.to_string())).await
    }

    async fn admin(&self, what: &str, body: Value) -> Answer {
        self.post(&format!("/admin/{what}"), Some(ADMIN), body).await
    }

    async fn login(&self, user: &str) -> Tokens {
        let answer = self.post("/login", None, json!({ "sub": user, "device": "phone" })).await.is(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        Tokens::of(&answer)
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("/refresh", None, json!({ "refresh_token": token })).await
    }

    async fn refreshed(&self, token: &str) -> Tokens {
        Tokens::of(&self.refresh(token).await.is(200))
    }

    async fn protected(&self, token: &str) -> Answer {
        self.get("/protected", Some(token)).await
    }

    async fn handler_calls(&self) -> u64 {
        self.get("/count", None).await.is(200).json()["handler_calls"].as_u64().unwrap()
    }
}

async fn send_with(http: &Client<HttpConnector, Full<Bytes>>, request: Request<Full<Bytes>>) -> Answer {
    let start = Instant::now();
    let (head, body) = http.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body, took: start.elapsed() }
}

#[derive(Clone, Debug)]
struct Tokens {
    access: String,
    refresh: String,
    session: String,
    family: String,
}

impl Tokens {
    fn of(answer: &Answer) -> Self {
        let body = answer.json();
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(300)));
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
            session: text("session_id"),
            family: text("family_id"),
        }
    }
}

#[track_caller]
fn assert_invalid_grant(answer: Answer) {
    assert_eq!(answer.is(400).json(), json!({ "error": "invalid_grant" }));
}

/// A token that another program has signed with a key of the set.
fn foreign(claims: &Value) -> String {
    foreign_with(claims, |header| header.kid = Some("k1".into()))
}

fn foreign_with(claims: &Value, change: impl FnOnce(&mut Header)) -> String {
    // Fails if it is installed already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let mut header = Header::new(Algorithm::HS256);
    change(&mut header);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&SECRET)).unwrap()
}

fn claims(sub: &str, jti: &str) -> Value {
    let now = SystemClock::default().now().as_secs();
    json!({ "sub": sub, "jti": jti, "iat": now, "exp": now + 300, "role": "clerk" })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

// === The contract, row by row ===

async fn public_routes(server: &Server) {
    server.get("/healthz", None).await.is(200);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(false)));
    assert!(ready["warnings"].is_array());
    assert_eq!(server.handler_calls().await, 0);
    let stats = server.get("/debug/stats", None).await.is(200).json();
    for name in ["checks", "refused_revoked", "store_errors", "admitted_unchecked"] {
        assert!(stats[name].is_u64(), "{name}: {stats}");
    }
    assert!(server.get("/", None).await.is(200).header("content-type").unwrap().starts_with("text/html"));
    server.get("/nowhere", None).await.is(404);
    for odd in
        ["", "{", "[]", "null", "7", "{}", r#"{"sub":7}"#, r#"{"sub":""}"#, r#"{"sub":"a","device":{}}"#]
    {
        server.send(server.request("POST", "/login", None, odd)).await.is(400);
    }
    server.post("/login", None, json!({ "sub": "x".repeat(1025) })).await.is(400);
    server.send(server.request("POST", "/login", None, vec![b' '; 100_000])).await.is(413);
    server.get("/login", None).await.is(405);
    Tokens::of(&server.post("/login", None, json!({ "sub": "no device", "device": null })).await.is(200));
}

async fn what_the_layer_answers(server: &Server) {
    let tokens = server.login("alice").await;
    let calls = server.handler_calls().await;
    for path in ["/protected", "/protected/slow?ms=1", "/sessions"] {
        let answer = server.get(path, None).await.is(401);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"auth\""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let mut request = server.request("GET", "/protected", None, "");
    request.headers_mut().insert("authorization", "Basic YTpi".parse().unwrap());
    assert_eq!(server.send(request).await.is(401).header("www-authenticate"), Some("Bearer realm=\"auth\""));
    for odd in ["Bearer", "Bearer a b"] {
        let mut request = server.request("GET", "/protected", None, "");
        request.headers_mut().insert("authorization", odd.parse().unwrap());
        let status = server.send(request).await.status;
        assert!(matches!(status, 400 | 401), "{odd}: {status}");
    }
    let mut request = server.request("GET", "/protected", Some(&tokens.access), "");
    request.headers_mut().append("authorization", format!("Bearer {}", tokens.access).parse().unwrap());
    assert!(matches!(server.send(request).await.status, 400 | 401));

    let now = SystemClock::default().now().as_secs();
    let fine = claims("alice", "fine");
    let refused = [
        "nonsense".to_owned(),
        tokens.refresh.clone(),
        format!("{}x", tokens.access),
        foreign(&with(with(fine.clone(), "iat", now - 1000), "exp", now - 100)),
        foreign(&with(fine.clone(), "nbf", now + 100)),
        foreign(&with(fine.clone(), "exp", now + 90_000)),
        foreign(&with(fine.clone(), "jti", Value::Null)),
        foreign(&with(fine.clone(), "jti", 7)),
        foreign(&with(fine.clone(), "jti", "x".repeat(1025))),
        foreign_with(&fine, |header| header.kid = Some("k2".into())),
        foreign_with(&fine, |header| header.kid = Some("K1".into())),
        foreign_with(&fine, |header| header.typ = Some("refresh+jwt".into())),
        foreign(&with(fine.clone(), "padding", "x".repeat(8000))),
    ];
    for token in &refused {
        server.protected(token).await.is_invalid_token();
    }
    let huge = server.protected(&"x".repeat(300_000)).await.status;
    assert!(matches!(huge, 400 | 401 | 413 | 431), "{huge}");
    assert_eq!(server.handler_calls().await, calls, "nothing refused reaches a handler");

    for token in [
        foreign(&fine),
        foreign_with(&fine, |header| header.typ = None),
        foreign_with(&fine, |header| header.typ = Some("at+jwt".into())),
        foreign_with(&fine, |_| {}),
        foreign(&with(with(fine.clone(), "iat", now - 100), "exp", now - 30)),
    ] {
        let body = server.protected(&token).await.is(200).json();
        assert_eq!(body, json!({ "sub": "alice", "jti": "fine", "checked": true }));
    }
}

async fn protected_routes(server: &Server) {
    let alice = server.login("alice").await;
    let token = Some(alice.access.as_str());
    let body = server.get("/protected", token).await.is(200).json();
    assert_eq!((&body["sub"], &body["checked"]), (&json!("alice"), &json!(true)));
    for size in [0, 1, 1024 * 1024] {
        let payload = vec![b'y'; size];
        let answer =
            server.send(server.request("POST", "/protected/echo", token, payload.clone())).await.is(200);
        assert!(answer.body == payload, "{size}");
    }
    server.send(server.request("POST", "/protected/echo", token, vec![b'y'; 1024 * 1024 + 1])).await.is(413);
    assert!(server.get("/protected/slow?ms=200", token).await.is(200).took >= Duration::from_millis(200));
    server.get("/protected/slow?ms=10001", token).await.is(400);

    let here = server.login("carol").await;
    let there = server.login("carol").await;
    let listed = server.get("/sessions", Some(&here.access)).await.is(200).json();
    let ids: Vec<_> =
        listed.as_array().unwrap().iter().map(|session| session["session_id"].clone()).collect();
    assert_eq!(ids, [json!(here.session), json!(there.session)]);
    assert_eq!(listed[0]["device"], "phone");
    assert!(listed[0]["created_at"].is_number());
    let delete = |session: &str, token: &str| {
        server.send(server.request("DELETE", &format!("/sessions/{session}"), Some(token), ""))
    };
    delete(&there.session, &alice.access).await.is(404);
    delete("unknown", &here.access).await.is(404);
    server.protected(&there.access).await.is(200);
    delete(&there.session, &here.access).await.is(204);
    server.protected(&there.access).await.is_invalid_token();
    assert_invalid_grant(server.refresh(&there.refresh).await);
    server.protected(&here.access).await.is(200);

    server.post("/logout", Some(&here.access), json!({})).await.is(204);
    server.protected(&here.access).await.is_invalid_token();
    assert_invalid_grant(server.refresh(&here.refresh).await);
    let lonely = foreign(&claims("carol", "lonely"));
    let other = foreign(&claims("carol", "other"));
    server.post("/logout", Some(&lonely), json!({})).await.is(204);
    server.protected(&lonely).await.is_invalid_token();
    server.protected(&other).await.is(200);

    let (one, two) = (server.login("dave").await, server.login("dave").await);
    let minted = foreign(&claims("dave", "minted"));
    server.post("/logout_all", Some(&one.access), json!({})).await.is(204);
    for token in [&one.access, &two.access, &minted] {
        server.protected(token).await.is_invalid_token();
    }
    for token in [&one.refresh, &two.refresh] {
        assert_invalid_grant(server.refresh(token).await);
    }
    let again = server.login("dave").await;
    server.protected(&again.access).await.is(200);
    server.refresh(&again.refresh).await.is(200);
    server.protected(&alice.access).await.is(200);
}

async fn refresh_tokens(server: &Server) {
    let (first, other) = (server.login("erin").await, server.login("erin").await);
    let second = server.refreshed(&first.refresh).await;
    assert_eq!((&second.family, &second.session), (&first.family, &first.session));
    server.protected(&second.access).await.is(200);
    server.protected(&first.access).await.is(200);
    assert_invalid_grant(server.refresh(&first.access).await);
    for odd in [json!("nonsense"), json!(""), json!(7), json!(null), json!("x".repeat(10_000))] {
        assert_invalid_grant(server.post("/refresh", None, json!({ "refresh_token": odd })).await);
    }
    server.send(server.request("POST", "/refresh", None, "{")).await.is(400);
    let garbled = format!("{}A", &second.refresh[..second.refresh.len() - 1]);
    assert_invalid_grant(server.refresh(&format!("{}.garbage", first.family)).await);
    if garbled != second.refresh {
        assert_invalid_grant(server.refresh(&garbled).await);
    }
    let third = server.refreshed(&second.refresh).await;

    assert_invalid_grant(server.refresh(&first.refresh).await);
    assert_invalid_grant(server.refresh(&third.refresh).await);
    for dead in [&first, &second, &third] {
        server.protected(&dead.access).await.is_invalid_token();
    }
    server.protected(&other.access).await.is(200);
    server.refresh(&other.refresh).await.is(200);
}

async fn admin_routes(server: &Server) {
    for token in [None, Some("wrong"), Some("")] {
        server.post("/admin/revoke", token, json!({ "jti": "a" })).await.is(401);
    }
    let now = SystemClock::default().now().as_secs();
    let a = foreign(&claims("frank", "a"));
    server.protected(&a).await.is(200);
    for _ in 0..2 {
        server.admin("revoke", json!({ "jti": "a", "exp": now + 300 })).await.is(204);
    }
    server.protected(&a).await.is_invalid_token();
    // Not undone by a call that says less.
    server.admin("revoke", json!({ "jti": "a", "exp": now })).await.is(204);
    server.protected(&a).await.is_invalid_token();
    server.admin("revoke", json!({ "jti": "over", "exp": 1 })).await.is(204);
    server.admin("revoke", json!({ "jti": "far", "exp": 1e300 })).await.is(204);
    server.protected(&foreign(&claims("frank", "far"))).await.is_invalid_token();
    for odd in [
        json!({}),
        json!({ "jti": "" }),
        json!({ "jti": 7 }),
        json!({ "jti": "x".repeat(1025) }),
        json!({ "jti": "b", "exp": "soon" }),
        json!([]),
    ] {
        server.admin("revoke", odd).await.is(400);
    }

    let tokens = server.login("frank").await;
    server.admin("revoke_token", json!({ "token": tokens.access })).await.is(204);
    server.protected(&tokens.access).await.is_invalid_token();
    let next = server.refreshed(&tokens.refresh).await;
    server.protected(&next.access).await.is(200);
    for token in ["nonsense", "eyJhbGciOiJub25lIn0.e30."] {
        server.admin("revoke_token", json!({ "token": token })).await.is(204);
    }
    server.admin("revoke_token", json!({ "token": next.refresh })).await.is(204);
    server.protected(&next.access).await.is_invalid_token();

    let tokens = server.login("frank").await;
    let (other, minted) = (server.login("grace").await, foreign(&claims("frank", "c")));
    server.admin("revoke_user", json!({ "sub": "frank" })).await.is(204);
    for token in [&tokens.access, &minted] {
        server.protected(token).await.is_invalid_token();
    }
    assert_invalid_grant(server.refresh(&tokens.refresh).await);
    server.protected(&other.access).await.is(200);
    server.admin("revoke_user", json!({ "sub": "nobody knows" })).await.is(204);
    server.admin("revoke_user", json!({})).await.is(400);

    for (what, name) in [("revoke_family", "family_id"), ("revoke_session", "session_id")] {
        let (tokens, other) = (server.login("frank").await, server.login("frank").await);
        let id = if name == "family_id" { &tokens.family } else { &tokens.session };
        server.admin(what, json!({ name: id })).await.is(204);
        server.protected(&tokens.access).await.is_invalid_token();
        assert_invalid_grant(server.refresh(&tokens.refresh).await);
        server.protected(&other.access).await.is(200);
        server.admin(what, json!({ name: "unknown" })).await.is(204);
        server.admin(what, json!({ name: 7 })).await.is(400);
    }
}

/// Logins and revocations of one user, faster than the seconds of `iat` can tell.
async fn one_second(server: &Server) {
    for _ in 0..6 {
        let tokens = server.login("heidi").await;
        server.protected(&tokens.access).await.is(200);
        server.admin("revoke_user", json!({ "sub": "heidi" })).await.is(204);
        server.protected(&tokens.access).await.is_invalid_token();
        assert_invalid_grant(server.refresh(&tokens.refresh).await);
    }
}

async fn everything(server: &Server) {
    public_routes(server).await;
    what_the_layer_answers(server).await;
    protected_routes(server).await;
    refresh_tokens(server).await;
    admin_routes(server).await;
    one_second(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_in_memory() {
    everything(&Server::start(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_on_redis() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    everything(&Server::on(&redis, &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsafe_settings_of_redis_are_named() {
    support::redis_or_skip!();
    let redis =
        RedisServer::builder().arg("--maxmemory", "100mb").arg("--maxmemory-policy", "allkeys-lru").start();
    let server = Server::on(&redis, &[]);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert!(ready["warnings"].to_string().contains("allkeys-lru"), "{ready}");
}

#[tokio::test]
async fn within_the_grace_the_parent_is_answered_with_the_same_token() {
    let server = Server::start(&[("AUTH_REFRESH_GRACE_S", "30")]);
    let first = server.login("alice").await;
    let second = server.refreshed(&first.refresh).await;
    let again = server.refreshed(&first.refresh).await;
    assert_eq!(second.refresh, again.refresh);
    let third = server.refreshed(&second.refresh).await;
    assert_invalid_grant(server.refresh(&first.refresh).await);
    assert_invalid_grant(server.refresh(&third.refresh).await);
}

#[tokio::test]
async fn refresh_tokens_and_families_grow_old() {
    let env = [("AUTH_REFRESH_TTL_S", "2"), ("AUTH_FAMILY_MAX_S", "3")];
    let server = Server::start(&env);
    let idle = server.login("alice").await;
    let mut used = server.login("alice").await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2300) {
        used = server.refreshed(&used.refresh).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_invalid_grant(server.refresh(&idle.refresh).await);
    tokio::time::sleep_until((start + Duration::from_millis(3100)).into()).await;
    assert_invalid_grant(server.refresh(&used.refresh).await);
}

#[tokio::test]
async fn issuer_and_audience_are_required_checked_and_minted() {
    let server = Server::start(&[("AUTH_ISS", "https://id"), ("AUTH_AUD", "api"), ("AUTH_REALM", "the api")]);
    let tokens = server.login("alice").await;
    server.protected(&tokens.access).await.is(200);
    let fine = with(with(claims("alice", "x"), "iss", "https://id"), "aud", json!(["api", "other"]));
    server.protected(&foreign(&fine)).await.is(200);
    for odd in [
        claims("alice", "x"),
        with(fine.clone(), "iss", "https://ID"),
        with(fine.clone(), "aud", "other"),
        with(fine.clone(), "iss", 7),
    ] {
        let answer = server.protected(&foreign(&odd)).await.is(401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer realm=\"the api\","));
    }
    server.admin("revoke", json!({ "jti": "x", "iss": "https://other" })).await.is(400);
    server.admin("revoke", json!({ "jti": "x", "iss": "https://id" })).await.is(204);
    server.protected(&foreign(&fine)).await.is_unauthorized();
}

impl Answer {
    #[track_caller]
    fn is_unauthorized(self) {
        self.is(401);
    }
}

#[tokio::test]
async fn without_a_token_of_the_administrator_his_routes_are_not_there() {
    let server = Server::start(&[("AUTH_ADMIN_TOKEN", "")]);
    for token in [None, Some(ADMIN), Some("")] {
        server.post("/admin/revoke_user", token, json!({ "sub": "alice" })).await.is(404);
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_on_the_same_port() {
    let server = Server::start(&[]);
    let tokens = server.login("alice").await;
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = server.request("GET", "/protected", Some(&tokens.access), "");
    send_with(&http, request).await.is(200);
    let request = server.request("GET", "/protected", None, "");
    send_with(&http, request).await.is(401);
}

#[tokio::test]
async fn grpc_is_answered_in_its_own_way() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    support::redis_or_skip!();
    let redis = RedisServer::start();
    let server = Server::on(&redis, &[("AUTH_GRPC", "127.0.0.1:0")]);
    let tokens = server.login("alice").await;
    let channel = tonic::transport::Endpoint::from_shared(server.grpc.clone().unwrap()).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let mut call = async |token: Option<&str>| {
        let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        client.check(request).await.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
    };
    assert_eq!(call(None).await, tonic::Code::Unauthenticated);
    assert_eq!(call(Some("nonsense")).await, tonic::Code::Unauthenticated);
    assert_eq!(call(Some(&tokens.access)).await, tonic::Code::Ok);
    server.admin("revoke_user", json!({ "sub": "alice" })).await.is(204);
    assert_eq!(call(Some(&tokens.access)).await, tonic::Code::Unauthenticated);
    let mut request = server.request("POST", "/protected", Some(&tokens.access), "");
    request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    let answer = server.send(request).await.is(200);
    assert_eq!(
        (answer.header("content-type"), answer.header("grpc-status")),
        (Some("application/grpc"), Some("16"))
    );
    let fresh = server.login("alice").await;
    redis.stop_hung();
    assert_eq!(call(Some(&fresh.access)).await, tonic::Code::Unavailable);
    redis.resume();
}

// === Several processes, and the end of one ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_redis_are_one_system() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (here, mut there) = (Server::on(&redis, &[]), Server::on(&redis, &[]));
    let tokens = here.login("alice").await;
    there.protected(&tokens.access).await.is(200);
    there.admin("revoke_user", json!({ "sub": "alice" })).await.is(204);
    here.protected(&tokens.access).await.is_invalid_token();

    // Twenty at once: one gets through, and that someone presented a used token ends the family.
    let first = here.login("alice").await;
    let answers =
        join_all(
            (0..20).map(|n| {
                if n % 2 == 0 { here.refresh(&first.refresh) } else { there.refresh(&first.refresh) }
            }),
        )
        .await;
    let granted: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert!(granted.len() <= 1, "{} got through", granted.len());
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 400)));
    for answer in granted {
        assert_invalid_grant(there.refresh(&Tokens::of(answer).refresh).await);
        here.protected(&Tokens::of(answer).access).await.is_invalid_token();
    }
    here.protected(&first.access).await.is_invalid_token();

    // A restart changes nothing.
    let (kept, ended, used) = (here.login("bob").await, here.login("bob").await, here.login("bob").await);
    let next = here.refreshed(&used.refresh).await;
    here.admin("revoke_session", json!({ "session_id": ended.session })).await.is(204);
    kill_process(there.pid(), Signal::TERM).unwrap();
    assert!(there.wait(Duration::from_secs(5)).success());
    let there = Server::on(&redis, &[]);
    there.protected(&kept.access).await.is(200);
    there.protected(&ended.access).await.is_invalid_token();
    there.refreshed(&next.refresh).await;
    assert_invalid_grant(there.refresh(&used.refresh).await);
    here.protected(&next.access).await.is_invalid_token();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_the_grace_twenty_at_once_get_the_same_token() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let grace = [("AUTH_REFRESH_GRACE_S", "30")];
    let (here, there) = (Server::on(&redis, &grace), Server::on(&redis, &grace));
    let first = here.login("alice").await;
    let answers =
        join_all(
            (0..20).map(|n| {
                if n % 2 == 0 { here.refresh(&first.refresh) } else { there.refresh(&first.refresh) }
            }),
        )
        .await;
    let tokens: BTreeSet<_> = answers.into_iter().map(|answer| Tokens::of(&answer.is(200)).refresh).collect();
    assert_eq!(tokens.len(), 1);
    there.refreshed(tokens.first().unwrap()).await;
}

#[tokio::test]
async fn on_sigterm_requests_are_finished() {
    let mut server = Server::start(&[]);
    let tokens = server.login("alice").await;
    let url = format!("{}/protected/slow?ms=700", server.url);
    let request = Request::get(url).header("authorization", format!("Bearer {}", tokens.access));
    let http = server.http.clone();
    let slow = tokio::spawn(async move { send_with(&http, request.body(Full::default()).unwrap()).await });
    while server.handler_calls().await == 0 {}
    kill_process(server.pid(), Signal::TERM).unwrap();
    slow.await.unwrap().is(200);
    assert!(
        tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(5))).await.unwrap().success()
    );
}

#[tokio::test]
async fn on_sigterm_requests_without_end_are_not_waited_for() {
    let mut server = Server::start(&[]);
    let tokens = server.login("alice").await;
    let url = format!("{}/protected/slow?ms=10000", server.url);
    let request = Request::get(url).header("authorization", format!("Bearer {}", tokens.access));
    let http = server.http.clone();
    let slow = tokio::spawn(async move { http.request(request.body(Full::default()).unwrap()).await });
    while server.handler_calls().await == 0 {}
    kill_process(server.pid(), Signal::TERM).unwrap();
    assert!(
        tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(5))).await.unwrap().success()
    );
    slow.await.unwrap().unwrap_err();
}

// === Outages ===

async fn until_ok(server: &Server, token: &str, limit: Duration) {
    let start = Instant::now();
    loop {
        let answer = server.protected(token).await;
        if answer.status == 200 && answer.json()["checked"] == true {
            return;
        }
        assert!(start.elapsed() < limit, "not back after {limit:?}: {}", answer.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Until revocations can be written as well.
async fn until_ready(server: &Server, limit: Duration) {
    let start = Instant::now();
    loop {
        let ready = server.get("/readyz", None).await;
        if ready.json()["degraded"] == false {
            return;
        }
        assert!(start.elapsed() < limit, "not ready after {limit:?}: {:?}", ready.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What all routes answer while Redis is of no use, in time.
async fn closed_without_redis(server: &Server, tokens: &Tokens) {
    for _ in 0..5 {
        server.protected(&tokens.access).await.is_unavailable().in_time(BUDGET);
    }
    server.protected("nonsense").await.is_invalid_token();
    server.get("/protected", None).await.is(401);
    let limit = BUDGET * 3;
    server.post("/login", None, json!({ "sub": "bob" })).await.is_unavailable().in_time(limit);
    server.refresh(&tokens.refresh).await.is_unavailable().in_time(limit);
    for (what, body) in [
        ("revoke", json!({ "jti": "a" })),
        ("revoke_user", json!({ "sub": "alice" })),
        ("revoke_token", json!({ "token": tokens.access })),
        ("revoke_session", json!({ "session_id": "a" })),
        ("revoke_family", json!({ "family_id": "a" })),
    ] {
        server.admin(what, body).await.is_unavailable().in_time(limit);
    }
    server.get("/healthz", None).await.is(200).in_time(limit);
    let ready = server.get("/readyz", None).await.is(503).in_time(limit).json();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(false), &json!(true)));
}

async fn open_without_redis(server: &Server, tokens: &Tokens) {
    for _ in 0..5 {
        let answer = server.protected(&tokens.access).await.is(200).in_time(BUDGET);
        assert_eq!(answer.json()["checked"], false);
    }
    server.protected("nonsense").await.is_invalid_token();
    server.post("/logout", Some(&tokens.access), json!({})).await.is(503).in_time(BUDGET * 4);
    server.refresh(&tokens.refresh).await.is_unavailable().in_time(BUDGET * 3);
    let ready = server.get("/readyz", None).await.is(200).json();
    assert_eq!((&ready["ready"], &ready["degraded"]), (&json!(true), &json!(true)));
    let stats = server.get("/debug/stats", None).await.json();
    assert!(
        stats["admitted_unchecked"].as_u64().unwrap() >= 5 && stats["store_errors"].as_u64().unwrap() >= 5
    );
    let audit = std::fs::read_to_string(server.dir.path("audit.log")).unwrap();
    assert!(audit.contains(r#""event":"unchecked_admit","outcome":"ok","sub":"alice","jti":""#), "{audit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed_and_comes_back() {
    support::redis_or_skip!();
    let mut redis = RedisServer::builder().arg("--appendonly", "yes").arg("--appendfsync", "always").start();
    let grace = ("AUTH_REFRESH_GRACE_S", "60");
    let closed = Server::on(&redis, &[grace]);
    let open = Server::on(&redis, &[grace, ("AUTH_ON_OUTAGE", "open")]);
    let tokens = closed.login("alice").await;
    let revoked = closed.login("alice").await;
    closed.admin("revoke_session", json!({ "session_id": revoked.session })).await.is(204);
    redis.kill();
    closed_without_redis(&closed, &tokens).await;
    open_without_redis(&open, &tokens).await;
    redis.restart();
    for server in [&closed, &open] {
        until_ok(server, &tokens.access, Duration::from_secs(10)).await;
        server.protected(&revoked.access).await.is_invalid_token();
        until_ready(server, Duration::from_secs(10)).await;
    }
    closed.refreshed(&tokens.refresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_hangs_and_goes_on() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let grace = ("AUTH_REFRESH_GRACE_S", "60");
    let closed = Server::on(&redis, &[grace]);
    let open = Server::on(&redis, &[grace, ("AUTH_ON_OUTAGE", "open")]);
    let tokens = open.login("alice").await;
    redis.stop_hung();
    closed_without_redis(&closed, &tokens).await;
    open_without_redis(&open, &tokens).await;
    redis.resume();
    for server in [&closed, &open] {
        // What was in the air when Redis was stopped may be done now: the session may have been ended.
        let fresh = {
            let start = Instant::now();
            loop {
                let answer = server.post("/login", None, json!({ "sub": "bob" })).await;
                if answer.status == 200 {
                    break Tokens::of(&answer);
                }
                assert!(start.elapsed() < Duration::from_secs(10), "no login: {}", answer.status);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        until_ok(server, &fresh.access, Duration::from_secs(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_redis_and_finds_it_later() {
    support::redis_or_skip!();
    let mut redis = RedisServer::start();
    redis.kill();
    let server = Server::on(&redis, &[]);
    server.get("/healthz", None).await.is(200);
    server.get("/readyz", None).await.is(503);
    server.protected(&foreign(&claims("alice", "a"))).await.is_unavailable().in_time(BUDGET);
    redis.restart();
    until_ok(&server, &foreign(&claims("alice", "a")), Duration::from_secs(10)).await;
    until_ready(&server, Duration::from_secs(10)).await;
    let tokens = server.login("alice").await;
    server.protected(&tokens.access).await.is(200);
}

// === What is written down ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_written_down_and_every_key_is_ours_and_ends() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let dir = Dir::new();
    let mut server = Server::on_in(&dir, &redis, &[("AUTH_KEY_PREFIX", "mine"), ("RUST_LOG", "trace")]);
    let mut secrets = vec![ADMIN.to_owned()];
    for user in ["alice", "bob"] {
        let first = server.login(user).await;
        let second = server.refreshed(&first.refresh).await;
        server.protected(&second.access).await.is(200);
        if user == "alice" {
            assert_invalid_grant(server.refresh(&first.refresh).await);
            server.protected(&second.access).await.is_invalid_token();
        }
        for token in [&first, &second] {
            // Tokens given where ids are wanted.
            server.admin("revoke", json!({ "jti": token.access })).await.is(400);
            server.admin("revoke", json!({ "jti": token.refresh })).await.is(400);
            server.admin("revoke_family", json!({ "family_id": token.refresh })).await.is(400);
            server.post("/login", None, json!({ "sub": token.access })).await.is(400);
            server.admin("revoke_token", json!({ "token": format!("{}x", token.access) })).await.is(204);
            secrets.push(token.access.rsplit_once('.').unwrap().1.to_owned());
            secrets.push(token.refresh.split_once('.').unwrap().1.to_owned());
        }
        server.post("/logout", Some(&second.access), json!({})).await;
        server.admin("revoke_user", json!({ "sub": user })).await.is(204);
    }
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.lines().count() > 5);
    for key in keys.lines() {
        assert!(key.starts_with("mine"), "{key}");
        let left: i64 = redis.cli(&["PTTL", key]).parse().unwrap();
        assert!(left > 0, "{key} never ends");
    }
    kill_process(server.pid(), Signal::TERM).unwrap();
    assert!(server.wait(Duration::from_secs(5)).success());
    let audit = std::fs::read_to_string(dir.path("audit.log")).unwrap();
    let mut events = BTreeSet::new();
    for line in audit.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(
            event["ts"].is_string() && matches!(event["outcome"].as_str(), Some("ok" | "error")),
            "{line}"
        );
        events.insert(event["event"].as_str().unwrap().to_owned());
    }
    for event in [
        "login",
        "refresh",
        "refresh_reuse",
        "revoke_token",
        "revoke_session",
        "revoke_family",
        "revoke_user",
    ] {
        assert!(events.contains(event), "{event} is not in {events:?}");
    }
    let reuse = audit.lines().find(|line| line.contains("refresh_reuse")).unwrap();
    assert!(
        ["sub", "session_id", "family_id", "reason"].iter().all(|field| reuse.contains(field)),
        "{reuse}"
    );
    let (logs, dump) = (server.logs(), values(&redis));
    for secret in &secrets {
        assert!(!logs.contains(secret), "in the log");
        assert!(!audit.contains(secret), "in the audit log");
        assert!(!dump.contains(secret), "in redis");
    }
}

/// All values in Redis, as text.
fn values(redis: &RedisServer) -> String {
    let keys = redis.cli(&["KEYS", "*"]);
    let read = |key: &str| match redis.cli(&["TYPE", key]).as_str() {
        "string" => redis.cli(&["GET", key]),
        "hash" => redis.cli(&["HGETALL", key]),
        "zset" => redis.cli(&["ZRANGE", key, "0", "-1"]),
        "stream" => redis.cli(&["XRANGE", key, "-", "+"]),
        other => panic!("{key} is a {other}"),
    };
    keys.lines().map(read).collect()
}

// === Configuration ===

#[test]
fn bad_configuration_is_told_at_once_and_by_name() {
    let dir = Dir::new();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path(name), text).unwrap();
        dir.path(name)
    };
    let key = r#"{"kty":"oct","kid":"k1","alg":"HS256","k":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}"#;
    let weak = file("weak", r#"{"keys":[{"kty":"oct","kid":"k","alg":"HS256","k":"BwcHBw"}]}"#);
    let twice = file("twice", &format!(r#"{{"keys":[{key},{key}]}}"#));
    let no_kid = file("no_kid", r#"{"keys":[{"kty":"oct","alg":"HS256","k":"BwcHBw"}]}"#);
    let no_alg = file("no_alg", &key.replace(r#""alg":"HS256","#, ""));
    let wrong_alg = file("wrong_alg", &format!(r#"{{"keys":[{}]}}"#, key.replace("HS256", "RS256")));
    let empty = file("empty", r#"{"keys":[]}"#);
    let no_json = file("no_json", "BwcHBw");
    let public = file(
        "public",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"p","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    let redis = ("AUTH_STORE", "redis");
    let url = ("AUTH_REDIS_URL", "redis://127.0.0.1:1");
    for (env, name) in [
        (vec![("AUTH_JWKS", "")], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", "/nowhere/jwks.json")], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*weak)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*twice)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*no_kid)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*no_alg)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*wrong_alg)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*empty)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*no_json)], "AUTH_JWKS"),
        (vec![("AUTH_JWKS", &*public)], "AUTH_JWKS"),
        (vec![("AUTH_SIGN_KID", "k2")], "AUTH_SIGN_KID"),
        (vec![("AUTH_LISTEN", "localhost")], "AUTH_LISTEN"),
        (vec![("AUTH_LISTEN", "192.0.2.1:80")], "AUTH_LISTEN"),
        (vec![("AUTH_GRPC", "80")], "AUTH_GRPC"),
        (vec![("AUTH_STORE", "disk")], "AUTH_STORE"),
        (vec![redis], "AUTH_REDIS_URL"),
        (vec![redis, ("AUTH_REDIS_URL", "http://127.0.0.1")], "AUTH_REDIS_URL"),
        (vec![redis, ("AUTH_REDIS_URL", "redis-sentinel://127.0.0.1:1")], "AUTH_REDIS_URL"),
        (vec![redis, url, ("AUTH_KEY_PREFIX", "a b")], "AUTH_KEY_PREFIX"),
        (vec![redis, url, ("AUTH_WAIT_REPLICAS", "1"), ("AUTH_WAIT_MS", "250")], "AUTH_WAIT_MS"),
        (vec![("AUTH_REDIS_TIMEOUT_MS", "0")], "AUTH_REDIS_TIMEOUT_MS"),
        (vec![("AUTH_REDIS_TIMEOUT_MS", "fast")], "AUTH_REDIS_TIMEOUT_MS"),
        (vec![("AUTH_CHECK", "sometimes")], "AUTH_CHECK"),
        (vec![("AUTH_MAX_STALENESS_MS", "-1")], "AUTH_MAX_STALENESS_MS"),
        (vec![("AUTH_ON_OUTAGE", "ajar")], "AUTH_ON_OUTAGE"),
        (vec![("AUTH_LEEWAY_S", "301")], "AUTH_LEEWAY_S"),
        (vec![("AUTH_ACCESS_TTL_S", "0")], "AUTH_ACCESS_TTL_S"),
        (vec![("AUTH_ACCESS_TTL_S", "90000")], "AUTH_ACCESS_TTL_S"),
        (vec![("AUTH_REFRESH_TTL_S", "0")], "AUTH_REFRESH_TTL_S"),
        (vec![("AUTH_MAX_TOKEN_TTL_S", "x")], "AUTH_MAX_TOKEN_TTL_S"),
        (vec![("AUTH_REFRESH_GRACE_S", "-1")], "AUTH_REFRESH_GRACE_S"),
        (vec![("AUTH_FAMILY_MAX_S", "0")], "AUTH_FAMILY_MAX_S"),
        (vec![("AUTH_REALM", "a\nb")], "AUTH_REALM"),
        (vec![("AUTH_MAX_TOKEN_BYTES", "1")], "AUTH_MAX_TOKEN_BYTES"),
        (vec![("AUTH_AUDIT", "/nowhere/audit.log")], "AUTH_AUDIT"),
    ] {
        let mut child = command(&dir, &env).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut status = None;
        support::wait_until(&format!("{env:?} is refused"), Duration::from_secs(5), || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(!status.unwrap().success(), "{env:?}");
        assert!(out.is_empty(), "{env:?}: {out}");
        assert!(err.contains(name), "{env:?}: {err}");
        assert!(!err.contains("BwcHBw"), "{env:?}: {err}");
    }
}

#[tokio::test]
async fn every_kind_of_key_verifies_and_signs() {
    // The keys next to it, as a set.
    let json = include_str!("keys/auth_server_jwks.json");
    let set: Value = serde_json::from_str(json).unwrap();
    let dir = Dir::new();
    std::fs::write(dir.path("jwks.json"), json).unwrap();
    let kids: Vec<_> =
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, ["hs", "rs", "es", "ed"]);
    let mut minted = Vec::new();
    for kid in &kids {
        let server = Server::start_in(&dir, &[("AUTH_SIGN_KID", kid)]);
        let tokens = server.login("alice").await;
        server.protected(&tokens.access).await.is(200);
        minted.push(tokens.access);
        for token in &minted {
            server.protected(token).await.is(200);
        }
        // Several keys: one must be named.
        server.protected(&foreign_with(&claims("alice", "a"), |_| {})).await.is_invalid_token();
    }
}
