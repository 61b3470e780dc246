-- name: verify_duplicate_assessments
SELECT count(*) OVER () AS total,
  'account ' || account_id || ' row ' || account_seq || ' has ' || count(*) || ' assessments' AS example
FROM risk_assessments GROUP BY account_id, account_seq HAVING count(*) > 1
ORDER BY account_id, account_seq LIMIT 10
