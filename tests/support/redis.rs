//! One real `redis-server`, which does not outlive the test.
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::temp_dir::TempDir;
use super::tls::TlsFiles;
use super::wait_until;

/// How long a server may take to answer its first `PING`, or to be gone: generous, for busy
/// machines.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long `redis-cli` may take, so that a hung server fails the test instead of hanging it.
const CLI_LIMIT: Duration = Duration::from_secs(10);

/// Keeps one server. The shell reads from a pipe which only the test process holds, so that it sees
/// the end of that process however it came, SIGKILL included, and then kills the server, which may
/// be stopped by SIGSTOP. (PDEATHSIG would not do: it fires when the *thread* that started the
/// server ends.) The shell ignores Ctrl-C because its work is yet to come then. The server stays
/// its zombie child until the end, hence its process id cannot be given to anyone else meanwhile.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
dir=$1; shift
"$@" >>"$dir/log" 2>&1 &
echo $!
read -r order
kill -9 $!
wait $!
[ "$order" = keep ] || rm -rf "$dir"
"#;

/// A running `redis-server` on 127.0.0.1. Dropping it kills the server and removes its directory.
pub struct RedisServer {
    builder: Builder,
    /// Declared before `dir`: the server goes first, then its directory.
    watched: Watched,
    dir: TempDir,
    port: u16,
    tls: Option<TlsFiles>,
}

/// What a server is to be like; see [`RedisServer::builder`].
#[derive(Clone, Default)]
pub struct Builder {
    directives: String,
    unix_url: bool,
    tls: Option<Mutual>,
    sentinel: bool,
    own_clock: bool,
}

/// Whether the server wants a certificate of the client.
#[derive(Clone, Copy)]
struct Mutual(bool);

impl Builder {
    /// Adds a directive of `redis.conf`, with or without the dashes of the command line:
    /// `.arg("--maxmemory", "3mb")`.
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        let value = if value.is_empty() { "\"\"" } else { value };
        let _ = writeln!(self.directives, "{} {value}", name.trim_start_matches('-'));
        self
    }

    /// Makes [`RedisServer::url`] name the Unix socket. The server listens on its port as well.
    pub fn unix_socket(mut self) -> Self {
        self.unix_url = true;
        self
    }

    /// Speaks TLS only on the port, with the certificates of [`RedisServer::tls`]; if `mutual`,
    /// clients have to show theirs.
    pub fn tls(mut self, mutual: bool) -> Self {
        self.tls = Some(Mutual(mutual));
        self
    }

    /// Adds a user: `.acl("alice on >secret ~* &* +@all")`. `.acl("default off")` shuts everyone
    /// else out.
    pub fn acl(self, user: &str) -> Self {
        self.arg("user", user)
    }

    /// Watches other servers instead of holding data.
    pub fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// With a clock that can be [set](RedisServer::set_clock). On Linux.
    pub fn own_clock(mut self) -> Self {
        self.own_clock = true;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not, with its log.
    #[track_caller]
    pub fn start(self) -> RedisServer {
        for _ in 0..5 {
            let dir = TempDir::new();
            let port = free_port();
            let tls = self.tls.map(|_| TlsFiles::write(dir.path()));
            fs::write(dir.path().join("redis.conf"), self.config(dir.path(), port, tls.as_ref()))
                .expect("a writable directory");
            if self.own_clock {
                build_clock(dir.path());
            }
            match Watched::start(dir.path(), self.sentinel) {
                Ok(watched) => return RedisServer { builder: self, watched, dir, port, tls },
                Err(NotStarted::PortTaken) => {}
                Err(NotStarted::Other(log)) => panic!("redis-server did not start: {log}"),
            }
        }
        panic!("redis-server found its port taken, five times in a row");
    }

    fn config(&self, dir: &Path, port: u16, tls: Option<&TlsFiles>) -> String {
        let dir = dir.display();
        let mut config = format!(
            "bind 127.0.0.1\nprotected-mode no\ndir {dir}\nunixsocket {dir}/redis.sock\n\
             user harness on >harness ~* &* +@all\n"
        );
        if !self.sentinel {
            config.push_str("save \"\"\nappendonly no\n");
        }
        if let (Some(Mutual(mutual)), Some(files)) = (self.tls, tls) {
            let _ = write!(
                config,
                "port 0\ntls-port {port}\ntls-auth-clients {}\ntls-ca-cert-file {}\ntls-cert-file \
                 {}\n\
                 tls-key-file {}\n",
                if mutual { "yes" } else { "no" },
                files.ca.display(),
                files.server_cert.display(),
                files.server_key.display(),
            );
        } else {
            let _ = writeln!(config, "port {port}");
        }
        config + &self.directives
    }
}

