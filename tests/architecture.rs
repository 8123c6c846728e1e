//! The modules of the crate have levels: a lower one never names a higher one, modules of one level
//! name each other only where a list says so, and a foreign crate is named only by the modules that
//! wrap it. No two types share a name. What the documents say about the modules is there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate, and the level of each.
const LEVELS: &[(&str, u16)] = &[
    ("clock", 0),
    ("config", 0),
    ("error_chain", 0),
    ("samples", 0),
    ("stripes", 0),
    ("store_error", 0),
    ("target", 0),
    ("verified", 0),
    ("revocation", 0),
    ("audit", 1),
    ("recently_revoked", 1),
    ("token", 1),
    ("store", 1),
    ("policy", 2),
    ("mirror", 2),
    ("counters", 3),
    ("metrics", 3),
    ("gate", 3),
    ("revoker", 3),
    ("session", 3),
    ("middleware", 4),
    ("endpoints", 5),
    ("testing", 6),
];

/// Modules of one level, of which the first names the second, and why.
const SAME_LEVEL: &[(&str, &str, &str)] = &[
    ("config", "error_chain", "an error in a setting is shown with its causes"),
    ("store_error", "error_chain", "the log shows the causes of an error of a store"),
    ("target", "store_error", "what a store has kept may be damaged"),
    ("verified", "clock", "a token has points in time"),
    ("verified", "target", "a token knows the targets by which it can be revoked"),
    ("revocation", "store_error", "what a store has kept may be damaged"),
    ("revocation", "clock", "a record has points in time"),
    ("revocation", "target", "a record is about one target"),
    ("revocation", "verified", "a change may come from someone who has the token"),
    ("store", "audit", "one of the audit sinks keeps events in Redis"),
    ("store", "token", "names of foreign keys are made of claims"),
    ("gate", "counters", "the gate counts what becomes of requests"),
    ("metrics", "counters", "they are of requests, too"),
    ("revoker", "metrics", "a process that only writes has some"),
    ("session", "revoker", "a logout is a revocation"),
];

/// Modules whose children have an order: the table in their `mod.rs`, from the lowest level up.
/// None names one that stands after it.
const ORDERED: &[&str] = &["store::redis", "session"];

/// Foreign crates, and the modules that may name them.
const FOREIGN_CRATES: &[(&str, &[&str])] = &[
    ("jsonwebtoken", &["token::jwt"]),
    ("aws_lc_rs", &["token::jwt::curve", "token::jwt::prepared"]),
    ("curve25519_dalek", &["token::jwt::curve"]),
    ("p256", &["token::jwt::curve"]),
    ("p384", &["token::jwt::curve"]),
    ("pkcs1", &["token::jwt"]),
    ("pkcs8", &["token::jwt"]),
    ("sec1", &["token::jwt"]),
    ("spki", &["token::jwt"]),
    ("fred", &["store::redis"]),
    ("hyper_rustls", &["token::jwks::http"]),
    ("hyper_util", &["token::jwks::http"]),
    ("http_body_util", &["token::jwks::http"]),
    ("percent_encoding", &["token::jwks::http", "store::redis"]),
    ("rustls", &["token::jwks::http"]),
    ("rustls_native_certs", &["token::jwks::http"]),
    ("http_body", &["endpoints::endpoint", "endpoints::request", "middleware::ending"]),
    ("tower", &["endpoints::endpoint", "middleware", "token::jwks::http"]),
    ("serde_path_to_error", &["verified"]),
    ("axum", &["middleware::extract", "token::bearer"]),
    ("pin_project_lite", &["middleware", "store::redis::time_limit"]),
    ("rustix", &["clock"]),
    ("humantime", &["audit"]),
    ("metrics", &["metrics::facade"]),
    ("moka", &["session::cache"]),
    ("strsim", &["config"]),
];

/// Modules of which nobody else knows: the core works with any store.
const BACKENDS: &[&str] = &["store::redis", "session"];

/// Where the documentation of the latest version will be.
const DOCS: &str = "https://docs.rs/tower-jwt-revocation/latest/tower_jwt_revocation/";

struct Module {
    /// Such as `store::redis::supervised`.
    path: String,
    /// Without comments and without tests.
    code: String,
}

/// The levels of the children of one module.
struct Plan {
    /// The parent, such as `store::redis`; empty for the crate.
    inside: String,
    /// Each child with its level. `mod` is the parent's own file; without it that file is free.
    levels: Vec<(String, u16)>,
    same_level: &'static [(&'static str, &'static str, &'static str)],
}

