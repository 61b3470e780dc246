//! Has the broker forget what retention lets go, where it does not do so by itself: at the start and every minute.
//!
//! Every relay does it, without a lease: two at once do no harm, since the second finds nothing left.

use std::time::Duration;

use crate::{
    broker::{SharedBroker, topic_specs},
    config::BrokerKind,
    runtime::{Context, OutageLog},
};

const INTERVAL: Duration = Duration::from_secs(60);

/// Again and again until asked to stop.
pub(super) async fn watch(context: Context, broker: SharedBroker) {
    if context.config.broker.kind != BrokerKind::Postgres {
        return;
    }
    let topics = topic_specs(&context.config);
    let mut outage = OutageLog::new("enforcing retention");
    while !context.stop.is_requested() {
        match broker.enforce_retention(&topics).await {
            Ok(removed) => {
                outage.succeeded();
                if removed > 0 {
                    tracing::debug!(removed, "records are beyond their retention");
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
