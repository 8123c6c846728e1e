//! What is written, what never is, and that sinks can be put together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};

use super::*;

/// A sink with a bounded queue.
struct Queue(SyncSender<AuditEvent>, AtomicU64);

impl Queue {
    fn with_room_for(events: usize) -> (Self, mpsc::Receiver<AuditEvent>) {
        let (queue, taken) = mpsc::sync_channel(events);
        (Self(queue, AtomicU64::new(0)), taken)
    }
}

impl AuditSink for Queue {
    fn record(&self, event: &AuditEvent) {
        if self.0.try_send(event.clone()).is_err() {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lost(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }
}

#[test]
fn an_event_is_a_flat_object_with_stable_fields() {
    let event = AuditEvent {
        at: Timestamp::from_millis(1_763_699_617_042),
        ..AuditEvent::new(AuditKind::RefreshReuse)
    };
    let event =
        event.with_subject(Some("al\nice")).with_family(Some("f")).with_reason(None).failed();
    assert_eq!(
        serde_json::to_string(&event).unwrap(),
        "{\"ts\":\"2025-11-21T04:33:37.042Z\",\"event\":\"refresh_reuse\",\"outcome\":\"error\",\
         \"sub\":\"al\\nice\",\"family_id\":\"f\"}"
    );
    assert_eq!((event.field("sub"), event.field("jti")), (Some("al\nice"), None));
}

#[test]
fn a_date_has_three_digits_of_milliseconds_and_four_of_the_year() {
    for (millis, date) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_007, "2000-02-29T00:00:00.007Z"),
        (4_107_542_399_100, "2100-02-28T23:59:59.100Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
        (u64::MAX, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(rfc3339(Timestamp::from_millis(millis)), date);
    }
}

#[test]
fn a_token_given_for_an_id_is_replaced() {
    let refresh = format!("fam.{}", "A".repeat(71));
    for token in ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", &refresh] {
        let event = AuditEvent::new(AuditKind::Login).with_token_id(Some(token));
        assert_eq!(event.field("jti"), Some("[a token]"));
    }
    for id in ["alice", "alice@example.org", "a.b.c", "3f0c.7"] {
        assert_eq!(presentable(id), id);
    }
    let refresh = format!("{}.{}", "B".repeat(22), "A".repeat(71));
    for token in ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "eyJhbGciOiJub25lIn0.e30.", &refresh]
    {
        for text in [format!("see {token}"), format!("\"{token}\","), format!("x={token}...")] {
            assert!(holds_token(&text), "{text}");
            assert_eq!(presentable(&text), "[a token]");
        }
    }
    for words in ["lost on the train", "see ticket 7.3.1", "eyes.are.blue", "a...b", ""] {
        assert!(!holds_token(words), "{words}");
    }
    assert_eq!(presentable(&"\u{e9}".repeat(600)).len(), 1024);
    assert_eq!(
        presentable(&format!("x{}", "\u{e9}".repeat(600))).len(),
        1023,
        "cut between characters"
    );
}

#[test]
fn what_several_sinks_have_lost_is_added_up() {
    let ((short, short_events), (long, long_events)) =
        (Queue::with_room_for(2), Queue::with_room_for(4));
    let sinks: Arc<dyn AuditSink> = Arc::new(vec![Arc::new(short), Arc::new(long)]);
    for _ in 0..5 {
        sinks.record(&AuditEvent::new(AuditKind::Login));
    }
    assert_eq!(sinks.lost(), 3 + 1);
    assert_eq!((short_events.try_iter().count(), long_events.try_iter().count()), (2, 4));
}
