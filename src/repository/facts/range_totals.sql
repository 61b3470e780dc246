-- name: fact_range_totals
-- Not in the DSL: it joins arrays as a table.
-- The facts of ranges of ids, and those of level high among them.
SELECT count(*) AS transactions, count(*) FILTER (WHERE f.risk_level = 'high') AS high_risk
FROM (SELECT unnest(/* begin_ids */ $2) AS begin_id, unnest(/* end_ids */ $3) AS end_id) AS ids
CROSS JOIN LATERAL (
  SELECT risk_level FROM fact_transactions
  WHERE business_date = /* day */ $1 AND transaction_id >= ids.begin_id AND transaction_id < ids.end_id OFFSET 0
) AS f
