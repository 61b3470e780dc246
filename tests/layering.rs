//! The structure of the source tree: rooms (the folders and files directly in `src`) import in one direction, files of
//! one folder form no circles, every file says what it is for, and each library stays in its room.
//!
//! The checks read `use` lines and paths that begin with `crate`, `self` or `super`. Macros are not expanded.
//! `docs/faults.md` is checked too: every test that it names must exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The rooms from the bottom up. A room may import rooms of the rows above its own in this list, and no other.
const ROWS: &[&[&str]] = &[
    &["config", "domain"],
    &["event"],
    &["risk", "repository"],
    &["broker"],
    &["runtime"],
    &["posting"],
    &["serve", "relay", "consume_risk", "aggregate", "import"],
    &["dev", "ops"],
    &["cli"],
];

/// Imports between rooms of one row, each with its reason.
const ALLOWED_NEIGHBOURS: &[(&str, &str)] = &[
    // `ledger demo` ends with the checks of `ledger verify`.
    ("dev", "ops"),
];

/// Circles between files of one folder, as (file, file), each with its reason.
const ALLOWED_CIRCLES: &[(&str, &str)] = &[];

type ModulePath = Vec<String>;

struct Module {
    file: PathBuf,
    text: String,
}

impl Module {
    /// The code without comments and without the inline test module, which is the last item of a file.
    fn production_code(&self) -> String {
        let code = without_comments(&self.text);
        code.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
    }
}

/// Every Rust file below a folder of the project.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("entry").path()) {
            if file.is_dir() {
                folders.push(file);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                found.push(file);
            }
        }
    }
    assert!(found.len() > 20, "the files were found");
    found
}

/// Every module under `src`, by its path.
fn modules() -> BTreeMap<ModulePath, Module> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |file: PathBuf| {
        let inside = file.strip_prefix(&source).expect("below src").with_extension("");
        let mut path: ModulePath = inside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        path.retain(|name| name != "mod" && name != "lib");
        let text = fs::read_to_string(&file).expect("text");
        (path, Module { file, text })
    };
    rust_files("src").into_iter().map(module).collect()
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// An imported path and the name that it gets.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    path: ModulePath,
    name: String,
}

/// Every import of the `use` lines, with groups expanded.
fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("use ") {
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        let is_statement =
            line.is_empty() || line == "pub" || (line.starts_with("pub(") && line.ends_with(')'));
        let Some((tree, behind)) = after.split_once(';').filter(|_| is_statement) else {
            rest = after;
            continue;
        };
        expand(tree, &[], &mut found);
        rest = behind;
    }
    found
}

fn expand(tree: &str, prefix: &[String], found: &mut Vec<Import>) {
    for part in top_level_parts(tree) {
        let (head, group) = match part.split_once('{') {
            Some((head, group)) => (head, Some(group.rsplit_once('}').expect("a closed group").0)),
            None => (part, None),
        };
        let (head, alias) = head.split_once(" as ").map_or((head, None), |(head, alias)| (head, Some(alias)));
        let segments = head.split("::").map(str::trim).filter(|segment| !segment.is_empty());
        let mut path: ModulePath = prefix.iter().cloned().chain(segments.map(str::to_owned)).collect();
        if let Some(group) = group {
            expand(group, &path, found);
            continue;
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = alias.map(str::trim).map(str::to_owned).or_else(|| path.last().cloned());
        found.extend(name.map(|name| Import { path, name }));
    }
}

/// The parts of a group that commas separate, except for commas in inner groups.
fn top_level_parts(tree: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (position, character) in tree.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Every path in the code that begins with `crate`, `self` or `super`.
fn inline_paths(code: &str) -> Vec<ModulePath> {
    let words =
        code.split(|character: char| !(character.is_alphanumeric() || matches!(character, '_' | ':')));
    let paths =
        words.filter(|word| ["crate::", "self::", "super::"].iter().any(|root| word.starts_with(root)));
    paths.map(|path| path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()).collect()
}

/// The path from the root of the crate, or None for a path into another crate.
fn absolute(
    path: &[String],
    module: &[String],
    modules: &BTreeMap<ModulePath, Module>,
) -> Option<ModulePath> {
    let (first, rest) = path.split_first()?;
    let parent = module.split_last().map(|(_, parent)| parent);
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" if rest.first().is_some_and(|next| next == "super") => absolute(rest, parent?, modules),
        "super" => Some([parent?, rest].concat()),
        child => {
            let path = [module, &[child.to_owned()]].concat();
            modules.contains_key(&path).then(|| [path.as_slice(), rest].concat())
        }
    }
}

/// The module that defines what an absolute path names. Follows names that a module imports or re-exports.
fn definer(
    path: &[String],
    modules: &BTreeMap<ModulePath, Module>,
    names: &BTreeMap<ModulePath, BTreeMap<String, ModulePath>>,
) -> ModulePath {
    let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]));
    let (module, rest) = path.split_at(length.unwrap_or_default());
    let imported = rest.first().and_then(|name| names.get(module)?.get(name));
    imported.map_or_else(|| module.to_vec(), |target| definer(target, modules, names))
}

