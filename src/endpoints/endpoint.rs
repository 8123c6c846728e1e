//! [`Endpoint`]: the service that all of them are.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use super::answer::{Answer, ErrorFormat};
use super::request::{BodyError, is_of_type, read_body};

/// An HTTP endpoint of one standard: a [`tower::Service`] over requests with any body. Cheap to
/// clone.
///
/// | request | answer |
/// | --- | --- |
/// | another method | 405 |
/// | another content type, a parameter that occurs twice, a body that cannot be read | 400 |
/// | a body of more than 64 KiB | 413 |
/// | the store does not confirm, or the keys of a provider are out of reach | 503 and `Retry-After` |
#[derive(Clone)]
pub struct Endpoint {
    kind: Arc<EndpointKind>,
}

enum EndpointKind {
    Document(Bytes),
    Post {
        media_type: &'static str,
        format: ErrorFormat,
        admits: Box<Admits>,
        answers: Box<Answers>,
    },
}

/// Refuses a request by its head.
type Admits = dyn Fn(&Parts) -> Result<(), Answer> + Send + Sync;

type Answers = dyn Fn(Parts, Vec<u8>) -> BoxFuture<'static, Answer> + Send + Sync;

impl Endpoint {
    pub(super) fn of_document(json: Bytes) -> Self {
        Self { kind: Arc::new(EndpointKind::Document(json)) }
    }

    /// For `POST` with a body of this type.
    pub(super) fn post(
        media_type: &'static str,
        format: ErrorFormat,
        answers: impl Fn(Parts, Vec<u8>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::guarded_post(media_type, format, |_| Ok(()), answers)
    }

    /// The same, for those whom `admits` lets in.
    pub(super) fn guarded_post(
        media_type: &'static str,
        format: ErrorFormat,
        admits: impl Fn(&Parts) -> Result<(), Answer> + Send + Sync + 'static,
        answers: impl Fn(Parts, Vec<u8>) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Self {
        let (admits, answers) = (Box::new(admits), Box::new(answers));
        Self { kind: Arc::new(EndpointKind::Post { media_type, format, admits, answers }) }
    }

    /// For `POST` of JSON that is answered with JSON: the other side, for tests.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn answering_json(
        answers: impl Fn(Vec<u8>) -> BoxFuture<'static, (StatusCode, serde_json::Value)>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::post("application/json", ErrorFormat::SecurityEvent, move |_, body| {
            answers(body).map(|(status, body)| Answer::json(status, &body)).boxed()
        })
    }

    async fn answer<B: Body>(self, head: Parts, body: B) -> Answer {
        let EndpointKind::Post { media_type, format, admits, answers } = &*self.kind else {
            return self.read(&head.method);
        };
        if head.method != Method::POST {
            return not_allowed("POST");
        }
        let refusal = admits(&head).err().or_else(|| {
            let is_of_type = is_of_type(&head.headers, media_type);
            let problem = || format!("the content type is not {media_type}");
            (!is_of_type).then(|| format.invalid_request(&problem()))
        });
        // Also if it is of no use: a client that is still sending may not see the answer.
        let body = read_body(body).await;
        if let Some(refusal) = refusal {
            return refusal;
        }
        match body {
            Ok(body) => answers(head, body).await,
            // What is left of the body is not waited for, so the connection is of no more use.
            Err(BodyError::TooLarge) => Answer::empty(StatusCode::PAYLOAD_TOO_LARGE)
                .with(header::CONNECTION, HeaderValue::from_static("close")),
            Err(BodyError::Incomplete) => format.invalid_request("the body is incomplete"),
        }
    }

    fn read(&self, method: &Method) -> Answer {
        match &*self.kind {
            EndpointKind::Document(json) if matches!(*method, Method::GET | Method::HEAD) => {
                let json_type = HeaderValue::from_static("application/json");
                let mut answer =
                    Answer::empty(StatusCode::OK).with(header::CONTENT_TYPE, json_type);
                if *method == Method::GET {
                    answer.body = json.clone();
                }
                answer
            }
            _ => not_allowed("GET, HEAD"),
        }
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    Answer::empty(StatusCode::METHOD_NOT_ALLOWED)
        .with(header::ALLOW, HeaderValue::from_static(allowed))
}

impl<B> Service<Request<B>> for Endpoint
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<EndpointBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        if let EndpointKind::Document(_) = &*self.kind {
            return ready(Ok(response(self.read(&head.method)))).boxed();
        }
        let endpoint = self.clone();
        async move { Ok(response(endpoint.answer(head, body).await)) }.boxed()
    }
}

fn response(answer: Answer) -> Response<EndpointBody> {
    let body = Some(answer.body).filter(|body| !body.is_empty());
    let mut response = Response::new(EndpointBody(body));
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

/// The body of an answer of an [`Endpoint`]: one piece, or none.
#[derive(Debug, Default)]
pub struct EndpointBody(Option<Bytes>);

impl Body for EndpointBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
