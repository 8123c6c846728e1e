//! What must hold in every order.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::set::{FactSource, RevocationSet, SetVerdict};
use super::sync::RandomState;
use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};

type Model = (&'static str, fn() -> usize);

pub(crate) const MODELS: &[Model] = &[
    ("what_was_entered_before_is_found_while_the_table_grows", grows),
    ("a_line_that_is_full_leads_to_the_next", spills),
    ("what_is_over_is_swept_and_what_is_live_is_not_missed_meanwhile", sweeps),
    ("room_for_a_snapshot_is_made_under_the_readers", resyncs),
    ("a_cutoff_is_found_while_both_tables_are_replaced", details),
    ("a_revocation_that_turns_into_a_record_holds_at_every_moment", turns),
    ("a_reinstatement_that_was_entered_before_is_seen", reinstates),
    ("a_session_is_spared_by_its_cutoff_and_by_no_other", spares),
    ("two_writers_lose_nothing_of_each_other", two_writers),
];

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOUR: u64 = 60 * 60 * 1000;

/// All names of a model are in one shard, so that they meet.
const SHARD: usize = 3;
/// Entries that fill the first table of a shard: with one more it grows.
const FILL: u64 = 6;

/// That of `Key`; `World::with` sees to it that it still is.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// One of several names in the same shard. Those of odd number have their home in the upper half of
/// the table.
fn name(n: u64) -> Fingerprint {
    twin(n, n)
}

/// Another name that a plain entry cannot tell from the `n`th.
fn twin(n: u64, low: u64) -> Fingerprint {
    let inverse = (0..5).fold(FACTOR, |inverse, _| {
        inverse.wrapping_mul(2_u64.wrapping_sub(FACTOR.wrapping_mul(inverse)))
    });
    let key = (SHARD as u64) << 54 | (n & 1) << 53 | n >> 1 << 6;
    let high = key.wrapping_mul(inverse) ^ RandomState::new().hash_one(0);
    Fingerprint::from_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}

fn later(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() + millis)
}

fn revoked(millis: u64) -> Fact {
    Fact { all_revoked_at: later(1), until: later(millis), ..Fact::default() }
}

fn cutoff() -> Fact {
    Fact { cutoff: later(2), cutoff_set_at: later(2), until: later(HOUR), ..Fact::default() }
}

/// A set, and how many steps its writer has finished.
struct World {
    set: RevocationSet,
    done: AtomicUsize,
}

impl World {
    /// These are revoked, each until so many milliseconds from now.
    fn with(facts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let world = Self { set: RevocationSet::new(4, 0), done: AtomicUsize::new(0) };
        let mut count = 0;
        for (n, millis) in facts {
            world.tell(n, revoked(millis));
            count += 1;
        }
        let known = world.set.known(SHARD, NOW);
        assert_eq!(known.facts.len() + known.unidentified, count, "they are not in one shard");
        world
    }

    fn tell(&self, n: u64, fact: Fact) {
        self.set.apply(&[(name(n), fact)], FactSource::Write, NOW);
    }

    fn step(&self) {
        self.done.fetch_add(1, Release);
    }

    /// Steps that were finished before this.
    fn done(&self) -> usize {
        self.done.load(Acquire)
    }

    fn is_revoked(&self, n: u64) -> bool {
        self.set.read().verdict(&name(n)).covers(Some(NOW))
    }
}

/// Tries every order in which two readers and the writer can take their steps, with so many
/// interruptions of a thread that could have gone on. Returns how many there were.
fn model(
    interruptions: usize,
    start: impl Fn() -> World + Send + Sync + 'static,
    write: fn(&World),
    read: fn(&World),
    second: fn(&World),
) -> usize {
    let orders = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.max_branches = 100_000;
    let count = Arc::clone(&orders);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        let world = Arc::new(start());
        let others = [read, second].map(|run| {
            let world = Arc::clone(&world);
            thread::spawn(move || run(&world))
        });
        write(&world);
        for other in others {
            other.join().unwrap();
        }
    });
    orders.load(Relaxed)
}

fn grows() -> usize {
    model(
        2,
        || World::with((0..FILL).map(|n| (n, HOUR))),
        |world| {
            for n in FILL..FILL + 2 {
                world.tell(n, revoked(HOUR));
                world.step();
            }
        },
        // The latest and the oldest.
        |world| {
            let done = world.done();
            assert!(done == 0 || world.is_revoked(FILL + done as u64 - 1), "{done} done");
            assert!(world.is_revoked(0));
        },
        // One in the other half of the table, and one that never was.
        |world| {
            assert!(world.is_revoked(1));
            assert!(!world.is_revoked(100));
        },
    )
}

fn spills() -> usize {
    // All have the same home, and the tags between theirs were never entered.
    model(
        2,
        || World::with((0..7).map(|n| (4 * n, HOUR))),
        // The first fills the line, the second begins another.
        |world| {
            for n in [7, 8] {
                world.tell(4 * n, revoked(HOUR));
                world.step();
            }
        },
        |world| {
            let done = world.done();
            assert!(done == 0 || world.is_revoked(4 * (6 + done as u64)), "{done} done");
        },
        |world| assert!(world.is_revoked(0) && !world.is_revoked(4 + 2)),
    )
}

