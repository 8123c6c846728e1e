//! What endpoints answer. Nothing of it may be cached: it is about this moment.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::store::{Receipt, StoreError, StoreErrorKind};

/// Whether it was written. That no layer accepts what was revoked is no matter of the client, who
/// can do nothing about it.
pub(super) fn written(result: Result<Receipt, StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error) if error.kind() == StoreErrorKind::Unmatched => {
            tracing::warn!(error = %error.chain(), "an endpoint revokes what nobody accepts");
            Ok(())
        }
        result => result.map(drop),
    }
}

/// An answer without the type of its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// How an endpoint says what is wrong with a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum ErrorFormat {
    /// `error` and `error_description` (RFC 6749 §5.2).
    OAuth,
    /// `err` and `description` (RFC 8935 §2.3).
    SecurityEvent,
}

impl ErrorFormat {
    /// 400 with this code. The description is ours: it holds nothing of the request.
    pub(super) fn bad_request(self, code: &str, description: &str) -> Answer {
        let answer = Answer::json(StatusCode::BAD_REQUEST, &self.body(code, description));
        match self {
            Self::OAuth => answer,
            // RFC 8935 §2.3 wants the language of the description to be said.
            Self::SecurityEvent => {
                answer.with(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"))
            }
        }
    }

    fn body(self, code: &str, description: &str) -> Value {
        match self {
            Self::OAuth => json!({ "error": code, "error_description": description }),
            Self::SecurityEvent => json!({ "err": code, "description": description }),
        }
    }

    pub(super) fn invalid_request(self, description: &str) -> Answer {
        self.bad_request("invalid_request", description)
    }

    /// The answer to an error of the store: 503, unless the request can never succeed.
    pub(super) fn store_error(self, error: &StoreError) -> Answer {
        if error.kind() == StoreErrorKind::InvalidInput {
            return self.invalid_request("an id is empty, too long or of an unknown issuer");
        }
        tracing::debug!(error = %error.chain(), "an endpoint could not do what it was asked for");
        Answer::unavailable()
    }
}

impl Answer {
    pub(super) fn empty(status: StatusCode) -> Self {
        let headers = vec![(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        Self { status, headers, body: Bytes::new() }
    }

    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        let mut answer = Self::empty(status)
            .with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.body = body.to_string().into();
        answer
    }

    /// It is not known whether it was done; it may be asked for again.
    pub(super) fn unavailable() -> Self {
        let body = json!({ "error": "temporarily_unavailable" });
        Self::json(StatusCode::SERVICE_UNAVAILABLE, &body)
            .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
