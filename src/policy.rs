//! The decision: what a standing, or the lack of one, means for the request.
//!
//! Pure and total. This is the only module that reads [`FailMode`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::store::{Condition, Doubt, RevokedBy, Standing, StoreError, StoreErrorKind};
use crate::target::TargetKind;
use crate::token::{CredentialsError, TokenError, TokenErrorKind};
use crate::verified::VerifiedToken;

/// What happens to a verified token while the store gives no answer about it.
///
/// It decides nothing else: a token that is invalid, expired or known to be revoked is refused in
/// both modes.
#[doc(alias = "fail open")]
#[doc(alias = "fail closed")]
#[doc(alias = "fallback")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FailMode {
    /// The request is refused with 503 (gRPC: `UNAVAILABLE`). The default: no revoked token gets
    /// in, and while the store is down nobody does. If the store has lost revocations for good, it
    /// can never answer about older tokens: these are refused with 401, as [`Rejection::InDoubt`].
    #[default]
    Closed,
    /// The request passes, marked and counted: [`Clearance::is_checked`] is false.
    ///
    /// # Security
    /// While the store is down, or an attacker keeps it down, revoked tokens work until they
    /// expire. Exception: tokens that this process has refused as revoked within the last minute
    /// (about 4000 of them) stay refused. Tokens whose revocation the store has lost pass, too. Too
    /// much load is no outage: it is refused with 503, as in the other mode.
    Open,
}

/// `closed` or `open`.
impl FromStr for FailMode {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text {
            "closed" => Ok(Self::Closed),
            "open" => Ok(Self::Open),
            _ => Err(ConfigError::new("fail_mode", "is neither `closed` nor `open`")),
        }
    }
}

/// The proof that a request passed, with its verified token. The layer puts it into the extensions
/// of the request. With feature `axum` it is also an extractor.
///
/// ```
/// use tower_jwt_revocation::Clearance;
///
/// fn handler(request: &http::Request<()>) -> Option<&str> {
///     let clearance = request.extensions().get::<Clearance>()?;
///     clearance.token().subject()
/// }
/// ```
#[doc(alias = "principal")]
#[doc(alias = "current user")]
#[doc(alias = "extension")]
#[derive(Clone, Debug)]
pub struct Clearance {
    token: Arc<VerifiedToken>,
    unchecked_because: Option<StoreError>,
    /// Of the request: what was begun with it goes on, or ends, by the same.
    mode: FailMode,
    /// By which layer, for the extractors; zero if by none.
    #[cfg(feature = "axum")]
    layer: u32,
}

impl Clearance {
    /// A clearance with these claims, for a test that calls a handler by itself (feature
    /// `test-util`). No token is signed and no store is asked. The claims have to be acceptable to
    /// [`TokenProfile::new`](crate::TokenProfile::new); `jti`, `iat` and `exp` are added if they
    /// are missing.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_jwt_revocation::Clearance;
    ///
    /// async fn me(clearance: Clearance) -> String {
    ///     format!("hello {}", clearance.token().subject().unwrap_or("stranger"))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let clearance = Clearance::for_test(json!({"sub": "alice", "role": "admin"}));
    /// assert_eq!(me(clearance).await, "hello alice");
    /// # }
    /// ```
    ///
    /// To get an unchecked clearance, call [`check`](crate::JwtRevocationLayer::check) of the layer
    /// of a [`TestAuth`](crate::testing::TestAuth) with [`FailMode::Open`], while its store is
    /// down.
    ///
    /// # Panics
    /// If the claims are not a JSON object, or no token could have them.
    #[cfg(any(test, feature = "test-util"))]
    #[track_caller]
    #[expect(clippy::panic, reason = "a test that asks for what cannot be has failed")]
    pub fn for_test(claims: impl Serialize) -> Self {
        use crate::clock::Timestamp;
        use crate::token::sample::sample_claims;
        use crate::token::{SignedClaims, TokenProfile};

        let profile = TokenProfile::new();
        let claims = sample_claims(&profile, &claims, Timestamp::now(), "test")
            .unwrap_or_else(|problem| panic!("{problem}"));
        let claims = serde_json::Value::Object(claims).to_string();
        match profile.assert_verified(SignedClaims::new(claims.as_bytes())) {
            Ok(token) => Self {
                token: Arc::new(token),
                unchecked_because: None,
                mode: FailMode::default(),
                #[cfg(feature = "axum")]
                layer: 0,
            },
            Err(error) => panic!("no token can have these claims: {error}"),
        }
    }

