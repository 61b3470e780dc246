//! Finds outbox rows that the scan floors hide.
//!
//! A floor assumes that no id is drawn twice. The assumption fails when an operator or a restore sets the sequence of
//! the outbox back, or puts old rows into the table. Such rows would stay below the floors, unpublished and uncounted.
//! So the relay tests the assumption, and discards its floors when it fails.
//!
//! - The search for rows may pass a million dead index entries while an old snapshot is open. It ends after
//!   [`SEARCH_TIME_MAX`], and takes at most one hundredth of the time.
//! - The comparison with the sequence is cheap. It finds a sequence that was set back although the search ends early.

use std::time::{Duration, Instant};

use super::{floors::Assumptions, scan_floors::ScanFloors};
use crate::repository::{Connection, RepositoryError, outbox};

const SEARCH_TIME_MAX: Duration = Duration::from_millis(500);
/// The pause after a search, as a multiple of its duration.
const PAUSE_FACTOR: u32 = 100;

/// The check of the scan floors.
#[derive(Default)]
pub(super) struct FloorCheck {
    next_search_at: Option<Instant>,
}

impl FloorCheck {
    /// Tests what the floors assume, and discards them if it does not hold.
    pub(super) async fn run_once(
        &mut self,
        connection: &mut Connection,
        floors: &ScanFloors,
    ) -> Result<(), RepositoryError> {
        // Read first: the sequence only moves up from here on.
        let assumptions = floors.assumptions();
        let last_id = outbox::last_id(connection).await?;
        let Assumptions { floors: of_lanes, drawn } = &assumptions;
        if assumptions.sequence_was_set_back(last_id) {
            tracing::warn!(
                drawn,
                last_id,
                "the sequence outbox_id was set back; the relay looks for rows from the start of the outbox, and publishes \
                 them in the order of their ids. Run `ledger migrate`, which moves the sequence above the rows"
            );
            floors.discard();
        } else if let Some(id) = self.search(connection, of_lanes).await? {
            tracing::warn!(
                id,
                "a row appeared below ids that were published: the sequence outbox_id was set back, or old rows were put \
                 into the outbox. The relay publishes them now; events of one account may be out of order"
            );
            floors.discard();
        }
        Ok(())
    }

    async fn search(
        &mut self,
        connection: &mut Connection,
        floors: &[i64],
    ) -> Result<Option<i64>, RepositoryError> {
        let began_at = Instant::now();
        if self.next_search_at.is_some_and(|next| began_at < next) {
            return Ok(None);
        }
        let found = outbox::id_below_floors(connection, floors, SEARCH_TIME_MAX).await;
        self.next_search_at = Some(Instant::now() + began_at.elapsed() * PAUSE_FACTOR);
        found
    }
}
