//! What clients do, before the fault, during it and afterwards: they sign in, refresh, revoke,
//! reinstate, change sessions and devices, and above all ask.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clock;
use crate::fleet::{Fleet, Process};
use crate::ledger::{Allowed, Check, Confirmed, Ledger, Standing, WrongKind, is_of_the_machine};
use crate::process::{Granted, Kind, Order, REMEMBERED, Refreshed, Reply, Word};
use crate::stage::MACHINE;
use crate::tokens;

/// Sessions from before the fault.
pub const SESSIONS: usize = 60;
/// Of these some are ended one after another.
const ENDING: usize = 12;
/// Checks a second, of each process.
const CHECKS: u64 = 60;
/// Revocations a second, of all processes together.
const REVOCATIONS: u64 = 70;
/// How long a client waits for an answer to a refresh, before it asks again, maybe elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a login is tried before anything happens.
const ATTEMPTS: u32 = 10;
/// How much longer is waited for an answer at the end where the machine is at fault.
const SLOW: Duration = Duration::from_secs(20);

/// What a client knows of its session.
#[derive(Clone, Default)]
struct Known {
    refresh: String,
    session: String,
    user: String,
    /// The access tokens that were issued for it.
    tokens: Vec<usize>,
    /// The last number that was confirmed, and the last that was tried.
    number: (u64, u64),
    end: End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Not,
    Tried,
    Confirmed,
}

/// Sessions and what is done with them.
pub struct Traffic {
    pub fleet: Fleet,
    pub ledger: Ledger,
    sessions: Mutex<Vec<Arc<tokio::sync::Mutex<Known>>>>,
    /// Tokens about which something was written, the latest last.
    written: Mutex<Vec<usize>>,
    /// Tokens that nobody revokes.
    good: Mutex<Vec<usize>>,
    devices: Mutex<Vec<Option<bool>>>,
    is_over: AtomicBool,
    random: AtomicU64,
    names: AtomicU64,
}

fn open(result: &Value) -> Refreshed {
    serde_json::from_value(result.clone()).unwrap()
}

impl Traffic {
    pub fn new(fleet: Fleet) -> Self {
        Self {
            fleet,
            ledger: Ledger::default(),
            sessions: Mutex::default(),
            written: Mutex::default(),
            good: Mutex::default(),
            devices: Mutex::new(vec![None; 8]),
            is_over: AtomicBool::new(false),
            random: AtomicU64::new(1),
            names: AtomicU64::new(0),
        }
    }

