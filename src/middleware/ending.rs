//! [`EndWithTokenLayer`]: responses that go on for long end with the token.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::layer::JwtRevocationLayer;
use super::response::grpc_trailers;
use crate::gate::{Enforcement, Gate};
use crate::policy::{Clearance, Rejection};

/// Default of [`EndWithTokenLayer::with_max_blind`]: as long as an outage may last before a process
/// is not [ready](JwtRevocationLayer::readiness) any more.
pub(crate) const DEFAULT_MAX_BLIND: Duration = Duration::from_secs(10);

/// Ends long responses (server-sent events, gRPC streams, downloads) when a request with their
/// token would be refused. That is when the store learns that the token was revoked, or when the
/// token expires (`exp` and the leeway). It also ends responses that send nothing at the moment.
///
/// Put this layer *inside* the [`JwtRevocationLayer`], whose [`Clearance`] says which token it is.
/// A request without a clearance is not watched, so none is watched behind a layer
/// [`without_clearance`](JwtRevocationLayer::without_clearance). The response body becomes an
/// [`EndingBody`]. The signature is not checked again: a key that the provider withdraws ends no
/// response, and revoking [`Target::key`](crate::Target::key) does.
///
/// | response | how it ends |
/// | --- | --- |
/// | gRPC | trailers: `UNAUTHENTICATED`, or `UNAVAILABLE` if the store gives no answer |
/// | `text/event-stream` | with the end of the stream; a client that connects again is refused |
/// | any other | with the [`Rejection`] as error, so that no client takes half a document for a whole one |
///
/// A response that is complete in one piece costs nothing. A longer one costs an entry in a table
/// and a check from time to time: each quarter of [`with_max_blind`](Self::with_max_blind), at
/// least every five seconds. A [`Mirror`](crate::Mirror) and a [`MemoryStore`](crate::MemoryStore)
/// report a revocation within milliseconds and answer these checks from memory. A
/// [`RedisStore`](crate::RedisStore) alone learns of it by these checks: with thousands of open
/// responses, take a mirror.
///
/// A WebSocket has no response body: wait for [`ended`](Self::ended) beside the messages, as
/// `examples/frameworks` does.
///
/// ```
/// # use tower_jwt_revocation::middleware::EndWithTokenLayer;
/// # use tower_jwt_revocation::{JwtRevocationLayer, JwtVerifier, Mirror};
/// # fn f<S: Clone>(verifier: JwtVerifier, mirror: Mirror, handler: S) {
/// use tower::ServiceBuilder;
///
/// let layer = JwtRevocationLayer::new(verifier, mirror);
/// let ending = EndWithTokenLayer::new(&layer);
/// let service = ServiceBuilder::new().layer(layer).layer(ending).service(handler);
/// # }
/// ```
#[doc(alias = "SSE")]
#[doc(alias = "server-sent events")]
#[doc(alias = "WebSocket")]
#[doc(alias = "streaming")]
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is wrapped in it"]
pub struct EndWithTokenLayer {
    gate: Arc<Gate>,
    max_blind: Duration,
}

/// The service of [`EndWithTokenLayer`].
#[derive(Clone, Debug)]
#[expect(unnameable_types, reason = "it is `<EndWithTokenLayer as Layer<S>>::Service`")]
pub struct EndWithToken<S> {
    inner: S,
    layer: EndWithTokenLayer,
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
        ended: Option<BoxFuture<'static, Rejection>>,
        // Whether the inner body was asked before.
        has_begun: bool,
    }
}

/// What to watch.
#[derive(Clone, Debug)]
struct Watch {
    layer: EndWithTokenLayer,
    clearance: Clearance,
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
    /// Ends responses when `layer` would refuse their tokens: by its store, the leeway of its
    /// verifier, and the fail mode of each request. With a layer that only
    /// [reports](JwtRevocationLayer::with_report_only), nothing ends.
    ///
    /// Make it after all settings of `layer`: later settings do not reach it.
    pub fn new<A>(layer: &JwtRevocationLayer<A>) -> Self {
        Self { gate: Arc::new(layer.gate.clone()), max_blind: DEFAULT_MAX_BLIND }
    }

    /// For how long a response goes on while the store gives no answer: in an outage, while it
    /// settles, or when it has too many checks at once. Counted from the last answer. Default: 10
    /// s, long enough for a reconnect or a failover. With [`Duration::MAX`] responses go on until
    /// the store answers again.
    ///
    /// In fail mode [`Open`](crate::FailMode::Open) an outage ends no response, whatever the limit,
    /// because a new request would pass, too. In fail mode [`Closed`](crate::FailMode::Closed), a
    /// loss of data that has the token in lasting doubt ends it at once: waiting does not help.
    ///
    /// # Security
    /// A token that is revoked during an outage can be used for this long.
    pub fn with_max_blind(mut self, limit: Duration) -> Self {
        self.max_blind = limit;
        self
    }

    /// Completes when work that was begun with this clearance has to end: a WebSocket, a job, or
    /// anything else that is no response body. The value is the reason for which a new request
    /// would be refused. After [`Rejection::StandingUnknown`] the client may come back; after any
    /// other it would be refused.
    ///
    /// ```
    /// # use tower_jwt_revocation::{Clearance, Rejection};
    /// # use tower_jwt_revocation::middleware::EndWithTokenLayer;
    /// # async fn next_message() -> Option<String> { None }
    /// async fn talk(ending: EndWithTokenLayer, clearance: Clearance) -> Option<Rejection> {
    ///     let mut ended = std::pin::pin!(ending.ended(&clearance));
    ///     loop {
    ///         tokio::select! {
    ///             biased;
    ///             why = &mut ended => return Some(why),
    ///             message = next_message() => println!("{}", message?),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn ended(
        &self,
        clearance: &Clearance,
    ) -> impl Future<Output = Rejection> + Send + 'static + use<> {
        let (gate, clearance, max_blind) =
            (Arc::clone(&self.gate), clearance.clone(), self.max_blind);
        async move {
            if gate.enforcement == Enforcement::ReportOnly {
                std::future::pending::<()>().await;
            }
            gate.ended(clearance, max_blind).await
        }
    }
}

impl<S> Layer<S> for EndWithTokenLayer {
    type Service = EndWithToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        EndWithToken { inner, layer: self.clone() }
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
        let is_enforced = self.layer.gate.enforcement == Enforcement::Enforced;
        let watch = clearance
            .filter(|_| is_enforced)
            .map(|clearance| Watch { layer: self.layer.clone(), clearance: clearance.clone() });
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
    ended: &mut Option<BoxFuture<'static, Rejection>>,
    cx: &mut Context<'_>,
) -> Option<Rejection> {
    let watch = watch.as_ref()?;
    let future = ended.get_or_insert_with(|| Box::pin(watch.layer.ended(&watch.clearance)));
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
    fn end<D>(self, ended: Rejection) -> Option<Result<Frame<D>, Box<dyn Error + Send + Sync>>> {
        match self {
            Self::Other => Some(Err(Box::new(ended))),
            Self::EventStream => None,
            Self::Grpc => Some(Ok(Frame::trailers(grpc_trailers(ended.kind())))),
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
