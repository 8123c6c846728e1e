//! Reads the claims that decide: one pass over the payload, nothing kept that is not needed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::check::odd;
use super::kind::KindClaim;
use super::usage::ClaimUsage;
use super::value::{ClaimValue, NameSeed, Source, ValueSeed, date, flat};
use super::{ClaimTarget, TokenProfile};
use crate::clock::Timestamp;
use crate::revocation::{MAX_ID_BYTES, TargetKind};
use crate::token::{TokenError, TokenErrorKind};

/// The claim that binds a token to a key of the client (RFC 7800 §3.1).
const CONFIRMATION: &str = "cnf";

/// The `iss` of a claims set, to find out by which rules the whole is to be checked. Nothing else
/// is looked at, and nothing at all that stands after an `iss` that is no string or is the second.
pub(crate) fn issuer_of(payload: &[u8]) -> Result<Option<Cow<'_, str>>, TokenError> {
    struct IssuerReader<'a, 'o> {
        source: Source<'a>,
        /// What is wrong with the issuer, if reading ends there.
        problem: &'o mut Option<&'static str>,
    }
    impl<'a> Visitor<'a> for IssuerReader<'a, '_> {
        type Value = Option<Cow<'a, str>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut issuer = None;
            while let Some(name) = map.next_key_seed(NameSeed(self.source))? {
                if name != "iss" {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                if issuer.is_some() {
                    *self.problem = Some("stands there twice");
                    return Err(serde::de::Error::custom("twice"));
                }
                *self.problem = Some("is not a string");
                issuer = Some(map.next_value_seed(TextSeed(self.source))?);
                *self.problem = None;
            }
            Ok(issuer.flatten())
        }
    }
    let mut problem = None;
    let reader = IssuerReader { source: Source(payload), problem: &mut problem };
    let mut json = serde_json::Deserializer::from_slice(payload);
    let read = json.deserialize_map(reader).and_then(|issuer| json.end().map(|()| issuer));
    // The cause is dropped: its text may quote the claims.
    read.map_err(|error| match problem.filter(|_| error.is_data()) {
        Some(problem) => odd("iss", problem),
        None => TokenError::new(TokenErrorKind::Malformed, "the claims are not a JSON object"),
    })
}

/// A text or `null`. Of a value of another type no more is read than its first character.
struct TextSeed<'a>(Source<'a>);

impl<'a> DeserializeSeed<'a> for TextSeed<'a> {
    type Value = Option<Cow<'a, str>>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'a> Visitor<'a> for TextSeed<'a> {
    type Value = Option<Cow<'a, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        NameSeed(self.0).deserialize(deserializer).map(Some)
    }
}

/// The claims that decide, borrowed from the payload where possible.
#[derive(Default)]
pub(super) struct ParsedClaims<'a> {
    pub(super) issuer: Option<Cow<'a, str>>,
    pub(super) subject: Option<Cow<'a, str>>,
    pub(super) audience: Vec<Cow<'a, str>>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) targets: Vec<(&'a ClaimTarget, Cow<'a, str>)>,
    /// The members of `cnf` that are texts, if it is there.
    pub(super) confirmation: Option<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
    /// The claims that are there and that no accepted token has had yet.
    pub(super) first_seen: Vec<&'a ClaimUsage>,
}

impl<'a> ParsedClaims<'a> {
    pub(super) fn parse(payload: &'a [u8], profile: &'a TokenProfile) -> Result<Self, TokenError> {
        // Room for a common token, so that neither list has to grow.
        let claims = ParsedClaims { targets: Vec::with_capacity(8), ..ParsedClaims::default() };
        let mut reader = ClaimsReader {
            profile,
            source: Source(payload),
            claims,
            names: ClaimNames::default(),
            ruled: Vec::new(),
            error: None,
        };
        // All of it, as JSON must be: what is skipped is not looked at otherwise.
        let payload = std::str::from_utf8(payload)
            .map_err(|_| TokenError::new(TokenErrorKind::Malformed, "the claims are not UTF-8"))?;
        let mut json = serde_json::Deserializer::from_str(payload);
        let read = json.deserialize_map(&mut reader).and_then(|()| json.end());
        if let Some(error) = reader.error {
            return Err(error);
        }
        // The cause is dropped: its text may quote the claims.
        read.map_err(|_| {
            TokenError::new(TokenErrorKind::Malformed, "the claims are not a JSON object")
        })?;
        if reader.names.has_twice() {
            // RFC 7519 §4 leaves the choice between this and "the last one wins". Two parsers that
            // choose differently see two different tokens.
            return Err(TokenError::new(TokenErrorKind::OddClaim, "a claim stands there twice"));
        }
        for rule in &profile.claim_rules {
            let claim = reader.ruled.iter().find(|(name, _)| name == rule.path.top());
            rule.check(claim.map(|(_, value)| value))?;
        }
        Ok(reader.claims)
    }

