//! The expected path: decides from states that are not locked, and commits with one statement that checks them.

use chrono::{DateTime, Utc};

use super::{AccountStates, Posted, Request, group::decide_group, write::write};
use crate::{
    domain::{Decision, ExistingKeys},
    repository::{Connection, RepositoryError},
};

/// Posts a group with one statement. `before` should hold the current states of its accounts, `existing` the transactions
/// under its keys, and `now` the time by the database's clock.
///
/// Returns None if one of them is out of date or incomplete, or if a request would be refused. Nothing was written
/// then, and the group must take the locked path.
pub(super) async fn post_expected(
    connection: &mut Connection,
    before: &AccountStates,
    existing: &ExistingKeys,
    group: &[Request],
    now: DateTime<Utc>,
) -> Result<Option<Posted>, RepositoryError> {
    if !group.iter().all(|request| before.contains_key(&request.posting.account_id)) {
        return Ok(None);
    }
    let mut posted = decide_group(before, existing, group, now);
    // A refusal writes nothing, so no statement would check the state that it is based on.
    if posted.decisions.iter().any(|decision| matches!(decision, Decision::Refused(_))) {
        return Ok(None);
    }
    match write(connection, before, &mut posted, group).await {
        Ok(()) => Ok(Some(posted)),
        Err(error) if error.is_stale_group() || error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}
