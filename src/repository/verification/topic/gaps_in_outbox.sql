-- name: verify_gaps_in_outbox
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  'transaction ' || t.account_seq || ' of account ' || t.account_id
    || ' is still in the outbox, but later transactions are published' AS example
FROM verify_gaps g
JOIN transactions t ON t.account_id = g.account_id AND t.account_seq BETWEEN g.from_seq AND g.to_seq
WHERE EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1'
              AND NOT o.is_republished)
ORDER BY t.account_id, t.account_seq LIMIT 10
