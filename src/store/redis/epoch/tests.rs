use super::super::schema::EntryId;
use super::*;

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn epoch(id: u64, started_at: u64, horizon: u64, seq: u64) -> Epoch {
    let lifted = if horizon == 0 { 0 } else { horizon + 1000 };
    Epoch {
        id,
        started_at: ms(started_at),
        horizon: ms(horizon),
        lifted: ms(lifted),
        seq,
        last_entry: EntryId(seq, 0),
    }
}

/// Asks as a check does: recalls, then reads.
fn read(tracker: &EpochTracker, epoch: Option<Epoch>) -> Result<Doubt, StoreErrorKind> {
    let known = tracker.known(0);
    let value = epoch.map(|epoch| epoch.print());
    tracker
        .observe_value(EpochSource::Checks, 0, known.as_ref(), value.as_deref().map(str::as_bytes))
        .map_err(|error| error.kind())
}

fn horizon_of(doubt: Doubt) -> u64 {
    doubt.horizon.as_millis()
}

/// What the script would be told: an epoch, and how far it has to have come.
fn told(tracker: &EpochTracker) -> (u64, u64) {
    let told = tracker.known(0).unwrap().for_script();
    (told.id, told.seq)
}

/// Runs the script, which answers with this epoch.
fn tell(tracker: &EpochTracker, epoch: Epoch) -> u64 {
    let known = tracker.known(0);
    horizon_of(tracker.observe_script_reply(0, known.as_ref(), epoch).unwrap())
}

fn is_maintenance_due(tracker: &EpochTracker) -> bool {
    use futures::FutureExt as _;
    tracker.maintenance_due.notified().now_or_never().is_some()
}

#[test]
fn the_first_epoch_is_believed_and_grows_in_silence() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    for seq in [0, 1, 1, 5] {
        assert_eq!(read(&tracker, Some(epoch(1, 10, 0, seq))).map(horizon_of), Ok(0));
    }
    assert!(!is_maintenance_due(&tracker));
    assert_eq!(told(&tracker), (1, 5));
}

#[test]
fn answers_that_overtake_each_other_raise_no_alarm() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 1))).unwrap();
    // Two questions are sent; the answer to the second is read first.
    let known = tracker.known(0);
    let (older, newer) = (epoch(1, 10, 0, 2).print(), epoch(1, 10, 0, 3).print());
    tracker.observe_value(EpochSource::Checks, 0, known.as_ref(), Some(newer.as_bytes())).unwrap();
    tracker.observe_value(EpochSource::Checks, 0, known.as_ref(), Some(older.as_bytes())).unwrap();
    assert!(!is_maintenance_due(&tracker));
    assert_eq!(tracker.known(0).unwrap().epoch.seq, 3);
}

#[test]
fn a_missing_epoch_and_fewer_changes_put_everything_in_doubt() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    assert_eq!(read(&tracker, None), Err(StoreErrorKind::DataLoss));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert!(is_maintenance_due(&tracker));
    for worse in [None, Some(epoch(1, 10, 0, 4))] {
        assert_eq!(read(&tracker, worse), Err(StoreErrorKind::DataLoss));
        assert!(is_maintenance_due(&tracker));
        assert_eq!(told(&tracker), (1, 5), "what is known is kept, so that others are told");
    }
}

#[test]
fn an_epoch_that_began_before_the_latest_known_change_puts_everything_in_doubt() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    // Somewhere else a second epoch began at 50; the first went on here until 60.
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 3))), Err(StoreErrorKind::DataLoss));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(told(&tracker), (2, FAR), "a third one has to begin");
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 4))), Err(StoreErrorKind::DataLoss));
    assert_eq!(read(&tracker, Some(epoch(3, 70, 70, 4))).map(horizon_of), Ok(70));
    assert_eq!(tracker.known(0).unwrap().for_script(), CallerEpoch { id: 0, seq: 0, reach: FAR });

    // A change from before the started_at was lost with the rest of its epoch.
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 50))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 3))).map(horizon_of), Ok(50));
}

#[test]
fn another_epoch_puts_what_was_before_it_in_doubt_and_the_others_are_told() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 0))).map(horizon_of), Ok(50));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(told(&tracker), (1, 0));
    // Until it is published, every answer is read with it.
    for seq in [0, 1, 1] {
        assert_eq!(read(&tracker, Some(epoch(2, 50, 0, seq))).map(horizon_of), Ok(50));
        assert_eq!(tracker.known(0).unwrap().doubt().lifted, FOREVER);
    }
    assert_eq!(told(&tracker), (1, 0));
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 1))).map(horizon_of), Ok(50));
    assert_eq!(told(&tracker), (1, 0), "somebody has said so, but not how much this process knew");
    // Then nothing more has to be said.
    assert_eq!(tell(&tracker, epoch(2, 50, 50, 1)), 50);
    assert_eq!(told(&tracker), (2, 1));
    assert_eq!(tracker.known(0).unwrap().epoch.lifted, ms(1050));
}

