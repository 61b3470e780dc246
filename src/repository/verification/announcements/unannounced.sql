-- name: verify_unannounced
-- Not in the DSL: it compares whole tables.
WITH missing AS MATERIALIZED (
  -- The assessments that were neither announced nor wait to be announced.
  SELECT a.account_id, a.account_seq, a.transaction_id FROM verify_assessments a
  WHERE NOT EXISTS (SELECT FROM verify_announced e WHERE e.transaction_id = a.transaction_id)
    AND NOT EXISTS (SELECT FROM verify_announcing o WHERE o.transaction_id = a.transaction_id)
    AND coalesce(a.assessed_at >= /* from */ $1, true))
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', transaction_id)::text AS ids,
  'the assessment of transaction ' || account_seq || ' of account ' || account_id
    || ' is neither in the topic nor in the outbox' AS example
FROM missing ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
