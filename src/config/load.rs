//! Combines the layers of the configuration and refuses unknown keys.

use std::{collections::HashMap, path::Path};

use config::{Config as Layers, File, FileFormat, Value, ValueKind};
use secrecy::ExposeSecret;

use super::{
    ConfigError,
    database_url::{self, HIDDEN},
    secret::{DATABASE_URL, DATABASE_URL_FILE, SASL_PASSWORD, SASL_PASSWORD_FILE, file_origin, read_secret},
    sections::Config,
};

/// The built-in defaults, which document every key.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

const ENVIRONMENT_PREFIX: &str = "LEDGER_";
const SECTION_SEPARATOR: &str = "__";

/// Values from the command line, as (`section.key`, value). They override every other layer.
pub type Overrides = Vec<(String, String)>;

/// The file or the variable that set a key. Keys with their default are missing.
pub(super) type Origins = HashMap<String, String>;

/// Loads the configuration. `environment` is a parameter, so that tests need not change the process's environment.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let (layers, origins) = layers(file, environment, overrides)?;
    typed(layers, &origins)
}

/// Combines the layers and checks the keys, not the values.
pub(super) fn layers(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<(Layers, Origins), ConfigError> {
    let mut origins = Origins::new();
    let defaults = layer(DEFAULTS).map_err(invalid)?;
    let known = leaf_keys(&defaults);
    let mut builder = Layers::builder().add_source(defaults);
    if let Some(path) = file {
        let from_file = file_layer(path)?;
        for key in leaf_keys(&from_file) {
            let origin = path.display().to_string();
            check_known(&key, &known, &key, &origin)?;
            origins.insert(key, origin);
        }
        builder = builder.add_source(from_file);
    }
    for (name, value) in environment {
        if let Some(key) = environment_key(&name) {
            check_known(&key, &known, &name, "the environment")?;
            builder = builder.set_override(&key, value).map_err(invalid)?;
            origins.insert(key, name);
        }
    }
    for (key, value) in overrides {
        builder = builder.set_override(key, value.as_str()).map_err(invalid)?;
        origins.insert(key.clone(), "the command line".to_owned());
    }
    Ok((builder.build().map_err(invalid)?, origins))
}

/// Converts the layers to the typed configuration, checks it, and reads secrets from their files.
pub(super) fn typed(layers: Layers, origins: &Origins) -> Result<Config, ConfigError> {
    let mut config: Config = layers.try_deserialize().map_err(invalid)?;
    config.check().map_err(ConfigError::Invalid)?;
    let origin = |key: &str| origins.get(key).cloned().unwrap_or_else(|| "the defaults".to_owned());
    let database = &mut config.database;
    database.url_origin = origin(DATABASE_URL);
    if let Some(path) = &database.url_file {
        database.url = read_secret(DATABASE_URL_FILE, path)?;
        database.url_origin = file_origin(DATABASE_URL_FILE, path);
    }
    database_url::check(database.url.expose_secret(), &database.url_origin)?;
    let kafka = &mut config.broker.kafka;
    let mut password_origin = origin(SASL_PASSWORD);
    if let Some(path) = &kafka.sasl_password_file {
        kafka.sasl_password = read_secret(SASL_PASSWORD_FILE, path)?;
        password_origin = file_origin(SASL_PASSWORD_FILE, path);
    }
    if kafka.sasl_password.expose_secret() == HIDDEN {
        return Err(ConfigError::HiddenSecret { key: SASL_PASSWORD, origin: password_origin });
    }
    Ok(config)
}

fn layer(text: &str) -> Result<Layers, config::ConfigError> {
    Layers::builder().add_source(File::from_str(text, FileFormat::Toml)).build()
}

fn file_layer(path: &Path) -> Result<Layers, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        path: path.to_owned(),
        source: config::ConfigError::Foreign(Box::new(error)),
    })?;
    layer(&text).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

fn invalid(error: config::ConfigError) -> ConfigError {
    ConfigError::Invalid(error.to_string())
}

/// Returns the key of a variable: `database.url` for `LEDGER_DATABASE__URL`. Names without the two underscores are
/// variables of flags.
fn environment_key(name: &str) -> Option<String> {
    let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    rest.contains(SECTION_SEPARATOR).then(|| rest.to_ascii_lowercase().replace(SECTION_SEPARATOR, "."))
}

fn check_known(key: &str, known: &[String], written: &str, from: &str) -> Result<(), ConfigError> {
    if known.iter().any(|known| known == key) {
        return Ok(());
    }
    let nearest =
        known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
    let spelled = |nearest: &String| match written.starts_with(ENVIRONMENT_PREFIX) {
        true => {
            format!("{ENVIRONMENT_PREFIX}{}", nearest.to_ascii_uppercase().replace('.', SECTION_SEPARATOR))
        }
        false => nearest.clone(),
    };
    Err(ConfigError::UnknownKey {
        key: written.to_owned(),
        from: from.to_owned(),
        suggestion: nearest
            .map(|nearest| format!("; did you mean {}?", spelled(nearest)))
            .unwrap_or_default(),
    })
}

fn leaf_keys(layers: &Layers) -> Vec<String> {
    let mut keys = Vec::new();
    collect_leaf_keys(&layers.cache, "", &mut keys);
    keys
}

