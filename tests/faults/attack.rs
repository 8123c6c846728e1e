//! Floods and tricks of clients, while others are served: no revoked token passes, no innocent is
//! refused, and nothing grows.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::attacked::{Numbers, Setup};
use crate::attackers::{Attackers, Client, Kind, REVOKED, Signer};
use crate::canary::Pinger;
use crate::support::RedisServer;

/// One attack, so often.
const ROUNDS: usize = 5;
/// After so many, everything has been warmed up.
const WARM: usize = 3;
/// A bound on the length of a round, whatever was asked for.
const LONGEST: Duration = Duration::from_secs(600);
/// How long a busy machine may take to connect all, and to let go of all.
const PATIENCE: Duration = Duration::from_secs(60);
/// Innocents, half of them in each fail mode, and those whose token is revoked, likewise.
const INNOCENTS: usize = 16;
const EXCLUDED: usize = 4;
/// How often each of them asks, and how often somebody signs out.
const PERIOD: Duration = Duration::from_millis(100);
const LOGOUTS: Duration = Duration::from_millis(250);
/// If a bare `PING` was held up for so long, half of the limit of a check, Redis was late.
const LATE: Duration = Duration::from_millis(25);
/// A connection that is given up for that is felt for a while.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Redis and the attackers have machines of their own elsewhere: here Redis comes first, then the
/// server, then the attackers.
pub const SERVER_NICE: i32 = 5;
const ATTACKERS_NICE: i32 = 10;
/// Open files beside those of the attack.
const OTHER_FILES: u64 = 500;

/// An attack: what it is called, what it does, by how many connections.
#[derive(Clone, Copy)]
pub struct Attack {
    pub name: &'static str,
    kind: Kind,
    connections: usize,
    /// How long each of them, or each stream of one, waits between two requests.
    pause: Duration,
}

impl Attack {
    /// Whether no innocent may be refused: a processor that has nothing left to give is a limit.
    fn is_below_limits(&self) -> bool {
        !self.pause.is_zero()
    }
}

pub const ALL: &[Attack] = &[
    paced("no attack", Kind::Nothing, 0, 1000),
    paced("one revoked token, 1 500 connections, once a second each", Kind::OneRevoked, 1500, 1000),
    unpaced("the same, as fast as they can", Kind::OneRevoked, 1500),
    paced(
        "one revoked token, 8 HTTP/2 connections, 200 streams each, once a second each",
        Kind::OneRevokedHttp2,
        8,
        1000,
    ),
    unpaced("the same streams, as fast as they can", Kind::OneRevokedHttp2, 8),
    paced("junk, 500 connections, twice a second each", Kind::Junk, 500, 500),
    unpaced("junk, as fast as they can", Kind::Junk, 500),
    paced("unknown `kid`s, 500 connections, twice a second each", Kind::UnknownKeys, 500, 500),
    paced(
        "a new valid token each time, 500 connections, twice a second each",
        Kind::Distinct,
        500,
        500,
    ),
    unpaced(
        "a new valid token each time, 3 000 connections, as fast as they can",
        Kind::Distinct,
        3000,
    ),
    paced(
        "logins, half of them of one user, 100 connections, once a second each",
        Kind::Logins,
        100,
        1000,
    ),
    paced("slow readers, 500 connections", Kind::SlowReaders, 500, 200),
    paced("half-open, 2 000 connections", Kind::HalfOpen, 2000, 1000),
    paced(
        "10 000 connections, once in ten seconds each, one in four with a revoked token",
        Kind::Many,
        10_000,
        10_000,
    ),
];

const fn paced(name: &'static str, kind: Kind, connections: usize, pause_ms: u64) -> Attack {
    Attack { name, kind, connections, pause: Duration::from_millis(pause_ms) }
}

const fn unpaced(name: &'static str, kind: Kind, connections: usize) -> Attack {
    paced(name, kind, connections, 0)
}

/// What one attack has come to.
pub struct Attacked {
    pub name: &'static str,
    pub mirror: bool,
    pub is_below_limits: bool,
    /// How many connections there were at most; fewer than wanted where the machine allows fewer.
    pub connections: u64,
    pub wanted: usize,
    pub seconds: f64,
    pub answered: u64,
    pub by_status: Vec<(u16, u64)>,
    pub revoked_passed: u64,
    pub forged_passed: u64,
    pub innocents: Innocents,
    pub fetches: u64,
    pub numbers: Numbers,
    /// Resident memory in KiB and open files: at the start, at most, and after each round.
    pub at_start: Sample,
    pub peak: Sample,
    pub after: Vec<Sample>,
}

