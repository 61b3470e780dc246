-- name: find_all_transactions
-- diesel's DSL cannot join arrays as a table. OFFSET 0 keeps one probe of each primary key for each transaction, whatever
-- the statistics say.
SELECT wanted.ordinal, found.*
FROM unnest(/* account_ids */ $1, /* account_seqs */ $2) WITH ORDINALITY AS wanted (account_id, account_seq, ordinal)
CROSS JOIN LATERAL (
  SELECT t.account_id, (SELECT a.currency FROM accounts a WHERE a.account_id = t.account_id) AS currency,
         t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses, t.idempotency_key, t.counterparty,
         t.description, t.metadata::text AS metadata
  FROM transactions t
  WHERE t.account_id = wanted.account_id AND t.account_seq = wanted.account_seq OFFSET 0
) AS found
