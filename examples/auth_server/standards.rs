//! The routes that standards define: what OAuth clients and identity providers send, and the
//! documents that they read. Each is there if its variables are set.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value, json};
use tower_jwt_revocation::endpoints::{
    ClientAuth, Endpoint, EventReceiver, LogoutReceiver, SubjectRevoker,
};

use crate::answer::Problem;
use crate::app::App;
use crate::config::Config;
use crate::operator::MAX_BODY;
use crate::providers::METADATA;

const JWKS: &str = "/.well-known/jwks.json";

/// How long a client may take to send what it wants.
const LATEST_BODY: Duration = Duration::from_secs(30);

pub(crate) fn routes(app: &App, config: &Config) -> Result<Router, Box<dyn Error>> {
    let providers = &config.providers;
    let mut router = Router::new().route_service(JWKS, Endpoint::jwks(&config.keys));
    if let Some(client) = &providers.client {
        let clients = || ClientAuth::with_secret(client.id.as_str(), &client.secret);
        let sessions = || app.sessions.clone();
        router = router
            .route_service(
                "/oauth/revoke",
                Endpoint::token_revocation(&app.layer, Some(sessions()), clients()),
            )
            .route_service(
                "/oauth/introspect",
                Endpoint::introspection(&app.layer, Some(sessions()), clients()),
            )
            .route_service(
                "/oauth/token",
                Endpoint::refresh(sessions(), (*app.issuer).clone(), clients()),
            );
    }
    if let Some(issuer) = &config.issuer {
        let metadata = Endpoint::document(&metadata(issuer, providers.client.is_some()));
        router = router
            .route_service("/.well-known/oauth-authorization-server", metadata.clone())
            .route_service("/.well-known/openid-configuration", metadata);
    }
    if let Some(resource) = &providers.resource {
        let provider = providers.provider.as_ref().map(|provider| &provider.issuer);
        let servers: Vec<_> = config.issuer.iter().chain(provider).collect();
        let mut document = Map::new();
        document.insert("resource".into(), json!(resource.url));
        document.insert("bearer_methods_supported".into(), json!(["header"]));
        // RFC 9728 §3.2: a member without a value is left out.
        if !servers.is_empty() {
            document.insert("authorization_servers".into(), json!(servers));
        }
        let document = Endpoint::document(&document.into());
        router = router.route_service(METADATA, document.clone());
        if resource.metadata_path != METADATA {
            router = router.route_service(&resource.metadata_path, document);
        }
    }
    let subjects = || SubjectRevoker::new(app.revoker.clone()).with_sessions(app.sessions.clone());
    if let Some(provider) = &providers.provider {
        let receiver = LogoutReceiver::new(app.revoker.clone(), app.replay_guard.clone())
            .with(provider.verifier.clone())?;
        router = router.route_service("/backchannel-logout", receiver.into_endpoint());
    }
    if let Some(transmitter) = &providers.transmitter {
        let mut subjects = subjects();
        if config.issuer.is_none() {
            // Tokens of this server name no issuer, so the transmitter has a name of its own.
            subjects = subjects.with_own_name(transmitter.issuer.as_str());
        }
        let receiver = EventReceiver::new(subjects, app.replay_guard.clone())
            .with(transmitter.verifier.clone())?
            .with_bearer(&transmitter.token);
        router = router.route_service("/ssf/push", receiver.into_endpoint());
    }
    if let Some(token) = &config.admin_token {
        let endpoint = Endpoint::global_token_revocation(subjects(), token);
        router = router.route_service("/global-token-revocation", endpoint);
    }
    Ok(router.layer(from_fn_with_state(app.clone(), in_time)))
}

/// Whatever the store does, an answer comes. What the client takes to send its request is not the
/// store's time.
async fn in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // One byte more than an endpoint takes: that it is too much is for the endpoint to say.
    let read = Limited::new(body, MAX_BODY + 1).collect();
    let body = match tokio::time::timeout(LATEST_BODY, read).await {
        Ok(Ok(body)) => Body::from(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Body::from(vec![0; MAX_BODY + 1]),
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
        Ok(Err(_)) => return Problem::BadRequest("the body broke off").into_response(),
    };
    let request = Request::from_parts(head, body);
    match tokio::time::timeout(app.limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::Unavailable.into_response(),
    }
}

/// The metadata of this authorization server (RFC 8414), as far as its endpoints are there.
fn metadata(issuer: &str, has_client: bool) -> Value {
    let base = issuer.trim_end_matches('/');
    let mut document = Map::new();
    let mut add = |name: &str, value: Value| document.insert(name.into(), value);
    add("issuer", issuer.into());
    add("jwks_uri", format!("{base}{JWKS}").into());
    // There is no authorization endpoint: users sign in at `/login`.
    add("response_types_supported", json!([]));
    add("grant_types_supported", json!(["refresh_token"]));
    if has_client {
        for (name, path) in
            [("token", "token"), ("revocation", "revoke"), ("introspection", "introspect")]
        {
            add(&format!("{name}_endpoint"), format!("{base}/oauth/{path}").into());
            add(
                &format!("{name}_endpoint_auth_methods_supported"),
                json!(["client_secret_basic", "client_secret_post"]),
            );
        }
    }
    document.into()
}
