use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;

/// The fingerprint of a number; `mixed` spreads it, as SHA-256 does.
fn name(n: u64) -> Fingerprint {
    let mixed = u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) << 64 | u128::from(n ^ 0x5555);
    Fingerprint::from_bytes(mixed.to_be_bytes())
}

fn later(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + millis)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The store changes, and the change comes through the log.
    Change(u64, Wish, Lifetime),
    /// The store changes, and the log loses it.
    Lost(u64, Wish, Lifetime),
    /// This process changes the store: it knows what it did, before the log says so.
    Own(u64, Wish, Lifetime),
    /// Everything in the log comes once more.
    Replay,
    /// A snapshot.
    Snapshot,
    /// Time goes by, and what is over is forgotten.
    Pass(u64),
    Reserve(usize),
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    All,
    Cutoff,
    /// A cutoff that spares this session.
    Sparing(u64),
    /// A cutoff of long ago.
    Earlier,
    Reinstate,
}

/// How long a change is kept, in milliseconds.
type Lifetime = u64;

fn step() -> impl Strategy<Value = Step> {
    let wish = prop_oneof![
        4 => Just(Wish::All),
        2 => Just(Wish::Cutoff),
        4 => (0..3u64).prop_map(Wish::Sparing),
        1 => Just(Wish::Earlier),
        2 => Just(Wish::Reinstate),
    ];
    let lifetime = prop_oneof![2 => Just(2 * HOUR), 1 => HOUR..2 * DAY, 2 => 120 * DAY..180 * DAY];
    let change = (0..20u64, wish, lifetime);
    prop_oneof![
        8 => change.clone().prop_map(|(n, wish, kept)| Step::Change(n, wish, kept)),
        3 => change.clone().prop_map(|(n, wish, kept)| Step::Lost(n, wish, kept)),
        4 => change.prop_map(|(n, wish, kept)| Step::Own(n, wish, kept)),
        1 => Just(Step::Replay),
        2 => Just(Step::Snapshot),
        2 => (0..3 * HOUR).prop_map(Step::Pass),
        1 => (0..9 * DAY).prop_map(Step::Pass),
        1 => (0..4000usize).prop_map(Step::Reserve),
    ]
}

/// The store: what [`Revocation::apply`] does, in numbers.
struct Store {
    facts: HashMap<u64, Fact>,
    log: Vec<(u64, Fact)>,
    now: Timestamp,
}

impl Store {
    /// Returns what the writer knows, and what the log says.
    fn change(&mut self, n: u64, wish: Wish, lifetime: Lifetime) -> Option<(Fact, Fact)> {
        self.now = self.now.saturating_add(Duration::from_millis(1));
        let now = self.now;
        let until = Timestamp::from_millis(now.as_millis() + lifetime);
        let known = self.facts.get(&n).copied().filter(|fact| fact.until > now).unwrap_or_default();
        let own = match wish {
            Wish::All => Fact { all_revoked_at: now, until, ..Fact::default() },
            Wish::Cutoff => Fact { cutoff: now, cutoff_set_at: now, until, ..Fact::default() },
            Wish::Sparing(session) => {
                let fact = Fact { cutoff: now, cutoff_set_at: now, until, ..Fact::default() };
                fact.sparing(Some(name(session)))
            }
            Wish::Earlier => Fact { cutoff: NOW, cutoff_set_at: now, until, ..Fact::default() },
            Wish::Reinstate if known == Fact::default() => return None,
            Wish::Reinstate => Fact { reinstated_at: now, until, ..Fact::default() },
        };
        let merged = known.merge(own);
        // What is revoked for long enough already is not written, and not in the log.
        if own.is_plain() && known.is_plain() && known.until >= until {
            return Some((own, known));
        }
        self.facts.insert(n, merged);
        self.log.push((n, merged));
        Some((own, merged))
    }

    fn snapshot(&self) -> Vec<(Fingerprint, Fact)> {
        let live = self.facts.iter().filter(|(_, fact)| fact.until > self.now);
        live.map(|(n, fact)| {
            (name(*n), if fact.is_plain() { Fact::revoked_until(fact.until) } else { *fact })
        })
        .collect()
    }
}

