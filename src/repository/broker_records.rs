//! The tables of the PostgreSQL broker: partitions with their next offset, and records.
//!
//! Guarantees:
//! - The statement that inserts a record draws its offset under the row lock of the partition. So offsets have no gaps
//!   and become visible in order.
//! - Records are removed only from the front of a partition. So the remaining offsets have no gaps either.
//!
//! Deliberately absent: when records are removed; the broker decides that.

mod partitions;
mod records;
mod retention;

pub use partitions::{StoredRange, create_partitions, partitions, range};
pub use records::{NewRecords, StoredRecord, append, offset_at, read};
pub use retention::remove_front;
