//! Combines the layers of the configuration and refuses unknown keys.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use config::{Config as Layers, ConfigBuilder, File, FileFormat, Value, ValueKind, builder::DefaultState};
use secrecy::{ExposeSecret, SecretString};
use toml::de::{DeTable, DeValue};

use super::{
    ConfigError,
    check::{Refusal, check},
    database_url::{self, HIDDEN},
    secret::{
        DATABASE_PASSWORD, DATABASE_PASSWORD_FILE, DATABASE_URL, DATABASE_URL_FILE, SASL_PASSWORD,
        SASL_PASSWORD_FILE, SECRETS, file_origin, read_secret,
    },
    sections::Config,
    values::to_kind_of,
};

/// The built-in defaults, which document every key.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

const ENVIRONMENT_PREFIX: &str = "LEDGER_";
const SECTION_SEPARATOR: &str = "__";
/// The variables of flags that differ from a key only by their underscores.
const FLAG_VARIABLES: [&str; 1] = ["LEDGER_CONSUME_RISK_GROUP"];

/// Values from the command line, as (`section.key`, value). They override every other layer.
pub type Overrides = Vec<(String, String)>;

/// The file and line, or the variable, that set a key. Keys with their default are missing.
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

/// The defaults, and the values of the other layers.
struct Builder {
    layers: ConfigBuilder<DefaultState>,
    /// The keys and the values of the defaults.
    defaults: BTreeMap<String, ValueKind>,
    origins: Origins,
}

impl Builder {
    fn new() -> Result<Self, ConfigError> {
        let defaults = layer(DEFAULTS)?;
        let leaves = leaves(&defaults);
        let layers = Layers::builder().add_source(defaults);
        Ok(Self { layers, defaults: leaves, origins: Origins::new() })
    }

    /// Sets a key. Its value gets the kind of its default.
    fn set(mut self, key: &str, value: ValueKind, origin: &str) -> Result<Self, ConfigError> {
        let default = self.defaults.get(key).unwrap_or(&ValueKind::Nil);
        let value = to_kind_of(default, value.clone())
            .map_err(|allowed| refused(key, &value, origin.to_owned(), allowed.to_owned()))?;
        self.layers = self.layers.set_override(key, Value::new(None, value))?;
        self.origins.insert(key.to_owned(), origin.to_owned());
        Ok(self)
    }

    fn with_file(mut self, path: &Path) -> Result<Self, ConfigError> {
        let (from_file, lines) = file_layer(path)?;
        for (key, value) in leaves(&from_file) {
            let origin = at_line(path, lines.get(&key).copied());
            check_known(&key, &self.defaults, &key, &origin)?;
            self = self.set(&key, value, &origin)?;
        }
        Ok(self)
    }

    fn with_variable(self, name: &str, value: String) -> Result<Self, ConfigError> {
        match environment_key(name) {
            Some(key) => {
                check_known(&key, &self.defaults, name, "the environment")?;
                self.set(&key, value.into(), name)
            }
            None => check_underscores(name, &self.defaults).map(|()| self),
        }
    }
}

