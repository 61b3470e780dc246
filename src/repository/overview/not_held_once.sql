-- name: transactions_not_held_once
SELECT count(*) AS count
FROM unnest(/* ids */ $1) AS acknowledged (id)
WHERE (SELECT count(*) FROM transactions t WHERE t.id = acknowledged.id) <> 1
