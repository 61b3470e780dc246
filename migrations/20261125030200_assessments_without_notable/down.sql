CREATE INDEX CONCURRENTLY risk_assessments_notable ON risk_assessments (transaction_id) WHERE risk_level <> 'low';
