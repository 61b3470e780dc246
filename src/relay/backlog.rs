//! Reports the size and age of the outbox as gauges. Every relay reports the whole outbox, not only its own lanes. The rows
//! are counted from the scan floors on, after a check that the floors hide none. After a failed measurement they are not
//! reported.

use std::{sync::Arc, time::Duration};

use super::{Relay, floor_check::FloorCheck};
use crate::{
    repository::{
        self, Pool, RepositoryError,
        outbox::{self, Backlog},
    },
    runtime::{Context, Measurement},
};

const INTERVAL: Duration = Duration::from_secs(5);
/// A measurement that takes longer counts as failed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Measures at every interval until the role is asked to stop.
pub(super) async fn watch(context: Context, pool: Pool, relay: Arc<Relay>) {
    let mut outage = context.outages.log_of("measuring the outbox");
    let mut check = FloorCheck::default();
    let gauges = Gauges::new();
    while !context.stop.is_requested() {
        let measured = tokio::time::timeout(TIMEOUT, run_once(&pool, &relay, &mut check)).await;
        gauges.show(measured.as_ref().ok().and_then(|measured| measured.as_ref().ok()));
        match measured {
            Ok(Ok(_)) => outage.succeeded(),
            Ok(Err(error)) => outage.failed(&error),
            Err(_) => outage.failed(&format!("no answer from the database within {TIMEOUT:?}")),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
}

async fn run_once(pool: &Pool, relay: &Relay, check: &mut FloorCheck) -> Result<Backlog, RepositoryError> {
    let mut connection = repository::pooled(pool).await?;
    check.run_once(&mut connection, relay.floors()).await?;
    outbox::backlog(&mut connection, &relay.floors().assumptions().floors).await
}

struct Gauges {
    rows: Measurement,
    oldest_age: Measurement,
}

impl Gauges {
    fn new() -> Self {
        Self {
            rows: Measurement::new(metrics::gauge!("ledger_outbox_rows")),
            oldest_age: Measurement::new(metrics::gauge!("ledger_outbox_oldest_age_seconds")),
        }
    }

    /// Shows the backlog, or nothing if it could not be measured.
    fn show(&self, backlog: Option<&Backlog>) {
        match backlog {
            Some(backlog) => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a gauge is a float; nobody counts 2^53 rows"
                )]
                self.rows.set(backlog.rows as f64);
                self.oldest_age.set(backlog.oldest_age_seconds);
            }
            None => {
                self.rows.forget();
                self.oldest_age.forget();
            }
        }
    }
}
