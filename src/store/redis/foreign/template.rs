//! Templates of foreign keys: text with placeholders for values of a token. Pure.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::revocation::{MAX_ID_BYTES, TargetKind};
use crate::token::profile::usual_target_of;
use crate::verified::{Needs, VerifiedToken};

/// Longest template.
const MAX_TEMPLATE_BYTES: usize = 512;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyTemplate {
    source: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Placeholder(Placeholder),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// The value of a claim.
    Claim(Box<str>),
    /// The token, character by character.
    Token,
    /// The SHA-256 of its characters.
    Digest(Encoding),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Hex,
    Base64Url,
}

/// Why a placeholder has no value for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FillError {
    /// It lacks this claim, or has it empty.
    Missing(Box<str>),
    /// The claim is of a type or a length that is not in any key.
    Odd(Box<str>, &'static str),
    /// The store was not given the text of the token.
    NoText,
}

impl KeyTemplate {
    /// # Errors
    /// What is wrong with the text, in words.
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        if source.is_empty() || source.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("must have 1 to {MAX_TEMPLATE_BYTES} bytes"));
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            text.push_str(before);
            if let Some(after) = brace.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else {
                let named = brace.strip_prefix('{').and_then(|brace| brace.split_once('}'));
                let Some((name, after)) = named else {
                    return Err("has a brace without its other half; write {{ or }} for a brace \
                         itself"
                        .into());
                };
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                }
                parts.push(Part::Placeholder(Placeholder::parse(name)?));
                rest = after;
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        Ok(Self { source: source.into(), parts: parts.into() })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &Placeholder> {
        self.parts.iter().filter_map(|part| match part {
            Part::Placeholder(field) => Some(field),
            Part::Text(_) => None,
        })
    }

    /// Whether there is more to it than placeholders.
    pub(crate) fn has_text(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Text(_)))
    }

    /// The key, with each placeholder replaced by the value that `fill` gives.
    pub(crate) fn render<'v>(
        &self,
        mut fill: impl FnMut(&Placeholder) -> Result<Cow<'v, str>, FillError>,
    ) -> Result<String, FillError> {
        let mut name = String::with_capacity(self.source.len() + 64);
        for part in &self.parts {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Placeholder(field) => name.push_str(&fill(field)?),
            }
        }
        Ok(name)
    }

    /// What stands in the place of the one placeholder, if the name fits.
    pub(crate) fn read<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (before, after) = match &*self.parts {
            [Part::Placeholder(_)] => ("", ""),
            [Part::Text(before), Part::Placeholder(_)] => (&**before, ""),
            [Part::Placeholder(_), Part::Text(after)] => ("", &**after),
            [Part::Text(before), Part::Placeholder(_), Part::Text(after)] => (&**before, &**after),
            _ => return None,
        };
        name.strip_prefix(before)?.strip_suffix(after).filter(|value| !value.is_empty())
    }

    /// The pattern of `SCAN` that every such name fits, and few others.
    pub(crate) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => text.chars().for_each(|c| {
                    if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                        pattern.push('\\');
                    }
                    pattern.push(c);
                }),
                Part::Placeholder(_) => pattern.push('*'),
            }
        }
        pattern
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Placeholder {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "jti" | "sub" | "sid" => Self::Claim(name.into()),
            "token" => Self::Token,
            "token_sha256" => Self::Digest(Encoding::Hex),
            "token_sha256:base64url" => Self::Digest(Encoding::Base64Url),
            _ => match name.strip_prefix("claim:") {
                Some(claim) if !claim.is_empty() && !claim.contains('{') => {
                    Self::Claim(claim.into())
                }
                _ => {
                    return Err(format!(
                        "has the placeholder {{{name}}}; those that exist are {{jti}}, {{sub}}, \
                         {{sid}}, {{claim:name}}, {{token}}, {{token_sha256}} and \
                         {{token_sha256:base64url}}"
                    ));
                }
            },
        })
    }

    /// What kind of thing it names.
    pub(crate) fn kind(&self) -> TargetKind {
        match self {
            Self::Claim(claim) if &**claim == "jti" => TargetKind::Token,
            Self::Claim(claim) => usual_target_of(claim).unwrap_or(TargetKind::Claim),
            Self::Token | Self::Digest(_) => TargetKind::Token,
        }
    }

    pub(crate) fn needs(&self) -> Needs {
        match self {
            Self::Claim(_) => Needs::Claims,
            Self::Digest(_) => Needs::Digest,
            Self::Token => Needs::Text,
        }
    }
}

