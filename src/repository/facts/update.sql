-- Continues `ledger_rows.sql`: writes the facts that are missing or have no assessment yet, and adds them to the facts of
-- their accounts' days. Nothing else of a transaction ever changes.
, changed AS MATERIALIZED (
  SELECT l.*, f.transaction_id IS NULL AS is_new, f.risk_score IS NOT NULL AS is_other_assessment
  FROM ledger l
  LEFT JOIN LATERAL (
    SELECT transaction_id, risk_score, risk_level, ruleset, assessed_at, rules FROM fact_transactions
    WHERE business_date = l.business_date AND transaction_id = l.transaction_id OFFSET 0
  ) AS f ON true
  WHERE f.transaction_id IS NULL
    OR (l.risk_score, l.risk_level, l.ruleset, l.assessed_at, l.rules)
       IS DISTINCT FROM (f.risk_score, f.risk_level, f.ruleset, f.assessed_at, f.rules)
), written AS (
  INSERT INTO fact_transactions (business_date, transaction_id, account_id, account_seq, created_at, hour,
    currency, direction, amount, signed_amount, balance_after, counterparty, description, metadata, reverses,
    risk_score, risk_level, ruleset, assessed_at, idempotency_key, rules)
  SELECT business_date, transaction_id, account_id, account_seq, created_at, hour,
    currency, direction, amount, signed_amount, balance_after, counterparty, description, metadata, reverses,
    risk_score, risk_level, ruleset, assessed_at, idempotency_key, rules
  FROM changed WHERE NOT is_other_assessment
  ON CONFLICT (business_date, transaction_id) DO UPDATE SET
    risk_score = excluded.risk_score, risk_level = excluded.risk_level, ruleset = excluded.ruleset,
    assessed_at = excluded.assessed_at, rules = excluded.rules
), sums AS (
  -- What the written facts add to each account's day. A day to which only assessments are added keeps its balances.
  SELECT business_date, account_id, min(currency) AS currency, count(*) FILTER (WHERE is_new) AS transaction_count,
    count(*) FILTER (WHERE is_new AND direction = 'credit') AS credit_count,
    count(*) FILTER (WHERE is_new AND direction = 'debit') AS debit_count,
    coalesce(sum(amount) FILTER (WHERE is_new AND direction = 'credit'), 0) AS credit_sum,
    coalesce(sum(amount) FILTER (WHERE is_new AND direction = 'debit'), 0) AS debit_sum,
    coalesce((min(ARRAY[account_seq::numeric, balance_after - signed_amount]) FILTER (WHERE is_new))[2], 0) AS opening_balance,
    coalesce((max(ARRAY[account_seq::numeric, balance_after]) FILTER (WHERE is_new))[2], 0) AS closing_balance,
    min(account_seq) FILTER (WHERE is_new) AS first_account_seq,
    max(account_seq) FILTER (WHERE is_new) AS last_account_seq,
    count(risk_score) AS assessed_count, max(risk_score) AS max_risk_score,
    count(*) FILTER (WHERE risk_level = 'high') AS high_risk_count
  FROM changed WHERE NOT is_other_assessment
  GROUP BY business_date, account_id
), added AS (
  INSERT INTO fact_account_day AS f (business_date, account_id, currency, transaction_count, credit_count, debit_count,
    credit_sum, debit_sum, opening_balance, closing_balance, first_account_seq, last_account_seq, assessed_count,
    max_risk_score, high_risk_count)
  SELECT business_date, account_id, currency, transaction_count, credit_count, debit_count, credit_sum, debit_sum,
    opening_balance, closing_balance, first_account_seq, last_account_seq, assessed_count, max_risk_score, high_risk_count
  FROM sums
  ON CONFLICT (business_date, account_id) DO UPDATE SET
    transaction_count = f.transaction_count + excluded.transaction_count,
    credit_count = f.credit_count + excluded.credit_count, debit_count = f.debit_count + excluded.debit_count,
    credit_sum = f.credit_sum + excluded.credit_sum, debit_sum = f.debit_sum + excluded.debit_sum,
    opening_balance = CASE WHEN excluded.first_account_seq < f.first_account_seq THEN excluded.opening_balance
                           ELSE f.opening_balance END,
    closing_balance = CASE WHEN excluded.last_account_seq > f.last_account_seq THEN excluded.closing_balance
                           ELSE f.closing_balance END,
    first_account_seq = least(f.first_account_seq, excluded.first_account_seq),
    last_account_seq = greatest(f.last_account_seq, excluded.last_account_seq),
    assessed_count = f.assessed_count + excluded.assessed_count,
    max_risk_score = greatest(f.max_risk_score, excluded.max_risk_score),
    high_risk_count = f.high_risk_count + excluded.high_risk_count
)
SELECT count(*) FILTER (WHERE is_new) AS rows_added,
  count(*) FILTER (WHERE NOT is_new AND NOT is_other_assessment) AS rows_changed,
  count(*) FILTER (WHERE is_other_assessment) AS other_assessments,
  -- An older binary writes an account's day without its first and last number, or leaves them as they were. The numbers of
  -- a day have no gaps, because the times of an account never fall. So they must fit the count.
  (SELECT count(*) FROM sums AS s
   CROSS JOIN LATERAL (
     SELECT transaction_count, first_account_seq, last_account_seq FROM fact_account_day
     WHERE business_date = s.business_date AND account_id = s.account_id OFFSET 0) AS d
   WHERE s.transaction_count > 0
     AND d.last_account_seq - d.first_account_seq + 1 IS DISTINCT FROM d.transaction_count) AS unnumbered_days
FROM changed
