//! What can be sent, shared and cloned. To lose one of these is a breaking change.

use std::convert::Infallible;
use std::future::Ready;

use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower_jwt_revocation::counters::{CounterSnapshot, Counters, Refusals};
use tower_jwt_revocation::metrics::{Metrics, Sample};
use tower_jwt_revocation::middleware::{EndWithTokenLayer, EndingBody, JwtRevocation, ProblemJson};
use tower_jwt_revocation::policy::RejectionKind;
use tower_jwt_revocation::revocation::{Fact, Record, Revocation, Spared};
use tower_jwt_revocation::revoker::{ConfirmError, RevokeError, RevokeRequest};
use tower_jwt_revocation::store::{
    Fence, ListQuery, Lookup, Receipt, RecordPage, RevocationStore, RevokedBy, Standing, StoreError,
};
use tower_jwt_revocation::token::bearer::TokenSource;
use tower_jwt_revocation::token::jwt::UncheckedSignatureVerifier;
use tower_jwt_revocation::token::{
    CredentialsError, IssuerSet, SecretText, TokenError, TokenVerifier, UpstreamClaims,
};
use tower_jwt_revocation::{
    CachedVerifier, Clearance, ConfigError, FailMode, JwtRevocationLayer, JwtVerifier, LayerConfig,
    MemoryStore, Rejection, Revoker, Target, TokenProfile, VerifiedToken, VerifierConfig,
};

fn is_send<T: Send>() {}
fn is_shared<T: Send + Sync + 'static>() {}
fn is_cloned<T: Clone + Send + Sync + 'static>() {}
fn is_error<T: std::error::Error + Clone + Send + Sync + 'static>() {}

/// Neither `Clone` nor `Debug`.
struct Bare;

type Inner = BoxCloneSyncService<
    Request<Vec<u8>>,
    Response<Vec<u8>>,
    Box<dyn std::error::Error + Send + Sync>,
>;

#[test]
fn the_read_side() {
    is_cloned::<JwtRevocationLayer>();
    is_cloned::<JwtRevocationLayer<Bare>>();
    is_cloned::<JwtRevocation<Inner>>();
    is_cloned::<JwtRevocation<Inner, Bare>>();
    is_send::<<JwtRevocation<Inner> as tower::Service<Request<Vec<u8>>>>::Future>();
    is_cloned::<ProblemJson>();
    is_cloned::<(EndWithTokenLayer, <EndWithTokenLayer as tower::Layer<Inner>>::Service)>();
    is_send::<EndingBody<Vec<u8>>>();
    is_cloned::<(Counters, CounterSnapshot, Refusals)>();
    is_cloned::<(Metrics, Sample)>();
    is_cloned::<(Clearance, Rejection, RejectionKind, CredentialsError, FailMode)>();
    is_cloned::<TokenSource>();
    is_shared::<CachedVerifier<JwtVerifier>>();
    is_cloned::<(VerifierConfig, LayerConfig, SecretText)>();
}

/// A request body that is `Send` and not `Sync`, such as that of axum, must not spoil the future.
#[test]
fn the_future_asks_only_for_send() {
    #[derive(Clone)]
    struct Quiet;
    type Lonely = std::cell::Cell<u8>;
    impl tower::Service<Request<Lonely>> for Quiet {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), Infallible>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Lonely>) -> Self::Future {
            std::future::ready(Ok(Response::new(())))
        }
    }
    is_send::<<JwtRevocation<Quiet> as tower::Service<Request<Lonely>>>::Future>();
}

#[test]
fn the_write_side_the_stores_and_the_tokens() {
    is_cloned::<(Revoker, RevokeRequest, Revocation, Record, Target)>();
    is_cloned::<(MemoryStore, Standing, RevokedBy, Receipt, Fence, ListQuery, RecordPage)>();
    is_cloned::<Fact>();
    is_cloned::<Spared>();
    is_send::<Lookup>();
    is_shared::<Box<dyn RevocationStore>>();
    is_shared::<(Box<dyn TokenVerifier>, VerifiedToken, JwtVerifier)>();
    is_shared::<(IssuerSet, UpstreamClaims, UncheckedSignatureVerifier)>();
    is_shared::<tower_jwt_revocation::token::provider::Provider>();
    is_cloned::<TokenProfile>();
    is_error::<StoreError>();
    is_error::<TokenError>();
    is_error::<ConfigError>();
    is_error::<RevokeError>();
    is_error::<ConfirmError>();
    is_error::<Rejection>();
    is_error::<CredentialsError>();
}

#[cfg(feature = "sessions")]
#[test]
fn sessions_and_audit() {
    use tower_jwt_revocation::audit::{AuditEvent, AuditKind, AuditSink, TracingSink};
    use tower_jwt_revocation::session::{
        Families, Grant, Login, NewFamily, Refresh, RefreshPolicy, RefreshToken, Refusal, Session,
        SessionDetails, Sessions,
    };
    use tower_jwt_revocation::store::session::{Commit, Committed, Seen, SessionStore, Snapshot};

    is_cloned::<(Sessions, Families, RefreshPolicy)>();
    #[cfg(feature = "user-cache")]
    is_cloned::<tower_jwt_revocation::session::UserCache<Bare>>();
    is_cloned::<(SessionDetails, NewFamily, Login, Refresh, Grant, Refusal, RefreshToken, Session)>(
    );
    is_cloned::<(Commit, Committed, Seen, Snapshot)>();
    is_cloned::<(AuditEvent, AuditKind, TracingSink)>();
    is_shared::<(Box<dyn SessionStore>, Box<dyn AuditSink>)>();
}

#[cfg(feature = "endpoints")]
#[test]
fn the_endpoints() {
    use tower_jwt_revocation::endpoints::{
        ClientAuth, Endpoint, EndpointBody, EventReceiver, LogoutReceiver, ReplayGuard,
        SecurityEvent, SecurityEventIssuer, SubjectRevoker,
    };

    is_cloned::<(SecurityEvent, SecurityEventIssuer)>();
    #[cfg(feature = "jwks")]
    is_shared::<tower_jwt_revocation::endpoints::EventPoller>();

    is_cloned::<(Endpoint, ClientAuth, ReplayGuard)>();
    is_cloned::<(EventReceiver, LogoutReceiver, SubjectRevoker)>();
    is_shared::<EndpointBody>();
    is_send::<<Endpoint as tower::Service<Request<EndpointBody>>>::Future>();
}
