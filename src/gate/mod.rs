//! The read side without tower: the head of a request in, a [`Decision`] out.
//!
//! ```text
//! head -> exempt? -> token -> verified -> standing -> policy -> Decision
//! ```
//! Everything up to the look-up happens at once. A store that knows at once costs no future and no
//! box; one that has to ask leaves a [`PendingCheck`]. Every request ends in [`Gate::settle`],
//! [`Gate::refuse`] or [`Gate::skip`], where it is counted.

mod ending;
mod outage;

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, header};
use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use self::outage::Outage;
use crate::audit::{AuditCounts, AuditEvent, AuditKind, AuditSink, RepeatedEvents};
use crate::counters::{Counters, RequestOutcome};
use crate::policy::{Clearance, FailMode, Rejection, decide};
use crate::recently_revoked::RecentlyRevoked;
use crate::store::{
    Lookup, Needs, RevocationStore, RevokedBy, Standing, StoreError, StoreErrorKind,
};
use crate::token::bearer::{self, NoToken, RequestHead, TokenSource};
use crate::token::{CrateOnly, TokenError, TokenErrorKind, TokenVerifier, UpstreamClaims};
use crate::verified::VerifiedToken;

/// A function of the head of a request.
type HeadFn<T> = Arc<dyn Fn(&RequestHead<'_>) -> T + Send + Sync>;

/// A function of the head of a request and its verified token.
type FailModeFn = dyn Fn(&RequestHead<'_>, &VerifiedToken) -> FailMode + Send + Sync;

/// Whether the client that sent this head has the key of this token.
type ProofFn = dyn Fn(&RequestHead<'_>, &VerifiedToken) -> bool + Send + Sync;

/// Adds to an event what the head of its request says.
type FactsFn = dyn Fn(&RequestHead<'_>, AuditEvent) -> AuditEvent + Send + Sync;

/// Everything that a layer was told about who may pass.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) verifier: Arc<dyn TokenVerifier>,
    /// Where verified claims come from, if they do not come from a token in the request.
    pub(crate) upstream: Option<UpstreamClaims>,
    pub(crate) store: Arc<dyn RevocationStore>,
    needs: Needs,
    sources: Vec<TokenSource>,
    /// Longer tokens are not looked at.
    max_token_bytes: usize,
    pub(crate) fail_mode: FailModeRule,
    pub(crate) exemption: Option<HeadFn<bool>>,
    pub(crate) credentials: Credentials,
    pub(crate) bound_tokens: BoundTokens,
    /// Whether tokens are taken from `Authorization: DPoP`.
    takes_dpop: bool,
    pub(crate) preflight: Preflight,
    pub(crate) enforcement: Enforcement,
    /// Whether spans name the user of a token.
    pub(crate) names_users: bool,
    pub(crate) counters: Counters,
    pub(crate) audit: Option<Arc<dyn AuditSink>>,
    /// The same sink, for what requests bring about.
    repeated: Option<Arc<RepeatedEvents>>,
    /// What the events of requests have besides.
    pub(crate) audit_facts: Option<Arc<FactsFn>>,
    /// Of the revokers that the layer makes.
    pub(crate) operations: Arc<AuditCounts>,
    outage: Arc<Outage>,
    pub(crate) recently_revoked: Arc<RecentlyRevoked>,
}

/// Where the fail mode of a request comes from.
#[derive(Clone)]
pub(crate) enum FailModeRule {
    Always(FailMode),
    PerRequest(Arc<FailModeFn>),
}

/// Whether a request must have credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    Required,
    Optional,
}

/// Whether tokens that are bound to a key of the client (RFC 7800) pass.
#[derive(Clone)]
pub(crate) enum BoundTokens {
    Refused,
    AllowedAsBearer,
    /// If this finds that the client has proved that it has the key.
    Proved(Arc<ProofFn>),
}

/// Whether a CORS preflight must have credentials, which browsers never send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preflight {
    Checked,
    Passed,
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    Enforced,
    ReportOnly,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Pass it on, with this clearance.
    Cleared(Clearance),
    /// Pass it on without a clearance.
    Skipped(SkipReason),
    /// Pass it on, although it would be refused: the layer only reports.
    Reported(Rejection),
    /// Refuse it.
    Refused(Rejection),
}

/// Why a request passes without a verified token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipReason {
    /// It has no credentials, and they are optional.
    Anonymous,
    /// It is exempt.
    Exempt,
    /// It is a CORS preflight.
    Preflight,
}

