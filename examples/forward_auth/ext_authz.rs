//! The same question as Envoy asks it over gRPC: `envoy.service.auth.v3.Authorization/Check`.
//!
//! The request that Envoy tells of is made again and put to the same service that answers over
//! HTTP, so both give one answer. A refusal is an answer too and never an error of gRPC, which
//! Envoy would let pass with `failure_mode_allow`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::routing::post;
use tonic::Status;
use tonic_prost::ProstCodec;
use tower::ServiceExt as _;

use crate::messages::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderEntry, HeaderValueOption, HttpRequest,
    HttpResponse, HttpStatus, OkHttpResponse, RpcStatus,
};

/// The name of the method, as a path (gRPC over HTTP/2).
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Overwrites the header of the client, or adds it.
const OVERWRITE_IF_EXISTS_OR_ADD: i32 = 2;

/// The gRPC service. `asked` answers requests as it does over HTTP.
pub(crate) fn router(asked: Router) -> Router {
    Router::new()
        .route(CHECK, post(check))
        .fallback(|| async {
            Status::unimplemented("only Check is served here").into_http::<Body>()
        })
        .with_state(asked)
}

async fn check(State(asked): State<Router>, request: Request) -> Response<Body> {
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<CheckResponse, CheckRequest>::default());
    let service = Check { asked };
    grpc.unary(service, request).await.map(Body::new)
}

struct Check {
    asked: Router,
}

impl tonic::server::UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future =
        futures::future::BoxFuture<'static, Result<tonic::Response<Self::Response>, Status>>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let asked = self.asked.clone();
        Box::pin(async move {
            let told = request.into_inner().attributes.and_then(|told| told.request);
            let told = told.and_then(|request| request.http);
            let Some(Ok(request)) = told.as_ref().map(rebuilt) else {
                let mut refusal = Response::new(());
                *refusal.status_mut() = StatusCode::BAD_REQUEST;
                return Ok(tonic::Response::new(answer(&refusal)));
            };
            // The service has no errors.
            let Ok(response) = asked.oneshot(request).await;
            Ok(tonic::Response::new(answer(&response)))
        })
    }
}

/// The head of the request that Envoy was sent.
fn rebuilt(told: &HttpRequest) -> Result<Request, http::Error> {
    let mut request = Request::builder().method(told.method.as_str()).uri(told.path.as_str());
    for (name, value) in &told.headers {
        // Pseudo-headers of HTTP/2 are among them.
        if !name.starts_with(':') {
            request = request.header(name, value);
        }
    }
    // Here they are with `encode_raw_headers`, each as it was sent.
    for HeaderEntry { key, value, raw_value } in told.header_map.iter().flat_map(|map| &map.headers)
    {
        if !key.starts_with(':') {
            let value = if raw_value.is_empty() { value.as_bytes() } else { raw_value.as_slice() };
            request = request.header(key, value);
        }
    }
    request.body(Body::empty())
}

fn answer<B>(response: &Response<B>) -> CheckResponse {
    let headers = response.headers();
    let (code, http_response) = if response.status().is_success() {
        let mut headers = options(headers);
        // That is for whoever asks, and not for the service.
        headers.retain(|option| !option.is_named(&header::CACHE_CONTROL));
        (tonic::Code::Ok, HttpResponse::Ok(OkHttpResponse { headers }))
    } else {
        let code = match response.status() {
            StatusCode::SERVICE_UNAVAILABLE => tonic::Code::Unavailable,
            _ => tonic::Code::Unauthenticated,
        };
        let status = Some(HttpStatus { code: response.status().as_u16().into() });
        let headers = options(headers);
        (code, HttpResponse::Denied(DeniedHttpResponse { status, headers, body: String::new() }))
    };
    CheckResponse {
        status: Some(RpcStatus { code: code.into(), message: String::new() }),
        http_response: Some(http_response),
    }
}

/// What the proxy writes into the request, or into the refusal.
fn options(headers: &HeaderMap) -> Vec<HeaderValueOption> {
    let is_told = |name: &HeaderName| *name != header::CONTENT_LENGTH && *name != header::DATE;
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let option = |(name, value): (&HeaderName, &HeaderValue)| HeaderValueOption {
        header: Some(HeaderEntry {
            key: name.as_str().to_owned(),
            value: text(value),
            raw_value: Vec::new(),
        }),
        append_action: OVERWRITE_IF_EXISTS_OR_ADD,
        keep_empty_value: true,
    };
    headers.iter().filter(|(name, _)| is_told(name)).map(option).collect()
}

impl HeaderValueOption {
    fn is_named(&self, name: &HeaderName) -> bool {
        self.header.as_ref().is_some_and(|header| header.key == name.as_str())
    }
}
