-- name: earlier_rows
-- diesel's DSL cannot join arrays as a table. OFFSET 0 keeps one range of the primary key for each account, whatever
-- the statistics say.
SELECT e.ordinal, t.account_seq, t.amount, t.created_at, t.counterparty, t.metadata::text AS metadata
FROM unnest(/* account_ids */ $1, /* before_seqs */ $2) WITH ORDINALITY AS e (account_id, before_seq, ordinal)
CROSS JOIN LATERAL (
  SELECT account_seq, amount, created_at, counterparty, metadata
  FROM transactions t
  WHERE t.account_id = e.account_id
    AND t.account_seq < e.before_seq
    AND t.account_seq > e.before_seq - /* rows_max */ $3
  OFFSET 0
) t
