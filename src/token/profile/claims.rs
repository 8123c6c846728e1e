//! Reads the claims that decide: one pass over the payload, nothing kept that is not needed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::judge::odd;
use super::{ClaimTarget, TokenProfile};
use crate::clock::Timestamp;
use crate::revocation::{MAX_ID_BYTES, TargetKind};
use crate::token::{TokenError, TokenErrorKind};

/// The `iss` of a claims set, to find out by which rules the whole is to be judged. Nothing else is
/// looked at: a claims set that names two issuers is refused by the rules of either.
pub(crate) fn issuer_of(payload: &[u8]) -> Result<Option<Cow<'_, str>>, TokenError> {
    struct IssuerReader;
    impl<'a> Visitor<'a> for IssuerReader {
        type Value = Option<Value<'a>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut issuer = None;
            while let Some(Name(name)) = map.next_key()? {
                if name == "iss" {
                    issuer = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(issuer)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(payload);
    let read = json.deserialize_map(IssuerReader).and_then(|issuer| json.end().map(|()| issuer));
    // The cause is dropped: its text may quote the claims.
    let issuer = read.map_err(|_| {
        TokenError::new(TokenErrorKind::Malformed, "the claims are not a JSON object")
    })?;
    issuer.map_or(Ok(None), |issuer| issuer.string("iss"))
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
}

impl<'a> ParsedClaims<'a> {
    pub(super) fn parse(payload: &'a [u8], profile: &'a TokenProfile) -> Result<Self, TokenError> {
        // Room for a common token, so that neither list has to grow.
        let claims = ParsedClaims { targets: Vec::with_capacity(8), ..ParsedClaims::default() };
        let mut reader =
            ClaimsReader { profile, claims, names: Vec::with_capacity(24), error: None };
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
        // Any order will do. This one seldom has to look at a name.
        reader.names.sort_unstable_by(|one, other| {
            one.len().cmp(&other.len()).then_with(|| one.cmp(other))
        });
        if reader.names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            // RFC 7519 §4 leaves the choice between this and "the last one wins". Two parsers that
            // choose differently see two different tokens.
            return Err(TokenError::new(TokenErrorKind::OddClaim, "a claim stands there twice"));
        }
        Ok(reader.claims)
    }

    fn take(&mut self, name: &str, role: Role<'a>, value: Value<'a>) -> Result<(), TokenError> {
        match name {
            "iss" => return value.string(name).map(|iss| self.issuer = iss),
            "aud" => return value.strings(name).map(|aud| self.audience = aud),
            "exp" => return value.date(name).map(|exp| self.expires_at = exp),
            "nbf" => return value.date(name).map(|nbf| self.not_before = nbf),
            "iat" => return value.date(name).map(|iat| self.issued_at = iat),
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
            Role::Target(feed) => {
                let id = value.id(name)?;
                // An empty id names nothing: no one can revoke it.
                if let Some(id) = id.filter(|id| !id.is_empty()) {
                    self.add_target(feed, bounded(name, id)?);
                }
            }
        }
        Ok(())
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
    claims: ParsedClaims<'a>,
    names: Vec<Cow<'a, str>>,
    error: Option<TokenError>,
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
        if matches!(name, "iss" | "aud" | "exp" | "nbf" | "iat") {
            return Some(Self::Registered);
        }
        if *name == *profile.id_claim {
            return Some(Self::Id);
        }
        let feed = profile.claim_targets.iter().find(|feed| *feed.claim == *name);
        feed.map(Self::Target).or((name == "sub").then_some(Self::Registered))
    }
}

impl<'a> Visitor<'a> for &mut ClaimsReader<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            if let Some(role) = Role::of(&name, self.profile) {
                let value = map.next_value()?;
                if let Err(error) = self.claims.take(&name, role, value) {
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
                "feeds a revocation target and is neither a string nor an integer; see \
                 TokenProfile::without_claim_target",
            )),
        }
    }

    /// A `NumericDate` (RFC 7519 §2): seconds, with a fraction if need be.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates"
    )]
    fn date(self, name: &str) -> Result<Option<Timestamp>, TokenError> {
        match self {
            Self::Null => Ok(None),
            Self::Integer(secs) => Ok(Some(Timestamp::from_secs(secs))),
            Self::Number(secs) if secs >= 0.0 => {
                Ok(Some(Timestamp::from_millis((secs * 1000.0).round() as u64)))
            }
            _ => Err(odd(name, "is not a time: seconds since 1970, not negative")),
        }
    }
}

impl<'a> Deserialize<'a> for Value<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// How `serde_json` hands over a number when any crate in the build has turned on its feature
/// `arbitrary_precision`.
const ARBITRARY_NUMBER: &str = "$serde_json::private::Number";

fn number<'a>(digits: &str) -> Value<'a> {
    match (digits.parse(), digits.parse()) {
        (Ok(integer), _) => Value::Integer(integer),
        (_, Ok(number)) if f64::is_finite(number) => Value::Number(number),
        _ => Value::Other,
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
        let mut value = Value::Other;
        while let Some(Name(name)) = map.next_key()? {
            if name == ARBITRARY_NUMBER {
                let Name(digits) = map.next_value()?;
                value = number(&digits);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(value)
    }
}
