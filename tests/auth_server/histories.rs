//! Rotation against a model: random histories of refreshes, retries, lost replies, tabs, thefts,
//! revocations, steps of the clock of Redis and deaths of processes, over three processes on one
//! real Redis.
//!
//! Two sessions of one user each: one from which someone steals, and one of an innocent, who
//! repeats a refresh only within the grace. The model knows what the table says of each token; the
//! ends are checked without it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::{self, RedisServer};
use futures::future::join_all;
use serde_json::json;

use crate::server::*;

const GRACE: Duration = Duration::from_secs(10);
/// How close to the end of the grace nobody can say which side of it a request falls on.
const BLUR: Duration = Duration::from_secs(2);

/// Numbers that are the same in each run (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn one_of<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[usize::try_from(self.below(things.len() as u64)).unwrap()]
    }
}

/// The processes, and the clock of their Redis.
struct World {
    redis: RedisServer,
    servers: Vec<Server>,
    env: Vec<(&'static str, &'static str)>,
    began: Instant,
    ahead_ms: i64,
    dice: Dice,
}

impl World {
    fn new(seed: u64, env: &[(&'static str, &'static str)]) -> Self {
        let redis = RedisServer::builder().own_clock().start();
        let servers = (0..3).map(|_| Server::on(&redis, env)).collect();
        Self {
            redis,
            servers,
            env: env.to_vec(),
            began: Instant::now(),
            ahead_ms: 0,
            dice: Dice(seed),
        }
    }

    /// The time by the clock of Redis, since the beginning and an hour.
    fn now(&self) -> Duration {
        let since = i64::try_from(self.began.elapsed().as_millis()).unwrap();
        Duration::from_millis(u64::try_from(3_600_000 + since + self.ahead_ms).unwrap())
    }

    fn step(&mut self, seconds: i64) {
        // Not so far that the clocks of the servers, which stay, would take new tokens for tokens
        // of the future.
        self.ahead_ms = (self.ahead_ms + seconds * 1000).clamp(-30_000, 40_000);
        self.redis.set_clock(self.ahead_ms);
    }

    /// Lets the grace pass, wherever the clock stands.
    fn outlast_the_grace(&mut self) {
        if self.ahead_ms > 20_000 {
            // What was replaced before has to be seen as older after.
            self.ahead_ms = 0;
        }
        self.step(15);
    }

    fn any(&mut self) -> usize {
        usize::try_from(self.dice.below(3)).unwrap()
    }

    async fn refresh(&mut self, token: &str) -> Option<Tokens> {
        let server = self.any();
        granted(self.servers[server].refresh(token).await)
    }

    fn restart_one(&mut self) {
        let one = self.any();
        let _ = self.servers[one].child.kill();
        self.servers[one] = Server::on(&self.redis, &self.env);
    }
}

fn granted(answer: Answer) -> Option<Tokens> {
    if answer.status == 200 {
        return Some(Tokens::of(&answer));
    }
    assert_invalid_grant(answer);
    None
}

/// What the model says of a token that is presented.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Next,
    SameAgain,
    SameOrRefused,
    Refused,
}

/// One session, as the table has it.
struct Session {
    first: Tokens,
    current: String,
    parent: Option<(String, Duration)>,
    known: HashSet<String>,
    access: Vec<String>,
    grace: Duration,
    is_dead: bool,
    /// What the owner and the thief hold.
    owner: String,
    thief: Option<String>,
}

impl Session {
    async fn begin(world: &mut World, user: &str, grace: Duration) -> Self {
        let server = world.any();
        let first = world.servers[server].login(user).await;
        Self {
            current: first.refresh.clone(),
            owner: first.refresh.clone(),
            known: HashSet::from([first.refresh.clone()]),
            access: vec![first.access.clone()],
            parent: None,
            thief: None,
            is_dead: false,
            grace,
            first,
        }
    }

    fn expected(&self, token: &str, now: Duration) -> Expected {
        match &self.parent {
            _ if self.is_dead => Expected::Refused,
            _ if token == self.current => Expected::Next,
            Some((parent, at)) if parent == token && !self.grace.is_zero() => {
                let since = now.saturating_sub(*at);
                if since + BLUR < self.grace {
                    Expected::SameAgain
                } else if since > self.grace + BLUR {
                    Expected::Refused
                } else {
                    Expected::SameOrRefused
                }
            }
            _ => Expected::Refused,
        }
    }

    /// Holds an answer against the model, and the model to the answer.
    #[track_caller]
    fn compare(&mut self, token: &str, now: Duration, answer: Option<&Tokens>) {
        let expected = self.expected(token, now);
        match (expected, answer) {
            (Expected::Next, Some(next)) => {
                assert!(self.known.insert(next.refresh.clone()), "a token was given twice");
                self.parent =
                    Some((std::mem::replace(&mut self.current, next.refresh.clone()), now));
            }
            (Expected::SameAgain | Expected::SameOrRefused, Some(same)) => {
                assert_eq!(same.refresh, self.current);
            }
            (Expected::SameOrRefused | Expected::Refused, None) => self.is_dead = true,
            (expected, answer) => panic!("{expected:?}, but was answered {answer:?}"),
        }
        self.access.extend(answer.map(|tokens| tokens.access.clone()));
    }

    async fn present(&mut self, world: &mut World, token: &str) -> Option<Tokens> {
        let now = world.now();
        let answer = world.refresh(token).await;
        self.compare(token, now, answer.as_ref());
        answer
    }