    fn take(
        &mut self,
        name: &str,
        role: Role<'a>,
        value: ClaimValue<'a>,
    ) -> Result<(), TokenError> {
        match name {
            "iss" => return value.string(name).map(|iss| self.issuer = iss),
            "aud" => return value.strings(name).map(|aud| self.audience = aud),
            "sub" => self.subject = value.clone().string(name)?,
            _ => {}
        }
        match role {
            Role::Registered => {}
            Role::Id => {
                self.id = value
                    .string(name)?
                    .map(|id| bounded(name, id))
                    .transpose()?
                    .filter(|id| !id.is_empty());
            }
            Role::Target(feed) => self.feed(feed, value)?,
        }
        Ok(())
    }

    fn feed(&mut self, feed: &'a ClaimTarget, value: ClaimValue<'a>) -> Result<(), TokenError> {
        let name = feed.path.as_str();
        // An empty id names nothing: no one can revoke it.
        if let Some(id) = value.id(name)?.filter(|id| !id.is_empty()) {
            // Only once the token is accepted, the claim counts as seen.
            if let Some(usage) = feed.usage.as_deref().filter(|usage| !usage.was_seen()) {
                self.first_seen.push(usage);
            }
            self.add_target(feed, bounded(name, id)?);
        }
        Ok(())
    }

    fn take_time(&mut self, time: Time, value: &str) -> Result<(), TokenError> {
        let (name, slot) = match time {
            Time::Expiry => ("exp", &mut self.expires_at),
            Time::NotBefore => ("nbf", &mut self.not_before),
            Time::IssuedAt => ("iat", &mut self.issued_at),
        };
        *slot = date(name, value)?;
        Ok(())
    }

    /// Takes to which key the token is bound (RFC 7800 §3.1).
    fn take_confirmation(&mut self, value: &ClaimValue<'a>) -> Result<(), TokenError> {
        let members = match value {
            ClaimValue::Null => return Ok(()),
            ClaimValue::Object(members) => members,
            _ => return Err(odd(CONFIRMATION, "is not an object")),
        };
        let texts = members.iter().filter_map(|(name, value)| match value {
            ClaimValue::String(text) => Some((name.clone(), text.clone())),
            _ => None,
        });
        self.confirmation = Some(texts.collect());
        Ok(())
    }

    /// Takes what is inside of the claim `name`: the id and the targets whose path leads there.
    fn take_nested(
        &mut self,
        name: &str,
        value: &ClaimValue<'a>,
        profile: &'a TokenProfile,
    ) -> Result<(), TokenError> {
        let id = &profile.id_claim;
        if id.top() == name
            && !id.below().is_empty()
            && let Some(value) = value.at(id.below())
        {
            let text = value.clone().string(id.as_str())?;
            self.id = text
                .map(|text| bounded(id.as_str(), text))
                .transpose()?
                .filter(|text| !text.is_empty());
        }
        for feed in profile.claim_targets.iter().filter(|feed| feed.path.top() == name) {
            if !feed.path.below().is_empty()
                && let Some(value) = value.at(feed.path.below())
            {
                self.feed(feed, value.clone())?;
            }
        }
        Ok(())
    }
}

/// The claims that are times (RFC 7519 §4.1.4 to §4.1.6).
#[derive(Clone, Copy)]
enum Time {
    Expiry,
    NotBefore,
    IssuedAt,
}

impl Time {
    fn of(name: &str) -> Option<Self> {
        match name {
            "exp" => Some(Self::Expiry),
            "nbf" => Some(Self::NotBefore),
            "iat" => Some(Self::IssuedAt),
            _ => None,
        }
    }
}

impl<'a> ParsedClaims<'a> {
    /// The length of all texts that are kept of them.
    pub(super) fn text_bytes(&self) -> usize {
        let len = |text: &Option<Cow<'_, str>>| text.as_deref().map_or(0, str::len);
        let ids: usize = self.targets.iter().map(|(_, id)| id.len()).sum();
        len(&self.issuer) + len(&self.subject) + len(&self.id) + ids
    }

    /// Issuers often write one id into two claims, such as `client_id` and `azp`. One look-up is
    /// enough.
    fn add_target(&mut self, feed: &'a ClaimTarget, id: Cow<'a, str>) {
        let is_known = feed.kind != TargetKind::Claim
            && self.targets.iter().any(|(known, other)| known.kind == feed.kind && *other == id);
        if !is_known {
            self.targets.push((feed, id));
        }
    }
}

fn bounded<'a>(name: &str, id: Cow<'a, str>) -> Result<Cow<'a, str>, TokenError> {
    if id.len() > MAX_ID_BYTES { Err(odd(name, "is longer than 1024 bytes")) } else { Ok(id) }
}

/// One pass over the claims set: reads what decides, skips the rest, remembers every name.
struct ClaimsReader<'a> {
    profile: &'a TokenProfile,
    source: Source<'a>,
    claims: ParsedClaims<'a>,
    names: ClaimNames<'a>,
    /// The claims that are the subject of a rule of the user's own.
    ruled: Vec<(Cow<'a, str>, ClaimValue<'a>)>,
    error: Option<TokenError>,
}

