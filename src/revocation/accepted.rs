//! [`AcceptedTargets`]: which targets the tokens can have that a layer accepts.

use serde::{Deserialize, Serialize};

use crate::target::{Target, TargetKind};

/// How many issuers an error names.
const MOST_NAMED: usize = 5;

/// Which targets the tokens of a layer can have: of which issuers, of which kinds, and by which
/// claims. A store keeps it for the [`Revoker`](crate::Revoker)s of other processes, so that they
/// notice if they revoke what no layer accepts; see
/// [`RevocationStore::expect_targets`](crate::store::RevocationStore::expect_targets).
///
/// A store keeps it serialized: a small JSON object, equal for equal values, that other releases
/// read too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedTargets {
    /// Names and patterns, as the profile has them. If there are none, there is one issuer, which
    /// has no name.
    #[serde(rename = "iss")]
    issuers: Vec<Box<str>>,
    /// By their names, as other releases may have others.
    #[serde(rename = "by")]
    kinds: Vec<Box<str>>,
    /// The claims that are targets themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    claims: Vec<Box<str>>,
}

impl AcceptedTargets {
    /// Of these issuers, with these kinds and by these claims.
    pub(crate) fn new<'a>(
        issuers: impl IntoIterator<Item = &'a str>,
        kinds: impl IntoIterator<Item = TargetKind>,
        claims: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self {
            issuers: sorted(issuers),
            kinds: sorted(kinds.into_iter().map(TargetKind::as_str)),
            claims: sorted(claims),
        }
    }

    /// What sessions look for when they accept a refresh token.
    #[cfg(feature = "sessions")]
    pub(crate) fn of_refresh_tokens(mut self) -> Self {
        let only_of_access_tokens =
            [TargetKind::Token, TargetKind::SigningInput, TargetKind::Key].map(TargetKind::as_str);
        self.kinds.retain(|kind| !only_of_access_tokens.contains(&&**kind));
        self.claims.clear();
        self
    }

    /// Whether a layer has said it, and not only who accepts refresh tokens.
    pub(crate) fn is_of_layer(&self) -> bool {
        self.kinds.iter().any(|kind| **kind == *TargetKind::Token.as_str())
    }

    /// Whether a token could have this target, which names its issuer if that has a name. In doubt
    /// it could: which tenants a pattern accepts only its process knows.
    pub(crate) fn could_match(&self, target: &Target) -> bool {
        let is_known = match target.claim_name() {
            Some(name) => self.claims.iter().any(|known| **known == *name),
            None => self.kinds.iter().any(|known| **known == *target.kind().as_str()),
        };
        is_known && self.has_issuer_of(target)
    }

    /// Whether tokens of the issuer of this target are accepted.
    fn has_issuer_of(&self, target: &Target) -> bool {
        let issuer = issuer_of(target);
        let fits = |known: &str| {
            // The keys that tenants share belong to the pattern itself.
            known == issuer
                || known.split_once("{tenant}").is_some_and(|(before, after)| {
                    issuer.strip_prefix(before).is_some_and(|rest| rest.ends_with(after))
                })
        };
        self.issuers.iter().any(|known| fits(known))
            || (self.issuers.is_empty() && issuer.is_empty())
    }
}

/// To whom the tokens belong; empty for the one without a name.
fn issuer_of(target: &Target) -> &str {
    match target.kind() {
        TargetKind::Issuer => target.id(),
        _ => target.issuer_name().unwrap_or_default(),
    }
}

