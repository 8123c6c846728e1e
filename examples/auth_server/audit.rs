//! Audit events: to a file as JSON, one object per line, or to the log.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tower_jwt_revocation::audit::{AuditEvent, AuditSink, TracingSink};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

/// So many lines wait for the disk; one more is lost, and counted.
const QUEUE_LENGTH: usize = 4096;

/// The sink, and with a file what has to be dropped at the very end: it waits until the queue is
/// written, for a second at most.
pub(crate) fn open(file: Option<&Path>) -> io::Result<(Arc<dyn AuditSink>, Option<WorkerGuard>)> {
    let Some(path) = file else {
        return Ok((Arc::new(TracingSink::default()), None));
    };
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let not_written = Arc::new(AtomicU64::new(0));
    let lines = Lines { file, is_torn: false, not_written: Arc::clone(&not_written) };
    let (queue, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LENGTH).finish(lines);
    Ok((Arc::new(JsonLines { queue, not_written }), Some(guard)))
}

struct JsonLines {
    queue: NonBlocking,
    not_written: Arc<AtomicU64>,
}

impl AuditSink for JsonLines {
    fn record(&self, event: &AuditEvent) {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        let _counted_if_it_was_lost = self.queue.clone().write_all(&line);
    }

    fn lost(&self) -> u64 {
        let without_room = self.queue.error_counter().dropped_lines() as u64;
        without_room + self.not_written.load(Ordering::Relaxed)
    }
}

/// A file that is given whole lines. It counts those that it cannot write.
struct Lines<W> {
    file: W,
    /// Whether the last line may have been written in part: it must not spoil the next one.
    is_torn: bool,
    not_written: Arc<AtomicU64>,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    // One write per line: where several processes append to a file, their lines do not mix.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let end_of_the_torn = if self.is_torn { &b"\n"[..] } else { &[] };
        let written = self.file.write_all(&[end_of_the_torn, line].concat());
        self.is_torn = written.is_err();
        self.not_written.fetch_add(u64::from(self.is_torn), Ordering::Relaxed);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tower_jwt_revocation::audit::AuditKind;

    use super::*;

    /// Takes half of the first line, and then nothing of it.
    struct FullDisk(Arc<Mutex<Vec<u8>>>, u32);

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1 => self.0.lock().unwrap().write(&bytes[..bytes.len() / 2]),
                2 => Err(io::Error::other("no room")),
                _ => self.0.lock().unwrap().write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let (written, not_written) = (Arc::default(), Arc::new(AtomicU64::new(0)));
        let file = FullDisk(Arc::clone(&written), 0);
        let mut lines = Lines { file, is_torn: false, not_written: Arc::clone(&not_written) };
        let written_lines = ["one\n", "two\n", "three\n"].map(|line| lines.write(line.as_bytes()));
        assert_eq!(written_lines.iter().filter(|line| line.is_err()).count(), 1);
        assert_eq!(not_written.load(Ordering::Relaxed), 1);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), ["two", "three"]);
    }

    #[test]
    fn the_file_holds_every_event_when_the_guard_is_gone() {
        let name = format!("auth-server-audit-{}.log", std::process::id());
        let path = std::env::temp_dir().join(name);
        let (sink, guard) = open(Some(&path)).unwrap();
        for _ in 0..100 {
            sink.record(&AuditEvent::new(AuditKind::Login).with_subject(Some("al\nice")));
        }
        drop(guard);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let event =
            |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].clone();
        let events: Vec<_> = text.lines().map(event).collect();
        assert_eq!(events.iter().filter(|event| **event == "login").count(), 100);
        assert_eq!(sink.lost(), 0);
        assert!(open(None).unwrap().1.is_none());
    }
}
