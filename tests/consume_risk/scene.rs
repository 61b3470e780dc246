//! The set-up of the tests of `consume-risk`: a database, a topic of transactions, and consumers of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use ledger::{
    broker::{self, OutgoingRecord, SharedBroker, TopicSpec},
    consume_risk::{self, PartitionConsumer},
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Posting},
    event::{TRANSACTION_CREATED, TRANSACTIONS_TOPIC, cloud_event_headers, partition_of},
    posting::{Request, post_locked},
    repository::{
        leases::{self, Lease},
        positions::PartitionName,
    },
    risk::Ruleset,
    runtime::Context,
};
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use crate::support::{binary::Binary, eventually, postgres::TestDatabase};

pub const PARTITIONS: i32 = 4;
pub const TTL: Duration = Duration::from_secs(2);

/// A database, and a broker with `transactions.v1`.
pub struct Scene {
    pub database: TestDatabase,
    pub broker: SharedBroker,
    pub topic: String,
}

impl Scene {
    pub async fn new() -> Self {
        let database = TestDatabase::new().await;
        let broker = broker::connect(&database.config, database.pool()).await.expect("broker");
        Self::with(database, broker, TRANSACTIONS_TOPIC.to_owned()).await
    }

    pub async fn with(database: TestDatabase, broker: SharedBroker, topic: String) -> Self {
        let spec = TopicSpec::new(topic.clone(), PARTITIONS);
        broker.ensure_topics(&[spec], true).await.expect("topic");
        Self { database, broker, topic }
    }

    pub fn context(&self, overrides: &[(&str, &str)]) -> Context {
        let base = [("broker.topics.transactions_partitions", "4"), ("consume_risk.lease_ttl", "2s")];
        self.database.context_with(&[&base[..], overrides].concat())
    }

    /// Posts `count` transactions, spread over the accounts. Returns their records in the order of their ids, which keeps
    /// the order of each account.
    pub async fn post(&self, accounts: usize, count: usize) -> Vec<(String, OutgoingRecord)> {
        self.post_described(accounts, count, |_| None).await
    }

    pub async fn post_described(
        &self,
        accounts: usize,
        count: usize,
        description: impl Fn(usize) -> Option<String>,
    ) -> Vec<(String, OutgoingRecord)> {
        let mut connection = self.database.connection().await;
        let numbers: Vec<usize> = (0..count).collect();
        for group in numbers.chunks(1_000) {
            let requests: Vec<Request> = group
                .iter()
                .map(|n| request(&format!("acct-{}", n % accounts), description(*n), *n))
                .collect();
            post_locked(&mut connection, &requests).await.expect("posted");
        }
        self.take_from_outbox().await
    }

    /// Takes the records that the relay would publish.
    pub async fn take_from_outbox(&self) -> Vec<(String, OutgoingRecord)> {
        let client = self.database.client().await;
        let taken = "WITH taken AS (DELETE FROM outbox WHERE topic = 'transactions.v1' RETURNING *)
                     SELECT key, value, event_id::text AS event_id, created_at::text, traceparent FROM taken ORDER BY event_id";
        let mut records = Vec::new();
        for row in client.query(taken, &[]).await.expect("outbox") {
            let key: Vec<u8> = row.get(0);
            let event_id: Uuid = row.get::<_, String>("event_id").parse().expect("uuid");
            let created_at: DateTime<Utc> = Utc::now();
            let record = OutgoingRecord {
                key: Some(key.clone().into()),
                value: row.get::<_, Option<Vec<u8>>>(1).map(Into::into),
                headers: cloud_event_headers(event_id, TRANSACTION_CREATED, created_at, row.get(4)),
                timestamp: created_at,
            };
            records.push((String::from_utf8(key).expect("account"), record));
        }
        records
    }

    pub async fn publish(&self, records: &[(String, OutgoingRecord)]) {
        let mut by_partition: BTreeMap<i32, Vec<OutgoingRecord>> = BTreeMap::new();
        for (account, record) in records {
            by_partition
                .entry(partition_of(account.as_bytes(), PARTITIONS))
                .or_default()
                .push(record.clone());
        }
        for (partition, records) in by_partition {
            for part in records.chunks(1_000) {
                self.broker.produce(&self.topic, partition, part.to_vec()).await.expect("published");
            }
        }
    }

    pub async fn count(&self, from: &str) -> usize {
        self.database.value(&format!("SELECT count(*) FROM {from}")).await.parse().expect("a number")
    }

