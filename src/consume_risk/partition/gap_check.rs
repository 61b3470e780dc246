//! Notices events that the topic lost: an event arrives, and the transaction before it in its account was never assessed.
//!
//! The suspicion costs no query of its own: the query that reads the ledger's rows also says whether the transaction before
//! an event is assessed. Only a suspicion is confirmed with a query, one for the whole batch, when the commit before the
//! batch has ended. A transaction with a dead letter was delivered, so it is no gap.

use super::{super::assess::Assessed, store::PartitionStore};
use crate::repository::{Connection, RepositoryError};

#[derive(Default)]
pub(super) struct GapCheck {
    is_logged: bool,
}

impl GapCheck {
    /// Confirms the suspected gaps of a batch. Logs the first gap of the partition; the metric counts all.
    pub async fn confirm(
        &mut self,
        store: &PartitionStore,
        connection: &mut Connection,
        assessed: &mut Assessed,
    ) -> Result<(), RepositoryError> {
        if assessed.suspected_gaps.is_empty() {
            return Ok(());
        }
        let gaps = store.sequence_gaps(connection, &assessed.suspected_gaps).await?;
        assessed.gaps = u64::try_from(gaps.len()).unwrap_or_default();
        if let Some(gap) = gaps.first().filter(|_| !self.is_logged) {
            self.is_logged = true;
            tracing::error!(partition = %store.name(), account_id = gap.account_id, account_seq = gap.account_seq,
                "the transaction before this one was never delivered: the topic lost events, or the position was moved \
                 past them; `ledger verify` lists them, and `ledger republish --missing` publishes them again");
        }
        Ok(())
    }
}
