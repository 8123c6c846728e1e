//! The house has floors: a lower one never names a higher one, and a foreign crate is named only
//! behind its door. What is written about the house leads to rooms that exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of each floor, by the first segments of their paths under `src`. The longest match
/// counts.
const FLOORS: &[(&str, u8)] = &[
    ("clock", 0),
    ("config", 0),
    ("error_chain", 0),
    ("revocation", 0),
    ("verified", 0),
    ("audit", 1),
    ("token", 1),
    ("store", 1),
    ("policy", 2),
    ("mirror", 2),
    ("gate", 3),
    ("revoker", 3),
    ("session", 3),
    ("middleware", 4),
    ("endpoint", 5),
];

/// Foreign crates with one door: the rooms that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("jsonwebtoken", &["token::jwt"]),
    ("aws_lc_rs", &["token::jwt::curve"]),
    ("curve25519_dalek", &["token::jwt::curve"]),
    ("p256", &["token::jwt::curve"]),
    ("p384", &["token::jwt::curve"]),
    ("pkcs1", &["token::jwt::der"]),
    ("pkcs8", &["token::jwt::der"]),
    ("sec1", &["token::jwt::der"]),
    ("fred", &["store::redis"]),
    ("hyper_rustls", &["token::jwks::http"]),
    ("hyper_util", &["token::jwks::http"]),
    ("http_body_util", &["token::jwks::http"]),
    ("percent_encoding", &["token::jwks::http", "store::redis"]),
    ("rustls", &["token::jwks::http"]),
    ("rustls_native_certs", &["token::jwks::http"]),
    ("http_body", &["middleware::ending"]),
    ("tower", &["middleware", "token::jwks::http"]),
    ("axum_core", &["middleware::extract"]),
    ("pin_project_lite", &["middleware"]),
    ("rustix", &["clock"]),
    ("humantime", &["audit"]),
    ("moka", &["session::cache"]),
    ("strsim", &["config"]),
];

/// The files of `session`, from the bottom up: none names one that stands after it.
const SESSION: &[&str] = &[
    "calls",
    "token",
    "documents",
    "family",
    "list",
    "grant",
    "login",
    "token_kind",
    "index",
    "families",
    "sessions",
    "sign_in",
    "devices",
    "cache",
];

/// Where the documentation of the latest version will be.
const DOCS: &str = "https://docs.rs/tower-jwt-revocation/latest/tower_jwt_revocation/";

struct Room {
    /// Such as `store::redis::supervised`.
    path: String,
    /// Without comments and without tests.
    code: String,
}

#[test]
fn a_lower_floor_never_names_a_higher_one() {
    let rooms = rooms();
    for room in &rooms {
        let floor = floor(&room.path)
            .unwrap_or_else(|| panic!("{} is on no floor; add it to FLOORS", room.path));
        for named in named_rooms(&room.code) {
            let Some(other) = self::floor(named) else {
                panic!("{} names {named}, which is on no floor", room.path)
            };
            assert!(
                other <= floor,
                "{} on floor {floor} names {named} on floor {other}",
                room.path
            );
        }
    }
}

#[test]
fn each_foreign_crate_has_one_door() {
    for room in rooms() {
        for (name, doors) in DOORS {
            let is_door = doors.iter().any(|door| is_in(&room.path, door));
            assert!(
                is_door || !names_crate(&room.code, name),
                "{} names {name}; its doors are {doors:?}",
                room.path
            );
        }
    }
}

#[test]
fn the_fail_mode_is_read_in_one_place() {
    for room in rooms() {
        let reads = ["FailMode::Open", "FailMode::Closed", "Self::Open", "Self::Closed"];
        let is_policy = room.path == "policy";
        let read =
            reads.iter().find(|read| room.code.contains(**read) && room.code.contains("FailMode"));
        assert!(is_policy || read.is_none(), "{} reads the fail mode", room.path);
    }
}

