//! What is written: docs/scale.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use tower_jwt_revocation_report::machine::load_average;
use tower_jwt_revocation_report::plot::{Bar, bars};
use tower_jwt_revocation_report::writes::Write as Written;

use crate::checks::Checked;
use crate::{MIRRORS, Results, Run, Storm};

fn pace(run: &Run) -> String {
    let (pause, beat) = (run.pace.pause.as_millis(), run.pace.beat_every.as_millis());
    match (pause, beat) {
        (0, 0) => "as mirrors do".into(),
        (0, beat) => format!("a heartbeat each {beat} ms at most"),
        (pause, beat) => format!("the same {beat} ms, and {pause} ms between two reads"),
    }
}

fn table(runs: &[&Run]) -> String {
    let mut text = String::from(
        "| mirrors | asked for, per s | written, per s | of a core of Redis | commands/s | MB/s \
         out | largest buffer, kB | lag p50, ms | p99, ms | of a core of all followers |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for run in runs {
        let lag = |value: f64| if value.is_nan() { "–".into() } else { format!("{value:.1}") };
        _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} % | {:.0} | {:.1} | {:.0} | {} | {} | {:.0} % |",
            run.mirrors,
            run.wanted,
            run.written,
            100.0 * run.redis_share,
            run.commands,
            run.megabytes,
            run.buffer,
            lag(run.p50),
            lag(run.p99),
            100.0 * run.own_share,
        );
    }
    text
}

fn write_table(writes: &[Written]) -> String {
    let mut text = String::from(
        "| call | alone, µs | of the bare one | revocations per s, 64 calls in flight | of the \
         bare one | Redis' processor, µs each | bytes in Redis each |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    let Some(bare) = writes.first() else { return text };
    for write in writes {
        _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} × | {:.0} | {:.2} × | {:.1} | {:.0} |",
            write.name,
            write.alone,
            write.alone / bare.alone,
            write.per_sec,
            write.per_sec / bare.per_sec,
            write.redis_micros,
            write.bytes,
        );
    }
    text
}

fn storm_table(storms: &[Storm]) -> String {
    let mut text = String::from(
        "| all at once | mirrors | done | after, s | Redis' processor, s | of that per mirror and \
         1000 revocations, ms | checks before: p50, ms | p99, ms | failed | meanwhile: p50, ms | \
         p99, ms | failed |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for storm in storms {
        let each = 1000.0 * storm.redis_secs / storm.mirrors as f64 / (storm.live as f64 / 1000.0);
        let is_whole_start = storm.what == "start" && storm.done == storm.mirrors;
        let each = if is_whole_start { format!("{each:.2}") } else { "–".into() };
        _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {:.2} | {each} | {} | {} |",
            storm.what,
            storm.mirrors,
            storm.done,
            storm.secs,
            storm.redis_secs,
            checked(&storm.before),
            checked(&storm.meanwhile),
        );
    }
    text
}

fn checked(checked: &Checked) -> String {
    let Checked { asked, failed, p50, p99 } = checked;
    format!("{p50:.2} | {p99:.1} | {failed} of {asked}")
}

/// The row of the target, which the report takes over as it is.
fn target(results: &Results) -> String {
    let run = |wanted| {
        let usual = results.runs.iter().filter(|run| run.pace.beat_every.is_zero());
        usual.filter(|run| run.mirrors == MIRRORS).find(|run| run.wanted == wanted).unwrap()
    };
    let (some, many) = (run(1000), run(10_000));
    let start = results.storms.iter().find(|storm| storm.mirrors == MIRRORS).unwrap();
    let is_met =
        some.redis_share <= 0.25 && many.redis_share <= 0.8 && some.p99 <= 20.0 && many.p99 <= 20.0;
    format!(
        "| T13 | {MIRRORS} mirrors on one Redis, {} live revocations, 1 000 and 10 000 further \
         ones per second: share of a core of Redis, p99 of the lag; all start at once while checks \
         go \
         on | ≤ 25 %, ≤ 80 %; ≤ 20 ms | {:.0} %, {:.0} %; {:.1} ms, {:.1} ms ({:.0} written per \
         second); {} of {MIRRORS} started in {:.0} s, checks meanwhile: p50 {:.1} ms, p99 {:.1} \
         ms, {:.1} % failed | {} |",
        match results.live {
            10_000_000 => "10 M",
            1_000_000 => "1 M (10 M with `FULL=1`)",
            _ => "some",
        },
        100.0 * some.redis_share,
        100.0 * many.redis_share,
        some.p99,
        many.p99,
        many.written,
        start.done,
        start.secs,
        start.meanwhile.p50,
        start.meanwhile.p99,
        100.0 * start.meanwhile.failed as f64 / start.meanwhile.asked.max(1) as f64,
        if is_met { "yes" } else { "**no**" },
    )
}

pub fn show(results: &Results) {
    println!("{}", write_table(&results.writes));
    println!("{}", table(&results.runs.iter().collect::<Vec<_>>()));
    println!("{}", storm_table(&results.storms));
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

pub fn write(results: &Results) {
    let Results { live, writes, runs, storms } = results;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let (usual, other): (Vec<&Run>, Vec<&Run>) =
        runs.iter().partition(|run| run.pace.beat_every.is_zero());
    let plots = docs.join("scale");
    fs::create_dir_all(&plots).unwrap();
    let shown: Vec<Bar> = usual
        .iter()
        .filter(|run| run.wanted > 0)
        .map(|run| Bar {
            name: format!("{} mirrors, {:.0} written/s", run.mirrors, run.written),
            value: 100.0 * run.redis_share,
            is_ours: true,
        })
        .collect();
    bars(&plots.join("core.svg"), "What Redis takes of a core", "%", &shown);
    let shown: Vec<Bar> = usual
        .iter()
        .filter(|run| !run.p99.is_nan())
        .map(|run| Bar {
            name: format!("{} mirrors, {:.0} written/s", run.mirrors, run.written),
            value: run.p99.max(0.1),
            is_ours: true,
        })
        .collect();
    bars(&plots.join("lag.svg"), "Until a mirror has read a write, p99", "ms", &shown);
    let others: String =
        other.chunk_by(|one, two| pace(one) == pace(two)).fold(String::new(), |text, runs| {
            format!("{text}\n{}:\n\n{}", capital(&pace(runs[0])), table(runs))
        });
    let text = format!(
        include_str!("scale.md"),
        date = first_line("date", &["+%Y-%m-%d"]),
        redis = first_line("redis-server", &["--version"]),
        load = load_average(),
        live = live,
        target = target(results),
        writes = write_table(writes),
        usual = table(&usual),
        others = others,
        storms = storm_table(storms),
    );
    fs::write(docs.join("scale.md"), text).unwrap();
    println!("wrote docs/scale.md and docs/scale/*.svg");
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|char| char.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
