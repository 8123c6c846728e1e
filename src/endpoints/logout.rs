//! [`LogoutReceiver`]: `OpenID` Connect Back-Channel Logout 1.0.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answer::{Answer, ErrorFormat, written};
use super::endpoint::Endpoint;
use super::replay::ReplayGuard;
use super::request::Form;
use super::revocation::FORM;
use super::signed::{EventToken, Providers, describe, missing, odd, optional_text};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::{Extent, Target};
use crate::revoker::{RevokeRequest, Revoker};
use crate::store::StoreError;
use crate::token::jwt::JwtVerifier;
use crate::token::{TokenError, TokenErrorKind, TokenVerifier as _};

/// The event of a logout token: `http`, as the specification has it.
pub(crate) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Types of logout tokens. Many providers set none or `JWT` (OpenID Connect Back-Channel Logout
/// §2.4).
const TYPES: [&str; 2] = ["logout+jwt", "JWT"];

/// A logout token that is valid for longer is refused: its id would have to be remembered as long.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Most logouts that are kept.
const MAX_OUTBOX: usize = 1_000_000;
/// For how long a logout is kept that the store does not confirm.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// How long is waited before a logout is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(10);

const NAMESPACE: &str = "logout";
const REASON: &str = "logged out at the identity provider";

/// Ends sessions when an identity provider has ended them (`OpenID` Connect Back-Channel Logout
/// 1.0).
///
/// A logout token with a `sid` revokes that session of its issuer. One with a `sub` alone revokes
/// all that the issuer has issued to that user so far. The session of an access token is its claim
/// `sid`, see [`TokenProfile::with_claim_target`](crate::TokenProfile::with_claim_target). A logout
/// token needs `iss`, `aud`, `iat`, `exp`, `jti`, and `events` with the logout event, and must have
/// no `nonce`.
///
/// | answer | when |
/// | --- | --- |
/// | 200 | the logout is confirmed, also if there was no session |
/// | 400 | the token is not a logout token of a provider, has expired, or was carried out before |
/// | 503 | the store did not confirm: the provider should send the token again; or [400](Self::with_bad_request_on_failure) |
#[doc(alias = "backchannel logout")]
#[doc(alias = "single sign-out")]
#[derive(Clone)]
pub struct LogoutReceiver {
    revoker: Revoker,
    guard: ReplayGuard,
    providers: Providers,
    is_strict: bool,
    outbox: Option<Outbox>,
    failure: OnFailure,
    also: Option<Arc<AlsoEnd>>,
}

/// Ends what else belongs to a session (or, without one, to a user) of a provider: issuer, user and
/// session.
type AlsoEnd = dyn Fn(&str, Option<&str>, Option<&str>) -> Ending + Send + Sync;

type Ending = BoxFuture<'static, Result<(), StoreError>>;

impl LogoutReceiver {
    /// A receiver that revokes with this revoker and remembers in `guard` which logout tokens were
    /// carried out. Usually the revoker is that of the layer that accepts the tokens of the
    /// providers.
    pub fn new(revoker: Revoker, guard: ReplayGuard) -> Self {
        Self {
            revoker,
            guard,
            providers: Providers::default(),
            is_strict: false,
            outbox: None,
            failure: OnFailure::Unavailable,
            also: None,
        }
    }

    /// Accepts logout tokens of this provider: they are verified by `provider`, with the issuer and
    /// the audience of its profile. The audience is our client id at the provider.
    ///
    /// # Errors
    /// [`ConfigError`] if its profile names no issuer or no audience.
    pub fn with(mut self, provider: JwtVerifier) -> Result<Self, ConfigError> {
        self.providers.add(provider)?;
        Ok(self)
    }

    /// Accepts only tokens with `typ: logout+jwt`. Default: tokens without `typ` and with `JWT` are
    /// accepted, too, because most providers send them.
    #[must_use]
    pub fn with_required_type(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// Also calls `end` with issuer, user and session of each logout token, of which user or
    /// session may be missing. Use it to end what came out of a login at the provider, such as
    /// sessions of your own. It is called before the token counts as carried out, and may be called
    /// again for the same token.
    #[must_use]
    pub fn with_effect<F>(
        mut self,
        end: impl Fn(&str, Option<&str>, Option<&str>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        self.also = Some(Arc::new(move |issuer, user, session| end(issuer, user, session).boxed()));
        self
    }

    /// Repeats logouts that the store did not confirm, up to `most` at a time and each for an hour:
    /// for providers that do not send a logout again. The answer is still 503, and a logout that
    /// comes again is carried out again. A repeated logout of a user ends what was issued until the
    /// logout came. Default: nothing is kept. What is kept is lost when the process ends, and
    /// [`with_effect`](Self::with_effect) is called only for logouts that come again.
    #[must_use]
    pub fn with_outbox(mut self, most: NonZeroUsize) -> Self {
        self.outbox = Some(Outbox(Arc::new(Semaphore::new(most.get().min(MAX_OUTBOX)))));
        self
    }

    /// Answers 400 if the store did not confirm, as the specification says literally (§2.8: "if the
    /// logout failed"). Default: 503 with `Retry-After`, after which a provider may send the token
    /// again.
    #[must_use]
    pub fn with_bad_request_on_failure(mut self) -> Self {
        self.failure = OnFailure::BadRequest;
        self
    }

    /// The endpoint, for `POST` of a form with `logout_token`.
    pub fn into_endpoint(self) -> Endpoint {
        let receiver = Arc::new(self);
        Endpoint::post(FORM, ErrorFormat::OAuth, move |_, body| {
            let receiver = Arc::clone(&receiver);
            async move {
                let form = match Form::parse(&body) {
                    Ok(form) => form,
                    Err(problem) => return ErrorFormat::OAuth.invalid_request(problem),
                };
                match form.get("logout_token") {
                    Some(token) => receiver.receive(token).await,
                    None => ErrorFormat::OAuth.invalid_request("`logout_token` is missing"),
                }
            }
            .boxed()
        })
    }

    async fn receive(&self, token: &str) -> Answer {
        let logout = match self.verify(token) {
            Ok(logout) => logout,
            Err(error) if error.kind() == TokenErrorKind::NoKeys => return Answer::unavailable(),
            Err(error) => return ErrorFormat::OAuth.invalid_request(describe(&error)),
        };
        match self.carry_out(&logout).await {
            Ok(true) => Answer::empty(StatusCode::OK),
            Ok(false) => ErrorFormat::OAuth.invalid_request("the token was carried out before"),
            Err(error) => {
                if let Some(outbox) = &self.outbox
                    && error.may_be_repeated()
                {
                    let until = logout.token.provider.profile().now();
                    outbox.add(self.request(&logout, Some(until)));
                }
                match self.failure {
                    OnFailure::BadRequest => {
                        let code = "temporarily_unavailable";
                        ErrorFormat::OAuth.bad_request(code, "the logout was not confirmed")
                    }
                    OnFailure::Unavailable => ErrorFormat::OAuth.store_error(&error),
                }
            }
        }
    }

    /// What is to be revoked; of a user, what was issued until then, or so far.
    fn request(&self, logout: &Logout<'_>, until: Option<Timestamp>) -> RevokeRequest {
        let target = match (&logout.session, &logout.user) {
            (Some(session), _) => Target::session(session.clone()),
            (None, user) => Target::user(user.clone().unwrap_or_default()),
        };
        let request = self.revoker.revoke(target.issued_by(&*logout.token.issuer)).reason(REASON);
        match until {
            Some(until) if logout.session.is_none() => request.extent(Extent::IssuedUntil(until)),
            _ => request,
        }
    }

    /// Whether it was not carried out before.
    async fn carry_out(&self, logout: &Logout<'_>) -> Result<bool, StoreError> {
        let (issuer, id) = (&*logout.token.issuer, &*logout.token.id);
        if self.guard.is_seen(NAMESPACE, issuer, id).await? {
            return Ok(false);
        }
        written(self.request(logout, None).await)?;
        if let Some(also) = &self.also {
            also(issuer, logout.user.as_deref(), logout.session.as_deref()).await?;
        }
        self.guard.mark(NAMESPACE, issuer, id, logout.remembered_for).await?;
        Ok(true)
    }

    fn verify(&self, token: &str) -> Result<Logout<'_>, TokenError> {
        let accepts = |typ: Option<&str>| match typ {
            None => !self.is_strict,
            Some(typ) => {
                let types = if self.is_strict { TYPES.get(..1) } else { TYPES.get(..) };
                types.unwrap_or_default().iter().any(|known| known.eq_ignore_ascii_case(typ))
            }
        };
        let token = self.providers.verify(token, accepts)?;
        let claims = &token.claims;
        let event = claims.get("events").and_then(|events| events.get(LOGOUT_EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(odd("events"));
        }
        if claims.contains_key("nonce") {
            return Err(TokenError::new(
                TokenErrorKind::ForbiddenClaim,
                "a logout token must not have a `nonce`",
            ));
        }
        let user = optional_text(claims, "sub")?.map(Into::into);
        let session = optional_text(claims, "sid")?.map(Into::into);
        if user.is_none() && session.is_none() {
            return Err(missing("sid"));
        }
        token.expect_issued_at()?;
        let remembered_for = token.remaining(MAX_LIFETIME)?;
        Ok(Logout { token, user, session, remembered_for })
    }
}

/// What is answered where the store did not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    Unavailable,
    BadRequest,
}

/// Logouts that the store has still to confirm, each with a permit.
#[derive(Clone)]
struct Outbox(Arc<Semaphore>);

impl Outbox {
    /// Tries again and again, if there is room.
    fn add(&self, request: RevokeRequest) {
        let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() else {
            tracing::warn!("a logout is not kept: there are as many as may be");
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let end = Instant::now() + KEPT_FOR;
            let mut pause = FIRST_PAUSE;
            while Instant::now() < end {
                tokio::time::sleep(pause).await;
                match request.clone().await {
                    Err(error) if error.may_be_repeated() => pause = (pause * 2).min(LAST_PAUSE),
                    _ => return,
                }
            }
            tracing::warn!("a logout was not confirmed within an hour, and is given up");
        });
    }
}

/// A logout token that was verified.
struct Logout<'a> {
    token: EventToken<'a>,
    user: Option<Box<str>>,
    session: Option<Box<str>>,
    remembered_for: Duration,
}

impl fmt::Debug for LogoutReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogoutReceiver").field("providers", &self.providers).finish_non_exhaustive()
    }
}