/// A module that names another, as children of the parent of a plan.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    to: String,
}

#[test]
fn a_lower_level_never_names_a_higher_one() {
    let modules = modules();
    for plan in plans() {
        for (edge, file) in plan.edges(&modules) {
            let (from, to) = (plan.level(&edge.from), plan.level(&edge.to));
            assert!(
                to <= from,
                "{file}: {} on level {from} names {} on level {to}",
                edge.from,
                edge.to
            );
        }
    }
}

#[test]
fn modules_of_one_level_name_each_other_only_where_the_list_says_so() {
    let modules = modules();
    for plan in plans() {
        let edges = plan.edges(&modules);
        for (edge, file) in &edges {
            let is_listed =
                plan.same_level.iter().any(|(from, to, _)| *from == edge.from && *to == edge.to);
            assert!(
                plan.level(&edge.from) != plan.level(&edge.to) || is_listed,
                "{file}: {} names {}, which is on the same level",
                edge.from,
                edge.to
            );
        }
        for (from, to, _) in plan.same_level {
            let edge = Edge { from: (*from).into(), to: (*to).into() };
            assert!(edges.contains_key(&edge), "{from} may name {to}, and does not");
        }
    }
}

#[test]
fn every_listed_module_is_there() {
    let modules = modules();
    let exists = |path: &str| modules.iter().any(|module| is_in(&module.path, path));
    for plan in plans() {
        for (child, _) in &plan.levels {
            let path = if child == "mod" { plan.inside.clone() } else { join(&plan.inside, child) };
            assert!(exists(&path), "{path} has a level and is not there");
        }
    }
    for (name, paths) in FOREIGN_CRATES {
        for path in *paths {
            let mut inside = modules.iter().filter(|module| is_in(&module.path, path));
            assert!(
                inside.any(|module| names_crate(&module.code, name)),
                "{path} may name {name}, and does not"
            );
        }
    }
    for backend in BACKENDS {
        assert!(exists(backend), "{backend} is not there");
    }
}

#[test]
fn each_foreign_crate_is_named_by_its_modules_alone() {
    for module in modules() {
        for (name, paths) in FOREIGN_CRATES {
            let may_name = paths.iter().any(|path| is_in(&module.path, path));
            assert!(
                may_name || !names_crate(&module.code, name),
                "{} names {name}, which is for {paths:?}",
                module.path
            );
        }
    }
}

