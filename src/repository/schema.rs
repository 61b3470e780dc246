//! The tables as diesel's DSL sees them, in the form of `diesel print-schema`.
//!
//! Generated: `LEDGER_WRITE_SCHEMA=1 cargo test --test integration database_schema` writes this file from a freshly
//! migrated database. Without the variable, that test (`the_schema_file_equals_a_migrated_database`) compares the two.

diesel::table! {
    accounts (account_id) {
        account_id -> Text,
        currency -> Text,
        balance -> Int8,
        account_seq -> Int8,
        min_balance -> Nullable<Int8>,
        last_created_at -> Nullable<Timestamptz>,
        opened_at -> Timestamptz,
    }
}

diesel::table! {
    aggregate_runs (id) {
        id -> Int8,
        started_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        mode -> Text,
        status -> Text,
        days_rebuilt -> Int4,
        first_day -> Nullable<Date>,
        last_day -> Nullable<Date>,
        transactions -> Int8,
        error -> Nullable<Text>,
        rows_added -> Int8,
        rows_changed -> Int8,
        rows_removed -> Int8,
        high_risk -> Int8,
    }
}

diesel::table! {
    broker_identity (is_current) {
        is_current -> Bool,
        generation -> Int8,
        kind -> Text,
        cluster_id -> Text,
        moved_from -> Nullable<Text>,
        recorded_at -> Timestamptz,
        recorded_by -> Text,
    }
}

diesel::table! {
    broker_partitions (topic, partition) {
        topic -> Text,
        partition -> Int4,
        next_offset -> Int8,
        bytes -> Int8,
        log_id -> Uuid,
    }
}

