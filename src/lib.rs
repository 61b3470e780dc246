//! `ledger`: an event-driven transaction and risk platform in one binary.
//!
//! Reading order is from the bottom up: [`domain`] decides, [`event`] is the wire contract, [`risk`] scores,
//! [`repository`] and [`broker`] keep, [`runtime`] runs, [`posting`] commits groups, and the roles ([`serve`],
//! [`relay`], [`consume_risk`], [`aggregate`]) put them to work. [`dev`] and [`ops`] are for people. `ARCHITECTURE.md`
//! tells why.

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
