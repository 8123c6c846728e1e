//! Servers, processes on them and traffic, and what can be done to the servers.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::clock;
use crate::fleet::{Fleet, Process};
use crate::ledger::{Allowed, Check, Outcome, Times, assess};
use crate::process::Setup;
use crate::support::{Builder, Cluster, MovableName, RedisServer, Sentinel, wait_until};
use crate::traffic::Traffic;

/// So many processes from the start.
const PROCESSES: usize = 3;
/// How long there is traffic before the fault.
const BEFORE: Duration = Duration::from_millis(2500);
/// With less than this nothing was tested: revocations before the fault and after it, and checks of
/// what was written.
pub const REVOKED_BEFORE: usize = 60;
pub const REVOKED_AFTER: usize = 30;
pub const ASSESSED: usize = 300;
/// How much longer there is traffic where a busy machine has done less.
const MORE: Duration = Duration::from_secs(20);
/// After how much time without a failure all is well.
const QUIET: Duration = Duration::from_millis(1500);
/// What the new primary takes until everything works again, by the requirement, and how much longer
/// a busy machine may take.
pub const SETTLED_WITHIN: Duration = Duration::from_secs(3);
pub const MACHINE: Duration = Duration::from_secs(3);
/// And how much longer still, by what the system counts.
const HELD_UP_AT_MOST: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(150);

/// How the processes of a case are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub mirror: bool,
    pub replicas: u32,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.mirror { "mirror" } else { "direct" })?;
        f.write_str(if self.replicas > 0 { ", WAIT" } else { "" })
    }
}

/// The servers of a case.
pub enum World {
    Sentinels(Sentinel),
    /// With so many shards.
    Cluster(Cluster, u16),
    Lone(Box<RedisServer>),
    /// A primary and its replica, and a name that leads to the primary until it is moved.
    Named(Box<[RedisServer; 2]>, MovableName),
}

impl World {
    /// Of three servers and three sentinels, which find a failure in a second.
    pub fn sentinels(build: impl Fn(Builder) -> Builder) -> Self {
        let sentinel = Sentinel::start_with(2, 3, build);
        for server in sentinel.sentinels() {
            server.cli(&["SENTINEL", "SET", Sentinel::SERVICE, "down-after-milliseconds", "1000"]);
        }
        Self::Sentinels(sentinel)
    }

    /// As the user of the tests, to whom other rules apply than to sentinels and replicas.
    fn url(&self) -> String {
        match self {
            Self::Sentinels(sentinel) => {
                sentinel.url().replace("redis-sentinel://", "redis-sentinel://harness:harness@")
            }
            Self::Cluster(cluster, _) => cluster.url(),
            Self::Lone(server) => server.url(),
            Self::Named(servers, _) => {
                format!("redis://{}:{}", MovableName::NAME, servers[0].port())
            }
        }
    }

    pub fn servers(&self) -> &[RedisServer] {
        match self {
            Self::Sentinels(sentinel) => sentinel.servers(),
            Self::Cluster(cluster, _) => cluster.nodes(),
            Self::Lone(server) => std::slice::from_ref(server),
            Self::Named(servers, _) => servers.as_slice(),
        }
    }

