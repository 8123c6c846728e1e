//! OAuth 2.0 Token Revocation (RFC 7009).

use std::sync::Arc;

use futures::FutureExt as _;
use http::StatusCode;

use super::answer::{Answer, ErrorFormat};
use super::client::ClientAuth;
use super::endpoint::Endpoint;
use super::request::Form;
use crate::middleware::JwtRevocationLayer;
use crate::revocation::TargetKind;
use crate::revoker::{RevokeError, Revoker};
use crate::session::Sessions;
use crate::store::StoreError;
use crate::token::{CrateOnly, TokenErrorKind, TokenVerifier};

pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// What the endpoint needs.
struct TokenRevocation {
    verifier: Arc<dyn TokenVerifier>,
    revoker: Revoker,
    sessions: Option<Sessions>,
    clients: ClientAuth,
}

impl Endpoint {
    /// The endpoint that revokes the token that a client presents (RFC 7009): an access token that
    /// `layer` accepts, or a refresh token of `sessions`. It uses the verifier and the store of
    /// `layer`.
    ///
    /// - A refresh token ends its family, with the access tokens that came out of it.
    /// - An access token is revoked by its id. It may be expired, or not valid yet.
    /// - For a token that is unknown or forged, or was issued to another client (`client_id`), the
    ///   answer is 200, as for a revoked one.
    ///
    /// A `token_type_hint` is not needed.
    #[doc(alias = "RFC 7009")]
    pub fn token_revocation<A>(
        layer: &JwtRevocationLayer<A>,
        sessions: Option<Sessions>,
        clients: ClientAuth,
    ) -> Self {
        let verifier = Arc::clone(&layer.gate().verifier);
        let revoker = layer.revoker();
        let revocation = Arc::new(TokenRevocation { verifier, revoker, sessions, clients });
        Self::post(FORM, ErrorFormat::OAuth, move |head, body| {
            let revocation = Arc::clone(&revocation);
            async move {
                let form = match Form::parse(&body) {
                    Ok(form) => form,
                    Err(problem) => return ErrorFormat::OAuth.invalid_request(problem),
                };
                let client = match revocation.clients.client_of(&head, &form).await {
                    Ok(client) => client,
                    Err(refusal) => return refusal,
                };
                let Some(token) = form.get("token") else {
                    return ErrorFormat::OAuth.invalid_request("`token` is missing");
                };
                revocation.revoke(token, &client).await
            }
            .boxed()
        })
    }
}

impl TokenRevocation {
    async fn revoke(&self, token: &str, client: &str) -> Answer {
        match self.try_revoke(token, client).await {
            Ok(answer) => answer,
            Err(error) => ErrorFormat::OAuth.store_error(&error),
        }
    }

    async fn try_revoke(&self, token: &str, client: &str) -> Result<Answer, StoreError> {
        let done = || Ok(Answer::empty(StatusCode::OK));
        if let Some(sessions) = &self.sessions
            && sessions.families().end_by_token(token, Some(client)).await?
        {
            return done();
        }
        match self.verifier.verify_to_revoke(token, CrateOnly) {
            Err(error) if error.kind() == TokenErrorKind::NoKeys => {
                return Ok(Answer::unavailable());
            }
            Err(_) => return done(),
            Ok(verified) => {
                let owner = verified.target(TargetKind::Client);
                if owner.is_some_and(|owner| owner.id() != client) {
                    return done();
                }
            }
        }
        match self.revoker.revoke_raw_token(&*self.verifier, token).await {
            // What has nothing to be revoked by is over, or is no token of ours.
            Ok(_) | Err(RevokeError::Token(_)) => done(),
            Err(RevokeError::Store(error)) if error.is_permanent() => {
                let problem = "a token without an id cannot be revoked";
                Ok(ErrorFormat::OAuth.bad_request("unsupported_token_type", problem))
            }
            Err(RevokeError::Store(error)) => Err(error),
        }
    }
}
