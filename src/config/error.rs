//! The error of a refused configuration.

use std::path::PathBuf;

/// The reason to refuse a configuration. Each text names the key or the file, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("cannot read the configuration file {}", path.display())]
    File {
        /// The path as given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not valid TOML.
    #[error("the configuration file {origin} is not valid TOML: {problem}")]
    Syntax {
        /// The file and the line.
        origin: String,
        /// The cause.
        problem: String,
    },
    /// A key that no section has.
    #[error("unknown configuration key {key}{}{suggestion}", origin(.from))]
    UnknownKey {
        /// The key as the user wrote it.
        key: String,
        /// The place where it was found: file and line, or the environment.
        from: String,
        /// `; did you mean …?`, or nothing.
        suggestion: String,
    },
    /// A value of the wrong type or out of bounds.
    #[error("{key} is {value} in {origin}, but must be {allowed}")]
    Value {
        /// The key.
        key: String,
        /// The value as text, or stars for a secret.
        value: String,
        /// The file and line, the variable, or the defaults.
        origin: String,
        /// The allowed values, as the end of the sentence.
        allowed: String,
    },
    /// The layers cannot be combined.
    #[error("invalid configuration: {0}")]
    Invalid(#[from] config::ConfigError),
    /// A secret with the text that replaces it in the output of `ledger config print`.
    #[error(
        "{key} from {origin} has the password ***, which `ledger config print` prints in place of a secret; write the secret"
    )]
    HiddenSecret {
        /// The key of the secret.
        key: &'static str,
        /// The file or the variable with the value.
        origin: String,
    },
    /// A URL of the database that is not valid. The URL itself is not shown.
    #[error("database.url from {origin} {problem}")]
    DatabaseUrl {
        /// The file or the variable with the value.
        origin: String,
        /// The reason, as the end of the sentence.
        problem: &'static str,
    },
    /// The URL has a login, and the keys of the login are set too.
    #[error(
        "database.url from {origin} has a user or a password, and database.user, password or password_file is set too; remove \
         one of them"
    )]
    TwoLogins {
        /// The file or the variable with the URL.
        origin: String,
    },
    /// A role needs the database, but its URL is empty.
    #[error("database.url is not set: its value from {origin} is empty")]
    DatabaseNotSet {
        /// The file or the variable with the value.
        origin: String,
    },
    /// The file of a secret cannot be read.
    #[error("cannot read {key} from {}", path.display())]
    Secret {
        /// The key that names the file.
        key: &'static str,
        /// The path as given.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

fn origin(from: &str) -> String {
    if from.is_empty() { String::new() } else { format!(" in {from}") }
}
