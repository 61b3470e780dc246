-- name: verify_gaps_in_outbox
SELECT count(*) OVER () AS total,
  'account ' || t.account_id || ' row ' || t.account_seq
    || ' is still in the outbox, but later rows are published' AS example
FROM verify_gaps g
JOIN transactions t ON t.account_id = g.account_id AND t.account_seq BETWEEN g.from_seq AND g.to_seq
WHERE EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')
ORDER BY t.account_id, t.account_seq LIMIT 10
