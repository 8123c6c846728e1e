//! What attackers do, one connection each, and what they are answered.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::doors::this_second;

/// The `jti` that is revoked before any attack.
pub const REVOKED: &str = "revoked";
const KID: &str = "a";
/// More at once would wait for the queue of those that are not accepted yet, not for the server.
const CONNECTS_AT_ONCE: usize = 200;
/// What one HTTP/2 connection of the attack carries at once.
const STREAMS: usize = 200;

/// What the connections of an attack do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Nothing,
    OneRevoked,
    OneRevokedHttp2,
    Junk,
    UnknownKeys,
    Distinct,
    Logins,
    SlowReaders,
    HalfOpen,
    Many,
}

/// Signs tokens as the provider does, whose key set it publishes.
pub struct Signer {
    key: EncodingKey,
    pub key_set: String,
}

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with('-'));
    STANDARD.decode(lines.collect::<String>()).unwrap()
}

impl Signer {
    pub fn new() -> Self {
        // The verifier of the crate does that by itself; here only tokens are signed.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let public = der(include_str!("../keys/ed25519.pub.pem"));
        let x = URL_SAFE_NO_PAD.encode(&public[public.len() - 32..]);
        let key = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": KID, "x": x});
        Self {
            key: EncodingKey::from_ed_der(&der(include_str!("../keys/ed25519.pem"))),
            key_set: json!({ "keys": [key] }).to_string(),
        }
    }

    pub fn token(&self, id: &str) -> String {
        self.token_by(id, KID)
    }

