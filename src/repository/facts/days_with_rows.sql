-- name: fact_days_with_rows
-- Not in the DSL: it joins arrays as a table.
-- Each day reads the first entry of a range of an index. EXISTS is not enough: to find one of many rows, the planner scans
-- the table, and reads all of it for a day without rows.
SELECT c.day
FROM unnest(/* days */ $1, /* first ids */ $2, /* first ids of the next days */ $3) AS c (day, begin_id, end_id)
WHERE (SELECT t.id FROM transactions t WHERE t.id >= c.begin_id AND t.id < c.end_id ORDER BY t.id LIMIT 1) IS NOT NULL
   OR (SELECT f.transaction_id FROM fact_transactions f WHERE f.business_date = c.day
       ORDER BY f.business_date, f.transaction_id LIMIT 1) IS NOT NULL
   OR (SELECT f.account_id FROM fact_account_day f WHERE f.business_date = c.day
       ORDER BY f.business_date, f.account_id LIMIT 1) IS NOT NULL
   OR EXISTS (SELECT FROM fact_marks m WHERE m.day = c.day)
ORDER BY c.day
