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
    let cases: [(Resync, Event); 7] = [
        (Resync::Gap, |lab| lab.read([entry(1, 7)])),
        (Resync::Gap, |lab| lab.read([entry(1, 6), entry(1, 8)])),
        (Resync::Trimmed, |lab| {
            lab.beat(1, 6);
            lab.read([]);
        }),
        (Resync::NewEpoch, |lab| lab.read([entry(2, 1)])),
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
