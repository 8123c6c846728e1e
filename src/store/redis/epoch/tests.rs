use super::super::schema::{EntryId, SettlingState};
use super::*;

const SETTLING: u64 = u64::MAX;
const SERVER: u64 = 77;
const FROM: ReadFrom = ReadFrom { source: EpochSource::Checks, server: SERVER };

fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A doubt of tokens issued until then; none, if that is 0.
fn doubt(issued_until: u64) -> Doubt {
    match issued_until {
        0 => Doubt::None,
        until => Doubt::Lasting { issued_until: ms(until), ends_at: ms(until + 1000) },
    }
}

fn epoch(id: u64, started_at: u64, issued_until: u64, seq: u64) -> Epoch {
    Epoch {
        id,
        parent: 0,
        server: SERVER,
        started_at: ms(started_at),
        settling: None,
        doubt: doubt(issued_until),
        doubt_ended_at: None,
        seq,
        last_entry: EntryId(seq, 0),
    }
}

/// Asks as a check does: notes what is known, then reads.
fn read(tracker: &EpochTracker, epoch: Option<Epoch>) -> Result<Doubt, StoreErrorKind> {
    let known = tracker.known(0);
    let value = epoch.map(|epoch| epoch.print());
    tracker
        .observe_value(FROM, 0, known.as_ref(), value.as_deref().map(str::as_bytes))
        .map_err(|error| error.kind())
}

/// Until when tokens in doubt were issued; 0, if none are, and [`SETTLING`], if all are for now.
fn until(doubt: Doubt) -> u64 {
    if doubt == Doubt::Settling {
        return SETTLING;
    }
    doubt.issued_until().unwrap_or_default().as_millis()
}

/// What the script would be told: an epoch, and its lowest `seq` without a loss.
fn for_script(tracker: &EpochTracker) -> (u64, u64) {
    let caller = tracker.known(0).unwrap().for_script();
    (caller.id, caller.min_seq)
}

/// Runs the script, which replies with this epoch.
fn run_script(tracker: &EpochTracker, epoch: Epoch) -> u64 {
    let known = tracker.known(0);
    until(tracker.observe_script_reply(0, known.as_ref(), epoch).unwrap())
}

fn is_maintenance_due(tracker: &EpochTracker) -> bool {
    use futures::FutureExt as _;
    tracker.maintenance_due.notified().now_or_never().is_some()
}

#[test]
fn the_first_epoch_is_believed_and_grows_without_maintenance() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    for seq in [0, 1, 1, 5] {
        assert_eq!(read(&tracker, Some(epoch(1, 10, 0, seq))).map(until), Ok(0));
    }
    assert!(!is_maintenance_due(&tracker));
    assert_eq!(for_script(&tracker), (1, 5));
}

#[test]
fn answers_that_overtake_each_other_are_no_loss() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 1))).unwrap();
    // Two questions are sent; the answer to the second is read first.
    let known = tracker.known(0);
    let (older, newer) = (epoch(1, 10, 0, 2).print(), epoch(1, 10, 0, 3).print());
    tracker.observe_value(FROM, 0, known.as_ref(), Some(newer.as_bytes())).unwrap();
    tracker.observe_value(FROM, 0, known.as_ref(), Some(older.as_bytes())).unwrap();
    assert!(!is_maintenance_due(&tracker));
    assert_eq!(tracker.known(0).unwrap().epoch.seq, 3);
}

#[test]
fn a_missing_epoch_and_fewer_changes_put_everything_in_doubt() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    assert_eq!(read(&tracker, None), Err(StoreErrorKind::Settling));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert!(is_maintenance_due(&tracker));
    for worse in [None, Some(epoch(1, 10, 0, 4))] {
        assert_eq!(read(&tracker, worse), Err(StoreErrorKind::Settling));
        assert!(is_maintenance_due(&tracker));
        assert_eq!(for_script(&tracker), (1, 5), "what is known is kept, to be reported");
    }
}

