-- name: verify_table_counts
-- Not in the DSL: one snapshot of many tables.
SELECT (SELECT count(*) FROM accounts) AS accounts, (SELECT count(*) FROM transactions) AS transactions,
  (SELECT count(*) FROM risk_assessments) AS assessments,
  (SELECT count(*) FROM transactions WHERE reverses IS NOT NULL) AS reversals,
  (SELECT count(*) FROM dead_letters) AS dead_letters, (SELECT count(*) FROM currencies) AS currencies
