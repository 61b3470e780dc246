//! Explains why a body was refused: either it is malformed, or it has fields with wrong values, which are all reported at
//! once. It runs for refused bodies only, so clarity matters more than speed.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::super::problem::{FieldProblem, Problem, ProblemKind};
use crate::domain::{
    AccountId, Amount, AmountError, COUNTERPARTY_LENGTH_MAX, Currency, DESCRIPTION_LENGTH_MAX, Direction,
    IdempotencyKey, Metadata, bounded_text, parse_minor,
};

/// A JSON object without repeated names. A plain map would silently keep the last value.
#[derive(Debug)]
pub(super) struct UniqueObject(pub(super) BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for UniqueObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor;
        impl<'de> de::Visitor<'de> for UniqueVisitor {
            type Value = UniqueObject;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<UniqueObject, A::Error> {
                let mut unique = BTreeMap::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if unique.contains_key(&name) {
                        return Err(de::Error::custom(format_args!("{REPEATED} `{name}`")));
                    }
                    unique.insert(name, value);
                }
                Ok(UniqueObject(unique))
            }
        }
        deserializer.deserialize_map(UniqueVisitor)
    }
}

/// The start of serde's message about a name that is repeated in a struct. [`UniqueObject`] uses the same words.
const REPEATED: &str = "duplicate field";

/// The location of the idempotency key in a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyLocation {
    /// In the header of a single request.
    Header,
    /// In a field of an item of a batch.
    Item,
}

/// Explains why the body of a posting was refused.
pub(super) fn transaction(body: &[u8], error: Option<&serde_json::Error>, key: KeyLocation) -> Problem {
    let mut fields = match Fields::of(body, error) {
        Ok(fields) => fields,
        Err(malformed) => return malformed,
    };
    if key == KeyLocation::Item {
        fields.required("idempotency_key", IdempotencyKey::parse);
    } else if fields.object.remove("idempotency_key").is_some() {
        fields.add_error(
            "idempotency_key",
            "is not a field of a single transaction; send it as the header Idempotency-Key",
        );
    }
    fields.required("account_id", AccountId::parse);
    fields.required("direction", Direction::parse);
    fields.amount();
    fields.optional("counterparty", |text| bounded_text(text, COUNTERPARTY_LENGTH_MAX));
    fields.optional("description", |text| bounded_text(text, DESCRIPTION_LENGTH_MAX));
    match fields.object.remove("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(entries)) => {
            if let Err(error) = Metadata::from_json(&entries.into_iter().collect()) {
                fields.add_error("metadata", error);
            }
        }
        Some(_) => fields.add_error("metadata", "must be an object"),
    }
    fields.problem(error)
}

/// Explains why the body of a batch was refused. Its items are not checked here.
pub(super) fn batch(body: &[u8], error: &serde_json::Error) -> Problem {
    let mut fields = match Fields::of(body, Some(error)) {
        Ok(fields) => fields,
        Err(malformed) => return malformed,
    };
    match fields.object.remove("transactions") {
        None => fields.add_error("transactions", "is required"),
        Some(Value::Array(_)) => {}
        Some(_) => fields.add_error("transactions", "must be an array of transactions"),
    }
    fields.problem(Some(error))
}

/// Returns a problem if a body is not an empty object.
pub(super) fn empty(body: &[u8]) -> Result<(), Problem> {
    let fields = Fields::of(body, None)?;
    if fields.object.is_empty() { Ok(()) } else { Err(fields.problem(None)) }
}

/// Explains why the path or body of `PUT /accounts/{id}` was refused.
pub(super) fn account_terms(account_id: &str, body: &[u8], error: Option<&serde_json::Error>) -> Problem {
    let mut fields = match Fields::of(body, error) {
        Ok(fields) => fields,
        Err(malformed) => return malformed,
    };
    if let Err(error) = AccountId::parse(account_id) {
        fields.add_error("account_id", error);
    }
    let limit = |currency: Option<Currency>| {
        move |text: &str| match currency {
            Some(currency) => parse_minor(text, currency).map(drop),
            None => Ok(()),
        }
    };
    let currency = fields.required("currency", Currency::parse);
    match fields.object.get("min_balance") {
        Some(Value::Number(_)) => {
            fields.object.remove("min_balance");
            fields.add_error("min_balance", NOT_EXACT);
        }
        _ => drop(fields.optional("min_balance", limit(currency))),
    }
    fields.problem(error)
}

