-- name: dry_run_remember_accounts
-- Not in the DSL: temporary tables, which `schema.rs` does not describe.
INSERT INTO dry_run_accounts (account_id, currency, balance, account_seq, min_balance, last_created_at)
SELECT * FROM unnest(/* account_ids */ $1, /* currencies */ $2, /* balances */ $3, /* account_seqs */ $4,
                     /* min_balances */ $5, /* last_created_ats */ $6)
ON CONFLICT (account_id) DO UPDATE
SET balance = excluded.balance, account_seq = excluded.account_seq, last_created_at = excluded.last_created_at
