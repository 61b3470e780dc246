//! `ledger`: an event-driven transaction and risk platform in one binary.
//!
//! The rooms from the bottom up:
//!
//! - [`config`] and [`domain`]: settings, and the rules of money, accounts and transactions.
//! - [`event`]: the format of published events.
//! - [`risk`]: the rules that score a transaction. [`repository`]: all SQL.
//! - [`broker`]: Kafka, or topics in PostgreSQL.
//! - [`runtime`]: boot, shutdown, telemetry and leases.
//! - [`posting`]: the group commit.
//! - [`serve`], [`relay`], [`consume_risk`], [`aggregate`] and [`import`]: the roles.
//! - [`dev`] and [`ops`]: commands for developers and operators.
//!
//! `ARCHITECTURE.md` explains the design.

// `println!` panics when the reader has closed the pipe. `runtime::print_text` does not.
#![deny(clippy::print_stdout)]

pub mod config;
pub mod domain;

pub mod event;

pub mod repository;
pub mod risk;

pub mod broker;
pub mod runtime;

pub mod posting;

pub mod aggregate;
pub mod consume_risk;
pub mod dev;
pub mod import;
pub mod ops;
pub mod relay;
pub mod serve;

pub mod cli;
