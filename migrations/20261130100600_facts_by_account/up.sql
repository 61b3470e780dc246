-- Facts of one account, by day.
CREATE INDEX CONCURRENTLY IF NOT EXISTS fact_transactions_by_account ON fact_transactions (account_id, business_date);
