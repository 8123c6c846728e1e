//! Reads requests: bounded bodies, forms and JSON, each name once.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;

use bytes::Buf as _;
use http::{HeaderMap, header};
use http_body::Body;
use serde_json::{Map, Value};

use crate::token::unambiguous;

/// Longest body that is read.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    /// The connection broke.
    Incomplete,
}

/// How much of a body that is too large is read all the same, and dropped: a client that is still
/// sending when the connection is closed may never see the answer.
const MAX_DROPPED_BYTES: usize = 1024 * 1024;

/// The body, if it is not too large. One that says so itself is not read at all.
pub(super) async fn read_body<B: Body>(body: B) -> Result<Vec<u8>, BodyError> {
    let mut body = pin!(body);
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut read = Vec::new();
    let mut dropped = 0;
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(frame) = frame else { return Err(BodyError::Incomplete) };
        // Trailers are nothing to us.
        let Ok(mut data) = frame.into_data() else { continue };
        if dropped > 0 || data.remaining() > MAX_BODY_BYTES - read.len() {
            dropped += data.remaining().max(1);
            if dropped > MAX_DROPPED_BYTES {
                break;
            }
            continue;
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let length = chunk.len();
            read.extend_from_slice(chunk);
            data.advance(length);
        }
    }
    if dropped > 0 { Err(BodyError::TooLarge) } else { Ok(read) }
}

/// Whether the body is said to be of this media type. Parameters do not matter.
pub(super) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let value = value.to_str().unwrap_or_default();
    let named = value.split(';').next().unwrap_or_default().trim();
    named.eq_ignore_ascii_case(media_type)
}

/// A form (`application/x-www-form-urlencoded`). A parameter without a value counts as absent
/// (RFC 6749 §3.2).
#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// What is wrong with it is told to the client, so it holds nothing of it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "the form is not UTF-8")?;
        let mut form = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| form_decode(text).ok_or("the form is not encoded as forms are");
            // RFC 6749 §3.2: one that is there twice means one thing to one reader, another to the
            // next.
            if form.insert(decode(name)?, decode(value)?).is_some() {
                return Err("a parameter is there twice");
            }
        }
        Ok(Self(form))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reverses the encoding of forms; `None` if it is broken, or if the result is not UTF-8.
pub(super) fn form_decode(text: &str) -> Option<String> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// The members of a JSON object, each of which stands there once, at any depth.
pub(super) fn json_object(json: &[u8]) -> Option<Map<String, Value>> {
    match unambiguous(std::str::from_utf8(json).ok()?) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}
