-- name: dry_run_account_states
SELECT account_id, currency, balance, account_seq, min_balance, last_created_at, opened_at
FROM dry_run_accounts WHERE account_id = ANY(/* account_ids */ $1)
