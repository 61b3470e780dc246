//! Reads the value of one key: from the kind that a layer gives it to the kind of its default, and from text to its type.
//!
//! Each error is the end of the sentence "… must be", so that [`super::ConfigError::Value`] has one form for all keys.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use config::ValueKind;
use serde::{Deserialize, Deserializer, de::Error as _};

/// An example for every address.
const ADDRESS: &str = "an IP address and a port, such as 127.0.0.1:8080";

/// Converts a value to the kind of its default. The environment has only texts, and a file may have a number in quotes.
pub(super) fn to_kind_of(default: &ValueKind, value: ValueKind) -> Result<ValueKind, &'static str> {
    match (default, value) {
        (ValueKind::Boolean(_), value) => to_boolean(&value).ok_or("true or false (or yes, no, 1, 0)"),
        (ValueKind::I64(_), ValueKind::I64(number)) => Ok(ValueKind::I64(number)),
        (ValueKind::I64(_), ValueKind::String(text)) => {
            text.parse().map(ValueKind::I64).map_err(|_| "a whole number")
        }
        (ValueKind::I64(_), _) => Err("a whole number"),
        (_, ValueKind::Array(_) | ValueKind::Table(_)) => Err("one text in quotation marks"),
        (_, value) => Ok(ValueKind::String(value.to_string())),
    }
}

fn to_boolean(value: &ValueKind) -> Option<ValueKind> {
    match value.to_string().to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(ValueKind::Boolean(true)),
        "false" | "no" | "off" | "0" => Some(ValueKind::Boolean(false)),
        _ => None,
    }
}

/// Reads a duration.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| D::Error::custom("a duration such as 250ms, 15s or 5m"))
}

/// Reads an address to listen on.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom(ADDRESS))
}

/// Reads a path. An empty text means no path.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Reads a list.
pub(super) fn comma_separated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// Reads a name, and returns its value in the list.
pub(super) fn one_of<'de, D: Deserializer<'de>, T: Copy>(
    deserializer: D,
    values: &[(&str, T)],
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let found = values.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> =
            values.iter().map(|(name, _)| if name.is_empty() { "empty" } else { *name }).collect();
        D::Error::custom(format!("one of: {}", names.join(", ")))
    })
}

/// The address of a listener that may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// No listener.
    Off,
    /// A listener on this address.
    On(SocketAddr),
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::On).map_err(|_| format!("off, or {ADDRESS}")),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::On(address) => address.fmt(formatter),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_kind_of_its_default() {
        let (number, boolean, text) =
            (ValueKind::I64(2), ValueKind::Boolean(true), ValueKind::String(String::new()));
        let string = |text: &str| ValueKind::String(text.to_owned());
        for (default, value, converted) in [
            (&number, string("7"), Some(ValueKind::I64(7))),
            (&number, ValueKind::I64(7), Some(ValueKind::I64(7))),
            (&number, string("seven"), None),
            (&number, string(""), None),
            (&number, ValueKind::Float(2.7), None),
            (&number, ValueKind::Boolean(true), None),
            (&boolean, string("Yes"), Some(ValueKind::Boolean(true))),
            (&boolean, string("0"), Some(ValueKind::Boolean(false))),
            (&boolean, ValueKind::I64(1), Some(ValueKind::Boolean(true))),
            (&boolean, ValueKind::I64(2), None),
            (&boolean, string(""), None),
            (&text, ValueKind::I64(5), Some(string("5"))),
            (&text, ValueKind::Array(Vec::new()), None),
        ] {
            assert_eq!(to_kind_of(default, value.clone()).ok(), converted, "{value:?}");
        }
    }
}
