//! All SQL of the project: the only user of diesel. One file per table family, functions over a connection.
//!
//! Connections are opened by [`connect`] or come from a [`pool()`]; transactions only through [`transaction()`], which
//! names them, bounds their retries and counts them. Nothing but PostgreSQL is waited for inside a transaction.

pub mod accounts;
pub mod assessments;
pub mod broker_records;
pub mod databases;
pub mod dead_letters;
pub mod dry_run;
pub mod facts;
pub mod leases;
pub mod migrations;
pub mod outbox;
pub mod overview;
pub mod positions;
pub mod postings;
pub mod transactions;
pub mod verification;

mod connection;
mod error;
mod paging;
mod pool;
mod schema;
mod server;
mod sqlstate;
mod statement;
mod tls;
mod transaction;

pub use connection::{Connection, connect, connect_for_long_statements, database_address, prepare_writer};
pub use error::RepositoryError;
pub use paging::{Cursor, Page, PageRequest};
pub use pool::{Pool, PooledConnection, evict, pool, pooled};
pub use server::{server_started_at, takes_writes};
pub use statement::{Bind, Statement, statement};
pub use transaction::{Isolation, Work, transaction, transaction_with};
