//! Holds claims and times against the rules of a profile; what passes becomes a [`VerifiedToken`].

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::claims::{ParsedClaims, issuer_of};
use super::issuer::{self, AcceptedIssuer};
use super::{IAT_LEAD, MAX_LEEWAY, MissingId, TokenProfile};
use crate::clock::Timestamp;
use crate::revocation::TargetKind;
use crate::target::KeyFingerprint;
use crate::token::{TokenError, TokenErrorKind};
use crate::verified::{Draft, ProfileId, TokenTarget, VerifiedToken};

/// Claims whose signature was checked, for [`TokenProfile::assert_verified`].
#[derive(Clone, Copy)]
pub struct SignedClaims<'a> {
    payload: &'a [u8],
    key_id: Option<&'a str>,
    /// Of a key of this name.
    key_fingerprint: Option<&'a KeyFingerprint>,
    signing_input: Option<&'a str>,
}

impl<'a> SignedClaims<'a> {
    /// The claims set: a JSON object.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { payload, key_id: None, key_fingerprint: None, signing_input: None }
    }

    /// The `kid` of the key that verified the token: makes the token revocable by key.
    #[must_use]
    pub fn with_key_id(mut self, kid: Option<&'a str>) -> Self {
        self.key_id = kid;
        self.key_fingerprint = None;
        self
    }

    /// The same, of a key whose fingerprint is kept.
    pub(crate) fn with_key(mut self, kid: Option<&'a str>, kept: &'a KeyFingerprint) -> Self {
        self.key_id = kid;
        self.key_fingerprint = Some(kept);
        self
    }

    /// The encoded header and payload with the dot between them (RFC 7515 §2): the identity of
    /// tokens without an id, see [`MissingId::SigningInput`].
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

/// Claims that a profile has accepted.
pub(crate) struct AcceptedClaims {
    draft: Draft,
    made_by: ProfileId,
    expires_at: Timestamp,
    not_before: Option<Timestamp>,
    issued_at: Option<Timestamp>,
}

impl AcceptedClaims {
    /// The token. `payload` is what was accepted.
    pub(crate) fn with_payload(self, payload: Box<[u8]>) -> VerifiedToken {
        let Self { draft, made_by, expires_at, not_before, issued_at } = self;
        draft.finish(made_by, payload, expires_at, not_before, issued_at)
    }
}

impl TokenProfile {
    /// Makes a [`VerifiedToken`]. **Call this only after the signature has been checked**:
    /// everything else relies on that.
    ///
    /// # Errors
    /// [`TokenError`] if the claims are not acceptable now, by the [clock](Self::with_clock) of the
    /// profile.
    pub fn assert_verified(&self, claims: SignedClaims<'_>) -> Result<VerifiedToken, TokenError> {
        let token = self.assert_verified_for_revocation(claims)?;
        self.check_times(&token)?;
        Ok(token)
    }

    /// As [`assert_verified`](Self::assert_verified), without checking `exp`, `nbf` and `iat`
    /// against the clock: for a token that is to be revoked.
    ///
    /// # Errors
    /// [`TokenError`] if the claims could never be acceptable.
    pub fn assert_verified_for_revocation(
        &self,
        signed: SignedClaims<'_>,
    ) -> Result<VerifiedToken, TokenError> {
        Ok(self.accepted(signed)?.with_payload(signed.payload.into()))
    }

    /// What becomes a token with its claims, which the caller need not copy.
    pub(crate) fn accepted(&self, signed: SignedClaims<'_>) -> Result<AcceptedClaims, TokenError> {
        if !self.members.is_empty() {
            let issuer = issuer_of(signed.payload)?;
            return self.rules_for(issuer.as_deref())?.accepted(signed);
        }
        let claims = ParsedClaims::parse(signed.payload, self)?;
        let issuer = self.issuers.check(claims.issuer.as_deref())?;
        self.check_audience(&claims.audience)?;
        let Some(expires_at) = claims.expires_at else { return Err(missing("exp")) };
        if claims.issued_at.is_none() && self.require_iat {
            return Err(TokenError::new(
                TokenErrorKind::MissingClaim,
                "the claim `iat` is missing, without which \"all tokens so far\" cannot be told; \
                 see TokenProfile::allow_missing_iat",
            ));
        }
        if self.require_subject && claims.subject.as_deref().is_none_or(str::is_empty) {
            return Err(missing("sub"));
        }
        if claims.issued_at.is_some_and(|issued_at| {
            expires_at.saturating_duration_since(issued_at) > self.max_lifetime
        }) {
            return Err(too_long_lived());
        }
        let draft = self.draft(&claims, &issuer, &signed)?;
        self.count_token(&claims.first_seen);
        Ok(AcceptedClaims {
            draft,
            made_by: self.id,
            expires_at,
            not_before: claims.not_before,
            issued_at: claims.issued_at,
        })
    }

