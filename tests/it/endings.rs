//! Responses that go on for long end with their tokens.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_jwt_revocation::middleware::{EndWithTokenLayer, EndingBody};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::token::TokenErrorKind;
use tower_jwt_revocation::{
    Clearance, JwtRevocationLayer, Mirror, Rejection, Revoker, Target, TokenProfile,
};

use crate::mirror::{PATIENCE, connect, mirror};
use crate::servers::{RedisServer, redis_is_installed};
use crate::support::{WordVerifier, claims, signed, token};

/// Within this long after a revocation, a response has ended.
const SOON: Duration = Duration::from_millis(100);

/// For how long after its `exp` a token is accepted.
const LEEWAY: Duration = Duration::from_secs(4);

struct Lab {
    _redis: RedisServer,
    layer: JwtRevocationLayer,
    ending: EndWithTokenLayer,
    mirror: Mirror,
    /// Of another process, so that the mirror hears of it by the log.
    revoker: Revoker,
}

async fn lab() -> Lab {
    let redis = RedisServer::start();
    let store = connect(redis.url()).await;
    let mirror = mirror(redis.url()).await;
    let layer = JwtRevocationLayer::new(
        WordVerifier::of(TokenProfile::new().with_leeway(LEEWAY)),
        mirror.clone(),
    );
    let ending = EndWithTokenLayer::new(&layer);
    Lab {
        layer,
        ending,
        revoker: JwtRevocationLayer::new(WordVerifier::default(), store).revoker(),
        mirror,
        _redis: redis,
    }
}

impl Lab {
    /// How long the future takes after the revocation. The machine may be busy: one of three times
    /// it must be soon.
    async fn revoke_and_wait<T>(&self, id: &str, end: impl Future<Output = T>) -> (T, Duration) {
        self.revoker.revoke(Target::token(id)).await.unwrap();
        let start = Instant::now();
        let end = timeout(PATIENCE, end).await.expect("it never ends");
        (end, start.elapsed())
    }
}

/// One event, and then nothing for ever.
fn one_event() -> impl Stream<Item = Result<Event, Infallible>> {
    stream::once(async { Ok(Event::default().data("hello")) }).chain(stream::pending())
}

async fn serve(app: axum::Router) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn ask(path: &str, token: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(path)
        .header("host", "test")
        .header("authorization", format!("Bearer {token}"));
    request.body(Empty::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_and_downloads_end_over_http_1_and_2() {
    if !redis_is_installed() {
        return;
    }
    let lab = lab().await;
    let app = axum::Router::new()
        .route("/events", get(async || Sse::new(one_event()).keep_alive(KeepAlive::default())))
        .route(
            "/download",
            get(async || {
                let first =
                    stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"half of it")) });
                axum::body::Body::from_stream(first.chain(stream::pending()))
            }),
        )
        .route("/whole", get(async || "whole"))
        .layer(lab.ending.clone())
        .layer(lab.layer.clone());
    let address = serve(app).await;
    let mut quickest = Duration::MAX;
    for (n, (path, is_http2)) in
        [("/events", false), ("/events", true), ("/download", false), ("/download", true)]
            .into_iter()
            .enumerate()
    {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let id = format!("t{n}");
        let request = ask(path, &token("alice", &id));
        let response = if is_http2 {
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        } else {
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(if path == "/events" { b"data: hello" } else { b"half of it" }));
        let (end, took) = lab.revoke_and_wait(&id, body.collect()).await;
        match path {
            "/events" => assert!(end.unwrap().to_bytes().is_empty()),
            _ => assert!(end.is_err(), "half of a document must not look like a whole one"),
        }
        quickest = quickest.min(took);
        let (status, _) = whole(address, &token("alice", &id)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    assert!(quickest < SOON, "{quickest:?}");
    assert_eq!(whole(address, &token("alice", "other")).await, (StatusCode::OK, "whole".into()));
}

async fn whole(address: std::net::SocketAddr, token: &str) -> (StatusCode, String) {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let response = client.send_request(ask("/whole", token)).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_grpc_ends_with_unauthenticated() {
    if !redis_is_installed() {
        return;
    }
    let lab = lab().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (_reporter, health) = tonic_health::server::health_reporter();
    let stack =
        ServiceBuilder::new().layer(lab.layer.clone()).layer(lab.ending.clone()).into_inner();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(Server::builder().layer(stack).add_service(health).serve_with_incoming(incoming));
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut quickest = Duration::MAX;
    for n in 0..3 {
        let id = format!("t{n}");
        let bearer = format!("Bearer {}", token("alice", &id));
        let with_token = move |mut request: tonic::Request<()>| {
            request.metadata_mut().insert("authorization", bearer.parse().unwrap());
            Ok::<_, Status>(request)
        };
        let mut client = HealthClient::with_interceptor(channel.clone(), with_token);
        let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let (end, took) = lab.revoke_and_wait(&id, stream.message()).await;
        let status = end.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "the access token is not accepted")
        );
        quickest = quickest.min(took);
    }
    assert!(quickest < SOON, "{quickest:?}");
}

