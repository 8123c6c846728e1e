//! How an epoch begins, ends, and is doubted.

use super::*;

fn at(now: u64) -> Timestamp {
    Timestamp::from_millis(now)
}

fn knowing(id: u64, seq: u64) -> ScriptContext {
    ScriptContext { new_epoch: 8, known: Some(CallerEpoch { id, seq, reach: seq }), ..CONTEXT }
}

#[test]
fn the_first_start_has_no_horizon_and_the_second_finds_it() {
    redis_or_skip!();
    let lab = Lab::new();
    let first = lab.run(START, &CONTEXT, &[]).unwrap().epoch;
    let expected = Epoch {
        id: 7,
        started_at: at(START),
        horizon: at(0),
        lifted: at(0),
        seq: 0,
        last_entry: EntryId::default(),
    };
    assert_eq!(first, expected);
    let second = lab.run(START + 5, &ScriptContext { new_epoch: 9, ..CONTEXT }, &[]).unwrap().epoch;
    assert_eq!(second, first);
}

#[test]
fn whoever_remembers_an_epoch_that_is_gone_draws_a_horizon() {
    redis_or_skip!();
    let lab = Lab::new();
    let epoch = lab.run(START, &knowing(7, 3), &[]).unwrap().epoch;
    let doubt_duration = 1_000_000;
    assert_eq!((epoch.id, epoch.started_at, epoch.horizon), (8, at(START), at(START)));
    assert_eq!((epoch.lifted, epoch.seq), (at(START + doubt_duration), 0));
    // Another one that remembers it too finds the horizon drawn.
    assert_eq!(lab.run(START + 9, &knowing(7, 3), &[]).unwrap().epoch, epoch);
}

#[test]
fn an_epoch_that_was_begun_in_ignorance_gets_its_horizon_later() {
    redis_or_skip!();
    let lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    let epoch = lab.run(START + 50, &knowing(6, 3), &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.started_at, epoch.horizon), (7, at(START), at(START)));
    assert_eq!(epoch.lifted, at(START + 1_000_000));
}

#[test]
fn an_older_state_begins_a_new_epoch() {
    redis_or_skip!();
    let lab = Lab::new();
    let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
    lab.run(START, &CONTEXT, &[&change]).unwrap();
    assert_eq!(lab.run(START, &knowing(7, 1), &[]).unwrap().epoch.id, 7);
    let epoch = lab.run(START + 5, &knowing(7, 2), &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.horizon, epoch.seq), (8, at(START + 5), 1));
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
        assert_eq!((epoch.id, epoch.horizon), (9, at(START + 5)), "{evicted}");
    }
}

fn lifting(former: u64, seq: u64, epoch: u64, horizon: u64) -> ScriptContext {
    ScriptContext {
        new_epoch: 9,
        lift: Some(Lift { former, seq, epoch, horizon: at(horizon) }),
        ..CONTEXT
    }
}

/// An epoch 8 with a horizon, in which a process has said that it knew three changes of the epoch 7.
fn after_a_loss() -> Lab {
    let lab = Lab::new();
    lab.run(START, &knowing(7, 3), &[]).unwrap();
    lab
}

#[test]
fn a_horizon_is_lifted_by_one_who_knew_as_much_as_all_others() {
    redis_or_skip!();
    let lab = after_a_loss();
    for refused in [
        lifting(7, 2, 8, START),
        lifting(6, 3, 8, START),
        lifting(7, 3, 7, START),
        lifting(7, 3, 8, START - 1),
    ] {
        let epoch = lab.run(START + 1, &refused, &[]).unwrap().epoch;
        assert_eq!((epoch.horizon, epoch.seq), (at(START), 0), "{refused:?}");
    }
    // Another one knew more, and a third one as much.
    lab.run(START + 2, &knowing(7, 5), &[]).unwrap();
    lab.run(START + 2, &knowing(7, 4), &[]).unwrap();
    assert_eq!(lab.run(START + 3, &lifting(7, 4, 8, START), &[]).unwrap().epoch.horizon, at(START));
    let before = lab.run(START + 3, &CONTEXT, &[]).unwrap().epoch;
    let epoch = lab.run(START + 4, &lifting(7, 5, 8, START), &[]).unwrap().epoch;
    assert_eq!((epoch.horizon, epoch.lifted, epoch.seq), (at(0), at(START + 4), 1));
    assert!(epoch.is_lifted_since(&before) && !before.is_lifted_since(&epoch));
    assert_eq!(
        lab.server.cli(&["XLEN", "lab:{0}:l"]),
        "1",
        "those who follow the log miss no number"
    );
    // Twice is as good as once.
    assert_eq!(lab.run(START + 5, &lifting(7, 5, 8, START), &[]).unwrap().epoch, epoch);
    let change = Revocation::new(Target::user("alice"), Duration::from_secs(60));
    let later = lab.run(START + 6, &CONTEXT, &[&change]).unwrap().epoch;
    assert_eq!((later.horizon, later.lifted, later.seq), (at(0), at(START + 4), 2));
}

#[test]
fn one_who_comes_late_draws_the_horizon_again_if_it_knows_more() {
    redis_or_skip!();
    let attempt =
        |lab: &Lab| lab.run(START + 4, &lifting(7, 3, 8, START), &[]).unwrap().epoch.horizon;
    let lab = after_a_loss();
    assert_eq!(attempt(&lab), at(0));
    for (id, seq, horizon) in [(7, 3, 0), (7, 1, 0), (8, 1, 0), (7, 4, START)] {
        let epoch = lab.run(START + 5, &knowing(id, seq), &[]).unwrap().epoch;
        assert_eq!(epoch.horizon, at(horizon), "{id} {seq}");
    }
    assert_eq!(attempt(&lab), at(START), "for good");
    // One that knew another epoch altogether leaves nobody who could know it all.
    let lab = after_a_loss();
    lab.run(START, &knowing(5, 0), &[]).unwrap();
    assert_eq!(attempt(&lab), at(START));
}

#[test]
fn after_the_next_loss_nothing_of_this_counts() {
    redis_or_skip!();
    let lab = after_a_loss();
    lab.run(START + 4, &lifting(7, 3, 8, START), &[]).unwrap();
    // An older state was restored, beside which the meta data stayed.
    let next = ScriptContext { new_epoch: 9, ..knowing(8, 3) };
    let epoch = lab.run(START + 5, &next, &[]).unwrap().epoch;
    assert_eq!((epoch.id, epoch.horizon), (9, at(START + 5)));
    let old = lab.run(START + 6, &lifting(7, 3, 9, START + 5), &[]).unwrap().epoch;
    assert_eq!(old.horizon, at(START + 5));
    let late = lab.run(START + 6, &knowing(7, 3), &[]).unwrap().epoch;
    assert_eq!(late.horizon, at(START + 5));
}

#[test]
fn another_layout_or_another_number_of_shards_is_refused() {
    redis_or_skip!();
    let mut lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    lab.keys = RedisKeys::new("lab", 2);
    let error = lab.run(START, &CONTEXT, &[]).unwrap_err().to_string();
    assert!(error.contains("LAYOUT version 1 with 1 shards"), "{error}");
}
