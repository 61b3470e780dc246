//! Audits a topic from offset 0 by the JSON of its events, without the checks of the product. The first occurrences of the
//! events of an account must be 1, 2, 3 …; all other events must repeat earlier ones.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ledger::{
    broker::SharedBroker,
    event::{TRANSACTIONS_TOPIC, partition_of},
};
use serde_json::Value;

use super::postgres::TestDatabase;

const BYTES_MAX: usize = 1 << 22;
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The content of a topic.
#[derive(Debug, Default)]
pub struct Audit {
    /// All records.
    pub records: usize,
    /// Repeated events.
    pub duplicates: usize,
    /// Records that are no events.
    pub foreign: usize,
    /// Descriptions of events that are out of order, in the wrong partition, or repeated with another content.
    pub wrong: Vec<String>,
    /// The bytes of each event, by account and number.
    events: BTreeMap<(String, i64), Vec<u8>>,
    last: HashMap<String, i64>,
}

/// Reads a whole topic.
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
                let text = format!("{topic}/{partition}@{}", record.offset);
                let event =
                    record.value.map(Vec::from).filter(|_| record.headers.attribute("ce_type").is_some());
                // RiskAssessed events carry no mark: they are late when their transactions were published again.
                let may_be_late =
                    topic != TRANSACTIONS_TOPIC || record.headers.attribute("ce_republished") == Some("true");
                let origin = Origin { text, partition, partitions, may_be_late };
                audit.take(&origin, record.key.as_deref(), event);
            }
        }
    }
    audit
}

/// The partition and offset of a record, and whether it may come after later events of its account.
struct Origin {
    text: String,
    partition: i32,
    partitions: i32,
    may_be_late: bool,
}

impl Audit {
    fn take(&mut self, origin: &Origin, key: Option<&[u8]>, value: Option<Vec<u8>>) {
        let Origin { text: origin, partition, partitions, may_be_late } = origin;
        self.records += 1;
        let json: Option<Value> = value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        let account = json.as_ref().and_then(|json| json["account_id"].as_str()).map(str::to_owned);
        let number = json.as_ref().and_then(|json| json["account_seq"].as_i64());
        let (Some(account), Some(number), Some(value)) = (account, number, value) else {
            self.foreign += 1;
            return;
        };
        if key != Some(account.as_bytes()) || *partition != partition_of(account.as_bytes(), *partitions) {
            self.wrong
                .push(format!("{origin}: {account} {number} has another key or is in the wrong partition"));
        }
        let last = self.last.entry(account.clone()).or_default();
        if number > *last + 1 {
            self.wrong.push(format!("{origin}: {account} jumps from {last} to {number}"));
        }
        let is_first = !self.events.contains_key(&(account.clone(), number));
        if is_first && number < *last && !may_be_late {
            self.wrong.push(format!("{origin}: {account} {number} comes after {last}"));
        }
        *last = number.max(*last);
        match self.events.insert((account.clone(), number), value.clone()) {
            Some(before) if before != value => {
                self.wrong
                    .push(format!("{origin}: {account} {number} was published before with another content"));
            }
            Some(_) => self.duplicates += 1,
            None => {}
        }
    }

    /// Returns the number of distinct events.
    pub fn distinct(&self) -> usize {
        self.events.len()
    }

    /// Returns all errors of the topic, and every difference from `rows`: each row must have exactly one event.
    pub async fn differences(&self, database: &TestDatabase, rows: &str) -> Vec<String> {
        let mut differences = self.wrong.clone();
        let client = database.client().await;
        let found =
            client.query(&format!("SELECT account_id, account_seq FROM {rows}"), &[]).await.expect(rows);
        let mut expected = 0;
        for row in &found {
            let name: (String, i64) = (row.get(0), row.get(1));
            expected += 1;
            if !self.events.contains_key(&name) {
                differences.push(format!("{} {} of {rows} was never published", name.0, name.1));
            }
        }
        if self.events.len() != expected {
            differences.push(format!("{expected} {rows}, {} events", self.events.len()));
        }
        differences
    }
}
