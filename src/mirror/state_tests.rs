use super::*;
use crate::clock::Timestamp;
use crate::revocation::{Fact, Fingerprint};
use crate::store::StoreErrorKind;

/// A machine, and what its surroundings say.
struct Lab {
    machine: ShardMachine,
    now: Instant,
    sent: u64,
    is_fresh: bool,
}

impl Lab {
    fn new() -> Self {
        Self { machine: ShardMachine::new(0), now: Instant::now(), sent: 0, is_fresh: true }
    }

    /// Connected, loaded, and read up to this change of epoch 1.
    fn following(seq: u64) -> Self {
        let mut lab = Self::catching_up(seq);
        lab.read([]);
        assert!(matches!(lab.machine.state, FollowState::Following { .. }));
        lab
    }

    fn catching_up(seq: u64) -> Self {
        let mut lab = Self::new();
        lab.machine.connected();
        lab.beat(1, seq);
        lab.load(1, seq);
        lab
    }

    fn context(&self) -> EventContext {
        EventContext { now: self.now, is_fresh: self.is_fresh, replay_at: self.now }
    }

    /// The moments of heartbeats differ by their wall clock.
    fn moment(&self, sent: u64) -> Moment {
        Moment { mono: self.now, wall: Timestamp::from_millis(sent) }
    }

    fn hear(&mut self, heartbeat: &Heartbeat) -> Moment {
        self.sent += 1;
        let (sent, context) = (self.moment(self.sent), self.context());
        self.machine.heartbeat(heartbeat, sent, context);
        sent
    }

    fn beat(&mut self, epoch: u64, seq: u64) -> Moment {
        self.hear(&heartbeat(epoch, seq, Doubt::None))
    }

    fn load(&mut self, epoch: u64, seq: u64) {
        let context = self.context();
        let start = heartbeat(epoch, seq, Doubt::None);
        self.machine.snapshot_loaded(u128::from(seq), &start, context);
    }

    fn read(&mut self, entries: impl IntoIterator<Item = LogEntry>) {
        let (entries, context) = (entries.into_iter().collect::<Vec<_>>(), self.context());
        self.machine.entries_read(&entries, context);
    }

    fn resync(&self) -> Option<Resync> {
        match self.machine.state {
            FollowState::Loading { reason } => reason,
            _ => None,
        }
    }

    fn pending(&self) -> PendingProof {
        match self.machine.state {
            FollowState::CatchingUp { pending, .. } | FollowState::Following { pending, .. } => {
                pending
            }
            _ => panic!("{:?}", self.machine.state),
        }
    }

    fn disconnect(&mut self) {
        self.machine.disconnected(error());
    }
}

fn error() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "as the test wants it")
}

fn heartbeat(epoch: u64, seq: u64, doubt: Doubt) -> Heartbeat {
    Heartbeat::new(epoch, seq, Timestamp::from_secs(100), doubt)
}

fn entry(epoch: u64, seq: u64) -> LogEntry {
    let fingerprint = Fingerprint::from_bytes([7; 16]);
    LogEntry { id: u128::from(seq), epoch, seq, fingerprint, fact: Fact::default() }
}

fn lasting(issued_until: u64) -> Doubt {
    Doubt::Lasting {
        issued_until: Timestamp::from_secs(issued_until),
        ends_at: Timestamp::from_secs(issued_until + 1000),
    }
}

/// What happens to a machine.
type Event = fn(&mut Lab);

#[test]
fn connecting_leads_to_loading_without_a_position() {
    let mut lab = Lab::new();
    assert!(!lab.machine.needs_snapshot());
    lab.machine.connected();
    assert!(lab.machine.needs_snapshot());
    assert_eq!(lab.machine.next_read(Duration::from_secs(1), lab.now), None);
    assert_eq!(lab.machine.progress("m".into(), Duration::ZERO).epoch, 0);
}