fn collect_leaf_keys(value: &Value, path: &str, keys: &mut Vec<String>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, inner) in table {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect_leaf_keys(inner, &path, keys);
            }
        }
        _ => keys.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Listen;

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn the_documented_defaults_are_valid() {
        let config = load(None, environment(&[]), &Overrides::new()).expect("valid");
        assert_eq!(config.serve.writers, 2);
        assert_eq!(config.relay.lease_ttl, Duration::from_secs(5));
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        std::io::Write::write_all(&mut file, b"[serve]\nwriters = 3\nqueue_size_max = 7\n").expect("written");
        let flags = vec![("serve.listen".to_owned(), "127.0.0.1:1".to_owned())];
        let set = [
            ("LEDGER_SERVE__WRITERS", "4"),
            ("LEDGER_ADMIN__LISTEN", "off"),
            ("LEDGER_SERVE__LISTEN", "127.0.0.1:2"),
        ];
        let config = load(Some(file.path()), environment(&set), &flags).expect("valid");
        assert_eq!((config.serve.writers, config.serve.queue_size_max), (4, 7));
        assert_eq!(config.serve.listen.port(), 1);
        assert_eq!(config.admin.listen, Listen::Off);
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_suggestion() {
        let error = load(None, environment(&[("LEDGER_DATABASE__ULR", "x")]), &Overrides::new())
            .expect_err("refused");
        assert_eq!(
            error.to_string(),
            "unknown configuration key LEDGER_DATABASE__ULR in the environment; did you mean LEDGER_DATABASE__URL?"
        );
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_never_printed() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        std::io::Write::write_all(&mut file, b"postgres://u:hunter2@db/ledger\n").expect("written");
        let path = file.path().display().to_string();
        let config = load(None, environment(&[("LEDGER_DATABASE__URL_FILE", &path)]), &Overrides::new())
            .expect("valid");
        assert_eq!(config.database.url.expose_secret(), "postgres://u:hunter2@db/ledger");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_hidden_secret_is_refused_with_its_key_and_origin() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        std::io::Write::write_all(&mut file, b"[database]\nurl = \"postgres://u:***@db/l\"\n")
            .expect("written");
        let mut password = tempfile::NamedTempFile::new().expect("file");
        std::io::Write::write_all(&mut password, b"***\n").expect("written");
        let path = password.path().display().to_string();
        let error =
            load(Some(file.path()), environment(&[]), &Overrides::new()).expect_err("refused").to_string();
        assert!(
            error.contains("database.url from ") && error.contains(&file.path().display().to_string()),
            "{error}"
        );
        let filled_in = [("LEDGER_DATABASE__URL", "postgres://u:hunter2@db/l")];
        load(Some(file.path()), environment(&filled_in), &Overrides::new())
            .expect("only the value in effect counts");
        for (name, value) in [
            ("LEDGER_BROKER__KAFKA__SASL_PASSWORD", "***"),
            ("LEDGER_BROKER__KAFKA__SASL_PASSWORD_FILE", path.as_str()),
        ] {
            let error =
                load(None, environment(&[(name, value)]), &Overrides::new()).expect_err(name).to_string();
            let origin = if value == "***" { name } else { value };
            assert!(error.contains("broker.kafka.sasl_password") && error.contains(origin), "{error}");
        }
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_key() {
        for (name, value, part) in [
            ("LEDGER_SERVE__WRITERS", "0", "serve.writers must be at least 1"),
            ("LEDGER_SERVE__WRITERS", "33", "serve.writers must be at most 32"),
            ("LEDGER_DATABASE__SCHEMA", "", "database.schema must be"),
            ("LEDGER_DATABASE__SCHEMA", "pg_temp", "database.schema must be"),
            ("LEDGER_DATABASE__SCHEMA", "a\", public", "database.schema must be"),
            ("LEDGER_SERVE__QUEUE_SIZE_MAX", "0", "serve.queue_size_max"),
            ("LEDGER_SERVE__CORS_ORIGINS", "https://a.example, *", "serve.cors_origins has \"*\""),
            ("LEDGER_SERVE__CORS_ORIGINS", "https://a.example/", "serve.cors_origins has"),
            ("LEDGER_SERVE__CORS_ORIGINS", "https://a.example:443", "serve.cors_origins has"),
            ("LEDGER_SERVE__CORS_ORIGINS", "null", "serve.cors_origins has"),
            ("LEDGER_RELAY__LEASE_TTL", "1ms", "relay.lease_ttl"),
            ("LEDGER_ADMIN__LISTEN", "nine", "admin.listen"),
            ("LEDGER_BROKER__KIND", "rabbit", "broker.kind"),
            ("LEDGER_BROKER__KAFKA__COMPRESSION", "lzma", "broker.kafka.compression"),
            ("LEDGER_BROKER__KAFKA__COMPRESSION", "lzma", "not one of: none, gzip, snappy, lz4, zstd"),
            ("LEDGER_BROKER__KAFKA__SASL_MECHANISM", "gssapi", "broker.kafka.sasl_mechanism"),
            (
                "LEDGER_BROKER__KAFKA__SASL_MECHANISM",
                "gssapi",
                "not one of: empty, plain, scram-sha-256, scram-sha-512",
            ),
            ("LEDGER_SERVE__CLIENT_TIMEOUT", "0s", "serve.client_timeout must be more than zero"),
            ("LEDGER_SERVE__REQUEST_TIMEOUT", "0ms", "serve.request_timeout must be more than zero"),
            ("LEDGER_RELAY__POLL_INTERVAL_MIN", "0s", "relay.poll_interval_min must be"),
            ("LEDGER_RELAY__POLL_INTERVAL_MAX", "0s", "relay.poll_interval_max must be"),
            ("LEDGER_CONSUME_RISK__POLL_INTERVAL_MAX", "0s", "consume_risk.poll_interval_max must be"),
        ] {
            let error =
                load(None, environment(&[(name, value)]), &Overrides::new()).expect_err(name).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
