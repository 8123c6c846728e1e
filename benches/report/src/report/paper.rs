//! Writes docs/performance.md, its plots, and the numbers in the README.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Results;
use crate::http::{CONNECTIONS, SERVERS, Served};
use crate::process::Cost;
use crate::targets::{Target, count, note, targets};
use tower_jwt_revocation_report::machine::percentile;
use tower_jwt_revocation_report::plot::{self, Bar, short};
use tower_jwt_revocation_report::writes::IN_FLIGHT;

/// The README has the numbers between these two.
const MARKS: (&str, &str) =
    ("<!-- written by make bench-report -->", "<!-- end of what it writes -->");

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn write(results: &Results) {
    let docs = root().join("docs");
    let plots = docs.join("performance");
    fs::create_dir_all(&plots).unwrap();
    draw(results, &plots);
    fs::write(docs.join("performance.md"), text(results)).unwrap();
    let readme = root().join("README.md");
    let old = fs::read_to_string(&readme).unwrap();
    if let Some((before, rest)) = old.split_once(MARKS.0)
        && let Some((_, after)) = rest.split_once(MARKS.1)
    {
        fs::write(readme, format!("{before}{}\n{}{}{after}", MARKS.0, quoted(results), MARKS.1))
            .unwrap();
    }
    println!("wrote docs/performance.md, docs/performance/*.svg and the numbers in README.md");
}

// === Finding numbers ===

impl Results {
    pub fn lines(&self, algorithm: &str) -> &[Cost] {
        self.process
            .lines
            .iter()
            .find(|(name, _)| name == algorithm)
            .map_or(&[], |(_, lines)| lines)
    }

    pub fn cost(&self, algorithm: &str, name: &str) -> &Cost {
        self.lines(algorithm).iter().find(|cost| cost.name.starts_with(name)).unwrap()
    }

    /// What a line adds to the bare service.
    pub fn over(&self, name: &str) -> f64 {
        self.cost("RS256", name).ns - self.cost("RS256", BARE).ns
    }

    pub fn served(&self, name: &str, connections: usize) -> &Served {
        self.http
            .iter()
            .find(|served| served.name == name && served.connections == connections)
            .unwrap()
    }

    /// The share of the throughput of the bare server.
    pub fn share(&self, name: &str, connections: usize) -> f64 {
        self.served(name, connections).per_second / self.served("bare", connections).per_second
    }
}

pub const BARE: &str = "bare service";
pub const MIRROR: &str = "mirror, remembered token";
pub const UNCLEARED: &str = "mirror, remembered token, without clearance";
pub const METERED: &str = "mirror, remembered token, metrics read each second";
pub const BESIDE: &str = "mirror, remembered token, beside a settling shard";
pub const FRED: &str = "by hand: from_fn, jsonwebtoken, EXISTS by fred";
const REDIS_RS: &str = "by hand: from_fn, jsonwebtoken, EXISTS by redis-rs";

// === The text ===

fn text(r: &Results) -> String {
    let mut out = String::new();
    _ = write!(
        out,
        "# Performance\n\nWritten by `make bench-report`{}: {}. It took {:.0} minutes, and the \
         load average was {} when it \
         began: much above 0 it means that others used the machine too, and that the tails below \
         are theirs.\n\n\
         Compare the numbers of one run with each other: in absolute terms they differ by tens of \
         per cent from machine to \
         machine. Costs in this process are times of the thread, so waiting does not count and \
         neither do other programs; lines take turns, and the median of the turns counts.\n",
        if r.full { " with `FULL=1`" } else { "" },
        machine(),
        r.took.as_secs_f64() / 60.0,
        r.load,
    );
    targets_text(&mut out, r);
    process_text(&mut out, r);
    http_text(&mut out, r);
    spread_text(&mut out, r);
    writes_text(&mut out, r);
    memory_text(&mut out, r);
    counts_text(&mut out);
    out
}

fn targets_text(out: &mut String, r: &Results) {
    out.push_str(
        "\n## Targets\n\n| | What | Target | Measured | Met | Where |\n| --- | --- | --- \
        | --- | --- | --- |\n",
    );
    let targets = targets(r);
    for target in &targets {
        let met = match target.is_met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        let Target { id, what, target: wanted, measured, section, .. } = target;
        let place = match (place(section), target.is_met) {
            // What was not measured has no document either.
            (_, None) => "–".into(),
            ((title, link), _) => format!("[{title}]({link})"),
        };
        _ = writeln!(out, "| {id} | {what} | {wanted} | {measured} | {met} | {place} |");
    }
    let missed: Vec<_> = targets.iter().filter(|target| target.is_met == Some(false)).collect();
    if !missed.is_empty() {
        out.push_str("\nWhat is missed, and why:\n\n");
        for target in missed {
            _ = writeln!(out, "- **{}**: {}. {}", target.id, target.measured, note(target.id));
        }
    }
}

