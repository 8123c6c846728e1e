//! Several processes on one Redis, and the order of what they did: a check that starts after a
//! revocation was confirmed must not find the token live, whichever process did what, and whatever
//! Redis has lost. Where the processes ask mirrors, a check may be as much later as a mirror may be
//! behind, unless it is of the process that revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tower_jwt_revocation::{RedisStore, Revoker, Target, TokenProfile};

use crate::clock;
use crate::doors::{STALENESS, this_second};
use crate::lab::Runtime;
use crate::support::{Fault, FaultProxy, RedisServer, stop_process, wait_until};
use crate::worker::{CHECKS, Event, Id, Mirrored, Plan, What, read};

const WORKERS: u64 = 3;
/// How far the replica is behind.
pub const LAG: Duration = Duration::from_millis(50);
/// How late the replies of a distant Redis are: less than a check may be.
const FAR: Duration = Duration::from_millis(30);
const LIMIT: Duration = Duration::from_secs(30);

/// What a history has come to.
pub struct Outcome {
    pub name: &'static str,
    pub confirmed: usize,
    /// Checks that started after the confirmation.
    pub assessed: usize,
    /// From the fault to the first answer after it.
    pub gap: Duration,
    /// How long a confirmed write took, at the median.
    pub write: Duration,
}

/// A history: a name, and what it takes.
type Case = (&'static str, fn(&'static str) -> Result<Outcome, String>);

pub fn all() -> Vec<Case> {
    vec![
        ("one Redis, killed and hung, its log written at once", one_redis),
        ("the host of the primary dies", |name| fail_over(name, Death::Kill, Mode::Plain)),
        ("the host of the primary dies, writes wait for a replica", |name| {
            fail_over(name, Death::Kill, Mode::Waits)
        }),
        ("the primary hangs, and wakes when it was replaced", |name| {
            fail_over(name, Death::Hang, Mode::Plain)
        }),
        ("the primary hangs and wakes, writes wait for a replica", |name| {
            fail_over(name, Death::Hang, Mode::Waits)
        }),
        ("the primary is cut off from its sentinel, but not from its clients", |name| {
            split(name, Mode::Plain)
        }),
        ("the same, writes wait for a replica", |name| split(name, Mode::Waits)),
        ("mirrors: processes stopped, the log trimmed, Redis hung and killed", mirrors_sleep),
        ("mirrors: processes stopped again and again, Redis far away", mirrors_nap),
        ("mirrors: `FLUSHALL`", mirrors_remember),
        ("mirrors: the host of the primary dies", |name| {
            fail_over(name, Death::Kill, Mode::Mirror)
        }),
        ("mirrors: the primary hangs, and wakes when it was replaced", |name| {
            fail_over(name, Death::Hang, Mode::Mirror)
        }),
        ("mirrors: the primary is cut off from its sentinel", |name| split(name, Mode::Mirror)),
    ]
}

// === The runs ===

/// The log that mirrors follow.
const LOG: &str = "jwt-revocation:{0}:l";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    /// Writes wait for a replica.
    Waits,
    /// Checks go through a mirror in each process.
    Mirror,
}

fn one_redis(name: &'static str) -> Result<Outcome, String> {
    let mut server =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let run = Run::start(server.url(), Duration::from_secs(9), Mode::Plain);
    run.wait_until(Duration::from_secs(2));
    server.kill();
    let fault = clock::now();
    std::thread::sleep(Duration::from_millis(300));
    server.restart();
    run.wait_until(Duration::from_millis(4500));
    server.stop_hung();
    std::thread::sleep(Duration::from_millis(800));
    server.resume();
    run.wait_until(Duration::from_secs(7));
    server.kill();
    server.restart();
    let history = run.end(fault);
    history.assess(name)
}

