//! The topic of transactions from its first record: each event against its row, first occurrences in order, nothing
//! passed over, nothing missing.

use std::collections::HashMap;

use super::{
    order::{Order, Seen},
    report::Check,
    topic::{PartitionReader, partitions},
};
use crate::{
    broker::{Broker, FetchedRecord},
    event::{TRANSACTION_CREATED, TRANSACTIONS_TOPIC, TransactionCreated, partition_of},
    repository::{
        Connection,
        verification::{self, Found, Record, Snapshot, Unpublished},
    },
};

/// Rows or events in one statement.
const CHUNK_SIZE_MAX: usize = 5_000;
const ACCOUNTS_PAGE_MAX: i64 = 10_000;

/// What the topic holds.
#[derive(Default)]
pub(super) struct Scan {
    order: Order,
    /// Events that tell of no row, or tell it differently.
    unlike: Found,
    /// Records that are no event of ours; handling them is the group's affair.
    foreign: i64,
    /// Events unlike their rows that a group put aside for that.
    put_aside: i64,
    /// Events that the group passed without effect.
    passed: Found,
    records: i64,
    /// Of the ledger at the remembered moment.
    rows: i64,
    handled: i64,
    partitions: i32,
    /// Partitions whose first records are gone.
    trimmed: Vec<i32>,
    /// Records that the group has not handled.
    pub(super) behind: i64,
}

/// Where a chunk of records comes from.
#[derive(Clone, Copy)]
struct Source<'a> {
    group: &'a str,
    partition: i32,
    /// The group's position at the remembered moment.
    position: i64,
    /// Whether the partition still has its first record.
    whole: bool,
}

/// Reads the topic up to where it ends now, which must be after the snapshot.
pub(super) async fn scan(
    connection: &mut Connection,
    broker: &dyn Broker,
    snapshot: &Snapshot,
    group: &str,
) -> anyhow::Result<Scan> {
    let positions: HashMap<i32, i64> = snapshot
        .positions
        .iter()
        .filter(|position| position.topic == TRANSACTIONS_TOPIC && position.consumer_group == group)
        .map(|position| (position.partition, position.next_offset))
        .collect();
    let mut scan = Scan {
        partitions: partitions(broker, TRANSACTIONS_TOPIC).await?,
        rows: snapshot.transactions,
        ..Scan::default()
    };
    for partition in 0..scan.partitions {
        let mut reader = PartitionReader::open(broker, TRANSACTIONS_TOPIC, partition).await?;
        let range = reader.range;
        let position = positions.get(&partition).copied().unwrap_or(range.earliest);
        scan.behind += (range.latest - position.max(range.earliest)).max(0);
        let source = Source { group, partition, position, whole: range.earliest == 0 };
        if !source.whole {
            scan.trimmed.push(partition);
        }
        while let Some(records) = reader.read().await? {
            for chunk in records.chunks(CHUNK_SIZE_MAX) {
                scan.take(connection, source, chunk).await?;
            }
        }
    }
    Ok(scan)
}

impl Scan {
    async fn take(
        &mut self,
        connection: &mut Connection,
        source: Source<'_>,
        records: &[FetchedRecord],
    ) -> anyhow::Result<()> {
        let (events, foreign) = split(source.partition, records);
        self.records += count(records.len());
        self.foreign += count(foreign.len());
        let unlike = verification::records_unlike_rows(connection, &events).await?;
        for event in &events {
            // One that no row stands behind says nothing about the order of those that are real.
            if unlike.binary_search_by_key(&event.offset, |unlike| unlike.record_offset).is_err() {
                self.order.observe(Seen {
                    account_id: &event.account_id,
                    account_seq: event.account_seq,
                    partition: source.partition,
                    offset: event.offset,
                    whole: source.whole,
                });
            }
        }
        for unlike in unlike {
            match unlike.put_aside {
                true => self.put_aside += 1,
                false => self.unlike.push(|| unlike.example),
            }
        }
        self.take_passed(connection, source, &events, &foreign).await
    }

    /// What the group has gone past must have had its effect.
    async fn take_passed(
        &mut self,
        connection: &mut Connection,
        source: Source<'_>,
        events: &[Record],
        foreign: &[i64],
    ) -> anyhow::Result<()> {
        let Source { group, partition, position, .. } = source;
        let passed = events.partition_point(|event| event.offset < position);
        let events = events.get(..passed).unwrap_or_default();
        let passed = foreign.partition_point(|offset| *offset < position);
        let foreign = foreign.get(..passed).unwrap_or_default();
        self.handled += count(events.len() + foreign.len());
        if !events.is_empty() {
            self.passed.add(verification::assessments_missing_for(connection, group, events).await?);
        }
        if !foreign.is_empty() {
            self.passed
                .add(verification::dead_letters_missing_for(connection, group, partition, foreign).await?);
        }
        Ok(())
    }

