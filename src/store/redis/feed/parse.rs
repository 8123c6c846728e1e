//! Replies about the index and the log. Pure.

use fred::types::Value;

use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};
use crate::store::feed::LogEntry;

/// Scores are whole milliseconds below 2⁵³, which Redis prints as such or, when large, with an
/// exponent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
pub(super) fn parse_score(score: &Value) -> Option<Timestamp> {
    let text = score.as_str()?;
    let millis = match text.parse() {
        Ok(millis) => millis,
        Err(_) => text.parse::<f64>().ok().filter(|n| (0.0..=9.1e15).contains(n))?.ceil() as u64,
    };
    Some(Timestamp::from_millis(millis))
}

/// The id of an entry: the milliseconds are the upper half of its place.
pub(super) fn parse_id(value: &Value) -> Option<u128> {
    let text = value.as_str()?;
    let (ms, n) = text.split_once('-')?;
    Some((u128::from(ms.parse::<u64>().ok()?) << 64) | u128::from(n.parse::<u64>().ok()?))
}

/// The reply to `XREAD` of one stream.
pub(super) fn parse_entries(reply: &Value) -> Option<Vec<LogEntry>> {
    if reply.is_null() {
        return Some(Vec::new());
    }
    let Value::Array(streams) = reply else { return None };
    let [Value::Array(stream)] = streams.as_slice() else { return None };
    let [_, Value::Array(entries)] = stream.as_slice() else { return None };
    entries.iter().map(parse_entry).collect()
}

fn parse_entry(entry: &Value) -> Option<LogEntry> {
    let Value::Array(entry) = entry else { return None };
    let [id, Value::Array(fields)] = entry.as_slice() else { return None };
    let field = |wanted: &[u8]| {
        fields.chunks_exact(2).find_map(|pair| match pair {
            [name, value] if name.as_bytes() == Some(wanted) => value.as_bytes(),
            _ => None,
        })
    };
    let text = |wanted: &[u8]| field(wanted).and_then(|value| std::str::from_utf8(value).ok());
    let mut words = text(b"n")?.split(' ');
    let mut next = || words.next()?.parse().map(Timestamp::from_millis).ok();
    let fact = Fact {
        all_revoked_at: next()?,
        cutoff: next()?,
        cutoff_set_at: next()?,
        reinstated_at: next()?,
        until: next()?,
        spared: words.next()?.parse().ok()?,
    };
    Some(LogEntry {
        id: parse_id(id)?,
        epoch: u64::from_str_radix(text(b"e")?, 16).ok()?,
        seq: text(b"s")?.parse().ok()?,
        fingerprint: Fingerprint::from_bytes(<[u8; 16]>::try_from(field(b"f")?).ok()?),
        fact,
    })
}
