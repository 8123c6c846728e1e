//! The one table from a [`Rejection`] to an answer, in HTTP and in gRPC.
//!
//! | rejection | HTTP | gRPC |
//! | --- | --- | --- |
//! | no credentials | 401, challenge without error code | 16 `UNAUTHENTICATED` |
//! | unreadable, repeated or conflicting credentials | 400, challenge with `invalid_request` | 16 |
//! | invalid, expired or revoked token | 401, challenge with `invalid_token` | 16 |
//! | the store has lost revocations and will never know, fail mode closed | 401, challenge with `invalid_token` that says to sign in again | 16 |
//! | the store gives no answer, fail mode closed | 503 and `Retry-After`, no challenge | 14 `UNAVAILABLE` |
//!
//! All carry `Cache-Control: no-store`, and the [`Rejection`] in their extensions.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};

use crate::config::ConfigError;
use crate::mirror::chance;
use crate::policy::{Rejection, RejectionKind};
use crate::store::StoreErrorKind;
use crate::token::TokenErrorKind;
use crate::token::bearer::{self, TokenSource};

/// Default of [`JwtRevocationLayer::with_realm`](crate::JwtRevocationLayer::with_realm).
pub(super) const DEFAULT_REALM: &str = "api";
/// Default of
/// [`JwtRevocationLayer::with_retry_after`](crate::JwtRevocationLayer::with_retry_after): as long
/// as a failover or a reconnect takes when all goes well. Longer would keep clients out after the
/// store is back.
pub(super) const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Over how long clients are spread that come back to a store that settles.
const SETTLING_SPREAD: Duration = Duration::from_secs(2);

/// The code of gRPC for a token that is not accepted.
const UNAUTHENTICATED: &str = "16";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Makes the body of a refusal. `R` is the body type of the service.
///
/// Implemented by `()`, which leaves the body empty, [`ProblemJson`] and by closures
/// `Fn(&Rejection, &mut Parts) -> R`. The head is complete: it has status, challenge, `Retry-After`
/// and `Cache-Control`. They can be changed, for example for a redirect to a login page. The
/// [`Rejection`] is put into the extensions afterwards, so it cannot get lost.
///
/// ```
/// use http::header::{CONTENT_TYPE, HeaderValue};
/// use http::response::Parts;
/// use tower_jwt_revocation::Rejection;
///
/// let html = |_: &Rejection, head: &mut Parts| {
///     head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
///     String::from("<p>Please <a href=/login>sign in</a>.</p>")
/// };
/// # fn check(_: impl tower_jwt_revocation::middleware::RejectionResponse<String>) {}
/// # check(html);
/// ```
pub trait RejectionResponse<R>: Send + Sync + 'static {
    /// The body for an HTTP client.
    ///
    /// Tell the client no more than the status does. A body that tells a revoked token from a
    /// forged one helps a thief.
    fn body(&self, rejection: &Rejection, head: &mut Parts) -> R;

    /// A body without content: a gRPC refusal is all in the head ("trailers-only").
    fn empty(&self) -> R;
}

/// Gives refusals a problem document as body (RFC 9457, `application/problem+json`), for any body
/// type with `From<Bytes>`.
///
/// It says what the status line and the challenge say, and nothing of the token.
#[doc(alias = "RFC 7807")]
#[doc(alias = "RFC 9457")]
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "to be named where it is used")]
pub struct ProblemJson;

/// Refusals without a body: the head says it all. The default.
impl<R: Default> RejectionResponse<R> for () {
    fn body(&self, _: &Rejection, _: &mut Parts) -> R {
        R::default()
    }

    fn empty(&self) -> R {
        R::default()
    }
}

impl<R: From<Bytes>> RejectionResponse<R> for ProblemJson {
    fn body(&self, rejection: &Rejection, head: &mut Parts) -> R {
        head.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let row = Row::of(rejection.kind());
        // RFC 9457 §4.2.1: without a `type` the title is that of the status. All three are plain
        // ASCII.
        let title = row.status.canonical_reason().unwrap_or("Refused");
        let body = format!(
            r#"{{"title":"{title}","status":{},"detail":"{}"}}"#,
            row.status.as_u16(),
            row.message
        );
        Bytes::from(body).into()
    }

