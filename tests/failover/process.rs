//! One process of a program that uses the crate: a store of its own, a layer in each fail mode over
//! it, the write side and sessions. It does what it is told by lines of JSON on its standard input,
//! and answers each by a line on its standard output. It ends with its input. With `RUST_LOG` it
//! logs to its standard error.

use std::convert::Infallible;
use std::io::{BufRead as _, Write as _};
use std::num::NonZeroU32;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::session::{
    Grant, Login, Refresh, RefreshPolicy, SessionDetails, Sessions,
};
use tower_jwt_revocation::store::{RevocationStore, StoreError};
use tower_jwt_revocation::{
    Algorithm, Clearance, FailMode, JwtRevocationLayer, JwtVerifier, Mirror, RedisStore, Rejection,
    Revoker, Target, TokenProfile, VerificationKey,
};

use crate::clock;
use crate::tokens::SECRET;

/// How old what a mirror says may be.
pub const STALENESS: Duration = Duration::from_millis(300);
/// More than the defaults, since these histories are no measurement of how long a check takes.
const CHECK_TIMEOUT: Duration = Duration::from_millis(250);
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
const REPLICAS_WITHIN: Duration = Duration::from_millis(500);

/// How a process is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub url: String,
    pub shards: u16,
    /// How many replicas a write waits for.
    pub replicas: u32,
    pub mirror: bool,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

/// What a process is told to do. Times are in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    Check {
        open: bool,
        token: String,
    },
    Revoke {
        kind: Kind,
        id: String,
    },
    Reinstate {
        kind: Kind,
        id: String,
    },
    Login {
        user: String,
    },
    Refresh {
        token: String,
    },
    /// Writes this number into the details of a session.
    Update {
        user: String,
        session: String,
        number: u64,
    },
    /// Reads it again.
    Read {
        session: String,
    },
    End {
        session: String,
    },
    Trust {
        user: String,
        device: String,
    },
    Distrust {
        user: String,
        device: String,
    },
    IsTrusted {
        user: String,
        device: String,
    },
    /// Ends in an orderly way, when all that was begun is done.
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Token,
    Session,
    User,
}

impl Kind {
    fn target(self, id: &str) -> Target {
        match self {
            Self::Token => Target::token(id),
            Self::Session => Target::session(id),
            Self::User => Target::user(id),
        }
    }
}

/// The answer to an order: when it was begun and done, by the clock of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    pub from: u64,
    pub to: u64,
    /// The kind of the error, and its text.
    pub result: Result<Value, (String, String)>,
}

/// A grant of tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Granted {
    pub refresh: String,
    pub id: String,
    pub family: String,
    pub session: String,
    pub user: String,
    pub issued_at_ms: u64,
    /// Whether it was granted before: the request came twice.
    pub is_repeated: bool,
}

/// The answer to a refresh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Refreshed {
    Granted(Granted),
    Refused(String),
}

type Door = BoxCloneSyncService<Request<()>, Response<String>, Infallible>;

#[derive(Clone)]
struct Program {
    closed: Door,
    open: Door,
    revoker: Revoker,
    sessions: Sessions,
}

/// What such a process does.
pub fn live(setup: &str) {
    let setup: Setup = serde_json::from_str(setup).unwrap();
    if let Ok(filter) = std::env::var("RUST_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let (orders, received) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let order: (u64, Order) = serde_json::from_str(&line).unwrap();
            if orders.send(order).is_err() {
                break;
            }
        }
        // Dropping the sender ends the process.
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(obey(setup, received));
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn obey(setup: Setup, mut orders: mpsc::UnboundedReceiver<(u64, Order)>) {
    let (program, store) = Program::start(&setup).await;
    tell(0, &Reply { from: 0, to: clock::now(), result: Ok(Value::Null) });
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some((id, Order::Quit)) => {
                    while under_way.join_next().await.is_some() {}
                    let _ = store.close().await;
                    let now = clock::now();
                    tell(id, &Reply { from: now, to: now, result: Ok(Value::Null) });
                    return;
                }
                Some((id, order)) => {
                    let program = program.clone();
                    under_way.spawn(async move {
                        let from = clock::now();
                        let result = program.act(order).await;
                        let result = result.map_err(|error| {
                            (format!("{:?}", error.kind()), error.to_string())
                        });
                        tell(id, &Reply { from, to: clock::now(), result });
                    });
                }
                None => return,
            },
            Some(_) = under_way.join_next() => {}
        }
    }
}

