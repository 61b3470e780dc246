//! JSON Schemas (draft 2020-12) of the events' values, for consumers of other teams.
//!
//! Unknown properties are allowed everywhere: adding an optional field keeps a version. Deliberately absent: checking our
//! own events against them while running; the types that write them cannot write anything else, and tests hold the two
//! together.

use serde_json::Value;

use super::{RISK_ASSESSED, TRANSACTION_CREATED};

const DOCUMENT: &str = include_str!("events.schema.json");

/// The types that have a schema.
pub const EVENT_TYPES: [&str; 2] = [TRANSACTION_CREATED, RISK_ASSESSED];

/// All of them as one document.
pub fn schemas() -> Result<Value, serde_json::Error> {
    serde_json::from_str(DOCUMENT)
}

/// The document for one of [`EVENT_TYPES`]; None for any other.
pub fn schema(event_type: &str) -> Result<Option<Value>, serde_json::Error> {
    let mut document = schemas()?;
    let is_known = EVENT_TYPES.contains(&event_type);
    if let (true, Some(fields)) = (is_known, document.as_object_mut()) {
        fields.remove("oneOf");
        fields.insert("title".into(), event_type.into());
        fields.insert("$id".into(), format!("urn:ledger:events:{event_type}").into());
        fields.insert("$ref".into(), format!("#/$defs/{event_type}").into());
        if let Some(definitions) = fields.get_mut("$defs").and_then(Value::as_object_mut) {
            definitions
                .retain(|name, _| name == event_type || (event_type == RISK_ASSESSED && name == "Reason"));
        }
    }
    Ok(is_known.then_some(document))
}