    /// Waits until the position of every partition is at its end.
    pub async fn consumed(&self) {
        eventually("all partitions are consumed", async || {
            let mut all = true;
            for partition in 0..PARTITIONS {
                let latest = self.broker.offset_range(&self.topic, partition).await.expect("range").latest;
                let at = self
                    .count(&format!(
                        "consumer_positions WHERE topic = '{}' AND partition = {partition} AND next_offset = {latest}",
                        self.topic
                    ))
                    .await;
                all &= at == 1 || latest == 0;
            }
            all
        })
        .await;
    }

    /// Asserts that every transaction has one assessment and one RiskAssessed event, in order per account.
    pub async fn assessed_exactly(&self, count: usize) {
        assert_eq!(self.count("risk_assessments").await, count);
        assert_eq!(
            self.count(
                "risk_assessments r JOIN transactions t USING (account_id, account_seq) WHERE r.transaction_id = t.id"
            )
            .await,
            count
        );
        assert_eq!(self.count("outbox WHERE topic = 'risk-assessments.v1'").await, count);
        let ordered = "(SELECT (convert_from(value, 'UTF8')::json->>'account_seq')::bigint AS seq,
                        row_number() OVER (PARTITION BY key ORDER BY id) AS expected
                        FROM outbox WHERE topic = 'risk-assessments.v1') x WHERE seq <> expected";
        assert_eq!(self.count(ordered).await, 0, "events out of order or twice");
    }

    /// Returns a consumer of one partition that holds its lease.
    pub async fn consumer(
        &self,
        partition: i32,
        rules: &str,
        overrides: &[(&str, &str)],
    ) -> PartitionConsumer {
        self.consumer_on("test", partition, rules, overrides).await
    }

    /// Like [`Scene::consumer`], with another name for the lease, for a second consumer of the partition.
    pub async fn consumer_on(
        &self,
        lease: &str,
        partition: i32,
        rules: &str,
        overrides: &[(&str, &str)],
    ) -> PartitionConsumer {
        let context = self.context(overrides);
        let name = PartitionName { group: "risk".into(), topic: self.topic.clone(), partition };
        let lease = self.lease(&format!("{lease}/{partition}"), &context.instance).await;
        let ruleset = Arc::new(Ruleset::parse(rules).expect("valid"));
        PartitionConsumer::new(context, self.broker.clone(), watch::channel(ruleset).1, name, lease)
    }

    /// Marks the positions as an owner leaves them when it ends within its first batch.
    pub async fn interrupt(&self) {
        let client = self.database.client().await;
        client.batch_execute("UPDATE consumer_positions SET interrupted = true").await.expect("updated");
    }

    pub async fn lease(&self, name: &str, owner: &str) -> Lease {
        let mut connection = self.database.connection().await;
        let names = [name.to_owned()];
        leases::create(&mut connection, &names).await.expect("created");
        let taken = leases::take(&mut connection, owner, &names, 1, TTL).await.expect("taken");
        let taken = taken.into_iter().next().expect("free");
        Lease::new(taken.name, owner.to_owned(), taken.epoch, TTL)
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LEDGER_DATABASE__URL", self.database.url.clone()),
            ("LEDGER_ADMIN__LISTEN", "127.0.0.1:0".into()),
            ("LEDGER_BROKER__TOPICS__TRANSACTIONS_PARTITIONS", "4".into()),
            ("LEDGER_CONSUME_RISK__LEASE_TTL", "1s".into()),
        ]
    }

    pub fn binary(&self, more: &[(&str, &str)]) -> Binary {
        let base = self.environment();
        let mut environment: Vec<(&str, &str)> = base.iter().map(|(k, v)| (*k, v.as_str())).collect();
        environment.extend(more);
        Binary::start(&["consume-risk"], &environment)
    }
}

pub fn request(account: &str, description: Option<String>, number: usize) -> Request {
    let currency = Currency::parse("EUR").expect("known");
    let posting = Posting {
        account_id: AccountId::parse(account).expect("valid"),
        idempotency_key: IdempotencyKey::parse(&format!("key-{number}")).expect("valid"),
        direction: if number.is_multiple_of(3) { Direction::Debit } else { Direction::Credit },
        amount: Amount::from_minor(i64::try_from(1 + number * 7_919 % 1_500_000).expect("small"))
            .expect("valid"),
        currency,
        counterparty: Some(format!("shop-{}", number % 29).into()),
        description: description.map(Into::into),
        metadata: None,
        reverses: None,
        created_at: None,
    };
    Request { posting: posting.into(), traceparent: None }
}

pub fn start(context: &Context) -> JoinHandle<anyhow::Result<()>> {
    tokio::spawn(consume_risk::run(context.clone()))
}

pub async fn stop(context: &Context, role: JoinHandle<anyhow::Result<()>>) {
    context.stop.request();
    let ended = tokio::time::timeout(Duration::from_secs(5), role).await.expect("stops within 5 s");
    ended.expect("no panic").expect("a clean end");
}
