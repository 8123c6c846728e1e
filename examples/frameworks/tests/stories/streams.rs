//! What was opened with a token ends with it, also when another process revokes it.

use std::time::{Duration, Instant};

use frameworks::{demo, grpc_stream, websocket};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::header::AUTHORIZATION;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_jwt_revocation::middleware::EndWithTokenLayer;
use tower_jwt_revocation::{JwtRevocationLayer, Mirror, RedisStore, Revoker, Target};

use crate::Server;
use crate::support::{self, RedisServer};

/// Longer than anything here takes, on the slowest machine.
const LONG: Duration = Duration::from_secs(30);

/// A layer on a mirror, and somebody else who revokes on the same Redis.
async fn mirrored(redis: &RedisServer) -> (JwtRevocationLayer, Revoker) {
    let mirror = Mirror::new(RedisStore::connect(redis.url()).await.unwrap()).unwrap();
    timeout(LONG, mirror.ready()).await.unwrap();
    let elsewhere = RedisStore::connect(redis.url()).await.unwrap();
    let revoker = Revoker::new(elsewhere, demo::profile()).unwrap();
    (demo::layer(mirror).unwrap(), revoker)
}

#[tokio::test]
async fn a_grpc_stream_ends_when_its_token_is_revoked() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (layer, elsewhere) = mirrored(&redis).await;
    let ending = EndWithTokenLayer::new(&layer);
    let server = Server::start(|listener| grpc_stream::serve(listener, layer, ending)).await;
    let channel = Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let mut watch = async |subject: &str| {
        let mut request = Request::new(HealthCheckRequest::default());
        let token = format!("Bearer {}", demo::token(subject).unwrap());
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        client.watch(request).await.map(tonic::Response::into_inner)
    };

    let (mut alice, mut bob) = (watch("alice").await.unwrap(), watch("bob").await.unwrap());
    for _ in 0..3 {
        assert!(alice.message().await.unwrap().is_some());
    }
    elsewhere.revoke(Target::user("alice")).await.unwrap();
    let end = timeout(LONG, async {
        loop {
            match alice.message().await {
                Ok(message) => assert!(message.is_some(), "it must not end as if all were well"),
                Err(status) => return status.code(),
            }
        }
    });
    assert_eq!(end.await.unwrap(), Code::Unauthenticated);
    for _ in 0..3 {
        assert!(bob.message().await.unwrap().is_some(), "bob is not alice");
    }
}

#[tokio::test]
async fn a_websocket_ends_when_its_token_is_revoked() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (layer, elsewhere) = mirrored(&redis).await;
    let server = Server::start(|listener| websocket::serve(listener, layer)).await;
    let alice = demo::token("alice").unwrap();
    let open = async |token: Option<&str>| {
        let url = format!("{}/echo", server.url.replace("http", "ws"));
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
    };
    let refused = |error: Error| matches!(error, Error::Http(answer) if answer.status() == 401);

    assert!(refused(open(None).await.unwrap_err()));
    let mut socket = open(Some(&alice)).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));

    elsewhere.revoke(Target::user("alice")).await.unwrap();
    let Message::Close(Some(close)) = timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap()
    else {
        panic!("not closed")
    };
    assert_eq!(u16::from(close.code), websocket::UNAUTHORIZED);
    assert!(refused(open(Some(&alice)).await.unwrap_err()));
}

#[tokio::test]
async fn nothing_goes_on_for_long_while_nobody_can_tell() {
    support::redis_or_skip!();
    let redis = RedisServer::start();
    let (layer, _) = mirrored(&redis).await;
    let ending = EndWithTokenLayer::new(&layer).with_max_blind(Duration::from_secs(2));
    let server = Server::start(|listener| grpc_stream::serve(listener, layer, ending)).await;
    let channel = Channel::from_shared(server.url.clone()).unwrap().connect().await.unwrap();
    let mut request = Request::new(HealthCheckRequest::default());
    let token = format!("Bearer {}", demo::token("alice").unwrap());
    request.metadata_mut().insert("authorization", token.parse().unwrap());
    let mut watch = HealthClient::new(channel).watch(request).await.unwrap().into_inner();

    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert!(watch.message().await.unwrap().is_some(), "a mirror that is fresh is not blind");
    }
    redis.kill();
    let end = timeout(LONG, async {
        loop {
            match watch.message().await {
                Ok(message) => assert!(message.is_some(), "it must not end as if all were well"),
                Err(status) => return status.code(),
            }
        }
    });
    assert_eq!(end.await.unwrap(), Code::Unavailable);
}
