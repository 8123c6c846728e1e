//! What the value of a foreign key means. Pure.

use std::sync::Arc;

use fred::types::Value;
use serde_json::Value as Json;

/// Longest document that is read, and longest text that is taken out of it, in characters.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
const MAX_WORDS: usize = 200;

/// What the values of a list mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueMeaning {
    /// A key that is there means revoked, whatever it holds.
    Present,
    /// One of these values; another one is an error.
    Values { revoked: Vec<Box<str>>, live: Vec<Box<str>> },
    /// A JSON object, whose `reason` and `user_id` are shown. With a flag, it means revoked only if
    /// the flag says so.
    Json { flag: Option<JsonFlag> },
}

/// A member of a JSON object. It is set if it is there, and neither `null` nor `false`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonFlag {
    pub(crate) name: Box<str>,
    /// Whether a document in which it is set means live, and not revoked.
    pub(crate) means_live: bool,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListVerdict {
    Live,
    /// Revoked, with the reason that the entry gives.
    Revoked(Option<Arc<str>>),
    /// The meaning of this value was not declared.
    Odd,
}

impl ValueMeaning {
    /// The command that asks for a key. `EXISTS` sees keys of any type; `GET` is an error for one
    /// that is no string, where `MGET` would say that it is not there.
    pub(crate) fn command(&self) -> &'static str {
        match self {
            Self::Present => "EXISTS",
            Self::Values { .. } | Self::Json { .. } => "GET",
        }
    }

    pub(crate) fn decide(&self, answer: &Value) -> ListVerdict {
        if let Self::Present = self {
            return decide_presence(answer);
        }
        if answer.is_null() {
            return ListVerdict::Live;
        }
        let Some(value) = answer.as_bytes() else { return ListVerdict::Odd };
        match self {
            Self::Present => ListVerdict::Odd,
            Self::Values { revoked, live } => {
                let is_in =
                    |values: &[Box<str>]| values.iter().any(|known| known.as_bytes() == value);
                match (is_in(revoked), is_in(live)) {
                    (true, _) => ListVerdict::Revoked(None),
                    (false, true) => ListVerdict::Live,
                    (false, false) => ListVerdict::Odd,
                }
            }
            Self::Json { flag } => decide_document(value, flag.as_ref()),
        }
    }
}

/// The answer to `EXISTS` and `SISMEMBER`.
pub(crate) fn decide_presence(answer: &Value) -> ListVerdict {
    match answer {
        Value::Integer(0) => ListVerdict::Live,
        Value::Integer(1) => ListVerdict::Revoked(None),
        _ => ListVerdict::Odd,
    }
}

fn decide_document(value: &[u8], flag: Option<&JsonFlag>) -> ListVerdict {
    let document =
        (value.len() <= MAX_DOCUMENT_BYTES).then(|| serde_json::from_slice::<Json>(value).ok());
    match (document.flatten(), flag) {
        (Some(Json::Object(document)), Some(flag)) => {
            let value = document.get(&*flag.name);
            let is_set = !matches!(value, None | Some(Json::Null | Json::Bool(false)));
            if is_set == flag.means_live {
                ListVerdict::Live
            } else {
                ListVerdict::Revoked(words(&document))
            }
        }
        (Some(Json::Object(document)), None) => ListVerdict::Revoked(words(&document)),
        // Without a flag, any entry means revoked. With one, this entry could mean either.
        (_, None) => ListVerdict::Revoked(None),
        (_, Some(_)) => ListVerdict::Odd,
    }
}