/// Whether tokens that were issued at one of these times are revoked, of one of these sessions or
/// of none.
fn covered(set: &RevocationSet, n: u64, sessions: &[Option<Fingerprint>]) -> Vec<bool> {
    let reader = set.read();
    let verdict = reader.verdict(&name(n));
    let mut covered = Vec::new();
    for issued_at in [None, Some(NOW), Some(later(HOUR))] {
        for session in sessions {
            let session = || session.as_ref();
            let spares = reader.spares(&name(n), verdict, session, issued_at);
            covered.push(verdict.covers(issued_at) && !spares);
        }
    }
    covered
}

/// The same, as the store says it.
fn expected(fact: &Fact, sessions: &[Option<Fingerprint>]) -> Vec<bool> {
    let mut covered = Vec::new();
    for issued_at in [None, Some(NOW), Some(later(HOUR))] {
        covered.extend(sessions.iter().map(|it| fact.covers_issued_at(issued_at, it.as_ref())));
    }
    covered
}

fn take_snapshot(set: &RevocationSet, store: &Store) {
    let unclear = set.apply(&store.snapshot(), FactSource::Snapshot, store.now);
    let found: Vec<_> = store.facts.iter().map(|(n, fact)| (name(*n), *fact)).collect();
    let found: Vec<_> = found.into_iter().filter(|(name, _)| unclear.contains(name)).collect();
    assert_eq!(found.len(), unclear.len());
    set.apply(&found, FactSource::Write, store.now);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_set_says_what_the_store_says(steps in prop::collection::vec(step(), 1..120)) {
        let set = RevocationSet::new(1000, usize::MAX);
        let mut store = Store { facts: HashMap::new(), log: Vec::new(), now: NOW };
        let sessions = [None, Some(name(0)), Some(name(1)), Some(name(2))];
        let mut is_complete = true;
        for step in steps {
            match step {
                Step::Change(n, wish, lifetime) => {
                    if let Some((_, merged)) = store.change(n, wish, lifetime) {
                        set.apply(&[(name(n), merged)], FactSource::Write, store.now);
                    }
                }
                Step::Lost(n, wish, lifetime) => {
                    is_complete &= store.change(n, wish, lifetime).is_none();
                    store.log.clear();
                }
                Step::Own(n, wish, lifetime) => {
                    if let Some((own, merged)) = store.change(n, wish, lifetime) {
                        set.apply(&[(name(n), own)], FactSource::Write, store.now);
                        // What was lost before it must not undo it.
                        let is_revoked = set.read().verdict(&name(n)).covers(None);
                        prop_assert_eq!(is_revoked, !matches!(wish, Wish::Reinstate));
                        set.apply(&[(name(n), merged)], FactSource::Write, store.now);
                    }
                }
                Step::Replay => {
                    for (n, fact) in &store.log {
                        set.apply(&[(name(*n), *fact)], FactSource::Write, store.now);
                    }
                }
                Step::Snapshot => {
                    take_snapshot(&set, &store);
                    is_complete = true;
                }
                Step::Pass(millis) => {
                    store.now = Timestamp::from_millis(store.now.as_millis() + millis);
                    (0..SHARDS).for_each(|shard| set.sweep(shard, store.now));
                }
                Step::Reserve(entries) => {
                    (0..SHARDS).for_each(|shard| set.reserve(shard, entries, store.now));
                }
            }
            if is_complete {
                let reader = set.read();
                for (n, fact) in store.facts.iter().filter(|(_, fact)| fact.until > store.now) {
                    prop_assert_eq!(reader.verdict(&name(*n)), SetVerdict::of(fact), "{} \
                        {:?}", n, fact);
                    prop_assert_eq!(
                        covered(&set, *n, &sessions), expected(fact, &sessions), "{} {:?}", n, fact
                    );
                }
            }
        }
        take_snapshot(&set, &store);
        let reader = set.read();
        for (n, fact) in store.facts.iter().filter(|(_, fact)| fact.until > store.now) {
            prop_assert_eq!(reader.verdict(&name(*n)), SetVerdict::of(fact), "{} {:?}", n, fact);
        }
        prop_assert!((1000..1100).all(|n| reader.verdict(&name(n)) == SetVerdict::NONE));

        // A set that takes in what this one knows says the same.
        let heir = RevocationSet::new(0, 0);
        for known in (0..SHARDS).map(|shard| set.known(shard, store.now)) {
            prop_assert_eq!(known.unidentified, 0);
            heir.apply(&known.facts, FactSource::Write, store.now);
        }
        for (n, fact) in store.facts.iter().filter(|(_, fact)| fact.until > store.now) {
            let verdict = heir.read().verdict(&name(*n));
            prop_assert_eq!(verdict, SetVerdict::of(fact), "{} {:?}", n, fact);
            prop_assert_eq!(
                covered(&heir, *n, &sessions), expected(fact, &sessions), "{} {:?}", n, fact
            );
        }
    }
}