// === Values of a token ===

/// The values of one token for placeholders.
pub(crate) struct PlaceholderValues<'t> {
    token: &'t VerifiedToken,
    /// For each of the claims that were asked for, its value.
    claims: Vec<(&'t str, Value)>,
    /// Whether all of them could be looked for.
    is_read: bool,
}

impl<'t> PlaceholderValues<'t> {
    /// Reads these claims, none of which is named twice.
    pub(crate) fn of(token: &'t VerifiedToken, claims: &'t [Box<str>]) -> Self {
        let mut found = Vec::with_capacity(claims.len());
        let is_read = claims.is_empty() || {
            let mut json = serde_json::Deserializer::from_slice(token.payload());
            Wanted { claims, found: &mut found }.deserialize(&mut json).is_ok()
        };
        Self { token, claims: found, is_read }
    }

    pub(crate) fn fill(&self, field: &Placeholder) -> Result<Cow<'_, str>, FillError> {
        match field {
            Placeholder::Claim(name) => self.claim(name),
            Placeholder::Token => self.token.text().map(Cow::Borrowed).ok_or(FillError::NoText),
            Placeholder::Digest(encoding) => {
                let digest = self.token.text_sha256().ok_or(FillError::NoText)?;
                Ok(encoding.print(&digest).into())
            }
        }
    }

    fn claim(&self, name: &str) -> Result<Cow<'_, str>, FillError> {
        let odd = |problem| Err(FillError::Odd(name.into(), problem));
        if !self.is_read {
            // Not to be taken for a claim that is missing, which may be allowed.
            return odd("cannot be read");
        }
        match self.claims.iter().find(|(known, _)| *known == name).map(|(_, value)| value) {
            None | Some(Value::Null) => Err(FillError::Missing(name.into())),
            Some(Value::String(text)) if text.is_empty() => Err(FillError::Missing(name.into())),
            Some(Value::String(text)) if text.len() > MAX_ID_BYTES => odd("is longer than 1024 \
                bytes"),
            Some(Value::String(text)) => Ok(Cow::Borrowed(text)),
            Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
                Ok(number.to_string().into())
            }
            Some(_) => odd("is neither a string nor an integer"),
        }
    }
}

impl Encoding {
    fn print(self, digest: &[u8; 32]) -> String {
        match self {
            Self::Hex => digest.iter().fold(String::with_capacity(64), |mut text, byte| {
                for digit in [byte >> 4, byte & 15] {
                    text.extend(char::from_digit(digit.into(), 16));
                }
                text
            }),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(digest),
        }
    }
}

/// Reads some claims and passes over the others.
struct Wanted<'w, 't> {
    claims: &'t [Box<str>],
    found: &'w mut Vec<(&'t str, Value)>,
}

/// What of a JSON Pointer (RFC 6901) is left below the claim `name`; none if it does not lead
/// through that.
fn below<'c>(claim: &'c str, name: &str) -> Option<&'c str> {
    let path = claim.strip_prefix('/')?;
    let top = path.split_once('/').map_or(path, |(top, _)| top);
    let is_name = if top.contains('~') {
        top.replace("~1", "/").replace("~0", "~") == name
    } else {
        top == name
    };
    is_name.then(|| path.split_at(top.len()).1)
}

/// The name of a claim.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Wanted<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let mut inside = self.claims.iter().filter(|claim| below(claim, &name).is_some());
            let whole = self.claims.iter().find(|claim| ***claim == *name);
            let whole = whole.filter(|claim| !claim.starts_with('/'));
            let first = inside.next();
            if first.is_none() && whole.is_none() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: Value = map.next_value()?;
            for claim in first.into_iter().chain(inside) {
                let found = below(claim, &name).and_then(|path| value.pointer(path));
                self.found.extend(found.map(|found| (&**claim, found.clone())));
            }
            self.found.extend(whole.map(|claim| (&**claim, value)));
        }
        Ok(())
    }
}
