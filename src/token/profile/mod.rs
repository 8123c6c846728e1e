//! The rules for claims, shared by every verifier and by the write side: who may have issued a token and for whom,
//! when it is valid, and by which of its claims it can be revoked.
//!
//! Pure: bytes and a time in, a [`VerifiedToken`] or a [`TokenError`] out.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use super::{TokenError, TokenErrorKind};
use crate::clock::Timestamp;
use crate::config::ConfigError;
use crate::revocation::{Fingerprint, IssuerDigest, MAX_ID_BYTES, Target, TargetKind};
use crate::verified::{TokenTarget, VerifiedToken};

/// Default of [`TokenProfile::with_leeway`].
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
/// Largest [`TokenProfile::with_leeway`]: more would hide a broken clock.
pub const MAX_LEEWAY: Duration = Duration::from_secs(300);
/// Default of [`TokenProfile::with_max_lifetime`].
pub const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How far an `iat` may lead on top of the leeway. After a user-wide revocation the next token is stamped with the
/// next whole second, see [`Receipt::reissue_at`](crate::Receipt::reissue_at), and must be accepted at once.
const IAT_LEAD: Duration = Duration::from_secs(1);

/// How much longer than the tokens it covers a record is kept: the largest leeway that any verifier may grant, the
/// rounding of a whole second, and clocks that are a minute apart.
const RETENTION_MARGIN: Duration = Duration::from_secs(MAX_LEEWAY.as_secs() + 1 + 60);

/// The claims that feed targets unless the profile says otherwise. Each that is present becomes a target of its own.
const DEFAULT_CLAIM_TARGETS: [(&str, TargetKind); 10] = [
    ("sub", TargetKind::User),
    ("sid", TargetKind::Session),
    ("session_state", TargetKind::Session),
    ("session_id", TargetKind::Session),
    ("device_id", TargetKind::Device),
    ("fid", TargetKind::Family),
    ("family_id", TargetKind::Family),
    ("origin_jti", TargetKind::Family),
    ("client_id", TargetKind::Client),
    ("azp", TargetKind::Client),
];

/// What a token without an id means, see [`TokenProfile::with_missing_id`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingId {
    /// The token is refused. The default: what has no name cannot be revoked by name.
    #[default]
    Refuse,
    /// The token is known by the SHA-256 of its signing input (header and payload, never the signature). It can be
    /// revoked by handing in the token itself.
    SigningInput,
    /// The token is accepted and can be revoked only through its other targets: its session, its user, …
    OtherTargetsOnly,
}

/// Who may issue tokens, for whom, for how long, and by which claims they can be revoked.
///
/// Verifier and [`Revoker`](crate::Revoker) are given the same profile, so that what one writes the other finds:
/// ids are kept apart by issuer, and a revocation is kept for as long as the longest token that is accepted.
///
/// ```
/// use tower_jwt_revocation::token::TokenProfile;
///
/// let profile = TokenProfile::new().with_issuer("https://id.example").with_audience("orders");
/// ```
#[derive(Clone)]
pub struct TokenProfile {
    issuers: Vec<Issuer>,
    anonymous: Issuer,
    audiences: Vec<Box<str>>,
    leeway: Duration,
    max_lifetime: Duration,
    id_claim: Box<str>,
    missing_id: MissingId,
    require_iat: bool,
    claim_targets: Vec<ClaimTarget>,
}

#[derive(Clone)]
struct Issuer {
    name: Arc<str>,
    digest: IssuerDigest,
    /// The target "everything of this issuer", which is the same for each of its tokens.
    target: TokenTarget,
}

#[derive(Clone)]
struct ClaimTarget {
    claim: Arc<str>,
    kind: TargetKind,
}

/// Claims whose signature someone has checked, on their way into [`TokenProfile::assert_verified`].
#[derive(Clone, Copy)]
pub struct SignedClaims<'a> {
    payload: &'a [u8],
    key_id: Option<&'a str>,
    signing_input: Option<&'a str>,
}

impl<'a> SignedClaims<'a> {
    /// The claims set: a JSON object.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, key_id: None, signing_input: None }
    }

    /// The `kid` of the key that verified the token: makes the token revocable by key.
    #[must_use]
    pub fn with_key_id(mut self, kid: Option<&'a str>) -> Self {
        self.key_id = kid;
        self
    }

    /// The encoded header and payload with the point between them (RFC 7515 §2): the identity of tokens that have
    /// no id, see [`MissingId::SigningInput`].
    #[must_use]
    pub fn with_signing_input(mut self, signing_input: &'a str) -> Self {
        self.signing_input = Some(signing_input);
        self
    }
}

