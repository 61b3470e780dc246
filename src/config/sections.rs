//! The typed sections of the configuration, one struct per TOML table, and what they must satisfy.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    ConfigError,
    kafka::{Compression, SaslMechanism},
    secret::{DATABASE_URL_FILE, read_secret},
};

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Connections to PostgreSQL.
    pub database: Database,
    /// The HTTP API and its writers.
    pub serve: Serve,
    /// Health and metrics of every role.
    pub admin: Admin,
    /// Where events go.
    pub broker: Broker,
    /// From the outbox to the broker.
    pub relay: Relay,
    /// From the broker to assessments.
    pub consume_risk: ConsumeRisk,
    /// The rules.
    pub risk: Risk,
    /// Fact tables.
    pub aggregate: Aggregate,
    /// Logging.
    pub log: Log,
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Connection URL; a secret, since it may hold a password. Already read from `url_file` where that is set.
    pub url: SecretString,
    /// Where `url` came from, if from a file.
    #[serde(deserialize_with = "optional_path")]
    pub url_file: Option<PathBuf>,
    /// PEM roots to trust.
    #[serde(deserialize_with = "optional_path")]
    pub tls_ca_file: Option<PathBuf>,
    /// Connections in the reading pool.
    pub pool_size_max: usize,
    /// Longest wait for a pooled connection.
    #[serde(with = "humantime_serde")]
    pub pool_wait_timeout: Duration,
    /// Longest time to open one.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Server-side bound of a statement.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// Server-side bound of an idle transaction.
    #[serde(with = "humantime_serde")]
    pub idle_in_transaction_timeout: Duration,
}

impl Database {
    /// The URL as it is now: read anew where it came from a file, so that a changed password is taken up by the next
    /// connection. What was no plain file (a pipe) or is gone could not be read again; then the first one stays.
    pub fn url_now(&self) -> Result<SecretString, ConfigError> {
        match &self.url_file {
            Some(path) if path.is_file() => read_secret(DATABASE_URL_FILE, path),
            _ => Ok(self.url.clone()),
        }
    }
}

/// `[serve]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// Address of the API.
    pub listen: SocketAddr,
    /// HTTP worker threads; 0 for one per core.
    pub workers: usize,
    /// Writer connections.
    pub writers: usize,
    /// Requests that may wait for one writer.
    pub queue_size_max: usize,
    /// Transactions in one commit.
    pub group_size_max: usize,
    /// Accounts that a writer remembers.
    pub accounts_remembered_max: usize,
    /// Latest rows that a writer remembers.
    pub rows_remembered_max: usize,
    /// Bound on receiving a request.
    #[serde(with = "humantime_serde")]
    pub client_timeout: Duration,
    /// How long an idle connection is kept for the next request.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Bound on answering one.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Open connections per worker thread.
    pub connections_max: usize,
    /// Largest body, bytes.
    pub body_size_max: usize,
    /// Largest body of a batch, bytes.
    pub batch_body_size_max: usize,
    /// Requests per second and client; 0 for no limit.
    pub rate_limit: u32,
    /// Requests that a client may send at once; 0 for as many as its rate.
    pub rate_limit_burst: u32,
    /// Whether answers say in `Server-Timing` how long they took.
    pub server_timing: bool,
    /// How many proxies in front are trusted to write `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// Bound on draining at shutdown.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address of `/livez`, `/readyz` and `/metrics`.
    pub listen: Listen,
}

/// An address to listen on, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// No listener.
    Off,
    /// This address.
    On(SocketAddr),
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::On).map_err(|_| {
                D::Error::custom(format!(
                    "{address:?} is neither \"off\" nor an address such as 127.0.0.1:9090"
                ))
            }),
        }
    }
}

/// `[broker]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Which broker.
    pub kind: BrokerKind,
    /// Create missing topics at start.
    pub create_topics: bool,
    /// How topics are created.
    pub topics: Topics,
    /// Connection to Kafka.
    pub kafka: Kafka,
}

/// The brokers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerKind {
    /// Topics in a PostgreSQL table.
    Postgres,
    /// Apache Kafka.
    Kafka,
}

/// `[broker.topics]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Of `transactions.v1`.
    pub transactions_partitions: i32,
    /// Of `risk-assessments.v1`.
    pub risk_assessments_partitions: i32,
    /// Of each `….dlq`.
    pub dead_letters_partitions: i32,
    /// Kafka only.
    pub replication_factor: i16,
    /// Kafka only.
    pub min_insync_replicas: i16,
    /// Age of records of `transactions.v1` beyond which they are removed; zero for never.
    #[serde(with = "humantime_serde")]
    pub transactions_retention: Duration,
    /// Bytes of a partition of `transactions.v1` beyond which its first records are removed; 0 for no limit.
    pub transactions_retention_bytes: u64,
    /// The same for `risk-assessments.v1`.
    #[serde(with = "humantime_serde")]
    pub risk_assessments_retention: Duration,
    /// The same for `risk-assessments.v1`.
    pub risk_assessments_retention_bytes: u64,
    /// The same for each `….dlq`.
    #[serde(with = "humantime_serde")]
    pub dead_letters_retention: Duration,
    /// The same for each `….dlq`.
    pub dead_letters_retention_bytes: u64,
}