#[test]
fn an_epoch_that_began_before_the_latest_known_change_puts_everything_in_doubt() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    // A second epoch began elsewhere at 50; the first went on here until 60.
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 3))).map(until), Ok(SETTLING));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(
        tracker.known(0).unwrap().for_script(),
        CallerEpoch { id: 1, min_seq: 0, known_seq: 60, went_on: true },
        "a third one has to begin"
    );
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 4))).map(until), Ok(SETTLING));
    assert_eq!(read(&tracker, Some(epoch(3, 70, 70, 4))).map(until), Ok(70));
    assert_eq!(
        tracker.known(0).unwrap().for_script(),
        CallerEpoch { id: 0, min_seq: 0, known_seq: MAX_INTEGER, went_on: false }
    );

    // A change from before it began was lost with the rest of its epoch.
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 50))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 3))).map(until), Ok(50));
}

#[test]
fn another_epoch_puts_older_tokens_in_doubt_and_the_former_one_is_reported() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 0))).map(until), Ok(SETTLING));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(for_script(&tracker), (1, 0));
    // Until Redis has taken note, every token is in doubt.
    for seq in [0, 1, 1] {
        assert_eq!(read(&tracker, Some(epoch(2, 50, 0, seq))).map(until), Ok(SETTLING));
    }
    // A process that cannot report it takes it for a loss.
    tracker.cannot_report.store(true, Ordering::Relaxed);
    assert_eq!(tracker.doubt(&tracker.known(0).unwrap()), doubt(50));
    tracker.cannot_report.store(false, Ordering::Relaxed);
    assert_eq!(for_script(&tracker), (1, 0));
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 1))).map(until), Ok(50));
    assert_eq!(
        for_script(&tracker),
        (1, 0),
        "another process has reported it, but not how much this one knew"
    );
    // After that there is nothing to report.
    assert_eq!(run_script(&tracker, epoch(2, 50, 50, 1)), 50);
    assert_eq!(for_script(&tracker), (2, 1));
    assert_eq!(tracker.known(0).unwrap().epoch.doubt, doubt(50));
}

#[test]
fn another_epoch_with_a_doubt_is_believed_and_the_known_seq_of_the_former_one_is_reported() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 0))).map(until), Ok(50));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(
        tracker.known(0).unwrap().for_script(),
        CallerEpoch { id: 1, min_seq: 0, known_seq: 5, went_on: false }
    );
    assert_eq!(run_script(&tracker, epoch(2, 50, 50, 0)), 50);
    assert_eq!(for_script(&tracker), (2, 0));
    // Of several former epochs it is only reported that there were some: the first may not have
    // been reported yet.
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    for (n, started_at) in [(1, 10), (2, 50), (3, 90)] {
        read(&tracker, Some(epoch(n, started_at, started_at, 5))).unwrap();
    }
    assert_eq!(
        tracker.known(0).unwrap().for_script(),
        CallerEpoch { id: 0, min_seq: 0, known_seq: MAX_INTEGER, went_on: false }
    );
}

fn ended(id: u64, started_at: u64, seq: u64) -> Epoch {
    Epoch { doubt_ended_at: Some(ms(started_at + 20)), ..epoch(id, started_at, 0, seq) }
}

#[test]
fn a_process_that_knew_a_doubt_accepts_its_end() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(2, 50, 50, 3))).unwrap();
    let before = tracker.known(0);
    assert_eq!(read(&tracker, Some(ended(2, 50, 4))).map(until), Ok(0));
    assert!(!is_maintenance_due(&tracker));
    // An answer from before that is read late.
    let late = tracker
        .record(EpochSource::Checks, 0, before.as_ref(), epoch(2, 50, 50, 3), None)
        .map(until);
    assert_eq!(
        late.unwrap(),
        SETTLING,
        "the records may have been read before they were written again"
    );
    assert_eq!(read(&tracker, Some(ended(2, 50, 7))).map(until), Ok(0));
    // It is declared again for a process that came late and knew more.
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 7))).map(until), Ok(50));
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 8))).map(until), Ok(50));
}

