-- name: dry_run_account_states
-- Not in the DSL: temporary tables, which `schema.rs` does not describe.
SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
FROM dry_run_accounts WHERE account_id = ANY(/* account_ids */ $1)
