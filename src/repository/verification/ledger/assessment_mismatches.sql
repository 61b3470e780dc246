-- name: verify_assessment_mismatches
-- Not in the DSL: it compares whole tables.
WITH mismatch AS MATERIALIZED (
  -- MATERIALIZED, because the planner would otherwise read both tables in key order, with random access, to find ten
  -- examples.
  SELECT r.account_id, r.account_seq, r.transaction_id, t.id FROM risk_assessments r
  LEFT JOIN transactions t ON t.account_id = r.account_id AND t.account_seq = r.account_seq
  WHERE t.id IS DISTINCT FROM r.transaction_id)
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', transaction_id)::text AS ids,
  'the assessment of transaction ' || account_seq || ' of account ' || account_id || ' names transaction '
    || transaction_id || ', but the ledger has ' || coalesce(id::text, 'none with this number') AS example
FROM mismatch ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
