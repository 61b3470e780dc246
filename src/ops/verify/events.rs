//! The checks of the topic of transactions, from its first record: each event equals its transaction, first occurrences
//! are in order, the consumer group handled every record below its position, and no event is missing.

use std::collections::HashMap;

use super::{
    order::{Occurrence, Order},
    report::Check,
    topic::{PartitionReader, TopicHistory, partitions},
};
use crate::{
    broker::{Broker, FetchedRecord},
    event::{REPUBLISHED, TRANSACTION_CREATED, TRANSACTIONS_TOPIC, TransactionCreated, partition_of},
    repository::{
        Connection,
        verification::{
            self, Example, Findings, ForeignRecord, PublishedTransaction, SequenceRange, Snapshot,
            UnpublishedRows,
        },
    },
};

/// The most events or ranges in one statement.
const CHUNK_SIZE_MAX: usize = 5_000;
/// The most accounts in one page of the search for unpublished transactions.
const ACCOUNTS_PAGE_MAX: i64 = 10_000;

/// The results of reading the topic.
#[derive(Default)]
pub(super) struct TopicScan {
    order: Order,
    /// Events whose transaction is missing or differs.
    mismatches: Findings,
    /// Records that are not TransactionCreated events. The group dead-letters them.
    foreign: i64,
    /// Events whose transaction is missing or differs, and which a group dead-lettered.
    dead_lettered: i64,
    /// Records below the group's position with neither an assessment nor a dead letter.
    unhandled: Findings,
    records: i64,
    /// The number of transactions in the snapshot.
    transactions: i64,
    handled: i64,
    partitions: i32,
    /// The partitions that lack their first records: retention removed them, or they are in another broker.
    trimmed: Vec<i32>,
    history: TopicHistory,
    /// The number of records that the group has not handled.
    pub(super) behind: i64,
}

/// The partition of a chunk of records.
#[derive(Clone, Copy)]
struct PartitionState<'a> {
    group: &'a str,
    partition: i32,
    /// The group's position in the snapshot.
    position: i64,
    /// Whether the partition has the first events of its accounts.
    whole: bool,
}

impl TopicScan {
    /// Reads the topic up to its current end. Call it after the snapshot.
    pub(super) async fn read(
        connection: &mut Connection,
        broker: &dyn Broker,
        snapshot: &Snapshot,
        group: &str,
        history: TopicHistory,
    ) -> anyhow::Result<Self> {
        let positions: HashMap<i32, i64> = snapshot
            .positions
            .iter()
            .filter(|position| position.topic == TRANSACTIONS_TOPIC && position.consumer_group == group)
            .map(|position| (position.partition, position.next_offset))
            .collect();
        let mut scan = Self {
            partitions: partitions(broker, TRANSACTIONS_TOPIC).await?,
            transactions: snapshot.transactions,
            order: Order::new(history.repartitioned),
            history,
            ..Self::default()
        };
        for partition in 0..scan.partitions {
            let mut reader = PartitionReader::open(broker, TRANSACTIONS_TOPIC, partition).await?;
            let range = reader.range;
            let position = positions.get(&partition).copied().unwrap_or(range.earliest);
            scan.behind += (range.latest - position.max(range.earliest)).max(0);
            let whole = range.earliest == 0 && history.moved_at.is_none();
            let source = PartitionState { group, partition, position, whole };
            if !source.whole {
                scan.trimmed.push(partition);
            }
            while let Some(records) = reader.read().await? {
                for chunk in records.chunks(CHUNK_SIZE_MAX) {
                    scan.add(connection, source, chunk).await?;
                }
            }
        }
        Ok(scan)
    }

