-- name: highest_scored_assessments
-- Not in the DSL: DISTINCT ON a subquery, and JSON functions.
SELECT account_id, account_seq, risk_score,
       (SELECT coalesce(string_agg(reason ->> 'reason', E'\n'), '')
        FROM json_array_elements(reasons) AS reason) AS reasons
FROM (SELECT DISTINCT ON (account_id) * FROM risk_assessments
      ORDER BY account_id, risk_score DESC, account_seq) AS worst
ORDER BY risk_score DESC, account_id LIMIT /* limit */ $1
