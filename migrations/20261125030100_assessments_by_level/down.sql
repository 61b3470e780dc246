DROP INDEX CONCURRENTLY IF EXISTS risk_assessments_by_level;
