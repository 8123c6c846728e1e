//! How many instructions the paths take that every request takes, and whether they have become
//! more.
//!
//! Time depends on the machine and its mood, instructions hardly do: each case below runs under
//! valgrind's callgrind, and what it takes per round is compared with `benches/counts.txt`.
//!
//! - `scripts/count`: fails if a case takes over 5 % more than it is written down with.
//! - `make count-renew`: writes the file anew.
//! - `scripts/count --time`: the same cases in nanoseconds, the best of many runs; for a look in
//!   between.
//! - `scripts/count --cases`: the cases themselves, once; what valgrind is asked to run.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use http::header::HeaderName;
use http::{HeaderValue, Request, Response, header};
use jsonwebtoken::Algorithm;
use tower::{Layer as _, Service};
use tower_jwt_revocation::audit::{AuditEvent, AuditSink};
use tower_jwt_revocation::clock::Timestamp;
use tower_jwt_revocation::revocation::{Fact, Fingerprint};
use tower_jwt_revocation::store::feed::{Feed, Heartbeat, LogEntry, Progress, SnapshotPage};
use tower_jwt_revocation::store::{Doubt, Lookup, RevocationStore as _, Standing, StoreError};
use tower_jwt_revocation::token::bearer::{RequestHead, TokenSource};
use tower_jwt_revocation::token::{IssuerSet, SignedClaims, TokenVerifier as _};
use tower_jwt_revocation::{
    CachedVerifier, JwtRevocationLayer, JwtVerifier, MemoryStore, Mirror, Revoker, Target,
    TokenProfile, VerifiedToken,
};
use tower_jwt_revocation_report::numbers::{self, Numbers};
use tower_jwt_revocation_report::support::{self, KEY_ID, Keys};

/// Rounds per case, each with a token of its own.
const ROUNDS: usize = 200;
/// Rounds before, so that what is made once is not counted.
const WARM_UP: usize = 25;
/// Revocations in the sets. So few to a line of the mirror's that hardly one is full: all tokens
/// share their client, key and issuer, so if one of these met a full line, which depends on the
/// seed of the process, every round would pay for it.
const REVOKED: usize = 5_000;
/// RSA under valgrind is slow: of so many rounds one.
const FEW: usize = 50;
/// By how much a case may grow.
const TOLERANCE: f64 = 0.05;

