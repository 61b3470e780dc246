//! CloudEvents 1.0 attributes as record headers (Kafka protocol binding, binary content mode), and headers as the
//! JSON that the database keeps.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

/// Record headers in order; values are bytes, names may repeat.
pub type Headers = Vec<(String, Vec<u8>)>;

const SOURCE: &str = "/ledger";

/// The headers of one of our own events.
pub fn cloud_event_headers(
    event_id: Uuid,
    event_type: &str,
    time: DateTime<Utc>,
    traceparent: Option<&str>,
) -> Headers {
    let mut headers: Headers = vec![
        ("ce_specversion".into(), b"1.0".to_vec()),
        ("ce_id".into(), event_id.to_string().into_bytes()),
        ("ce_type".into(), event_type.as_bytes().to_vec()),
        ("ce_source".into(), SOURCE.as_bytes().to_vec()),
        ("ce_time".into(), time.to_rfc3339_opts(SecondsFormat::Micros, true).into_bytes()),
        ("content-type".into(), b"application/json".to_vec()),
    ];
    if let Some(traceparent) = traceparent {
        headers.push(("traceparent".into(), traceparent.as_bytes().to_vec()));
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
            Some((name.to_owned(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_database_byte_for_byte() {
        let headers: Headers =
            vec![("a".into(), vec![0, 255, 7]), ("a".into(), vec![]), ("ü".into(), b"x".to_vec())];
        assert_eq!(headers_from_json(&headers_to_json(&headers)), Some(headers));
        assert_eq!(headers_from_json(&serde_json::json!([["a"]])), None);
    }
}
