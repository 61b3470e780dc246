-- name: verify_duplicate_keys
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'idempotency_key', idempotency_key)::text AS ids,
  'account ' || account_id || ' has key ' || idempotency_key || ' ' || count(*) || ' times' AS example
FROM transactions GROUP BY account_id, idempotency_key HAVING count(*) > 1
ORDER BY account_id, idempotency_key LIMIT pg_temp.verify_examples()
