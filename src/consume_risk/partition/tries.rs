//! Records tried one by one: each try is noted before it is made, and one that cannot be handled is put aside.
//!
//! Guarantees: a try that trouble of the infrastructure ended does not count against the record; the dead letter and
//! the position that passes it commit together, under the lease's fence.

use std::{collections::VecDeque, sync::Arc};

use super::{
    super::{
        assess::Ask,
        dead_letter::dead_letter,
        decode::{Unhandled, decode},
        patience::answered,
        reader::Item,
        trace,
    },
    PartitionConsumer, Turn,
};
use crate::{
    repository::{
        Connection, dead_letters, leases,
        positions::{self, Position},
        transaction,
    },
    runtime::fail_point,
};

impl PartitionConsumer {
    /// Tries the first of `items` by itself, unless it has had its tries.
    pub(super) async fn handle_first_alone(
        &mut self,
        connection: &mut Connection,
        position: Position,
        items: Vec<Item>,
    ) -> anyhow::Result<Turn> {
        let mut items = VecDeque::from(items);
        let Some(mut item) = items.pop_front() else { return Ok(Turn::Idle) };
        if let Some(reader) = &mut self.reader {
            reader.put_back(items.into());
        }
        let attempts_max = self.context.config.consume_risk.attempts_max;
        let is_counted = self.open_try == Some(position.next_offset);
        let attempts = if is_counted { position.attempts } else { position.attempts.saturating_add(1) };
        if attempts > attempts_max {
            let died = Unhandled {
                stage: "process",
                reason: "process_ended",
                error: format!(
                    "the process ended, or lost the partition, during each of {} tries",
                    position.attempts
                ),
            };
            let unhandled = item.decoded.err().unwrap_or(died);
            item.decoded = Err(unhandled.clone());
            return self.put_aside(connection, position, &item, &unhandled, position.attempts).await;
        }
        // A record whose try was ended before is tried while no other is scored, or another's end would be taken for its.
        let turn = Arc::clone(&self.turn);
        let alone = if attempts > 1 { Some(turn.write().await) } else { None };
        let among = if alone.is_none() { Some(&*turn) } else { None };
        if !is_counted {
            self.note_try(connection, position.next_offset, attempts).await?;
            self.open_try = Some(position.next_offset);
        }
        item.decoded = decode(&item.record);
        let items = vec![item];
        let spans = trace::spans(&items);
        let assessed = self.assess(connection, &items, Ask::Everything, among).await?;
        let Some(unhandled) = &assessed.unhandled else {
            if let Some(item) = items.first() {
                self.begin_commit(position, item.record.offset + 1, assessed, spans).await?;
                let committed = self.finish_commit().await;
                if committed.is_err() {
                    // Trouble, not the record's fault: the same try goes on.
                    self.open_try = Some(position.next_offset);
                }
                committed?;
            }
            return Ok(Turn::Handled(items.len()));
        };
        self.open_try = None;
        if attempts >= attempts_max
            && let Some(item) = items.first()
        {
            return self.put_aside(connection, position, item, unhandled, attempts).await;
        }
        if let Some(reader) = &mut self.reader {
            reader.put_back(items);
        }
        Ok(Turn::TriedInVain)
    }

    pub(super) async fn note_try(
        &mut self,
        connection: &mut Connection,
        offset: i64,
        attempts: i32,
    ) -> anyhow::Result<()> {
        let (lease, name) = (&self.lease, &self.name);
        let noting = transaction("note a try", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::note_attempt(connection, name, offset, attempts).await
        });
        answered(self.patience(), noting).await?;
        fail_point::reach("consume-risk/noted");
        self.is_noted = true;
        if let Some(position) = &mut self.position {
            position.attempts = attempts;
        }
        Ok(())
    }

    async fn put_aside(
        &mut self,
        connection: &mut Connection,
        position: Position,
        item: &Item,
        unhandled: &Unhandled,
        attempts: i32,
    ) -> anyhow::Result<Turn> {
        let letter = dead_letter(&self.name, &item.record, unhandled, attempts);
        let (from, to) = (position.next_offset, item.record.offset + 1);
        let interrupted = self.is_careful(to);
        let (lease, name) = (&self.lease, &self.name);
        let putting_aside = transaction("put aside", connection, async |connection: &mut Connection| {
            leases::hold(connection, &[lease]).await?;
            positions::advance(connection, name, from, to, interrupted).await?;
            let put_aside = dead_letters::insert(connection, &letter).await;
            fail_point::reach("consume-risk/putting-aside");
            put_aside
        });
        answered(self.patience(), putting_aside).await?;
        fail_point::reach("consume-risk/put-aside");
        self.moved_to(to, interrupted);
        tracing::error!(partition = %self.name, offset = item.record.offset, stage = unhandled.stage,
            reason = unhandled.reason, error = letter.error, attempts, "put aside as a dead letter");
        metrics::counter!("ledger_dead_letters_total", "reason" => unhandled.reason).increment(1);
        metrics::counter!("ledger_consumer_events_total", "outcome" => "dead_lettered").increment(1);
        Ok(Turn::Handled(1))
    }

    /// A try that the infrastructure ended is not held against the record by the next owner, unless that owner is there
    /// already. Best effort: without it one of the tries is missing.
    pub(super) async fn give_back_open_try(&mut self) {
        let Some(offset) = self.open_try else { return };
        let (lease, name) = (&self.lease, &self.name);
        let given_back = async {
            let mut connection = self.connect().await?;
            let giving_back =
                transaction("give back a try", &mut connection, async |connection: &mut Connection| {
                    leases::hold(connection, &[lease]).await?;
                    match positions::read(connection, name).await? {
                        Some(Position { next_offset, attempts, .. })
                            if next_offset == offset && attempts > 0 =>
                        {
                            positions::note_attempt(connection, name, offset, attempts - 1).await
                        }
                        _ => Ok(()),
                    }
                });
            answered(self.patience(), giving_back).await?;
            anyhow::Ok(())
        };
        if let Err(error) = given_back.await {
            tracing::debug!(partition = %self.name, "a try could not be given back: {error:#}");
        }
    }
}
