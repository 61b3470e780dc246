//! Dismissals of dead letters.

use diesel::{
    ExpressionMethods, Insertable, IntoSql, QueryDsl,
    dsl::{exists, not},
    sql_types::Text,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    super::{
        Connection, RepositoryError,
        schema::{dead_letter_replays, dead_letters},
        transaction,
    },
    replays::{DISMISSED, FAILING},
};

/// Returns those of the ids that belong to a dead letter.
pub async fn existing(connection: &mut Connection, ids: &[Uuid]) -> Result<Vec<Uuid>, RepositoryError> {
    let known = dead_letters::table.filter(dead_letters::id.eq_any(ids)).select(dead_letters::id);
    Ok(known.load(connection).await?)
}

/// Dismisses those of the dead letters that are open, and returns their ids. Waits for replays of them to end.
pub async fn dismiss(
    connection: &mut Connection,
    ids: &[Uuid],
    by: &str,
    note: &str,
) -> Result<Vec<Uuid>, RepositoryError> {
    transaction("dismiss", connection, async |connection: &mut Connection| {
        let of_ids = || dead_letters::table.filter(dead_letters::id.eq_any(ids));
        let locked = of_ids().order(dead_letters::id).select(dead_letters::id).for_no_key_update();
        locked.load::<Uuid>(connection).await?;
        // A second statement, because the snapshot of the first one is older than the locks.
        let handled = dead_letter_replays::table
            .filter(dead_letter_replays::dead_letter_id.eq(dead_letters::id))
            .filter(dead_letter_replays::outcome.ne(FAILING));
        let dismissed = of_ids()
            .filter(not(exists(handled)))
            .select((
                dead_letters::id,
                by.into_sql::<Text>(),
                DISMISSED.into_sql::<Text>(),
                note.into_sql::<Text>(),
            ))
            .insert_into(dead_letter_replays::table)
            .into_columns((
                dead_letter_replays::dead_letter_id,
                dead_letter_replays::replayed_by,
                dead_letter_replays::outcome,
                dead_letter_replays::detail,
            ))
            .returning(dead_letter_replays::dead_letter_id)
            .get_results(connection)
            .await?;
        Ok(dismissed)
    })
    .await
}
