//! When another server carries an epoch on, what it takes while it settles, and how that ends.

use super::super::super::schema::SettlingState;
use super::*;

const OTHER: u64 = 88;
/// When the first server is left.
const SWITCH: u64 = START + 100;
/// When settling may end, and has to.
const LEAST: u64 = 1200;
const MOST: u64 = 30_000;

fn at(now: u64) -> Timestamp {
    Timestamp::from_millis(now)
}

fn user(name: &str) -> Revocation {
    Revocation::new(Target::user(name), Duration::from_secs(3600))
}

fn all_of(name: &str) -> Revocation {
    let until = at(START + 9_000_000);
    let action = Action::Revoke(Extent::All);
    Revocation { action, until, lifetime: Duration::ZERO, ..user(name) }
}

fn reinstated(name: &str) -> Revocation {
    Revocation { action: Action::Reinstate, ..user(name) }
}

/// As this writer, which has confirmed so many writes, at this server.
fn writer(id: u64, action: WriterAction, number: u64, server: u64) -> ScriptContext {
    let writer = WriterContext { id, action, number, through: 0 };
    let new_epoch = if server == CONTEXT.server { 7 } else { 8 };
    ScriptContext { new_epoch, server, writer, ..CONTEXT }
}

/// A lab in which writers 5 and 6 have revoked one user each, and the server is another one since.
fn after_a_failover() -> Lab {
    let lab = Lab::new();
    lab.run(START, &writer(5, WriterAction::Renew, 0, 77), &[&user("alice")]).unwrap();
    lab.run(START, &writer(6, WriterAction::Renew, 0, 77), &[&user("bob")]).unwrap();
    lab
}

impl Lab {
    fn touch(&self, now: u64, id: u64, action: WriterAction, number: u64) -> ScriptReply {
        self.run(now, &writer(id, action, number, OTHER), &[]).unwrap()
    }

    /// Replays a change as the one with this number, which had the `seq` 9.
    fn replay_confirmed(&self, now: u64, id: u64, number: u64, change: &Revocation, fact: Fact) {
        let confirmed = ConfirmedChange {
            fingerprint: change.target.fingerprint(),
            fact,
            seq: 9,
            note: note_arguments(change),
            is_withheld: false,
        };
        let context = writer(id, WriterAction::Replay, number, OTHER);
        let arguments = confirmed_arguments(&self.keys, 0, &context, &[Arc::new(confirmed)]);
        self.send(now, arguments, 1).unwrap();
    }

    fn is_revoked(&self, name: &str) -> bool {
        self.record(&Target::user(name)).is_some_and(|record| record.is_in_effect())
    }
}

fn doubted_until(reply: &ScriptReply) -> Option<u64> {
    reply.epoch.doubt.issued_until().map(Timestamp::as_millis)
}

#[test]
fn another_server_carries_the_epoch_on_and_awaits_the_writers() {
    redis_or_skip!();
    let lab = after_a_failover();
    let epoch = lab.touch(SWITCH, 9, WriterAction::Renew, 0).epoch;
    assert_eq!((epoch.id, epoch.parent, epoch.server), (8, 7, OTHER));
    assert_eq!((epoch.started_at, epoch.doubt), (at(SWITCH), Doubt::None));
    assert_eq!(epoch.settling, Some(SettlingState { since: at(SWITCH), awaited: 2 }));
    assert_eq!(epoch.seq, 3, "all hear of it");
    // Nothing new is written, and nothing is counted.
    let refused = lab.run(SWITCH + 1, &writer(5, WriterAction::Write, 1, OTHER), &[&user("carol")]);
    let refused = refused.unwrap();
    assert_eq!((refused.changes, refused.had, refused.epoch.seq), (None, Some(1), 3));
    assert!(!lab.is_revoked("carol"));
    // A caller that knew the epoch before, or the one before that, has lost nothing.
    let known = Some(CallerEpoch { id: 7, min_seq: 0, known_seq: 9, went_on: true });
    let late = ScriptContext { known, ..writer(9, WriterAction::Renew, 0, OTHER) };
    assert_eq!(lab.run(SWITCH + 2, &late, &[]).unwrap().epoch.doubt, Doubt::None);
    let third = ScriptContext { new_epoch: 9, server: 99, known, ..late };
    let third = lab.run(SWITCH + 3, &third, &[]).unwrap().epoch;
    assert_eq!((third.id, third.parent, third.doubt), (9, 8, Doubt::None));
}

