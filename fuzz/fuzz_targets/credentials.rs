//! Any bytes in the header fields that may carry a token: `cargo +nightly fuzz run credentials`.
//!
//! The first line of the input is the `Authorization` field, each further one a `Cookie` field.

#![no_main]

use http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use tower_jwt_revocation::token::bearer::{RequestHead, TokenSource};

fuzz_target!(|data: &[u8]| {
    let mut request = Request::new(());
    for (at, line) in data.split(|&byte| byte == b'\n').enumerate() {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        let name = if at == 0 { http::header::AUTHORIZATION } else { http::header::COOKIE };
        request.headers_mut().append(name, value);
    }
    let sources = [TokenSource::bearer(), TokenSource::cookie("t").expect("a good name")];
    if let Ok(Some(token)) = RequestHead::from(&request).token(&sources) {
        assert!(!token.is_empty());
        assert!(
            token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
        );
    }
});