    /// Holds what was read against the ledger and the outbox of the remembered moment.
    pub(super) async fn into_checks(self, connection: &mut Connection) -> anyhow::Result<Vec<Check>> {
        self.hand_over(connection).await?;
        let mut missing = verification::gaps_missing(connection).await?;
        let unknown = self.find_unpublished(connection, &mut missing).await?;
        let mut late = self.order.late.clone();
        late.add(verification::gaps_in_outbox(connection).await?);
        let (events_note, published_note) = (self.note(), self.trimmed_note(unknown));
        let accounts = count(self.order.accounts());
        let published =
            Check::of("published", "each row's event is in the topic or in the outbox", self.rows, missing);
        Ok(vec![
            Check::of("events", "each published event tells of its row", self.records, self.unlike)
                .with_note(events_note),
            Check { note: published_note, ..published },
            Check::of("order", "first occurrences of each account in account_seq order", accounts, late),
            Check::of("handled", "the group passed no event without effect", self.handled, self.passed),
        ])
    }

    fn note(&self) -> String {
        if self.partitions == 0 {
            return "the topic does not exist yet".to_owned();
        }
        let foreign = self.foreign + self.put_aside;
        match foreign {
            0 => format!("{} duplicates", self.order.duplicates),
            _ => {
                format!("{} duplicates, {foreign} records that are no events of ours", self.order.duplicates)
            }
        }
    }

    fn trimmed_note(&self, unknown: i64) -> Option<String> {
        let (trimmed, all) = (self.trimmed.len(), self.partitions);
        (trimmed > 0).then(|| {
            format!("retention removed the start of {trimmed} of {all} partitions; {unknown} accounts cannot be judged")
        })
    }

    async fn hand_over(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let mut published = self.order.published().peekable();
        while published.peek().is_some() {
            let chunk: Vec<_> = published.by_ref().take(CHUNK_SIZE_MAX).collect();
            verification::insert_published(connection, &chunk).await?;
        }
        let mut gaps = self.order.gaps().peekable();
        while gaps.peek().is_some() {
            let chunk: Vec<_> = gaps.by_ref().take(CHUNK_SIZE_MAX).collect();
            verification::insert_gaps(connection, &chunk).await?;
        }
        verification::analyze_published(connection).await?;
        Ok(())
    }

    /// Adds what is neither in the topic nor in the outbox. Answers how many accounts cannot be judged, because their
    /// partition has lost its start.
    async fn find_unpublished(
        &self,
        connection: &mut Connection,
        missing: &mut Found,
    ) -> anyhow::Result<i64> {
        let mut after = String::new();
        let mut unknown = 0;
        loop {
            let page = verification::unpublished(connection, &after, ACCOUNTS_PAGE_MAX).await?;
            let Some(last) = page.last() else { return Ok(unknown) };
            after.clone_from(&last.account_id);
            for account in page {
                let partition = partition_of(account.account_id.as_bytes(), self.partitions);
                match !account.seen && self.trimmed.contains(&partition) {
                    true => unknown += 1,
                    false => missing.add(unpublished(&account)),
                }
            }
        }
    }
}

fn unpublished(account: &Unpublished) -> Found {
    let Unpublished { account_id, rows, first_seq, .. } = account;
    let example = format!(
        "account {account_id}: {rows} rows from {first_seq} on are neither in the topic nor in the outbox"
    );
    Found { differences: *rows, examples: vec![example] }
}

/// Events of ours, and the offsets of the other records.
fn split(partition: i32, records: &[FetchedRecord]) -> (Vec<Record>, Vec<i64>) {
    let (mut events, mut foreign) = (Vec::with_capacity(records.len()), Vec::new());
    for record in records {
        match event(partition, record) {
            Some(event) => events.push(event),
            None => foreign.push(record.offset),
        }
    }
    (events, foreign)
}

/// A record as an event of ours, if it is one.
fn event(partition: i32, record: &FetchedRecord) -> Option<Record> {
    if record.headers.attribute("ce_type") != Some(TRANSACTION_CREATED) {
        return None;
    }
    let event = TransactionCreated::decode(record.value.as_deref()?).ok()?;
    let row = event.to_transaction().ok()?;
    (record.key.as_deref() == Some(event.account_id.as_bytes())).then_some(Record {
        partition,
        offset: record.offset,
        account_id: event.account_id,
        currency: event.currency,
        account_seq: event.account_seq,
        event_id: event.event_id,
        amount: row.posting.signed_minor(),
        balance_after: row.balance_after,
        created_at: row.created_at,
        metadata: row.posting.metadata.as_ref().map(|metadata| metadata.as_json().to_owned()),
        counterparty: event.counterparty,
        description: event.description,
        reverses: row.posting.reverses,
    })
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
