//! The typed sections of the configuration, one struct per TOML table.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

use super::{
    ConfigError, database_url,
    kafka::{Compression, SaslMechanism},
    secret::{DATABASE_PASSWORD_FILE, DATABASE_URL_FILE, file_origin, read_secret},
    values::{Listen, address, comma_separated, duration, one_of, optional_path},
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
    /// Whether neither `url` nor `url_file` was set.
    #[serde(skip)]
    pub url_is_default: bool,
    /// The file that holds the URL.
    #[serde(deserialize_with = "optional_path")]
    pub url_file: Option<PathBuf>,
    /// The user, for a URL without a login.
    pub user: String,
    /// The password, for a URL without a login. If `password_file` is set, it was read from there.
    pub password: SecretString,
    /// The file that holds the password.
    #[serde(deserialize_with = "optional_path")]
    pub password_file: Option<PathBuf>,
    /// A PEM file of trusted root certificates.
    #[serde(deserialize_with = "optional_path")]
    pub tls_ca_file: Option<PathBuf>,
    /// The schema of all tables: a plain identifier in lower case.
    pub schema: String,
    /// The largest number of connections in the pool.
    pub pool_size_max: usize,
    /// The longest wait for a pooled connection.
    #[serde(deserialize_with = "duration")]
    pub pool_wait_timeout: Duration,
    /// The longest time to open a connection.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// The server's limit for one statement.
    #[serde(deserialize_with = "duration")]
    pub statement_timeout: Duration,
    /// The server's limit for an idle database transaction.
    #[serde(deserialize_with = "duration")]
    pub idle_in_transaction_timeout: Duration,
    /// Whether a server that can lose acknowledged transactions is accepted.
    pub accept_data_loss: bool,
}

impl Database {
    /// Names the file or the variable with the URL, for messages.
    pub fn url_origin(&self) -> String {
        match &self.url_file {
            Some(path) => file_origin(DATABASE_URL_FILE, path),
            None => self.url_origin.clone(),
        }
    }

    /// Returns the current URL. Reads `url_file` again, so that the next connection uses a changed password. If the file is
    /// gone or not a regular file (a pipe, for example), returns the URL that was read first. Fails if the URL is empty.
    pub fn url_now(&self) -> Result<SecretString, ConfigError> {
        let origin = self.url_origin();
        let url = match &self.url_file {
            Some(path) if path.is_file() => read_secret(DATABASE_URL_FILE, path)?,
            _ => self.url.clone(),
        };
        if url.expose_secret().trim().is_empty() {
            return Err(ConfigError::DatabaseNotSet { origin });
        }
        database_url::check(url.expose_secret(), &origin)?;
        self.check_login(&url, origin)?;
        Ok(url)
    }

    /// Refuses a URL with a login if `user` or `password` is set too.
    pub(super) fn check_login(&self, url: &SecretString, origin: String) -> Result<(), ConfigError> {
        let is_set = !self.user.is_empty() || !self.password.expose_secret().is_empty();
        match is_set && database_url::has_login(url.expose_secret()) {
            true => Err(ConfigError::TwoLogins { origin }),
            false => Ok(()),
        }
    }

    /// Returns the current password that belongs to a URL without one, or an empty text. Reads `password_file` again, as
    /// [`Database::url_now`] does.
    pub fn password_now(&self) -> Result<SecretString, ConfigError> {
        match &self.password_file {
            Some(path) if path.is_file() => read_secret(DATABASE_PASSWORD_FILE, path),
            _ => Ok(self.password.clone()),
        }
    }
}

/// `[serve]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serve {
    /// The address of the API.
    #[serde(deserialize_with = "address")]
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
    #[serde(deserialize_with = "duration")]
    pub client_timeout: Duration,
    /// How long an idle connection is kept for the next request.
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// The limit for answering a request.
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "duration")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// Topics in a PostgreSQL table.
    Postgres,
    /// Apache Kafka.
    Kafka,
}

impl BrokerKind {
    const ALL: [(&str, Self); 2] =
        [(Self::Postgres.name(), Self::Postgres), (Self::Kafka.name(), Self::Kafka)];

    /// Returns the name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        }
    }

    /// Returns the kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }
}

impl<'de> Deserialize<'de> for BrokerKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, &Self::ALL)
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
    #[serde(deserialize_with = "duration")]
    pub transactions_retention: Duration,
    /// The oldest records of a partition of `transactions.v1` are removed above this number of bytes; 0 for no limit.
    pub transactions_retention_bytes: u64,
    /// The same for `risk-assessments.v1`.
    #[serde(deserialize_with = "duration")]
    pub risk_assessments_retention: Duration,
    /// The same for `risk-assessments.v1`.
    pub risk_assessments_retention_bytes: u64,
    /// The same for each `….dlq`.
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Duration,
    /// The limit for the first connection.
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "duration")]
    pub poll_interval_min: Duration,
    /// The longest wait when the outbox is empty.
    #[serde(deserialize_with = "duration")]
    pub poll_interval_max: Duration,
    /// Other relays take over the lanes of a relay that is silent for this long.
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "duration")]
    pub poll_interval_max: Duration,
    /// Other consumers take over the partitions of a consumer that is silent for this long.
    #[serde(deserialize_with = "duration")]
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
    #[serde(deserialize_with = "duration")]
    pub lease_ttl: Duration,
    /// The limit for one statement that rebuilds or updates a day.
    #[serde(deserialize_with = "duration")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of(deserializer, &[("text", Self::Text), ("json", Self::Json)])
    }
}
