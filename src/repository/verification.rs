//! The statements of `ledger verify`. Each statement compares whole sets and returns the number of differences, with
//! examples for people.
//!
//! Guarantees:
//! - Each statement sees one moment of a live system. Tables that must be seen at the same moment are read in one
//!   statement or in [`snapshot()`].
//! - Nothing is written except temporary tables and functions of the connection.
//! - The memory of this process does not grow with the ledger; PostgreSQL sorts and hashes on disk where it must.
//!
//! Deliberately absent: the statements of the write path, so that a mistake there is not repeated here.

mod announcements;
mod dead_letters;
mod facts;
mod findings;
mod ledger;
mod protections;
mod scored;
mod snapshot;
mod topic;

pub use announcements::{PublishedAssessment, announcement_mismatches, unannounced};
pub use dead_letters::{match_dead_letters, unpublished_dead_letters};
pub use facts::{DayFacts, compare_day};
pub use findings::{EXAMPLES_MAX, Example, Findings, create_functions};
pub use ledger::{
    TableCounts, append_only_errors, assessment_mismatches, balance_mismatches, currency_errors,
    duplicate_assessments, duplicate_keys, future_rows, id_errors, reversal_errors, sequence_errors,
    table_counts, unassessed, unexplained_scores,
};
pub use protections::{Protection, protection_errors, protections};
pub use scored::{ScoredRow, scored_rows};
pub use snapshot::{Snapshot, outbox_rows, snapshot};
pub use topic::{
    ForeignRecord, PublishedAccount, PublishedTransaction, SequenceRange, TransactionMismatch,
    UnpublishedRows, analyze_published, gaps_in_outbox, insert_gaps, insert_published, lost_in_gaps,
    outbox_without_transaction, transaction_mismatches, unhandled_events, unhandled_records, unpublished,
};
