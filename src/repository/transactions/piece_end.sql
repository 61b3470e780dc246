-- name: piece_end
-- Not in the DSL: a query over a query.
SELECT id
FROM (
  SELECT id FROM transactions WHERE id > /* after */ $1 AND id < /* before */ $2 ORDER BY id LIMIT /* count */ $3
) AS piece
ORDER BY id DESC LIMIT 1
