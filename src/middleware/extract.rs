//! Extractors for axum: [`Clearance`] and [`Claims`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{Extensions, HeaderName, HeaderValue, StatusCode, header};
use serde::de::DeserializeOwned;

#[cfg(doc)]
use super::JwtRevocationLayer;
use super::response::RefusalHeads;
use crate::counters::Counters;
use crate::gate::SkipReason;
use crate::policy::{Clearance, Rejection};
use crate::store::{StoreError, StoreErrorKind};
use crate::token::{TokenError, TokenErrorKind, bearer};

/// The claims of the verified token, as a type of yours.
///
/// ```
/// # use serde::Deserialize;
/// use tower_jwt_revocation::middleware::Claims;
///
/// #[derive(Deserialize)]
/// struct Mine {
///     role: String,
/// }
///
/// async fn handler(Claims(mine): Claims<Mine>) -> String {
///     mine.role
/// }
/// ```
///
/// `Option<Claims<T>>` is `None` if the request passed without a token. A token whose claims do not
/// fit the type is refused as an invalid token (401), also with `Option`. The refusal has the
/// [form](JwtRevocationLayer::with_response) of the layer, and is counted
/// ([`CounterSnapshot::misfits`](crate::counters::CounterSnapshot::misfits)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "to be taken apart in the arguments of handlers")]
pub struct Claims<T>(pub T);

/// Why a handler that wants a [`Clearance`] or [`Claims`] was not called.
#[derive(Clone, Debug)]
pub struct ExtractError {
    why: Why,
    /// Whether the credentials are of the scheme `DPoP`: what is wrong then stands in the challenge
    /// of that scheme (RFC 9449 §7.2).
    comes_by_dpop: bool,
}

#[derive(Clone, Debug)]
enum Why {
    /// No layer ran: the route is not behind one. 500, for the developer.
    NoLayer,
    /// The layer was told not to ask, on a route whose handler wants to know. 500, for the
    /// developer.
    NotAsked,
    /// The handler wants a token that the layer did not insist on. Answered as the layer would
    /// have.
    Refused(Arc<RefusalHeads>, Rejection),
}

/// Left by the layer in requests that pass without a clearance.
#[derive(Clone)]
struct Uncleared(Why);

/// Left in a response that refuses: whoever makes the bodies of refusals has not seen it.
#[derive(Clone)]
struct Unformed(Rejection);

/// The rejection of a response that an extractor has made.
pub(super) fn unformed(extensions: &Extensions) -> Option<Rejection> {
    extensions.get::<Unformed>().map(|unformed| unformed.0.clone())
}

pub(super) fn forget(extensions: &mut Extensions) {
    extensions.remove::<Uncleared>();
}

// === Layers ===

/// A layer as the extractors know it: by a number in the [`Clearance`], so that a request whose
/// claims fit costs nothing for those whose claims do not.
pub(super) struct KnownLayer(u32);

struct KnownLayers {
    next: u32,
    by_number: BTreeMap<u32, LayerRefusals>,
    /// Those that have no service any more, the latest last. Their requests may be under way.
    gone: VecDeque<u32>,
}

struct LayerRefusals {
    heads: Arc<RefusalHeads>,
    counters: Counters,
    services: usize,
}

/// So many layers without a service are remembered.
const MOST_GONE: usize = 64;

static LAYERS: RwLock<KnownLayers> =
    RwLock::new(KnownLayers { next: 1, by_number: BTreeMap::new(), gone: VecDeque::new() });

impl KnownLayer {
    /// For one service. Those of one layer have one number.
    pub(super) fn new(heads: &Arc<RefusalHeads>, counters: &Counters) -> Self {
        let mut layers = LAYERS.write().unwrap_or_else(PoisonError::into_inner);
        let known = layers.by_number.iter_mut().find(|(_, layer)| {
            Arc::ptr_eq(&layer.heads, heads) && layer.counters.is_same(counters)
        });
        if let Some((number, layer)) = known {
            layer.services += 1;
            return Self(*number);
        }
        // Numbers come again after four billion layers; some may still be in use then.
        while layers.next == 0 || layers.by_number.contains_key(&layers.next) {
            layers.next = layers.next.wrapping_add(1);
        }
        let number = layers.next;
        let (heads, counters) = (Arc::clone(heads), counters.clone());
        layers.by_number.insert(number, LayerRefusals { heads, counters, services: 1 });
        layers.next = number.wrapping_add(1);
        Self(number)
    }

