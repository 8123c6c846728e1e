//! Writes docs/performance.md, its plots, and the numbers in the README.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Results;
use crate::http::{CONNECTIONS, SERVERS, Served};
use crate::plot::{self, Bar, short};
use crate::process::Cost;

/// The README has the numbers between these two.
const MARKS: (&str, &str) =
    ("<!-- written by make bench-report -->", "<!-- end of what it writes -->");

fn root() -> PathBuf {
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
    fn lines(&self, algorithm: &str) -> &[Cost] {
        self.process
            .lines
            .iter()
            .find(|(name, _)| name == algorithm)
            .map_or(&[], |(_, lines)| lines)
    }

    fn cost(&self, algorithm: &str, name: &str) -> &Cost {
        self.lines(algorithm).iter().find(|cost| cost.name.starts_with(name)).unwrap()
    }

    /// What a line adds to the bare service.
    fn over(&self, name: &str) -> f64 {
        self.cost("RS256", name).ns - self.cost("RS256", BARE).ns
    }

    fn served(&self, name: &str, connections: usize) -> &Served {
        self.http
            .iter()
            .find(|served| served.name == name && served.connections == connections)
            .unwrap()
    }

    /// The share of the throughput of the bare server.
    fn share(&self, name: &str, connections: usize) -> f64 {
        self.served(name, connections).per_second / self.served("bare", connections).per_second
    }
}

const BARE: &str = "bare service";
const MIRROR: &str = "mirror, remembered token";
const UNCLEARED: &str = "mirror, remembered token, without clearance";
const FRED: &str = "by hand: from_fn, jsonwebtoken, EXISTS by fred";
const REDIS_RS: &str = "by hand: from_fn, jsonwebtoken, EXISTS by redis-rs";

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted
        .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

// === Targets ===