    async fn add(
        &mut self,
        connection: &mut Connection,
        source: PartitionState<'_>,
        records: &[FetchedRecord],
    ) -> anyhow::Result<()> {
        let (events, foreign) = split(source.partition, records);
        self.records += count(records.len());
        self.foreign += count(foreign.len());
        let mismatches = verification::transaction_mismatches(connection, &events).await?;
        for event in &events {
            // An event without a transaction does not count for the order.
            if mismatches.binary_search_by_key(&event.offset, |mismatch| mismatch.record_offset).is_err() {
                self.order.observe(Occurrence {
                    account_id: &event.account_id,
                    account_seq: event.account_seq,
                    partition: source.partition,
                    offset: event.offset,
                    whole: source.whole,
                    is_republished: event.is_republished,
                });
            }
        }
        for mismatch in mismatches {
            match mismatch.dead_lettered {
                true => self.dead_lettered += 1,
                false => self.mismatches.push(|| mismatch.into_example()),
            }
        }
        self.check_handled(connection, source, &events, &foreign).await
    }

    /// Checks that records below the group's position have an assessment or a dead letter.
    async fn check_handled(
        &mut self,
        connection: &mut Connection,
        source: PartitionState<'_>,
        events: &[PublishedTransaction],
        foreign: &[ForeignRecord],
    ) -> anyhow::Result<()> {
        let PartitionState { group, partition, position, .. } = source;
        let passed = events.partition_point(|event| event.offset < position);
        let events = events.get(..passed).unwrap_or_default();
        let passed = foreign.partition_point(|record| record.offset < position);
        let foreign = foreign.get(..passed).unwrap_or_default();
        self.handled += count(events.len() + foreign.len());
        if !events.is_empty() {
            self.unhandled.add(verification::unhandled_events(connection, group, events).await?);
        }
        if !foreign.is_empty() {
            self.unhandled.add(verification::unhandled_records(connection, group, partition, foreign).await?);
        }
        Ok(())
    }

    /// Compares the results with the ledger and the outbox of the snapshot.
    pub(super) async fn into_checks(self, connection: &mut Connection) -> anyhow::Result<Vec<Check>> {
        self.store_ranges(connection).await?;
        let mut missing = verification::lost_in_gaps(connection).await?;
        let unchecked = self.find_unpublished(connection, &mut missing).await?;
        let mut late = self.order.late.clone();
        late.add(verification::gaps_in_outbox(connection).await?);
        let (events_note, published_note) = (self.note(), self.trimmed_note(unchecked));
        let order_note = self.history.repartitioned.then(|| {
            "not checked: the number of partitions was changed, so an account may be in two of them"
                .to_owned()
        });
        let accounts = count(self.order.accounts());
        let published = Check::of(
            "published",
            "the event of each transaction is in the topic or in the outbox",
            self.transactions,
            missing,
        );
        let order =
            Check::of("order", "first occurrences of each account are in account_seq order", accounts, late);
        Ok(vec![
            Check::of("events", "each published event equals its transaction", self.records, self.mismatches)
                .with_note(events_note),
            Check { note: published_note, ..published },
            Check { note: order_note, ..order },
            Check::of(
                "handled",
                "each record below the position has its effect",
                self.handled,
                self.unhandled,
            ),
        ])
    }

    fn note(&self) -> String {
        if self.partitions == 0 {
            return "the topic does not exist yet".to_owned();
        }
        let mut note = format!("{} duplicates", self.order.duplicates);
        if self.order.filled > 0 {
            note += &format!(", {} published late by `ledger republish`", self.order.filled);
        }
        let foreign = self.foreign + self.dead_lettered;
        if foreign > 0 {
            note += &format!(", {foreign} records that are not events of the ledger");
        }
        note
    }

    fn trimmed_note(&self, unchecked: i64) -> Option<String> {
        let (trimmed, all) = (self.trimmed.len(), self.partitions);
        let why = match self.history.moved_at {
            Some(at) => format!("the broker was switched at {at}, and earlier events are in the other one"),
            None => format!("retention removed the start of {trimmed} of {all} partitions"),
        };
        (trimmed > 0).then(|| format!("{why}; {unchecked} accounts cannot be checked"))
    }