#[test]
fn loading_leads_to_catching_up_where_the_log_is_read_at_once_and_nothing_is_proved() {
    let mut lab = Lab::catching_up(5);
    assert!(matches!(lab.machine.state, FollowState::CatchingUp { .. }));
    let read = lab.machine.next_read(Duration::from_secs(1), lab.now);
    assert_eq!(read, Some((5, Duration::ZERO)));
    lab.beat(1, 5);
    assert_eq!(lab.machine.proof(), None);
    let progress = lab.machine.progress("m".into(), Duration::from_secs(2));
    assert_eq!((progress.epoch, progress.seq), (1, 5));
}

#[test]
fn catching_up_leads_to_following_when_the_log_was_read_and_then_a_heartbeat_proves() {
    let mut lab = Lab::following(5);
    assert_eq!(lab.machine.proof(), None, "the heartbeat came before the log was read");
    let sent = lab.beat(1, 5);
    assert_eq!(lab.machine.proof(), Some(sent));
    let read = lab.machine.next_read(Duration::from_secs(1), lab.now);
    assert_eq!(read, Some((5, Duration::from_secs(1))));
}

#[test]
fn a_heartbeat_that_is_ahead_proves_when_its_changes_are_applied_and_the_first_one_counts() {
    let mut lab = Lab::following(5);
    let sent = lab.beat(1, 7);
    lab.beat(1, 8);
    assert_eq!(lab.pending(), PendingProof::AtSeq { seq: 7, sent });
    lab.read([entry(1, 6)]);
    assert_eq!(lab.machine.proof(), None);
    lab.read([entry(1, 7)]);
    assert_eq!((lab.machine.proof(), lab.pending()), (Some(sent), PendingProof::None));
    assert_eq!((lab.machine.status.applied, lab.machine.status.known), (7, 8));
}

#[test]
fn following_leads_to_loading_for_each_thing_that_is_missing() {
    let cases: [(Resync, Event); 8] = [
        (Resync::Gap, |lab| lab.read([entry(1, 7)])),
        (Resync::Gap, |lab| lab.read([entry(1, 6), entry(1, 8)])),
        (Resync::Trimmed, |lab| {
            lab.beat(1, 6);
            lab.read([]);
        }),
        (Resync::NewEpoch, |lab| {
            lab.read([entry(2, 1)]);
            lab.beat(2, 1);
        }),
        (Resync::NewEpoch, |lab| {
            lab.read([entry(2, 1)]);
            lab.beat(1, 5);
        }),
        (Resync::NewEpoch, |lab| _ = lab.beat(2, 9)),
        (Resync::Regression, |lab| _ = lab.beat(1, 4)),
        (Resync::Regression, |lab| lab.read([entry(1, 6), entry(1, 6)])),
    ];
    for (n, (expected, event)) in cases.into_iter().enumerate() {
        for mut lab in [Lab::following(5), Lab::catching_up(5)] {
            event(&mut lab);
            assert_eq!(lab.resync(), Some(expected), "case {n}");
            lab.load(2, 9);
            let status = &lab.machine.status;
            assert_eq!((status.resyncs, status.last_resync), (1, Some(expected)), "case {n}");
        }
    }
}

#[test]
fn entries_that_the_snapshot_had_may_come_again_until_the_first_new_one() {
    let mut lab = Lab::catching_up(5);
    lab.read([entry(1, 4), entry(1, 5), entry(1, 6)]);
    assert_eq!((lab.resync(), lab.machine.status.applied), (None, 6));
    lab.read([entry(1, 5)]);
    assert_eq!(lab.resync(), Some(Resync::Regression));
}

#[test]
fn an_error_keeps_the_position_and_drops_what_the_connection_was_about_to_prove() {
    let mut lab = Lab::following(5);
    lab.beat(1, 7);
    lab.disconnect();
    assert_eq!(lab.machine.status.phase, Phase::Connecting);
    lab.machine.connected();
    assert!(matches!(lab.machine.state, FollowState::CatchingUp { .. }));
    assert_eq!(lab.pending(), PendingProof::None);
    lab.read([entry(1, 6), entry(1, 7)]);
    assert_eq!(lab.machine.proof(), None);
}

