-- name: write_fact_transactions
-- Not in the DSL: an insert from a join, with numeric conversions.
-- The facts as the ledger gives them. Another file continues the statement.
WITH ledger AS (
  -- Minor units become decimals by multiplication, which is exact at any size; a numeric division chooses its own scale.
  SELECT /* day */ $1::date AS business_date, t.id AS transaction_id, t.account_id, t.account_seq, t.created_at,
    extract(hour FROM t.created_at AT TIME ZONE 'UTC')::smallint AS hour,
    a.currency, CASE WHEN t.amount > 0 THEN 'credit' ELSE 'debit' END AS direction,
    abs(t.amount) * c.unit AS amount, t.amount * c.unit AS signed_amount, t.balance_after * c.unit AS balance_after,
    t.counterparty, t.description, t.metadata, t.reverses,
    r.risk_score, r.risk_level, r.ruleset, r.assessed_at, t.idempotency_key,
    CASE r.reasons::text WHEN '[]' THEN '{}'::text[]
      ELSE (SELECT array_agg(reason ->> 'rule') FROM json_array_elements(r.reasons) AS reason) END AS rules
  -- Ranges of ids that do not overlap.
  FROM (SELECT unnest(/* begin_ids */ $2) AS begin_id, unnest(/* end_ids */ $3) AS end_id) AS ids
  CROSS JOIN LATERAL (SELECT * FROM transactions WHERE id >= ids.begin_id AND id < ids.end_id OFFSET 0) AS t
  -- OFFSET 0 keeps one probe of an index for each transaction. The planner knows little about a day that is newer than
  -- the statistics: a join could then read all assessments of the day again for each transaction.
  CROSS JOIN LATERAL (SELECT currency FROM accounts WHERE accounts.account_id = t.account_id OFFSET 0) AS a
  -- The two sets of currencies are built once; a join with `currencies` could read all of them for each row.
  CROSS JOIN LATERAL (
    SELECT CASE WHEN a.currency IN (SELECT code FROM currencies WHERE decimals = 2) THEN 0.01
                WHEN a.currency IN (SELECT code FROM currencies WHERE decimals = 0) THEN 1
                ELSE (SELECT ('1e-' || decimals)::numeric FROM currencies WHERE code = a.currency)
           END AS unit OFFSET 0
  ) AS c
  LEFT JOIN LATERAL (
    SELECT risk_score, risk_level, ruleset, assessed_at, reasons FROM risk_assessments
    WHERE transaction_id = t.id AND account_id = t.account_id AND account_seq = t.account_seq OFFSET 0
  ) AS r ON true
)
