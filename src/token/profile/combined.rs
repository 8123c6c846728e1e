//! Several profiles as one, each for its own issuers.

use super::check::missing;
use super::{TokenProfile, issuer};
use crate::config::ConfigError;
use crate::token::TokenError;

impl TokenProfile {
    /// Combines several profiles: each token is checked by the one that knows its issuer, and by no
    /// other. To verify tokens of several issuers use [`IssuerSet`](crate::token::IssuerSet), which
    /// makes such a profile.
    ///
    /// A process that revokes but does not check gives it to its [`Revoker`](crate::Revoker). Ids
    /// belong to their issuer, so with several issuers
    /// [`Target::issued_by`](crate::Target::issued_by) is needed. Records are kept for the longest
    /// accepted lifetime of all profiles, and the longest accepted token is that of all profiles.
    /// Change settings before you combine: setters that are called later do not reach the parts.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no profile, if one cannot work or has no issuer, or if two have
    /// the same issuer.
    pub fn combined(profiles: impl IntoIterator<Item = Self>) -> Result<Self, ConfigError> {
        // The patterns of the parts are its own as well, but whether their tenants share keys is
        // known to the parts.
        let mut all = Self { tenants_have_keys: true, ..Self::new() }.changed();
        for profile in profiles {
            profile.validate()?;
            if profile.unnamed.is_some() {
                return Err(ConfigError::new(
                    "issuer",
                    "one of several profiles is for all other issuers; add it last, see \
                     IssuerSet::with_unnamed",
                ));
            }
            // What is combined already comes in parts: there is one level.
            let parts = if profile.members.is_empty() { vec![profile] } else { profile.members };
            for part in parts {
                all.add(part)?;
            }
        }
        if all.members.is_empty() {
            return Err(ConfigError::new("issuer", "there is none; name at least one"));
        }
        all.leeway = all.members.iter().map(|part| part.leeway).max().unwrap_or_default();
        all.max_lifetime =
            all.members.iter().map(|part| part.max_lifetime).max().unwrap_or_default();
        all.max_token_bytes =
            all.members.iter().map(|part| part.max_token_bytes).max().unwrap_or_default();
        Ok(all)
    }

    /// The same, and a part for the tokens of all other issuers, and of none: a profile that names
    /// no issuer.
    pub(crate) fn with_unnamed(mut self, part: Self) -> Result<Self, ConfigError> {
        part.validate()?;
        if part.has_issuers() || self.unnamed.is_some() {
            return Err(ConfigError::new(
                "issuer",
                "the profile for all other tokens must name no issuer, and there can be one",
            ));
        }
        self.leeway = self.leeway.max(part.leeway);
        self.max_lifetime = self.max_lifetime.max(part.max_lifetime);
        self.max_token_bytes = self.max_token_bytes.max(part.max_token_bytes);
        self.unnamed = Some(self.members.len());
        self.members.push(part);
        Ok(self.changed())
    }

    /// Which part is for all other tokens.
    pub(crate) fn unnamed(&self) -> Option<usize> {
        self.unnamed
    }

    pub(super) fn unnamed_part(&self) -> Option<&Self> {
        self.unnamed.and_then(|at| self.members.get(at))
    }

    fn add(&mut self, part: Self) -> Result<(), ConfigError> {
        if part.issuers.is_empty() {
            return Err(ConfigError::new(
                "issuer",
                "one of several profiles names none, so no token could choose it; see \
                 TokenProfile::with_issuer",
            ));
        }
        let known = self.issuers.words();
        if let Some(twice) = part.issuers.words().into_iter().find(|word| known.contains(word)) {
            return Err(ConfigError::new(
                "issuer",
                format!("`{twice}` stands in two profiles; a token must be checked by one"),
            ));
        }
        self.issuers.named.extend(part.issuers.named.iter().cloned());
        self.issuers.patterns.extend(part.issuers.patterns.iter().cloned());
        self.members.push(part);
        Ok(())
    }

    /// The profile for this issuer: this one, or one of its parts. Exact names come before
    /// patterns, as nobody but the operator can have chosen them.
    pub(super) fn rules_for(&self, iss: Option<&str>) -> Result<&Self, TokenError> {
        if self.members.is_empty() {
            return Ok(self);
        }
        let Some(iss) = iss else { return self.unnamed_part().ok_or_else(|| missing("iss")) };
        self.member(iss).and_then(|at| self.members.get(at)).ok_or_else(issuer::not_accepted)
    }

    /// Which part knows this issuer.
    pub(crate) fn member(&self, iss: &str) -> Option<usize> {
        let named = self.members.iter().position(|part| part.issuers.has_name(iss));
        named
            .or_else(|| self.members.iter().position(|part| part.issuers.has_pattern_for(iss)))
            .or(self.unnamed)
    }

    /// How many parts it was put together from.
    pub(crate) fn parts(&self) -> usize {
        self.members.len().max(1)
    }
}
