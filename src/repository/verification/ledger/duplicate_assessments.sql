-- name: verify_duplicate_assessments
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq)::text AS ids,
  'transaction ' || account_seq || ' of account ' || account_id || ' has ' || count(*) || ' assessments' AS example
FROM risk_assessments GROUP BY account_id, account_seq HAVING count(*) > 1
ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