fn place(section: &str) -> (&'static str, &'static str) {
    match section {
        "process" => ("in this process", "#one-request-in-this-process"),
        "sizes" => ("sizes", "#by-the-number-of-revocations"),
        "first" => ("first sight", "#first-sight-of-a-token"),
        "direct" => ("direct", "#direct-many-at-once"),
        "http" => ("HTTP", "#over-http"),
        "spread" => ("propagation", "#from-revoke-to-refused"),
        "writes" => ("writes", "#one-write"),
        "scale" => ("scale", "scale.md"),
        _ => ("memory", "#memory-growth-start"),
    }
}

fn process_text(out: &mut String, r: &Results) {
    out.push_str(
        "\n## One request in this process\n\n![Cost of one \
         request](performance/process.svg)\n\nThe processor's time and the \
         allocations of one request, from its making to its answer, over a service that does \
         nothing. 1 M revocations are in \
         the mirror. What is written by hand is what one finds in tutorials: axum's `from_fn`, \
         `jsonwebtoken::decode`, one \
         `EXISTS`; the round trip itself, during which the thread does something else, comes on \
         top.\n",
    );
    for (algorithm, lines) in &r.process.lines {
        _ = writeln!(
            out,
            "\n| {algorithm} | ns | over bare | allocations |\n| --- | ---: | ---: | ---: |"
        );
        let bare = &lines[0];
        for cost in lines {
            _ = writeln!(
                out,
                "| {} | {:.0} | {:+.0} | {:.0} |",
                cost.name,
                cost.ns,
                cost.ns - bare.ns,
                cost.allocations
            );
        }
    }
    let bare = r.cost("RS256", BARE).ns;
    out.push_str(
        "\n### By the number of revocations\n\nRS256, ns over the bare service: one remembered \
         token, 1000 in turns, and two \
         threads that send the same token at the same time.\n\n| revocations | one token | 1000 \
         tokens | two threads |\n\
         | ---: | ---: | ---: | ---: |\n",
    );
    for (entries, one, many, two) in &r.process.sizes {
        _ = writeln!(
            out,
            "| {} | {:.0} | {:.0} | {:.0} |",
            number(*entries),
            one - bare,
            many - bare,
            two - bare
        );
    }
    if !r.full {
        out.push_str("\nTen million: with `FULL=1`.\n");
    }
    out.push_str(
        "\n### While revocations stream in\n\nRS256, one remembered token, 1 M revocations.\n\n| \
         per second | ns over bare |\n\
         | ---: | ---: |\n",
    );
    for (rate, ns) in &r.process.streams {
        _ = writeln!(out, "| {} | {:.0} |", number(*rate), ns - bare);
    }
    out.push_str(
        "\n### First sight of a token\n\n| | signature alone, ns | verified, ns | ratio |\n| --- | \
         ---: | ---: | ---: |\n",
    );
    for (name, alone, whole) in &r.process.first {
        _ = writeln!(out, "| {name} | {alone:.0} | {whole:.0} | {:.2} |", whole / alone);
    }
    out.push_str(
        "\n### Direct, many at once\n\nHS256, requests per second by one thread, which is the \
         client's too: by hand with one \
         `EXISTS` by fred, and this crate without a mirror (four targets and the epoch, concurrent \
         checks share round \
         trips).\n\n| in flight | by hand | direct | ratio |\n| ---: | ---: | ---: | ---: |\n",
    );
    for (at_once, by_hand, direct) in &r.process.at_once {
        _ = writeln!(
            out,
            "| {at_once} | {} | {} | {:.2} |",
            short(*by_hand),
            short(*direct),
            direct / by_hand
        );
    }
}

fn http_text(out: &mut String, r: &Results) {
    out.push_str(
        "\n## Over HTTP\n\n![Share of the bare server's throughput](performance/http.svg)\n\nAn \
         axum server with one thread in \
         a process of its own; RS256, 1000 tokens in turns, keep-alive over the loopback \
         interface. The last columns \
         are what the server's process took of its processor for one request.\n",
    );
    for connections in CONNECTIONS {
        _ = writeln!(
            out,
            "\n| {connections} connection{} | requests/s | share | p50 µs | p99 µs | p99.9 µs | \
             processor µs | over bare |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            if connections == 1 { "" } else { "s" }
        );
        for (_, name) in SERVERS {
            let served = r.served(name, connections);
            let [p50, p99, p999] = served.latency.map(short);
            _ = writeln!(
                out,
                "| {name} | {} | {:.2} | {p50} | {p99} | {p999} | {:.1} | {:+.2} |",
                short(served.per_second),
                r.share(name, connections),
                served.cpu / 1000.0,
                (served.cpu - r.served("bare", connections).cpu) / 1000.0
            );
        }
    }
}

