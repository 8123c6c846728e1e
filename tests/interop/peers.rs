//! The libraries of others, installed on first use by `scripts/setup-interop`, and their programs
//! in this folder.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Where the libraries are.
fn installed() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup-interop");
        // What it says in vain is seen when the test is skipped.
        let _ = Command::new(script).arg(&dir).stdin(Stdio::null()).status();
        dir
    })
}

/// Whether this library is there. If not, the test is skipped with a message, unless
/// `REQUIRE_INTEROP=1`.
pub(crate) fn is_there(name: &str) -> bool {
    let is_there = installed().join(format!("{name}.ready")).exists();
    assert!(
        is_there || std::env::var_os("REQUIRE_INTEROP").is_none(),
        "{name} cannot be installed"
    );
    if !is_there {
        let skipped = format!("skipped: {name} cannot be installed; see scripts/setup-interop");
        let _ = writeln!(std::io::stderr(), "{skipped}");
    }
    is_there
}

/// Runs a program of this folder, in Python or for Node, and gives its answer to the request.
pub(crate) fn ask(program: &str, request: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(program);
    let mut command = if path.extension().is_some_and(|language| language == "py") {
        let mut python = Command::new(installed().join("venv/bin/python"));
        python.args(["-W", "ignore"]);
        python
    } else {
        let mut node = Command::new("node");
        node.env("INTEROP_DIR", installed());
        node
    };
    let command = command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} failed at {}", request["do"]);
    serde_json::from_slice(&output.stdout).unwrap()
}
