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
    min(t.account_seq) AS first_seq, max(t.account_seq) AS last_seq,
    count(r.risk_score) AS assessed, max(r.risk_score) AS max_score,
    count(*) FILTER (WHERE r.risk_level = 'high') AS high
  FROM transactions t
  -- OFFSET 0 keeps one probe of an index for each transaction, whatever the statistics say about the day.
  LEFT JOIN LATERAL (
    SELECT risk_score, risk_level FROM risk_assessments
    WHERE transaction_id = t.id AND account_id = t.account_id AND account_seq = t.account_seq OFFSET 0
  ) AS r ON true
  WHERE t.id >= /* first id of the day */ $1 AND t.id < /* first id of the next day */ $2
  GROUP BY t.account_id
), ledger AS (
  -- The same with the currency of the account.
  SELECT s.*, a.currency FROM sums s
  LEFT JOIN LATERAL (SELECT currency FROM accounts WHERE accounts.account_id = s.account_id OFFSET 0) AS a ON true
), facts AS (
  SELECT * FROM fact_account_day WHERE business_date = /* day */ $3
)
SELECT count(*) OVER () AS total,
  json_build_object('account_id', coalesce(l.account_id, f.account_id))::text AS ids,
  'account ' || coalesce(l.account_id, f.account_id)
    || CASE WHEN l.account_id IS NULL THEN ' has a fact but no transactions on that day'
            WHEN f.account_id IS NULL THEN ' has transactions on that day but no fact'
            ELSE ' has a fact that differs: ' || concat_ws(', ',
              pg_temp.verify_difference('currency', f.currency, l.currency),
              pg_temp.verify_difference('transactions', f.transaction_count::text, l.rows::text),
              pg_temp.verify_difference('credits', f.credit_count::text, l.credits::text),
              pg_temp.verify_difference('debits', f.debit_count::text, l.debits::text),
              pg_temp.verify_difference('sum of credits', pg_temp.verify_money(f.credit_sum * u.scale, u.code),
                                        pg_temp.verify_money(l.credit_sum, u.code)),
              pg_temp.verify_difference('sum of debits', pg_temp.verify_money(f.debit_sum * u.scale, u.code),
                                        pg_temp.verify_money(l.debit_sum, u.code)),
              pg_temp.verify_difference('opening balance', pg_temp.verify_money(f.opening_balance * u.scale, u.code),
                                        pg_temp.verify_money(l.opening, u.code)),
              pg_temp.verify_difference('closing balance', pg_temp.verify_money(f.closing_balance * u.scale, u.code),
                                        pg_temp.verify_money(l.closing, u.code)),
              pg_temp.verify_difference('first number', f.first_account_seq::text, l.first_seq::text),
              pg_temp.verify_difference('last number', f.last_account_seq::text, l.last_seq::text),
              pg_temp.verify_difference('assessed', f.assessed_count::text, l.assessed::text),
              pg_temp.verify_difference('highest score', f.max_risk_score::text, l.max_score::text),
              pg_temp.verify_difference('of level high', f.high_risk_count::text, l.high::text)) END AS example
FROM ledger l FULL JOIN facts f ON f.account_id = l.account_id
-- Both amounts of a difference are shown in one currency; `scale` is the factor from decimals to minor units. The two sets
-- of currencies are built once; a join with `currencies` could read all of them for each row.
CROSS JOIN LATERAL (SELECT coalesce(l.currency, f.currency) AS code OFFSET 0) AS k
CROSS JOIN LATERAL (
  SELECT k.code, CASE WHEN k.code IN (SELECT code FROM currencies WHERE decimals = 2) THEN 100
                      WHEN k.code IN (SELECT code FROM currencies WHERE decimals = 0) THEN 1
                      ELSE (SELECT ('1e' || decimals)::numeric FROM currencies WHERE currencies.code = k.code)
                 END AS scale OFFSET 0
) AS u
WHERE l.account_id IS NULL OR f.account_id IS NULL
  OR (l.currency, l.rows, l.credits, l.debits, l.credit_sum, l.debit_sum,
      l.opening::numeric, l.closing::numeric, l.first_seq, l.last_seq, l.assessed, l.max_score, l.high)
     IS DISTINCT FROM
     (f.currency, f.transaction_count, f.credit_count, f.debit_count, f.credit_sum * u.scale,
      f.debit_sum * u.scale, f.opening_balance * u.scale, f.closing_balance * u.scale,
      f.first_account_seq, f.last_account_seq, f.assessed_count, f.max_risk_score, f.high_risk_count)
ORDER BY coalesce(l.account_id, f.account_id) LIMIT pg_temp.verify_examples()
