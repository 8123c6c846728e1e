//! Requests at a steady pace, whatever becomes of those before, and the protocol of all answers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tower_jwt_revocation::store::StoreErrorKind;
use tower_jwt_revocation::{FailMode, Target};

use crate::doors::{Doors, Verdict, this_second, token};

/// So many tokens of each sort.
const TOKENS: usize = 8;

/// What is known of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It was revoked, by its id or through its user, before the traffic began.
    Revoked,
    /// It is not revoked, and was issued before the traffic began.
    Live,
    /// It is not revoked, and was issued in the second of the request.
    Fresh,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sent: Instant,
    pub got: Instant,
    pub mode: FailMode,
    pub sort: Sort,
    pub verdict: Verdict,
}

/// What became of a revocation.
#[derive(Clone, Debug)]
pub struct Write {
    pub id: String,
    pub sent: Instant,
    pub got: Instant,
    pub result: Result<(), StoreErrorKind>,
    /// What a check said that was sent right after the confirmation.
    pub checked: Option<Verdict>,
}

/// The answers so far.
#[derive(Clone, Default)]
pub struct Protocol {
    answers: Arc<Mutex<Vec<Answer>>>,
    writes: Arc<Mutex<Vec<Write>>>,
}

impl Protocol {
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    pub fn writes(&self) -> Vec<Write> {
        self.writes.lock().unwrap().clone()
    }

    /// Whether requests have been answered since then, all of them as they should be without any
    /// fault. With `fresh_only`, those with older tokens do not count.
    pub fn is_well_since(&self, since: Instant, fresh_only: bool) -> bool {
        let answers = self.answers.lock().unwrap();
        let recent = answers.iter().rev().take_while(|answer| answer.got >= since);
        let mut recent =
            recent.filter(|answer| !fresh_only || answer.sort == Sort::Fresh).peekable();
        recent.peek().is_some() && recent.all(|answer| answer.verdict.failure().is_none())
    }

    /// Whether writes have been confirmed since then, and none has failed.
    pub fn is_written_since(&self, since: Instant) -> bool {
        let writes = self.writes.lock().unwrap();
        let mut recent = writes.iter().rev().take_while(|write| write.got >= since).peekable();
        recent.peek().is_some() && recent.all(|write| write.result.is_ok())
    }
}

/// The tokens that are sent, minted beforehand.
pub struct Tokens {
    revoked: Vec<String>,
    live: Vec<String>,
    fresh: (u64, String),
}

impl Tokens {
    /// Mints them, and revokes those that are to be.
    pub async fn prepare(doors: &Doors) -> Self {
        let now = this_second();
        let mut revoked = Vec::new();
        for n in 0..TOKENS {
            let (user, id) = (format!("banned-{n}"), format!("revoked-{n}"));
            let (target, user) = if n % 2 == 0 {
                (Target::token(id.clone()), "someone")
            } else {
                (Target::user(user.clone()), user.as_str())
            };
            doors.revoker.revoke(target).await.unwrap();
            revoked.push(token(user, &id, now));
        }
        let live = (0..TOKENS).map(|n| token("someone", &format!("live-{n}"), now)).collect();
        Self { revoked, live, fresh: (now, token("someone", "fresh", now)) }
    }

    fn pick(&mut self, n: u64) -> (Sort, String) {
        let index = usize::try_from(n / 6).unwrap() % TOKENS;
        match n % 3 {
            0 => (Sort::Revoked, self.revoked[index].clone()),
            1 => (Sort::Live, self.live[index].clone()),
            _ => {
                let now = this_second();
                if self.fresh.0 != now {
                    self.fresh = (now, token("someone", "fresh", now));
                }
                (Sort::Fresh, self.fresh.1.clone())
            }
        }
    }
}

/// Sends so many requests a second, for ever. What could not be sent in time, because the machine
/// was held up, is left out: it would come in a burst, which is another test.
pub async fn send(doors: Doors, mut tokens: Tokens, per_second: u32, protocol: Protocol) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second.min(500));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let at_once = u64::from(per_second.div_ceil(500));
    let mut sent = 0;
    loop {
        pace.tick().await;
        for _ in 0..at_once {
            let (sort, token) = tokens.pick(sent);
            let mode = if sent / 3 % 2 == 0 { FailMode::Closed } else { FailMode::Open };
            sent += 1;
            let (doors, protocol) = (doors.clone(), protocol.clone());
            tokio::spawn(async move {
                let start = Instant::now();
                let verdict = doors.ask(mode, &token).await;
                let got = Instant::now();
                let answer = Answer { sent: start, got, mode, sort, verdict };
                protocol.answers.lock().unwrap().push(answer);
            });
        }
    }
}

/// Revokes so many tokens a second, each once, for ever.
pub async fn revoke(doors: Doors, per_second: u32, protocol: Protocol) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let issued_at = this_second();
    for n in 0_u64.. {
        pace.tick().await;
        let (doors, protocol) = (doors.clone(), protocol.clone());
        tokio::spawn(async move {
            let id = format!("written-{n}");
            let sent = Instant::now();
            let result = doors.revoker.revoke(Target::token(id.clone())).await;
            let got = Instant::now();
            let checked = match &result {
                Ok(_) => Some(doors.ask(FailMode::Closed, &token("someone", &id, issued_at)).await),
                Err(_) => None,
            };
            let result = result.map(drop).map_err(|error| error.kind());
            protocol.writes.lock().unwrap().push(Write { id, sent, got, result, checked });
        });
    }
}
