-- name: scan_assessments
-- diesel's DSL cannot filter the result of a bounded scan. The last row of a full scan is returned even if it does not
-- match: it tells where the next page begins.
WITH
-- The newest 5000 rows of all accounts within the bounds. `is_last` marks the last row of a full scan.
scanned AS (
  SELECT r.*, row_number() OVER (ORDER BY r.transaction_id DESC) = 5000 AS is_last
  FROM risk_assessments r
  WHERE r.transaction_id >= /* from */ $1 AND r.transaction_id < /* before */ $2
  ORDER BY r.transaction_id DESC LIMIT 5000
),
-- Adds to each row whether it matches the filters. A filter that is null matches every row.
checked AS (
  SELECT s.*,
    (SELECT (f.ruleset IS NULL OR s.ruleset = f.ruleset)
        AND (f.level IS NULL OR s.risk_level = f.level)
        AND (f.rule IS NULL OR EXISTS (
               SELECT FROM json_array_elements(s.reasons) AS reason WHERE reason ->> 'rule' = f.rule))
     FROM (SELECT /* rule */ $3::text AS rule,
                  /* ruleset */ $4::text AS ruleset,
                  /* level */ $5::text AS level) AS f) AS matches
  FROM scanned s
)
SELECT transaction_id, account_id, account_seq, risk_score, risk_level, reasons::text AS reasons,
       shadow_reasons::text AS shadow_reasons, rule_errors::text AS rule_errors, ruleset, assessed_at, matches,
       is_last
FROM checked
WHERE matches OR is_last
ORDER BY transaction_id DESC LIMIT /* limit */ $6
