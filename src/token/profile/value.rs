//! Reads names and values of claims, as far as they can matter.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::check::odd;
use super::path::MAX_PATH_NAMES;
use crate::clock::Timestamp;
use crate::token::TokenError;

/// The text that is read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(pub(super) &'a [u8]);

impl Source<'_> {
    /// Whether a text that was given out as borrowed stands in the source.
    pub(super) fn holds(self, text: &str) -> bool {
        self.0.as_ptr_range().contains(&text.as_ptr())
    }
}

/// A member name, borrowed unless it holds an escape.
pub(super) struct NameSeed<'a>(pub(super) Source<'a>);

impl<'a> DeserializeSeed<'a> for NameSeed<'a> {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Cow<'a, str>, D::Error> {
        let visitor = ValueVisitor(ValueSeed::flat(self.0));
        match deserializer.deserialize_str(visitor)? {
            ClaimValue::String(name) => Ok(name),
            _ => Err(serde::de::Error::custom("not a string")),
        }
    }
}

/// The value of a claim, as far as it can matter.
#[derive(Clone, Debug)]
pub(super) enum ClaimValue<'a> {
    Null,
    Bool(bool),
    String(Cow<'a, str>),
    Strings(Vec<Cow<'a, str>>),
    /// An array that holds something else than strings.
    Mixed(Vec<ClaimValue<'a>>),
    Integer(u64),
    Number(f64),
    /// Its members, where they are looked at.
    Object(Vec<(Cow<'a, str>, ClaimValue<'a>)>),
    Other,
}

impl<'a> ClaimValue<'a> {
    /// The string, or each string of an array.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let (texts, values): (&[Cow<'a, str>], &[Self]) = match self {
            Self::String(text) => (std::slice::from_ref(text), &[]),
            Self::Strings(texts) => (texts, &[]),
            Self::Mixed(values) => (&[], values),
            _ => (&[], &[]),
        };
        let mixed = values.iter().filter_map(|value| match value {
            Self::String(text) => Some(&**text),
            _ => None,
        });
        texts.iter().map(|text| &**text).chain(mixed)
    }

    /// The members of an object.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &Self)> {
        let members = match self {
            Self::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().map(|(name, value)| (&**name, value))
    }

    /// What these names lead to, one member of an object after another.
    pub(super) fn at(&self, names: &[Box<str>]) -> Option<&Self> {
        names.iter().try_fold(self, |value, wanted| {
            value.members().find(|(name, _)| **name == **wanted).map(|(_, value)| value)
        })
    }

    /// Whether it is this value, or an array that holds it. Booleans are compared by the way that
    /// JSON spells them, numbers however they are spelled.
    pub(super) fn is_or_holds(&self, wanted: &str) -> bool {
        let is_equal = |value: f64| {
            let wanted: Option<f64> = wanted.parse().ok();
            wanted.and_then(|wanted| wanted.partial_cmp(&value)).is_some_and(Ordering::is_eq)
        };
        match self {
            Self::Bool(value) => wanted == if *value { "true" } else { "false" },
            // To the last digit, which a float does not have.
            Self::Integer(value) if wanted.bytes().all(|byte| byte.is_ascii_digit()) => {
                wanted == value.to_string()
            }
            #[expect(clippy::cast_precision_loss, reason = "spelled as a float, it is one")]
            Self::Integer(value) => is_equal(*value as f64),
            Self::Number(value) => is_equal(*value),
            Self::Mixed(values) => values.iter().any(|value| value.is_or_holds(wanted)),
            _ => self.texts().any(|text| text == wanted),
        }
    }

    pub(super) fn string(self, name: &str) -> Result<Option<Cow<'a, str>>, TokenError> {
        match self {
            Self::Null => Ok(None),
            Self::String(text) => Ok(Some(text)),
            _ => Err(odd(name, "is not a string")),
        }
    }

    pub(super) fn strings(self, name: &str) -> Result<Vec<Cow<'a, str>>, TokenError> {
        match self {
            Self::Null => Ok(Vec::new()),
            Self::String(text) => Ok(vec![text]),
            Self::Strings(texts) => Ok(texts),
            _ => Err(odd(name, "is not a string or an array of strings")),
        }
    }

    pub(super) fn id(self, name: &str) -> Result<Option<Cow<'a, str>>, TokenError> {
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
}

/// The longest number that is read at once, digit by digit.
const MAX_PLAIN_DIGITS: usize = 16;

/// A `NumericDate` (RFC 7519 §2): seconds, with a fraction if need be. What is finer than a
/// millisecond is cut off, never rounded up: a token must not seem to be issued after a cutoff that
/// it was issued before.
pub(super) fn date(name: &str, json: &str) -> Result<Option<Timestamp>, TokenError> {
    // Whole seconds, as nearly all issuers write them, and too few for an overflow.
    let whole = |json: &str| {
        json.bytes().try_fold(0_u64, |secs, byte| {
            byte.is_ascii_digit().then(|| secs * 10 + u64::from(byte - b'0'))
        })
    };
    match Some(json).filter(|json| json.len() <= MAX_PLAIN_DIGITS).and_then(whole) {
        Some(secs) => Ok(Some(Timestamp::from_secs(secs))),
        None => unusual_date(name, json),
    }
}

#[cold]
fn unusual_date(name: &str, json: &str) -> Result<Option<Timestamp>, TokenError> {
    if json == "null" {
        return Ok(None);
    }
    let number: Option<f64> = json.parse().ok();
    number
        .filter(|secs| *secs >= 0.0 && secs.is_finite())
        .map(|_| Some(scaled(json).unwrap_or(Timestamp::ZERO)))
        .ok_or_else(|| odd(name, "is not a time: seconds since 1970, not negative"))
}

