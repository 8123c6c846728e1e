//! One shard of what is revoked for good: eight bytes per revocation.
//!
//! A slot is `48 bits of the fingerprint | 16 bits of expiry`. Slots lie in lines of eight, one
//! cache line each; a search begins at a home line and ends at the first line that is not full.
//! Slots are never emptied: what is over stays until the table is built anew, so that a reader
//! needs no lock and no second look.
//!
//! Beside them lie the tails, if they are kept: the other 70 bits of the fingerprint, nine bytes
//! each. Readers never touch them.

use super::Key;
use crate::clock::Timestamp;
use crate::mirror::sync::{AtomicU8, AtomicU64, Ordering};

/// Slots in a line: what one cache miss brings.
pub(super) const SLOTS: usize = 8;

/// One of the records behind this tag is to be looked up in the details.
const DETAIL: u64 = 1;

/// Codes that stand for a time; 0 is an empty slot.
const CODES: u64 = 0xFFFF - 1;

/// Milliseconds in a unit of expiry, as a power of two: 4.4 minutes.
const UNIT: u32 = 18;

/// Units that a time may lie in the past and still be recognised as such: twelve days.
const PAST: u64 = 4096;

/// Units after which what is over is to be forgotten: an hour.
const OVERDUE: u64 = 14;

/// The time, and the latest that it was said to be: the clock may be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetTime {
    /// By this it is decided what is over.
    pub(super) now: Timestamp,
    /// By this codes are written and read, so that a clock that is set back does not make them
    /// mean something else.
    pub(super) latest: Timestamp,
}

/// When a revocation may be forgotten, in 16 bits. The codes go round once in 199 days: they stand
/// for the ends in a window around the [latest](SetTime::latest) time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry(u64);

impl Expiry {
    /// Rounded up; `None` if it is not in the window.
    pub(super) fn new(until: Timestamp, time: SetTime) -> Option<Self> {
        let unit = (until.as_millis() >> UNIT) + 1;
        let latest = time.latest.as_millis() >> UNIT;
        (unit + PAST > latest && unit < latest + CODES - PAST).then(|| Self(2 + unit % CODES))
    }

    /// The last moment that it stands for: up to a unit later than the one it was made of. An
    /// [`Expiry`] of it is equal to this one.
    pub(super) fn end(self, time: SetTime) -> Timestamp {
        let unit = ((time.latest.as_millis() >> UNIT) + self.place(time)).saturating_sub(PAST);
        Timestamp::from_millis((unit << UNIT).saturating_sub(1))
    }

    pub(super) fn is_over(self, time: SetTime) -> bool {
        self.is_over_for(0, time)
    }

    /// Whether it has been over for an hour.
    fn is_overdue(self, time: SetTime) -> bool {
        self.is_over_for(OVERDUE, time)
    }

    /// Whether it has been over for so many units. The present one is over: the code is rounded up.
    fn is_over_for(self, units: u64, time: SetTime) -> bool {
        let [now, latest] = [time.now, time.latest].map(|time| time.as_millis() >> UNIT);
        latest + self.place(time) + units <= now + PAST
    }

    /// Whether this is later than `other`, both being in the window.
    fn is_later_than(self, other: Self, time: SetTime) -> bool {
        self.place(time) > other.place(time)
    }

    /// Units since the window began, which is [`PAST`] before the latest time. Only so do codes
    /// have an order: they go round.
    fn place(self, time: SetTime) -> u64 {
        (self.0 - 2 + CODES + PAST - (time.latest.as_millis() >> UNIT) % CODES) % CODES
    }
}

/// Whether what is kept until `known` is kept for as long as `wanted`, which may be the end of an
/// [`Expiry`] that does not say it more exactly.
pub(in crate::mirror) fn is_kept_until(known: Timestamp, wanted: Timestamp) -> bool {
    let unit = |time: Timestamp| time.as_millis() >> UNIT;
    let is_end = unit(wanted) != unit(Timestamp::from_millis(wanted.as_millis().saturating_add(1)));
    known >= wanted || (is_end && unit(known) == unit(wanted))
}

