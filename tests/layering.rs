//! The house: imports run one way, and every file says what it is for.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// From the bottom up. A row may use the rows above it in this list (below it in the house), never its own
/// neighbours: a room in a row of several may not use the others.
const ROWS: &[&[&str]] = &[
    &["config", "domain"],
    &["event"],
    &["repository", "risk"],
    &["broker"],
    &["runtime"],
    &["posting"],
    &["serve", "relay", "consume_risk", "aggregate", "import"],
    &["dev", "ops"],
    &["cli"],
];

/// Uses between neighbours that the house allows, each with its reason.
const ALLOWED: &[(&str, &str)] = &[
    // The demo ends with what an operator would run.
    ("dev", "ops"),
];

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                found.push(entry);
            }
        }
    }
    assert!(found.len() > 20, "the sources were found");
    found
}

fn room(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// Every `crate::room` in the text, in `use` lines, paths and grouped imports alike.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for (position, _) in code.match_indices("crate::") {
        let rest = &code[position + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            let mut at_start = true;
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => at_start = true,
                    ':' => at_start = at_start && name.is_empty(),
                    _ => {}
                }
                if depth == 1 && at_start && (character.is_alphanumeric() || character == '_') {
                    name.push(character);
                } else if !name.is_empty() {
                    used.insert(std::mem::take(&mut name));
                    at_start = character == ',';
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            used.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    used
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    for path in sources() {
        let own = room(&path);
        let Some(own_row) = row(&own) else { continue };
        for used in rooms_used(&fs::read_to_string(&path).expect("text")) {
            let Some(used_row) = row(&used) else { continue };
            let allowed =
                used == own || used_row < own_row || ALLOWED.contains(&(own.as_str(), used.as_str()));
            if !allowed {
                wrong.push(format!("{} uses crate::{used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the grain:\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_all_forms() {
    let text = "use crate::{\n    config::{self, Config},\n    domain::Amount, event,\n};\nuse crate::serve::x;\n// crate::dev\nlet y = crate::relay::z();";
    let expected: BTreeSet<String> = ["config", "domain", "event", "serve", "relay"].map(String::from).into();
    assert_eq!(rooms_used(text), expected);
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
    }
}

#[test]
fn only_the_repository_knows_diesel_and_only_the_broker_knows_kafkas_protocol() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("text");
        let own = room(&path);
        for (library, home) in
            [("diesel::", "repository"), ("diesel_async::", "repository"), ("kafka_protocol::", "broker")]
        {
            assert!(own == home || !text.contains(library), "{} uses {library}", path.display());
        }
    }
}
