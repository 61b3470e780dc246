//! Positions shown to Kafka's own tools.

use super::{KafkaBroker, admin, lock};
use crate::broker::BrokerError;

impl KafkaBroker {
    pub(super) async fn coordinator(&self, group: &str) -> Result<String, BrokerError> {
        let known = lock(&self.coordinators).get(group).cloned();
        if let Some(coordinator) = known {
            return Ok(coordinator);
        }
        let coordinator = admin::find_coordinator(&mut self.wire().await?, group).await?;
        lock(&self.coordinators).insert(group.to_owned(), coordinator.clone());
        Ok(coordinator)
    }

    pub(super) async fn mirror(
        &self,
        group: &str,
        topic: &str,
        positions: &[(i32, i64)],
    ) -> Result<(), BrokerError> {
        let coordinator = self.coordinator(group).await?;
        let outcome = async {
            let mut wire = self.wire_to(&[coordinator]).await?;
            admin::commit_positions(&mut wire, group, topic, positions).await
        }
        .await;
        if outcome.is_err() {
            lock(&self.coordinators).remove(group);
        }
        outcome
    }
}
