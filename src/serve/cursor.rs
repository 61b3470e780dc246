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
use crate::{
    domain::AccountId,
    repository::{Cursor, PageRequest},
};

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
        match position {
            Cursor::AccountSeq(account_seq) => self.encode_bytes(&account_seq.to_be_bytes()),
            Cursor::TransactionId(transaction_id) => self.encode_bytes(transaction_id.as_bytes()),
        }
    }

    /// Returns the cursor for the accounts after this one.
    pub fn encode_account(&self, account_id: &AccountId) -> String {
        self.encode_bytes(account_id.as_str().as_bytes())
    }

    fn encode_bytes(&self, position: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([position, &self.check_value(position)].concat())
    }

    /// Returns the position in a cursor, or 400 if the cursor was altered or belongs to another query.
    pub fn decode(&self, cursor: &str, page: &PageRequest) -> Result<Cursor, Problem> {
        match page.account_id {
            Some(_) => self.position(cursor).map(|bytes| Cursor::AccountSeq(i64::from_be_bytes(bytes))),
            None => self.position(cursor).map(|bytes| Cursor::TransactionId(Uuid::from_bytes(bytes))),
        }
    }

    /// Returns the account in a cursor, or 400 if the cursor was altered or belongs to another query.
    pub fn decode_account(&self, cursor: &str) -> Result<AccountId, Problem> {
        let text = String::from_utf8(self.decode_bytes(cursor)?).map_err(|_| refused())?;
        AccountId::parse(&text).map_err(|_| refused())
    }

    fn position<const N: usize>(&self, cursor: &str) -> Result<[u8; N], Problem> {
        self.decode_bytes(cursor)?.try_into().map_err(|_| refused())
    }

    fn decode_bytes(&self, cursor: &str) -> Result<Vec<u8>, Problem> {
        let mut position = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let length = position.len().checked_sub(CHECK_LENGTH).ok_or_else(refused)?;
        let check_value = position.split_off(length);
        if check_value != self.check_value(&position) {
            return Err(refused());
        }
        Ok(position)
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
    fn a_cursor_of_accounts_holds_ids_of_any_length() {
        let own = scope("accounts", "prefix=a");
        for id in ["a", &"z".repeat(64)] {
            let id = AccountId::parse(id).expect("valid");
            let cursor = own.encode_account(&id);
            assert!(cursor.len() <= 128, "the parameter has a limit");
            assert_eq!(own.decode_account(&cursor), Ok(id));
            assert!(scope("accounts", "prefix=b").decode_account(&cursor).is_err());
            assert!(own.decode_account(&cursor[2..]).is_err());
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
