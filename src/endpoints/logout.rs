//! [`LogoutReceiver`]: `OpenID` Connect Back-Channel Logout 1.0.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::Value;

use super::answer::{Answer, ErrorFormat};
use super::endpoint::Endpoint;
use super::replay::ReplayGuard;
use super::request::Form;
use super::revocation::FORM;
use super::signed::{EventToken, Providers, describe, missing, odd, optional_text, time};
use crate::config::ConfigError;
use crate::revocation::Target;
use crate::revoker::Revoker;
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

const NAMESPACE: &str = "logout";
const REASON: &str = "logged out at the identity provider";

/// Ends sessions when an identity provider says that they have ended (`OpenID` Connect Back-Channel
/// Logout 1.0).
///
/// A logout token with a `sid` revokes that session of its issuer; one with a `sub` alone, all that
/// the issuer has issued to that user so far. The session of a token is its claim `sid`, see
/// [`TokenProfile::with_claim_target`](crate::TokenProfile::with_claim_target). It needs `iss`,
/// `aud`, `iat`, `exp`, `jti`, and `events` with the event of a logout, and must have no `nonce`.
///
/// | answer | when |
/// | --- | --- |
/// | 200 | the logout is confirmed, also if nobody was signed in |
/// | 400 | the token is not a logout token of a provider, is over, or was carried out before |
/// | 503 | the store did not confirm: the provider should send the token again |
#[doc(alias = "backchannel logout")]
#[doc(alias = "single sign-out")]
#[derive(Clone)]
pub struct LogoutReceiver {
    revoker: Revoker,
    guard: ReplayGuard,
    providers: Providers,
    is_strict: bool,
    also: Option<Arc<AlsoEnd>>,
}

/// Ends what else belongs to a session (or, without one, to a user) of a provider: issuer, user and
/// session.
type AlsoEnd = dyn Fn(&str, Option<&str>, Option<&str>) -> Ending + Send + Sync;

type Ending = BoxFuture<'static, Result<(), StoreError>>;

impl LogoutReceiver {
    /// Revokes with this revoker, usually that of the layer that accepts the tokens of the
    /// providers.
    pub fn new(revoker: Revoker, guard: ReplayGuard) -> Self {
        Self { revoker, guard, providers: Providers::default(), is_strict: false, also: None }
    }

    /// Receives the logout tokens of a provider: those that one of the keys of `provider` has
    /// signed, for the issuer and the audience of its profile, which is our client id there.
    ///
    /// # Errors
    /// [`ConfigError`] if its profile names no issuer or no audience.
    pub fn with(mut self, provider: JwtVerifier) -> Result<Self, ConfigError> {
        self.providers.add(provider)?;
        Ok(self)
    }

    /// Takes only tokens whose header says `logout+jwt`. Default: none and `JWT` are taken too, as
    /// most providers send them.
    #[must_use]
    pub fn with_required_type(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// Also ends what came out of a login at the provider, such as sessions of your own: `end` is
    /// given issuer, user and session of the logout token, of which one of the last two may be
    /// missing. It is called before the token counts as carried out, and may be called again for
    /// the same.
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
            Err(error) => ErrorFormat::OAuth.store_error(&error),
        }
    }

    /// Whether it was not carried out before.
    async fn carry_out(&self, logout: &Logout<'_>) -> Result<bool, StoreError> {
        let (issuer, id) = (&*logout.token.issuer, &*logout.token.id);
        if self.guard.is_seen(NAMESPACE, issuer, id).await? {
            return Ok(false);
        }
        let target = match (&logout.session, &logout.user) {
            (Some(session), _) => Target::session(session.clone()),
            (None, Some(user)) => Target::user(user.clone()),
            (None, None) => return Ok(true),
        };
        self.revoker.revoke(target.issued_by(issuer)).reason(REASON).await?;
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
        let expires_at = time(claims, "exp")?.ok_or_else(|| missing("exp"))?;
        let profile = token.provider.profile();
        let (now, leeway) = (profile.now(), profile.leeway());
        if now >= expires_at.saturating_add(leeway) {
            return Err(TokenError::new(TokenErrorKind::Expired, "the token is expired"));
        }
        if token.issued_at > now.saturating_add(leeway) {
            let problem = "the token was issued in the future";
            return Err(TokenError::new(TokenErrorKind::IssuedInFuture, problem));
        }
        if time(claims, "nbf")?.is_some_and(|not_before| now.saturating_add(leeway) < not_before) {
            let problem = "the token is not valid yet";
            return Err(TokenError::new(TokenErrorKind::NotYetValid, problem));
        }
        if expires_at.saturating_duration_since(token.issued_at) > MAX_LIFETIME {
            let problem = "a logout token is valid for a day at most";
            return Err(TokenError::new(TokenErrorKind::LifetimeTooLong, problem));
        }
        let left = expires_at.saturating_add(leeway).saturating_duration_since(now);
        Ok(Logout { user, session, remembered_for: left + CLOCKS_APART, token })
    }
}

/// How far the clock of the store may be from ours.
const CLOCKS_APART: Duration = Duration::from_secs(60);

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
