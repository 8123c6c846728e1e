//! Everything that was written and asked, with times of one clock, and the verdict on it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::process::{REMEMBERED, STALENESS, Word};

/// A token whose standing is asked.
pub struct Token {
    pub text: String,
    /// What was written about it, one after another.
    pub writes: Vec<Write>,
}

/// A revocation, or a reinstatement.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub by: usize,
    pub revokes: bool,
    pub from: u64,
    /// The end of time, unless it was confirmed.
    pub to: u64,
}

impl Write {
    fn is_confirmed(&self) -> bool {
        self.to < u64::MAX
    }
}

#[derive(Clone, Debug)]
pub struct Check {
    pub token: usize,
    pub by: usize,
    pub open: bool,
    pub from: u64,
    pub to: u64,
    pub word: Word,
    pub reason: String,
}

/// Something that was not answered.
#[derive(Clone, Debug)]
pub struct Failure {
    pub at: u64,
    pub what: &'static str,
    pub reason: String,
}

/// What was confirmed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confirmed {
    Revocation,
    Reinstatement,
    Login,
    Refresh,
    Change,
}

#[derive(Default)]
pub struct Inner {
    pub tokens: Vec<Token>,
    pub checks: Vec<Check>,
    pub failures: Vec<Failure>,
    pub confirmed: Vec<(Confirmed, u64)>,
    /// What must not have happened, as seen at once.
    pub wrongs: Vec<Wrong>,
}

/// What must not have happened.
#[derive(Clone, Debug)]
pub struct Wrong {
    pub kind: WrongKind,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WrongKind {
    /// An acknowledged revocation passed as checked.
    Passed,
    /// An acknowledged write is gone.
    Lost,
    /// Someone innocent was refused for good.
    Refused,
    /// A client was told `invalid_grant`, and has to sign in again.
    SignedOut,
    /// Something is in doubt, or cannot be had, when all is over.
    Doubted,
    /// An answer that cannot be.
    Odd,
}

impl WrongKind {
    pub const ALL: [Self; 6] =
        [Self::Passed, Self::Lost, Self::Refused, Self::SignedOut, Self::Doubted, Self::Odd];
}

impl Inner {
    /// How many revocations have been confirmed since then.
    pub fn revoked_since(&self, since: u64) -> usize {
        let is_one =
            |(what, at): &&(Confirmed, u64)| *what == Confirmed::Revocation && *at >= since;
        self.confirmed.iter().filter(is_one).count()
    }

    /// How many checks were of what had been written before.
    pub fn assessed(&self, mirror: bool) -> usize {
        let staleness = staleness(mirror);
        let is_assessed = |check: &&Check| {
            let token = &self.tokens[check.token];
            let standing = token.standing(check.by, check.from, check.to, staleness);
            matches!(standing, Standing::Revoked { .. } | Standing::Reinstated { .. })
        };
        self.checks.iter().filter(is_assessed).count()
    }
}

/// By how much a process may be behind the others.
fn staleness(mirror: bool) -> u64 {
    if mirror { u64::try_from(STALENESS.as_nanos()).unwrap() } else { 0 }
}

#[derive(Default)]
pub struct Ledger(pub Mutex<Inner>);

impl Ledger {
    pub fn add(&self, text: String) -> usize {
        let mut inner = self.0.lock().unwrap();
        inner.tokens.push(Token { text, writes: Vec::new() });
        inner.tokens.len() - 1
    }

    pub fn text(&self, token: usize) -> String {
        self.0.lock().unwrap().tokens[token].text.clone()
    }

    /// Notes that a write has begun that is about these tokens.
    pub fn begin(&self, tokens: &[usize], by: usize, revokes: bool, now: u64) -> Vec<usize> {
        let mut inner = self.0.lock().unwrap();
        tokens
            .iter()
            .map(|&token| {
                let writes = &mut inner.tokens[token].writes;
                writes.push(Write { by, revokes, from: now, to: u64::MAX });
                writes.len() - 1
            })
            .collect()
    }

    pub fn confirm(&self, tokens: &[usize], places: &[usize], to: u64) {
        let mut inner = self.0.lock().unwrap();
        for (&token, &place) in tokens.iter().zip(places) {
            inner.tokens[token].writes[place].to = to;
        }
    }

    pub fn note(&self, what: Confirmed, at: u64) {
        self.0.lock().unwrap().confirmed.push((what, at));
    }

    pub fn fail(&self, what: &'static str, at: u64, reason: &str) {
        let reason = reason.to_owned();
        self.0.lock().unwrap().failures.push(Failure { at, what, reason });
    }

    pub fn wrong(&self, kind: WrongKind, what: String) {
        self.0.lock().unwrap().wrongs.push(Wrong { kind, what });
    }
}

/// What is known of a token during a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has begun to revoke it.
    Untouched,
    /// By its last write, which was confirmed before the check began, it is revoked, or is not.
    Revoked {
        by: usize,
    },
    Reinstated {
        by: usize,
    },
    /// A write was under way, or has failed.
    Unknown,
}