fn words(document: &serde_json::Map<String, Json>) -> Option<Arc<str>> {
    let text = |name: &str| match document.get(name) {
        Some(Json::String(text)) => Some(printable(text)).filter(|text| !text.is_empty()),
        Some(Json::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    match (text("reason"), text("user_id")) {
        (Some(reason), Some(user)) => Some(format!("{reason} (user_id {user})").into()),
        (Some(reason), None) => Some(reason.into()),
        (None, Some(user)) => Some(format!("user_id {user}").into()),
        (None, None) => None,
    }
}

/// A text of unknown origin, made safe for a line of a log: short, and without characters that move
/// the cursor or change the direction of writing.
fn printable(text: &str) -> String {
    let is_plain = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    let shown: String =
        text.chars().take(MAX_WORDS).map(|c| if is_plain(c) { c } else { ' ' }).collect();
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Bytes(value.to_owned().into())
    }

    fn reason(meaning: &ValueMeaning, value: &str) -> Option<String> {
        match meaning.decide(&text(value)) {
            ListVerdict::Revoked(words) => words.map(|words| words.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn presence_is_a_number_and_nothing_else() {
        assert_eq!(ValueMeaning::Present.decide(&Value::Integer(0)), ListVerdict::Live);
        assert_eq!(ValueMeaning::Present.decide(&Value::Integer(1)), ListVerdict::Revoked(None));
        for odd in [
            Value::Null,
            Value::Integer(2),
            Value::Integer(-1),
            text("0"),
            Value::Array(Vec::new()),
        ] {
            assert_eq!(ValueMeaning::Present.decide(&odd), ListVerdict::Odd, "{odd:?}");
        }
    }

    #[test]
    fn a_value_that_was_not_declared_is_odd() {
        let meaning =
            ValueMeaning::Values { revoked: vec!["1".into(), "".into()], live: vec!["0".into()] };
        assert_eq!(meaning.decide(&Value::Null), ListVerdict::Live);
        assert_eq!(meaning.decide(&text("1")), ListVerdict::Revoked(None));
        assert_eq!(meaning.decide(&text("")), ListVerdict::Revoked(None));
        assert_eq!(meaning.decide(&text("0")), ListVerdict::Live);
        for odd in ["true", "1 ", "01", "2"] {
            assert_eq!(meaning.decide(&text(odd)), ListVerdict::Odd, "{odd}");
        }
        assert_eq!(meaning.decide(&Value::Array(Vec::new())), ListVerdict::Odd);
    }

    #[test]
    fn a_document_gives_its_reason_and_user() {
        let any = ValueMeaning::Json { flag: None };
        let said = reason(&any, r#"{"reason":"stolen","user_id":42,"token":"eyJ"}"#);
        assert_eq!(said.unwrap(), "stolen (user_id 42)");
        assert_eq!(reason(&any, r#"{"user_id":"u-1"}"#).unwrap(), "user_id u-1");
        assert_eq!(reason(&any, r#"{"reason":["a"]}"#), None);
        // Any entry means revoked, whatever it holds.
        for odd in
            ["", "1", "[]", "{", "\u{feff}{}", &format!(r#"{{"reason":"{}"}}"#, "x".repeat(70_000))]
        {
            assert_eq!(reason(&any, odd), None);
        }
    }

    #[test]
    fn a_flag_tells_the_revoked_from_the_others() {
        let flag = JsonFlag { name: "revoked_at".into(), means_live: false };
        let flagged = ValueMeaning::Json { flag: Some(flag) };
        assert_eq!(
            reason(&flagged, r#"{"revoked_at":"2026-01-01","reason":"reuse"}"#).unwrap(),
            "reuse"
        );
        assert_eq!(reason(&flagged, r#"{"revoked_at":0}"#), None);
        for live in [r#"{"created_at":1}"#, r#"{"revoked_at":null}"#, r#"{"revoked_at":false}"#] {
            assert_eq!(flagged.decide(&text(live)), ListVerdict::Live, "{live}");
        }
        for odd in ["", "revoked", "[1]", r#"{"revoked_at":"#] {
            assert_eq!(flagged.decide(&text(odd)), ListVerdict::Odd, "{odd}");
        }
    }

    #[test]
    fn a_flag_can_mean_live() {
        let flag = JsonFlag { name: "is_active".into(), means_live: true };
        let flagged = ValueMeaning::Json { flag: Some(flag) };
        for live in [r#"{"is_active":true}"#, r#"{"is_active":1,"user_id":7}"#] {
            assert_eq!(flagged.decide(&text(live)), ListVerdict::Live, "{live}");
        }
        for ended in ["{}", r#"{"is_active":false}"#, r#"{"is_active":null}"#] {
            assert_eq!(flagged.decide(&text(ended)), ListVerdict::Revoked(None), "{ended}");
        }
        for odd in ["", "1", r#"["is_active"]"#] {
            assert_eq!(flagged.decide(&text(odd)), ListVerdict::Odd, "{odd}");
        }
    }

    #[test]
    fn shown_text_is_short_and_printable() {
        let any = ValueMeaning::Json { flag: None };
        let said = reason(&any, r#"{"reason":" a\u001b[31m\nb\u202ec\u0000 "}"#).unwrap();
        assert_eq!(said, "a [31m b c");
        let long = serde_json::json!({"reason": "ü".repeat(1000), "user_id": "u".repeat(1000)})
            .to_string();
        assert_eq!(reason(&any, &long).unwrap().chars().count(), 200 + " (user_id )".len() + 200);
        assert_eq!(reason(&any, r#"{"reason":"\n"}"#), None);
    }
}
