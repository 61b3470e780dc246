-- name: verify_day_state
-- Not in the DSL: one snapshot of many tables.
SELECT EXISTS (SELECT FROM fact_marks WHERE day = /* day */ $1) AS marked,
  (SELECT count(*) FROM fact_transactions WHERE business_date = $1) AS transactions,
  (SELECT count(*) FROM fact_account_day WHERE business_date = $1) AS account_days
