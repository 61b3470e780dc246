-- `risk_assessments_by_level` serves what this one was for.
DROP INDEX CONCURRENTLY risk_assessments_notable;
