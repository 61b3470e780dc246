-- name: verify_unpublished
-- Not in the DSL: it compares whole tables.
SELECT a.account_id, count(*) AS rows, min(t.account_seq) AS first_seq,
  max(t.account_seq) AS last_seq, bool_or(p.account_id IS NOT NULL) AS seen
FROM verify_accounts a
LEFT JOIN verify_published p ON p.account_id = a.account_id
-- OFFSET 0 keeps one range of the primary key for each account.
CROSS JOIN LATERAL (
  SELECT account_seq, id FROM transactions
  WHERE transactions.account_id = a.account_id AND transactions.account_seq >= coalesce(p.next_seq, 1)
    AND transactions.account_seq <= a.account_seq OFFSET 0
) AS t
WHERE a.account_id > /* after this account */ $1 AND a.account_seq >= coalesce(p.next_seq, 1)
  AND NOT EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')
  AND NOT EXISTS (SELECT FROM dead_letters d
                  WHERE d.event_id = t.id AND d.topic = 'transactions.v1' AND d.record_offset IS NULL)
GROUP BY a.account_id ORDER BY a.account_id LIMIT /* accounts at most */ $2
