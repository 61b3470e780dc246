DROP INDEX CONCURRENTLY IF EXISTS fact_transactions_by_account;
