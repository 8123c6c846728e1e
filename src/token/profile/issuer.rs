//! Which issuers are accepted, by name or by pattern, and how ids are kept apart by issuer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::check::missing;
use crate::config::ConfigError;
use crate::revocation::{Fingerprint, IssuerDigest, Target, TargetKind};
use crate::target::KeyFingerprint;
use crate::token::{TokenError, TokenErrorKind};
use crate::verified::{Draft, TokenTarget};

/// Longest tenant in an issuer that is accepted by a pattern: that of a name in DNS.
const MAX_TENANT_BYTES: usize = 253;

/// The issuers of a profile.
#[derive(Clone)]
pub(super) struct AcceptedIssuers {
    pub(super) named: Vec<AcceptedIssuer>,
    pub(super) patterns: Vec<IssuerPattern>,
    anonymous: AcceptedIssuer,
}

/// An accepted issuer, with what is the same for each of its tokens.
#[derive(Clone)]
pub(super) struct AcceptedIssuer {
    pub(super) name: Arc<str>,
    digest: IssuerDigest,
    /// Of the target "everything of this issuer".
    pub(super) fingerprint: Fingerprint,
    /// The pattern whose shape it has, to which its keys belong as well.
    pattern: Option<Arc<KeyOwner>>,
}

/// A pattern as the owner of the keys that its tenants share.
struct KeyOwner {
    text: Box<str>,
    digest: IssuerDigest,
}

/// A family of issuers that differ in one part, the tenant.
#[derive(Clone)]
pub(super) struct IssuerPattern {
    owner: Arc<KeyOwner>,
    accepts: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

// === impl AcceptedIssuers ===

impl AcceptedIssuers {
    pub(super) fn none() -> Self {
        Self { named: Vec::new(), patterns: Vec::new(), anonymous: AcceptedIssuer::new("") }
    }

    pub(super) fn add_name(&mut self, name: &str) {
        let pattern = self.patterns.iter().find(|pattern| pattern.has_shape(name));
        self.named.push(AcceptedIssuer {
            pattern: pattern.map(|pattern| Arc::clone(&pattern.owner)),
            ..AcceptedIssuer::new(name)
        });
    }

    /// A named issuer that has the shape of the pattern is a tenant with the keys of the others,
    /// whether it is accepted as one or not.
    pub(super) fn add_pattern(&mut self, pattern: IssuerPattern) {
        for issuer in self.named.iter_mut().filter(|issuer| pattern.has_shape(&issuer.name)) {
            issuer.pattern.get_or_insert_with(|| Arc::clone(&pattern.owner));
        }
        self.patterns.push(pattern);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.patterns.is_empty()
    }

    /// The issuer to which the ids of a token belong.
    pub(super) fn check(&self, iss: Option<&str>) -> Result<Cow<'_, AcceptedIssuer>, TokenError> {
        match iss {
            _ if self.is_empty() => Ok(Cow::Borrowed(&self.anonymous)),
            None => Err(missing("iss")),
            Some(iss) => self.find(iss).ok_or_else(not_accepted),
        }
    }

    /// What may have changed since: whether the operator still accepts a tenant.
    pub(super) fn check_again(&self, iss: Option<&str>) -> Result<(), TokenError> {
        if self.patterns.is_empty() {
            return Ok(());
        }
        let is_known = iss.is_some_and(|iss| self.has_name(iss) || self.has_pattern_for(iss));
        if is_known { Ok(()) } else { Err(not_accepted()) }
    }

    fn find(&self, iss: &str) -> Option<Cow<'_, AcceptedIssuer>> {
        match self.named.iter().find(|issuer| *issuer.name == *iss) {
            Some(issuer) => Some(Cow::Borrowed(issuer)),
            None => {
                self.pattern_for(iss).map(|pattern| Cow::Owned(AcceptedIssuer::of(iss, pattern)))
            }
        }
    }

    pub(super) fn has_name(&self, iss: &str) -> bool {
        self.named.iter().any(|issuer| *issuer.name == *iss)
    }

    pub(super) fn has_pattern_for(&self, iss: &str) -> bool {
        self.pattern_for(iss).is_some()
    }

    fn pattern_for(&self, iss: &str) -> Option<&IssuerPattern> {
        self.patterns.iter().find(|pattern| pattern.fits(iss))
    }

    /// Whether this is the text of a pattern.
    pub(super) fn has_pattern(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| *pattern.owner.text == *text)
    }

    /// Names and patterns, for people.
    pub(super) fn words(&self) -> Vec<&str> {
        let named = self.named.iter().map(|issuer| &*issuer.name);
        named.chain(self.patterns.iter().map(|pattern| &*pattern.owner.text)).collect()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.named.iter().any(|issuer| issuer.name.is_empty()) {
            return Err(ConfigError::new(
                "issuer",
                "is empty; name the issuer exactly as `iss` does, or do not set it",
            ));
        }
        match self.patterns.iter().find(|pattern| pattern.parts().is_none()) {
            None => Ok(()),
            Some(pattern) => Err(ConfigError::new(
                "issuer_pattern",
                format!(
                    "`{}` must have one `{{tenant}}`, and before it at least a scheme and a point \
                     or a host: https://login.example/{{tenant}}/v2.0",
                    pattern.owner.text
                ),
            )),
        }
    }
}

