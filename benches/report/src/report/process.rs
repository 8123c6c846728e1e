//! One request in this process: the time that it takes of the processor, and its allocations.
//!
//! Time is that of the thread, not of the wall: what else the machine does meanwhile counts for
//! nothing, and neither does waiting for Redis. Lines take turns, so that the machine's moods meet
//! all of them; the median of the turns counts.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use axum::middleware::from_fn;
use http::{HeaderValue, Request, Response, header};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tower::{Layer as _, Service};
use tower_jwt_revocation::metrics::Metrics;
use tower_jwt_revocation::token::TokenVerifier as _;
use tower_jwt_revocation::{CachedVerifier, JwtRevocationLayer, MemoryStore, Mirror, RedisStore};
use tower_jwt_revocation_report::numbers::{Numbers, beside_a_settling_shard};
use tower_jwt_revocation_report::support::{Keys, hs256, rs256, verifier};

use crate::peers::{self, ByHand, Exists};
use tower_jwt_revocation_report::machine::{cpu, median};

/// Different tokens that come in turns.
const TOKENS: usize = 1000;
/// Turns of each line, and how long one lasts.
const TURNS: usize = 15;
const TURN: Duration = Duration::from_millis(60);

/// What was measured of one line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cost {
    pub name: String,
    pub ns: f64,
    pub allocations: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// By algorithm: all lines.
    pub lines: Vec<(String, Vec<Cost>)>,
    /// One thread and two that share a token, by the number of revocations.
    pub sizes: Vec<(u64, f64, f64, f64)>,
    /// Revocations per second that stream in meanwhile, and the cost of a request.
    pub streams: Vec<(u64, f64)>,
    /// First sight: signature alone, verified.
    pub first: Vec<(String, f64, f64)>,
    /// In flight, by hand, direct: requests per second.
    pub at_once: Vec<(usize, f64, f64)>,
}

impl<B, R: Default> Service<Request<B>> for InnerOf<R> {
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Ready<Result<Response<R>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        black_box(request.headers().len());
        ready(Ok(Response::new(R::default())))
    }
}

/// An inner service that does nothing, for any body.
struct InnerOf<R>(std::marker::PhantomData<fn() -> R>);

impl<R> Clone for InnerOf<R> {
    fn clone(&self) -> Self {
        inner()
    }
}

fn inner<R>() -> InnerOf<R> {
    InnerOf(std::marker::PhantomData)
}

fn request<B: Default>(value: Option<&HeaderValue>) -> Request<B> {
    let mut request = Request::new(B::default());
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("api.example"));
    if let Some(value) = value {
        request.headers_mut().insert(header::AUTHORIZATION, value.clone());
    }
    request
}

/// Answers one request at once, or says that it cannot.
fn answer<S, B, R>(service: &mut S, value: Option<&HeaderValue>) -> Option<u16>
where
    S: Service<Request<B>, Response = Response<R>>,
    B: Default,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request(value)));
    match future.as_mut().poll(&mut context) {
        Poll::Ready(answer) => answer.ok().map(|answer| answer.status().as_u16()),
        Poll::Pending => None,
    }
}

/// Makes so many requests and says what they cost.
type Run = Box<dyn FnMut(u64) -> Duration>;

struct Line {
    name: String,
    run: Run,
}

/// A line whose answers are at hand.
fn at_hand<S, B, R>(
    name: &str,
    mut service: S,
    values: Vec<Option<HeaderValue>>,
    status: u16,
) -> Line
where
    S: Service<Request<B>, Response = Response<R>> + 'static,
    B: Default,
{
    let mut next = 0;
    let run = move |rounds| {
        let start = cpu();
        for _ in 0..rounds {
            next = if next + 1 < values.len() { next + 1 } else { 0 };
            assert_eq!(answer::<S, B, R>(&mut service, values[next].as_ref()), Some(status));
        }
        cpu() - start
    };
    Line { name: name.into(), run: Box::new(run) }
}

/// A line that waits for Redis; what the client does for it counts too, being done by the same
/// thread.
fn waiting<S>(
    name: &str,
    service: S,
    values: Vec<Option<HeaderValue>>,
    runtime: &Arc<Runtime>,
) -> Line
where
    S: Service<Request<axum::body::Body>, Response = axum::response::Response, Error = Infallible>
        + Clone
        + 'static,
{
    let runtime = Arc::clone(runtime);
    let mut next = 0;
    let run = move |rounds| {
        let start = cpu();
        runtime.block_on(async {
            for _ in 0..rounds {
                next = if next + 1 < values.len() { next + 1 } else { 0 };
                let mut service = service.clone();
                let answer = service.call(request(values[next].as_ref())).await;
                assert_eq!(answer.unwrap().status(), 200);
            }
        });
        cpu() - start
    };
    Line { name: name.into(), run: Box::new(run) }
}