#[test]
fn another_epoch_with_a_horizon_is_believed_and_redis_is_told_how_far_the_former_one_had_come() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 0))).map(horizon_of), Ok(50));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(tracker.known(0).unwrap().for_script(), CallerEpoch { id: 1, seq: 0, reach: 5 });
    assert_eq!(tell(&tracker, epoch(2, 50, 50, 0)), 50);
    assert_eq!(told(&tracker), (2, 0));
    // Of a second one it is only said that there was one: what was in the first may not have been
    // told yet.
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    for (n, started_at) in [(1, 10), (2, 50), (3, 90)] {
        read(&tracker, Some(epoch(n, started_at, started_at, 5))).unwrap();
    }
    assert_eq!(tracker.known(0).unwrap().for_script(), CallerEpoch { id: 0, seq: 0, reach: FAR });
}

fn lifted(id: u64, started_at: u64, seq: u64) -> Epoch {
    Epoch { lifted: ms(started_at + 20), ..epoch(id, started_at, 0, seq) }
}

#[test]
fn a_horizon_that_was_lifted_is_given_up_by_those_who_knew_of_it() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(2, 50, 50, 3))).unwrap();
    let before = tracker.known(0);
    assert_eq!(read(&tracker, Some(lifted(2, 50, 4))).map(horizon_of), Ok(0));
    assert!(!is_maintenance_due(&tracker));
    // An answer from before that is read late.
    let late = tracker
        .record(EpochSource::Checks, 0, before.as_ref(), epoch(2, 50, 50, 3), None)
        .map(horizon_of);
    assert_eq!(late.unwrap(), 50, "the records may have been read before they were written again");
    assert_eq!(read(&tracker, Some(lifted(2, 50, 7))).map(horizon_of), Ok(0));
    // It is drawn again, for one who came late and knew more.
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 7))).map(horizon_of), Ok(50));
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 8))).map(horizon_of), Ok(50));
}

#[test]
fn who_knew_the_former_epoch_doubts_until_redis_has_heard_how_much() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(lifted(2, 50, 4))).map(horizon_of), Ok(50));
    assert_eq!(read(&tracker, Some(lifted(2, 50, 6))).map(horizon_of), Ok(50));
    assert!(is_maintenance_due(&tracker));
    let other = EpochTracker::new(1, Duration::from_secs(1));
    read(&other, Some(epoch(1, 10, 0, 5))).unwrap();
    read(&other, Some(lifted(2, 50, 6))).unwrap();
    // Either that is no more than was written again, or it is.
    assert_eq!(tell(&tracker, lifted(2, 50, 6)), 0);
    assert_eq!(tell(&other, epoch(2, 50, 50, 6)), 50);
    assert_eq!(told(&tracker), (2, 6));
}

#[test]
fn another_change_with_the_number_of_the_known_one_ends_the_epoch() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let early = tracker.known(0);
    let other = Epoch { last_entry: EntryId(77, 0), ..epoch(1, 10, 0, 5) };
    assert_eq!(read(&tracker, Some(other)), Err(StoreErrorKind::DataLoss));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(told(&tracker), (1, FAR));
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 6))), Err(StoreErrorKind::DataLoss));
    // Also if the known one was heard of while the question was under way.
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    tracker.record(EpochSource::Writes, 0, early.as_ref(), other, None).unwrap_err();
}

#[test]
fn the_latest_change_of_each_connection_is_remembered() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let at = |seq, last_entry| Epoch { last_entry: EntryId(last_entry, 0), ..epoch(1, 10, 0, seq) };
    let hear =
        |via, epoch| tracker.record(via, 0, tracker.known(0).as_ref(), epoch, None).map(horizon_of);
    for via in [EpochSource::Checks, EpochSource::Writes, EpochSource::Feed] {
        assert_eq!(hear(via, at(5, 50)).ok(), Some(0));
    }
    assert_eq!(tracker.known(0).unwrap().expected_entries(), [EntryId(50, 0)]);
    // From here on the writes go to another server, which is given one change more.
    assert_eq!(hear(EpochSource::Checks, at(6, 66)).ok(), Some(0));
    assert_eq!(hear(EpochSource::Writes, at(7, 60)).ok(), Some(0));
    assert_eq!(
        tracker.known(0).unwrap().expected_entries(),
        [50, 60, 66].map(|last_entry| EntryId(last_entry, 0))
    );
    // An epoch that begins there ends nothing that went on elsewhere for longer.
    assert_eq!(read(&tracker, Some(epoch(2, 65, 65, 7))), Err(StoreErrorKind::DataLoss));
    assert_eq!(told(&tracker), (2, FAR));
}

#[test]
fn what_is_known_stays_where_it_is_until_it_changes() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let early = tracker.known(0);
    read(&tracker, Some(epoch(1, 10, 0, 6))).unwrap();
    let known = tracker.known(0).unwrap();
    tracker.record(EpochSource::Checks, 0, early.as_ref(), epoch(1, 10, 0, 6), None).unwrap();
    assert!(
        Arc::ptr_eq(&known, &tracker.known(0).unwrap()),
        "else no two questions at once would find it so"
    );
}

