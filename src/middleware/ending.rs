//! [`EndWithTokenLayer`]: responses that go on for long end with the token.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::response::{GRPC_MESSAGE, GRPC_STATUS, UNAUTHENTICATED};
use crate::mirror::{EndReason, Mirror};
use crate::policy::Clearance;
use crate::verified::VerifiedToken;

/// For the client, whatever the reason: "revoked" would be more than a refusal says.
const MESSAGE: &str = "the token is not accepted any more";

/// Ends responses that go on for long — server-sent events, streams of gRPC, downloads — as soon as
/// the [`Mirror`] learns that the token of the request was revoked, or when the token expires:
/// usually within milliseconds, also while nothing is being sent.
///
/// A check at the beginning of a request says nothing of what happens an hour later. Put this layer
/// *inside* the [`JwtRevocationLayer`](super::JwtRevocationLayer), whose [`Clearance`] says which
/// token it is; a request without one goes through as it is. The response body becomes an
/// [`EndingBody`].
///
/// | response | how it ends |
/// | --- | --- |
/// | gRPC | trailers: `UNAUTHENTICATED` |
/// | `text/event-stream` | with the end of the stream; a client that connects again is refused |
/// | any other | with an [`EndReason`] as error, so that no client takes half of a document for a whole one |
///
/// A response that is complete in one piece costs nothing; one that goes on costs an entry in a
/// table. A WebSocket has no response body: wait for [`Mirror::revoked`] beside the messages, as
/// `examples/frameworks` does.
///
/// A mirror that is not fresh receives no revocations. What was revoked meanwhile ends the response
/// as soon as the mirror is fresh again.
///
/// ```
/// # use tower_jwt_revocation::middleware::EndWithTokenLayer;
/// # use tower_jwt_revocation::{JwtRevocationLayer, JwtVerifier, Mirror};
/// # fn f<S: Clone>(verifier: JwtVerifier, mirror: Mirror, handler: S) {
/// use tower::ServiceBuilder;
///
/// let service = ServiceBuilder::new()
///     .layer(JwtRevocationLayer::new(verifier, mirror.clone()))
///     .layer(EndWithTokenLayer::new(mirror))
///     .service(handler);
/// # }
/// ```
#[doc(alias = "SSE")]
#[doc(alias = "server-sent events")]
#[doc(alias = "WebSocket")]
#[doc(alias = "streaming")]
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct EndWithTokenLayer {
    mirror: Mirror,
}

/// The service of [`EndWithTokenLayer`].
#[derive(Clone, Debug)]
#[expect(unnameable_types, reason = "it is `<EndWithTokenLayer as Layer<S>>::Service`")]
pub struct EndWithToken<S> {
    inner: S,
    mirror: Mirror,
}

pin_project! {
    /// The future of [`EndWithToken`].
    #[derive(Debug)]
    pub struct EndWithTokenFuture<F> {
        #[pin]
        inner: F,
        watch: Option<Watch>,
    }
}

pin_project! {
    /// A response body that ends with the token of the request.
    pub struct EndingBody<B> {
        // Dropped at the end, so that its producer notices.
        #[pin]
        inner: Option<B>,
        kind: StreamKind,
        watch: Option<Watch>,
        ended: Option<BoxFuture<'static, EndReason>>,
        // Whether the inner body was asked before.
        has_begun: bool,
    }
}

/// What to watch.
#[derive(Clone, Debug)]
struct Watch {
    mirror: Mirror,
    token: Arc<VerifiedToken>,
}

/// What kind of stream a body is, which decides how it ends early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamKind {
    /// Ends with an error.
    #[default]
    Other,
    /// Ends without an error.
    EventStream,
    /// Ends with trailers.
    Grpc,
}

// === impl EndWithTokenLayer ===

impl EndWithTokenLayer {
    /// Responses end with their tokens, as far as `mirror` learns of it.
    pub fn new(mirror: Mirror) -> Self {
        Self { mirror }
    }
}

impl<S> Layer<S> for EndWithTokenLayer {
    type Service = EndWithToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EndWithToken { inner, mirror: self.mirror.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for EndWithToken<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<EndingBody<R>>;
    type Error = S::Error;
    type Future = EndWithTokenFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let clearance = request.extensions().get::<Clearance>();
        let watch = clearance.map(|clearance| Watch {
            mirror: self.mirror.clone(),
            token: Arc::clone(clearance.token()),
        });
        EndWithTokenFuture { inner: self.inner.call(request), watch }
    }
}

impl<F, R, E> Future for EndWithTokenFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<EndingBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let kind = StreamKind::of(response.headers());
        let watch = this.watch.take();
        Poll::Ready(Ok(response.map(|inner| EndingBody { kind, watch, ..EndingBody::new(inner) })))
    }
}

// === impl EndingBody ===

impl<B> EndingBody<B> {
    /// A body that ends when it ends.
    fn new(inner: B) -> Self {
        Self {
            inner: Some(inner),
            kind: StreamKind::default(),
            watch: None,
            ended: None,
            has_begun: false,
        }
    }
}

/// For the refusals of the layer around it.
impl<B: Default> Default for EndingBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

/// For the refusals of the layer around it.
impl<B: From<bytes::Bytes>> From<bytes::Bytes> for EndingBody<B> {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::new(B::from(bytes))
    }
}

impl<B> Body for EndingBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        // Nothing is watched before the first frame, or the first pause: most bodies are over by
        // then.
        let mut end = if *this.has_begun { end(this.watch, this.ended, cx) } else { None };
        if end.is_none() {
            let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
            let frame = inner.poll_frame(cx);
            let is_first_pause = frame.is_pending() && !*this.has_begun;
            *this.has_begun = true;
            if is_first_pause {
                end = self::end(this.watch, this.ended, cx);
            }
            if end.is_none() {
                return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
            }
        }
        this.inner.set(None);
        (*this.watch, *this.ended) = (None, None);
        Poll::Ready(end.and_then(|end| this.kind.end(end)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Why the token is over, if it is; if not, the task is woken when it is.
fn end(
    watch: &mut Option<Watch>,
    ended: &mut Option<BoxFuture<'static, EndReason>>,
    cx: &mut Context<'_>,
) -> Option<EndReason> {
    let watch = watch.as_ref()?;
    let future = ended.get_or_insert_with(|| Box::pin(watch.mirror.revoked(&watch.token)));
    match future.as_mut().poll(cx) {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    }
}

impl StreamKind {
    fn of(headers: &HeaderMap) -> Self {
        let content_type =
            headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let is = |wanted: &[u8]| {
            content_type.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted))
        };
        if is(b"application/grpc") {
            Self::Grpc
        } else if is(b"text/event-stream") {
            Self::EventStream
        } else {
            Self::Other
        }
    }

    /// The last frame of such a body.
    fn end<D>(self, ended: EndReason) -> Option<Result<Frame<D>, Box<dyn Error + Send + Sync>>> {
        match self {
            Self::Other => Some(Err(Box::new(ended))),
            Self::EventStream => None,
            Self::Grpc => {
                let mut trailers = HeaderMap::with_capacity(2);
                trailers.insert(GRPC_STATUS, HeaderValue::from_static(UNAUTHENTICATED));
                trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(MESSAGE));
                Some(Ok(Frame::trailers(trailers)))
            }
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for EndingBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndingBody")
            .field("inner", &self.inner)
            .field("kind", &self.kind)
            .field("is_watched", &self.watch.is_some())
            .finish_non_exhaustive()
    }
}
