//! One shard of the records that cannot be said in eight bytes: cutoffs, reinstatements, distant
//! ends.
//!
//! An entry is one cache line, under the whole fingerprint. Its first word is the verdict, all that
//! a reader needs; the rest is the record, for the writer.

use crate::clock::Timestamp;
use crate::mirror::sync::{AtomicU64, Ordering};
use crate::revocation::{Fact, Fingerprint};

/// Which tokens of a target are revoked, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mirror) struct SetVerdict(u64);

impl SetVerdict {
    /// The word of an empty entry.
    const EMPTY: u64 = 0;
    pub(in crate::mirror) const NONE: Self = Self(1);
    pub(in crate::mirror) const ALL: Self = Self(u64::MAX);

    pub(super) fn of(fact: &Fact) -> Self {
        if fact.revokes_all() {
            return Self::ALL;
        }
        fact.cutoff().map_or(Self::NONE, |cutoff| {
            Self(cutoff.as_millis().saturating_add(2).min(u64::MAX - 1))
        })
    }

    /// Whether tokens issued at this time are revoked; a token that does not say is, by any cutoff.
    #[inline]
    pub(in crate::mirror) fn covers(self, issued_at: Option<Timestamp>) -> bool {
        match issued_at {
            _ if self == Self::ALL => true,
            _ if self == Self::NONE => false,
            Some(issued_at) => issued_at.as_millis() <= self.0 - 2,
            None => true,
        }
    }
}

/// Words of an entry.
const VERDICT: usize = 0;
const FINGERPRINT: [usize; 2] = [1, 2];
const FACT: usize = 3;

#[repr(align(64))]
#[derive(Debug, Default)]
struct Entry([AtomicU64; 8]);

impl Entry {
    #[inline]
    fn word(&self, n: usize) -> u64 {
        self.0.get(n).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set(&self, n: usize, value: u64) {
        if let Some(word) = self.0.get(n) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The verdict; nothing of the entry is to be read before it.
    #[inline]
    fn verdict(&self) -> u64 {
        self.0.get(VERDICT).map_or(SetVerdict::EMPTY, |word| word.load(Ordering::Acquire))
    }

    #[inline]
    fn is(&self, words: [u64; 2]) -> bool {
        FINGERPRINT.map(|n| self.word(n)) == words
    }

    fn fact(&self) -> Fact {
        let [all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until] =
            [0, 1, 2, 3, 4].map(|n| Timestamp::from_millis(self.word(FACT + n)));
        Fact { all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until }
    }

    fn write(&self, fact: &Fact) {
        let parts =
            [fact.all_revoked_at, fact.cutoff, fact.cutoff_set_at, fact.reinstated_at, fact.until];
        for (n, part) in parts.into_iter().enumerate() {
            self.set(FACT + n, part.as_millis());
        }
        if let Some(word) = self.0.get(VERDICT) {
            word.store(SetVerdict::of(fact).0, Ordering::Release);
        }
    }
}

/// A table that can be read by all and is written by one.
#[derive(Debug)]
pub(super) struct DetailTable {
    entries: Box<[Entry]>,
}

impl DetailTable {
    pub(super) fn with_room(entries: usize) -> Self {
        Self { entries: (0..entries).map(|_| Entry::default()).collect() }
    }

    pub(super) fn room(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries)
    }

    fn probe(&self, words: [u64; 2]) -> impl Iterator<Item = &Entry> {
        let [_, low] = words;
        let home = super::spread((low >> 32) as u32, self.entries.len());
        let (before, after) = self.entries.split_at(home);
        after.iter().chain(before)
    }

    fn entry(&self, words: [u64; 2]) -> Option<&Entry> {
        self.probe(words)
            .take_while(|entry| entry.verdict() != SetVerdict::EMPTY)
            .find(|entry| entry.is(words))
    }

    pub(super) fn verdict(&self, fingerprint: &Fingerprint) -> Option<SetVerdict> {
        self.entry(words(fingerprint)).map(|entry| SetVerdict(entry.verdict()))
    }

    // === The writer; the caller sees to it that there is one, and that there is room ===

    pub(super) fn fact(&self, fingerprint: &Fingerprint) -> Option<Fact> {
        self.entry(words(fingerprint)).map(Entry::fact)
    }

    /// Enters or replaces a record; whether it is a new one.
    pub(super) fn put(&self, fingerprint: &Fingerprint, fact: &Fact) -> bool {
        let words = words(fingerprint);
        for entry in self.probe(words) {
            let is_new = entry.verdict() == SetVerdict::EMPTY;
            if is_new {
                for (n, word) in FINGERPRINT.into_iter().zip(words) {
                    entry.set(n, word);
                }
            }
            if is_new || entry.is(words) {
                entry.write(fact);
                return is_new;
            }
        }
        false
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (Fingerprint, Fact)> {
        self.entries.iter().filter(|entry| entry.verdict() != SetVerdict::EMPTY).map(|entry| {
            let [high, low] = FINGERPRINT.map(|n| entry.word(n));
            (
                Fingerprint::from_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()),
                entry.fact(),
            )
        })
    }
}

fn words(fingerprint: &Fingerprint) -> [u64; 2] {
    let (high, low) = fingerprint.words();
    [high, low]
}