/// A decision, or what is still to be waited for.
pub(crate) enum Evaluation {
    Decided(Decision),
    Pending(PendingCheck),
}

/// A check of which the store has not yet given the result. Dropping it drops the look-up. What is
/// needed to settle it is kept apart from the gate, so that it costs no box of its own.
pub(crate) struct PendingCheck {
    answer: BoxFuture<'static, Result<Standing, StoreError>>,
    token: Arc<VerifiedToken>,
    mode: FailMode,
    asked_at: Instant,
    /// Around all that happens until there is an answer.
    span: Span,
}

impl Gate {
    pub(crate) fn new(verifier: Arc<dyn TokenVerifier>, store: Arc<dyn RevocationStore>) -> Self {
        store.expect_tokens_for(verifier.profile().retention());
        store.expect_targets(&verifier.profile().accepted_targets());
        Self {
            max_token_bytes: verifier.profile().max_token_bytes(),
            verifier,
            upstream: None,
            needs: store.needs(),
            store,
            sources: vec![TokenSource::bearer()],
            fail_mode: FailModeRule::Always(FailMode::default()),
            exemption: None,
            credentials: Credentials::Required,
            bound_tokens: BoundTokens::Refused,
            takes_dpop: false,
            preflight: Preflight::Checked,
            enforcement: Enforcement::Enforced,
            names_users: false,
            counters: Counters::new(),
            audit: None,
            repeated: None,
            audit_facts: None,
            operations: Arc::default(),
            outage: Arc::new(Outage::new()),
            recently_revoked: Arc::new(RecentlyRevoked::new()),
        }
    }

    pub(crate) fn set_audit(&mut self, sink: Arc<dyn AuditSink>) {
        self.repeated = Some(Arc::new(RepeatedEvents::new(Arc::clone(&sink))));
        self.audit = Some(sink);
    }

    /// Where tokens are looked for.
    pub(crate) fn set_sources(&mut self, sources: Vec<TokenSource>) {
        self.takes_dpop = sources.iter().any(TokenSource::is_dpop);
        self.sources = sources;
    }

    /// Decides about a request by its head.
    pub(crate) fn evaluate(&self, head: &RequestHead<'_>) -> Evaluation {
        if let Some(reason) = self.skip_reason(head) {
            return Evaluation::Decided(self.skip(reason));
        }
        let token = match self.verified(head) {
            Ok(Some(token)) => token,
            Ok(None) if self.credentials == Credentials::Optional => {
                return Evaluation::Decided(self.skip(SkipReason::Anonymous));
            }
            Ok(None) => return Evaluation::Decided(self.refuse(Rejection::NoCredentials)),
            Err(rejection) => return Evaluation::Decided(self.refuse(rejection)),
        };
        if (token.is_bound() || self.takes_dpop)
            && let Err(error) = self.check_binding(&token, Some(head))
        {
            return Evaluation::Decided(self.refuse(error.into()));
        }
        let mode = match &self.fail_mode {
            FailModeRule::Always(mode) => *mode,
            FailModeRule::PerRequest(ask) => ask(head, &token),
        };
        self.ask(token, mode, Some(head))
    }

    /// Decides about a token that no request has brought: as about one in `Authorization`.
    pub(crate) async fn decide_on(&self, token: &str) -> Result<Clearance, Rejection> {
        // A mode that depends on the request cannot be had without one.
        let mode = match &self.fail_mode {
            FailModeRule::Always(mode) => *mode,
            FailModeRule::PerRequest(_) => FailMode::default(),
        };
        let verified = self.verified_bearer(token.as_bytes()).and_then(|token| {
            self.check_binding(&token, None)?;
            Ok(token)
        });
        let decision = match verified {
            Err(rejection) => self.refuse(rejection),
            Ok(token) => match self.ask(token, mode, None) {
                Evaluation::Decided(decision) => decision,
                Evaluation::Pending(mut check) => poll_fn(|cx| check.poll(self, None, cx)).await,
            },
        };
        match decision {
            Decision::Cleared(clearance) => Ok(clearance),
            Decision::Refused(rejection) | Decision::Reported(rejection) => Err(rejection),
            // Only requests are skipped.
            Decision::Skipped(_) => Err(Rejection::NoCredentials),
        }
    }

