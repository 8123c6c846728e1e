use proptest::prelude::*;

use super::*;

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn change(action: Action, lifetime: u64) -> Revocation {
    let mut change = Revocation::new(Target::user("alice"), Duration::from_millis(lifetime));
    change.action = action;
    change
}

/// Applies changes at their times, one after the other, and returns the last outcome with the
/// record.
fn history(changes: &[(u64, Action)]) -> (Option<Outcome>, Option<Record>) {
    let mut record = None;
    let mut last = None;
    for (now, action) in changes {
        last = Some(match change(*action, 100_000).apply(record.as_ref(), ms(*now)) {
            Change::Nothing(outcome) => outcome,
            Change::Write(outcome, written) => {
                record = Some(written);
                outcome
            }
        });
    }
    (last, record)
}

const ALL: Action = Action::Revoke(Extent::All);
#[cfg(feature = "redis")]
#[test]
fn what_is_issued_so_far_is_dated_by_the_later_clock_up_to_5_s_after_that_of_the_store() {
    for (store, writer, ahead, expected) in [
        (10_000, 0, 0, 10_000),
        (10_000, 10_001, 0, 10_001),
        (10_000, 15_000, 0, 15_000),
        (10_000, 15_001, 0, 15_000),
        (10_000, u64::MAX, 0, 15_000),
        (10_000, 9_000, 30, 10_030),
        (10_000, 12_000, 30, 12_030),
    ] {
        let dated = so_far(ms(store), ms(writer), Duration::from_millis(ahead));
        assert_eq!(dated, ms(expected), "{store} {writer} {ahead}");
    }
}

const SO_FAR: Action = Action::Revoke(Extent::IssuedSoFar);
const BACK: Action = Action::Reinstate;

#[test]
fn targets_of_different_kinds_issuers_claims_and_ids_have_different_fingerprints() {
    let ids = ["", "a", "a:b", "{a}", "a\n", "a\0", "ä"];
    let mut targets = Vec::new();
    for id in ids {
        for kind in TargetKind::ALL {
            if kind != TargetKind::Claim {
                targets.push(Target::new(kind, id));
            }
            targets.push(Target::new(kind, id).issued_by("https://id.example"));
        }
        targets.push(Target::claim("a", id));
        targets.push(Target::claim("ab", id));
        targets.push(Target::claim("a", format!("b{id}")));
    }
    targets.sort_by_key(|target| format!("{target:?}"));
    targets.dedup();
    let mut fingerprints: Vec<_> = targets.iter().map(Target::fingerprint).collect();
    fingerprints.sort_unstable();
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), targets.len());
}

#[test]
fn stored_fingerprints_keep_their_value() {
    // Revocations in a Redis out there are found by these. If this test fails, a new layout version
    // is due.
    assert_eq!(Target::token("a").fingerprint().to_string(), TOKEN_A);
    assert_eq!(
        Target::claim("tenant", "acme").issued_by("https://id.example").fingerprint().to_string(),
        CLAIM_ACME
    );
}

const TOKEN_A: &str = "55521419fc1216c79ab442a06d26cd44";
const CLAIM_ACME: &str = "338137e8560eea88744b6bad167e5e4e";

#[test]
fn issuers_belong_to_no_issuer_and_keys_to_theirs() {
    let key = Target::key("k1").issued_by("https://id.example");
    assert_ne!(key.fingerprint(), Target::key("k1").fingerprint());
    assert_eq!(
        Target::issuer("x").issued_by("https://id.example").fingerprint(),
        Target::issuer("x").fingerprint()
    );
}

#[test]
fn a_cutoff_covers_its_whole_second_and_nothing_later() {
    let (_, record) = history(&[(5_200, SO_FAR)]);
    let record = record.unwrap();
    for (issued_at, covered) in [
        (Some(4_000), true),
        (Some(5_000), true),  // a whole second: issued at some time in [5 s, 6 s)
        (Some(5_200), true),  // a tie is revoked
        (Some(5_201), false), // a fraction says that it was issued later
        (Some(6_000), false),
        (None, true),
    ] {
        assert_eq!(record.covers_issued_at(issued_at.map(ms), None), covered, "{issued_at:?}");
    }
    assert_eq!(record.reissue_at(), Some(ms(5_201)));
    let (_, record) = history(&[(6_000, SO_FAR)]);
    assert!(
        record.unwrap().covers_issued_at(Some(ms(6_000)), None),
        "it may have been issued in that very millisecond"
    );
}

