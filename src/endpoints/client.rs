//! [`ClientAuth`]: which OAuth client sends a request (RFC 6749 §2.3).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::answer::{Answer, ErrorFormat};
use super::bearer_secret::SecretDigest;
use super::replay::ReplayGuard;
use super::request::{Form, form_decode};
use super::signed::{Providers, odd};
use crate::config::ConfigError;
use crate::store::StoreError;
use crate::token::TokenErrorKind;
use crate::token::jwt::JwtVerifier;

/// Authenticates the OAuth client of a request: by an id and a secret in `Authorization: Basic`
/// (`client_secret_basic`) or in the form (`client_secret_post`), or by a JWT that it has signed
/// (`private_key_jwt`). Using more than one of them is an error (RFC 6749 §2.3.1).
#[derive(Clone)]
pub struct ClientAuth {
    check: Arc<CheckSecret>,
    assertions: Option<(Providers, ReplayGuard)>,
}

/// The one type of assertion (RFC 7523 §2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An assertion that is valid for longer is refused: its id would have to be remembered as long.
const MAX_ASSERTION_LIFETIME: Duration = Duration::from_secs(60 * 60);

type CheckSecret = dyn Fn(&str, &str) -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync;

impl ClientAuth {
    /// Knows one client, with this id and this secret.
    pub fn with_secret(id: impl Into<Box<str>>, secret: impl AsRef<str>) -> Self {
        let (id, secret) = (id.into(), SecretDigest::of(secret.as_ref()));
        Self::by(move |given_id, given| {
            ready(Ok(*given_id == *id && SecretDigest::of(given) == secret))
        })
    }

    /// Knows the clients for which `check` says that id and secret belong together, for example by
    /// a database. An error of `check` means that this is not known now; the answer is 503.
    ///
    /// # Security
    /// Compare secrets, or hashes of them, in constant time.
    pub fn by<F>(check: impl Fn(&str, &str) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<bool, StoreError>> + Send + 'static,
    {
        Self { check: Arc::new(move |id, secret| check(id, secret).boxed()), assertions: None }
    }

    /// Also knows clients by a signed JWT (`private_key_jwt`, RFC 7523 §2.2). Each client has a
    /// verifier, with the keys of the client, and its id as issuer. Its audiences are the names
    /// that clients use for this server: its issuer, and the URL of the endpoint. An assertion is
    /// accepted once, is valid for an hour at most, and has a `jti`.
    ///
    /// # Errors
    /// [`ConfigError`] if a profile names no issuer or no audience.
    pub fn with_assertions(
        mut self,
        clients: impl IntoIterator<Item = JwtVerifier>,
        guard: ReplayGuard,
    ) -> Result<Self, ConfigError> {
        let mut known = Providers::default();
        for client in clients {
            known.add(client)?;
        }
        self.assertions = Some((known, guard));
        Ok(self)
    }

    /// The client that has signed this.
    async fn asserted(&self, assertion: &str, form: &Form) -> Result<Box<str>, Answer> {
        let Some((clients, guard)) = &self.assertions else { return Err(unknown_client()) };
        let accepts = |typ: Option<&str>| {
            typ.is_none_or(|typ| {
                ["JWT", "client-authentication+jwt"].iter().any(|it| it.eq_ignore_ascii_case(typ))
            })
        };
        let verified = clients.verify(assertion, accepts).and_then(|token| {
            let left = token.remaining(MAX_ASSERTION_LIFETIME)?;
            let is_own = token.claims.get("sub").and_then(Value::as_str) == Some(&*token.issuer);
            let is_named = form.get("client_id").is_none_or(|id| *id == *token.issuer);
            if is_own && is_named { Ok((token, left)) } else { Err(odd("sub")) }
        });
        let (token, left) = match verified {
            Ok(verified) => verified,
            Err(error) if error.kind() == TokenErrorKind::NoKeys => {
                return Err(Answer::unavailable());
            }
            Err(error) => {
                tracing::debug!(why = %error, "the assertion of a client was refused");
                return Err(unknown_client());
            }
        };
        let marked = guard.mark("client_assertion", &token.issuer, &token.id, left).await;
        let is_first = marked.map_err(|error| ErrorFormat::OAuth.store_error(&error))?;
        if is_first { Ok(token.issuer) } else { Err(unknown_client()) }
    }

    /// The id of the client that has sent this.
    pub(super) async fn client_of(&self, head: &Parts, form: &Form) -> Result<Box<str>, Answer> {
        let format = ErrorFormat::OAuth;
        let mut given = head.headers.get_all(header::AUTHORIZATION).iter();
        if let Some(assertion) = form.get("client_assertion") {
            if given.next().is_some() || form.get("client_secret").is_some() {
                return Err(format.invalid_request("the client is named in two ways"));
            }
            if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
                return Err(format.invalid_request("the type of the assertion is not known"));
            }
            return self.asserted(assertion, form).await;
        }
        let pairs = match (given.next(), given.next()) {
            (Some(_), Some(_)) => {
                return Err(format.invalid_request("there is more than one Authorization"));
            }
            (Some(given), None) => {
                if form.get("client_secret").is_some() {
                    return Err(format.invalid_request("the client is named in two ways"));
                }
                let pairs = given.to_str().ok().and_then(basic).ok_or_else(unknown_client)?;
                let named = form.get("client_id");
                if named.is_some_and(|named| pairs.iter().all(|(id, _)| id != named)) {
                    return Err(format.invalid_request("two clients are named"));
                }
                pairs
            }
            (None, _) => match (form.get("client_id"), form.get("client_secret")) {
                (Some(id), Some(secret)) => vec![(id.to_owned(), secret.to_owned())],
                _ => return Err(unknown_client()),
            },
        };
        for (id, secret) in pairs {
            if (self.check)(&id, &secret).await.map_err(|error| format.store_error(&error))? {
                return Ok(id.into());
            }
        }
        Err(unknown_client())
    }
}

/// Id and secret of `Basic`: as RFC 6749 §2.3.1 encodes them and, for clients that do not, as they
/// stand there.
fn basic(value: &str) -> Option<Vec<(String, String)>> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let mut pairs = vec![(id.to_owned(), secret.to_owned())];
    if let (Some(id), Some(secret)) = (form_decode(id), form_decode(secret)) {
        pairs.insert(0, (id, secret));
        pairs.dedup();
    }
    Some(pairs)
}

fn unknown_client() -> Answer {
    let challenge = HeaderValue::from_static("Basic realm=\"clients\", charset=\"UTF-8\"");
    Answer::json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_client" }))
        .with(header::WWW_AUTHENTICATE, challenge)
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth").finish_non_exhaustive()
    }
}
