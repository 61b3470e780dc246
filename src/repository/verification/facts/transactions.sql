-- name: verify_fact_transactions
-- Not in the DSL: it compares whole tables.
WITH ledger AS (
  -- The transactions of the day with their assessments.
  SELECT t.id, t.account_id, t.account_seq, t.created_at, a.currency, t.amount, t.balance_after,
    t.counterparty, t.description, t.metadata::text AS metadata, t.reverses,
    r.risk_score, r.risk_level, r.ruleset, r.assessed_at, t.idempotency_key,
    CASE WHEN json_typeof(r.reasons) = 'array'
         THEN ARRAY(SELECT reason ->> 'rule' FROM json_array_elements(r.reasons) AS reason) END AS rules
  FROM transactions t
  -- OFFSET 0 keeps one probe of an index for each transaction, whatever the statistics say about the day.
  LEFT JOIN LATERAL (SELECT currency FROM accounts WHERE accounts.account_id = t.account_id OFFSET 0) AS a ON true
  LEFT JOIN LATERAL (
    SELECT * FROM risk_assessments
    WHERE transaction_id = t.id AND account_id = t.account_id AND account_seq = t.account_seq OFFSET 0
  ) AS r ON true
  WHERE t.id >= /* first id of the day */ $1 AND t.id < /* first id of the next day */ $2
), facts AS (
  SELECT * FROM fact_transactions WHERE business_date = /* day */ $3
)
SELECT count(*) OVER () AS total,
  json_build_object('account_id', coalesce(l.account_id, f.account_id), 'account_seq',
                    coalesce(l.account_seq, f.account_seq), 'transaction_id', coalesce(l.id, f.transaction_id))::text AS ids,
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
              pg_temp.verify_difference('signed amount', pg_temp.verify_money(f.signed_amount * u.scale, u.code),
                                        pg_temp.verify_money(l.amount, u.code)),
              pg_temp.verify_difference('amount', pg_temp.verify_money(f.amount * u.scale, u.code),
                                        pg_temp.verify_money(abs(l.amount), u.code)),
              pg_temp.verify_difference('balance', pg_temp.verify_money(f.balance_after * u.scale, u.code),
                                        pg_temp.verify_money(l.balance_after, u.code)),
              pg_temp.verify_difference('counterparty', to_json(f.counterparty)::text, to_json(l.counterparty)::text),
              pg_temp.verify_difference('description', to_json(f.description)::text, to_json(l.description)::text),
              pg_temp.verify_difference('metadata', f.metadata::text, l.metadata),
              pg_temp.verify_difference('reversed transaction', f.reverses::text, l.reverses::text),
              pg_temp.verify_difference('score', f.risk_score::text, l.risk_score::text),
              pg_temp.verify_difference('level', f.risk_level, l.risk_level),
              pg_temp.verify_difference('rule set', f.ruleset, l.ruleset),
              pg_temp.verify_difference('time of the assessment', f.assessed_at::text, l.assessed_at::text),
              pg_temp.verify_difference('idempotency key', f.idempotency_key, l.idempotency_key),
              pg_temp.verify_difference('rules', f.rules::text, l.rules::text)) END AS example
FROM ledger l FULL JOIN facts f ON f.transaction_id = l.id
-- Both amounts of a difference are shown in one currency; `scale` is the factor from decimals to minor units. The two sets
-- of currencies are built once; a join with `currencies` could read all of them for each row.
CROSS JOIN LATERAL (SELECT coalesce(l.currency, f.currency) AS code OFFSET 0) AS k
CROSS JOIN LATERAL (
  SELECT k.code, CASE WHEN k.code IN (SELECT code FROM currencies WHERE decimals = 2) THEN 100
                      WHEN k.code IN (SELECT code FROM currencies WHERE decimals = 0) THEN 1
                      ELSE (SELECT ('1e' || decimals)::numeric FROM currencies WHERE currencies.code = k.code)
                 END AS scale OFFSET 0
) AS u
WHERE l.id IS NULL OR f.transaction_id IS NULL
  OR (l.created_at AT TIME ZONE 'UTC')::date <> f.business_date
  OR (l.account_id, l.account_seq, l.created_at, extract(hour FROM l.created_at AT TIME ZONE 'UTC')::int,
      l.currency, CASE WHEN l.amount < 0 THEN 'debit' ELSE 'credit' END,
      l.amount::numeric, abs(l.amount)::numeric, l.balance_after::numeric,
      l.counterparty, l.description, l.metadata, l.reverses,
      l.risk_score, l.risk_level, l.ruleset, l.assessed_at, l.idempotency_key, l.rules)
     IS DISTINCT FROM
     (f.account_id, f.account_seq, f.created_at, f.hour::int,
      f.currency, f.direction,
      f.signed_amount * u.scale, f.amount * u.scale, f.balance_after * u.scale,
      f.counterparty, f.description, f.metadata::text, f.reverses,
      f.risk_score, f.risk_level, f.ruleset, f.assessed_at, f.idempotency_key, f.rules)
ORDER BY coalesce(l.id, f.transaction_id) LIMIT pg_temp.verify_examples()
