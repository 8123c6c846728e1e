//! The house has floors: a lower one never names a higher one, and a foreign crate is named only behind its door.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of each floor, by the first segments of their paths under `src`. The longest match counts.
const FLOORS: &[(&str, u8)] = &[
    ("clock", 0),
    ("config", 0),
    ("revocation", 0),
    ("verified", 0),
    ("token", 1),
    ("store", 1),
    ("policy", 2),
    ("mirror", 2),
    ("audit", 2),
    ("gate", 3),
    ("revoker", 3),
    ("session", 3),
    ("middleware", 4),
    ("endpoint", 5),
];

/// Foreign crates with one door: the rooms that may name them.
const DOORS: &[(&str, &[&str])] = &[
    ("jsonwebtoken", &["token::jwt", "token::issue"]),
    ("fred", &["store::redis"]),
    ("hyper", &["token::jwks::http"]),
    ("hyper_util", &["token::jwks::http"]),
    ("http_body_util", &["token::jwks::http"]),
    ("tokio_rustls", &["token::jwks::http"]),
    ("rustls_native_certs", &["token::jwks::http"]),
    ("http_body", &["middleware::ending"]),
    ("tower", &["middleware"]),
    ("axum_core", &["middleware::extract"]),
    ("pin_project_lite", &["middleware"]),
    ("rustix", &["clock"]),
];

struct Room {
    /// Such as `store::redis::guard`.
    path: String,
    /// Without comments and without tests.
    code: String,
}

#[test]
fn a_lower_floor_never_names_a_higher_one() {
    let rooms = rooms();
    for room in &rooms {
        let floor =
            floor(&room.path).unwrap_or_else(|| panic!("{} is on no floor; add it to FLOORS", room.path));
        for named in named_rooms(&room.code) {
            let Some(other) = self::floor(named) else {
                panic!("{} names {named}, which is on no floor", room.path)
            };
            assert!(other <= floor, "{} on floor {floor} names {named} on floor {other}", room.path);
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
        let read = reads.iter().find(|read| room.code.contains(**read) && room.code.contains("FailMode"));
        assert!(is_policy || read.is_none(), "{} reads the fail mode", room.path);
    }
}

#[test]
fn the_clock_of_the_system_is_read_in_one_place() {
    for room in rooms() {
        assert!(room.path == "clock" || !room.code.contains("SystemTime"), "{} reads the time", room.path);
    }
}

/// A rule that finds nothing holds nothing: the rules are tried on code that breaks them.
#[test]
fn the_rules_see_what_they_are_about() {
    let code =
        "use crate::gate::Gate;\nuse crate::{clock::Clock, store::{self, Standing}};\nfn f() { fred::x(); }";
    assert_eq!(named_rooms(code), ["gate", "clock", "store"]);
    assert!(names_crate(code, "fred"));
    assert!(!names_crate("use alfred::x; let fredx = fred;", "fred"));
    assert!(floor("middleware::layer") > floor("gate"));
    assert_eq!(strip("a // b\nc\n#[cfg(test)]\nmod tests {\n x\n}\n"), "a \nc\n");
    assert!(rooms().iter().any(|room| room.path == "middleware::layer"));
    assert!(rooms().iter().any(|room| names_crate(&room.code, "tower")));
}

fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn floor(path: &str) -> Option<u8> {
    FLOORS.iter().find(|(room, _)| is_in(path, room)).map(|(_, floor)| *floor)
}

/// Every `crate::room` in the code; `crate::Name`, a re-export, is resolved by nobody and therefore not allowed.
fn named_rooms(code: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, found)| (at, &code[at + found.len()..])) {
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
        let is_start = before.is_none_or(|char| !char.is_alphanumeric() && char != '_' && char != ':');
        let after = &code[at + found.len()..];
        is_start && (after.starts_with("::") || (after.starts_with(';') && code[..at].ends_with("use ")))
    })
}

fn rooms() -> Vec<Room> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
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

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The code without comments and without the tests at its end.
fn strip(source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod ").unwrap_or(source.len());
    let lines = source[..end].lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    lines.flat_map(|line| [line, "\n"]).collect()
}
