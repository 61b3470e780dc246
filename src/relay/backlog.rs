//! Reports the size and age of the outbox as gauges. Every relay reports the whole outbox, not only its own lanes. The rows
//! are counted from the scan floors on, after a check that the floors hide none.

use std::{sync::Arc, time::Duration};

use super::{Relay, floor_check::FloorCheck};
use crate::{
    repository::{self, Pool, RepositoryError, outbox},
    runtime::Context,
};

const INTERVAL: Duration = Duration::from_secs(5);
/// A measurement that takes longer is logged as an outage, because the gauges are out of date.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Measures at every interval until the role is asked to stop.
pub(super) async fn watch(context: Context, pool: Pool, relay: Arc<Relay>) {
    let mut outage = context.outages.log_of("measuring the outbox");
    let mut check = FloorCheck::default();
    while !context.stop.is_requested() {
        match tokio::time::timeout(TIMEOUT, run_once(&pool, &relay, &mut check)).await {
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

async fn run_once(pool: &Pool, relay: &Relay, check: &mut FloorCheck) -> Result<(), RepositoryError> {
    let mut connection = repository::pooled(pool).await?;
    check.run_once(&mut connection, relay.floors()).await?;
    let backlog = outbox::backlog(&mut connection, &relay.floors().assumptions().floors).await?;
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; nobody counts 2^53 rows")]
    metrics::gauge!("ledger_outbox_rows").set(backlog.rows as f64);
    metrics::gauge!("ledger_outbox_oldest_age_seconds").set(backlog.oldest_age_seconds);
    Ok(())
}
