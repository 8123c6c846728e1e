//! Each fault under traffic, and every single answer assessed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tower_jwt_revocation::FailMode;
use tower_jwt_revocation::store::StoreErrorKind;

use crate::canary::Stalls;
use crate::doors::{Verdict, this_second, token};
use crate::faults::{Able, Fault};
use crate::lab::{BUDGET, Lab, WRITE_BUDGET};
use crate::traffic::{Answer, Sort, Write};

/// Timers are exact to a millisecond, and the canaries do not see what holds them up for less than
/// three.
const EXACT: Duration = Duration::from_millis(10);
/// By how much a late timer prolongs the limit of a write, so that the answer can be read.
const READING: Duration = Duration::from_millis(25);
/// And by how much that of a check: an eighth of it.
const READING_CHECK: Duration = Duration::from_micros(6250);
/// How long all is well before the fault.
const BEFORE: Duration = Duration::from_millis(400);
/// How long the fault lasts, at least: more than two probes take.
const DURING: Duration = Duration::from_millis(1200);
/// For so long all must be well before the fault is called over.
const QUIET: Duration = Duration::from_millis(400);
/// How soon all must be well again.
const RECOVERY: Duration = Duration::from_secs(3);
/// A link that the machine held up is given up, as one to a Redis that hangs; this is how long that
/// may be felt.
const AFTERMATH: Duration = Duration::from_secs(1);

/// What was seen of one fault, at one load.
pub struct Seen {
    pub modes: BTreeMap<&'static str, SeenInMode>,
    pub writes: BTreeMap<String, u32>,
    pub worst_write: Duration,
    pub write_recovery: Duration,
    /// The longest time for which the machine held up what was measured.
    pub stall: Duration,
    /// Answers that a slow machine excuses.
    pub excused: u32,
    pub answers: usize,
}

/// The same for one fail mode.
#[derive(Default)]
pub struct SeenInMode {
    /// What came while the fault lasted, and how often: of tokens that are not revoked, and of
    /// those that are.
    pub live: BTreeMap<String, u32>,
    pub revoked: BTreeMap<String, u32>,
    pub worst: Duration,
    pub recovery: Duration,
}

/// The moments that matter.
struct Times {
    /// The fault may be felt from here on,
    begun: Instant,
    /// must be felt from here on,
    settled: Instant,
    /// need not be felt any more from here on,
    healing: Instant,
    /// and is to be over soon after this.
    healed: Instant,
}

/// Drives one fault at one load.
///
/// # Errors
/// What was promised and not kept.
pub fn drive(fault: &Fault, per_second: u32) -> Result<Seen, String> {
    let mut lab = Lab::start(fault.server, fault.store, fault.mirror);
    lab.load(per_second, 20);
    std::thread::sleep(BEFORE);
    let begun = Instant::now();
    (fault.begin)(&mut lab);
    let settled = Instant::now() + fault.notice;
    std::thread::sleep(
        (begun + DURING).saturating_duration_since(Instant::now()).max(fault.notice * 2),
    );
    let end = Instant::now();
    (fault.heal)(&mut lab);
    let (healing, healed) = if fault.lasts { (end, Instant::now()) } else { (settled, settled) };
    let times = Times { begun, settled, healing, healed };
    while healed.elapsed() < RECOVERY * 2 {
        std::thread::sleep(Duration::from_millis(20));
        let quiet = before(Instant::now(), QUIET);
        let is_well = lab.protocol.is_well_since(quiet, fault.forgets);
        if quiet > healed && is_well && lab.protocol.is_written_since(quiet) {
            break;
        }
    }
    let mut assessment = Assessment { fault, times, lab: &lab, complaints: Vec::new(), excused: 0 };
    let seen = assessment.assess();
    if assessment.complaints.is_empty() {
        Ok(seen)
    } else {
        Err(summary(fault, per_second, &assessment))
    }
}

fn summary(fault: &Fault, per_second: u32, assessment: &Assessment<'_>) -> String {
    let mut text = format!(
        "{} at {per_second} requests a second: {} complaints",
        fault.name,
        assessment.complaints.len()
    );
    for complaint in assessment.complaints.iter().take(12) {
        let _ = write!(text, "\n    {complaint}");
    }
    text
}

