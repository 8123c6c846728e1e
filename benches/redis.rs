//! What a check in Redis costs, against what people write by hand: one `EXISTS` through fred.
//!
//! `cargo bench --bench redis`; starts a `redis-server` of its own. Absolute times are those of the
//! machine. **Read the ratios**, `by hand / layer` from rounds that take turns; above 1 the layer
//! is faster. There are three of them:
//!
//! - *check*: verifying costs neither side anything. The layer reads the records of all targets of
//!   the token and the life of the store, by hand it is one key.
//! - *request*: each side verifies the HS256 signature of its token, the hand with jsonwebtoken.
//! - *cached*: the hand verifies, the layer knows the token already.
//!
//! Every request in flight has a token, a session and a user of its own, so nothing is saved by
//! asking for one key twice. `bare` is the inner service alone, with the cost of driving it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and one that has not prints its numbers"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::prelude::{Builder, Client, ClientLike as _, Config, KeysInterface as _};
use http::{Request, Response, StatusCode, header};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use tokio::runtime::Runtime;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::redis::fred;
use tower_jwt_revocation::token::{TokenError, TokenErrorKind, TokenVerifier};
use tower_jwt_revocation::{
    Algorithm, JwtRevocationLayer, JwtVerifier, RedisStore, TokenProfile, VerificationKey,
    VerifiedToken,
};

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const AT_ONCE: [usize; 4] = [1, 16, 64, 256];

// === The contenders ===

/// Sends the nth of the requests that are in flight at once.
type Contender =
    Arc<dyn Fn(usize) -> Pin<Box<dyn Future<Output = StatusCode> + Send>> + Sync + Send>;

fn sends<Fut>(send: impl Fn(usize) -> Fut + Sync + Send + 'static) -> Contender
where
    Fut: Future<Output = StatusCode> + Send + 'static,
{
    Arc::new(move |n| Box::pin(send(n)))
}

fn inner(_: Request<()>) -> Ready<Result<Response<()>, Infallible>> {
    ready(Ok(Response::new(())))
}

fn id(n: usize) -> String {
    format!("0c6f1c52-6c55-4f0e-8a57-9f6f6f1a{n:04}")
}

fn signed(n: usize) -> String {
    let now = Timestamp::now().as_secs();
    let claims = serde_json::json!({
        "iss": "https://id.example", "sub": format!("4fd9b2a0-8f0c-4a52-9d0c-3f4a7e1f{n:04}"),
        "jti": id(n), "sid": format!("b2f1c7e2-0b8f-4c61-8bd3-9f7b9c6d{n:04}"), "client_id": "web",
        "iat": now, "exp": now + 86_000, "scope": "orders:read orders:write", "role": "clerk",
    });
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET).unwrap())
        .unwrap()
}

fn verifier() -> JwtVerifier {
    let key = VerificationKey::from_secret(Algorithm::HS256, SECRET).unwrap();
    JwtVerifier::new([key], TokenProfile::new()).unwrap()
}

/// A verifier that costs nothing: `Bearer 17` is the seventeenth token, verified beforehand.
struct Known(Vec<Arc<VerifiedToken>>, TokenProfile);

impl TokenVerifier for Known {
    fn verify(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        let known = token.parse().ok().and_then(|n: usize| self.0.get(n));
        known
            .cloned()
            .ok_or(TokenError::new(TokenErrorKind::Malformed, "not one of the known tokens"))
    }

    fn verify_for_revocation(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify(token)
    }

