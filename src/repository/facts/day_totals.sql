-- name: fact_day_totals
-- Not in the DSL: sums of bigint are numeric.
SELECT coalesce(sum(transaction_count), 0)::bigint AS transactions, coalesce(sum(high_risk_count), 0)::bigint AS high_risk
FROM fact_account_day WHERE business_date = /* day */ $1
