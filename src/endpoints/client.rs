//! [`ClientAuth`]: which OAuth client sends a request (RFC 6749 §2.3).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::answer::{Answer, ErrorFormat};
use super::bearer_secret::SecretDigest;
use super::request::{Form, form_decode};
use crate::store::StoreError;

/// Finds out which client sends a request, by an id and a secret: in `Authorization: Basic`
/// (`client_secret_basic`) or in the form (`client_secret_post`), not in both (RFC 6749 §2.3.1).
#[derive(Clone)]
pub struct ClientAuth {
    check: Arc<CheckSecret>,
}

type CheckSecret = dyn Fn(&str, &str) -> BoxFuture<'static, Result<bool, StoreError>> + Send + Sync;

impl ClientAuth {
    /// One client with this id and this secret.
    pub fn with_secret(id: impl Into<Box<str>>, secret: impl AsRef<str>) -> Self {
        let (id, secret) = (id.into(), SecretDigest::of(secret.as_ref()));
        Self::by(move |given_id, given| {
            ready(Ok(*given_id == *id && SecretDigest::of(given) == secret))
        })
    }

    /// Whether an id and a secret belong together is for `check` to say, such as by a database of
    /// clients. Its error means that this is not known now: the client is answered 503.
    ///
    /// # Security
    /// Compare secrets, or hashes of them, in constant time.
    pub fn by<F>(check: impl Fn(&str, &str) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<bool, StoreError>> + Send + 'static,
    {
        Self { check: Arc::new(move |id, secret| check(id, secret).boxed()) }
    }

    /// The id of the client that has sent this.
    pub(super) async fn client_of(&self, head: &Parts, form: &Form) -> Result<Box<str>, Answer> {
        let format = ErrorFormat::OAuth;
        let mut given = head.headers.get_all(header::AUTHORIZATION).iter();
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