fn spread_text(out: &mut String, r: &Results) {
    out.push_str(
        "\n## From revoke to refused\n\n![Propagation](performance/propagation.svg)\n\nFrom the \
         call of `revoke` in one process until the mirror of another one refuses the token, in \
         milliseconds. In the same run, in turns: from a bare `XADD` until a bare `XREAD BLOCK` of \
         another process has it, over plain sockets, which is the least that it can take.\n\n| \
         asked for, per s | written, per s | looked at | p50 | p90 | p99 | p99.9 | most | bare \
         p50 | p99 | p50, ratio | p99, ratio |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: \
         | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for spread in &r.spread {
        let at = |share| percentile(&spread.micros, share) / 1000.0;
        let bare = |share| percentile(&spread.bare, share) / 1000.0;
        _ = writeln!(
            out,
            "| {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | \
             {:.2} |",
            number(spread.rate),
            spread.written,
            spread.micros.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
            bare(0.5),
            bare(0.99),
            at(0.5) / bare(0.5),
            at(0.99) / bare(0.99),
        );
    }
}

fn writes_text(out: &mut String, r: &Results) {
    let [bare, ..] = &r.writes;
    _ = writeln!(
        out,
        "\n## One write\n\nA revocation is confirmed when its call has ended. The bare write is \
         the least that one can be: one key with an end, without a log, an index or a proof that \
         nothing was lost. Lines take turns.\n\n| call | alone, µs | of the bare one | revocations \
         per s, one call after the other | with {IN_FLIGHT} calls in flight | of the bare one | \
         bytes in Redis each |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for write in &r.writes {
        _ = writeln!(
            out,
            "| {} | {:.0} | {:.2} × | {} | {} | {:.2} × | {:.0} |",
            write.name,
            write.alone,
            write.alone / bare.alone,
            short(write.in_turn()),
            short(write.per_sec),
            write.per_sec / bare.per_sec,
            write.bytes
        );
    }
}

fn memory_text(out: &mut String, r: &Results) {
    out.push_str(
        "\n## Memory, growth, start\n\nBytes per revocation by the mirror's own account and by \
         what the system gave it; the \
         check of a token of four targets, and one dependent cache miss in as much memory; the \
         third slowest look-up that the \
         scheduler did not interrupt, while the set grew to twice its size, and while nobody \
         wrote.\n\n| revocations | bytes each | resident | hot, ns | cold, \
         ns | a miss, ns | slowest growing, µs | alone, µs | grew in, s |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for held in &r.held {
        _ = writeln!(
            out,
            "| {} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |",
            number(held.entries),
            held.bytes_each,
            held.resident_each,
            held.hot,
            held.cold,
            held.miss,
            held.slowest_growing,
            held.slowest_alone,
            held.grown_secs
        );
    }
    out.push_str(
        "\nThe start of a mirror, until it answers from memory, against Redis on the same machine; \
         in turns with a bare client that reads the same pages and keeps nothing:\n\n| revocations \
         | started in, s | per s | bare client, s | ratio | bytes each |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for boot in &r.boot {
        _ = writeln!(
            out,
            "| {} | {:.2} | {} | {:.2} | {:.2} | {:.1} |",
            number(boot.entries),
            boot.boot_secs,
            short(boot.entries as f64 / boot.boot_secs),
            boot.bare_secs,
            boot.boot_secs / boot.bare_secs,
            boot.bytes_each
        );
    }
    out.push_str(
        "\nA remembered token, itself and its claims included:\n\n| | token, bytes | in \
        the cache, bytes |\n| --- | ---: | ---: |\n",
    );
    for cached in &r.cached {
        _ = writeln!(
            out,
            "| {} | {} | {:.0} |",
            cached.algorithm, cached.token_bytes, cached.bytes_each
        );
    }
}

fn counts_text(out: &mut String) {
    let counts = fs::read_to_string(root().join("benches/counts.txt")).unwrap_or_default();
    _ = write!(
        out,
        "\n## Instructions\n\nCounted by valgrind, which hides the processor's own instructions \
         for SHA-256. CI compares \
         (`make count`): none may grow by more than 5 %.\n\n```text\n{counts}```\n"
    );
}

