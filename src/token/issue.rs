//! Mints tokens that are revocable by construction.
//!
//! Each token has an id of its own, says when it was issued, and is valid no longer than the
//! profile accepts. The issuer checks each token by that profile before it gives it out: so it can
//! be verified, and revoked by each of its targets.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::jwt::{JwtVerifier, SigningKey};
use super::profile::SignedClaims;
use super::{TokenError, TokenProfile, TokenVerifier};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::ConfigError;
use crate::revocation::{Target, TargetKind};

/// Default of [`TokenIssuer::with_lifetime`], unless the profile accepts only shorter ones.
pub(crate) const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The type of the tokens (RFC 9068 §2.1).
const TYPE: &str = "at+jwt";

/// Bytes of randomness in an id: no two are ever the same, and none can be guessed.
const ID_BYTES: usize = 16;

/// Issues access tokens (RFC 9068) that verifiers with the same [`TokenProfile`] accept, and that
/// can be revoked.
///
/// ```
/// use tower_jwt_revocation::token::TokenVerifier;
/// use tower_jwt_revocation::token::issue::NewToken;
/// use tower_jwt_revocation::token::jwt::SigningKey;
/// use tower_jwt_revocation::{Algorithm, JwtVerifier, TokenIssuer, TokenProfile};
///
/// # #[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))] {
/// let secret = [42; 32]; // from where you keep secrets
/// let key = SigningKey::from_secret(Algorithm::HS256, &secret)?;
/// let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
///
/// let verifier = JwtVerifier::new([key.verification_key()], profile.clone())?;
/// let issuer = TokenIssuer::new(key, profile)?;
///
/// let new = NewToken::new("alice").with_session("s-1").with_claim("role", "admin");
/// let issued = issuer.issue(&new)?;
/// let verified = verifier.verify(issued.token())?;
/// assert_eq!(verified.subject(), Some("alice"));
/// assert_eq!(verified.id(), Some(issued.id()));
/// # }
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TokenIssuer {
    key: SigningKey,
    profile: TokenProfile,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    /// The same for each token.
    encoded_header: Box<str>,
}

impl TokenIssuer {
    /// An issuer that signs with `key` tokens that `profile` accepts. `iss` and `aud` come from the
    /// profile.
    ///
    /// # Errors
    /// [`ConfigError`] if the profile cannot work or names several issuers, or if a verifier with
    /// the same profile does not accept a test token.
    pub fn new(key: SigningKey, profile: TokenProfile) -> Result<Self, ConfigError> {
        profile.validate()?;
        if profile.only_issuer().is_err() {
            return Err(ConfigError::new(
                "issuer",
                "is not clear: the profile names several; issue with a profile that names one of \
                 them",
            ));
        }
        let header = match key.kid() {
            Some(kid) => json!({ "alg": key.alg(), "typ": TYPE, "kid": kid }),
            None => json!({ "alg": key.alg(), "typ": TYPE }),
        };
        let issuer = Self {
            encoded_header: encode(header.to_string()).into(),
            // Whole seconds, as `exp` and `iat` are.
            lifetime: Duration::from_secs(DEFAULT_LIFETIME.min(profile.max_lifetime()).as_secs()),
            clock: Arc::new(SystemClock),
            key,
            profile,
        };
        issuer.check()?;
        Ok(issuer)
    }

    /// How long tokens are valid, in whole seconds. Default: 15 minutes, or less if the profile
    /// accepts less.
    ///
    /// # Errors
    /// [`ConfigError`] if it is less than a second, not whole seconds, or longer than the profile
    /// accepts.
    pub fn with_lifetime(mut self, lifetime: Duration) -> Result<Self, ConfigError> {
        check_lifetime(lifetime, &self.profile)
            .map_err(|problem| ConfigError::new("lifetime", problem))?;
        self.lifetime = lifetime;
        Ok(self)
    }