#[test]
fn a_process_that_knew_the_former_epoch_doubts_until_redis_has_taken_note() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(ended(2, 50, 4))).map(until), Ok(SETTLING));
    assert_eq!(read(&tracker, Some(ended(2, 50, 6))).map(until), Ok(SETTLING));
    assert!(is_maintenance_due(&tracker));
    let other = EpochTracker::new(1, Duration::from_secs(1));
    read(&other, Some(epoch(1, 10, 0, 5))).unwrap();
    read(&other, Some(ended(2, 50, 6))).unwrap();
    // What the process knew was written again, or it was not.
    assert_eq!(run_script(&tracker, ended(2, 50, 6)), 0);
    assert_eq!(run_script(&other, epoch(2, 50, 50, 6)), 50);
    assert_eq!(for_script(&tracker), (2, 6));
}

#[test]
fn another_change_with_the_number_of_the_known_one_ends_the_epoch() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let early = tracker.known(0);
    let other = Epoch { last_entry: EntryId(77, 0), ..epoch(1, 10, 0, 5) };
    assert_eq!(read(&tracker, Some(other)), Err(StoreErrorKind::Settling));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(for_script(&tracker), (1, MAX_INTEGER));
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 6))), Err(StoreErrorKind::Settling));
    // The same if the known one was read while the question was under way.
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    tracker.record(EpochSource::Writes, 0, early.as_ref(), other, None).unwrap_err();
}

#[test]
fn the_latest_change_of_each_connection_is_remembered() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let at = |seq, last_entry| Epoch { last_entry: EntryId(last_entry, 0), ..epoch(1, 10, 0, seq) };
    let observe =
        |via, epoch| tracker.record(via, 0, tracker.known(0).as_ref(), epoch, None).map(until);
    for via in [EpochSource::Checks, EpochSource::Writes, EpochSource::Feed] {
        assert_eq!(observe(via, at(5, 50)).ok(), Some(0));
    }
    assert_eq!(tracker.known(0).unwrap().expected_entries(), [EntryId(50, 0)]);
    // From here on the writes go to another server, which is given one change more.
    assert_eq!(observe(EpochSource::Checks, at(6, 66)).ok(), Some(0));
    assert_eq!(observe(EpochSource::Writes, at(7, 60)).ok(), Some(0));
    assert_eq!(
        tracker.known(0).unwrap().expected_entries(),
        [50, 60, 66].map(|last_entry| EntryId(last_entry, 0))
    );
    // An epoch that begins there ends nothing that went on elsewhere for longer.
    assert_eq!(read(&tracker, Some(epoch(2, 65, 65, 7))).map(until), Ok(SETTLING));
    assert!(tracker.known(0).unwrap().for_script().went_on);
}

#[test]
fn known_epochs_keep_their_allocation_until_they_change() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let early = tracker.known(0);
    read(&tracker, Some(epoch(1, 10, 0, 6))).unwrap();
    let known = tracker.known(0).unwrap();
    tracker.record(EpochSource::Checks, 0, early.as_ref(), epoch(1, 10, 0, 6), None).unwrap();
    assert!(
        Arc::ptr_eq(&known, &tracker.known(0).unwrap()),
        "otherwise questions that are under way at once would not find it unchanged"
    );
}

#[test]
fn a_missing_entry_ends_the_epoch() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let known = tracker.known(0).unwrap();
    tracker.report_missing_entry(0, &known);
    assert!(is_maintenance_due(&tracker));
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 9))), Err(StoreErrorKind::Settling));
    assert_eq!(for_script(&tracker), (1, MAX_INTEGER));
    // An answer to a question from before does not hide it.
    tracker.record(EpochSource::Checks, 0, Some(&known), epoch(1, 10, 0, 9), None).unwrap_err();
    assert!(tracker.known(0).unwrap().lost);
    assert_eq!(read(&tracker, Some(epoch(2, 60, 60, 9))).map(until), Ok(60));
    assert!(!tracker.known(0).unwrap().lost);
}