/// A number of seconds, cut by its digits, with an exponent as well: the nearest binary number may
/// be greater. None for what has a sign, which is zero.
fn scaled(json: &str) -> Option<Timestamp> {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let before_point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let mut digits = whole.bytes().chain(fraction.bytes());
    let (mut millis, mut places) = (0_u64, before_point.checked_add(3)?);
    while places > 0 && millis < u64::MAX {
        let digit = match digits.next() {
            Some(digit @ b'0'..=b'9') => digit - b'0',
            Some(_) => return None,
            // Nothing but zeros: however many follow, it stays zero.
            None if millis == 0 => break,
            None => 0,
        };
        millis = millis.saturating_mul(10).saturating_add(u64::from(digit));
        places -= 1;
    }
    Some(Timestamp::from_millis(millis))
}

/// The value of a time, for a rule that compares it.
pub(super) fn flat<'a>(json: &str) -> ClaimValue<'a> {
    match json {
        "null" => ClaimValue::Null,
        _ => number(json),
    }
}

/// How `serde_json` hands over a number when any crate in the build has turned on its feature
/// `arbitrary_precision`.
const ARBITRARY_NUMBER: &str = "$serde_json::private::Number";

fn number<'a>(digits: &str) -> ClaimValue<'a> {
    match (digits.parse(), digits.parse()) {
        (Ok(integer), _) => ClaimValue::Integer(integer),
        (_, Ok(number)) if f64::is_finite(number) => ClaimValue::Number(number),
        _ => ClaimValue::Other,
    }
}

/// How a value is read.
#[derive(Clone, Copy)]
pub(super) struct ValueSeed<'a> {
    source: Source<'a>,
    /// Whether the members of objects are kept.
    is_deep: bool,
    /// How many levels of arrays and objects are entered. Below them everything is skipped, which
    /// takes no stack however deep it is.
    levels: usize,
}

impl<'a> ValueSeed<'a> {
    /// Strings and numbers, and arrays of strings.
    pub(super) fn flat(source: Source<'a>) -> Self {
        Self { source, is_deep: false, levels: 1 }
    }

    /// Objects as well, as far down as a path may lead.
    pub(super) fn deep(source: Source<'a>) -> Self {
        Self { source, is_deep: true, levels: MAX_PATH_NAMES }
    }

    pub(super) fn below(self) -> Self {
        Self { levels: self.levels.saturating_sub(1), ..self }
    }
}

impl<'a> DeserializeSeed<'a> for ValueSeed<'a> {
    type Value = ClaimValue<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(ValueVisitor(self))
    }
}

struct ValueVisitor<'a>(ValueSeed<'a>);

impl<'a> Visitor<'a> for ValueVisitor<'a> {
    type Value = ClaimValue<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<ClaimValue<'a>, E> {
        Ok(ClaimValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<ClaimValue<'a>, E> {
        Ok(ClaimValue::Bool(value))
    }

    fn visit_u64<E>(self, number: u64) -> Result<ClaimValue<'a>, E> {
        Ok(ClaimValue::Integer(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "no id and no time may be negative")]
    fn visit_i64<E>(self, number: i64) -> Result<ClaimValue<'a>, E> {
        // Only negative numbers come this way.
        Ok(ClaimValue::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<ClaimValue<'a>, E> {
        Ok(ClaimValue::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<ClaimValue<'a>, E> {
        Ok(ClaimValue::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<ClaimValue<'a>, E> {
        Ok(ClaimValue::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<ClaimValue<'a>, A::Error> {
        if self.0.levels == 0 {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(ClaimValue::Other);
        }
        let mut strings = Vec::new();
        let seed = ValueSeed { levels: 0, ..self.0 };
        while let Some(value) = seq.next_element_seed(seed)? {
            match value {
                ClaimValue::String(text) => strings.push(text),
                other => return mixed(strings, other, seq, seed),
            }
        }
        Ok(ClaimValue::Strings(strings))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<ClaimValue<'a>, A::Error> {
        let ValueSeed { source, is_deep, levels } = self.0;
        let is_deep = is_deep && levels > 0;
        let mut members: Vec<(Cow<'a, str>, ClaimValue<'a>)> = Vec::new();
        while let Some(name) = map.next_key_seed(NameSeed(source))? {
            if name == ARBITRARY_NUMBER
                && let Cow::Borrowed(name) = name
                && !source.holds(name)
            {
                let digits = map.next_value_seed(NameSeed(source))?;
                return Ok(number(&digits));
            }
            if !is_deep {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value_seed(self.0.below())?;
            members.push((name, value));
        }
        let mut names: Vec<&str> = members.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            // Two parsers that choose differently see two different tokens (RFC 7519 §4).
            return Err(serde::de::Error::custom("a member stands there twice"));
        }
        Ok(if is_deep { ClaimValue::Object(members) } else { ClaimValue::Other })
    }
}

/// An array of `strings`, then `other`, then what is left of `seq`.
#[cold]
fn mixed<'a, A: SeqAccess<'a>>(
    strings: Vec<Cow<'a, str>>,
    other: ClaimValue<'a>,
    mut seq: A,
    seed: ValueSeed<'a>,
) -> Result<ClaimValue<'a>, A::Error> {
    let mut values: Vec<_> = strings.into_iter().map(ClaimValue::String).collect();
    values.push(other);
    while let Some(value) = seq.next_element_seed(seed)? {
        values.push(value);
    }
    Ok(ClaimValue::Mixed(values))
}