impl RedisServer {
    /// Starts a plain server: no TLS, no password, nothing written to disk.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Sets the clock of a server that has [its own](Builder::own_clock): so far ahead of that of
    /// the machine.
    pub fn set_clock(&self, ahead_ms: i64) {
        assert!(self.builder.own_clock, "this server has the clock of the machine");
        // In place: the server has the file mapped into its memory.
        let file = fs::OpenOptions::new().write(true).open(self.dir.path().join(CLOCK_AHEAD));
        file.and_then(|mut file| file.write_all(&ahead_ms.to_ne_bytes()))
            .expect("the file of the clock");
    }

    /// What to connect to, without credentials.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// What to connect to as this user.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, credentials: &str) -> String {
        match (self.builder.unix_url, self.builder.tls) {
            (true, _) => {
                // A host must follow the credentials, though nobody asks it anything.
                let host = if credentials.is_empty() { "" } else { "localhost" };
                format!("redis+unix://{credentials}{host}{}", self.socket().display())
            }
            (false, Some(_)) => format!("rediss://{credentials}127.0.0.1:{}", self.port),
            (false, None) => format!("redis://{credentials}127.0.0.1:{}", self.port),
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The Unix socket, on which every server listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The process id of the server now running, or last run.
    pub fn pid(&self) -> u32 {
        self.watched.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The certificates of a server built with [`Builder::tls`].
    #[track_caller]
    pub fn tls(&self) -> &TlsFiles {
        self.tls.as_ref().expect("a server built with tls")
    }

    /// Whether the server answers `PING` within a second.
    pub fn answers(&self) -> bool {
        answers(&self.socket())
    }

    /// Everything the server has logged since it was last started.
    pub fn log(&self) -> String {
        log_of(self.dir.path())
    }

    /// Stops the process: connections stay open, the kernel even accepts new ones, nobody answers.
    pub fn stop_hung(&self) {
        stop_process(self.watched.pid);
    }

    /// Lets a hung server run again.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the server and waits until nobody listens any more.
    #[track_caller]
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        wait_until("the killed redis-server is gone", START_LIMIT, || {
            UnixStream::connect(self.socket()).is_err() && TcpStream::connect(self.addr()).is_err()
        });
    }

    /// Starts the server anew on the same port, killing it first where it still runs. Its memory is
    /// lost; what it wrote to disk (with `.arg("appendonly", "yes")`) is not.
    #[track_caller]
    pub fn restart(&mut self) {
        self.watched.end_keeping_files();
        let start = Instant::now();
        loop {
            match Watched::start(self.dir.path(), self.builder.sentinel) {
                Ok(watched) => break self.watched = watched,
                Err(NotStarted::PortTaken) => {
                    assert!(start.elapsed() < START_LIMIT, "someone has taken port {}", self.port);
                    thread::sleep(Duration::from_millis(50));
                }
                Err(NotStarted::Other(log)) => panic!("redis-server did not start again: {log}"),
            }
        }
    }

    /// Runs a command as a user who may do everything, through the Unix socket, so that neither TLS
    /// nor access rules are in the way. Answers what `redis-cli` prints: a line per element,
    /// nothing for nil.
    ///
    /// # Panics
    ///
    /// If Redis answers with an error or not at all.
    #[track_caller]
    pub fn cli(&self, command: &[&str]) -> String {
        self.try_cli(command).unwrap_or_else(|error| panic!("{command:?} failed: {error}"))
    }

    /// As [`cli`](Self::cli), for commands that may fail. A reply counts as an error when it starts
    /// as one, with a word in capitals such as `ERR` or `NOPERM`, and more after it.
    pub fn try_cli(&self, command: &[&str]) -> Result<String, String> {
        let mut cli = Command::new("redis-cli");
        cli.arg("-s").arg(self.socket());
        cli.args(["--user", "harness", "--pass", "harness", "--no-auth-warning"]).args(command);
        let output = output_within(CLI_LIMIT, cli).map_err(|error| error.to_string())?;
        let reply = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
        if !output.status.success() {
            return Err(format!("{reply}{}", String::from_utf8_lossy(&output.stderr)));
        }
        if is_error(&reply) { Err(reply) } else { Ok(reply) }
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        kill_process(self.watched.pid, signal).expect("a process of ours, which is not reaped yet");
    }
}

/// Stops a process by SIGSTOP, and returns when all its threads stand still: until then it may
/// answer once more.
#[track_caller]
pub fn stop_process(pid: Pid) {
    kill_process(pid, Signal::STOP).expect("a process of ours, which is not reaped yet");
    let start = Instant::now();
    while !stands_still(pid) {
        assert!(start.elapsed() < START_LIMIT, "the process does not stop");
        thread::sleep(Duration::from_micros(100));
    }
}

fn stands_still(pid: Pid) -> bool {
    // Without /proc nobody can tell.
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
        return true;
    };
    threads.flatten().all(|thread| {
        // A thread that has ended meanwhile stands still. The name, in parentheses, may hold
        // anything.
        fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z']))
        }) || !thread.path().exists()
    })
}

