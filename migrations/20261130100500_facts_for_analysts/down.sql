DROP VIEW account_balances, risk_by_rule, daily_totals;
DROP INDEX dead_letters_by_event;
ALTER TABLE aggregate_runs DROP COLUMN rows_added, DROP COLUMN rows_changed, DROP COLUMN rows_removed, DROP COLUMN high_risk;
ALTER TABLE fact_transactions DROP COLUMN idempotency_key, DROP COLUMN rules;