#[test]
fn the_latest_fact_wins_and_a_tie_is_revoked() {
    for (changes, outcome, in_effect) in [
        (&[(1_000, ALL)][..], Outcome::New, true),
        (&[(1_000, ALL), (2_000, ALL)], Outcome::Extended, true), // it is kept for longer
        (&[(1_000, SO_FAR), (2_000, ALL)], Outcome::Extended, true),
        (&[(1_000, BACK)], Outcome::Already, false),
        (&[(1_000, ALL), (2_000, BACK)], Outcome::New, false),
        (&[(1_000, ALL), (1_000, BACK)], Outcome::New, false),
        (&[(1_000, ALL), (500, BACK)], Outcome::New, false), // the clock went back
        (&[(1_000, ALL), (2_000, BACK), (2_000, ALL)], Outcome::New, true),
        (&[(1_000, ALL), (2_000, BACK), (1_500, ALL)], Outcome::New, true),
        (&[(1_000, ALL), (2_000, BACK), (3_000, BACK)], Outcome::Already, false),
    ] {
        let (last, record) = history(changes);
        assert_eq!(last, Some(outcome), "{changes:?}");
        assert_eq!(record.is_some_and(|record| record.is_in_effect()), in_effect, "{changes:?}");
    }
}

#[test]
fn a_token_is_revoked_once() {
    let mut change = change(ALL, 0);
    change.until = ms(10_000);
    let Change::Write(Outcome::New, record) = change.apply(None, ms(1)) else {
        panic!("not written")
    };
    assert_eq!(record.until(), ms(10_000));
    assert_eq!(change.apply(Some(&record), ms(2)), Change::Nothing(Outcome::Already));
    change.until = ms(5_000);
    assert_eq!(
        change.apply(Some(&record), ms(2)),
        Change::Nothing(Outcome::Already),
        "never shortened"
    );
    change.until = ms(20_000);
    let Change::Write(Outcome::Extended, record) = change.apply(Some(&record), ms(2)) else {
        panic!("not extended")
    };
    assert_eq!(record.until(), ms(20_000));
    assert_eq!(change.apply(None, ms(20_000)), Change::Nothing(Outcome::AlreadyExpired));
    assert!(matches!(
        change.apply(Some(&record), ms(20_000)),
        Change::Nothing(Outcome::AlreadyExpired)
    ));
}

/// Log out everywhere, log in, log out everywhere, all in one second or even millisecond.
#[test]
fn a_second_cutoff_covers_what_was_issued_right_after_the_first() {
    for second in [5_200, 5_201, 5_900, 1_000] {
        let (_, record) = history(&[(5_200, SO_FAR)]);
        let reissued = ms(second).stamp(record.unwrap().reissue_at().unwrap());
        let (_, record) = history(&[(5_200, SO_FAR), (second, SO_FAR)]);
        assert!(record.unwrap().covers_issued_at(Some(reissued), None), "{second}");
    }
}

#[test]
fn a_cutoff_never_moves_back() {
    let until = |cutoff| Action::Revoke(Extent::IssuedUntil(ms(cutoff)));
    let (_, record) = history(&[(5_000, until(4_000)), (6_000, until(3_000))]);
    assert_eq!(record.unwrap().cutoff(), Some(ms(4_000)));
    let (_, record) = history(&[(5_000, SO_FAR), (6_000, BACK), (7_000, until(3_000))]);
    assert!(
        record.unwrap().cutoff().is_some(),
        "a reinstatement does not stand against a later revocation"
    );
}

/// The join keeps the latest cutoff only, so a reinstatement that is older than the last cutoff is
/// no reason to forget how far one before it had reached.
#[test]
fn a_cutoff_after_a_reinstatement_reaches_as_far_as_the_one_that_was_undone() {
    let until = |cutoff| Action::Revoke(Extent::IssuedUntil(ms(cutoff)));
    let steps = [(5_000, until(4_000)), (6_000, BACK), (7_000, until(3_000))];
    assert_eq!(history(&steps[..1]).1.unwrap().cutoff(), Some(ms(4_000)));
    assert_eq!(history(&steps[..2]).1.unwrap().cutoff(), None);
    assert_eq!(history(&steps).1.unwrap().cutoff(), Some(ms(4_000)));
    let later = [(5_000, until(4_000)), (6_000, BACK), (7_000, until(6_500))];
    assert_eq!(history(&later).1.unwrap().cutoff(), Some(ms(6_500)));
}

fn session_named(n: u8) -> Fingerprint {
    Target::session(n.to_string()).fingerprint()
}

/// What a fact says of the tokens of one session, or of those of none, as a fact that spares none.
fn said_of(fact: Fact, session: Option<u8>) -> Fact {
    let session = session.map(session_named);
    let [cutoff, set_at] = fact.spared.times().map(|spared| {
        let spared = spared.filter(|spared| session == Some(spared.session))?;
        Some(spared.time)
    });
    Fact {
        cutoff: cutoff.unwrap_or(fact.cutoff),
        cutoff_set_at: set_at.unwrap_or(fact.cutoff_set_at),
        spared: Spared::default(),
        ..fact
    }
}

