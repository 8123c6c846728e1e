//! A proxy that closes its connections again and again, which an established connection does not
//! survive: hardly any check may notice.

use std::time::{Duration, Instant};

use crate::doors::Verdict;
use crate::lab::{BUDGET, Lab};
use crate::support::Fault;
use crate::traffic::Sort;

pub const NAME: &str = "connections killed every 200 ms";
/// Requests a second, half of them in each fail mode.
const PER_SECOND: u32 = 500;
const PERIOD: Duration = Duration::from_millis(200);
const KILLS: u32 = 40;
/// Of a hundred checks, fewer than these may get no answer of the store.
const MOST_PERCENT: usize = 2;
/// What a proxy, a process or Redis was held up for longer than this is late by itself.
const LATE: Duration = Duration::from_millis(10);
/// A connection that could not be replaced in time is felt by those who come soon after.
const AFTERMATH: Duration = Duration::from_millis(100);

/// What was seen.
pub struct Flapped {
    pub checks: usize,
    pub failed: usize,
    /// Of those, while the machine was late.
    pub excused: usize,
    pub writes: usize,
    pub failed_writes: usize,
    pub median: Duration,
    pub worst: Duration,
}

impl Flapped {
    pub fn sentence(&self) -> String {
        let percent = |part: usize| {
            let hundredths = part * 10_000 / self.checks.max(1);
            format!("{}.{:02} %", hundredths / 100, hundredths % 100)
        };
        format!(
            "{KILLS} times, {PER_SECOND} checks a second of at most {} ms: of {} checks {} got no \
             answer ({}), {} of them while the machine itself was late; the others took {:.1} ms \
             in the median and {:.0} ms at most. Of {} revocations {} failed.",
            BUDGET.as_millis(),
            self.checks,
            self.failed,
            percent(self.failed),
            self.excused,
            self.median.as_secs_f64() * 1000.0,
            self.worst.as_secs_f64() * 1000.0,
            self.writes,
            self.failed_writes,
        )
    }
}

/// # Errors
/// An answer that must not have been, or too few of them.
pub fn run() -> Result<Flapped, String> {
    let lab = Lab::start(|server| server, |store| store, false);
    lab.load(PER_SECOND, 20);
    std::thread::sleep(PERIOD * 2);
    let begun = Instant::now();
    for _ in 0..KILLS {
        lab.net(Fault::Reset);
        lab.net(Fault::Pass);
        std::thread::sleep(PERIOD);
    }
    let answers = lab.protocol.answers();
    let answers: Vec<_> = answers.iter().filter(|answer| answer.sent >= begun).collect();
    let (mut failed, mut excused, mut times) = (0, 0, Vec::new());
    for answer in &answers {
        match (answer.sort, &answer.verdict) {
            (_, verdict) if verdict.failure().is_some() => {
                failed += 1;
                let from = answer.sent.checked_sub(AFTERMATH).unwrap_or(answer.sent);
                let stalls = [&lab.app.stalls, &lab.net.stalls, &lab.pinger.stalls];
                let is_late = stalls.iter().any(|stalls| stalls.longest(from, answer.got) > LATE);
                excused += usize::from(is_late);
            }
            (Sort::Revoked, Verdict::Revoked) | (Sort::Live | Sort::Fresh, Verdict::Checked) => {
                times.push(answer.got - answer.sent);
            }
            odd => return Err(format!("{odd:?}")),
        }
    }
    times.sort_unstable();
    let writes = lab.protocol.writes();
    let flapped = Flapped {
        checks: answers.len(),
        failed,
        excused,
        writes: writes.len(),
        failed_writes: writes.iter().filter(|write| write.result.is_err()).count(),
        median: times.get(times.len() / 2).copied().unwrap_or_default(),
        worst: times.last().copied().unwrap_or_default(),
    };
    if flapped.checks < 500 {
        return Err(format!("{} checks: no test", flapped.checks));
    }
    if (failed - excused) * 100 >= flapped.checks * MOST_PERCENT {
        return Err(flapped.sentence());
    }
    Ok(flapped)
}