    /// The token, if it is accepted and the store knows that it is live: for those who ask about a
    /// token that somebody else has (RFC 7662). So it does not matter to which key it is bound,
    /// nothing is decided without the store, and no request is counted.
    #[cfg(feature = "endpoints")]
    pub(crate) async fn introspect(&self, token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        let token = self.verified_bearer(token.as_bytes())?;
        let answer = self.store.check(&token).answer().await;
        decide(Arc::clone(&token), answer, FailMode::default()).map(|_| token)
    }

    /// Whether a token that is bound to a key may be used by whoever sent it.
    fn check_binding(
        &self,
        token: &VerifiedToken,
        head: Option<&RequestHead<'_>>,
    ) -> Result<(), TokenError> {
        let unproven = |detail| Err(TokenError::new(TokenErrorKind::UnprovenKey, detail));
        // With claims of another layer the credentials are that layer's business.
        let takes_dpop = self.takes_dpop && self.upstream.is_none();
        let comes_by_dpop = takes_dpop && head.is_some_and(|head| bearer::has_dpop(head.headers()));
        if !token.is_bound() {
            // RFC 9449 §7.1: the key of the proof must be the one to which the token is bound.
            return if comes_by_dpop {
                unproven("the token was presented under `DPoP` and is not bound to a key")
            } else {
                Ok(())
            };
        }
        match (&self.bound_tokens, head) {
            (BoundTokens::AllowedAsBearer, _) => Ok(()),
            (BoundTokens::Refused, _) => unproven(
                "the token is bound to a key (`cnf`), and nothing proves that the client has it; \
                 see JwtRevocationLayer::with_proof_of_possession",
            ),
            (BoundTokens::Proved(_), None) => unproven(
                "the token is bound to a key (`cnf`), and outside of a request nothing proves \
                 that the client has it",
            ),
            // RFC 9449 §7.2: a token that DPoP binds must not be taken as a bearer token.
            (BoundTokens::Proved(_), Some(_))
                if self.upstream.is_none()
                    && token.confirmation("jkt").is_some()
                    && !comes_by_dpop =>
            {
                unproven(
                    "the token is bound by DPoP and was not presented under `DPoP`; see \
                     TokenSource::dpop",
                )
            }
            (BoundTokens::Proved(has_key), Some(head)) if has_key(head, token) => Ok(()),
            (BoundTokens::Proved(_), Some(_)) => {
                unproven("the client has not proved that it has the key of the token (`cnf`)")
            }
        }
    }

    fn ask(
        &self,
        token: Arc<VerifiedToken>,
        mode: FailMode,
        head: Option<&RequestHead<'_>>,
    ) -> Evaluation {
        match self.store.check(&token) {
            Lookup::Now(Ok(Standing::Live)) => Evaluation::Decided(self.settle_live(token, mode)),
            Lookup::Now(answer) => {
                Evaluation::Decided(self.settle(token, answer, mode, (None, head)))
            }
            Lookup::Later(answer) => {
                let (span, asked_at) = (self.span(&token), Instant::now());
                Evaluation::Pending(PendingCheck { answer, token, mode, asked_at, span })
            }
        }
    }

    /// The span of a check that has to wait. Names of fields are those of the semantic conventions
    /// of OpenTelemetry, but for what they have no name for.
    fn span(&self, token: &VerifiedToken) -> Span {
        let span = tracing::debug_span!(
            "jwt_revocation.check",
            otel.kind = "client",
            db.system.name = Empty,
            error.type = Empty,
            user.id = Empty,
            jwt_revocation.verdict = Empty,
        );
        if self.names_users && !span.is_disabled() {
            span.record("user.id", token.subject());
        }
        span
    }

    /// The verified token of a request, if it has credentials. Verify before look-up, always: the
    /// store is never asked about what a stranger made up.
    fn verified(&self, head: &RequestHead<'_>) -> Result<Option<Arc<VerifiedToken>>, Rejection> {
        if let Some(upstream) = &self.upstream {
            return Ok(upstream.find(head).transpose()?);
        }
        if let [only] = self.sources.as_slice()
            && only.is_bearer()
        {
            let unread = bearer::unread(head.headers()).map_err(Rejection::BadRequest)?;
            return unread.map(|credentials| self.verified_bearer(credentials)).transpose();
        }
        let found = head.token_within(self.max_token_bytes, &self.sources);
        let found = found.map_err(|error| match error {
            NoToken::Unreadable(error) => Rejection::BadRequest(error),
            NoToken::TooLong => TokenError::too_long().into(),
        });
        match found? {
            Some(text) => {
                let token = self.verifier.verify(&text)?;
                self.verifier.profile().expect_own(&token)?;
                Ok(Some(self.presented(token, &text)))
            }
            None => Ok(None),
        }
    }