/// What a table knows of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHit {
    /// Nothing.
    Absent,
    /// It is revoked, all of it.
    All,
    /// There are details.
    Detail,
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// There is one entry more.
    New,
    /// The entry is kept for longer.
    Extended,
    /// It was there already.
    Already,
}

#[repr(align(64))]
#[derive(Debug, Default)]
struct Line([AtomicU64; SLOTS]);

/// What one look at a line tells.
enum Look {
    /// The tag is not in it, nor in any that follows.
    Ends,
    /// The tag is in it, or the line is full.
    GoesOn,
}

impl Line {
    #[inline]
    fn look(&self, tag: u64) -> Look {
        let slots = self.0.each_ref().map(|slot| slot.load(Ordering::Relaxed));
        let mut is_match = false;
        for slot in slots {
            is_match |= slot >> 16 == tag;
        }
        // Lines are filled from the left, and the next one only when this one is full.
        let [.., last] = slots;
        if !is_match && last == 0 { Look::Ends } else { Look::GoesOn }
    }
}

/// What the slot does not say of a fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FingerprintTail {
    /// The last six bits of the key.
    pub(super) six: u8,
    /// The second word of the fingerprint.
    pub(super) low: u64,
}

impl FingerprintTail {
    /// In place of the tails of two fingerprints that share a slot.
    const AMBIGUOUS: Self = Self { six: !KNOWN, low: 0 };

    pub(super) fn is_unambiguous(self) -> bool {
        self != Self::AMBIGUOUS
    }
}

/// What is written in front of six bits that are known.
const KNOWN: u8 = 0x40;

/// The tails of the entries in the slots, in the same order; or none at all.
#[derive(Debug, Default)]
struct FingerprintTails {
    low: Box<[AtomicU64]>,
    six: Box<[AtomicU8]>,
}

impl FingerprintTails {
    fn for_slots(slots: usize) -> Self {
        Self {
            low: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            six: (0..slots).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.low) + size_of_val(&*self.six)
    }

    fn get(&self, slot: usize) -> Option<FingerprintTail> {
        let (low, six) = (self.low.get(slot)?, self.six.get(slot)?.load(Ordering::Relaxed));
        (six != 0).then(|| FingerprintTail { six: six & !KNOWN, low: low.load(Ordering::Relaxed) })
    }

    /// Notes whose slot it is. Of two that cannot be told apart, neither is known.
    fn note(&self, slot: usize, tail: Option<FingerprintTail>) {
        let (Some(low), Some(six), Some(tail)) = (self.low.get(slot), self.six.get(slot), tail)
        else {
            return;
        };
        let tail = match self.get(slot) {
            Some(known) if known != tail => FingerprintTail::AMBIGUOUS,
            _ => tail,
        };
        low.store(tail.low, Ordering::Relaxed);
        six.store(KNOWN | tail.six, Ordering::Relaxed);
    }
}

/// A table that can be read by all and is written by one.
#[derive(Debug)]
pub(super) struct PlainTable {
    lines: Box<[Line]>,
    tails: FingerprintTails,
}

impl PlainTable {
    pub(super) fn with_lines(lines: usize, has_tails: bool) -> Self {
        let tails = if has_tails {
            FingerprintTails::for_slots(lines * SLOTS)
        } else {
            FingerprintTails::default()
        };
        Self { lines: (0..lines).map(|_| Line::default()).collect(), tails }
    }

