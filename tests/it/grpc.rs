//! A real gRPC client over loopback sees real gRPC statuses.

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::{JwtRevocationLayer, Target};

use crate::support::{layer, layer_that_fails, layer_without_store, token};

struct Running {
    address: String,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

async fn serve(layer: JwtRevocationLayer) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (_, health) = tonic_health::server::health_reporter();
    let (stop, stopped) = oneshot::channel::<()>();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().layer(layer).add_service(health);
    let server = tokio::spawn(server.serve_with_incoming_shutdown(incoming, async {
        let _ = stopped.await;
    }));
    Running { address, stop, server }
}

impl Running {
    async fn check(&self, token: Option<String>) -> Result<(), Status> {
        let channel = Channel::from_shared(self.address.clone()).unwrap().connect().await.unwrap();
        let with_token = move |mut request: Request<()>| {
            if let Some(token) = &token {
                request
                    .metadata_mut()
                    .insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            Ok(request)
        };
        let mut client = HealthClient::new(InterceptedService::new(channel, with_token));
        client.check(HealthCheckRequest::default()).await.map(|_| ())
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_client_sees_unauthenticated() {
    let layer = layer();
    let revoker = layer.revoker();
    let server = serve(layer).await;
    let alice = token("alice", "1");
    server.check(Some(alice.clone())).await.unwrap();

    let status = server.check(None).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "an access token is required")
    );
    let status = server.check(Some("junk".into())).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the access token is not accepted")
    );
    revoker.revoke(Target::user("alice")).await.unwrap();
    let status = server.check(Some(alice)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the access token is not accepted")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_client_sees_unavailable_while_the_store_is_down() {
    let server = serve(layer_without_store()).await;
    let status = server.check(Some(token("alice", "1"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    server.stop().await;
}

#[tokio::test]
async fn a_client_is_told_whether_to_wait_or_to_sign_in_again() {
    let server = serve(layer_that_fails(StoreErrorKind::Settling)).await;
    let status = server.check(Some(token("alice", "1"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert!((1000..=3000).contains(&pushback.parse::<u32>().unwrap()), "{pushback}");
    server.stop().await;

    let server = serve(layer_that_fails(StoreErrorKind::DataLoss)).await;
    let status = server.check(Some(token("alice", "1"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().ends_with("Sign in again"), "{status}");
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_none());
    server.stop().await;
}

/// A refusal is one frame of headers that ends the stream: no empty data frame after it.
#[tokio::test]
async fn a_refusal_is_trailers_only() {
    use http_body::Body as _;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    let inner = service_fn(|_: http::Request<tonic::body::Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(tonic::body::Body::empty()))
    });
    let request = http::Request::builder()
        .uri("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = layer().layer(inner).oneshot(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "16");
    assert!(response.body().is_end_stream());
}

/// tonic looks neither at the method nor at the content type: a call dressed up as a CORS preflight
/// must not get past the layer without a token.
#[tokio::test]
async fn a_call_that_looks_like_a_preflight_is_refused() {
    use tower::{Layer as _, ServiceExt as _};

    let (_, health) = tonic_health::server::health_reporter();
    let layer = layer();
    let service = layer.layer(tonic::service::Routes::new(health).prepare());
    let empty_message = http_body_util::Full::<bytes::Bytes>::from(&[0; 5][..]);
    let request = http::Request::options("/grpc.health.v1.Health/Check")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .body(tonic::body::Body::new(empty_message))
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::UNAUTHORIZED, "{response:?}");
    assert_eq!(layer.counters().snapshot().preflights, 0);
}
