//! The refresh grant of a token endpoint (RFC 6749 §6).

use std::sync::Arc;

use futures::FutureExt as _;
use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, ErrorFormat};
use super::client::ClientAuth;
use super::endpoint::Endpoint;
use super::request::Form;
use super::revocation::FORM;
use crate::session::{Grant, Refresh, Sessions};
use crate::store::{StoreError, StoreErrorKind};
use crate::token::issue::TokenIssuer;

struct RefreshGrant {
    sessions: Sessions,
    issuer: TokenIssuer,
    clients: ClientAuth,
}

impl Endpoint {
    /// A token endpoint with the refresh grant alone (RFC 6749 §6): it takes a refresh token of
    /// `sessions`, and answers with the next one and an access token of `issuer`. A token that is
    /// bound to a client must come from that client. There are no scopes; a requested scope has no
    /// effect.
    #[doc(alias = "token endpoint")]
    #[doc(alias = "RFC 6749")]
    pub fn refresh(sessions: Sessions, issuer: TokenIssuer, clients: ClientAuth) -> Self {
        let grants = Arc::new(RefreshGrant { sessions, issuer, clients });
        Self::post(FORM, ErrorFormat::OAuth, move |head, body| {
            let grants = Arc::clone(&grants);
            async move {
                let form = match Form::parse(&body) {
                    Ok(form) => form,
                    Err(problem) => return ErrorFormat::OAuth.invalid_request(problem),
                };
                match grants.clients.client_of(&head, &form).await {
                    Ok(client) => grants.answer(&form, &client).await,
                    Err(refusal) => refusal,
                }
            }
            .boxed()
        })
    }
}

impl RefreshGrant {
    async fn answer(&self, form: &Form, client: &str) -> Answer {
        let format = ErrorFormat::OAuth;
        match form.get("grant_type") {
            Some("refresh_token") => {}
            Some(_) => {
                let problem = "the one grant type is refresh_token";
                return format.bad_request("unsupported_grant_type", problem);
            }
            None => return format.invalid_request("`grant_type` is missing"),
        }
        let Some(token) = form.get("refresh_token") else {
            return format.invalid_request("`refresh_token` is missing");
        };
        match self.sessions.refresh(token, Some(client)).await {
            Ok(Refresh::Granted(grant)) => self.granted(&grant),
            Ok(Refresh::Refused(_)) => invalid_grant(),
            Err(error) => refused(&error),
        }
    }

    fn granted(&self, grant: &Grant) -> Answer {
        match self.issuer.issue(&grant.access_token()) {
            Ok(access) => {
                let lifetime = access.expires_at().saturating_duration_since(access.issued_at());
                let body = json!({
                    "access_token": access.token(),
                    "token_type": "Bearer",
                    "expires_in": lifetime.as_secs(),
                    "refresh_token": grant.token.expose(),
                });
                Answer::json(StatusCode::OK, &body)
            }
            Err(error) => {
                tracing::error!(%error, "no access token was issued");
                Answer::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "server_error" }))
            }
        }
    }
}

fn invalid_grant() -> Answer {
    Answer::json(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_grant" }))
}

fn refused(error: &StoreError) -> Answer {
    match error.kind() {
        StoreErrorKind::InvalidInput => invalid_grant(),
        _ => ErrorFormat::OAuth.store_error(error),
    }
}
