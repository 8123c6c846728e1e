//! A name that leads where it is told to, for the processes that are started with it. On Linux.
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use super::redis::output_within;
use super::temp_dir::TempDir;

const LIMIT: Duration = Duration::from_secs(20);

/// The name `redis.test`, as the resolver of the system answers it to a process that has
/// [the variables](Self::variables).
pub struct MovableName(TempDir);

impl MovableName {
    pub const NAME: &'static str = "redis.test";

    /// It leads to this address until it is moved.
    #[track_caller]
    pub fn to(address: Ipv4Addr) -> Self {
        let name = Self(TempDir::new());
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(name.0.path().join("resolver.so"));
        cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/resolver.c"));
        let built = output_within(LIMIT, cc).expect("a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        name.move_to(address);
        name
    }

    /// From now on it leads here.
    pub fn move_to(&self, address: Ipv4Addr) {
        // Whoever reads it meanwhile sees the one or the other.
        let (new, file) = (self.0.path().join("new"), self.0.path().join("address"));
        fs::write(&new, address.to_string()).expect("a writable directory");
        fs::rename(new, file).expect("a writable directory");
    }

    /// What the environment of such a process needs.
    pub fn variables(&self) -> [(String, String); 2] {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        [("LD_PRELOAD".into(), path("resolver.so")), ("REDIS_TEST_FILE".into(), path("address"))]
    }
}
