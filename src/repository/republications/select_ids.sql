-- name: republish_select_ids
-- Not in the DSL: it fills a temporary table.
INSERT INTO republish_selected
SELECT row_number() OVER (ORDER BY account_id, account_seq), account_id, account_seq
FROM transactions WHERE id = ANY (/* ids */ $1)
