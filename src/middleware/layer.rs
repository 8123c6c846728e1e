//! [`JwtRevocationLayer`]: what is decided, and how.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower::Layer;

#[cfg(feature = "axum")]
use super::extract::KnownLayer;
use super::response::{RefusalBuilder, RefusalHeads};
use super::service::JwtRevocation;
use super::state::ServiceState;
use crate::audit::{AuditEvent, AuditSink, AuditTrail};
use crate::config::ConfigError;
use crate::counters::Counters;
use crate::gate::{BoundTokens, Credentials, Enforcement, FailModeRule, Gate, Preflight};
use crate::metrics::Metrics;
use crate::policy::{self, Clearance, FailMode, Readiness, Rejection};
use crate::revoker::{LeastLifetime, Revoker};
use crate::store::{Needs, RevocationStore};
use crate::token::bearer::{RequestHead, TokenSource};
use crate::token::{TokenVerifier, UpstreamClaims};
use crate::verified::VerifiedToken;

/// Lets a request pass only with a token that is valid and not revoked.
///
/// A request passes when
/// 1. it has one token, in `Authorization: Bearer …`;
/// 2. the verifier accepts it: signature, times, issuer, audience and all other claims;
/// 3. the store knows that none of its targets is revoked.
///
/// It then has a [`Clearance`](crate::Clearance) in its extensions. Every other request is answered
/// here:
///
/// | situation | HTTP | gRPC |
/// | --- | --- | --- |
/// | no credentials | 401 | `UNAUTHENTICATED` |
/// | unreadable or ambiguous credentials | 400 | `UNAUTHENTICATED` |
/// | invalid, expired or revoked token | 401 | `UNAUTHENTICATED` |
/// | the store gives no answer | 503, [or pass](FailMode::Open) | `UNAVAILABLE`, or pass |
/// | the store has lost revocations, and the token was issued before the loss | 401, [or pass](FailMode::Open) | `UNAUTHENTICATED`, or pass |
///
/// The answer has the [`Rejection`](crate::Rejection) in its extensions, for layers further out.
/// Clients learn no more than the status and a standard challenge.
///
/// ```
/// # use http::{Request, Response, StatusCode};
/// # use std::{convert::Infallible, sync::Arc};
/// # use tower::{Layer as _, ServiceExt as _, service_fn};
/// use tower_jwt_revocation::{JwtRevocationLayer, MemoryStore};
/// # use tower_jwt_revocation::token::{TokenError, TokenVerifier};
/// # use tower_jwt_revocation::{TokenProfile, VerifiedToken};
/// # struct NoOne(TokenProfile);
/// # impl TokenVerifier for NoOne {
/// #     fn verify(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> { unreachable!() }
/// #     fn verify_for_revocation(&self, _: &str) -> Result<Arc<VerifiedToken>, TokenError> {
/// #         unreachable!()
/// #     }
/// #     fn profile(&self) -> &TokenProfile { &self.0 }
/// #     fn generation(&self) -> u64 { 0 }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let verifier = NoOne(TokenProfile::new());
/// let layer = JwtRevocationLayer::new(verifier, MemoryStore::new());
/// let revoker = layer.revoker(); // the write side, for the logout handler
///
/// # let handler = service_fn(|_: Request<String>| async {
/// #     Ok::<_, Infallible>(Response::new(String::new()))
/// # });
/// let service = layer.layer(handler);
/// let answer = service.oneshot(Request::new(String::new())).await.unwrap();
/// assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
/// # }
/// ```
///
/// # Which services it wraps
/// It wraps any `Service<Request<B>, Response = Response<R>>` that is `Clone`, with any bodies `B`
/// and `R: Default` (see [`with_response`](Self::with_response)) and any error. It needs `Clone`
/// because the service waits with its request while the store is asked, and a clone takes its place
/// meanwhile. Routers, hyper and tonic need it as well. `tower::buffer::Buffer` makes any service
/// `Clone`. If the compiler says that `Service` is not implemented for [`JwtRevocation`], the inner
/// service is not `Clone`.
///
/// # Order of layers
/// Put CORS outside of this layer: it answers preflights, which have no credentials, and lets
/// browsers read refusals. Put tracing outside, time limits and concurrency limits on either side.
#[doc(alias = "auth middleware")]
#[doc(alias = "denylist")]
#[doc(alias = "blocklist")]
#[doc(alias = "blacklist")]
#[must_use = "a layer does nothing until it is put around a service"]
pub struct JwtRevocationLayer<A = ()> {
    pub(super) gate: Gate,
    heads: Arc<RefusalHeads>,
    body: Arc<A>,
    leaves_clearance: bool,
    /// Whether bodies of refusals are made by something else than the default.
    has_form: bool,
    /// Of the records that its revokers write.
    least_lifetime: LeastLifetime,
}

