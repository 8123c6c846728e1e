//! The table of `docs/faults.md`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::ledger::{Confirmed, Outcome, WrongKind};
use crate::support::seen_on;

/// A row for each case, by its scenario and its mode; of one that has failed nothing is said but
/// that.
pub fn table(rows: &[(&str, String, Option<Outcome>)]) -> String {
    let mut text = seen_on();
    text.push_str(
        "\n| what happens | mode | revocations | logins | refreshes | lost by Redis | new primary \
         answers after | checks well after | writes well after | passed as checked |\n| --- | \
         --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut before = "";
    for (scenario, mode, outcome) in rows {
        let title = if before == *scenario { "" } else { *scenario };
        before = scenario;
        let Some(outcome) = outcome else {
            let _ = writeln!(text, "| {title} | {mode} | failed in this run | | | | | | | |");
            continue;
        };
        let three = |[before, during, after]: [usize; 3]| format!("{before} + {during} + {after}");
        let lost: Vec<_> = outcome
            .at_risk
            .iter()
            .map(|(what, count)| {
                let word = match what {
                    Confirmed::Revocation => "revocations",
                    Confirmed::Reinstatement => "reinstatements",
                    Confirmed::Login => "logins",
                    Confirmed::Refresh => "refreshes",
                    Confirmed::Change => "changes",
                };
                format!("{count} {word}")
            })
            .collect();
        let lost = if lost.is_empty() { "–".into() } else { lost.join(", ") };
        let passed = match outcome.count(WrongKind::Passed) {
            0 => "0".into(),
            count => format!("{count}, for {}", seconds(outcome.passed_for)),
        };
        let _ = writeln!(
            text,
            "| {title} | {mode} | {} | {} | {} | {lost} | {} | {} | {} | {passed} |",
            three(outcome.revocations),
            three(outcome.logins),
            three(outcome.refreshes),
            seconds(outcome.gap),
            seconds(outcome.checks_well),
            seconds(outcome.writes_well),
        );
    }
    let outcomes: Vec<_> = rows.iter().filter_map(|(_, _, outcome)| outcome.as_ref()).collect();
    let checks: usize = outcomes.iter().map(|outcome| outcome.checks).sum();
    let _ = writeln!(text, "\n{} cases, {checks} checks, each assessed.", outcomes.len());
    text
}

fn seconds(time: Duration) -> String {
    if time.is_zero() { "at once".into() } else { format!("{:.1} s", time.as_secs_f64()) }
}
