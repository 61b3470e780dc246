-- name: verify_id_errors
-- Not in the DSL: it compares whole tables.
WITH mismatch AS MATERIALIZED (
  -- The first 64 bits of a UUIDv7: milliseconds, version, and microseconds in 4096ths of a millisecond.
  SELECT account_id, account_seq, id, created_at
  FROM (SELECT *, (extract(epoch FROM created_at) * 1000000)::bigint AS micros FROM transactions OFFSET 0) AS t
  WHERE left(translate(id::text, '-', ''), 16)
    <> lpad(to_hex(micros / 1000), 12, '0') || '7' || lpad(to_hex(micros % 1000 * 4096 / 1000), 3, '0'))
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', id)::text AS ids,
  'transaction ' || account_seq || ' of account ' || account_id || ' has the id ' || id || ', which is not made of its time '
    || created_at || ': the id holds ' || pg_temp.verify_id_time(id) AS example
FROM mismatch ORDER BY account_id, account_seq LIMIT pg_temp.verify_examples()
