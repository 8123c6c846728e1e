//! One shard of the records that cannot be said in eight bytes: cutoffs, reinstatements, distant
//! ends.
//!
//! An entry is one cache line, under the whole fingerprint. Its first word is the verdict, all that
//! a reader needs; the rest is the record, for the writer. Beside the entries, as far as a shard
//! has any, is which session a cutoff spares: only a reader looks there who has found a token
//! covered.

use crate::clock::Timestamp;
use crate::mirror::sync::{AtomicU64, Ordering};
use crate::revocation::{Fact, Fingerprint, Spared, SparedTime};

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

    /// But for what is spared.
    fn fact(&self) -> Fact {
        let [all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until] =
            [0, 1, 2, 3, 4].map(|n| Timestamp::from_millis(self.word(FACT + n)));
        let spared = Spared::default();
        Fact { all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until, spared }
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

/// What an entry spares: of the cutoff, and of when it was set, the session, and the time that
/// holds for it, plus one; zero if none is spared.
#[derive(Debug, Default)]
struct SparedWords([[AtomicU64; 3]; 2]);

impl SparedWords {
    fn write(&self, spared: Spared) {
        for (words, spared) in self.0.iter().zip(spared.times()) {
            let values = spared.map_or([0; 3], |SparedTime { session, time }| {
                let (high, low) = session.words();
                [high, low, time.as_millis() + 1]
            });
            for (word, value) in words.iter().zip(values) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    fn read(&self) -> Spared {
        Spared::of_times(self.0.each_ref().map(|words| {
            let [high, low, time] = words.each_ref().map(|word| word.load(Ordering::Relaxed));
            let time = Timestamp::from_millis(time.checked_sub(1)?);
            Some(SparedTime { session: fingerprint([high, low]), time })
        }))
    }
}

/// A table that can be read by all and is written by one.
#[derive(Debug)]
pub(super) struct DetailTable {
    entries: Box<[Entry]>,
    /// As many as entries, or none. An entry that spares a session is never changed, nor one so
    /// that it does: who has found it reads the whole of one record, and not parts of two.
    spared: Box<[SparedWords]>,
}

impl DetailTable {
    pub(super) fn with_room(entries: usize, is_sparing: bool) -> Self {
        let beside = if is_sparing { entries } else { 0 };
        Self {
            entries: (0..entries).map(|_| Entry::default()).collect(),
            spared: (0..beside).map(|_| SparedWords::default()).collect(),
        }
    }

    /// Whether this fact can be entered here, in the place of that one.
    pub(super) fn can_take(&self, fact: &Fact, known: Option<&Fact>) -> bool {
        let spares = !fact.spared.is_none();
        match known {
            Some(known) => !spares && known.spared.is_none(),
            None => !spares || !self.spared.is_empty(),
        }
    }

    pub(super) fn room(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries) + size_of_val(&*self.spared)
    }

    fn probe(&self, words: [u64; 2]) -> impl Iterator<Item = (usize, &Entry)> {
        let [_, low] = words;
        let home = super::spread((low >> 32) as u32, self.entries.len());
        let (before, after) = self.entries.split_at(home);
        (home..).zip(after).chain(before.iter().enumerate())
    }

    fn entry(&self, words: [u64; 2]) -> Option<(usize, &Entry)> {
        self.probe(words)
            .take_while(|(_, entry)| entry.verdict() != SetVerdict::EMPTY)
            .find(|(_, entry)| entry.is(words))
    }

    fn spared(&self, at: usize) -> Spared {
        self.spared.get(at).map_or(Spared::default(), SparedWords::read)
    }

    pub(super) fn verdict(&self, fingerprint: &Fingerprint) -> Option<SetVerdict> {
        self.entry(words(fingerprint)).map(|(_, entry)| SetVerdict(entry.verdict()))
    }

    /// The record of this target. For a reader it is whole only if it spares a session.
    pub(super) fn fact(&self, fingerprint: &Fingerprint) -> Option<Fact> {
        let (at, entry) = self.entry(words(fingerprint))?;
        Some(Fact { spared: self.spared(at), ..entry.fact() })
    }

    // === The writer; the caller sees to it that there is one, and that there is room ===

    /// Enters or replaces a record, if it [can be taken](Self::can_take); whether it is a new one.
    pub(super) fn put(&self, fingerprint: &Fingerprint, fact: &Fact) -> bool {
        let words = words(fingerprint);
        for (at, entry) in self.probe(words) {
            let is_new = entry.verdict() == SetVerdict::EMPTY;
            if is_new {
                for (n, word) in FINGERPRINT.into_iter().zip(words) {
                    entry.set(n, word);
                }
            }
            if is_new && let Some(spared) = self.spared.get(at) {
                spared.write(fact.spared);
            }
            if is_new || entry.is(words) {
                entry.write(fact);
                return is_new;
            }
        }
        false
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (Fingerprint, Fact)> {
        let entries = self.entries.iter().enumerate();
        entries.filter(|(_, entry)| entry.verdict() != SetVerdict::EMPTY).map(|(at, entry)| {
            let name = fingerprint(FINGERPRINT.map(|n| entry.word(n)));
            (name, Fact { spared: self.spared(at), ..entry.fact() })
        })
    }
}

fn fingerprint([high, low]: [u64; 2]) -> Fingerprint {
    Fingerprint::from_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}

fn words(fingerprint: &Fingerprint) -> [u64; 2] {
    let (high, low) = fingerprint.words();
    [high, low]
}
