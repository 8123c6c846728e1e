//! One store behind two layers, one of each fail mode; tokens for them, and what became of a
//! request.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use jsonwebtoken::{EncodingKey, Header};
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{RevocationStore, StoreErrorKind};
use tower_jwt_revocation::{
    Algorithm, Clearance, FailMode, JwtRevocationLayer, JwtVerifier, Mirror, RedisStore, Rejection,
    Revoker, TokenProfile, VerificationKey,
};

const SECRET: &[u8] = b"a secret of the tests, 32 bytes or more";

/// How long the tokens live, in seconds: longer than any run.
const LIFETIME: u64 = 1800;

/// How old what a mirror says may be: less than the default, to see more of them fail to prove it.
pub const STALENESS: Duration = Duration::from_millis(300);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 200, and the store had said that the token is live.
    Checked,
    /// 200, although the store gave no answer.
    Unchecked(StoreErrorKind),
    /// 401, since the token is revoked.
    Revoked,
    /// 503, since the store gave no answer.
    Unavailable(StoreErrorKind),
    /// 401, since the store has lost what it would have to know.
    InDoubt,
    /// Anything else, which should not be.
    Odd(String),
}

impl Verdict {
    /// Why there was no answer of the store.
    pub fn failure(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Unchecked(kind) | Self::Unavailable(kind) => Some(*kind),
            Self::InDoubt => Some(StoreErrorKind::DataLoss),
            _ => None,
        }
    }
}

type Door = BoxCloneSyncService<Request<()>, Response<String>, Infallible>;

/// The two layers around the same handler, and the write side.
#[derive(Clone)]
pub struct Doors {
    closed: Door,
    open: Door,
    pub revoker: Revoker,
}

impl Doors {
    /// Over Redis, or over a mirror of it, which has loaded everything.
    pub async fn of(store: RedisStore, mirror: bool) -> (Self, Option<Mirror>) {
        if !mirror {
            return (Self::new(store), None);
        }
        let mirror = Mirror::builder(store).with_max_staleness(STALENESS).start().unwrap();
        mirror.ready().await;
        (Self::new(mirror.clone()), Some(mirror))
    }

    fn new(store: impl RevocationStore) -> Self {
        let key = VerificationKey::from_secret(Algorithm::HS256, SECRET).unwrap();
        let verifier = JwtVerifier::new([key], TokenProfile::new()).unwrap();
        let layer = JwtRevocationLayer::new(verifier, store);
        let revoker = layer.revoker();
        let door = |mode| {
            let service = layer.clone().with_fail_mode(mode).layer(service_fn(handler));
            BoxCloneSyncService::new(service)
        };
        Self { closed: door(FailMode::Closed), open: door(FailMode::Open), revoker }
    }

    /// Sends one request.
    pub async fn ask(&self, mode: FailMode, token: &str) -> Verdict {
        let door = match mode {
            FailMode::Closed => self.closed.clone(),
            _ => self.open.clone(),
        };
        let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}"));
        read(&door.oneshot(request.body(()).unwrap()).await.unwrap())
    }
}

async fn handler(request: Request<()>) -> Result<Response<String>, Infallible> {
    let mut response = Response::new(String::new());
    if let Some(clearance) = request.extensions().get::<Clearance>() {
        response.extensions_mut().insert(clearance.clone());
    }
    Ok(response)
}

/// Status, headers and extensions must all say the same.
fn read(response: &Response<String>) -> Verdict {
    let clearance = response.extensions().get::<Clearance>();
    let rejection = response.extensions().get::<Rejection>();
    match (response.status(), clearance, rejection) {
        (StatusCode::OK, Some(clearance), None) => match clearance.unchecked_because() {
            None if clearance.is_checked() => Verdict::Checked,
            Some(error) if !clearance.is_checked() => Verdict::Unchecked(error.kind()),
            _ => Verdict::Odd("a clearance that contradicts itself".into()),
        },
        (StatusCode::UNAUTHORIZED, None, Some(Rejection::Revoked(_)))
            if response.headers().contains_key(header::WWW_AUTHENTICATE) =>
        {
            Verdict::Revoked
        }
        (StatusCode::UNAUTHORIZED, None, Some(Rejection::InDoubt(error)))
            if response.headers().contains_key(header::WWW_AUTHENTICATE)
                && error.kind() == StoreErrorKind::DataLoss =>
        {
            Verdict::InDoubt
        }
        (StatusCode::SERVICE_UNAVAILABLE, None, Some(Rejection::StandingUnknown(error)))
            if error.kind() != StoreErrorKind::DataLoss
                && response.headers().contains_key(header::RETRY_AFTER) =>
        {
            Verdict::Unavailable(error.kind())
        }
        (status, _, rejection) => Verdict::Odd(format!(
            "{status}, {}",
            rejection.map_or("no reason".into(), ToString::to_string)
        )),
    }
}

/// A token that was issued in this second.
pub fn token(subject: &str, id: &str, issued_at: u64) -> String {
    let claims = serde_json::json!({
        "sub": subject, "jti": id, "iat": issued_at, "exp": issued_at + LIFETIME,
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET).unwrap())
        .unwrap()
}

/// The time in whole seconds, as issuers stamp it.
pub fn this_second() -> u64 {
    Timestamp::now().as_secs()
}