impl Token {
    /// Its standing between these two, at this process.
    pub fn standing(&self, at: usize, from: u64, to: u64, staleness: u64) -> Standing {
        let begun = self.writes.iter().take_while(|write| write.from < to);
        let Some(last) = begun.last() else { return Standing::Untouched };
        let delay = if last.by == at { 0 } else { staleness };
        if !last.is_confirmed() || last.to.saturating_add(delay) >= from {
            return Standing::Unknown;
        }
        let by = last.by;
        if last.revokes { Standing::Revoked { by } } else { Standing::Reinstated { by } }
    }
}

/// What a scenario may do beyond the rule.
#[derive(Clone, Copy, Default)]
pub struct Allowed {
    /// Tokens may be in lasting doubt, for a while.
    pub doubt: bool,
    /// They may be for good, and sessions with them; and this process, which is dead, may have
    /// taken its last writes along.
    pub doubt_for_good: Option<usize>,
    /// Everything was lost at once: who was signed in has to sign in again.
    pub emptied: bool,
    /// Nothing is promised: it is only counted.
    pub anything: bool,
}

impl Allowed {
    /// Whether a check with this word, for this reason, was answered as well as it ever will be.
    pub fn is_answered(self, word: Word, reason: &str) -> bool {
        let is_doubted = self.may_be_lost() && reason == "DataLoss";
        matches!(word, Word::Checked | Word::Revoked) || is_doubted
    }

    /// Whether it may be seen meanwhile.
    fn excuses(self, kind: WrongKind) -> bool {
        match kind {
            WrongKind::SignedOut => self.doubt,
            WrongKind::Lost => self.emptied,
            _ => false,
        }
    }

    /// Whether some of what was confirmed may be lost.
    pub fn may_be_lost(self) -> bool {
        self.emptied || self.doubt_for_good.is_some()
    }

    /// Whether it may if this process has written it.
    pub fn may_be_lost_of(self, by: usize) -> bool {
        self.emptied || self.doubt_for_good == Some(by)
    }
}

/// The times of a run.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub fault: u64,
    /// When the new primary answered for the first time.
    pub answered: u64,
    /// When the limit begins to run: mostly the same.
    pub due: u64,
    /// Since when nothing has reached the replicas: what was confirmed then is lost with the fault.
    pub behind: Option<u64>,
    /// When at the latest it must be settled.
    pub settled_by: u64,
}

/// How a run has gone.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub revocations: [usize; 3],
    pub logins: [usize; 3],
    pub refreshes: [usize; 3],
    /// What was confirmed and lost by Redis, at the least.
    pub at_risk: BTreeMap<Confirmed, usize>,
    pub checks: usize,
    pub assessed: usize,
    /// Checks that were refused because waiting does not help.
    pub doubted: usize,
    /// From the fault to the first answer of the new primary.
    pub gap: Duration,
    /// From then to the last failed check of a token that is not revoked.
    pub checks_well: Duration,
    /// To the last failed refresh, login or revocation.
    pub writes_well: Duration,
    /// For what reasons there was no answer after the new primary had answered.
    pub reasons: BTreeMap<String, usize>,
    pub wrongs: Vec<Wrong>,
    pub passed_for: Duration,
    /// Checks after a reinstatement that was confirmed, refused while settling.
    pub reinstated_refused: usize,
    /// The longest time for which the machine held things up.
    pub stall: Duration,
    pub limit: Duration,
    /// For how long the machine let a process and a server wait that wanted to run, after the new
    /// primary had answered.
    pub held_up: Duration,
    /// What the servers say of themselves when all is over, for whoever looks into a failure.
    pub servers: String,
}

impl Outcome {
    fn count_confirmed(&mut self, inner: &Inner, times: Times) {
        let phase = |at: u64| usize::from(at >= times.fault) + usize::from(at >= times.answered);
        for (what, at) in &inner.confirmed {
            if times.behind.is_some_and(|behind| (behind..times.fault).contains(at)) {
                *self.at_risk.entry(*what).or_default() += 1;
            }
            let counts = match what {
                Confirmed::Revocation => &mut self.revocations,
                Confirmed::Login => &mut self.logins,
                Confirmed::Refresh => &mut self.refreshes,
                _ => continue,
            };
            counts[phase(*at)] += 1;
        }
    }

    pub fn count(&self, kind: WrongKind) -> usize {
        self.wrongs.iter().filter(|wrong| wrong.kind == kind).count()
    }
}

/// How long a mirror on a busy machine may take to hear of a reinstatement.
const CAUGHT_UP: u64 = 3_000_000_000;

/// Failures that stand alone and are of the machine do not count for how long it took.
fn last_failure(mut at: Vec<(u64, bool)>, after: u64) -> Duration {
    const NEAR: u64 = 500_000_000;
    at.retain(|(at, _)| *at >= after);
    at.sort_unstable();
    let near = |moment: u64| at.iter().filter(|(other, _)| other.abs_diff(moment) <= NEAR).count();
    let last = at.iter().rev().find(|(moment, is_late)| !is_late || near(*moment) >= 4);
    last.map_or(Duration::ZERO, |(last, _)| Duration::from_nanos(last - after))
}