    fn empty(&self) -> R {
        Bytes::new().into()
    }
}

impl<R, F> RejectionResponse<R> for F
where
    F: Fn(&Rejection, &mut Parts) -> R + Send + Sync + 'static,
    R: Default,
{
    fn body(&self, rejection: &Rejection, head: &mut Parts) -> R {
        self(rejection, head)
    }

    fn empty(&self) -> R {
        R::default()
    }
}

/// One row of the table.
struct Row {
    status: StatusCode,
    challenge: Option<Challenge>,
    grpc_status: &'static str,
    /// For people, without any character that JSON or `grpc-message` would have to escape.
    message: &'static str,
}

/// The forms of the challenge (RFC 6750 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Challenge {
    Plain,
    InvalidRequest,
    InvalidToken,
    /// The same with a description, always.
    InDoubt,
}

impl Row {
    fn of(kind: RejectionKind) -> Self {
        const UNAVAILABLE: &str = "14";
        match kind {
            RejectionKind::NoCredentials => Self {
                status: StatusCode::UNAUTHORIZED,
                challenge: Some(Challenge::Plain),
                grpc_status: UNAUTHENTICATED,
                message: "an access token is required",
            },
            RejectionKind::BadRequest => Self {
                status: StatusCode::BAD_REQUEST,
                challenge: Some(Challenge::InvalidRequest),
                grpc_status: UNAUTHENTICATED,
                message: "the credentials are malformed or ambiguous",
            },
            RejectionKind::InvalidToken(_) | RejectionKind::Revoked(_) => Self {
                status: StatusCode::UNAUTHORIZED,
                challenge: Some(Challenge::InvalidToken),
                grpc_status: UNAUTHENTICATED,
                message: "the access token is not accepted",
            },
            RejectionKind::InDoubt => Self {
                status: StatusCode::UNAUTHORIZED,
                challenge: Some(Challenge::InDoubt),
                grpc_status: UNAUTHENTICATED,
                message: IN_DOUBT,
            },
            RejectionKind::StandingUnknown(_) | RejectionKind::NoKeys => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                challenge: None,
                grpc_status: UNAVAILABLE,
                message: "the access token cannot be checked at the moment",
            },
        }
    }
}

/// Every client is told this: it is about the store and not about the token, and a client that does
/// not know it would ask the user to wait.
const IN_DOUBT: &str =
    "Tokens issued before a loss of data cannot be checked any more. Sign in again";

/// The `error_description` of a rejection, for layers that send one. RFC 6750 §3: no
/// `"`, no `\`, ASCII.
fn description(kind: RejectionKind) -> Option<&'static str> {
    Some(match kind {
        RejectionKind::NoCredentials
        | RejectionKind::StandingUnknown(_)
        | RejectionKind::NoKeys => {
            return None;
        }
        RejectionKind::InDoubt => IN_DOUBT,
        RejectionKind::BadRequest => "The credentials are malformed or ambiguous",
        RejectionKind::Revoked(_) => "The access token was revoked",
        RejectionKind::InvalidToken(TokenErrorKind::Expired) => "The access token expired",
        RejectionKind::InvalidToken(
            TokenErrorKind::NotYetValid | TokenErrorKind::IssuedInFuture,
        ) => "The access token is not valid yet",
        RejectionKind::InvalidToken(TokenErrorKind::UnprovenKey) => "Invalid key binding",
        RejectionKind::InvalidToken(_) => "The access token is invalid",
    })
}

/// The trailers of a response in gRPC that ends early.
pub(super) fn grpc_trailers(kind: RejectionKind) -> HeaderMap {
    let row = Row::of(kind);
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(row.grpc_status));
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(row.message));
    trailers
}

/// The heads of refusals, and the maker of their bodies.
pub(super) struct RefusalBuilder<A> {
    pub(super) heads: Arc<RefusalHeads>,
    pub(super) body: Arc<A>,
}

