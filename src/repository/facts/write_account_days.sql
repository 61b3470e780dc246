-- name: write_fact_account_days
-- Not in the DSL: an upsert from filtered aggregates.
-- Writes the facts of a day that are missing or differ, and removes the facts of accounts without a transaction.
WITH sums AS (
  -- The opening and the closing balance come from the smallest and the largest pair of sequence number and balance: one
  -- pass and constant memory for each account, however many transactions it has on the day.
  SELECT account_id, min(currency) AS currency, count(*) AS transaction_count,
    count(*) FILTER (WHERE direction = 'credit') AS credit_count,
    count(*) FILTER (WHERE direction = 'debit') AS debit_count,
    coalesce(sum(amount) FILTER (WHERE direction = 'credit'), 0) AS credit_sum,
    coalesce(sum(amount) FILTER (WHERE direction = 'debit'), 0) AS debit_sum,
    (min(ARRAY[account_seq::numeric, balance_after - signed_amount]))[2] AS opening_balance,
    (max(ARRAY[account_seq::numeric, balance_after]))[2] AS closing_balance,
    min(account_seq) AS first_account_seq, max(account_seq) AS last_account_seq,
    count(risk_score) AS assessed_count, max(risk_score) AS max_risk_score,
    count(*) FILTER (WHERE risk_level = 'high') AS high_risk_count
  FROM fact_transactions WHERE business_date = /* day */ $1
  GROUP BY account_id
), changed AS MATERIALIZED (
  SELECT s.*, f.account_id IS NOT NULL AND s.account_id IS NULL AS is_gone, f.row_address
  FROM sums s
  -- A full join reads each side once, whatever the statistics say.
  FULL JOIN (SELECT *, ctid AS row_address FROM fact_account_day WHERE business_date = $1) AS f
    ON f.account_id = s.account_id
  WHERE s.account_id IS NULL OR f.account_id IS NULL
    OR (s.currency, s.transaction_count, s.credit_count, s.debit_count, s.credit_sum, s.debit_sum, s.opening_balance,
        s.closing_balance, s.first_account_seq, s.last_account_seq, s.assessed_count, s.max_risk_score, s.high_risk_count)
       IS DISTINCT FROM
       (f.currency, f.transaction_count, f.credit_count, f.debit_count, f.credit_sum, f.debit_sum, f.opening_balance,
        f.closing_balance, f.first_account_seq, f.last_account_seq, f.assessed_count, f.max_risk_score, f.high_risk_count)
), removed AS (
  -- By their addresses, so that nothing is joined. The snapshot is that of the whole rebuild.
  DELETE FROM fact_account_day WHERE ctid = ANY (ARRAY(SELECT row_address FROM changed WHERE is_gone))
)
INSERT INTO fact_account_day (business_date, account_id, currency, transaction_count, credit_count, debit_count,
  credit_sum, debit_sum, opening_balance, closing_balance, first_account_seq, last_account_seq, assessed_count,
  max_risk_score, high_risk_count)
SELECT $1, account_id, currency, transaction_count, credit_count, debit_count, credit_sum, debit_sum, opening_balance,
  closing_balance, first_account_seq, last_account_seq, assessed_count, max_risk_score, high_risk_count
FROM changed WHERE NOT is_gone
ON CONFLICT (business_date, account_id) DO UPDATE SET
  currency = excluded.currency, transaction_count = excluded.transaction_count, credit_count = excluded.credit_count,
  debit_count = excluded.debit_count, credit_sum = excluded.credit_sum, debit_sum = excluded.debit_sum,
  opening_balance = excluded.opening_balance, closing_balance = excluded.closing_balance,
  first_account_seq = excluded.first_account_seq, last_account_seq = excluded.last_account_seq,
  assessed_count = excluded.assessed_count, max_risk_score = excluded.max_risk_score,
  high_risk_count = excluded.high_risk_count
