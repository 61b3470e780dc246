//! The whole system as separate processes for fault tests: roles that can be killed, frozen and stopped, and a Kafka behind
//! a proxy. [`System::is_whole`] checks the result with `ledger verify` and an independent reader.

use std::{process::Output, time::Duration};

use ledger::{
    broker::{self, FetchedRecord, OutgoingRecord, SharedBroker},
    domain::{AccountId, Amount, Currency, Direction, IdempotencyKey, Posting},
    event::{RISK_ASSESSMENTS_TOPIC, TRANSACTIONS_TOPIC},
    posting::{Request, post_locked},
};
use serde_json::Value;

use super::{
    binary::{self, Binary},
    own_kafka::OwnKafka,
    postgres::TestDatabase,
    proxy::Proxy,
    topic_audit::{Audit, audit},
};

/// A broker of one test, and the proxy in front of it.
pub struct Behind {
    pub broker: OwnKafka,
    pub proxy: Proxy,
}

/// A database, a broker, and the roles on them.
pub struct System {
    pub database: TestDatabase,
    pub kafka: Option<Behind>,
}

/// The longest time for a command.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// Short leases and time limits, so that tests need not wait long for their expiry.
const SETTINGS: [(&str, &str); 8] = [
    ("ADMIN__LISTEN", "127.0.0.1:0"),
    ("BROKER__TOPICS__TRANSACTIONS_PARTITIONS", "6"),
    ("BROKER__TOPICS__RISK_ASSESSMENTS_PARTITIONS", "6"),
    ("BROKER__TOPICS__DEAD_LETTERS_PARTITIONS", "1"),
    ("BROKER__KAFKA__REQUEST_TIMEOUT", "2s"),
    ("BROKER__KAFKA__CONNECT_TIMEOUT", "2s"),
    ("RELAY__LEASE_TTL", "1s"),
    ("CONSUME_RISK__LEASE_TTL", "1s"),
];

impl System {
    /// Returns a system with topics in PostgreSQL, on the shared server.
    pub async fn on_postgres() -> Self {
        Self { database: TestDatabase::new().await, kafka: None }
    }

    /// Returns a system with its own Kafka, or None if Kafka is not available.
    pub async fn on_kafka() -> Option<Self> {
        let broker = OwnKafka::start().await?;
        Some(Self::with(TestDatabase::new().await, broker).await)
    }

    /// Returns a system on the given database and broker.
    pub async fn with(database: TestDatabase, broker: OwnKafka) -> Self {
        let proxy = Proxy::start(broker.address).await;
        Self { database, kafka: Some(Behind { broker, proxy }) }
    }

    /// Returns the Kafka of the system. Panics without one.
    pub fn kafka(&self) -> &Behind {
        self.kafka.as_ref().expect("a system on Kafka")
    }

    fn environment(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> =
            SETTINGS.iter().map(|(name, value)| (format!("LEDGER_{name}"), (*value).to_owned())).collect();
        all.push(("LEDGER_DATABASE__URL".into(), self.database.url.clone()));
        if let Some(kafka) = &self.kafka {
            all.push(("LEDGER_BROKER__KIND".into(), "kafka".into()));
            all.push(("LEDGER_BROKER__KAFKA__BOOTSTRAP_SERVERS".into(), kafka.proxy.address.to_string()));
        }
        all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    }

    /// Starts a role and does not wait.
    pub fn start(&self, role: &str, more: &[(&str, &str)]) -> Binary {
        let environment = self.environment(more);
        let pairs: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Binary::start(&[role], &pairs)
    }

