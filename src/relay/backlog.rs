//! Reports the size and age of the outbox as gauges. Every relay reports the whole outbox, not only its own lanes.

use std::{sync::Arc, time::Duration};

use super::Relay;
use crate::{
    repository::{self, Pool, RepositoryError, outbox},
    runtime::{Context, OutageLog},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// A measurement that takes longer is logged as an outage, because the gauges are out of date.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Measures at every interval until the role is asked to stop.
pub(super) async fn watch(context: Context, pool: Pool, relay: Arc<Relay>) {
    let mut outage = OutageLog::new("measuring the outbox");
    while !context.stop.is_requested() {
        match tokio::time::timeout(TIMEOUT, run_once(&pool, &relay.floors())).await {
            Ok(Ok(())) => outage.succeeded(),
            Ok(Err(error)) => outage.failed(&error),
            Err(_) => outage.failed(&format!("no answer from the database within {TIMEOUT:?}")),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
}

async fn run_once(pool: &Pool, floors: &[i64]) -> Result<(), RepositoryError> {
    let mut connection = repository::pooled(pool).await?;
    let backlog = outbox::backlog(&mut connection, floors).await?;
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; nobody counts 2^53 rows")]
    metrics::gauge!("ledger_outbox_rows").set(backlog.rows as f64);
    metrics::gauge!("ledger_outbox_oldest_age_seconds").set(backlog.oldest_age_seconds);
    Ok(())
}
