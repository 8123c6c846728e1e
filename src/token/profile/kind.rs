//! Tells access tokens from tokens of other kinds by what their claims say (RFC 8725 §3.11, §3.12).
//!
//! An ID token, a refresh token or a logout token is signed with the same keys as an access token.
//! Many issuers say in a claim, not in the header `typ`, which of them it is.

use super::value::ClaimValue;
use crate::token::{TokenError, TokenErrorKind};

/// Values by which the claims `token_use`, `typ`, `token_type` and `type` say that a token is not
/// an access token. They are compared without regard to case, spaces and the characters `-`, `_`,
/// `+` and `.`, so `id_token` is the same as `IdToken`; and without what makes a media type or a
/// URI of them: `application/` and `+jwt` (RFC 7515 §4.1.9), `urn:ietf:params:oauth:token-type:`
/// (RFC 8693 §3).
///
/// | value | used by |
/// | --- | --- |
/// | `id`, `idtoken`, `serializedid` | Cognito (`token_use`), Keycloak (`typ`) |
/// | `refresh`, `refreshtoken` | Keycloak (`typ`), SimpleJWT (`token_type`), Flask-JWT-Extended (`type`) |
/// | `offline`, `offlinetoken` | Keycloak (`typ`) |
/// | `logout`, `logouttoken`, `logoutjwt` | Keycloak (`typ`), OpenID Connect Back-Channel Logout |
/// | `secevent`, `seceventjwt` | Security Event Tokens (RFC 8417) |
/// | `registrationaccesstoken`, `initialaccesstoken` | Keycloak (`typ`) |
pub(super) const OTHER_TOKEN_KINDS: [&str; 14] = [
    "id",
    "idtoken",
    "serializedid",
    "refresh",
    "refreshtoken",
    "offline",
    "offlinetoken",
    "logout",
    "logouttoken",
    "logoutjwt",
    "secevent",
    "seceventjwt",
    "registrationaccesstoken",
    "initialaccesstoken",
];

/// A claim by which a token can say of what kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindClaim {
    /// Its value names the kind.
    Named(&'static str),
    /// `true` says that the token is a refresh token.
    Refresh,
    /// An object whose members are named by URIs: a logout token or another security event
    /// (RFC 8417 §2.2).
    Events,
    /// A hash of another token or of a code: only ID tokens have one (OpenID Connect Core
    /// §3.3.2.11).
    Hash(&'static str),
}

impl KindClaim {
    /// None for claims that say nothing about the kind.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "typ" => Self::Named("typ"),
            "type" => Self::Named("type"),
            "token_use" => Self::Named("token_use"),
            "token_type" => Self::Named("token_type"),
            "refresh" => Self::Refresh,
            "events" => Self::Events,
            "at_hash" => Self::Hash("at_hash"),
            "c_hash" => Self::Hash("c_hash"),
            "s_hash" => Self::Hash("s_hash"),
            _ => return None,
        })
    }

    /// The name of the claim.
    pub(super) fn claim(self) -> &'static str {
        match self {
            Self::Named(claim) | Self::Hash(claim) => claim,
            Self::Refresh => "refresh",
            Self::Events => "events",
        }
    }

    /// Refuses a token whose claim says that it is of another kind.
    pub(super) fn check(self, value: &ClaimValue<'_>) -> Result<(), TokenError> {
        let is_other = match self {
            Self::Named(_) => value.texts().any(names_other_kind),
            Self::Refresh => matches!(value, ClaimValue::Bool(true)),
            Self::Events => value.members().any(|(name, _)| name.contains(':')),
            Self::Hash(_) => !matches!(value, ClaimValue::Null),
        };
        if is_other {
            return Err(TokenError::new(
                TokenErrorKind::WrongType,
                format!(
                    "the claim `{claim}` says that the token is not an access token, but an ID, \
                     refresh or logout token or a security event; see \
                     TokenProfile::allow_other_kinds_by",
                    claim = self.claim()
                ),
            ));
        }
        Ok(())
    }
}

fn names_other_kind(value: &str) -> bool {
    let start = |prefix: &&str| {
        value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let prefix = ["application/", "urn:ietf:params:oauth:token-type:"].into_iter().find(start);
    let value = value.get(prefix.map_or(0, str::len)..).unwrap_or_default();
    let value = match value.split_at_checked(value.len().saturating_sub("+jwt".len())) {
        Some((kind, end)) if end.eq_ignore_ascii_case("+jwt") => kind,
        _ => value,
    };
    let is_letter = |char: &char| !matches!(char, ' ' | '-' | '_' | '+' | '.');
    OTHER_TOKEN_KINDS.iter().any(|kind| {
        let letters = value.chars().filter(is_letter).map(|char| char.to_ascii_lowercase());
        letters.eq(kind.chars())
    })
}
