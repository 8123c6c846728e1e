//! What is printed: lines and tables for people, JSON for programs.
//!
//! Ids, reasons and issuers come from others. What a terminal would take for a command, or a person
//! for something else, is shown escaped.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Map, Value, json};
use tower_jwt_revocation::Target;
use tower_jwt_revocation::revocation::Record;

use crate::failure::{Failure, Status};
use crate::time::shown;

/// For people or for programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints the document for programs, or the text for people. The exit status says all the same
    /// what was done or found: so it does where nobody reads the output, or it cannot be written,
    /// which is a warning.
    pub(crate) fn answer(
        self,
        document: &Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self.print(document, text) {
            Err(Failure::ClosedPipe) => Ok(()),
            Err(Failure::Output(error)) => {
                complain(&format!("warning: {error}; the exit status tells the result"));
                Ok(())
            }
            other => other,
        }
    }

    /// The same for an answer that the exit status does not tell: if it cannot be written, that is
    /// an error.
    pub(crate) fn print(
        self,
        document: &Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json { self::document(document) } else { self::text(&text()) }
    }

    /// Says why a command failed: to programs as a document, to people in one line. What cannot be
    /// said on standard output is said on standard error.
    pub(crate) fn failure(self, failure: Failure) -> Status {
        let (status, error, repeatable, also) = match failure {
            Failure::ClosedPipe => return Status::Done,
            Failure::Usage(error) => (Status::Unacceptable, error, false, Map::new()),
            Failure::Output(error) => (Status::Unknown, error, true, Map::new()),
            Failure::Store { error, repeatable, also } => {
                (Status::Unknown, error, repeatable, also)
            }
        };
        // What is wrong may be what was given for an id.
        let error = without_tokens(&error);
        if self.json {
            let mut document = json!({ "error": error, "repeatable": repeatable });
            if let Value::Object(members) = &mut document {
                members.extend(also.clone());
            }
            if self::document(&document).is_ok() {
                return status;
            }
        }
        let mut line = format!("error: {}", escaped_line(&error));
        for (name, value) in also {
            let value = value.as_str().map_or_else(|| value.to_string(), Into::into);
            // A string accepts everything.
            let _ = write!(line, "; {name}: {}", escaped_line(&value));
        }
        complain(&line);
        status
    }
}

/// One JSON document on a line.
pub(crate) fn document(document: &Value) -> Result<(), Failure> {
    write(format!("{}\n", printable_json(&document.to_string())).as_bytes())
}

/// Lines for people.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    write(format!("{text}\n").as_bytes())
}

/// Writes to standard output.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::of_output(&error))
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &str) {
    // If nobody hears it there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The text with everything escaped that cannot be seen: control characters, and those that change
/// the direction or the look of others. A backslash is doubled, so that nothing reads as another.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\'' | '"' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    shown
}

/// As [`escaped`], for sentences of our own that hold ids: a backslash stays as it is.
fn escaped_line(text: &str) -> String {
    text.split('\\').map(escaped).collect::<Vec<_>>().join("\\")
}

/// JSON, with what [`escaped`] escapes written in the way of JSON. Outside of strings all is ASCII.
fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    let mut units = [0; 2];
    for char in json.chars() {
        if char == '\u{7f}' || !char.is_ascii() && char.escape_debug().count() > 1 {
            for unit in char.encode_utf16(&mut units) {
                // A string accepts everything.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(char);
        }
    }
    shown
}

/// Whether a token stands somewhere in a text, rather than an id: it is not to be written anywhere.
pub(crate) fn holds_token(text: &str) -> bool {
    text.split(|char| !is_of_token(char)).any(is_token)
}

/// The text without the tokens in it.
pub(crate) fn without_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(|char| !is_of_token(char)) {
        let word = piece.trim_end_matches(|char| !is_of_token(char));
        shown.push_str(if is_token(word) { "(a token)" } else { word });
        shown.push_str(piece.get(word.len()..).unwrap_or_default());
    }
    shown
}

/// Base64url, and the point between the parts.
fn is_of_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.')
}

fn is_token(word: &str) -> bool {
    // `{"` in base64url (RFC 7515 §7.1, RFC 7516 §7.1), of `{"alg":"none"}` at least.
    let is_header = |part: &str| {
        part.find("eyJ").is_some_and(|begin| part.len() - begin > 15)
            // With white space in front of the first name, up to the brace at the end.
            || part.len() > 15
                && ["eyA", "ewo", "ew0"].iter().any(|begin| part.starts_with(begin))
                && part.ends_with(['9', '0', 'Q'])
    };
    let parts: Vec<_> = word.split('.').collect();
    parts.windows(2).any(|pair| match pair {
        // A refresh token is the id of a family, and 53 bytes after it.
        [head, rest] => is_header(head) || !head.is_empty() && rest.len() == 71,
        _ => false,
    })
}

/// The members that name a target.
pub(crate) fn target_document(target: &Target) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("kind".into(), target.kind().as_str().into());
    document.insert("id".into(), target.id().into());
    if let Some(issuer) = target.issuer_name().filter(|issuer| !issuer.is_empty()) {
        document.insert("iss".into(), issuer.into());
    }
    if let Some(claim) = target.claim_name() {
        document.insert("claim".into(), claim.into());
    }
    document
}