impl<A> RefusalBuilder<A> {
    /// The refusal of `request`, in the memory of its fields: an answer has few.
    pub(super) fn refuse<B, R>(&self, rejection: Rejection, mut request: Request<B>) -> Response<R>
    where
        A: RejectionResponse<R>,
    {
        let kind = rejection.kind();
        let content_type = grpc_content_type(request.headers());
        let comes_by_dpop = self.heads.takes_dpop && bearer::has_dpop(request.headers());
        let mut head = empty_head();
        head.headers = mem::take(request.headers_mut());
        head.headers.clear();
        head.extensions = mem::take(request.extensions_mut());
        head.extensions.clear();
        let body = if let Some(content_type) = content_type {
            self.heads.write_grpc(&mut head, kind, content_type);
            self.body.empty()
        } else {
            self.heads.write_http(&mut head, kind, comes_by_dpop);
            self.body.body(&rejection, &mut head)
        };
        let mut response = Response::from_parts(head, body);
        response.extensions_mut().insert(rejection);
        response
    }
}

impl<A> RefusalBuilder<A> {
    /// A response as it is, unless an extractor has refused: then with the body of this layer.
    #[cfg_attr(
        not(feature = "axum"),
        allow(clippy::unused_self, reason = "there are extractors for axum only")
    )]
    pub(super) fn reformed<R>(&self, response: Response<R>) -> Response<R>
    where
        A: RejectionResponse<R>,
    {
        #[cfg(feature = "axum")]
        if let Some(rejection) = super::extract::unformed(response.extensions()) {
            let (mut head, _) = response.into_parts();
            head.headers.remove(header::CONTENT_LENGTH);
            let body = self.body.body(&rejection, &mut head);
            head.extensions.insert(rejection);
            return Response::from_parts(head, body);
        }
        response
    }
}

/// The content type of the answer, if the client speaks gRPC: by the content type of the request,
/// which gRPC demands.
///
/// gRPC-Web is answered in the same way with its own content type: its clients read a status in the
/// head too, but some (connect-go) only under the content type that they sent.
fn grpc_content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    const GRPC: &[u8] = b"application/grpc";
    let value = headers.get(header::CONTENT_TYPE)?;
    let (start, rest) = value.as_bytes().split_at_checked(GRPC.len())?;
    if !start.eq_ignore_ascii_case(GRPC) {
        return None;
    }
    let ends = |rest: &[u8]| matches!(rest.first(), None | Some(b';' | b'+' | b' ' | b'\t'));
    if ends(rest) {
        return Some(HeaderValue::from_static("application/grpc"));
    }
    let web = [&b"-web-text"[..], b"-web"].into_iter().find(|web| {
        rest.split_at_checked(web.len())
            .is_some_and(|(start, rest)| start.eq_ignore_ascii_case(web) && ends(rest))
    });
    web.map(|_| value.clone())
}

/// What the heads of refusals are made from. Every value was checked when it was set.
#[derive(Clone, Debug)]
pub(super) struct RefusalHeads {
    /// `Bearer` and the parameters that every challenge has: realm and metadata.
    base: String,
    /// Whether credentials of the scheme `Bearer`, and of `DPoP`, are taken.
    takes_bearer: bool,
    takes_dpop: bool,
    realm: Box<str>,
    resource_metadata: Option<Box<str>>,
    plain: HeaderValue,
    invalid_request: HeaderValue,
    invalid_token: HeaderValue,
    in_doubt: HeaderValue,
    describes: bool,
    retry_least: Duration,
    retry_after: HeaderValue,
    retry_pushback: HeaderValue,
}

impl RefusalHeads {
    pub(super) fn new() -> Self {
        let mut heads = Self {
            base: String::new(),
            takes_bearer: true,
            takes_dpop: false,
            realm: DEFAULT_REALM.into(),
            resource_metadata: None,
            plain: HeaderValue::from_static(""),
            invalid_request: HeaderValue::from_static(""),
            invalid_token: HeaderValue::from_static(""),
            in_doubt: HeaderValue::from_static(""),
            describes: false,
            retry_least: DEFAULT_RETRY_AFTER,
            retry_after: HeaderValue::from_static("0"),
            retry_pushback: HeaderValue::from_static("0"),
        };
        heads.set_retry_after(DEFAULT_RETRY_AFTER);
        heads.write();
        heads
    }

