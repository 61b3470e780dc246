-- name: verify_gaps_in_outbox
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', t.account_id, 'account_seq', t.account_seq, 'transaction_id', t.id)::text AS ids,
  'transaction ' || t.account_seq || ' of account ' || t.account_id
    || ' is still in the outbox, but later transactions are published' AS example
FROM verify_gaps g
-- OFFSET 0 keeps one range of the primary key for each gap.
CROSS JOIN LATERAL (
  SELECT account_id, account_seq, id FROM transactions
  WHERE transactions.account_id = g.account_id AND account_seq BETWEEN g.from_seq AND g.to_seq OFFSET 0
) AS t
WHERE EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1'
              AND NOT o.is_republished)
ORDER BY t.account_id, t.account_seq LIMIT pg_temp.verify_examples()