    /// What each says of its replication, and the last lines of its log.
    fn describe(&self) -> String {
        let mut text = String::new();
        for server in self.servers() {
            let info = server.try_cli(&["INFO", "replication"]).unwrap_or_else(|error| error);
            let _ = writeln!(text, "--- the server at {}\n{}", server.port(), info.trim());
            let log = server.log();
            let lines: Vec<_> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(40)..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    fn variables(&self) -> Vec<(String, String)> {
        match self {
            Self::Named(_, name) => name.variables().into(),
            _ => Vec::new(),
        }
    }

    fn shards(&self) -> u16 {
        match self {
            Self::Cluster(_, shards) => *shards,
            _ => 1,
        }
    }
}

/// All of a case.
pub struct Stage {
    // Declared before the servers, which it should not see ending.
    pub traffic: Arc<Traffic>,
    running: JoinSet<()>,
    pub runtime: Runtime,
    canary: Canary,
    pub world: World,
    pub mode: Mode,
}

/// What a scenario answers.
pub struct Switch {
    pub fault: u64,
    pub answered: u64,
    /// From when on the limit of settling runs, and how long it is.
    pub due: u64,
    pub within: Duration,
    /// Since when nothing has reached the replicas.
    pub behind: Option<u64>,
    pub allowed: Allowed,
}

impl Switch {
    /// All is well three seconds after the new primary has answered.
    pub fn plain(fault: u64, answered: u64) -> Self {
        let allowed = Allowed::default();
        Self { fault, answered, due: answered, within: SETTLED_WITHIN, behind: None, allowed }
    }
}

impl Stage {
    pub fn new(world: World, mode: Mode) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let setup = Setup {
            url: world.url(),
            shards: world.shards(),
            replicas: mode.replicas,
            mirror: mode.mirror,
            variables: world.variables(),
        };
        let traffic = Arc::new(Traffic::new(Fleet::new(setup)));
        Self { traffic, running: JoinSet::new(), runtime, canary: Canary::start(), world, mode }
    }

    pub fn sentinel(&self) -> &Sentinel {
        match &self.world {
            World::Sentinels(sentinel) => sentinel,
            _ => panic!("no sentinels here"),
        }
    }

    pub fn cluster(&self) -> &Cluster {
        match &self.world {
            World::Cluster(cluster, _) => cluster,
            _ => panic!("no cluster here"),
        }
    }

    pub fn process(&self, index: usize) -> Arc<Process> {
        Arc::clone(&self.traffic.fleet.all()[index])
    }

    /// Starts the processes, signs all in, and lets there be traffic.
    pub fn open(&mut self) {
        let started: Vec<_> = (0..PROCESSES).map(|_| self.traffic.fleet.begin()).collect();
        for (_, ready) in started {
            ready.blocking_recv().expect("a process that starts");
        }
        // Whoever is new confirms nothing for a moment.
        self.runtime.block_on(self.traffic.sign_in());
        let _inside = self.runtime.enter();
        self.traffic.begin(&mut self.running);
        std::thread::sleep(BEFORE);
        let start = Instant::now();
        while self.traffic.ledger.0.lock().unwrap().revoked_since(0) < REVOKED_BEFORE
            && start.elapsed() < MORE
        {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until all is well again and says how it went.
    pub fn close(self, switch: &Switch) -> Outcome {
        let Self { traffic, mut running, runtime, canary, world, mode } = self;
        let waited = Waited::now(&traffic.fleet, &world);
        let due = if mode.replicas > 0 { wait_for_replica(&world, switch.due) } else { switch.due };
        let least = due + nanos(SETTLED_WITHIN);
        let mut held_up = Duration::ZERO;
        loop {
            let now = clock::now();
            held_up = held_up.max(Waited::now(&traffic.fleet, &world).since(&waited));
            let most = due + nanos(switch.within + MACHINE + held_up);
            let is_quiet = now >= least && {
                let inner = traffic.ledger.0.lock().unwrap();
                let since = now - nanos(QUIET);
                let failures = inner.failures.iter().rev().take_while(|one| one.at >= since);
                let checks = inner.checks.iter().rev().take_while(|one| one.to >= since);
                let is_open = |one: &&Check| !switch.allowed.is_answered(one.word, &one.reason);
                failures.count() < 2 && checks.filter(is_open).count() < 4
            };
            let is_over = now >= most + nanos(QUIET);
            let has_seen_enough = || {
                let inner = traffic.ledger.0.lock().unwrap();
                inner.revoked_since(switch.answered) >= REVOKED_AFTER
                    && inner.assessed(mode.mirror) >= ASSESSED
            };
            if (is_quiet || is_over) && (has_seen_enough() || now >= most + nanos(MORE)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        traffic.stop();
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_secs(10), async {
                while running.join_next().await.is_some() {}
            })
            .await;
        });
        // A process that knows nothing but what Redis says.
        let (_, ready) = traffic.fleet.begin();
        let ready = runtime.block_on(async { tokio::time::timeout(LIMIT / 2, ready).await });
        if !matches!(ready, Ok(Ok(_))) {
            let what = "a new process cannot connect".to_owned();
            traffic.ledger.wrong(crate::ledger::WrongKind::Doubted, what);
        }
        runtime.block_on(traffic.verify(Duration::from_secs(2), switch.allowed));
        let inner = traffic.ledger.0.lock().unwrap();
        let Switch { fault, answered, behind, .. } = *switch;
        let settled_by = due + nanos(switch.within + MACHINE + held_up);
        let times = Times { fault, answered, due, behind, settled_by };
        let mut outcome = assess(&inner, times, mode.mirror, switch.allowed);
        drop(inner);
        outcome.stall = canary.longest();
        outcome.limit = switch.within;
        outcome.held_up = held_up;
        outcome.servers = world.describe();
        drop(traffic);
        runtime.shutdown_timeout(Duration::from_secs(1));
        drop(world);
        outcome
    }

    // === What can be done to the servers ===

    /// Waits until one of these is a primary, and says when.
    pub fn wait_for_primary(&self, but: &[usize]) -> (usize, u64) {
        let sockets: Vec<(usize, PathBuf)> = self
            .world
            .servers()
            .iter()
            .enumerate()
            .filter(|(index, _)| !but.contains(index))
            .map(|(index, server)| (index, server.socket()))
            .collect();
        let start = Instant::now();
        loop {
            for (index, socket) in &sockets {
                if is_primary(socket) {
                    return (*index, clock::now());
                }
            }
            assert!(start.elapsed() < LIMIT, "no new primary");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lets the replicas lose their primary without the sentinels minding it yet: what is confirmed
    /// from now on is lost if the primary dies. Says when that was.
    pub fn leave_replicas_behind(&self) -> u64 {
        let primary = self.sentinel().primary_index();
        for (index, server) in self.world.servers().iter().enumerate() {
            if index != primary {
                server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
            }
        }
        clock::now()
    }

    /// Orders a failover while the primary is well.
    pub fn order_failover(&self) -> u64 {
        let sentinel = &self.sentinel().sentinels()[0];
        let mut at = 0;
        wait_until("a sentinel takes the order", LIMIT, || {
            at = clock::now();
            sentinel.try_cli(&["SENTINEL", "FAILOVER", Sentinel::SERVICE]).is_ok()
        });
        at
    }
}

/// Writes that wait for a replica are not confirmed before there is one that keeps up. Says when
/// there was, or `due` if that is later.
fn wait_for_replica(world: &World, due: u64) -> u64 {
    let World::Sentinels(sentinel) = world else { return due };
    let start = Instant::now();
    // The offset that the primary had, by its port.
    let mut wanted: Option<(u16, u64)> = None;
    while start.elapsed() < LIMIT / 2 {
        let primary = sentinel.primary();
        let info = primary.try_cli(&["INFO", "replication"]).unwrap_or_default();
        if info.contains("role:master") {
            match wanted.filter(|(port, _)| *port == primary.port()) {
                Some((_, offset)) if has_followed(&info, offset) => break,
                Some(_) => {}
                None => wanted = number(&info, "master_repl_offset:").map(|n| (primary.port(), n)),
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    due.max(clock::now())
}

/// Whether a replica has confirmed as much. One that is sent a snapshot is called online before it
/// has loaded that, which a busy disk delays by seconds.
fn has_followed(info: &str, offset: u64) -> bool {
    info.lines().filter(|line| line.starts_with("slave")).any(|line| {
        line.contains("state=online") && number(line, "offset=").is_some_and(|at| at >= offset)
    })
}

/// The number that stands behind this word.
fn number(text: &str, word: &str) -> Option<u64> {
    let (_, rest) = text.split_once(word)?;
    let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Whether this server says that it is a primary.
fn is_primary(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.write_all(b"AUTH harness harness\r\nROLE\r\n")?;
        let (mut reply, mut part) = (Vec::<u8>::new(), [0_u8; 256]);
        while reply.len() < 20 {
            match stream.read(&mut part)? {
                0 => break,
                length => reply.extend(&part[..length]),
            }
        }
        Ok(reply.windows(6).any(|word| word == b"master"))
    };
    ask().unwrap_or(false)
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// For how long threads have wanted to run and the machine let them wait: of each process, of each
/// server, by their process ids.
struct Waited([HashMap<u32, Duration>; 2]);

impl Waited {
    fn now(fleet: &Fleet, world: &World) -> Self {
        let processes = fleet.serving().into_iter().map(|process| process.pid().as_raw_pid());
        let processes = processes.filter_map(|pid| u32::try_from(pid).ok()).collect();
        let servers: Vec<u32> = world.servers().iter().map(RedisServer::pid).collect();
        Self([processes, servers].map(|pids: Vec<u32>| {
            pids.into_iter().map(|pid| (pid, Self::of_threads(pid))).collect()
        }))
    }

    /// That thread of it which has waited longest; nothing where the system does not say.
    fn of_threads(pid: u32) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        let waited = threads.flatten().filter_map(|thread| {
            let counted = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            counted.split_whitespace().nth(1)?.parse().ok()
        });
        Duration::from_nanos(waited.max().unwrap_or_default())
    }

    /// An answer needs a process and a server, one after the other.
    fn since(&self, before: &Self) -> Duration {
        let longest = |now: &HashMap<u32, Duration>, before: &HashMap<u32, Duration>| {
            let since = now.iter().map(|(pid, waited)| {
                waited.saturating_sub(before.get(pid).copied().unwrap_or_default())
            });
            since.max().unwrap_or_default()
        };
        let all = self.0.iter().zip(&before.0).map(|(now, before)| longest(now, before));
        all.sum::<Duration>().min(HELD_UP_AT_MOST)
    }
}

/// Knows how late the machine was.
struct Canary {
    longest: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Canary {
    fn start() -> Self {
        const PERIOD: Duration = Duration::from_millis(10);
        let (longest, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (Arc::clone(&longest), Arc::clone(&is_over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                std::thread::sleep(PERIOD);
                let late = start.elapsed().saturating_sub(PERIOD);
                seen.fetch_max(nanos(late), Ordering::Relaxed);
            }
        });
        Self { longest, is_over }
    }

    fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
