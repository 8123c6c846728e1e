//! [`RecentlyRevoked`]: the tokens that were found revoked a moment ago, for when the store gives
//! no answer.
//!
//! A token that was refused a second ago must not be admitted because the store fails now. So what
//! is found revoked is noted, and asked about when there is an error, never otherwise: an answer of
//! the store decides alone.

use std::array;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::{collections::hash_map::RandomState, hash::BuildHasher as _};

use crate::clock::Timestamp;
use crate::target::TargetKind;
use crate::verified::VerifiedToken;

/// For how long it is known, in seconds.
const REMEMBERED: u64 = 60;
/// How much later than the last "revoked" a "live" has to come to be newer: their questions may
/// have been asked in the other order.
const SETTLED: u64 = 2;
/// Tokens that share a cache line. The oldest of a line makes room for one more.
const WAYS: usize = 8;
/// As a power of two: 4096 tokens in all, 32 KiB.
const LINE_BITS: u32 = 9;

const TAG_BITS: u32 = 40;
const KIND_BITS: u32 = 4;
const SECOND_BITS: u32 = 64 - TAG_BITS - KIND_BITS;
const SECONDS: u64 = (1 << SECOND_BITS) - 1;

/// A bounded table without locks. An entry is one word, so none is ever read half: 40 bits of a
/// seeded hash, by what kind of target the token is revoked, and in which second that was read. Two
/// tokens that nobody could aim at each other are taken for one with a probability of 10⁻¹¹; then,
/// and only while the store gives no answer, one is refused that might have passed.
#[derive(Debug)]
pub(crate) struct RecentlyRevoked {
    lines: Box<[Line]>,
    seed: u64,
    /// Whether anything was noted within the last minute, about.
    has_any: AtomicBool,
    noted_at: AtomicU64,
}

#[derive(Debug)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

impl RecentlyRevoked {
    pub(crate) fn new() -> Self {
        let line = |_| Line(array::from_fn(|_| AtomicU64::new(0)));
        Self {
            lines: (0..1_u32 << LINE_BITS).map(line).collect(),
            seed: RandomState::new().hash_one(0),
            has_any: AtomicBool::new(false),
            noted_at: AtomicU64::new(0),
        }
    }

    /// The token was found revoked, by a target of this kind.
    pub(crate) fn note(&self, token: &VerifiedToken, kind: TargetKind, now: Timestamp) {
        let (line, tag) = self.place(token);
        let entry = Entry { tag, kind, second: now.as_secs() & SECONDS }.into_word();
        // A client that repeats itself is the usual one.
        let same = line.iter().find(|slot| match slot.load(Relaxed) {
            0 => false,
            word => Entry::tag_of(word) == tag,
        });
        let oldest = || {
            line.iter().max_by_key(|slot| match slot.load(Relaxed) {
                0 => u64::MAX,
                word => Entry::age_of(word, now),
            })
        };
        if let Some(slot) = same.or_else(oldest)
            && slot.load(Relaxed) != entry
        {
            slot.store(entry, Relaxed);
        }
        if self.noted_at.load(Relaxed) != now.as_secs() {
            self.noted_at.store(now.as_secs(), Relaxed);
        }
        if !self.has_any.load(Relaxed) {
            self.has_any.store(true, Relaxed);
        }
    }

    /// By what kind of target the token was revoked within the last minute, if that is known.
    pub(crate) fn find(&self, token: &VerifiedToken, now: Timestamp) -> Option<TargetKind> {
        if !self.has_any.load(Relaxed) {
            return None;
        }
        let (line, tag) = self.place(token);
        let words = line.iter().map(|slot| slot.load(Relaxed));
        let mut hits = words.filter(|&word| word != 0 && Entry::tag_of(word) == tag);
        hits.find(|&word| Entry::age_of(word, now) <= REMEMBERED).and_then(Entry::kind_of)
    }

    /// The token was found live: it was reinstated. On the path of every request, so it costs one
    /// load as long as nothing was found revoked.
    #[inline]
    pub(crate) fn found_live(&self, token: &VerifiedToken, now: impl FnOnce() -> Timestamp) {
        if self.has_any.load(Relaxed) {
            self.forget(token, now());
        }
    }

    fn forget(&self, token: &VerifiedToken, now: Timestamp) {
        if now.as_secs().abs_diff(self.noted_at.load(Relaxed)) > REMEMBERED {
            self.has_any.store(false, Relaxed);
            return;
        }
        let (line, tag) = self.place(token);
        for slot in line {
            let word = slot.load(Relaxed);
            if word != 0 && Entry::tag_of(word) == tag && Entry::age_of(word, now) >= SETTLED {
                // Not if it was noted again meanwhile.
                let _ = slot.compare_exchange(word, 0, Relaxed, Relaxed);
            }
        }
    }