    fn profile(&self) -> &TokenProfile {
        &self.1
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn bearer(token: &str) -> Request<()> {
    Request::get("/").header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap()
}

fn token_of(request: &Request<()>) -> &str {
    request.headers()[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap()
}

fn bare(tokens: Arc<[String]>) -> Contender {
    sends(move |n| {
        let answer = service_fn(inner).call(bearer(&tokens[n]));
        async { answer.await.unwrap().status() }
    })
}

fn layered(verifier: impl TokenVerifier, store: RedisStore, tokens: Arc<[String]>) -> Contender {
    let service = JwtRevocationLayer::new(verifier, store).layer(service_fn(inner));
    sends(move |n| {
        let answer = service.clone().oneshot(bearer(&tokens[n]));
        async { answer.await.unwrap().status() }
    })
}

/// What is written by hand: learn the id, ask for its key, refuse if it is there.
fn by_hand<I>(client: Client, tokens: Arc<[String]>, id: I) -> Contender
where
    I: Fn(&str) -> String + Clone + Sync + Send + 'static,
{
    sends(move |n| {
        let (client, id, request) = (client.clone(), id.clone(), bearer(&tokens[n]));
        async move {
            let key = format!("revoked:{}", id(token_of(&request)));
            let revoked: bool = client.exists(key).await.unwrap();
            assert!(!revoked);
            inner(request).await.unwrap().status()
        }
    })
}

fn id_of_signed(key: &DecodingKey, token: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Claims {
        jti: String,
    }
    jsonwebtoken::decode::<Claims>(token, key, &Validation::default()).unwrap().claims.jti
}

// === The race ===

/// Nanoseconds per request, with `at_once` of them under way.
fn drive(runtime: &Runtime, send: &Contender, total: usize, at_once: usize) -> f64 {
    runtime.block_on(async {
        let began = Instant::now();
        let tasks: Vec<_> = (0..at_once)
            .map(|n| {
                let (send, mine) = (Arc::clone(send), total / at_once);
                tokio::spawn(async move {
                    for _ in 0..mine {
                        assert_eq!(send(n).await, StatusCode::OK);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        began.elapsed().as_secs_f64() * 1e9 / (total / at_once * at_once) as f64
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The times of each contender; in every round each has its turn.
fn race(
    runtime: &Runtime,
    contenders: &[Contender],
    rounds: usize,
    total: usize,
    at_once: usize,
) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let time = drive(runtime, contender, total, at_once);
            // The first round warms up.
            if round > 0 {
                times.push(time);
            }
        }
    }
    times
}

fn main() {
    if !support::redis_is_installed() {
        return;
    }
    // `cargo test` only wants to see that it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, total) = if is_bench { (21, 16 * 1024) } else { (1, 256) };
    let only: Option<usize> = std::env::args().skip(1).find_map(|argument| argument.parse().ok());

    let redis = support::RedisServer::start();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (store, client) = runtime.block_on(async {
        // A bench is not to fail because the machine was busy for a moment.
        let store =
            RedisStore::builder().with_url(redis.url()).with_check_timeout(Duration::from_secs(5));
        let client = Builder::from_config(Config::from_url(&redis.url()).unwrap()).build().unwrap();
        client.init().await.unwrap();
        (store.connect().await.unwrap(), client)
    });

    // First, because it decides by which provider jsonwebtoken signs.
    let verifier = verifier();
    let tokens: Arc<[String]> = (0..256).map(signed).collect();
    let numbers: Arc<[String]> = (0..256).map(|n| n.to_string()).collect();
    let known = Known(
        tokens.iter().map(|token| verifier.verify(token).unwrap()).collect(),
        TokenProfile::new(),
    );
    let ids: Arc<[String]> = (0..256).map(id).collect();
    let key = Arc::new(DecodingKey::from_secret(SECRET).unwrap());
    let contenders = [
        bare(Arc::clone(&numbers)),
        layered(known, store.clone(), Arc::clone(&numbers)),
        by_hand(client.clone(), numbers, move |token| ids[token.parse::<usize>().unwrap()].clone()),
        layered(verifier, store, Arc::clone(&tokens)),
        by_hand(client, tokens, move |token| id_of_signed(&key, token)),
    ];

    println!(
        "           microseconds per request                          ratios, by hand / layer: \
         read these"
    );
    println!("           bare | token known  | token verified | check  request  cached");
    println!("at once         | layer   hand | layer     hand |");
    for at_once in AT_ONCE.into_iter().filter(|at_once| only.is_none_or(|only| only == *at_once)) {
        let times = race(&runtime, &contenders, rounds, total, at_once);
        let micros = |n: usize| median(times[n].clone()) / 1e3;
        let ratio = |layer: usize, hand: usize| {
            median(
                times[hand].iter().zip(&times[layer]).map(|(hand, layer)| hand / layer).collect(),
            )
        };
        println!(
            "{at_once:7} {:7.2} |{:6.2} {:6.2} |{:6.2}   {:6.2} | {:4.2}x    {:4.2}x   {:4.2}x",
            micros(0),
            micros(1),
            micros(2),
            micros(3),
            micros(4),
            ratio(1, 2),
            ratio(3, 4),
            ratio(1, 4),
        );
    }
}
