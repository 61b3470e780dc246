CREATE INDEX CONCURRENTLY IF NOT EXISTS risk_assessments_notable ON risk_assessments (transaction_id) WHERE risk_level <> 'low';
