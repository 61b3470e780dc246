//! All SQL of the project, and its only use of diesel: one folder for each table or group of tables, with functions on a
//! connection.
//!
//! - Plain queries use diesel's DSL. A statement that the DSL cannot express is a `.sql` file beside the Rust file that
//!   runs it; its opening says why. `schema.rs` is generated from the migrations.
//! - [`connect`] opens a connection, and [`pool()`] keeps some open.
//! - Database transactions run only through [`transaction()`], which names them, bounds their retries and counts them.
//!   Inside one, the code waits for nothing but PostgreSQL.

pub mod accounts;
pub mod assessments;
pub mod broker_identity;
pub mod broker_records;
pub mod databases;
pub mod dead_letters;
pub mod dry_run;
pub mod facts;
pub mod grants;
pub mod leases;
pub mod migrations;
pub mod outbox;
pub mod overview;
pub mod positions;
pub mod postings;
pub mod republications;
pub mod sequences;
pub mod transactions;
pub mod verification;

mod clock;
mod connection;
mod error;
mod functions;
mod mark_columns;
mod paging;
mod pool;
mod pooler;
mod schema;
mod server;
mod server_properties;
mod session;
mod sqlstate;
mod statement;
mod tls;
mod transaction;

pub use clock::{ClockEstimate, ClockReading, read_clock};
pub use connection::{connect, connect_for_long_statements, database_address, prepare_writer};
pub use error::RepositoryError;
pub use paging::{Cursor, Page, PageRequest};
pub use pool::{Pool, PooledConnection, evict, pool, pooled};
pub use pooler::refuse_shared_sessions;
pub use server::{server_started_at, takes_writes};
pub use server_properties::{ServerProperties, server_properties};
pub use statement::{Bind, Statement, statement};
pub use transaction::{Isolation, Work, transaction, transaction_with};

/// A connection to PostgreSQL.
pub type Connection = diesel_async::AsyncPgConnection;
