-- name: verify_unexplained_scores
-- Not in the DSL: it compares whole tables.
WITH mismatch AS MATERIALIZED (
  SELECT r.account_id, r.account_seq, r.transaction_id, r.risk_score, r.reasons, e.score
  FROM risk_assessments r
  CROSS JOIN LATERAL (
    -- The sum of the scores of the reasons, at most 100. Anything that is not a list of reasons counts as none.
    SELECT least(coalesce(sum(CASE WHEN reason ->> 'score' ~ '^[0-9]{1,3}$' THEN (reason ->> 'score')::integer END), 0),
                 100) AS score
    FROM json_array_elements(CASE json_typeof(r.reasons) WHEN 'array' THEN r.reasons ELSE '[]' END) AS reason) AS e
  WHERE NOT (r.risk_score = 0 AND r.reasons::text = '[]') AND r.risk_score <> e.score)
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', transaction_id)::text AS ids,
  'the assessment of transaction ' || account_seq || ' of account ' || account_id || ' has score ' || risk_score
    || ', but its reasons sum to ' || score || ': ' || reasons AS example
FROM mismatch ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