/// What the others have seen meanwhile.
#[derive(Clone, Default)]
pub struct Innocents {
    pub asked: u64,
    pub refused: u64,
    pub unchecked: u64,
    /// Of both, those while a bare `PING` was late as well.
    pub excused: u64,
    pub latencies: Vec<Duration>,
    pub revoked_asked: u64,
    pub revoked_checked: u64,
    pub revoked_unchecked: u64,
    pub logouts: u64,
    pub logouts_refused: u64,
    pub odd: Vec<String>,
}

impl Innocents {
    /// How long an answer took: so many in a hundred took less.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted
            .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub resident_kib: u64,
    pub files: u64,
}

impl Attacked {
    pub fn store(&self) -> &'static str {
        if self.mirror { "mirror" } else { "direct" }
    }

    pub fn sentence(&self) -> String {
        let Innocents { asked, refused, unchecked, excused, revoked_asked, logouts, .. } =
            &self.innocents;
        format!(
            "{} ({}): {} of {} connections, {:.0} requests/s, {:?}; {asked} innocents, {refused} \
             refused, {unchecked} unchecked, {excused} excused, median {:?}, 99 % {:?}; revoked: \
             {revoked_asked} of others, {} passed; {logouts} logouts, {} refused; {} fetches of \
             keys; {:?}; memory {} KiB, peak {}, after {:?}; files {}, peak {}, after {:?}",
            self.name,
            self.store(),
            self.connections,
            self.wanted,
            self.rate(),
            self.by_status,
            self.innocents.percentile(50),
            self.innocents.percentile(99),
            self.revoked_passed + self.innocents.revoked_checked + self.innocents.revoked_unchecked,
            self.innocents.logouts_refused,
            self.fetches,
            self.numbers,
            self.at_start.resident_kib,
            self.peak.resident_kib,
            self.after.iter().map(|sample| sample.resident_kib).collect::<Vec<_>>(),
            self.at_start.files,
            self.peak.files,
            self.after.iter().map(|sample| sample.files).collect::<Vec<_>>(),
        )
    }

    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
        let answered = self.answered as f64;
        answered / self.seconds
    }

    /// # Errors
    /// What must not have been.
    fn assess(&self) -> Result<(), String> {
        let seen = &self.innocents;
        let mut problems = Vec::new();
        let mut count = |number: u64, what: &str| {
            if number > 0 {
                problems.push(format!("{number} {what}"));
            }
        };
        count(self.revoked_passed, "requests of attackers with a revoked token passed");
        count(self.forged_passed, "requests with a forged token passed");
        count(seen.revoked_checked, "revoked tokens passed as checked");
        let unasked = seen.refused + seen.unchecked + seen.revoked_unchecked + seen.logouts_refused;
        if self.is_below_limits {
            count(
                unasked.saturating_sub(seen.excused),
                "innocents refused or unasked, without excuse",
            );
        } else {
            // Load is 503 in both modes.
            let open = seen.unchecked + seen.revoked_unchecked;
            count(open.saturating_sub(seen.excused), "tokens passed unchecked");
        }
        problems.extend(seen.odd.first().map(|odd| format!("{} odd: {odd}", seen.odd.len())));
        if seen.asked < 100 || seen.revoked_asked < 20 || seen.logouts < 8 {
            problems.push("hardly any innocents: no test".into());
        }
        if self.wanted > 0 && self.connections * 10 < self.wanted as u64 * 9 {
            problems.push(format!("only {} connections: no test", self.connections));
        }
        // By the third round everything has been warmed up.
        let warm = self.after[..WARM].iter().map(|sample| sample.resident_kib).max().unwrap();
        let last = self.after[ROUNDS - 1];
        // An allocator may keep a page here or there, and what was written within the last minute
        // is kept, up to a bound: attacks are over sooner.
        let kept = self.numbers.replay_log_kib;
        if last.resident_kib > warm + warm / 20 + 1024 + kept {
            problems.push(format!("memory went from {warm} to {} KiB", last.resident_kib));
        }
        if last.files > self.after[0].files.max(self.at_start.files) + 8 {
            problems.push(format!("open files went from {:?} to {}", self.at_start, last.files));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(format!("{}\n    {}", self.sentence(), problems.join("\n    ")))
        }
    }
}

/// How many files a process may have open, after asking for as many as it may ask for.
pub fn descriptors() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Lets this thread have a processor only after others. A nicer one stays as it is.
pub fn comes_after(nice: i32) {
    let _ = setpriority_process(None, nice);
}

