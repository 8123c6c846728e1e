//! How late the machine itself was: without that, a deadline cannot be asserted on a busy one.
//!
//! A canary does next to nothing and knows when it should have been done. What it is late by is not
//! the fault of what is tested. All that is tested runs on one thread together with its canary, so
//! nothing is late unseen.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a canary looks.
const PERIOD: Duration = Duration::from_millis(2);
/// Timers of tokio are exact to a millisecond, upwards. What is late by more was held up.
const EXACT: Duration = Duration::from_millis(3);

/// When something was held up, from when on until when.
#[derive(Clone, Default)]
pub struct Stalls(Arc<Mutex<Vec<(Instant, Instant)>>>);

impl Stalls {
    fn add(&self, from: Instant, to: Instant) {
        self.0.lock().unwrap().push((from, to));
    }

    /// Forgets what it saw, where nobody asks: it would grow.
    pub fn forget(&self) {
        *self.0.lock().unwrap() = Vec::new();
    }

    /// How much of the time between these two was lost.
    pub fn within(&self, from: Instant, to: Instant) -> Duration {
        let stalls = self.0.lock().unwrap();
        let first = stalls.partition_point(|(_, end)| *end < from);
        stalls[first..]
            .iter()
            .take_while(|(start, _)| *start < to)
            .map(|(start, end)| (*end).min(to).saturating_duration_since((*start).max(from)))
            .sum()
    }

    /// The longest one between these two.
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let stalls = self.0.lock().unwrap();
        let inside = stalls.iter().filter(|(start, end)| *end >= from && *start < to);
        inside.map(|(start, end)| *end - *start).max().unwrap_or_default()
    }
}

/// Watches the runtime that it is called in, for as long as that runs.
pub fn watch_runtime() -> Stalls {
    let stalls = Stalls::default();
    let seen = stalls.clone();
    tokio::spawn(async move {
        loop {
            let asleep = Instant::now();
            tokio::time::sleep(PERIOD).await;
            let awake = Instant::now();
            // It may have been held up from the first moment on.
            if awake - asleep > PERIOD + EXACT {
                seen.add(asleep, awake);
            }
        }
    });
    stalls
}

/// Pings a server on a connection of its own, from a thread of its own, past everything that is
/// tested: if it has to wait as well, Redis was held up.
pub struct Pinger {
    pub stalls: Stalls,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pinger {
    pub fn start(socket: PathBuf) -> Self {
        let stalls = Stalls::default();
        let is_over = Arc::new(AtomicBool::new(false));
        let (seen, over) = (stalls.clone(), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut stream = None;
            while !over.load(Ordering::Relaxed) {
                let sent = Instant::now();
                if stream.is_none() {
                    stream = UnixStream::connect(&socket).ok();
                }
                let is_well = stream.as_mut().is_some_and(|stream| ping(stream).is_ok());
                if !is_well {
                    stream = None;
                }
                std::thread::sleep(PERIOD);
                let now = Instant::now();
                if now - sent > PERIOD + EXACT {
                    seen.add(sent, now);
                }
            }
        });
        Self { stalls, is_over, thread: Some(thread) }
    }
}

fn ping(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply)
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
