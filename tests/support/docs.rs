//! Writes what was seen into `docs/faults.md`, between marks, with the machine on which it was
//! seen.
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Puts the text between the marks of this name.
pub fn put(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = page.split_once(&begin).expect("a mark");
    let (_, after) = rest.split_once(&end).expect("a mark");
    std::fs::write(path, format!("{before}{begin}{text}{end}{after}")).unwrap();
    let _ = writeln!(std::io::stderr(), "wrote {name} to docs/faults.md");
}

/// The machine on which it was seen, in a sentence.
pub fn seen_on() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": a processor without a name");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let redis = Command::new("redis-server").arg("--version").output().map(|output| output.stdout);
    let redis = String::from_utf8(redis.unwrap_or_default()).unwrap_or_default();
    let redis = redis.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
    format!(
        "Seen on {cores} cores of {}, Linux {}, Redis {redis}, tests built without optimisation, \
         load average {} at the end.\n",
        cpu.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?"),
    )
}
