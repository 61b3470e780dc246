-- name: verify_fact_account_days
-- Not in the DSL: it compares whole tables.
WITH sums AS (
  -- Sums, counts and balances of each account's transactions of the day, in minor units.
  SELECT t.account_id, count(*) AS rows,
    count(*) FILTER (WHERE t.amount > 0) AS credits, count(*) FILTER (WHERE t.amount < 0) AS debits,
    coalesce(sum(t.amount) FILTER (WHERE t.amount > 0), 0) AS credit_sum,
    coalesce(-sum(t.amount) FILTER (WHERE t.amount < 0), 0) AS debit_sum,
    (min(ARRAY[t.account_seq, t.balance_after - t.amount]))[2] AS opening,
    (max(ARRAY[t.account_seq, t.balance_after]))[2] AS closing,
    count(r.risk_score) AS assessed, max(r.risk_score) AS max_score,
    count(*) FILTER (WHERE r.risk_level = 'high') AS high
  FROM transactions t
  LEFT JOIN risk_assessments r ON r.account_id = t.account_id AND r.account_seq = t.account_seq
    AND r.transaction_id >= $1 AND r.transaction_id < $2
  WHERE t.id >= /* first id of the day */ $1 AND t.id < /* first id of the next day */ $2
  GROUP BY t.account_id
), ledger AS (
  -- The same with the currency of the account.
  SELECT s.*, a.currency FROM sums s JOIN accounts a ON a.account_id = s.account_id
), facts AS (
  -- The facts of the day, with the factor from decimals to minor units.
  SELECT f.*, ('1e' || c.decimals)::numeric AS scale
  FROM fact_account_day f LEFT JOIN currencies c ON c.code = f.currency
  WHERE f.business_date = /* day */ $3
)
SELECT count(*) OVER () AS total,
  'account ' || coalesce(l.account_id, f.account_id)
    || CASE WHEN l.account_id IS NULL THEN ' has a fact but no transactions on that day'
            WHEN f.account_id IS NULL THEN ' has transactions on that day but no fact'
            ELSE ' has a fact that differs: ' || concat_ws(', ',
              pg_temp.verify_difference('currency', f.currency, l.currency),
              pg_temp.verify_difference('transactions', f.transaction_count::text, l.rows::text),
              pg_temp.verify_difference('credits', f.credit_count::text, l.credits::text),
              pg_temp.verify_difference('debits', f.debit_count::text, l.debits::text),
              pg_temp.verify_difference('sum of credits', pg_temp.verify_money(f.credit_sum * f.scale, f.currency),
                                        pg_temp.verify_money(l.credit_sum, l.currency)),
              pg_temp.verify_difference('sum of debits', pg_temp.verify_money(f.debit_sum * f.scale, f.currency),
                                        pg_temp.verify_money(l.debit_sum, l.currency)),
              pg_temp.verify_difference('opening balance', pg_temp.verify_money(f.opening_balance * f.scale, f.currency),
                                        pg_temp.verify_money(l.opening, l.currency)),
              pg_temp.verify_difference('closing balance', pg_temp.verify_money(f.closing_balance * f.scale, f.currency),
                                        pg_temp.verify_money(l.closing, l.currency)),
              pg_temp.verify_difference('assessed', f.assessed_count::text, l.assessed::text),
              pg_temp.verify_difference('highest score', f.max_risk_score::text, l.max_score::text),
              pg_temp.verify_difference('of level high', f.high_risk_count::text, l.high::text)) END AS example
FROM ledger l FULL JOIN facts f ON f.account_id = l.account_id
WHERE l.account_id IS NULL OR f.account_id IS NULL
  OR (l.currency, l.rows, l.credits, l.debits, l.credit_sum, l.debit_sum,
      l.opening::numeric, l.closing::numeric, l.assessed, l.max_score, l.high)
     IS DISTINCT FROM
     (f.currency, f.transaction_count, f.credit_count, f.debit_count, f.credit_sum * f.scale,
      f.debit_sum * f.scale, f.opening_balance * f.scale, f.closing_balance * f.scale,
      f.assessed_count, f.max_risk_score, f.high_risk_count)
ORDER BY coalesce(l.account_id, f.account_id) LIMIT 10