    /// Where the time comes from; default: the clock of the operating system.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Issues a token.
    ///
    /// # Errors
    /// [`IssueError`] if the profile would not accept the token or could not revoke it by all that
    /// it names, or if there is no randomness.
    pub fn issue(&self, new: &NewToken) -> Result<IssuedToken, IssueError> {
        let now = self.clock.now();
        let issued_at = self.issued_at(new, now)?;
        let lifetime = new.lifetime.unwrap_or(self.lifetime);
        check_lifetime(lifetime, &self.profile).map_err(IssueError::invalid)?;
        let expires_at = Timestamp::from_secs(issued_at.as_secs()).saturating_add(lifetime);
        let id = new.id.clone().map_or_else(random_id, Ok)?;
        let claims = self.claims(new, &id, issued_at, expires_at)?;
        let payload = serde_json::to_vec(&claims)
            .map_err(|_| IssueError::invalid("the claims are not JSON"))?;
        let signing_input = format!("{}.{}", self.encoded_header, encode(&payload));
        let own = SignedClaims::new(&payload)
            .with_key_id(self.key.kid())
            .with_signing_input(&signing_input);
        self.profile.assert_verified_for_revocation(own).map_err(IssueError::Refused)?;
        let Some(signature) = self.key.sign(&signing_input) else {
            return Err(IssueError::Crypto("the key does not sign"));
        };
        let token = format!("{signing_input}.{signature}");
        Ok(IssuedToken { token, id, issued_at, expires_at })
    }

    /// The time from which the token counts: this second, or later if nothing before is to be
    /// accepted.
    fn issued_at(&self, new: &NewToken, now: Timestamp) -> Result<Timestamp, IssueError> {
        let issued_at = new.issued_at.unwrap_or(now).stamp(new.not_before_iat);
        if issued_at.saturating_duration_since(now) > self.profile.max_iat_lead() {
            return Err(IssueError::invalid(
                "`iat` would be so far in the future that no verifier accepts it; are the clocks \
                 apart?",
            ));
        }
        Ok(issued_at)
    }