#[test]
fn whole_fingerprints_are_kept_of_as_many_as_was_asked_for_and_cost_nothing_beyond() {
    let known = |set: &RevocationSet| {
        let shards = (0..SHARDS).map(|shard| set.known(shard, NOW));
        shards.fold((0, 0), |(identified, unidentified), known| {
            (identified + known.facts.len(), unidentified + known.unidentified)
        })
    };
    let (limited, without) = (RevocationSet::new(0, 20_000), RevocationSet::new(0, 0));
    for (count, expected) in [(20_000, 20_000), (60_000, 0)] {
        for set in [&limited, &without] {
            for n in 0..count {
                set.apply(
                    &[(name(n), Fact::revoked_until(later(HOUR)))],
                    FactSource::Snapshot,
                    NOW,
                );
            }
        }
        let (identified, unidentified) = known(&limited);
        assert_eq!(identified + unidentified, usize::try_from(count).unwrap());
        assert_eq!(identified, expected, "of {count}");
        assert_eq!(known(&without).0, 0);
    }
    // Each has a seed of its own, so that the last few lines differ.
    assert!(limited.size().bytes.abs_diff(without.size().bytes) < 20_000);
}

#[test]
fn it_grows_and_shrinks_and_forgets_nothing_before_its_time() {
    let set = RevocationSet::new(0, 0);
    let count = 60_000;
    let short = |n: u64| n.is_multiple_of(4);
    for n in 0..count {
        let until = later(if short(n) { 10 * HOUR } else { HOUR });
        set.apply(&[(name(n), Fact::revoked_until(until))], FactSource::Snapshot, NOW);
    }
    assert_eq!(set.size().entries, 60_000);
    assert!((0..count).all(|n| set.read().verdict(&name(n)) == SetVerdict::ALL));
    assert!((count..2 * count).all(|n| set.read().verdict(&name(n)) == SetVerdict::NONE));
    let full = set.size().bytes;

    (0..SHARDS).for_each(|shard| set.sweep(shard, later(HOUR - 1)));
    assert_eq!(set.size(), SetSize { entries: 60_000, details: 0, bytes: full });
    (0..SHARDS).for_each(|shard| set.sweep(shard, later(2 * HOUR)));
    assert_eq!(set.size().entries, 15_000);
    assert!(set.size().bytes < full / 2, "{full} {}", set.size().bytes);
    assert!((0..count).all(|n| (set.read().verdict(&name(n)) == SetVerdict::ALL) == short(n)));
    (0..SHARDS).for_each(|shard| set.sweep(shard, later(20 * HOUR)));
    assert_eq!(set.size().entries, 0);
}

fn sweep(set: &RevocationSet, now: Timestamp) {
    (0..SHARDS).for_each(|shard| set.sweep(shard, now));
}

#[test]
fn of_two_ends_the_later_counts_however_far_they_are_apart() {
    for days in [99, 100, 150, 185] {
        for ends in [[days, 1], [1, days]] {
            let set = RevocationSet::new(0, 0);
            for end in ends {
                let fact = Fact::revoked_until(later(end * DAY));
                set.apply(&[(name(1), fact)], FactSource::Snapshot, NOW);
            }
            assert_eq!(set.size().details, 0);
            for day in [2, days - 1] {
                sweep(&set, later(day * DAY));
                assert_eq!(set.read().verdict(&name(1)), SetVerdict::ALL, "{ends:?} on day {day}");
            }
            sweep(&set, later((days + 1) * DAY));
            assert_eq!(set.read().verdict(&name(1)), SetVerdict::NONE, "{ends:?}");
        }
    }
}

