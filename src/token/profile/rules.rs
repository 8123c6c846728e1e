//! Rules of the user's own over claims: what must be there, and what must not.

use super::path::ClaimPath;
use super::value::ClaimValue;
use crate::token::{TokenError, TokenErrorKind};

/// What a claim has to be like.
#[derive(Clone, Debug)]
pub(super) struct ClaimRule {
    pub(super) path: ClaimPath,
    demand: Demand,
}

#[derive(Clone, Debug)]
enum Demand {
    Present,
    Absent,
    OneOf(Box<[Box<str>]>),
    NoneOf(Box<[Box<str>]>),
}

impl ClaimRule {
    pub(super) fn present(path: ClaimPath) -> Self {
        Self { path, demand: Demand::Present }
    }

    pub(super) fn absent(path: ClaimPath) -> Self {
        Self { path, demand: Demand::Absent }
    }

    pub(super) fn one_of(path: ClaimPath, values: Box<[Box<str>]>) -> Self {
        Self { path, demand: Demand::OneOf(values) }
    }

    pub(super) fn none_of(path: ClaimPath, values: Box<[Box<str>]>) -> Self {
        Self { path, demand: Demand::NoneOf(values) }
    }

    /// Whether it names no value, so that it could never hold, or would always.
    pub(super) fn is_void(&self) -> bool {
        matches!(&self.demand, Demand::OneOf(values) | Demand::NoneOf(values) if values.is_empty())
    }

    /// Whether no token that it accepts has the claim at this path.
    pub(super) fn forbids(&self, path: &ClaimPath) -> bool {
        let covers = path.is_below(&self.path) || path.is_same(&self.path);
        matches!(self.demand, Demand::Absent) && covers
    }

    /// Whether no token that it accepts has something inside of the claim at this path, or only
    /// something inside of it.
    pub(super) fn why_no_text_at(&self, path: &ClaimPath) -> Option<&'static str> {
        match self.demand {
            Demand::OneOf(_) if path.is_below(&self.path) => {
                Some("must be one of the given values")
            }
            Demand::OneOf(_) | Demand::Present if self.path.is_below(path) => Some("must be there"),
            _ => None,
        }
    }

    /// `value` is the claim at the top of the path; `None` if the token has no such claim.
    pub(super) fn check(&self, value: Option<&ClaimValue<'_>>) -> Result<(), TokenError> {
        let value = value
            .and_then(|value| value.at(self.path.below()))
            .filter(|value| !matches!(value, ClaimValue::Null));
        let has = |values: &[Box<str>]| {
            value.is_some_and(|value| values.iter().any(|wanted| value.is_or_holds(wanted)))
        };
        let claim = self.path.as_str();
        match &self.demand {
            Demand::Present if value.is_none() => Err(TokenError::new(
                TokenErrorKind::MissingClaim,
                format!("the claim `{claim}` is missing; see TokenProfile::require_claim_presence"),
            )),
            Demand::OneOf(_) if value.is_none() => Err(TokenError::new(
                TokenErrorKind::MissingClaim,
                format!("the claim `{claim}` is missing; see TokenProfile::require_claim"),
            )),
            Demand::OneOf(values) if !has(values) => Err(TokenError::new(
                TokenErrorKind::ForbiddenClaim,
                format!(
                    "the claim `{claim}` has none of the required values; see \
                     TokenProfile::require_claim"
                ),
            )),
            Demand::Absent if value.is_some() => Err(TokenError::new(
                TokenErrorKind::ForbiddenClaim,
                format!("the claim `{claim}` is forbidden; see TokenProfile::forbid_claim"),
            )),
            Demand::NoneOf(values) if has(values) => Err(TokenError::new(
                TokenErrorKind::ForbiddenClaim,
                format!(
                    "the claim `{claim}` has a forbidden value; see \
                     TokenProfile::forbid_claim_values"
                ),
            )),
            _ => Ok(()),
        }
    }
}
