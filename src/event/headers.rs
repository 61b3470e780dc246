//! The headers of a record, kept in the bytes in which they travel.
//!
//! That is how Kafka's message format 2 puts them: of each header the name and the value, each behind its length (KIP-82,
//! <https://kafka.apache.org/documentation/#recordheader>). Nobody looks at the headers of most records that pass here,
//! so they are taken apart only when somebody does: a record in memory has no allocation for each of them.
//!
//! Guarantees: order is kept and names may repeat. What other producers may write is read, a value that is absent as an
//! empty one and a name that is no UTF-8 mended, and goes on as it came; only in the database's JSON such a name stays
//! mended.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::varint::{put_sized, take_sized};

/// What a header takes, about.
const HEADER_BYTES: usize = 40;

/// Headers in order; values are bytes, names may repeat. Two are equal if their bytes are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    count: usize,
    encoded: Bytes,
}

impl Headers {
    /// As they came: so many, from the front of `encoded`; what is behind them is left out. None if they are not there.
    pub fn from_encoded(count: usize, encoded: Bytes) -> Option<Self> {
        let mut rest = &encoded[..];
        for _ in 0..count {
            take_sized(&mut rest)??;
            take_sized(&mut rest)?;
        }
        let length = encoded.len() - rest.len();
        Some(Self { count, encoded: encoded.slice(..length) })
    }

    /// As they travel.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values; an absent value is an empty one.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, &[u8])> {
        self.parts().map(|(name, value)| (String::from_utf8_lossy(name), value.unwrap_or_default()))
    }

    /// The first header of that name, if it is text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let (_, value) = self.parts().find(|(known, _)| *known == name.as_bytes())?;
        std::str::from_utf8(value.unwrap_or_default()).ok()
    }

    /// These, and others behind them.
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

    /// A JSON array of `[name, base64 value]`, for a database column: any bytes of a value survive, and an absent one as
    /// null.
    pub fn to_json(&self) -> serde_json::Value {
        self.parts()
            .map(|(name, value)| {
                serde_json::json!([String::from_utf8_lossy(name), value.map(|value| STANDARD.encode(value))])
            })
            .collect()
    }

    /// The reverse of [`Headers::to_json`]; None if the JSON is not of that shape.
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
        fn headers_survive_the_way_and_the_database_byte_for_byte(
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
        fn bytes_of_any_kind_are_headers_or_are_not(bytes: Vec<u8>, count in 0_usize..9) {
            if let Some(headers) = Headers::from_encoded(count, bytes.into()) {
                prop_assert_eq!(headers.iter().count(), count);
            }
        }
    }

    #[test]
    fn what_other_producers_may_write_is_read() {
        let encoded = [&b"\x02a\x01\x04\xffb\x02x"[..], b"\x02a\x02y"].concat();
        let headers = Headers::from_encoded(3, encoded.clone().into()).expect("read");
        assert_eq!(headers.encoded(), encoded, "and goes on as it came");
        let found: Vec<(Cow<'_, str>, &[u8])> = headers.iter().collect();
        let mended = Cow::Borrowed("\u{fffd}b");
        assert_eq!(found, [("a".into(), &b""[..]), (mended, b"x"), ("a".into(), b"y")]);
        assert_eq!(headers.attribute("a"), Some(""), "the first of that name");
        assert_eq!(headers.attribute("b"), None);
        assert_eq!(
            Headers::from_encoded(1, Bytes::from_static(b"\x01\x02x")),
            None,
            "a name is never absent"
        );
        let absent = Headers::from_encoded(1, Bytes::from_static(b"\x02a\x01")).expect("read");
        assert_eq!(absent.to_json(), serde_json::json!([["a", null]]));
        assert_eq!(Headers::from_json(&absent.to_json()), Some(absent));
        for json in [serde_json::json!([["a"]]), serde_json::json!([["a", 1]]), serde_json::json!(["a"])] {
            assert_eq!(Headers::from_json(&json), None, "{json}");
        }
    }
}
