//! [`JwtRevocation`]: the service. It decides in `call`, at once where it can.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Extensions, Request, Response};
use tower::Service;

use super::future::ResponseFuture;
use super::response::{Answers, RejectionResponse};
use crate::gate::{Gate, Judgement, Verdict};
use crate::policy::{Clearance, Rejection};
use crate::token::bearer::RequestHead;

/// Refuses requests whose token is missing, invalid or revoked, and passes the others on. Made by
/// [`JwtRevocationLayer`](crate::JwtRevocationLayer).
///
/// - It is ready when the inner service is, so back-pressure passes through; the check itself is
///   not asked for readiness, it has its own deadline. Errors are those of the inner service: a
///   refusal is a response.
/// - The body of a refused request is not read.
/// - When the store knows at once, the request is decided in `call` and the inner service called
///   there and then: no box, no clone, no allocation but for the [`Clearance`] in the extensions
///   (see [`without_clearance`](crate::JwtRevocationLayer::without_clearance)). When the store has
///   to ask, the instance that was polled ready waits with the request, and a clone takes its
///   place.
#[must_use = "a service does nothing unless it is called"]
pub struct JwtRevocation<S, A = super::EmptyBody> {
    inner: S,
    shared: Arc<Shared<A>>,
}

/// What all clones of a service share.
pub(super) struct Shared<A> {
    pub(super) gate: Gate,
    pub(super) answers: Answers<A>,
    /// Whether handlers want to know who calls.
    pub(super) leaves_clearance: bool,
}

impl<S, A> JwtRevocation<S, A> {
    pub(super) fn new(inner: S, shared: Arc<Shared<A>>) -> Self {
        Self { inner, shared }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
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
        forget_older_verdicts(request.extensions_mut());
        match self.shared.gate.judge(&RequestHead::from(&request)) {
            Judgement::Now(verdict) => match self.shared.mark(verdict, request.extensions_mut()) {
                Ok(()) => ResponseFuture::forward(self.inner.call(request)),
                Err(rejection) => {
                    ResponseFuture::refused(self.shared.answers.refuse(rejection, &request))
                }
            },
            Judgement::Later(check) => {
                // Readiness belongs to the instance that was polled, so that one is kept for the
                // request. See
                // <https://docs.rs/tower/latest/tower/trait.Service.html#be-careful-when-cloning-inner-services>.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                ResponseFuture::checking(check, ready, request, Arc::clone(&self.shared))
            }
        }
    }
}

/// Nothing that says that a request passed may come from elsewhere: on a route that lets requests
/// pass without a token the handler would take it for ours.
fn forget_older_verdicts(extensions: &mut Extensions) {
    extensions.remove::<Clearance>();
    extensions.remove::<Rejection>();
    #[cfg(feature = "axum")]
    super::extract::forget(extensions);
}

impl<A> Shared<A> {
    /// Leaves the verdict where handlers find it, or gives back the rejection.
    pub(super) fn mark(
        &self,
        verdict: Verdict,
        extensions: &mut Extensions,
    ) -> Result<(), Rejection> {
        match verdict {
            Verdict::Cleared(clearance) => {
                // That a request passes unchecked is never kept from its handler.
                if self.leaves_clearance || !clearance.is_checked() {
                    #[cfg(feature = "axum")]
                    super::extract::mark_cleared(extensions, &self.answers.form);
                    extensions.insert(clearance);
                }
            }
            Verdict::Reported(rejection) => {
                #[cfg(feature = "axum")]
                super::extract::mark_reported(extensions, &self.answers.form, &rejection);
                extensions.insert(rejection);
            }
            Verdict::Unasked(unasked) => {
                #[cfg(feature = "axum")]
                super::extract::mark_unasked(extensions, &self.answers.form, unasked);
                #[cfg(not(feature = "axum"))]
                let _ = unasked;
            }
            Verdict::Refused(rejection) => return Err(rejection),
        }
        Ok(())
    }
}

impl<S: Clone, A> Clone for JwtRevocation<S, A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, A> fmt::Debug for JwtRevocation<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtRevocation")
            .field("inner", &self.inner)
            .field("gate", &self.shared.gate)
            .finish_non_exhaustive()
    }
}