    /// Writes the ranges and gaps of the accounts into temporary tables.
    async fn store_ranges(&self, connection: &mut Connection) -> anyhow::Result<()> {
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

    /// Adds the transactions that are neither in the topic nor in the outbox to `missing`. Returns how many accounts
    /// cannot be checked, because retention removed the start of their partition.
    async fn find_unpublished(
        &self,
        connection: &mut Connection,
        missing: &mut Findings,
    ) -> anyhow::Result<i64> {
        self.each_unpublished(connection, |account| missing.add(never_published(&account))).await
    }

    /// Writes the ranges of the missing transactions into the temporary table of gaps. Returns how many accounts cannot be
    /// checked.
    pub(super) async fn store_missing(self, connection: &mut Connection) -> anyhow::Result<i64> {
        self.store_ranges(connection).await?;
        let mut ranges = Vec::new();
        let add = |account: UnpublishedRows| {
            let UnpublishedRows { account_id, first_seq, last_seq, .. } = account;
            ranges.push(SequenceRange { account_id, from_seq: first_seq, to_seq: last_seq });
        };
        let unchecked = self.each_unpublished(connection, add).await?;
        for chunk in ranges.chunks(CHUNK_SIZE_MAX) {
            verification::insert_gaps(connection, chunk).await?;
        }
        verification::analyze_published(connection).await?;
        Ok(unchecked)
    }

    /// Calls `each` for each account whose last transactions are neither in the topic nor in the outbox. Returns how many
    /// accounts cannot be checked.
    async fn each_unpublished(
        &self,
        connection: &mut Connection,
        mut each: impl FnMut(UnpublishedRows),
    ) -> anyhow::Result<i64> {
        let mut after = String::new();
        let mut unchecked = 0;
        loop {
            let page = verification::unpublished(connection, &after, ACCOUNTS_PAGE_MAX).await?;
            let Some(last) = page.last() else { return Ok(unchecked) };
            after.clone_from(&last.account_id);
            for account in page {
                let partition = partition_of(account.account_id.as_bytes(), self.partitions);
                match !account.seen && self.trimmed.contains(&partition) {
                    true => unchecked += 1,
                    false => each(account),
                }
            }
        }
    }
}

fn never_published(account: &UnpublishedRows) -> Findings {
    let UnpublishedRows { account_id, rows, first_seq, .. } = account;
    let example = format!(
        "account {account_id}: {rows} transactions from number {first_seq} on are neither in the topic nor in the outbox"
    );
    let example =
        Example::new(example).with("account_id", account_id.as_str()).with("account_seq", *first_seq);
    Findings { differences: *rows, examples: vec![example] }
}

/// Splits records into TransactionCreated events and all other records.
fn split(partition: i32, records: &[FetchedRecord]) -> (Vec<PublishedTransaction>, Vec<ForeignRecord>) {
    let (mut events, mut foreign) = (Vec::with_capacity(records.len()), Vec::new());
    for record in records {
        match event(partition, record) {
            Some(event) => events.push(event),
            None => foreign.push(ForeignRecord { offset: record.offset, leader_epoch: record.leader_epoch }),
        }
    }
    (events, foreign)
}

/// Decodes a TransactionCreated event; None for any other record.
fn event(partition: i32, record: &FetchedRecord) -> Option<PublishedTransaction> {
    if record.headers.attribute("ce_type") != Some(TRANSACTION_CREATED) {
        return None;
    }
    let event = TransactionCreated::decode(record.value.as_deref()?).ok()?;
    let row = event.to_transaction().ok()?;
    (record.key.as_deref() == Some(event.account_id.as_bytes())).then_some(PublishedTransaction {
        partition,
        offset: record.offset,
        leader_epoch: record.leader_epoch,
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
        is_republished: record.headers.attribute(REPUBLISHED).is_some(),
    })
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
