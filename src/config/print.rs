//! Prints the configuration in effect as documented TOML: the text of the defaults with the current values. After its
//! secrets are filled in, the output works as a `--config` file.

use std::path::Path;

use config::Config as Layers;

use super::{
    ConfigError, DEFAULTS, Overrides,
    database_url::{HIDDEN, hide},
    load::{layers, typed},
    secret::{DATABASE_URL, SECRETS},
};

/// Loads and checks the configuration like [`super::load()`], and returns it as TOML with hidden secrets.
pub fn print(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<String, ConfigError> {
    let (layers, origins) = layers(file, environment, overrides)?;
    typed(layers.clone(), &origins)?;
    let mut section = "";
    let mut text = String::with_capacity(DEFAULTS.len());
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        text.push_str(&in_effect(line, section, &layers));
        text.push('\n');
    }
    Ok(text)
}

/// Returns the line with the current value, or unchanged if it has no key.
fn in_effect(line: &str, section: &str, layers: &Layers) -> String {
    let Some((name, default)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
        return line.to_owned();
    };
    let key = format!("{section}.{name}");
    let Ok(value) = layers.get_string(&key) else { return line.to_owned() };
    let value = match key.as_str() {
        DATABASE_URL => hide(&value),
        // A password may look like a URL.
        key if SECRETS.contains(&key) && !value.is_empty() => HIDDEN.to_owned(),
        _ => value,
    };
    // A quoted default is text. Other values were converted to numbers or booleans.
    let value = if default.starts_with('"') { toml::Value::String(value).to_string() } else { value };
    format!("{name} = {value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn set(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let owned: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        owned.into_iter()
    }

    #[test]
    fn the_output_has_the_values_in_effect_and_loads_again() {
        let changed = [
            ("LEDGER_SERVE__WRITERS", "5"),
            ("LEDGER_BROKER__KAFKA__CLIENT_ID", "the \"first\""),
            ("LEDGER_RELAY__LEASE_TTL", "7s"),
            ("LEDGER_BROKER__CREATE_TOPICS", "no"),
        ];
        let printed = print(None, set(&changed), &Overrides::new()).expect("valid");
        for line in ["writers = 5", "lease_ttl = \"7s\"", "create_topics = false"] {
            assert!(printed.lines().any(|printed| printed == line), "{line} in\n{printed}");
        }
        let mut file = tempfile::NamedTempFile::new().expect("file");
        std::io::Write::write_all(&mut file, printed.as_bytes()).expect("written");
        let mut again = load(Some(file.path()), set(&[]), &Overrides::new()).expect("loads");
        let first = load(None, set(&changed), &Overrides::new()).expect("loads");
        again.database.url_origin.clone_from(&first.database.url_origin);
        again.database.url_is_default = first.database.url_is_default;
        assert_eq!(format!("{again:?}"), format!("{first:?}"));
    }

    #[test]
    fn the_defaults_are_printed_unchanged() {
        assert_eq!(print(None, set(&[]), &Overrides::new()).expect("valid"), DEFAULTS);
    }

    #[test]
    fn secrets_are_hidden() {
        for secrets in [
            [
                ("LEDGER_DATABASE__URL", "postgres://u:hunter2@db/l"),
                ("LEDGER_BROKER__KAFKA__SASL_PASSWORD", "hunter2"),
            ],
            [("LEDGER_DATABASE__URL", "postgres://db/l"), ("LEDGER_DATABASE__PASSWORD", "hunter2@")],
            [("LEDGER_DATABASE__USER", "u"), ("LEDGER_DATABASE__PASSWORD", "a://hunter2")],
        ] {
            assert!(!print(None, set(&secrets), &Overrides::new()).expect("valid").contains("hunter2"));
        }
        let fields = include_str!("sections.rs").matches(": SecretString,").count();
        assert_eq!(fields, SECRETS.len(), "a secret field that is not in SECRETS would be printed");
    }
}
