//! One process of a history: it revokes some tokens, checks those of all, and writes down when it
//! did what.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_jwt_revocation::{FailMode, Mirror, RedisStore, Target};

use crate::clock;
use crate::doors::{Doors, Verdict, token};

/// Checks a second, of each process.
pub const CHECKS: u64 = 300;

/// What all processes of a history know.
#[derive(Clone, Debug)]
pub struct Plan {
    pub url: String,
    pub workers: u64,
    /// When they begin, by the clock of the machine, and that moment in seconds since 1970.
    pub start: u64,
    pub second: u64,
    pub length: Duration,
    /// Revocations a second, of each process.
    pub writes: u64,
    /// Whether they wait for a replica.
    pub waits: bool,
    /// Whether each asks a mirror of its own.
    pub mirror: bool,
}

/// A token of a history: the `n`th that this worker revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub worker: u64,
    pub n: u64,
}

impl Id {
    pub fn name(self) -> String {
        format!("{}-{}", self.worker, self.n)
    }

    /// It is issued in the second in which it is revoked, so that a loss of data does not put all
    /// of them in doubt.
    fn token(self, plan: &Plan) -> String {
        token("someone", &self.name(), plan.second + self.n / plan.writes)
    }
}

/// Something that a process did.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Which.
    pub by: u64,
    pub id: Id,
    pub from: u64,
    pub to: u64,
    pub what: What,
}

/// How the mirror of a process fared.
#[derive(Clone, Copy, Debug)]
pub struct Mirrored {
    /// Checks that it could answer from memory.
    pub fresh: u64,
    /// Snapshots after the first.
    pub resyncs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A revocation that was confirmed, or not.
    Write {
        confirmed: bool,
    },
    /// A check that said so.
    Live,
    Revoked,
    /// A check without an answer.
    Nothing,
}

impl Plan {
    /// Starts one of the processes: this binary, once more.
    pub fn spawn(&self, worker: u64, file: &std::path::Path) -> Child {
        let (waits, mirror) = (u64::from(self.waits), u64::from(self.mirror));
        let length = self.length.as_secs();
        let numbers =
            [worker, self.workers, self.start, self.second, length, self.writes, waits, mirror];
        Command::new(std::env::current_exe().unwrap())
            .args(["worker", &self.url])
            .arg(file)
            .args(numbers.map(|number| number.to_string()))
            .spawn()
            .unwrap()
    }
}

/// What such a process does.
pub fn live(words: &[String]) {
    let [url, file, numbers @ ..] = words else { panic!("{words:?}") };
    let numbers: Vec<u64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
    let [worker, workers, start, second, length, writes, waits, mirror] = numbers[..] else {
        panic!("{words:?}")
    };
    let length = Duration::from_secs(length);
    let (waits, mirror) = (waits == 1, mirror == 1);
    let plan = Plan { url: url.clone(), workers, start, second, length, writes, waits, mirror };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (events, mirrored) = runtime.block_on(act(worker, plan));
    let mut text = String::new();
    for Event { by, id, from, to, what } in events {
        let word = match what {
            What::Write { confirmed: true } => "confirmed",
            What::Write { confirmed: false } => "unconfirmed",
            What::Live => "live",
            What::Revoked => "revoked",
            What::Nothing => "nothing",
        };
        writeln!(text, "{by} {} {} {from} {to} {word}", id.worker, id.n).unwrap();
    }
    if let Some(Mirrored { fresh, resyncs }) = mirrored {
        writeln!(text, "mirror {fresh} {resyncs}").unwrap();
    }
    std::fs::write(file, text).unwrap();
}

/// Reads what a process wrote down.
pub fn read(file: &std::path::Path) -> (Vec<Event>, Option<Mirrored>) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut mirrored = None;
    let events = text
        .lines()
        .filter_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let number = |word: &str| word.parse().unwrap();
            if let ["mirror", fresh, resyncs] = words[..] {
                mirrored = Some(Mirrored { fresh: number(fresh), resyncs: number(resyncs) });
                return None;
            }
            let [by, worker, n, from, to, word] = words[..] else { panic!("{line}") };
            let what = match word {
                "confirmed" => What::Write { confirmed: true },
                "unconfirmed" => What::Write { confirmed: false },
                "live" => What::Live,
                "revoked" => What::Revoked,
                "nothing" => What::Nothing,
                _ => panic!("{line}"),
            };
            Some(Event {
                by: number(by),
                id: Id { worker: number(worker), n: number(n) },
                from: number(from),
                to: number(to),
                what,
            })
        })
        .collect();
    (events, mirrored)
}

