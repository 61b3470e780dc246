//! The PostgreSQL broker's tables: partitions with their next offset, and records.
//!
//! Guarantees: an offset is drawn under its partition's row lock in the statement that inserts the record, so offsets
//! have no gaps and become visible in order; records leave only from the front of their partition, so what is there has
//! no gaps either. Deliberately absent: deciding when records leave, which is the broker's.

mod partitions;
mod records;
mod retention;

pub use partitions::{StoredRange, create_partitions, partitions, range};
pub use records::{NewRecords, StoredRecord, append, offset_at, read};
pub use retention::remove_front;