    pub(super) fn lines(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.lines) + self.tails.bytes()
    }

    /// The lines to be searched, in order.
    #[inline]
    fn probe(&self, key: Key) -> impl Iterator<Item = &Line> {
        let home = key.spread(self.lines.len());
        let (before, after) = self.lines.split_at(home);
        after.iter().chain(before)
    }

    #[inline]
    pub(super) fn find(&self, key: Key) -> PlainHit {
        let tag = key.tag();
        // Most searches end in their home line, without a step of the iterator.
        let home = self.lines.get(key.spread(self.lines.len()));
        match home.map(|line| line.look(tag)) {
            None | Some(Look::Ends) => PlainHit::Absent,
            Some(Look::GoesOn) => self.find_slowly(key),
        }
    }

    /// Two fingerprints with the same tag can lie behind each other: one with details, one without.
    fn find_slowly(&self, key: Key) -> PlainHit {
        let tag = key.tag();
        let mut hit = PlainHit::Absent;
        for slot in self.probe(key).flat_map(|line| &line.0) {
            // Whoever reads a mark that points to the details must see the details too.
            let slot = slot.load(Ordering::Acquire);
            if slot == 0 {
                break;
            }
            if slot >> 16 == tag {
                if slot & 0xFFFF != DETAIL {
                    return PlainHit::All;
                }
                hit = PlainHit::Detail;
            }
        }
        hit
    }

    // === The writer; the caller sees to it that there is one, and that there is room ===

    /// Whether it is revoked for good and that was not over at `then`. What ends within the unit,
    /// which is all that is known, counts as over: the tokens it covers have been so for minutes.
    pub(super) fn is_revoked_at(&self, key: Key, then: Timestamp, time: SetTime) -> bool {
        let next = Timestamp::from_millis(then.as_millis().saturating_add(1 << UNIT));
        let next = SetTime { now: next, ..time };
        let tag = key.tag();
        let slots =
            self.probe(key).flat_map(|line| &line.0).map(|slot| slot.load(Ordering::Relaxed));
        slots.take_while(|slot| *slot != 0).any(|slot| {
            slot >> 16 == tag && slot & 0xFFFF != DETAIL && !Expiry(slot & 0xFFFF).is_over(next)
        })
    }

    /// Enters what is revoked for good. Of two ends the later counts.
    pub(super) fn insert(
        &self,
        key: Key,
        expiry: Expiry,
        tail: Option<FingerprintTail>,
        time: SetTime,
    ) -> Inserted {
        let tag = key.tag();
        let (home, slots) = (key.spread(self.lines.len()) * SLOTS, self.lines.len() * SLOTS);
        for (n, slot) in self.probe(key).flat_map(|line| &line.0).enumerate() {
            let old = slot.load(Ordering::Relaxed);
            if old == 0 {
                self.tails.note((home + n) % slots, tail);
                slot.store(tag << 16 | expiry.0, Ordering::Release);
                return Inserted::New;
            }
            if old >> 16 == tag && old & 0xFFFF != DETAIL {
                self.tails.note((home + n) % slots, tail);
                if expiry.is_later_than(Expiry(old & 0xFFFF), time) {
                    slot.store(tag << 16 | expiry.0, Ordering::Release);
                    return Inserted::Extended;
                }
                return Inserted::Already;
            }
        }
        Inserted::Already
    }

    /// Enters a mark that there are details, which must have been published before.
    pub(super) fn mark_detail(&self, key: Key) -> Inserted {
        let mark = key.tag() << 16 | DETAIL;
        for slot in self.probe(key).flat_map(|line| &line.0) {
            let old = slot.load(Ordering::Relaxed);
            if old == mark {
                return Inserted::Already;
            }
            if old == 0 {
                slot.store(mark, Ordering::Release);
                return Inserted::New;
            }
        }
        Inserted::Already
    }

    /// Turns what was revoked for good into a mark; for a record that was reinstated.
    pub(super) fn demote(&self, key: Key) {
        let tag = key.tag();
        for slot in self.probe(key).flat_map(|line| &line.0) {
            let old = slot.load(Ordering::Relaxed);
            if old == 0 {
                return;
            }
            if old >> 16 == tag {
                slot.store(tag << 16 | DETAIL, Ordering::Release);
            }
        }
    }

    /// Entries that are not over yet, without the marks: how many of those are needed, only the
    /// details tell.
    pub(super) fn live(&self, time: SetTime) -> usize {
        self.expiries().filter(|expiry| !expiry.is_over(time)).count()
    }

    /// Whether any entry should have been forgotten.
    pub(super) fn is_overdue(&self, time: SetTime) -> bool {
        self.expiries().any(|expiry| expiry.is_overdue(time))
    }

    /// Those of all entries but the marks.
    fn expiries(&self) -> impl Iterator<Item = Expiry> {
        self.entries_with_tails().filter_map(|(_, expiry, _)| expiry)
    }

    /// All entries: tag, expiry unless it is a mark, and the tail if it is known.
    pub(super) fn entries_with_tails(
        &self,
    ) -> impl Iterator<Item = (Key, Option<Expiry>, Option<FingerprintTail>)> {
        let slots =
            self.lines.iter().flat_map(|line| &line.0).map(|slot| slot.load(Ordering::Relaxed));
        slots.enumerate().filter(|(_, slot)| *slot != 0).map(|(n, slot)| {
            let code = slot & 0xFFFF;
            (Key::from_tag(slot >> 16), (code != DETAIL).then_some(Expiry(code)), self.tails.get(n))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn time(now: Timestamp) -> SetTime {
        SetTime { now, latest: now }
    }

    #[test]
    fn an_expiry_is_never_over_early_and_never_a_unit_late() {
        let now = Timestamp::from_millis(20_000 * DAY);
        for ahead in [0, 1, 1 << UNIT, DAY, 100 * DAY, 180 * DAY] {
            let until = Timestamp::from_millis(now.as_millis() + ahead);
            let expiry = Expiry::new(until, time(now)).unwrap();
            let before = Timestamp::from_millis(until.as_millis().saturating_sub(1));
            assert!(!expiry.is_over(time(before)), "{ahead}");
            let end = expiry.end(time(now)).as_millis();
            assert!(
                (until.as_millis()..until.as_millis() + (1 << UNIT)).contains(&end),
                "{ahead}: {end}"
            );
            assert_eq!(Expiry::new(expiry.end(time(now)), time(now)), Some(expiry));
            assert!(
                is_kept_until(expiry.end(time(now)), until)
                    && is_kept_until(until, expiry.end(time(now)))
            );
            assert!(
                !is_kept_until(before, until)
                    && !is_kept_until(
                        until,
                        expiry.end(time(now)).saturating_add(Duration::from_millis(1))
                    )
            );
            assert!(
                expiry.is_over(time(Timestamp::from_millis(until.as_millis() + (1 << UNIT)))),
                "{ahead}"
            );
            assert!(
                expiry.is_over(time(Timestamp::from_millis(until.as_millis() + 10 * DAY))),
                "{ahead}"
            );
            for (hours, is_overdue) in [(0, false), (1, false), (2, true), (240, true)] {
                let then = Timestamp::from_millis(until.as_millis() + hours * DAY / 24);
                assert_eq!(
                    expiry.is_overdue(time(then)),
                    is_overdue,
                    "{ahead}, {hours} hours after"
                );
            }
            assert!(!expiry.is_overdue(time(now)), "{ahead}");
        }
        for far in [190 * DAY, 1000 * DAY] {
            assert_eq!(Expiry::new(Timestamp::from_millis(now.as_millis() + far), time(now)), None);
        }
        assert_eq!(
            Expiry::new(Timestamp::from_millis(now.as_millis() - 20 * DAY), time(now)),
            None
        );
    }

    #[test]
    fn a_clock_that_is_set_back_ends_nothing_early() {
        let latest = Timestamp::from_millis(20_000 * DAY);
        for back in [0, 1, 20, 170, 400, 20_000] {
            let time =
                SetTime { now: latest.saturating_sub(Duration::from_secs(back * 86_400)), latest };
            for ahead in [1, 30, 180] {
                let until = Timestamp::from_millis(latest.as_millis() + ahead * DAY);
                let expiry = Expiry::new(until, time).unwrap();
                assert!(!expiry.is_over(time), "{back} {ahead}");
                assert!(expiry.end(time) >= until, "{back} {ahead}");
            }
        }
    }

    #[test]
    fn the_later_expiry_wins_also_where_the_codes_go_round() {
        let unit = 1u64 << UNIT;
        let now = Timestamp::from_millis((CODES * 399) * unit);
        let at = |n: i64| {
            Expiry::new(
                Timestamp::from_millis(
                    now.as_millis().checked_add_signed(n * unit.cast_signed()).unwrap(),
                ),
                time(now),
            )
            .unwrap()
        };
        let last = (CODES - PAST - 2).cast_signed();
        let near = [(-2, -1), (-1, 0), (-1, 1), (0, 30_000), (-3, 20_000)];
        let far = [(0, 33_000), (1, 40_000), (0, last), (-4000, last)];
        for (early, late) in near.into_iter().chain(far) {
            assert!(at(late).is_later_than(at(early), time(now)), "{early} {late}");
            assert!(!at(early).is_later_than(at(late), time(now)), "{early} {late}");
        }
        assert!(!at(5).is_later_than(at(5), time(now)));
    }

    #[test]
    fn a_full_table_but_for_one_slot_finds_everything_and_nothing_else() {
        let plain = PlainTable::with_lines(4, true);
        let now = Timestamp::from_secs(1_000_000);
        let expiry = Expiry::new(Timestamp::from_secs(1_001_000), time(now)).unwrap();
        let key = |n: u64| Key::from_tag(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16);
        for n in 1..=31 {
            assert_eq!(plain.insert(key(n), expiry, None, time(now)), Inserted::New);
        }
        assert!((1..=31).all(|n| plain.find(key(n)) == PlainHit::All));
        assert!((32..5000).all(|n| plain.find(key(n)) == PlainHit::Absent));
        assert_eq!(plain.live(time(now)), 31);
        assert_eq!(plain.live(time(Timestamp::from_secs(1_002_000))), 0);
    }

    #[test]
    fn a_mark_does_not_hide_another_fingerprint_with_the_same_tag() {
        let plain = PlainTable::with_lines(1, false);
        let now = Timestamp::from_secs(1_000_000);
        let expiry = Expiry::new(Timestamp::from_secs(1_001_000), time(now)).unwrap();
        let key = Key::from_tag(7);
        assert_eq!(plain.mark_detail(key), Inserted::New);
        assert_eq!(plain.find(key), PlainHit::Detail);
        assert_eq!(plain.insert(key, expiry, None, time(now)), Inserted::New);
        assert_eq!(plain.find(key), PlainHit::All);
        plain.demote(key);
        assert_eq!(plain.find(key), PlainHit::Detail);
    }

    #[test]
    fn of_two_fingerprints_in_one_slot_neither_is_known_in_full() {
        let plain = PlainTable::with_lines(1, true);
        let now = Timestamp::from_secs(1_000_000);
        let expiry = Expiry::new(Timestamp::from_secs(1_001_000), time(now)).unwrap();
        let key = Key::from_tag(7);
        let tail = |six| Some(FingerprintTail { six, low: 3 });
        let known =
            || plain.entries_with_tails().next().unwrap().2.filter(|tail| tail.is_unambiguous());
        plain.insert(key, expiry, None, time(now));
        assert_eq!(known(), None);
        plain.insert(key, expiry, tail(0), time(now));
        plain.insert(key, expiry, tail(0), time(now));
        assert_eq!(known(), tail(0));
        plain.insert(key, expiry, tail(63), time(now));
        plain.insert(key, expiry, tail(0), time(now));
        assert_eq!(known(), None);
    }
}
