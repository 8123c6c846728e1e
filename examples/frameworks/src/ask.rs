//! The layer as a question about the head of a request: for frameworks that are not made of Tower
//! services.
//!
//! All that the layer wants to see of a request is its head. So it is put around a service that
//! does nothing but hand the head back: what comes back has passed, and carries the [`Clearance`];
//! what does not was refused, and the answer to it is there, with status and challenge. No body is
//! touched, nothing has to be `Send` but the head, and everything that the layer can do (fail
//! modes, counters, cookies, exemptions) works as it does elsewhere.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer as _, Service, ServiceExt as _};
use tower_jwt_revocation::middleware::JwtRevocation;
use tower_jwt_revocation::{Clearance, JwtRevocationLayer};

/// Asks the layer. To clone it costs two reference counts.
#[derive(Clone)]
pub struct Ask(JwtRevocation<HandBack>);

/// Hands back what reaches it.
#[derive(Clone)]
struct HandBack;

impl Service<Request<()>> for HandBack {
    /// `Some` for a request that passed. A refusal has the default body: `None`.
    type Response = Response<Option<Request<()>>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, head: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Some(head))))
    }
}

impl Ask {
    pub fn new(layer: &JwtRevocationLayer) -> Self {
        Self(layer.layer(HandBack))
    }

    /// Whether a request with this head passes; if not, how it is to be answered. There is no
    /// clearance where requests may pass without a token.
    pub async fn about(&self, head: Request<()>) -> Result<Option<Clearance>, Response<()>> {
        let Ok(answer) = self.0.clone().oneshot(head).await;
        let (answer, passed) = answer.into_parts();
        match passed {
            Some(head) => Ok(head.into_parts().0.extensions.remove()),
            None => Err(Response::from_parts(answer, ())),
        }
    }
}
