-- name: piece_end
-- diesel's DSL cannot query the result of a query.
SELECT id
FROM (
  SELECT id FROM transactions WHERE id > /* after */ $1 AND id < /* before */ $2 ORDER BY id LIMIT /* count */ $3
) AS piece
ORDER BY id DESC LIMIT 1