    /// As every request has it, so it pays to read only what is new.
    #[inline]
    fn verified_bearer(&self, credentials: &[u8]) -> Result<Arc<VerifiedToken>, Rejection> {
        if credentials.len() > self.max_token_bytes {
            return Err(TokenError::too_long().into());
        }
        let known = match self.verifier.cached(credentials, CrateOnly).transpose()? {
            Some(known) if self.needs == Needs::Claims => return Ok(known),
            known => known,
        };
        if known.is_none()
            && let Some(error) = self.verifier.refused_at_sight(credentials, CrateOnly)
        {
            // What cannot stand after `Bearer` is another answer.
            bearer::expect_token68(credentials).map_err(Rejection::BadRequest)?;
            return Err(error.into());
        }
        let text = bearer::token68(credentials).map_err(Rejection::BadRequest)?;
        let token = known.map_or_else(|| self.verifier.verify_uncached(text, CrateOnly), Ok)?;
        Ok(self.presented(token, text))
    }

    /// With what the store needs of the characters of a token.
    fn presented(&self, token: Arc<VerifiedToken>, text: &str) -> Arc<VerifiedToken> {
        match self.needs {
            Needs::Claims => token,
            needs => Arc::new(token.presented_as(text, needs)),
        }
    }

    /// What [`settle`](Self::settle) does where it is known at once that the token is live, which
    /// is most requests: nothing is told of them, and what is known at once needs no clock.
    #[inline]
    fn settle_live(&self, token: Arc<VerifiedToken>, mode: FailMode) -> Decision {
        self.recently_revoked.found_live(&token, || self.verifier.profile().now());
        self.outage.answered();
        match decide(token, Ok(Standing::Live), mode) {
            Ok(clearance) => {
                self.counters.count(RequestOutcome::Admitted);
                Decision::Cleared(clearance)
            }
            Err(rejection) => self.refuse(rejection),
        }
    }