/// All lines in turns.
fn take_turns(mut lines: Vec<Line>) -> Vec<Cost> {
    let rounds: Vec<u64> = lines.iter_mut().map(|line| rounds_of(&mut line.run)).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); lines.len()];
    for _ in 0..TURNS {
        for ((line, rounds), times) in lines.iter_mut().zip(&rounds).zip(&mut times) {
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            times.push((line.run)(*rounds).as_nanos() as f64 / *rounds as f64);
        }
    }
    let cost = |(mut line, times): (Line, Vec<f64>)| {
        let counted = measure(|| {
            (line.run)(100);
        });
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let allocations = counted.count_total as f64 / 100.0;
        Cost { name: line.name, ns: median(times), allocations }
    };
    lines.into_iter().zip(times).map(cost).collect()
}

/// How many requests make a turn; warms up by the way.
fn rounds_of(run: &mut Run) -> u64 {
    run(20 * TOKENS as u64 / 10);
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < TURN {
        run(100);
        rounds += 100;
    }
    rounds
}

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

/// A mirror of so many revocations, followed by a thread of its own.
pub fn mirror(entries: u64) -> (Mirror, Arc<AtomicU64>, Runtime) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let feed = Numbers { entries, written: Arc::clone(&written), ..Numbers::default() };
    let mirror = runtime.block_on(async {
        let mirror = Mirror::of(MemoryStore::new(), vec![feed]).start().unwrap();
        mirror.ready().await;
        mirror
    });
    (mirror, written, runtime)
}

pub fn measure_all(redis: &str, full: bool) -> Results {
    let (million, _written, runtime) = mirror(1_000_000);
    let settling = runtime.block_on(beside_a_settling_shard(1_000_000, Duration::from_secs(1)));
    let waiting =
        Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let lines = [("RS256", rs256()), ("HS256", hs256())].map(|(name, keys)| {
        let lines = lines(&keys, redis, [&million, &settling], &waiting);
        (name.to_owned(), take_turns(lines))
    });
    drop((million, settling));
    let sizes: &[u64] =
        if full { &[0, 1000, 1_000_000, 10_000_000] } else { &[0, 1000, 1_000_000] };
    Results {
        lines: lines.into(),
        sizes: sizes.iter().map(|size| of_size(*size)).collect(),
        streams: streams(),
        first: [("HS256", hs256()), ("RS256", rs256())]
            .map(|(name, keys)| first_sight(name, &keys))
            .into(),
        at_once: at_once(redis),
    }
}

/// The same line while another thread reads these metrics each second.
fn metered(line: Line, metrics: Metrics) -> Line {
    let is_measured = Arc::new(());
    let is_over = Arc::downgrade(&is_measured);
    thread::spawn(move || {
        while is_over.strong_count() > 0 {
            drop(black_box(metrics.prometheus()));
            thread::sleep(Duration::from_secs(1));
        }
    });
    let Line { name, mut run } = line;
    let run = Box::new(move |rounds| {
        let _ = &is_measured;
        run(rounds)
    });
    Line { name, run }
}

