//! Finds the one token of a request.
//!
//! Pure: a request head in, a piece of text out. Nothing here looks inside the token.
//!
//! There is no source for query strings or form bodies: URLs end up in logs, and OAuth 2.1 §5.1
//! forbids both. [`TokenSource::custom`] can read other places.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use http::{Extensions, HeaderMap, Method, Uri, Version};
use serde::{Deserialize, Deserializer};

use super::CredentialsError;
use crate::config::{ConfigError, from_word};

/// Why there is no token to be verified.
#[derive(Debug)]
pub(crate) enum NoToken {
    Unreadable(CredentialsError),
    /// Longer than the longest accepted token, and not looked at.
    TooLong,
}

impl From<CredentialsError> for NoToken {
    fn from(error: CredentialsError) -> Self {
        Self::Unreadable(error)
    }
}

/// The head of a request, as closures of the layer get it: everything but the body.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The method, such as `GET`.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The URI as the services outside of this one have left it. With HTTP/1.1 it usually has path
    /// and query alone, with HTTP/2 also scheme and host.
    ///
    /// # Security
    /// Routers take away the part of the path that they have matched: inside of
    /// `Router::nest("/api", …)` of axum a request for `/api/health` has the path `/health`. To
    /// decide by a path, compare the one that the client has asked for: `path`, with feature
    /// `axum`.
    pub fn uri(&self) -> &'a Uri {
        self.uri
    }

    /// The path that the client has asked for: behind a router of axum that of
    /// [`OriginalUri`](axum::extract::OriginalUri), else that of the [URI](Self::uri). It is
    /// neither decoded nor normalized.
    #[cfg(feature = "axum")]
    #[doc(alias = "OriginalUri")]
    pub fn path(&self) -> &'a str {
        let original = self.extensions.get::<axum::extract::OriginalUri>();
        original.map_or(self.uri, |original| &original.0).path()
    }

    /// The route that axum has chosen, as it is written in the program, with all prefixes:
    /// `/api/users/{id}`. `None` in a fallback, behind `nest_service`, and for a layer around the
    /// router, which runs before a route is chosen.
    ///
    /// Safer than a path, because the spelling of the path makes no difference.
    #[cfg(feature = "axum")]
    #[doc(alias = "MatchedPath")]
    pub fn matched_path(&self) -> Option<&'a str> {
        self.extensions.get().map(axum::extract::MatchedPath::as_str)
    }

    /// The version of HTTP, such as HTTP/2.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The header fields, credentials included.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The extensions of the request: what outer layers and the server have put there, such as the
    /// address of the client.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    /// The token of the request, if it has one in these places. It looks at all of them, because
    /// two different tokens are an error, whatever the order of the list (RFC 6750 §2).
    ///
    /// Allocates nothing, unless a custom source does.
    ///
    /// # Errors
    /// [`CredentialsError`] if the credentials cannot be read, or if there are two that differ.
    pub fn token(&self, sources: &[TokenSource]) -> Result<Option<Cow<'a, str>>, CredentialsError> {
        self.token_within(usize::MAX, sources).map_err(|error| match error {
            NoToken::Unreadable(error) => error,
            // No token has as much.
            NoToken::TooLong => CredentialsError::Malformed,
        })
    }

    /// The same, without a look at the characters of a token that is longer than this.
    pub(crate) fn token_within(
        &self,
        max_bytes: usize,
        sources: &[TokenSource],
    ) -> Result<Option<Cow<'a, str>>, NoToken> {
        let mut found: Option<Cow<'a, str>> = None;
        for source in sources {
            if let Some(token) = source.find(self, max_bytes)? {
                agree(&mut found, token)?;
            }
        }
        Ok(found)
    }
}

