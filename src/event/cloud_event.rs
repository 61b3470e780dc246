//! CloudEvents 1.0 attributes as record headers (Kafka protocol binding, binary content mode), and headers as the
//! JSON that the database keeps.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::EVENT_TYPES;
use crate::domain::format_moment;

/// Record headers in order; values are bytes, names may repeat. Most are the same for every event, and nothing is
/// allocated for those.
pub type Headers = Vec<(Cow<'static, str>, Cow<'static, [u8]>)>;

const SOURCE: &[u8] = b"/ledger";
const NAMES: [&str; 7] =
    ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "content-type", "traceparent"];

/// A header's name as it is kept.
pub fn header_name(name: &str) -> Cow<'static, str> {
    let known = NAMES.into_iter().find(|known| *known == name);
    known.map_or_else(|| name.to_owned().into(), Cow::Borrowed)
}

/// The headers of one of our own events.
pub fn cloud_event_headers(
    event_id: Uuid,
    event_type: &str,
    time: DateTime<Utc>,
    traceparent: Option<&str>,
) -> Headers {
    let known_type = EVENT_TYPES.into_iter().find(|known| *known == event_type);
    let event_type =
        known_type.map_or_else(|| event_type.to_owned().into_bytes().into(), |known| known.as_bytes().into());
    let mut headers: Headers = vec![
        ("ce_specversion".into(), b"1.0".into()),
        ("ce_id".into(), event_id.to_string().into_bytes().into()),
        ("ce_type".into(), event_type),
        ("ce_source".into(), SOURCE.into()),
        ("ce_time".into(), format_moment(time).into_bytes().into()),
        ("content-type".into(), b"application/json".into()),
    ];
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent".into(), traceparent.as_bytes().to_vec().into()));
    }
    headers
}

/// The first header of that name, if it is text.
pub fn attribute<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(known, _)| known == name)?;
    std::str::from_utf8(value).ok()
}

/// Headers as a JSON array of `[name, base64 value]`, for a database column: any bytes survive.
pub fn headers_to_json(headers: &Headers) -> serde_json::Value {
    headers.iter().map(|(name, value)| serde_json::json!([name, STANDARD.encode(value)])).collect()
}

/// The reverse of [`headers_to_json`]; None if the JSON is not of that shape.
pub fn headers_from_json(json: &serde_json::Value) -> Option<Headers> {
    json.as_array()?
        .iter()
        .map(|pair| {
            let name = pair.get(0)?.as_str()?;
            let value = STANDARD.decode(pair.get(1)?.as_str()?).ok()?;
            Some((header_name(name), value.into()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_database_byte_for_byte() {
        let headers: Headers =
            vec![("a".into(), vec![0, 255, 7].into()), ("a".into(), b"".into()), ("ü".into(), b"x".into())];
        assert_eq!(headers_from_json(&headers_to_json(&headers)), Some(headers));
        assert_eq!(headers_from_json(&serde_json::json!([["a"]])), None);
    }
}
