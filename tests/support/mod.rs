//! What the integration tests stand on: real Redis servers that die with the test that started
//! them, sentinel and cluster set-ups, certificates, and a TCP proxy that misbehaves on demand.
//!
//! A test binary includes it with `#[path = "../support/mod.rs"] mod support;`, at its root.
#![allow(dead_code, reason = "every test binary compiles this module, and none uses all of it")]
#![allow(unused_macros, reason = "the same")]
#![allow(unused_imports, reason = "the same: the re-exports are for whichever test wants them")]
#![allow(
    unreachable_pub,
    reason = "`pub` marks what tests may call; a test binary exports nothing"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows these in test functions, and helpers of tests deserve no less"
)]

mod docs;
mod name;
mod prometheus;
mod proxy;
mod redis;
mod temp_dir;
mod tls;
mod topology;

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use docs::{put, seen_on};
pub use name::MovableName;
pub(crate) use prometheus::prometheus_or_skip;
pub use prometheus::{Prometheus, prometheus_is_installed, promtool};
pub use proxy::{Fault, FaultProxy};
pub use redis::{Builder, RedisServer, is_running, stop_process};
pub use temp_dir::TempDir;
pub use tls::TlsFiles;
pub use topology::{Cluster, Sentinel};

/// Leaves the test early, and loudly, on a machine without Redis.
macro_rules! redis_or_skip {
    () => {
        if !$crate::support::redis_is_installed() {
            return;
        }
    };
}
pub(crate) use redis_or_skip;

/// Whether `redis-server` and `redis-cli` can be run.
///
/// # Panics
///
/// If they cannot and `REQUIRE_REDIS=1`, which CI sets lest it be green for having tested nothing.
pub fn redis_is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        [redis::server_program(), "redis-cli".into()].iter().all(|program| answers_version(program))
    });
    if !installed {
        let message = "skipped: redis-server is not installed (apt-get install redis-server)";
        assert!(
            std::env::var("REQUIRE_REDIS").as_deref() != Ok("1"),
            "{message}, and REQUIRE_REDIS=1"
        );
        // Not `eprintln!`: the test harness captures that and shows it only for a failed test.
        let _ = writeln!(std::io::stderr(), "{message}");
    }
    installed
}

/// Whether the server speaks TLS. Those of `scripts/setup-servers` are built without it.
pub fn server_has_tls() -> bool {
    let has_tls = std::env::var_os("TEST_REDIS_SERVER").is_none();
    if !has_tls {
        let _ = writeln!(std::io::stderr(), "skipped: this server is built without TLS");
    }
    has_tls
}

fn answers_version(program: &OsStr) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Waits until `done` holds, looking every 10 ms. It blocks the thread: in async tests, only use it
/// where nothing else has to make progress on that thread meanwhile.
///
/// # Panics
///
/// If that takes longer than `limit`; the message names `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "waited more than {limit:?} until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
