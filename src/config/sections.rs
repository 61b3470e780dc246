//! The typed sections of the configuration, one struct per TOML table, and the checks of their values.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    ConfigError, database_url,
    kafka::{Compression, SaslMechanism},
    secret::{DATABASE_URL_FILE, file_origin, read_secret},
};

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Connections to PostgreSQL.
    pub database: Database,
    /// The HTTP API and its writers.
    pub serve: Serve,
    /// The admin listener of every role.
    pub admin: Admin,
    /// The broker of events.
    pub broker: Broker,
    /// Publishing the outbox to the broker.
    pub relay: Relay,
    /// Scoring the events of the broker.
    pub consume_risk: ConsumeRisk,
    /// The risk rules.
    pub risk: Risk,
    /// The fact tables.
    pub aggregate: Aggregate,
    /// Logging.
    pub log: Log,
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The connection URL. A secret, because it may hold a password. If `url_file` is set, it was read from there.
    pub url: SecretString,
    /// The file or the variable that set `url`, for messages.
    #[serde(skip)]
    pub(super) url_origin: String,
    /// The file that holds the URL.
    #[serde(deserialize_with = "optional_path")]
    pub url_file: Option<PathBuf>,
    /// A PEM file of trusted root certificates.
    #[serde(deserialize_with = "optional_path")]
    pub tls_ca_file: Option<PathBuf>,
    /// The schema of all tables: a plain identifier in lower case.
    pub schema: String,
    /// The largest number of connections in the pool.
    pub pool_size_max: usize,
    /// The longest wait for a pooled connection.
    #[serde(with = "humantime_serde")]
    pub pool_wait_timeout: Duration,
    /// The longest time to open a connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The server's limit for one statement.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
    /// The server's limit for an idle database transaction.
    #[serde(with = "humantime_serde")]
    pub idle_in_transaction_timeout: Duration,
    /// Whether a server that can lose acknowledged transactions is accepted.
    pub accept_data_loss: bool,
}

impl Database {
    /// Returns the current URL. Reads `url_file` again, so that the next connection uses a changed password. If the file is
    /// gone or not a regular file (a pipe, for example), returns the URL that was read first. Fails if the URL is empty.
    pub fn url_now(&self) -> Result<SecretString, ConfigError> {
        let (url, origin) = match &self.url_file {
            Some(path) if path.is_file() => {
                (read_secret(DATABASE_URL_FILE, path)?, file_origin(DATABASE_URL_FILE, path))
            }
            _ => (self.url.clone(), self.url_origin.clone()),
        };
        if url.expose_secret().trim().is_empty() {
            return Err(ConfigError::DatabaseNotSet { origin });
        }
        database_url::check(url.expose_secret(), &origin)?;
        Ok(url)
    }
}

/// `[serve]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// The address of the API.
    pub listen: SocketAddr,
    /// The number of HTTP worker threads; 0 for one per core.
    pub workers: usize,
    /// The number of writers, each with one connection.
    pub writers: usize,
    /// The largest number of requests that wait for one writer.
    pub queue_size_max: usize,
    /// The largest number of transactions in one commit.
    pub group_size_max: usize,
    /// The largest number of account states that a writer remembers.
    pub accounts_remembered_max: usize,
    /// The largest number of recent transactions that a writer remembers.
    pub transactions_remembered_max: usize,
    /// The limit for receiving a request.
    #[serde(with = "humantime_serde")]
    pub client_timeout: Duration,
    /// How long an idle connection is kept for the next request.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// The limit for answering a request.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// The largest number of open connections; 0 for as many as the limit of open files allows.
    pub connections_max: usize,
    /// The largest number of open connections of one peer; 0 for half of all.
    pub peer_connections_max: usize,
    /// The names that requests to a loopback address may have in `Host`, besides `localhost`.
    #[serde(deserialize_with = "comma_separated")]
    pub allowed_hosts: Vec<String>,
    /// The origins whose web pages may call the API.
    #[serde(deserialize_with = "comma_separated")]
    pub cors_origins: Vec<String>,
    /// Whether `/docs/` serves the page to try the API.
    pub docs: bool,
    /// The largest request body, in bytes.
    pub body_size_max: usize,
    /// The largest request body of a batch, in bytes.
    pub batch_body_size_max: usize,
    /// The allowed requests per second of one client; 0 for no limit.
    pub rate_limit: u32,
    /// The requests that a client may send at once; 0 for the same number as `rate_limit`.
    pub rate_limit_burst: u32,
    /// Whether responses have a `Server-Timing` header.
    pub server_timing: bool,
    /// The number of trusted proxies in front that write `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// The limit for finishing accepted requests at shutdown.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub listen: Listen,
    /// The names that requests to a loopback address may have in `Host`, besides `localhost`.
    #[serde(deserialize_with = "comma_separated")]
    pub allowed_hosts: Vec<String>,
}

/// The address of a listener that may be off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// No listener.
    Off,
    /// A listener on this address.
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
    /// The kind of broker.
    pub kind: BrokerKind,
    /// Whether missing topics are created at start.
    pub create_topics: bool,
    /// The settings of topics.
    pub topics: Topics,
    /// The connection to Kafka.
    pub kafka: Kafka,
}

/// The kinds of brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerKind {
    /// Topics in a PostgreSQL table.
    Postgres,
    /// Apache Kafka.
    Kafka,
}

