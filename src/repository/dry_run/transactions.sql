-- name: dry_run_transactions
-- Not in the DSL: temporary tables, which `schema.rs` does not describe.
SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
       t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
FROM unnest(/* account_ids */ $1, /* idempotency_keys */ $2) AS wanted (account_id, idempotency_key)
JOIN dry_run_transactions t USING (account_id, idempotency_key)
JOIN dry_run_accounts a USING (account_id)