#[test]
fn settling_ends_when_all_writers_are_through_but_not_before_the_leases_are_over() {
    redis_or_skip!();
    let lab = after_a_failover();
    lab.touch(SWITCH, 5, WriterAction::Renew, 1);
    assert_eq!(lab.touch(SWITCH + 10, 5, WriterAction::Through, 1).had, Some(1));
    let one = lab.touch(SWITCH + LEAST + 100, 5, WriterAction::Renew, 1).epoch;
    assert_eq!(one.settling.map(|settling| settling.awaited), Some(1));
    let over = lab.touch(SWITCH + LEAST + 200, 6, WriterAction::Through, 1).epoch;
    assert_eq!((over.settling, over.doubt, over.seq), (None, Doubt::None, one.seq + 1));
    let change = user("carol");
    let written = lab.run(SWITCH + 1500, &writer(5, WriterAction::Write, 1, OTHER), &[&change]);
    assert_eq!(written.unwrap().number, 2);

    let lab = after_a_failover();
    lab.touch(SWITCH, 5, WriterAction::Through, 1);
    let early = lab.touch(SWITCH + LEAST - 1, 6, WriterAction::Through, 1).epoch;
    assert_eq!(early.settling.map(|settling| settling.awaited), Some(0));
    assert_eq!(lab.touch(SWITCH + LEAST, 9, WriterAction::Renew, 0).epoch.settling, None);
}

#[test]
fn a_writer_that_has_signed_off_or_is_long_gone_is_not_awaited() {
    redis_or_skip!();
    let lab = after_a_failover();
    lab.run(START, &writer(6, WriterAction::SignOff, 1, 77), &[]).unwrap();
    let awaited = |reply: ScriptReply| reply.epoch.settling.map(|settling| settling.awaited);
    assert_eq!(awaited(lab.touch(SWITCH, 9, WriterAction::Renew, 0)), Some(1));
    // While the first server is in use, whoever does not renew is forgotten.
    let lab = after_a_failover();
    lab.run(START + 20_000, &writer(5, WriterAction::Renew, 1, 77), &[]).unwrap();
    lab.run(START + 31_000, &writer(5, WriterAction::Renew, 1, 77), &[]).unwrap();
    assert_eq!(awaited(lab.touch(START + 31_100, 9, WriterAction::Renew, 0)), Some(1));
}

