//! The layer where it is used: in axum, under hyper, between other layers.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::TimeoutLayer;
use tower::{Layer as _, Service as _, ServiceBuilder, ServiceExt as _, service_fn};
use tower_http::cors::CorsLayer;
use tower_http::trace::TraceLayer;
use tower_jwt_revocation::middleware::ProblemJson;
use tower_jwt_revocation::{JwtRevocationLayer, Rejection};

use crate::support::{WordVerifier, late_store, layer, token};

fn get_with(path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

async fn status(router: &Router, path: &str, token: Option<&str>) -> StatusCode {
    router.clone().oneshot(get_with(path, token)).await.unwrap().status()
}

fn late_layer() -> JwtRevocationLayer {
    JwtRevocationLayer::new(WordVerifier::default(), late_store())
}

#[tokio::test]
async fn around_a_router() {
    for layer in [layer(), late_layer()] {
        let router = Router::new().route("/", get(|| async { "hello" })).layer(layer);
        let alice = token("alice", "1");
        assert_eq!(status(&router, "/", Some(&alice)).await, StatusCode::OK);
        assert_eq!(status(&router, "/", None).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&router, "/nowhere", None).await, StatusCode::UNAUTHORIZED);
        assert_eq!(status(&router, "/nowhere", Some(&alice)).await, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn around_routes_only() {
    let router = Router::new()
        .route("/private", get(|| async { "hello" }))
        .route_layer(layer().with_response(ProblemJson))
        .route("/public", get(|| async { "hello" }));
    let answer = router.clone().oneshot(get_with("/private", None)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(status(&router, "/private", Some(&token("alice", "1"))).await, StatusCode::OK);
    assert_eq!(status(&router, "/public", None).await, StatusCode::OK);
    assert_eq!(status(&router, "/nowhere", None).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn between_other_layers() {
    for jwt in [layer(), late_layer()] {
        let stack = ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(TimeoutLayer::new(Duration::from_secs(5)))
            .layer(ConcurrencyLimitLayer::new(1))
            .layer(jwt)
            .layer(ConcurrencyLimitLayer::new(1))
            .service(service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
            }));
        let mut stack = stack;
        // More requests than either limit has permits: none may be lost on any path.
        for _ in 0..3 {
            let mut request = Request::new(Full::default());
            let answer = stack.ready().await.unwrap().call(request.clone()).await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            let value = format!("Bearer {}", token("alice", "1")).parse().unwrap();
            request.headers_mut().insert("authorization", value);
            let answer = stack.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_cors_layer_outside_needs_no_hole() {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(layer())
        .layer(CorsLayer::new().allow_origin(["https://app.example".parse().unwrap()]));
    let preflight = Request::options("/")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "GET")
        .body(Body::empty())
        .unwrap();
    assert_eq!(router.clone().oneshot(preflight).await.unwrap().status(), StatusCode::OK);
    let request =
        Request::get("/").header("origin", "https://app.example").body(Body::empty()).unwrap();
    let refused = router.oneshot(request).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://app.example");
}

#[tokio::test]
async fn outer_layers_see_why_a_request_was_refused() {
    let service = ServiceBuilder::new()
        .map_response(|response: Response<Body>| {
            response.extensions().get::<Rejection>().map(Rejection::kind)
        })
        .layer(layer())
        .service(Router::new());
    assert!(service.oneshot(get_with("/", None)).await.unwrap().is_some());
}

#[tokio::test]
async fn under_hyper() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = service_fn(|_: Request<hyper::body::Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    });
    let service = TowerToHyperService::new(layer().layer(inner));
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
    });

    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut ask = async |token: Option<String>| {
        let mut request = Request::builder().uri("/").header("host", "localhost");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        client.ready().await.unwrap();
        let answer =
            client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    };
    let (head, body) = ask(None).await;
    assert_eq!((head.status, body.len()), (StatusCode::UNAUTHORIZED, 0));
    assert_eq!(head.headers["www-authenticate"], r#"Bearer realm="api""#);
    assert_eq!(head.headers["content-length"], "0");
    let (head, body) = ask(Some(token("alice", "1"))).await;
    assert_eq!((head.status, &*body), (StatusCode::OK, &b"hello"[..]));
    drop(client);
    connection.await.unwrap().unwrap();
    server.await.unwrap().unwrap();
}