#[test]
fn an_unreadable_epoch_is_an_error() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    for junk in ["", "1", "1 0000000000000001 1 0 0 0 0-0"] {
        let error = tracker.observe_value(FROM, 0, None, Some(junk.as_bytes())).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{junk}");
    }
    assert!(tracker.known(0).is_none());
}

#[test]
fn an_answer_to_a_question_without_knowledge_removes_none() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    // A question was sent before anything was known, and waits for long.
    let ignorant: Option<Arc<KnownEpoch>> = tracker.known(0);
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    // Then data is lost, and that question is the one that begins the next epoch.
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 0))).map(until), Ok(SETTLING));
    assert_eq!(
        tracker
            .record(EpochSource::Checks, 0, ignorant.as_ref(), epoch(2, 50, 0, 0), None)
            .map(until)
            .unwrap(),
        SETTLING
    );
    assert_eq!(for_script(&tracker), (1, 0), "it has not been reported yet");
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 0))).map(until), Ok(SETTLING));
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 1))).map(until), Ok(SETTLING));
}

#[test]
fn of_two_epochs_the_later_is_believed_if_the_question_knew_neither() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let ignorant: Option<Arc<KnownEpoch>> = tracker.known(0);
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let early = tracker.known(0);
    assert_eq!(
        tracker
            .record(EpochSource::Checks, 0, ignorant.as_ref(), epoch(2, 50, 0, 0), None)
            .map(until)
            .unwrap(),
        SETTLING
    );
    assert_eq!(for_script(&tracker), (1, 0));
    // From before the loss, but read after it.
    for before in [ignorant, early] {
        assert!(
            tracker
                .record(EpochSource::Checks, 0, before.as_ref(), epoch(1, 10, 0, 5), None)
                .is_err()
        );
        assert_eq!(for_script(&tracker), (1, 0));
    }

    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(2, 50, 0, 0))).unwrap();
    assert!(tracker.record(EpochSource::Checks, 0, None, epoch(1, 10, 0, 5), None).is_err());
    let known = tracker.known(0).unwrap();
    assert_eq!(tracker.doubt(&known), Doubt::Settling, "it was not the first one");
    assert!(is_maintenance_due(&tracker));
}

#[test]
fn an_epoch_that_has_come_back_is_ended() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    // Others may have written to the second epoch what this process never heard of.
    read(&tracker, Some(Epoch { last_entry: EntryId::default(), ..epoch(2, 50, 50, 0) })).unwrap();
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 5))).map(until), Ok(SETTLING));
    assert!(tracker.known(0).unwrap().for_script().went_on);
}

#[test]
fn a_doubt_that_is_gone_again_is_kept_and_declared_again() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(2, 50, 50, 3))).unwrap();
    assert!(!is_maintenance_due(&tracker));
    // A failover has lost it, and nothing else.
    assert_eq!(read(&tracker, Some(epoch(2, 50, 0, 3))).map(until), Ok(50));
    assert!(is_maintenance_due(&tracker));
    let (id, _) = for_script(&tracker);
    assert_ne!(id, 2, "the script declares it for callers that know another epoch");
    assert_eq!(read(&tracker, Some(epoch(2, 50, 50, 3))).map(until), Ok(50));
    assert_eq!(run_script(&tracker, epoch(2, 50, 50, 3)), 50);
    assert_eq!(for_script(&tracker), (2, 3));
}