#[test]
fn what_is_replayed_is_there_and_what_a_missing_writer_had_is_in_doubt_until_it_comes() {
    redis_or_skip!();
    let lab = after_a_failover();
    lab.touch(SWITCH, 5, WriterAction::Renew, 3);
    let fact =
        |all| Fact { all_revoked_at: at(all), until: at(START + 9_000_000), ..Fact::default() };
    lab.replay_confirmed(SWITCH + 5, 5, 3, &user("carol"), fact(START + 50));
    assert!(lab.is_revoked("carol"));
    assert_eq!(lab.record(&Target::user("carol")).unwrap().note.target, Target::user("carol"));
    lab.touch(SWITCH + 6, 5, WriterAction::Through, 3);
    for second in 1..30 {
        let now = SWITCH + second * 1000;
        assert!(lab.touch(now, 5, WriterAction::Renew, 3).epoch.settling.is_some());
    }
    let over = lab.touch(SWITCH + MOST, 5, WriterAction::Renew, 3);
    assert_eq!((over.epoch.settling, doubted_until(&over)), (None, Some(SWITCH + MOST)));
    // Others write again; the one that is late may not, before it is through.
    let now = SWITCH + MOST + 10;
    let own = lab.run(now, &writer(5, WriterAction::Write, 3, OTHER), &[&user("dave")]).unwrap();
    assert_eq!(own.number, 4);
    let late = lab.run(now, &writer(6, WriterAction::Write, 2, OTHER), &[&user("erin")]).unwrap();
    assert_eq!(late.changes, None);
    // Dave was reinstated before, at the server that was left, which had heard of an earlier
    // revocation.
    let undone = Fact { reinstated_at: at(now + 60_000), ..fact(0) };
    lab.replay_confirmed(now + 1, 6, 2, &reinstated("dave"), undone);
    lab.replay_confirmed(now + 1, 6, 2, &user("frank"), fact(START + 60));
    assert!(lab.is_revoked("dave"), "{:?}", lab.record(&Target::user("dave")));
    assert!(lab.is_revoked("frank"));
    let through = lab.touch(now + 2, 6, WriterAction::Through, 2);
    assert_eq!(doubted_until(&through), None, "the doubt was for what it alone had");
    assert_eq!(through.epoch.doubt_ended_at, Some(at(now + 2)));
}

#[test]
fn a_doubt_for_a_missing_writer_ends_when_it_comes_to_the_next_server() {
    redis_or_skip!();
    for (away, expected) in [(20_000, None), (400_000, Some(SWITCH + MOST))] {
        let lab = after_a_failover();
        lab.touch(SWITCH, 5, WriterAction::Through, 1);
        for second in 1..=30 {
            lab.touch(SWITCH + second * 1000, 5, WriterAction::Renew, 1);
        }
        assert_eq!(lab.touch(SWITCH + MOST + 9, 5, WriterAction::Renew, 1).epoch.settling, None);
        // A third server, before the writer has come; after long nobody knows of it any more.
        let third = |now, id, action| {
            let context = ScriptContext { new_epoch: 9, ..writer(id, action, 1, 99) };
            lab.run(now, &context, &[]).unwrap()
        };
        let again = SWITCH + MOST + away;
        third(again, 5, WriterAction::Through);
        third(again + 1, 6, WriterAction::Through);
        let over = third(again + LEAST, 5, WriterAction::Renew);
        assert_eq!((over.epoch.settling, doubted_until(&over)), (None, expected));
    }
}

#[test]
fn a_doubt_that_nobody_can_end_is_not_ended_by_a_writer_that_was_missing_as_well() {
    redis_or_skip!();
    let lab = after_a_failover();
    lab.touch(SWITCH, 5, WriterAction::ThroughWithGap, 1);
    lab.touch(SWITCH + 1, 6, WriterAction::Through, 1);
    lab.touch(SWITCH + LEAST, 6, WriterAction::Renew, 1);
    // At the third server one is missing, and comes after all.
    let third = |now, id, action| {
        let context = ScriptContext { new_epoch: 9, ..writer(id, action, 1, 99) };
        lab.run(now, &context, &[]).unwrap()
    };
    let again = SWITCH + 2000;
    for second in 0..=30 {
        third(again + second * 1000, 5, WriterAction::Through);
    }
    let late = third(again + MOST + 9, 6, WriterAction::Through);
    assert_eq!((late.epoch.settling, doubted_until(&late)), (None, Some(again + MOST)));
}

#[test]
fn a_writer_that_has_forgotten_some_of_its_writes_declares_a_doubt_that_lasts() {
    redis_or_skip!();
    let lab = after_a_failover();
    lab.touch(SWITCH, 5, WriterAction::ThroughWithGap, 1);
    lab.touch(SWITCH + 1, 6, WriterAction::Through, 1);
    let over = lab.touch(SWITCH + LEAST, 6, WriterAction::Renew, 1);
    assert_eq!((over.epoch.settling, doubted_until(&over)), (None, Some(SWITCH + LEAST)));
    let again = lab.touch(SWITCH + LEAST + 9, 5, WriterAction::Through, 1);
    assert_eq!(doubted_until(&again), Some(SWITCH + LEAST));
}

