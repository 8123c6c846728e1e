//! For tests: that each setting is documented, can be set in both forms, and has an effect.

use std::collections::BTreeSet;
use std::fmt::{Debug, Display, Write as _};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use serde_json::{Map, Value};

use super::env::is_like;
use super::{ConfigError, Configuration, EnvVars};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

/// One test at a time writes the document.
static DOCUMENT: Mutex<()> = Mutex::new(());

// === The documentation ===

/// A line of the definition of a struct.
enum Line {
    /// A comment `// # …` between two fields: it begins a table.
    Heading(String),
    /// A public field, and what its documentation says.
    Field(String, String),
}

/// The public fields of the struct `name` in `source`, with their documentation.
fn lines(name: &str, source: &str) -> Vec<Line> {
    let body = source.split(&format!("pub struct {name} {{\n")).nth(1).unwrap();
    let body = body.split("\n}").next().unwrap();
    let (mut lines, mut docs) = (Vec::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if let Some(heading) = line.strip_prefix("// # ") {
            lines.push(Line::Heading(heading.into()));
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|it| it.split_once(':'))
        {
            lines.push(Line::Field(field.into(), docs.join(" ")));
            docs.clear();
        }
    }
    lines
}

/// As the Markdown of a document has it, where no link leads to an item of the crate.
fn without_links(docs: &str) -> String {
    docs.replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

/// The tables of settings for docs/configuration.md.
fn tables<C: Configuration>(lines: &[Line]) -> String {
    const HEAD: &str = "| variable | field | what it sets |\n| --- | --- | --- |\n";
    let mut tables = String::new();
    for (at, line) in lines.iter().enumerate() {
        match line {
            Line::Heading(heading) => {
                let space = if at == 0 { "" } else { "\n" };
                write!(tables, "{space}{heading}:\n\n{HEAD}").unwrap();
            }
            Line::Field(field, docs) => {
                if at == 0 {
                    tables.push_str(HEAD);
                }
                let (variable, docs) = (C::variable(field), without_links(docs));
                writeln!(tables, "| `{variable}` | `{field}` | {docs} |").unwrap();
            }
        }
    }
    tables
}

/// Every field of the struct `name` in `source` has documentation, with the default if it is one of
/// these, and docs/configuration.md has the tables that are made of it.
#[track_caller]
pub(crate) fn assert_documented<C: Configuration>(
    name: &str,
    source: &str,
    defaults: &[(&str, &dyn Display)],
) {
    let lines = lines(name, source);
    let fields = lines.iter().filter_map(|line| match line {
        Line::Field(field, docs) => Some((field, docs)),
        Line::Heading(_) => None,
    });
    for (field, docs) in fields.clone() {
        let is_sentence = docs.len() > 30 && docs.ends_with('.') && !docs.starts_with("See");
        assert!(is_sentence, "{field}: say what it is, in which unit, with which default: {docs}");
    }
    for (field, default) in defaults {
        let (_, docs) = fields.clone().find(|(name, _)| name == field).unwrap();
        let default = format!("Default: {default}");
        assert!(
            docs.contains(&default) || docs.contains(&default.replace(": ", ": `")),
            "{field}: {default}"
        );
    }
    let fields: Vec<_> = fields.map(|(field, _)| &**field).collect();
    assert_eq!(fields, C::fields(), "the fields that are documented and those of serde");

    let guard = DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let document = fs::read_to_string(PATH).unwrap();
    let (begin, end) = (format!("<!-- made of `{name}` -->\n\n"), "\n<!-- end -->");
    let (before, rest) = document.split_once(&begin).unwrap();
    let (found, after) = rest.split_once(end).unwrap();
    let expected = tables::<C>(&lines);
    if found == expected {
        return;
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(PATH, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    drop(guard);
    panic!(
        "docs/configuration.md is not up to date; run UPDATE_DOCS=1 cargo test --all-features \
         --lib documented"
    );
}

/// Else the name of one would be taken for a misspelt name of the other.
#[test]
fn no_two_variables_of_different_configurations_are_alike() {
    let document = fs::read_to_string(PATH).unwrap();
    let variables: Vec<BTreeSet<_>> = document
        .split("<!-- made of")
        .skip(1)
        .map(|section| {
            let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
            rows.filter_map(|row| Some(row.split_once('`')?.0)).collect()
        })
        .collect();
    assert_eq!(variables.len(), 5);
    assert!(variables.iter().map(BTreeSet::len).sum::<usize>() > 50, "{variables:?}");
    for (at, some) in variables.iter().enumerate() {
        for others in variables.iter().skip(at + 1) {
            for one in some {
                let like = others.iter().find(|other| is_like(other, one) || is_like(one, other));
                assert!(like.is_none(), "{one} and {like:?}");
            }
        }
    }
}

// === The settings ===

/// A field, a value of it that is not its default, and an object of the settings that it needs.
pub(crate) type Example = (&'static str, Value, Value);

/// Each setting means the same in the environment as in a file, and has an effect.
///
/// There is an example for each field, in their order. `effect` shows all that a configuration
/// makes. An error that names the field is an effect, too: of the name of a file, for example.
#[track_caller]
pub(crate) fn assert_effective<C: Configuration + Debug>(
    examples: &[Example],
    effect: impl Fn(&C) -> Result<String, ConfigError>,
) {
    let fields: Vec<_> = examples.iter().map(|(field, ..)| *field).collect();
    assert_eq!(fields, C::fields(), "the fields with examples and those of serde");
    for (field, value, needed) in examples {
        let without = needed.as_object().unwrap().clone();
        let mut with = without.clone();
        with.insert((*field).into(), value.clone());
        let (with, without) = (from_file::<C>(with), from_file::<C>(without));
        let by_variables = from_variables::<C>(&with.1);
        assert_eq!(format!("{by_variables:?}"), format!("{:?}", with.0), "{field}");
        assert_ne!(format!("{:?}", without.0), format!("{:?}", with.0), "{field} is not read");

        let (with, without) = (effect(&with.0), effect(&without.0));
        let shown = |effect: &Result<String, ConfigError>| format!("{effect:?}");
        assert_eq!(shown(&effect(&by_variables)), shown(&with), "{field}");
        assert_ne!(shown(&without), shown(&with), "{field} has no effect");
        if let Err(error) = with {
            assert_eq!(C::field_of(error.setting()), *field, "{error}");
        }
    }
}

fn from_file<C: Configuration>(settings: Map<String, Value>) -> (C, Map<String, Value>) {
    (serde_json::from_value(Value::Object(settings.clone())).unwrap(), settings)
}

fn from_variables<C: Configuration>(settings: &Map<String, Value>) -> C {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(words) => {
            words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(", ")
        }
        Value::Object(pairs) => {
            let pairs =
                pairs.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap()));
            pairs.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let vars = settings.iter().map(|(field, value)| (C::variable(field), text(value)));
    vars.collect::<EnvVars>().read().unwrap()
}

/// How a setter of a builder is reached from a configuration.
pub(crate) enum SetBy {
    Field(&'static str),
    /// Only from code, for this reason.
    Code(&'static str),
}

/// Every setter of a builder, found by its name in `source`, has a field or a reason why it has
/// none.
#[track_caller]
pub(crate) fn assert_settable<C: Configuration>(source: &str, setters: &[(&str, SetBy)]) {
    let found: BTreeSet<_> = source
        .split("pub fn ")
        .skip(1)
        .map(|rest| rest.split(['(', '<']).next().unwrap())
        .filter(|name| {
            let prefixes = ["with_", "without_", "allow_", "require_", "forbid_"];
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect();
    let known: BTreeSet<_> = setters.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, known, "the setters, and those with a field or a reason why they have none");
    for (setter, how) in setters {
        match how {
            SetBy::Field(field) => {
                assert!(C::fields().contains(field), "{setter}: there is no {field}");
            }
            SetBy::Code(reason) => assert!(reason.len() > 10, "{setter}"),
        }
    }
}
