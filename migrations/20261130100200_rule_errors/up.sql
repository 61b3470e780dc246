-- The rules that failed on a transaction, as a JSON array of {rule, mode, error}. Null: no rule failed.
SET LOCAL lock_timeout = '5s';
ALTER TABLE risk_assessments ADD COLUMN rule_errors json;
COMMENT ON COLUMN risk_assessments.rule_errors IS
  'JSON array of {rule, mode, error}, one for each rule that failed and counts as not fired; null if none failed';