struct Target {
    id: &'static str,
    what: &'static str,
    target: String,
    measured: String,
    /// `None` if it was not measured in this run.
    is_met: Option<bool>,
    section: &'static str,
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn targets(r: &Results) -> Vec<Target> {
    let bare = r.cost("RS256", BARE);
    let mirror = r.cost("RS256", MIRROR);
    let uncleared = r.cost("RS256", UNCLEARED);
    let (one, two) = (r.over(MIRROR), r.over(UNCLEARED));
    let naive = r.cost("RS256", FRED).ns;
    let allocations = mirror.allocations - bare.allocations;
    let bare_two = |shared: f64| shared - bare.ns;
    let shared = r
        .process
        .sizes
        .iter()
        .find(|size| size.0 == 1_000_000)
        .map_or(0.0, |size| bare_two(size.3));
    let alone = r
        .process
        .sizes
        .iter()
        .find(|size| size.0 == 1_000_000)
        .map_or(0.0, |size| bare_two(size.1));
    let first = |name: &str| r.process.first.iter().find(|line| line.0 == name).unwrap();
    let ratio = |at: usize| {
        let (_, by_hand, direct) = r.process.at_once.iter().find(|line| line.0 == at).unwrap();
        direct / by_hand
    };
    let held = |entries: u64| r.held.iter().find(|held| held.entries == entries);
    let boot = |entries: u64| r.boot.iter().find(|boot| boot.entries == entries);
    let spread = |rate: u64| &r.spread.iter().find(|spread| spread.rate == rate).unwrap().micros;
    let (idle, busy) = (spread(50), spread(10_000));
    let early =
        ["refused: no token", "refused: junk", "refused: `alg` forged"].map(|name| r.over(name));
    let over_bare = |name: &str| count(name) - count("bare");
    let accepted = over_bare("accept, mirror");
    let uncounted = over_bare("accept, mirror, without clearance");
    let thousand = r.over("mirror, 1000 remembered tokens");
    let seen_first = count("first sight, HS256") - count("first sight, HS256, signature alone");
    let refused =
        ["refuse, no credentials", "refuse, junk", "refuse, long junk", "refuse, alg forged"]
            .map(over_bare);
    let mut targets = vec![
        Target {
            id: "T1",
            what: "verdict in memory, remembered RS256 token, 1 M revocations, clearance left for \
                the handler",
            target:
                "≤ 2000 instructions and ≤ 3 allocations over the bare service, ≤ 1/260 of what \
                is written by hand with fred"
                    .into(),
            measured: format!(
                "{accepted:.0} instructions, {allocations:.0} allocations, 1/{:.0}; {one:.0} ns",
                naive / one
            ),
            is_met: Some(accepted <= 2000.0 && allocations <= 3.0 && naive / one >= 260.0),
            section: "process",
        },
        Target {
            id: "T2",
            what: "the same with `without_clearance`; a thousand tokens in turns against one",
            target: "≤ 1500 instructions, 0 allocations; ≤ 1.25 ×".into(),
            measured: format!(
                "{uncounted:.0} instructions, {:.0} allocations; {:.2} ×; {two:.0} ns",
                uncleared.allocations - bare.allocations,
                thousand / one
            ),
            is_met: Some(
                uncounted <= 1500.0
                    && uncleared.allocations <= bare.allocations
                    && thousand <= 1.25 * one,
            ),
            section: "process",
        },
        Target {
            id: "T3",
            what: "two threads, one shared token",
            target: "≤ 1.15 × one thread".into(),
            measured: format!("{:.2} × ({shared:.0} ns, {alone:.0} ns)", shared / alone),
            is_met: Some(shared <= 1.15 * alone),
            section: "sizes",
        },
        Target {
            id: "T4",
            what: "first sight of a token",
            target: "HS256 ≤ 26000 instructions over its signature, as jsonwebtoken checks it; \
                     RS256 ≤ 1.05 × that"
                .into(),
            measured: format!(
                "{seen_first:.0} instructions; {:.2} ×",
                first("RS256").2 / first("RS256").1
            ),
            is_met: Some(seen_first <= 26_000.0 && first("RS256").2 <= 1.05 * first("RS256").1),
            section: "first",
        },
        Target {
            id: "T5",
            what: "direct, against one `EXISTS` by fred, with 1, 16, 64, 256 in flight",
            target: "≥ 1.05, 2.5, 4.5, 7 ×".into(),
            measured: format!(
                "{:.2}, {:.2}, {:.2}, {:.2} ×",
                ratio(1),
                ratio(16),
                ratio(64),
                ratio(256)
            ),
            is_met: Some(
                ratio(1) >= 1.05 && ratio(16) >= 2.5 && ratio(64) >= 4.5 && ratio(256) >= 7.0,
            ),
            section: "direct",
        },
        Target {
            id: "T6",
            what: "HTTP, RS256, 64 connections: share of the bare server's throughput",
            target: "mirror ≥ 0.95, direct ≥ 0.80".into(),
            measured: format!("{:.2}, {:.2}", r.share("mirror", 64), r.share("direct", 64)),
            is_met: Some(r.share("mirror", 64) >= 0.95 && r.share("direct", 64) >= 0.80),
            section: "http",
        },
        Target {
            id: "T7",
            what: "memory per revocation in the mirror, its expiry included",
            target: "≤ 10.5 B at 1 M, ≤ 9.8 B at 10 M".into(),
            measured: list(
                [1_000_000, 10_000_000]
                    .map(|n| held(n).map(|held| format!("{:.1} B", held.bytes_each))),
            ),
            is_met: held(1_000_000)
                .map(|held| held.bytes_each <= 10.5)
                .map(|met| met && held(10_000_000).is_none_or(|held| held.bytes_each <= 9.8)),
            section: "memory",
        },
    ];
    let large = r.held.last().unwrap();
    let at_large = if large.entries == 10_000_000 { "" } else { " (at 1 M; 10 M with `FULL=1`)" };
    let pause = large.slowest_growing;
    targets.extend([
        Target {
            id: "T8",
            what: "look-up of a target at 10 M, cold; pauses while the set grows",
            target: "≤ 1.5 × one cache miss; ≤ 1 ms, or no longer than with nobody writing".into(),
            measured: format!(
                "{:.2} ×; {:.2} ms, {:.2} ms with nobody writing{at_large}",
                large.cold / 4.0 / large.miss,
                pause / 1000.0,
                large.slowest_alone / 1000.0
            ),
            is_met: Some(
                large.cold / 4.0 <= 1.5 * large.miss && pause <= large.slowest_alone.max(1000.0),
            ),
            section: "memory",
        },
        Target {
            id: "T9",
            what: "from the call of `revoke` until another process refuses",
            target: "idle: p50 ≤ 0.5 ms, p99 ≤ 2 ms; at 10 k/s: p99 ≤ 10 ms".into(),
            measured: format!(
                "{:.2} ms, {:.2} ms; {:.2} ms",
                percentile(idle, 0.5) / 1000.0,
                percentile(idle, 0.99) / 1000.0,
                percentile(busy, 0.99) / 1000.0
            ),
            is_met: Some(
                percentile(idle, 0.5) <= 500.0
                    && percentile(idle, 0.99) <= 2000.0
                    && percentile(busy, 0.99) <= 10_000.0,
            ),
            section: "spread",
        },
        Target {
            id: "T10",
            what: "start of a mirror from Redis",
            target: "1 M ≤ 2 s, 10 M ≤ 20 s".into(),
            measured: list(
                [1_000_000, 10_000_000]
                    .map(|n| boot(n).map(|boot| format!("{:.2} s", boot.boot_secs))),
            ),
            is_met: boot(1_000_000)
                .map(|boot| boot.boot_secs <= 2.0)
                .map(|met| met && boot(10_000_000).is_none_or(|boot| boot.boot_secs <= 20.0)),
            section: "memory",
        },
        Target {
            id: "T11",
            what: "refused early: no token, junk, long junk, forged `alg`; without Redis",
            target: "≤ 1300, 2200, 3500, 6000 instructions over the bare service".into(),
            measured: format!(
                "{:.0}, {:.0}, {:.0}, {:.0} instructions; {:.0}, {:.0}, – and {:.0} ns",
                refused[0], refused[1], refused[2], refused[3], early[0], early[1], early[2]
            ),
            is_met: Some(
                refused.iter().zip([1300.0, 2200.0, 3500.0, 6000.0]).all(|(it, most)| *it <= most),
            ),
            section: "process",
        },
    ]);
    targets
}

/// The instructions of a case, as they are written down.
fn count(name: &str) -> f64 {
    let counts = fs::read_to_string(root().join("benches/counts.txt")).unwrap();
    let line = counts.lines().find_map(|line| line.strip_prefix(&format!("{name:<44} ")));
    line.unwrap().trim().parse().unwrap()
}

fn list<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.map(|part| part.unwrap_or_else(|| "not in this run".into())).join(", ")
}