    /// Checks the times of a token by the [clock](Self::with_clock) of the profile, and whether a
    /// [closure](Self::with_issuer_pattern) still accepts its tenant. A verifier that keeps tokens
    /// calls it at each use. In a [combined](Self::combined) profile, the same part as before
    /// decides.
    ///
    /// # Errors
    /// [`TokenError`] if the token is expired, not valid yet, or from the future, or if its issuer
    /// is no longer accepted.
    pub fn check_times(&self, token: &VerifiedToken) -> Result<(), TokenError> {
        if self.members.is_empty() {
            return self.check_times_at(token, self.clock.now());
        }
        let part = self.rules_for(token.issuer())?;
        // An issuer that its own part no longer accepts may fall to another part, by whose rules
        // the token was never checked.
        if token.profile_id() != part.id
            && !(part.may_be_of_tenant(token) && self.part_that_made(token).is_none())
        {
            return Err(issuer::not_accepted());
        }
        part.check_times_at(token, part.clock.now())
    }

    /// Whether the verifier of a tenant may have made the token. It has a profile of its own, of
    /// which only this is known here.
    fn may_be_of_tenant(&self, token: &VerifiedToken) -> bool {
        self.tenants_have_keys && token.has_ids_of_its_issuer()
    }

    fn part_that_made(&self, token: &VerifiedToken) -> Option<&Self> {
        self.members.iter().find(|part| part.id == token.profile_id())
    }

    /// From when on this token is refused, because it is expired.
    pub(crate) fn refused_from(&self, token: &VerifiedToken) -> Timestamp {
        let rules = self.rules_for(token.issuer()).unwrap_or(self);
        token.expires_at().saturating_add(rules.bounded_leeway())
    }

    /// Also if `validate` was not called: records are not kept for longer than the largest leeway.
    fn bounded_leeway(&self) -> Duration {
        self.leeway.min(MAX_LEEWAY)
    }

