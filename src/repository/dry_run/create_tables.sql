-- name: dry_run_create_tables
-- Not in the DSL: it creates temporary tables.
CREATE TEMPORARY TABLE dry_run_accounts (LIKE accounts INCLUDING DEFAULTS INCLUDING INDEXES);
CREATE TEMPORARY TABLE dry_run_transactions (LIKE transactions, PRIMARY KEY (account_id, idempotency_key));