#[test]
fn a_doubt_lasts_as_long_as_the_longest_tokens_that_are_expected() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 6))).unwrap(), Doubt::None);
    tracker.expect_tokens_for(Duration::from_secs(30));
    tracker.expect_tokens_for(Duration::from_secs(20));
    assert_eq!(tracker.doubt_duration(), Duration::from_secs(30), "for the next doubt");
    // Another process, which expects no token for so long, was faster.
    let lasting = |until, end| Doubt::Lasting { issued_until: ms(until), ends_at: ms(end) };
    let shorter = Epoch { doubt: lasting(50, 1050), ..epoch(2, 50, 50, 0) };
    assert_eq!(read(&tracker, Some(shorter)).unwrap(), lasting(50, 30_050));
    let longer = Epoch { doubt: lasting(70, 99_000), ..epoch(3, 70, 70, 0) };
    assert_eq!(read(&tracker, Some(longer)).unwrap(), lasting(70, 99_000));
}

// === Changes of server ===

/// The epoch by which another server carries on the one of this id.
fn carried_on(id: u64, parent: u64, started_at: u64, seq: u64) -> Epoch {
    Epoch { parent, ..epoch(id, started_at, 0, seq) }
}

fn settling(epoch: Epoch) -> Epoch {
    Epoch { settling: Some(SettlingState { since: epoch.started_at, awaited: 1 }), ..epoch }
}

#[test]
fn what_another_server_has_begun_proves_nothing_and_is_not_remembered() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let known = tracker.known(0);
    let elsewhere = Epoch { server: 78, ..epoch(1, 10, 0, 5) };
    assert_eq!(read(&tracker, Some(elsewhere)).map(until), Ok(SETTLING));
    assert!(is_maintenance_due(&tracker) && known.is_none() && tracker.known(0).is_none());
    // A replica that has become the primary has less than was known, which is no loss yet.
    read(&tracker, Some(epoch(1, 10, 0, 5))).unwrap();
    let behind = Epoch { server: 78, ..epoch(1, 10, 0, 3) };
    assert_eq!(read(&tracker, Some(behind)).map(until), Ok(SETTLING));
    assert_eq!(for_script(&tracker), (1, 5));
}

#[test]
fn a_server_that_does_not_tell_its_id_is_taken_at_its_word() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let from = ReadFrom { server: 0, ..FROM };
    let value = epoch(1, 10, 0, 5).print();
    let doubt = tracker.observe_value(from, 0, None, Some(value.as_bytes()));
    assert_eq!(doubt.unwrap(), Doubt::None);
    // Whoever can tell finds that nobody has said for which server the data holds.
    let unknown = Epoch { server: 0, ..epoch(1, 10, 0, 5) };
    assert_eq!(read(&tracker, Some(unknown)).map(until), Ok(SETTLING));
}

#[test]
fn an_epoch_that_is_carried_on_is_no_loss() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    let next = carried_on(2, 1, 50, 55);
    assert_eq!(read(&tracker, Some(settling(next))).map(until), Ok(SETTLING));
    assert!(is_maintenance_due(&tracker));
    assert_eq!(for_script(&tracker), (1, 0), "a third server need not know the second one");
    assert_eq!(tracker.known(0).unwrap().former, None);
    let over = Epoch { seq: 56, ..next };
    assert_eq!(read(&tracker, Some(over)).map(until), Ok(0));
    // A process that has missed one of them asks whether it is carried on.
    let late = EpochTracker::new(1, Duration::from_secs(1));
    read(&late, Some(epoch(1, 10, 0, 60))).unwrap();
    let third = carried_on(3, 2, 90, 70);
    assert_eq!(read(&late, Some(third)).map(until), Ok(SETTLING));
    assert_eq!(for_script(&late), (1, 0));
    assert_eq!(run_script(&late, third), 0);
    assert_eq!(for_script(&late), (3, 70));
    // One that has missed two, and has read the one between while that settled, asks the same.
    let late = EpochTracker::new(1, Duration::from_secs(1));
    read(&late, Some(epoch(1, 10, 0, 60))).unwrap();
    assert_eq!(read(&late, Some(settling(carried_on(3, 2, 90, 70)))).map(until), Ok(SETTLING));
    let fifth = carried_on(5, 4, 130, 80);
    assert_eq!(read(&late, Some(fifth)).map(until), Ok(SETTLING));
    assert_eq!(for_script(&late), (1, 0));
    assert_eq!(run_script(&late, fifth), 0);
}