const NOT_EXACT: &str = "must be a decimal string such as \"125.50\", because JSON numbers are not exact";

/// The fields that are not checked yet, and the errors found so far.
struct Fields {
    object: BTreeMap<String, Value>,
    errors: Vec<FieldProblem>,
}

impl Fields {
    /// Parses the object in a body, or returns why the body is malformed.
    fn of(body: &[u8], error: Option<&serde_json::Error>) -> Result<Self, Problem> {
        let malformed = |detail: String| Problem::new(ProblemKind::Malformed, detail);
        if body.is_empty() {
            return Err(malformed("the body is empty; send a JSON object".into()));
        }
        if std::str::from_utf8(body).is_err() {
            return Err(malformed("the body is not UTF-8".into()));
        }
        let is_object = match serde_json::from_slice::<Value>(body) {
            Ok(value) => value.is_object(),
            Err(error) => return Err(malformed(format!("the body is not valid JSON: {error}"))),
        };
        if !is_object {
            return Err(malformed("the body must be a JSON object".into()));
        }
        // Only the strict parse detects a repeated name in `metadata`.
        let repeated = error.filter(|error| error.to_string().starts_with(REPEATED));
        if let Some(error) = repeated {
            return Err(malformed(format!("the body is not valid: {error}")));
        }
        match serde_json::from_slice::<UniqueObject>(body) {
            Ok(UniqueObject(object)) => Ok(Self { object, errors: Vec::new() }),
            Err(error) => Err(malformed(format!("the body is not valid: {error}"))),
        }
    }

    fn add_error(&mut self, field: &str, message: impl ToString) {
        self.errors.push(FieldProblem { field: field.into(), message: message.to_string() });
    }

    fn required<T, E: fmt::Display>(
        &mut self,
        field: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.object.contains_key(field) {
            return self.text(field, parse);
        }
        self.add_error(field, "is required");
        None
    }

    /// Checks an optional field; null means absent.
    fn optional<T, E: fmt::Display>(
        &mut self,
        field: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if matches!(self.object.get(field), None | Some(Value::Null)) {
            self.object.remove(field);
            return None;
        }
        self.text(field, parse)
    }

    fn text<T, E: fmt::Display>(
        &mut self,
        field: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match self.object.remove(field) {
            Some(Value::String(text)) => match parse(&text) {
                Ok(value) => return Some(value),
                Err(error) => self.add_error(field, error),
            },
            _ => self.add_error(field, "must be a string"),
        }
        None
    }

    /// Checks the currency and the amount. Without a valid currency the number of decimals cannot be checked, but a text
    /// that is not an amount in any currency is still reported.
    fn amount(&mut self) {
        let currency = self.required("currency", Currency::parse_active);
        if matches!(self.object.get("amount"), Some(Value::Number(_))) {
            self.object.remove("amount");
            return self.add_error("amount", NOT_EXACT);
        }
        self.required("amount", |text| match (currency, Currency::parse(MOST_DECIMALS)) {
            (Some(currency), _) => Amount::parse(text, currency).map(drop),
            (None, Ok(any)) => match Amount::parse(text, any) {
                Err(error @ (AmountError::Malformed | AmountError::NotPositive)) => Err(error),
                _ => Ok(()),
            },
            (None, Err(_)) => Ok(()),
        });
    }

    /// Returns the problem with all errors. The fields that were not taken out are unknown.
    fn problem(mut self, error: Option<&serde_json::Error>) -> Problem {
        for field in std::mem::take(&mut self.object).into_keys() {
            self.add_error(&field, "is not a known field");
        }
        if self.errors.is_empty() {
            // Only the strict parse found an error, so its message is the explanation.
            let why = error.map_or_else(|| "the server refused it".into(), ToString::to_string);
            return Problem::new(ProblemKind::Malformed, format!("the body is not valid: {why}"));
        }
        Problem::validation(self.errors)
    }
}

/// A currency with the largest number of decimals.
const MOST_DECIMALS: &str = "CLF";