diesel::table! {
    broker_records (topic, partition, record_offset) {
        topic -> Text,
        partition -> Int4,
        record_offset -> Int8,
        key -> Nullable<Bytea>,
        value -> Nullable<Bytea>,
        headers -> Json,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    broker_topics (topic) {
        topic -> Text,
        partitions -> Int4,
        partitions_before -> Nullable<Int4>,
        recorded_at -> Timestamptz,
        recorded_by -> Text,
    }
}

diesel::table! {
    consumer_positions (consumer_group, topic, partition) {
        consumer_group -> Text,
        topic -> Text,
        partition -> Int4,
        next_offset -> Int8,
        attempts -> Int4,
        interrupted -> Bool,
        updated_at -> Timestamptz,
        log_id -> Nullable<Uuid>,
        leader_epoch -> Nullable<Int4>,
        halted_at -> Nullable<Timestamptz>,
        halt_reason -> Nullable<Text>,
    }
}

diesel::table! {
    currencies (code) {
        code -> Text,
        decimals -> Int2,
    }
}

diesel::table! {
    dead_letter_replays (id) {
        id -> Int8,
        dead_letter_id -> Uuid,
        replayed_by -> Text,
        replayed_at -> Timestamptz,
        outcome -> Text,
        detail -> Text,
    }
}

diesel::table! {
    dead_letters (id) {
        id -> Uuid,
        consumer_group -> Text,
        topic -> Text,
        partition -> Nullable<Int4>,
        record_offset -> Nullable<Int8>,
        key -> Nullable<Bytea>,
        value -> Nullable<Bytea>,
        headers -> Json,
        stage -> Text,
        reason -> Text,
        error -> Text,
        attempts -> Int4,
        event_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        of_earlier_log -> Bool,
        leader_epoch -> Nullable<Int4>,
    }
}

diesel::table! {
    fact_account_day (business_date, account_id) {
        business_date -> Date,
        account_id -> Text,
        currency -> Text,
        transaction_count -> Int8,
        credit_count -> Int8,
        debit_count -> Int8,
        credit_sum -> Numeric,
        debit_sum -> Numeric,
        opening_balance -> Numeric,
        closing_balance -> Numeric,
        assessed_count -> Int8,
        max_risk_score -> Nullable<Int2>,
        high_risk_count -> Int8,
        first_account_seq -> Nullable<Int8>,
        last_account_seq -> Nullable<Int8>,
    }
}

diesel::table! {
    fact_marks (day, marked_at, id) {
        day -> Date,
        marked_at -> Timestamptz,
        id -> Uuid,
        begin_id -> Nullable<Uuid>,
        end_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    fact_transactions (business_date, transaction_id) {
        business_date -> Date,
        transaction_id -> Uuid,
        account_id -> Text,
        account_seq -> Int8,
        created_at -> Timestamptz,
        hour -> Int2,
        currency -> Text,
        direction -> Text,
        amount -> Numeric,
        signed_amount -> Numeric,
        balance_after -> Numeric,
        counterparty -> Nullable<Text>,
        description -> Nullable<Text>,
        metadata -> Nullable<Json>,
        reverses -> Nullable<Uuid>,
        risk_score -> Nullable<Int2>,
        risk_level -> Nullable<Text>,
        ruleset -> Nullable<Text>,
        assessed_at -> Nullable<Timestamptz>,
        idempotency_key -> Nullable<Text>,
        rules -> Nullable<Array<Nullable<Text>>>,
    }
}

diesel::table! {
    lease_members (lease_group, member) {
        lease_group -> Text,
        member -> Text,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    leases (name) {
        name -> Text,
        owner -> Nullable<Text>,
        epoch -> Int8,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    outbox (lane, id) {
        lane -> Int2,
        id -> Int8,
        topic -> Text,
        key -> Nullable<Bytea>,
        value -> Nullable<Bytea>,
        event_id -> Uuid,
        event_type -> Text,
        created_at -> Timestamptz,
        traceparent -> Nullable<Text>,
        headers -> Nullable<Json>,
    }
}

diesel::table! {
    republications (id) {
        id -> Uuid,
        requested_by -> Text,
        requested_at -> Timestamptz,
        selection -> Text,
        selected -> Int8,
        republished -> Int8,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    risk_assessments (account_id, account_seq) {
        account_id -> Text,
        account_seq -> Int8,
        transaction_id -> Uuid,
        risk_score -> Int2,
        risk_level -> Text,
        reasons -> Json,
        shadow_reasons -> Json,
        ruleset -> Text,
        assessed_at -> Timestamptz,
        rule_errors -> Nullable<Json>,
    }
}

diesel::table! {
    schema_compatibility (only_row) {
        only_row -> Bool,
        oldest_binary -> Text,
    }
}

diesel::table! {
    transactions (account_id, account_seq) {
        account_id -> Text,
        account_seq -> Int8,
        id -> Uuid,
        amount -> Int8,
        balance_after -> Int8,
        created_at -> Timestamptz,
        reverses -> Nullable<Uuid>,
        idempotency_key -> Text,
        counterparty -> Nullable<Text>,
        description -> Nullable<Text>,
        metadata -> Nullable<Json>,
    }
}

diesel::joinable!(accounts -> currencies (currency));
diesel::joinable!(dead_letter_replays -> dead_letters (dead_letter_id));

diesel::allow_tables_to_appear_in_same_query!(
    accounts,
    aggregate_runs,
    broker_identity,
    broker_partitions,
    broker_records,
    broker_topics,
    consumer_positions,
    currencies,
    dead_letter_replays,
    dead_letters,
    fact_account_day,
    fact_marks,
    fact_transactions,
    lease_members,
    leases,
    outbox,
    republications,
    risk_assessments,
    schema_compatibility,
    transactions,
);

/// The names of all tables.
pub(super) const TABLES: [&str; 20] = [
    "accounts",
    "aggregate_runs",
    "broker_identity",
    "broker_partitions",
    "broker_records",
    "broker_topics",
    "consumer_positions",
    "currencies",
    "dead_letter_replays",
    "dead_letters",
    "fact_account_day",
    "fact_marks",
    "fact_transactions",
    "lease_members",
    "leases",
    "outbox",
    "republications",
    "risk_assessments",
    "schema_compatibility",
    "transactions",
];
