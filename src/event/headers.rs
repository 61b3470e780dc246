//! The headers of a record, in the encoding of Kafka's message format 2.
//!
//! The encoding is the length and the bytes of each name and value (KIP-82,
//! <https://kafka.apache.org/documentation/#recordheader>). Most headers are passed on unread, so they are decoded only on
//! demand, and a record in memory needs no allocation for each header.
//!
//! Guarantees: order is kept and names may repeat. Headers of other producers are passed on unchanged:
//!
//! - An absent value is read as an empty one.
//! - A name that is not UTF-8 is read with replacement characters. The JSON for the database keeps the replaced name.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::varint::{put_sized, take_sized};

/// The usual size of an encoded header.
const HEADER_BYTES: usize = 40;

/// Headers in order; values are bytes, and names may repeat. Headers are equal if their encodings are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    count: usize,
    encoded: Bytes,
}

impl Headers {
    /// Takes `count` headers from the front of `encoded` and ignores the bytes after them. Returns `None` if `encoded` does
    /// not hold that many.
    pub fn from_encoded(count: usize, encoded: Bytes) -> Option<Self> {
        let mut rest = &encoded[..];
        for _ in 0..count {
            take_sized(&mut rest)??;
            take_sized(&mut rest)?;
        }
        let length = encoded.len() - rest.len();
        Some(Self { count, encoded: encoded.slice(..length) })
    }

    /// Returns the encoding.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the number of headers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Iterates over names and values; an absent value is an empty one.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &[u8])> {
        self.with_nulls().map(|(name, value)| (name, value.unwrap_or_default()))
    }

    /// Returns names and values. Kafka's headers may have no value, which differs from an empty one.
    pub fn with_nulls(&self) -> impl Iterator<Item = (Cow<'_, str>, Option<&[u8]>)> {
        self.parts().map(|(name, value)| (String::from_utf8_lossy(name), value))
    }

    /// Returns the first header of that name if its value is text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let (_, value) = self.parts().find(|(known, _)| *known == name.as_bytes())?;
        std::str::from_utf8(value.unwrap_or_default()).ok()
    }

    /// Returns these headers followed by `more`.
    pub fn followed_by<N: AsRef<str>, V: AsRef<[u8]>>(&self, more: impl IntoIterator<Item = (N, V)>) -> Self {
        let more = more.into_iter();
        let mut count = self.count;
        let mut encoded = Vec::with_capacity(self.encoded.len() + HEADER_BYTES * more.size_hint().0);
        encoded.extend_from_slice(&self.encoded);
        for (name, value) in more {
            put_sized(&mut encoded, Some(name.as_ref().as_bytes()));
            put_sized(&mut encoded, Some(value.as_ref()));
            count += 1;
        }
        Self { count, encoded: encoded.into_boxed_slice().into() }
    }

    /// Returns a JSON array of `[name, base64 value]` for a database column. An absent value becomes null.
    pub fn to_json(&self) -> serde_json::Value {
        self.parts()
            .map(|(name, value)| {
                serde_json::json!([String::from_utf8_lossy(name), value.map(|value| STANDARD.encode(value))])
            })
            .collect()
    }

    /// Reads the JSON of [`Headers::to_json`]; `None` if the JSON has another shape.
    pub fn from_json(json: &serde_json::Value) -> Option<Self> {
        let pairs = json.as_array()?;
        let mut encoded = Vec::new();
        for pair in pairs {
            put_sized(&mut encoded, Some(pair.get(0)?.as_str()?.as_bytes()));
            match pair.get(1)? {
                serde_json::Value::Null => put_sized(&mut encoded, None),
                value => put_sized(&mut encoded, Some(&STANDARD.decode(value.as_str()?).ok()?)),
            }
        }
        Some(Self { count: pairs.len(), encoded: encoded.into() })
    }

    fn parts(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = self.encoded();
        std::iter::from_fn(move || {
            let name = take_sized(&mut rest)??;
            Some((name, take_sized(&mut rest)?))
        })
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(headers: I) -> Self {
        Self::default().followed_by(headers)
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const COUNT: usize> From<[(N, V); COUNT]> for Headers {
    fn from(headers: [(N, V); COUNT]) -> Self {
        headers.into_iter().collect()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readable = self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)));
        formatter.debug_list().entries(readable).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_are_the_same_after_encoding_and_after_the_database(
            sent in proptest::collection::vec((".{0,12}", proptest::collection::vec(any::<u8>(), 0..300)), 0..5),
        ) {
            let headers: Headers = sent.iter().map(|(name, value)| (name, value)).collect();
            let found: Vec<(String, Vec<u8>)> =
                headers.iter().map(|(name, value)| (name.into_owned(), value.to_vec())).collect();
            prop_assert_eq!(&found, &sent);
            prop_assert_eq!(headers.len(), sent.len());
            let mut bytes = headers.encoded().to_vec();
            bytes.extend(b"and more");
            prop_assert_eq!(Headers::from_encoded(sent.len(), bytes.into()), Some(headers.clone()));
            prop_assert_eq!(Headers::from_json(&headers.to_json()), Some(headers));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, count in 0_usize..9) {
            if let Some(headers) = Headers::from_encoded(count, bytes.into()) {
                prop_assert_eq!(headers.iter().count(), count);
            }
        }
    }

    #[test]
    fn headers_of_other_producers_are_read() {
        let encoded = [&b"\x02a\x01\x04\xffb\x02x"[..], b"\x02a\x02y"].concat();
        let headers = Headers::from_encoded(3, encoded.clone().into()).expect("read");
        assert_eq!(headers.encoded(), encoded, "the encoding is unchanged");
        let found: Vec<(Cow<'_, str>, &[u8])> = headers.iter().collect();
        let replaced = Cow::Borrowed("\u{fffd}b");
        assert_eq!(found, [("a".into(), &b""[..]), (replaced, b"x"), ("a".into(), b"y")]);
        assert_eq!(headers.attribute("a"), Some(""), "the first of that name");
        assert_eq!(headers.attribute("b"), None);
        assert_eq!(
            Headers::from_encoded(1, Bytes::from_static(b"\x01\x02x")),
            None,
            "a name must not be absent"
        );
        let absent = Headers::from_encoded(1, Bytes::from_static(b"\x02a\x01")).expect("read");
        assert_eq!(absent.to_json(), serde_json::json!([["a", null]]));
        assert_eq!(Headers::from_json(&absent.to_json()), Some(absent));
        for json in [serde_json::json!([["a"]]), serde_json::json!([["a", 1]]), serde_json::json!(["a"])] {
            assert_eq!(Headers::from_json(&json), None, "{json}");
        }
    }
}
