//! The lock of `migrate`: only one runs at a time.

use std::time::Duration;

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Bool, Integer, Text},
};
use diesel_async::RunQueryDsl;
use tokio::time::Instant;

use super::super::{Bind, Connection, RepositoryError, statement};

/// The key of the advisory lock. Any constant works.
const ADVISORY_LOCK: i64 = 0x6c65_6467_6572;
/// How long to wait for another `migrate`.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The pause between two attempts to take the lock.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Bool)]
    is_taken: bool,
}

/// The session that holds the lock.
#[derive(QueryableByName)]
struct Holder {
    #[diesel(sql_type = Integer)]
    process_id: i32,
    #[diesel(sql_type = Text)]
    description: String,
}

/// Takes the lock, which ends with the connection. It polls instead of waiting inside PostgreSQL: a waiting statement
/// holds a snapshot, and a concurrent index build of the other `migrate` waits for all snapshots. They would wait for
/// each other.
pub(super) async fn take(connection: &mut Connection) -> Result<(), RepositoryError> {
    let deadline = Instant::now() + WAIT_MAX;
    let mut is_logged = false;
    while !try_take(connection).await? {
        if Instant::now() >= deadline {
            return Err(RepositoryError::Migration(held_too_long(holder(connection).await?)));
        }
        if !is_logged {
            let holder = holder(connection).await?.map(|holder| holder.description);
            tracing::info!(holder, "waiting until another `ledger migrate` has ended");
            is_logged = true;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn try_take(connection: &mut Connection) -> Result<bool, RepositoryError> {
    let query =
        statement("SELECT pg_try_advisory_lock(/* key */ $1) AS is_taken").bind::<BigInt, _>(ADVISORY_LOCK);
    Ok(query.get_result::<Taken>(connection).await?.is_taken)
}

async fn holder(connection: &mut Connection) -> Result<Option<Holder>, RepositoryError> {
    let query = statement(include_str!("lock_holder.sql")).bind::<BigInt, _>(ADVISORY_LOCK);
    Ok(query.get_result(connection).await.optional()?)
}

fn held_too_long(holder: Option<Holder>) -> String {
    let remedy = match holder {
        None => "try again".to_owned(),
        Some(Holder { process_id, description }) => format!(
            "it is {description}; wait until it has ended, or, if its machine is gone, end its session with \
             SELECT pg_terminate_backend({process_id})"
        ),
    };
    format!("another `ledger migrate` has been running for more than {WAIT_MAX:?}: {remedy}")
}