fn quoted(r: &Results) -> String {
    let by_hand = r.cost("RS256", FRED);
    let mirror = r.cost("RS256", MIRROR);
    let bare = r.cost("RS256", BARE);
    let spread = &r.spread[0].micros;
    let row = |name: &str, cost: &Cost, served: &str| {
        let share = r.share(served, 64);
        format!(
            "| {name} | {} ns | {:.0} | {:.0} % |\n",
            group(cost.ns - bare.ns),
            cost.allocations - bare.allocations,
            100.0 * share
        )
    };
    let mut out = String::from(
        "| RS256, a token that was seen before | processor time it adds | allocations it adds | \
         share of a bare axum server's throughput |\n| --- | ---: | ---: | ---: |\n",
    );
    out += &row("this crate, with a mirror of 1 M revocations", mirror, "mirror");
    out += &row("this crate, asking Redis each time", r.cost("RS256", "direct"), "direct");
    out += &row("by hand: `from_fn`, `decode`, `EXISTS` by fred", by_hand, FRED);
    out += &row("by hand: the same by redis-rs", r.cost("RS256", REDIS_RS), REDIS_RS);
    for (name, served) in
        [("jwt-authorizer", "jwt-authorizer"), ("tower-oauth2-resource-server", "tower-oauth2")]
    {
        let cost = r.cost("RS256", served);
        let served = SERVERS.iter().find(|(_, name)| name.starts_with(served)).unwrap().1;
        out += &row(&format!("{name}, no revocation"), cost, served);
    }
    _ = writeln!(
        out,
        "\nWith a mirror a check takes {} instructions over the bare service, {} without \
         `Clearance`, on any machine of this kind. A revocation is refused by other \
         processes after {:.2} ms (median; p99 {:.2} ms), takes {:.0} bytes in a mirror, \
         and a million of them are loaded in {:.1} s. Measured on {}: \
         [docs/performance.md](docs/performance.md), `make bench-report`.",
        group(count("accept, mirror") - count("bare")),
        group(count("accept, mirror, without clearance") - count("bare")),
        percentile(spread, 0.5) / 1000.0,
        percentile(spread, 0.99) / 1000.0,
        r.held[0].bytes_each,
        r.boot[0].boot_secs,
        processor()
    );
    out
}

// === Plots ===

fn draw(r: &Results, plots: &Path) {
    let is_ours =
        |name: &str| ["mirror", "direct", "refused"].iter().any(|ours| name.starts_with(ours));
    let bars: Vec<_> = r
        .lines("RS256")
        .iter()
        .map(|cost| {
            let name = cost.name.split(" (").next().unwrap_or_default();
            Bar { name: name.into(), value: cost.ns, is_ours: is_ours(name) }
        })
        .collect();
    plot::bars(&plots.join("process.svg"), "One request, RS256", "ns of the processor", &bars);
    let bars: Vec<_> = SERVERS
        .iter()
        .map(|(_, name)| Bar {
            name: (*name).into(),
            value: 100.0 * r.share(name, 64),
            is_ours: is_ours(name),
        })
        .collect();
    plot::bars(
        &plots.join("http.svg"),
        "HTTP, RS256, 64 connections",
        "% of the bare server's requests per second",
        &bars,
    );
    let series: Vec<_> = r
        .spread
        .iter()
        .map(|spread| (format!("{} per s", number(spread.rate)), spread.micros.as_slice()))
        .collect();
    plot::histograms(
        &plots.join("propagation.svg"),
        "From revoke to refused in another process",
        "µs",
        &series,
    );
}

// === The machine ===

fn machine() -> String {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0);
    let redis = said("redis-server", &["--version"]);
    let redis = redis
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))
        .unwrap_or("unknown")
        .to_owned();
    format!(
        "on {}, {:.0} GiB, Linux {}, {}, Redis {redis}, on {}, at commit {}",
        processor(),
        kib / (1024.0 * 1024.0),
        said("uname", &["-r"]),
        said("rustc", &["-V"]),
        said("date", &["-u", "+%Y-%m-%d"]),
        said("git", &["-C", &root().display().to_string(), "rev-parse", "--short", "HEAD"])
    )
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let name = line.split(": ").nth(1).unwrap_or("an unknown processor");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {count} processors")
}

fn said(program: &str, args: &[&str]) -> String {
    let said = Command::new(program).args(args).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

fn number(n: u64) -> String {
    group(n as f64)
}

/// With a thin space between thousands.
fn group(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 && digit.is_ascii_digit() && !out.ends_with('-') {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}