impl JwtRevocationLayer {
    /// A layer that passes a token only if `verifier` accepts it and `store` knows that it is live.
    ///
    /// Both can be given as they are or in an [`Arc`], also as `Arc<dyn …>`.
    pub fn new(verifier: impl TokenVerifier, store: impl RevocationStore) -> Self {
        Self {
            gate: Gate::new(Arc::new(verifier), Arc::new(store)),
            heads: Arc::new(RefusalHeads::new()),
            body: Arc::new(()),
            leaves_clearance: true,
            has_form: false,
            least_lifetime: LeastLifetime::default(),
        }
    }

    /// A layer behind another one that verifies tokens. It passes a token only if `store` knows
    /// that it is live. It takes the verified claims from where `claims` finds them; token sources
    /// have no effect.
    ///
    /// # Security
    /// See [`UpstreamClaims`]. Put this layer *inside* of the one that verifies; outside of it, it
    /// refuses everything.
    pub fn behind(claims: UpstreamClaims, store: impl RevocationStore) -> Self {
        if store.needs() != Needs::Claims {
            tracing::error!(
                "the store has lists of tokens as they are presented, and behind another layer no \
                 token is seen: no check will succeed"
            );
        }
        let mut layer = Self::new(claims.rules(), store);
        layer.gate.upstream = Some(claims);
        layer
    }
}

impl<A> JwtRevocationLayer<A> {
    /// What happens to verified tokens while the store gives no answer. Default:
    /// [`FailMode::Closed`], which never lets a revoked token in. Replaces
    /// [`with_fail_mode_for`](Self::with_fail_mode_for).
    ///
    /// # Security
    /// With [`FailMode::Open`], revoked tokens work while the store is out of reach, until they
    /// expire. Such requests are counted
    /// ([`CounterSnapshot::admitted_unchecked`](crate::counters::CounterSnapshot::admitted_unchecked)),
    /// the change is logged as a warning, and handlers can tell them by
    /// [`Clearance::is_checked`](crate::Clearance::is_checked).
    pub fn with_fail_mode(mut self, mode: FailMode) -> Self {
        self.gate.fail_mode = FailModeRule::Always(mode);
        self
    }

