//! Removes records past their retention from the PostgreSQL broker, at the start and every minute. Kafka does this by
//! itself.
//!
//! Every relay does it, without a lease: two at once do no harm, since the second finds nothing to remove.

use std::time::Duration;

use crate::{
    broker::{SharedBroker, topic_specs},
    config::BrokerKind,
    runtime::Context,
};

const INTERVAL: Duration = Duration::from_secs(60);

/// Enforces retention at every interval until the role is asked to stop.
pub(super) async fn watch(context: Context, broker: SharedBroker) {
    if context.config.broker.kind != BrokerKind::Postgres {
        return;
    }
    let topics = topic_specs(&context.config);
    let mut outage = context.outages.log_of("enforcing retention");
    while !context.stop.is_requested() {
        match broker.enforce_retention(&topics).await {
            Ok(removed) => {
                outage.succeeded();
                if removed > 0 {
                    tracing::debug!(removed, "removed records past their retention");
                }
            }
            Err(error) => outage.failed(&error),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = context.stop.requested() => {}
        }
    }
}
