//! Writes what was seen into `docs/faults.md`, between marks, with the machine on which it was
//! seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::attack::Attacked;
use crate::flapping::Flapped;
use crate::history::{LAG, Outcome};
use crate::matrix::Seen;
use crate::soak::Soaked;
pub use crate::support::put;
use crate::support::seen_on;

/// The loads of one fault, and what was seen under each.
pub type Row = (&'static str, Vec<Seen>);

/// The two tables of the matrix.
pub fn matrix(rows: &[Row]) -> String {
    let mut text = seen_on();
    text.push_str(
        "\n### Checks\n\n| fault | fail mode | token not revoked | revoked token | worst, 50/s | \
         worst, 2 000/s | well again after |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (fault, seen) in rows {
        for (mode, title) in [("closed", *fault), ("open", "")] {
            let modes: Vec<_> = seen.iter().map(|seen| &seen.modes[mode]).collect();
            let live = shares(modes.iter().map(|mode| &mode.live));
            let revoked = shares(modes.iter().map(|mode| &mode.revoked));
            let recovery = modes.iter().map(|mode| mode.recovery).max().unwrap_or_default();
            let worst: Vec<_> = modes.iter().map(|mode| millis(mode.worst)).collect();
            let _ = writeln!(
                text,
                "| {title} | {mode} | {live} | {revoked} | {} | {} |",
                worst.join(" | "),
                millis(recovery)
            );
        }
    }
    text.push_str(
        "\n### Writes\n\n| fault | revocations | worst | well again after | machine |\n| \
        --- | --- | --- | --- | --- |\n",
    );
    for (fault, seen) in rows {
        let writes = shares(seen.iter().map(|seen| &seen.writes));
        let worst = seen.iter().map(|seen| seen.worst_write).max().unwrap_or_default();
        let recovery = seen.iter().map(|seen| seen.write_recovery).max().unwrap_or_default();
        let stall = seen.iter().map(|seen| seen.stall).max().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {fault} | {writes} | {} | {} | {} |",
            millis(worst),
            millis(recovery),
            millis(stall)
        );
    }
    let answers: usize = rows.iter().flat_map(|(_, seen)| seen).map(|seen| seen.answers).sum();
    let excused: u32 = rows.iter().flat_map(|(_, seen)| seen).map(|seen| seen.excused).sum();
    let _ = writeln!(
        text,
        "\n{} faults, {answers} answers, each assessed; {excused} failures were excused by a slow \
         machine.",
        rows.len()
    );
    text
}

/// What is killed again and again.
pub fn flapping(flapped: &Flapped) -> String {
    format!("{}\n{}\n", seen_on(), flapped.sentence())
}

/// The table of the histories.
pub fn histories(outcomes: &[Outcome]) -> String {
    let mut text = seen_on();
    let _ = writeln!(
        text,
        "\nThe replica is {} behind.\n\n| history | confirmed writes | median | checks after one | \
         no answers for |\n| --- | --- | --- | --- | --- |",
        millis(LAG)
    );
    for Outcome { name, confirmed, assessed, gap, write } in outcomes {
        let (write, gap) = (millis(*write), millis(*gap));
        let _ = writeln!(text, "| {name} | {confirmed} | {write} | {assessed} | {gap} |");
    }
    text
}

/// The numbers of the soak.
pub fn soak(soaked: &Soaked) -> String {
    let mut text = seen_on();
    let _ = writeln!(
        text,
        "\n{} s, {} requests, {} revocations, {} faults. {}\n\n| after | resident memory | open \
         files | tasks |\n| --- | --- | --- | --- |",
        soaked.length.as_secs(),
        soaked.answers,
        soaked.writes,
        soaked.faults,
        soaked.sentence(),
    );
    for sample in soaked.shown() {
        let _ = writeln!(
            text,
            "| {} s | {} KiB | {} | {} |",
            sample.at.as_secs(),
            sample.resident_kib,
            sample.files,
            sample.tasks
        );
    }
    text
}

