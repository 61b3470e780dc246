DROP TABLE aggregate_runs;
DROP TABLE fact_account_day;
DROP TABLE fact_transactions;
DROP TABLE risk_assessments;