#[test]
fn the_core_names_no_backend() {
    let mut found = Vec::new();
    // The suites try stores with real sessions, and clients refresh the tokens of sessions.
    let is_above = |path: &str| is_in(path, "testing") || is_in(path, "endpoints");
    for module in modules().iter().filter(|module| !is_above(&module.path)) {
        for backend in BACKENDS.iter().filter(|backend| !is_in(&module.path, backend)) {
            if module.names().iter().any(|name| is_in(name, backend)) {
                found.push(format!("{} names {backend}", module.path));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A text that is broken over two lines without a backslash carries the indentation of the second.
#[test]
fn texts_hold_no_indentation() {
    let is_indented = |line: &str| {
        let texts = line.split('"').skip(1).step_by(2);
        !line.trim_start().starts_with("//")
            && texts.clone().any(|text| text.trim().contains("   "))
    };
    assert!(is_indented(r#"problem("it is so;      see there")"#));
    assert!(!is_indented(r#"// as "a      b" says"#) && !is_indented(r#"    "it is so; \"#));
    for module in modules() {
        let found: Vec<_> = module.code.lines().filter(|line| is_indented(line)).collect();
        assert!(found.is_empty(), "{}: {}", module.path, found.join("\n"));
    }
}

/// Two files beside each other, and a diff, need no more. A row of a table in the documentation
/// cannot be broken, and a single word, such as a link or a key, neither.
#[test]
fn no_line_of_the_source_is_wider_than_100_columns() {
    assert!(is_too_wide(&format!("    let wide = {} + {};", "x".repeat(45), "y".repeat(45))));
    assert!(is_too_wide(&"word ".repeat(21)));
    assert!(!is_too_wide(&format!("    /// <https://{}>", "x".repeat(90))));
    assert!(!is_too_wide(&format!("    /// | a row | {} |", "x".repeat(90))));
    assert!(!is_too_wide(&"…".repeat(100)), "characters count, not bytes");
    let mut files = Vec::new();
    for folder in ["src", "tests", "examples", "benches", "fuzz/fuzz_targets"] {
        for extension in ["rs", "lua"] {
            collect(&root().join(folder), extension, &mut files);
        }
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lines = (1..).zip(text.lines()).filter(|(_, line)| is_too_wide(line));
        found.extend(lines.map(|(number, _)| format!("{}:{number}", file.display())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn is_too_wide(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches(['/', '!']).trim_start();
    let is_comment = line.trim_start().starts_with("//");
    // What the line begins with, and one word behind it.
    let has_long_word = line.split(' ').any(|word| word.chars().count() > 80);
    let cannot_be_broken = has_long_word || is_comment && text.starts_with('|');
    line.chars().count() > 100 && !cannot_be_broken
}

/// Words that stand for something else than what they say, and the words of the field for it.
const FOREIGN_WORDS: &[(&str, &str)] = &[
    (concat!("jud", "g"), "check, decide or assess"),
    (concat!("stew", "ard"), "maintenance"),
    (concat!("amne", "sia"), "loss of data"),
    (concat!("sei", "z"), "acquire"),
];

#[test]
fn what_the_field_has_a_word_for_has_no_other() {
    let mut files = documents();
    for folder in ["src", "tests", "examples", "benches", "fuzz", "scripts"] {
        for extension in ["rs", "lua", "md", "toml", "sh", "py", "yaml", "yml", "html"] {
            collect(&root().join(folder), extension, &mut files);
        }
    }
    let mut found = Vec::new();
    // What is built stands in such folders, too.
    for file in files.iter().filter(|file| file.iter().all(|part| part != "target")) {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let text = fs::read_to_string(file).unwrap();
        for (number, line) in (0..).zip([name.as_str()].into_iter().chain(text.lines())) {
            for (word, instead) in foreign_words(line) {
                found.push(format!("{name}:{number}: {word}…: say {instead}"));
            }
        }
    }
    assert!(files.len() > 300, "only {} files were found", files.len());
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(foreign_words(concat!("every_use_jud", "ges")).count(), 1);
}

fn foreign_words(line: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let line = line.to_lowercase();
    let is_there = move |start: &str| {
        line.split(|char: char| !char.is_alphabetic()).any(|word| word.starts_with(start))
    };
    FOREIGN_WORDS.iter().copied().filter(move |(start, _)| is_there(start))
}

/// Types that are seen outside of their file.
#[test]
fn no_two_types_share_a_name() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for module in modules_and_programs() {
        for name in types(&module.code) {
            places.entry(name.into()).or_default().push(module.path.clone());
        }
    }
    let mut shared = Vec::new();
    for (name, mut paths) in places {
        // The same type, for different platforms or features.
        paths.dedup();
        if paths.len() > 1 {
            shared.push(format!("{name} is defined in {}", paths.join(", ")));
        }
    }
    assert!(shared.is_empty(), "{}", shared.join("\n"));
}

#[test]
fn the_fail_mode_is_read_in_one_place() {
    for module in modules() {
        let reads = ["FailMode::Open", "FailMode::Closed", "Self::Open", "Self::Closed"];
        let is_policy = module.path == "policy";
        let read = reads
            .iter()
            .find(|read| module.code.contains(**read) && module.code.contains("FailMode"));
        assert!(is_policy || read.is_none(), "{} reads the fail mode", module.path);
    }
}

#[test]
fn the_clock_of_the_system_is_read_in_one_place() {
    for module in modules() {
        assert!(
            module.path == "clock" || !module.code.contains("SystemTime"),
            "{} reads the time",
            module.path
        );
    }
}

/// Otherwise each new major version of fred would be one of this crate.
#[test]
fn types_of_fred_are_public_only_with_their_feature() {
    let mut allowed = 0;
    for module in modules().iter().filter(|module| is_in(&module.path, "store::redis")) {
        for (item, has_feature) in public_items_with_fred(&module.code) {
            assert!(has_feature, "{}: {item} is public, and names a type of fred", module.path);
            allowed += 1;
        }
    }
    assert_eq!(allowed, 3, "the methods that take a configuration, and the re-export");
    let code = "use fred::types::{Config, Value as V};\npub(crate) fn a(c: Config) {}\n\
        pub fn b(\n    c: V,\n) {\n}\npub struct D {\n    pub e: fred::X,\n    f: Config,\n}\n\
        #[cfg(feature = \"fred-config\")]\npub use fred;\npub fn g(c: Configs) {}\n";
    let found = public_items_with_fred(code);
    assert_eq!(
        found.iter().map(|(_, has_feature)| *has_feature).collect::<Vec<_>>(),
        [false, false, true]
    );
}

/// The public items, methods and fields whose signatures name fred or what is imported from it, and
/// whether each has the feature `fred-config`.
fn public_items_with_fred(code: &str) -> Vec<(String, bool)> {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    let words = |text: &str| -> HashSet<String> {
        text.split(|char| !is_part(char)).map(ToOwned::to_owned).collect()
    };
    let mut names = HashSet::from(["fred".to_owned()]);
    for import in code.split("use fred::").skip(1) {
        let (import, _) = import.split_once(';').unwrap();
        names.extend(words(import).into_iter().filter(|word| word.starts_with(char::is_uppercase)));
    }
    let mut found = Vec::new();
    let mut before = "";
    for (at, line) in code.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line.trim()))
    }) {
        if line.starts_with("pub ") {
            let rest = &code[at..];
            let is_field = !line.contains(" fn ") && line.ends_with(',');
            let end = rest.find(if is_field { "," } else { "{" }).unwrap_or(rest.len());
            let end = rest.find(';').map_or(end, |other| end.min(other));
            if !words(&rest[..end]).is_disjoint(&names) {
                found.push((line.to_owned(), before.contains("feature = \"fred-config\"")));
            }
        }
        before = line;
    }
    found
}

/// A default is a private constant; the documentation of the method that changes it says the value.
#[test]
fn the_documentation_of_a_setting_says_its_default() {
    let sources = sources();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (path, text) in &sources {
        for (docs, name, value) in constants(text) {
            let Some(method) = docs.split("Default of [`").nth(1) else { continue };
            let method = method.split('`').next().unwrap().rsplit("::").next().unwrap();
            let Some(words) = in_words(&value) else { continue };
            seen += 1;
            let is_said = sources.iter().any(|(other, text)| {
                is_in(other, path.split("::").next().unwrap())
                    && docs_of_method(text, method)
                        .any(|docs| words.iter().any(|word| docs.contains(word)))
            });
            if !is_said {
                wrong.push(format!("{path}: {method} does not say {name}: {words:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 20, "only {seen} defaults were found");
    assert!(in_words("Duration::from_secs(15 * 60)").unwrap().contains(&"15 minutes".into()));
    assert!(in_words("NonZeroUsize::new(65_536).unwrap()").unwrap().contains(&"65 536".into()));
}

/// Tables of modules are for those who change the crate, and would stand on docs.rs otherwise.
#[test]
fn tables_of_private_modules_are_plain_comments() {
    let mut files = Vec::new();
    collect(&root().join("src"), "rs", &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let table = "//! | module |";
        if file.components().any(|part| part.as_os_str() == "bin") {
            continue;
        }
        assert!(!text.contains(table), "{} shows its modules on docs.rs", file.display());
    }
}

/// The files of the glossary are there, and each defines the types that the row names.
#[test]
fn the_glossary_names_what_is_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let glossary = text.split("\n## Glossary\n").nth(1).unwrap();
    let glossary = glossary.split("\n## ").next().unwrap();
    let mut words = Vec::new();
    for row in glossary.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [word, _, place] = cells[..] else { panic!("a row of three cells: {row}") };
        words.push(word.to_lowercase());
        let (defined, file) = match place.split_once(" in ") {
            Some((name, file)) => (Some(name.trim_matches('`')), file.trim_matches('`')),
            None => (None, place.trim_matches('`')),
        };
        let code = fs::read_to_string(root().join("src").join(file))
            .unwrap_or_else(|error| panic!("{word}: {file}: {error}"));
        let is_there = defined.is_none_or(|name| types(&strip(&code)).contains(&name));
        assert!(is_there, "{word}: {file} does not define {defined:?}");
    }
    assert!(words.len() > 20, "only {} words were found", words.len());
    assert!(words.is_sorted(), "the glossary is not in the order of the alphabet");
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut seen = 0;
    let repository = env!("CARGO_PKG_REPOSITORY");
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let name = document.display();
            seen += 1;
            if let Some(page) = link.strip_prefix(DOCS) {
                assert!(is_page(page), "{name} links to {page}, which docs.rs will not have");
            } else if link.contains("/tower-jwt-revocation/blob/") {
                // What is not in the package is linked by the address of the repository.
                let file = link.strip_prefix(&format!("{repository}/blob/main/"));
                let file = file.unwrap_or_else(|| panic!("{name}: {link} is not in {repository}"));
                assert!(root().join(file).exists(), "{name} links to {file}, which is not there");
            } else if !link.contains("://") {
                let (path, heading) = link.split_once('#').unwrap_or((link, ""));
                let target =
                    if path.is_empty() { document.clone() } else { document.with_file_name(path) };
                assert!(target.exists(), "{name} links to {path}, which is not there");
                let has_it = heading.is_empty()
                    || headings(&fs::read_to_string(target).unwrap()).contains(heading);
                assert!(has_it, "{name} links to a heading {link}, which is not there");
            }
        }
        for name in names_that_link(&text) {
            let definition = format!("\n[`{name}`]: ");
            assert!(
                text.contains(&definition),
                "{} does not say where {name} leads",
                document.display()
            );
        }
    }
    assert!(seen > 50, "only {seen} links were found");
}

/// rustdoc hides lines that begin with `# `; GitHub and crates.io do not, and whoever copies them
/// has code that is none.
#[test]
fn what_the_documents_show_can_be_copied() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for code in text.split("```").skip(1).step_by(2).filter(|code| code.starts_with("rust")) {
            let hidden = code.lines().find(|line| line.starts_with("# "));
            assert_eq!(hidden, None, "in {}", document.display());
        }
    }
}

/// A rule that finds nothing holds nothing: the rules are tried on code that breaks them.
#[test]
fn the_rules_see_what_they_are_about() {
    let code = "use crate::gate::Gate;\nuse crate::{clock::Clock, store::{self, Standing}};\nfn \
        f() { fred::x(); super::super::policy::decide(self::x()); }";
    let module = Module { path: "store::redis::wire".into(), code: code.into() };
    assert_eq!(
        module.names(),
        [
            "gate::Gate",
            "clock::Clock",
            "store",
            "store::Standing",
            "store::policy::decide",
            "store::redis::wire::x"
        ]
    );
    let edges = Plan::of_crate().edges(&[module]);
    let edges: Vec<_> = edges.keys().map(|edge| (edge.from.as_str(), edge.to.as_str())).collect();
    assert_eq!(edges, [("store", "clock"), ("store", "gate")]);
    let table = "//! | `no` |\n// | level | module |\n// | --- | --- |\n// | low | `redis` | \
                 `x` |\n// | | `mod` | y |\n";
    let inner = Plan::of_table("store", table);
    assert_eq!(inner.levels, [("redis".into(), 0), ("mod".into(), 1)]);
    let code = "use super::{Standing, redis::Wire};".to_owned();
    let edges = inner.edges(&[Module { path: "store::redis".into(), code }]);
    let edges: Vec<_> = edges.keys().map(|edge| (edge.from.as_str(), edge.to.as_str())).collect();
    assert_eq!(edges, [("redis", "mod")]);
    assert_eq!(
        types(
            "pub struct A;\n    pub(in crate::x) enum B<T> {}\nstruct C;\npub const trait D {}\n"
        ),
        ["A", "B", "D"]
    );
    let code = "use crate::store::{redis::RedisStore};".to_owned();
    assert_eq!(Module { path: "mirror".into(), code }.names(), ["store::redis::RedisStore"]);
    assert!(names_crate("fn f() { fred::x(); }", "fred"));
    assert!(!names_crate("use alfred::x; let fredx = fred;", "fred"));
    assert!(Plan::of_crate().level("middleware") > Plan::of_crate().level("gate"));
    assert_eq!(strip("a // b\nc\n#[cfg(test)]\nmod tests {\n x\n}\n"), "a \nc\n");
    assert!(modules().iter().any(|module| module.path == "middleware::layer"));
    assert!(modules().iter().any(|module| names_crate(&module.code, "tower")));
    let text = "# A `b` c, d\n[x](y#z) ![p](q.svg) [`N`]\n```sh\n# no heading [x](no)\n```\n[`N`]: \
         https://n\n";
    assert_eq!(links(text).collect::<Vec<_>>(), ["y#z", "q.svg", "https://n"]);
    assert_eq!(names_that_link(text).collect::<Vec<_>>(), ["N"]);
    assert_eq!(headings(text), HashSet::from(["a-b-c-d".into()]));
    for page in [
        "index.html",
        "mirror/struct.Mirror.html",
        "policy/enum.FailMode.html",
        "store/redis/foreign/index.html",
    ] {
        assert!(is_page(page), "{page}");
    }
    // No such item, of another kind, a private module, a name that is only the beginning of one,
    // and a name that only leads to the page of another module.
    for page in [
        "policy/struct.Nothing.html",
        "policy/struct.FailMode.html",
        "config/index.html",
        "mirror/struct.Mirr.html",
        "enum.FailMode.html",
    ] {
        assert!(!is_page(page), "{page}");
    }
}

fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() { child.into() } else { format!("{parent}::{child}") }
}

fn parent(path: &str) -> &str {
    path.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn plans() -> Vec<Plan> {
    let ordered = ORDERED.iter().map(|inside| {
        let table = root().join("src").join(inside.replace("::", "/")).join("mod.rs");
        Plan::of_table(inside, &fs::read_to_string(table).unwrap())
    });
    [Plan::of_crate()].into_iter().chain(ordered).collect()
}

impl Plan {
    fn of_crate() -> Self {
        let levels = LEVELS.iter().map(|(module, level)| ((*module).into(), *level)).collect();
        Self { inside: String::new(), levels, same_level: SAME_LEVEL }
    }

    /// The first name in backticks of each row of a table in comments.
    fn of_table(inside: &str, code: &str) -> Self {
        let rows = code.lines().filter_map(|line| line.strip_prefix("// | "));
        let names = rows.filter_map(|row| row.split('`').nth(1));
        let levels: Vec<_> = names.zip(0..).map(|(name, level)| (name.into(), level)).collect();
        assert!(levels.len() > 1, "the table of {inside} was not found");
        Self { inside: inside.into(), levels, same_level: &[] }
    }

    fn level(&self, child: &str) -> u16 {
        let found = self.levels.iter().find(|(known, _)| *known == child);
        let Some((_, level)) = found else {
            panic!("{} has no level; add it to a plan", join(&self.inside, child))
        };
        *level
    }

    /// The child to which a path inside of the parent belongs. What is not a module is the parent's
    /// own.
    fn child<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(&*self.inside)?;
        let rest = if self.inside.is_empty() { rest } else { rest.strip_prefix("::")? };
        let child = rest.split("::").next().unwrap();
        let is_own = self.levels.iter().any(|(known, _)| *known == "mod")
            && !self.levels.iter().any(|(known, _)| *known == child);
        Some(if is_own { "mod" } else { child })
    }

    /// Which children name which others, each with a file in which that is so.
    fn edges(&self, modules: &[Module]) -> BTreeMap<Edge, String> {
        let mut edges = BTreeMap::new();
        for module in modules {
            let is_parent = module.path == self.inside;
            let has_level = self.levels.iter().any(|(known, _)| *known == "mod");
            let from =
                if is_parent { has_level.then_some("mod") } else { self.child(&module.path) };
            let Some(from) = from else { continue };
            // A module without a level is an error, also if it names nothing.
            self.level(from);
            for name in module.names() {
                if let Some(to) = self.child(&name).filter(|to| *to != from) {
                    let edge = Edge { from: from.into(), to: to.into() };
                    edges.insert(edge, module.path.clone());
                }
            }
        }
        edges
    }
}

impl Module {
    /// Every path in the code that begins with `crate`, `super` or `self`, from the crate on.
    /// `crate::Name`, a re-export, is no module, so it has no level and is not allowed.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let starts = [("crate::", ""), ("super::", parent(&self.path)), ("self::", &*self.path)];
        let mut found: Vec<_> = starts
            .iter()
            .flat_map(|(word, base)| {
                self.code.match_indices(word).map(move |(at, _)| (at, at + word.len(), *base))
            })
            .collect();
        found.sort_unstable();
        for (at, end, base) in found {
            let before = self.code[..at].chars().next_back();
            if before.is_none_or(|char| !char.is_alphanumeric() && char != '_' && char != ':') {
                expand(&self.code[end..], base, &mut names);
            }
        }
        names
    }
}

/// The paths of a use tree that begins here.
fn expand(tree: &str, base: &str, names: &mut Vec<String>) {
    let tree = tree.trim_start();
    if let Some(list) = tree.strip_prefix('{') {
        let mut depth = 0;
        let mut start = true;
        for (at, char) in list.char_indices() {
            match char {
                '{' if !start => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                _ if start && !char.is_whitespace() => {
                    expand(&list[at..], base, names);
                    start = false;
                }
                _ => {}
            }
        }
        return;
    }
    let name = if tree.starts_with('*') { "*" } else { word(tree) };
    let path = match name {
        "" => return,
        "self" => base.to_owned(),
        "super" => parent(base).to_owned(),
        name => join(base, name),
    };
    match tree[name.len()..].strip_prefix("::") {
        Some(rest) if rest.starts_with('{') || rest.starts_with('*') || !word(rest).is_empty() => {
            expand(rest, &path, names);
        }
        _ => names.push(path),
    }
}

/// The types that the code defines and that are seen outside of their file.
fn types(code: &str) -> Vec<&str> {
    let mut types = Vec::new();
    for line in code.lines() {
        let Some(rest) = line.trim_start().strip_prefix("pub") else { continue };
        let rest = match rest.strip_prefix('(') {
            Some(scope) => scope.split_once(')').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let mut words = rest.split_whitespace().filter(|word| !["unsafe", "const"].contains(word));
        if let Some("struct" | "enum" | "union" | "trait" | "type") = words.next() {
            types.extend(words.next().map(word));
        }
    }
    types
}

fn word(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(text.len());
    &text[..end]
}

fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, found)| {
        let before = code[..at].chars().next_back();
        let is_start =
            before.is_none_or(|char| !char.is_alphanumeric() && char != '_' && char != ':');
        let after = &code[at + found.len()..];
        is_start
            && (after.starts_with("::") || (after.starts_with(';') && code[..at].ends_with("use ")))
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The modules of the library, for rules about levels.
fn modules() -> Vec<Module> {
    // The crate root re-exports from every level, guides are prose, and programs are crates of
    // their own, which see what is public.
    let is_apart =
        |path: &str| path == "lib" || ["guide", "bin::"].iter().any(|at| path.starts_with(at));
    modules_and_programs().into_iter().filter(|module| !is_apart(&module.path)).collect()
}

fn modules_and_programs() -> Vec<Module> {
    let source = root().join("src");
    let mut files = Vec::new();
    collect(&source, "rs", &mut files);
    let mut modules = Vec::new();
    for file in files {
        let path = file.strip_prefix(&source).unwrap().with_extension("");
        let path = path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("::");
        let path = path.strip_suffix("::mod").unwrap_or(&path).to_owned();
        let is_test = path.split("::").any(|part| part == "tests" || part.ends_with("_tests"));
        if is_test {
            continue;
        }
        modules.push(Module { path, code: strip(&fs::read_to_string(file).unwrap()) });
    }
    modules
}

/// Every module that is no test, as it is written, up to its tests.
fn sources() -> Vec<(String, String)> {
    let source = root().join("src");
    modules()
        .into_iter()
        .map(|module| {
            let path = source.join(module.path.replace("::", "/"));
            let files = [path.with_extension("rs"), path.join("mod.rs")];
            let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap();
            let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
            (module.path, text[..end].to_owned())
        })
        .collect()
}

/// The documented constants: documentation, name, value.
fn constants(text: &str) -> impl Iterator<Item = (String, String, String)> {
    let mut docs = String::new();
    text.lines().filter_map(move |line| {
        if let Some(doc) = line.trim_start().strip_prefix("///") {
            docs.push_str(doc);
            return None;
        }
        let docs = std::mem::take(&mut docs);
        let (name, rest) = line.split_once("const ")?.1.split_once(": ")?;
        let (_, value) = rest.split_once(" = ")?;
        Some((docs, name.to_owned(), value.trim_end_matches(';').to_owned()))
    })
}

/// The documentation of each method of this name, in one line.
fn docs_of_method(text: &str, method: &str) -> impl Iterator<Item = String> {
    let starts = [format!("pub fn {method}("), format!("pub fn {method}<")];
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    let is_start = |line: &str| starts.iter().any(|start| line.starts_with(start));
    let at: Vec<_> =
        (0..).zip(&lines).filter(|(_, line)| is_start(line)).map(|(at, _)| at).collect();
    let methods: Vec<_> = at
        .into_iter()
        .map(|at| {
            let above = lines.iter().take(at).rev();
            let mut docs: Vec<_> = above
                .take_while(|line| line.starts_with("///") || line.starts_with("#["))
                .filter_map(|line| line.strip_prefix("///"))
                .collect();
            docs.reverse();
            docs.concat()
        })
        .collect();
    methods.into_iter()
}

/// How the documentation may write the value of a constant. None if it is not a number, a duration
/// or a text.
fn in_words(value: &str) -> Option<Vec<String>> {
    const HOUR: u64 = 60 * 60;
    if let Some(text) = value.strip_prefix('"') {
        return Some(vec![format!("`{}`", text.trim_end_matches('"'))]);
    }
    let inner = value.split_once('(').map_or(value, |(_, rest)| rest.split(')').next().unwrap());
    let terms: Option<Vec<Vec<u64>>> = inner
        .split(" + ")
        .map(|term| term.split(" * ").map(|n| n.replace('_', "").parse().ok()).collect())
        .collect();
    let number: u64 = terms?.iter().map(|term| term.iter().product::<u64>()).sum();
    let units: &[(u64, &str)] = if value.starts_with("Duration::from_millis") {
        &[(1, "ms"), (1000, "s")]
    } else if value.starts_with("Duration::from_secs")
        && number > HOUR
        && !number.is_multiple_of(HOUR)
    {
        return Some(vec![format!("{} h and {} minutes", number / HOUR, number % HOUR / 60)]);
    } else if value.starts_with("Duration::from_secs") {
        &[(1, "s"), (60, "min"), (60, "minutes"), (HOUR, "h"), (HOUR, "hours"), (24 * HOUR, "days")]
    } else {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
        let groups: Vec<_> = groups.iter().map(|group| str::from_utf8(group).unwrap()).collect();
        let mut words = vec![groups.join(" "), digits];
        for (size, unit) in [(1 << 10, "KiB"), (1 << 20, "MiB"), (1_000_000, "million")] {
            if number >= size && number.is_multiple_of(size) {
                words.push(format!("{} {unit}", number / size));
            }
        }
        return Some(words);
    };
    let fitting = units.iter().filter(|(size, _)| number.is_multiple_of(*size));
    Some(fitting.map(|(size, unit)| format!("{} {unit}", number / size)).collect())
}

fn collect(folder: &Path, wanted: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("target") && folder.join("Cargo.toml").exists() {
            // What cargo has built. Its mark is not there where the folder was made by others.
        } else if path.is_dir() {
            collect(&path, wanted, files);
        } else if path.extension().is_some_and(|extension| extension == wanted) {
            files.push(path);
        }
    }
}

/// The code without comments and without the tests at its end.
fn strip(source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    let lines =
        source[..end].lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.flat_map(|line| [line, "\n"]).collect()
}

// === Documents ===

/// The Markdown files of this package, in the root and in the folders that people read.
fn documents() -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for folder in ["docs", "examples"] {
        collect(&root().join(folder), "md", &mut documents);
    }
    let top = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    documents
        .extend(top.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    documents
}

/// What is not between fences.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2)
}

/// Where links, images and definitions of links lead.
fn links(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|prose| {
        let inline =
            prose.match_indices("](").map(|(at, _)| prose[at + 2..].split(')').next().unwrap());
        let defined =
            prose.lines().filter_map(|line| Some(line.strip_prefix('[')?.split_once("]: ")?.1));
        inline.chain(defined)
    })
}

/// Names in brackets and backticks that stand for a link whose definition is elsewhere.
fn names_that_link(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|prose| prose.split("[`").skip(1)).filter_map(|rest| {
        let (name, after) = rest.split_once("`]")?;
        (!after.starts_with(['(', ':'])).then_some(name)
    })
}

/// The anchors of the headings, as GitHub makes them.
fn headings(text: &str) -> HashSet<String> {
    let titles = prose(text).flat_map(str::lines).filter(|line| line.starts_with('#'));
    let anchor = |title: &str| -> String {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
        kept.map(|char| if char == ' ' { '-' } else { char }).collect()
    };
    titles.map(anchor).collect()
}

/// Whether rustdoc makes this page: the modules are public, and the last one has an item of this
/// kind and name.
fn is_page(page: &str) -> bool {
    let (parents, file) = page.rsplit_once('/').unwrap_or(("", page));
    let mut folder = root().join("src");
    let mut code = fs::read_to_string(folder.join("lib.rs")).unwrap();
    for module in parents.split('/').filter(|module| !module.is_empty()) {
        if !code.contains(&format!("pub mod {module};")) {
            return false;
        }
        let files = [folder.join(module).with_extension("rs"), folder.join(module).join("mod.rs")];
        code = strip(&files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap());
        folder.push(module);
    }
    let Some((kind, name)) = file.strip_suffix(".html").and_then(|item| item.split_once('.'))
    else {
        return file == "index.html";
    };
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    let leads_elsewhere = code.split("pub use ").skip(1).any(|rest| {
        let names = rest.split(';').next().unwrap();
        let module = word(names.strip_prefix("self::").unwrap_or(names));
        names.split(|char| !is_part(char)).any(|word| word == name)
            && code.contains(&format!("pub mod {module};"))
    });
    if leads_elsewhere {
        return false;
    }
    let is_word = |word: &str| word == name;
    let is_named = code.split(|char: char| !char.is_alphanumeric() && char != '_').any(is_word);
    let defined = format!("pub {kind} {name}");
    is_named
        && modules()
            .iter()
            .any(|module| module.code.split(&defined).skip(1).any(|rest| word(rest).is_empty()))
}
