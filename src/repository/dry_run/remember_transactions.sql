-- name: dry_run_remember_transactions
-- Not in the DSL: temporary tables, which `schema.rs` does not describe.
INSERT INTO dry_run_transactions (account_id, account_seq, id, amount, balance_after, created_at, reverses,
                                  idempotency_key, counterparty, description, metadata)
SELECT unnest(/* account_ids */ $1), unnest(/* account_seqs */ $2), unnest(/* ids */ $3), unnest(/* amounts */ $4),
       unnest(/* balances_after */ $5), unnest(/* created_ats */ $6), unnest(/* reverses */ $7),
       unnest(/* idempotency_keys */ $8), unnest(/* counterparties */ $9), unnest(/* descriptions */ $10),
       unnest(/* metadata */ $11)::json
