//! What facts need of a token: which session it is of; and how a spared session is written.

use std::fmt;
use std::str::FromStr;

use super::fact::SparedTime;
use super::{Fact, Fingerprint, Spared};
use crate::clock::Timestamp;
use crate::store_error::StoreError;
use crate::target::TargetKind;
use crate::verified::{TokenTarget, VerifiedToken};

impl Fact {
    /// Whether this, if it is known of one of the targets of `token`, revokes it.
    ///
    /// It compares the `iat` of the token with the cutoff, never with the clock. An `iat` in whole
    /// seconds means that the token was issued *within* that second. So the whole second of the
    /// cutoff is refused, and no token from before the revocation survives. A token without `iat`
    /// is covered. For a token of a [spared](Self::spared) session the cutoff is an earlier one.
    pub fn covers(&self, token: &VerifiedToken) -> bool {
        let session = if self.spared.is_none() { None } else { session_of(token) };
        self.covers_issued_at(token.issued_at(), session)
    }
}

/// The session that the token is of.
pub(crate) fn session_of(token: &VerifiedToken) -> Option<&Fingerprint> {
    let session = token.targets().iter().find(|target| target.kind() == TargetKind::Session);
    session.map(TokenTarget::fingerprint)
}

/// `-`, or the cutoff and the time at which it was set, with a comma between them: each `-`, or the
/// fingerprint of a session, a colon, and the milliseconds that hold for it.
impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("-");
        }
        for (n, spared) in self.times().into_iter().enumerate() {
            f.write_str(if n == 0 { "" } else { "," })?;
            match spared {
                Some(SparedTime { session, time }) => {
                    write!(f, "{session}:{}", time.as_millis())?;
                }
                None => f.write_str("-")?,
            }
        }
        Ok(())
    }
}

/// Reads what `Display` has written, and nothing else.
impl FromStr for Spared {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let (cutoff, set_at) = match text {
            "-" => (text, text),
            _ => text.split_once(',').ok_or_else(unreadable)?,
        };
        let spared = Self::of_times([read_time(cutoff)?, read_time(set_at)?]);
        if spared.to_string() == text { Ok(spared) } else { Err(unreadable()) }
    }
}

fn read_time(text: &str) -> Result<Option<SparedTime>, StoreError> {
    if text == "-" {
        return Ok(None);
    }
    let read = || {
        let (session, millis) = text.split_once(':')?;
        let session = u128::from_str_radix(session, 16).ok()?;
        let session = Fingerprint::from_bytes(session.to_be_bytes());
        Some(SparedTime { session, time: Timestamp::from_millis(millis.parse().ok()?) })
    };
    read().map(Some).ok_or_else(unreadable)
}

fn unreadable() -> StoreError {
    StoreError::invalid_record("what it spares is not readable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spared_session_is_read_as_it_was_written() {
        let session = |n| Fingerprint::from_bytes([n; 16]);
        let time = |n, millis| {
            Some(SparedTime { session: session(n), time: Timestamp::from_millis(millis) })
        };
        for times in
            [[None, None], [time(1, 0), None], [None, time(2, 5)], [time(1, 3), time(2, 0)]]
        {
            let spared = Spared::of_times(times);
            assert_eq!(spared.to_string().parse::<Spared>().unwrap(), spared, "{spared}");
        }
        let hex = session(10);
        let odd = ["", "-,-", "x", "-,-,-", &format!("{hex}:01,-"), &format!("{hex}:1"), "a:1,-"];
        for odd in odd.into_iter().chain([&*format!("{hex}:+1,-"), &*format!("{hex}:-1,-")]) {
            assert!(odd.parse::<Spared>().is_err(), "{odd}");
        }
    }
}
