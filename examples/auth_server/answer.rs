//! From errors to answers, and from bodies to values.

use std::fmt;

use axum::Json;
use axum::body::Bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};
use tower_jwt_revocation::store::{StoreError, StoreErrorKind};

/// Why a request was not done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Problem {
    /// The body is not what it must be.
    BadRequest(&'static str),
    /// The refresh token is no good (RFC 6749 §5.2), whatever the reason.
    InvalidGrant,
    /// The user may not sign in.
    Forbidden(&'static str),
    NotFound,
    /// The store could not be asked or did not confirm. It is not known whether it was done; it may
    /// be repeated.
    Unavailable,
    Internal,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let error = |status, error: &str| {
            (status, NO_STORE, Json(json!({ "error": error }))).into_response()
        };
        match self {
            Self::BadRequest(problem) => {
                let body = json!({ "error": "invalid_request", "error_description": problem });
                (StatusCode::BAD_REQUEST, NO_STORE, Json(body)).into_response()
            }
            Self::InvalidGrant => error(StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::Forbidden(problem) => error(StatusCode::FORBIDDEN, problem),
            Self::NotFound => error(StatusCode::NOT_FOUND, "not_found"),
            Self::Unavailable => {
                let mut response =
                    error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
                response.headers_mut().insert(header::RETRY_AFTER, 1.into());
                response
            }
            Self::Internal => error(StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        }
    }
}

/// For answers that hold tokens, and for refusals.
pub(crate) const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.kind() == StoreErrorKind::InvalidInput {
            return Self::BadRequest(
                "an id, a name or the cursor cannot be: it is empty or too long, or its issuer is \
                 not ours",
            );
        }
        tracing::warn!(kind = ?error.kind(), %error, "the store was of no use");
        Self::Unavailable
    }
}

/// The members of a JSON object in a body. Its content type is not looked at.
pub(crate) fn object(body: &Bytes) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(body) {
        Ok(Members(members)) => Ok(members),
        _ => Err(Problem::BadRequest(
            "the body is not a JSON object, each member of which stands there once",
        )),
    }
}

/// An object in which no name stands twice: of two readers, each could take another one.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name stands there twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// An id that must be there.
pub(crate) fn id<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a str, Problem> {
    optional(members, name)?.ok_or(Problem::BadRequest("a member is missing"))
}

/// An id or a name that may be missing or null. A token in its place would be written down with
/// whatever is done about it.
pub(crate) fn optional<'a>(
    members: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, Problem> {
    match text(members, name)? {
        Some(text) if is_access_token(text) || is_refresh_token(text) => Err(TOKEN_FOR_ID),
        text => Ok(text),
    }
}

pub(crate) const TOKEN_FOR_ID: Problem =
    Problem::BadRequest("a token stands where an id is wanted");

/// Whatever text a member is; it may be missing or null.
pub(crate) fn text<'a>(
    members: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, Problem> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(Problem::BadRequest("a member is empty or not a string")),
    }
}

/// Whether this has the form of a signed token (RFC 7515 §7.1); an id with two dots in it has not.
fn is_access_token(text: &str) -> bool {
    let is_object = |part: &str| {
        let json = URL_SAFE_NO_PAD.decode(part).ok();
        json.is_some_and(|json| serde_json::from_slice::<Map<String, Value>>(&json).is_ok())
    };
    match text.split('.').collect::<Vec<_>>().as_slice() {
        [header, payload, _] => is_object(header) && is_object(payload),
        _ => false,
    }
}

/// Whether this has the form of a refresh token of ours: the id of a family, and 53 bytes after it.
pub(crate) fn is_refresh_token(text: &str) -> bool {
    text.split_once('.').is_some_and(|(family, secret)| {
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_or(0, |bytes| bytes.len());
        (bytes(family), bytes(secret)) == (16, 53)
    })
}

/// Ends what takes too long.
pub(crate) async fn within<T>(
    limit: std::time::Duration,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Problem::Unavailable))
}
