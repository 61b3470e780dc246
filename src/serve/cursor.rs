//! Cursors of pages: opaque to clients, bound to the query that they continue, and refused when altered.
//!
//! A cursor holds the position of the last row of a page, and a check value over the position and the query. It does
//! not expire, is not secret and grants nothing. The check value turns a truncated, altered or mixed-up cursor into a
//! 400 response instead of a page of another query.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    problem::{FieldProblem, Problem, ProblemKind},
    query::Parameters,
};
use crate::repository::{Cursor, PageRequest};

const CHECK_LENGTH: usize = 8;

/// The list and the query that a cursor belongs to.
pub struct CursorScope {
    list: &'static str,
    query: String,
}

impl CursorScope {
    /// Binds the scope to the client's parameters, not to what the server makes of them, so that a cursor stays valid
    /// when the server is upgraded. Must be called before parameters are taken out of `parameters`.
    pub fn new(list: &'static str, parameters: &Parameters) -> Self {
        Self { list, query: parameters.without_cursor() }
    }

    /// Returns the cursor for the rows after a position.
    pub fn encode(&self, position: Cursor) -> String {
        let mut bytes = match position {
            Cursor::AccountSeq(account_seq) => account_seq.to_be_bytes().to_vec(),
            Cursor::TransactionId(transaction_id) => transaction_id.as_bytes().to_vec(),
        };
        bytes.extend_from_slice(&self.check_value(&bytes));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the position in a cursor, or 400 if the cursor was altered or belongs to another query.
    pub fn decode(&self, cursor: &str, page: &PageRequest) -> Result<Cursor, Problem> {
        match page.account_id {
            Some(_) => self.position(cursor).map(|bytes| Cursor::AccountSeq(i64::from_be_bytes(bytes))),
            None => self.position(cursor).map(|bytes| Cursor::TransactionId(Uuid::from_bytes(bytes))),
        }
    }

    fn position<const N: usize>(&self, cursor: &str) -> Result<[u8; N], Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (position, check_value) = bytes.split_at_checked(N).ok_or_else(refused)?;
        if check_value != self.check_value(position) {
            return Err(refused());
        }
        position.try_into().map_err(|_| refused())
    }

    fn check_value(&self, position: &[u8]) -> [u8; CHECK_LENGTH] {
        let digest = Sha256::new()
            .chain_update(self.list)
            .chain_update("\0")
            .chain_update(&self.query)
            .chain_update("\0")
            .chain_update(position)
            .finalize();
        let mut check_value = [0; CHECK_LENGTH];
        check_value.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        check_value
    }
}

fn refused() -> Problem {
    let message = "does not belong to this query".into();
    let detail = "the cursor does not belong to this query; send the query without a cursor to start again";
    Problem::new(ProblemKind::Malformed, detail)
        .with_errors(vec![FieldProblem { field: "cursor".into(), message }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AccountId;

    fn scope(list: &'static str, query: &str) -> CursorScope {
        CursorScope::new(list, &Parameters::parse(query).expect("a query"))
    }

    #[test]
    fn a_cursor_that_was_altered_or_belongs_to_another_query_is_refused() {
        let all = PageRequest::default();
        let account =
            PageRequest { account_id: Some(AccountId::parse("a").expect("valid")), ..PageRequest::default() };
        let own = scope("transactions", "account_id=a&limit=5");
        let cursor = own.encode(Cursor::AccountSeq(7));
        assert_eq!(own.decode(&cursor, &account), Ok(Cursor::AccountSeq(7)));
        assert!(own.decode(&cursor, &all).is_err());
        for other in [
            scope("transactions", "account_id=a"),
            scope("transactions", "account_id=b&limit=5"),
            scope("transactions", "account_id=a&limit=5&direction=debit"),
            scope("risk-assessments", "account_id=a&limit=5"),
        ] {
            assert!(other.decode(&cursor, &account).is_err());
        }
        for position in 0..cursor.len() {
            let mut altered = cursor.clone().into_bytes();
            altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ascii");
            assert!(own.decode(&altered, &account).is_err(), "{position}");
        }
        for text in ["", "!", "AAAA"] {
            assert!(own.decode(text, &account).is_err());
        }
    }

    #[test]
    fn the_order_of_parameters_and_the_cursor_itself_do_not_matter() {
        let account =
            PageRequest { account_id: Some(AccountId::parse("a").expect("valid")), ..PageRequest::default() };
        let cursor = scope("transactions", "limit=5&account_id=a").encode(Cursor::AccountSeq(7));
        let next = scope("transactions", &format!("cursor={cursor}&account_id=%61&limit=5"));
        assert_eq!(next.decode(&cursor, &account), Ok(Cursor::AccountSeq(7)));
    }
}
