-- name: republish_page
-- Not in the DSL: it reads a temporary table.
SELECT t.account_id, a.currency, t.account_seq, t.id, t.amount, t.balance_after, t.created_at, t.reverses,
       t.idempotency_key, t.counterparty, t.description, t.metadata::text AS metadata
FROM republish_selected s
JOIN transactions t USING (account_id, account_seq)
JOIN accounts a USING (account_id)
WHERE s.number > /* after */ $1 AND s.number <= /* last */ $2
ORDER BY s.number