#[test]
fn a_missed_change_ends_the_epoch() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let known = tracker.known(0).unwrap();
    tracker.report_missing(0, &known);
    assert!(is_maintenance_due(&tracker));
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 9))), Err(StoreErrorKind::DataLoss));
    assert_eq!(told(&tracker), (1, FAR));
    // An answer to a question from before does not hide it.
    tracker.record(EpochSource::Checks, 0, Some(&known), epoch(1, 10, 0, 9), None).unwrap_err();
    assert!(tracker.known(0).unwrap().lost);
    assert_eq!(read(&tracker, Some(epoch(2, 60, 60, 9))).map(horizon_of), Ok(60));
    assert!(!tracker.known(0).unwrap().lost);
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    for junk in ["", "1", "2 0000000000000001 1 0 0 0 0-0"] {
        let error =
            tracker.observe_value(EpochSource::Checks, 0, None, Some(junk.as_bytes())).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{junk}");
    }
    assert!(tracker.known(0).is_none());
}

#[test]
fn an_answer_to_one_who_knew_nothing_takes_nothing_from_what_is_known() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    // A question was sent before anything was known, and waits for long.
    let ignorant: Option<Arc<KnownEpoch>> = tracker.known(0);
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    // Then data is lost, and that question is the one that begins the next epoch.
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 0))).map(horizon_of), Ok(50));
    assert_eq!(
        tracker
            .record(EpochSource::Checks, 0, ignorant.as_ref(), epoch(2, 50, 0, 0), None)
            .map(horizon_of)
            .unwrap(),
        50
    );
    assert_eq!(told(&tracker), (1, 0), "the others have not been told yet");
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 0))).map(horizon_of), Ok(50));
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 1))).map(horizon_of), Ok(50));
}

#[test]
fn of_two_epochs_that_cannot_be_told_apart_by_who_asked_the_later_is_believed() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let ignorant: Option<Arc<KnownEpoch>> = tracker.known(0);
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let early = tracker.known(0);
    assert_eq!(
        tracker
            .record(EpochSource::Checks, 0, ignorant.as_ref(), epoch(2, 50, 0, 0), None)
            .map(horizon_of)
            .unwrap(),
        50
    );
    assert_eq!(told(&tracker), (1, 0));
    // From before the loss, but read after it.
    for before in [ignorant, early] {
        assert!(
            tracker
                .record(EpochSource::Checks, 0, before.as_ref(), epoch(1, 10, 0, 5), None)
                .is_err()
        );
        assert_eq!(told(&tracker), (1, 0));
    }

    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(2, 50, 0, 0))).unwrap();
    assert!(tracker.record(EpochSource::Checks, 0, None, epoch(1, 10, 0, 5), None).is_err());
    assert_eq!(tracker.known(0).unwrap().doubt().horizon, ms(50), "it was not the first one");
    assert!(is_maintenance_due(&tracker));
}

#[test]
fn an_epoch_that_has_come_back_is_ended() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    // Others may have written to the second epoch what this process never heard of.
    read(&tracker, Some(Epoch { last_entry: EntryId::default(), ..epoch(2, 50, 50, 0) })).unwrap();
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 5))), Err(StoreErrorKind::DataLoss));
    assert_eq!(told(&tracker), (1, FAR));
}

#[test]
fn a_horizon_that_is_gone_again_is_kept_and_drawn_anew() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(2, 50, 50, 3))).unwrap();
    assert!(!is_maintenance_due(&tracker));
    // A fail-over has lost it, and nothing else.
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 3))).map(horizon_of), Ok(50));
    assert!(is_maintenance_due(&tracker));
    let (id, _) = told(&tracker);
    assert_ne!(id, 2, "the script draws it for those who know another epoch");
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 3))).map(horizon_of), Ok(50));
    assert_eq!(tell(&tracker, epoch(2, 50, 50, 3)), 50);
    assert_eq!(told(&tracker), (2, 3));
}

#[test]
fn a_doubt_lasts_as_long_as_the_longest_tokens_that_are_expected() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 6))).unwrap().lifted, Timestamp::ZERO);
    tracker.expect_tokens_for(Duration::from_secs(30));
    tracker.expect_tokens_for(Duration::from_secs(20));
    assert_eq!(tracker.doubt_duration(), Duration::from_secs(30), "for the next horizon");
    // Another process, which expects no token for so long, was faster.
    let doubt = read(&tracker, Some(epoch(2, 50, 50, 0))).unwrap();
    assert_eq!((doubt.horizon, doubt.lifted), (ms(50), ms(30_050)));
    let doubt = read(&tracker, Some(Epoch { lifted: ms(99_000), ..epoch(3, 70, 70, 0) })).unwrap();
    assert_eq!((doubt.horizon, doubt.lifted), (ms(70), ms(99_000)));
}