    pub(super) fn number(&self) -> u32 {
        self.0
    }

    /// Counts the misfit, and says with which heads it is refused.
    fn count_misfit(number: u32) -> Option<Arc<RefusalHeads>> {
        let layers = LAYERS.read().unwrap_or_else(PoisonError::into_inner);
        let layer = layers.by_number.get(&number)?;
        layer.counters.count_misfit();
        Some(Arc::clone(&layer.heads))
    }
}

impl Drop for KnownLayer {
    fn drop(&mut self) {
        let mut layers = LAYERS.write().unwrap_or_else(PoisonError::into_inner);
        let Some(layer) = layers.by_number.get_mut(&self.0) else { return };
        layer.services -= 1;
        if layer.services > 0 {
            return;
        }
        layers.gone.push_back(self.0);
        if layers.gone.len() > MOST_GONE
            && let Some(oldest) = layers.gone.pop_front()
            && layers.by_number.get(&oldest).is_some_and(|layer| layer.services == 0)
        {
            layers.by_number.remove(&oldest);
        }
    }
}

pub(super) fn mark_skipped(
    extensions: &mut Extensions,
    heads: &Arc<RefusalHeads>,
    reason: SkipReason,
) {
    extensions.insert(Uncleared(match reason {
        SkipReason::Anonymous => Why::Refused(Arc::clone(heads), Rejection::NoCredentials),
        SkipReason::Exempt | SkipReason::Preflight => Why::NotAsked,
    }));
}

pub(super) fn mark_reported(
    extensions: &mut Extensions,
    heads: &Arc<RefusalHeads>,
    rejection: &Rejection,
) {
    extensions.insert(Uncleared(Why::Refused(Arc::clone(heads), rejection.clone())));
}

fn clearance(parts: &Parts) -> Result<&Clearance, ExtractError> {
    parts.extensions.get::<Clearance>().ok_or_else(|| {
        let uncleared = parts.extensions.get::<Uncleared>();
        ExtractError::of(parts, uncleared.map_or(Why::NoLayer, |uncleared| uncleared.0.clone()))
    })
}

/// As [`clearance`], but to pass without one is fine where a layer let the request do so.
fn optional(parts: &Parts) -> Result<Option<&Clearance>, ExtractError> {
    match clearance(parts) {
        Ok(clearance) => Ok(Some(clearance)),
        Err(error) if matches!(error.why, Why::NoLayer) => Err(error),
        Err(_) => Ok(None),
    }
}

fn claims<T: DeserializeOwned>(
    parts: &Parts,
    clearance: &Clearance,
) -> Result<Claims<T>, ExtractError> {
    clearance.token().claims().map(Claims).map_err(|error| {
        // The cause is not kept: serde quotes what it found, and that is part of the token.
        let claim = clearance.token().misfit::<T>();
        tracing::debug!(category = ?error.classify(), claim, "the claims do not fit the \
            type that the handler wants");
        let error = TokenError::new(
            TokenErrorKind::OddClaim,
            "the claims do not fit the type that the handler wants",
        );
        let heads = KnownLayer::count_misfit(clearance.layer());
        let heads = heads.unwrap_or_else(|| Arc::new(RefusalHeads::new()));
        ExtractError::of(parts, Why::Refused(heads, Rejection::from(error)))
    })
}