/// Why a target may be missed, and what was tried; printed where it is.
fn note(id: &str) -> &'static str {
    match id {
        "T4" => {
            "Of an HS256 token, about a third is the signature and an eighth the fingerprints: a \
             block of SHA-256 for each of five \
             targets, 45 ns with the processor's own instructions, which the layout of the records \
             fixes (to put the text together \
             first saved nothing, to call the compression by hand 2 %). The rest is base64, one \
             pass over the JSON, and a dozen allocations."
        }
        "T5" => {
            "Both sides share one processor with each other's client here; see `benches/redis.rs` \
             for the store alone."
        }
        "T6" => {
            "What is left is the round trip's share of system calls (direct) or the verdict itself \
             (mirror); with two processors Redis and the clients share one."
        }
        "T8" => {
            "The pause is the third slowest look-up in which the scheduler left the reader its \
             processor: a reader takes no lock, \
             so nothing else can hold it up but the machine. Compare with nobody writing."
        }
        "T9" => {
            "When little is written, all processors sleep between two writes, and waking them is \
             half of it: on the machine on which \
             this was looked into, a bare `XADD` and a bare `XREAD BLOCK` over plain sockets took \
             0.29 ms at 50 per second, and 0.09 ms \
             at 1000 per second. Then the script: 26 commands and their Lua, 0.21 ms with cold \
             caches, 0.07 ms at 1000 per second. The tail is the scheduler's."
        }
        "T10" => {
            "Redis, which reads its index in pages, and the mirror need a processor each, and \
             share them with whatever else runs."
        }
        "T11" => {
            "No part of a refusal stands out: two fields of the answer are 20 ns, its `Rejection` \
             in the extensions as much, the rest \
             is spread thinly. To take over the fields of the request saved two of five \
             allocations and no time, nor \
             did fields that are copied ready-made, or a header decoded on the stack. Junk is \
             compared with what is remembered and \
             looked at character by character, which for a long token, forged or not, is about 200 \
             ns: once because what is not a \
             token at all is another answer (400), once because a token has fewer letters. A \
             forged `alg` stands in a header that \
             must be decoded and parsed to be seen, which is as much again."
        }
        _ => "",
    }
}

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
        let (title, anchor) = place(section);
        _ = writeln!(
            out,
            "| {id} | {what} | {wanted} | {measured} | {met} | [{title}](#{anchor}) |"
        );
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
        "process" => ("in this process", "one-request-in-this-process"),
        "sizes" => ("sizes", "by-the-number-of-revocations"),
        "first" => ("first sight", "first-sight-of-a-token"),
        "direct" => ("direct", "direct-many-at-once"),
        "http" => ("HTTP", "over-http"),
        "spread" => ("propagation", "from-revoke-to-refused"),
        _ => ("memory", "memory-growth-start"),
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
         interface. The last column is \
         what the server's process took of its processor for one request.\n",
    );
    for connections in CONNECTIONS {
        _ = writeln!(
            out,
            "\n| {connections} connection{} | requests/s | share | p50 µs | p99 µs | p99.9 µs | \
             processor µs |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            if connections == 1 { "" } else { "s" }
        );
        for (_, name) in SERVERS {
            let served = r.served(name, connections);
            let [p50, p99, p999] = served.latency.map(short);
            _ = writeln!(
                out,
                "| {name} | {} | {:.2} | {p50} | {p99} | {p999} | {:.1} |",
                short(served.per_second),
                r.share(name, connections),
                served.cpu / 1000.0
            );
        }
    }
}

