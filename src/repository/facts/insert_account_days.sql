-- name: insert_fact_account_days
-- Not in the DSL: an insert from filtered aggregates.
-- The opening and the closing balance come from the smallest and the largest pair of sequence number and balance: one
-- pass and constant memory for each account, however many transactions it has on the day.
INSERT INTO fact_account_day (business_date, account_id, currency, transaction_count, credit_count,
  debit_count, credit_sum, debit_sum, opening_balance, closing_balance, assessed_count, max_risk_score,
  high_risk_count)
SELECT business_date, account_id, min(currency), count(*),
  count(*) FILTER (WHERE direction = 'credit'), count(*) FILTER (WHERE direction = 'debit'),
  coalesce(sum(amount) FILTER (WHERE direction = 'credit'), 0),
  coalesce(sum(amount) FILTER (WHERE direction = 'debit'), 0),
  (min(ARRAY[account_seq::numeric, balance_after - signed_amount]))[2],
  (max(ARRAY[account_seq::numeric, balance_after]))[2],
  count(risk_score), max(risk_score), count(*) FILTER (WHERE risk_level = 'high')
FROM fact_transactions WHERE business_date = /* day */ $1
GROUP BY business_date, account_id