/// A mirror that slept while others revoked, and behind which the log was trimmed, must not answer
/// from the past; nor if the question that was to prove it fresh was answered while it slept.
fn mirrors_sleep(name: &'static str) -> Result<Outcome, String> {
    let mut server =
        RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let run = Run::start(server.url(), Duration::from_secs(10), Mode::Mirror);
    run.wait_until(Duration::from_secs(2));
    let fault = clock::now();
    let asleep = run.put_to_sleep(0);
    std::thread::sleep(STALENESS * 4);
    server.cli(&["XTRIM", LOG, "MAXLEN", "0"]);
    drop(asleep);
    run.wait_until(Duration::from_secs(4));
    server.stop_hung();
    let asleep = run.put_to_sleep(1);
    std::thread::sleep(STALENESS);
    server.resume();
    std::thread::sleep(STALENESS * 2);
    drop(asleep);
    run.wait_until(Duration::from_secs(6));
    server.kill();
    std::thread::sleep(STALENESS);
    server.restart();
    run.wait_until(Duration::from_millis(7500));
    server.stop_hung();
    std::thread::sleep(STALENESS * 2);
    server.resume();
    let history = run.end(fault);
    let outcome = history.assess(name)?;
    if history.mirrors.first().is_none_or(|mirror| mirror.resyncs == 0) {
        return Err(format!(
            "{name}: the log was trimmed, and nobody noticed: {:?}",
            history.mirrors
        ));
    }
    Ok(outcome)
}

/// The way to Redis is so long that a mirror is often stopped between a question and its answer:
/// then the answer is of the past when it is read.
fn mirrors_nap(name: &'static str) -> Result<Outcome, String> {
    let (net, server) = (Runtime::start(), RedisServer::start());
    let addr = server.addr();
    let proxy = Arc::new(net.run(FaultProxy::start(addr)));
    let far = Arc::clone(&proxy);
    net.run(async move { far.set(Fault::Latency { base: FAR, jitter: Duration::ZERO }).await });
    let run = Run::start(proxy.url(), Duration::from_secs(11), Mode::Mirror);
    run.wait_until(Duration::from_secs(1));
    let fault = clock::now();
    for nap in 0..12 {
        let asleep = run.put_to_sleep(nap % WORKERS);
        // Longer than a proof holds, and not so long that the answer is given up.
        std::thread::sleep(STALENESS * 3 / 2);
        drop(asleep);
        std::thread::sleep(STALENESS);
    }
    run.wait_until(run.plan.length);
    let near = Arc::clone(&proxy);
    net.run(async move { near.set(Fault::Pass).await });
    run.end(fault).assess(name)
}

/// Redis forgets everything, the mirrors nothing: what they had heard of is still refused, what
/// they had not is in doubt.
fn mirrors_remember(name: &'static str) -> Result<Outcome, String> {
    let server = RedisServer::start();
    let run = Run::start(server.url(), Duration::from_secs(10), Mode::Mirror);
    run.wait_until(Duration::from_secs(3));
    let fault = clock::now();
    server.cli(&["FLUSHALL"]);
    let history = run.end(fault);
    let outcome = history.assess(name)?;
    if history.mirrors.iter().any(|mirror| mirror.resyncs == 0) {
        return Err(format!("{name}: somebody did not notice: {:?}", history.mirrors));
    }
    Ok(outcome)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    Kill,
    Hang,
}

fn fail_over(name: &'static str, death: Death, mode: Mode) -> Result<Outcome, String> {
    let net = Runtime::start();
    let pair = Pair::start(&net);
    let run = Run::start(pair.url(), Duration::from_secs(10), mode);
    run.wait_until(Duration::from_secs(3));
    // A host that dies takes along what it has not sent. A kernel would still send it.
    pair.cut(&net);
    match death {
        Death::Kill => pair.primary.kill(),
        Death::Hang => pair.primary.stop_hung(),
    }
    let fault = clock::now();
    let start = Instant::now();
    wait_until("the replica is promoted", LIMIT, || {
        let is_promoted =
            pair.replica.try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"));
        // A replica that a busy machine holds up is no good to the sentinel, which then does
        // nothing for two minutes by itself.
        if !is_promoted && start.elapsed() > Duration::from_secs(3) {
            let _ = pair.sentinel.try_cli(&["SENTINEL", "FAILOVER", "primary"]);
        }
        is_promoted
    });
    if death == Death::Hang {
        std::thread::sleep(Duration::from_secs(1));
        pair.primary.resume();
    }
    let history = run.end(fault);
    history.assess(name)
}

