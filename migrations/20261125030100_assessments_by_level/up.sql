-- Pages of one level, newest first, read this index, however rare the level is. Level low is not rare and needs none.
CREATE INDEX CONCURRENTLY IF NOT EXISTS risk_assessments_by_level ON risk_assessments (risk_level, transaction_id) WHERE risk_level <> 'low';
