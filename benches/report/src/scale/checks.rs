//! Checks that another process makes meanwhile, as an application would that has no mirror, or one
//! that is starting.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::store::{Lookup, RevocationStore as _};
use tower_jwt_revocation::token::SignedClaims;
use tower_jwt_revocation::{RedisStore, VerifiedToken};
use tower_jwt_revocation_report::machine::percentile;
use tower_jwt_revocation_report::support::{AUDIENCE, ISSUER, profile};

/// How many checks are begun in a second, whatever becomes of those before.
const RATE: u64 = 500;

/// What became of the checks of some time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Checked {
    pub asked: u64,
    /// Those that got no answer within the usual limit of a check.
    pub failed: u64,
    /// How long an answer took, in milliseconds; zero where there was none.
    pub p50: f64,
    pub p99: f64,
}

/// The other process; it ends with this value, or with this process.
pub struct Checks {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Checks {
    pub fn start(redis: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["check", redis])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// What became of the checks since the last call.
    pub fn lap(&mut self) -> Checked {
        writeln!(self.input.as_mut().unwrap(), "lap").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("the process that checks has ended")
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// What the child does: it checks at a steady rate until its standard input ends, and says what
/// became of it when it is asked.
pub fn check(redis: &str) {
    let (ask, asked) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if ask.send(line).is_err() {
                break;
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check_until_end(redis, &asked));
}

async fn check_until_end(redis: &str, laps: &Receiver<String>) {
    // With the settings that an application begins with: whether a check fails depends on them.
    let store = RedisStore::builder().with_url(redis).connect().await.unwrap();
    let tokens: Vec<_> = (0..1000).map(token).collect();
    let (start, mut begun) = (Instant::now(), 0);
    let mut tasks = JoinSet::new();
    let (mut failed, mut took) = (0, Vec::new());
    loop {
        match laps.try_recv() {
            Ok(_) => {
                took.sort_by(f64::total_cmp);
                let at = |share| if took.is_empty() { 0.0 } else { percentile(&took, share) };
                let (p50, p99) = (at(0.5), at(0.99));
                let asked = took.len() as u64 + failed;
                let lap = Checked { asked, failed, p50, p99 };
                println!("{}", serde_json::to_string(&lap).unwrap());
                (failed, took) = (0, Vec::new());
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let due = (start.elapsed().as_secs_f64() * RATE as f64) as u64;
        while begun < due {
            let (store, token) = (store.clone(), tokens[begun as usize % tokens.len()].clone());
            tasks.spawn(async move {
                let start = Instant::now();
                let answer = match store.check(&token) {
                    Lookup::Now(answer) => answer,
                    Lookup::Later(answer) => answer.await,
                };
                answer.ok().map(|_| start.elapsed().as_secs_f64() * 1000.0)
            });
            begun += 1;
        }
        while let Some(done) = tasks.try_join_next() {
            match done.unwrap() {
                Some(ms) => took.push(ms),
                None => failed += 1,
            }
        }
    }
}

fn token(n: u64) -> std::sync::Arc<VerifiedToken> {
    let now = Timestamp::now().as_secs();
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": format!("checked-{n}"),
        "jti": format!("checked-{n}"), "sid": format!("checked-{n}"),
        "iat": now, "exp": now + 3600
    });
    let claims = claims.to_string();
    profile().assert_verified(SignedClaims::new(claims.as_bytes())).unwrap().into()
}
