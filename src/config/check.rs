//! Checks the rules that the types of the values do not express: limits, names, lists and combinations of keys.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::sections::{BrokerKind, Config, Topics};

/// PostgreSQL cuts longer identifiers.
const IDENTIFIER_LENGTH_MAX: usize = 63;
/// The number of outbox lanes. Each writer needs at least one lane of its own.
pub const WRITERS_MAX: usize = 32;
/// A busy machine would lose leases with a shorter ttl, because its heartbeats are late.
const LEASE_TTL_MIN: Duration = Duration::from_secs(1);

/// A value that is not allowed.
pub(super) struct Refusal {
    pub(super) key: &'static str,
    /// The allowed values, as the end of the sentence "… must be".
    pub(super) allowed: String,
}

fn refuse(key: &'static str, allowed: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { key, allowed: allowed.into() })
}

/// Checks the whole configuration, and returns the first value that is not allowed.
pub(super) fn check(config: &Config) -> Result<(), Refusal> {
    check_counts(config)?;
    check_durations(config)?;
    check_texts(config)?;
    match config.broker.kind {
        BrokerKind::Kafka => check_kafka(config),
        BrokerKind::Postgres => Ok(()),
    }
}

fn check_counts(config: &Config) -> Result<(), Refusal> {
    let Config { serve, consume_risk, .. } = config;
    let topics = &config.broker.topics;
    let positive = [
        ("database.pool_size_max", config.database.pool_size_max > 0),
        ("serve.writers", serve.writers > 0),
        ("serve.queue_size_max", serve.queue_size_max > 0),
        ("serve.group_size_max", serve.group_size_max > 0),
        ("serve.body_size_max", serve.body_size_max > 0),
        ("serve.batch_body_size_max", serve.batch_body_size_max > 0),
        ("relay.batch_size_max", config.relay.batch_size_max > 0),
        ("consume_risk.batch_size_max", consume_risk.batch_size_max > 0),
        ("risk.history_memory_mib", config.risk.history_memory_mib > 0),
        ("consume_risk.attempts_max", consume_risk.attempts_max > 0),
        ("broker.topics.transactions_partitions", topics.transactions_partitions > 0),
        ("broker.topics.risk_assessments_partitions", topics.risk_assessments_partitions > 0),
        ("broker.topics.dead_letters_partitions", topics.dead_letters_partitions > 0),
        ("broker.topics.replication_factor", topics.replication_factor > 0),
        ("broker.topics.min_insync_replicas", topics.min_insync_replicas > 0),
    ];
    if let Some((key, _)) = positive.iter().find(|(_, is_positive)| !is_positive) {
        return refuse(key, "at least 1");
    }
    if serve.writers > WRITERS_MAX {
        return refuse("serve.writers", format!("at most {WRITERS_MAX}, the number of outbox lanes"));
    }
    Ok(())
}

fn check_durations(config: &Config) -> Result<(), Refusal> {
    let leases = [
        ("relay.lease_ttl", config.relay.lease_ttl),
        ("consume_risk.lease_ttl", config.consume_risk.lease_ttl),
        ("aggregate.lease_ttl", config.aggregate.lease_ttl),
    ];
    if let Some((key, _)) = leases.iter().find(|(_, ttl)| *ttl < LEASE_TTL_MIN) {
        return refuse(key, "at least 1s");
    }
    // Zero would make every attempt time out, switch a limit of the server off, or keep an idle loop busy.
    let more_than_zero = [
        ("database.pool_wait_timeout", config.database.pool_wait_timeout),
        ("database.connect_timeout", config.database.connect_timeout),
        ("database.statement_timeout", config.database.statement_timeout),
        ("database.idle_in_transaction_timeout", config.database.idle_in_transaction_timeout),
        ("serve.client_timeout", config.serve.client_timeout),
        ("serve.request_timeout", config.serve.request_timeout),
        ("broker.kafka.request_timeout", config.broker.kafka.request_timeout),
        ("broker.kafka.connect_timeout", config.broker.kafka.connect_timeout),
        ("relay.poll_interval_min", config.relay.poll_interval_min),
        ("relay.poll_interval_max", config.relay.poll_interval_max),
        ("consume_risk.poll_interval_max", config.consume_risk.poll_interval_max),
        ("aggregate.statement_timeout", config.aggregate.statement_timeout),
    ];
    match more_than_zero.iter().find(|(_, duration)| duration.is_zero()) {
        Some((key, _)) => refuse(key, "more than zero, such as 250ms"),
        None => Ok(()),
    }
}

fn check_texts(config: &Config) -> Result<(), Refusal> {
    if !is_schema_name(&config.database.schema) {
        return refuse("database.schema", "a plain identifier in lower case, such as ledger");
    }
    if config.consume_risk.group.is_empty() {
        return refuse("consume_risk.group", "a name");
    }
    if let Some(wrong) = config.serve.cors_origins.iter().find(|origin| !is_origin(origin)) {
        let allowed = "a list of exact origins such as https://app.example.org";
        return refuse("serve.cors_origins", format!("{allowed}, and {wrong:?} is none"));
    }
    match EnvFilter::try_new(&config.log.filter) {
        Ok(_) => Ok(()),
        Err(error) => refuse("log.filter", format!("a log filter such as info,ledger=debug ({error})")),
    }
}

fn check_kafka(config: &Config) -> Result<(), Refusal> {
    let Topics { replication_factor, min_insync_replicas, .. } = config.broker.topics;
    if let Some(wrong) = config.broker.kafka.bootstrap_servers.split(',').find(|server| !is_server(server)) {
        let allowed = "a list of addresses such as kafka-1.example:9092";
        return refuse(
            "broker.kafka.bootstrap_servers",
            format!("{allowed}, and {:?} is none", wrong.trim()),
        );
    }
    if min_insync_replicas > replication_factor {
        let allowed = format!("at most broker.topics.replication_factor, which is {replication_factor}");
        return refuse("broker.topics.min_insync_replicas", allowed);
    }
    Ok(())
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

/// Returns whether a text is an origin exactly as browsers send it: scheme, host and perhaps a port, nothing else.
fn is_origin(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

/// Returns whether a text is host and port.
fn is_server(text: &str) -> bool {
    let parts = text.trim().rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