impl<'a, B> From<&'a http::Request<B>> for RequestHead<'a> {
    fn from(request: &'a http::Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl<'a> From<&'a http::request::Parts> for RequestHead<'a> {
    fn from(parts: &'a http::request::Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

impl fmt::Debug for RequestHead<'_> {
    /// Header fields and the query hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", self.method)
            .field("path", &self.uri.path())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A place where a request may carry its token.
///
/// ```
/// use tower_jwt_revocation::token::bearer::{RequestHead, TokenSource};
///
/// let sources = [TokenSource::bearer(), TokenSource::cookie("__Host-token")?];
/// let request = http::Request::builder().header("authorization", "Bearer abc.def.ghi").body(())?;
/// assert_eq!(RequestHead::from(&request).token(&sources)?.as_deref(), Some("abc.def.ghi"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TokenSource(Source);

#[derive(Clone)]
enum Source {
    Bearer,
    Dpop,
    Cookie(Box<str>),
    Custom(Arc<Custom>),
}

type Custom = dyn for<'a> Fn(&RequestHead<'a>) -> Option<Cow<'a, str>> + Send + Sync;

impl TokenSource {
    /// `Authorization: Bearer …` (RFC 6750 §2.1). Another scheme counts as no credentials.
    pub fn bearer() -> Self {
        Self(Source::Bearer)
    }

    /// `Authorization: DPoP …` (RFC 9449 §7.1), for tokens that are bound to a key of the client.
    /// If it is one of the sources, refusals have a challenge for `DPoP` as well.
    ///
    /// # Security
    /// This source does not check that the client has the key: see
    /// [`JwtRevocationLayer::with_proof_of_possession`](crate::JwtRevocationLayer::with_proof_of_possession).
    #[doc(alias = "DPoP")]
    pub fn dpop() -> Self {
        Self(Source::Dpop)
    }

    /// The cookie of this name.
    ///
    /// An empty cookie counts as none, because many applications delete a cookie by emptying it.
    ///
    /// # Security
    /// Browsers send cookies with requests that other sites make. Protect such routes against
    /// request forgery (`SameSite`, an `Origin` check). Use the prefix `__Host-`, so that no
    /// sibling domain can set a token.
    ///
    /// # Errors
    /// [`ConfigError`] if `name` cannot be the name of a cookie (RFC 6265 §4.1.1).
    pub fn cookie(name: impl Into<Box<str>>) -> Result<Self, ConfigError> {
        let name = name.into();
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return Err(ConfigError::new(
                "cookie",
                "is not the name of a cookie: letters, digits and !#$%&'*+-.^_`|~ only, at least \
                 one",
            ));
        }
        Ok(Self(Source::Cookie(name)))
    }

    /// The token that `find` finds. `None` means that there are no credentials here.
    ///
    /// ```
    /// # use tower_jwt_revocation::token::bearer::TokenSource;
    /// TokenSource::custom(|head| {
    ///     head.headers().get("x-api-token")?.to_str().ok().map(Into::into)
    /// });
    /// ```
    pub fn custom<F>(find: F) -> Self
    where
        F: for<'a> Fn(&RequestHead<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Self(Source::Custom(Arc::new(find)))
    }

    pub(crate) fn is_bearer(&self) -> bool {
        matches!(self.0, Source::Bearer)
    }

    pub(crate) fn is_dpop(&self) -> bool {
        matches!(self.0, Source::Dpop)
    }

    fn find<'a>(
        &self,
        head: &RequestHead<'a>,
        max_bytes: usize,
    ) -> Result<Option<Cow<'a, str>>, NoToken> {
        let read = |bytes: &'a [u8]| read_within(max_bytes, bytes).map(Cow::Borrowed);
        match &self.0 {
            Source::Bearer => unread(head.headers)?.map(read).transpose(),
            Source::Dpop => dpop(head.headers)?.map(read).transpose(),
            Source::Cookie(name) => Ok(cookie(head.headers, name, max_bytes)?.map(Cow::Borrowed)),
            Source::Custom(find) => match find(head) {
                Some(token) if token.is_empty() => Err(CredentialsError::Malformed.into()),
                Some(token) if token.len() > max_bytes => Err(NoToken::TooLong),
                token => Ok(token),
            },
        }
    }
}

/// `bearer`, `dpop` or `cookie:<name>`.
impl FromStr for TokenSource {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once(':') {
            None if text == "bearer" => Ok(Self::bearer()),
            None if text == "dpop" => Ok(Self::dpop()),
            Some(("cookie", name)) => Self::cookie(name),
            _ => Err(ConfigError::new(
                "token_source",
                "is not a source of tokens; write `bearer`, `dpop` or `cookie:<name>`",
            )),
        }
    }
}

/// As [`FromStr`].
impl<'de> Deserialize<'de> for TokenSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_word(deserializer)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bearer => f.write_str("Bearer"),
            Source::Dpop => f.write_str("Dpop"),
            Source::Cookie(name) => f.debug_tuple("Cookie").field(name).finish(),
            Source::Custom(_) => f.write_str("Custom"),
        }
    }
}