    pub(super) fn set_realm(&mut self, realm: &str) -> Result<(), ConfigError> {
        if realm.is_empty() || !realm.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let problem = "must be one or more printable ASCII characters; name the protected \
                area, such as `orders`";
            return Err(ConfigError::new("realm", problem));
        }
        self.realm = realm.into();
        self.write();
        Ok(())
    }

    pub(super) fn set_resource_metadata(&mut self, url: &str) -> Result<(), ConfigError> {
        let is_plain = url
            .bytes()
            .all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\' | b'#'));
        let parsed = url.parse::<Uri>().ok().filter(|uri| is_plain && uri.host().is_some());
        let is_local = |uri: &Uri| matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let is_good = |uri: &Uri| match uri.scheme_str() {
            Some("https") => true,
            Some("http") => is_local(uri),
            _ => false,
        };
        if !parsed.is_some_and(|uri| is_good(&uri)) {
            let problem = "must be an absolute https URL without fragment, such as \
                           `https://api.example/.well-known/oauth-protected-resource` (RFC 9728); \
                           http only on localhost";
            return Err(ConfigError::new("resource_metadata", problem));
        }
        self.resource_metadata = Some(url.into());
        self.write();
        Ok(())
    }

    /// Which schemes a client can use. Cookies have none, and are challenged as `Bearer`.
    pub(super) fn set_schemes(&mut self, sources: &[TokenSource]) {
        self.takes_dpop = sources.iter().any(TokenSource::is_dpop);
        self.takes_bearer = !self.takes_dpop || sources.iter().any(TokenSource::is_bearer);
    }

    pub(super) fn set_describes(&mut self) {
        self.describes = true;
    }

    pub(super) fn set_retry_after(&mut self, after: Duration) {
        self.retry_least = after;
        self.retry_after = retry_after(after, Duration::ZERO);
        self.retry_pushback = retry_pushback(after);
    }

    fn write(&mut self) {
        let mut base = format!("Bearer realm=\"{}\"", escaped(&self.realm));
        if let Some(url) = &self.resource_metadata {
            base.push_str(", resource_metadata=\"");
            base.push_str(url);
            base.push('"');
        }
        self.plain = unshared(base.clone());
        self.invalid_request = unshared(format!("{base}, error=\"invalid_request\""));
        self.invalid_token = unshared(format!("{base}, error=\"invalid_token\""));
        self.in_doubt = field(described(&base, "invalid_token", IN_DOUBT));
        self.base = base;
    }

    /// The head of a refusal of a request whose credentials are of the scheme `DPoP`, or not.
    #[cfg(any(feature = "axum", test))]
    pub(super) fn http_head(&self, kind: RejectionKind, comes_by_dpop: bool) -> Parts {
        let mut head = empty_head();
        self.write_http(&mut head, kind, comes_by_dpop);
        head
    }

    fn write_http(&self, head: &mut Parts, kind: RejectionKind, comes_by_dpop: bool) {
        let row = Row::of(kind);
        head.status = row.status;
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match row.challenge {
            Some(challenge) if self.takes_dpop => {
                self.add_challenges(&mut head.headers, challenge, kind, comes_by_dpop);
            }
            Some(challenge) => {
                head.headers.insert(header::WWW_AUTHENTICATE, self.challenge(challenge, kind));
            }
            None => {
                let after = match settling_delay(kind) {
                    None => self.retry_after.clone(),
                    Some(delay) => retry_after(self.retry_least, delay),
                };
                head.headers.insert(header::RETRY_AFTER, after);
            }
        }
    }

    /// One challenge for each scheme, each in a field of its own, as not all clients can tell
    /// several in one apart. What is wrong stands in that of the scheme that was used (RFC 9449
    /// §7.2).
    #[cold]
    fn add_challenges(
        &self,
        headers: &mut HeaderMap,
        challenge: Challenge,
        kind: RejectionKind,
        comes_by_dpop: bool,
    ) {
        let by_dpop = comes_by_dpop || !self.takes_bearer;
        let told = self.challenge(challenge, kind);
        let (bearer, dpop) =
            if by_dpop { (self.plain.clone(), told) } else { (told, self.plain.clone()) };
        let dpop = dpop.to_str().unwrap_or_default().replacen("Bearer", "DPoP", 1);
        for challenge in self.takes_bearer.then_some(bearer).into_iter().chain([field(dpop)]) {
            headers.append(header::WWW_AUTHENTICATE, challenge);
        }
    }

    #[inline]
    fn challenge(&self, challenge: Challenge, kind: RejectionKind) -> HeaderValue {
        let known = match challenge {
            Challenge::Plain => &self.plain,
            Challenge::InvalidRequest => &self.invalid_request,
            Challenge::InvalidToken => &self.invalid_token,
            Challenge::InDoubt => return self.in_doubt.clone(),
        };
        match description(kind).filter(|_| self.describes) {
            None => known.clone(),
            Some(text) => {
                let code = if challenge == Challenge::InvalidRequest {
                    "invalid_request"
                } else {
                    "invalid_token"
                };
                field(described(&self.base, code, text))
            }
        }
    }

    fn write_grpc(&self, head: &mut Parts, kind: RejectionKind, content_type: HeaderValue) {
        let row = Row::of(kind);
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        head.headers.insert(header::CONTENT_TYPE, content_type);
        head.headers.insert(GRPC_STATUS, HeaderValue::from_static(row.grpc_status));
        let message = description(kind).filter(|_| self.describes).unwrap_or(row.message);
        head.headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
        if row.challenge.is_none() {
            let pushback = match settling_delay(kind) {
                None => self.retry_pushback.clone(),
                Some(delay) => retry_pushback(self.retry_least.saturating_add(delay)),
            };
            head.headers.insert(GRPC_RETRY_PUSHBACK, pushback);
        }
    }
}

