-- name: republish_selected
-- Not in the DSL: it reads a temporary table.
SELECT count(*) AS transactions, count(DISTINCT account_id) AS accounts FROM republish_selected
