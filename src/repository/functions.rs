//! PostgreSQL functions that diesel does not declare, for queries in its DSL.

use diesel::{
    define_sql_function,
    sql_types::{Date, Nullable, Uuid},
};

define_sql_function! {
    /// Returns the database's time at the call. `now()` returns the start of the database transaction instead.
    fn clock_timestamp() -> Timestamptz;
}

define_sql_function! {
    /// Returns the first value that is not null.
    #[sql_name = "coalesce"]
    fn coalesce_uuid(first: Nullable<Uuid>, second: Uuid) -> Uuid;
}

define_sql_function! {
    /// Returns the earlier date; a null counts as no date.
    #[sql_name = "least"]
    fn earlier_date(first: Nullable<Date>, second: Date) -> Nullable<Date>;
}

define_sql_function! {
    /// Returns the later date; a null counts as no date.
    #[sql_name = "greatest"]
    fn later_date(first: Nullable<Date>, second: Date) -> Nullable<Date>;
}
