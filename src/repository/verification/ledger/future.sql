-- name: verify_future
-- Not in the DSL: it compares whole tables.
WITH clock AS (
  -- The database's clock with the tolerance of the writers.
  SELECT clock_timestamp() AS shown, clock_timestamp() + interval '1 s' AS latest),
future AS (
  SELECT account_id, account_seq, id, created_at AS at, '' AS what FROM transactions
  WHERE created_at > (SELECT latest FROM clock)
  UNION ALL
  SELECT account_id, account_seq, transaction_id, assessed_at, 'the assessment of ' FROM risk_assessments
  WHERE assessed_at > (SELECT latest FROM clock))
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', id)::text AS ids,
  what || 'transaction ' || account_seq || ' of account ' || account_id || ' is dated ' || at
    || ', but the clock of the database shows ' || shown AS example
FROM future, clock ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
