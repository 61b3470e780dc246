//! The tables as diesel knows them. Kept by hand beside the migrations; a test compares it with a migrated database.
#![allow(missing_docs, reason = "the macro makes public items that cannot be documented")]

use diesel::{allow_tables_to_appear_in_same_query, table};

table! {
    accounts (account_id) {
        account_id -> Text,
        currency -> Text,
        balance -> BigInt,
        account_seq -> BigInt,
        min_balance -> Nullable<BigInt>,
        last_created_at -> Nullable<Timestamptz>,
        opened_at -> Timestamptz,
    }
}

table! {
    transactions (account_id, account_seq) {
        account_id -> Text,
        account_seq -> BigInt,
        id -> Uuid,
        amount -> BigInt,
        balance_after -> BigInt,
        created_at -> Timestamptz,
        reverses -> Nullable<Uuid>,
        idempotency_key -> Text,
        counterparty -> Nullable<Text>,
        description -> Nullable<Text>,
        metadata -> Nullable<Json>,
    }
}

table! {
    outbox (lane, id) {
        lane -> SmallInt,
        id -> BigInt,
        topic -> Text,
        key -> Nullable<Binary>,
        value -> Nullable<Binary>,
        event_id -> Uuid,
        event_type -> Text,
        created_at -> Timestamptz,
        traceparent -> Nullable<Text>,
        headers -> Nullable<Json>,
    }
}

table! {
    leases (name) {
        name -> Text,
        owner -> Nullable<Text>,
        epoch -> BigInt,
        expires_at -> Timestamptz,
    }
}

table! {
    lease_members (lease_group, member) {
        lease_group -> Text,
        member -> Text,
        expires_at -> Timestamptz,
    }
}

table! {
    consumer_positions (consumer_group, topic, partition) {
        consumer_group -> Text,
        topic -> Text,
        partition -> Integer,
        next_offset -> BigInt,
        attempts -> Integer,
        interrupted -> Bool,
        updated_at -> Timestamptz,
    }
}

table! {
    dead_letters (id) {
        id -> Uuid,
        consumer_group -> Text,
        topic -> Text,
        partition -> Nullable<Integer>,
        record_offset -> Nullable<BigInt>,
        key -> Nullable<Binary>,
        value -> Nullable<Binary>,
        headers -> Json,
        stage -> Text,
        reason -> Text,
        error -> Text,
        attempts -> Integer,
        event_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

table! {
    risk_assessments (account_id, account_seq) {
        account_id -> Text,
        account_seq -> BigInt,
        transaction_id -> Uuid,
        risk_score -> SmallInt,
        risk_level -> Text,
        reasons -> Json,
        shadow_reasons -> Json,
        ruleset -> Text,
        assessed_at -> Timestamptz,
    }
}

allow_tables_to_appear_in_same_query!(accounts, transactions, risk_assessments);