#[test]
fn a_server_without_what_others_have_known_for_long_is_in_doubt_unless_it_is_put_back() {
    redis_or_skip!();
    let knew = |seq| {
        let long_known = Some(LongKnown { epoch: 7, seq });
        ScriptContext { long_known, ..writer(9, WriterAction::Renew, 0, OTHER) }
    };
    // The two changes that the server has, and one that the writer puts back, are not four.
    for (seq, expected) in [(2, None), (3, None), (4, Some(SWITCH + LEAST))] {
        let lab = after_a_failover();
        lab.run(SWITCH, &knew(seq), &[]).unwrap();
        let fact = Fact::revoked_until(at(START + 9_000_000));
        lab.replay_confirmed(SWITCH + 5, 5, 2, &user("carol"), fact);
        lab.touch(SWITCH + 6, 5, WriterAction::Through, 2);
        lab.touch(SWITCH + 7, 6, WriterAction::Through, 1);
        let over = lab.touch(SWITCH + LEAST, 6, WriterAction::Renew, 1);
        assert_eq!((over.epoch.settling, doubted_until(&over)), (None, expected), "{seq}");
        // Whoever says it later is heard as well.
        if seq == 3 {
            let late = lab.run(SWITCH + LEAST + 9, &knew(4), &[]).unwrap();
            assert_eq!(doubted_until(&late), Some(SWITCH + LEAST + 9));
        }
    }
}

#[test]
fn what_is_replayed_again_counts_once_and_what_changes_nothing_counts_as_well() {
    redis_or_skip!();
    for (is_twice, expected) in [(false, Some(SWITCH + LEAST)), (true, None)] {
        let lab = after_a_failover();
        let long_known = Some(LongKnown { epoch: 7, seq: 4 });
        let knew = ScriptContext { long_known, ..writer(9, WriterAction::Renew, 0, OTHER) };
        lab.run(SWITCH, &knew, &[]).unwrap();
        let fact = Fact::revoked_until(at(START + 9_000_000));
        // The reply was lost, and it is sent again.
        for _ in 0..2 {
            lab.replay_confirmed(SWITCH + 5, 5, 2, &user("carol"), fact);
        }
        if is_twice {
            // Another writer had found her revoked, and revoked her again after a reinstatement.
            lab.replay_confirmed(SWITCH + 5, 6, 2, &user("carol"), fact);
        }
        lab.touch(SWITCH + 6, 5, WriterAction::Through, 2);
        lab.touch(SWITCH + 7, 6, WriterAction::Through, 2);
        let over = lab.touch(SWITCH + LEAST, 6, WriterAction::Renew, 2);
        assert_eq!((over.epoch.settling, doubted_until(&over)), (None, expected));
    }
}