/// # Errors
/// What must not have been.
pub fn run(attack: &Attack, length: Duration, mirror: bool) -> Result<Attacked, String> {
    let length = length.min(LONGEST);
    let allowed = descriptors().saturating_sub(OTHER_FILES);
    let connections = attack.connections.min(usize::try_from(allowed).unwrap_or(usize::MAX));
    if connections < attack.connections {
        println!(
            "this machine allows {allowed} connections only, not {}: raise `ulimit -n`",
            attack.connections
        );
    }
    let redis = RedisServer::start();
    let pinger = Pinger::start(redis.socket());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| comes_after(ATTACKERS_NICE))
        .build()
        .unwrap();
    let signer = Arc::new(Signer::new());
    let (keys, fetches) = runtime.block_on(publish(signer.key_set.clone()));
    let server = Server::start(&Setup { url: redis.url(), keys, mirror });
    let attackers = Attackers::new(server.address, Arc::clone(&signer));
    let (witness, mut witnesses) = (Arc::new(Witness::new(pinger)), JoinSet::new());
    runtime.block_on(async {
        let mut client = Client::connect(server.address).await.unwrap();
        let answer = client.ask(&format!("POST /revoke?id={REVOKED}"), "").await.unwrap();
        assert_eq!(answer.status, 204, "the revocation of before");
    });
    let handle = runtime.handle().clone();
    let inside = handle.enter();
    witness.start(server.address, &signer, &mut witnesses);
    drop(inside);
    std::thread::sleep(Duration::from_millis(500));
    let at_start = server.sample();
    let (mut peak, mut after, mut seconds, mut most) = (at_start, Vec::new(), 0.0, 0);
    for _ in 0..ROUNDS {
        let mut tasks = JoinSet::new();
        let inside = handle.enter();
        attackers.start(attack.kind, connections, attack.pause, &mut tasks);
        drop(inside);
        let begun = Instant::now();
        // Those who have their answer go on; so what is open is open at once.
        while attackers.connected.load(Ordering::Relaxed) < connections as u64
            && begun.elapsed() < PATIENCE
        {
            peak = peak.max_with(server.sample());
            std::thread::sleep(Duration::from_millis(50));
        }
        let connected = Instant::now();
        while connected.elapsed() < length {
            std::thread::sleep(Duration::from_millis(100));
            peak = peak.max_with(server.sample());
        }
        seconds += begun.elapsed().as_secs_f64();
        most = most.max(attackers.connected.load(Ordering::Relaxed).min(connections as u64));
        runtime.block_on(tasks.shutdown());
        let over = Instant::now();
        while server.sample().files > at_start.files + 8 && over.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        // What was under way when they left.
        std::thread::sleep(Duration::from_millis(500));
        after.push(server.sample());
    }
    let answered = attackers.answers.count();
    witness.is_over.store(true, Ordering::Relaxed);
    runtime.block_on(async { while witnesses.join_next().await.is_some() {} });
    let numbers = runtime.block_on(async {
        let mut client = Client::connect(server.address).await.unwrap();
        let answer = client.ask("GET /numbers", "").await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    });
    let attacked = Attacked {
        name: attack.name,
        mirror,
        is_below_limits: attack.is_below_limits(),
        connections: most,
        wanted: attack.connections,
        seconds,
        answered,
        by_status: attackers.answers.by_status(),
        revoked_passed: attackers.answers.revoked_passed(),
        forged_passed: attackers.answers.forged_passed(),
        innocents: witness.seen.lock().unwrap().clone(),
        fetches: fetches.load(Ordering::Relaxed),
        numbers,
        at_start,
        peak,
        after,
    };
    attacked.assess()?;
    Ok(attacked)
}

/// Serves a key set, and counts how often it is fetched.
async fn publish(key_set: String) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let fetches = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&fetches);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: \
                 close\r\ncontent-length: {}\r\n\r\n{key_set}",
                key_set.len()
            );
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (url, fetches)
}

/// The server under attack: this binary, once more.
struct Server {
    child: Child,
    address: SocketAddr,
    /// It ends when this is closed.
    _stdin: ChildStdin,
}

