-- name: insert_fact_transactions
-- Not in the DSL: an insert from a join, with numeric conversions.
-- Minor units become decimals by multiplication, which is exact at any size; a numeric division chooses its own scale.
INSERT INTO fact_transactions (business_date, transaction_id, account_id, account_seq, created_at, hour,
  currency, direction, amount, signed_amount, balance_after, counterparty, description, metadata, reverses,
  risk_score, risk_level, ruleset, assessed_at)
SELECT /* day */ $1, t.id, t.account_id, t.account_seq, t.created_at,
  extract(hour FROM t.created_at AT TIME ZONE 'UTC')::smallint,
  a.currency, CASE WHEN t.amount > 0 THEN 'credit' ELSE 'debit' END,
  abs(t.amount) * c.unit, t.amount * c.unit, t.balance_after * c.unit,
  t.counterparty, t.description, t.metadata, t.reverses,
  r.risk_score, r.risk_level, r.ruleset, r.assessed_at
FROM transactions t
JOIN accounts a ON a.account_id = t.account_id
JOIN (SELECT code, ('1e-' || decimals)::numeric AS unit FROM currencies) AS c ON c.code = a.currency
LEFT JOIN risk_assessments r
  ON r.account_id = t.account_id AND r.account_seq = t.account_seq
  -- The range lets the planner read only the assessments of the day.
  AND r.transaction_id >= $2 AND r.transaction_id < $3
WHERE t.id >= /* first id of the day */ $2 AND t.id < /* first id of the next day */ $3