pub fn is_of_the_machine(reason: &str) -> bool {
    reason == "Timeout" || reason == "Overloaded" || reason == "Stale"
}

/// Assesses a run.
pub fn assess(inner: &Inner, times: Times, mirror: bool, allowed: Allowed) -> Outcome {
    let staleness = staleness(mirror);
    let mut outcome = Outcome { wrongs: inner.wrongs.clone(), ..Outcome::default() };
    outcome.wrongs.retain(|wrong| !allowed.excuses(wrong.kind));
    outcome.count_confirmed(inner, times);
    let mut failed_checks = Vec::new();
    let (mut first_pass, mut last_pass) = (u64::MAX, 0);
    for check in &inner.checks {
        outcome.checks += 1;
        outcome.doubted += usize::from(check.word == Word::Doubted);
        let token = &inner.tokens[check.token];
        let standing = token.standing(check.by, check.from, check.to, staleness);
        let mut wrong = |kind, what: &str| {
            let ms = |at: u64| (i128::from(at) - i128::from(times.fault)) / 1_000_000;
            let writes: Vec<_> = token
                .writes
                .iter()
                .map(|write| {
                    let to =
                        if write.to == u64::MAX { "?".into() } else { ms(write.to).to_string() };
                    format!(
                        "{} by {} {}..{to}",
                        if write.revokes { "revoked" } else { "reinstated" },
                        write.by,
                        ms(write.from)
                    )
                })
                .collect();
            outcome.wrongs.push(Wrong {
                kind,
                what: format!(
                    "{what}: {:?} ({}) at process {}, {}, {}..{} ms; answered {}; {}",
                    check.word,
                    check.reason,
                    check.by,
                    if check.open { "open" } else { "closed" },
                    ms(check.from),
                    ms(check.to),
                    ms(times.answered),
                    writes.join(", ")
                ),
            });
        };
        match (standing, check.word) {
            (_, Word::Odd) => wrong(WrongKind::Odd, "an odd answer"),
            (_, Word::Unchecked) if !check.open => wrong(WrongKind::Odd, "unchecked under closed"),
            (_, Word::Unavailable | Word::Doubted)
                if check.open && check.reason != "Overloaded" =>
            {
                wrong(WrongKind::Odd, "refused for want of an answer under open");
            }
            (Standing::Revoked { .. }, Word::Checked) => {
                first_pass = first_pass.min(check.from);
                last_pass = last_pass.max(check.from);
                wrong(WrongKind::Passed, "an acknowledged revocation passed as checked");
            }
            (Standing::Untouched, Word::Revoked) => {
                wrong(WrongKind::Refused, "refused though nobody had revoked it");
            }
            (Standing::Reinstated { by }, Word::Revoked) => {
                outcome.reinstated_refused += 1;
                let before = token.writes.iter().take_while(|write| write.from < check.to);
                let confirmed = before.last().map_or(0, |write| write.to);
                // Until the reinstatement is replayed, the revocation is what is known.
                let is_settling = check.from >= times.fault && check.from <= times.settled_by;
                // A mirror that is behind may say so at any time, until it has caught up.
                let is_late = mirror && check.from < confirmed.saturating_add(CAUGHT_UP);
                // So may a process whose check was late: until the store answers again.
                let is_remembered = !mirror && check.reason == REMEMBERED;
                if !is_settling && !is_late && !is_remembered && !allowed.may_be_lost_of(by) {
                    wrong(WrongKind::Refused, "refused though it was reinstated");
                }
            }
            (_, Word::Doubted) if !allowed.doubt => {
                wrong(WrongKind::Refused, "in lasting doubt");
            }
            _ => {}
        }
        match standing {
            Standing::Revoked { .. } | Standing::Reinstated { .. } => outcome.assessed += 1,
            _ => {}
        }
        let is_answered = allowed.is_answered(check.word, &check.reason);
        if !is_answered && check.from >= times.answered {
            *outcome.reasons.entry(check.reason.clone()).or_default() += 1;
        }
        if !is_answered && standing != Standing::Unknown {
            failed_checks.push((check.to, is_of_the_machine(&check.reason)));
        }
    }
    outcome.gap = Duration::from_nanos(times.answered - times.fault);
    outcome.checks_well = last_failure(failed_checks, times.due);
    let failed_writes = inner.failures.iter();
    let failed_writes: Vec<_> =
        failed_writes.map(|failure| (failure.at, is_of_the_machine(&failure.reason))).collect();
    for failure in inner.failures.iter().filter(|failure| failure.at >= times.answered) {
        *outcome.reasons.entry(format!("{}: {}", failure.what, failure.reason)).or_default() += 1;
    }
    outcome.writes_well = last_failure(failed_writes, times.due);
    if last_pass > 0 {
        outcome.passed_for = Duration::from_nanos(last_pass - first_pass);
    }
    outcome
}