    fn draw(&self, below: usize) -> usize {
        let old = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (old ^ (old >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from((mixed >> 33) % u64::try_from(below.max(1)).unwrap()).unwrap()
    }

    fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    /// One of the processes to which requests are sent.
    async fn any(&self) -> Arc<Process> {
        loop {
            let serving = self.fleet.serving();
            if !serving.is_empty() {
                return Arc::clone(&serving[self.draw(serving.len())]);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends an order to one of them. None if there was no answer in time.
    async fn ask(&self, order: Order) -> (usize, Option<Reply>) {
        let process = self.any().await;
        let reply = tokio::time::timeout(PATIENCE, process.call(order)).await;
        (process.index, reply.ok().flatten())
    }

    /// All the sessions from before, and the tokens that nobody revokes.
    pub async fn sign_in(self: &Arc<Self>) {
        let mut logins = JoinSet::new();
        for _ in 0..SESSIONS + ENDING {
            let this = Arc::clone(self);
            logins.spawn(async move {
                // So many at once are too many for a busy machine. They all have to get in.
                for attempt in 1.. {
                    if this.login().await {
                        return;
                    }
                    assert!(attempt < ATTEMPTS, "a login failed in peace, again and again");
                }
            });
        }
        logins.join_all().await;
        let inner = self.ledger.0.lock().unwrap();
        let odd = inner.failures.iter().find(|failure| !is_of_the_machine(&failure.reason));
        assert!(odd.is_none(), "a login failed in peace: {odd:?}");
        drop(inner);
        for age in 0..10 {
            let token = tokens::older(Kind::Token, &self.name("good"), age * 3);
            let token = self.ledger.add(token);
            self.good.lock().unwrap().push(token);
        }
    }

    /// Returns whether it was confirmed.
    async fn login(&self) -> bool {
        let user = self.name("user");
        let (_, reply) = self.ask(Order::Login { user }).await;
        let Some(reply) = reply else { return false };
        match reply.result.as_ref().map(open) {
            Ok(Refreshed::Granted(granted)) => {
                self.ledger.note(Confirmed::Login, reply.to);
                let mut known = Known::default();
                self.take(&mut known, granted);
                self.sessions.lock().unwrap().push(Arc::new(tokio::sync::Mutex::new(known)));
                true
            }
            Ok(Refreshed::Refused(why)) => {
                self.ledger.wrong(WrongKind::Refused, format!("a login: {why}"));
                false
            }
            Err((kind, _)) => {
                self.ledger.fail("login", reply.to, kind);
                false
            }
        }
    }

    /// Takes what was granted.
    fn take(&self, known: &mut Known, granted: Granted) {
        let token = self.ledger.add(tokens::of(&granted));
        self.good.lock().unwrap().push(token);
        known.tokens.push(token);
        known.refresh = granted.refresh;
        known.session = granted.session;
        known.user = granted.user;
    }

    /// Begins all that goes on until [`stop`](Self::stop).
    pub fn begin(self: &Arc<Self>, running: &mut JoinSet<()>) {
        for (place, _) in self.sessions.lock().unwrap().iter().enumerate() {
            running.spawn(Arc::clone(self).refresh_for_ever(place));
        }
        running.spawn(Arc::clone(self).check_for_ever());
        running.spawn(Arc::clone(self).revoke_for_ever());
        running.spawn(Arc::clone(self).sign_in_for_ever());
        running.spawn(Arc::clone(self).end_for_ever());
        running.spawn(Arc::clone(self).trust_for_ever());
    }

    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    // === Checks ===

    async fn check_for_ever(self: Arc<Self>) {
        let mut pace =
            tokio::time::interval(Duration::from_secs(1) / u32::try_from(CHECKS).unwrap());
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut n = 0_usize;
        while self.goes_on() {
            pace.tick().await;
            n += 1;
            for process in self.fleet.serving() {
                // What does not read would get all of it at once.
                if process.waiting() > 200 {
                    continue;
                }
                let (this, token) = (Arc::clone(&self), self.pick(n));
                tokio::spawn(async move { this.check(&process, token, n.is_multiple_of(2)).await });
            }
        }
    }

    fn pick(&self, n: usize) -> usize {
        let (good, written) = (self.good.lock().unwrap(), self.written.lock().unwrap());
        let recent = written.len().min(150);
        match n / 2 % 4 {
            0 | 1 if recent > 0 => written[written.len() - 1 - self.draw(recent)],
            2 if recent > 0 => written[self.draw(written.len())],
            // The first are of before.
            _ if n.is_multiple_of(3) => good[self.draw(good.len().min(SESSIONS + ENDING + 10))],
            _ => good[self.draw(good.len())],
        }
    }

    async fn check(&self, process: &Process, token: usize, is_open: bool) -> Option<Word> {
        let text = self.ledger.text(token);
        let reply = process.call(Order::Check { open: is_open, token: text }).await?;
        let (word, reason): (Word, String) =
            serde_json::from_value(reply.result.expect("a verdict")).unwrap();
        let Reply { from, to, .. } = reply;
        let check = Check { token, by: process.index, open: is_open, from, to, word, reason };
        self.ledger.0.lock().unwrap().checks.push(check);
        Some(word)
    }

    // === Revocations ===

    async fn revoke_for_ever(self: Arc<Self>) {
        let period = Duration::from_secs(1) / u32::try_from(REVOCATIONS).unwrap();
        let mut pace = tokio::time::interval(period);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut n = 0_usize;
        while self.goes_on() {
            pace.tick().await;
            n += 1;
            let this = Arc::clone(&self);
            tokio::spawn(async move { this.revoke_one(n).await });
        }
    }

    async fn revoke_one(&self, n: usize) {
        let kind = match n % 8 {
            0..=4 => Kind::Token,
            5 | 6 => Kind::Session,
            _ => Kind::User,
        };
        let id = self.name("gone");
        let token = self.ledger.add(tokens::older(kind, &id, 5));
        self.written.lock().unwrap().push(token);
        if !self.write(token, kind, &id, true).await || !n.is_multiple_of(6) {
            return;
        }
        sleep(Duration::from_millis(200)).await;
        if self.write(token, kind, &id, false).await && n.is_multiple_of(12) {
            sleep(Duration::from_millis(200)).await;
            self.write(token, kind, &id, true).await;
        }
    }

    /// Revokes or reinstates, and waits for as long as it takes to be confirmed or not.
    async fn write(&self, token: usize, kind: Kind, id: &str, revokes: bool) -> bool {
        let process = self.any().await;
        let id = id.to_owned();
        let (order, what) = if revokes {
            (Order::Revoke { kind, id }, Confirmed::Revocation)
        } else {
            (Order::Reinstate { kind, id }, Confirmed::Reinstatement)
        };
        let places = self.ledger.begin(&[token], process.index, revokes, clock::now());
        let Some(reply) = process.call(order).await else { return false };
        match reply.result {
            Ok(_) => {
                self.ledger.confirm(&[token], &places, reply.to);
                self.ledger.note(what, reply.to);
                true
            }
            Err((kind, _)) => {
                self.ledger.fail("write", reply.to, &kind);
                false
            }
        }
    }

    // === Sessions ===

    async fn sign_in_for_ever(self: Arc<Self>) {
        while self.goes_on() {
            sleep(Duration::from_millis(300)).await;
            let this = Arc::clone(&self);
            tokio::spawn(async move { this.login().await });
        }
    }

    async fn refresh_for_ever(self: Arc<Self>, place: usize) {
        let session = Arc::clone(&self.sessions.lock().unwrap()[place]);
        sleep(Duration::from_millis(u64::try_from(self.draw(2500)).unwrap())).await;
        let mut turn = place;
        while self.goes_on() {
            {
                let mut known = session.lock().await;
                if known.end != End::Not {
                    return;
                }
                if !self.refresh(&mut known).await {
                    drop(known);
                    sleep(Duration::from_millis(250)).await;
                    continue;
                }
                turn += 1;
                if turn.is_multiple_of(3) {
                    self.update(&mut known).await;
                }
            }
            sleep(Duration::from_millis(2500)).await;
        }
    }

    /// Returns whether it was answered, in one way or another.
    async fn refresh(&self, known: &mut Known) -> bool {
        let (by, reply) = self.ask(Order::Refresh { token: known.refresh.clone() }).await;
        let Some(reply) = reply else { return false };
        match reply.result.as_ref().map(open) {
            Ok(Refreshed::Granted(granted)) => {
                self.ledger.note(Confirmed::Refresh, reply.to);
                self.take(known, granted);
            }
            Ok(Refreshed::Refused(why)) => {
                let what = format!("a refresh, {why}, at process {by}");
                self.ledger.wrong(WrongKind::SignedOut, what);
                // It must not have ended anything, so the token is tried again.
            }
            Err((kind, _)) => {
                self.ledger.fail("refresh", reply.to, kind);
                return false;
            }
        }
        true
    }

    async fn update(&self, known: &mut Known) {
        known.number.1 += 1;
        let (user, session, number) = (known.user.clone(), known.session.clone(), known.number.1);
        let (by, reply) = self.ask(Order::Update { user, session, number }).await;
        match reply.map(|reply| (reply.to, reply.result)) {
            Some((to, Ok(found))) if found == true => {
                known.number.0 = number;
                self.ledger.note(Confirmed::Change, to);
            }
            Some((_, Ok(_))) => {
                self.ledger.wrong(WrongKind::Lost, format!("process {by} knows no such session"));
            }
            Some((to, Err((kind, _)))) => self.ledger.fail("change", to, &kind),
            None => {}
        }
    }

    async fn end_for_ever(self: Arc<Self>) {
        for place in SESSIONS..SESSIONS + ENDING {
            sleep(Duration::from_millis(600)).await;
            if !self.goes_on() {
                return;
            }
            let session = Arc::clone(&self.sessions.lock().unwrap()[place]);
            let mut known = session.lock().await;
            if known.end != End::Not {
                continue;
            }
            known.end = End::Tried;
            let process = self.any().await;
            self.good.lock().unwrap().retain(|token| !known.tokens.contains(token));
            self.written.lock().unwrap().extend(&known.tokens);
            let places = self.ledger.begin(&known.tokens, process.index, true, clock::now());
            let order = Order::End { session: known.session.clone() };
            let Some(reply) = process.call(order).await else { continue };
            match reply.result {
                Ok(_) => {
                    self.ledger.confirm(&known.tokens, &places, reply.to);
                    self.ledger.note(Confirmed::Revocation, reply.to);
                    known.end = End::Confirmed;
                }
                Err((kind, _)) => self.ledger.fail("end", reply.to, &kind),
            }
        }
    }

    // === Devices ===

    async fn trust_for_ever(self: Arc<Self>) {
        for n in 0_usize.. {
            sleep(Duration::from_millis(150)).await;
            if !self.goes_on() {
                return;
            }
            let place = n % 8;
            let (user, device) = ("owner".to_owned(), format!("device-{place}"));
            let trusts = (n / 8).is_multiple_of(2);
            let order = if trusts {
                Order::Trust { user, device }
            } else {
                Order::Distrust { user, device }
            };
            // What was tried and is not confirmed may be either way.
            self.devices.lock().unwrap()[place] = None;
            let (_, reply) = self.ask(order).await;
            match reply.map(|reply| (reply.to, reply.result)) {
                Some((to, Ok(_))) => {
                    self.devices.lock().unwrap()[place] = Some(trusts);
                    self.ledger.note(Confirmed::Change, to);
                }
                Some((to, Err((kind, _)))) => self.ledger.fail("device", to, &kind),
                None => {}
            }
        }
    }

    // === When all is over ===

    /// Asks every process about everything that was confirmed. What cannot be answered is asked
    /// again until `limit`.
    pub async fn verify(self: &Arc<Self>, limit: Duration, allowed: Allowed) {
        let deadline = Instant::now() + limit;
        let mut asked = JoinSet::new();
        for process in self.fleet.serving() {
            let this = Arc::clone(self);
            asked.spawn(async move { this.verify_tokens(&process, deadline, allowed).await });
        }
        asked.join_all().await;
        let mut asked = JoinSet::new();
        let sessions = self.sessions.lock().unwrap().clone();
        for session in sessions {
            let this = Arc::clone(self);
            asked.spawn(async move {
                this.verify_session(&mut *session.lock().await, deadline, allowed.may_be_lost())
                    .await;
            });
        }
        asked.join_all().await;
        self.verify_devices(deadline).await;
        self.verify_newcomer(deadline + limit).await;
    }

    /// Whoever signs in now is known to be well at every process.
    async fn verify_newcomer(&self, deadline: Instant) {
        let mut problem = String::new();
        for _ in 0..100 {
            let user = self.name("late");
            let Some(Ok(value)) = self.insist(Order::Login { user }, deadline).await else {
                problem = "nobody can sign in".into();
                break;
            };
            let Refreshed::Granted(granted) = open(&value) else {
                problem = format!("nobody can sign in: {value}");
                break;
            };
            let token = self.ledger.add(tokens::of(&granted));
            problem.clear();
            for process in self.fleet.serving() {
                match self.look(&process, token, Allowed::default()).await {
                    Seen::AsKnown => {}
                    Seen::Wrong(_, what) | Seen::Nothing { reason: what, .. } => problem = what,
                }
            }
            if problem.is_empty() || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        if !problem.is_empty() {
            self.ledger.wrong(WrongKind::Doubted, format!("of a late login: {problem}"));
        }
    }

    async fn verify_tokens(&self, process: &Arc<Process>, deadline: Instant, allowed: Allowed) {
        let count = self.ledger.0.lock().unwrap().tokens.len();
        let mut left: Vec<(usize, usize)> = (0..count).map(|token| (token, 0)).collect();
        let mut doubted: Vec<String> = Vec::new();
        // A machine that is late says nothing of the store.
        let is_over = |reason: &str, tries| {
            let is_late = reason.split(' ').any(is_of_the_machine);
            let deadline = if is_late { deadline + MACHINE * 5 } else { deadline };
            Instant::now() > deadline || tries > 40 && !is_late
        };
        while !left.is_empty() {
            let mut again = Vec::new();
            for some in left.chunks(32) {
                let asked = some.iter().map(|(token, tries)| async move {
                    (*token, *tries, self.look(process, *token, allowed).await)
                });
                for (token, tries, seen) in futures::future::join_all(asked).await {
                    match seen {
                        Seen::AsKnown | Seen::Nothing { matters: false, .. } => {}
                        Seen::Wrong(kind, what) => {
                            self.ledger.wrong(kind, what);
                        }
                        Seen::Nothing { reason, .. } if is_over(&reason, tries) => {
                            doubted.push(reason);
                        }
                        Seen::Nothing { .. } => again.push((token, tries + 1)),
                    }
                }
            }
            left = again;
            sleep(Duration::from_millis(50)).await;
        }
        if let Some(reason) = doubted.first() {
            let what = format!(
                "{} of {count} tokens get no answer at process {}: {reason}",
                doubted.len(),
                process.index
            );
            self.ledger.wrong(WrongKind::Doubted, what);
        }
    }

    async fn look(&self, process: &Arc<Process>, token: usize, allowed: Allowed) -> Seen {
        let text = self.ledger.text(token);
        let order = Order::Check { open: false, token: text };
        let Some(reply) = process.call(order).await else { return Seen::AsKnown };
        let (word, reason): (Word, String) =
            serde_json::from_value(reply.result.expect("a verdict")).unwrap();
        let inner = self.ledger.0.lock().unwrap();
        let written = &inner.tokens[token].writes;
        let standing = inner.tokens[token].standing(process.index, u64::MAX - 1, u64::MAX, 0);
        let nothing =
            |word, matters| Seen::Nothing { reason: format!("{word:?} {reason}"), matters };
        let wrong = |kind, what: &str| {
            Seen::Wrong(
                kind,
                format!("{what} at process {} in the end: {written:?}", process.index),
            )
        };
        match (standing, word) {
            (Standing::Revoked { .. }, Word::Checked) => {
                wrong(WrongKind::Passed, "an acknowledged revocation is gone")
            }
            (Standing::Untouched, Word::Revoked) => {
                wrong(WrongKind::Refused, "refused though nobody had revoked it")
            }
            // The store gave no answer in time, and the process has not heard of the reinstatement.
            (Standing::Reinstated { by }, Word::Revoked) if reason == REMEMBERED => {
                nothing(word, !allowed.may_be_lost_of(by))
            }
            (Standing::Reinstated { by }, Word::Revoked) if !allowed.may_be_lost_of(by) => {
                wrong(WrongKind::Refused, "refused though it was reinstated")
            }
            (Standing::Unknown, _) | (_, Word::Checked | Word::Revoked) => Seen::AsKnown,
            // Of the last writes of a dead process nothing can be known, of others all.
            (Standing::Revoked { by }, word) => nothing(word, !allowed.may_be_lost_of(by)),
            (_, word) => nothing(word, !allowed.may_be_lost()),
        }
    }

    async fn verify_session(&self, known: &mut Known, deadline: Instant, may_be_lost: bool) {
        match known.end {
            End::Not => {}
            End::Tried => return,
            End::Confirmed => {
                if let Some(Ok(result)) =
                    self.insist(Order::Refresh { token: known.refresh.clone() }, deadline).await
                    && let Refreshed::Granted(_) = open(&result)
                {
                    let what = "a session that was ended goes on".into();
                    self.ledger.wrong(WrongKind::Passed, what);
                }
                return;
            }
        }
        let order = Order::Refresh { token: known.refresh.clone() };
        match self.insist(order, deadline).await {
            Some(Ok(result)) => match open(&result) {
                Refreshed::Granted(_) => {}
                Refreshed::Refused(_) if may_be_lost => return,
                Refreshed::Refused(why) => {
                    let what = format!("a refresh in the end, {why}");
                    self.ledger.wrong(WrongKind::Refused, what);
                    return;
                }
            },
            Some(Err(kind)) => {
                let what = format!("a session cannot be refreshed: {kind}");
                self.ledger.wrong(WrongKind::Doubted, what);
                return;
            }
            None => return,
        }
        let session = known.session.clone();
        if let Some(Ok(found)) = self.insist(Order::Read { session }, deadline).await {
            let (confirmed, tried) = known.number;
            if !found.as_u64().is_some_and(|number| (confirmed..=tried).contains(&number)) {
                let what = format!("a session has {found}, {confirmed} was confirmed");
                self.ledger.wrong(WrongKind::Lost, what);
            }
        }
    }

    async fn verify_devices(&self, deadline: Instant) {
        let devices = self.devices.lock().unwrap().clone();
        for (place, trusts) in devices.into_iter().enumerate() {
            let Some(trusts) = trusts else { continue };
            let (user, device) = ("owner".to_owned(), format!("device-{place}"));
            match self.insist(Order::IsTrusted { user, device }, deadline).await {
                Some(Ok(found)) if found != trusts => {
                    let what = format!("device {place} is trusted: {found}, confirmed: {trusts}");
                    self.ledger.wrong(WrongKind::Lost, what);
                }
                Some(Err(kind)) => {
                    let what = format!("nobody can say whether a device is trusted: {kind}");
                    self.ledger.wrong(WrongKind::Doubted, what);
                }
                _ => {}
            }
        }
    }

    /// Sends it again until there is an answer, or the kind of the error when it is too late.
    async fn insist(&self, order: Order, deadline: Instant) -> Option<Result<Value, String>> {
        let mut tries = 0;
        loop {
            let (_, reply) = self.ask(order.clone()).await;
            tries += 1;
            // What a busy machine brings about passes.
            let is_slow = match &reply {
                Some(Reply { result: Err((kind, _)), .. }) => is_of_the_machine(kind),
                Some(_) => false,
                None => true,
            };
            let deadline = if is_slow { deadline + SLOW } else { deadline };
            let is_late = Instant::now() > deadline && tries > 3;
            match reply {
                Some(Reply { result: Ok(value), .. }) => return Some(Ok(value)),
                Some(Reply { result: Err((kind, _)), .. }) if is_late => return Some(Err(kind)),
                None if is_late => return None,
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

enum Seen {
    AsKnown,
    Wrong(WrongKind, String),
    /// No answer, for this reason, which may be what is promised.
    Nothing {
        reason: String,
        matters: bool,
    },
}
