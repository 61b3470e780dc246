-- Pages of one level, newest first, are a walk along this index, however rare the level is. What is low is not rare.
CREATE INDEX CONCURRENTLY risk_assessments_by_level ON risk_assessments (risk_level, transaction_id) WHERE risk_level <> 'low';
