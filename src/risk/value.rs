//! A value while a condition is evaluated.

use std::borrow::Cow;

use serde_json::Value as Json;

/// A value. Numbers have 128 bits, so that products of two amounts do not overflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A missing entry of metadata, or one whose type does not fit. Comparisons with it are false.
    Null,
    /// A number, money in minor units, or seconds.
    Integer(i128),
    Text(Cow<'a, str>),
    Truth(bool),
    List(Vec<Self>),
    /// All entries of metadata.
    Metadata,
}

impl<'a> Value<'a> {
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// Returns an entry of metadata. The ledger stores texts, whole numbers and truth values.
    pub fn of_entry(entry: Option<&'a Json>) -> Self {
        match entry {
            Some(Json::String(text)) => Self::text(text),
            Some(Json::Bool(truth)) => Self::Truth(*truth),
            Some(Json::Number(number)) => {
                number.as_i64().map_or(Self::Null, |number| Self::Integer(number.into()))
            }
            _ => Self::Null,
        }
    }

    /// Returns whether a condition with this value is true. Null is false.
    pub fn is_true(&self) -> bool {
        *self == Self::Truth(true)
    }

    /// Returns the name of the type, as `type()` does.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Integer(_) => "int",
            Self::Text(_) => "string",
            Self::Truth(_) => "bool",
            Self::List(_) => "list",
            Self::Metadata => "map",
        }
    }
}

/// Returns the text with each letter in lower case, whatever letters are beside it.
pub(super) fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}
