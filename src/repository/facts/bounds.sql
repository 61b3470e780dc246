-- name: fact_day_bounds
-- Not in the DSL: a union of the ends of several indexes.
-- The oldest and the newest day with a transaction, a fact or a mark. Each branch reads one end of an index.
SELECT min(day) AS first, max(day) AS last FROM (
  (SELECT (created_at AT TIME ZONE 'UTC')::date AS day FROM transactions ORDER BY id LIMIT 1)
  UNION ALL
  (SELECT (created_at AT TIME ZONE 'UTC')::date FROM transactions ORDER BY id DESC LIMIT 1)
  UNION ALL (SELECT min(business_date) FROM fact_transactions)
  UNION ALL (SELECT max(business_date) FROM fact_transactions)
  UNION ALL (SELECT min(business_date) FROM fact_account_day)
  UNION ALL (SELECT max(business_date) FROM fact_account_day)
  UNION ALL (SELECT min(day) FROM fact_marks)
  UNION ALL (SELECT max(day) FROM fact_marks)) AS ends
