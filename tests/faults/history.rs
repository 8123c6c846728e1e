//! Several processes on one Redis, and the order of what they did: a check that starts after a revocation was
//! confirmed must not find the token live, whichever process did what, unless Redis has lost the revocation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tower_jwt_revocation::{RedisStore, Revoker, Target, token::TokenProfile};

use crate::clock;
use crate::doors::this_second;
use crate::lab::Runtime;
use crate::support::{Fault, FaultProxy, RedisServer, wait_until};
use crate::worker::{Event, Id, Plan, What, read};

const WORKERS: u64 = 3;
/// How far the replica is behind.
pub const LAG: Duration = Duration::from_millis(50);
/// How long it may take until nobody answers from what Redis has lost: until all have found the new primary.
const EXPOSURE: Duration = Duration::from_secs(3);
/// For how long a primary is believed that was replaced without knowing it: sentinels are asked every one to three
/// seconds, and have to answer.
const SPLIT: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(30);

/// What a history has come to.
pub struct Outcome {
    pub name: &'static str,
    pub confirmed: usize,
    /// Checks that started after the confirmation.
    pub judged: usize,
    /// Confirmed revocations that Redis does not know any more.
    pub lost: usize,
    /// Checks that found one of these live.
    pub wrong: usize,
    /// From the first answer after the fault to the last wrong one.
    pub exposure: Duration,
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
        ("the host of the primary dies", |name| fail_over(name, Death::Kill, false)),
        ("the host of the primary dies, writes wait for a replica", |name| {
            fail_over(name, Death::Kill, true)
        }),
        ("the primary hangs, and wakes when it was replaced", |name| fail_over(name, Death::Hang, false)),
        ("the primary hangs and wakes, writes wait for a replica", |name| fail_over(name, Death::Hang, true)),
        ("the primary is cut off from its sentinel, but not from its clients", |name| split(name, false)),
        ("the same, writes wait for a replica", |name| split(name, true)),
    ]
}

// === The runs ===

fn one_redis(name: &'static str) -> Result<Outcome, String> {
    let mut server = RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "always").start();
    let run = Run::start(server.url(), Duration::from_secs(9), false);
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
    let outcome = history.judge(name, Duration::ZERO)?;
    if outcome.lost > 0 {
        return Err(format!("{name}: {} confirmed writes are gone", outcome.lost));
    }
    Ok(outcome)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    Kill,
    Hang,
}

fn fail_over(name: &'static str, death: Death, waits: bool) -> Result<Outcome, String> {
    let net = Runtime::start();
    let pair = Pair::start(&net);
    let run = Run::start(pair.url(), Duration::from_secs(10), waits);
    run.wait_until(Duration::from_secs(3));
    // A host that dies takes along what it has not sent. A kernel would still send it.
    pair.cut(&net);
    match death {
        Death::Kill => pair.primary.kill(),
        Death::Hang => pair.primary.stop_hung(),
    }
    let fault = clock::now();
    wait_until("the replica is promoted", LIMIT, || {
        pair.replica.try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("master"))
    });
    if death == Death::Hang {
        std::thread::sleep(Duration::from_secs(1));
        pair.primary.resume();
    }
    let history = run.end(fault);
    let outcome = history.judge(name, Duration::ZERO)?;
    if waits && outcome.lost > 0 {
        return Err(format!("{name}: {} writes that a replica confirmed are gone", outcome.lost));
    }
    Ok(outcome)
}

/// The sentinel cannot reach the primary and promotes the replica. The primary does not learn of it, nor do those that
/// are connected to it, until they ask the sentinel.
fn split(name: &'static str, waits: bool) -> Result<Outcome, String> {
    let net = Runtime::start();
    let pair = Pair::start(&net);
    let run = Run::start(pair.url(), Duration::from_secs(9), waits);
    run.wait_until(Duration::from_secs(3));
    let fault = clock::now();
    pair.cut(&net);
    pair.replica.cli(&["REPLICAOF", "NO", "ONE"]);
    pair.sentinel.cli(&["SENTINEL", "REMOVE", "primary"]);
    let port = pair.replica.port().to_string();
    pair.sentinel.cli(&["SENTINEL", "MONITOR", "primary", "127.0.0.1", &port, "1"]);
    let history = run.end(fault);
    let outcome = history.judge(name, SPLIT)?;
    if waits && outcome.lost > 0 {
        return Err(format!("{name}: {} writes that a replica confirmed are gone", outcome.lost));
    }
    Ok(outcome)
}

/// A primary and a replica that lags behind, because the network between them does; a sentinel that watches both.
struct Pair {
    primary: RedisServer,
    proxy: Arc<FaultProxy>,
    replica: RedisServer,
    sentinel: RedisServer,
}

