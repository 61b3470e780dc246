//! The check of the facts of every day that does not wait for a rebuild.

use super::report::{Check, Report};
use crate::repository::{
    Connection, RepositoryError, facts,
    verification::{self, DayFacts, Example, Findings},
};

/// Compares day by day, each day in its own snapshot.
pub(super) async fn check(connection: &mut Connection, report: &mut Report) -> Result<(), RepositoryError> {
    let (mut differences, mut account_differences) = (Findings::default(), Findings::default());
    let (mut transactions_checked, mut accounts_checked, mut days, mut marked) = (0, 0, 0, 0);
    for day in facts::days_between(connection, None, None).await? {
        let compared = verification::compare_day(connection, day).await?;
        let DayFacts::Compared { transactions, account_days, transactions_differ, account_days_differ } =
            compared
        else {
            marked += 1;
            continue;
        };
        days += 1;
        transactions_checked += transactions;
        accounts_checked += account_days;
        differences.add(on(day, transactions_differ));
        account_differences.add(on(day, account_days_differ));
    }
    let note = format!("{days} days; {marked} more wait for `ledger aggregate`");
    report.push(
        Check::of(
            "facts",
            "each transaction of a closed day equals its fact, field by field",
            transactions_checked,
            differences,
        )
        .with_note(note),
    );
    report.push(Check::of(
        "account days",
        "sums, counts and balances of each account and closed day equal those of its transactions",
        accounts_checked,
        account_differences,
    ));
    Ok(())
}

fn on(day: chrono::NaiveDate, found: Findings) -> Findings {
    let on_day = |example: Example| {
        let text = format!("{day}: {}", example.text);
        Example { text, ..example }.with("day", day.to_string())
    };
    Findings { examples: found.examples.into_iter().map(on_day).collect(), ..found }
}