fn spread_text(out: &mut String, r: &Results) {
    out.push_str(
        "\n## From revoke to refused\n\n![Propagation](performance/propagation.svg)\n\nFrom the \
         call of `revoke` in one process \
         until the mirror of another one refuses the token, in milliseconds.\n\n| asked for, per s \
         | written, per s | looked \
         at | p50 | p90 | p99 | p99.9 | most |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | \
         ---: |\n",
    );
    for spread in &r.spread {
        let at = |share| percentile(&spread.micros, share) / 1000.0;
        _ = writeln!(
            out,
            "| {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            number(spread.rate),
            spread.written,
            spread.micros.len(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0)
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
        "\nThe start of a mirror, until it answers from memory, against Redis on the same \
         machine:\n\n",
    );
    out.push_str(
        "| revocations | started in, s | per s | bytes each |\n| ---: | ---: | ---: | ---: |\n",
    );
    for boot in &r.boot {
        _ = writeln!(
            out,
            "| {} | {:.2} | {} | {:.1} |",
            number(boot.entries),
            boot.boot_secs,
            short(boot.entries as f64 / boot.boot_secs),
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
        "\nA revocation is refused by other processes after {:.2} ms (median; p99 {:.2} ms), takes \
         {:.0} bytes in a mirror, and a million of them are loaded in {:.1} s. Measured on {}: \
         [docs/performance.md](docs/performance.md), `make bench-report`.",
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