impl fmt::Debug for AcceptedIssuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.words()).finish()
    }
}

pub(super) fn not_accepted() -> TokenError {
    TokenError::new(TokenErrorKind::WrongIssuer, "the issuer is not one of the accepted ones")
}

// === impl AcceptedIssuer ===

impl AcceptedIssuer {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            digest: IssuerDigest::of(name),
            fingerprint: Target::issuer(name).fingerprint(),
            pattern: None,
        }
    }

    fn of(name: &str, pattern: &IssuerPattern) -> Self {
        Self { pattern: Some(Arc::clone(&pattern.owner)), ..Self::new(name) }
    }

    pub(super) fn add_target(
        &self,
        draft: &mut Draft,
        kind: TargetKind,
        claim: Option<&str>,
        id: &str,
    ) {
        let fingerprint = Fingerprint::of(kind, self.digest, claim.unwrap_or(""), id);
        let claim = claim.map(|claim| draft.keep(claim));
        let id = draft.keep(id);
        draft.targets.push(TokenTarget::new(kind, fingerprint, claim, id));
    }

    /// A key belongs to the issuer, and also to the pattern whose tenants share it: a stolen one
    /// can be revoked for all of them at once, and one of another issuer with the same name is not
    /// touched.
    pub(super) fn add_key(&self, draft: &mut Draft, kid: &str, kept: Option<&KeyFingerprint>) {
        let fingerprint = match kept {
            Some(kept) => kept.at(self.digest, kid),
            None => Fingerprint::of(TargetKind::Key, self.digest, "", kid),
        };
        let id = draft.keep(kid);
        draft.targets.push(TokenTarget::new(TargetKind::Key, fingerprint, None, id));
        if let Some(owner) = &self.pattern {
            let fingerprint = Fingerprint::of(TargetKind::Key, owner.digest, "", kid);
            let (text, id) = (draft.keep(&owner.text), draft.keep(kid));
            draft.targets.push(TokenTarget::new(TargetKind::Key, fingerprint, Some(text), id));
        }
    }
}

// === impl IssuerPattern ===

impl IssuerPattern {
    pub(super) fn new(
        text: impl Into<Box<str>>,
        accepts: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let text = text.into();
        let digest = IssuerDigest::of(&text);
        Self { owner: Arc::new(KeyOwner { text, digest }), accepts: Arc::new(accepts) }
    }

    /// What stands before and after the tenant.
    fn parts(&self) -> Option<(&str, &str)> {
        let (before, after) = self.owner.text.split_once("{tenant}")?;
        let is_one = !after.contains(['{', '}']) && !before.contains(['{', '}']);
        // A pattern that starts with the tenant, or knows neither host nor domain, would fit the
        // issuers of strangers.
        let scheme_end = before.find("://").map(|at| at + 3)?;
        let names_a_host = before.len() > scheme_end || after.starts_with('.') && after.len() > 1;
        // `https://login{tenant}` and `https://login.example{tenant}` would fit hosts of others
        // too.
        let ends_in_host = !before.get(scheme_end..)?.contains('/');
        let host_is_closed = !ends_in_host || after.starts_with('.') && after.len() > 1;
        (is_one && names_a_host && host_is_closed).then_some((before, after))
    }

    fn fits(&self, iss: &str) -> bool {
        self.tenant(iss).is_some_and(|tenant| (self.accepts)(tenant))
    }

    /// Whether it is the issuer of a tenant, accepted or not.
    fn has_shape(&self, iss: &str) -> bool {
        self.tenant(iss).is_some()
    }

    fn tenant<'a>(&self, iss: &'a str) -> Option<&'a str> {
        let (before, after) = self.parts()?;
        let tenant = iss.strip_prefix(before)?.strip_suffix(after)?;
        is_tenant(tenant).then_some(tenant)
    }
}

/// Nothing with which a tenant could reach out of its place: no `/`, `?`, `#`, `@`, `:`, `%`, no
/// `..`.
fn is_tenant(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_TENANT_BYTES).contains(&text.len())
        && text.bytes().all(is_plain)
        && !text.starts_with('.')
        && !text.ends_with('.')
        && !text.contains("..")
}
