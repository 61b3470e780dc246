-- Replaced by `risk_assessments_by_level`.
DROP INDEX CONCURRENTLY IF EXISTS risk_assessments_notable;