#[test]
fn an_error_while_loading_keeps_the_reason() {
    let mut lab = Lab::following(5);
    lab.read([entry(1, 9)]);
    lab.disconnect();
    lab.machine.connected();
    assert_eq!(lab.resync(), Some(Resync::Gap));
}

#[test]
fn a_panic_drops_the_position() {
    let mut lab = Lab::following(5);
    lab.machine.panicked(error());
    assert_eq!(lab.machine.status.restarts, 1);
    lab.machine.connected();
    assert_eq!(lab.resync(), Some(Resync::Panic));
}

#[test]
fn without_a_lease_nothing_is_proved() {
    let mut lab = Lab::following(5);
    lab.beat(1, 7);
    let refused = heartbeat(1, 7, Doubt::None).without_lease(error());
    lab.hear(&refused);
    assert_eq!((lab.machine.lease, lab.pending()), (LeaseState::Refused, PendingProof::None));
    lab.read([entry(1, 6), entry(1, 7)]);
    lab.hear(&refused);
    assert_eq!(lab.machine.proof(), None);
    assert!(lab.machine.status.error.is_some());
    let sent = lab.beat(1, 7);
    assert_eq!((lab.machine.lease, lab.machine.proof()), (LeaseState::Granted, Some(sent)));
    assert!(lab.machine.status.error.is_none());
}

#[test]
fn a_wider_doubt_counts_at_once_and_a_smaller_one_when_its_changes_are_applied() {
    let mut lab = Lab::following(5);
    lab.hear(&heartbeat(1, 5, lasting(50)));
    assert_eq!(lab.machine.status.doubt, lasting(50));
    // The first that says so counts.
    lab.hear(&heartbeat(1, 7, Doubt::None));
    lab.hear(&heartbeat(1, 9, Doubt::None));
    lab.read([entry(1, 6)]);
    assert_eq!(lab.machine.status.doubt, lasting(50));
    lab.read([entry(1, 7)]);
    assert_eq!(lab.machine.status.doubt, Doubt::None);
    lab.hear(&heartbeat(1, 9, lasting(60)));
    lab.hear(&heartbeat(1, 9, Doubt::None));
    lab.hear(&heartbeat(1, 9, lasting(70)));
    lab.read([entry(1, 8), entry(1, 9)]);
    assert_eq!(lab.machine.status.doubt, lasting(70), "it was taken up again");
}

#[test]
fn while_the_store_settles_every_token_is_in_doubt_until_what_was_put_back_is_applied() {
    let mut lab = Lab::following(5);
    lab.hear(&heartbeat(1, 5, lasting(50)));
    lab.hear(&heartbeat(1, 5, Doubt::Settling));
    assert_eq!(lab.machine.status.doubt, Doubt::Settling);
    for after in [lasting(60), Doubt::None] {
        lab.hear(&heartbeat(1, 7, Doubt::Settling));
        lab.hear(&heartbeat(1, 7, after));
        assert_eq!(lab.machine.status.doubt, Doubt::Settling, "changes up to 7 are missing");
        lab.read([entry(1, 6), entry(1, 7)]);
        assert_eq!(lab.machine.status.doubt, after);
        lab = Lab::following(5);
    }
}

#[test]
fn a_store_that_settles_has_lost_nothing_that_is_known_of_and_ends_that_by_itself() {
    let later = |lab: &Lab| lab.now + Duration::from_secs(6);
    let mut lab = Lab::following(5);
    lab.beat(1, 5);
    // The mirror stays one that knows everything …
    lab.hear(&heartbeat(1, 5, Doubt::Settling));
    lab.hear(&heartbeat(2, 0, Doubt::Settling));
    lab.load(2, 0);
    lab.machine.replay_done(0);
    lab.hear(&heartbeat(2, 0, Doubt::Settling));
    assert_eq!(lab.machine.doubt_to_end(later(&lab)), None);
    // … and ends a doubt that lasts.
    lab.hear(&heartbeat(2, 0, lasting(50)));
    assert!(lab.machine.doubt_to_end(later(&lab)).is_some());
}

