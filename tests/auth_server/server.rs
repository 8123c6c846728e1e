//! A server under test, requests and answers.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::support::{self, RedisServer};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustix::process::Pid;
use serde_json::{Value, json};
use tower_jwt_revocation::clock::Timestamp;

pub(crate) const SECRET: [u8; 32] = [7; 32];
pub(crate) const JWKS: &str = r#"{"keys":[{"kty":"oct","kid":"k1","alg":"HS256","k":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}]}"#;
pub(crate) const ADMIN: &str = "the token of the administrator";
/// The budget B of the tests, and what the contract adds to it.
pub(crate) const BUDGET: Duration = Duration::from_millis(250);
pub(crate) const SLACK: Duration = Duration::from_millis(150);
/// What a loaded test machine may add to every time that is measured.
pub(crate) const NOISE: Duration = Duration::from_millis(350);

/// The program of this name, built once.
pub(crate) fn program(name: &str) -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        // target/<profile>/deps/<this test>
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let examples = ["--example", "auth_server", "--example", "forward_auth"];
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--all-features"])
            .args(examples)
            .arg("--target-dir")
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.unwrap().success());
        profile.join("examples")
    });
    programs.join(name)
}

/// A directory that goes with the test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Arc<Self> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("auth_server-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("jwks.json"), JWKS).unwrap();
        Arc::new(Self(dir))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) grpc: Option<String>,
    pub(crate) logs: Arc<Mutex<String>>,
    pub(crate) http: Client<HttpConnector, Full<Bytes>>,
    pub(crate) dir: Arc<Dir>,
}

impl Server {
    pub(crate) fn start(env: &[(&str, &str)]) -> Self {
        Self::start_in(&Dir::new(), env)
    }

    pub(crate) fn start_in(dir: &Arc<Dir>, env: &[(&str, &str)]) -> Self {
        Self::start_program("auth_server", dir, env)
    }

    pub(crate) fn start_program(name: &str, dir: &Arc<Dir>, env: &[(&str, &str)]) -> Self {
        Self::start_by(command_of(name, dir, env), dir)
    }

    pub(crate) fn start_by(mut command: Command, dir: &Arc<Dir>) -> Self {
        let serves_grpc = command.get_envs().any(|(name, _)| name == "AUTH_GRPC");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
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
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("no {word}: {}", logs.lock().unwrap()))
                .unwrap();
            format!("http://{}", line.strip_prefix(word).unwrap_or_else(|| panic!("{line}")))
        };
        let url = line("LISTENING ");
        let grpc = serves_grpc.then(|| line("GRPC "));
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { child, url, grpc, logs, http, dir: Arc::clone(dir) }
    }

    pub(crate) fn on(redis: &RedisServer, more: &[(&str, &str)]) -> Self {
        Self::on_in(&Dir::new(), redis, more)
    }

    pub(crate) fn on_in(dir: &Arc<Dir>, redis: &RedisServer, more: &[(&str, &str)]) -> Self {
        let url = redis.url();
        let env = [("AUTH_STORE", "redis"), ("AUTH_REDIS_URL", url.as_str())];
        Self::start_in(dir, &[&env, more].concat())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        support::wait_until("the server has ended", limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn logs(&self) -> String {
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

pub(crate) fn command(dir: &Dir, env: &[(&str, &str)]) -> Command {
    command_of("auth_server", dir, env)
}

pub(crate) fn command_of(name: &str, dir: &Dir, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program(name));
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

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} {:?}", self.status, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {:?}", self.headers, self.body);
        self
    }

    /// The form of each refusal of the layer.
    #[track_caller]
    pub(crate) fn is_invalid_token(self) -> Self {
        let answer = self.is(401);
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"auth\", error=\"invalid_token\"")
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body.is_empty());
        answer
    }

    #[track_caller]
    pub(crate) fn is_unavailable(self) -> Self {
        let answer = self.is(503);
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(seconds > 0);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("www-authenticate"), None);
        answer
    }

    #[track_caller]
    pub(crate) fn in_time(self, limit: Duration) -> Self {
        assert!(self.took < limit + SLACK + NOISE, "{:?}, not {limit:?}", self.took);
        self
    }
}

impl Server {
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        send_with(&self.http, request).await
    }

    pub(crate) fn request(
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

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.send(self.request("GET", path, token, "")).await
    }

    pub(crate) async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        self.send(self.request("POST", path, token, body.to_string())).await
    }

    pub(crate) async fn admin(&self, what: &str, body: Value) -> Answer {
        self.post(&format!("/admin/{what}"), Some(ADMIN), body).await
    }

    pub(crate) async fn login(&self, user: &str) -> Tokens {
        let answer =
            self.post("/login", None, json!({ "sub": user, "device": "phone" })).await.is(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        Tokens::of(&answer)
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.post("/refresh", None, json!({ "refresh_token": token })).await
    }

    pub(crate) async fn refreshed(&self, token: &str) -> Tokens {
        Tokens::of(&self.refresh(token).await.is(200))
    }

    pub(crate) async fn protected(&self, token: &str) -> Answer {
        self.get("/protected", Some(token)).await
    }

    pub(crate) async fn handler_calls(&self) -> u64 {
        self.get("/count", None).await.is(200).json()["handler_calls"].as_u64().unwrap()
    }
}

pub(crate) async fn send_with(
    http: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Answer {
    let start = Instant::now();
    let (head, body) = http.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body, took: start.elapsed() }
}

#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) session: String,
    pub(crate) family: String,
}

impl Tokens {
    pub(crate) fn of(answer: &Answer) -> Self {
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
pub(crate) fn assert_invalid_grant(answer: Answer) {
    assert_eq!(answer.is(400).json(), json!({ "error": "invalid_grant" }));
}

/// A token that another program has signed with a key of the set.
pub(crate) fn foreign(claims: &Value) -> String {
    foreign_with(claims, |header| header.kid = Some("k1".into()))
}

pub(crate) fn foreign_with(claims: &Value, change: impl FnOnce(&mut Header)) -> String {
    // Fails if it is installed already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let mut header = Header::new(Algorithm::HS256);
    change(&mut header);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&SECRET).unwrap()).unwrap()
}

/// Claims of a token that was issued a moment ago: a cutoff that a test sets now covers it, also
/// when the next second begins between the two.
pub(crate) fn claims(sub: &str, jti: &str) -> Value {
    let iat = Timestamp::now().as_secs() - 5;
    json!({ "sub": sub, "jti": jti, "iat": iat, "exp": iat + 300, "role": "clerk" })
}

pub(crate) fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}
