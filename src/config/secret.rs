//! Reads secrets from files.

use std::path::Path;

use secrecy::SecretString;

use super::ConfigError;

/// The key of the file that holds the URL of the database.
pub(super) const DATABASE_URL_FILE: &str = "database.url_file";

/// Reads the file of a secret. White space at the end of the file is not part of the secret.
pub(super) fn read_secret(key: &'static str, path: &Path) -> Result<SecretString, ConfigError> {
    std::fs::read_to_string(path)
        .map(|text| SecretString::from(text.trim_end().to_owned()))
        .map_err(|source| ConfigError::Secret { key, path: path.to_owned(), source })
}
