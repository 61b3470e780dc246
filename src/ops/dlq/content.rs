//! Makes the bytes of untrusted records readable. They stay unchanged, except for characters that control a terminal.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

/// Returns the text with escapes for characters that control a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => printable.push('\n'),
            '\t' => printable.push('\t'),
            character if is_unsafe(character) => printable.extend(character.escape_unicode()),
            character => printable.push(character),
        }
    }
    printable
}

/// Returns whether this is a control character or changes the direction of text.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns JSON with one line per value, other text unchanged, and other bytes as base64. No value (null in Kafka, which
/// is a tombstone) differs from an empty one.
pub(super) fn readable(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "(null)".to_owned() };
    match std::str::from_utf8(bytes) {
        Ok("") => "(empty)".to_owned(),
        Ok(text) if is_json(text) => printable(&indented(text)),
        Ok(text) if text.chars().all(|character| !character.is_control() || character.is_whitespace()) => {
            printable(text)
        }
        _ => format!("base64:{}", STANDARD.encode(bytes)),
    }
}

/// Bytes in JSON output: as JSON, text or base64.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Content {
    /// An unchanged JSON object or array.
    Json(Box<RawValue>),
    /// Other UTF-8 text.
    Text(String),
    /// Other bytes.
    Base64(String),
}

impl Content {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else { return Self::Base64(STANDARD.encode(bytes)) };
        match serde_json::from_str(text) {
            Ok(raw) if text.trim_start().starts_with(['{', '[']) => Self::Json(raw),
            _ => Self::Text(text.to_owned()),
        }
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Indents valid JSON. Works on the text, so numbers and repeated names stay unchanged.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut characters = json.chars().filter({
        let (mut in_string, mut escaped) = (false, false);
        move |character| {
            let keep = in_string || !character.is_whitespace();
            (in_string, escaped) = step(in_string, escaped, *character);
            keep
        }
    });
    let mut next = characters.next();
    while let Some(character) = next {
        next = characters.next();
        let outside = !in_string;
        (in_string, escaped) = step(in_string, escaped, character);
        match character {
            '{' | '[' if outside && !matches!(next, Some('}' | ']')) => {
                depth += 1;
                out.push(character);
                new_line(&mut out, depth);
            }
            '}' | ']' if outside && !out.ends_with(['{', '[']) => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(character);
            }
            ',' if outside => {
                out.push(character);
                new_line(&mut out, depth);
            }
            ':' if outside => out.push_str(": "),
            character => out.push(character),
        }
    }
    out
}

/// Returns whether the next character is inside a string, and whether it is escaped.
fn step(in_string: bool, escaped: bool, character: char) -> (bool, bool) {
    match character {
        _ if escaped => (in_string, false),
        '\\' if in_string => (true, true),
        '"' => (!in_string, false),
        _ => (in_string, false),
    }
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    (0..depth).for_each(|_| out.push_str("  "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_unchanged() {
        let text = r#" {"a":[1.10,{ },[]], "b" : "x, [y]: \"{z}\\" ,"a":1e999} "#;
        let expected = "{\n  \"a\": [\n    1.10,\n    {},\n    []\n  ],\n  \"b\": \"x, [y]: \\\"{z}\\\\\",\n  \"a\": 1e999\n}";
        assert_eq!(indented(text), expected);
        assert_eq!(readable(Some(b"[]")), "[]");
    }

    #[test]
    fn bytes_are_base64_and_control_characters_are_escaped() {
        assert_eq!((readable(None), readable(Some(b""))), ("(null)".into(), "(empty)".into()));
        assert_eq!(readable(Some(&[0xff, 0])), "base64:/wA=");
        assert_eq!(readable(Some(b"\x1b[31mred")), "base64:G1szMW1yZWQ=");
        assert_eq!(readable(Some("\"\u{9b}31m\u{202e}\"".as_bytes())), "\"\\u{9b}31m\\u{202e}\"");
        assert_eq!(readable(Some("plain\ttext".as_bytes())), "plain\ttext");
    }

    #[test]
    fn json_output_keeps_the_bytes() {
        let as_json = |bytes: &[u8]| serde_json::to_string(&Content::of(bytes)).expect("json");
        assert_eq!(as_json(br#"{"n":1.10}"#), r#"{"json":{"n":1.10}}"#);
        assert_eq!(as_json(b"acct-1"), r#"{"text":"acct-1"}"#);
        assert_eq!(as_json(b"17"), r#"{"text":"17"}"#);
        assert_eq!(as_json(&[0xff]), r#"{"base64":"/w=="}"#);
    }
}