    /// The verified token of the request: its user, its times, and its claims.
    pub fn token(&self) -> &Arc<VerifiedToken> {
        &self.token
    }

    /// Whether the store was asked and said that the token is live. False only under
    /// [`FailMode::Open`]. A handler that moves money should look at it.
    pub fn is_checked(&self) -> bool {
        self.unchecked_because.is_none()
    }

    /// The error of the store, if [`is_checked`](Self::is_checked) is false; `None` otherwise.
    pub fn unchecked_because(&self) -> Option<&StoreError> {
        self.unchecked_because.as_ref()
    }

    #[cfg(feature = "axum")]
    pub(crate) fn layer(&self) -> u32 {
        self.layer
    }

    #[cfg(feature = "axum")]
    pub(crate) fn of_layer(self, layer: u32) -> Self {
        Self { layer, ..self }
    }

    /// What a later answer of the store means for what was begun with this clearance.
    pub(crate) fn decide_again(
        &self,
        answer: Result<Standing, StoreError>,
    ) -> Result<Self, Rejection> {
        decide(Arc::clone(&self.token), answer, self.mode)
    }
}

/// Why a request was refused. The layer puts it into the extensions of the response, for layers
/// further out; it is never in the body.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Rejection {
    /// The request has no credentials (RFC 6750 §3: no error code).
    NoCredentials,
    /// The credentials cannot be read, or there are two that differ (RFC 6750 §3.1,
    /// `invalid_request`).
    BadRequest(CredentialsError),
    /// The token is not acceptable (`invalid_token`).
    InvalidToken(TokenError),
    /// The token could not be verified, because the keys of its issuer are out of reach at the
    /// moment. It is refused in every [`FailMode`], because a forged token would look the same.
    NoKeys(TokenError),
    /// The token is revoked (`invalid_token`).
    Revoked(RevokedBy),
    /// The standing of the token is not known at present, and the mode is [`FailMode::Closed`].
    StandingUnknown(StoreError),
    /// The standing of the token will never be known again ([`StoreErrorKind::DataLoss`]), and the
    /// mode is [`FailMode::Closed`]. Waiting does not help, but a newer token can be checked: the
    /// client is told to sign in again (`invalid_token`).
    InDoubt(StoreError),
}

impl Rejection {
    /// The reason as a `Copy` value, for metrics and matching.
    pub fn kind(&self) -> RejectionKind {
        match self {
            Self::NoCredentials => RejectionKind::NoCredentials,
            Self::BadRequest(_) => RejectionKind::BadRequest,
            Self::InvalidToken(error) => RejectionKind::InvalidToken(error.kind()),
            Self::NoKeys(_) => RejectionKind::NoKeys,
            Self::Revoked(by) => RejectionKind::Revoked(by.kind),
            Self::StandingUnknown(error) => RejectionKind::StandingUnknown(error.kind()),
            Self::InDoubt(_) => RejectionKind::InDoubt,
        }
    }
}

impl From<TokenError> for Rejection {
    fn from(error: TokenError) -> Self {
        match error.kind() {
            TokenErrorKind::NoKeys => Self::NoKeys(error),
            _ => Self::InvalidToken(error),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str("the request has no credentials"),
            Self::BadRequest(error) => error.fmt(f),
            Self::InvalidToken(error) | Self::NoKeys(error) => error.fmt(f),
            Self::Revoked(by) => write!(f, "the token was revoked, by its {}", by.kind),
            Self::StandingUnknown(error) => {
                write!(f, "the standing of the token is not known: {error}")
            }
            Self::InDoubt(error) => {
                write!(f, "the standing of the token will not be known any more: {error}")
            }
        }
    }
}

impl std::error::Error for Rejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidToken(error) | Self::NoKeys(error) => error.source(),
            Self::StandingUnknown(error) | Self::InDoubt(error) => error.source(),
            Self::BadRequest(error) => error.source(),
            Self::NoCredentials | Self::Revoked(_) => None,
        }
    }
}

/// The kinds of [`Rejection`], without what belongs to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// Of [`Rejection::NoCredentials`]: answered with 401.
    NoCredentials,
    /// Of [`Rejection::BadRequest`]: answered with 400.
    BadRequest,
    /// Of [`Rejection::InvalidToken`], with the rule that the token breaks: answered with 401.
    InvalidToken(TokenErrorKind),
    /// Of [`Rejection::NoKeys`]: answered with 503.
    NoKeys,
    /// Of [`Rejection::Revoked`], with the kind of target that is revoked: answered with 401.
    Revoked(TargetKind),
    /// Of [`Rejection::StandingUnknown`], with the kind of the store's error: answered with 503.
    StandingUnknown(StoreErrorKind),
    /// Of [`Rejection::InDoubt`]: answered with 401.
    InDoubt,
}

