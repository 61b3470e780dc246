-- name: scan_transactions_of_level
-- diesel's DSL cannot filter the result of a bounded scan. The last row of a full scan is returned even if it does not
-- match: it tells where the next page begins.
WITH
-- The newest 5000 transactions of a level other than `low` within the bounds, along the index of assessments by level.
-- `is_last` marks the last row of a full scan. The literal 'low' lets the planner use that partial index.
scanned AS (
  SELECT t.*, r.transaction_id, row_number() OVER (ORDER BY r.transaction_id DESC) = 5000 AS is_last
  FROM risk_assessments r
  CROSS JOIN LATERAL (
    SELECT * FROM transactions WHERE account_id = r.account_id AND account_seq = r.account_seq OFFSET 0
  ) AS t
  WHERE r.risk_level = /* level */ $1 AND r.risk_level <> 'low'
    AND r.transaction_id >= /* from */ $2 AND r.transaction_id < /* before */ $3
  ORDER BY r.transaction_id DESC LIMIT 5000
),
-- Adds to each row whether it matches the filters. A filter that is null (`sign`: 0) matches every row. The two sets of
-- currencies are built once; a join with `currencies` for each row costs ten times as much.
checked AS (
  SELECT s.*, coalesce(
    (SELECT (f.sign = 0 OR sign(s.amount) = f.sign)
       AND (f.least IS NULL AND f.greatest IS NULL OR
            (SELECT (f.least IS NULL OR abs(s.amount) >= f.least * u.minor_units)
                AND (f.greatest IS NULL OR abs(s.amount) <= f.greatest * u.minor_units)
             FROM (SELECT CASE WHEN a.currency IN (SELECT code FROM currencies WHERE decimals = 2) THEN 100
                               WHEN a.currency IN (SELECT code FROM currencies WHERE decimals = 0) THEN 1
                               ELSE (SELECT 10::numeric ^ decimals FROM currencies WHERE code = a.currency)
                          END AS minor_units
                   FROM accounts a WHERE a.account_id = s.account_id OFFSET 0) u))
     FROM (SELECT /* sign */ $4::smallint AS sign,
                  /* least */ $5::numeric AS least,
                  /* greatest */ $6::numeric AS greatest) AS f),
    false) AS matches
  FROM scanned s
)
-- OFFSET 0 keeps one probe of `accounts` for each row of the page; without it, the planner could hash the whole range.
SELECT c.account_id, a.currency, c.account_seq, c.id, c.amount, c.balance_after, c.created_at, c.reverses,
       c.idempotency_key, c.counterparty, c.description, c.metadata::text AS metadata, c.matches, c.is_last
FROM checked c
CROSS JOIN LATERAL (SELECT currency FROM accounts WHERE accounts.account_id = c.account_id OFFSET 0) AS a
WHERE c.matches OR c.is_last
ORDER BY c.transaction_id DESC LIMIT /* limit */ $7