impl fmt::Debug for SignedClaims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedClaims").finish_non_exhaustive()
    }
}

impl Default for TokenProfile {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenProfile {
    /// Any issuer, any audience, `jti` required, at most [`DEFAULT_MAX_LIFETIME`] long, judged with
    /// [`DEFAULT_LEEWAY`].
    pub fn new() -> Self {
        Self {
            issuers: Vec::new(),
            anonymous: Issuer::new(""),
            audiences: Vec::new(),
            leeway: DEFAULT_LEEWAY,
            max_lifetime: DEFAULT_MAX_LIFETIME,
            id_claim: "jti".into(),
            missing_id: MissingId::default(),
            require_iat: true,
            claim_targets: DEFAULT_CLAIM_TARGETS
                .map(|(claim, kind)| ClaimTarget { claim: claim.into(), kind })
                .into(),
        }
    }

    /// Accepts tokens of this issuer only; call it again for each further one. From then on `iss` is required, must
    /// equal one of them exactly, and ids belong to their issuer.
    ///
    /// Default: none, `iss` is not looked at, and all ids belong to one nameless issuer. Adding the first issuer to
    /// a running system therefore orphans the revocations written before.
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl AsRef<str>) -> Self {
        self.issuers.push(Issuer::new(issuer.as_ref()));
        self
    }

    /// Accepts tokens for this audience only; call it again for each further one, any match suffices. From then on
    /// `aud` is required.
    ///
    /// Default: none, `aud` is not looked at. Name it wherever an issuer serves more than one API
    /// (RFC 8725 §3.9).
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<Box<str>>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// How far the clocks of issuer and verifier may be apart when `exp`, `nbf` and `iat` are judged: 0 to 300 s,
    /// default 60 s.
    #[must_use]
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// The longest lifetime (`exp` − `iat`) of an accepted token, default 24 h. Longer ones are refused: revocations
    /// of users, sessions, … are forgotten when the longest token is over, so a longer one would outlive them.
    ///
    /// Before it is lowered in a running system nothing needs to be done; before it is *raised*, revocations must
    /// have been written under the higher bound for as long as the lower one.
    #[must_use]
    pub fn with_max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// The claim that holds the id of a token, default `jti`. Microsoft Entra: `uti`.
    #[must_use]
    pub fn with_id_claim(mut self, claim: impl Into<Box<str>>) -> Self {
        self.id_claim = claim.into();
        self
    }

    /// What a token without an id means, default [`MissingId::Refuse`].
    ///
    /// # Security
    /// With [`MissingId::OtherTargetsOnly`] a single token can no longer be revoked.
    #[must_use]
    pub fn with_missing_id(mut self, missing_id: MissingId) -> Self {
        self.missing_id = missing_id;
        self
    }

    /// Accepts tokens that do not say when they were issued.
    ///
    /// # Security
    /// Such a token is covered by every cutoff ("all of this user so far"), also by one that was set before it
    /// was issued: its holder stays out until the cutoff is forgotten. And as nothing tells how old it is, one that is
    /// valid for longer than [`with_max_lifetime`](Self::with_max_lifetime) passes in its last part, when
    /// revocations of its user or session may have been forgotten.
    #[must_use]
    pub fn allow_missing_iat(mut self) -> Self {
        self.require_iat = false;
        self
    }

    /// Makes tokens revocable by the value of `claim`, as a target of this kind. `TargetKind::Claim` makes it
    /// a target of its own: `with_claim_target("tenant", TargetKind::Claim)`, then `Target::claim("tenant", "acme")`.
    ///
    /// Default: `sub` → user; `sid`, `session_state`, `session_id` → session; `device_id` → device; `fid`,
    /// `family_id`, `origin_jti` → family; `client_id`, `azp` → client. Every claim that is present counts. A value
    /// must be a string or (not for `sub`) an integer; anything else is refused, because a revocation of it would
    /// not be found.
    #[must_use]
    pub fn with_claim_target(mut self, claim: impl Into<Arc<str>>, kind: TargetKind) -> Self {
        let claim = claim.into();
        self.claim_targets.retain(|known| known.claim != claim);
        self.claim_targets.push(ClaimTarget { claim, kind });
        self
    }