    /// Runs a command until it exits.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_within(arguments, COMMAND_MAX)
    }

    /// Runs a command that may take this long.
    pub fn run_within(&self, arguments: &[&str], limit: Duration) -> Output {
        let environment = self.environment(&[]);
        let pairs: Vec<(&str, &str)> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        binary::run_within(arguments, &pairs, limit)
    }

    /// Starts a relay and waits until it has started.
    pub fn relay(&self, more: &[(&str, &str)]) -> Binary {
        let mut relay = self.start("relay", more);
        relay.line_with("started role=\"relay\"");
        relay
    }

    /// Starts a consumer and waits until it has started.
    pub fn consumer(&self, more: &[(&str, &str)]) -> Binary {
        let mut consumer = self.start("consume-risk", more);
        consumer.line_with("started role=\"consume-risk\"");
        consumer
    }

    /// Starts the API and returns its URL.
    pub fn serve(&self, more: &[(&str, &str)]) -> (Binary, String) {
        let mut all = vec![("LEDGER_SERVE__LISTEN", "127.0.0.1:0"), ("LEDGER_ADMIN__LISTEN", "off")];
        all.extend(more);
        let mut serve = self.start("serve", &all);
        let url = format!("http://{}", serve.field("listen"));
        (serve, url)
    }

    /// Connects to the broker without the proxy.
    pub async fn broker(&self) -> SharedBroker {
        let servers = self.kafka.as_ref().map(|kafka| kafka.broker.address.to_string());
        let overrides: Vec<(&str, &str)> = match &servers {
            Some(servers) => vec![("broker.kind", "kafka"), ("broker.kafka.bootstrap_servers", servers)],
            None => Vec::new(),
        };
        let config = self.database.config_with(&overrides);
        broker::connect(&config, self.database.pool()).await.expect("a broker")
    }

    /// Posts `count` transactions, numbered from `first`, alternating between the accounts. `describe` returns their
    /// descriptions.
    pub async fn post(
        &self,
        first: usize,
        count: usize,
        accounts: usize,
        describe: impl Fn(usize) -> Option<&'static str>,
    ) {
        let mut connection = self.database.connection().await;
        let numbers: Vec<usize> = (first..first + count).collect();
        for group in numbers.chunks(500) {
            let requests: Vec<Request> = group
                .iter()
                .map(|number| Request {
                    posting: posting(&format!("acct-{}", number % accounts), *number, describe(*number))
                        .into(),
                    traceparent: None,
                })
                .collect();
            post_locked(&mut connection, &requests).await.expect("posted");
        }
    }

    /// Returns the number of rows of a table.
    pub async fn count(&self, from: &str) -> usize {
        self.database.value(&format!("SELECT count(*) FROM {from}")).await.parse().expect("a number")
    }

    /// Publishes once more, in their order, the records that `keep` selects. Returns their number.
    pub async fn publish_again(&self, topic: &str, keep: impl Fn(&FetchedRecord) -> bool) -> usize {
        let broker = self.broker().await;
        let mut count = 0;
        for partition in 0..broker.partitions(topic).await.expect("a topic") {
            let (mut next, end) = (0, broker.offset_range(topic, partition).await.expect("a range").latest);
            while next < end {
                let found = broker.fetch(topic, partition, next, 1 << 20, Duration::from_secs(1)).await;
                let mut records = found.expect("read").records;
                records.retain(|record| record.offset < end);
                next = records.last().expect("some").offset + 1;
                records.retain(|record| keep(record));
                count += records.len();
                let again = records.into_iter().map(|record| OutgoingRecord {
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                    timestamp: record.timestamp,
                });
                broker.produce(topic, partition, again.collect()).await.expect("published");
            }
        }
        count
    }

    /// Audits the topic of transactions with an independent reader.
    pub async fn audit(&self) -> Audit {
        audit(&self.broker().await, TRANSACTIONS_TOPIC).await
    }

    /// Waits until nothing is in flight, and returns all differences.
    pub async fn differences(&self) -> Vec<String> {
        self.differences_within("90s", COMMAND_MAX).await
    }

    /// Waits at most `wait` until nothing is in flight, and returns all differences. `verify` may take until `limit`.
    pub async fn differences_within(&self, wait: &str, limit: Duration) -> Vec<String> {
        let verified = self.run_within(&["verify", "--wait", wait, "--output", "json"], limit);
        let report: Value = serde_json::from_slice(&verified.stdout).unwrap_or_default();
        let mut differences = Vec::new();
        match report["checks"].as_array() {
            None => differences.push(format!("verify: {}", String::from_utf8_lossy(&verified.stderr))),
            Some(checks) => differences.extend(
                checks.iter().filter(|check| check["status"] != "ok").map(|check| format!("verify: {check}")),
            ),
        }
        let broker = self.broker().await;
        for (topic, rows) in
            [(TRANSACTIONS_TOPIC, "transactions"), (RISK_ASSESSMENTS_TOPIC, "risk_assessments")]
        {
            differences.extend(audit(&broker, topic).await.differences(&self.database, rows).await);
        }
        differences
    }

    /// Asserts that `verify` and the independent reader find nothing lost, doubled or out of order.
    pub async fn is_whole(&self) {
        let differences = self.differences().await;
        let shown = &differences[..differences.len().min(20)];
        assert!(differences.is_empty(), "{} differences: {shown:#?}", differences.len());
    }
}

fn posting(account: &str, number: usize, description: Option<&str>) -> Posting {
    Posting {
        account_id: AccountId::parse(account).expect("valid"),
        idempotency_key: IdempotencyKey::parse(&format!("key-{number}")).expect("valid"),
        direction: Direction::Credit,
        amount: Amount::from_minor(i64::try_from(1 + number % 900).expect("small")).expect("valid"),
        currency: Currency::parse("EUR").expect("known"),
        counterparty: None,
        description: description.map(Into::into),
        metadata: None,
        reverses: None,
        created_at: None,
    }
}

/// Asserts that a fail point killed the process.
pub fn dies(role: Binary) {
    use std::os::unix::process::ExitStatusExt;
    let (status, stderr) = role.ended_within(Duration::from_secs(30));
    assert_eq!(status.signal(), Some(9), "{status}: {stderr}");
}
