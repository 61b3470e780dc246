//! An independent reader of a topic: from offset 0, by the JSON alone, with nothing of the product's own checks. First
//! occurrences of each account must come as 1, 2, 3 …; the rest must be repetitions.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ledger::{broker::SharedBroker, event::partition_of};
use serde_json::Value;

use super::postgres::TestDatabase;

const BYTES_MAX: usize = 1 << 22;
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What a topic holds.
#[derive(Debug, Default)]
pub struct Audit {
    /// All of them.
    pub records: usize,
    /// Events that came again.
    pub duplicates: usize,
    /// Records that are no events.
    pub foreign: usize,
    /// Out of order, in the wrong partition, or repeated with another content.
    pub wrong: Vec<String>,
    /// The event's bytes of each account and number.
    events: BTreeMap<(String, i64), Vec<u8>>,
    last: HashMap<String, i64>,
}

/// Reads all of it.
pub async fn audit(broker: &SharedBroker, topic: &str) -> Audit {
    let mut audit = Audit::default();
    let partitions = broker.partitions(topic).await.expect("a topic");
    for partition in 0..partitions {
        let end = broker.offset_range(topic, partition).await.expect("a range").latest;
        let mut next = 0;
        while next < end {
            let found = broker.fetch(topic, partition, next, BYTES_MAX, WAIT_MAX).await.expect("read");
            next = found.next_offset;
            for record in found.records {
                let place = format!("{topic}/{partition}@{}", record.offset);
                let event =
                    record.value.map(Vec::from).filter(|_| record.headers.attribute("ce_type").is_some());
                audit.take(&place, partition, partitions, record.key.as_deref(), event);
            }
        }
    }
    audit
}

impl Audit {
    fn take(
        &mut self,
        place: &str,
        partition: i32,
        partitions: i32,
        key: Option<&[u8]>,
        value: Option<Vec<u8>>,
    ) {
        self.records += 1;
        let json: Option<Value> = value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        let account = json.as_ref().and_then(|json| json["account_id"].as_str()).map(str::to_owned);
        let number = json.as_ref().and_then(|json| json["account_seq"].as_i64());
        let (Some(account), Some(number), Some(value)) = (account, number, value) else {
            self.foreign += 1;
            return;
        };
        if key != Some(account.as_bytes()) || partition != partition_of(account.as_bytes(), partitions) {
            self.wrong
                .push(format!("{place}: {account} {number} has another key or is in the wrong partition"));
        }
        let last = self.last.entry(account.clone()).or_default();
        if number > *last + 1 {
            self.wrong.push(format!("{place}: {account} jumps from {last} to {number}"));
        }
        *last = number.max(*last);
        match self.events.insert((account.clone(), number), value.clone()) {
            Some(before) if before != value => {
                self.wrong.push(format!("{place}: {account} {number} came with another content before"));
            }
            Some(_) => self.duplicates += 1,
            None => {}
        }
    }

    /// Distinct events.
    pub fn distinct(&self) -> usize {
        self.events.len()
    }

    /// What is wrong with it by itself, and against the rows that each must have its event, no more and no less.
    pub async fn differences(&self, database: &TestDatabase, rows: &str) -> Vec<String> {
        let mut differences = self.wrong.clone();
        let client = database.client().await;
        let found =
            client.query(&format!("SELECT account_id, account_seq FROM {rows}"), &[]).await.expect(rows);
        let mut expected = 0;
        for row in &found {
            let place: (String, i64) = (row.get(0), row.get(1));
            expected += 1;
            if !self.events.contains_key(&place) {
                differences.push(format!("{} {} of {rows} was never published", place.0, place.1));
            }
        }
        if self.events.len() != expected {
            differences.push(format!("{expected} {rows}, {} events", self.events.len()));
        }
        differences
    }
}
