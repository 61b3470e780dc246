//! Programs of PostgreSQL that report in German: wrappers around the installed ones, and a locale of their own.
//!
//! Translated messages need an installed PostgreSQL with its catalogs (portable builds have none) and a German locale.
//! The locale is compiled here by `localedef`, because few machines have it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The locale's name, for `lc_messages`.
pub const LOCALE: &str = "de_DE.UTF-8";

/// The wrappers and the locale. Removed when dropped.
pub struct GermanPostgres {
    directory: TempDir,
}

impl GermanPostgres {
    /// Makes the wrappers. Returns None, with a warning on the terminal, if the machine lacks German messages or the
    /// locale; in CI that is a failure.
    pub fn make() -> Option<Self> {
        match installed().and_then(|binaries| make(&binaries)) {
            Ok(directory) => Some(Self { directory }),
            Err(problem) => {
                let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
                assert!(!ci, "the tests of translated messages cannot run in CI: {problem}");
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                // The test harness hides the output of passing tests, so the warning goes to the terminal.
                let _ = fs::write("/dev/stderr", format!("\nSKIPPED {test}: {problem}\n"));
                None
            }
        }
    }

    /// Returns the directory of the wrappers.
    pub fn binaries(&self) -> PathBuf {
        self.directory.path().join("bin")
    }
}

/// Returns the newest installed PostgreSQL that has a German catalog.
fn installed() -> Result<PathBuf, String> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> =
        versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable();
    let has_catalog = |version: &u32| {
        Path::new(&format!("/usr/share/locale/de/LC_MESSAGES/postgres-{version}.mo")).is_file()
    };
    let newest = versions.into_iter().rfind(has_catalog);
    newest
        .map(|version| format!("/usr/lib/postgresql/{version}/bin").into())
        .ok_or_else(|| "no PostgreSQL with a German catalog (Debian: apt-get install postgresql)".to_owned())
}

fn make(binaries: &Path) -> Result<TempDir, String> {
    let directory = tempfile::Builder::new().prefix("ledger-test-german-").tempdir().expect("directory");
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("mode");
    open(directory.path());
    let locale = directory.path().join(LOCALE);
    let compiled = Command::new("localedef").args(["-i", "de_DE", "-f", "UTF-8"]).arg(&locale).output();
    if !compiled.is_ok_and(|output| output.status.success()) {
        return Err("localedef cannot make de_DE.UTF-8 (Debian: apt-get install locales)".to_owned());
    }
    let wrappers = directory.path().join("bin");
    fs::create_dir(&wrappers).expect("directory");
    open(&wrappers);
    for program in ["initdb", "postgres"] {
        let script = format!(
            "#!/bin/sh\nexport LOCPATH='{}'\nexec '{}' \"$@\"\n",
            directory.path().display(),
            binaries.join(program).display(),
        );
        let path = wrappers.join(program);
        fs::write(&path, script).expect("written");
        open(&path);
    }
    Ok(directory)
}
