//! Whether a profile can work: [`TokenProfile::validate`].

use std::time::Duration;

use super::kind::KindClaim;
use super::path::{ClaimPath, MAX_PATH_NAMES};
use super::{MAX_LEEWAY, NOT_IDS, TokenProfile};
use crate::config::ConfigError;
use crate::revocation::TargetKind;

impl TokenProfile {
    /// Checks that this profile can work. Everything that is built with a profile calls it.
    ///
    /// # Errors
    /// [`ConfigError`] naming the setting: an empty issuer, audience or claim name; a leeway over
    /// 300 s; a lifetime of zero or over 10 years; a claim mapped to a kind that takes no claims,
    /// or a claim that can be no target (`iss`, `aud`, `exp`, `nbf`, `iat`, `cnf`); a claim mapped
    /// to a target or to the id that no accepted token can have: it is forbidden, marks ID tokens,
    /// or leads into a claim that must be a text.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
        let oops = |setting, problem: &str| Err(ConfigError::new(setting, problem));
        self.issuers.validate()?;
        if self.audiences.iter().any(|audience| audience.is_empty()) {
            return oops(
                "audience",
                "is empty; name the audience exactly as `aud` does, or do not set it",
            );
        }
        if self.leeway > MAX_LEEWAY {
            return oops("leeway", "is over 300 s; mend the clocks instead");
        }
        if self.max_lifetime.is_zero() || self.max_lifetime > TEN_YEARS {
            return oops("max_lifetime", "must be over zero and at most ten years");
        }
        let ruled = || self.claim_rules.iter().map(|rule| &rule.path);
        let fed = || self.claim_targets.iter().map(|target| &target.path).chain([&self.id_claim]);
        if fed().chain(ruled()).any(ClaimPath::is_empty) {
            return oops("claim", "has an empty name");
        }
        if let Some(path) = fed().chain(ruled()).find(|path| path.is_too_long()) {
            return Err(ConfigError::new(
                "claim",
                format!("`{}` leads through more than {MAX_PATH_NAMES} names", path.as_str()),
            ));
        }
        if let Some(rule) = self.claim_rules.iter().find(|rule| rule.is_void()) {
            return Err(ConfigError::new(
                "claim_rule",
                format!("the rule for `{}` names no value", rule.path.as_str()),
            ));
        }
        let says_no_kind = |claim: &&str| KindClaim::of(claim).is_none();
        if let Some(claim) = self.ignored_kinds.iter().map(|claim| &**claim).find(says_no_kind) {
            return Err(ConfigError::new(
                "allow_other_kinds_by",
                format!("`{claim}` is no claim by which the kind of a token is checked"),
            ));
        }
        if let Some(claim) = fed().map(ClaimPath::top).find(|claim| NOT_IDS.contains(claim)) {
            return Err(ConfigError::new(
                "claim",
                format!("`{claim}` is neither the id of a token nor of anything it belongs to"),
            ));
        }
        if let Some(why) = self.why_never(&self.id_claim) {
            return Err(ConfigError::new(
                "id_claim",
                format!("no token can have `{}`: {why}", self.id_claim.as_str()),
            ));
        }
        for target in &self.claim_targets {
            if matches!(
                target.kind,
                TargetKind::Key | TargetKind::Issuer | TargetKind::SigningInput
            ) {
                return Err(ConfigError::new(
                    "claim_target",
                    format!(
                        "`{}` is mapped to {}, which is not fed by a claim",
                        target.path.as_str(),
                        target.kind
                    ),
                ));
            }
            // One that stands there by default may be forbidden: it has not been asked for.
            let why = target.usage.is_some().then(|| self.why_never(&target.path)).flatten();
            if let Some(why) = why {
                return Err(ConfigError::new(
                    "claim_target",
                    format!("no token can have `{}`: {why}", target.path.as_str()),
                ));
            }
            if target.path.is_same(&self.id_claim) {
                return Err(ConfigError::new(
                    "claim_target",
                    format!("`{}` is already the id claim", target.path.as_str()),
                ));
            }
        }
        Ok(())
    }

    /// Why no accepted token can be revoked by the claim of this path, if that is known.
    pub(super) fn why_never(&self, path: &ClaimPath) -> Option<String> {
        let texts = self.claim_targets.iter().map(|target| &target.path).chain([&self.id_claim]);
        let sub = ClaimPath::new("sub");
        if let Some(text) = texts.chain([&sub]).find(|text| path.is_below(text)) {
            return Some(format!("it is inside of `{}`, which must be a text", text.as_str()));
        }
        let forbidden = self.claim_rules.iter().find(|rule| rule.forbids(path));
        if let Some(rule) = forbidden {
            return Some(format!("`{}` is forbidden", rule.path.as_str()));
        }
        let mut rules = self.claim_rules.iter();
        if let Some(why) = rules.find_map(|rule| Some((rule, rule.why_no_text_at(path)?))) {
            return Some(format!("`{}` {}", why.0.path.as_str(), why.1));
        }
        if path.is("cnf") {
            return Some("`cnf` is an object; name a member, such as `cnf.jkt`".into());
        }
        match KindClaim::of(path.top()) {
            Some(kind @ KindClaim::Hash(_)) if !self.ignores_kind(kind) => {
                Some("it says that a token is an ID token, which is refused".into())
            }
            _ => None,
        }
    }
}