#[test]
fn what_spares_a_session_is_forgotten_with_a_cutoff_that_does_not() {
    let sparing = |now, action, session: Option<u8>, before: Option<&Record>| {
        let mut change = change(action, 100_000);
        change.sparing = session.map(|n| Target::session(n.to_string()));
        match change.apply(before, ms(now)) {
            Change::Write(outcome, record) => (outcome, record),
            Change::Nothing(outcome) => (outcome, before.unwrap().clone()),
        }
    };
    let covers = |record: &Record, session: Option<u8>, issued_at| {
        let session = session.map(session_named);
        record.covers_issued_at(Some(ms(issued_at)), session.as_ref())
    };
    let until = |cutoff| Action::Revoke(Extent::IssuedUntil(ms(cutoff)));
    let (_, first) = sparing(5_000, SO_FAR, Some(1), None);
    assert!(!covers(&first, Some(1), 4_000) && covers(&first, Some(2), 4_000));
    assert!(covers(&first, None, 5_000) && !covers(&first, None, 5_001));
    // Found by nobody but it, and so no repetition.
    let (outcome, all) = sparing(6_000, until(3_000), None, Some(&first));
    assert_eq!(outcome, Outcome::Extended);
    assert!(covers(&all, Some(1), 3_000) && !covers(&all, Some(1), 3_001));
    assert_eq!(all.cutoff(), Some(ms(5_000)));
    // In the same millisecond.
    for (last, session) in [(None, 1), (Some(2), 1), (Some(1), 2)] {
        let (_, record) = sparing(5_000, SO_FAR, last, Some(&first));
        assert!(covers(&record, Some(session), 5_000), "{last:?}");
    }
    let (_, back) = sparing(7_000, BACK, None, Some(&all));
    assert!(!back.is_in_effect());
    let (_, again) = sparing(8_000, SO_FAR, Some(1), Some(&back));
    assert!(!covers(&again, Some(1), 3_000) && covers(&again, Some(2), 3_000));
    assert!(covers(&sparing(9_000, ALL, None, Some(&again)).1, Some(1), 20_000));
    // A clock that was set back.
    let (_, late) = sparing(4_000, SO_FAR, None, Some(&again));
    assert!(covers(&late, Some(1), 8_000));
}

prop_compose! {
    fn records()(
        parts in prop::array::uniform5(0_u64..6), at in 0_u64..6,
        reason in prop::option::of("[ab]"),
        of_cutoff in prop::option::of((0_u8..3, 0_u64..6)),
        of_set in prop::option::of((0_u8..3, 0_u64..6)),
    ) -> Record {
        let [all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until] = parts.map(ms);
        let reason = reason.map(Arc::from);
        let note = RecordNote { target: Target::user("alice"), at: ms(at), reason, actor: None };
        let times = [(cutoff, of_cutoff), (cutoff_set_at, of_set)].map(|(time, spared)| {
            let (session, earlier) = spared?;
            let spared = SparedTime { session: session_named(session), time: ms(earlier) };
            (spared.time < time).then_some(spared)
        });
        let spared = Spared::of_times(times);
        let fact = Fact { all_revoked_at, cutoff, cutoff_set_at, reinstated_at, until, spared };
        Record { fact, note }
    }
}

fn merged(mut one: Record, other: &Record) -> Record {
    one.merge(other);
    one
}

#[test]
fn a_fact_that_no_store_can_have_kept_makes_no_record() {
    let target = || Target::user("alice");
    let until = ms(9_000);
    let nothing = Fact { until, ..Fact::default() };
    let lost_column = Fact { cutoff: ms(5_000), reinstated_at: ms(1), ..nothing };
    for fact in [Fact::default(), nothing, lost_column] {
        let error = Record::new(target(), fact, ms(5_000)).unwrap_err();
        assert!(error.to_string().starts_with("a stored record cannot be read: it "), "{error}");
    }
    // Of long ago, and of a cutoff at zero.
    for fact in [Fact::revoked_until(until), Fact { cutoff_set_at: ms(1), ..nothing }] {
        assert_eq!(Record::new(target(), fact, ms(5_000)).unwrap().fact(), fact);
    }
}

#[test]
fn the_parts_of_a_target_make_the_same_target() {
    for kind in TargetKind::ALL {
        assert_eq!(kind.as_str().parse::<TargetKind>().unwrap(), kind);
        let claim = (kind == TargetKind::Claim).then_some("tenant");
        for issuer in [None, Some("https://id.example")] {
            let target = Target::from_parts(kind, claim, issuer, "a").unwrap();
            let parts = (target.claim_name(), target.issuer_name());
            let again = Target::from_parts(target.kind(), parts.0, parts.1, target.id()).unwrap();
            assert_eq!((again.fingerprint(), &again), (target.fingerprint(), &target));
        }
        let wrong = if claim.is_some() { None } else { Some("tenant") };
        assert!(Target::from_parts(kind, wrong, None, "a").is_err(), "{kind}");
    }
    assert!("Token".parse::<TargetKind>().is_err() && "".parse::<TargetKind>().is_err());
}