    /// What the answer of the store comes to, for which the request has waited, or not at all.
    fn settle(
        &self,
        token: Arc<VerifiedToken>,
        answer: Result<Standing, StoreError>,
        mode: FailMode,
        (mut waited, head): (Option<Duration>, Option<&RequestHead<'_>>),
    ) -> Decision {
        let failure = answer.as_ref().err().cloned();
        let answer = self.remembered(&token, answer);
        let audited = self.repeated.as_ref().map(|events| (events, Arc::clone(&token)));
        let decision = decide(token, answer, mode);
        if let Some((events, token)) = audited {
            match &decision {
                Ok(clearance) if clearance.is_checked() => {}
                Ok(_) => {
                    let kind = AuditKind::UncheckedAdmit;
                    events.record(kind, &token, || {
                        self.with_facts(AuditEvent::of_token(kind, &token), head)
                    });
                }
                Err(Rejection::Revoked(by)) => {
                    let kind = AuditKind::RevokedRefused;
                    events.record(kind, &token, || {
                        let event = AuditEvent::of_token(kind, &token).failed();
                        self.with_facts(event.with_reason(by.reason.as_deref()), head)
                    });
                }
                Err(_) => {}
            }
        }
        match &failure {
            None => self.outage.answered(),
            // That is the fault of the token.
            Some(error) if error.is_permanent() => {}
            Some(error) => {
                // An error at once is none of what is in memory.
                waited = waited.or(Some(Duration::ZERO));
                self.counters.count_store_error(error.kind());
                match error.kind() {
                    StoreErrorKind::Overloaded => self.outage.overloaded(error),
                    _ => self.outage.failed(error, decision.is_ok()),
                }
            }
        }
        match decision {
            Ok(clearance) => {
                // What is known to be live at once is settled elsewhere.
                self.counters.count(if clearance.is_checked() {
                    RequestOutcome::AdmittedLater
                } else {
                    RequestOutcome::AdmittedUnchecked
                });
                if let Some(waited) = waited {
                    self.counters.count_asked(waited);
                }
                Decision::Cleared(clearance)
            }
            Err(rejection) => {
                match waited {
                    // What the token is like is found without asking, and is no check.
                    _ if matches!(rejection, Rejection::InvalidToken(_)) => {}
                    Some(waited) => self.counters.count_asked(waited),
                    None => self.counters.count_revoked_at_once(),
                }
                self.refuse(rejection)
            }
        }
    }

    fn with_facts(&self, event: AuditEvent, head: Option<&RequestHead<'_>>) -> AuditEvent {
        match (&self.audit_facts, head) {
            (Some(say), Some(head)) => say(head, event),
            _ => event,
        }
    }

    /// The answer of the store; of an error, "revoked", if that was the answer a moment ago.
    fn remembered(
        &self,
        token: &VerifiedToken,
        answer: Result<Standing, StoreError>,
    ) -> Result<Standing, StoreError> {
        let now = || self.verifier.profile().now();
        match &answer {
            Ok(Standing::Live) => self.recently_revoked.found_live(token, now),
            Ok(Standing::Revoked(by)) => self.recently_revoked.note(token, by.kind, now()),
            Err(_) => {
                if let Some(kind) = self.recently_revoked.find(token, now()) {
                    return Ok(Standing::Revoked(RevokedBy::new(kind)));
                }
            }
        }
        answer
    }

    fn refuse(&self, rejection: Rejection) -> Decision {
        // The kind names the rule that was broken; nothing of the token or its claims is logged.
        match self.enforcement {
            Enforcement::Enforced => {
                tracing::debug!(reason = ?rejection.kind(), why = %rejection, "request refused");
                self.counters.count(RequestOutcome::Refused(rejection.kind()));
                Decision::Refused(rejection)
            }
            Enforcement::ReportOnly => {
                tracing::debug!(reason = ?rejection.kind(), why = %rejection,
                    "request would be refused; this layer only reports");
                self.counters.count(RequestOutcome::WouldRefuse(rejection.kind()));
                Decision::Reported(rejection)
            }
        }
    }

    fn skip(&self, reason: SkipReason) -> Decision {
        self.counters.count(match reason {
            SkipReason::Anonymous => RequestOutcome::Anonymous,
            SkipReason::Exempt => RequestOutcome::Exempted,
            SkipReason::Preflight => RequestOutcome::Preflight,
        });
        Decision::Skipped(reason)
    }

    fn skip_reason(&self, head: &RequestHead<'_>) -> Option<SkipReason> {
        if self.preflight == Preflight::Passed && is_preflight(head) {
            return Some(SkipReason::Preflight);
        }
        self.exemption.as_ref().filter(|exempts| exempts(head)).map(|_| SkipReason::Exempt)
    }
}

impl fmt::Debug for BoundTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "Refused",
            Self::AllowedAsBearer => "AllowedAsBearer",
            Self::Proved(_) => "Proved",
        })
    }
}

/// A CORS preflight as the Fetch standard defines it: `OPTIONS` with `Origin` and
/// `Access-Control-Request-Method`. An `OPTIONS` request without them is one like any other.
fn is_preflight(head: &RequestHead<'_>) -> bool {
    *head.method() == Method::OPTIONS
        && head.headers().contains_key(header::ORIGIN)
        && head.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

impl PendingCheck {
    /// Waits for the store and settles.
    pub(crate) fn poll(
        &mut self,
        gate: &Gate,
        head: Option<&RequestHead<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<Decision> {
        let entered = self.span.enter();
        let answer = ready!(Pin::as_mut(&mut self.answer).poll(cx));
        match &answer {
            Ok(Standing::Live) => self.span.record("jwt_revocation.verdict", "live"),
            Ok(Standing::Revoked(_)) => self.span.record("jwt_revocation.verdict", "revoked"),
            Err(error) => self.span.record("error.type", error.kind().as_str()),
        };
        drop(entered);
        let waited = Some(self.asked_at.elapsed());
        Poll::Ready(gate.settle(Arc::clone(&self.token), answer, self.mode, (waited, head)))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Gate");
        match &self.fail_mode {
            FailModeRule::Always(mode) => out.field("fail_mode", mode),
            FailModeRule::PerRequest(_) => out.field("fail_mode", &"per request"),
        };
        out.field("sources", &self.sources)
            .field("exemption", &self.exemption.is_some())
            .field("credentials", &self.credentials)
            .field("bound_tokens", &self.bound_tokens)
            .field("preflight", &self.preflight)
            .field("enforcement", &self.enforcement)
            .finish_non_exhaustive()
    }
}
