//! The gRPC service of the example `forward_auth`, as Envoy asks it: by a client of tonic.

use std::collections::HashMap;
use std::str::FromStr as _;

use http::uri::PathAndQuery;
use prost::Message as _;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::forward_auth::start;
use crate::messages::{
    AttributeContext, AttributeRequest, CheckRequest, CheckResponse, DeniedHttpResponse,
    HeaderEntries, HeaderEntry, HeaderValueOption, HttpRequest, HttpResponse, HttpStatus,
    RpcStatus,
};
use crate::server::*;
use crate::support::{RedisServer, redis_or_skip};

struct Envoy(tonic::client::Grpc<Channel>);

/// What the proxy does with an answer.
#[derive(Debug)]
struct Told {
    /// That of google.rpc.
    code: i32,
    /// Of the refusal; 200 if the request passes.
    status: i32,
    headers: HashMap<String, String>,
}

impl Envoy {
    async fn at(server: &Server) -> Self {
        let endpoint = Endpoint::from_shared(server.grpc.clone().unwrap()).unwrap();
        Self(tonic::client::Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn call(
        &mut self,
        method: &str,
        request: CheckRequest,
    ) -> Result<CheckResponse, tonic::Status> {
        self.0.ready().await.unwrap();
        let path = PathAndQuery::from_str(method).unwrap();
        let codec = ProstCodec::<CheckRequest, CheckResponse>::default();
        let answer = self.0.unary(tonic::Request::new(request), path, codec).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn check(&mut self, request: HttpRequest) -> Told {
        self.ask(of(Some(request))).await
    }

    async fn ask(&mut self, request: CheckRequest) -> Told {
        let answer = self.call(CHECK, request).await.unwrap();
        let (status, headers) = match answer.http_response.unwrap() {
            HttpResponse::Ok(ok) => (200, ok.headers),
            HttpResponse::Denied(denied) => (denied.status.unwrap().code, denied.headers),
        };
        let header = |option: HeaderValueOption| {
            assert_eq!(option.append_action, 2, "it replaces what the client has sent");
            let entry = option.header.unwrap();
            (entry.key, entry.value)
        };
        let headers = headers.into_iter().map(header).collect();
        Told { code: answer.status.unwrap().code, status, headers }
    }
}

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

fn of(http: Option<HttpRequest>) -> CheckRequest {
    let request = http.map(|http| AttributeRequest { http: Some(http) });
    CheckRequest { attributes: Some(AttributeContext { request }) }
}

fn with(headers: &[(&str, &str)]) -> HttpRequest {
    let pseudo = [(":method", "POST"), (":path", "/orders?id=1"), (":authority", "orders.test")];
    let headers = pseudo.iter().chain(headers);
    HttpRequest {
        method: "POST".into(),
        path: "/orders?id=1".into(),
        headers: headers.map(|&(name, value)| (name.into(), value.into())).collect(),
        header_map: None,
    }
}

fn bearing(token: &str) -> HttpRequest {
    with(&[("authorization", &format!("Bearer {token}"))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_is_answered_over_grpc_as_others_are_over_http() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let admin = Server::on(&redis, &[]);
    let asked = start(&redis, &[("AUTH_GRPC", "127.0.0.1:0")]);
    let mut envoy = Envoy::at(&asked).await;

    let token = foreign(&claims("al/ice é", "t-1"));
    let mut request = bearing(&token);
    // What the client says of itself is replaced, and a refusal is a status whatever it speaks.
    request.headers.insert("x-auth-subject".into(), "root".into());
    request.headers.insert("content-type".into(), "application/grpc".into());
    let told = envoy.check(request).await;
    assert_eq!((told.code, told.status), (0, 200), "{told:?}");
    assert_eq!(told.headers["x-auth-subject"], "al%2Fice%20%C3%A9");
    assert_eq!(told.headers["x-auth-token-id"], "t-1");
    assert_eq!(told.headers["x-auth-checked"], "true");
    assert_eq!(told.headers.len(), 3, "{told:?}");
    // The same with `encode_raw_headers`.
    let entry = HeaderEntry {
        key: "authorization".into(),
        value: String::new(),
        raw_value: format!("Bearer {token}").into_bytes(),
    };
    let raw = |entries: &[&HeaderEntry]| HttpRequest {
        header_map: Some(HeaderEntries { headers: entries.iter().copied().cloned().collect() }),
        ..with(&[])
    };
    assert_eq!(envoy.check(raw(&[&entry])).await.status, 200);
    let other = HeaderEntry { raw_value: b"Bearer other".to_vec(), ..entry.clone() };
    assert!([400, 401].contains(&envoy.check(raw(&[&entry, &other])).await.status));

    let told = envoy.check(with(&[("content-type", "application/grpc")])).await;
    assert_eq!((told.code, told.status), (16, 401), "{told:?}");
    assert_eq!(told.headers["www-authenticate"], "Bearer realm=\"auth\"");
    assert_eq!(told.headers["cache-control"], "no-store");
    let invalid = |told: &Told| {
        assert_eq!((told.code, told.status), (16, 401), "{told:?}");
        assert!(told.headers["www-authenticate"].contains("invalid_token"), "{told:?}");
        assert!(!told.headers.contains_key("x-auth-subject"), "{told:?}");
    };
    invalid(&envoy.check(bearing("nonsense")).await);
    // Joined as Envoy joins two fields of one name.
    let told = envoy.check(bearing(&format!("{token},Bearer {token}"))).await;
    assert!([400, 401].contains(&told.status), "{told:?}");

    admin.admin("revoke", json!({ "jti": "t-1" })).await.is(204);
    invalid(&envoy.check(bearing(&token)).await);
    redis.kill();
    let told = envoy.check(bearing(&foreign(&claims("alice", "t-2")))).await;
    assert_eq!((told.code, told.status), (14, 503), "{told:?}");
    assert!(told.headers.contains_key("retry-after"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_question_of_envoy_lets_nothing_in() {
    redis_or_skip!();
    let redis = RedisServer::start();
    let asked = start(&redis, &[("AUTH_GRPC", "127.0.0.1:0")]);
    let mut envoy = Envoy::at(&asked).await;
    // An error would let the request pass with `failure_mode_allow`.
    let without_request = AttributeContext { request: Some(AttributeRequest { http: None }) };
    for attributes in [None, Some(AttributeContext { request: None }), Some(without_request)] {
        let told = envoy.ask(CheckRequest { attributes }).await;
        assert_eq!((told.code, told.status), (16, 400), "{told:?}");
    }
    let error = envoy.call("/envoy.service.auth.v3.Authorization/Other", of(None)).await;
    assert_eq!(error.unwrap_err().code(), tonic::Code::Unimplemented);
    let token = foreign(&claims("alice", "t-1"));
    for (method, path) in [("", "/"), ("GET", "no path"), ("G T", "/"), ("GET", "")] {
        let request = HttpRequest { method: method.into(), path: path.into(), ..bearing(&token) };
        let told = envoy.check(request).await;
        assert!([200, 400].contains(&told.status), "{method} {path}: {told:?}");
    }
    let mut request = bearing(&token);
    request.headers.insert("x\r\ny".into(), "z".into());
    assert_eq!(envoy.check(request).await.status, 400);
    // It goes on.
    assert_eq!(envoy.check(bearing(&token)).await.status, 200);
}

/// Both sides of the other tests have the messages out of one file. These bytes were put together
/// by hand, by the numbers in Envoy's documents.
#[test]
fn the_messages_have_the_numbers_of_envoy() {
    let field = |number: u8, body: &[u8]| {
        [&[number << 3 | 2, u8::try_from(body.len()).unwrap()], body].concat()
    };
    let pair = [field(1, b"authorization"), field(2, b"Bearer t")].concat();
    let http = [field(1, b"id"), field(2, b"GET"), field(3, &pair), field(4, b"/p")].concat();
    let request = field(2, &http);
    let bytes = field(1, &field(4, &request));
    let read = CheckRequest::decode(&*bytes).unwrap();
    let read = read.attributes.unwrap().request.unwrap().http.unwrap();
    assert_eq!((&*read.method, &*read.path), ("GET", "/p"));
    assert_eq!(read.headers["authorization"], "Bearer t");

    let option = HeaderValueOption {
        header: Some(HeaderEntry { key: "k".into(), value: "v".into(), raw_value: Vec::new() }),
        append_action: 2,
        keep_empty_value: true,
    };
    let told = CheckResponse {
        status: Some(RpcStatus { code: 16, message: String::new() }),
        http_response: Some(HttpResponse::Denied(DeniedHttpResponse {
            status: Some(HttpStatus { code: 401 }),
            headers: vec![option],
            body: String::new(),
        })),
    };
    let header = [field(1, b"k"), field(2, b"v")].concat();
    let option = [field(1, &header), vec![3 << 3, 2, 4 << 3, 1]].concat();
    // 401 takes two bytes, seven bits in each.
    let denied = [field(1, &[1 << 3, 0x91, 3]), field(2, &option)].concat();
    let bytes = [field(1, &[1 << 3, 16]), field(2, &denied)].concat();
    assert_eq!(told.encode_to_vec(), bytes);
}