/// The imports between the children of each folder: folder -> child -> children that it uses.
fn uses_between_siblings() -> BTreeMap<ModulePath, BTreeMap<ModulePath, BTreeSet<ModulePath>>> {
    let modules = modules();
    let mut names: BTreeMap<ModulePath, BTreeMap<String, ModulePath>> = BTreeMap::new();
    let mut paths: Vec<(&ModulePath, ModulePath)> = Vec::new();
    for (module, found) in &modules {
        let code = found.production_code();
        for import in imports(&code) {
            let Some(path) = absolute(&import.path, module, &modules) else { continue };
            names.entry(module.clone()).or_default().insert(import.name, path.clone());
            paths.push((module, path));
        }
        paths.extend(
            inline_paths(&code).iter().filter_map(|path| Some((module, absolute(path, module, &modules)?))),
        );
    }
    let mut uses: BTreeMap<ModulePath, BTreeMap<ModulePath, BTreeSet<ModulePath>>> = BTreeMap::new();
    for (module, path) in paths {
        let used = definer(&path, &modules, &names);
        let common = module.iter().zip(&used).take_while(|(a, b)| a == b).count();
        if common < module.len() && common < used.len() {
            let siblings = uses.entry(module[..common].to_vec()).or_default();
            siblings.entry(module[..=common].to_vec()).or_default().insert(used[..=common].to_vec());
        }
    }
    uses
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn rooms_import_in_one_direction() {
    let mut wrong = Vec::new();
    for (path, module) in modules() {
        let Some((own, own_row)) = path.first().and_then(|own| Some((own, row(own)?))) else { continue };
        let code = without_comments(&module.text);
        let imported = imports(&code).into_iter().map(|import| import.path);
        for used in imported.chain(inline_paths(&code)).filter(|path| path[0] == "crate") {
            let Some((room, room_row)) = used.get(1).and_then(|room| Some((room, row(room)?))) else {
                continue;
            };
            let is_allowed = room == own
                || room_row < own_row
                || ALLOWED_NEIGHBOURS.contains(&(own.as_str(), room.as_str()));
            if !is_allowed {
                wrong.push(format!("{} imports {}", module.file.display(), used.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports in the wrong direction:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_row() {
    for (path, module) in modules() {
        let Some(room) = path.first().filter(|room| *room != "main") else { continue };
        assert!(row(room).is_some(), "{} is in no row of ROWS", module.file.display());
    }
}

/// A folder's own file and the files in the folder may use each other: the first defines what the others share.
#[test]
fn files_of_one_folder_form_no_circles() {
    let mut circles = Vec::new();
    let mut unneeded = ALLOWED_CIRCLES.to_vec();
    for (folder, mut uses) in uses_between_siblings() {
        for (file, used) in &mut uses {
            let name = file.join("::");
            used.retain(|used| {
                let used = used.join("::");
                let is_this = |allowed: &(&str, &str)| *allowed == (name.as_str(), used.as_str());
                unneeded.retain(|allowed| !is_this(allowed));
                !ALLOWED_CIRCLES.iter().any(is_this)
            });
        }
        // Removes the files that use no remaining file, and those that no remaining file uses. Circles stay.
        loop {
            let before = uses.len();
            let files: BTreeSet<ModulePath> = uses.keys().cloned().collect();
            uses.values_mut().for_each(|used| used.retain(|used| files.contains(used)));
            let used: BTreeSet<ModulePath> = uses.values().flatten().cloned().collect();
            uses.retain(|file, uses| !uses.is_empty() && used.contains(file));
            if uses.len() == before {
                break;
            }
        }
        for (file, used) in uses {
            let used: Vec<String> = used.iter().map(|used| used.join("::")).collect();
            circles.push(format!(
                "in src/{}: {} uses {}",
                folder.join("/"),
                file.join("::"),
                used.join(", ")
            ));
        }
    }
    assert!(circles.is_empty(), "circles between files:\n{}", circles.join("\n"));
    assert!(unneeded.is_empty(), "no import needs these exceptions: {unneeded:?}");
}

#[test]
fn the_reader_of_imports_sees_all_forms() {
    let text = "pub use crate::{\n    config::{self, Config as Settings},\n    domain::Amount, event,\n};\nuse super::serve::x;\npub(super) use child::Y;\n// use crate::dev;\nlet y = crate::relay::z();";
    let code = without_comments(text);
    let found: Vec<(String, String)> =
        imports(&code).into_iter().map(|import| (import.path.join("::"), import.name)).collect();
    let expected = [
        ("crate::config", "config"),
        ("crate::config::Config", "Settings"),
        ("crate::domain::Amount", "Amount"),
        ("crate::event", "event"),
        ("super::serve::x", "x"),
        ("child::Y", "Y"),
    ];
    assert_eq!(found, expected.map(|(path, name)| (path.to_owned(), name.to_owned())));
    let inline = inline_paths("let y = crate::relay::z(); other::crate_thing()");
    assert_eq!(inline, [["crate", "relay", "z"].map(String::from).to_vec()]);
}

#[test]
fn every_file_says_what_it_is_for() {
    for module in modules().values() {
        assert!(module.text.starts_with("//!"), "{} does not open with //!", module.file.display());
    }
}

#[test]
fn only_the_repository_uses_diesel_and_only_the_broker_speaks_kafka() {
    for (path, module) in modules() {
        for (library, home) in
            [("diesel::", "repository"), ("diesel_async::", "repository"), ("kafka_protocol::", "broker")]
        {
            let is_home = path.first().is_some_and(|room| room == home);
            assert!(is_home || !module.text.contains(library), "{} uses {library}", module.file.display());
        }
    }
}

/// The clock of the machine may be wrong. Stored and published moments come from the database's clock.
#[test]
fn only_one_file_reads_the_clock_of_the_machine() {
    for (path, module) in modules() {
        let code = module.production_code();
        let reads =
            code.contains("Utc::now") || code.contains("SystemTime::now") || code.contains("Local::now");
        let is_home = path.join("::") == "runtime::wall_clock";
        assert_eq!(
            reads,
            is_home,
            "{}: use DatabaseClock, or wall_clock for a log line",
            module.file.display()
        );
    }
}

#[test]
fn every_test_that_the_list_of_faults_names_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let page = fs::read_to_string(page).expect("docs/faults.md");
    let files = rust_files("src").into_iter().chain(rust_files("tests"));
    let code: String = files.map(|file| fs::read_to_string(file).expect("text")).collect();
    let is_name = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    let quoted = page.split('`').skip(1).step_by(2).filter(is_name);
    let tests: Vec<&str> = quoted.filter_map(|name| name.rsplit("::").next()).collect();
    let is_test = |name: &&&str| name.matches('_').count() > 2 && !name.starts_with("ledger_");
    let missing: Vec<&&str> =
        tests.iter().filter(is_test).filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/faults.md names tests that do not exist: {missing:?}");
}