/// The table of the attacks.
pub fn attacks(length: Duration, all: &[Attacked]) -> String {
    let mut text = seen_on();
    let _ = writeln!(
        text,
        "\nEach attack five times, {} s each, once everybody was connected.\n\n| attack | store | \
         requests a second | answers | innocents | refused | unchecked | of them while Redis was \
         late | median, 99 % | logouts | revoked that passed | memory: before, peak, after the \
         third time, after the last | open files: before, peak, after |\n| --- | --- | --- | --- \
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        length.as_secs()
    );
    for seen in all {
        let innocents = &seen.innocents;
        let title = if seen.mirror { "" } else { seen.name };
        let fewer = if seen.connections < seen.wanted as u64 {
            format!(" ({} connections)", seen.connections)
        } else {
            String::new()
        };
        let total: u64 = seen.by_status.iter().map(|(_, count)| count).sum();
        let answers: Vec<_> = seen
            .by_status
            .iter()
            .map(|(status, count)| {
                let percent = ((count * 100 + total / 2) / total).clamp(1, 99);
                if *count == total { status.to_string() } else { format!("{status} {percent} %") }
            })
            .collect();
        let answers = if answers.is_empty() { "–".into() } else { answers.join(", ") };
        let mib = |kib: u64| (kib + 512) / 1024;
        let _ = writeln!(
            text,
            "| {title}{fewer} | {} | {:.0} | {answers} | {} | {} | {} | {} | {}, {} | {} of {} | \
             {} | {}, {}, {}, {} MiB | {}, {}, {} |",
            seen.store(),
            seen.rate(),
            innocents.asked,
            innocents.refused,
            innocents.unchecked,
            innocents.excused,
            millis(innocents.percentile(50)),
            millis(innocents.percentile(99)),
            innocents.logouts,
            innocents.logouts + innocents.logouts_refused,
            seen.revoked_passed + innocents.revoked_checked + innocents.revoked_unchecked,
            mib(seen.at_start.resident_kib),
            mib(seen.peak.resident_kib),
            mib(seen.after[2].resident_kib),
            mib(seen.after.last().expect("a round").resident_kib),
            seen.at_start.files,
            seen.peak.files,
            seen.after.last().expect("a round").files,
        );
    }
    text
}

/// What was answered, the most frequent first: `200 62 %, 503 38 % (Unreachable, Timeout)`.
fn shares<'a>(counts: impl Iterator<Item = &'a BTreeMap<String, u32>>) -> String {
    let mut by_status: BTreeMap<String, (u32, BTreeMap<String, u32>)> = BTreeMap::new();
    for (word, count) in counts.flatten() {
        let (status, reason) = word.split_once(": ").unwrap_or((word, ""));
        let entry = by_status.entry(status.into()).or_default();
        entry.0 += count;
        *entry.1.entry(reason.into()).or_default() += count;
    }
    let total: u32 = by_status.values().map(|(count, _)| count).sum();
    let mut shares: Vec<_> = by_status.into_iter().collect();
    shares.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let words = shares.iter().map(|(status, (count, reasons))| {
        let mut reasons: Vec<_> = reasons.iter().filter(|(reason, _)| !reason.is_empty()).collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let reasons: Vec<_> = reasons.into_iter().map(|(reason, _)| reason.as_str()).collect();
        // What is not all, and not nothing, does not look like it.
        let percent = ((count * 100 + total / 2) / total).clamp(1, 99);
        let share = if *count == total { String::new() } else { format!(" {percent} %") };
        let reasons =
            if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        format!("{status}{share}{reasons}")
    });
    words.collect::<Vec<_>>().join(", ")
}

fn millis(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        0.0 => "at once".into(),
        millis if millis < 9.95 => format!("{millis:.1} ms"),
        millis => format!("{millis:.0} ms"),
    }
}