    fn claims(
        &self,
        new: &NewToken,
        id: &str,
        issued_at: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Map<String, Value>, IssueError> {
        let mut claims = new.claims.clone().map_err(IssueError::invalid)?;
        let id_claim = self.profile.id_claim();
        let reserved = claims.keys().find(|name| is_reserved(name) || **name == id_claim);
        if let Some(name) = reserved {
            return Err(IssueError::invalid(format!(
                "the claim `{name}` is set by the issuer; see NewToken"
            )));
        }
        if let Ok(iss) = self.profile.only_issuer()
            && !iss.is_empty()
        {
            claims.insert("iss".into(), iss.into());
        }
        if let Some(audience) = self.audience(new)? {
            claims.insert("aud".into(), audience);
        }
        if new.subject.is_empty() {
            return Err(IssueError::invalid("the subject is empty"));
        }
        claims.insert("sub".into(), (*new.subject).into());
        claims.insert("iat".into(), numeric_date(issued_at));
        claims.insert("exp".into(), expires_at.as_secs().into());
        claims.insert(id_claim.into(), id.into());
        for (claim, kind, id) in new.targets() {
            let Some(id) = id else { continue };
            if id.is_empty() {
                return Err(IssueError::invalid(format!("the {kind} is empty")));
            }
            if self.profile.target_of_claim(claim, None) != Some(kind) {
                return Err(IssueError::invalid(format!(
                    "the profile does not map `{claim}` to {kind}, so the token could not be \
                     revoked by it; see TokenProfile::with_claim_target",
                )));
            }
            claims.insert(claim.into(), id.into());
        }
        Ok(claims)
    }

    fn audience(&self, new: &NewToken) -> Result<Option<Value>, IssueError> {
        let accepted = self.profile.audiences();
        match (new.audience.as_deref(), accepted) {
            (Some(one), _) if accepted.iter().any(|audience| **audience == *one) => {
                Ok(Some(one.into()))
            }
            (Some(_), _) => Err(IssueError::invalid("the audience is not one of the profile")),
            (None, []) => Ok(None),
            (None, [one]) => Ok(Some((**one).into())),
            (None, several) => Ok(Some(several.iter().map(|audience| &**audience).collect())),
        }
    }

    /// Whether a verifier with the same profile accepts a test token.
    fn check(&self) -> Result<(), ConfigError> {
        let verifier = JwtVerifier::new([self.key.verification_key()], self.profile.clone())?;
        let refused = |problem: String| {
            ConfigError::new("profile", format!("refuses what is issued: {problem}"))
        };
        let issued =
            self.issue(&NewToken::new("self-check")).map_err(|error| refused(error.to_string()))?;
        verifier.verify(&issued.token).map_err(|error| refused(error.to_string()))?;
        Ok(())
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenIssuer")
            .field("key", &self.key)
            .field("profile", &self.profile)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// The claims of a token that is to be issued.
///
/// `Debug` shows the names of the claims only.
#[derive(Clone)]
#[must_use]
pub struct NewToken {
    subject: Box<str>,
    id: Option<Box<str>>,
    session: Option<Box<str>>,
    device: Option<Box<str>>,
    family: Option<Box<str>>,
    client: Option<Box<str>>,
    audience: Option<Box<str>>,
    lifetime: Option<Duration>,
    issued_at: Option<Timestamp>,
    not_before_iat: Timestamp,
    /// Or why they are none.
    claims: Result<Map<String, Value>, &'static str>,
}

impl NewToken {
    /// A token of this user (`sub`).
    pub fn new(subject: impl AsRef<str>) -> Self {
        Self {
            subject: subject.as_ref().into(),
            id: None,
            session: None,
            device: None,
            family: None,
            client: None,
            audience: None,
            lifetime: None,
            issued_at: None,
            not_before_iat: Timestamp::ZERO,
            claims: Ok(Map::new()),
        }
    }

    /// The id of this token (`jti`), if it has to be known beforehand. It must be unique and hard
    /// to guess. Default: 128 random bits.
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        self.id = Some(id.as_ref().into());
        self
    }

    /// The login session it belongs to (`sid`): revocable by
    /// [`Target::session`](crate::Target::session).
    pub fn with_session(mut self, sid: impl AsRef<str>) -> Self {
        self.session = Some(sid.as_ref().into());
        self
    }

    /// The device it is for (`device_id`): revocable by [`Target::device`](crate::Target::device).
    pub fn with_device(mut self, id: impl AsRef<str>) -> Self {
        self.device = Some(id.as_ref().into());
        self
    }

    /// The family of refresh tokens it came out of (`fid`): revocable by
    /// [`Target::family`](crate::Target::family).
    pub fn with_family(mut self, id: impl AsRef<str>) -> Self {
        self.family = Some(id.as_ref().into());
        self
    }

    /// The OAuth client it is for (`client_id`, RFC 9068 §2.2): revocable by
    /// [`Target::client`](crate::Target::client).
    pub fn with_client(mut self, client_id: impl AsRef<str>) -> Self {
        self.client = Some(client_id.as_ref().into());
        self
    }

    /// Only one of the audiences of the profile. Default: all of them.
    pub fn with_audience(mut self, audience: impl AsRef<str>) -> Self {
        self.audience = Some(audience.as_ref().into());
        self
    }

    /// How long it is valid, in whole seconds. Default: [`TokenIssuer::with_lifetime`].
    pub fn with_lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Issued at this time instead of now: a time by the clock that dates the revocations, to the
    /// millisecond. `iat` has the whole second, unless
    /// [`with_not_before_iat`](Self::with_not_before_iat) needs the fraction.
    pub fn with_issued_at(mut self, issued_at: Timestamp) -> Self {
        self.issued_at = Some(issued_at);
        self
    }

    /// The earliest time of issue (`iat`). After "log out everywhere" pass
    /// [`Receipt::reissue_at`](crate::store::Receipt::reissue_at): otherwise a token that is issued
    /// in the same second counts as revoked. Only within that second, `iat` then has a fraction.
    pub fn with_not_before_iat(mut self, reissue_at: impl Into<Option<Timestamp>>) -> Self {
        self.not_before_iat = reissue_at.into().unwrap_or_default();
        self
    }

    /// One more claim. Those that have a method here, and `iss`, `sub`, `aud`, `exp`, `nbf`, `iat`
    /// and `jti`, cannot be set this way: [`TokenIssuer::issue`] refuses them.
    pub fn with_claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        if let Ok(claims) = &mut self.claims {
            claims.insert(name.into(), value.into());
        }
        self
    }

    /// More claims, from anything that serializes to a JSON object; as
    /// [`with_claim`](Self::with_claim).
    pub fn with_claims(mut self, claims: &impl Serialize) -> Self {
        match (&mut self.claims, serde_json::to_value(claims)) {
            (Ok(known), Ok(Value::Object(more))) => known.extend(more),
            // Told by `issue`, so that building a token stays one sentence. The cause may quote the
            // claims.
            (Ok(_), _) => self.claims = Err("the claims are not a JSON object"),
            (Err(_), _) => {}
        }
        self
    }

    /// What a revocation may be about that is to have come before the token.
    pub(crate) fn names(&self) -> impl Iterator<Item = Target> {
        let user = Target::user(&*self.subject);
        let others = self.targets().into_iter().filter_map(|(_, kind, id)| match (kind, id?) {
            (TargetKind::Session, id) => Some(Target::session(id)),
            (TargetKind::Device, id) => Some(Target::device(id)),
            (TargetKind::Family, id) => Some(Target::family(id)),
            (TargetKind::Client, id) => Some(Target::client(id)),
            _ => None,
        });
        std::iter::once(user).chain(others.collect::<Vec<_>>())
    }

    /// As [`with_not_before_iat`](Self::with_not_before_iat), if that is later than what was asked.
    pub(crate) fn not_before(mut self, reissue_at: Option<Timestamp>) -> Self {
        self.not_before_iat = self.not_before_iat.max(reissue_at.unwrap_or_default());
        self
    }

    /// What the token is to be revocable by, besides its id and its user.
    fn targets(&self) -> [(&'static str, TargetKind, Option<&str>); 4] {
        [
            ("sid", TargetKind::Session, self.session.as_deref()),
            ("device_id", TargetKind::Device, self.device.as_deref()),
            ("fid", TargetKind::Family, self.family.as_deref()),
            ("client_id", TargetKind::Client, self.client.as_deref()),
        ]
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("claims", &self.claims.as_ref().map(|claims| claims.keys().collect::<Vec<_>>()))
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// A token that has just been issued. `Debug` does not show it.
#[derive(Clone)]
pub struct IssuedToken {
    token: String,
    id: Box<str>,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl IssuedToken {
    /// The token, for its holder alone.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The token, for its holder alone.
    pub fn into_token(self) -> String {
        self.token
    }

    /// Its id (`jti`), by which it can be revoked: [`Target::token`](crate::Target::token).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its `iat`.
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// Its `exp`.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken")
            .field("id", &self.id)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Why a token was not issued. It names the rule, never the value of a claim.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum IssueError {
    /// The claims that were asked for cannot be; the text says why.
    Invalid(Box<str>),
    /// The profile would refuse the token.
    Refused(TokenError),
    /// There is no randomness, or the key does not sign.
    Crypto(&'static str),
}

impl IssueError {
    fn invalid(problem: impl Into<Box<str>>) -> Self {
        Self::Invalid(problem.into())
    }
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(problem) => f.write_str(problem),
            Self::Refused(error) => write!(f, "the profile does not accept the token: {error}"),
            Self::Crypto(problem) => f.write_str(problem),
        }
    }
}

impl Error for IssueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(error) => error.source(),
            Self::Invalid(_) | Self::Crypto(_) => None,
        }
    }
}

/// Claims that are not for [`NewToken::with_claim`].
fn is_reserved(name: &str) -> bool {
    const REGISTERED: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];
    REGISTERED.contains(&name)
        || NewToken::new("").targets().iter().any(|(claim, _, _)| *claim == name)
}

fn check_lifetime(lifetime: Duration, profile: &TokenProfile) -> Result<(), &'static str> {
    if lifetime.is_zero() || lifetime.subsec_nanos() != 0 {
        return Err("the lifetime is not a number of whole seconds above zero");
    }
    if lifetime > profile.max_lifetime() {
        return Err("the lifetime is longer than the profile accepts; see \
            TokenProfile::with_max_lifetime");
    }
    Ok(())
}

pub(crate) fn random_id() -> Result<Box<str>, IssueError> {
    let mut bytes = [0; ID_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|_| IssueError::Crypto("the operating system has no randomness"))?;
    Ok(encode(bytes).into())
}

/// RFC 7519 §2: seconds, with a fraction if need be.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of our time are exact in a double")]
fn numeric_date(time: Timestamp) -> Value {
    let millis = time.as_millis();
    if millis.is_multiple_of(1000) {
        time.as_secs().into()
    } else {
        (millis as f64 / 1000.0).into()
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
#[cfg(any(feature = "aws_lc_rs", feature = "rust_crypto"))]
#[path = "issue_tests.rs"]
mod tests;
