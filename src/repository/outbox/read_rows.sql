-- name: read_outbox_rows
-- Not in the DSL: it joins arrays as a table, in their order.
SELECT o.* FROM unnest(/* lanes */ $1, /* ids */ $2) WITH ORDINALITY AS a (lane, id, position)
JOIN outbox o ON o.lane = a.lane AND o.id = a.id ORDER BY a.position
