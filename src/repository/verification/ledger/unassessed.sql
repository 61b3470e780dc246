-- name: verify_unassessed
-- Not in the DSL: it compares whole tables.
WITH pending AS MATERIALIZED (
  -- A dead letter without an offset is an outbox row that the relay could not publish.
  SELECT t.account_id, t.account_seq, t.id FROM transactions t
  JOIN verify_accounts a ON a.account_id = t.account_id AND t.account_seq <= a.account_seq
  WHERE NOT EXISTS (SELECT FROM risk_assessments r
                    WHERE r.account_id = t.account_id AND r.account_seq = t.account_seq)
    AND NOT EXISTS (SELECT FROM dead_letters d
                    WHERE d.event_id = t.id AND (d.consumer_group = /* group */ $1 OR d.record_offset IS NULL)))
SELECT count(*) OVER () AS total,
  json_build_object('account_id', account_id, 'account_seq', account_seq, 'transaction_id', id)::text AS ids,
  'transaction ' || account_seq || ' of account ' || account_id || ' (' || id || ')' AS example
FROM pending ORDER BY id LIMIT pg_temp.verify_examples()
