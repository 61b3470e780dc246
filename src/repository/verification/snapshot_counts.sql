-- name: verify_snapshot_counts
-- Not in the DSL: it reads temporary tables.
SELECT (SELECT coalesce(sum(account_seq), 0)::bigint FROM verify_accounts) AS transactions,
       (SELECT count(*) FROM verify_outbox WHERE topic = 'transactions.v1') AS outbox_transactions