#[test]
fn a_clock_that_is_set_back_un_revokes_nothing() {
    let set = RevocationSet::new(0, usize::MAX);
    set.apply(&[(name(1), Fact::revoked_until(later(30 * DAY)))], FactSource::Write, NOW);
    for days in [1, 20, 160, 200, 4000] {
        let back = NOW.saturating_sub(Duration::from_millis(days * DAY));
        sweep(&set, back);
        assert_eq!(set.read().verdict(&name(1)), SetVerdict::ALL, "{days} days back");
        // What is written meanwhile has its own end, by the clock as it is then.
        let until = back.saturating_add(Duration::from_millis(2 * HOUR));
        set.apply(&[(name(2), Fact::revoked_until(until))], FactSource::Write, back);
        assert_eq!(set.read().verdict(&name(2)), SetVerdict::ALL, "{days} days back");
        sweep(&set, back.saturating_add(Duration::from_millis(3 * HOUR)));
        assert_eq!(set.read().verdict(&name(2)), SetVerdict::NONE, "{days} days back");
    }
    sweep(&set, later(29 * DAY));
    assert_eq!(set.read().verdict(&name(1)), SetVerdict::ALL);
    sweep(&set, later(31 * DAY));
    assert_eq!(set.read().verdict(&name(1)), SetVerdict::NONE);
}

#[test]
fn what_is_over_is_forgotten_within_the_hour_also_where_it_is_little() {
    let set = RevocationSet::new(0, 0);
    let count = 60_000;
    let cutoff =
        |until| Fact { cutoff: NOW, cutoff_set_at: NOW, until: later(until), ..Fact::default() };
    for n in 0..count {
        let fact =
            if n % 2 == 0 { Fact::revoked_until(later(10 * HOUR)) } else { cutoff(10 * HOUR) };
        set.apply(&[(name(n), fact)], FactSource::Write, NOW);
    }
    let (plain, detail) = (name(count), name(count + 1));
    let short = [(plain, Fact::revoked_until(later(HOUR))), (detail, cutoff(HOUR))];
    set.apply(&short, FactSource::Write, NOW);
    sweep(&set, later(HOUR - 1));
    assert!([plain, detail].iter().all(|name| set.read().verdict(name).covers(Some(NOW))));
    sweep(&set, later(2 * HOUR + HOUR / 4));
    assert!([plain, detail].iter().all(|name| set.read().verdict(name) == SetVerdict::NONE));
    assert!((0..count).all(|n| set.read().verdict(&name(n)).covers(Some(NOW))));
}

#[test]
fn of_cutoffs_that_are_over_nothing_is_left() {
    let set = RevocationSet::new(0, 0);
    let cutoff = |until| Fact { cutoff: NOW, cutoff_set_at: NOW, until, ..Fact::default() };
    for round in 0..3 {
        let (now, until) = (later(round * DAY), later(round * DAY + HOUR));
        for n in 0..20_000 {
            set.apply(&[(name(round << 32 | n), cutoff(until))], FactSource::Write, now);
        }
        let size = set.size();
        assert_eq!((size.entries, size.details), (20_000, 20_000), "in round {round}");
        sweep(&set, later(round * DAY + 3 * HOUR));
        let size = set.size();
        assert_eq!((size.entries, size.details), (0, 0), "after round {round}");
    }
}

