-- Continues `insert.sql`: only facts that are missing or differ.
LEFT JOIN LATERAL (
  SELECT * FROM fact_transactions
  WHERE business_date = l.business_date AND transaction_id = l.transaction_id OFFSET 0
) AS f ON true
WHERE f.transaction_id IS NULL
  OR (l.account_id, l.account_seq, l.created_at, l.hour, l.currency, l.direction, l.amount, l.signed_amount,
      l.balance_after, l.counterparty, l.description, l.metadata::text, l.reverses, l.risk_score, l.risk_level,
      l.ruleset, l.assessed_at, l.idempotency_key, l.rules)
     IS DISTINCT FROM
     (f.account_id, f.account_seq, f.created_at, f.hour, f.currency, f.direction, f.amount, f.signed_amount,
      f.balance_after, f.counterparty, f.description, f.metadata::text, f.reverses, f.risk_score, f.risk_level,
      f.ruleset, f.assessed_at, f.idempotency_key, f.rules)
ON CONFLICT (business_date, transaction_id) DO UPDATE SET
  account_id = excluded.account_id, account_seq = excluded.account_seq, created_at = excluded.created_at,
  hour = excluded.hour, currency = excluded.currency, direction = excluded.direction, amount = excluded.amount,
  signed_amount = excluded.signed_amount, balance_after = excluded.balance_after,
  counterparty = excluded.counterparty, description = excluded.description, metadata = excluded.metadata,
  reverses = excluded.reverses, risk_score = excluded.risk_score, risk_level = excluded.risk_level,
  ruleset = excluded.ruleset, assessed_at = excluded.assessed_at, idempotency_key = excluded.idempotency_key,
  rules = excluded.rules
