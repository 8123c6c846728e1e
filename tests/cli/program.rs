//! How the tests run the program.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tower_jwt_revocation::clock::Timestamp;

/// What a process on a busy machine may take beyond its limits.
const SLACK: Duration = Duration::from_secs(15);

const SECRET: &str = "a secret of the tests, 32 bytes long or more";

/// An environment of the program: nothing is inherited.
#[derive(Clone)]
pub(crate) struct Program {
    env: Vec<(String, String)>,
}

/// What a run has left.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Program {
    /// With this Redis, and tokens of an issuer without a name.
    pub(crate) fn at(url: &str) -> Self {
        let env = [
            ("REDIS_URL", url),
            ("JWT_ISSUERS", "*"),
            ("JWT_AUDIENCES", "*"),
            ("JWT_SECRET", SECRET),
            ("JWT_ALGORITHM", "HS256"),
        ];
        Self { env: env.map(|(name, value)| (name.into(), value.into())).into() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    fn command(&self) -> assert_cmd::Command {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_jwt-revocation"));
        command.env_clear().envs(self.env.iter().cloned());
        command
    }

    /// Runs it with these arguments, which stand between spaces.
    #[track_caller]
    pub(crate) fn run(&self, args: &str) -> Ran {
        self.run_with(&args.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// Runs it with these arguments, and this on its standard input.
    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let start = Instant::now();
        let output = self
            .command()
            .args(args)
            .write_stdin(input)
            .timeout(Duration::from_secs(60))
            .output()
            .unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            took: start.elapsed(),
        }
    }

    /// Runs it with a standard output on which nothing can be written, as on a disk that is full.
    #[track_caller]
    pub(crate) fn run_full(&self, args: &str) -> Ran {
        let start = Instant::now();
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_jwt-revocation"))
            .args(args.split_whitespace())
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            out: String::new(),
            err: String::from_utf8(output.stderr).unwrap(),
            took: start.elapsed(),
        }
    }

    /// Asks about a token on standard input.
    #[track_caller]
    pub(crate) fn ask(&self, token: &str) -> Ran {
        let ran = self.run_with(&["token", "--json"], token);
        let is_told = |text: &str| !token.is_empty() && text.contains(token);
        assert!(!is_told(&ran.out) && !is_told(&ran.err), "the token was printed: {ran:?}");
        ran
    }

    /// Starts it, to be read and stopped.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_jwt-revocation"))
            .args(args)
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Ran {
    /// The one JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let lines = self.jsons();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines[0].clone()
    }

    /// One JSON document on each line of standard output.
    #[track_caller]
    pub(crate) fn jsons(&self) -> Vec<Value> {
        let read =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.out.lines().map(read).collect()
    }

    #[track_caller]
    pub(crate) fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn within(self, limit: Duration) -> Self {
        assert!(self.took < limit + SLACK, "{self:?}");
        self
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, out, err, took } = self;
        write!(f, "status {status} after {took:?}\n--- out\n{out}\n--- err\n{err}")
    }
}

/// A token of `alice`, with these claims instead of the usual ones.
pub(crate) fn token(claims: &Value) -> String {
    let now = Timestamp::now().as_secs();
    let mut all = json!({ "sub": "alice", "jti": "t-1", "iat": now - 1, "exp": now + 600 });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    // With all features there are two.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let key = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::default(), &all, &key).unwrap()
}
