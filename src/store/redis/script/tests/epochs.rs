//! When the script begins an epoch, and declares or ends a doubt.

use super::*;

fn at(now: u64) -> Timestamp {
    Timestamp::from_millis(now)
}

fn knowing(id: u64, seq: u64) -> ScriptContext {
    let known = Some(CallerEpoch { id, min_seq: seq, known_seq: seq, went_on: false });
    ScriptContext { new_epoch: 8, known, ..CONTEXT }
}

/// The doubt of tokens issued until then, as long as the context says.
fn doubt(issued_until: u64) -> Doubt {
    Doubt::Lasting { issued_until: at(issued_until), ends_at: at(issued_until + 1_000_000) }
}

#[test]
fn the_first_start_has_no_doubt_and_the_second_finds_its_epoch() {
    redis_or_skip!();
    let lab = Lab::new();
    let first = lab.run(START, &CONTEXT, &[]).unwrap().epoch;
    let expected = Epoch {
        id: 7,
        parent: 0,
        server: 77,
        started_at: at(START),
        settling: None,
        doubt: Doubt::None,
        doubt_ended_at: None,
        seq: 0,
        last_entry: EntryId::default(),
    };
    assert_eq!(first, expected);
    let second = lab.run(START + 5, &ScriptContext { new_epoch: 9, ..CONTEXT }, &[]).unwrap().epoch;
    assert_eq!(second, first);
}

#[test]
fn a_caller_that_knows_an_epoch_that_is_gone_begins_one_with_a_doubt() {
    redis_or_skip!();
    let lab = Lab::new();
    let epoch = lab.run(START, &knowing(7, 3), &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.started_at, epoch.doubt), (8, at(START), doubt(START)));
    assert_eq!(epoch.seq, 0);
    // Another caller that knows it too finds the doubt declared.
    assert_eq!(lab.run(START + 9, &knowing(7, 3), &[]).unwrap().epoch, epoch);
}

#[test]
fn an_epoch_that_was_begun_without_knowledge_gets_its_doubt_later() {
    redis_or_skip!();
    let lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    let epoch = lab.run(START + 50, &knowing(6, 3), &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.started_at, epoch.doubt), (7, at(START), doubt(START)));
}

#[test]
fn an_older_state_begins_a_new_epoch() {
    redis_or_skip!();
    let lab = Lab::new();
    let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
    lab.run(START, &CONTEXT, &[&change]).unwrap();
    assert_eq!(lab.run(START, &knowing(7, 1), &[]).unwrap().epoch.id, 7);
    let epoch = lab.run(START + 5, &knowing(7, 2), &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.doubt, epoch.seq), (8, doubt(START + 5), 1));
}

#[test]
fn an_evicted_epoch_or_meta_is_a_loss_even_for_newcomers() {
    redis_or_skip!();
    for evicted in ["lab:{0}:e", "lab:{0}:m"] {
        let lab = Lab::new();
        let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
        lab.run(START, &CONTEXT, &[&change]).unwrap();
        lab.server.cli(&["DEL", evicted]);
        let epoch =
            lab.run(START + 5, &ScriptContext { new_epoch: 9, ..CONTEXT }, &[]).unwrap().epoch;
        assert_eq!((epoch.id, epoch.doubt), (9, doubt(START + 5)), "{evicted}");
    }
}

fn ending(former: u64, seq: u64, epoch: u64, issued_until: u64) -> ScriptContext {
    ScriptContext {
        new_epoch: 9,
        doubt_change: Some(DoubtChange::Replayed(EndDoubt {
            former_epoch: former,
            seq,
            epoch,
            issued_until: at(issued_until),
        })),
        ..CONTEXT
    }
}

/// An epoch 8 with a doubt, in which a process has reported that it knew three changes of epoch 7.
fn after_a_loss() -> Lab {
    let lab = Lab::new();
    lab.run(START, &knowing(7, 3), &[]).unwrap();
    lab
}

/// What an operator does about a doubt of tokens that were issued until then.
fn by_operator(change: fn(Timestamp) -> DoubtChange, issued_until: u64) -> ScriptContext {
    ScriptContext { new_epoch: 9, doubt_change: Some(change(at(issued_until))), ..CONTEXT }
}

fn accept(issued_until: Timestamp) -> DoubtChange {
    DoubtChange::Accept { issued_until }
}

fn declare(issued_until: Timestamp) -> DoubtChange {
    DoubtChange::Declare { issued_until }
}

#[test]
fn what_an_operator_has_accepted_nobody_brings_back_and_the_next_loss_is_another() {
    redis_or_skip!();
    let lab = after_a_loss();
    let epoch = lab.run(START + 1, &by_operator(accept, START - 1), &[]).unwrap().epoch;
    assert_eq!((epoch.doubt, epoch.seq), (doubt(START), 0), "another one is meant");
    let ended = lab.run(START + 1, &by_operator(accept, START), &[]).unwrap().epoch;
    assert_eq!((ended.doubt, ended.seq), (Doubt::None, 1), "it takes a number");
    assert_eq!(ended.doubt_ended_at, Some(at(START + 1)));
    let again = lab.run(START + 2, &by_operator(accept, START), &[]).unwrap().epoch;
    let late = lab.run(START + 3, &knowing(7, 900), &[]).unwrap().epoch;
    assert_eq!((again, late), (ended, ended), "a process that knew more than all others");
    let lost = ScriptContext { new_epoch: 10, ..knowing(8, 5) };
    let epoch = lab.run(START + 4, &lost, &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.doubt), (10, doubt(START + 4)));
}