#[test]
fn after_a_loss_the_doubt_may_be_ended_by_a_mirror_that_had_applied_everything_it_knew_of() {
    let later = |lab: &Lab| lab.now + Duration::from_secs(6);
    let cases: [(bool, Event); 4] = [
        (true, |lab| _ = lab.hear(&heartbeat(2, 0, lasting(50)))),
        // It knew of a change that it had not applied.
        (false, |lab| {
            lab.beat(1, 6);
            lab.hear(&heartbeat(2, 0, lasting(50)));
        }),
        // It was not fresh.
        (false, |lab| {
            lab.is_fresh = false;
            lab.hear(&heartbeat(2, 0, lasting(50)));
        }),
        // A gap is no loss of the store.
        (false, |lab| lab.read([entry(1, 7)])),
    ];
    for (n, (may_end, event)) in cases.into_iter().enumerate() {
        let mut lab = Lab::following(5);
        lab.beat(1, 5);
        event(&mut lab);
        assert!(lab.machine.replay().is_none(), "first the snapshot");
        assert_eq!(lab.machine.doubt_to_end(later(&lab)), None, "first the snapshot");
        lab.load(2, 0);
        lab.machine.replay_done(0);
        lab.hear(&heartbeat(2, 0, lasting(50)));
        let request = lab.machine.doubt_to_end(later(&lab));
        assert_eq!(request.is_some(), may_end, "case {n}");
        if let Some(request) = request {
            assert_eq!((request.former_epoch, request.seq, request.epoch), (1, 5, 2));
            assert_eq!(request.issued_until, Timestamp::from_secs(50));
            lab.machine.doubt_end_answered(true);
            assert_eq!(lab.machine.status.doubts_ended, 1);
        }
    }
}

#[test]
fn a_loss_that_is_noticed_by_the_snapshot_alone_is_replayed_too() {
    let mut lab = Lab::following(5);
    lab.read([entry(1, 9)]);
    lab.load(2, 0);
    assert!(lab.machine.replay().is_some());
}

// === Another server ===

/// A heartbeat of an epoch that carries on another.
fn carrying_on(parent: u64, epoch: u64, seq: u64, doubt: Doubt) -> Heartbeat {
    heartbeat(epoch, seq, doubt).carrying_on(parent)
}

/// An entry at another place than its number.
fn entry_at(id: u128, epoch: u64, seq: u64) -> LogEntry {
    LogEntry { id, ..entry(epoch, seq) }
}

/// Has read changes 6 to `seq` of epoch 1, one each second, and is fresh.
fn read_up_to(seq: u64) -> Lab {
    let mut lab = Lab::following(5);
    for n in 6..=seq {
        lab.now += Duration::from_secs(1);
        lab.read([entry(1, n)]);
    }
    lab.beat(1, seq);
    lab
}

impl Lab {
    /// Reads what another server has in its log from where the machine asks.
    fn read_of(&mut self, log: &[LogEntry]) {
        let (after, _) = self.machine.next_read(Duration::from_secs(1), self.now).unwrap();
        self.read(log.iter().filter(|entry| entry.id > after).copied());
    }

    /// Goes on until the log has been joined, or a snapshot has to be taken.
    fn join(&mut self, log: &[LogEntry]) {
        for _ in 0..100 {
            if !matches!(self.machine.state, FollowState::Joining(_)) {
                return;
            }
            self.read_of(log);
        }
        panic!("{:?}", self.machine.state);
    }

    fn is_replaying(&mut self) -> bool {
        self.machine.recovery.replay().is_some()
    }
}

#[test]
fn at_another_server_it_waits_for_its_epoch_though_that_server_has_fewer_changes() {
    let mut lab = read_up_to(9);
    let proof = lab.machine.proof();
    lab.disconnect();
    lab.machine.connected();
    lab.hear(&heartbeat(1, 7, Doubt::Settling));
    lab.read([]);
    lab.hear(&heartbeat(1, 7, Doubt::Settling));
    assert_eq!((lab.resync(), lab.machine.proof()), (None, proof));
    assert_eq!(lab.machine.status.doubt, Doubt::Settling);
    assert!(!lab.is_replaying());
    // The same without an excuse.
    lab.beat(1, 7);
    assert_eq!(lab.resync(), Some(Resync::Regression));
}

