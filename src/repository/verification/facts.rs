//! Compares the facts of a day with the ledger. Decimals of the facts are converted to minor units for this.

use chrono::NaiveDate;
use diesel::{
    QueryableByName,
    sql_types::{BigInt, Bool, Date, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;

use super::{
    super::{Bind, Connection, Isolation, RepositoryError, facts::id_range, statement, transaction_with},
    findings::{Findings, find},
};

/// The result for the facts of one day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DayFacts {
    /// The day has marks, so its facts wait for a rebuild and are not compared.
    Marked,
    /// The facts were compared.
    Compared {
        /// Rows of `fact_transactions`.
        transactions: i64,
        /// Rows of `fact_account_day`.
        account_days: i64,
        /// Transactions whose fact is missing or differs, and facts without a transaction.
        transactions_differ: Findings,
        /// Accounts whose fact is missing or differs, and facts without an account.
        account_days_differ: Findings,
    },
}

#[derive(QueryableByName)]
struct DayState {
    #[diesel(sql_type = Bool)]
    marked: bool,
    #[diesel(sql_type = BigInt)]
    transactions: i64,
    #[diesel(sql_type = BigInt)]
    account_days: i64,
}

/// Compares one day, in one snapshot.
pub async fn compare_day(connection: &mut Connection, day: NaiveDate) -> Result<DayFacts, RepositoryError> {
    transaction_with(
        Isolation::RepeatableRead,
        "verify_day",
        connection,
        async |connection: &mut Connection| {
            let state: DayState = statement(include_str!("facts/day_state.sql"))
                .bind::<Date, _>(day)
                .get_result(&mut *connection)
                .await?;
            if state.marked {
                return Ok(DayFacts::Marked);
            }
            Ok(DayFacts::Compared {
                transactions: state.transactions,
                account_days: state.account_days,
                transactions_differ: compare_transactions(connection, day).await?,
                account_days_differ: compare_account_days(connection, day).await?,
            })
        },
    )
    .await
}

async fn compare_transactions(
    connection: &mut Connection,
    day: NaiveDate,
) -> Result<Findings, RepositoryError> {
    let (begin, end) = id_range(day);
    find(
        connection,
        statement(include_str!("facts/transactions.sql"))
            .bind::<SqlUuid, _>(begin)
            .bind::<SqlUuid, _>(end)
            .bind::<Date, _>(day),
    )
    .await
}

async fn compare_account_days(
    connection: &mut Connection,
    day: NaiveDate,
) -> Result<Findings, RepositoryError> {
    let (begin, end) = id_range(day);
    find(
        connection,
        statement(include_str!("facts/account_days.sql"))
            .bind::<SqlUuid, _>(begin)
            .bind::<SqlUuid, _>(end)
            .bind::<Date, _>(day),
    )
    .await
}
