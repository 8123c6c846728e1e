//! [`ResponseFuture`]: what is left to wait for once a request has been called.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use super::response::RejectionResponse;
use super::state::ServiceState;
use crate::gate::PendingCheck;
use crate::token::bearer::RequestHead;

pin_project! {
    /// The future of [`JwtRevocation`](super::JwtRevocation). It is in one of three states, and
    /// holds only what that state needs:
    ///
    /// - *forward*: the request passed. Holds the future of the inner service.
    /// - *refused*: the request did not pass. Holds the finished response; the request was dropped,
    ///   its body unread.
    /// - *checking*: the store was asked. Holds its pending answer, the request, and the inner
    ///   service that was polled ready for it. Goes on to one of the other two.
    ///
    /// Dropping it cancels the inner call or the check. This crate leaves nothing running.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, R, A>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R, A>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R, A>
    where
        S: Service<Request<B>>,
    {
        // With the state, if the extractors leave the form of their refusals to it.
        Forward { #[pin] future: S::Future, form: Option<Arc<ServiceState<A>>> },
        Refused { response: Option<Response<R>> },
        Checking {
            check: PendingCheck,
            parked: Option<(S, Request<B>)>,
            state: Arc<ServiceState<A>>,
        },
    }
}

impl<S, B, R, A> ResponseFuture<S, B, R, A>
where
    S: Service<Request<B>>,
{
    pub(super) fn forward(future: S::Future, state: &Arc<ServiceState<A>>) -> Self {
        Self { state: State::Forward { future, form: form_of(state) } }
    }

    pub(super) fn refused(response: Response<R>) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    pub(super) fn checking(
        check: PendingCheck,
        ready: S,
        request: Request<B>,
        state: Arc<ServiceState<A>>,
    ) -> Self {
        Self { state: State::Checking { check, parked: Some((ready, request)), state } }
    }
}

impl<S, B, R, A> Future for ResponseFuture<S, B, R, A>
where
    S: Service<Request<B>, Response = Response<R>>,
    A: RejectionResponse<R>,
{
    type Output = Result<Response<R>, S::Error>;

    #[expect(
        clippy::expect_used,
        reason = "polling a future after it is done is a bug of the caller"
    )]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project().state;
        loop {
            let next = match this.as_mut().project() {
                StateProj::Forward { future, form } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(match form.take() {
                        None => response,
                        Some(state) => state.refusals.reformed(response),
                    }));
                }
                StateProj::Refused { response } => {
                    return Poll::Ready(Ok(response.take().expect("polled after it was done")));
                }
                // Checking -> Forward | Refused
                StateProj::Checking { check, parked, state } => {
                    let head = parked.as_ref().map(|(_, request)| RequestHead::from(request));
                    let decision = ready!(check.poll(&state.gate, head.as_ref(), cx));
                    let (mut service, mut request) =
                        parked.take().expect("left as soon as it is taken");
                    match state.mark(decision, request.extensions_mut()) {
                        Ok(()) => {
                            State::Forward { future: service.call(request), form: form_of(state) }
                        }
                        Err(rejection) => State::Refused {
                            response: Some(state.refusals.refuse(rejection, request)),
                        },
                    }
                }
            };
            this.set(next);
        }
    }
}

/// A request whose layer has no form of its own does not count a reference for it.
fn form_of<A>(state: &Arc<ServiceState<A>>) -> Option<Arc<ServiceState<A>>> {
    (cfg!(feature = "axum") && state.has_form).then(|| Arc::clone(state))
}

impl<S, B, R, A> fmt::Debug for ResponseFuture<S, B, R, A>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Forward { .. } => "Forward",
            State::Refused { .. } => "Refused",
            State::Checking { .. } => "Checking",
        };
        f.debug_tuple("ResponseFuture").field(&state).finish()
    }
}