#[test]
fn a_reinstatement_that_is_replayed_stands_against_what_it_came_with_and_nothing_else() {
    redis_or_skip!();
    let lab = Lab::new();
    lab.run(START, &writer(5, WriterAction::Renew, 0, 77), &[&all_of("alice")]).unwrap();
    lab.run(START, &writer(6, WriterAction::Renew, 0, 77), &[&all_of("bob")]).unwrap();
    lab.touch(SWITCH, 5, WriterAction::Through, 1);
    for second in 1..=30 {
        lab.touch(SWITCH + second * 1000, 5, WriterAction::Renew, 1);
    }
    let now = SWITCH + MOST + 10;
    let revoke = |name| {
        let context = writer(5, WriterAction::Write, 1, OTHER);
        lab.run(now, &context, &[&all_of(name)]).unwrap().changes.unwrap()[0]
    };
    // The server has them as they were revoked before; one is revoked once more, which changes
    // nothing but the time.
    assert_eq!(lab.record(&Target::user("alice")).unwrap().fact().all_revoked_at, at(START));
    let again = revoke("alice");
    assert_eq!((again.outcome, again.is_written), (Outcome::Already, true));
    assert_eq!(lab.record(&Target::user("alice")).unwrap().fact().all_revoked_at, at(now));
    let undone = Fact {
        all_revoked_at: at(START),
        reinstated_at: at(START + 40),
        until: at(START + 9_000_000),
        ..Fact::default()
    };
    // Writer 6 has not come yet: it had reinstated all of them.
    for name in ["alice", "bob", "carol"] {
        lab.replay_confirmed(now + 1, 6, 2, &reinstated(name), undone);
    }
    assert!(lab.is_revoked("alice") && !lab.is_revoked("bob") && !lab.is_revoked("carol"));
    // Once nobody is missing, a repetition writes nothing.
    lab.touch(now + 2, 6, WriterAction::Through, 2);
    assert!(!revoke("alice").is_written);
    // Of a writer that nobody has waited for only what is surely the later counts.
    lab.run(now, &writer(5, WriterAction::Write, 1, OTHER), &[&all_of("dave")]).unwrap();
    let ahead = Fact { all_revoked_at: at(now + 10), reinstated_at: at(now + 20), ..undone };
    lab.replay_confirmed(now + 3, 9, 2, &reinstated("dave"), ahead);
    assert!(lab.is_revoked("dave"));
}

#[test]
fn a_mirror_that_replays_undoes_nothing_that_was_revoked_since() {
    redis_or_skip!();
    let lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    lab.run(START + 5, &CONTEXT, &[&all_of("alice"), &user("bob")]).unwrap();
    let until = at(START + 9_000_000);
    let fact = |all, back| Fact {
        all_revoked_at: at(all),
        reinstated_at: at(back),
        until,
        ..Fact::default()
    };
    let replay = |name: &str, fact| {
        let facts = [(Target::user(name).fingerprint(), fact)];
        lab.send(START + 9, replay_arguments(&lab.keys, 0, &CONTEXT, &facts), 1).unwrap();
    };
    // The clock of the server that was lost was ahead.
    replay("alice", fact(START + 50, START + 60));
    replay("bob", fact(START - 50, START + 60));
    assert!(lab.is_revoked("alice") && lab.is_revoked("bob"));
    // One mirror knows less than another, and nothing was revoked since.
    replay("carol", fact(START - 9, 0));
    assert!(lab.is_revoked("carol"));
    replay("carol", fact(START - 9, START - 8));
    // What was reinstated stays so where there is no record.
    replay("dave", fact(START - 9, START - 8));
    assert!(!lab.is_revoked("carol") && !lab.is_revoked("dave"));
    // Of what it knows as undone nothing counts, and the rest does.
    lab.run(START + 10, &CONTEXT, &[&user("erin")]).unwrap();
    let cutoff =
        Fact { cutoff: at(START - 4), cutoff_set_at: at(START + 70), ..fact(START - 9, START - 8) };
    replay("erin", cutoff);
    let erin = lab.record(&Target::user("erin")).unwrap().fact();
    assert_eq!((erin.all_revoked_at, erin.cutoff_set_at), (Timestamp::ZERO, at(START + 70)));
}

#[test]
fn the_time_in_which_a_server_refuses_writes_does_not_count() {
    redis_or_skip!();
    let lab = after_a_failover();
    lab.touch(SWITCH, 5, WriterAction::Through, 1);
    // Nobody could come for forty seconds.
    let later = lab.touch(SWITCH + 40_000, 5, WriterAction::Renew, 1).epoch;
    assert_eq!(later.settling, Some(SettlingState { since: at(SWITCH + 40_000), awaited: 1 }));
    let over = lab.touch(SWITCH + 41_500, 6, WriterAction::Through, 1);
    assert_eq!((over.epoch.settling, doubted_until(&over)), (None, None));
}

