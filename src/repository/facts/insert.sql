-- Continues `ledger_rows.sql`: writes all facts of a day that has none.
INSERT INTO fact_transactions (business_date, transaction_id, account_id, account_seq, created_at, hour,
  currency, direction, amount, signed_amount, balance_after, counterparty, description, metadata, reverses,
  risk_score, risk_level, ruleset, assessed_at, idempotency_key, rules)
SELECT l.* FROM ledger l