#[test]
fn a_server_that_was_left_is_not_believed_and_changes_nothing() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    let early = tracker.known(0);
    read(&tracker, Some(carried_on(2, 1, 5, 55))).unwrap();
    let known = tracker.known(0).unwrap();
    assert_eq!(read(&tracker, Some(epoch(1, 10, 0, 61))).map(until), Ok(SETTLING));
    // The clock of the first server was ahead, and a question to it was under way.
    let late = tracker.record(EpochSource::Checks, 0, early.as_ref(), epoch(1, 10, 0, 61), None);
    assert_eq!(late.unwrap_err().kind(), StoreErrorKind::Settling);
    assert_eq!(*tracker.known(0).unwrap(), *known);
    // It has come back for good: the script says so, and has declared the doubt.
    assert_eq!(run_script(&tracker, epoch(1, 10, 99, 62)), 99);
}

#[test]
fn a_reply_of_the_former_server_does_not_end_the_settling_of_the_next_one() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    let next = settling(carried_on(2, 1, 50, 55));
    assert_eq!(read(&tracker, Some(next)).map(until), Ok(SETTLING));
    // The writes still go to the former primary, which runs the script as ever.
    let known = tracker.known(0);
    let late = tracker.observe_script_reply(0, known.as_ref(), epoch(1, 10, 0, 61));
    assert_eq!(late.unwrap_err().kind(), StoreErrorKind::Settling);
    assert_eq!(tracker.known(0), known);
    assert_eq!(read(&tracker, Some(next)).map(until), Ok(SETTLING));
}

#[tokio::test(start_paused = true)]
async fn what_was_known_for_long_is_reported_also_by_a_process_that_only_looks() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    let long_known = || tracker.known(0).unwrap().long_known().map(|known| known.seq);
    let probe = || tracker.note_kept(0, Instant::now());
    assert_eq!(long_known(), None);
    read(&tracker, Some(epoch(1, 10, 0, 61))).unwrap();
    tokio::time::advance(LONG).await;
    read(&tracker, Some(epoch(1, 10, 0, 61))).unwrap();
    probe();
    assert_eq!(long_known(), Some(61));
    // A steady stream of changes keeps none of them young for ever.
    for seq in 62..82 {
        tokio::time::advance(LONG / 5).await;
        read(&tracker, Some(epoch(1, 10, 0, seq))).unwrap();
        probe();
    }
    assert!(long_known() >= Some(70), "{:?}", long_known());
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_nobody_saw_what_the_server_has_does_not_count() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    read(&tracker, Some(epoch(1, 10, 0, 60))).unwrap();
    let long_known = || tracker.known(0).unwrap().long_known().map(|known| known.seq);
    let asked_at = Instant::now();
    // The process is suspended, and so reads late what it has asked before.
    tokio::time::advance(LONG * 8).await;
    tracker.note_kept(0, asked_at);
    assert_eq!(long_known(), None);
    read(&tracker, Some(settling(carried_on(2, 1, 50, 55)))).unwrap();
    assert_eq!(long_known(), None);
}

#[test]
fn an_answer_from_before_the_end_of_settling_is_read_late() {
    let tracker = EpochTracker::new(1, Duration::from_secs(1));
    let next = carried_on(2, 1, 50, 55);
    read(&tracker, Some(settling(next))).unwrap();
    let before = tracker.known(0);
    let over = Epoch { seq: 56, ..next };
    assert_eq!(read(&tracker, Some(over)).map(until), Ok(0));
    let late = tracker.record(EpochSource::Checks, 0, before.as_ref(), settling(next), None);
    assert_eq!(late.map(until).unwrap(), SETTLING);
    assert_eq!(read(&tracker, Some(over)).map(until), Ok(0));
}