    /// No longer looks at `claim`: saves a key per check, and lets odd values of it pass.
    #[must_use]
    pub fn without_claim_target(mut self, claim: &str) -> Self {
        self.claim_targets.retain(|known| *known.claim != *claim);
        self
    }

    /// Whether this profile can work. Called by everything that is built with one.
    ///
    /// # Errors
    /// [`ConfigError`] naming the setting: an empty issuer, audience or claim name; a leeway over 300 s; a lifetime
    /// of zero or over 10 years; a claim mapped to a kind that is not fed by claims.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
        let oops = |setting, problem: &str| Err(ConfigError::new(setting, problem));
        if self.issuers.iter().any(|issuer| issuer.name.is_empty()) {
            return oops("issuer", "is empty; name the issuer exactly as `iss` does, or do not set it");
        }
        if self.audiences.iter().any(|audience| audience.is_empty()) {
            return oops("audience", "is empty; name the audience exactly as `aud` does, or do not set it");
        }
        if self.leeway > MAX_LEEWAY {
            return oops("leeway", "is over 300 s; mend the clocks instead");
        }
        if self.max_lifetime.is_zero() || self.max_lifetime > TEN_YEARS {
            return oops("max_lifetime", "must be over zero and at most ten years");
        }
        if self.id_claim.is_empty() || self.claim_targets.iter().any(|target| target.claim.is_empty()) {
            return oops("claim", "has an empty name");
        }
        for target in &self.claim_targets {
            if matches!(target.kind, TargetKind::Key | TargetKind::Issuer | TargetKind::SigningInput) {
                return Err(ConfigError::new(
                    "claim_target",
                    format!("`{}` is mapped to {}, which is not fed by a claim", target.claim, target.kind),
                ));
            }
            if *target.claim == *self.id_claim {
                return Err(ConfigError::new(
                    "claim_target",
                    format!("`{}` is already the id claim", target.claim),
                ));
            }
        }
        Ok(())
    }

    /// Makes a [`VerifiedToken`]. **Call this only after the signature has been checked**: this is the assertion on
    /// which everything else rests.
    ///
    /// # Errors
    /// [`TokenError`] if the claims are not acceptable at the time `now`.
    pub fn assert_verified(
        &self,
        claims: SignedClaims<'_>,
        now: Timestamp,
    ) -> Result<VerifiedToken, TokenError> {
        let token = self.assert_verified_for_revocation(claims)?;
        self.judge_times(&token, now)?;
        Ok(token)
    }

    /// As [`assert_verified`](Self::assert_verified), without judging `exp`, `nbf` and `iat` against the clock: for
    /// a token that is to be revoked.
    ///
    /// # Errors
    /// [`TokenError`] if the claims could never be acceptable.
    pub fn assert_verified_for_revocation(
        &self,
        signed: SignedClaims<'_>,
    ) -> Result<VerifiedToken, TokenError> {
        let claims = Claims::parse(signed.payload, self)?;
        let issuer = self.judge_issuer(claims.issuer.as_deref())?;
        self.judge_audience(&claims.audience)?;
        let Some(expires_at) = claims.expires_at else { return Err(missing("exp")) };
        if claims.issued_at.is_none() && self.require_iat {
            return Err(TokenError::new(
                TokenErrorKind::MissingClaim,
                "the claim `iat` is missing, without which \"all tokens so far\" cannot be told; see TokenProfile::allow_missing_iat",
            ));
        }
        if claims.issued_at.is_some_and(|issued_at| expires_at.since(issued_at) > self.max_lifetime) {
            return Err(too_long_lived());
        }
        let targets = self.targets(&claims, issuer, &signed)?;
        Ok(VerifiedToken {
            payload: signed.payload.into(),
            issuer: claims.issuer.map(Cow::into_owned).map(Into::into),
            subject: claims.subject.map(Cow::into_owned).map(Into::into),
            expires_at,
            not_before: claims.not_before,
            issued_at: claims.issued_at,
            targets,
        })
    }

    /// Judges the times of a token, again at each use if it is kept.
    ///
    /// # Errors
    /// [`TokenError`] if the token is expired, not valid yet, or from the future.
    pub fn judge_times(&self, token: &VerifiedToken, now: Timestamp) -> Result<(), TokenError> {
        if now >= token.expires_at.plus(self.leeway) {
            return Err(TokenError::new(TokenErrorKind::Expired, "the token is expired"));
        }
        if token.not_before.is_some_and(|not_before| now.plus(self.leeway) < not_before) {
            return Err(TokenError::new(TokenErrorKind::NotYetValid, "the token is not valid yet"));
        }
        match token.issued_at {
            Some(issued_at) if issued_at > now.plus(self.leeway).plus(IAT_LEAD) => Err(TokenError::new(
                TokenErrorKind::IssuedInFuture,
                "the token was issued in the future; are the clocks of issuer and verifier apart?",
            )),
            None if token.expires_at.since(now) > self.max_lifetime => Err(too_long_lived()),
            _ => Ok(()),
        }
    }

    fn judge_issuer(&self, iss: Option<&str>) -> Result<&Issuer, TokenError> {
        match iss {
            _ if self.issuers.is_empty() => Ok(&self.anonymous),
            None => Err(missing("iss")),
            Some(iss) => self.issuers.iter().find(|issuer| *issuer.name == *iss).ok_or_else(|| {
                TokenError::new(TokenErrorKind::WrongIssuer, "the issuer is not one of the accepted ones")
            }),
        }
    }

    fn judge_audience(&self, aud: &[Cow<'_, str>]) -> Result<(), TokenError> {
        if self.audiences.is_empty() {
            return Ok(());
        }
        if aud.is_empty() {
            return Err(missing("aud"));
        }
        if aud.iter().any(|aud| self.audiences.iter().any(|accepted| **accepted == **aud)) {
            return Ok(());
        }
        Err(TokenError::new(TokenErrorKind::WrongAudience, "the token is for another audience"))
    }

    fn targets(
        &self,
        claims: &Claims<'_>,
        issuer: &Issuer,
        signed: &SignedClaims<'_>,
    ) -> Result<Box<[TokenTarget]>, TokenError> {
        let mut targets = Vec::with_capacity(claims.targets.len() + 3);
        match (&claims.id, self.missing_id, signed.signing_input) {
            (Some(id), _, _) => targets.push(issuer.target(TargetKind::Token, None, id)),
            (None, MissingId::SigningInput, Some(input)) => {
                let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(input));
                targets.push(issuer.target(TargetKind::SigningInput, None, &digest));
            }
            (None, MissingId::OtherTargetsOnly, _) => {}
            (None, _, _) => {
                return Err(TokenError::new(
                    TokenErrorKind::MissingId,
                    format!(
                        "the token has no `{}`, so it could not be revoked; see TokenProfile::with_id_claim and with_missing_id",
                        self.id_claim
                    ),
                ));
            }
        }
        targets.extend(claims.targets.iter().map(|(feed, id)| {
            let claim = (feed.kind == TargetKind::Claim).then_some(&feed.claim);
            issuer.target(feed.kind, claim, id)
        }));
        if let Some(kid) = signed.key_id.filter(|kid| !kid.is_empty()) {
            targets.push(issuer.target(TargetKind::Key, None, kid));
        }
        targets.push(issuer.target.clone());
        Ok(targets.into())
    }

    /// The issuer to which ids without one belong.
    ///
    /// # Errors
    /// The names of all issuers, if there are several to choose from.
    pub(crate) fn only_issuer(&self) -> Result<&str, Vec<&str>> {
        match self.issuers.as_slice() {
            [] => Ok(""),
            [one] => Ok(&one.name),
            many => Err(many.iter().map(|issuer| &*issuer.name).collect()),
        }
    }

    #[cfg(feature = "issuer")]
    pub(crate) fn audiences(&self) -> &[Box<str>] {
        &self.audiences
    }

    #[cfg(feature = "issuer")]
    pub(crate) fn id_claim(&self) -> &str {
        &self.id_claim
    }

    #[cfg(feature = "issuer")]
    pub(crate) fn max_lifetime(&self) -> Duration {
        self.max_lifetime
    }

    /// How far in the future a new token may claim to be issued, so that every verifier takes it at once.
    #[cfg(feature = "issuer")]
    pub(crate) fn max_iat_lead(&self) -> Duration {
        self.leeway + IAT_LEAD
    }

    /// By what kind of target the claim makes tokens revocable.
    #[cfg(feature = "issuer")]
    pub(crate) fn target_of_claim(&self, claim: &str) -> Option<TargetKind> {
        self.claim_targets.iter().find(|target| *target.claim == *claim).map(|target| target.kind)
    }

    pub(crate) fn has_issuers(&self) -> bool {
        !self.issuers.is_empty()
    }

    pub(crate) fn knows_issuer(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| *known.name == *issuer)
    }

    /// When the record of a token that expires at `exp` may be forgotten.
    pub(crate) fn forget_token_at(exp: Timestamp) -> Timestamp {
        exp.plus(RETENTION_MARGIN)
    }

    /// How long a record must be kept to outlive every token that exists when it is written.
    pub(crate) fn retention(&self) -> Duration {
        self.max_lifetime + RETENTION_MARGIN
    }
}

