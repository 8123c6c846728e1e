//! Times and durations, as people write them and as they read them.

use std::time::{Duration, UNIX_EPOCH};

use tower_jwt_revocation::clock::Timestamp;

/// Longer than any token, and short enough for all arithmetic.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// The last second that RFC 3339 can write.
const LAST_DATE: Timestamp = Timestamp::from_secs(253_402_300_799);

/// RFC 3339, `+15m` from now, `-15m` before now, or seconds since the epoch as tokens have them.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    if let Some(ahead) = text.strip_prefix('+') {
        return Ok(now.saturating_add(parse_lifetime(ahead)?));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return Ok(now.saturating_sub(parse_lifetime(ago)?));
    }
    if text == "now" {
        return Ok(now);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let secs = text.parse().ok().map(Timestamp::from_secs);
        return secs.filter(|time| *time <= LAST_DATE).ok_or_else(|| "is too late".into());
    }
    parse_date(text)
        .ok_or_else(|| "write a time as 2030-01-31T12:00:00Z, or +15m from now".to_owned())
}

/// RFC 3339, with any offset.
fn parse_date(text: &str) -> Option<Timestamp> {
    let upper = text.to_ascii_uppercase();
    let local = |text: &str| {
        let time = humantime::parse_rfc3339(text).ok()?;
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        Some(Timestamp::from_millis(u64::try_from(since.as_millis()).ok()?))
    };
    if upper.ends_with('Z') {
        return local(&upper);
    }
    let (date, offset) = upper.split_at_checked(upper.len().checked_sub(6)?)?;
    let sign = offset.chars().next()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let number = |digits: &str| {
        let are_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        are_digits.then(|| digits.parse::<u64>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = Duration::from_secs((hours * 60 + minutes) * 60);
    let time = local(&format!("{date}Z"))?;
    match sign {
        '+' => Some(time.saturating_sub(offset)),
        '-' => Some(time.saturating_add(offset)),
        _ => None,
    }
}

/// A number with a unit, such as `90s`, `15m`, `12h`, `30d`, `2w`; seconds without one.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err("write a time as 90s, 15m, 12h or 30d".into()),
    };
    if number.is_empty() {
        return Err("write a time as 90s, 15m, 12h or 30d".into());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .map(Duration::from_secs)
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| "is longer than a hundred years".into())
}

/// The time for people: RFC 3339 to the second; `never` for what has no end.
pub(crate) fn shown(time: Timestamp) -> String {
    if time > LAST_DATE {
        return "never".into();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(time.as_millis()))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let at = |text: &str| parse_time(text).unwrap().as_millis();
        assert_eq!(at("1970-01-02T00:00:00Z"), 86_400_000);
        assert_eq!(at("1970-01-02t00:00:00.250z"), 86_400_250);
        assert_eq!(at("1970-01-02T02:30:00+02:30"), 86_400_000);
        assert_eq!(at("1970-01-01T22:00:00-02:00"), 86_400_000);
        assert_eq!(at("86400"), 86_400_000);
        let now = Timestamp::now();
        assert!(parse_time("+12h").unwrap() >= now.saturating_add(Duration::from_secs(43_200)));
        assert!(parse_time("-3d").unwrap() < now);
        for odd in [
            "",
            "+",
            "+1y",
            "tomorrow",
            "+-1s",
            "1970-01-02",
            "1970-01-02T00:00:00",
            "1970-01-02T00:00:00+9",
            "1970-01-02T00:00:00+99:00",
            "99999999999999999999",
            "+99999999999999999d",
            "+40000d",
            "é",
            "ééé:éé",
        ] {
            assert!(parse_time(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_has_no_end_is_shown_so() {
        assert_eq!(shown(Timestamp::from_secs(86_400)), "1970-01-02T00:00:00Z");
        assert_eq!(shown(Timestamp::from_millis(u64::MAX)), "never");
    }
}