fn main() -> ExitCode {
    if env::args().any(|arg| arg == "--cases") {
        for (name, mut case) in cases() {
            warm_up(&mut case);
            counted_section(&mut case);
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    if env::args().any(|arg| arg == "--time") {
        for (name, mut case) in cases() {
            warm_up(&mut case);
            let once = |case: &mut Case| {
                let start = Instant::now();
                counted_section(case);
                start.elapsed()
            };
            let fastest = (0..2000).map(|_| once(&mut case)).min().unwrap_or_default();
            println!("{name:<44} {:>8} ns", fastest.as_nanos() / ROUNDS as u128);
        }
        return ExitCode::SUCCESS;
    }
    match compare(env::args().any(|arg| arg == "--renew")) {
        Ok(is_good) => {
            if is_good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

// === The comparison ===

fn compare(renew: bool) -> Result<bool, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../counts.txt");
    let known = fs::read_to_string(&path).unwrap_or_default();
    let counts = counts()?;
    if renew {
        return fs::write(&path, written(&counts))
            .map(|()| true)
            .map_err(|error| error.to_string());
    }
    let mut is_good = true;
    println!("{:<44} {:>10} {:>10}", "instructions per round", "known", "now");
    for (name, now) in &counts {
        let line = known.lines().find_map(|line| line.strip_prefix(&format!("{name:<44} ")));
        let Some(before) = line.and_then(|number| number.trim().parse::<u64>().ok()) else {
            println!("{name:<44} {:>10} {now:>10}  NOT IN THE FILE", "");
            is_good = false;
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let grown = *now as f64 / before as f64 - 1.0;
        let verdict = match grown {
            _ if grown > TOLERANCE => "TOO MANY",
            _ if grown < -TOLERANCE => "fewer: renew the file, so that it stays so",
            _ => "",
        };
        is_good &= grown <= TOLERANCE;
        println!("{name:<44} {before:>10} {now:>10} {:>+7.1} % {verdict}", 100.0 * grown);
    }
    if !is_good {
        let made_with =
            known.lines().find(|line| line.starts_with("# rustc")).unwrap_or("# rustc unknown");
        println!(
            "\nThe file was made with {}, this is {}.\nIf it is meant to be so: `make \
             count-renew`, and say why in the message of the commit.",
            made_with.trim_start_matches("# "),
            rustc()
        );
    }
    Ok(is_good)
}

fn written(counts: &[(String, u64)]) -> String {
    let mut text = format!(
        "# Instructions per round, by valgrind's callgrind; see benches/report/src/bin/count.rs.\n\
         # CI fails if one grows by more than {:.0} %. Renewed with `make count-renew`.\n# {}\n",
        100.0 * TOLERANCE,
        rustc()
    );
    for (name, count) in counts {
        _ = writeln!(text, "{name:<44} {count:>10}");
    }
    text
}

fn rustc() -> String {
    let said = Command::new("rustc").arg("-V").output();
    said.map_or_else(
        |_| "rustc unknown".into(),
        |said| String::from_utf8_lossy(&said.stdout).trim().into(),
    )
}

/// Runs the cases under callgrind, which writes one file each time that the counted section is
/// left.
fn counts() -> Result<Vec<(String, u64)>, String> {
    let dir = env::temp_dir().join(format!("counts-{}", process::id()));
    fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let counts = counts_in(&dir);
    _ = fs::remove_dir_all(&dir);
    counts
}

fn counts_in(dir: &Path) -> Result<Vec<(String, u64)>, String> {
    let run = Command::new("valgrind")
        // Two patterns for one function: of options with the same pattern callgrind heeds only one.
        .args([
            "--tool=callgrind",
            "--zero-before=count::counted_section",
            "--dump-after=*counted_section",
        ])
        .arg(format!("--callgrind-out-file={}", dir.join("out").display()))
        .arg(env::current_exe().map_err(|error| error.to_string())?)
        .arg("--cases")
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error}"))?;
    if !run.status.success() {
        return Err(format!("valgrind failed:\n{}", String::from_utf8_lossy(&run.stderr)));
    }
    let names = String::from_utf8_lossy(&run.stdout).into_owned();
    let count = |(at, name): (usize, &str)| {
        let file: PathBuf = dir.join(format!("out.{}", at + 1));
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: u64 =
            total.and_then(|total| total.trim().parse().ok()).ok_or("callgrind wrote no totals")?;
        Ok((name.to_owned(), total / ROUNDS as u64))
    };
    names.lines().enumerate().map(count).collect()
}

/// All that is counted. Its name is told to callgrind.
#[inline(never)]
fn counted_section(case: &mut Case) {
    for round in 0..ROUNDS {
        case(round);
    }
}

fn warm_up(case: &mut Case) {
    for _ in 0..WARM_UP {
        for round in 0..ROUNDS {
            case(round);
        }
    }
}

// === The cases ===

type Case = Box<dyn FnMut(usize)>;
type Cases = Vec<(&'static str, Case)>;

fn cases() -> Cases {
    let world = World::new();
    let mut cases: Cases = Vec::new();

    // Whole requests.
    let values: Arc<[HeaderValue]> = world.tokens.iter().map(|token| bearer(token)).collect();
    let of = |values: &Arc<[HeaderValue]>| {
        let values = Arc::clone(values);
        move |round: usize| values.get(round).cloned()
    };
    let same = |value: Option<&str>| {
        let value = value.map(|value| HeaderValue::try_from(value).unwrap());
        move |_: usize| value.clone()
    };
    cases.push(("bare", request(Inner, of(&values), 200)));
    cases.push((
        "accept, mirror",
        request(world.layer(world.mirror.clone()).layer(Inner), of(&values), 200),
    ));
    let bare = world.layer(world.mirror.clone()).without_clearance();
    cases.push(("accept, mirror, without clearance", request(bare.layer(Inner), of(&values), 200)));
    cases.push((
        "accept, memory",
        request(world.layer(world.memory.clone()).layer(Inner), of(&values), 200),
    ));
    let layer = || world.layer(world.mirror.clone()).layer(Inner);
    let none = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.AAAA";
    let stranger = "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6Im5vbmUifQ.eyJzdWIiOiJhbGljZSJ9.AAAA";
    cases.push(("refuse, no credentials", request(layer(), same(None), 401)));
    cases.push(("refuse, malformed credentials", request(layer(), same(Some("Bearer a b")), 400)));
    cases.push(("refuse, junk", request(layer(), same(Some("Bearer junk")), 401)));
    cases.push((
        "refuse, long junk",
        request(layer(), same(Some(&format!("Bearer {}", "j".repeat(800)))), 401),
    ));
    // Ten times longer than any token may be: refused by its length alone.
    cases.push((
        "refuse, 60 kB",
        request(layer(), same(Some(&format!("Bearer {}", "j".repeat(60_000)))), 401),
    ));
    cases.push(("refuse, alg none", request(layer(), same(Some(none)), 401)));
    // The same token, saying that it needs no signature.
    let (_, rest) = world.tokens[0].split_once('.').unwrap();
    let forged = format!("Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIiwia2lkIjoiMjAyNi0wMSJ9.{rest}");
    cases.push(("refuse, alg forged", request(layer(), same(Some(&forged)), 401)));
    cases.push(("refuse, unknown key", request(layer(), same(Some(stranger)), 401)));
    let revoked = JwtRevocationLayer::new(
        CachedVerifier::new(support::verifier(&world.keys)),
        world.revoking(),
    );
    cases.push(("refuse, revoked", request(revoked.layer(Inner), of(&values), 401)));

    cases.extend(variants(&world, &values));
    cases.extend(parts(&world));
    cases.extend(first_sights());
    cases.extend(followed());
    cases
}

/// Whole requests, by layers that do more than the usual.
fn variants(world: &World, values: &Arc<[HeaderValue]>) -> Cases {
    let mut cases: Cases = Vec::new();
    let each = |values: &Arc<[HeaderValue]>| {
        let values = Arc::clone(values);
        move |round: usize| values.get(round).cloned()
    };
    let cookies: Arc<[HeaderValue]> = world
        .tokens
        .iter()
        .map(|token| HeaderValue::try_from(format!("theme=dark; __Host-token={token}")).unwrap())
        .collect();
    let by_cookie = world
        .layer(world.mirror.clone())
        .with_token_sources([TokenSource::bearer(), TokenSource::cookie("__Host-token").unwrap()]);
    cases.push((
        "accept, mirror, by cookie",
        request_with(by_cookie.layer(Inner), header::COOKIE, each(&cookies), 200),
    ));
    let either = JwtRevocationLayer::new(
        CachedVerifier::new(one_of_two_issuers(&world.keys)),
        world.mirror.clone(),
    );
    cases.push(("accept, mirror, two issuers", request(either.layer(Inner), each(values), 200)));
    let audited = world.layer(world.mirror.clone()).with_audit(NoSink);
    cases.push(("accept, mirror, audited", request(audited.layer(Inner), each(values), 200)));
    let revoked = world.layer(world.revoking()).with_audit(NoSink);
    cases.push(("refuse, revoked, audited", request(revoked.layer(Inner), each(values), 401)));
    let read = world.layer(world.mirror.clone());
    let metrics = read.metrics();
    cases.push((
        "accept, mirror, metrics read before",
        before(
            move || drop(black_box(metrics.prometheus())),
            request(read.layer(Inner), each(values), 200),
        ),
    ));
    let beside = world.layer(beside_a_settling_shard());
    cases.push((
        "accept, mirror, beside a settling shard",
        request(beside.layer(Inner), each(values), 200),
    ));
    let exempting = world.layer(world.mirror.clone()).with_exemption(|_| true);
    cases.push(("pass, exempt", request(exempting.layer(Inner), each(values), 200)));
    cases
}

/// Does something else before each time that all rounds are run, until they are counted: what it
/// takes itself is another thread's.
fn before(mut other: impl FnMut() + 'static, mut case: Case) -> Case {
    let mut times = 0;
    Box::new(move |round| {
        if round == 0 && times < WARM_UP {
            other();
            times += 1;
        }
        case(round);
    })
}

/// As the mirror below, but it has a second shard.
fn beside_a_settling_shard() -> Mirror {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let staleness = Duration::from_secs(3600);
    let mirror = runtime.block_on(numbers::beside_a_settling_shard(REVOKED as u64, staleness));
    std::mem::forget(runtime);
    mirror
}

/// Takes the issuer of these keys, and another one.
fn one_of_two_issuers(keys: &Keys) -> IssuerSet {
    let profile =
        TokenProfile::new().with_issuer("https://else.example").with_audience(support::AUDIENCE);
    let other = JwtVerifier::new([support::hs256().verification], profile).unwrap();
    IssuerSet::new(other).unwrap().with(support::verifier(keys)).unwrap()
}

struct NoSink;

impl AuditSink for NoSink {
    fn record(&self, event: &AuditEvent) {
        black_box(event);
    }
}

/// What a mirror takes to begin: with a snapshot, and with a log. The store takes nothing.
fn followed() -> Cases {
    let until = Timestamp::now().saturating_add(Duration::from_secs(3600));
    let facts: Vec<_> = (0..MANY).map(|n| (numbers::name(n), Fact::revoked_until(until))).collect();
    let entries: Vec<_> = (1..=MANY)
        .map(|seq| LogEntry {
            id: seq.into(),
            epoch: 1,
            seq,
            fingerprint: numbers::name(seq),
            fact: Fact::revoked_until(until),
        })
        .collect();
    [
        ("mirror, snapshot of 20 k, by rounds", facts, Vec::new()),
        ("mirror, log of 20 k, by rounds", Vec::new(), entries),
    ]
    .map(|(name, facts, entries)| {
        let feed = Made { facts: facts.into(), entries: entries.into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let case: Case = Box::new(move |round| {
            // Each is a whole start.
            if round == 0 {
                runtime.block_on(async {
                    let mirror = Mirror::of(MemoryStore::new(), vec![feed.clone()]);
                    let mirror = mirror.with_max_staleness(Duration::from_secs(3600));
                    let mirror = mirror.start().unwrap();
                    mirror.ready().await;
                    assert_eq!(mirror.status().entries as u64, MANY);
                });
            }
        });
        (name, case)
    })
    .into()
}

/// Revocations that a mirror reads, once in all rounds.
const MANY: u64 = 20_000;

/// A shard that is at hand.
#[derive(Clone)]
struct Made {
    facts: Arc<[(Fingerprint, Fact)]>,
    entries: Arc<[LogEntry]>,
}

impl Feed for Made {
    async fn connect(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn heartbeat(&mut self, _: Progress) -> Result<Heartbeat, StoreError> {
        Ok(Heartbeat::new(1, self.entries.len() as u64, Timestamp::now(), Doubt::None))
    }

    async fn tail(&mut self) -> Result<u128, StoreError> {
        Ok(0)
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        Ok(self.facts.len() as u64)
    }

    async fn snapshot(&mut self, cursor: Option<u64>) -> Result<SnapshotPage, StoreError> {
        let from = usize::try_from(cursor.unwrap_or(0)).unwrap();
        let to = (from + 2000).min(self.facts.len());
        let next = (to < self.facts.len()).then_some(to as u64);
        Ok(SnapshotPage { facts: self.facts[from..to].to_vec(), next })
    }

    async fn find(&mut self, names: &[Fingerprint]) -> Result<Vec<Option<Fact>>, StoreError> {
        Ok(vec![None; names.len()])
    }

    async fn read(&mut self, after: u128, wait: Duration) -> Result<Vec<LogEntry>, StoreError> {
        let after = usize::try_from(after).unwrap();
        if after == self.entries.len() {
            tokio::time::sleep(wait).await;
        }
        let to = (after + 1000).min(self.entries.len());
        Ok(self.entries[after..to].to_vec())
    }

    async fn replay(&mut self, _: &[(Fingerprint, Fact)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn owns(&self, _: &Fingerprint) -> bool {
        true
    }

    async fn leave(&mut self) {}
}

/// What a request is made of.
fn parts(world: &World) -> Cases {
    let mut cases: Cases = Vec::new();
    let (sources, values) =
        ([TokenSource::bearer()], world.tokens.iter().map(|token| bearer(token)));
    let requests: Vec<_> = values.map(|value| plain_request(Some(value))).collect();
    cases.push((
        "credentials",
        Box::new(move |round| {
            drop(black_box(RequestHead::from(&requests[round]).token(&sources).unwrap()));
        }),
    ));
    let cached = CachedVerifier::new(support::verifier(&world.keys));
    let tokens = Arc::clone(&world.tokens);
    cases.push((
        "cache hit",
        Box::new(move |round| drop(black_box(cached.verify(&tokens[round]).unwrap()))),
    ));
    let (mirror, verified) = (world.mirror.clone(), Arc::clone(&world.verified));
    cases.push((
        "look-up, mirror",
        Box::new(move |round| expect_live(mirror.check(&verified[round]))),
    ));
    // Which targets share a place with others depends on the seed of a store.
    let memories: Vec<_> = (0..64).map(|_| memory()).collect();
    let verified = Arc::clone(&world.verified);
    cases.push((
        "look-up, memory",
        Box::new(move |round| expect_live(memories[round % 64].check(&verified[round]))),
    ));
    cases
}

/// A token that is seen for the first time. The signature alone is there to be subtracted: valgrind
/// hides the instructions of the processor that are made for SHA-256, so its share is far larger
/// here than it is in life.
fn first_sights() -> Cases {
    let keys = support::hs256();
    let tokens: Arc<[String]> = (0..ROUNDS).map(|n| keys.token(n)).collect();
    let verifier = support::verifier(&keys);
    let rsa = support::rs256();
    let (rsa_token, rsa_verifier) = (rsa.token(0), support::verifier(&rsa));
    let rsa_again = rsa_token.clone();
    let either = one_of_two_issuers(&keys);
    let to_either = Arc::clone(&tokens);
    let (profile, payload) = (support::profile(), support::payload(&tokens[0]));
    let again = Arc::clone(&tokens);
    vec![
        (
            "first sight, HS256",
            Box::new(move |round| drop(black_box(verifier.verify(&tokens[round]).unwrap()))),
        ),
        (
            "first sight, HS256, signature alone",
            Box::new(move |round| assert!(keys.check_signature(&again[round]))),
        ),
        (
            "first sight, HS256, two issuers",
            Box::new(move |round| drop(black_box(either.verify(&to_either[round]).unwrap()))),
        ),
        (
            "first sight, RS256, a fiftieth",
            Box::new(move |round| {
                if round % FEW == 0 {
                    drop(black_box(rsa_verifier.verify(&rsa_token).unwrap()));
                }
            }),
        ),
        (
            "first sight, RS256, its signature, a fiftieth",
            Box::new(move |round| assert!(round % FEW > 0 || rsa.check_signature(&rsa_again))),
        ),
        (
            "first sight, claims alone",
            Box::new(move |_| {
                let claims = SignedClaims::new(black_box(&payload)).with_key_id(Some(KEY_ID));
                drop(black_box(profile.assert_verified(claims).unwrap()));
            }),
        ),
    ]
}

struct World {
    keys: Keys,
    tokens: Arc<[String]>,
    verified: Arc<[Arc<VerifiedToken>]>,
    mirror: Mirror,
    memory: MemoryStore,
}

impl World {
    fn new() -> Self {
        let keys = support::rs256();
        // They are signed once: RSA under valgrind is slow.
        let tokens: Arc<[String]> = (0..ROUNDS).map(|n| keys.token(n)).collect();
        let verifier: JwtVerifier = support::verifier(&keys);
        let verified = tokens.iter().map(|token| verifier.verify(token).unwrap()).collect();
        assert_eq!(keys.algorithm, Algorithm::RS256);
        Self { keys, tokens, verified, mirror: mirror(), memory: memory() }
    }

    fn layer(
        &self,
        store: impl tower_jwt_revocation::store::RevocationStore,
    ) -> JwtRevocationLayer {
        JwtRevocationLayer::new(CachedVerifier::new(support::verifier(&self.keys)), store)
    }

    fn revoking(&self) -> MemoryStore {
        let store = memory();
        let revoker = Revoker::new(store.clone(), support::profile()).unwrap();
        for token in &*self.verified {
            futures::executor::block_on(revoker.revoke_token(token).into_future()).unwrap();
        }
        store
    }
}

/// A mirror that is fresh for as long as this takes, since nothing drives its tasks any more.
fn mirror() -> Mirror {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mirror = runtime.block_on(async {
        let feed = Numbers { entries: REVOKED as u64, ..Numbers::default() };
        let mirror = Mirror::of(MemoryStore::new(), vec![feed]);
        let mirror = mirror.with_max_staleness(Duration::from_secs(3600)).start().unwrap();
        mirror.ready().await;
        mirror
    });
    std::mem::forget(runtime);
    mirror
}

fn memory() -> MemoryStore {
    let store = MemoryStore::new();
    let revoker = Revoker::new(store.clone(), support::profile()).unwrap();
    let requests = (0..REVOKED).map(|id| revoker.revoke(Target::token(format!("revoked-{id}"))));
    futures::executor::block_on(revoker.revoke_many(requests)).unwrap();
    store
}

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

fn expect_live(answer: Lookup) {
    assert!(matches!(answer, Lookup::Now(Ok(Standing::Live))));
}

fn plain_request(authorization: Option<HeaderValue>) -> Request<()> {
    request_of(&header::AUTHORIZATION, authorization)
}

fn request_of(field: &HeaderName, value: Option<HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("api.example"));
    if let Some(value) = value {
        request.headers_mut().insert(field, value);
    }
    request
}

/// A request from its making to its answer.
fn request<S>(
    service: S,
    value: impl Fn(usize) -> Option<HeaderValue> + 'static,
    status: u16,
) -> Case
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
{
    request_with(service, header::AUTHORIZATION, value, status)
}

/// The same, with its credentials in this field.
fn request_with<S>(
    mut service: S,
    field: HeaderName,
    value: impl Fn(usize) -> Option<HeaderValue> + 'static,
    status: u16,
) -> Case
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible> + 'static,
{
    Box::new(move |round| {
        let request = request_of(&field, value(round));
        let mut context = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut context).is_ready());
        let mut future = std::pin::pin!(service.call(request));
        match future.as_mut().poll(&mut context) {
            Poll::Ready(Ok(response)) => assert_eq!(response.status(), status),
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => unreachable!("everything is at hand"),
        }
    })
}

#[derive(Clone)]
struct Inner;

impl Service<Request<()>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        black_box(&request);
        ready(Ok(Response::new(())))
    }
}
