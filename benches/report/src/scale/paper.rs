//! What is written: docs/scale.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::plot::{Bar, bars};
use crate::writes::Write as Written;
use crate::{Run, Storm};

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
        "| write | alone, µs | of the bare one | per s, 64 in flight | of the bare one | Redis' \
         processor, µs each | bytes in Redis each |\n\
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
        "| all at once | mirrors | revocations | over after, s | Redis' processor, s | of that per \
         mirror and 1000 revocations, ms | `TIME` of another client: usual, ms | slowest, ms |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for storm in storms {
        let each = 1000.0 * storm.redis_secs / storm.mirrors as f64 / (storm.live as f64 / 1000.0);
        let each = if storm.what == "start" { format!("{each:.2}") } else { "–".into() };
        _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {:.2} | {each} | {:.2} | {:.1} |",
            storm.what,
            storm.mirrors,
            storm.live,
            storm.secs,
            storm.redis_secs,
            storm.usual_ms,
            storm.slowest_ms,
        );
    }
    text
}

pub fn show(writes: &[Written], runs: &[Run], storms: &[Storm]) {
    println!("{}", write_table(writes));
    println!("{}\n{}", table(&runs.iter().collect::<Vec<_>>()), storm_table(storms));
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

pub fn write(writes: &[Written], runs: &[Run], storms: &[Storm], live: u64) {
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
        load = crate::load_average(),
        live = live,
        writes = write_table(writes),
        usual = table(&usual),
        others = others,
        storms = storm_table(storms),
    );
    fs::write(docs.join("scale.md"), text).unwrap();
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|char| char.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