struct Assessment<'a> {
    fault: &'a Fault,
    times: Times,
    lab: &'a Lab,
    complaints: Vec<String>,
    excused: u32,
}

impl Assessment<'_> {
    fn assess(&mut self) -> Seen {
        let (answers, writes) = (self.lab.protocol.answers(), self.lab.protocol.writes());
        let mut modes: BTreeMap<&'static str, SeenInMode> = BTreeMap::new();
        for answer in &answers {
            self.assess_answer(answer);
            let seen = modes.entry(name(answer.mode)).or_default();
            if self.is_shown(answer.sent, answer.got) {
                let sort =
                    if answer.sort == Sort::Revoked { &mut seen.revoked } else { &mut seen.live };
                *sort.entry(words(&answer.verdict)).or_default() += 1;
            }
            seen.worst = seen.worst.max(answer.got - answer.sent);
            let counts = !self.fault.forgets || answer.sort == Sort::Fresh;
            if let Some(kind) = answer.verdict.failure().filter(|_| counts)
                && (self.fault.reasons.contains(&kind)
                    || !self.is_excused(kind, answer.sent, answer.got))
            {
                let late = answer.got.saturating_duration_since(self.times.healed);
                seen.recovery = seen.recovery.max(late);
            }
        }
        let mut written = BTreeMap::new();
        let (mut worst_write, mut write_recovery) = (Duration::ZERO, Duration::ZERO);
        for write in &writes {
            self.assess_write(write);
            if self.is_shown(write.sent, write.got) {
                let word =
                    write.result.map_or_else(|kind| format!("{kind:?}"), |()| "confirmed".into());
                *written.entry(word).or_default() += 1;
            }
            worst_write = worst_write.max(write.got - write.sent);
            if let Err(kind) = write.result
                && (self.fault.write_reasons.contains(&kind)
                    || !self.is_excused(kind, write.sent, write.got))
            {
                write_recovery =
                    write_recovery.max(write.got.saturating_duration_since(self.times.healed));
            }
        }
        self.assess_as_a_whole(&answers, &modes, write_recovery);
        self.verify_writes(&writes);
        let stall = self
            .stalls()
            .iter()
            .map(|stalls| stalls.longest(before(self.times.begun, BEFORE), Instant::now()))
            .max()
            .unwrap_or_default();
        let excused = self.excused;
        Seen {
            modes,
            writes: written,
            worst_write,
            write_recovery,
            stall,
            excused,
            answers: answers.len(),
        }
    }

    fn assess_answer(&mut self, answer: &Answer) {
        let Answer { sent, got, mode, sort, ref verdict } = *answer;
        if matches!(verdict, Verdict::Odd(_)) {
            self.complain(sent, &format!("{sort:?}: {verdict:?}"));
        }
        // These hold whatever happens.
        match (sort, verdict) {
            (Sort::Revoked, Verdict::Checked) => {
                self.complain(sent, "a revoked token passed as checked");
            }
            (Sort::Live | Sort::Fresh, Verdict::Revoked) => {
                self.complain(sent, "a live token was refused");
            }
            (_, Verdict::Unchecked(_)) if mode == FailMode::Closed => {
                self.complain(sent, "passed unchecked under FailMode::Closed");
            }
            (_, Verdict::Unchecked(StoreErrorKind::Overloaded)) => {
                self.complain(sent, "passed unchecked because of load");
            }
            // Load is refused in both modes.
            (_, Verdict::Unavailable(StoreErrorKind::Overloaded)) => {}
            (_, Verdict::Unavailable(_) | Verdict::InDoubt) if mode == FailMode::Open => {
                self.complain(sent, "refused for want of an answer under FailMode::Open");
            }
            _ => {}
        }
        let limit = BUDGET + EXACT + READING_CHECK + self.lab.app.stalls.within(sent, got);
        if got - sent > limit {
            self.complain(sent, &format!("answered after {:?}, later than {limit:?}", got - sent));
        }
        let Some(kind) = verdict.failure() else {
            if matches!((sort, verdict), (Sort::Revoked, Verdict::Revoked)) {
                // What was refused a moment before is refused on, whatever can be known now.
                return;
            }
            let is_able = match self.fault.checks {
                Able::Nothing => false,
                Able::Revoked => sort == Sort::Revoked,
                Able::Some | Able::All => true,
            };
            if (self.is_during(sent, got) && !is_able)
                || (self.is_doomed(sort)
                    && sent > self.times.healed + RECOVERY
                    && !self.fault.mirror)
            {
                self.complain(sent, &format!("{sort:?}: {verdict:?}, though nothing can be known"));
            }
            return;
        };
        // While a mirror writes it again, waiting helps.
        let is_lost = kind == StoreErrorKind::DataLoss
            || self.fault.mirror && kind == StoreErrorKind::Settling;
        if self.is_doomed(sort) && sent >= self.times.begun && is_lost {
            return;
        }
        let is_expected = self.fault.checks != Able::All
            && got > self.times.begun
            && self.fault.reasons.contains(&kind);
        let is_over = sent > self.times.healed + RECOVERY;
        if (!is_expected || is_over) && !self.excuse(kind, sent, got) {
            self.complain(sent, &format!("{sort:?} in {mode:?}: no answer because {kind:?}"));
        }
    }

    /// The loss of data puts tokens from before in doubt for good. A mirror goes on to know which
    /// are revoked, and may end the doubt about others.
    fn is_doomed(&self, sort: Sort) -> bool {
        self.fault.forgets && sort != Sort::Fresh && !(self.fault.mirror && sort == Sort::Revoked)
    }

    fn assess_write(&mut self, write: &Write) {
        let (sent, got) = (write.sent, write.got);
        let limit = WRITE_BUDGET + EXACT + READING + self.lab.app.stalls.within(sent, got);
        if got - sent > limit {
            self.complain(sent, &format!("a write took {:?}, longer than {limit:?}", got - sent));
        }
        match write.result {
            Ok(()) => {
                if self.is_during(sent, got) && self.fault.writes == Able::Nothing {
                    self.complain(sent, "a write was confirmed that cannot have been done");
                }
                match &write.checked {
                    Some(Verdict::Checked) => {
                        self.complain(
                            sent,
                            "a confirmed revocation was not seen by the next check",
                        );
                    }
                    Some(Verdict::Revoked | Verdict::Unavailable(_) | Verdict::InDoubt) => {}
                    odd => self.complain(sent, &format!("after a confirmed write: {odd:?}")),
                }
            }
            Err(kind) => {
                // It was tried until the fault was over, and then had too little time left for the
                // answer; or until its limit, in the middle of the last attempt.
                let is_cut_short = kind == StoreErrorKind::Timeout
                    && (sent < self.times.healing && got >= self.times.healing
                        || got - sent >= WRITE_BUDGET);
                let is_expected = self.fault.writes != Able::All
                    && got > self.times.begun
                    && (is_cut_short || self.fault.write_reasons.contains(&kind));
                let is_over = sent > self.times.healed + RECOVERY;
                if (!is_expected || is_over) && !self.excuse(kind, sent, got) {
                    self.complain(sent, &format!("a write failed because {kind:?}"));
                }
            }
        }
    }

    /// What is confirmed must be found when all is over.
    fn verify_writes(&mut self, writes: &[Write]) {
        let doors = self.lab.doors.clone();
        let confirmed: Vec<_> = writes
            .iter()
            .filter(|write| write.result.is_ok())
            .map(|write| write.id.clone())
            .collect();
        let issued_at = this_second() - 1;
        let wrong = self.lab.app.run(async move {
            let mut wrong = Vec::new();
            for id in confirmed {
                let token = token("someone", &id, issued_at);
                let mut verdict = doors.ask(FailMode::Closed, &token).await;
                for _ in 0..100 {
                    if verdict.failure().is_some_and(|kind| kind != StoreErrorKind::DataLoss) {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        verdict = doors.ask(FailMode::Closed, &token).await;
                    }
                }
                if verdict != Verdict::Revoked {
                    wrong.push((id, verdict));
                }
            }
            wrong
        });
        for (id, verdict) in wrong {
            // Redis was made to lose it, and the store knows: the token, from before, is in doubt.
            if self.fault.forgets && !self.fault.mirror {
                let write = writes.iter().find(|write| write.id == id).unwrap();
                if write.got < self.times.healed + AFTERMATH {
                    continue;
                }
            }
            self.complaints.push(format!("{id} was confirmed, and afterwards is {verdict:?}"));
        }
    }

    fn assess_as_a_whole(
        &mut self,
        answers: &[Answer],
        modes: &BTreeMap<&'static str, SeenInMode>,
        write_recovery: Duration,
    ) {
        for seen in modes.values() {
            if seen.recovery > RECOVERY {
                self.complaints.push(format!("checks were well again after {:?}", seen.recovery));
            }
        }
        if write_recovery > RECOVERY {
            self.complaints.push(format!("writes were well again after {write_recovery:?}"));
        }
        // A test that excuses what it was to see, or sees nothing, is none.
        let well = answers.iter().filter(|answer| answer.verdict.failure().is_none()).count();
        let failed = answers.len() - well;
        let excused = usize::try_from(self.excused).unwrap();
        let is_felt = failed > 0 || !matches!(self.fault.checks, Able::Nothing | Able::Revoked);
        if well == 0 || excused * 5 > answers.len() || !is_felt {
            self.complaints
                .push(format!("{well} answers, {failed} failures, {excused} excused: no test"));
        }
    }

    /// Whether this lies within the time in which the fault must be felt.
    fn is_during(&self, sent: Instant, got: Instant) -> bool {
        sent >= self.times.settled && got <= self.times.healing
    }

    /// Whether the table shows it: while the fault lasts, or for as long after it, if it does not.
    fn is_shown(&self, sent: Instant, got: Instant) -> bool {
        if self.fault.lasts {
            self.is_during(sent, got)
        } else {
            sent >= self.times.begun && got <= self.times.begun + DURING
        }
    }

    fn stalls(&self) -> [&Stalls; 3] {
        [&self.lab.app.stalls, &self.lab.net.stalls, &self.lab.pinger.stalls]
    }

    /// Whether the machine had held up the store, the proxy or Redis for so long that it counts as
    /// a fault of its own: half the budget, or as long as it takes to have too many checks open. A
    /// request passes through all three, so what each has lost of its time adds up; and a link that
    /// was given up for one of them is felt for a while.
    fn is_excused(&self, kind: StoreErrorKind, sent: Instant, got: Instant) -> bool {
        let long = if kind == StoreErrorKind::Overloaded { BUDGET / 10 } else { BUDGET / 2 };
        // While most faults last, Redis may be silent because of them.
        let is_outside = got < self.times.begun || sent > self.times.healed;
        let witnesses = if is_outside || self.fault.checks == Able::All { 3 } else { 2 };
        let witnesses = &self.stalls()[..witnesses];
        let meanwhile: Duration = witnesses.iter().map(|stalls| stalls.within(sent, got)).sum();
        let shortly_before =
            witnesses.iter().map(|stalls| stalls.longest(before(sent, AFTERMATH), got)).max();
        meanwhile > long || shortly_before > Some(long)
    }

    fn excuse(&mut self, kind: StoreErrorKind, sent: Instant, got: Instant) -> bool {
        let is_excused = self.is_excused(kind, sent, got);
        self.excused += u32::from(is_excused);
        is_excused
    }

    fn complain(&mut self, at: Instant, problem: &str) {
        let (word, time) = if at < self.times.begun {
            ("before the fault", self.times.begun - at)
        } else if at < self.times.healing {
            ("into the fault", at - self.times.begun)
        } else {
            ("after the fault", at - self.times.healing)
        };
        self.complaints.push(format!("{time:?} {word}: {problem}"));
    }
}

fn before(moment: Instant, time: Duration) -> Instant {
    moment.checked_sub(time).unwrap_or(moment)
}

fn name(mode: FailMode) -> &'static str {
    if mode == FailMode::Closed { "closed" } else { "open" }
}

/// An answer, in the words of the table.
fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Checked => "200".into(),
        Verdict::Unchecked(kind) => format!("200 unchecked: {kind:?}"),
        Verdict::Revoked => "401".into(),
        Verdict::Unavailable(kind) => format!("503: {kind:?}"),
        Verdict::InDoubt => "401 in doubt: DataLoss".into(),
        Verdict::Odd(text) => format!("odd: {text}"),
    }
}