impl<S: Sync> FromRequestParts<S> for Clearance {
    type Rejection = ExtractError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ExtractError> {
        clearance(parts).cloned()
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Clearance {
    type Rejection = ExtractError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, ExtractError> {
        Ok(optional(parts)?.cloned())
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Claims<T> {
    type Rejection = ExtractError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ExtractError> {
        claims(parts, clearance(parts)?)
    }
}

impl<S: Sync, T: DeserializeOwned> OptionalFromRequestParts<S> for Claims<T> {
    type Rejection = ExtractError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, ExtractError> {
        optional(parts)?.map(|clearance| claims(parts, clearance)).transpose()
    }
}

impl ExtractError {
    fn of(request: &Parts, why: Why) -> Self {
        Self { why, comes_by_dpop: bearer::has_dpop(&request.headers) }
    }
}

impl IntoResponse for ExtractError {
    fn into_response(self) -> Response {
        match &self.why {
            // What is wrong with the program is nothing for its clients.
            Why::NoLayer | Why::NotAsked => {
                tracing::error!(error = %self, "a handler cannot be called");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            Why::Refused(heads, rejection) => {
                let head = heads.http_head(rejection.kind(), self.comes_by_dpop);
                let mut response = Response::from_parts(head, Body::empty());
                response.extensions_mut().insert(rejection.clone());
                response.extensions_mut().insert(Unformed(rejection.clone()));
                response
            }
        }
    }
}

/// For handlers that write, and answer with the error: 400 if it
/// [is permanent](StoreError::is_permanent), such as a token that has no id to be revoked by; else
/// 503, with `Retry-After` if [repeating](StoreError::may_be_repeated) can help. Without a body;
/// the error goes to the log.
impl IntoResponse for StoreError {
    fn into_response(self) -> Response {
        if self.kind() == StoreErrorKind::Unmatched {
            // Whoever set the application up has to know.
            tracing::warn!(error = %self.chain(), "a request revokes what nobody accepts");
            return (StatusCode::BAD_REQUEST, NO_STORE).into_response();
        }
        if self.is_permanent() {
            tracing::debug!(error = %self.chain(), "a request asks for what cannot be done");
            return (StatusCode::BAD_REQUEST, NO_STORE).into_response();
        }
        tracing::warn!(kind = ?self.kind(), error = %self.chain(),
            "what a handler asked the store for was not confirmed");
        let mut response = (StatusCode::SERVICE_UNAVAILABLE, NO_STORE).into_response();
        if self.may_be_repeated() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

impl fmt::Display for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::NoLayer => f.write_str(
                "the handler wants a verified token, but there is no JwtRevocationLayer around its \
                 route; add it with Router::layer, after the route, and not `without_clearance`",
            ),
            Why::NotAsked => f.write_str(
                "the handler wants a verified token, but the request was exempt; take \
                 Option<Clearance>, or exempt less",
            ),
            Why::Refused(_, rejection) => rejection.fmt(f),
        }
    }
}

impl std::error::Error for ExtractError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::Refused(_, rejection) => rejection.source(),
            Why::NoLayer | Why::NotAsked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use crate::token::TokenProfile;
    use crate::token::profile::SignedClaims;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "it is only deserialized")]
    struct Mine {
        address: Option<Address>,
        #[serde(default)]
        roles: Vec<String>,
        #[serde(default)]
        limits: BTreeMap<String, u8>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "it is only deserialized")]
    struct Address {
        street: String,
    }

    #[test]
    fn of_what_does_not_fit_a_type_the_claim_is_named_and_nothing_in_it() {
        let misfit = |more: &str| {
            let claims = format!(r#"{{"jti":"1","iat":1000,"exp":2000{more}}}"#);
            let claims = SignedClaims::new(claims.as_bytes());
            let token = TokenProfile::new().assert_verified_for_revocation(claims).unwrap();
            token.misfit::<Mine>()
        };
        assert_eq!(misfit(r#","address":{"street":7}"#).as_deref(), Some("address"));
        assert_eq!(misfit(r#","roles":["a",7]"#).as_deref(), Some("roles"));
        assert_eq!(misfit(r#","limits":{"alice@id.example":"x"}"#).as_deref(), Some("limits"));
        assert_eq!(misfit(r#","roles":["a"]"#), None);
    }
}