    fn check_times_at(&self, token: &VerifiedToken, now: Timestamp) -> Result<(), TokenError> {
        self.issuers.check_again(token.issuer())?;
        let leeway = self.bounded_leeway();
        if now >= token.expires_at().saturating_add(leeway) {
            return Err(TokenError::expired());
        }
        if token.not_before().is_some_and(|not_before| now.saturating_add(leeway) < not_before) {
            return Err(TokenError::new(TokenErrorKind::NotYetValid, "the token is not valid yet"));
        }
        match token.issued_at() {
            Some(issued_at) if issued_at > now.saturating_add(leeway).saturating_add(IAT_LEAD) => {
                Err(TokenError::new(
                    TokenErrorKind::IssuedInFuture,
                    "the token was issued in the future; are the clocks of issuer and verifier \
                     apart?",
                ))
            }
            None if token.expires_at().saturating_duration_since(now) > self.max_lifetime => {
                Err(too_long_lived())
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that this profile made the token, or one of those that it combines: else it may
    /// have other targets than the ones by which its revocation is written, and a longer lifetime.
    pub(crate) fn expect_own(&self, token: &VerifiedToken) -> Result<(), TokenError> {
        if token.profile_id() == self.id {
            return Ok(());
        }
        if !self.members.is_empty() {
            let part = self.rules_for(token.issuer())?;
            if token.profile_id() == part.id {
                return Ok(());
            }
            if part.may_be_of_tenant(token) {
                return part.check_lifetime(token);
            }
        }
        Err(TokenError::new(
            TokenErrorKind::WrongProfile,
            "the verifier made the token by other rules than those of its profile; see \
             TokenVerifier::profile",
        ))
    }

    /// Checks how long the token is valid in all, if it says since when.
    pub(crate) fn check_lifetime(&self, token: &VerifiedToken) -> Result<(), TokenError> {
        let longest = self.rules_for(token.issuer())?.max_lifetime;
        if token.issued_at().is_some_and(|issued_at| {
            token.expires_at().saturating_duration_since(issued_at) > longest
        }) {
            return Err(too_long_lived());
        }
        Ok(())
    }

    /// Checks who has issued a token and for whom: of a token of another kind, which has no other
    /// rules in common with access tokens.
    #[cfg(feature = "endpoints")]
    pub(crate) fn check_parties(
        &self,
        iss: Option<&str>,
        aud: &[Cow<'_, str>],
    ) -> Result<(), TokenError> {
        self.issuers.check(iss)?;
        self.check_audience(aud)
    }

    /// How far clocks may be apart.
    #[cfg(feature = "endpoints")]
    pub(crate) fn leeway(&self) -> Duration {
        self.leeway.min(MAX_LEEWAY)
    }

    fn check_audience(&self, aud: &[Cow<'_, str>]) -> Result<(), TokenError> {
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

    /// The texts of a token and its targets: everything but the times.
    fn draft(
        &self,
        claims: &ParsedClaims<'_>,
        issuer: &AcceptedIssuer,
        signed: &SignedClaims<'_>,
    ) -> Result<Draft, TokenError> {
        let key_id = signed.key_id.filter(|kid| !kid.is_empty());
        // Exact in the common case, so that nothing is moved: an encoded SHA-256 has 43 characters.
        // Where claims are targets by name, the names come on top.
        let id_bytes = if claims.id.is_none() { 43 } else { 0 };
        let text_bytes = claims.text_bytes() + id_bytes + key_id.map_or(0, str::len);
        let mut draft =
            Draft::new(text_bytes, claims.targets.len() + 2 + usize::from(key_id.is_some()));
        draft.issuer = claims.issuer.as_deref().map(|iss| draft.keep(iss));
        draft.id_issuer = draft.issuer.filter(|_| self.has_issuers());
        match (&claims.id, self.missing_id, signed.signing_input) {
            (Some(id), _, _) => issuer.add_target(&mut draft, TargetKind::Token, None, id),
            (None, MissingId::SigningInput, Some(input)) => {
                let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(input));
                issuer.add_target(&mut draft, TargetKind::SigningInput, None, &digest);
            }
            (None, MissingId::OtherTargetsOnly, _) => {}
            (None, _, _) => {
                return Err(TokenError::new(
                    TokenErrorKind::MissingId,
                    format!(
                        "the token has no `{}`, so it could not be revoked; see \
                         TokenProfile::with_id_claim and with_missing_id",
                        self.id_claim.as_str()
                    ),
                ));
            }
        }
        for (feed, id) in &claims.targets {
            let claim = (feed.kind == TargetKind::Claim).then_some(feed.path.as_str());
            issuer.add_target(&mut draft, feed.kind, claim, id);
        }
        if let Some(kid) = key_id {
            issuer.add_key(&mut draft, kid, signed.key_fingerprint);
        }
        let name = draft.id_issuer.unwrap_or_else(|| draft.keep(""));
        draft.targets.push(TokenTarget::new(TargetKind::Issuer, issuer.fingerprint, None, name));
        draft.confirmation = claims.confirmation.as_ref().map(|members| {
            members.iter().map(|(name, value)| (draft.keep(name), draft.keep(value))).collect()
        });
        draft.subject = claims.subject.as_deref().map(|sub| draft.keep(sub));
        Ok(draft)
    }
}

pub(super) fn missing(claim: &'static str) -> TokenError {
    TokenError::new(TokenErrorKind::MissingClaim, format!("the claim `{claim}` is missing"))
}

pub(super) fn odd(claim: &str, problem: &str) -> TokenError {
    TokenError::new(TokenErrorKind::OddClaim, format!("the claim `{claim}` {problem}"))
}

fn too_long_lived() -> TokenError {
    TokenError::new(
        TokenErrorKind::LifetimeTooLong,
        "the token is valid for longer than accepted; see TokenProfile::with_max_lifetime",
    )
}