/// Why no token that is accepted anywhere could have this target.
pub(crate) fn why_unmatched(target: &Target, accepted: &[AcceptedTargets]) -> String {
    let named = |issuer: &str| match issuer {
        "" => "one issuer without a name".to_owned(),
        issuer => issuer.to_owned(),
    };
    let issuer = named(issuer_of(target));
    let layers = accepted.iter().filter(|known| known.is_of_layer());
    if layers.clone().any(|known| known.has_issuer_of(target)) {
        let what = match target.claim_name() {
            Some(name) => format!("claim {name}"),
            None => target.kind().as_str().to_owned(),
        };
        return format!(
            "no layer on this store that accepts tokens of {issuer} knows the {what} of a token"
        );
    }
    let known = layers.flat_map(|known| {
        let nameless = known.issuers.is_empty().then_some("");
        known.issuers.iter().map(|issuer| &**issuer).chain(nameless)
    });
    let known = sorted(known);
    let mut shown: Vec<_> = known.iter().take(MOST_NAMED).map(|issuer| named(issuer)).collect();
    if let Some(more) = known.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        shown.push(format!("{more} more"));
    }
    format!(
        "no layer on this store accepts tokens of {issuer}, which the {target} would cover: they \
         accept those of {}",
        shown.join(", ")
    )
}

/// So that equal values have equal texts.
fn sorted<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<Box<str>> {
    let mut words: Vec<Box<str>> = words.into_iter().map(Into::into).collect();
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(issuers: &[&'static str]) -> AcceptedTargets {
        AcceptedTargets::new(
            issuers.iter().copied(),
            [TargetKind::Token, TargetKind::User, TargetKind::Key, TargetKind::Issuer],
            ["tenant"],
        )
    }

    #[test]
    fn a_target_matches_by_its_issuer_and_its_kind() {
        let named = of(&["https://a.example", "https://{tenant}.b.example/v2"]);
        let nameless = of(&[]);
        for (target, is_of_named, is_of_nameless) in [
            (Target::user("u"), false, true),
            (Target::user("u").issued_by("https://a.example"), true, false),
            (Target::user("u").issued_by("https://a.example/"), false, false),
            (Target::user("u").issued_by("https://t.b.example/v2"), true, false),
            (Target::user("u").issued_by("https://t.b.example/v1"), false, false),
            (Target::key("k").issued_by("https://{tenant}.b.example/v2"), true, false),
            (Target::session("s").issued_by("https://a.example"), false, false),
            (Target::session("s"), false, false),
            (Target::claim("tenant", "t").issued_by("https://a.example"), true, false),
            (Target::claim("tenant", "t"), false, true),
            (Target::claim("role", "r"), false, false),
            (Target::issuer("https://a.example"), true, false),
            (Target::issuer("https://c.example"), false, false),
            (Target::issuer(""), false, true),
        ] {
            assert_eq!(named.could_match(&target), is_of_named, "{target}");
            assert_eq!(nameless.could_match(&target), is_of_nameless, "{target}");
        }
        // What stands before and after the tenant does not overlap.
        let short = of(&["https://a{tenant}a.example"]);
        assert!(!short.could_match(&Target::user("u").issued_by("https://a.example")));
    }

    #[test]
    fn equal_values_have_equal_texts_and_those_of_later_releases_can_be_read() {
        let text = serde_json::to_string(&of(&["b", "a", "b"])).unwrap();
        assert_eq!(text, serde_json::to_string(&of(&["a", "b"])).unwrap());
        assert_eq!(serde_json::from_str::<AcceptedTargets>(&text).unwrap(), of(&["a", "b"]));
        let later = r#"{"iss":[],"by":["user","constellation"],"since":1}"#;
        let later: AcceptedTargets = serde_json::from_str(later).unwrap();
        assert!(later.could_match(&Target::user("u")));
    }

    #[test]
    fn an_error_says_what_is_accepted_instead() {
        let target = Target::user("u").issued_by("https://x.example");
        let why = why_unmatched(&target, &[of(&["https://a.example"]), of(&[])]);
        for part in ["https://x.example", "https://a.example", "one issuer without a name"] {
            assert!(why.contains(part), "{why}");
        }
        let many = of(&["1", "2", "3", "4", "5", "6", "7"]);
        assert!(why_unmatched(&target, &[many]).ends_with("3, 4, 5, 2 more"));
        let why = why_unmatched(&Target::session("s"), &[of(&[])]);
        assert!(why.contains("session of a token"), "{why}");
        let why = why_unmatched(&Target::claim("role", "r"), &[of(&[])]);
        assert!(why.contains("claim role of a token"), "{why}");
    }
}
