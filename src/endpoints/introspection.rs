//! OAuth 2.0 Token Introspection (RFC 7662).

use std::sync::Arc;

use futures::FutureExt as _;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, ErrorFormat};
use super::client::ClientAuth;
use super::endpoint::Endpoint;
use super::request::Form;
use super::revocation::FORM;
use crate::gate::Gate;
use crate::middleware::JwtRevocationLayer;
use crate::policy::Rejection;
use crate::session::Sessions;

/// The claims that are told (RFC 7662 §2.2), and the session. What else a token says is between
/// issuer and resource.
const TOLD: [&str; 13] = [
    "scope",
    "client_id",
    "username",
    "exp",
    "iat",
    "nbf",
    "sub",
    "aud",
    "iss",
    "jti",
    "sid",
    "cnf",
    "auth_time",
];

struct Introspection {
    gate: Gate,
    sessions: Option<Sessions>,
    clients: ClientAuth,
}

impl Endpoint {
    /// The endpoint that tells an authorized client whether a token is active (RFC 7662): whether
    /// `layer` would let it pass now, or `sessions` would accept it as a refresh token. A used
    /// refresh token is inactive; asking about one ends nothing.
    ///
    /// For an inactive token the answer is `{"active":false}` and nothing else. While the store
    /// gives no answer it is 503, whatever the fail mode of the layer, because nothing is known
    /// about the token. A bound token (`cnf`) is active without a proof of its key; the answer has
    /// `cnf`, and the resource has to ask for the proof.
    ///
    /// # Security
    /// A client that caches the answer accepts a revoked token for that time. It must not cache
    /// beyond `exp` (RFC 7662 §4), and should for seconds at most.
    #[doc(alias = "RFC 7662")]
    pub fn introspection<A>(
        layer: &JwtRevocationLayer<A>,
        sessions: Option<Sessions>,
        clients: ClientAuth,
    ) -> Self {
        let gate = layer.gate().clone();
        let introspection = Arc::new(Introspection { gate, sessions, clients });
        Self::post(FORM, ErrorFormat::OAuth, move |head, body| {
            let introspection = Arc::clone(&introspection);
            async move {
                let form = match Form::parse(&body) {
                    Ok(form) => form,
                    Err(problem) => return ErrorFormat::OAuth.invalid_request(problem),
                };
                if let Err(refusal) = introspection.clients.client_of(&head, &form).await {
                    return refusal;
                }
                match form.get("token") {
                    Some(token) => introspection.look_at(token).await,
                    None => ErrorFormat::OAuth.invalid_request("`token` is missing"),
                }
            }
            .boxed()
        })
    }
}

impl Introspection {
    async fn look_at(&self, token: &str) -> Answer {
        if let Some(sessions) = &self.sessions {
            match sessions.families().look_at(token).await {
                Ok(Some(known)) => {
                    let mut answer = Map::new();
                    answer.insert("active".into(), true.into());
                    answer.insert("sub".into(), known.user.into_string().into());
                    answer.insert("iat".into(), known.created_at.as_secs().into());
                    answer.insert("exp".into(), known.expires_at.as_secs().into());
                    if let Some(client) = known.client {
                        answer.insert("client_id".into(), client.into_string().into());
                    }
                    return Answer::json(StatusCode::OK, &answer.into());
                }
                Ok(None) => {}
                Err(error) => return ErrorFormat::OAuth.store_error(&error),
            }
        }
        match self.gate.introspect(token).await {
            Ok(token) => {
                let Ok(claims) = token.claims::<Map<String, Value>>() else { return inactive() };
                let told = claims.into_iter().filter(|(name, _)| TOLD.contains(&&**name));
                let mut answer: Map<String, Value> = told.collect();
                answer.insert("active".into(), true.into());
                answer.insert("token_type".into(), "Bearer".into());
                Answer::json(StatusCode::OK, &answer.into())
            }
            Err(Rejection::NoKeys(_) | Rejection::StandingUnknown(_)) => Answer::unavailable(),
            Err(_) => inactive(),
        }
    }
}

fn inactive() -> Answer {
    Answer::json(StatusCode::OK, &json!({ "active": false }))
}
