//! Turns the decisions on a group into the columns of the writing statement.

use super::{AccountStates, Posted, Request};
use crate::{
    domain::{Decision, Transaction, fact_marks},
    event::{encode_transaction_created, lane_of},
    repository::{
        Connection, RepositoryError,
        postings::{AccountColumns, EventColumns, GroupColumns, TransactionColumns, write_group},
    },
};

/// Writes all new transactions of a group with one statement. The statement fails as a whole unless every account
/// still has the state in `before`, and unless the group was decided at the time of the server's clock. Notes that time.
pub(super) async fn write(
    connection: &mut Connection,
    before: &AccountStates,
    posted: &mut Posted,
    group: &[Request],
) -> Result<(), RepositoryError> {
    let mut transactions = TransactionColumns::default();
    let mut events = Vec::new();
    let mut touched = Vec::new();
    for (decision, request) in posted.decisions.iter().zip(group) {
        if let Decision::Create(created) = decision {
            transactions.push(created);
            touched.push((created.created_at.date_naive(), created.id));
            events.push(Event::new(created, request.traceparent.as_deref())?);
        }
    }
    if transactions.is_empty() {
        return Ok(());
    }
    let accounts = SortedIds::new(transactions.account_ids());
    let group = GroupColumns {
        accounts: account_columns(before, &posted.accounts, &accounts),
        accounts_touched: i64::try_from(accounts.0.len()).unwrap_or(i64::MAX),
        transactions,
        events: event_columns(events),
        marks: fact_marks(touched),
        decided_at: posted.decided_at,
    };
    posted.server_time = Some(write_group(connection, group).await?);
    Ok(())
}

/// The `TransactionCreated` event of a new transaction.
struct Event<'a> {
    lane: i16,
    transaction: &'a Transaction,
    value: Vec<u8>,
    traceparent: Option<&'a str>,
}

impl<'a> Event<'a> {
    fn new(transaction: &'a Transaction, traceparent: Option<&'a str>) -> Result<Self, RepositoryError> {
        let value = encode_transaction_created(transaction)
            .map_err(|error| RepositoryError::Corrupt { what: "event", detail: error.to_string() })?;
        let lane = lane_of(transaction.posting.account_id.as_str().as_bytes());
        Ok(Self { lane, transaction, value, traceparent })
    }
}

/// Sorts the events by lane, and within a lane keeps the order of the group. The rows of a lane then share pages of the
/// outbox, and the relay, which reads and removes one lane at a time, touches few pages.
fn event_columns(mut events: Vec<Event<'_>>) -> EventColumns<'_> {
    events.sort_by_key(|event| event.lane);
    let mut columns = EventColumns::default();
    for Event { lane, transaction, value, traceparent } in events {
        columns.push(lane, transaction, value, traceparent);
    }
    columns
}

fn account_columns<'a>(
    before: &AccountStates,
    after: &'a AccountStates,
    touched: &SortedIds<'_>,
) -> AccountColumns<'a> {
    let mut columns = AccountColumns::default();
    for (_, account_id) in &touched.0 {
        if let (Some(old), Some((id, new))) = (before.get(*account_id), after.get_key_value(*account_id)) {
            columns.push(id, old, new);
        }
    }
    columns
}

/// Account ids in ascending order, each once.
///
/// The ids are spread over memory, so comparing them is slow. Most differ in their first 16 bytes. So these are kept as
/// one integer with each reference, and compared first. No id contains a zero byte, so the order is the same as that of
/// the ids.
struct SortedIds<'a>(Vec<(u128, &'a str)>);

impl<'a> SortedIds<'a> {
    fn new(account_ids: &[&'a str]) -> Self {
        let mut ids: Vec<(u128, &str)> = account_ids.iter().map(|id| (first_bytes(id), *id)).collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

fn first_bytes(account_id: &str) -> u128 {
    let mut first = [0; size_of::<u128>()];
    for (target, byte) in first.iter_mut().zip(account_id.bytes()) {
        *target = byte;
    }
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The locked path locks the accounts in this order too.
        #[test]
        fn account_ids_are_sorted_by_their_bytes_and_deduplicated(
            ids in proptest::collection::vec("(acct-|a-long-prefix-of-accounts-)?[!-~]{1,6}", 0..60),
        ) {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let sorted: Vec<&str> = SortedIds::new(&ids).0.into_iter().map(|(_, id)| id).collect();
            let expected: Vec<&str> = BTreeSet::from_iter(ids).into_iter().collect();
            prop_assert_eq!(sorted, expected);
        }
    }
}