#[test]
fn the_log_of_another_server_is_joined_at_the_latest_entry_that_it_has() {
    let mut lab = read_up_to(9);
    lab.hear(&carrying_on(1, 2, 10, Doubt::Settling));
    assert_eq!(lab.machine.next_read(Duration::from_secs(1), lab.now), Some((8, Duration::ZERO)));
    assert_eq!(lab.machine.progress("m".into(), Duration::ZERO).epoch, 0, "no position yet");
    let log: Vec<_> = (1..=9).map(|n| entry(1, n)).chain([entry(2, 10)]).collect();
    lab.join(&log);
    assert_eq!((lab.machine.status.epoch, lab.machine.status.applied), (2, 10));
    assert!(!lab.is_replaying(), "the server has everything");
    // What the writers put back, and the end of settling.
    lab.read([entry(2, 11), entry(2, 12)]);
    lab.hear(&carrying_on(1, 2, 13, Doubt::None));
    assert_eq!(lab.machine.status.doubt, Doubt::Settling, "one change is missing");
    lab.read([entry(2, 13)]);
    assert_eq!(lab.machine.status.doubt, Doubt::None);
    let sent = lab.hear(&carrying_on(1, 2, 13, Doubt::None));
    assert_eq!((lab.machine.proof(), lab.machine.status.resyncs), (Some(sent), 0));
}

/// The clock of the new server is behind, so its entries come before those that were read, with the
/// same numbers.
#[test]
fn changes_of_a_server_whose_clock_is_behind_are_not_skipped() {
    let mut lab = Lab::following(5);
    for n in 6..=9 {
        lab.now += Duration::from_secs(1);
        lab.read([entry_at(u128::from(n) * 100, 1, n)]);
    }
    // It has up to 7, and has gone on from there.
    let log = [
        entry_at(600, 1, 6),
        entry_at(700, 1, 7),
        entry_at(701, 2, 8),
        entry_at(702, 2, 9),
        entry_at(901, 2, 10),
    ];
    lab.hear(&carrying_on(1, 2, 10, Doubt::None));
    lab.join(&log);
    assert_eq!((lab.resync(), lab.machine.status.applied), (None, 10));
    assert!(lab.is_replaying(), "changes 8 and 9 of the former epoch are missing there");
    let sent = lab.hear(&carrying_on(1, 2, 10, Doubt::None));
    assert_eq!(lab.machine.proof(), Some(sent));
    // A gap where the new epoch begins.
    let mut lab = read_up_to(9);
    lab.hear(&carrying_on(1, 2, 10, Doubt::None));
    lab.join(&[entry(1, 9), entry_at(11, 2, 11)]);
    assert_eq!(lab.resync(), Some(Resync::NewEpoch));
}

#[test]
fn nothing_of_a_former_epoch_counts_as_a_proof_or_ends_a_doubt_in_the_new_one() {
    let mut lab = read_up_to(200);
    let proof = lab.machine.proof();
    lab.hear(&heartbeat(1, 50, Doubt::Settling));
    // The new epoch has fewer numbers than the former one had.
    lab.hear(&carrying_on(1, 2, 52, Doubt::None));
    let log: Vec<_> = (1..=50).map(|n| entry(1, n)).collect();
    let mut more = log.clone();
    more.extend([entry_at(51, 2, 51), entry_at(52, 2, 52)]);
    for _ in 0..100 {
        if !matches!(lab.machine.state, FollowState::Joining(_)) {
            break;
        }
        // The read ends before the entries of the new epoch.
        lab.read_of(&log);
        if lab.resync().is_none() {
            assert_eq!(lab.machine.status.doubt, Doubt::Settling);
            lab.hear(&carrying_on(1, 2, 52, Doubt::None));
            assert_eq!((lab.machine.status.doubt, lab.machine.proof()), (Doubt::Settling, proof));
        }
    }
    // The checkpoints go back by 64 changes; number 50 is older than all of them.
    assert_eq!(lab.resync(), Some(Resync::NewEpoch));
    assert!(lab.is_replaying());

    let mut lab = read_up_to(60);
    let proof = lab.machine.proof();
    lab.hear(&heartbeat(1, 50, Doubt::Settling));
    lab.hear(&carrying_on(1, 2, 52, Doubt::None));
    lab.join(&log);
    assert_eq!((lab.resync(), lab.machine.status.epoch), (None, 1));
    lab.hear(&carrying_on(1, 2, 52, Doubt::None));
    assert_eq!((lab.machine.status.doubt, lab.machine.proof()), (Doubt::Settling, proof));
    assert_eq!(lab.machine.doubt_to_end(lab.now + Duration::from_secs(60)), None);
    lab.read_of(&more);
    assert_eq!((lab.machine.status.doubt, lab.machine.status.applied), (Doubt::None, 52));
    assert!(lab.is_replaying());
}

