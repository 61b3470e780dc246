-- name: fact_day_previews
-- Not in the DSL: it joins arrays as a table.
-- The numbers of marks, transactions and facts of each day.
SELECT c.day,
  (SELECT count(*) FROM fact_marks m WHERE m.day = c.day) AS marks,
  (SELECT count(*) FROM transactions t WHERE t.id >= c.begin_id AND t.id < c.end_id) AS transactions,
  (SELECT count(*) FROM fact_transactions f WHERE f.business_date = c.day) AS facts
FROM unnest(/* days */ $1, /* first ids */ $2, /* first ids of the next days */ $3) AS c (day, begin_id, end_id)
ORDER BY c.day