impl<'a> ClaimsReader<'a> {
    fn note(&mut self, result: Result<(), TokenError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    /// Reads the value of a claim for all that may count: what kind of token it is of, to which key
    /// it is bound, rules of the user's own, ids inside of it.
    #[inline(never)]
    fn look_into<A: MapAccess<'a>>(
        &mut self,
        name: &Cow<'a, str>,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let role = Role::of(name, self.profile);
        let kind = KindClaim::of(name).filter(|kind| !self.profile.ignores_kind(*kind));
        let (is_ruled, is_entered) = self.profile.looks_at(name);
        let is_bound = name == CONFIRMATION;
        if role.is_none() && kind.is_none() && !is_ruled && !is_entered && !is_bound {
            map.next_value::<IgnoredAny>()?;
            return Ok(());
        }
        let is_deep = kind == Some(KindClaim::Events) || is_ruled || is_entered || is_bound;
        let seed = if is_deep { ValueSeed::deep } else { ValueSeed::flat };
        let value = map.next_value_seed(seed(self.source))?;
        if let Some(kind) = kind {
            let checked = kind.check(&value);
            self.note(checked);
        }
        if is_bound {
            let taken = self.claims.take_confirmation(&value);
            self.note(taken);
        }
        if is_entered {
            let taken = self.claims.take_nested(name, &value, self.profile);
            self.note(taken);
        }
        if is_ruled {
            self.ruled.push((name.clone(), value.clone()));
        }
        if let Some(role) = role {
            let taken = self.claims.take(name, role, value);
            self.note(taken);
        }
        Ok(())
    }
}

/// What a claim that is read is there for, beside what its name says (RFC 7519 §4.1).
#[derive(Clone, Copy)]
enum Role<'a> {
    /// Nothing else.
    Registered,
    /// It holds the id of the token.
    Id,
    /// It feeds a target.
    Target(&'a ClaimTarget),
}

impl<'a> Role<'a> {
    /// None for a claim that is not read.
    fn of(name: &str, profile: &'a TokenProfile) -> Option<Self> {
        if matches!(name, "iss" | "aud") {
            return Some(Self::Registered);
        }
        if profile.id_claim.is(name) {
            return Some(Self::Id);
        }
        let feed = profile.claim_targets.iter().find(|feed| feed.path.is(name));
        feed.map(Self::Target).or((name == "sub").then_some(Self::Registered))
    }
}

impl<'a> Visitor<'a> for &mut ClaimsReader<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let looks_into_claims = self.profile.looks_into_claims();
        while let Some(name) = map.next_key_seed(NameSeed(self.source))? {
            if let Some(time) = Time::of(&name) {
                let value: &RawValue = map.next_value()?;
                let taken = self.claims.take_time(time, value.get());
                self.note(taken);
                if looks_into_claims && self.profile.has_rule_for(&name) {
                    let value = flat(value.get());
                    self.ruled.push((name.clone(), value));
                }
            } else if looks_into_claims || says_more_than_a_text(&name) {
                self.look_into(&name, &mut map)?;
            } else if let Some(role) = Role::of(&name, self.profile) {
                let value = map.next_value_seed(ValueSeed::flat(self.source))?;
                let taken = self.claims.take(&name, role, value);
                self.note(taken);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            self.names.push(name);
        }
        Ok(())
    }
}

/// Whether the claim of this name counts for more than being there as a text.
fn says_more_than_a_text(name: &str) -> bool {
    name == CONFIRMATION || KindClaim::of(name).is_some()
}

/// The names of the claims so far, to find one that stands there twice. Any two claims are
/// compared, but of a few by their names only if a bit of them is the same, and of many in their
/// order.
#[derive(Default)]
struct ClaimNames<'a> {
    names: Vec<Cow<'a, str>>,
    bits: u64,
    has_twice: bool,
}

impl<'a> ClaimNames<'a> {
    /// Nearly all tokens have less.
    const FEW: usize = 24;

    fn push(&mut self, name: Cow<'a, str>) {
        if self.names.is_empty() {
            self.names.reserve(Self::FEW);
        }
        if self.names.len() < Self::FEW {
            let ends = [name.as_bytes().first(), name.as_bytes().last()];
            let [first, last] = ends.map(|byte| byte.map_or(0, |byte| usize::from(*byte)));
            let bit = 1 << ((name.len() * 6 + first * 27 + last * 25) % 64);
            if self.bits & bit != 0 && self.names.contains(&name) {
                self.has_twice = true;
            }
            self.bits |= bit;
        }
        self.names.push(name);
    }

    fn has_twice(&mut self) -> bool {
        if self.names.len() > Self::FEW {
            self.names.sort_unstable();
            let mut pairs = self.names.windows(2);
            self.has_twice |= pairs.any(|pair| matches!(pair, [one, other] if one == other));
        }
        self.has_twice
    }
}