#[test]
fn without_a_common_entry_a_snapshot_is_taken_and_nothing_counts_as_lost() {
    let logs: [&[LogEntry]; 3] = [&[], &[entry_at(9, 2, 10)], &[entry_at(900, 1, 90)]];
    for log in logs {
        let mut lab = read_up_to(9);
        lab.hear(&carrying_on(1, 2, 10, Doubt::None));
        lab.join(log);
        assert_eq!(lab.resync(), Some(Resync::NewEpoch));
        lab.load(2, 10);
        assert!(lab.is_replaying(), "it may not have everything");
        lab.machine.replay_done(0);
        lab.hear(&carrying_on(1, 2, 10, lasting(50)));
        let later = lab.now + Duration::from_secs(60);
        assert_eq!(lab.machine.doubt_to_end(later), None, "nobody knows what else there was");
    }
}

#[test]
fn a_log_that_nothing_was_read_of_is_joined_at_the_snapshot_or_at_its_beginning() {
    // The last entry before the snapshot, which had one change more.
    let mut lab = Lab::new();
    lab.machine.connected();
    let context = lab.context();
    lab.machine.snapshot_loaded(4, &heartbeat(1, 5, Doubt::None), context);
    lab.hear(&carrying_on(1, 2, 6, Doubt::Settling));
    lab.join(&[entry(1, 3), entry(1, 4), entry(1, 5), entry(2, 6)]);
    assert_eq!((lab.resync(), lab.machine.status.applied), (None, 6));
    assert!(!lab.is_replaying());
    // Nothing was ever written.
    let mut lab = Lab::following(0);
    lab.hear(&carrying_on(1, 2, 1, Doubt::Settling));
    lab.join(&[entry(2, 1)]);
    assert_eq!((lab.resync(), lab.machine.status.epoch), (None, 2));
    // The beginning of the log is not there any more.
    let mut lab = Lab::following(0);
    lab.hear(&carrying_on(1, 2, 90, Doubt::Settling));
    lab.join(&[entry(2, 90)]);
    assert_eq!(lab.resync(), Some(Resync::NewEpoch));
}

#[test]
fn an_epoch_that_no_heartbeat_has_named_is_not_entered_before_one_has() {
    let mut lab = read_up_to(9);
    lab.hear(&heartbeat(1, 9, Doubt::Settling));
    lab.read([entry_at(10, 1, 10), entry_at(11, 2, 11)]);
    assert_eq!((lab.resync(), lab.machine.status.applied), (None, 10));
    lab.hear(&carrying_on(1, 2, 11, Doubt::Settling));
    lab.join(&[entry_at(10, 1, 10), entry_at(11, 2, 11)]);
    assert_eq!((lab.resync(), lab.machine.status.epoch), (None, 2));
    // It carries on nothing, or the heartbeat knows nothing of it.
    for next in [heartbeat(2, 11, lasting(50)), heartbeat(1, 10, Doubt::Settling)] {
        let mut lab = read_up_to(9);
        lab.hear(&heartbeat(1, 9, Doubt::Settling));
        lab.read([entry_at(10, 1, 10), entry_at(11, 2, 11)]);
        lab.hear(&next);
        assert_eq!(lab.resync(), Some(Resync::NewEpoch));
    }
}

