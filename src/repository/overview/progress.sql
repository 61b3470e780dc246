-- name: progress
-- Not in the DSL: one snapshot of many tables.
SELECT (SELECT count(*) FROM transactions) AS transactions,
       (SELECT count(*) FROM accounts WHERE account_seq > 0) AS accounts,
       (SELECT count(*) FROM outbox) AS outbox,
       (SELECT count(*) FROM broker_records) AS records,
       (SELECT count(*) FROM risk_assessments) AS assessed,
       (SELECT count(*) FROM risk_assessments WHERE risk_level = 'high') AS high,
       (SELECT count(*) FROM risk_assessments WHERE risk_level = 'medium') AS medium,
       (SELECT count(*) FROM dead_letters) AS dead_letters,
       (SELECT count(*) FROM fact_transactions) AS facts