impl fmt::Debug for TokenProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenProfile")
            .field("issuers", &self.issuers.iter().map(|issuer| &issuer.name).collect::<Vec<_>>())
            .field("audiences", &self.audiences)
            .field("leeway", &self.leeway)
            .field("max_lifetime", &self.max_lifetime)
            .field("id_claim", &self.id_claim)
            .field("missing_id", &self.missing_id)
            .finish_non_exhaustive()
    }
}

impl Issuer {
    fn new(name: &str) -> Self {
        let target = Target::issuer(name);
        let fingerprint = target.fingerprint();
        Self {
            name: name.into(),
            digest: IssuerDigest::of(name),
            target: TokenTarget { target, fingerprint },
        }
    }

    fn target(&self, kind: TargetKind, claim: Option<&Arc<str>>, id: &str) -> TokenTarget {
        let target = match claim {
            Some(claim) => Target::claim(Arc::clone(claim), id),
            None => Target::new(kind, id),
        };
        let fingerprint = Fingerprint::of(kind, self.digest, claim.map_or("", |claim| claim), id);
        TokenTarget { target: target.issued_by(Arc::clone(&self.name)), fingerprint }
    }
}

fn missing(claim: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::MissingClaim, format!("the claim `{claim}` is missing"))
}

fn odd(claim: &str, problem: &str) -> TokenError {
    TokenError::new(TokenErrorKind::OddClaim, format!("the claim `{claim}` {problem}"))
}