impl RejectionKind {
    /// The name of the kind in metrics and logs. The kinds inside it have names of their own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadRequest => "bad_request",
            Self::InvalidToken(_) => "invalid_token",
            Self::NoKeys => "no_keys",
            Self::Revoked(_) => "revoked",
            Self::StandingUnknown(_) => "no_verdict",
            Self::InDoubt => "in_doubt",
        }
    }
}

/// For how long tokens may not be checked, in fail mode closed, until other processes should take
/// the requests. What passes sooner is mended by waiting, and taking a process out costs more.
const LASTING_OUTAGE: Duration = Duration::from_secs(10);

/// Whether a layer can check tokens, for readiness probes. See
/// [`JwtRevocationLayer::readiness`](crate::JwtRevocationLayer::readiness).
///
/// It is [`Serialize`]: `{"ready":…,"degraded":…,"reason":…}`. `Display` is the reason, or `ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    ready: bool,
    degraded: bool,
    reason: Option<String>,
}

impl Readiness {
    /// Whether requests should be sent to this process. A probe answers 200 if so, else 503.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether some tokens cannot be checked at this moment, ready or not.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// What is wrong, for people. It begins with the name of the state: `outage`, `settling` or
    /// `doubt`. `None` if nothing is wrong.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason().unwrap_or("ready"))
    }
}

/// Whether requests should be sent to a process whose store is in this condition. `mode` is `None`
/// where it depends on the request.
///
/// | condition | ready |
/// | --- | --- |
/// | tokens can be checked | yes |
/// | the store settles, or older tokens are in doubt for good | yes: no other process can do more |
/// | tokens cannot be checked, for less than ten seconds | yes |
/// | tokens cannot be checked, for longer, or never could | where the mode is open, or depends on the request |
pub(crate) fn readiness(condition: &Condition, mode: Option<FailMode>) -> Readiness {
    let (ready, reason) = match condition {
        Condition::Answering(Doubt::None) => (true, None),
        Condition::Answering(Doubt::Settling) => {
            (true, Some("settling: the data is at another server than before".into()))
        }
        Condition::Answering(Doubt::Lasting { issued_until, .. }) => {
            (true, Some(format!("doubt: tokens issued until {issued_until} are in doubt")))
        }
        Condition::Failing { error, lasts } => {
            let is_passing = lasts.is_some_and(|lasts| lasts < LASTING_OUTAGE);
            let needs_store = mode == Some(FailMode::Closed);
            let reason = format!("outage: tokens cannot be checked: {error}");
            (is_passing || !needs_store, Some(reason))
        }
    };
    Readiness { ready, degraded: reason.is_some(), reason }
}