    /// Something was reinstated. That is rare, so nothing is kept by which the tokens could be told
    /// that it concerns.
    pub(crate) fn clear(&self) {
        self.has_any.store(false, Relaxed);
        for slot in self.lines.iter().flat_map(|line| &line.0) {
            slot.store(0, Relaxed);
        }
    }

    /// What decides about a token: its targets and its `iat`.
    #[inline]
    fn place(&self, token: &VerifiedToken) -> (&[AtomicU64], u64) {
        const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
        let mix = |hash: u64, word: u64| {
            let hash = (hash ^ word).wrapping_mul(FACTOR);
            hash ^ (hash >> 32)
        };
        let issued_at = token.issued_at().map_or(u64::MAX, Timestamp::as_millis);
        let words = token.targets().iter().map(|target| target.fingerprint().words().0);
        let hash = words.chain([issued_at]).fold(self.seed, mix);
        let line = (hash >> (64 - LINE_BITS)) as usize;
        let tag = hash & ((1 << TAG_BITS) - 1);
        (self.lines.get(line).map_or(&[], |line| &line.0[..]), tag)
    }
}

struct Entry {
    tag: u64,
    kind: TargetKind,
    second: u64,
}

impl Entry {
    /// Never zero, because no kind is.
    fn into_word(self) -> u64 {
        let kind = TargetKind::ALL.iter().position(|kind| *kind == self.kind).unwrap_or_default();
        self.tag << (64 - TAG_BITS) | (kind as u64 + 1) << SECOND_BITS | self.second
    }

    fn tag_of(word: u64) -> u64 {
        word >> (64 - TAG_BITS)
    }

    fn kind_of(word: u64) -> Option<TargetKind> {
        let number = (word >> SECOND_BITS) & ((1 << KIND_BITS) - 1);
        TargetKind::ALL.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    /// How many seconds ago it was noted. Of one that the clock has been set back behind, very
    /// many.
    fn age_of(word: u64, now: Timestamp) -> u64 {
        now.as_secs().wrapping_sub(word) & SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TokenProfile;
    use crate::token::profile::SignedClaims;

    fn token(id: &str, issued_at: u64) -> VerifiedToken {
        let claims =
            format!(r#"{{"jti":"{id}","sub":"u","iat":{issued_at},"exp":{}}}"#, issued_at + 9);
        let claims = SignedClaims::new(claims.as_bytes());
        TokenProfile::new().assert_verified_for_revocation(claims).unwrap()
    }

    const fn at(second: u64) -> Timestamp {
        Timestamp::from_secs(2_000_000_000 + second)
    }

    #[test]
    fn a_token_is_known_for_a_minute_and_no_other_is() {
        let table = RecentlyRevoked::new();
        for (n, kind) in TargetKind::ALL.into_iter().enumerate() {
            let id = n.to_string();
            assert_eq!(table.find(&token(&id, 5), at(0)), None);
            table.note(&token(&id, 5), kind, at(0));
            assert_eq!(table.find(&token(&id, 5), at(60)), Some(kind));
        }
        assert_eq!(table.find(&token("0", 6), at(1)), None, "one that was issued later");
        assert_eq!(table.find(&token("x", 5), at(1)), None);
        assert_eq!(table.find(&token("0", 5), at(61)), None);
        assert_eq!(table.find(&token("0", 5), Timestamp::from_secs(1)), None, "set back");
        table.note(&token("0", 5), TargetKind::User, at(50));
        assert_eq!(table.find(&token("0", 5), at(110)), Some(TargetKind::User));
    }

    #[test]
    fn a_reinstatement_ends_it() {
        let table = RecentlyRevoked::new();
        let (one, other) = (token("1", 5), token("2", 5));
        table.note(&one, TargetKind::Token, at(0));
        table.note(&other, TargetKind::Token, at(0));
        table.found_live(&one, || at(1));
        assert_eq!(table.find(&one, at(1)), Some(TargetKind::Token), "asked earlier, perhaps");
        table.found_live(&one, || at(2));
        assert_eq!(table.find(&one, at(2)), None);
        assert_eq!(table.find(&other, at(2)), Some(TargetKind::Token));
        table.clear();
        assert_eq!(table.find(&other, at(2)), None);
        table.note(&other, TargetKind::Token, at(3));
        assert_eq!(table.find(&other, at(3)), Some(TargetKind::Token));
        table.found_live(&one, || at(64));
        assert!(!table.has_any.load(Relaxed), "then it costs nothing any more");
    }

    #[test]
    fn it_is_bounded_and_the_latest_are_kept() {
        let table = RecentlyRevoked::new();
        for n in 0..50_000 {
            table.note(&token(&n.to_string(), 5), TargetKind::Token, at(n / 1000));
        }
        let known = |n: u64| table.find(&token(&n.to_string(), 5), at(50)).is_some();
        assert!((49_000..50_000).filter(|n| known(*n)).count() > 900);
        assert!((0..50_000).filter(|n| known(*n)).count() <= WAYS << LINE_BITS);
    }
}