type Frames = std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A handler that answers with a body of these frames.
async fn body_of(
    lab: &Lab,
    token: &str,
    frames: impl Stream<Item = Bytes> + Send + 'static,
) -> std::pin::Pin<Box<EndingBody<StreamBody<Frames>>>> {
    let frames: Frames = Box::pin(frames.map(|data| Ok(Frame::data(data))));
    let mut frames = Some(StreamBody::new(frames));
    let handler = service_fn(move |request: Request<Empty<Bytes>>| {
        assert!(request.extensions().get::<Clearance>().is_some());
        std::future::ready(Ok::<_, Infallible>(Response::new(frames.take().unwrap())))
    });
    // Refusals would need an empty body, of which there is none here.
    let clearance = lab.layer.layer(service_fn(|mut request: Request<Empty<Bytes>>| {
        let clearance = request.extensions_mut().remove::<Clearance>();
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())).map(
            |mut response| {
                response.extensions_mut().insert(clearance.unwrap());
                response
            },
        ))
    }));
    let mut cleared = clearance.oneshot(ask("/", token)).await.unwrap();
    let mut request = ask("/", token);
    request.extensions_mut().insert(cleared.extensions_mut().remove::<Clearance>().unwrap());
    let mut service = lab.ending.layer(handler);
    Box::pin(service.ready().await.unwrap().call(request).await.unwrap().into_body())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_ends_when_the_token_expires_and_says_why() {
    if !redis_is_installed() {
        return;
    }
    let lab = lab().await;
    let mut short = claims("alice", "short");
    // It was issued five seconds ago, and passes for the leeway more.
    short["exp"] = (short["iat"].as_u64().unwrap() + 3).into();
    let mut body = body_of(&lab, &signed(&short), stream::pending()).await;
    let error = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap_err();
    let rejection = error.downcast_ref::<Rejection>().unwrap();
    assert_eq!(rejection.kind(), RejectionKind::InvalidToken(TokenErrorKind::Expired));
    assert_eq!(error.to_string(), "the token is expired");
    assert!(body.frame().await.is_none() && body.is_end_stream(), "and nothing comes after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_always_ready_ends_too() {
    if !redis_is_installed() {
        return;
    }
    let lab = lab().await;
    let mut body =
        body_of(&lab, &token("alice", "busy"), stream::repeat(Bytes::from_static(b"x"))).await;
    for _ in 0..10 {
        body.frame().await.unwrap().unwrap();
    }
    lab.revoker.revoke(Target::user("alice")).confirm(PATIENCE).await.unwrap();
    let start = Instant::now();
    let error = loop {
        assert!(start.elapsed() < PATIENCE, "it never ends");
        if let Err(error) = body.frame().await.unwrap() {
            break error;
        }
    };
    assert!(matches!(error.downcast_ref::<Rejection>().unwrap(), Rejection::Revoked(_)));
    let mut body =
        body_of(&lab, &token("bob", "short"), stream::iter([Bytes::from_static(b"all")])).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "all");
    assert!(body.frame().await.is_none(), "a short one ends by itself");
    drop(lab.mirror);
}
