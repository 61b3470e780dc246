//! Cursors of keyset pages: opaque to clients, bound to the filters they were given for, and refused when altered.
//!
//! A cursor is no secret and grants nothing; its check value is there so that a truncated, altered or mixed-up one
//! fails with 400 instead of answering another question.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::problem::{FieldProblem, Kind, Problem};

const CHECK_LENGTH: usize = 8;

/// Makes a cursor for a position under some filters.
pub fn encode(filters: &str, position: &[u8]) -> String {
    let mut bytes = position.to_vec();
    bytes.extend_from_slice(&check(filters, position));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the position back, if the cursor is whole and was made under the same filters.
pub fn decode<const N: usize>(filters: &str, cursor: &str) -> Result<[u8; N], Problem> {
    let refused = || {
        let field =
            FieldProblem { field: "cursor".into(), message: "is not one that this query gave".into() };
        Problem::new(Kind::Malformed, "the cursor is not one that this query gave; start without it")
            .with_errors(vec![field])
    };
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
    let (position, checked) = bytes.split_at_checked(N).ok_or_else(refused)?;
    if checked != check(filters, position) {
        return Err(refused());
    }
    position.try_into().map_err(|_| refused())
}

fn check(filters: &str, position: &[u8]) -> [u8; CHECK_LENGTH] {
    let digest = Sha256::new()
        .chain_update(b"ledger cursor 1\0")
        .chain_update(filters)
        .chain_update(position)
        .finalize();
    let mut check = [0; CHECK_LENGTH];
    check.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_was_altered_or_belongs_to_another_query_is_refused() {
        let cursor = encode("account=a", &7_i64.to_be_bytes());
        assert_eq!(decode::<8>("account=a", &cursor).map(i64::from_be_bytes), Ok(7));
        assert!(decode::<8>("account=b", &cursor).is_err());
        assert!(decode::<16>("account=a", &cursor).is_err());
        for position in 0..cursor.len() {
            let mut altered = cursor.clone().into_bytes();
            altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
            assert!(
                decode::<8>("account=a", &String::from_utf8(altered).expect("ascii")).is_err(),
                "{position}"
            );
        }
        for text in ["", "!", "AAAA"] {
            assert!(decode::<8>("account=a", text).is_err());
        }
    }
}
