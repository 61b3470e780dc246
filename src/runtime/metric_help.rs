//! The `# HELP` line of each metric. docs/metrics.md explains them; `scripts/check_metrics.py` compares the two.

use metrics::{describe_counter, describe_gauge, describe_histogram};

const COUNTERS: &[(&str, &str)] = &[
    ("ledger_http_requests_total", "Responses sent."),
    ("ledger_http_connections_shed_total", "Connections closed at a limit."),
    ("ledger_http_malformed_requests_total", "Requests that were not valid HTTP."),
    ("ledger_transactions_total", "Results of posted requests."),
    ("ledger_writer_groups_total", "Groups committed, by path."),
    ("ledger_relay_published_total", "Records acknowledged by the broker."),
    ("ledger_relay_errors_total", "Failed attempts to publish."),
    ("ledger_consumer_errors_total", "Failed steps of a partition, which are retried."),
    (
        "ledger_consumer_sequence_gaps_total",
        "Events assessed although the event before them in their account was never delivered.",
    ),
    ("ledger_consumer_events_total", "Results of delivered events."),
    ("ledger_broker_records_removed_total", "Records deleted by retention from the PostgreSQL broker."),
    ("ledger_dead_letters_total", "Records dead-lettered."),
    ("ledger_risk_assessments_total", "Assessments written."),
    ("ledger_risk_histories_total", "Events scored, by the source of their account's history."),
    ("ledger_risk_rule_errors_total", "Assessments that note an error of the rule."),
    ("ledger_risk_rules_reloads_total", "Reloads of the rule file."),
    ("ledger_aggregate_rebuilds_total", "Rebuilds and updates of a day."),
    ("ledger_transaction_retries_total", "Database transactions retried after a conflict."),
];

const GAUGES: &[(&str, &str)] = &[
    ("ledger_build_info", "1, with the version and the role of the process as labels."),
    ("ledger_ready", "1 while /readyz answers 200."),
    ("ledger_http_connections", "Open connections."),
    ("ledger_writer_queue_depth", "Requests waiting for a writer."),
    ("ledger_outbox_rows", "Events waiting to be published."),
    ("ledger_outbox_oldest_age_seconds", "Age of the oldest event that waits to be published."),
    ("ledger_leases_held", "Lanes or partitions owned by this process."),
    ("ledger_leases_shared", "Lanes or partitions that all processes of the group share."),
    ("ledger_consumer_lag_records", "Records between the position and the end of an owned partition."),
    ("ledger_consumer_lag_seconds", "Age of the oldest record of an owned partition that is not handled."),
    ("ledger_consumer_halted", "1 while an owned partition waits for an operator."),
    ("ledger_risk_rules_refused", "1 while the rule file is refused or unreadable."),
    ("ledger_risk_history_bytes", "Memory of the account histories."),
    ("ledger_aggregate_last_success_timestamp_seconds", "End of the last successful run, Unix time."),
    ("ledger_database_durable", "1 if PostgreSQL ran with fsync and full_page_writes on at the start."),
    ("ledger_clock_offset_seconds", "How far the clock of this machine is ahead of the database's clock."),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    ("ledger_http_request_duration_seconds", "Time to respond."),
    ("ledger_writer_group_size", "Requests in one commit."),
    ("ledger_writer_commit_duration_seconds", "Time to commit one group."),
    ("ledger_broker_throttle_seconds", "Waits imposed on a connection by a quota of Kafka."),
];

/// Gives every metric its help text.
pub(super) fn describe_all() {
    COUNTERS.iter().for_each(|(name, help)| describe_counter!(*name, *help));
    GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
    HISTOGRAMS.iter().for_each(|(name, help)| describe_histogram!(*name, *help));
    metrics_process::Collector::default().describe();
}
