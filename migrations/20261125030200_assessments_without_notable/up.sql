-- Replaced by `risk_assessments_by_level`.
DROP INDEX CONCURRENTLY risk_assessments_notable;