/// While a store settles every client is refused, and all of them at once. So they come back spread
/// over some time.
fn settling_delay(kind: RejectionKind) -> Option<Duration> {
    let is_settling = kind == RejectionKind::StandingUnknown(StoreErrorKind::Settling);
    is_settling.then(|| SETTLING_SPREAD.mul_f64(chance()))
}

/// RFC 9110 §10.2.3 knows whole seconds only: rounded up, so that no client comes early.
fn retry_after(least: Duration, delay: Duration) -> HeaderValue {
    let secs = least.as_secs().saturating_add(u64::from(least.subsec_nanos() > 0));
    secs.saturating_add(delay.saturating_add(Duration::from_millis(500)).as_secs()).into()
}

/// gRPC clients read a signed 32-bit number.
fn retry_pushback(after: Duration) -> HeaderValue {
    i32::try_from(after.as_millis()).unwrap_or(i32::MAX).into()
}

/// A challenge with a code and a text.
fn described(base: &str, code: &str, text: &str) -> String {
    format!("{base}, error=\"{code}\", error_description=\"{text}\"")
}

/// With status 200.
fn empty_head() -> Parts {
    Response::new(()).into_parts().0
}

/// The content of a quoted-string (RFC 9110 §5.6.4).
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|char| matches!(char, '"' | '\\').then_some('\\').into_iter().chain([char]))
        .collect()
}

/// The challenge that most layers make, as constants: a clone of any other value counts its
/// references, and in a flood of refusals all threads would contend for that count.
const USUAL: [&str; 3] = [
    r#"Bearer realm="api""#,
    r#"Bearer realm="api", error="invalid_request""#,
    r#"Bearer realm="api", error="invalid_token""#,
];

fn unshared(text: String) -> HeaderValue {
    let usual = USUAL.iter().find(|usual| **usual == text);
    usual.map_or_else(|| field(text), |usual| HeaderValue::from_static(usual))
}

/// All parts are printable ASCII, checked when they were set. Should that ever fail, a bare
/// challenge is still one.
fn field(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

#[cfg(test)]
mod tests;