#[test]
fn the_clock_of_the_system_is_read_in_one_place() {
    for room in rooms() {
        assert!(
            room.path == "clock" || !room.code.contains("SystemTime"),
            "{} reads the time",
            room.path
        );
    }
}

/// The order of the modules of the Redis store is the table in its `mod.rs`. Each names only
/// modules above it, so the `use` lines go one way.
#[test]
fn modules_of_the_redis_store_name_only_those_above_them_in_the_table() {
    let table = fs::read_to_string(root().join("src/store/redis/mod.rs")).unwrap();
    let order: Vec<_> = table
        .lines()
        .filter_map(|line| line.strip_prefix("// | "))
        .filter_map(|row| row.split('|').nth(1)?.trim().strip_prefix('`')?.strip_suffix('`'))
        .collect();
    let place = |name: &str| order.iter().position(|module| *module == name);
    let mut edges = 0;
    for room in rooms() {
        let Some(path) = room.path.strip_prefix("store::redis::") else { continue };
        let from = word(path);
        let place_of = |name| place(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        let is_below = place_of(from);
        for named in redis_modules_named_in(path, &room.code).filter(|named| *named != from) {
            assert!(place_of(named) < is_below, "{path} names {named}, which is below it");
            edges += 1;
        }
    }
    assert!(edges > 100, "only {edges} edges were found");
    for module in order {
        let mut paths = rooms().into_iter().map(|room| room.path);
        let path = format!("store::redis::{module}");
        assert!(paths.any(|known| is_in(&known, &path)), "{path} is in the table, and not there");
    }
    // On code that breaks the rule.
    let code = "use super::super::b::C;\nfn f() { crate::store::redis::d::e(); self::f::g() }";
    assert_eq!(redis_modules_named_in("a::x", code).collect::<Vec<_>>(), ["b", "d"]);
    assert_eq!(redis_modules_named_in("a", "use super::b::C;").collect::<Vec<_>>(), ["b"]);
}

/// The direct children of `store::redis` that the code of `path`, a path below it, names.
fn redis_modules_named_in<'c>(path: &str, code: &'c str) -> impl Iterator<Item = &'c str> {
    let parent = "super::".repeat(path.split("::").count());
    let starts = [parent, "crate::store::redis::".to_owned()];
    starts.into_iter().flat_map(move |start| {
        let found: Vec<_> = code.match_indices(&start).map(|(at, _)| at).collect();
        found.into_iter().filter_map(move |at| {
            let is_whole = !code[..at].ends_with("::");
            let name = word(&code[at + start.len()..]);
            (is_whole && name != "super").then_some(name)
        })
    })
}

/// Otherwise each new major version of fred would be one of this crate.
#[test]
fn types_of_fred_are_public_only_with_their_feature() {
    let mut allowed = 0;
    for room in rooms().iter().filter(|room| is_in(&room.path, "store::redis")) {
        for (item, has_feature) in public_items_with_fred(&room.code) {
            assert!(has_feature, "{}: {item} is public, and names a type of fred", room.path);
            allowed += 1;
        }
    }
    assert_eq!(allowed, 2, "the method that takes a configuration, and the re-export");
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
                found.push((line.to_owned(), before == "#[cfg(feature = \"fred-config\")]"));
            }
        }
        before = line;
    }
    found
}

#[test]
fn a_file_of_session_names_only_those_before_it() {
    let place = |name: &str| SESSION.iter().position(|file| *file == name);
    let mut named = 0;
    for room in rooms() {
        let Some(file) = room.path.strip_prefix("session::") else { continue };
        let own = place(file).unwrap_or_else(|| panic!("{file} is not in SESSION; add it"));
        assert!(!room.code.contains("crate::session"), "{file} names the whole of session");
        for (at, found) in room.code.match_indices("super::") {
            let other = word(&room.code[at + found.len()..]);
            named += 1;
            assert!(
                place(other).is_some_and(|other| other < own),
                "{file} names `super::{other}`, which is not before it"
            );
        }
    }
    assert!(named > 20, "only {named} edges were found");
}