/// What the answer of the store means for a verified token.
pub(crate) fn decide(
    token: Arc<VerifiedToken>,
    answer: Result<Standing, StoreError>,
    mode: FailMode,
) -> Result<Clearance, Rejection> {
    let unchecked_because = match (answer, mode) {
        (Ok(Standing::Live), _) => None,
        (Ok(Standing::Revoked(by)), _) => return Err(Rejection::Revoked(by)),
        // Whoever sends enough requests can bring this about, so it must not let anybody in.
        (Err(error), _) if error.kind() == StoreErrorKind::Overloaded => {
            return Err(Rejection::StandingUnknown(error));
        }
        // What the token is like is no outage: it cannot be told apart from one that is revoked, in
        // any mode and however long one waits.
        (Err(error), _) if error.is_permanent() => {
            let problem = "the store cannot look for the token, because of what is in it";
            let error = TokenError::new(TokenErrorKind::OddClaim, problem).with_source(error);
            return Err(Rejection::InvalidToken(error));
        }
        (Err(error), FailMode::Open) => Some(error),
        (Err(error), FailMode::Closed) if error.kind() == StoreErrorKind::DataLoss => {
            return Err(Rejection::InDoubt(error));
        }
        (Err(error), FailMode::Closed) => return Err(Rejection::StandingUnknown(error)),
    };
    Ok(Clearance {
        token,
        unchecked_because,
        mode,
        #[cfg(feature = "axum")]
        layer: 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::token::TokenProfile;
    use crate::token::profile::SignedClaims;

    fn token() -> Arc<VerifiedToken> {
        let claims = br#"{"jti":"1","iat":1000,"exp":2000}"#;
        let claims = SignedClaims::new(claims);
        Arc::new(TokenProfile::new().assert_verified_for_revocation(claims).unwrap())
    }

    fn revoked() -> Standing {
        Standing::Revoked(RevokedBy::new(TargetKind::User))
    }

    #[test]
    fn a_known_standing_decides_whatever_the_mode() {
        for mode in [FailMode::Closed, FailMode::Open] {
            let clearance = decide(token(), Ok(Standing::Live), mode).unwrap();
            assert!(clearance.is_checked() && clearance.unchecked_because().is_none());
            let rejection = decide(token(), Ok(revoked()), mode).unwrap_err();
            assert_eq!(rejection.kind(), RejectionKind::Revoked(TargetKind::User));
        }
    }

    #[test]
    fn without_a_standing_the_mode_decides_whatever_the_error() {
        for kind in StoreErrorKind::ALL {
            let error = || Err(StoreError::new(kind, "no answer"));
            let rejection = decide(token(), error(), FailMode::Closed).unwrap_err();
            // Only what waiting does not mend is told as the fault of the token.
            let expected = match kind {
                StoreErrorKind::DataLoss => RejectionKind::InDoubt,
                StoreErrorKind::InvalidInput | StoreErrorKind::Unmatched => {
                    RejectionKind::InvalidToken(TokenErrorKind::OddClaim)
                }
                kind => RejectionKind::StandingUnknown(kind),
            };
            assert_eq!(rejection.kind(), expected);
            if kind == StoreErrorKind::Overloaded
                || StoreError::new(kind, "no answer").is_permanent()
            {
                // Load is no outage, nor is what a token is like: a client could bring it about, to
                // be let in.
                let rejection = decide(token(), error(), FailMode::Open).unwrap_err();
                assert_eq!(rejection.kind(), expected);
                continue;
            }
            let clearance = decide(token(), error(), FailMode::Open).unwrap();
            assert!(!clearance.is_checked());
            assert_eq!(clearance.unchecked_because().unwrap().kind(), kind);
        }
    }

    #[test]
    fn a_process_is_not_ready_only_in_an_outage_that_lasts_and_that_it_has_to_wait_for() {
        let failing = |lasts: Option<u64>| Condition::Failing {
            error: StoreError::new(StoreErrorKind::Unreachable, "redis: closed"),
            lasts: lasts.map(Duration::from_secs),
        };
        let [issued_until, ends_at] = [5, 9].map(crate::clock::Timestamp::from_secs);
        let doubt = Doubt::Lasting { issued_until, ends_at };
        let (closed, open) = (Some(FailMode::Closed), Some(FailMode::Open));
        for (condition, mode, ready, reason) in [
            (Condition::default(), closed, true, "ready"),
            (Condition::Answering(Doubt::Settling), closed, true, "settling: "),
            (Condition::Answering(doubt), closed, true, "doubt: tokens issued until 5.000"),
            (failing(Some(9)), closed, true, "outage: tokens cannot be checked: redis: closed"),
            (failing(Some(10)), closed, false, "outage: "),
            (failing(None), closed, false, "outage: "),
            (failing(None), open, true, "outage: "),
            (failing(Some(99)), open, true, "outage: "),
            (failing(Some(99)), None, true, "outage: "),
        ] {
            let readiness = readiness(&condition, mode);
            assert_eq!(readiness.is_ready(), ready, "{condition:?} {mode:?}");
            assert!(readiness.to_string().starts_with(reason), "{readiness}");
            assert_eq!(readiness.is_degraded(), readiness.reason().is_some());
        }
    }

    #[test]
    fn the_default_is_closed() {
        assert_eq!(FailMode::default(), FailMode::Closed);
    }

    proptest! {
        #[test]
        fn nothing_passes_as_checked_but_a_live_token_and_closed_passes_nothing_else(
            answer in prop_oneof![
                Just(Ok(Standing::Live)),
                Just(Ok(revoked())),
                (prop::sample::select(&StoreErrorKind::ALL[..]), ".*")
                    .prop_map(|(kind, text)| Err(StoreError::new(kind, text))),
            ],
            mode in prop::sample::select(&[FailMode::Closed, FailMode::Open][..]),
        ) {
            let is_live = matches!(answer, Ok(Standing::Live));
            let is_outage = answer.as_ref().is_err_and(|error| {
                error.kind() != StoreErrorKind::Overloaded && !error.is_permanent()
            });
            let decision = decide(token(), answer, mode);
            prop_assert_eq!(decision.as_ref().is_ok_and(Clearance::is_checked), is_live);
            prop_assert_eq!(decision.is_ok(), is_live || (is_outage && mode == FailMode::Open));
        }
    }
}
