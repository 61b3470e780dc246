-- name: transactions_not_held_once
-- Not in the DSL: it joins an array as a table.
SELECT count(*) AS count
FROM unnest(/* ids */ $1) AS acknowledged (id)
WHERE (SELECT count(*) FROM transactions t WHERE t.id = acknowledged.id) <> 1
