-- name: verify_fact_transactions
-- Not in the DSL: it compares whole tables.
WITH ledger AS (
  -- The transactions of the day with their assessments.
  SELECT t.id, t.account_id, t.account_seq, t.created_at, a.currency, t.amount, t.balance_after,
    t.counterparty, t.description, t.metadata::text AS metadata, t.reverses,
    r.risk_score, r.risk_level, r.ruleset, r.assessed_at
  FROM transactions t
  LEFT JOIN accounts a ON a.account_id = t.account_id
  LEFT JOIN risk_assessments r ON r.account_id = t.account_id AND r.account_seq = t.account_seq
    AND r.transaction_id >= $1 AND r.transaction_id < $2
  WHERE t.id >= /* first id of the day */ $1 AND t.id < /* first id of the next day */ $2
), facts AS (
  -- The facts of the day, with the factor from decimals to minor units.
  SELECT f.*, ('1e' || c.decimals)::numeric AS scale
  FROM fact_transactions f LEFT JOIN currencies c ON c.code = f.currency
  WHERE f.business_date = /* day */ $3
)
SELECT count(*) OVER () AS total,
  'transaction ' || coalesce(l.id, f.transaction_id) || ' of account '
    || coalesce(l.account_id, f.account_id)
    || CASE WHEN l.id IS NULL THEN ' has a fact but is not in the ledger'
            WHEN f.transaction_id IS NULL THEN ' has no fact'
            ELSE ' has a fact that differs: ' || concat_ws(', ',
              pg_temp.verify_difference('day', f.business_date::text, (l.created_at AT TIME ZONE 'UTC')::date::text),
              pg_temp.verify_difference('account', f.account_id, l.account_id),
              pg_temp.verify_difference('number', f.account_seq::text, l.account_seq::text),
              pg_temp.verify_difference('time', f.created_at::text, l.created_at::text),
              pg_temp.verify_difference('hour', f.hour::text,
                                        extract(hour FROM l.created_at AT TIME ZONE 'UTC')::int::text),
              pg_temp.verify_difference('currency', f.currency, l.currency),
              pg_temp.verify_difference('direction', f.direction, CASE WHEN l.amount < 0 THEN 'debit' ELSE 'credit' END),
              pg_temp.verify_difference('signed amount', pg_temp.verify_money(f.signed_amount * f.scale, f.currency),
                                        pg_temp.verify_money(l.amount, l.currency)),
              pg_temp.verify_difference('amount', pg_temp.verify_money(f.amount * f.scale, f.currency),
                                        pg_temp.verify_money(abs(l.amount), l.currency)),
              pg_temp.verify_difference('balance', pg_temp.verify_money(f.balance_after * f.scale, f.currency),
                                        pg_temp.verify_money(l.balance_after, l.currency)),
              pg_temp.verify_difference('counterparty', to_json(f.counterparty)::text, to_json(l.counterparty)::text),
              pg_temp.verify_difference('description', to_json(f.description)::text, to_json(l.description)::text),
              pg_temp.verify_difference('metadata', f.metadata::text, l.metadata),
              pg_temp.verify_difference('reversed transaction', f.reverses::text, l.reverses::text),
              pg_temp.verify_difference('score', f.risk_score::text, l.risk_score::text),
              pg_temp.verify_difference('level', f.risk_level, l.risk_level),
              pg_temp.verify_difference('rule set', f.ruleset, l.ruleset),
              pg_temp.verify_difference('time of the assessment', f.assessed_at::text, l.assessed_at::text)) END AS example
FROM ledger l FULL JOIN facts f ON f.transaction_id = l.id
WHERE l.id IS NULL OR f.transaction_id IS NULL
  OR (l.created_at AT TIME ZONE 'UTC')::date <> f.business_date
  OR (l.account_id, l.account_seq, l.created_at, extract(hour FROM l.created_at AT TIME ZONE 'UTC')::int,
      l.currency, CASE WHEN l.amount < 0 THEN 'debit' ELSE 'credit' END,
      l.amount::numeric, abs(l.amount)::numeric, l.balance_after::numeric,
      l.counterparty, l.description, l.metadata, l.reverses,
      l.risk_score, l.risk_level, l.ruleset, l.assessed_at)
     IS DISTINCT FROM
     (f.account_id, f.account_seq, f.created_at, f.hour::int,
      f.currency, f.direction,
      f.signed_amount * f.scale, f.amount * f.scale, f.balance_after * f.scale,
      f.counterparty, f.description, f.metadata::text, f.reverses,
      f.risk_score, f.risk_level, f.ruleset, f.assessed_at)
ORDER BY coalesce(l.id, f.transaction_id) LIMIT 10