impl Pair {
    fn start(net: &Runtime) -> Self {
        let data = || RedisServer::builder().arg("repl-diskless-sync-delay", "0").arg("repl-timeout", "5");
        let primary = data().start();
        let addr = primary.addr();
        let proxy = Arc::new(net.run(FaultProxy::start(addr)));
        let replica = data().arg("replicaof", &format!("127.0.0.1 {}", proxy.addr().port())).start();
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
        let _ = sentinel.try_cli(&["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "500"]);
        wait_until("the sentinel knows the replica", LIMIT, || {
            let reply = sentinel.cli(&["SENTINEL", "MASTER", "primary"]);
            reply.lines().skip_while(|line| *line != "num-slaves").nth(1) == Some("1")
        });
        let late = Arc::clone(&proxy);
        net.run(async move { late.set(Fault::Latency { base: LAG, jitter: Duration::ZERO }).await });
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

/// The processes at work.
struct Run {
    plan: Plan,
    workers: Vec<(std::process::Child, PathBuf)>,
}

impl Run {
    fn start(url: String, length: Duration, waits: bool) -> Self {
        let start = clock::now() + 1_500_000_000;
        // What waits on a connection holds up what comes after it.
        let writes = if waits { 10 } else { 40 };
        let plan = Plan { url, workers: WORKERS, start, second: this_second() + 1, length, writes, waits };
        let workers = (0..WORKERS)
            .map(|worker| {
                let file = format!("tjr-history-{}-{start}-{worker}", std::process::id());
                let file = std::env::temp_dir().join(file);
                (plan.spawn(worker, &file), file)
            })
            .collect();
        Self { plan, workers }
    }

    /// Waits until so much time of the history is over.
    fn wait_until(&self, moment: Duration) {
        let due = self.plan.start + u64::try_from(moment.as_nanos()).unwrap();
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(clock::now())));
    }

    /// Waits for the processes, and asks Redis what it still knows.
    fn end(self, fault: u64) -> History {
        let mut events = Vec::new();
        for (mut worker, file) in self.workers {
            assert!(worker.wait().unwrap().success(), "a process failed");
            events.extend(read(&file));
            std::fs::remove_file(file).unwrap();
        }
        let confirmed = events.iter().filter(|event| event.what == What::Write { confirmed: true });
        let ids: Vec<_> = confirmed.map(|event| event.id).collect();
        let runtime = Runtime::start();
        let url = self.plan.url;
        let lost = runtime.run(async move {
            let revoker =
                Revoker::new(RedisStore::connect(&url).await.unwrap(), TokenProfile::new()).unwrap();
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
        History { events, lost, fault }
    }
}

// === The judgement ===

struct History {
    events: Vec<Event>,
    lost: BTreeSet<Id>,
    fault: u64,
}

impl History {
    /// For so long after the fault two primaries may be believed.
    ///
    /// # Errors
    /// What must not have happened.
    fn judge(&self, name: &'static str, split: Duration) -> Result<Outcome, String> {
        let writes: BTreeMap<Id, &Event> = self
            .events
            .iter()
            .filter(|event| matches!(event.what, What::Write { .. }))
            .map(|event| (event.id, event))
            .collect();
        let is_confirmed = |write: &&&Event| write.what == What::Write { confirmed: true };
        let answers: Vec<_> =
            self.events.iter().filter(|event| matches!(event.what, What::Live | What::Revoked)).collect();
        let first = answers.iter().filter(|event| event.from > self.fault).map(|event| event.to).min();
        let first = first.ok_or_else(|| format!("{name}: no answer after the fault"))?;
        let (mut judged, mut wrong, mut last_wrong) = (0, 0, first);
        for check in &answers {
            let write = writes.get(&check.id);
            if check.what == What::Revoked && write.is_none_or(|write| check.to < write.from) {
                return Err(format!("{name}: refused before anyone had revoked it: {check:?}"));
            }
            let Some(write) =
                write.filter(|write| write.what == What::Write { confirmed: true } && check.from > write.to)
            else {
                continue;
            };
            judged += 1;
            if check.what == What::Live {
                let is_split = check.from > self.fault && check.from < self.fault + nanos(split);
                if !self.lost.contains(&check.id) && !is_split {
                    return Err(format!("{name}: revoked by {write:?} and then live for {check:?}"));
                }
                wrong += 1;
                last_wrong = last_wrong.max(check.from);
            }
        }
        // What Redis loses is of its last moments: the lag, and as long as this machine may have held things up.
        let slack = nanos(LAG + Duration::from_millis(500));
        for id in &self.lost {
            let write = writes[id];
            if write.to + slack < self.fault || write.from > self.fault + slack + nanos(split) {
                return Err(format!("{name}: not of the last moments, and yet lost: {write:?}"));
            }
        }
        let exposure = Duration::from_nanos(last_wrong - first);
        if exposure > EXPOSURE.max(split) {
            return Err(format!("{name}: live for {exposure:?} after they were lost"));
        }
        let confirmed: Vec<_> = writes.values().filter(is_confirmed).collect();
        let before = confirmed.iter().filter(|write| write.to < self.fault).count();
        if judged < 300 || before < 30 {
            return Err(format!(
                "{name}: {judged} checks after {before} writes before the fault are no test"
            ));
        }
        let mut times: Vec<_> = confirmed.iter().map(|write| write.to - write.from).collect();
        times.sort_unstable();
        println!(
            "{name}: {} confirmed, {judged} checks after one, {} lost, {wrong} passed, for {exposure:?}",
            confirmed.len(),
            self.lost.len()
        );
        Ok(Outcome {
            name,
            confirmed: confirmed.len(),
            judged,
            lost: self.lost.len(),
            wrong,
            exposure,
            gap: Duration::from_nanos(first - self.fault),
            write: Duration::from_nanos(times[times.len() / 2]),
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}