async fn act(worker: u64, plan: Plan) -> (Vec<Event>, Option<Mirrored>) {
    let mut builder = RedisStore::builder().with_url(&plan.url);
    if plan.waits {
        builder = builder.with_wait_replicas(NonZeroU32::MIN, Duration::from_millis(600));
    }
    let (doors, mirror) = Doors::of(builder.connect().await.unwrap(), plan.mirror).await;
    let events = Arc::new(Mutex::new(Vec::new()));
    let wait = Duration::from_nanos(plan.start.saturating_sub(clock::now()));
    tokio::time::sleep(wait).await;
    let writing = tokio::spawn(write(worker, plan.clone(), doors.clone(), Arc::clone(&events)));
    let checking = tokio::spawn(check(worker, plan, doors, mirror.clone(), Arc::clone(&events)));
    writing.await.unwrap();
    let fresh = checking.await.unwrap();
    let mirrored = mirror.map(|mirror| Mirrored { fresh, resyncs: mirror.status().resyncs() });
    // What is still under way was invoked and has not come to its end: it may go unmentioned,
    // unless it is a write.
    (std::mem::take(&mut events.lock().unwrap()), mirrored)
}

async fn write(worker: u64, plan: Plan, doors: Doors, events: Arc<Mutex<Vec<Event>>>) {
    let mut under_way = tokio::task::JoinSet::new();
    for n in 0..plan.length.as_secs() * plan.writes {
        let due = plan.start + n * 1_000_000_000 / plan.writes;
        tokio::time::sleep(Duration::from_nanos(due.saturating_sub(clock::now()))).await;
        let (doors, events) = (doors.clone(), Arc::clone(&events));
        under_way.spawn(async move {
            let id = Id { worker, n };
            let from = clock::now();
            let confirmed = doors.revoker.revoke(Target::token(id.name())).await.is_ok();
            let event =
                Event { by: worker, id, from, to: clock::now(), what: What::Write { confirmed } };
            events.lock().unwrap().push(event);
        });
    }
    under_way.join_all().await;
}

/// Half of the checks are of tokens that are being revoked right now, the others of those of the
/// last seconds. Returns how many of them a mirror could answer from memory.
async fn check(
    worker: u64,
    plan: Plan,
    doors: Doors,
    mirror: Option<Mirror>,
    events: Arc<Mutex<Vec<Event>>>,
) -> u64 {
    let mut under_way = tokio::task::JoinSet::new();
    let mut fresh = 0;
    let mut random = worker + 1;
    let mut draw = move |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for n in 0..plan.length.as_secs() * CHECKS {
        let due = plan.start + n * 1_000_000_000 / CHECKS;
        tokio::time::sleep(Duration::from_nanos(due.saturating_sub(clock::now()))).await;
        let front = (clock::now() - plan.start) * plan.writes / 1_000_000_000;
        let n = if draw(2) == 0 {
            (front + 2).saturating_sub(draw(5))
        } else {
            front.saturating_sub(draw(3 * plan.writes))
        };
        let id = Id { worker: draw(plan.workers), n };
        let token = id.token(&plan);
        let mode = if draw(2) == 0 { FailMode::Closed } else { FailMode::Open };
        let (doors, events) = (doors.clone(), Arc::clone(&events));
        fresh += u64::from(mirror.as_ref().is_some_and(Mirror::is_fresh));
        under_way.spawn(async move {
            let from = clock::now();
            let what = match doors.ask(mode, &token).await {
                Verdict::Checked => What::Live,
                Verdict::Revoked => What::Revoked,
                Verdict::Unchecked(_) | Verdict::Unavailable(_) | Verdict::InDoubt => What::Nothing,
                odd @ Verdict::Odd(_) => panic!("{odd:?}"),
            };
            events.lock().unwrap().push(Event { by: worker, id, from, to: clock::now(), what });
        });
    }
    under_way.join_all().await;
    fresh
}
