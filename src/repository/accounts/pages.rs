//! Pages of accounts in the order of their ids, along the primary key.
//!
//! Deliberately absent: the order of the last activity. Every posting updates its account without touching an index; an
//! index on the time of the last transaction would end that.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::row::{Account, AccountRow};
use crate::{
    domain::AccountId,
    repository::{Connection, RepositoryError, schema::accounts},
};

/// Greater than every character of an account id, in the order of the primary key.
const AFTER_EVERY_CHARACTER: char = '~';

/// Which accounts a page may hold.
#[derive(Debug, Clone, Default)]
pub struct AccountPageRequest {
    /// Only accounts whose ids begin with this. Its characters are those of an id.
    pub prefix: String,
    /// The last account of the page before: this page begins after it.
    pub after: Option<AccountId>,
    /// The greatest number of accounts in the page.
    pub limit: i64,
}

/// A page of accounts.
#[derive(Debug)]
pub struct AccountPage {
    /// At most `AccountPageRequest::limit` accounts.
    pub accounts: Vec<Account>,
    /// Whether more accounts follow.
    pub has_more: bool,
}

/// Returns a page of accounts.
pub async fn page(
    connection: &mut Connection,
    request: &AccountPageRequest,
) -> Result<AccountPage, RepositoryError> {
    let end = format!("{}{AFTER_EVERY_CHARACTER}", request.prefix);
    let after = request.after.as_ref().map_or("", AccountId::as_str);
    // One account more than the page holds tells whether another page follows.
    let rows = accounts::table
        .filter(accounts::account_id.ge(&request.prefix).and(accounts::account_id.lt(end)))
        .filter(accounts::account_id.gt(after))
        .order(accounts::account_id)
        .limit(request.limit + 1)
        .select(AccountRow::as_select())
        .load(connection)
        .await?;
    let mut accounts =
        rows.into_iter().map(AccountRow::into_account).collect::<Result<Vec<_>, RepositoryError>>()?;
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let has_more = accounts.len() > limit;
    accounts.truncate(limit);
    Ok(AccountPage { accounts, has_more })
}
