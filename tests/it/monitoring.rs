//! The dashboard, the alerts and the runbook name only metrics that there are, with labels that
//! they have; and `promtool` plays each alert through.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn text(file: &str) -> String {
    fs::read_to_string(docs().join(file)).unwrap()
}

/// Each metric with its labels, as `docs/metrics.md` has them, which is held against the code.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let mut table = BTreeMap::new();
    for row in text("metrics.md").lines().filter(|line| line.starts_with("| `jwt_revocation_")) {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let mut labels: BTreeSet<_> =
            cells[3].split(", ").filter(|label| !label.is_empty()).map(String::from).collect();
        if cells[2] == "histogram" {
            for part in ["_sum", "_count"] {
                table.insert(format!("{}{part}", cells[1]), labels.clone());
            }
            labels.insert("le".into());
            table.insert(format!("{}_bucket", cells[1]), labels);
        } else {
            table.insert(cells[1].clone(), labels);
        }
    }
    assert!(table.len() > 30, "{table:?}");
    table
}

/// Every metric that a text names, with what stands in the braces behind it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let is_name = |char: char| char.is_ascii_lowercase() || char == '_';
    let found = text.match_indices("jwt_revocation_").map(|(start, _)| &text[start..]);
    let found = found.map(|rest| rest.split_at(rest.find(|char| !is_name(char)).unwrap()));
    found
        .map(|(name, rest)| {
            let labels = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            (name, labels.unwrap_or_default())
        })
        .collect()
}

/// The alerts of the rules, by name, with their lines.
fn alerts(rules: &str) -> Vec<(&str, &str)> {
    let blocks = rules.split("- alert: ").skip(1);
    blocks.map(|block| block.split_once('\n').unwrap()).collect()
}

#[test]
fn every_name_and_every_label_is_one_of_the_table() {
    let table = table();
    for file in [
        "monitoring/rules.yml",
        "monitoring/rules_test.yml",
        "monitoring/dashboard.json",
        "runbook.md",
    ] {
        let text = text(file).replace("\\\"", "\"");
        let named = named(&text);
        for (name, labels) in &named {
            let Some(known) = table.get(*name) else { panic!("{file}: {name} is not there") };
            for label in labels.split(", ").filter(|label| !label.is_empty()) {
                let label = label.split(['=', '!']).next().unwrap();
                let is_of_prometheus = ["job", "instance"].contains(&label);
                assert!(is_of_prometheus || known.contains(label), "{file}: {name} has no {label}");
            }
        }
        assert!(named.len() > 3, "{file}: {named:?}");
    }
}

/// What is counted and shown nowhere is not seen.
#[test]
fn the_dashboard_shows_every_metric() {
    let dashboard = text("monitoring/dashboard.json");
    let shown: BTreeSet<_> = named(&dashboard).into_iter().map(|(name, _)| name).collect();
    let missing: Vec<_> = table().into_keys().filter(|name| !shown.contains(&**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_alert_has_a_story_and_a_section_of_the_runbook_that_says_what_to_do() {
    let (rules, stories, runbook) =
        (text("monitoring/rules.yml"), text("monitoring/rules_test.yml"), text("runbook.md"));
    let alerts = alerts(&rules);
    assert!(alerts.len() >= 7, "{alerts:?}");
    for (name, lines) in &alerts {
        let fires = format!("alertname: {name}\n        exp_alerts:");
        let is_quiet = format!("alertname: {name}\n      - eval_time:");
        assert!(stories.contains(&fires), "no story in which {name} fires");
        assert!(stories.contains(&is_quiet), "no story in which {name} does not fire");
        let section =
            runbook.split("\n## ").find(|section| section.starts_with(&format!("{name}\n")));
        let section = section.unwrap_or_else(|| panic!("the runbook does not say what {name} is"));
        assert!(section.contains("*Means*") && section.contains("*Do*"), "{section}");
        assert!(lines.contains("severity: page") || lines.contains("severity: ticket"), "{lines}");
        assert!(lines.contains(&format!("runbook.md#{}", name.to_lowercase())), "{lines}");
    }
    let sections = runbook.split("\n## ").skip(1).map(|section| section.lines().next().unwrap());
    for section in sections {
        assert!(alerts.iter().any(|(name, _)| *name == section), "there is no alert {section}");
    }
}

/// All expressions of a dashboard, whichever way they are nested.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[cfg(feature = "redis")]
#[test]
fn promtool_accepts_the_rules_and_the_dashboard_and_every_story_ends_as_it_says() {
    use std::fmt::Write as _;

    use crate::servers::{TempDir, prometheus_is_installed, promtool};

    if !prometheus_is_installed() {
        return;
    }
    let path = |file: &str| docs().join("monitoring").join(file).display().to_string();
    promtool(&["check", "rules", &path("rules.yml")], "");
    promtool(&["test", "rules", &path("rules_test.yml")], "");

    let dashboard: Value = serde_json::from_str(&text("monitoring/dashboard.json")).unwrap();
    let mut expressions_of_it = Vec::new();
    expressions(&dashboard, &mut expressions_of_it);
    assert!(expressions_of_it.len() > 30, "{expressions_of_it:?}");
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (number, expression) in expressions_of_it.iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "1m");
        let expression = Value::from(expression);
        writeln!(rules, "  - record: panel:{number}\n    expr: {expression}").unwrap();
    }
    let dir = TempDir::new();
    let file = dir.path().join("dashboard.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn the_panels_of_the_dashboard_do_not_overlap_and_have_ids_of_their_own() {
    let dashboard: Value = serde_json::from_str(&text("monitoring/dashboard.json")).unwrap();
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let number = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24, "{panel}");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(cells.insert((x, y)), "{panel} is over another one");
            }
        }
    }
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.iter().all(|expression| expression.contains("instance=~\"$instance\"")));
}