    fn token_by(&self, id: &str, kid: &str) -> String {
        let iat = this_second() - 5;
        let claims = json!({"sub": id, "jti": id, "iat": iat, "exp": iat + 1800});
        let header =
            Header { kid: Some(kid.into()), ..Header::new(jsonwebtoken::Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

/// An answer, as far as anybody here wants to know it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Whether the store was asked; only of what has passed.
    pub checked: Option<bool>,
    pub body: Vec<u8>,
}

/// One HTTP/1.1 connection that is kept.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        // Very many of them close within seconds: no port is to wait for its last packet.
        stream.set_zero_linger()?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// With or without a token.
    pub async fn ask(&mut self, line: &str, token: &str) -> io::Result<Answer> {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes()).await?;
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        let field = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
        };
        let length = field("content-length:").map_or(0, |length| length.parse().unwrap());
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let checked = field("x-checked:").map(|word| word == "yes");
        while self.read.len() < end + length {
            self.more().await?;
        }
        let body = self.read[end..end + length].to_vec();
        self.read.drain(..end + length);
        Ok(Answer { status, checked, body })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// What was answered to whom, and how often: `(what was sent, status, whether it was checked)`.
#[derive(Default)]
pub struct Answers(Mutex<BTreeMap<AnswerKind, u64>>);

/// Who asked, the status, and whether it was admitted as checked.
type AnswerKind = (&'static str, u16, Option<bool>);

impl Answers {
    fn add(&self, what: &'static str, status: u16, checked: Option<bool>) {
        *self.0.lock().unwrap().entry((what, status, checked)).or_default() += 1;
    }

    pub fn count(&self) -> u64 {
        self.0.lock().unwrap().values().sum()
    }

    /// How many requests with a revoked token have passed.
    pub fn revoked_passed(&self) -> u64 {
        let answers = self.0.lock().unwrap();
        let passed = answers
            .iter()
            .filter(|((what, status, _), _)| *what == "revoked" && (200..300).contains(status));
        passed.map(|(_, count)| count).sum()
    }

    /// How many requests with tokens that nobody has signed, or not with a key that there is.
    pub fn forged_passed(&self) -> u64 {
        let answers = self.0.lock().unwrap();
        let passed = answers
            .iter()
            .filter(|((what, status, _), _)| *what == "forged" && (200..300).contains(status));
        passed.map(|(_, count)| count).sum()
    }

    /// By status, the most frequent first.
    pub fn by_status(&self) -> Vec<(u16, u64)> {
        let mut by_status = BTreeMap::<u16, u64>::new();
        for ((_, status, _), count) in &*self.0.lock().unwrap() {
            *by_status.entry(*status).or_default() += count;
        }
        let mut all: Vec<_> = by_status.into_iter().collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all
    }
}

/// All attackers of one attack share this.
pub struct Attackers {
    pub server: SocketAddr,
    pub signer: Arc<Signer>,
    pub answers: Answers,
    /// How many connections there are.
    pub connected: AtomicU64,
    next: AtomicU64,
    connecting: Semaphore,
}

impl Attackers {
    pub fn new(server: SocketAddr, signer: Arc<Signer>) -> Arc<Self> {
        Arc::new(Self {
            server,
            signer,
            answers: Answers::default(),
            connected: AtomicU64::new(0),
            next: AtomicU64::new(0),
            connecting: Semaphore::new(CONNECTS_AT_ONCE),
        })
    }

    /// Starts as many connections.
    pub fn start(
        self: &Arc<Self>,
        kind: Kind,
        connections: usize,
        pause: Duration,
        tasks: &mut JoinSet<()>,
    ) {
        self.connected.store(0, Ordering::Relaxed);
        for n in 0..connections {
            let this = Arc::clone(self);
            // Not all in the same moment.
            let share = u32::try_from(n * 997 % 1000).unwrap_or_default();
            let offset = pause * share / 1000;
            tasks.spawn(async move {
                // Whoever is cut off comes again.
                loop {
                    let _ = this.attack(kind, n, pause, offset).await;
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn client(&self) -> io::Result<Client> {
        let _turn = self.connecting.acquire().await;
        let client = Client::connect(self.server).await?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        Ok(client)
    }

    async fn attack(
        self: &Arc<Self>,
        kind: Kind,
        n: usize,
        pause: Duration,
        offset: Duration,
    ) -> io::Result<()> {
        match kind {
            Kind::Nothing => std::future::pending().await,
            Kind::OneRevokedHttp2 => self.many_streams(pause).await,
            Kind::SlowReaders => self.read_slowly(n, pause).await,
            Kind::HalfOpen => self.half_open(n).await,
            Kind::Many => self.now_and_then(n, pause, offset).await,
            Kind::Logins => self.login(n, pause, offset).await,
            Kind::OneRevoked | Kind::Junk | Kind::UnknownKeys | Kind::Distinct => {
                self.flood(kind, n, pause, offset).await
            }
        }
    }

    async fn flood(
        &self,
        kind: Kind,
        n: usize,
        pause: Duration,
        offset: Duration,
    ) -> io::Result<()> {
        let mut client = self.client().await?;
        sleep(offset).await;
        let revoked = self.signer.token(REVOKED);
        for round in n.. {
            let (what, token) = match kind {
                Kind::Junk => ("forged", self.junk(round)),
                Kind::UnknownKeys => {
                    let number = self.number().to_string();
                    ("forged", self.signer.token_by("somebody", &format!("k{number}")))
                }
                Kind::Distinct => ("valid", self.signer.token(&format!("t{}", self.number()))),
                _ => ("revoked", revoked.clone()),
            };
            let answer = client.ask(line(round), &token).await?;
            self.answers.add(what, answer.status, answer.checked);
            sleep(pause).await;
        }
        Ok(())
    }

    /// No two of them are the same.
    fn junk(&self, round: usize) -> String {
        let number = self.number();
        let token = self.signer.token("somebody");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        match round % 6 {
            0 => format!("{number}"),
            1 => format!("{signed}{number}.{signature}"),
            // Over the wrong bytes.
            2 => format!("{}.{signature}", signed.replace("eyJ", "eyI")),
            3 => {
                let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
                let claims =
                    json!({"sub": "a", "jti": number.to_string(), "exp": this_second() + 60});
                format!("{head}.{}.", URL_SAFE_NO_PAD.encode(claims.to_string()))
            }
            4 => format!("{signed}.{}", URL_SAFE_NO_PAD.encode(format!("{number:064}"))),
            _ => format!("{number}{}", "x".repeat(12_000)),
        }
    }

    async fn many_streams(self: &Arc<Self>, pause: Duration) -> io::Result<()> {
        let stream = {
            let _turn = self.connecting.acquire().await;
            TcpStream::connect(self.server).await?
        };
        stream.set_zero_linger()?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        for n in 0..STREAMS {
            let (this, mut sender) = (Arc::clone(self), sender.clone());
            let share = u32::try_from(n).unwrap_or_default();
            let offset = pause * share / u32::try_from(STREAMS).unwrap_or(1);
            tasks.spawn(async move {
                sleep(offset).await;
                let token = this.signer.token(REVOKED);
                for round in n.. {
                    let path = line(round).trim_start_matches("GET ");
                    let request = Request::get(format!("http://a{path}"))
                        .header(header::AUTHORIZATION, format!("Bearer {token}"))
                        .body(Empty::<Bytes>::new())
                        .unwrap();
                    if sender.ready().await.is_err() {
                        return;
                    }
                    let Ok(response) = sender.send_request(request).await else { return };
                    this.answers.add("revoked", response.status().as_u16(), None);
                    let _ = response.into_body().collect().await;
                    sleep(pause).await;
                }
            });
        }
        // Until the connection has ended.
        tasks.join_next().await;
        Ok(())
    }

    async fn login(&self, n: usize, pause: Duration, offset: Duration) -> io::Result<()> {
        let mut client = self.client().await?;
        sleep(offset).await;
        loop {
            // One half as one user.
            let user = if n.is_multiple_of(2) { 0 } else { self.number() };
            let answer = client.ask(&format!("POST /login?id=u{user}"), "").await?;
            self.answers.add("login", answer.status, None);
            sleep(pause).await;
        }
    }

    async fn read_slowly(&self, n: usize, pause: Duration) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream = {
            let _turn = self.connecting.acquire().await;
            socket.connect(self.server).await?
        };
        stream.set_zero_linger()?;
        self.connected.fetch_add(1, Ordering::Relaxed);
        let token = self.signer.token(&format!("slow{n}"));
        let head =
            format!("GET /large HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        let status = String::from_utf8_lossy(&status[9..]).parse().unwrap();
        self.answers.add("valid", status, None);
        loop {
            sleep(pause).await;
            stream.read_u8().await?;
        }
    }

    /// Half of them send nothing, the others half of a request.
    async fn half_open(&self, n: usize) -> io::Result<()> {
        let mut client = self.client().await?;
        if n.is_multiple_of(2) {
            client.stream.write_all(b"GET /closed HTTP/1.1\r\nhost: a\r\nauthoriz").await?;
        }
        client.more().await
    }

    async fn now_and_then(&self, n: usize, pause: Duration, offset: Duration) -> io::Result<()> {
        let mut client = self.client().await?;
        sleep(offset).await;
        // Three of four are as innocent as they can be.
        let (what, id) = if n.is_multiple_of(4) {
            ("revoked", REVOKED.to_owned())
        } else {
            ("valid", format!("m{n}"))
        };
        let token = self.signer.token(&id);
        for round in n.. {
            let answer = client.ask(line(round), &token).await?;
            self.answers.add(what, answer.status, answer.checked);
            sleep(pause).await;
        }
        Ok(())
    }
}

/// Both fail modes in turn.
fn line(round: usize) -> &'static str {
    if round.is_multiple_of(2) { "GET /open" } else { "GET /closed" }
}
