//! [`ServerId`]: which server is at the other end of a connection. Pure.
//!
//! | known by | what it tells apart |
//! | --- | --- |
//! | `run_id` of `INFO server` | every start of a server |
//! | `master_replid` of `INFO replication` | every promotion of a replica |
//! | host and port | nothing but addresses: another server may be behind the same one |

use std::fmt::{self, Write as _};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// How long an id may be; a longer one is hashed.
const MAX_LENGTH: usize = 64;

/// The identity of one server: printable ASCII without spaces, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerId {
    text: Arc<str>,
    tag: u64,
    is_own: bool,
}

impl ServerId {
    /// An id that the server has said of itself.
    pub(crate) fn told(id: &str) -> Self {
        Self::new(bounded(id), true)
    }

    /// Stands for the id of a server that does not tell it.
    pub(crate) fn of_address(address: impl fmt::Display) -> Self {
        Self::new(bounded(&format!("addr:{address}")), false)
    }

    fn new(text: Arc<str>, is_own: bool) -> Self {
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let digits = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
        Self { text, tag: if is_own { digits.max(1) } else { 0 }, is_own }
    }

    /// Stands for it where every byte counts: in the epoch, which is read with every check. Zero if
    /// the server has not told its id: an address is no identity that all processes share.
    pub(crate) fn tag(&self) -> u64 {
        self.tag
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the server has told it. If not, two servers at one address have the same id.
    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn bounded(text: &str) -> Arc<str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic();
    if text.len() <= MAX_LENGTH && !text.is_empty() && text.bytes().all(is_plain) {
        return text.into();
    }
    let digest = Sha256::digest(text.as_bytes());
    let mut hex = String::with_capacity(MAX_LENGTH);
    for byte in digest {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into()
}

/// The value of a field in the reply to `INFO`, if it says anything: an id of zeros stands for
/// none.
pub(crate) fn field_of<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    let values = info.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.map(str::trim).find(|value| value.bytes().any(|byte| byte != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_ascii_without_spaces() {
        let run_id = "cf74cd9c8bb2f2a38b3fd1cd2c4e7b2a2a2a2a2a";
        assert_eq!(ServerId::told(run_id).as_str(), run_id);
        assert!(ServerId::told(run_id).is_own());
        let odd = ["", "a b", "a\nb", "é", "a\0", &"x".repeat(65), &"x".repeat(66)];
        let ids: Vec<_> = odd.iter().map(|odd| ServerId::told(odd)).collect();
        for (n, id) in ids.iter().enumerate() {
            assert!(id.as_str().len() == 64 && id.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
            assert!(!ids[..n].contains(id), "{id} stands for two");
        }
        assert_eq!(ServerId::told(&"x".repeat(64)).as_str(), "x".repeat(64));
    }

    #[test]
    fn an_address_is_no_id_of_its_own() {
        let id = ServerId::of_address("redis.test:6379");
        assert_eq!(id.as_str(), "addr:redis.test:6379");
        assert!(!id.is_own() && id.tag() == 0);
        assert_ne!(ServerId::told("a").tag(), ServerId::told("b").tag());
        assert_ne!(id, ServerId::told("addr:redis.test:6379"));
        assert_eq!(ServerId::of_address("h".repeat(200)).as_str().len(), 64);
    }

    #[test]
    fn fields_of_info_are_read_unless_they_say_nothing() {
        let info = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc1\r\nrun_id_2:x\r\n";
        assert_eq!(field_of(info, "run_id"), Some("abc1"));
        assert_eq!(field_of(info, "master_replid"), None);
        for nothing in ["run_id:", "run_id:0000000000\r\n", "run_id: \r\n", "run_id", ""] {
            assert_eq!(field_of(nothing, "run_id"), None, "{nothing:?}");
        }
    }
}
