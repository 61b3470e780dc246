//! Cursors of keyset pages: opaque to clients, bound to the filters they were given for, and refused when altered.
//!
//! A cursor outlives the process that gave it: whatever goes into its check value stays as it is, or whoever reads a
//! list during an upgrade has to start anew. It is no secret and grants nothing; its check value is there so that a
//! truncated, altered or mixed-up one fails with 400 instead of answering another question.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::{FieldProblem, Kind, Problem};
use crate::repository::{Cursor, PageRequest};

const CHECK_LENGTH: usize = 8;

/// Makes a cursor for a place under some filters.
pub fn encode(filters: &str, cursor: Cursor) -> String {
    let mut bytes = match cursor {
        Cursor::AccountSeq(account_seq) => account_seq.to_be_bytes().to_vec(),
        Cursor::TransactionId(transaction_id) => transaction_id.as_bytes().to_vec(),
    };
    bytes.extend_from_slice(&check(filters, &bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads the place in the list of the page back, if the cursor is whole and was made under the same filters.
pub fn decode(filters: &str, cursor: &str, page: &PageRequest) -> Result<Cursor, Problem> {
    match page.account_id {
        Some(_) => bytes(filters, cursor).map(|bytes| Cursor::AccountSeq(i64::from_be_bytes(bytes))),
        None => bytes(filters, cursor).map(|bytes| Cursor::TransactionId(Uuid::from_bytes(bytes))),
    }
}

fn bytes<const N: usize>(filters: &str, cursor: &str) -> Result<[u8; N], Problem> {
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
    use crate::domain::AccountId;

    #[test]
    fn a_cursor_that_was_altered_or_belongs_to_another_query_is_refused() {
        let all = PageRequest::default();
        let of_account =
            PageRequest { account_id: Some(AccountId::parse("a").expect("valid")), ..PageRequest::default() };
        let cursor = encode("account=a", Cursor::AccountSeq(7));
        assert_eq!(decode("account=a", &cursor, &of_account), Ok(Cursor::AccountSeq(7)));
        assert!(decode("account=b", &cursor, &of_account).is_err());
        assert!(decode("account=a", &cursor, &all).is_err());
        for position in 0..cursor.len() {
            let mut altered = cursor.clone().into_bytes();
            altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ascii");
            assert!(decode("account=a", &altered, &of_account).is_err(), "{position}");
        }
        for text in ["", "!", "AAAA"] {
            assert!(decode("account=a", text, &of_account).is_err());
        }
    }
}
