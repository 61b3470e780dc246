-- name: first_seq_from
-- diesel's DSL has no recursive queries.
WITH RECURSIVE
-- The arguments.
wanted (account_id, moment) AS (VALUES (/* account_id */ $1, /* from */ $2)),
-- A binary search over the primary key. The result lies between `low` and `high`; each step halves the range.
search (low, high) AS (
  SELECT 1::bigint, a.account_seq + 1 FROM wanted JOIN accounts a USING (account_id)
  UNION ALL
  SELECT CASE WHEN t.created_at < wanted.moment THEN t.account_seq + 1 ELSE low END,
         CASE WHEN t.created_at < wanted.moment THEN high ELSE t.account_seq END
  FROM search, wanted, transactions t
  WHERE low < high AND t.account_id = wanted.account_id AND t.account_seq = (low + high) / 2
)
SELECT low AS account_seq FROM search WHERE low >= high