#[test]
fn a_writer_that_has_confirmed_more_than_the_server_has_is_refused_until_it_is_through() {
    redis_or_skip!();
    let lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    // It has written to a server of which this one knows nothing, and nobody awaits it here.
    let context = writer(5, WriterAction::Write, 3, 77);
    assert_eq!(lab.run(START + 1, &context, &[&user("alice")]).unwrap().changes, None);
    lab.run(START + 2, &writer(5, WriterAction::Through, 3, 77), &[]).unwrap();
    let written = lab.run(START + 3, &context, &[&user("alice")]).unwrap();
    assert_eq!((written.number, written.changes.unwrap().len()), (4, 1));
    // After the clock was set, others take it for gone. It was there in this epoch: nothing is
    // lost.
    lab.run(START + 60_000, &writer(6, WriterAction::Renew, 0, 77), &[]).unwrap();
    let mut late = writer(5, WriterAction::Write, 4, 77);
    assert_eq!(lab.run(START + 60_001, &late, &[&user("bob")]).unwrap().changes, None);
    late.writer.through = 7;
    assert_eq!(lab.run(START + 60_001, &late, &[&user("bob")]).unwrap().number, 5);
}

#[test]
fn a_caller_that_is_not_told_the_id_of_its_server_carries_nothing_over() {
    redis_or_skip!();
    let lab = after_a_failover();
    let unknown = lab.run(SWITCH, &writer(6, WriterAction::Renew, 1, 0), &[]).unwrap().epoch;
    assert_eq!((unknown.id, unknown.server, unknown.settling), (7, 77, None));
    let written = lab.run(SWITCH, &writer(6, WriterAction::Write, 1, 0), &[&user("carol")]);
    assert!(written.unwrap().changes.is_some());
    let lab = Lab::new();
    let first = ScriptContext { new_epoch: 3, ..writer(6, WriterAction::Renew, 0, 0) };
    let first = lab.run(START, &first, &[]).unwrap().epoch;
    assert_eq!(first.server, 0);
    let known = lab.touch(START + 1, 5, WriterAction::Renew, 0).epoch;
    assert_eq!((known.server, known.parent), (OTHER, first.id));
}

#[cfg(feature = "sessions")]
#[test]
fn of_two_versions_of_a_document_the_later_is_kept_in_whatever_order_they_come() {
    redis_or_skip!();
    for order in [[2, 3], [3, 2]] {
        let lab = Lab::new();
        let first = writer(5, WriterAction::Write, 0, 77);
        lab.run(START, &CONTEXT, &[]).unwrap();
        assert_eq!(lab.commit(&first, "d", [None, Some("one")], None, &[]), ["done", "1", "1"]);
        let second = writer(5, WriterAction::Write, 1, 77);
        assert_eq!(lab.commit(&second, "d", [None, Some("two")], None, &[]), ["conflict"]);
        // The first version is all that the next server has.
        let elsewhere = writer(5, WriterAction::Write, 3, OTHER);
        assert_eq!(lab.commit(&elsewhere, "d", [Some("one"), None], None, &[]), ["settling"]);
        lab.touch(SWITCH, 5, WriterAction::Renew, 3);
        assert_eq!(lab.commit(&elsewhere, "d", [Some("one"), None], None, &[]), ["settling"]);
        for version in order {
            let text = format!("version {version}");
            let member = [("m", Some(MAX_INTEGER))];
            lab.commit(&elsewhere, "d", [None, Some(&text)], Some(version), &member);
        }
        assert_eq!(lab.server.cli(&["GET", "d"]), "3 0 version 3");
        assert_eq!(lab.zset(&lab.keys.shard(0).members).len(), 1);
        lab.touch(SWITCH + LEAST, 5, WriterAction::Through, 3);
        // It goes on from there, and what comes later still does not undo it.
        let committed = lab.commit(&elsewhere, "d", [Some("version 3"), None], None, &[]);
        assert_eq!(committed, ["done", "4", "4"]);
        lab.commit(&elsewhere, "d", [None, Some("late")], Some(9), &[]);
        assert_eq!(lab.server.cli(&["GET", "d"]), "4 0000000000000008", "it was deleted");
    }
}

