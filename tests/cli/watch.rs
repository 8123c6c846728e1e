//! `watch`: follows the log through an outage, until it is told to stop.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::program::Program;
use crate::support::{RedisServer, redis_or_skip};

const PATIENCE: Duration = Duration::from_secs(60);

struct Watch {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Watch {
    #[track_caller]
    fn start(program: &Program, args: &[&str]) -> Self {
        let mut child = program.spawn(args);
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let watch = Self { child, out: lines(out), err: lines(err) };
        watch.hears("watching");
        watch
    }

    #[track_caller]
    fn hears(&self, word: &str) {
        loop {
            if self.err.recv_timeout(PATIENCE).unwrap().contains(word) {
                return;
            }
        }
    }

    #[track_caller]
    fn sees(&self, event: &str, id: &str) -> Value {
        let line = self.out.recv_timeout(PATIENCE).unwrap();
        let document: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&document["event"], &document["id"]), (&event.into(), &id.into()), "{line}");
        document
    }

    #[track_caller]
    fn ends_by(mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(self.out.recv().is_err(), "it has printed more");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if to.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    from
}

#[test]
fn what_others_revoke_and_reinstate_is_shown_also_after_an_outage() {
    redis_or_skip!();
    let mut redis =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let program = Program::at(&redis.url());
    program.run("revoke --user before").exits(0);
    let watch = Watch::start(&program.clone().without("JWT_ISSUERS"), &["watch", "--json"]);
    let text = Watch::start(&program, &["watch"]);

    program.run("revoke --user alice --reason stolen --actor carol").exits(0);
    let seen = watch.sees("revoked", "alice");
    assert_eq!((&seen["kind"], &seen["reason"]), (&"user".into(), &"stolen".into()));
    assert!(seen["at"].is_u64() && seen["until"].is_u64() && seen["extent"] == "issued_so_far");
    program.run("reinstate --user alice").exits(0);
    watch.sees("reinstated", "alice");

    redis.restart();
    watch.hears("away");
    watch.hears("there again");
    let start = std::time::Instant::now();
    while program.run("revoke --jti t-1").status != 0 {
        assert!(start.elapsed() < PATIENCE);
    }
    watch.sees("revoked", "t-1");
    watch.ends_by(rustix::process::Signal::TERM);

    let line = text.out.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("revoked: user alice") && line.contains("stolen"), "{line}");
    assert!(text.out.recv_timeout(PATIENCE).unwrap().contains("reinstated"));
    assert!(text.out.recv_timeout(PATIENCE).unwrap().contains("t-1"));
    text.ends_by(rustix::process::Signal::INT);
}