/// `[broker.kafka]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Comma-separated `host:port`.
    pub bootstrap_servers: String,
    /// Shown in the broker's logs and quotas.
    pub client_id: String,
    /// Bound on one call.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Bound on the first connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How published record batches are compressed.
    pub compression: Compression,
    /// Encrypt, and check the broker's certificate.
    pub tls: bool,
    /// PEM roots to trust.
    #[serde(deserialize_with = "optional_path")]
    pub tls_ca_file: Option<PathBuf>,
    /// `None` for no authentication.
    #[serde(deserialize_with = "SaslMechanism::optional")]
    pub sasl_mechanism: Option<SaslMechanism>,
    /// Who to authenticate as.
    pub sasl_username: String,
    /// Already read from `sasl_password_file` where that is set.
    pub sasl_password: SecretString,
    /// Where `sasl_password` came from, if from a file.
    #[serde(deserialize_with = "optional_path")]
    pub sasl_password_file: Option<PathBuf>,
}

/// `[relay]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Rows read, published and deleted at once.
    pub batch_size_max: usize,
    /// Shortest wait on an empty outbox.
    #[serde(with = "humantime_serde")]
    pub poll_interval_min: Duration,
    /// Longest wait on an empty outbox.
    #[serde(with = "humantime_serde")]
    pub poll_interval_max: Duration,
    /// Silence after which lanes are taken over.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
}

/// `[consume_risk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumeRisk {
    /// Name of the consumer group.
    pub group: String,
    /// Events assessed and committed at once, per partition.
    pub batch_size_max: usize,
    /// Longest wait of one look at an empty partition.
    #[serde(with = "humantime_serde")]
    pub poll_interval_max: Duration,
    /// Silence after which partitions are taken over.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// Tries before a record becomes a dead letter.
    pub attempts_max: i32,
}

/// `[risk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Risk {
    /// The rule file; None for the one compiled in.
    #[serde(deserialize_with = "optional_path")]
    pub rules: Option<PathBuf>,
}

/// `[aggregate]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// Silence after which another instance may aggregate.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// Bound of one statement of a day's rebuild.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// As tracing-subscriber's EnvFilter reads it.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line, for collectors.
    Json,
}

fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

impl Config {
    /// What types alone do not say: bounds, and settings that go together. The text names the key.
    pub fn check(&self) -> Result<(), String> {
        let at_least_one = [
            ("database.pool_size_max", self.database.pool_size_max),
            ("serve.writers", self.serve.writers),
            ("serve.queue_size_max", self.serve.queue_size_max),
            ("serve.group_size_max", self.serve.group_size_max),
            ("serve.connections_max", self.serve.connections_max),
            ("serve.body_size_max", self.serve.body_size_max),
            ("serve.batch_body_size_max", self.serve.batch_body_size_max),
            ("relay.batch_size_max", self.relay.batch_size_max),
            ("consume_risk.batch_size_max", self.consume_risk.batch_size_max),
        ];
        if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} must be at least 1"));
        }
        if self.serve.writers > WRITERS_MAX {
            return Err(format!("serve.writers must be at most {WRITERS_MAX}, the number of outbox lanes"));
        }
        let partitions = [
            ("broker.topics.transactions_partitions", self.broker.topics.transactions_partitions),
            ("broker.topics.risk_assessments_partitions", self.broker.topics.risk_assessments_partitions),
            ("broker.topics.dead_letters_partitions", self.broker.topics.dead_letters_partitions),
            ("consume_risk.attempts_max", self.consume_risk.attempts_max),
        ];
        if let Some((key, _)) = partitions.iter().find(|(_, value)| *value < 1) {
            return Err(format!("{key} must be at least 1"));
        }
        self.check_durations()?;
        if self.broker.kind == BrokerKind::Kafka && self.broker.kafka.bootstrap_servers.trim().is_empty() {
            return Err("broker.kafka.bootstrap_servers must name at least one host:port".into());
        }
        if self.consume_risk.group.is_empty() {
            return Err("consume_risk.group must not be empty".into());
        }
        Ok(())
    }

    fn check_durations(&self) -> Result<(), String> {
        let leases = [
            ("relay.lease_ttl", self.relay.lease_ttl),
            ("consume_risk.lease_ttl", self.consume_risk.lease_ttl),
            ("aggregate.lease_ttl", self.aggregate.lease_ttl),
        ];
        if let Some((key, _)) = leases.iter().find(|(_, ttl)| *ttl < LEASE_TTL_MIN) {
            return Err(format!("{key} must be at least 1s"));
        }
        // Zero would refuse every request, or look again and again without a rest.
        let more_than_zero = [
            ("serve.client_timeout", self.serve.client_timeout),
            ("serve.request_timeout", self.serve.request_timeout),
            ("relay.poll_interval_min", self.relay.poll_interval_min),
            ("relay.poll_interval_max", self.relay.poll_interval_max),
            ("consume_risk.poll_interval_max", self.consume_risk.poll_interval_max),
        ];
        match more_than_zero.iter().find(|(_, duration)| duration.is_zero()) {
            Some((key, _)) => Err(format!("{key} must be more than zero, such as 250ms")),
            None => Ok(()),
        }
    }
}

/// As many as there are outbox lanes: each writer has some of its own.
pub const WRITERS_MAX: usize = 32;
/// Below this the heartbeats of a busy machine would look like death.
const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