fn too_long_lived() -> TokenError {
    TokenError::new(
        TokenErrorKind::LifetimeTooLong,
        "the token is valid for longer than accepted; see TokenProfile::with_max_lifetime",
    )
}

// === Reading claims ===

/// The claims that decide, borrowed from the payload where possible.
#[derive(Default)]
struct Claims<'a> {
    issuer: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    audience: Vec<Cow<'a, str>>,
    expires_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
    issued_at: Option<Timestamp>,
    id: Option<Cow<'a, str>>,
    targets: Vec<(&'a ClaimTarget, Cow<'a, str>)>,
}

impl<'a> Claims<'a> {
    fn parse(payload: &'a [u8], profile: &'a TokenProfile) -> Result<Self, TokenError> {
        let mut reader = ClaimsReader { profile, claims: Claims::default(), names: Vec::new(), error: None };
        let mut json = serde_json::Deserializer::from_slice(payload);
        let read = json.deserialize_map(&mut reader).and_then(|()| json.end());
        if let Some(error) = reader.error {
            return Err(error);
        }
        // The cause is dropped: its text may quote the claims.
        read.map_err(|_| TokenError::new(TokenErrorKind::Malformed, "the claims are not a JSON object"))?;
        reader.names.sort_unstable();
        if reader.names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            // RFC 7519 §4 leaves the choice between this and "the last one wins". Two parsers that choose
            // differently see two different tokens.
            return Err(TokenError::new(TokenErrorKind::OddClaim, "a claim stands there twice"));
        }
        Ok(reader.claims)
    }

    fn take(&mut self, name: &str, value: Value<'a>, profile: &'a TokenProfile) -> Result<(), TokenError> {
        match name {
            "iss" => return value.string(name).map(|iss| self.issuer = iss),
            "aud" => return value.strings(name).map(|aud| self.audience = aud),
            "exp" => return value.date(name).map(|exp| self.expires_at = exp),
            "nbf" => return value.date(name).map(|nbf| self.not_before = nbf),
            "iat" => return value.date(name).map(|iat| self.issued_at = iat),
            "sub" => self.subject = value.clone().string(name)?,
            _ => {}
        }
        if *name == *profile.id_claim {
            self.id =
                value.string(name)?.map(|id| bounded(name, id)).transpose()?.filter(|id| !id.is_empty());
        } else if let Some(feed) = profile.claim_targets.iter().find(|feed| *feed.claim == *name) {
            let id = value.id(name)?;
            // An empty id names nothing: no one can revoke it.
            if let Some(id) = id.filter(|id| !id.is_empty()) {
                self.targets.push((feed, bounded(name, id)?));
            }
        }
        Ok(())
    }
}