#[test]
fn what_it_says_of_its_size_is_what_the_tables_take() {
    let set = RevocationSet::new(0, 0);
    for n in 0..5000 {
        let fact = if n < 500 {
            Fact { cutoff: NOW, cutoff_set_at: NOW, until: later(HOUR), ..Fact::default() }
        } else {
            Fact::revoked_until(later(HOUR))
        };
        set.apply(&[(name(n), fact)], FactSource::Write, NOW);
    }
    let directory = set.directory.load();
    let tables: usize =
        directory.shards.iter().map(|shard| shard.plain.bytes() + shard.details.bytes()).sum();
    let fixed = SHARDS * (size_of::<Shard>() + 2 * size_of::<usize>()) + size_of::<RevocationSet>();
    // The empty tables are shared, and counted once for each shard only when they are replaced.
    let empty = PlainTable::with_lines(0, false).bytes() + DetailTable::with_room(0, false).bytes();
    assert!(
        set.size().bytes.abs_diff(tables + fixed) <= SHARDS * empty,
        "{:?} {tables} {fixed}",
        set.size()
    );
    assert_eq!((set.size().entries, set.size().details), (5000, 500));
}

#[test]
fn a_distant_end_is_kept_to_the_millisecond() {
    let set = RevocationSet::new(0, 0);
    let until = later(400 * 24 * HOUR);
    set.apply(&[(name(1), Fact::revoked_until(until))], FactSource::Snapshot, NOW);
    assert_eq!(set.size().details, 1);
    (0..SHARDS).for_each(|shard| set.sweep(shard, later(400 * 24 * HOUR - 1)));
    assert_eq!(set.read().verdict(&name(1)), SetVerdict::ALL);
    (0..SHARDS).for_each(|shard| set.sweep(shard, until));
    assert_eq!(set.read().verdict(&name(1)), SetVerdict::NONE);
}

#[test]
fn a_cutoff_covers_what_was_issued_until_then_and_what_does_not_say() {
    let verdict = SetVerdict::of(&Fact {
        cutoff: NOW,
        cutoff_set_at: NOW,
        until: later(1),
        ..Fact::default()
    });
    assert!(
        verdict.covers(Some(NOW)) && verdict.covers(None) && verdict.covers(Some(Timestamp::ZERO))
    );
    assert!(!verdict.covers(Some(later(1))));
    let at_zero = SetVerdict::of(&Fact { cutoff_set_at: NOW, ..Fact::default() });
    assert!(
        at_zero.covers(Some(Timestamp::ZERO)) && !at_zero.covers(Some(Timestamp::from_millis(1)))
    );
    let forever = Timestamp::from_millis(u64::MAX);
    let far = SetVerdict::of(&Fact { cutoff: forever, cutoff_set_at: NOW, ..Fact::default() });
    assert!(far.covers(Some(NOW)) && far.covers(None));
    assert!(SetVerdict::ALL.covers(Some(forever)) && !SetVerdict::NONE.covers(None));
}

/// Whatever the writer has finished before a reader begins is seen, while tables grow and are
/// swapped and records turn from one form into the other.
#[test]
fn readers_see_everything_that_was_written_before_they_began() {
    let set = RevocationSet::new(16, usize::MAX);
    let written = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let count = 40_000;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut n = 0u64;
                while !is_over.load(Ordering::Relaxed) {
                    let limit = written.load(Ordering::Acquire);
                    let reader = set.read();
                    for back in 1..=limit.min(50) {
                        let n = if back % 2 == 0 { limit - back } else { n % limit };
                        assert!(reader.verdict(&name(n)).covers(Some(NOW)), "{n} of {limit}");
                    }
                    assert_eq!(reader.verdict(&name(count + n)), SetVerdict::NONE);
                    n += 7;
                }
            });
        }
        for n in 0..count {
            let until = later(HOUR);
            set.apply(
                &[(name(n), Fact { all_revoked_at: later(1), until, ..Fact::default() })],
                FactSource::Write,
                NOW,
            );
            written.store(n + 1, Ordering::Release);
            // An older one becomes a record with details, in which it is revoked at every moment.
            let old = n / 2;
            let cutoff =
                Fact { cutoff: later(2), cutoff_set_at: later(5), until, ..Fact::default() };
            let fact = match n % 6 {
                0 => cutoff,
                2 => Fact { all_revoked_at: later(1), reinstated_at: later(3), ..cutoff },
                4 => Fact { all_revoked_at: later(9), reinstated_at: later(3), ..cutoff },
                _ => continue,
            };
            set.apply(&[(name(old), fact)], FactSource::Write, NOW);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