    /// What happens while the store gives no answer, chosen for each request. For example, reads go
    /// on and writes do not, or customers go on and staff do not (by the
    /// [issuer](VerifiedToken::issuer) of the token). Only requests with a verified token are asked
    /// about. Replaces [`with_fail_mode`](Self::with_fail_mode).
    ///
    /// The closure is called for each such request before the store is asked, also while the store
    /// works. So it must be quick and must not block.
    ///
    /// To choose by route, give some routes a clone of this layer with another
    /// [`with_fail_mode`](Self::with_fail_mode). The clone shares everything else.
    ///
    /// # Security
    /// As [`with_fail_mode`](Self::with_fail_mode). Decide by what an attacker cannot choose
    /// freely: a method or the route is better than a path, a path is better than a header. axum's
    /// `Router::nest` takes its prefix away from [`uri`](RequestHead::uri), so `/api/payments` and
    /// `/payments` look alike there. Use `RequestHead::matched_path` or `path` (feature `axum`).
    ///
    /// ```
    /// # use tower_jwt_revocation::{FailMode, JwtRevocationLayer};
    /// # fn f(layer: JwtRevocationLayer) -> JwtRevocationLayer {
    /// layer.with_fail_mode_for(|head, _token| {
    ///     if head.method().is_safe() { FailMode::Open } else { FailMode::Closed }
    /// })
    /// # }
    /// ```
    pub fn with_fail_mode_for(
        mut self,
        mode: impl Fn(&RequestHead<'_>, &VerifiedToken) -> FailMode + Send + Sync + 'static,
    ) -> Self {
        self.gate.fail_mode = FailModeRule::PerRequest(Arc::new(mode));
        self
    }

    /// The one place where the token is. Default: [`TokenSource::bearer`], the place that RFC 6750
    /// §2.1 wants every server to support.
    pub fn with_token_source(self, source: TokenSource) -> Self {
        self.with_token_sources([source])
    }

    /// All the places where the token may be. A request with two different tokens in two places is
    /// refused. With an empty list, no request has credentials.
    pub fn with_token_sources(mut self, sources: impl IntoIterator<Item = TokenSource>) -> Self {
        let sources: Vec<_> = sources.into_iter().collect();
        Arc::make_mut(&mut self.heads).set_schemes(&sources);
        self.gate.set_sources(sources);
        self
    }

    /// Lets requests without credentials pass, without a [`Clearance`](crate::Clearance).
    /// Credentials that are there must still be good: bad ones are refused, not ignored.
    ///
    /// # Security
    /// The handler decides who may do what without a token: it must look for the `Clearance`.
    pub fn with_optional_credentials(mut self) -> Self {
        self.gate.credentials = Credentials::Optional;
        self
    }

    /// Lets the requests pass for which `exempts` is true: no token is looked for, nothing is
    /// verified or asked, and there is no [`Clearance`](crate::Clearance). Replaces an earlier
    /// exemption.
    ///
    /// # Security
    /// Where you can, leave the layer off such routes instead: add them to the router after it.
    /// Compare whole routes or paths: the client chooses what comes after a prefix, and routers may
    /// read `//`, `%2e` and `..` differently. Compare what the client has asked for: inside of
    /// `Router::nest("/admin", …)` of axum, [`uri`](RequestHead::uri) is `/health` for
    /// `/admin/health`, so an exemption of the one exempts the other. `RequestHead::matched_path`
    /// and `path` (feature `axum`) keep the prefix.
    ///
    /// ```
    /// # use tower_jwt_revocation::JwtRevocationLayer;
    /// # #[cfg(feature = "axum")]
    /// # fn f(layer: JwtRevocationLayer) -> JwtRevocationLayer {
    /// layer.with_exemption(|head| head.matched_path() == Some("/health"))
    /// # }
    /// ```
    #[doc(alias = "skip")]
    #[doc(alias = "public routes")]
    pub fn with_exemption(
        mut self,
        exempts: impl Fn(&RequestHead<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.gate.exemption = Some(Arc::new(exempts));
        self
    }

    /// Accepts tokens that are bound to a key of the client (`cnf`, RFC 7800), if `has_key` finds
    /// that the client has it. Default: they are refused. Replaces
    /// [`allow_bound_tokens_as_bearer`](Self::allow_bound_tokens_as_bearer).
    ///
    /// Another layer, further out, verifies the proof and leaves the key in the extensions of the
    /// request. That is the certificate of the connection (mTLS, RFC 8705 §3), or the thumbprint of
    /// the key of a verified DPoP proof (RFC 9449 §4.3). `has_key` compares it with
    /// [`VerifiedToken::confirmation`], and must be quick. It is called for bound tokens only,
    /// after they are verified. A token that DPoP binds must be presented under `DPoP` (RFC 9449
    /// §7.2), so [`TokenSource::dpop`] must be one of the sources. A token that is presented under
    /// `DPoP` must be bound.
    ///
    /// ```
    /// # use tower_jwt_revocation::JwtRevocationLayer;
    /// # use tower_jwt_revocation::token::bearer::TokenSource;
    /// /// Left by the layer that verifies DPoP proofs.
    /// #[derive(Clone)]
    /// struct ProvedKey {
    ///     thumbprint: String,
    /// }
    ///
    /// # fn f(layer: JwtRevocationLayer) -> JwtRevocationLayer {
    /// layer
    ///     .with_token_sources([TokenSource::bearer(), TokenSource::dpop()])
    ///     .with_proof_of_possession(|head, token| {
    ///         let proved = head.extensions().get::<ProvedKey>();
    ///         proved.is_some_and(|key| token.confirmation("jkt") == Some(&key.thumbprint))
    ///     })
    /// # }
    /// ```
    #[doc(alias = "DPoP")]
    #[doc(alias = "mTLS")]
    #[doc(alias = "cnf")]
    #[doc(alias = "sender-constrained")]
    pub fn with_proof_of_possession(
        mut self,
        has_key: impl Fn(&RequestHead<'_>, &VerifiedToken) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.gate.bound_tokens = BoundTokens::Proved(Arc::new(has_key));
        self
    }

    /// Accepts tokens that are bound to a key of the client (`cnf`: DPoP, mTLS) without proof of
    /// the key. Default: they are refused
    /// ([`UnprovenKey`](crate::token::TokenErrorKind::UnprovenKey)). Replaces
    /// [`with_proof_of_possession`](Self::with_proof_of_possession).
    ///
    /// # Security
    /// A stolen token works without its key, unless a layer further in compares
    /// [`VerifiedToken::confirmation`] with what the client proved. RFC 9449 §7.2 allows this only
    /// to a resource that supports no such binding.
    #[doc(alias = "DPoP")]
    #[doc(alias = "mTLS")]
    #[doc(alias = "cnf")]
    pub fn allow_bound_tokens_as_bearer(mut self) -> Self {
        self.gate.bound_tokens = BoundTokens::AllowedAsBearer;
        self
    }

    /// Lets CORS preflights pass: `OPTIONS` with `Origin` and `Access-Control-Request-Method`,
    /// which browsers send without credentials. Needed only if they are answered behind this layer.
    ///
    /// # Security
    /// Anyone can send such a request, with a body too. It reaches whatever answers `OPTIONS`
    /// behind this layer. Never set it in front of something that ignores the method: **tonic**, a
    /// proxy, a handler for `any` method. A CORS layer outside of this one needs no such exception.
    pub fn with_cors_preflight(mut self) -> Self {
        self.gate.preflight = Preflight::Passed;
        self
    }

    /// Refuses nothing and counts what would be refused, to try the layer on live traffic. A
    /// request that would be refused carries the [`Rejection`](crate::Rejection) in its extensions,
    /// and no [`Clearance`](crate::Clearance).
    ///
    /// # Security
    /// Everything passes: no token, forged tokens, revoked tokens.
    #[doc(alias = "dry run")]
    #[doc(alias = "shadow mode")]
    pub fn with_report_only(mut self) -> Self {
        self.gate.enforcement = Enforcement::ReportOnly;
        self
    }

    /// Puts no [`Clearance`](crate::Clearance) into the extensions of a request whose token is
    /// live. It is for services that do not ask who calls, such as a proxy. It saves the three
    /// allocations of [`Extensions`](http::Extensions), about a third of what a check in memory
    /// costs. Default: the clearance is put there.
    ///
    /// A request that passes *unchecked* ([`FailMode::Open`]) still has its clearance.
    ///
    /// # Security
    /// A handler can no longer tell a request with a good token from one that passed without any:
    /// do not combine it with [`with_optional_credentials`](Self::with_optional_credentials),
    /// exemptions or [`with_report_only`](Self::with_report_only) where that matters. The
    /// extractors of axum find nothing, and answer 500.
    ///
    /// ```
    /// # use tower_jwt_revocation::JwtRevocationLayer;
    /// # fn f(layer: JwtRevocationLayer) -> JwtRevocationLayer {
    /// layer.without_clearance()
    /// # }
    /// ```
    pub fn without_clearance(mut self) -> Self {
        self.leaves_clearance = false;
        self
    }

    /// The `realm` of the challenge: which protected area the token is for (RFC 9110 §11.5).
    /// Clients and logs show it. Default: `api`.
    ///
    /// # Errors
    /// If it is empty, or has other than printable ASCII characters.
    pub fn with_realm(mut self, realm: impl AsRef<str>) -> Result<Self, ConfigError> {
        Arc::make_mut(&mut self.heads).set_realm(realm.as_ref())?;
        Ok(self)
    }

    /// Adds the URL of the metadata of this resource to the challenge (RFC 9728 §5.1). Clients find
    /// their authorization server by it. Default: none.
    ///
    /// # Errors
    /// If it is not an absolute `https` URL (or `http` on localhost), or has a fragment.
    pub fn with_resource_metadata(mut self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Arc::make_mut(&mut self.heads).set_resource_metadata(url.as_ref())?;
        Ok(self)
    }

    /// How long clients are to wait after a 503 (`Retry-After`). Default: 1 s, about as long as a
    /// reconnect takes. In HTTP it is rounded up to whole seconds. While the store is
    /// [settling](crate::store::Doubt::Settling), up to two seconds are added at random: all
    /// clients are refused together then, and should not all come back together.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        Arc::make_mut(&mut self.heads).set_retry_after(after);
        self
    }

    /// Tells clients whether their token expired, was revoked or is invalid (`error_description`,
    /// `grpc-message`). Default: they are not told.
    ///
    /// # Security
    /// A person who stole a token learns that the theft was noticed.
    pub fn with_error_descriptions(mut self) -> Self {
        Arc::make_mut(&mut self.heads).set_describes();
        self
    }

    /// What makes the bodies of refusals, such as [`ProblemJson`](super::ProblemJson) or a closure:
    /// see [`RejectionResponse`](super::RejectionResponse). Default: `()`, which makes empty ones.
    /// The extractors of axum refuse in the same form.
    pub fn with_response<A2>(self, response: A2) -> JwtRevocationLayer<A2> {
        let Self { gate, heads, leaves_clearance, least_lifetime, .. } = self;
        JwtRevocationLayer {
            gate,
            heads,
            body: Arc::new(response),
            leaves_clearance,
            has_form: true,
            least_lifetime,
        }
    }

    /// Reports to `sink` the requests that pass unchecked, the requests that are refused for a
    /// revoked token, and all that [`revoker`](Self::revoker) writes. Default: no sink. What a
    /// client brings about again and again is reported [as one
    /// event](crate::audit#what-clients-bring-about).
    pub fn with_audit(mut self, sink: impl AuditSink) -> Self {
        self.gate.set_audit(Arc::new(sink));
        self
    }

    /// Adds fields to the audit events of requests: who asked for what, and from where. Called for
    /// an event that is reported by itself; of several alike, that is the first. Default: no
    /// fields.
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// # use tower_jwt_revocation::JwtRevocationLayer;
    /// # use tower_jwt_revocation::audit::TracingSink;
    /// # fn f(layer: JwtRevocationLayer) -> JwtRevocationLayer {
    /// layer.with_audit(TracingSink::default()).with_audit_facts(|head, event| {
    ///     // As your server leaves it; in axum: `ConnectInfo<SocketAddr>`.
    ///     let peer = head.extensions().get::<SocketAddr>().map(ToString::to_string);
    ///     event
    ///         .with_field("method", Some(head.method().as_str()))
    ///         .with_field("path", Some(head.uri().path()))
    ///         .with_field("peer", peer.as_deref())
    /// })
    /// # }
    /// ```
    pub fn with_audit_facts(
        mut self,
        say: impl Fn(&RequestHead<'_>, AuditEvent) -> AuditEvent + Send + Sync + 'static,
    ) -> Self {
        self.gate.audit_facts = Some(Arc::new(say));
        self
    }

    /// Puts the user of the token (`sub`) into the span of a check that has to wait, as `user.id`.
    /// Default: it is left out, because traces are kept in other places than logins, and other
    /// people see them.
    ///
    /// The span is `jwt_revocation.check`, at level `debug` of `tracing`. It covers the time in
    /// which the store is asked, so a verdict from memory has no span. Its fields have the names of
    /// OpenTelemetry: `db.system.name` if the store names its system, and `error.type`
    /// ([`StoreErrorKind::as_str`](crate::store::StoreErrorKind::as_str)) if there was no answer.
    /// The field `jwt_revocation.verdict` is `live` or `revoked`.
    ///
    /// # Security
    /// The id of a user is personal data.
    #[doc(alias = "opentelemetry")]
    #[doc(alias = "tracing")]
    pub fn with_user_ids_in_spans(mut self) -> Self {
        self.gate.names_users = true;
        self
    }

    /// Decides about a token outside of a request, as the layer does about one in `Authorization`.
    /// It is for messages on a WebSocket, jobs from a queue, and command lines. `token` is the
    /// token alone, without `Bearer`.
    ///
    /// It uses the same verifier, store, foreign lists, counters and audit. What belongs to
    /// requests has no effect: sources, exemptions, optional credentials. Where the fail mode
    /// [depends on the request](Self::with_fail_mode_for), it is [`FailMode::Closed`] here. A layer
    /// that [only reports](Self::with_report_only) still returns the rejection, and counts it as
    /// one that would be refused.
    ///
    /// # Errors
    /// [`Rejection`] with the reason for which a request with this token would be refused. A layer
    /// [behind](Self::behind) another one cannot verify tokens, and refuses each.
    ///
    /// ```
    /// # use tower_jwt_revocation::{JwtRevocationLayer, Rejection};
    /// # async fn f(layer: JwtRevocationLayer, token: &str) -> Result<(), Rejection> {
    /// let clearance = layer.check(token).await?;
    /// println!("a message of {:?}", clearance.token().subject());
    /// # Ok(()) }
    /// ```
    #[doc(alias = "verify")]
    #[doc(alias = "authenticate")]
    pub async fn check(&self, token: &str) -> Result<Clearance, Rejection> {
        self.gate.decide_on(token).await
    }

    /// The write side for the tokens that this layer accepts: same store, same profile, same audit.
    ///
    /// If other services on the same store accept tokens with a longer lifetime, say so with
    /// [`Revoker::extend_shared_retention`]. Otherwise their tokens outlive the revocation.
    /// `Sessions` that were given a revoker of this layer do this for all of its revokers: a user
    /// who is logged out has to stay so for as long as refresh tokens are valid.
    pub fn revoker(&self) -> Revoker {
        let profile = Arc::new(self.gate.verifier.profile().clone());
        Revoker::from_parts(
            Arc::clone(&self.gate.store),
            profile,
            self.least_lifetime.clone(),
            Some(Arc::clone(&self.gate.recently_revoked)),
            AuditTrail::new(self.gate.audit.clone(), Arc::clone(&self.gate.operations)),
        )
    }

    /// The metrics of this layer, its clones, the services and revokers made by them, the store and
    /// the verifier: as text for Prometheus, or number by number.
    ///
    /// ```
    /// # use tower_jwt_revocation::JwtRevocationLayer;
    /// # fn f(layer: JwtRevocationLayer) -> String {
    /// layer.metrics().prometheus()
    /// # }
    /// ```
    #[doc(alias = "prometheus")]
    pub fn metrics(&self) -> Metrics {
        Metrics {
            requests: Some((self.gate.counters.clone(), Arc::clone(&self.gate.verifier))),
            store: Arc::clone(&self.gate.store),
            audit: self.gate.audit.clone(),
            operations: Arc::clone(&self.gate.operations),
        }
    }

    /// Whether requests should be sent to this process, for a readiness probe. It asks no server,
    /// and costs about as much as a check in memory.
    ///
    /// | the store | ready, fail mode closed | open, or by request |
    /// | --- | --- | --- |
    /// | answers; a fresh [`Mirror`](crate::Mirror) does so from memory | yes | yes |
    /// | [settles](crate::store::Doubt::Settling) after a change of server, or has lost data | yes, degraded: no other process can do more | yes, degraded |
    /// | cannot be asked, for less than ten seconds | yes, degraded: a short outage takes no process out | yes, degraded |
    /// | cannot be asked, for longer, or never could since the start | **no** | yes, degraded |
    ///
    /// # Liveness
    /// Never tie a liveness probe to this, or to the store in any other way. It would restart all
    /// processes at once when Redis is away. A restarted process has lost its mirror, its keys, and
    /// what it has confirmed and Redis has lost.
    #[doc(alias = "health check")]
    #[doc(alias = "readiness probe")]
    #[doc(alias = "liveness")]
    pub fn readiness(&self) -> Readiness {
        let mode = match &self.gate.fail_mode {
            FailModeRule::Always(mode) => Some(*mode),
            FailModeRule::PerRequest(_) => None,
        };
        policy::readiness(&self.gate.store.condition(), mode)
    }

    #[cfg(feature = "endpoints")]
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The counts of this layer, its clones, and all services made by them.
    pub fn counters(&self) -> Counters {
        self.gate.counters.clone()
    }
}

impl<S, A> Layer<S> for JwtRevocationLayer<A> {
    type Service = JwtRevocation<S, A>;

    fn layer(&self, inner: S) -> Self::Service {
        let refusals =
            RefusalBuilder { heads: Arc::clone(&self.heads), body: Arc::clone(&self.body) };
        let state = ServiceState {
            gate: self.gate.clone(),
            #[cfg(feature = "axum")]
            known: KnownLayer::new(&self.heads, &self.gate.counters),
            refusals,
            leaves_clearance: self.leaves_clearance,
            has_form: self.has_form,
        };
        JwtRevocation::new(inner, Arc::new(state))
    }
}

impl<A> Clone for JwtRevocationLayer<A> {
    fn clone(&self) -> Self {
        Self {
            gate: self.gate.clone(),
            heads: Arc::clone(&self.heads),
            body: Arc::clone(&self.body),
            leaves_clearance: self.leaves_clearance,
            has_form: self.has_form,
            least_lifetime: self.least_lifetime.clone(),
        }
    }
}

impl<A> fmt::Debug for JwtRevocationLayer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtRevocationLayer")
            .field("gate", &self.gate)
            .field("heads", &self.heads)
            .finish_non_exhaustive()
    }
}
