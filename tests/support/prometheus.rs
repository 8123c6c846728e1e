//! A real Prometheus, and `promtool`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::answers_version;
use super::temp_dir::TempDir;

/// Leaves the test early, and loudly, on a machine without Prometheus.
macro_rules! prometheus_or_skip {
    () => {
        if !$crate::support::prometheus_is_installed() {
            return;
        }
    };
}
pub(crate) use prometheus_or_skip;

/// Whether `prometheus` and `promtool` can be run.
///
/// # Panics
///
/// If they cannot and `REQUIRE_PROMETHEUS=1`, which is said where they have to be there, lest the
/// tests be green for having tested nothing.
pub fn prometheus_is_installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| {
        ["prometheus", "promtool"].map(OsStr::new).iter().all(|it| answers_version(it))
    });
    if !installed {
        let message = "skipped: prometheus is not installed (apt-get install prometheus)";
        assert!(
            std::env::var("REQUIRE_PROMETHEUS").as_deref() != Ok("1"),
            "{message}, and REQUIRE_PROMETHEUS=1"
        );
        let _ = writeln!(std::io::stderr(), "{message}");
    }
    installed
}

/// Runs `promtool` with this text as its input.
///
/// # Panics
///
/// If it finds anything to complain about: a warning is an error.
#[track_caller]
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    let text = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = tool.wait_with_output().unwrap();
    // It may have read no more than it wanted.
    let _ = writer.join().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {stdout}{stderr}\n{input}");
    stdout + &stderr
}

/// A Prometheus that scrapes one address every second, on a port of its own.
pub struct Prometheus {
    child: Child,
    pub url: String,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts to scrape `host:port`.
    pub fn scraping(address: &str) -> Self {
        let dir = TempDir::new();
        let config = dir.path().join("prometheus.yml");
        let yaml = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
             scrape_configs:\n- job_name: test\n  \
             static_configs:\n  - targets: ['{address}']\n"
        );
        std::fs::write(&config, yaml).unwrap();
        // Free a moment ago; nothing else on this machine is given it so soon.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, url: format!("http://127.0.0.1:{port}"), _dir: dir }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
