ALTER TABLE risk_assessments DROP COLUMN rule_errors;
