-- name: verify_lost_in_gaps
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  'transaction ' || t.account_seq || ' of account ' || t.account_id || ' (' || t.id
    || ') is neither in the topic nor in the outbox' AS example
FROM verify_gaps g
JOIN transactions t ON t.account_id = g.account_id AND t.account_seq BETWEEN g.from_seq AND g.to_seq
WHERE NOT EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')
  AND NOT EXISTS (SELECT FROM dead_letters d
                  WHERE d.event_id = t.id AND d.topic = 'transactions.v1' AND d.record_offset IS NULL)
ORDER BY t.account_id, t.account_seq LIMIT 10
