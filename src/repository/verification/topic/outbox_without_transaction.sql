-- name: verify_outbox_without_transaction
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total, json_build_object('event_id', o.event_id)::text AS ids,
  'the outbox holds event ' || o.event_id || ', but the ledger has no such transaction' AS example
FROM verify_outbox o
WHERE o.topic = 'transactions.v1' AND NOT EXISTS (SELECT FROM transactions t WHERE t.id = o.event_id)
ORDER BY o.event_id LIMIT pg_temp.verify_examples()