#[test]
fn two_changes_of_server_are_followed_if_a_heartbeat_came_between_them() {
    let log = [entry(1, 9), entry(2, 10), entry(2, 11), entry(3, 12)];
    // Before the first was joined, and after that.
    for is_joined in [false, true] {
        let mut lab = read_up_to(9);
        lab.hear(&carrying_on(1, 2, 10, Doubt::Settling));
        if is_joined {
            lab.join(&log[..3]);
        }
        lab.hear(&carrying_on(2, 3, 12, Doubt::Settling));
        lab.join(&log);
        assert_eq!((lab.resync(), lab.machine.status.epoch), (None, 3));
        assert!(!lab.is_replaying());
    }
    // The third has nothing of what the second had begun.
    let mut lab = read_up_to(9);
    lab.hear(&carrying_on(1, 2, 10, Doubt::Settling));
    lab.join(&log[..3]);
    lab.hear(&heartbeat(1, 9, Doubt::Settling));
    lab.hear(&carrying_on(1, 3, 10, Doubt::Settling));
    lab.join(&[entry(1, 8), entry(1, 9), entry_at(10, 3, 10)]);
    assert_eq!((lab.resync(), lab.machine.status.epoch), (None, 3));
    assert!(lab.is_replaying(), "change 11 is not there");
    // None came: what was between is not known.
    let mut lab = read_up_to(9);
    lab.hear(&carrying_on(2, 3, 12, Doubt::Settling));
    assert_eq!(lab.resync(), Some(Resync::NewEpoch));
    lab.load(3, 12);
    lab.beat(3, 12);
    assert!(lab.is_replaying());
}

#[test]
fn an_error_while_a_log_is_joined_begins_that_again() {
    let mut lab = read_up_to(9);
    lab.hear(&carrying_on(1, 2, 10, Doubt::Settling));
    lab.disconnect();
    lab.machine.connected();
    assert_eq!(lab.machine.next_read(Duration::from_secs(1), lab.now), Some((8, Duration::ZERO)));
    lab.hear(&carrying_on(1, 2, 10, Doubt::Settling));
    lab.join(&[entry(1, 9), entry(2, 10)]);
    assert_eq!((lab.resync(), lab.machine.status.epoch), (None, 2));
}

#[test]
fn what_is_missing_on_the_way_into_the_new_epoch_is_a_gap_and_no_loss() {
    for log in [
        vec![entry(1, 8), entry_at(20, 2, 20)],
        vec![entry(1, 8), entry_at(20, 1, 10), entry_at(21, 2, 11)],
    ] {
        let mut lab = read_up_to(8);
        lab.hear(&carrying_on(1, 2, 20, Doubt::None));
        lab.join(&log);
        assert!(lab.resync().is_some());
        lab.machine.snapshot_loaded(21, &carrying_on(1, 2, 20, Doubt::None), lab.context());
        lab.hear(&carrying_on(1, 2, 20, lasting(50)));
        lab.machine.replay_done(0);
        assert_eq!(lab.machine.doubt_to_end(lab.now + Duration::from_secs(60)), None);
    }
}

#[test]
fn a_replay_that_is_under_way_begins_again_at_another_server() {
    let mut lab = read_up_to(9);
    lab.hear(&heartbeat(2, 0, lasting(50)));
    lab.load(2, 0);
    lab.read([]);
    lab.machine.replay_done(0);
    assert!(!lab.is_replaying());
    lab.hear(&carrying_on(2, 3, 1, lasting(50)));
    lab.join(&[entry(3, 1)]);
    assert!(lab.is_replaying(), "what was replayed may not be there");
    let later = lab.now + Duration::from_secs(60);
    assert_eq!(lab.machine.doubt_to_end(later), None);
    lab.machine.replay_done(0);
    assert_eq!(lab.machine.doubt_to_end(later).unwrap().epoch, 3);
}