/// They are for those who change the crate, and would stand on docs.rs otherwise.
#[test]
fn tables_of_rooms_are_plain_comments() {
    let mut files = Vec::new();
    collect(&root().join("src"), "rs", &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("//! | room |"), "{} shows its rooms on docs.rs", file.display());
    }
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let name = document.display();
            seen += 1;
            if let Some(page) = link.strip_prefix(DOCS) {
                assert!(is_page(page), "{name} links to {page}, which docs.rs will not have");
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
        f() { fred::x(); }";
    assert_eq!(named_rooms(code), ["gate", "clock", "store"]);
    assert!(names_crate(code, "fred"));
    assert!(!names_crate("use alfred::x; let fredx = fred;", "fred"));
    assert!(floor("middleware::layer") > floor("gate"));
    assert_eq!(strip("a // b\nc\n#[cfg(test)]\nmod tests {\n x\n}\n"), "a \nc\n");
    assert!(rooms().iter().any(|room| room.path == "middleware::layer"));
    assert!(rooms().iter().any(|room| names_crate(&room.code, "tower")));
    let text = "# A `b` c, d\n[x](y#z) ![p](q.svg) [`N`]\n```sh\n# no heading [x](no)\n```\n[`N`]: \
         https://n\n";
    assert_eq!(links(text).collect::<Vec<_>>(), ["y#z", "q.svg", "https://n"]);
    assert_eq!(names_that_link(text).collect::<Vec<_>>(), ["N"]);
    assert_eq!(headings(text), HashSet::from(["a-b-c-d".into()]));
    for page in [
        "index.html",
        "mirror/struct.Mirror.html",
        "enum.FailMode.html",
        "store/redis/foreign/index.html",
    ] {
        assert!(is_page(page), "{page}");
    }
    // No such item, of another kind, a private module, and a name that is only the beginning of
    // one.
    for page in
        ["struct.Nothing.html", "struct.FailMode.html", "clock/index.html", "struct.JwtRevo.html"]
    {
        assert!(!is_page(page), "{page}");
    }
}

fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn floor(path: &str) -> Option<u8> {
    FLOORS.iter().find(|(room, _)| is_in(path, room)).map(|(_, floor)| *floor)
}

/// Every `crate::room` in the code; `crate::Name`, a re-export, is resolved by nobody and therefore
/// not allowed.
fn named_rooms(code: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (_, rest) in
        code.match_indices("crate::").map(|(at, found)| (at, &code[at + found.len()..]))
    {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, char) in list.char_indices() {
                match char {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    _ if start && !char.is_whitespace() => {
                        named.push(word(&list[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            named.push(word(rest));
        }
    }
    named
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

fn rooms() -> Vec<Room> {
    let source = root().join("src");
    let mut files = Vec::new();
    collect(&source, "rs", &mut files);
    let mut rooms = Vec::new();
    for file in files {
        let path = file.strip_prefix(&source).unwrap().with_extension("");
        let path = path.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("::");
        let path = path.strip_suffix("::mod").unwrap_or(&path).to_owned();
        let is_test = path.ends_with("tests") || path.ends_with("_tests");
        // The front door re-exports from every floor, and guides are prose.
        if path == "lib" || path.starts_with("guide") || is_test {
            continue;
        }
        rooms.push(Room { path, code: strip(&fs::read_to_string(file).unwrap()) });
    }
    rooms
}

fn collect(folder: &Path, wanted: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
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
    let (modules, file) = page.rsplit_once('/').unwrap_or(("", page));
    let mut folder = root().join("src");
    let mut code = fs::read_to_string(folder.join("lib.rs")).unwrap();
    for module in modules.split('/').filter(|module| !module.is_empty()) {
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
    let is_word = |word: &str| word == name;
    let is_named = code.split(|char: char| !char.is_alphanumeric() && char != '_').any(is_word);
    let defined = format!("pub {kind} {name}");
    is_named
        && rooms()
            .iter()
            .any(|room| room.code.split(&defined).skip(1).any(|rest| word(rest).is_empty()))
}