    /// Tabs that refresh the token of the owner at the same time, at different processes.
    async fn tabs(&mut self, world: &mut World) {
        let token = self.owner.clone();
        let now = world.now();
        let expected = self.expected(&token, now);
        let asked = world.servers.iter().map(|server| server.refresh(&token));
        let answers: Vec<_> = join_all(asked).await.into_iter().map(granted).collect();
        let given: HashSet<_> =
            answers.iter().flatten().map(|tokens| tokens.refresh.clone()).collect();
        assert!(given.len() <= 1, "tabs were given {} tokens", given.len());
        if self.grace.is_zero() && expected == Expected::Next {
            // The first of them, before it was noticed that there was another.
            assert!(answers.iter().flatten().count() <= 1);
            self.access.extend(answers.into_iter().flatten().map(|tokens| tokens.access));
            self.known.extend(given);
            self.is_dead = true;
            return;
        }
        for answer in &answers {
            self.compare(&token, now, answer.as_ref());
            if let Some(tokens) = answer {
                self.owner.clone_from(&tokens.refresh);
            }
        }
    }

    /// All access tokens live and die with the session, at every process.
    async fn check_access(&self, world: &mut World) {
        let server = world.any();
        for access in self.access.iter().rev().take(3) {
            let status = world.servers[server].protected(access).await.status;
            assert_eq!(
                status,
                if self.is_dead { 401 } else { 200 },
                "an access token of a session"
            );
        }
    }
}

async fn refresh_by_owner(session: &mut Session, world: &mut World) {
    let token = session.owner.clone();
    if let Some(next) = session.present(world, &token).await {
        session.owner = next.refresh;
    }
}

async fn history(world: &mut World, user: &str, grace: Duration) {
    let mut prey = Session::begin(world, user, grace).await;
    let mut innocent = Session::begin(world, user, grace).await;
    let mut innocent_revoked = false;
    for _ in 0..24 {
        match world.dice.below(100) {
            0..25 => refresh_by_owner(&mut prey, world).await,
            // The reply is lost: the owner still holds the old one.
            25..33 => drop(prey.present(world, &prey.owner.clone()).await),
            33..40 => prey.tabs(world).await,
            40..50 => prey.thief = Some(prey.owner.clone()),
            50..62 => {
                if let Some(token) = prey.thief.clone()
                    && let Some(next) = prey.present(world, &token).await
                {
                    prey.thief = Some(next.refresh);
                }
            }
            62..70 => refresh_by_owner(&mut innocent, world).await,
            70..76 if !grace.is_zero() => {
                let token = innocent.owner.clone();
                innocent.present(world, &token).await;
                let seconds = *world.dice.one_of(&[0, 1, 4, -3]);
                world.step(seconds);
                refresh_by_owner(&mut innocent, world).await;
            }
            76..82 if !grace.is_zero() => innocent.tabs(world).await,
            82..93 => {
                let seconds = *world.dice.one_of(&[1, 3, 15, 15, -1, -7, -25]);
                world.step(seconds);
            }
            93..97 => {
                let (what, body) = match world.dice.below(4) {
                    0 => ("revoke_session", json!({ "session_id": prey.first.session })),
                    1 => ("revoke_family", json!({ "family_id": prey.first.family })),
                    2 => ("revoke_token", json!({ "token": prey.owner })),
                    _ => ("revoke_user", json!({ "sub": user })),
                };
                let server = world.any();
                world.servers[server].admin(what, body).await.is(204);
                prey.is_dead = true;
                if what == "revoke_user" {
                    (innocent.is_dead, innocent_revoked) = (true, true);
                }
            }
            97 => world.restart_one(),
            _ => {}
        }
        assert!(!innocent.is_dead || innocent_revoked, "an innocent was signed out");
        prey.check_access(world).await;
        innocent.check_access(world).await;
    }

    // Whatever has happened: once both have been there again, with the grace between them, nobody
    // is left.
    if let Some(stolen) = prey.thief.clone() {
        for token in [prey.owner.clone(), stolen.clone()] {
            world.outlast_the_grace();
            world.refresh(&token).await;
        }
        for token in &prey.known {
            assert!(
                world.refresh(token).await.is_none(),
                "a thief is still in, or the owner with him"
            );
        }
        prey.is_dead = true;
        prey.check_access(world).await;
    }
    // The innocent goes on, unless all was revoked, and then with nothing that was ever given out.
    if innocent_revoked {
        for token in &innocent.known {
            assert!(
                world.refresh(token).await.is_none(),
                "a token outlived the revocation of its user"
            );
        }
        return;
    }
    for _ in 0..2 {
        let token = innocent.owner.clone();
        assert_eq!(innocent.expected(&token, world.now()), Expected::Next);
        refresh_by_owner(&mut innocent, world).await;
    }
}

async fn histories(grace: Duration, env: &[(&'static str, &'static str)], seed: u64) {
    let mut world = World::new(seed, env);
    for n in 0..12 {
        world.dice = Dice(seed + n);
        eprintln!("history {}", seed + n);
        history(&mut world, &format!("user {n}"), grace).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_within_a_grace_are_as_the_model_says() {
    support::redis_or_skip!();
    histories(GRACE, &[("AUTH_REFRESH_GRACE_S", "10")], 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_without_a_grace_are_as_the_model_says() {
    support::redis_or_skip!();
    histories(Duration::ZERO, &[], 2000).await;
}
