//! [`JwtRevocation`]: the service. It decides in `call`, at once where it can.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::Service;

use super::future::ResponseFuture;
use super::response::RejectionResponse;
use super::state::{ServiceState, forget_older_decisions};
use crate::gate::Evaluation;
use crate::token::bearer::RequestHead;

/// Refuses requests whose token is missing, invalid or revoked, and passes the others on. Made by
/// [`JwtRevocationLayer`](crate::JwtRevocationLayer).
///
/// - It is ready when the inner service is, so back-pressure passes through. The check takes no
///   part in readiness; it has a time limit of its own. Errors are those of the inner service: a
///   refusal is a response.
/// - The body of a refused request is not read.
/// - When the store knows at once, `call` decides and calls the inner service: no box, no clone, no
///   allocation but for the [`Clearance`](crate::Clearance) in the extensions (see
///   [`without_clearance`](crate::JwtRevocationLayer::without_clearance)). When the store has to
///   ask, the instance that was polled ready waits with the request, and a clone takes its place.
#[must_use = "a service does nothing unless it is called"]
pub struct JwtRevocation<S, A = ()> {
    inner: S,
    state: Arc<ServiceState<A>>,
}

impl<S, A> JwtRevocation<S, A> {
    pub(super) fn new(inner: S, state: Arc<ServiceState<A>>) -> Self {
        Self { inner, state }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without this one.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, A, B, R> Service<Request<B>> for JwtRevocation<S, A>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    A: RejectionResponse<R>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, R, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        forget_older_decisions(request.extensions_mut());
        match self.state.gate.evaluate(&RequestHead::from(&request)) {
            Evaluation::Decided(decision) => {
                match self.state.mark(decision, request.extensions_mut()) {
                    Ok(()) => ResponseFuture::forward(self.inner.call(request), &self.state),
                    Err(rejection) => {
                        ResponseFuture::refused(self.state.refusals.refuse(rejection, request))
                    }
                }
            }
            Evaluation::Pending(check) => {
                // Readiness belongs to the instance that was polled, so that one is kept for the
                // request. See
                // <https://docs.rs/tower/latest/tower/trait.Service.html#be-careful-when-cloning-inner-services>.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                ResponseFuture::checking(check, ready, request, Arc::clone(&self.state))
            }
        }
    }
}

impl<S: Clone, A> Clone for JwtRevocation<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), state: Arc::clone(&self.state) }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for JwtRevocation<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtRevocation")
            .field("inner", &self.inner)
            .field("gate", &self.state.gate)
            .finish_non_exhaustive()
    }
}