fn lines(
    keys: &Keys,
    redis: &str,
    [mirror, settling]: [&Mirror; 2],
    runtime: &Arc<Runtime>,
) -> Vec<Line> {
    let tokens: Vec<_> = (0..TOKENS).map(|n| keys.token(n)).collect();
    let many: Vec<_> = tokens.iter().map(|token| Some(bearer(token))).collect();
    let one = vec![many[0].clone()];
    let layer = || JwtRevocationLayer::new(CachedVerifier::new(verifier(keys)), mirror.clone());
    type Body = axum::body::Body;
    let ours = |name: &str, layer: JwtRevocationLayer, values: &[Option<HeaderValue>], status| {
        at_hand::<_, Body, Body>(name, layer.layer(inner::<Body>()), values.to_vec(), status)
    };
    let uncached = JwtRevocationLayer::new(verifier(keys), mirror.clone());
    let read = layer();
    let beside = JwtRevocationLayer::new(CachedVerifier::new(verifier(keys)), settling.clone());
    let mut lines = vec![
        at_hand::<_, Body, Body>("bare service", inner::<Body>(), one.clone(), 200),
        ours("mirror, remembered token", layer(), &one, 200),
        ours("mirror, remembered token, without clearance", layer().without_clearance(), &one, 200),
        ours("mirror, 1000 remembered tokens", layer(), &many, 200),
        metered(
            ours("mirror, remembered token, metrics read each second", read.clone(), &one, 200),
            read.metrics(),
        ),
        ours("mirror, remembered token, beside a settling shard", beside, &one, 200),
        ours("mirror, first sight of each token", uncached, &many, 200),
        ours("refused: no token", layer(), &[None], 401),
        ours("refused: junk", layer(), &[Some(bearer("junk"))], 401),
        ours("refused: `alg` forged", layer(), &[Some(bearer(&forged(&tokens[0])))], 401),
    ];
    let direct = runtime.block_on(async {
        let store =
            RedisStore::builder().with_url(redis).with_check_timeout(Duration::from_secs(5));
        store.connect().await.unwrap()
    });
    let direct =
        JwtRevocationLayer::new(CachedVerifier::new(verifier(keys)), direct).layer(inner::<Body>());
    lines.push(waiting(
        "direct, remembered token (four targets and the epoch in one round trip)",
        direct,
        one.clone(),
        runtime,
    ));
    for (name, exists) in [
        (
            "by hand: from_fn, jsonwebtoken, EXISTS by fred",
            runtime.block_on(Exists::by_fred(redis)),
        ),
        (
            "by hand: from_fn, jsonwebtoken, EXISTS by redis-rs",
            runtime.block_on(Exists::by_redis(redis)),
        ),
        ("by hand: from_fn, jsonwebtoken, no revocation", Exists::Nobody),
    ] {
        let by_hand = ByHand::new(keys, exists);
        let service = from_fn(move |request, next| by_hand.clone().pass(request, next))
            .layer(inner::<Body>());
        lines.push(waiting(name, service, one.clone(), runtime));
    }
    if keys.algorithm == jsonwebtoken::Algorithm::RS256 {
        let theirs = runtime.block_on(peers::jwt_authorizer()).layer(inner::<axum07::body::Body>());
        lines.push(at_hand::<_, (), axum07::body::Body>(
            "jwt-authorizer, no revocation",
            theirs,
            one.clone(),
            200,
        ));
        let theirs = runtime.block_on(peers::resource_server());
        let theirs = theirs.into_layer::<Body>().layer(inner::<Body>());
        lines.push(at_hand::<_, Body, Body>(
            "tower-oauth2-resource-server, no revocation",
            theirs,
            one,
            200,
        ));
    }
    lines
}

/// The same token, saying that it needs no signature.
fn forged(token: &str) -> String {
    let (_, rest) = token.split_once('.').unwrap();
    format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoiMjAyNi0wMSJ9.{rest}")
}

/// So many revocations: one token, 1000 tokens, and two threads that share a token.
fn of_size(entries: u64) -> (u64, f64, f64, f64) {
    type Body = axum::body::Body;
    let keys = rs256();
    let (mirror, _written, _runtime) = mirror(entries);
    let layer = JwtRevocationLayer::new(CachedVerifier::new(verifier(&keys)), mirror);
    let many: Vec<_> = (0..TOKENS).map(|n| Some(bearer(&keys.token(n)))).collect();
    let service = layer.layer(inner::<Body>());
    let costs = take_turns(vec![
        at_hand::<_, Body, Body>("one", service.clone(), vec![many[0].clone()], 200),
        at_hand::<_, Body, Body>("many", service.clone(), many.clone(), 200),
    ]);
    let value = many[0].clone().unwrap();
    let times = (0..TURNS).map(|_| together(&service, &value, 2, 200_000)).collect();
    (entries, costs[0].ns, costs[1].ns, median(times))
}

