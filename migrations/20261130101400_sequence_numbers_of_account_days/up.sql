-- The first and the last transaction of an account on a day. With them, transactions are added to an account's day without
-- reading the other ones.

SET LOCAL lock_timeout = '10s';

ALTER TABLE fact_account_day
  ADD COLUMN first_account_seq bigint,
  ADD COLUMN last_account_seq bigint;

COMMENT ON COLUMN fact_account_day.first_account_seq IS 'number of the first transaction of the day within the account';
COMMENT ON COLUMN fact_account_day.last_account_seq IS 'number of the last transaction of the day within the account';

-- The facts of these days lack the new columns until `aggregate` has rebuilt them. Finds each day by one probe of the
-- primary key.
INSERT INTO fact_marks (day)
WITH RECURSIVE days AS (
  SELECT (SELECT min(business_date) FROM fact_account_day) AS day
  UNION ALL
  SELECT (SELECT min(business_date) FROM fact_account_day WHERE business_date > days.day)
  FROM days WHERE days.day IS NOT NULL)
SELECT day FROM days WHERE day IS NOT NULL;

-- A suppressed rule does not count.
COMMENT ON COLUMN risk_assessments.reasons IS 'array of {rule, score, reason}: the live rules that fired and are not suppressed';
COMMENT ON COLUMN risk_assessments.shadow_reasons IS 'the same for rules that fired and do not count: rules in shadow mode, and suppressed rules, which also have {suppressed}';
COMMENT ON COLUMN fact_transactions.rules IS 'ids of the live rules that fired and are not suppressed, in the order of the rule file; null until assessed';