impl Server {
    fn start(setup: &Setup) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["attacked", &serde_json::to_string(setup).unwrap()])
            // What one thread has freed, another can use: memory is flat sooner.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).unwrap();
        let address = address.trim().parse().expect("the address of a server that has started");
        Self { child, address, _stdin: stdin }
    }

    fn sample(&self) -> Sample {
        let process = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|line| line.split_whitespace().next());
        let files = std::fs::read_dir(format!("{process}/fd")).map_or(0, Iterator::count);
        Sample {
            resident_kib: resident.and_then(|kib| kib.parse().ok()).unwrap_or_default(),
            files: files as u64,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sample {
    fn max_with(self, other: Self) -> Self {
        Self {
            resident_kib: self.resident_kib.max(other.resident_kib),
            files: self.files.max(other.files),
        }
    }
}

/// Asks what is right meanwhile, over connections from before the attack.
struct Witness {
    seen: Mutex<Innocents>,
    is_over: AtomicBool,
    pinger: Pinger,
}

impl Witness {
    fn new(pinger: Pinger) -> Self {
        Self { seen: Mutex::default(), is_over: AtomicBool::new(false), pinger }
    }

    fn start(self: &Arc<Self>, server: SocketAddr, signer: &Arc<Signer>, tasks: &mut JoinSet<()>) {
        for n in 0..INNOCENTS {
            let (this, signer) = (Arc::clone(self), Arc::clone(signer));
            tasks.spawn(async move { this.innocent(server, &signer, n).await });
        }
        for n in 0..EXCLUDED {
            let (this, signer) = (Arc::clone(self), Arc::clone(signer));
            tasks.spawn(async move { this.excluded(server, &signer, n).await });
        }
        let (this, signer) = (Arc::clone(self), Arc::clone(signer));
        tasks.spawn(async move { this.sign_out(server, &signer).await });
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// Asks once; None if that is odd.
    async fn ask(&self, client: &mut Client, line: &str, token: &str) -> (u16, Option<bool>, bool) {
        let from = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, client.ask(line, token)).await;
        let (stalls, now) = (&self.pinger.stalls, Instant::now());
        let shortly_before = from.checked_sub(AFTERMATH).unwrap_or(from);
        let was_late =
            stalls.within(from, now) >= LATE || stalls.longest(shortly_before, now) >= LATE;
        match answer {
            Ok(Ok(answer)) => (answer.status, answer.checked, was_late),
            other => {
                self.seen.lock().unwrap().odd.push(format!("{line}: {other:?}"));
                (0, None, was_late)
            }
        }
    }

    async fn innocent(&self, server: SocketAddr, signer: &Signer, n: usize) {
        let mut client = Client::connect(server).await.unwrap();
        let mode = mode(n);
        let token = signer.token(&format!("innocent-{n}"));
        while self.goes_on() {
            let from = Instant::now();
            let (status, checked, was_late) = self.ask(&mut client, mode, &token).await;
            {
                let mut seen = self.seen.lock().unwrap();
                seen.asked += 1;
                seen.latencies.push(from.elapsed());
                match (status, checked) {
                    (200, Some(true)) => {}
                    (200, Some(false)) => seen.unchecked += 1,
                    (503, None) => seen.refused += 1,
                    other => seen.odd.push(format!("an innocent got {other:?}")),
                }
                if (status, checked) != (200, Some(true)) && was_late {
                    seen.excused += 1;
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// With the token of the attackers.
    async fn excluded(&self, server: SocketAddr, signer: &Signer, n: usize) {
        let mut client = Client::connect(server).await.unwrap();
        let token = signer.token(REVOKED);
        while self.goes_on() {
            let (status, checked, was_late) = self.ask(&mut client, mode(n), &token).await;
            self.revoked(status, checked, was_late);
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn revoked(&self, status: u16, checked: Option<bool>, was_late: bool) {
        let mut seen = self.seen.lock().unwrap();
        seen.revoked_asked += 1;
        match (status, checked) {
            // Under load nobody has to be told why.
            (401 | 503, None) => {}
            (200, Some(true)) => seen.revoked_checked += 1,
            (200, Some(false)) => {
                seen.revoked_unchecked += 1;
                seen.excused += u64::from(was_late);
            }
            other => seen.odd.push(format!("a revoked token got {other:?}")),
        }
    }

    /// Again and again a token is used, revoked and used again.
    async fn sign_out(&self, server: SocketAddr, signer: &Signer) {
        let mut client = Client::connect(server).await.unwrap();
        for n in 0_u64.. {
            if !self.goes_on() {
                return;
            }
            let id = format!("out-{n}");
            let token = signer.token(&id);
            let line = format!("POST /revoke?id={id}");
            let (status, _, was_late) = self.ask(&mut client, &line, "").await;
            if status == 204 {
                self.seen.lock().unwrap().logouts += 1;
                for mode in [mode(0), mode(1)] {
                    let (status, checked, was_late) = self.ask(&mut client, mode, &token).await;
                    self.revoked(status, checked, was_late);
                }
            } else {
                let mut seen = self.seen.lock().unwrap();
                seen.logouts_refused += 1;
                seen.excused += u64::from(was_late);
            }
            tokio::time::sleep(LOGOUTS).await;
        }
    }
}

fn mode(n: usize) -> &'static str {
    if n.is_multiple_of(2) { "GET /open" } else { "GET /closed" }
}