/// What a request costs each of some threads that send the same token at the same time.
fn together<S>(service: &S, value: &HeaderValue, threads: usize, rounds: u32) -> f64
where
    S: Service<Request<axum::body::Body>, Response = axum::response::Response> + Clone + Send,
{
    let start = Barrier::new(threads);
    let times: Vec<_> = thread::scope(|scope| {
        let work = || {
            let mut service = service.clone();
            // Its own bytes: the reference count of a shared one would be measured with it.
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let start = &start;
            scope.spawn(move || {
                (0..1000).for_each(|_| assert_eq!(answer(&mut service, Some(&value)), Some(200)));
                start.wait();
                let begin = cpu();
                (0..rounds).for_each(|_| assert_eq!(answer(&mut service, Some(&value)), Some(200)));
                cpu() - begin
            })
        };
        let threads: Vec<_> = (0..threads).map(|_| work()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    times.iter().map(Duration::as_nanos).sum::<u128>() as f64 / f64::from(rounds) / threads as f64
}

/// While so many revocations per second come in.
fn streams() -> Vec<(u64, f64)> {
    type Body = axum::body::Body;
    let keys = rs256();
    let value = vec![Some(bearer(&keys.token(0)))];
    [0, 1000, 10_000]
        .into_iter()
        .map(|rate| {
            let (mirror, written, _runtime) = mirror(1_000_000);
            let layer = JwtRevocationLayer::new(CachedVerifier::new(verifier(&keys)), mirror);
            let is_over = AtomicBool::new(false);
            let line =
                at_hand::<_, Body, Body>("", layer.layer(inner::<Body>()), value.clone(), 200);
            let ns = thread::scope(|scope| {
                scope.spawn(|| {
                    let start = Instant::now();
                    while !is_over.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(1));
                        let due = start.elapsed().as_secs_f64() * rate as f64;
                        written.store(due as u64, Ordering::SeqCst);
                    }
                });
                let costs = take_turns(vec![line]);
                is_over.store(true, Ordering::Relaxed);
                costs[0].ns
            });
            (rate, ns)
        })
        .collect()
}

/// The signature alone, and the whole verification.
fn first_sight(name: &str, keys: &Keys) -> (String, f64, f64) {
    let tokens: Arc<[String]> = (0..TOKENS).map(|n| keys.token(n)).collect();
    let line = |work: Box<dyn Fn(&str)>| {
        let tokens = Arc::clone(&tokens);
        let mut next = 0;
        let run = move |rounds| {
            let start = cpu();
            for _ in 0..rounds {
                next = (next + 1) % TOKENS;
                work(&tokens[next]);
            }
            cpu() - start
        };
        Line { name: String::new(), run: Box::new(run) }
    };
    let verifier = verifier(keys);
    let other = if name == "HS256" { hs256() } else { rs256() };
    let costs = take_turns(vec![
        line(Box::new(move |token| assert!(other.check_signature(token)))),
        line(Box::new(move |token| drop(black_box(verifier.verify(token).unwrap())))),
    ]);
    (name.into(), costs[0].ns, costs[1].ns)
}

/// Requests per second with some in flight: by hand with fred, and direct.
fn at_once(redis: &str) -> Vec<(usize, f64, f64)> {
    type Body = axum::body::Body;
    let keys = hs256();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let by_hand = ByHand::new(&keys, runtime.block_on(Exists::by_fred(redis)));
    let by_hand =
        from_fn(move |request, next| by_hand.clone().pass(request, next)).layer(inner::<Body>());
    let store = runtime.block_on(async {
        let store =
            RedisStore::builder().with_url(redis).with_check_timeout(Duration::from_secs(5));
        store.connect().await.unwrap()
    });
    let direct =
        JwtRevocationLayer::new(CachedVerifier::new(verifier(&keys)), store).layer(inner::<Body>());
    let value = bearer(&keys.token(0));
    [1, 16, 64, 256]
        .into_iter()
        .map(|at_once| {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for _ in 0..5 {
                one.push(runtime.block_on(rate(&by_hand, &value, at_once)));
                other.push(runtime.block_on(rate(&direct, &value, at_once)));
            }
            (at_once, median(one), median(other))
        })
        .collect()
}

async fn rate<S>(service: &S, value: &HeaderValue, at_once: usize) -> f64
where
    S: Service<Request<axum::body::Body>, Response = axum::response::Response, Error = Infallible>
        + Clone,
{
    let start = Instant::now();
    let one = || async {
        let mut done = 0_u32;
        while start.elapsed() < Duration::from_millis(400) {
            let answer = service.clone().call(request(Some(value))).await;
            assert_eq!(answer.unwrap().status(), 200);
            done += 1;
        }
        done
    };
    let done = futures::future::join_all((0..at_once).map(|_| one())).await;
    f64::from(done.iter().sum::<u32>()) / start.elapsed().as_secs_f64()
}