#[test]
fn what_an_operator_declares_is_a_doubt_like_any_other() {
    redis_or_skip!();
    let lab = Lab::new();
    let before = lab.run(START, &CONTEXT, &[]).unwrap().epoch;
    let declared = lab.run(START + 1, &by_operator(declare, START - 50), &[]).unwrap().epoch;
    assert_eq!((declared.doubt, declared.seq), (doubt(START - 50), 1), "it takes a number");
    assert_eq!(declared.id, before.id);
    let less = lab.run(START + 2, &by_operator(declare, START - 60), &[]).unwrap().epoch;
    assert_eq!(less, declared, "it is covered");
    // Nothing was issued yet after that.
    let more = lab.run(START + 3, &by_operator(declare, u64::MAX), &[]).unwrap().epoch;
    let issued_until = more.doubt.issued_until().unwrap();
    assert!(issued_until >= at(START + 3) && issued_until <= at(START + 5003), "{issued_until}");
    // No mirror ends it: it has not noticed a loss.
    let epoch = lab.run(START + 4, &ending(7, 9, 7, issued_until.as_millis()), &[]).unwrap().epoch;
    assert_eq!(epoch, more);
    let accepted = by_operator(accept, issued_until.as_millis());
    assert_eq!(lab.run(START + 5, &accepted, &[]).unwrap().epoch.doubt, Doubt::None);
}

#[test]
fn a_doubt_is_ended_for_a_caller_that_knew_as_much_as_all_others() {
    redis_or_skip!();
    let lab = after_a_loss();
    for refused in [
        ending(7, 2, 8, START),
        ending(6, 3, 8, START),
        ending(7, 3, 7, START),
        ending(7, 3, 8, START - 1),
    ] {
        let epoch = lab.run(START + 1, &refused, &[]).unwrap().epoch;
        assert_eq!((epoch.doubt, epoch.seq), (doubt(START), 0), "{refused:?}");
    }
    // Another caller knew more, and a third one less.
    lab.run(START + 2, &knowing(7, 5), &[]).unwrap();
    lab.run(START + 2, &knowing(7, 4), &[]).unwrap();
    let still = lab.run(START + 3, &ending(7, 4, 8, START), &[]).unwrap().epoch;
    assert_eq!(still.doubt, doubt(START));
    let before = lab.run(START + 3, &CONTEXT, &[]).unwrap().epoch;
    let epoch = lab.run(START + 4, &ending(7, 5, 8, START), &[]).unwrap().epoch;
    assert_eq!((epoch.doubt, epoch.doubt_ended_at), (Doubt::None, Some(at(START + 4))));
    assert_eq!(epoch.seq, 1);
    assert!(!epoch.has_lost_doubt_of(&before), "it was ended since");
    assert_eq!(
        lab.server.cli(&["XLEN", "lab:{0}:l"]),
        "1",
        "mirrors that follow the log miss no number"
    );
    // Twice is as good as once.
    assert_eq!(lab.run(START + 5, &ending(7, 5, 8, START), &[]).unwrap().epoch, epoch);
    let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
    let later = lab.run(START + 6, &CONTEXT, &[&change]).unwrap().epoch;
    assert_eq!((later.doubt, later.doubt_ended_at), (Doubt::None, Some(at(START + 4))));
    assert_eq!(later.seq, 2);
}

#[test]
fn a_caller_that_comes_late_and_knows_more_declares_the_doubt_again() {
    redis_or_skip!();
    let attempt = |lab: &Lab| lab.run(START + 4, &ending(7, 3, 8, START), &[]).unwrap().epoch.doubt;
    let lab = after_a_loss();
    assert_eq!(attempt(&lab), Doubt::None);
    for (id, seq, expected) in
        [(7, 3, Doubt::None), (7, 1, Doubt::None), (8, 1, Doubt::None), (7, 4, doubt(START))]
    {
        let epoch = lab.run(START + 5, &knowing(id, seq), &[]).unwrap().epoch;
        assert_eq!(epoch.doubt, expected, "{id} {seq}");
    }
    assert_eq!(attempt(&lab), doubt(START), "for good");
    // After a caller that knew another epoch, no mirror can have known everything.
    let lab = after_a_loss();
    lab.run(START, &knowing(5, 0), &[]).unwrap();
    assert_eq!(attempt(&lab), doubt(START));
}

#[test]
fn after_the_next_loss_an_earlier_replay_does_not_count() {
    redis_or_skip!();
    let lab = after_a_loss();
    lab.run(START + 4, &ending(7, 3, 8, START), &[]).unwrap();
    // An older state was restored, beside which the meta data stayed.
    let next = ScriptContext { new_epoch: 9, ..knowing(8, 3) };
    let epoch = lab.run(START + 5, &next, &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.doubt), (9, doubt(START + 5)));
    let old = lab.run(START + 6, &ending(7, 3, 9, START + 5), &[]).unwrap().epoch;
    assert_eq!(old.doubt, doubt(START + 5));
    let late = lab.run(START + 6, &knowing(7, 3), &[]).unwrap().epoch;
    assert_eq!(late.doubt, doubt(START + 5));
}

#[test]
fn another_layout_or_another_number_of_shards_is_refused() {
    redis_or_skip!();
    let mut lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    lab.keys = RedisKeys::new("lab", 2);
    let error = lab.run(START, &CONTEXT, &[]).unwrap_err().to_string();
    assert!(error.contains("LAYOUT version 3 with 1 shards"), "{error}");
}
