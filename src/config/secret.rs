//! Reads secrets from files, and names their keys.

use std::path::Path;

use secrecy::SecretString;

use super::ConfigError;

/// The key of the URL of the database.
pub(super) const DATABASE_URL: &str = "database.url";
/// The key of the file that holds the URL of the database.
pub(super) const DATABASE_URL_FILE: &str = "database.url_file";
/// The key of the password of the database.
pub(super) const DATABASE_PASSWORD: &str = "database.password";
/// The key of the file that holds the password of the database.
pub(super) const DATABASE_PASSWORD_FILE: &str = "database.password_file";
/// The key of the password for SASL.
pub(super) const SASL_PASSWORD: &str = "broker.kafka.sasl_password";
/// The key of the file that holds the password for SASL.
pub(super) const SASL_PASSWORD_FILE: &str = "broker.kafka.sasl_password_file";

/// The keys of secrets. In a URL, only the password is secret.
pub(super) const SECRETS: [&str; 3] = [DATABASE_URL, DATABASE_PASSWORD, SASL_PASSWORD];

/// Reads the file of a secret. White space at the end of the file is not part of the secret.
pub(super) fn read_secret(key: &'static str, path: &Path) -> Result<SecretString, ConfigError> {
    std::fs::read_to_string(path)
        .map(|text| SecretString::from(text.trim_end().to_owned()))
        .map_err(|source| ConfigError::Secret { key, path: path.to_owned(), source })
}

/// Names the file of a secret and its key for messages.
pub(super) fn file_origin(key: &'static str, path: &Path) -> String {
    format!("{} ({key})", path.display())
}