/// A failed test shows what its servers had to say.
impl Drop for RedisServer {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of the server on port {}:\n{}", self.port, self.log());
        }
    }
}

fn is_error(reply: &str) -> bool {
    reply.split_once(' ').is_some_and(|(code, _)| {
        code.len() > 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())
    })
}

/// Whether a process of this id exists, be it as a zombie.
pub fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    test_kill_process(pid).is_ok()
}

/// The program of the servers: that of the system, or what `TEST_REDIS_SERVER` names, so that the
/// same tests run against other versions and against Valkey.
pub(super) fn server_program() -> OsString {
    std::env::var_os("TEST_REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Runs `command` to its end, or kills it after `limit`.
pub(super) fn output_within(limit: Duration, mut command: Command) -> io::Result<Output> {
    let child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    receiver.recv_timeout(limit).unwrap_or_else(|_| {
        let _ = kill_process(pid, Signal::KILL);
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")))
    })
}

const CLOCK: &str = "clock.so";
const CLOCK_AHEAD: &str = "clock.ahead";

/// Puts the clock into the directory of a server: what is loaded into it, and the file that sets
/// it.
fn build_clock(dir: &Path) {
    fs::write(dir.join(CLOCK_AHEAD), 0_i64.to_ne_bytes()).expect("a writable directory");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(dir.join(CLOCK));
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c"));
    let built = output_within(START_LIMIT, cc).expect("a C compiler");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// A server and its [`WATCHDOG`].
struct Watched {
    watchdog: Child,
    pid: Pid,
}

enum NotStarted {
    PortTaken,
    Other(String),
}

impl Watched {
    /// Starts the server configured in `dir` and waits until it answers.
    fn start(dir: &Path, sentinel: bool) -> Result<Self, NotStarted> {
        // What an earlier run in this directory left behind must not be taken for a word of this
        // one.
        let _ = fs::remove_file(dir.join("log"));
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(dir);
        command
            .arg(server_program())
            .arg(dir.join("redis.conf"))
            .args(sentinel.then_some("--sentinel"));
        if dir.join(CLOCK).exists() {
            command
                .env("LD_PRELOAD", dir.join(CLOCK))
                .env("CLOCK_AHEAD_FILE", dir.join(CLOCK_AHEAD));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watchdog = command.spawn().expect("a shell");
        let mut line = String::new();
        let stdout = watchdog.stdout.take().expect("a pipe from the watchdog");
        BufReader::new(stdout).read_line(&mut line).expect("the process id from the watchdog");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        let mut watched = Self { watchdog, pid };

        let start = Instant::now();
        while !answers(&dir.join("redis.sock")) {
            let log = log_of(dir);
            if log.contains("Address already in use") {
                watched.end_keeping_files();
                return Err(NotStarted::PortTaken);
            }
            if log.contains("FATAL CONFIG FILE ERROR") || start.elapsed() > START_LIMIT {
                return Err(NotStarted::Other(log));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(watched)
    }

    fn end_keeping_files(&mut self) {
        if let Some(stdin) = self.watchdog.stdin.as_mut() {
            let _ = stdin.write_all(b"keep\n");
        }
        self.end();
    }

    /// Closing the pipe is the order to end. After this the server is gone and reaped.
    fn end(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
    }
}

fn log_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Whether a server answers on this socket. `NOAUTH` is an answer as well; `LOADING` is not.
fn answers(socket: &Path) -> bool {
    let ping = || -> io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"+PONG" || &reply == b"-NOAU")
    };
    ping().unwrap_or(false)
}

/// A port which nobody uses, with a free one 10 000 above for the cluster bus.
///
/// Both lie below the range from which the system takes the ports of outgoing connections. From
/// that range, any connection could take the port of a server that is down for a moment, and a
/// client which tries to reconnect there would sooner or later get its own port and talk to itself.
pub(super) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const SPAN: u32 = 12_000;
    const BUS: u16 = 10_000;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..SPAN)
        .map(|_| {
            // Test binaries that run side by side start far from each other.
            let n =
                process::id().wrapping_mul(211).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
            FIRST + u16::try_from(n % SPAN).expect("less than the span")
        })
        .find(|&port| is_free(port) && is_free(port + BUS))
        .expect("a free port")
}
