-- name: fact_days_with_rows
-- Not in the DSL: it joins arrays as a table.
SELECT c.day
FROM unnest(/* days */ $1, /* first ids */ $2, /* first ids of the next days */ $3) AS c (day, begin_id, end_id)
WHERE EXISTS (SELECT FROM transactions t WHERE t.id >= c.begin_id AND t.id < c.end_id)
   OR EXISTS (SELECT FROM fact_transactions f WHERE f.business_date = c.day)
   OR EXISTS (SELECT FROM fact_account_day f WHERE f.business_date = c.day)
   OR EXISTS (SELECT FROM fact_marks m WHERE m.day = c.day)
ORDER BY c.day