fn tell(id: u64, reply: &Reply) {
    let line = serde_json::to_string(&(id, reply)).unwrap();
    let mut out = std::io::stdout().lock();
    // Nobody may be listening any more.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Program {
    async fn start(setup: &Setup) -> (Self, RedisStore) {
        let mut builder = RedisStore::builder()
            .with_url(&setup.url)
            .with_shards(setup.shards)
            .with_check_timeout(CHECK_TIMEOUT)
            .with_write_timeout(WRITE_TIMEOUT);
        if let Some(replicas) = NonZeroU32::new(setup.replicas) {
            builder = builder.with_wait_replicas(replicas, REPLICAS_WITHIN);
        }
        // Its servers may be changing just now.
        let store = loop {
            match builder.clone().connect().await {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let program = if setup.mirror {
            let mirror =
                Mirror::builder(store.clone()).with_max_staleness(STALENESS).start().unwrap();
            mirror.ready().await;
            Self::new(mirror, &store)
        } else {
            Self::new(store.clone(), &store)
        };
        (program, store)
    }

    fn new(checks: impl RevocationStore, store: &RedisStore) -> Self {
        let key = VerificationKey::from_secret(Algorithm::HS256, SECRET).unwrap();
        let verifier = JwtVerifier::new([key], TokenProfile::new()).unwrap();
        let layer = JwtRevocationLayer::new(verifier, checks);
        let revoker = layer.revoker();
        let sessions = Sessions::new(store.clone(), revoker.clone(), RefreshPolicy::new()).unwrap();
        let door = |mode| {
            let service = layer.clone().with_fail_mode(mode).layer(service_fn(handler));
            BoxCloneSyncService::new(service)
        };
        Self { closed: door(FailMode::Closed), open: door(FailMode::Open), revoker, sessions }
    }

    async fn act(&self, order: Order) -> Result<Value, StoreError> {
        let value = match order {
            Order::Check { open, token } => json!(self.check(open, &token).await),
            Order::Revoke { kind, id } => {
                self.revoker.revoke(kind.target(&id)).await?;
                Value::Null
            }
            Order::Reinstate { kind, id } => {
                self.revoker.reinstate(kind.target(&id)).await?;
                Value::Null
            }
            Order::Login { user } => {
                match self.sessions.login(user, SessionDetails::new()).await? {
                    Login::Granted(grant) => json!(Refreshed::Granted(granted(grant))),
                    other => json!(Refreshed::Refused(format!("{other:?}"))),
                }
            }
            Order::Refresh { token } => match self.sessions.refresh(&token, None).await? {
                Refresh::Granted(grant) => json!(Refreshed::Granted(granted(grant))),
                Refresh::Refused(refusal) => json!(Refreshed::Refused(format!("{refusal:?}"))),
                other => json!(Refreshed::Refused(format!("{other:?}"))),
            },
            Order::Update { user, session, number } => {
                let change = |details: &mut SessionDetails| {
                    details.data = Some(json!(number));
                };
                json!(self.sessions.update(&user, &session, change).await?)
            }
            Order::Read { session } => {
                let found = self.sessions.find(&session).await?;
                found.map_or(Value::Null, |session| session.details.data.unwrap_or(json!(0)))
            }
            Order::End { session } => {
                self.sessions.end(&session).await?;
                Value::Null
            }
            Order::Trust { user, device } => {
                self.sessions.trust_device(&user, &*device, Duration::from_secs(3600)).await?;
                Value::Null
            }
            Order::Distrust { user, device } => {
                self.sessions.distrust_device(&user, &device).await?;
                Value::Null
            }
            Order::IsTrusted { user, device } => {
                json!(self.sessions.is_trusted_device(&user, &device).await?)
            }
            Order::Quit => Value::Null,
        };
        Ok(value)
    }

    async fn check(&self, open: bool, token: &str) -> (Word, String) {
        let door = if open { self.open.clone() } else { self.closed.clone() };
        let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
        read(&door.oneshot(request.body(()).unwrap()).await.unwrap())
    }
}

fn granted(grant: Grant) -> Granted {
    Granted {
        is_repeated: grant.is_repeated(),
        refresh: grant.token.expose().into(),
        id: grant.access_token_id.into(),
        family: grant.family.into(),
        session: grant.session.unwrap_or_default().into(),
        user: grant.user.into(),
        issued_at_ms: grant.issued_at.as_millis(),
    }
}

/// Why a token is refused that was found revoked within the last minute, where the store gave no
/// answer now; also of what a mirror finds revoked, which knows no time of it.
pub const REMEMBERED: &str = "remembered";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Word {
    /// 200, and the store had said that the token is live.
    Checked,
    /// 200, although the store gave no answer.
    Unchecked,
    /// 401, since the token is revoked.
    Revoked,
    /// 503, since the store gave no answer.
    Unavailable,
    /// 401, since the store will not give an answer.
    Doubted,
    /// Anything else, which should not be.
    Odd,
}

async fn handler(request: Request<()>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new(String::new());
    if let Some(clearance) = request.extensions().get::<Clearance>() {
        response.extensions_mut().insert(clearance.clone());
    }
    Ok(response)
}

/// Status, headers and extensions must all say the same. With why there was no answer.
fn read(response: &Response<String>) -> (Word, String) {
    let clearance = response.extensions().get::<Clearance>();
    let rejection = response.extensions().get::<Rejection>();
    let headers = response.headers();
    let challenges = headers.contains_key(header::WWW_AUTHENTICATE);
    match (response.status(), clearance, rejection) {
        (StatusCode::OK, Some(clearance), None) => match clearance.unchecked_because() {
            None if clearance.is_checked() => (Word::Checked, String::new()),
            Some(error) if !clearance.is_checked() => {
                (Word::Unchecked, format!("{:?}", error.kind()))
            }
            _ => (Word::Odd, "a clearance that contradicts itself".into()),
        },
        (StatusCode::UNAUTHORIZED, None, Some(Rejection::Revoked(by))) if challenges => {
            // Of what it has refused before, where the store gave no answer now, it knows no time.
            (Word::Revoked, if by.at.is_some() { String::new() } else { REMEMBERED.into() })
        }
        (StatusCode::UNAUTHORIZED, None, Some(Rejection::InDoubt(error))) if challenges => {
            (Word::Doubted, format!("{:?}", error.kind()))
        }
        (StatusCode::SERVICE_UNAVAILABLE, None, Some(Rejection::StandingUnknown(error)))
            if headers.contains_key(header::RETRY_AFTER) =>
        {
            (Word::Unavailable, format!("{:?}", error.kind()))
        }
        (status, _, rejection) => (
            Word::Odd,
            format!("{status}, {}", rejection.map_or("no reason".into(), ToString::to_string)),
        ),
    }
}
