-- name: republish_select_range
-- Not in the DSL: it fills a temporary table.
INSERT INTO republish_selected
SELECT row_number() OVER (ORDER BY account_id, account_seq), account_id, account_seq
FROM transactions
WHERE (/* account_id */ $1 IS NULL OR account_id = $1) AND id >= /* from */ $2 AND id < /* before */ $3