/// A record for programs. Times are milliseconds since the epoch.
pub(crate) fn record_document(record: &Record) -> Map<String, Value> {
    let mut document = target_document(record.target());
    document.insert("at".into(), record.changed_at().as_millis().into());
    document.insert("until".into(), record.until().as_millis().into());
    for (name, text) in [("reason", record.reason()), ("actor", record.actor())] {
        if let Some(text) = text {
            document.insert(name.into(), (**text).into());
        }
    }
    document.insert("extent".into(), extent(record).into());
    if let Some(cutoff) = record.cutoff().filter(|_| !record.revokes_all()) {
        document.insert("cutoff".into(), cutoff.as_millis().into());
        if !record.fact().spared.is_none() {
            document.insert("spares_a_session".into(), true.into());
        }
    }
    document
}

/// How much of the target is revoked.
fn extent(record: &Record) -> &'static str {
    match (record.revokes_all(), record.cutoff()) {
        (true, _) => "all",
        (false, Some(_)) => "issued_so_far",
        (false, None) => "none",
    }
}

/// The target for people.
pub(crate) fn shown_target(target: &Target) -> String {
    let mut line = match target.claim_name() {
        Some(claim) => format!("claim {}={}", escaped(claim), escaped(target.id())),
        None => format!("{} {}", target.kind(), escaped(target.id())),
    };
    if let Some(issuer) = target.issuer_name().filter(|issuer| !issuer.is_empty()) {
        line = format!("{line} of {}", escaped(issuer));
    }
    line
}

/// A record for people, in one line: `user alice: all tokens, since …`.
pub(crate) fn shown_record(record: &Record) -> String {
    let mut line = format!("{}: ", shown_target(record.target()));
    let what = match (record.revokes_all(), record.cutoff()) {
        (true, _) => "all tokens revoked".into(),
        (false, Some(cutoff)) => {
            let but = if record.fact().spared.is_none() { "" } else { ", but for one session" };
            format!("tokens issued until {} revoked{but}", shown(cutoff))
        }
        (false, None) => "reinstated".into(),
    };
    line.push_str(&what);
    // A string accepts everything.
    let _ =
        write!(line, ", at {}, kept until {}", shown(record.changed_at()), shown(record.until()));
    if let Some(reason) = record.reason() {
        let _ = write!(line, ", reason: {}", escaped(reason));
    }
    if let Some(actor) = record.actor() {
        let _ = write!(line, ", by: {}", escaped(actor));
    }
    line
}

/// Rows under a header, each column as wide as its widest cell; the last one is left as it is.
pub(crate) fn table<const N: usize>(header: Option<[&str; N]>, rows: &[[String; N]]) -> String {
    let mut widths = header.map_or([0; N], |header| header.map(|cell| cell.chars().count()));
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // A string accepts everything.
            let _ = write!(line, "{cell:width$}  ");
        }
        line.trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    header.map(line).into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(escaped("alice \"x\" ü"), "alice \"x\" ü");
        for (text, shown) in [
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\nb\tc", "a\\nb\\tc"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{9b}b", "a\\u{9b}b"),
            ("a\\nb", "a\\\\nb"),
            ("a\u{200b}b", "a\\u{200b}b"),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn json_is_the_same_document_without_what_cannot_be_seen() {
        let document = json!({ "id": "a\u{9b}\u{202e}ü😀\u{7f}\n\"", "e": "\u{e0001}" });
        let text = printable_json(&document.to_string());
        assert!(
            text.chars()
                .all(|char| char.escape_debug().count() == 1 || char == '"' || char == '\\')
        );
        assert!(text.contains('ü') && text.contains("\\u009b") && text.contains("\\u202e"));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }

    #[test]
    fn a_token_is_no_id() {
        let refresh = format!("{}.{}", "f".repeat(22), "A".repeat(71));
        for token in [
            "eyJhbGciOiJub25lIn0.e30.",
            "eyAiYWxnIjogIm5vbmUiIH0.e30.",
            "ewogImFsZyI6Im5vbmUiCn0.e30.",
            &refresh,
        ] {
            for (before, after) in [
                ("", ""),
                ("Bearer ", ""),
                ("--", "=x"),
                ("(", ")"),
                ("a\u{e9}", "\n"),
                ("id-", ""),
            ] {
                let is_part = token.starts_with("ew") || token.starts_with("eyA");
                if is_part && before.ends_with('-') {
                    continue;
                }
                let text = format!("{before}{token}{after}");
                assert!(holds_token(&text), "{text}");
                let shown = without_tokens(&text);
                assert!(!shown.contains(token) && shown.ends_with(after), "{shown}");
                assert!(shown.contains("(a token)"), "{shown}");
            }
        }
        for text in [
            "eyJ",
            "a.b.c",
            "",
            ".",
            "...",
            "https://eyewitness-reports.example/",
            "al\u{e9} b",
            "-x-",
        ] {
            assert!(!holds_token(text), "{text}");
            assert_eq!(without_tokens(text), text);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "1".into()], ["abc".into(), "2".into()]];
        assert_eq!(table(Some(["x", "y"]), &rows), "x    y\na    1\nabc  2");
    }
}