#[cfg(feature = "sessions")]
#[test]
fn a_change_that_comes_after_its_document_has_gone_on_is_lost_and_that_is_said() {
    redis_or_skip!();
    let lab = Lab::new();
    lab.run(START, &CONTEXT, &[]).unwrap();
    let first = writer(5, WriterAction::Write, 0, 77);
    for name in ["d", "e"] {
        lab.commit(&first, name, [None, Some("one")], None, &[]);
    }
    // Of both another version was confirmed that the next server never had.
    lab.touch(SWITCH, 5, WriterAction::Renew, 2);
    lab.touch(SWITCH + LEAST, 5, WriterAction::Through, 2);
    let other = writer(6, WriterAction::Write, 0, OTHER);
    assert_eq!(lab.commit(&other, "d", [Some("one"), Some("here")], None, &[]), ["done", "1", "2"]);
    let late = |number| writer(5, WriterAction::Replay, number, OTHER);
    let replay =
        |number, name| lab.commit(&late(number), name, [None, Some("there")], Some(2), &[]);
    assert_eq!(replay(3, "d"), ["overtaken", "3", "2"]);
    assert_eq!(replay(3, "d"), ["done", "3", "2"], "it was said");
    assert_eq!(replay(4, "e"), ["done", "4", "2"]);
    assert_eq!(lab.server.cli(&["GET", "e"]), "2 0 there");
    assert!(lab.server.cli(&["GET", "d"]).ends_with(" here"));
}

/// A process that puts back what it has confirmed names nobody who was erased meanwhile.
#[test]
fn what_is_put_back_does_not_bring_back_words_that_were_erased() {
    use super::super::super::erase::ERASE;

    redis_or_skip!();
    let lab = after_a_failover();
    let named = Revocation { reason: Some("of alice".into()), ..all_of("alice") };
    let reply = lab.run(START + 1, &writer(5, WriterAction::Write, 1, 77), &[&named]).unwrap();
    let changes = reply.changes.unwrap();
    let fact = Fact { until: changes[0].until, ..changes[0].fact };
    let before = lab.record(&named.target).unwrap();
    assert!(format!("{before:?}").contains("alice"));

    let fingerprint = named.target.fingerprint();
    let erase = |server: u64| {
        let nameless = schema::print_words(&Target::nameless(&fingerprint), None, None);
        let shard = lab.keys.shard(0);
        let keys = [shard.epoch.clone(), shard.record(&fingerprint)];
        let arguments = [Bytes::from_static(ERASE.source.as_bytes()), "2".into()];
        let arguments =
            arguments.into_iter().chain(keys).chain([epoch_id(server), nameless.into()]);
        lab.ask("EVAL", arguments.collect()).unwrap().into_string().unwrap()
    };
    let is_nameless = || {
        let record = lab.record(&named.target).unwrap();
        assert_eq!(record.fact(), before.fact(), "what decides is as it was");
        !format!("{record:?}").contains("alice")
    };
    // Where another server is expected, and while this one settles, it would be in vain.
    assert_eq!(erase(OTHER), "settling");
    assert!(!is_nameless());
    for _ in 0..2 {
        assert_eq!(erase(77), "done");
        assert!(is_nameless());
    }
    let erased = lab.record(&named.target).unwrap();
    assert_eq!(erased.changed_at(), before.changed_at().saturating_add(Duration::from_millis(1)));

    lab.touch(SWITCH, 5, WriterAction::Renew, 2);
    assert_eq!(erase(OTHER), "settling");
    lab.replay_confirmed(SWITCH + 1, 5, 2, &named, fact);
    assert!(is_nameless() && lab.is_revoked("alice"));
}