fn bounded<'a>(name: &str, id: Cow<'a, str>) -> Result<Cow<'a, str>, TokenError> {
    if id.len() > MAX_ID_BYTES { Err(odd(name, "is longer than 1024 bytes")) } else { Ok(id) }
}

/// One pass over the claims set: reads what decides, skips the rest, remembers every name.
struct ClaimsReader<'a> {
    profile: &'a TokenProfile,
    claims: Claims<'a>,
    names: Vec<Cow<'a, str>>,
    error: Option<TokenError>,
}

impl ClaimsReader<'_> {
    fn is_read(&self, name: &str) -> bool {
        matches!(name, "iss" | "sub" | "aud" | "exp" | "nbf" | "iat")
            || *name == *self.profile.id_claim
            || self.profile.claim_targets.iter().any(|feed| *feed.claim == *name)
    }
}

impl<'a> Visitor<'a> for &mut ClaimsReader<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            if self.is_read(&name) {
                let value = map.next_value()?;
                if let Err(error) = self.claims.take(&name, value, self.profile) {
                    self.error.get_or_insert(error);
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            self.names.push(name);
        }
        Ok(())
    }
}

/// A member name, borrowed unless it holds an escape.
struct Name<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Name<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ValueVisitor)? {
            Value::String(name) => Ok(Self(name)),
            _ => Err(serde::de::Error::custom("not a string")),
        }
    }
}

/// The value of a claim, as far as it can matter.
#[derive(Clone)]
enum Value<'a> {
    Null,
    String(Cow<'a, str>),
    Strings(Vec<Cow<'a, str>>),
    Integer(u64),
    Number(f64),
    Other,
}

impl<'a> Value<'a> {
    fn string(self, name: &str) -> Result<Option<Cow<'a, str>>, TokenError> {
        match self {
            Self::Null => Ok(None),
            Self::String(text) => Ok(Some(text)),
            _ => Err(odd(name, "is not a string")),
        }
    }

    fn strings(self, name: &str) -> Result<Vec<Cow<'a, str>>, TokenError> {
        match self {
            Self::Null => Ok(Vec::new()),
            Self::String(text) => Ok(vec![text]),
            Self::Strings(texts) => Ok(texts),
            _ => Err(odd(name, "is not a string or an array of strings")),
        }
    }

    fn id(self, name: &str) -> Result<Option<Cow<'a, str>>, TokenError> {
        match self {
            Self::Integer(number) => Ok(Some(number.to_string().into())),
            Self::Null | Self::String(_) => self.string(name),
            _ => Err(odd(
                name,
                "feeds a revocation target and is neither a string nor an integer; see TokenProfile::without_claim_target",
            )),
        }
    }

    /// A `NumericDate` (RFC 7519 §2): seconds, with a fraction if need be.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    fn date(self, name: &str) -> Result<Option<Timestamp>, TokenError> {
        match self {
            Self::Null => Ok(None),
            Self::Integer(secs) => Ok(Some(Timestamp::from_secs(secs))),
            Self::Number(secs) if secs >= 0.0 => Ok(Some(Timestamp::from_millis((secs * 1000.0) as u64))),
            _ => Err(odd(name, "is not a time: seconds since 1970, not negative")),
        }
    }
}

impl<'a> Deserialize<'a> for Value<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'a> Visitor<'a> for ValueVisitor {
    type Value = Value<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'a>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'a>, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'a>, E> {
        Ok(Value::Integer(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'a>, E> {
        // Only negative numbers come this way, and no claim that is read may be one.
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'a>, E> {
        Ok(Value::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Value<'a>, E> {
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'a>, E> {
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Value<'a>, A::Error> {
        let mut strings = Some(Vec::new());
        while let Some(value) = seq.next_element()? {
            match (value, &mut strings) {
                (Value::String(text), Some(texts)) => texts.push(text),
                _ => strings = None,
            }
        }
        Ok(strings.map_or(Value::Other, Value::Strings))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Value<'a>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}