fn agree<T: PartialEq>(found: &mut Option<T>, more: T) -> Result<(), CredentialsError> {
    match found {
        Some(one) if *one != more => Err(CredentialsError::Conflicting),
        Some(_) => Ok(()),
        None => {
            *found = Some(more);
            Ok(())
        }
    }
}

/// What stands after `Bearer`, whatever it is: `credentials = "Bearer" 1*SP token68`, the scheme in
/// any case (RFC 9110 §11.1).
pub(crate) fn unread(headers: &HeaderMap) -> Result<Option<&[u8]>, CredentialsError> {
    after(b"bearer", headers)
}

/// What stands after `DPoP`, whatever it is.
fn dpop(headers: &HeaderMap) -> Result<Option<&[u8]>, CredentialsError> {
    after(b"dpop", headers)
}

/// Whether the credentials are of the scheme `DPoP`.
pub(crate) fn has_dpop(headers: &HeaderMap) -> bool {
    matches!(dpop(headers), Ok(Some(_)))
}

#[inline]
fn after<'a, const N: usize>(
    scheme: &[u8; N],
    headers: &'a HeaderMap,
) -> Result<Option<&'a [u8]>, CredentialsError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(CredentialsError::Repeated);
    }
    let Some((given, rest)) = field.as_bytes().split_at_checked(N) else {
        return Ok(None);
    };
    if !given.eq_ignore_ascii_case(scheme) {
        return Ok(None);
    }
    let token = match rest {
        // As nearly all clients write it.
        [b' ', first, ..] if !first.is_ascii_whitespace() => rest.split_at(1).1,
        [first, ..] if is_tchar(*first) => return Ok(None),
        _ => rest.trim_ascii_start(),
    };
    let spaces = rest.get(..rest.len() - token.len()).unwrap_or_default();
    if spaces.is_empty() || spaces.iter().any(|&byte| byte != b' ') {
        return Err(CredentialsError::Malformed);
    }
    Ok(Some(token))
}

/// `cookie-string = name "=" ["\""] value ["\""] *( ";" SP … )` (RFC 6265 §4.2.1), over all
/// `Cookie` fields: HTTP/2 may split them (RFC 9113 §8.2.3).
fn cookie<'a>(
    headers: &'a HeaderMap,
    name: &str,
    max_bytes: usize,
) -> Result<Option<&'a str>, NoToken> {
    let mut found = None;
    for field in headers.get_all(COOKIE) {
        for pair in field.as_bytes().split(|&byte| byte == b';') {
            let Some(value) = pair.trim_ascii().strip_prefix(name.as_bytes()) else { continue };
            let Some(value) = value.strip_prefix(b"=") else { continue };
            let value = value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""))
                .unwrap_or(value);
            if !value.is_empty() {
                agree(&mut found, read_within(max_bytes, value)?)?;
            }
        }
    }
    Ok(found)
}

/// `token68 = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 9110 §11.2).
pub(crate) fn token68(bytes: &[u8]) -> Result<&str, CredentialsError> {
    expect_token68(bytes)?;
    std::str::from_utf8(bytes).map_err(|_| CredentialsError::Malformed)
}

/// The same, of what is not read any further.
pub(crate) fn expect_token68(bytes: &[u8]) -> Result<(), CredentialsError> {
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    let (text, _) = bytes.split_at(bytes.len() - padding);
    if text.is_empty() || !all(text, is_token68) {
        return Err(CredentialsError::Malformed);
    }
    Ok(())
}

fn read_within(max_bytes: usize, bytes: &[u8]) -> Result<&str, NoToken> {
    if bytes.len() > max_bytes { Err(NoToken::TooLong) } else { Ok(token68(bytes)?) }
}

/// Letters, digits and `-._~+/`. Few comparisons, because every byte of every token goes through
/// them: in ASCII `-./` stand right before the digits, and small letters are capital ones with a
/// bit set.
#[inline]
const fn is_token68(byte: u8) -> bool {
    matches!(byte, b'-'..=b'9')
        | (byte | 0x20).is_ascii_lowercase()
        | matches!(byte, b'_' | b'~' | b'+')
}

/// Whether all bytes are of a kind. There is no early end: without branches the compiler looks at
/// many bytes at a time.
#[inline]
pub(super) fn all(bytes: &[u8], is_fit: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(0, |odd, &byte| odd | u8::from(!is_fit(byte))) == 0
}

/// The characters of a token in the sense of RFC 9110 §5.6.2: scheme names and cookie names are
/// made of them.
const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
#[path = "bearer_tests.rs"]
mod tests;