/// Combines the layers, checks the keys, and gives each value the kind of its default.
pub(super) fn layers(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<(Layers, Origins), ConfigError> {
    let mut builder = Builder::new()?;
    if let Some(path) = file {
        builder = builder.with_file(path)?;
    }
    // Sorted, so that the same error is reported each time.
    for (name, value) in environment.collect::<BTreeMap<_, _>>() {
        builder = builder.with_variable(&name, value)?;
    }
    for (key, value) in overrides {
        builder = builder.set(key, value.as_str().into(), "the command line")?;
    }
    Ok((builder.layers.build()?, builder.origins))
}

/// Converts the layers to the typed configuration, checks it, and reads secrets from their files.
pub(super) fn typed(layers: Layers, origins: &Origins) -> Result<Config, ConfigError> {
    let origin = |key: &str| origins.get(key).cloned().unwrap_or_else(|| "the defaults".to_owned());
    let is_default = |key: &str| !origins.contains_key(key);
    let values = leaves(&layers);
    let refused =
        |key: &str, allowed| refused(key, values.get(key).unwrap_or(&ValueKind::Nil), origin(key), allowed);
    let mut config: Config = match layers.try_deserialize() {
        Ok(config) => config,
        Err(error) => {
            let (key, allowed) = explain(error, &values)?;
            return Err(refused(&key, allowed));
        }
    };
    check(&config).map_err(|Refusal { key, allowed }| refused(key, allowed))?;
    let database = &mut config.database;
    database.url_origin = origin(DATABASE_URL);
    database.url_is_default = is_default(DATABASE_URL) && database.url_file.is_none();
    if let Some(path) = &database.url_file {
        database.url = read_secret(DATABASE_URL_FILE, path)?;
    }
    database_url::check(database.url.expose_secret(), &database.url_origin())?;
    let mut password_origin = origin(DATABASE_PASSWORD);
    if let Some(path) = &database.password_file {
        database.password = read_secret(DATABASE_PASSWORD_FILE, path)?;
        password_origin = file_origin(DATABASE_PASSWORD_FILE, path);
    }
    refuse_hidden(&database.password, DATABASE_PASSWORD, password_origin)?;
    database.check_login(&database.url, database.url_origin())?;
    let kafka = &mut config.broker.kafka;
    let mut password_origin = origin(SASL_PASSWORD);
    if let Some(path) = &kafka.sasl_password_file {
        kafka.sasl_password = read_secret(SASL_PASSWORD_FILE, path)?;
        password_origin = file_origin(SASL_PASSWORD_FILE, path);
    }
    refuse_hidden(&kafka.sasl_password, SASL_PASSWORD, password_origin)?;
    Ok(config)
}

/// Returns the key of a value that its type refuses, and the allowed values. The readers in [`super::values`] name them in
/// the error; the library alone checks the range of whole numbers.
fn explain(
    error: config::ConfigError,
    values: &BTreeMap<String, ValueKind>,
) -> Result<(String, String), config::ConfigError> {
    match error {
        config::ConfigError::At { error, key: Some(key), .. } => Ok((key, error.to_string())),
        config::ConfigError::Type { key: Some(key), .. } => {
            let is_negative = matches!(values.get(&key), Some(ValueKind::I64(..0)));
            Ok((key, if is_negative { "0 or more" } else { "a smaller number" }.to_owned()))
        }
        other => Err(other),
    }
}

fn refused(key: &str, value: &ValueKind, origin: String, allowed: String) -> ConfigError {
    let value = match value {
        _ if SECRETS.contains(&key) => HIDDEN.to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    ConfigError::Value { key: key.to_owned(), value, origin, allowed }
}

fn refuse_hidden(secret: &SecretString, key: &'static str, origin: String) -> Result<(), ConfigError> {
    match secret.expose_secret() {
        HIDDEN => Err(ConfigError::HiddenSecret { key, origin }),
        _ => Ok(()),
    }
}

fn layer(text: &str) -> Result<Layers, config::ConfigError> {
    Layers::builder().add_source(File::from_str(text, FileFormat::Toml)).build()
}

/// Reads a file, and finds the line of each key.
fn file_layer(path: &Path) -> Result<(Layers, HashMap<String, usize>), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        origin: at_line(path, error.span().map(|span| line_of(&text, span.start))),
        problem: error.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let mut lines = HashMap::new();
    collect_lines(table.get_ref(), "", &text, &mut lines);
    Ok((layer(&text)?, lines))
}

fn collect_lines(table: &DeTable<'_>, path: &str, text: &str, lines: &mut HashMap<String, usize>) {
    for (name, value) in table {
        let key = joined(path, name.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            collect_lines(inner, &key, text, lines);
        }
        lines.insert(key, line_of(text, name.span().start));
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn at_line(path: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

/// Returns the key of a variable: `database.url` for `LEDGER_DATABASE__URL`. Names without the two underscores are
/// variables of flags.
fn environment_key(name: &str) -> Option<String> {
    let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?;
    rest.contains(SECTION_SEPARATOR).then(|| rest.to_ascii_lowercase().replace(SECTION_SEPARATOR, "."))
}

fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.to_ascii_uppercase().replace('.', SECTION_SEPARATOR))
}

/// Refuses a variable that would be a key if its underscores were right. It would be ignored otherwise.
fn check_underscores(name: &str, known: &BTreeMap<String, ValueKind>) -> Result<(), ConfigError> {
    let squeezed = |text: &str| text.to_ascii_lowercase().replace(['.', '_'], "");
    let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX).map(squeezed) else { return Ok(()) };
    match known.keys().find(|key| squeezed(key) == rest) {
        Some(key) if !FLAG_VARIABLES.contains(&name) => Err(ConfigError::UnknownKey {
            key: name.to_owned(),
            from: "the environment".to_owned(),
            suggestion: format!("; did you mean {}?", variable(key)),
        }),
        _ => Ok(()),
    }
}

fn check_known(
    key: &str,
    known: &BTreeMap<String, ValueKind>,
    written: &str,
    from: &str,
) -> Result<(), ConfigError> {
    if known.contains_key(key) {
        return Ok(());
    }
    let similarity = |known: &String| strsim::jaro_winkler(known, key);
    let nearest = known.keys().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let spelled = |nearest: &String| match written.starts_with(ENVIRONMENT_PREFIX) {
        true => variable(nearest),
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

/// Returns the keys that have values, `section.key`.
fn leaves(layers: &Layers) -> BTreeMap<String, ValueKind> {
    let mut found = BTreeMap::new();
    collect_leaves(&layers.cache, "", &mut found);
    found
}

fn collect_leaves(value: &Value, path: &str, found: &mut BTreeMap<String, ValueKind>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, inner) in table {
                collect_leaves(inner, &joined(path, name), found);
            }
        }
        kind => {
            found.insert(path.to_owned(), kind.clone());
        }
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
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
    fn a_url_that_was_not_set_is_known_as_the_default() {
        let is_default = |variables: &[(&str, &str)]| {
            let config = load(None, environment(variables), &Overrides::new()).expect("valid");
            config.database.url_is_default
        };
        assert!(is_default(&[]));
        assert!(!is_default(&[("LEDGER_DATABASE__URL", "postgres://localhost/ledger")]));
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

    fn error_of(name: &str, value: &str) -> String {
        load(None, environment(&[(name, value)]), &Overrides::new()).expect_err(name).to_string()
    }

    /// The library alone rounds a fraction, and takes `true` for one writer.
    #[test]
    fn an_invalid_value_is_refused_with_its_key_its_origin_and_what_is_allowed() {
        for (name, value, allowed) in [
            ("LEDGER_SERVE__WRITERS", "0", "at least 1"),
            ("LEDGER_SERVE__WRITERS", "33", "at most 32"),
            ("LEDGER_SERVE__WRITERS", "-1", "0 or more"),
            ("LEDGER_SERVE__WRITERS", "2.7", "a whole number"),
            ("LEDGER_SERVE__WRITERS", "true", "a whole number"),
            ("LEDGER_SERVE__RATE_LIMIT", "5000000000", "a smaller number"),
            ("LEDGER_SERVE__DOCS", "maybe", "true or false"),
            ("LEDGER_SERVE__LISTEN", "localhost:8080", "an IP address and a port"),
            ("LEDGER_SERVE__QUEUE_SIZE_MAX", "0", "at least 1"),
            ("LEDGER_SERVE__CORS_ORIGINS", "https://a.example, *", "\"*\" is none"),
            ("LEDGER_SERVE__CORS_ORIGINS", "https://a.example/", "a list of exact origins"),
            ("LEDGER_SERVE__CORS_ORIGINS", "https://a.example:443", "a list of exact origins"),
            ("LEDGER_SERVE__CORS_ORIGINS", "null", "a list of exact origins"),
            ("LEDGER_SERVE__CLIENT_TIMEOUT", "0s", "more than zero"),
            ("LEDGER_SERVE__REQUEST_TIMEOUT", "5 minuets", "a duration such as 250ms, 15s or 5m"),
            ("LEDGER_DATABASE__SCHEMA", "", "a plain identifier"),
            ("LEDGER_DATABASE__SCHEMA", "pg_temp", "a plain identifier"),
            ("LEDGER_DATABASE__SCHEMA", "a\", public", "a plain identifier"),
            ("LEDGER_DATABASE__STATEMENT_TIMEOUT", "0s", "more than zero"),
            ("LEDGER_RELAY__LEASE_TTL", "1ms", "at least 1s"),
            ("LEDGER_RELAY__POLL_INTERVAL_MIN", "0s", "more than zero"),
            ("LEDGER_ADMIN__LISTEN", "nine", "off, or an IP address and a port"),
            ("LEDGER_BROKER__KIND", "rabbit", "one of: postgres, kafka"),
            ("LEDGER_BROKER__TOPICS__REPLICATION_FACTOR", "0", "at least 1"),
            ("LEDGER_BROKER__KAFKA__COMPRESSION", "lzma", "one of: none, gzip, snappy, lz4, zstd"),
            (
                "LEDGER_BROKER__KAFKA__SASL_MECHANISM",
                "gssapi",
                "one of: empty, plain, scram-sha-256, scram-sha-512",
            ),
            ("LEDGER_LOG__FILTER", "ledger=loud", "a log filter such as"),
            ("LEDGER_LOG__FORMAT", "xml", "one of: text, json"),
        ] {
            let key = environment_key(name).expect("a key");
            let (error, shown) = (error_of(name, value), format!("{value:?}"));
            assert!(
                error.starts_with(&format!("{key} is {shown} in {name}, but must be "))
                    || error.starts_with(&format!("{key} is {value} in {name}, but must be ")),
                "{error}"
            );
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn a_wrong_address_of_kafka_is_refused_if_kafka_is_used() {
        let servers = ("LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS", "kafka-1:9092,kafka-2");
        load(None, environment(&[servers]), &Overrides::new()).expect("the topics are in PostgreSQL");
        let kafka = [servers, ("LEDGER_BROKER__KIND", "kafka")];
        let error = load(None, environment(&kafka), &Overrides::new()).expect_err("refused").to_string();
        assert!(error.contains(servers.0) && error.contains("\"kafka-2\" is none"), "{error}");
    }

    #[test]
    fn every_key_of_the_defaults_names_its_origin_when_it_is_wrong() {
        let defaults = leaves(&layer(DEFAULTS).expect("valid"));
        assert!(defaults.len() > 60, "the keys were found");
        for (key, default) in defaults {
            let (section, name) = key.rsplit_once('.').expect("a section");
            let mut file = tempfile::NamedTempFile::new().expect("file");
            std::io::Write::write_all(&mut file, format!("\n[{section}]\n{name} = [1]\n").as_bytes())
                .expect("written");
            let error =
                load(Some(file.path()), environment(&[]), &Overrides::new()).expect_err(&key).to_string();
            assert!(error.contains(&format!("{}:3, but must be ", file.path().display())), "{error}");
            if !matches!(default, ValueKind::String(_)) {
                assert!(error_of(&variable(&key), "x").contains(&variable(&key)), "{key}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_in_one_line_with_the_line_of_the_file() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        std::io::Write::write_all(&mut file, b"[serve]\nwriters = 2\nlisten = 127.0.0.1:80\n")
            .expect("written");
        let error = load(Some(file.path()), environment(&[]), &Overrides::new()).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains(&format!("{}:3 is not valid TOML", file.path().display())), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }

    /// Names without two underscores belong to flags, so such a variable would be ignored.
    #[test]
    fn a_variable_with_a_missing_underscore_is_refused() {
        for (name, suggestion) in [
            ("LEDGER_DATABASE_URL", "LEDGER_DATABASE__URL"),
            ("LEDGER_BROKER_KAFKA_TLS", "LEDGER_BROKER__KAFKA__TLS"),
        ] {
            let error = error_of(name, "x");
            assert!(
                error.contains(name) && error.ends_with(&format!("did you mean {suggestion}?")),
                "{error}"
            );
        }
        for name in ["LEDGER_PORT", "LEDGER_CONSUME_RISK_GROUP", "LEDGERDATABASEURL"] {
            load(None, environment(&[(name, "x")]), &Overrides::new()).expect(name);
        }
    }
}
