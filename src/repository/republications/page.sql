-- name: republish_page
-- Not in the DSL: it reads a temporary table.
SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
       t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
FROM republish_selected s
-- OFFSET 0 keeps one probe of each primary key for each selected transaction; a temporary table has no statistics.
CROSS JOIN LATERAL (
  SELECT * FROM transactions
  WHERE transactions.account_id = s.account_id AND transactions.account_seq = s.account_seq OFFSET 0
) AS t
CROSS JOIN LATERAL (SELECT currency FROM accounts WHERE accounts.account_id = s.account_id OFFSET 0) AS a
WHERE s.number > /* after */ $1 AND s.number <= /* last */ $2
ORDER BY s.number
