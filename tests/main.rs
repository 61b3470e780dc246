//! The integration tests: one binary, one subject per file, on a real PostgreSQL and a real Kafka.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "a test fails by panicking, and has no public documentation"
)]

mod access_log;
mod account_reads;
mod aggregate;
mod alerts;
mod broker_identity;
mod broker_retention;
mod brokers;
mod browsers;
mod cli;
mod clocks;
mod commit_paths;
mod compression;
mod connections;
mod consume_risk;
mod consumers;
mod database_password;
mod database_schema;
mod database_settings;
mod dev;
mod dlq;
mod documents;
mod durability;
mod fact_updates;
mod failover;
mod faults;
mod foreign_records;
mod grants;
mod history_pages;
mod http;
mod idempotency;
mod import;
mod in_flight;
mod independent_client;
mod kafka_quotas;
mod kafka_rights;
mod kafka_security;
mod layering;
mod leases;
mod linear_statements;
mod lists;
mod lost_logs;
mod metric_labels;
mod migrations;
mod model;
mod openapi;
mod outbox_sequence;
mod poolers;
mod postings;
mod producer_errors;
mod relay;
mod republish;
mod restart;
mod schemas;
mod sequence_gaps;
mod session_defaults;
mod simulate;
mod slow_bodies;
mod sockets;
mod three_brokers;
mod tls;
mod topics;
mod torture;
mod traces;
mod translated_messages;
mod unix_socket;
mod upgrades;
mod verify;

#[allow(dead_code, reason = "shared helpers; some of them may be unused for a while")]
mod support;
