//! The version of the binary, with the commit that it was built from. `make release`, `make dist` and the Containerfile
//! pass the commit to the compiler. Another build, and one from a source archive without git, has none.

use std::sync::LazyLock;

/// The version of the crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, or `unknown`.
pub const COMMIT: &str = known(option_env!("LEDGER_BUILD_COMMIT"));
const COMMIT_DATE: &str = known(option_env!("LEDGER_BUILD_DATE"));

const fn known(value: Option<&'static str>) -> &'static str {
    match value {
        Some(value) if !value.is_empty() => value,
        _ => "unknown",
    }
}

static LONG: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {COMMIT}, date {COMMIT_DATE})"));

/// Returns what `ledger --version` prints after the name.
pub fn long_version() -> &'static str {
    &LONG
}
