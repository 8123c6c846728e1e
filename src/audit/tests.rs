//! What is written, what never is, and what a bad sink costs.

use std::sync::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that waits until it is let go.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Memory(Mutex<Vec<AuditEvent>>);

impl AuditSink for Memory {
    fn record(&self, event: &AuditEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn an_event_is_one_line_of_json() {
    let paper = Paper::default();
    let sink = JsonLinesSink::new(paper.clone()).unwrap();
    let event = AuditEvent {
        at: Timestamp::from_millis(1_763_699_617_042),
        ..AuditEvent::new(AuditKind::RefreshReuse)
    };
    sink.record(
        &event.with_subject(Some("al\nice")).with_family(Some("f")).with_reason(None).failed(),
    );
    assert!(sink.flush(Duration::from_secs(10)));
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    assert_eq!(
        text,
        "{\"ts\":\"2025-11-21T04:33:37.042Z\",\"event\":\"refresh_reuse\",\"outcome\":\"error\",\"sub\":\"al\\nice\",\"family_id\":\"f\"}\n"
    );
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (secs, date) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_800, "2000-03-01T00:00:00.000Z"),
        (4_107_542_399, "2100-02-28T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(rfc3339(Timestamp::from_secs(secs)), date);
    }
}

#[test]
fn a_token_given_for_an_id_is_blotted_out() {
    let refresh = format!("fam.{}", "A".repeat(71));
    for token in ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", &refresh] {
        let event = AuditEvent::new(AuditKind::Login).with_token_id(Some(token));
        assert_eq!(event.field("jti"), Some("[a token]"));
    }
    for id in ["alice", "alice@example.org", "a.b.c", "3f0c.7"] {
        assert_eq!(presentable(id), id);
    }
    assert_eq!(presentable(&"\u{e9}".repeat(600)).len(), 1024);
    assert_eq!(
        presentable(&format!("x{}", "\u{e9}".repeat(600))).len(),
        1023,
        "cut between characters"
    );
}

#[test]
fn a_stuck_sink_costs_events_and_no_time() {
    let (let_go, stuck) = mpsc::channel();
    let sink = JsonLinesSink::new(Stuck(stuck)).unwrap();
    let count = QUEUE_LENGTH as u64 + 100;
    for _ in 0..count {
        sink.record(&AuditEvent::new(AuditKind::Login));
    }
    // One may have left the queue for the writer that is stuck.
    assert!((99..=100).contains(&sink.lost()), "{}", sink.lost());
    assert!(!sink.flush(Duration::from_millis(1)));
    drop(let_go);
}

#[test]
fn a_line_that_was_cut_short_costs_no_other() {
    /// Takes half of the first line, and then nothing of it.
    struct Torn(Paper, u32);
    impl Write for Torn {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1 => self.0.write(&bytes[..bytes.len() / 2]),
                2 => Err(io::Error::other("no room")),
                _ => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let paper = Paper::default();
    let sink = JsonLinesSink::new(Torn(paper.clone(), 0)).unwrap();
    for user in ["alice", "bob", "carol"] {
        sink.record(&AuditEvent::new(AuditKind::Login).with_subject(Some(user)));
    }
    assert!(sink.flush(Duration::from_secs(10)));
    assert_eq!(sink.lost(), 1);
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    let users: Vec<_> = text.lines().filter_map(read).map(|event| event["sub"].clone()).collect();
    assert_eq!(users, ["bob", "carol"], "{text}");
}

#[test]
fn to_wait_for_a_full_queue_is_to_wait() {
    let (let_go, stuck) = mpsc::channel();
    let sink = JsonLinesSink::new(Stuck(stuck)).unwrap();
    while sink.lost() == 0 {
        sink.record(&AuditEvent::new(AuditKind::Login));
    }
    assert!(!sink.flush(Duration::ZERO));
    let waiter = std::thread::spawn(move || sink.flush(Duration::from_secs(60)));
    std::thread::yield_now();
    drop(let_go);
    assert!(waiter.join().unwrap());
}

#[test]
fn refusals_are_sampled_and_nothing_else_is() {
    let memory = Arc::new(Memory::default());
    let sink = SampledSink::new(Arc::clone(&memory), 10);
    for _ in 0..25 {
        sink.record(&AuditEvent::new(AuditKind::RevokedRefused));
        sink.record(&AuditEvent::new(AuditKind::UncheckedAdmit));
    }
    let kinds: Vec<_> = memory.0.lock().unwrap().iter().map(AuditEvent::kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == AuditKind::RevokedRefused).count(), 3);
    assert_eq!(kinds.iter().filter(|kind| **kind == AuditKind::UncheckedAdmit).count(), 25);
}