/// The sentinel cannot reach the primary and promotes the replica. The primary does not learn of
/// it, nor do those that are connected to it, until they ask the sentinel.
fn split(name: &'static str, mode: Mode) -> Result<Outcome, String> {
    let net = Runtime::start();
    let pair = Pair::start(&net);
    let run = Run::start(pair.url(), Duration::from_secs(9), mode);
    run.wait_until(Duration::from_secs(3));
    let fault = clock::now();
    pair.cut(&net);
    pair.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    pair.sentinel.cli(&["SENTINEL", "REMOVE", "primary"]);
    let port = pair.replica.port().to_string();
    pair.sentinel.cli(&["SENTINEL", "MONITOR", "primary", "127.0.0.1", &port, "1"]);
    let history = run.end(fault);
    history.assess(name)
}

/// A primary and a replica that lags behind, because the network between them does; a sentinel that
/// watches both.
struct Pair {
    primary: RedisServer,
    proxy: Arc<FaultProxy>,
    replica: RedisServer,
    sentinel: RedisServer,
}

impl Pair {
    fn start(net: &Runtime) -> Self {
        let data =
            || RedisServer::builder().arg("repl-diskless-sync-delay", "0").arg("repl-timeout", "5");
        let primary = data().start();
        let addr = primary.addr();
        let proxy = Arc::new(net.run(FaultProxy::start(addr)));
        let replica =
            data().arg("replicaof", &format!("127.0.0.1 {}", proxy.addr().port())).start();
        wait_until("the replica is in sync", LIMIT, || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let sentinel = RedisServer::builder()
            .sentinel()
            .arg("sentinel monitor", &format!("primary 127.0.0.1 {} 1", primary.port()))
            .arg("sentinel down-after-milliseconds", "primary 500")
            // For so long it does not mind that the replica follows another address than its own.
            .arg("sentinel failover-timeout", "primary 60000")
            .start();
        let _ =
            sentinel.try_cli(&["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "500"]);
        wait_until("the sentinel knows the replica", LIMIT, || {
            let reply = sentinel.cli(&["SENTINEL", "MASTER", "primary"]);
            reply.lines().skip_while(|line| *line != "num-slaves").nth(1) == Some("1")
        });
        let late = Arc::clone(&proxy);
        net.run(
            async move { late.set(Fault::Latency { base: LAG, jitter: Duration::ZERO }).await },
        );
        Self { primary, proxy, replica, sentinel }
    }

    fn url(&self) -> String {
        format!("redis-sentinel://{}?sentinelServiceName=primary", self.sentinel.addr())
    }

    /// Nothing reaches the replica any more, not even what is on the way.
    fn cut(&self, net: &Runtime) {
        let proxy = Arc::clone(&self.proxy);
        net.run(async move {
            proxy.set(Fault::Reset).await;
            proxy.set(Fault::Refuse).await;
        });
    }
}

/// A process that is stopped.
struct Asleep(Pid);

impl Drop for Asleep {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The processes at work.
struct Run {
    plan: Plan,
    workers: Vec<(std::process::Child, PathBuf)>,
}

impl Run {
    fn start(url: String, length: Duration, mode: Mode) -> Self {
        let (waits, mirror) = (mode == Mode::Waits, mode == Mode::Mirror);
        let start = clock::now() + 1_500_000_000;
        // What waits on a connection holds up what comes after it.
        let writes = if waits { 10 } else { 40 };
        let second = this_second() + 1;
        let plan = Plan { url, workers: WORKERS, start, second, length, writes, waits, mirror };
        let workers = (0..WORKERS)
            .map(|worker| {
                let file = format!("tjr-history-{}-{start}-{worker}", std::process::id());
                let file = std::env::temp_dir().join(file);
                (plan.spawn(worker, &file), file)
            })
            .collect();
        Self { plan, workers }
    }

    /// Stops a process, until the answer is dropped.
    fn put_to_sleep(&self, worker: u64) -> Asleep {
        let id = self.workers[usize::try_from(worker).unwrap()].0.id();
        let id = Pid::from_raw(id.cast_signed()).unwrap();
        stop_process(id);
        Asleep(id)
    }

    /// Waits until so much time of the history is over.
    fn wait_until(&self, moment: Duration) {
        let due = self.plan.start + u64::try_from(moment.as_nanos()).unwrap();
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(clock::now())));
    }

    /// Waits for the processes, and asks Redis what it still knows.
    fn end(self, fault: u64) -> History {
        let (mut events, mut mirrors) = (Vec::new(), Vec::new());
        for (mut worker, file) in self.workers {
            assert!(worker.wait().unwrap().success(), "a process failed");
            let (done, mirror) = read(&file);
            events.extend(done);
            mirrors.extend(mirror);
            std::fs::remove_file(file).unwrap();
        }
        let confirmed = events.iter().filter(|event| event.what == What::Write { confirmed: true });
        let ids: Vec<_> = confirmed.map(|event| event.id).collect();
        let runtime = Runtime::start();
        let url = self.plan.url;
        let lost = runtime.run(async move {
            let revoker =
                Revoker::new(RedisStore::connect(&url).await.unwrap(), TokenProfile::new())
                    .unwrap();
            let mut lost = BTreeSet::new();
            for id in ids {
                let found = loop {
                    match revoker.find(Target::token(id.name())).await {
                        Ok(found) => break found,
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                };
                if found.is_none() {
                    lost.insert(id);
                }
            }
            lost
        });
        let checks = self.plan.length.as_secs() * CHECKS;
        History { events, lost, fault, mirrors, checks }
    }
}

// === The assessment ===

struct History {
    events: Vec<Event>,
    lost: BTreeSet<Id>,
    fault: u64,
    mirrors: Vec<Mirrored>,
    /// Of each process.
    checks: u64,
}

impl History {
    /// # Errors
    /// What must not have happened.
    fn assess(&self, name: &'static str) -> Result<Outcome, String> {
        if self.mirrors.iter().any(|mirror| mirror.fresh * 3 < self.checks) {
            return Err(format!("{name}: too little was answered from memory: {:?}", self.mirrors));
        }
        let staleness = if self.mirrors.is_empty() { 0 } else { nanos(STALENESS) };
        let writes: BTreeMap<Id, &Event> = self
            .events
            .iter()
            .filter(|event| matches!(event.what, What::Write { .. }))
            .map(|event| (event.id, event))
            .collect();
        let is_confirmed = |write: &&&Event| write.what == What::Write { confirmed: true };
        let answers: Vec<_> = self
            .events
            .iter()
            .filter(|event| matches!(event.what, What::Live | What::Revoked))
            .collect();
        // A mirror answers from memory until it could know.
        let after = |event: &&&Event| event.from > self.fault + staleness;
        let first = answers.iter().filter(after).map(|event| event.to).min();
        let first = first.ok_or_else(|| format!("{name}: no answer after the fault"))?;
        let mut assessed = 0;
        for check in &answers {
            let write = writes.get(&check.id);
            if check.what == What::Revoked && write.is_none_or(|write| check.to < write.from) {
                return Err(format!("{name}: refused before anyone had revoked it: {check:?}"));
            }
            // A mirror knows of its own writes at once, and whatever becomes of Redis.
            let is_own = |write: &Event| !self.mirrors.is_empty() && write.by == check.by;
            let must_be_known = |write: &&&Event| {
                let delay = if is_own(write) { 0 } else { staleness };
                write.what == What::Write { confirmed: true } && check.from > write.to + delay
            };
            let Some(write) = write.filter(must_be_known) else { continue };
            assessed += 1;
            if check.what == What::Live {
                return Err(format!("{name}: revoked by {write:?} and then live for {check:?}"));
            }
        }
        // All writers were alive, so whatever Redis has lost was written again.
        if let Some(id) = self.lost.first() {
            let count = self.lost.len();
            return Err(format!("{name}: {count} confirmed writes are gone: {:?}", writes[id]));
        }
        let confirmed: Vec<_> = writes.values().filter(is_confirmed).collect();
        let before = confirmed.iter().filter(|write| write.to < self.fault).count();
        if assessed < 300 || before < 30 {
            return Err(format!(
                "{name}: {assessed} checks after {before} writes before the fault are no test"
            ));
        }
        let mut times: Vec<_> = confirmed.iter().map(|write| write.to - write.from).collect();
        times.sort_unstable();
        println!(
            "{name}: {} confirmed, {assessed} checks after one, no answers for {:?}",
            confirmed.len(),
            Duration::from_nanos(first - self.fault - staleness)
        );
        Ok(Outcome {
            name,
            confirmed: confirmed.len(),
            assessed,
            gap: Duration::from_nanos(first - self.fault - staleness),
            write: Duration::from_nanos(times[times.len() / 2]),
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}