impl BrokerKind {
    /// Returns the name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        }
    }

    /// Returns the kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Postgres, Self::Kafka].into_iter().find(|kind| kind.name() == name)
    }
}

/// `[broker.topics]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// The number of partitions of `transactions.v1`.
    pub transactions_partitions: i32,
    /// The number of partitions of `risk-assessments.v1`.
    pub risk_assessments_partitions: i32,
    /// The number of partitions of each `….dlq`.
    pub dead_letters_partitions: i32,
    /// The replication factor; Kafka only.
    pub replication_factor: i16,
    /// `min.insync.replicas`; Kafka only.
    pub min_insync_replicas: i16,
    /// Records of `transactions.v1` are removed at this age; zero for never.
    #[serde(with = "humantime_serde")]
    pub transactions_retention: Duration,
    /// The oldest records of a partition of `transactions.v1` are removed above this number of bytes; 0 for no limit.
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
    /// Comma-separated `host:port` addresses.
    pub bootstrap_servers: String,
    /// The client id in the broker's logs and quotas.
    pub client_id: String,
    /// The limit for one request.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// The limit for the first connection.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How published record batches are compressed.
    pub compression: Compression,
    /// Whether connections use TLS and check the broker's certificate.
    pub tls: bool,
    /// A PEM file of trusted root certificates.
    #[serde(deserialize_with = "optional_path")]
    pub tls_ca_file: Option<PathBuf>,
    /// `None` for no authentication.
    #[serde(deserialize_with = "SaslMechanism::optional")]
    pub sasl_mechanism: Option<SaslMechanism>,
    /// The user name for SASL.
    pub sasl_username: String,
    /// The password for SASL. If `sasl_password_file` is set, it was read from there.
    pub sasl_password: SecretString,
    /// The file that holds the password.
    #[serde(deserialize_with = "optional_path")]
    pub sasl_password_file: Option<PathBuf>,
}

/// `[relay]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// The largest number of rows that are read, published and deleted at once.
    pub batch_size_max: usize,
    /// The shortest wait when the outbox is empty.
    #[serde(with = "humantime_serde")]
    pub poll_interval_min: Duration,
    /// The longest wait when the outbox is empty.
    #[serde(with = "humantime_serde")]
    pub poll_interval_max: Duration,
    /// Other relays take over the lanes of a relay that is silent for this long.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
}

/// `[consume_risk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumeRisk {
    /// The name of the consumer group.
    pub group: String,
    /// The largest number of events that one partition assesses and commits at once.
    pub batch_size_max: usize,
    /// The longest wait of one fetch from an empty partition.
    #[serde(with = "humantime_serde")]
    pub poll_interval_max: Duration,
    /// Other consumers take over the partitions of a consumer that is silent for this long.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// The number of attempts before a record becomes a dead letter.
    pub attempts_max: i32,
}

/// `[risk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Risk {
    /// The rule file. None for the built-in rules.
    #[serde(deserialize_with = "optional_path")]
    pub rules: Option<PathBuf>,
    /// The memory for account histories in one process, in MiB.
    pub history_memory_mib: usize,
}

impl Risk {
    /// Returns the memory for account histories in one process, in bytes.
    pub fn history_bytes_max(&self) -> usize {
        self.history_memory_mib.saturating_mul(1 << 20)
    }
}

/// `[aggregate]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// Another instance may aggregate if the owner is silent for this long.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// The limit for one statement that rebuilds a day.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The filter in the syntax of tracing-subscriber's `EnvFilter`.
    pub filter: String,
    /// The format of log lines.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Returns whether a text is the name of a schema that needs no quotes and does not belong to PostgreSQL.
fn is_schema_name(text: &str) -> bool {
    let is_plain =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
    text.len() <= IDENTIFIER_LENGTH_MAX
        && text.chars().all(is_plain)
        && text.starts_with(|first: char| !first.is_ascii_digit())
        && !text.starts_with("pg_")
}

fn comma_separated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// Returns whether a text is an origin exactly as browsers send it: scheme, host and perhaps a port, nothing else.
fn is_origin(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

impl Config {
    /// Checks limits and combinations that the types do not cover. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        let at_least_one = [
            ("database.pool_size_max", self.database.pool_size_max),
            ("serve.writers", self.serve.writers),
            ("serve.queue_size_max", self.serve.queue_size_max),
            ("serve.group_size_max", self.serve.group_size_max),
            ("serve.body_size_max", self.serve.body_size_max),
            ("serve.batch_body_size_max", self.serve.batch_body_size_max),
            ("relay.batch_size_max", self.relay.batch_size_max),
            ("consume_risk.batch_size_max", self.consume_risk.batch_size_max),
            ("risk.history_memory_mib", self.risk.history_memory_mib),
        ];
        if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{key} must be at least 1"));
        }
        if !is_schema_name(&self.database.schema) {
            return Err("database.schema must be a plain identifier in lower case, such as ledger".into());
        }
        if let Some(origin) = self.serve.cors_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!(
                "serve.cors_origins has {origin:?}, which is not an origin such as https://app.example.org; list the exact origins"
            ));
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
        // Zero would make every request time out, or keep an idle loop busy.
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

/// PostgreSQL cuts longer identifiers.
const IDENTIFIER_LENGTH_MAX: usize = 63;
/// The number of outbox lanes. Each writer needs at least one lane of its own.
pub const WRITERS_MAX: usize = 32;
/// A busy machine would lose leases with a shorter ttl, because its heartbeats are late.
const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