fn sweeps() -> usize {
    model(
        2,
        // Two of them are over in an hour.
        || World::with([(0, HOUR), (1, 9 * HOUR), (2, HOUR), (4, 9 * HOUR)]),
        |world| {
            world.set.sweep(SHARD, later(2 * HOUR));
            world.set.apply(&[(name(5), revoked(9 * HOUR))], FactSource::Write, later(2 * HOUR));
            world.step();
        },
        |world| assert!(world.is_revoked(1) && world.is_revoked(4)),
        |world| {
            let done = world.done();
            assert!(done == 0 || world.is_revoked(5));
            assert!(!world.is_revoked(101));
        },
    )
}

fn resyncs() -> usize {
    model(
        2,
        || World::with([(0, HOUR), (1, HOUR)]),
        |world| {
            world.set.reserve(SHARD, 20_000, NOW);
            let facts = [0, 2].map(|n| (name(n), Fact::revoked_until(later(HOUR))));
            world.set.apply(&facts, FactSource::Snapshot, NOW);
            world.step();
        },
        |world| {
            let done = world.done();
            assert!(world.is_revoked(1));
            assert!(done == 0 || world.is_revoked(2));
        },
        |world| assert!(world.is_revoked(0) && !world.is_revoked(100)),
    )
}

fn details() -> usize {
    model(
        2,
        || {
            let world = World::with((0..FILL - 1).map(|n| (n, HOUR)));
            world.tell(10, cutoff());
            world
        },
        |world| {
            world.tell(11, cutoff());
            world.step();
        },
        |world| {
            let done = world.done();
            let verdict = world.set.read().verdict(&name(11));
            assert!(done == 0 || verdict.covers(Some(later(2))), "{verdict:?}");
            assert!(!verdict.covers(Some(later(3))), "{verdict:?}");
        },
        |world| {
            let reader = world.set.read();
            assert!(reader.verdict(&name(10)).covers(Some(later(2))));
            assert_eq!(reader.verdict(&twin(11, 0)), SetVerdict::NONE);
        },
    )
}

fn turns() -> usize {
    model(
        2,
        || World::with([(0, HOUR), (1, HOUR)]),
        // Reinstated, and revoked again up to a moment: eight bytes become a mark that leads to a
        // record.
        |world| {
            world.tell(0, Fact { reinstated_at: later(3), cutoff_set_at: later(4), ..cutoff() });
        },
        // The directory of the reader may be older than the mark that it finds.
        |world| assert!(world.is_revoked(0)),
        |world| assert!(world.is_revoked(1)),
    )
}

fn reinstates() -> usize {
    model(
        2,
        || World::with([(0, HOUR), (1, HOUR)]),
        |world| {
            world.tell(0, Fact { reinstated_at: later(3), until: later(HOUR), ..Fact::default() });
            world.step();
        },
        |world| {
            let done = world.done();
            assert!(done == 0 || !world.is_revoked(0));
        },
        |world| assert!(world.is_revoked(1)),
    )
}

/// A cutoff that spares a session is followed by one that spares another. At no moment is the first
/// found with the session of the second, or the other way round.
fn spares() -> usize {
    fn covers(world: &World, session: u64) -> bool {
        let reader = world.set.read();
        let (verdict, issued_at) = (reader.verdict(&name(10)), Some(NOW));
        let session = name(session);
        verdict.covers(issued_at)
            && !reader.spares(&name(10), verdict, || Some(&session), issued_at)
    }
    model(
        2,
        || {
            let world = World::with([(0, HOUR)]);
            world.tell(10, cutoff().sparing(Some(name(1))));
            world
        },
        |world| {
            let next = Fact { cutoff: later(5), cutoff_set_at: later(5), ..cutoff() };
            world.tell(10, next.sparing(Some(name(2))));
            world.step();
            // As one that is new in the table: it is spared from the first moment.
            world.tell(12, cutoff().sparing(Some(name(1))));
        },
        |world| {
            let done = world.done();
            // The second is covered by the first cutoff, and the first by the second.
            assert!(covers(world, 2) && covers(world, 3));
            assert!(done == 0 || covers(world, 1));
        },
        |world| {
            let reader = world.set.read();
            let verdict = reader.verdict(&name(12));
            let (session, issued_at) = (name(1), Some(NOW));
            let spares = || reader.spares(&name(12), verdict, || Some(&session), issued_at);
            assert!(!verdict.covers(issued_at) || spares());
        },
    )
}

fn two_writers() -> usize {
    model(
        2,
        || World::with((0..FILL).map(|n| (n, HOUR))),
        |world| {
            world.tell(20, revoked(HOUR));
            assert!(world.is_revoked(20) && world.is_revoked(0));
        },
        |world| {
            world.tell(21, revoked(HOUR));
            assert!(world.is_revoked(21) && world.is_revoked(1));
        },
        |world| assert!(world.is_revoked(2) && !world.is_revoked(100)),
    )
}
