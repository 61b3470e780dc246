//! JSON Schemas (draft 2020-12) of the values of events, for consumers of other teams.
//!
//! Unknown properties are allowed everywhere, so that a new optional field keeps the version.
//! Deliberately absent: validation of events at run time. The types can write nothing else; the test
//! `a_schema_names_exactly_the_fields_of_its_type` compares them with the schemas.

use serde_json::Value;

use super::{RISK_ASSESSED, TRANSACTION_CREATED};

const DOCUMENT: &str = include_str!("events.schema.json");

/// The event types.
pub const EVENT_TYPES: [&str; 2] = [TRANSACTION_CREATED, RISK_ASSESSED];

/// The definitions that the schema of `RiskAssessed` refers to.
const PARTS_OF_RISK_ASSESSED: [&str; 3] = ["Reason", "RuleError", "RuleSuppressed"];

/// Returns the schemas of all event types as one document.
pub fn schemas() -> Result<Value, serde_json::Error> {
    serde_json::from_str(DOCUMENT)
}

/// Returns the document of one event type, or `None` for an unknown type.
pub fn schema(event_type: &str) -> Result<Option<Value>, serde_json::Error> {
    let mut document = schemas()?;
    let is_known = EVENT_TYPES.contains(&event_type);
    if let (true, Some(fields)) = (is_known, document.as_object_mut()) {
        fields.remove("oneOf");
        fields.insert("title".into(), event_type.into());
        fields.insert("$id".into(), format!("urn:ledger:events:{event_type}").into());
        fields.insert("$ref".into(), format!("#/$defs/{event_type}").into());
        if let Some(definitions) = fields.get_mut("$defs").and_then(Value::as_object_mut) {
            let is_part = |name: &str| event_type == RISK_ASSESSED && PARTS_OF_RISK_ASSESSED.contains(&name);
            definitions.retain(|name, _| name == event_type || is_part(name));
        }
    }
    Ok(is_known.then_some(document))
}