proptest! {
    /// Whatever a store writes it can read back.
    #[test]
    fn what_was_applied_is_a_record(
        changes in prop::collection::vec(
            (1_000_u64..9_000, prop::sample::select(vec![ALL, SO_FAR, BACK])), 1..8,
        ),
        reason in prop::option::of("[ab]"),
    ) {
        let (_, record) = history(&changes);
        if let Some(mut record) = record {
            record.note.reason = reason.map(Arc::from);
            let again =
                Record::new(record.target().clone(), record.fact(), record.changed_at()).unwrap();
            let again = again
                .with_reason(record.reason().cloned()).with_actor(record.actor().cloned());
            prop_assert_eq!(again, record);
        }
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in records(), b in records(), c in records(),
    ) {
        prop_assert_eq!(merged(a.clone(), &b), merged(b.clone(), &a));
        prop_assert_eq!(
            merged(merged(a.clone(), &b), &c), merged(a.clone(), &merged(b.clone(), &c))
        );
        prop_assert_eq!(merged(a.clone(), &a), a);
    }

    /// A merge is the merge of what is said of each session.
    #[test]
    fn merging_is_of_each_session_alone(
        a in records(), b in records(), session in prop::option::of(0_u8..4),
    ) {
        let both = merged(a.clone(), &b).fact();
        prop_assert!(both.spares_rightly());
        let of_each = said_of(a.fact(), session).merge(said_of(b.fact(), session));
        prop_assert_eq!(said_of(both, session), of_each);
        let session = session.map(session_named);
        for issued_at in (0..7).map(|at| Some(ms(at))).chain([None]) {
            let covers = both.covers_issued_at(issued_at, session.as_ref());
            prop_assert_eq!(covers, of_each.covers_issued_at(issued_at, None));
        }
    }

    #[test]
    fn merging_reports_growth(a in records(), b in records()) {
        let mut grown = a.clone();
        let grew = grown.merge(&b);
        prop_assert_eq!(grew, grown.fact() != a.fact());
        prop_assert!(!grown.clone().merge(&b), "once taken in, it is nothing new");
    }

    /// Whatever came before, a revocation that was just written covers what it says, and a
    /// reinstatement uncovers all.
    #[test]
    fn what_was_just_written_is_in_effect(
        changes in prop::collection::vec(
            (1_000_u64..9_000, prop::sample::select(vec![ALL, SO_FAR, BACK])), 1..8,
        ),
    ) {
        let (_, record) = history(&changes);
        match changes.last() {
            Some((_, BACK)) => prop_assert!(!record.is_some_and(|record| record.is_in_effect())),
            Some((now, ALL)) => {
                prop_assert!(record.unwrap().covers_issued_at(Some(ms(now + 60_000)), None));
            }
            Some((now, _)) => prop_assert!(record.unwrap().covers_issued_at(Some(ms(*now)), None)),
            None => unreachable!(),
        }
    }

    /// Applying a change to a record is the same as merging it with what the change alone would
    /// have written.
    #[test]
    fn nothing_that_was_revoked_shrinks(
        changes in prop::collection::vec(
            (1_000_u64..9_000, prop::sample::select(vec![ALL, SO_FAR])), 1..8,
        ),
        issued_at in 0_u64..10_000,
    ) {
        let mut covered = false;
        for end in 1..=changes.len() {
            let (_, record) = history(&changes[..end]);
            let covers = record.unwrap().covers_issued_at(Some(ms(issued_at)), None);
            prop_assert!(covers || !covered);
            covered = covers;
        }
    }
}

#[test]
fn a_record_is_serialized_with_all_that_is_known_of_it() {
    let mut change = Revocation::new(
        Target::claim("tenant", "acme").issued_by("https://issuer"),
        Duration::from_secs(60),
    );
    change.reason = Some("leaked".into());
    let Change::Write(_, record) = change.apply(None, Timestamp::from_secs(1000)) else {
        panic!("nothing was known")
    };
    let expected = serde_json::json!({
        "kind": "claim", "id": "acme", "iss": "https://issuer", "claim": "tenant",
        "reason": "leaked", "at": 1_000_000, "until": 1_060_000, "all": false,
        "cutoff": 1_000_000,
    });
    assert_eq!(serde_json::to_value(&record).unwrap(), expected);
}
